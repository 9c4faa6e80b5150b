//! The containers' name server: `127.0.0.11` in each network namespace.
//!
//! [`Registry`] knows who has which name on which network, [`answer`] decides what a question deserves, [`serve`]
//! listens, `lively` keeps somebody awake for whoever asks much, and `upstream` asks others where we know nothing. A
//! container sees only names of its own networks.

pub mod answer;
mod lively;
mod registry;
mod serve;
mod upstream;

pub use registry::Registry;
pub use serve::{Sockets, serve};
pub use upstream::Servers;
