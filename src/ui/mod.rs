//! Everything that is printed: progress, tables, log prefixes, prompts, error reports.

pub mod human;
pub mod progress;
pub mod stream;

pub use progress::{Progress, Status};
