//! How a command fails: what kind of failure it is decides the exit status, and advice goes with it.

use std::error::Error;
use std::process::ExitCode;

/// What kind of failure ended a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The command could not do what it was asked: a bad file, a bad flag, an engine that refused.
    Failure,
    /// What was asked for is not supported here.
    NotSupported,
    /// The user interrupted the command, or answered no.
    Interrupted,
    /// A process that ran on the user's behalf ended with this status.
    Status(u8),
    /// The reader of our output went away; there is nobody to tell, and nothing went wrong.
    BrokenPipe,
}

/// A command's failure.
///
/// Any error converts into one, so that commands can use `?`. It is deliberately no [`Error`] itself, as that is
/// what makes the conversion possible.
#[derive(Debug)]
pub struct CommandError {
    pub kind: Kind,
    /// What to say; nothing where the status alone is the answer.
    pub error: Option<Box<dyn Error + Send + Sync>>,
    /// What the user could do about it.
    pub hints: Vec<String>,
}

impl CommandError {
    /// Returns a failure that says `message`.
    pub fn message(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Failure,
            error: Some(message.into().into()),
            hints: Vec::new(),
        }
    }

    /// Returns a failure that says `message`, of another kind.
    pub fn of_kind(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            ..Self::message(message)
        }
    }

    /// Returns the silent failure that passes on a process's exit status.
    pub fn status(code: i64) -> Self {
        Self {
            // As the kernel does: the low eight bits are what a parent sees.
            kind: Kind::Status((code & 0xff) as u8),
            error: None,
            hints: Vec::new(),
        }
    }

    /// Returns the silent failure of an interrupted command.
    pub fn interrupted() -> Self {
        Self {
            kind: Kind::Interrupted,
            error: None,
            hints: Vec::new(),
        }
    }

    /// Adds a piece of advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Leaves out what only our engine adds to Docker's own words: who holds a port that is taken.
    #[must_use]
    pub fn terse(self) -> Self {
        let text = self.text().unwrap_or_default();
        match text.rsplit_once(" (held by ") {
            Some((before, holder)) if holder.ends_with(')') => Self {
                error: Some(before.into()),
                ..self
            },
            _ => self,
        }
    }

    /// Returns the exit status that goes with the kind.
    pub fn exit_code(&self) -> ExitCode {
        match self.kind {
            Kind::Failure | Kind::NotSupported => ExitCode::from(1),
            Kind::Interrupted => ExitCode::from(130),
            Kind::Status(code) => ExitCode::from(code),
            Kind::BrokenPipe => ExitCode::SUCCESS,
        }
    }

    /// Returns what to say, causes included, in one line each.
    pub fn text(&self) -> Option<String> {
        let error = self.error.as_deref()?;
        if let Some(bollard::errors::Error::DockerResponseServerError { message, .. }) = error.downcast_ref() {
            return Some(format!("Error response from daemon: {message}"));
        }
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = match cause.downcast_ref() {
                Some(bollard::errors::Error::DockerResponseServerError { message, .. }) => {
                    format!("Error response from daemon: {message}")
                }
                _ => cause.to_string(),
            };
            // Libraries often repeat their cause in their own text.
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        Some(text)
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for CommandError {
    fn from(error: E) -> Self {
        // Only our own writing counts: a connection to the engine that breaks is a failure, and comes wrapped.
        let kind = match (&error as &(dyn Error + 'static)).downcast_ref::<std::io::Error>() {
            Some(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Kind::BrokenPipe,
            _ => Kind::Failure,
        };
        Self {
            kind,
            error: Some(Box::new(error)),
            hints: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_port_is_not_for_programs() {
        let terse = |text: &str| CommandError::message(text).terse().text().unwrap_or_default();
        assert_eq!(
            terse("Bind for 0.0.0.0:80 failed: port is already allocated (held by container p-web-1)"),
            "Bind for 0.0.0.0:80 failed: port is already allocated"
        );
        assert_eq!(
            terse("address already in use (held by process 7 (nc))"),
            "address already in use"
        );
        assert_eq!(terse("no such service: web"), "no such service: web");
    }
}
