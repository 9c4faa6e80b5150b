//! Networks of containers: bridges, addresses, firewall, port proxy, DNS.

mod error;
pub mod files;
pub mod ipam;
pub mod spec;

pub use error::{ErrorKind, NetError, PortError};
