//! The network that a step sees.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use futures_util::future::BoxFuture;

/// What of the network a step may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// A namespace of the step's own, with a way out.
    Own,
    /// The host's.
    Host,
    None,
}

/// The network side of one step. It is given back when this is dropped.
pub struct Plug {
    pub namespace: OwnedFd,
    /// The text of the step's `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// What `host-gateway` stands for.
    pub gateway: Option<IpAddr>,
    /// Gives it back.
    pub guard: Box<dyn Send>,
}

/// Why a step has no network.
pub type PlugError = Box<dyn std::error::Error + Send + Sync>;

/// Makes the network side of a step, which has a name that no other one has at the time.
///
/// A build knows nothing of bridges and addresses; who has it done does.
pub type Plugs = Arc<dyn Fn(String) -> BoxFuture<'static, Result<Plug, PlugError>> + Send + Sync>;
