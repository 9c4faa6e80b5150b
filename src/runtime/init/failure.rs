//! What a process on its way into a container says when it cannot go on, in Docker's words.

use std::fmt::Display;
use std::io;

/// Why a process could not be set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Said by the runtime: Docker puts what it was doing before it.
    Runtime(String),
    /// Said by Docker's engine before it asks its runtime: a user that does not exist.
    Engine(String),
}

impl Failure {
    /// Returns the failure of an attempt, with its cause.
    pub fn of(attempt: impl Display, cause: &io::Error) -> Self {
        Self::Runtime(format!("{attempt}: {}", words(cause)))
    }

    /// Returns the whole text for a container that could not start.
    pub fn starting(&self) -> String {
        match self {
            Self::Runtime(text) => format!(
                "OCI runtime create failed: runc create failed: unable to start container process: error during \
                 container init: {text}"
            ),
            Self::Engine(text) => text.clone(),
        }
    }

    /// Returns the whole text for a process that could not be run in a container.
    pub fn executing(&self) -> String {
        match self {
            Self::Runtime(text) => {
                format!("OCI runtime exec failed: exec failed: unable to start container process: {text}")
            }
            Self::Engine(text) => text.clone(),
        }
    }
}

/// Adds the attempt to a failed call.
pub trait Attempt<T> {
    /// Names what was attempted.
    fn attempt<D: Display>(self, what: impl FnOnce() -> D) -> Result<T, Failure>;
}

impl<T> Attempt<T> for io::Result<T> {
    fn attempt<D: Display>(self, what: impl FnOnce() -> D) -> Result<T, Failure> {
        self.map_err(|error| Failure::of(what(), &error))
    }
}

impl<T> Attempt<T> for rustix::io::Result<T> {
    fn attempt<D: Display>(self, what: impl FnOnce() -> D) -> Result<T, Failure> {
        self.map_err(|error| Failure::of(what(), &error.into()))
    }
}

/// Returns an error as Go prints it: the C library's words in lower case, without the number. A directory where a file
/// should be gets the engine's advice.
pub fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let bare = text.split(" (os error").next().unwrap_or_default();
    let mut characters = bare.chars();
    let lower = characters
        .next()
        .map(|first| first.to_lowercase().chain(characters).collect::<String>())
        .unwrap_or_default();
    if error.raw_os_error() == Some(libc::ENOTDIR) {
        format!(
            "{lower}: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host \
             path exists and is the expected type"
        )
    } else {
        lower
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_said_as_docker_says_them() {
        let failure = Failure::of("exec: \"x\"", &io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(
            failure.executing(),
            "OCI runtime exec failed: exec failed: unable to start container process: exec: \"x\": permission denied"
        );
    }
}
