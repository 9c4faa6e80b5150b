//! What pulls, pushes, loads and builds tell while they work, in Docker's words.

use std::sync::Arc;

/// One thing that happened; maps one to one to the Engine API's progress stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Which layer this is about (its short digest), or the tag of a pull.
    pub id: Option<String>,
    /// `Downloading`, `Pull complete`, …
    pub status: String,
    /// Bytes done and bytes in all (0 if unknown).
    pub detail: Option<(u64, u64)>,
}

impl Progress {
    pub fn layer(id: &str, status: &str) -> Self {
        Self {
            id: Some(id.to_owned()),
            status: status.to_owned(),
            detail: None,
        }
    }

    pub fn bytes(id: &str, status: &str, done: u64, total: u64) -> Self {
        Self {
            detail: Some((done, total)),
            ..Self::layer(id, status)
        }
    }

    pub fn line(status: impl Into<String>) -> Self {
        Self {
            status: status.into(),
            ..Self::default()
        }
    }
}

/// Receives progress; may be called from several threads at once.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// Returns a sink for callers that do not listen.
pub fn silent() -> ProgressSink {
    Arc::new(|_| {})
}
