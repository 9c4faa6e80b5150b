//! The sockets that the engine answers on: its own, and those of earlier engines that containers still have mounted.
//!
//! A mounted socket is an inode, and a new engine makes a new one: a container would keep a socket that nobody listens
//! on. So whoever mounts the engine's socket keeps the listening end too, in its shim, and the next engine takes it
//! from there. Whoever connects while no engine is there waits for one.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::Engine;
use super::container::Record;
use super::mounts::is_engine_socket;
use super::paths::Paths;
use crate::server;

/// The name under which a shim keeps the listening end.
const NAME: &str = "engine-socket";

/// What the engine listens on.
#[derive(Debug)]
pub struct ApiSockets {
    own: OwnedFd,
    /// The inodes of all that are answered.
    known: Mutex<BTreeSet<u64>>,
}

impl ApiSockets {
    /// Returns the sockets of an engine that answers on this one by itself.
    pub fn new(own: OwnedFd) -> Self {
        let known = Mutex::new(inode(&own).into_iter().collect());
        Self { own, known }
    }

    /// Returns what a container's shim keeps so that its mounted socket outlives this engine.
    pub fn kept_for(&self, record: &Record, paths: &Paths) -> std::io::Result<Option<(String, OwnedFd)>> {
        let own_path = paths.socket();
        let mounts_it = record.mounts.iter().any(|mount| {
            let source = Path::new(&mount.source);
            mount.kind == "bind" && (source == own_path || stands_for_docker(&mount.source))
        });
        Ok(if mounts_it {
            Some((NAME.to_owned(), self.own.try_clone()?))
        } else {
            None
        })
    }

    /// Returns whether this socket is a new one.
    fn is_new(&self, socket: &OwnedFd) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        inode(socket).is_some_and(|inode| known.insert(inode))
    }
}

/// Returns whether a mount's source is Docker's socket on a machine without Docker: who asks for that one gets the one
/// that answers like it.
pub fn stands_for_docker(source: &str) -> bool {
    is_engine_socket(source) && !Path::new(source).exists()
}

impl Engine {
    /// Answers on the sockets among these descriptors of a shim, and returns the others.
    pub(super) fn answer_on_kept(self: &Arc<Self>, fds: Vec<(String, OwnedFd)>) -> Vec<(String, OwnedFd)> {
        let (sockets, others): (Vec<_>, Vec<_>) = fds.into_iter().partition(|(name, _)| name == NAME);
        for (_, socket) in sockets {
            if !self.api_sockets.is_new(&socket) {
                continue;
            }
            let listener = UnixListener::from(socket);
            let listener = listener
                .set_nonblocking(true)
                .and_then(|()| tokio::net::UnixListener::from_std(listener));
            match listener {
                Ok(listener) => {
                    let engine = Arc::clone(self);
                    self.tasks.spawn(async move {
                        let closing = engine.closing.clone();
                        tokio::select! {
                            () = server::serve(engine, listener) => {}
                            () = closing.cancelled() => {}
                        }
                    });
                }
                Err(cause) => tracing::warn!(%cause, "a socket that a container mounted cannot be answered"),
            }
        }
        others
    }
}

fn inode(socket: impl AsFd) -> Option<u64> {
    Some(rustix::fs::fstat(socket).ok()?.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_answered_once_however_many_containers_keep_it() {
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let (one, other) = (OwnedFd::from(one), OwnedFd::from(other));
        let sockets = ApiSockets::new(one.try_clone().unwrap());
        assert!(!sockets.is_new(&one));
        assert!(sockets.is_new(&other));
        assert!(!sockets.is_new(&other.try_clone().unwrap()));
    }
}
