//! Published ports: which of the host's ports each gets, and the sockets that reserve them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::error::PortError;
use super::holder;
use super::spec::{PortSpec, PortState, Protocol};
use crate::os::datagram;

/// How many connections may wait to be taken: as many as the kernel lets a program ask for.
const BACKLOG: i32 = 4096;

/// A published port and what holds it.
#[derive(Debug)]
pub struct Binding {
    pub port: PortState,
    /// None for SCTP, which only the firewall forwards.
    pub socket: Option<OwnedFd>,
}

impl Binding {
    /// Returns the name under which the socket is kept while no engine runs.
    pub fn key(port: &PortState) -> String {
        format!("net/{}/{}/{}", port.protocol.name(), port.host_ip, port.host_port)
    }
}

/// Hands out ports.
#[derive(Debug, Default)]
pub struct Ports {
    /// The port that was given to the last one who did not care which.
    last: u16,
}

impl Ports {
    /// Binds one wish; a wish for every address gives two bindings with the same port.
    ///
    /// `owner` names the container of this engine that has a port already.
    pub fn bind(
        &mut self,
        spec: &PortSpec,
        owner: impl Fn(Protocol, IpAddr, u16) -> Option<String>,
    ) -> Result<Vec<Binding>, PortError> {
        let addresses: Vec<IpAddr> = match spec.host_ip {
            Some(address) => vec![address],
            None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        };
        let (first, last) = spec.host_ports;
        let any = first == 0;
        let (first, last) = if any {
            local_port_range()
        } else {
            (first, last.max(first))
        };
        let count = u32::from(last - first) + 1;
        let start = if any && (first..last).contains(&self.last) {
            u32::from(self.last - first) + 1
        } else {
            0
        };

        let mut refusal = None;
        for step in 0..count {
            let port = first + ((start + step) % count) as u16;
            match bind_all(spec, &addresses, port, &owner) {
                Ok(bindings) => {
                    if any {
                        self.last = port;
                    }
                    return Ok(bindings);
                }
                // Another port of the range would be refused as well.
                Err(error @ PortError::Bind { .. }) => return Err(error),
                Err(error) => refusal = Some(error),
            }
        }
        Err(match refusal {
            Some(error) if count == 1 || !any => error,
            _ => PortError::Exhausted,
        })
    }
}

fn bind_all(
    spec: &PortSpec,
    addresses: &[IpAddr],
    port: u16,
    owner: &impl Fn(Protocol, IpAddr, u16) -> Option<String>,
) -> Result<Vec<Binding>, PortError> {
    let protocol = spec.protocol;
    let mut bindings = Vec::new();
    for &host_ip in addresses {
        let address = || SocketAddr::new(host_ip, port).to_string();
        if let Some(holder) = owner(protocol, host_ip, port) {
            return Err(PortError::Allocated {
                address: address(),
                holder: Some(holder),
            });
        }
        let state = PortState {
            container_port: spec.container_port,
            protocol,
            host_ip,
            host_port: port,
        };
        let socket = match bind(&state) {
            Ok(socket) => socket,
            // A host without IPv6 publishes on its IPv4 addresses; nobody asked for more.
            Err(error) if addresses.len() > 1 && host_ip.is_ipv6() && has_no_ipv6(&error) => continue,
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => {
                return Err(PortError::InUse {
                    address: address(),
                    protocol,
                    holder: holder::find(protocol, host_ip, port),
                });
            }
            Err(cause) => {
                return Err(PortError::Bind {
                    address: address(),
                    protocol,
                    cause,
                });
            }
        };
        bindings.push(Binding { port: state, socket });
    }
    Ok(bindings)
}

fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// Binds the socket of a published port; none for SCTP.
pub fn bind(port: &PortState) -> io::Result<Option<OwnedFd>> {
    let kind = match port.protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
        Protocol::Sctp => return Ok(None),
    };
    let family = if port.host_ip.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if port.host_ip.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    let address = SocketAddr::new(port.host_ip, port.host_port);
    match port.protocol {
        Protocol::Tcp => {
            // Connections of the container before may still be in their last minute.
            sockopt::set_socket_reuseaddr(&socket, true)?;
            rustix::net::bind(&socket, &address)?;
            rustix::net::listen(&socket, BACKLOG)?;
        }
        Protocol::Udp | Protocol::Sctp => {
            rustix::net::bind(&socket, &address)?;
            datagram::tell_destination(socket.as_fd(), port.host_ip.is_ipv6())?;
        }
    }
    Ok(Some(socket))
}

/// The range the kernel takes ports from for those who do not care which.
fn local_port_range() -> (u16, u16) {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut words = text.split_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first > 0 && first <= last => (first, last),
        _ => (49153, 65535),
    }
}

/// Returns whether two published ports would take each other's packets.
pub fn clash(one: &PortState, protocol: Protocol, host_ip: IpAddr, host_port: u16) -> bool {
    one.protocol == protocol
        && one.host_port == host_port
        && one.host_ip.is_ipv4() == host_ip.is_ipv4()
        && (one.host_ip == host_ip || one.host_ip.is_unspecified() || host_ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(host_ip: &str, host_ports: (u16, u16)) -> PortSpec {
        PortSpec {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_ip: (!host_ip.is_empty()).then(|| host_ip.parse().unwrap()),
            host_ports,
        }
    }

    fn nobody(_: Protocol, _: IpAddr, _: u16) -> Option<String> {
        None
    }

    #[test]
    fn a_port_held_by_a_process_is_refused_with_its_holder() {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = Ports::default()
            .bind(&spec("", (port, port)), nobody)
            .unwrap_err()
            .to_string();
        let start = format!("failed to bind host port 0.0.0.0:{port}/tcp: address already in use (held by process ");
        assert!(error.starts_with(&start), "{error}");
    }

    #[test]
    fn a_port_of_another_container_is_refused_in_dockers_words() {
        let owner = |_: Protocol, _: IpAddr, _: u16| Some("container p-web-1".to_owned());
        let error = Ports::default()
            .bind(&spec("127.0.0.1", (8080, 8080)), owner)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "Bind for 127.0.0.1:8080 failed: port is already allocated (held by container p-web-1)"
        );
    }

    #[test]
    fn a_range_gives_its_first_free_port() {
        // A range whose first port is taken; another test may take the second, so look for a quiet place.
        for first in (20000..30000).step_by(7) {
            let Ok(_holder) = std::net::TcpListener::bind(("127.0.0.1", first)) else {
                continue;
            };
            let Ok(bindings) = Ports::default().bind(&spec("127.0.0.1", (first, first + 1)), nobody) else {
                continue;
            };
            assert_eq!(bindings.len(), 1);
            assert_eq!(bindings[0].port.host_port, first + 1);
            return;
        }
        panic!("no two free ports");
    }

    #[test]
    fn who_does_not_care_gets_a_port_of_the_kernels_range_for_both_families() {
        let mut ports = Ports::default();
        let first = ports.bind(&spec("", (0, 0)), nobody).unwrap();
        let second = ports.bind(&spec("", (0, 0)), nobody).unwrap();
        let (low, high) = local_port_range();
        assert!((low..=high).contains(&first[0].port.host_port));
        assert!(
            first
                .iter()
                .all(|binding| binding.port.host_port == first[0].port.host_port)
        );
        assert_ne!(first[0].port.host_port, second[0].port.host_port);
    }

    #[test]
    fn an_address_that_is_not_the_hosts_is_refused_in_dockers_words() {
        let error = Ports::default()
            .bind(&spec("192.0.2.99", (8080, 8080)), nobody)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to bind host port 192.0.2.99:8080/tcp: cannot assign requested address"
        );
    }
}
