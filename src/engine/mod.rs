//! The embedded engine: owns containers, networks, volumes, images, events, health and restarts.
//!
//! It answers what exists, what state it is in and what happens to it next. It knows nothing of HTTP (that is
//! [`crate::server`]) and nothing of Compose projects beyond their labels; how a container is made of namespaces
//! and mounts is the runtime's business.

pub mod activity;
pub mod error;
pub mod paths;
mod process;

use std::sync::Arc;

pub use error::{EngineError, Result};
pub use process::main;

use activity::Activity;
use paths::Paths;

/// One engine: the single writer of everything below its state directory.
#[derive(Debug)]
pub struct Engine {
    /// Where everything lies.
    pub paths: Paths,
    /// Who uses the engine.
    pub activity: Arc<Activity>,
}

impl Engine {
    /// Opens the state directory and takes up what an earlier engine left running.
    pub async fn open(paths: Paths) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            paths,
            activity: Activity::new(),
        }))
    }

    /// Returns whether a container runs or is about to run again.
    pub fn has_live_containers(&self) -> bool {
        false
    }

    /// Lets go of everything without ending any container.
    pub async fn close(&self) {}
}
