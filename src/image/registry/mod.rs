//! Pulling from and pushing to registries.
//!
//! Layers are downloaded several at a time and unpacked while they arrive. Every byte is digested on its way; what does not have
//! the digest it was asked for by never becomes a layer. A download that breaks off goes on where it was.

mod artifact;
mod auth_file;
mod challenge;
mod copy;
mod credentials;
mod fetch;
mod inspect;
mod login;
mod pull;
mod push;
mod receive;
mod remote;
mod settings;
mod tls;
mod transport;

pub use artifact::{Artifact, push_artifact};
pub use copy::{copy_image, push_index};
pub use credentials::{Login, known_registries, login_for};
pub use fetch::{ArtifactKind, FetchedArtifact, FetchedLayer};
pub use inspect::{RemoteImage, inspect_remote};
pub use login::check_login;
pub use settings::Settings;
pub use tls::CertificateError;
pub use transport::TransportError;
pub(crate) use transport::use_tls;

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;

use super::ImageError;
use super::config::Platform;
use super::reference::Reference;

/// Why a registry did not give or take an image. The texts that scripts look for are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("pull access denied for {name}, repository does not exist or may require 'docker login': {reason}")]
    Denied { name: String, reason: String },
    #[error("manifest for {reference} not found: {reason}")]
    ManifestNotFound { reference: String, reason: String },
    #[error("repository {name} not found: {reason}")]
    RepositoryNotFound { name: String, reason: String },
    #[error("push access denied to {name}: {reason}")]
    PushDenied { name: String, reason: String },
    #[error("failed to resolve reference {reference:?}: {reason}")]
    Resolve {
        reference: String,
        reason: String,
        #[source]
        source: Box<TransportError>,
    },
    #[error("Get \"{url}\": {reason}")]
    Unreachable { url: String, reason: String },
    #[error("failed to copy {what}: {reason}")]
    Transfer { what: String, reason: String },
    #[error("no matching manifest for {0} in the manifest list entries")]
    NoPlatform(String),
    #[error("filesystem layer verification failed for digest {0}")]
    LayerVerification(String),
    #[error("layer {0} may only be fetched from where its vendor keeps it, which is not supported")]
    ForeignLayer(String),
    #[error("blob {digest} is larger than the {limit} bytes such a document may have")]
    TooLarge { digest: String, limit: u64 },
    #[error("the manifest says that {digest} has {stated} bytes, but it has {actual}")]
    Size { digest: String, stated: u64, actual: u64 },
    #[error("OCI index {reference} doesn't refer to {wanted} artifacts")]
    NoArtifact { reference: String, wanted: String },
    #[error("{reference} is not a {wanted} artifact, but {found:?}")]
    OtherArtifact {
        reference: String,
        wanted: String,
        found: String,
    },
    #[error("an image without a tag cannot be pushed")]
    PushWithoutTag,
}

/// How to pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// For which platform; this machine's if not given.
    pub platform: Option<Platform>,
    /// The login to use instead of those in the auth files. It is for the registry itself, so mirrors do not get it.
    pub login: Option<Login>,
    /// The same for pulls from several registries, by their hosts.
    pub logins: BTreeMap<String, Login>,
    /// Mirrors and exceptions; those of this machine if not given.
    pub settings: Option<Settings>,
    /// Whether it gets no name here, for who wants what is in it.
    pub is_nameless: bool,
}

impl PullOptions {
    /// Returns who we are to a registry, where that was said.
    pub fn login(&self, host: &str) -> Option<&Login> {
        self.login.as_ref().or_else(|| self.logins.get(host))
    }
}

/// How to push.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    pub login: Option<Login>,
    pub settings: Option<Settings>,
}

