//! What the tests share: a project in a directory of its own, the binary, and what to do when a right is missing.
#![allow(dead_code, reason = "each area uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A project directory with an engine state directory of its own; both go with the value.
pub struct Project {
    directory: tempfile::TempDir,
    state: tempfile::TempDir,
}

impl Project {
    /// Creates a project whose files are `(path, text)` pairs.
    pub fn new(files: &[(&str, &str)]) -> Self {
        // Short paths: a unix socket's address has room for 107 bytes.
        let directory = tempfile::Builder::new()
            .prefix("cp")
            .tempdir_in("/tmp")
            .expect("a directory in /tmp");
        let state = tempfile::Builder::new()
            .prefix("cs")
            .tempdir_in("/tmp")
            .expect("a directory in /tmp");
        let project = Self { directory, state };
        for (path, text) in files {
            project.write(path, text);
        }
        project
    }

    /// Returns the directory that holds the project's files.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the directory of the project's own engine.
    pub fn state_dir(&self) -> &Path {
        self.state.path()
    }

    /// Writes or replaces a file of the project.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("a directory of the project");
        }
        std::fs::write(path, text).expect("a file of the project");
    }

    /// Returns the binary, ready to run in the project with an environment of its own.
    pub fn compose(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("COMPOSE_STATE_DIR", self.state_dir())
            .stdin(std::process::Stdio::null());
        command
    }

    /// Runs the binary in the project and returns what it said.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.compose(arguments).output().expect("the binary runs")
    }
}

/// Returns the path of the binary under test.
pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_compose"))
}

/// Returns whether a test that needs `what` may run. Where it may not, the test skips loudly, and fails under CI.
pub fn available(what: &str, is_there: bool) -> bool {
    if !is_there {
        assert!(
            std::env::var_os("CI").is_none(),
            "{what} is missing, and CI must not skip"
        );
        eprintln!("SKIPPED: {what} is missing");
    }
    is_there
}

/// Returns whether this process may make containers.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns a stream of the output as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
