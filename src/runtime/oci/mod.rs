//! Containers as the OCI runtime specification has them: created from a bundle, started, killed and deleted by commands
//! that end, with nothing but a directory to remember them by.
//!
//! The jail is the engine's own. What differs is who looks after it: no shim, the container's first process belongs to
//! whoever called, as runtimes' callers (conmon, containerd's shim) expect.

mod control;
mod create;
mod exec;
mod features;
mod record;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub use create::Creation;
pub use exec::Execution;
pub use features::features;
pub use record::{Record, Status};

use crate::os::process::Child;
use crate::runtime::seccomp::{self, SeccompError};
use crate::runtime::shim::birth::BirthError;

/// What a runtime's command cannot do.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// The id has characters that a directory's name should not have.
    #[error("invalid container ID format: {0:?}")]
    BadId(String),
    /// There is a container of that id already.
    #[error("container with given ID already exists: {0}")]
    Exists(String),
    /// There is none.
    #[error("container does not exist: {0}")]
    Missing(String),
    /// The container's state forbids what was asked for.
    #[error("{0}")]
    State(String),
    /// The bundle's or another file cannot be used.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not say what it should.
    #[error("{}: {why}", path.display())]
    Content {
        /// Which one.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The spec asks for something that there is not.
    #[error("{0}")]
    Spec(String),
    /// The filter cannot be made.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// The process could not be made; the text says what was attempted.
    #[error("{0}")]
    Birth(String),
    /// A hook failed.
    #[error("{0}")]
    Hook(String),
    /// A call failed.
    #[error("{attempt}: {source}")]
    Call {
        /// What was attempted.
        attempt: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl From<BirthError> for OciError {
    fn from(error: BirthError) -> Self {
        let text = error.text();
        let bare = ["OCI runtime create failed: ", "OCI runtime exec failed: "]
            .iter()
            .find_map(|prefix| text.strip_prefix(prefix));
        Self::Birth(bare.unwrap_or(&text).to_owned())
    }
}

/// The containers that one directory remembers.
#[derive(Clone, Debug)]
pub struct Containers {
    root: PathBuf,
}

/// A process that was made.
#[derive(Debug)]
pub struct Started {
    /// The process.
    pub child: Child,
    /// The other side of its terminal, where it has one.
    pub terminal: Option<OwnedFd>,
    /// What was not done as asked.
    pub warnings: Vec<String>,
}

impl Containers {
    /// Names the directory; it is made with the first container.
    pub fn in_directory(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn directory(&self, id: &str) -> Result<PathBuf, OciError> {
        let plain = |character: char| character.is_ascii_alphanumeric() || "_+-.".contains(character);
        if id.is_empty() || id == "." || id == ".." || !id.chars().all(plain) {
            return Err(OciError::BadId(id.to_owned()));
        }
        Ok(self.root.join(id))
    }
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> OciError {
    let path = path.to_owned();
    move |source| OciError::File { path, source }
}

fn call<E: Into<io::Error>>(attempt: &'static str) -> impl FnOnce(E) -> OciError {
    move |error| OciError::Call {
        attempt,
        source: error.into(),
    }
}

/// Returns a file in memory with the filter that a spec asks for, if it does.
fn filter(spec: &oci_spec::runtime::Spec) -> Result<Option<OwnedFd>, OciError> {
    let Some(profile) = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) else {
        return Ok(None);
    };
    let bytes = seccomp::assemble(&seccomp::Profile::from_oci(profile)?)?;
    let file = crate::os::memfd::with_bytes("seccomp", &bytes).map_err(call("keep the filter"))?;
    Ok(Some(file))
}

/// Writes a process id where a caller reads it: whole or not at all.
fn write_pid(path: &Path, child: &Child) -> Result<(), OciError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.new"));
    std::fs::write(&temporary, child.pid.as_raw_nonzero().to_string())
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(file_error(path))
}

/// Hands a terminal's other side to whoever listens at a socket.
fn send_terminal(socket: &Path, terminal: &OwnedFd) -> Result<(), OciError> {
    use std::os::fd::AsFd;
    // Whoever gets it reads it as any file: without this one's haste.
    rustix::io::ioctl_fionbio(terminal, false).map_err(call("hand the terminal over"))?;
    let stream = std::os::unix::net::UnixStream::connect(socket).map_err(file_error(socket))?;
    crate::os::socket::send(&stream, b"/dev/ptmx", &[terminal.as_fd()]).map_err(call("hand the terminal over"))
}
