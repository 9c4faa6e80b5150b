//! Networks of containers: bridges, addresses, firewall, port proxy, DNS.
//!
//! [`Networks`] answers the engine's one question: make this container a network side (or take it away). It knows
//! addresses, names and ports, and nothing of images, processes or projects. The parts below it each do one thing:
//! `ipam` and `attachment` decide, `link`, `nft` and `bridge` say it to the kernel, `firewall` holds the rules,
//! `sandbox` makes namespaces on the threads of `worker`, `ports`, `proxy` and `published` serve ports, `dns`
//! answers names.

mod attachment;
mod bridge;
mod conntrack;
mod dialer;
pub mod dns;
mod egress;
mod error;
pub mod files;
mod firewall;
mod holder;
pub mod ipam;
mod link;
mod networks;
mod nft;
mod parent;
mod ports;
mod proxy;
mod published;
mod relay;
mod sandbox;
pub mod spec;
mod state;
mod store;
mod worker;

pub use attachment::check_wish;
pub use error::{ErrorKind, NetError, PortError};
pub use networks::{NetConfig, Networks, Sandbox};
