//! What the tests share: a project in a directory of its own, the binary, and what to do when a right is missing.
#![allow(dead_code, reason = "each area uses its own part")]

pub mod authority;
pub mod http;
pub mod mock;
pub mod registry;
pub mod served;
pub mod user;

pub use registry::free_port;
pub use user::User;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A project directory with an engine state directory of its own; both go with the value, and all that ran in them.
pub struct Project {
    directory: tempfile::TempDir,
    state: tempfile::TempDir,
    inside: PathBuf,
    environment: BTreeMap<String, String>,
    user: Option<User>,
}

impl Project {
    /// Creates a project whose files are `(path, text)` pairs. With `COMPOSE_TEST_USER` set its commands run as that user.
    pub fn new(files: &[(&str, &str)]) -> Self {
        Self::of(User::of_environment(), files)
    }

    /// Creates a project of a plain user's, who owns its files and runs its commands.
    pub fn of(user: Option<User>, files: &[(&str, &str)]) -> Self {
        // Short paths: a unix socket's address has room for 107 bytes.
        let directory = tempfile::Builder::new()
            .prefix("cp")
            .tempdir_in("/tmp")
            .expect("a directory in /tmp");
        let state = tempfile::Builder::new()
            .prefix("cs")
            .tempdir_in("/tmp")
            .expect("a directory in /tmp");
        let inside = directory.path().to_owned();
        if let Some(user) = user {
            user.own(directory.path());
            user.own(state.path());
        }
        let project = Self {
            directory,
            state,
            inside,
            environment: BTreeMap::new(),
            user,
        };
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

    /// Runs later commands in a directory below the project's.
    pub fn enter(&mut self, directory: &str) {
        self.inside = self.directory.path().join(directory);
    }

    /// Sets a variable for later commands.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.insert(name.to_owned(), value.to_owned());
    }

