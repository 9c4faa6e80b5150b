//! Whether anyone needs the engine: how many connections are open, and when the last one ended.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

/// Counts who uses the engine.
#[derive(Debug)]
pub struct Activity {
    users: AtomicUsize,
    last: Mutex<Instant>,
    changed: Notify,
}

impl Activity {
    /// Returns the activity of an engine that has just started.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            users: AtomicUsize::new(0),
            last: Mutex::new(Instant::now()),
            changed: Notify::new(),
        })
    }

    /// Counts one more user for as long as the value returned lives.
    pub fn begin(self: &Arc<Self>) -> InUse {
        self.users.fetch_add(1, Ordering::Relaxed);
        InUse(Arc::clone(self))
    }

    /// Returns since when nobody uses the engine; `None` while somebody does.
    pub fn idle_since(&self) -> Option<Instant> {
        (self.users.load(Ordering::Relaxed) == 0).then(|| *self.last.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns how many use the engine.
    pub fn users(&self) -> usize {
        self.users.load(Ordering::Relaxed)
    }

    /// Notes that something happened just now.
    pub fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.changed.notify_waiters();
    }

    /// Waits until a user leaves or something happens.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// One user of the engine.
#[derive(Debug)]
pub struct InUse(Arc<Activity>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::Relaxed);
        self.0.touch();
    }
}
