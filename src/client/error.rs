//! What can go wrong between a command and its engine, in the words docker's users know.

use std::io;
use std::path::PathBuf;

use super::Address;

/// A request that did not succeed, or an engine that cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens at the engine's address.
    #[error("Cannot connect to the Docker daemon at {address}. Is the docker daemon running?")]
    Unreachable { address: String, cause: io::Error },
    /// The socket is there, but not for this user.
    #[error("permission denied while trying to connect to the Docker daemon socket at {address}")]
    Forbidden { address: String, cause: io::Error },
    /// The embedded engine's program could not be run.
    #[error("cannot start the engine: {}", .0)]
    Spawn(#[source] io::Error),
    /// The embedded engine ended before it listened, or never listened.
    #[error("the engine did not start{}; its log is {}", last_words(.words), .log.display())]
    Silent { log: PathBuf, words: String },
    /// The engine answered, and refused.
    #[error("Error response from daemon: {message}")]
    Refused { status: u16, message: String },
    /// The engine reported a failure after it had begun to answer, as pulls and builds do.
    #[error("{0}")]
    Stream(String),
    /// The connection broke or the answer made no sense.
    #[error("error during connect: {0}")]
    Request(#[source] bollard::errors::Error),
    /// A connection of our own broke.
    #[error("error during connect: {0}")]
    Connection(#[source] hyper::Error),
    /// An answer was not what the Engine API promises.
    #[error("cannot read the engine's answer: {0}")]
    Answer(#[source] serde_json::Error),
}

fn last_words(words: &str) -> String {
    if words.is_empty() {
        String::new()
    } else {
        format!(": {words}")
    }
}

impl ClientError {
    /// Names the failed attempt to reach `address`.
    pub(super) fn connecting(address: &Address, cause: io::Error) -> Self {
        let address = address.to_string();
        if cause.kind() == io::ErrorKind::PermissionDenied {
            Self::Forbidden { address, cause }
        } else {
            Self::Unreachable { address, cause }
        }
    }

    /// Returns whether there was no answer, because the engine was not there or went away.
    pub fn is_lost_connection(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Connection(_) => true,
            Self::Request(error) => matches!(
                error,
                bollard::errors::Error::IOError { .. }
                    | bollard::errors::Error::HyperResponseError { .. }
                    | bollard::errors::Error::HyperLegacyError { .. }
            ),
            _ => false,
        }
    }

    /// Returns the engine's HTTP status, if it answered with one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Returns whether there was nothing to do: who is to be started runs, who is to be stopped does not. Engines say
    /// so where somebody else was faster.
    pub fn is_not_modified(&self) -> bool {
        self.status() == Some(304)
    }

    /// Returns whether the engine does not know what was asked for.
    pub fn is_not_found(&self) -> bool {
        match self {
            // Podman's word for a container that went while it looked.
            Self::Refused { status: 500, message } => message.trim_end().ends_with("no such container"),
            _ => self.status() == Some(404),
        }
    }

    /// Returns whether the engine's state forbids the request: in use, already there, already going away.
    pub fn is_conflict(&self) -> bool {
        self.status() == Some(409)
    }
}

impl From<bollard::errors::Error> for ClientError {
    fn from(error: bollard::errors::Error) -> Self {
        use bollard::errors::Error;
        match error {
            Error::DockerResponseServerError { status_code, message } => Self::Refused {
                status: status_code,
                message: match message.trim_end() {
                    // Better than nothing.
                    "" => http::StatusCode::from_u16(status_code)
                        .map_or_else(|_| status_code.to_string(), |status| status.to_string()),
                    message => message.to_owned(),
                },
            },
            Error::DockerStreamError { error } => Self::Stream(error),
            Error::IOError { err }
                if matches!(
                    err.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::PermissionDenied
                ) =>
            {
                // Only opening a connection fails so; the transport names the address in the error's text.
                Self::Unreachable {
                    address: err.to_string(),
                    cause: err,
                }
            }
            other => Self::Request(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_as_dockers() {
        let error = ClientError::from(bollard::errors::Error::DockerResponseServerError {
            status_code: 404,
            message: "No such container: x\n".into(),
        });
        assert_eq!(error.to_string(), "Error response from daemon: No such container: x");
        assert!(error.is_not_found());
        assert!(!error.is_not_modified());
        let gone = |message: &str| ClientError::Refused {
            status: 500,
            message: message.into(),
        };
        assert!(gone("no container with ID x found in database: no such container").is_not_found());
        assert!(!gone("no such container runtime").is_not_found());
    }

    #[test]
    fn an_absent_engine_reads_as_dockers() {
        let error = ClientError::connecting(
            &Address::Unix("/var/run/docker.sock".into()),
            io::Error::from(io::ErrorKind::NotFound),
        );
        assert_eq!(
            error.to_string(),
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
        );
    }
}
