//! What engine, zygote, shim and init say to each other.
//!
//! Messages are JSON in `SOCK_SEQPACKET` packets, with descriptors beside them; what may be long (a spec, an
//! environment) travels as a file in memory. A shim outlives the engine that started it, so an engine may meet shims
//! of an older release: fields are only ever added, with a default.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, LinuxResources, Process, Spec};
use serde::{Deserialize, Serialize};

use crate::runtime::launch::{AttachOptions, ExitRecord, Forward, Log, Respawn, Root};
use crate::runtime::outside;
use crate::runtime::time::Timestamp;

/// The version of these messages.
pub const VERSION: u32 = 1;

/// The shim's socket in the container's directory.
pub const SOCKET: &str = "shim.sock";
/// The file a living shim holds a lock on.
pub const LOCK: &str = "shim.lock";
/// The record of how the container ended.
pub const EXIT: &str = "exit.json";
/// Where the root file system is attached, in the container's own mount namespace only.
pub const ROOT: &str = "rootfs";

/// What a zygote is asked for. Descriptors of a shim: the control socket, the [`ShimPlan`] and the [`InitPlan`] as
/// files in memory, then the filter and the network namespace where the plan names them. Of a root file system: the
/// control socket and the [`RootPlan`].
#[derive(Debug, Serialize, Deserialize)]
pub enum ZygoteRequest {
    /// A shim with its container.
    Shim,
    /// A process that holds a root file system open.
    Root,
    /// A user namespace with a network namespace. Descriptors: the socket to send them by.
    UserNamespace(UserNamespacePlan),
}

/// Who is who in a user namespace to be made.
#[derive(Debug, Serialize, Deserialize)]
pub struct UserNamespacePlan {
    /// Its users.
    pub users: Vec<LinuxIdMapping>,
    /// Its groups.
    pub groups: Vec<LinuxIdMapping>,
}

/// What a shim needs to know for as long as it lives.
#[derive(Debug, Serialize, Deserialize)]
pub struct ShimPlan {
    /// The container's id.
    pub id: String,
    /// The container's directory.
    pub dir: PathBuf,
    /// The name of the parent of its cgroups.
    pub cgroup_parent: String,
    /// Whether the process has a terminal.
    pub terminal: bool,
    /// Whether the standard input stays open.
    pub stdin_open: bool,
    /// Whether the standard input ends with the first one attached to it.
    pub stdin_once: bool,
    /// What becomes of the output.
    pub log: Log,
    /// Where the output goes besides.
    #[serde(default)]
    pub forward: Option<Forward>,
    /// How to bring the engine back.
    pub respawn: Option<Respawn>,
    /// Which namespaces are new: `CLONE_NEW*`.
    pub namespaces: u64,
    /// The pid namespace to join.
    pub pid_namespace: Option<PathBuf>,
    /// How the users of a new user namespace map to those outside.
    pub uid_mappings: Vec<LinuxIdMapping>,
    /// How its groups do.
    pub gid_mappings: Vec<LinuxIdMapping>,
    /// The limits.
    pub resources: Option<LinuxResources>,
    /// The terminal's size, rows and columns.
    pub size: Option<(u16, u16)>,
    /// Whether a filter's instructions are among the descriptors.
    pub has_seccomp: bool,
    /// Whether a network namespace is among the descriptors.
    pub has_netns: bool,
    /// Whether a socket stands in its place, which it comes by later: all that needs none is made ready meanwhile.
    #[serde(default)]
    pub awaits_netns: bool,
    /// Whether a user namespace is among the descriptors.
    #[serde(default)]
    pub has_userns: bool,
    /// The user namespace to join.
    #[serde(default)]
    pub user_namespace: Option<PathBuf>,
    /// Whether a mount shows other ids than its files have.
    #[serde(default)]
    pub maps_ids: bool,
}

impl ShimPlan {
    /// Takes from a spec what the shim needs of it; `has_netns` tells whether a network namespace is given otherwise.
    pub fn of(spec: &Spec, id: String, dir: PathBuf, cgroup_parent: String, has_netns: bool) -> Self {
        let linux = spec.linux().as_ref();
        let process = spec.process().as_ref();
        let mut namespaces = 0;
        let mut pid_namespace = None;
        let mut user_namespace = None;
        let listed = linux.and_then(|linux| linux.namespaces().as_ref());
        for namespace in listed.into_iter().flatten() {
            match (namespace.typ(), namespace.path()) {
                (LinuxNamespaceType::Pid, Some(path)) => pid_namespace = Some(path.clone()),
                (LinuxNamespaceType::User, Some(path)) => user_namespace = Some(path.clone()),
                // Given as a descriptor; and a cgroup namespace is made once the process is where it belongs.
                (LinuxNamespaceType::Network, _) if has_netns => {}
                (LinuxNamespaceType::Cgroup, _) | (_, Some(_)) => {}
                (kind, None) => namespaces |= u64::from(kind as u32),
            }
        }
        // Whatever the spec says, the root file system is mounted where only the container sees it.
        namespaces |= libc::CLONE_NEWNS as u64;
        Self {
            id,
            dir,
            cgroup_parent,
            terminal: process.and_then(|process| process.terminal()).unwrap_or(false),
            stdin_open: false,
            stdin_once: false,
            log: Log::None,
            forward: None,
            respawn: None,
            namespaces,
            pid_namespace,
            uid_mappings: linux.and_then(|linux| linux.uid_mappings().clone()).unwrap_or_default(),
            gid_mappings: linux.and_then(|linux| linux.gid_mappings().clone()).unwrap_or_default(),
            resources: linux.and_then(|linux| linux.resources().clone()),
            size: process.and_then(|process| process.console_size()).map(|size| {
                (
                    u16::try_from(size.height()).unwrap_or(u16::MAX),
                    u16::try_from(size.width()).unwrap_or(u16::MAX),
                )
            }),
            has_seccomp: false,
            has_netns,
            awaits_netns: false,
            has_userns: false,
            user_namespace,
            maps_ids: outside::maps_ids(spec),
        }
    }

