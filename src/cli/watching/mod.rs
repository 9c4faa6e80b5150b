//! Watching a project's files and carrying out what follows a change: for `watch`, for `up --watch`, and for the
//! watch that goes on when the terminal is gone.

mod containers;
mod jobs;
mod journal;
mod memory;
mod run;
mod voice;

pub use journal::Journal;
pub use run::Watching;
pub use voice::Voice;
