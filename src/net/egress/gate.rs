//! The gate: two sockets that take what was going elsewhere, and the route that delivers it to them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::net::error::NetError;
use crate::net::firewall::MARK;
use crate::net::link;
use crate::net::worker::Host;
use crate::os::datagram;

const BACKLOG: i32 = 4096;
const LOOPBACK: link::Index = 1;

/// Where the firewall leads packets of a family to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Any address, of the family.
    pub address: IpAddr,
    pub tcp: u16,
    pub udp: u16,
}

/// The sockets of a gate.
#[derive(Debug)]
pub struct Sockets {
    pub tcp: OwnedFd,
    pub udp: OwnedFd,
    gate: Gate,
}

impl Sockets {
    /// Returns where the sockets are found.
    pub fn gate(&self) -> Gate {
        self.gate
    }
}

/// Opens a gate in the namespace of the worker.
pub fn open(host: &mut Host, ipv6: bool) -> Result<Sockets, NetError> {
    for message in link::deliver_marked(ipv6, MARK, LOOPBACK) {
        host.route.request(vec![message]).or_else(|error| match error.errno() {
            // An earlier engine has seen to it.
            Some(libc::EEXIST) => Ok(()),
            _ => Err(error),
        })?;
    }
    // Or packets would pass the rules before they have left the bridge, and forget there what socket takes them.
    for setting in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        let path = format!("/proc/sys/net/bridge/{setting}");
        if std::fs::read_to_string(&path).is_ok_and(|value| value.trim() != "0")
            && let Err(error) = std::fs::write(&path, "0")
        {
            tracing::warn!(setting, %error, "containers may have no way out");
        }
    }
    sockets(ipv6).map_err(NetError::system("open the way out of the containers' networks"))
}

fn sockets(ipv6: bool) -> io::Result<Sockets> {
    let address: IpAddr = if ipv6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let any = SocketAddr::new(address, 0);
    let tcp = stand_in(any, SocketType::STREAM)?;
    rustix::net::listen(&tcp, BACKLOG)?;
    let udp = stand_in(any, SocketType::DGRAM)?;
    datagram::tell_original_destination(udp.as_fd(), ipv6)?;
    let port = |socket: &OwnedFd| -> io::Result<u16> {
        let name = SocketAddr::try_from(rustix::net::getsockname(socket)?);
        Ok(name.map_err(io::Error::from)?.port())
    };
    let gate = Gate {
        address,
        tcp: port(&tcp)?,
        udp: port(&udp)?,
    };
    Ok(Sockets { tcp, udp, gate })
}

/// Makes a socket at an address that may be anybody's.
pub fn stand_in(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let ipv6 = address.is_ipv6();
    let family = if ipv6 {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if ipv6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    sockopt::set_socket_reuseaddr(&socket, true)?;
    datagram::stand_in_for_others(socket.as_fd(), ipv6)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}
