//! An engine for a user who is not root: everything it needs of the machine, it has in namespaces of that user's own.
//!
//! ```text
//!   client ─▶ holder (the user, outside) ── makes ──▶ user, mount and network namespace
//!                │                                        ▲            ▲
//!                └── starts, when asked ──▶ engine ───────┘ lives in   └── bridges and veths, by its worker threads
//! ```
//!
//! The holder is the first process and the last: it maps the user's ids, keeps the namespaces while nobody is in them,
//! starts the engine in them, and ends when the engine and every container have. The engine itself stays in the host's
//! network namespace, where published ports are listened on, names are asked for and images come from; its threads that
//! make bridges and interfaces are in the user's. A holder that was killed is missed only when its engine is gone as well:
//! the next one goes on with the namespaces of the containers that survived.

mod holder;
mod ids;
mod refusal;
mod survivors;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

pub use holder::start;
pub use ids::{Ids, why_one};

use crate::os::user_namespace;

/// Set, to the user's ids outside, in the environment of an engine that the holder started and of all it starts.
pub const VARIABLE: &str = "COMPOSE_ROOTLESS";

/// The user an engine belongs to, as the machine knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

impl Owner {
    fn parse(text: &str) -> Option<Self> {
        let (uid, gid) = text.split_once(':')?;
        Some(Self {
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
        })
    }
}

/// Returns whose engine this process belongs to, if it is in a plain user's namespaces.
pub fn owner() -> Option<Owner> {
    let owner = Owner::parse(&std::env::var(VARIABLE).ok()?)?;
    user_namespace::is_nested().then_some(owner)
}

/// Returns the user this process runs for, as the machine knows them.
pub fn real_uid() -> u32 {
    owner().map_or_else(|| rustix::process::geteuid().as_raw(), |owner| owner.uid)
}

/// Returns whether an engine started by this process would be the machine's, not a user's.
pub fn is_machine_wide() -> bool {
    rustix::process::geteuid().is_root() && owner().is_none()
}

static NETWORK: OnceLock<OwnedFd> = OnceLock::new();

/// Takes note of the network namespace that the holder handed over.
pub fn set_network(namespace: OwnedFd) {
    // There is one holder, which hands over one.
    let _ = NETWORK.set(namespace);
}

/// Returns the network namespace that the engine's bridges lie in, where that is not the one it runs in.
pub fn network() -> Option<BorrowedFd<'static>> {
    NETWORK.get().map(AsFd::as_fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_two_numbers() {
        assert_eq!(Owner::parse("1000:100"), Some(Owner { uid: 1000, gid: 100 }));
        for text in ["", "1000", "a:b", "1000:100:1"] {
            assert_eq!(Owner::parse(text), None, "{text:?}");
        }
    }
}
