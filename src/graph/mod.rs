//! Start order of a project's services.
//!
//! [`StartGraph`] answers one question: which services must be up before this one? It knows nothing of engines or
//! containers; `plan` turns its answer into operations.

mod start;

pub use start::{GraphError, StartGraph};