/// Configs and manifests above this are refused.
const MAX_DOCUMENT: u64 = 16 * 1024 * 1024;
/// As many tries for one blob as Docker makes.
const ATTEMPTS: u32 = 5;
/// A registry that asks to be left alone for longer is not waited for: the person should decide.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs what reads and writes files where it does not hold up other work.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Tries again what may succeed the next time, after the pause that the registry asks for, or one that doubles. `wait` is told of
/// the pauses.
async fn retrying<T>(
    wait: impl Fn(Duration),
    mut attempt: impl AsyncFnMut() -> Result<T, TransportError>,
) -> Result<T, TransportError> {
    let mut failures = 0;
    loop {
        match attempt().await {
            Err(error) if failures + 1 < ATTEMPTS && is_worth_waiting(&error) => {
                failures += 1;
                let pause = error.retry_after().unwrap_or_else(|| pause(failures));
                wait(pause);
                tokio::time::sleep(pause).await;
            }
            other => return other,
        }
    }
}

fn is_worth_waiting(error: &TransportError) -> bool {
    error.is_temporary() && error.retry_after().is_none_or(|wait| wait <= PATIENCE)
}

fn pause(failures: u32) -> Duration {
    Duration::from_millis(100 << failures.min(6))
}

/// Writes an error and its causes in one line, as Go does.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Several libraries print the cause as part of the error.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// What the first reason of a refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Denied,
    NoManifest,
    NoRepository,
    Else,
}

fn refusal(error: &TransportError) -> (Refusal, String) {
    let answer = match error {
        TransportError::Unauthorized => return (Refusal::Denied, error.to_string()),
        TransportError::Answer(answer) => answer,
        other => return (Refusal::Else, chain(other)),
    };
    let Some(first) = answer.reasons.first() else {
        return match answer.status {
            StatusCode::UNAUTHORIZED => (Refusal::Denied, TransportError::Unauthorized.to_string()),
            StatusCode::FORBIDDEN => (
                Refusal::Denied,
                "denied: requested access to the resource is denied".to_owned(),
            ),
            StatusCode::NOT_FOUND => (Refusal::NoManifest, "manifest unknown: manifest unknown".to_owned()),
            _ => (Refusal::Else, answer.to_string()),
        };
    };
    let kind = match first.code.as_str() {
        "DENIED" | "UNAUTHORIZED" => Refusal::Denied,
        "MANIFEST_UNKNOWN" | "NOT_FOUND" => Refusal::NoManifest,
        "NAME_UNKNOWN" => Refusal::NoRepository,
        _ => return (Refusal::Else, answer.to_string()),
    };
    (kind, first.to_string())
}

// moby distribution/errors.go: notFoundError.Error
fn pull_error(reference: &Reference, error: TransportError, problem: Option<&str>) -> ImageError {
    // Nobody answered: in Docker's words, which begin with what was asked.
    if let TransportError::Request { url, source, .. } = &error
        && source.is_connect()
    {
        let mut cause: &dyn std::error::Error = source;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let (url, reason) = (url.clone(), cause.to_string());
        return RegistryError::Unreachable { url, reason }.into();
    }
    let name = reference.familiar_name();
    let (kind, reason) = refusal(&error);
    match kind {
        Refusal::Denied => RegistryError::Denied {
            name,
            reason: with_problem(reason, problem),
        },
        Refusal::NoManifest => RegistryError::ManifestNotFound {
            reference: reference.familiar(),
            reason,
        },
        Refusal::NoRepository => RegistryError::RepositoryNotFound { name, reason },
        Refusal::Else => RegistryError::Resolve {
            reference: reference.to_string(),
            reason,
            source: Box::new(error),
        },
    }
    .into()
}

fn push_error(reference: &Reference, error: TransportError, problem: Option<&str>) -> ImageError {
    match refusal(&error) {
        (Refusal::Denied, reason) => RegistryError::PushDenied {
            name: reference.familiar_name(),
            reason: with_problem(reason, problem),
        },
        (_, reason) => RegistryError::Transfer {
            what: reference.familiar(),
            reason,
        },
    }
    .into()
}

fn with_problem(reason: String, problem: Option<&str>) -> String {
    match problem {
        Some(problem) => format!("{reason} ({problem})"),
        None => reason,
    }
}