    /// Returns whether the container has ids of its own.
    pub fn has_own_ids(&self) -> bool {
        self.has_userns || self.user_namespace.is_some() || self.namespaces & libc::CLONE_NEWUSER as u64 != 0
    }
}

/// What init needs to know until it becomes the user's process: a file in memory of its own, so that the shim, which
/// lives on, never reads it.
#[derive(Debug, Serialize, Deserialize)]
pub struct InitPlan {
    /// What to run, and in what surroundings.
    pub spec: Spec,
    /// The root file system.
    pub root: Root,
    /// Groups to add.
    pub groups: Vec<String>,
    /// Whether process 1 is our own.
    pub init: bool,
}

/// A process to run in a container.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExecPlan {
    /// What to run.
    pub process: Process,
    /// Groups to add.
    pub groups: Vec<String>,
}

/// A root file system to hold open.
#[derive(Debug, Serialize, Deserialize)]
pub struct RootPlan {
    /// A directory to attach it to, in a mount namespace of its own.
    pub dir: PathBuf,
    /// The root file system.
    pub root: Root,
    /// What else is mounted in it.
    pub mounts: Vec<oci_spec::runtime::Mount>,
}

/// A request to a shim.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Which answer belongs to it.
    pub sequence: u64,
    /// What is asked.
    pub command: Command,
}

/// What a shim is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Command {
    /// Who are you, and how is your container?
    Hello,
    /// Attach the stream that comes along.
    Attach(AttachOptions),
    /// Run a process. Descriptors: the [`ExecPlan`], the stream.
    Exec {
        /// Its name in later requests.
        exec: u64,
        /// Whether it has a terminal.
        terminal: bool,
        /// Which of its streams go to the stream that comes along.
        streams: AttachOptions,
        /// Whether it is free of the container's filter.
        unconfined: bool,
        /// The size of its terminal: rows, columns.
        size: Option<(u16, u16)>,
    },
    /// Change the size of a terminal.
    Resize {
        /// The process that has it; the container's first where absent.
        exec: Option<u64>,
        /// Its height.
        rows: u16,
        /// Its width.
        columns: u16,
    },
    /// Send a signal.
    Signal {
        /// The process to send it to; the container's first where absent.
        exec: Option<u64>,
        /// Its number.
        signal: i32,
    },
    /// Keep the descriptors that come along, under these names. One kept under the same name is closed.
    Store(Vec<String>),
    /// Let go of the descriptors of these names.
    Discard(Vec<String>),
    /// Hand out what is kept, from the given position on.
    Fetch(usize),
    /// The engine is about to leave on purpose: do not bring it back.
    Farewell,
}

/// What a shim says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The container's process runs.
    Started(State),
    /// The container could not be started.
    Failed(String),
    /// Something was not done as asked, but the container goes on.
    Warning(String),
    /// An answer to a request.
    Answer {
        /// Which request.
        sequence: u64,
        /// What came of it.
        result: Result<Answer, String>,
    },
    /// The container's process has ended, and what it had is being cleared away.
    Ending,
    /// The container ended; its record is on disk.
    Exited(ExitRecord),
    /// A process run in the container ended.
    ExecExited {
        /// Which one.
        exec: u64,
        /// Its exit code.
        code: i32,
    },
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Done.
    Done,
    /// How the container is.
    State(State),
    /// A process runs.
    Exec {
        /// Its process id, outside.
        pid: u32,
    },
    /// The descriptors that come along, by name, and whether there are more.
    Descriptors {
        /// Their names.
        names: Vec<String>,
        /// Whether there are more.
        more: bool,
    },
}

/// How a container is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// The version of the messages its shim speaks.
    pub version: u32,
    /// The container's id.
    pub id: String,
    /// Its first process, outside.
    pub pid: u32,
    /// The shim.
    pub shim: u32,
    /// When the user's process began.
    pub started: Timestamp,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// How it ended, if it has.
    pub exit: Option<ExitRecord>,
}

/// What init tells the shim. Its socket is closed by the exec that makes it the user's process.
#[derive(Debug, Serialize, Deserialize)]
pub enum InitReport {
    /// Something was not done as asked.
    Warning(String),
    /// The terminal's other side comes along.
    Terminal,
    /// Run the hooks that come along as a file in memory ([`crate::runtime::hooks::Calls`]), then say so.
    Hooks,
    /// Everything is set up; the next thing to happen is the exec.
    Ready,
    /// It cannot go on.
    Failed(String),
}
