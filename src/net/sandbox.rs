//! A container's network namespace: made, changed and looked into by worker threads.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::conntrack;
use super::dns;
use super::error::NetError;
use super::link::{self, Child, Index, Veth};
use super::spec::EndpointState;
use super::worker::Host;
use crate::os::netlink::{Message, Protocol, RequestError, Socket};

/// A plug: an endpoint, and the bridge it goes to.
#[derive(Clone, Debug)]
pub struct Plug {
    pub endpoint: EndpointState,
    /// None: a network whose driver makes no interfaces.
    pub bridge: Option<Index>,
    /// The kind of interface on it; `None`: the end of a veth pair.
    pub child: Option<Child>,
    pub mtu: Option<u32>,
}

/// What a new namespace is to have.
#[derive(Debug, Default)]
pub struct Plan {
    pub plugs: Vec<Plug>,
    pub sysctls: BTreeMap<String, String>,
    /// Whether names are answered inside.
    pub resolves: bool,
    /// A namespace that is made already, with nothing set up in it.
    pub namespace: Option<OwnedFd>,
}

/// A namespace that was made.
#[derive(Debug)]
pub struct Made {
    pub namespace: OwnedFd,
    pub resolver: Option<dns::Sockets>,
}

/// Makes a namespace.
pub fn make(host: &mut Host, mut plan: Plan) -> Result<Made, NetError> {
    const LOOPBACK: Index = 1;
    let given = plan.namespace.take();
    let furnish = |host: &mut Host, namespace: BorrowedFd<'_>| {
        let mut inside = Socket::open(Protocol::Route).map_err(NetError::system("open a netlink socket"))?;
        // Interfaces are made as they are going to be, which spares each the seconds of looking for neighbours. What the
        // container makes itself is its own affair, as with Docker.
        let without = !plan.plugs.iter().any(|plug| plug.endpoint.ipv6.is_some()) && has_ipv6("default");
        if without {
            set_ipv6("default", false);
        }
        let mut messages = vec![link::set_up(LOOPBACK, "lo")];
        messages.extend(plug_in(host, &mut inside, namespace, &plan.plugs)?);
        if without {
            set_ipv6("default", true);
        }
        let endpoints: Vec<&EndpointState> = plan.plugs.iter().map(|plug| &plug.endpoint).collect();
        messages.extend(routes(&mut inside, &[], &endpoints)?);
        inside.request(messages)?;
        set_sysctls(&plan.sysctls)?;
        for plug in &plan.plugs {
            set_sysctls(plug.endpoint.sysctls.iter().map(|(name, value)| (name, value)))?;
        }
        if !plan.resolves {
            return Ok(None);
        }
        let sockets = dns::Sockets::open().map_err(NetError::system("open the container's resolver"))?;
        Ok(Some(sockets))
    };
    let (namespace, resolver) = match given {
        Some(namespace) => {
            let resolver = host.in_namespace(namespace.as_fd(), |host| furnish(host, namespace.as_fd()))?;
            (namespace, resolver)
        }
        None => host.in_new_namespace(furnish)?,
    };
    Ok(Made { namespace, resolver })
}

/// Adds an attachment to a namespace that exists; `others` are those it has.
pub fn connect(
    host: &mut Host,
    namespace: BorrowedFd<'_>,
    plug: &Plug,
    others: &[EndpointState],
) -> Result<(), NetError> {
    host.in_namespace(namespace, |host| {
        let mut inside = Socket::open(Protocol::Route).map_err(NetError::system("open a netlink socket"))?;
        let mut messages = plug_in(host, &mut inside, namespace, std::slice::from_ref(plug))?;
        let before: Vec<&EndpointState> = others.iter().collect();
        let after: Vec<&EndpointState> = before.iter().copied().chain([&plug.endpoint]).collect();
        messages.extend(routes(&mut inside, &before, &after)?);
        inside.request(messages)?;
        set_sysctls(plug.endpoint.sysctls.iter().map(|(name, value)| (name, value)))
    })
}

/// Takes an attachment away from a namespace that goes on; `others` are those it keeps.
pub fn disconnect(
    host: &mut Host,
    namespace: BorrowedFd<'_>,
    endpoint: &EndpointState,
    others: &[EndpointState],
) -> Result<(), NetError> {
    cut_off(host, std::slice::from_ref(endpoint));
    host.in_namespace(namespace, |_| {
        let mut inside = Socket::open(Protocol::Route).map_err(NetError::system("open a netlink socket"))?;
        // Its routes go with it.
        let deleted = inside.request(vec![link::delete(&endpoint.interface)]);
        deleted.or_else(|error| match error.errno() {
            Some(libc::ENODEV) => Ok(()),
            _ => Err(error),
        })?;
        let after: Vec<&EndpointState> = others.iter().collect();
        let before: Vec<&EndpointState> = after.iter().copied().chain([endpoint]).collect();
        let messages = routes(&mut inside, &before, &after)?;
        inside.request(messages)?;
        Ok(())
    })
}

/// Stops all traffic of attachments at once, before their namespace has died.
pub fn cut_off(host: &mut Host, endpoints: &[EndpointState]) {
    for endpoint in endpoints {
        let name = &endpoint.host_interface;
        if let Ok(Some(found)) = link::find(&mut host.route, name) {
            // It may die under our hands: that is what it should do.
            let _ = host.route.request(vec![link::disable_port(found.index, name)]);
        }
    }
}

