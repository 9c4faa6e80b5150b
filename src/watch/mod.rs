//! `watch`: which files are watched, what a change means, and how it gets into a container.
//!
//! ```text
//!   Watcher ──changes──▶ Pending ──paths that are due──▶ Rules ──Batch──▶ Desk ──jobs──▶ whoever carries them out
//!   (inotify)            (debounce)                      (what follows)   (what may start now)
//! ```
//!
//! Only the watcher and the copying touch anything outside; between them is nothing but decisions.

mod archive;
mod desk;
mod ignore;
mod pending;
mod rules;
mod snapshot;
mod sync;
mod tree;
mod watcher;

pub use desk::{Desk, Job};
pub use pending::Pending;
pub use rules::{Action, Batch, Mapping, Rule, RuleError, Rules};
pub use snapshot::{Identity, Snapshot};
pub use sync::{Report, SyncError, sync};
pub use watcher::{News, Watcher};

use std::path::PathBuf;

/// Something happened to a file, a link or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub path: PathBuf,
    pub kind: Kind,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is there and whole, as far as one can tell.
    Whole,
    /// Somebody has begun to write it.
    Begun,
    /// It is not there any more, under this name.
    Gone,
}
