//! The way out of a network namespace that has none, for a user who may make no interface in the host's.
//!
//! ```text
//!   container ── bridge ──▶ gate (a socket in the namespace, which stands in for everybody) ══▶ socket in the host's namespace
//! ```
//!
//! The firewall leads to the gate whatever leaves the networks, wherever it was going, and the engine, which is in the
//! host's namespace, carries it on from there by sockets of its own, as it does the other way for published ports. Both
//! ends are the kernel's own TCP: nothing is installed, no device is opened, and nothing is slower than a copy.
//!
//! Two things are not as with a route: a connection is taken before it is known whether it can be carried on, so that one
//! that is refused outside is seen to begin and end at once; and nothing but TCP and UDP gets out.

mod datagrams;
mod gate;
mod streams;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

use super::error::NetError;
use super::firewall;
use super::worker::Workers;
pub use gate::{Gate, Sockets};

/// Opens the gates, one for each family that the host has a way out by. Where the kernel has no such thing there are none.
pub async fn open(workers: &Workers) -> Result<Vec<Sockets>, NetError> {
    let families: &[bool] = if has_ipv6_route() { &[false, true] } else { &[false] };
    workers
        .run(move |host| {
            if let Some(error) = firewall::refuses_gates() {
                tracing::warn!(
                    %error,
                    "containers have no way out: this kernel's nftables cannot lead their packets to us (CONFIG_NFT_TPROXY)"
                );
                return Ok(Vec::new());
            }
            families
                .iter()
                .map(|&ipv6| gate::open(host, ipv6))
                .collect::<Result<Vec<_>, NetError>>()
        })
        .await?
}

/// Carries on what comes to the gates, until the tasks end.
pub fn serve(gates: &[Sockets], workers: &Workers, gateways: &Gateways) -> io::Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    for gate in gates {
        streams::serve(&mut tasks, gate.tcp.try_clone()?, gateways.clone())?;
        datagrams::serve(&mut tasks, gate.udp.try_clone()?, workers.clone(), gateways.clone())?;
    }
    Ok(tasks)
}

/// The addresses by which containers know the host, on the bridges there are.
#[derive(Clone, Debug, Default)]
pub struct Gateways(Arc<Mutex<Vec<IpAddr>>>);

impl Gateways {
    /// Takes note of the bridges' addresses.
    pub fn set(&self, gateways: Vec<IpAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = gateways;
    }

    /// Returns where what was going to `destination` goes from here; `None`: nowhere.
    ///
    /// Containers must not reach what listens on the host's loopback only. Their gateway is the host to them, by an
    /// address that others reach it by too.
    fn outside(&self, destination: SocketAddr) -> Option<SocketAddr> {
        let address = destination.ip();
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&address) {
            return Some(SocketAddr::new(host_address(address.is_ipv4())?, destination.port()));
        }
        let nobody = address.is_loopback() || address.is_unspecified() || address.is_multicast();
        (!nobody).then_some(destination)
    }
}

/// Returns whether the host has a way out by IPv6. Taking connections that cannot be carried on would keep clients from
/// trying IPv4.
fn has_ipv6_route() -> bool {
    let routes = std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
    routes.lines().any(|line| {
        let mut words = line.split_whitespace();
        let (destination, prefix) = (words.next().unwrap_or_default(), words.next());
        let is_default = prefix == Some("00") && destination.bytes().all(|byte| byte == b'0');
        is_default && line.split_whitespace().last() != Some("lo")
    })
}

/// Returns the address by which the host is known: the one it would use to reach others, or else any of its own.
fn host_address(ipv4: bool) -> Option<IpAddr> {
    let (any, far): (IpAddr, IpAddr) = if ipv4 {
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into())
    } else {
        (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        )
    };
    // Nothing is sent: the kernel only decides by which address it would be.
    let asked = std::net::UdpSocket::bind((any, 0))
        .and_then(|socket| socket.connect((far, 9)).and_then(|()| socket.local_addr()))
        .map(|address| address.ip());
    asked.ok().filter(|address| !address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_to_the_hosts_loopback() {
        for (destination, allowed) in [
            ("127.0.0.1:80", false),
            ("0.0.0.0:80", false),
            ("224.0.0.251:5353", false),
            ("[::1]:80", false),
            ("198.51.100.7:443", true),
            ("[2001:db8::7]:443", true),
        ] {
            let destination: SocketAddr = destination.parse().unwrap();
            assert_eq!(Gateways::default().outside(destination), allowed.then_some(destination));
        }
    }
}
