//! Everything that is printed: progress, tables, log prefixes, prompts, error reports.

pub mod human;
pub mod list;
pub mod logs;
pub mod machine;
pub mod progress;
pub mod prompt;
pub mod report;
pub mod stream;
pub mod table;
pub mod template;
pub mod terminal;

pub use progress::{Progress, Status};
