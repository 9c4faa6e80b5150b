//! A network's bridge on the host, and what the host must allow for it.

use std::fs;
use std::net::IpAddr;

use super::error::NetError;
use super::link::{self, Index};
use super::parent;
use super::spec::{Mac, NetworkSpec, NetworkState};
use super::worker::Host;
use crate::os::netlink::Message;

/// Makes the network's bridge as it should be, whatever part of it is there already.
pub fn ensure(host: &mut Host, state: &NetworkState) -> Result<Option<Index>, NetError> {
    let Some(name) = &state.bridge else {
        return Ok(None);
    };
    if !state.is_bridged() {
        return parent::ensure(host, state, name).map(Some);
    }
    let socket = &mut host.route;
    let found = link::find(socket, name)?;
    let index = match found {
        Some(found) => {
            let mut messages = vec![link::set_up(found.index, name)];
            if state.owns_bridge {
                messages.push(link::set_group(found.index, name));
            }
            socket.request(messages)?;
            found.index
        }
        None => {
            let mtu = mtu(state);
            socket.request(vec![link::create_bridge(name, mac(state), mtu)])?;
            let Some(made) = link::find(socket, name)? else {
                return Ok(None);
            };
            made.index
        }
    };
    socket.request(addresses(state, index, name)).or_else(|error| {
        // It has them already.
        if error.errno() == Some(libc::EEXIST) {
            Ok(())
        } else {
            Err(error)
        }
    })?;
    allow(state, name);
    Ok(Some(index))
}

/// Returns the name of a network's bridge.
pub fn name(spec: &NetworkSpec) -> String {
    match spec.options.get("com.docker.network.bridge.name") {
        Some(name) if !name.is_empty() => name.clone(),
        _ => format!("br-{}", spec.id.get(..12).unwrap_or(&spec.id)),
    }
}

/// Returns the maximum transmission unit that the network's options ask for.
pub fn mtu(state: &NetworkState) -> Option<u32> {
    state.spec.options.get("com.docker.network.driver.mtu")?.parse().ok()
}

fn addresses(state: &NetworkState, index: Index, name: &str) -> Vec<Message> {
    let has_ipv6 = state.pools.iter().any(|pool| pool.subnet.address.is_ipv6());
    let mut messages = Vec::new();
    if !has_ipv6 {
        messages.push(link::no_link_local(index, name));
    }
    for pool in &state.pools {
        messages.push(link::add_address(index, name, pool.gateway, pool.subnet.prefix));
    }
    messages
}

/// The bridge's hardware address follows from its own address, as a container's does.
fn mac(state: &NetworkState) -> Mac {
    match state.pools.first().map(|pool| pool.gateway) {
        Some(IpAddr::V4(address)) => Mac::of(address),
        Some(IpAddr::V6(address)) => Mac::of_ipv6(address),
        None => Mac([0x02, 0x42, 0, 0, 0, 1]),
    }
}

/// Sets what the kernel must allow. None of it is worth failing for: the packets that need it will tell.
fn allow(state: &NetworkState, bridge: &str) {
    set(&format!("net/ipv4/conf/{bridge}/route_localnet"), "1");
    if state.spec.internal {
        return;
    }
    set("net/ipv4/ip_forward", "1");
    if state.pools.iter().any(|pool| pool.subnet.address.is_ipv6()) {
        keep_router_advertisements();
        set("net/ipv6/conf/default/forwarding", "1");
        set("net/ipv6/conf/all/forwarding", "1");
    }
}

/// A machine that forwards IPv6 stops listening to its own router, unless told otherwise.
fn keep_router_advertisements() {
    if get("net/ipv6/conf/all/forwarding").as_deref() == Some("1") {
        return;
    }
    let Ok(entries) = fs::read_dir("/proc/sys/net/ipv6/conf") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let setting = format!("net/ipv6/conf/{}/accept_ra", name.to_string_lossy());
        if get(&setting).as_deref() == Some("1") {
            set(&setting, "2");
        }
    }
}

fn get(setting: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{setting}")).ok()?;
    Some(text.trim_end().to_owned())
}

fn set(setting: &str, value: &str) {
    if get(setting).as_deref() == Some(value) {
        return;
    }
    if let Err(error) = fs::write(format!("/proc/sys/{setting}"), value) {
        tracing::warn!(setting, value, %error, "a setting of the network was refused");
    }
}
