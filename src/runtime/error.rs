//! What can go wrong with a container.

use std::io;
use std::path::PathBuf;

/// Why the runtime could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The container could not be started. The words are Docker's where scripts look for them.
    #[error("{0}")]
    Start(String),
    /// The process could not be run in the container.
    #[error("{0}")]
    Exec(String),
    /// The shim refused a request.
    #[error("{0}")]
    Refused(String),
    /// The shim went away before it answered.
    #[error("the container's supervising process is gone")]
    ShimGone,
    /// The program could not be copied into memory.
    #[error("failed to copy the program into memory")]
    SealProgram(#[source] io::Error),
    /// The process that forks shims could not be started.
    #[error("failed to start the process that forks shims")]
    StartZygote(#[source] io::Error),
    /// The process that forks shims could not be asked.
    #[error("failed to ask for a shim")]
    AskZygote(#[source] io::Error),
    /// The container's directory could not be used.
    #[error("failed to use the container's directory {}", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A message to the shim could not be sent.
    #[error("failed to send a message to the container's supervising process")]
    Send(#[source] io::Error),
    /// A socket could not be made or watched.
    #[error("failed to make a socket")]
    Socket(#[source] io::Error),
    /// A message could not be written or read.
    #[error("failed to encode a message")]
    Encode(#[source] serde_json::Error),
    /// The exit record could not be read.
    #[error("failed to read the exit record {}", path.display())]
    ExitRecord {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A cgroup could not be made, changed or read.
    #[error("failed to {action} the cgroup {}", path.display())]
    Cgroup {
        /// What was attempted.
        action: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system call filter could not be compiled.
    #[error("failed to compile the seccomp profile")]
    Seccomp(#[from] crate::runtime::seccomp::SeccompError),
    /// A user namespace could not be made.
    #[error("failed to make a user namespace")]
    UserNamespace(#[source] io::Error),
    /// A root file system could not be opened.
    #[error("failed to open the root file system")]
    OpenRoot(#[source] io::Error),
    /// A path in a root file system could not be used.
    #[error("failed to {action} {} in the container", path.display())]
    InRoot {
        /// What was attempted.
        action: &'static str,
        /// Which path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}