    /// Writes or replaces a file of the project.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("a directory of the project");
        }
        std::fs::write(&path, text).expect("a file of the project");
        if let Some(user) = self.user {
            for made in path.ancestors().take_while(|made| *made != self.path()) {
                user.own(made);
            }
        }
    }

    /// Returns the binary, ready to run in the project with an environment of its own.
    pub fn compose(&self, arguments: &[&str]) -> Command {
        let mut command = match self.user {
            Some(user) => user.command(),
            None => Command::new(binary()),
        };
        command
            .args(arguments)
            .current_dir(&self.inside)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("COMPOSE_STATE_DIR", self.state_dir())
            .envs(&self.environment)
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary in the project and returns what it said.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.compose(arguments).output().expect("the binary runs")
    }

    /// Runs the binary, which must succeed, and returns its standard output.
    #[track_caller]
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "compose {arguments:?}: {}\n{}{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Runs the binary, which must fail, and returns its standard error.
    #[track_caller]
    pub fn fail(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            !output.status.success(),
            "compose {arguments:?} succeeded\n{}",
            text(&output.stdout)
        );
        text(&output.stderr)
    }

    /// Runs Docker's own client on the project's engine and returns its standard output.
    #[track_caller]
    pub fn docker(&self, arguments: &[&str]) -> String {
        docker_at(
            &format!("unix://{}", self.state_dir().join("engine.sock").display()),
            arguments,
        )
    }

    /// Returns the process id of the project's engine, if one was started.
    pub fn engine_pid(&self) -> Option<rustix::process::Pid> {
        let pid = std::fs::read_to_string(self.state_dir().join("engine.lock")).ok()?;
        rustix::process::Pid::from_raw(pid.trim().parse().ok()?)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if !self.state_dir().join("engine.sock").exists() {
            return;
        }
        // Whatever the test left: containers, also one-off ones that `down` leaves alone, their networks, then the engine.
        let socket = format!("unix://{}", self.state_dir().join("engine.sock").display());
        let docker = |arguments: &[&str]| {
            let output = Command::new("docker")
                .args(["-H", &socket])
                .args(arguments)
                .stdin(Stdio::null())
                .output();
            output.map(|output| text(&output.stdout)).unwrap_or_default()
        };
        // A killed engine is started anew by the first command, and has its containers again.
        self.run(&["ls"]);
        let containers = docker(&["ps", "-aq"]);
        if !containers.is_empty() {
            let ids: Vec<&str> = ["rm", "-f", "-v"]
                .into_iter()
                .chain(containers.split_whitespace())
                .collect();
            docker(&ids);
        }
        docker(&["network", "prune", "-f"]);
        if let Some(pid) = self.engine_pid() {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            for _ in 0..200 {
                if rustix::process::test_kill_process(pid).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Runs Docker's own client on the engine at an address and returns its standard output.
#[track_caller]
pub fn docker_at(address: &str, arguments: &[&str]) -> String {
    let output = Command::new("docker")
        .args(["-H", address])
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.expect("the docker client is installed");
    assert!(
        output.status.success(),
        "docker {arguments:?}: {}{}",
        output.status,
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Moves this thread, and all that it starts, into a network namespace that has loopback with these addresses.
pub fn own_network(addresses: &[&str]) {
    // SAFETY: only the network namespace of this thread changes; no file descriptor or memory is shared less.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("a network namespace");
    let ip = |arguments: &[&str]| {
        let status = Command::new("ip")
            .args(arguments)
            .status()
            .expect("iproute2 is installed");
        assert!(status.success(), "ip {arguments:?}");
    };
    ip(&["link", "set", "lo", "up"]);
    for address in addresses {
        ip(&["address", "add", address, "dev", "lo"]);
    }
}

/// Returns the path of the binary under test.
pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_compose"))
}

/// Returns the directory where `tests/setup.sh` keeps what it makes.
pub fn cache_directory() -> PathBuf {
    let given = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let base = || given("XDG_CACHE_HOME").or_else(|| Some(given("HOME")?.join(".cache")));
    given("COMPOSE_TEST_CACHE")
        .or_else(|| Some(base()?.join("compose-tests")))
        .unwrap_or_default()
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

/// Returns how far a test goes: as far as every run has time for, or as far as it should go once after a change of what
/// it is about (`COMPOSE_TEST_LONG` set).
pub fn extent<T>(short: T, long: T) -> T {
    match std::env::var_os("COMPOSE_TEST_LONG") {
        None => short,
        Some(_) => long,
    }
}

/// Returns whether this process may make containers.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns a stream of the output as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Puts `busybox:latest`, made of the machine's static busybox, into the project's engine.
pub fn busybox(project: &Project) {
    let image = project.path().join(".busybox");
    std::fs::create_dir_all(&image).expect("a build context");
    std::fs::copy("/bin/busybox", image.join("busybox")).expect("busybox-static is installed");
    let dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nCMD [\"sh\"]\n";
    project.write(".busybox/Dockerfile", dockerfile);
    project.write(
        ".busybox/compose.yaml",
        "services:\n  image:\n    build: {context: ., network: none}\n    image: busybox:latest\n",
    );
    project.succeed(&[
        "-f",
        &image.join("compose.yaml").to_string_lossy(),
        "-p",
        "busybox",
        "build",
    ]);
}

/// Returns whether `/bin/busybox` is there and needs no other file: no segment of it names an interpreter.
pub fn has_busybox() -> bool {
    let program = std::fs::read("/bin/busybox").unwrap_or_default();
    let number = |at: usize, length: usize| {
        let bytes = program.get(at..at + length).unwrap_or_default();
        bytes
            .iter()
            .rev()
            .fold(0, |number, &byte| number << 8 | usize::from(byte))
    };
    // The program headers of a 64-bit ELF file: where, how long each, how many; type 3 is PT_INTERP.
    let (start, length, count) = (number(32, 8), number(54, 2), number(56, 2));
    count > 0 && (0..count).all(|index| number(start + index * length, 4) != 3)
}

/// Returns every path at and below a directory, and the content of what is no directory. Links to directories are not
/// followed.
pub fn below(directory: &Path) -> BTreeMap<PathBuf, Option<String>> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let kind = path.symlink_metadata().expect("it is there").file_type();
        let content = match kind.is_dir() {
            true => {
                left.extend(path.read_dir().expect("entries").flatten().map(|entry| entry.path()));
                None
            }
            false => Some(text(&std::fs::read(&path).unwrap_or_default())),
        };
        found.insert(path, content);
    }
    found
}
