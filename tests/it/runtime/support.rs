//! A container from a busybox root file system, one line per step.
#![allow(dead_code, reason = "each area uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use compose::runtime::{
    AttachOptions, Container, ExecSpec, ExitRecord, Launch, Log, Root, Runtime, RuntimeConfig, RuntimeError, spec,
};
use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::{available, binary, is_root};

/// The name of these tests' cgroups.
pub fn instance() -> String {
    format!("test-{}", std::process::id())
}

/// Returns the runtime all tests of this process share, where the rights for it are there.
pub fn runtime() -> Option<&'static Runtime> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            let there = available("root", is_root()) && available("a static busybox at /bin/busybox", busybox());
            there.then(|| Runtime::open_with_program(config(Path::new("/tmp")), binary()).expect("a runtime"))
        })
        .as_ref()
}

/// Returns the settings of these tests' runtimes.
pub fn config(dir: &Path) -> RuntimeConfig {
    RuntimeConfig {
        state_dir: dir.to_owned(),
        run_dir: dir.to_owned(),
        instance: instance(),
    }
}

/// Returns whether busybox needs no dynamic loader, which the root file system has not.
fn busybox() -> bool {
    let Ok(program) = fs::read("/bin/busybox") else {
        return false;
    };
    let number = |at: usize, size: usize| {
        program[at..at + size]
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let (headers, size, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
    const INTERPRETER: usize = 3;
    (0..count).all(|index| number(headers + index * size, 4) != INTERPRETER)
}

/// A place for one container.
pub struct Box {
    pub dir: tempfile::TempDir,
    pub id: String,
}

impl Box {
    /// Makes a root file system of busybox and an empty writable layer.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("cr")
            .tempdir_in("/tmp")
            .expect("a directory");
        let id = format!(
            "{:0>64x}",
            dir.path().to_str().expect("UTF-8").bytes().fold(7_u128, |hash, byte| {
                hash.wrapping_mul(0x1000_0000_01B3) ^ u128::from(byte)
            })
        );
        let this = Self { dir, id };
        let root = this.lower();
        for directory in ["bin", "etc", "tmp", "root", "home"] {
            fs::create_dir_all(root.join(directory)).expect("a directory of the root");
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox");
        for applet in APPLETS {
            let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(applet));
        }
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/home:/bin/sh\n",
        )
        .expect("passwd");
        fs::write(root.join("etc/group"), "root:x:0:\nweb:x:34:\nlogs:x:50:web\n").expect("group");
        for layer in ["upper", "work"] {
            fs::create_dir_all(this.path(layer)).expect("a layer");
        }
        this
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn lower(&self) -> PathBuf {
        self.path("lower")
    }

    pub fn root(&self) -> Root {
        Root::Overlay {
            lower: vec![self.lower()],
            upper: self.path("upper"),
            work: self.path("work"),
        }
    }

    /// Returns a launch of a shell command, its output in `log`.
    pub fn launch(&self, command: &str) -> Launch {
        let mut spec = spec::default_spec();
        set_command(&mut spec, &["sh", "-c", command]);
        let mut launch = Launch::new(self.id.clone(), self.path("c"), spec, self.root());
        launch.log = Log::JsonFile {
            path: self.path("log"),
            max_size: None,
            max_files: 1,
        };
        launch
    }

    /// Runs a shell command to its end and returns how it ended and what it printed.
    pub async fn run(&self, command: &str) -> (ExitRecord, String) {
        self.run_launch(self.launch(command))
            .await
            .expect("the container starts")
    }

    /// Runs a launch to its end.
    pub async fn run_launch(&self, launch: Launch) -> Result<(ExitRecord, String), RuntimeError> {
        let container = runtime().expect("checked").start(launch).await?;
        let record = within(container.wait()).await;
        Ok((record, self.log()))
    }

    /// Waits until the log has the text.
    pub async fn wait_for(&self, text: &str) {
        within(async {
            while !self.log().contains(text) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Returns the logged text, all streams together.
    pub fn log(&self) -> String {
        self.entries().into_iter().map(|(_, text)| text).collect()
    }

    /// Returns the logged entries: stream and text.
    pub fn entries(&self) -> Vec<(String, String)> {
        fs::read_to_string(self.path("log"))
            .unwrap_or_default()
            .lines()
            .map(|line| {
                let entry: serde_json::Value = serde_json::from_str(line).expect("a log entry");
                let text = |name: &str| entry[name].as_str().expect("a text").to_owned();
                (text("stream"), text("log"))
            })
            .collect()
    }
}

const APPLETS: [&str; 34] = [
    "sh", "cat", "echo", "ls", "sleep", "true", "false", "kill", "id", "mount", "grep", "hostname", "stat", "head",
    "dd", "env", "pwd", "ps", "touch", "mkdir", "tail", "stty", "tty", "readlink", "rm", "mknod", "unshare", "ip",
    "seq", "wc", "sort", "cut", "chown", "ulimit",
];

/// Waits, but not for ever.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("it happens in time")
}

pub fn set_command(spec: &mut Spec, command: &[&str]) {
    if let Some(process) = spec.process_mut() {
        process.set_args(Some(command.iter().map(|word| (*word).to_owned()).collect()));
    }
}

pub fn change_process(launch: &mut Launch, change: impl FnOnce(&mut Process)) {
    change(launch.spec.process_mut().as_mut().expect("a process"));
}

/// Gives the container the host's namespace of a kind.
pub fn share(launch: &mut Launch, kind: LinuxNamespaceType) {
    spec::set_namespace(&mut launch.spec, kind, None);
}

/// Reads `Key:\tvalue` lines.
pub fn status(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

/// Runs a command in a container and returns its exit code and output.
pub async fn exec(container: &Container, command: &[&str]) -> (i32, String) {
    let mut exec = container.exec(exec_spec(command)).await.expect("the process starts");
    let mut bytes = Vec::new();
    within(exec.stream.read_to_end(&mut bytes)).await.expect("its output");
    let code = within(exec.wait()).await;
    (code, frames(&bytes).into_iter().map(|(_, text)| text).collect())
}

pub fn exec_spec(command: &[&str]) -> ExecSpec {
    let mut process = spec::default_process();
    process.set_args(Some(command.iter().map(|word| (*word).to_owned()).collect()));
    ExecSpec::new(process)
}

/// Splits Docker's frames: stream and text.
pub fn frames(mut bytes: &[u8]) -> Vec<(u8, String)> {
    let mut frames = Vec::new();
    while bytes.len() >= 8 {
        let length = u32::from_be_bytes(bytes[4..8].try_into().expect("four bytes")) as usize;
        frames.push((bytes[0], String::from_utf8_lossy(&bytes[8..8 + length]).into_owned()));
        bytes = &bytes[8 + length..];
    }
    assert!(bytes.is_empty(), "a torn frame");
    frames
}

pub const ALL: AttachOptions = AttachOptions {
    stdin: true,
    stdout: true,
    stderr: true,
};

/// Reads until the text is there.
pub async fn read_until(stream: &mut UnixStream, wanted: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(wanted) {
        let count = within(stream.read(&mut buffer)).await.expect("output");
        assert!(count > 0, "the stream ended after {text:?}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    text
}

pub async fn write(stream: &mut UnixStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("input is taken");
}

pub fn kill(process: u32) {
    let process = rustix::process::Pid::from_raw(process.cast_signed()).expect("a process");
    rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("a signal is sent");
}

/// Waits until a process is no more, or waits only for its parent to hear of its end.
pub async fn wait_gone(process: u32) {
    within(async {
        while fs::read_to_string(format!("/proc/{process}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Asserts that no cgroup of the container is left.
pub async fn assert_clean(place: &Box) {
    let Ok(hierarchies) = fs::read_dir("/sys/fs/cgroup") else {
        return;
    };
    let parent = format!("compose-{}", instance());
    for hierarchy in hierarchies.flatten() {
        for path in [
            hierarchy.path().join(&parent).join(&place.id),
            Path::new("/sys/fs/cgroup").join(&parent).join(&place.id),
        ] {
            assert!(!path.exists(), "{} is left", path.display());
        }
    }
}
