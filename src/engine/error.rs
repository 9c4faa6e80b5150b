//! What can go wrong when the engine is asked for something, in the kinds its API tells apart.

use std::io;
use std::path::{Path, PathBuf};

/// Why the engine did not do what it was asked to do. The texts are Docker's where Docker has one.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The thing named does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The request contradicts itself or the API.
    #[error("{0}")]
    InvalidParameter(String),
    /// The request contradicts the state of what it names.
    #[error("{0}")]
    Conflict(String),
    /// The request may not be done at all.
    #[error("{0}")]
    Forbidden(String),
    /// What the request asks for is already so.
    #[error("")]
    NotModified,
    /// This engine has no such feature.
    #[error("{0}")]
    NotImplemented(String),
    /// A container could not be started, and the words say why.
    #[error("{0}")]
    Start(String),
    /// The runtime failed.
    #[error("{attempt}: {text}")]
    Runtime { attempt: &'static str, text: String },
    /// The network could not be arranged.
    #[error("{0}")]
    Network(String),
    /// The image store or a registry failed.
    #[error("{0}")]
    Image(String),
    /// An image is not whole any more; to whoever wants to use it that is as if it were not there, so that clients pull it.
    #[error("{0}")]
    DamagedImage(String),
    /// A file of the engine could not be read or written.
    #[error("{attempt} {path:?}")]
    File {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// A record on disk is not what this engine writes.
    #[error("cannot understand {path:?}")]
    Record {
        path: PathBuf,
        #[source]
        cause: serde_json::Error,
    },
}

impl EngineError {
    /// Returns a closure that names what was attempted on which file.
    pub fn file(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |cause| Self::File { attempt, path, cause }
    }

    /// Returns the error of a container that is not there.
    pub fn no_such_container(name: &str) -> Self {
        Self::NotFound(format!("No such container: {name}"))
    }

    /// Puts what was attempted before an error's own words; its kind stays.
    pub fn while_attempting(self, attempt: &str) -> Self {
        match self {
            Self::NotFound(text) => Self::NotFound(format!("{attempt}: {text}")),
            Self::InvalidParameter(text) => Self::InvalidParameter(format!("{attempt}: {text}")),
            Self::Conflict(text) => Self::Conflict(format!("{attempt}: {text}")),
            Self::Forbidden(text) => Self::Forbidden(format!("{attempt}: {text}")),
            Self::Network(text) => Self::Network(format!("{attempt}: {text}")),
            other => other,
        }
    }

    /// Returns the whole chain of causes as one line.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// Returns an error and everything that led to it as one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some errors say their cause themselves.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// The result of asking the engine for something.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;
