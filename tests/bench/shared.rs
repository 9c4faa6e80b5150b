//! What benches have in common: the sides of a comparison, an engine of the bench's own, and what processes hold.
#![allow(dead_code, reason = "no bench uses all of it")]
#![allow(clippy::print_stderr, reason = "a bench says what it does not measure")]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Pid;

/// One side of the comparison.
pub struct Side {
    pub name: &'static str,
    pub command: Vec<String>,
    /// The state directory of an engine of the bench's own.
    pub state: Option<PathBuf>,
    /// The user and group that run the command, if not the bench's own.
    pub user: Option<(u32, u32)>,
}

impl Side {
    /// Our side, with an engine of its own.
    pub fn ours(state: &Path) -> Self {
        Self {
            name: "compose",
            command: vec![env!("CARGO_BIN_EXE_compose").to_owned()],
            state: Some(state.to_owned()),
            user: None,
        }
    }

    /// The side that `COMPOSE_BENCH_PEER` names; says so if it names none.
    pub fn peer() -> Option<Self> {
        let Ok(peer) = std::env::var("COMPOSE_BENCH_PEER") else {
            eprintln!("COMPOSE_BENCH_PEER is not set: only our own figures are measured");
            return None;
        };
        Some(Self {
            name: "peer",
            command: peer.split_whitespace().map(str::to_owned).collect(),
            state: None,
            user: None,
        })
    }

    pub fn command(&self, directory: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null());
        if let Some(state) = &self.state {
            command
                .env("COMPOSE_STATE_DIR", state)
                .env("COMPOSE_ENGINE", "embedded");
        }
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Runs a command that says nothing of its progress, and must succeed.
    pub fn run(&self, directory: &Path, arguments: &[&str]) -> Output {
        let mut command = self.command(directory, arguments);
        let output = command.env("COMPOSE_PROGRESS", "quiet").output();
        let output = output.expect("the command runs");
        assert!(
            output.status.success(),
            "{} {arguments:?}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    /// Builds `busybox:latest` from the machine's static busybox.
    pub fn load_busybox(&self, work: &Path) {
        let directory = work.join("image");
        std::fs::create_dir_all(&directory).expect("a build context");
        std::fs::copy("/bin/busybox", directory.join("busybox")).expect("busybox-static is installed");
        let dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nCMD [\"sh\"]\n";
        std::fs::write(directory.join("Dockerfile"), dockerfile).expect("a Dockerfile");
        let file = "services:\n  image:\n    build: .\n    image: busybox:latest\n";
        std::fs::write(directory.join("compose.yaml"), file).expect("a project file");
        self.run(&directory, &["build"]);
    }
}

/// Returns the user that `COMPOSE_BENCH_USER` names.
pub fn user() -> Option<(u32, u32)> {
    let text = std::env::var("COMPOSE_BENCH_USER").ok()?;
    let ids = text
        .split_once(':')
        .and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    Some(ids.expect("COMPOSE_BENCH_USER is UID:GID"))
}

/// Makes a directory with a short path, which a socket's address has room for.
pub fn temporary(prefix: &str) -> tempfile::TempDir {
    let directory = tempfile::Builder::new().prefix(prefix).tempdir_in("/tmp");
    directory.expect("a directory in /tmp")
}

/// Returns the process that is the engine of a state directory.
pub fn engine(state: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(state.join("engine.lock")).ok()?;
    Pid::from_raw(text.trim().parse().ok()?)
}

/// Ends the bench's own engine.
pub fn stop_engine(state: &Path) {
    let Some(pid) = engine(state) else { return };
    // It may have ended by itself.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    for _ in 0..200 {
        if rustix::process::test_kill_process(pid).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the processes whose parents are among these.
pub fn children(parents: &[u32]) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name, in brackets, may hold anything.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let entries = std::fs::read_dir("/proc").expect("procfs").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent(*pid).is_some_and(|parent| parents.contains(&parent)))
        .collect()
}

/// Returns a process's memory in kB, each page divided by how many processes share it.
pub fn proportional_set_size(pid: u32) -> Option<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Returns the median and how it is shown, with the best in brackets.
pub fn summary(times: &mut [Duration]) -> (Duration, String) {
    times.sort();
    let median = times[times.len() / 2];
    let show = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    (median, format!("{} ms [{}]", show(median), show(times[0])))
}

/// Returns the arguments that name scenarios; those that cargo adds are flags.
pub fn wanted() -> Vec<String> {
    std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect()
}
