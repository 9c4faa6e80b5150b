//! What can go wrong with a build, shown with the lines of the Dockerfile it happened at.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::expand::ExpandError;
use crate::image::{ImageError, ReferenceError, chain};
use crate::runtime::RuntimeError;

/// Why a build failed, and where in the Dockerfile.
#[derive(Debug)]
pub struct BuildError {
    pub problem: Box<Problem>,
    pub place: Option<Box<Place>>,
    /// The last lines that the failing command printed.
    pub output: Vec<String>,
}

/// The lines of a Dockerfile that an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The Dockerfile's name.
    pub file: String,
    /// 1-based.
    pub line: usize,
    pub column: usize,
    /// Number and text of the lines to show.
    pub lines: Vec<(usize, String)>,
    /// How many characters of the first line the caret underlines.
    pub length: usize,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("failed to read dockerfile: {path}")]
    ReadDockerfile {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("unable to prepare context: path {0:?} not found")]
    Context(PathBuf),
    #[error("cannot read {path}")]
    ReadContext {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Syntax(String),
    #[error("failed to process {word:?}: {source}")]
    Expand { word: String, source: ExpandError },
    #[error("syntax error in pattern: {0:?}")]
    Pattern(String),
    #[error("target stage {0:?} could not be found")]
    Target(String),
    #[error("base name ({0}) should not be blank")]
    BlankBase(String),
    #[error("failed to parse stage name {name:?}")]
    BaseName {
        name: String,
        #[source]
        source: ReferenceError,
    },
    #[error("{name}: {source}")]
    Base { name: String, source: ImageError },
    #[error("cannot copy from stage {0:?}, it needs to be defined before current stage {1:?}")]
    CopyFromLater(String, String),
    #[error("circular dependency detected on stage: {0}")]
    Circular(String),
    #[error("invalid stage index {0}")]
    StageIndex(usize),
    #[error(
        "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround"
    )]
    FromVariable,
    #[error("failed to parse platform {0:?}: unknown operating system or architecture")]
    Platform(String),
    #[error("{0}")]
    Mount(String),
    #[error("{0}: not found")]
    SecretNotFound(String),
    #[error("unset ssh forward key {0}")]
    KeyNotFound(String),
    #[error(
        "granting entitlement security.insecure is not allowed by build daemon configuration; RUN --security=insecure needs `entitlements: [security.insecure]` or `privileged: true` in the build"
    )]
    Insecure,
    #[error(
        "granting entitlement network.host is not allowed by build daemon configuration; RUN --network=host needs `entitlements: [network.host]` or `network: host` in the build"
    )]
    HostNetwork,
    #[error("cannot give the step a network of its own: {0}; `network: host` in the build lets it use the host's")]
    Network(super::PlugError),
    #[error("{0}")]
    Cache(String),
    #[error("cannot export the build cache to {place}: {}", chain(source))]
    CacheExport { place: String, source: ImageError },
    #[error("{0}")]
    Checksum(&'static str),
    #[error("{url}: digest mismatch {actual}: {expected}")]
    Digest {
        url: String,
        expected: String,
        actual: String,
    },
    #[error("invalid checksum digest format {0:?}: expected sha256: and 64 digits")]
    BadChecksum(String),
    #[error("cannot fetch {url}: {why}")]
    Fetch { url: String, why: String },
    #[error("source can't be a {0} for COPY")]
    RemoteCopy(&'static str),
    #[error("failed to compute cache key: failed to calculate checksum of ref: {0:?}: not found")]
    MissingSource(String),
    #[error("cannot read {path}")]
    ReadSource {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot copy to non-directory: {}", .0.display())]
    NotADirectory(PathBuf),
    #[error("cannot replace to directory {} with file", .0.display())]
    OverDirectory(PathBuf),
    #[error("{} is a socket, which cannot be copied", .0.display())]
    Socket(PathBuf),
    #[error("unable to find user {0}: no matching entries in passwd file")]
    UnknownOwner(String),
    #[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
    Mode(String),
    #[error("cannot unpack {path}")]
    Unpack {
        path: String,
        #[source]
        source: crate::image::UnpackError,
    },
    #[error("invalid containerPort: {0}")]
    Port(String),
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    #[error("invalid signal: {0}")]
    Signal(String),
    #[error("process {command:?} did not complete successfully: exit code: {code}")]
    Exit { command: String, code: i32 },
    #[error("process {command:?} did not complete successfully")]
    Run {
        command: String,
        #[source]
        source: RuntimeError,
    },
    #[error("RUN needs the container runtime, which is not at hand")]
    NoRuntime,
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("the build was interrupted")]
    Interrupted,
}

impl BuildError {
    /// Returns the message alone, as BuildKit words it.
    pub fn message(&self) -> String {
        format!("failed to solve: {}", chain(&*self.problem))
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.problem)
    }
}

impl From<Problem> for BuildError {
    fn from(problem: Problem) -> Self {
        Self {
            problem: Box::new(problem),
            place: None,
            output: Vec::new(),
        }
    }
}

impl From<ImageError> for BuildError {
    fn from(error: ImageError) -> Self {
        Problem::Image(error).into()
    }
}

/// The message, the lines with a caret under the instruction, and what its command printed last.
impl fmt::Display for BuildError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message())?;
        if let Some(place) = &self.place {
            let width = place.lines.last().map_or(1, |(number, _)| number.to_string().len());
            write!(
                formatter,
                "\n{:width$}--> {}:{}:{}\n{:width$} |",
                "", place.file, place.line, place.column, ""
            )?;
            for (number, text) in &place.lines {
                write!(formatter, "\n{number:width$} | {text}")?;
                if *number == place.line {
                    let carets = "^".repeat(place.length.max(1));
                    write!(
                        formatter,
                        "\n{:width$} | {:indent$}{carets}",
                        "",
                        "",
                        indent = place.column - 1
                    )?;
                }
            }
        }
        if !self.output.is_empty() {
            formatter.write_str("\nits last output:")?;
            for line in &self.output {
                write!(formatter, "\n  {line}")?;
            }
        }
        Ok(())
    }
}
