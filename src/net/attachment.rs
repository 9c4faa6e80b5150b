//! What becomes of a wish to be attached to a network: addresses, names of interfaces, and what is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha2::{Digest, Sha256};

use super::error::NetError;
use super::ipam::{Leases, problems_of_wish};
use super::sandbox;
use super::spec::{Driver, EndpointSpec, EndpointState, Mac, NetworkState, SandboxRecord};

/// The hardware address and the further addresses that an attachment asks for.
type Wished = (Option<Mac>, Vec<(IpAddr, u8)>);

/// Returns the hardware address and the further addresses that an attachment asks for; fails with all that is wrong
/// with its wishes.
pub fn check_wish(network: &NetworkState, wish: &EndpointSpec) -> Result<Wished, NetError> {
    let mut problems = Vec::new();
    for (text, ipv4) in [(&wish.ipv4, true), (&wish.ipv6, false)] {
        if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
            problems.extend(problems_of_wish(text, ipv4, &network.pools));
        }
    }
    let wished_mac = wish.mac.as_deref().filter(|text| !text.is_empty());
    let mac = wished_mac.and_then(Mac::parse);
    if let (Some(text), None) = (wished_mac, mac) {
        problems.push(format!("invalid MAC address: {text}"));
    }
    let mut link_local = Vec::new();
    for text in &wish.link_local {
        match text.parse::<IpAddr>() {
            Ok(address @ IpAddr::V4(_)) => link_local.push((address, 16)),
            Ok(address @ IpAddr::V6(_)) => link_local.push((address, 64)),
            Err(_) => problems.push(format!("invalid link-local IP address: {text}")),
        }
    }
    if !problems.is_empty() {
        return Err(NetError::InvalidEndpoint {
            network: network.spec.name.clone(),
            problems,
        });
    }
    Ok((mac, link_local))
}

/// Decides everything about an attachment, and takes its addresses.
///
/// `others` are the container's other attachments, `wished` the interface names that any of them asks for.
pub fn choose_endpoint(
    instance: &str,
    network: &NetworkState,
    leases: &mut Leases,
    wish: &EndpointSpec,
    others: &[EndpointState],
    wished: &[&str],
) -> Result<EndpointState, NetError> {
    let (mac, link_local) = check_wish(network, wish)?;

    let mut taken: Vec<IpAddr> = Vec::new();
    let mut address = |wanted: &Option<String>, ipv4: bool| -> Result<Option<(IpAddr, u8)>, NetError> {
        let mut pools = network.pools.iter().map(|pool| pool.subnet.address);
        if !pools.any(|address| address.is_ipv4() == ipv4) {
            return Ok(None);
        }
        let found = match wanted.as_deref().and_then(|text| text.parse().ok()) {
            Some(wanted) => leases.claim(&network.pools, wanted).map(|prefix| (wanted, prefix)),
            None => leases
                .allocate(&network.pools, ipv4)
                .ok_or_else(|| NetError::AddressesExhausted {
                    family: if ipv4 { "IPv4" } else { "IPv6" },
                    network: network.spec.name.clone(),
                    id: network.spec.id.clone(),
                }),
        };
        match found {
            Ok(found) => {
                taken.push(found.0);
                Ok(Some(found))
            }
            Err(error) => {
                for address in taken.drain(..) {
                    leases.release(address);
                }
                Err(error)
            }
        }
    };
    let ipv4 = address(&wish.ipv4, true)?;
    let ipv6 = address(&wish.ipv6, false)?;

    let on_a_wire = matches!(network.spec.driver, Driver::Bridge | Driver::Macvlan | Driver::Ipvlan);
    let leads_out = on_a_wire && !network.spec.internal;
    let gateway_for = |address: Option<(IpAddr, u8)>| -> Option<IpAddr> {
        let (address, _) = address.filter(|_| leads_out)?;
        let pool = network.pools.iter().find(|pool| pool.subnet.contains(address))?;
        Some(pool.gateway)
    };
    let (gateway, gateway6) = (gateway_for(ipv4), gateway_for(ipv6));
    let (ipv4, ipv4_prefix) = ipv4.map_or((None, 0), |(address, prefix)| (only_ipv4(address), prefix));
    let (ipv6, ipv6_prefix) = ipv6.map_or((None, 0), |(address, prefix)| (only_ipv6(address), prefix));
    let endpoint_id = if wish.endpoint_id.is_empty() {
        random_id()?
    } else {
        wish.endpoint_id.clone()
    };
    let interface = match wish.interface.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => name.to_owned(),
        None => free_interface(others, wished),
    };
    Ok(EndpointState {
        network: network.spec.id.clone(),
        network_name: network.spec.name.clone(),
        host_interface: host_interface(instance, &endpoint_id),
        endpoint_id,
        names: wish.names.clone(),
        links: wish.links.clone(),
        ipv4,
        ipv4_prefix,
        gateway: gateway.and_then(only_ipv4),
        ipv6,
        ipv6_prefix,
        gateway6: gateway6.and_then(only_ipv6),
        mac: mac.unwrap_or_else(|| match (ipv4, ipv6) {
            (Some(address), _) => Mac::of(address),
            (None, Some(address)) => Mac::of_ipv6(address),
            (None, None) => Mac([0x02, 0x42, 0, 0, 0, 2]),
        }),
        // With slashes, so that a dot in the interface's name stays one.
        sysctls: wish
            .sysctls
            .iter()
            .map(|(name, value)| (name.replace('.', "/").replace("IFNAME", &interface), value.clone()))
            .collect(),
        interface,
        gw_priority: wish.gw_priority,
        link_local,
        leads_out,
    })
}

fn only_ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn only_ipv6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(address),
    }
}

fn free_interface(others: &[EndpointState], wished: &[&str]) -> String {
    let is_free =
        |name: &String| !wished.contains(&name.as_str()) && !others.iter().any(|other| other.interface == *name);
    (0..)
        .map(|at| format!("eth{at}"))
        .find(is_free)
        .expect("a container has finitely many interfaces")
}

/// The host's end of a veth pair: 15 bytes are all the kernel takes.
fn host_interface(instance: &str, endpoint_id: &str) -> String {
    let hash = Sha256::digest(endpoint_id.as_bytes());
    let instance: String = instance.chars().take(4).collect();
    format!(
        "v{instance}{:02x}{:02x}{:02x}{:02x}{:02x}",
        hash[0], hash[1], hash[2], hash[3], hash[4]
    )
}

fn random_id() -> Result<String, NetError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| NetError::system("choose an endpoint's id")(error.into()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Returns the addresses that an attachment leased.
pub fn addresses(endpoint: &EndpointState) -> impl Iterator<Item = IpAddr> {
    let ipv4 = endpoint.ipv4.map(IpAddr::V4);
    ipv4.into_iter().chain(endpoint.ipv6.map(IpAddr::V6))
}

/// Returns the container's address that clients of a host address are led to: one of the same family if there is.
pub fn published_address(record: &SandboxRecord, host_ip: IpAddr) -> Option<IpAddr> {
    let endpoints: Vec<&EndpointState> = record.endpoints.iter().collect();
    let ipv4 = || {
        sandbox::default(&endpoints, true)
            .and_then(|endpoint| endpoint.ipv4)
            .map(IpAddr::V4)
    };
    let ipv6 = || {
        sandbox::default(&endpoints, false)
            .and_then(|endpoint| endpoint.ipv6)
            .map(IpAddr::V6)
    };
    if host_ip.is_ipv4() {
        ipv4().or_else(ipv6)
    } else {
        ipv6().or_else(ipv4)
    }
}
