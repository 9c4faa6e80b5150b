//! What the engine asks for: a container to start, a process to run in one, a stream to attach to.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::{LinuxSeccomp, Process, Spec};
use serde::{Deserialize, Serialize};

use crate::runtime::time::Timestamp;

/// Where this engine's containers live.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// The engine's state directory.
    pub state_dir: PathBuf,
    /// Where sockets and the like may lie.
    pub run_dir: PathBuf,
    /// The engine's short name: its cgroups lie below `compose-<instance>`.
    pub instance: String,
}

/// A container to start.
#[derive(Debug)]
pub struct Launch {
    /// The container's id.
    pub id: String,
    /// The container's own directory: the shim's socket, lock and exit record lie there.
    pub dir: PathBuf,
    /// What to run, and in what surroundings. `process.user.username`, where set, is a user as Docker writes it
    /// (`name`, `1000:1000`, `name:group`) and is looked up in the container's own `/etc/passwd` and `/etc/group`.
    pub spec: Spec,
    /// The root file system.
    pub root: Root,
    /// Groups to add, by name or number, looked up in the container's own `/etc/group`.
    pub groups: Vec<String>,
    /// The system call filter; one in `spec.linux.seccomp` comes first.
    pub seccomp: Seccomp,
    /// The cgroup to make the container's in, instead of the engine's own; relative to the hierarchies' roots.
    pub cgroup_parent: Option<String>,
    /// Whether the process has a standard input that stays open.
    pub stdin_open: bool,
    /// Whether the standard input ends with the first one attached to it.
    pub stdin_once: bool,
    /// What becomes of the output.
    pub log: Log,
    /// Where the output goes besides.
    pub forward: Option<Forward>,
    /// Whether process 1 is our own, which forwards signals and reaps, rather than the user's.
    pub init: bool,
    /// The network namespace to join.
    pub netns: Option<OwnedFd>,
    /// The user namespace to join, of which `spec.linux` has the mappings.
    pub userns: Option<OwnedFd>,
    /// Descriptors to keep for the engine, which asks for them back after a restart.
    pub fds: Vec<(String, OwnedFd)>,
    /// Streams to attach before the process says its first word.
    pub attached: Vec<(AttachOptions, OwnedFd)>,
    /// How to bring the engine back.
    pub engine_respawn: Option<Respawn>,
}

impl Launch {
    /// Returns a launch with Docker's defaults: its seccomp profile, no standard input, no log.
    pub fn new(id: impl Into<String>, dir: impl Into<PathBuf>, spec: Spec, root: Root) -> Self {
        Self {
            id: id.into(),
            dir: dir.into(),
            spec,
            root,
            groups: Vec::new(),
            seccomp: Seccomp::Default,
            cgroup_parent: None,
            stdin_open: false,
            stdin_once: false,
            log: Log::None,
            forward: None,
            init: false,
            netns: None,
            userns: None,
            fds: Vec::new(),
            attached: Vec::new(),
            engine_respawn: None,
        }
    }
}

/// A root file system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Root {
    /// Read-only layers below a writable one.
    Overlay {
        /// The layers, top first.
        lower: Vec<PathBuf>,
        /// What the container wrote.
        upper: PathBuf,
        /// Overlayfs's own directory, beside `upper`.
        work: PathBuf,
    },
    /// A directory, written to directly.
    Directory(PathBuf),
}

/// A system call filter.
#[derive(Clone, Debug, Default)]
pub enum Seccomp {
    /// Docker's default profile, as the container's capabilities widen it.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// Another profile.
    Profile(Box<LinuxSeccomp>),
}

/// What becomes of a container's output.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum Log {
    /// Nothing is kept.
    #[default]
    None,
    /// Docker's `json-file`.
    JsonFile {
        /// The file; older ones get `.1`, `.2` … appended.
        path: PathBuf,
        /// The size at which a new file begins.
        max_size: Option<u64>,
        /// How many files there are at most, the current one counted.
        max_files: u32,
    },
}

/// Who else hears a container's output, line by line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Forward {
    /// A syslog daemon.
    Syslog {
        /// Where it listens.
        address: SyslogAddress,
        /// What a line is wrapped in.
        format: SyslogFormat,
        /// Its number.
        facility: u8,
        /// What lines are known by.
        tag: String,
    },
    /// The journal.
    Journald {
        /// The fields that every entry has.
        fields: Vec<(String, String)>,
    },
}

/// Where a syslog daemon listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyslogAddress {
    /// At the machine's usual place.
    Local,
    /// At a stream socket.
    Unix(PathBuf),
    /// At a datagram socket.
    Unixgram(PathBuf),
    /// At a UDP port.
    Udp(SocketAddr),
    /// At a TCP port.
    Tcp(SocketAddr),
}

/// What a line is wrapped in on its way to a syslog daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyslogFormat {
    /// As the C library does it: without the machine's name.
    Unix,
    /// RFC 3164.
    Rfc3164,
    /// RFC 5424, to the second.
    Rfc5424,
    /// RFC 5424, to the microsecond.
    Rfc5424Micro,
}

/// How to start the engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Respawn {
    /// The program and its arguments. Where the program is gone, the shim's own copy of it is used.
    pub argv: Vec<String>,
    /// Its environment, complete.
    pub env: Vec<(String, String)>,
}

/// What to attach to a container's streams.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct AttachOptions {
    /// Bytes written to the stream go to the standard input.
    pub stdin: bool,
    /// The standard output goes to the stream.
    pub stdout: bool,
    /// The standard error goes to the stream.
    pub stderr: bool,
}

/// A process to run in a container.
#[derive(Clone, Debug)]
pub struct ExecSpec {
    /// What to run; `terminal` decides about a tty, `user.username` names a user as in [`Launch::spec`].
    pub process: Process,
    /// Groups to add, as in [`Launch::groups`].
    pub groups: Vec<String>,
    /// Whether bytes written to the stream go to the standard input.
    pub stdin: bool,
    /// Whether the standard output goes to the stream.
    pub stdout: bool,
    /// Whether the standard error goes to the stream.
    pub stderr: bool,
    /// Whether the process is free of the container's system call filter.
    pub privileged: bool,
}

impl ExecSpec {
    /// Returns a process whose output goes to the stream and which has no standard input.
    pub fn new(process: Process) -> Self {
        Self {
            process,
            groups: Vec::new(),
            stdin: false,
            stdout: true,
            stderr: true,
            privileged: false,
        }
    }
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The exit code; 128 and the signal's number where a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed a process of it for want of memory.
    pub oom: bool,
    /// When the user's process began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Why, where the code does not say: the shim was killed, the machine rebooted.
    pub reason: Option<String>,
}