/// Lets the kernel forget the connections that came to a container by its published ports.
pub fn forget_connections(addresses: &[IpAddr]) {
    let Ok(mut socket) = Socket::open(Protocol::Netfilter) else {
        return;
    };
    for &address in addresses {
        if let Err(error) = conntrack::forget(&mut socket, address) {
            tracing::debug!(%error, cause = %error.source, "clients may go on asking a container that is gone");
        }
    }
}

/// Makes the interfaces, and returns the messages that set them up and give them their addresses.
fn plug_in(
    host: &mut Host,
    inside: &mut Socket,
    namespace: BorrowedFd<'_>,
    plugs: &[Plug],
) -> Result<Vec<Message>, NetError> {
    let pairs = plugs.iter().filter_map(|plug| {
        let veth = Veth {
            host: &plug.endpoint.host_interface,
            bridge: plug.bridge?,
            inside: &plug.endpoint.interface,
            namespace,
            mac: plug.endpoint.mac,
            mtu: plug.mtu,
        };
        Some(match plug.child {
            Some(child) => link::create_child(child, &veth),
            None => link::create_veth(&veth),
        })
    });
    let made = host.route.request(pairs.collect());
    made.map_err(|error| match plugs.iter().find_map(|plug| plug.child) {
        Some(child) if error.errno() == Some(libc::EOPNOTSUPP) => NetError::NoSuchLink(child.kind()),
        _ => error.into(),
    })?;
    let mut messages = Vec::new();
    for plug in plugs.iter().filter(|plug| plug.bridge.is_some()) {
        let endpoint = &plug.endpoint;
        let name = &endpoint.interface;
        set_ipv6(name, endpoint.ipv6.is_some());
        let index = index_of(inside, name)?;
        messages.push(link::set_up(index, name));
        if let Some(address) = endpoint.ipv4 {
            messages.push(link::add_address(index, name, address.into(), endpoint.ipv4_prefix));
        }
        if let Some(address) = endpoint.ipv6 {
            messages.push(link::add_address(index, name, address.into(), endpoint.ipv6_prefix));
        }
        for &(address, prefix) in &endpoint.link_local {
            messages.push(link::add_address(index, name, address, prefix));
        }
    }
    Ok(messages)
}

fn index_of(inside: &mut Socket, name: &str) -> Result<Index, NetError> {
    match link::find(inside, name)? {
        Some(found) => Ok(found.index),
        None => Err(NetError::system(format!("find interface {name}"))(
            std::io::ErrorKind::NotFound.into(),
        )),
    }
}

/// Returns the messages that make the default routes those of `after`, where they were those of `before`.
fn routes(inside: &mut Socket, before: &[&EndpointState], after: &[&EndpointState]) -> Result<Vec<Message>, NetError> {
    let mut messages = Vec::new();
    for ipv4 in [true, false] {
        let (old, new) = (default(before, ipv4), default(after, ipv4));
        if old == new {
            continue;
        }
        if let Some(old) = old
            && let Some(gateway) = gateway(old, ipv4)
            && let Some(link) = link::find(inside, &old.interface)?
        {
            // The container may have changed its routes; then this one is not ours any more.
            let _: Result<(), RequestError> = inside.request(vec![link::delete_default_route(link.index, gateway)]);
        }
        if let Some(new) = new
            && let Some(gateway) = gateway(new, ipv4)
        {
            messages.push(link::add_default_route(index_of(inside, &new.interface)?, gateway));
        }
    }
    Ok(messages)
}

/// Returns whether an interface may have IPv6 addresses. A kernel without IPv6 has no such setting.
fn has_ipv6(interface: &str) -> bool {
    let setting = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    std::fs::read_to_string(setting).is_ok_and(|value| value.trim_end() == "0")
}

/// Lets an interface have IPv6 addresses or not. A kernel without IPv6 has no such setting.
fn set_ipv6(interface: &str, wanted: bool) {
    let setting = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    let value = if wanted { "0" } else { "1" };
    if std::fs::read_to_string(&setting).is_ok_and(|now| now.trim_end() != value) {
        // Refused only where it makes no difference.
        let _ = std::fs::write(&setting, value);
    }
}

/// Returns the attachment that leads out: the highest `gw_priority`, then the first network by name.
pub fn default<'a>(endpoints: &[&'a EndpointState], ipv4: bool) -> Option<&'a EndpointState> {
    endpoints
        .iter()
        .copied()
        .filter(|endpoint| gateway(endpoint, ipv4).is_some())
        .min_by_key(|endpoint| endpoint.rank())
}

fn gateway(endpoint: &EndpointState, ipv4: bool) -> Option<IpAddr> {
    if ipv4 {
        endpoint.gateway.map(IpAddr::V4)
    } else {
        endpoint.gateway6.map(IpAddr::V6)
    }
}

fn set_sysctls<'s>(sysctls: impl IntoIterator<Item = (&'s String, &'s String)>) -> Result<(), NetError> {
    for (name, value) in sysctls {
        let Some(rest) = name.strip_prefix("net.").or_else(|| name.strip_prefix("net/")) else {
            continue;
        };
        // A name may have a dot in an interface's name, when it is written with slashes.
        let rest = if rest.contains('/') {
            rest.to_owned()
        } else {
            rest.replace('.', "/")
        };
        if rest.split('/').any(|part| part == "..") {
            continue;
        }
        std::fs::write(format!("/proc/sys/net/{rest}"), value)
            .map_err(NetError::system(format!("set {name} to {value:?}")))?;
    }
    Ok(())
}
