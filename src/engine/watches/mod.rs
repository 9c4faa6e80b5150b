//! Watches that go on when the terminal is gone: each a process of its own, which the engine starts, starts again and
//! ends. What it is run with and what it says of itself are files, so that it outlives the engine and the engine it.

mod home;
mod keep;

pub use home::{Entry, Home, Record, Report, Watched};
pub use keep::{Standing, Watches};
