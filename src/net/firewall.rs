//! The rules that let packets out of networks, into published ports, and nowhere else.
//!
//! One nftables table per engine, written as a whole whenever something changed: which rules there are is a pure
//! function of the networks and published ports. Where another firewall drops what is forwarded (Docker sets that
//! policy), our bridges are let through there too, by rules with our comment.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use super::egress::Gate;
use super::error::NetError;
use super::ipam::Subnet;
use super::link::GROUP;
use super::nft::{self, Batch, Chain, ChainType, Family, Hook, Position, Rule};
use super::spec::{NetworkState, PortState, Protocol};
use crate::os::netlink::{Protocol as Netlink, RequestError, Socket};

const GUARD: Chain = Chain {
    name: "guard",
    kind: ChainType::Filter,
    hook: Hook::Prerouting,
    priority: -300,
};
const PUBLISHED: Chain = Chain {
    name: "published",
    kind: ChainType::Nat,
    hook: Hook::Prerouting,
    priority: -100,
};
const PUBLISHED_LOCALLY: Chain = Chain {
    name: "published-locally",
    kind: ChainType::Nat,
    hook: Hook::Output,
    priority: -100,
};
const FORWARD: Chain = Chain {
    name: "forward",
    kind: ChainType::Filter,
    hook: Hook::Forward,
    priority: 0,
};
const MASQUERADE: Chain = Chain {
    name: "masquerade",
    kind: ChainType::Nat,
    hook: Hook::Postrouting,
    priority: 100,
};
const WAY_OUT: Chain = Chain {
    name: "way-out",
    kind: ChainType::Filter,
    hook: Hook::Prerouting,
    priority: -150,
};
const CHAINS: [Chain; 6] = [WAY_OUT, GUARD, PUBLISHED, PUBLISHED_LOCALLY, FORWARD, MASQUERADE];

/// What the firewall has to know of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    pub name: String,
    pub subnets: Vec<Subnet>,
    /// Its own addresses.
    pub gateways: Vec<IpAddr>,
    pub internal: bool,
    /// Containers reach each other (`enable_icc`).
    pub connects: bool,
    /// Packets that leave it carry the host's address.
    pub masquerades: bool,
    /// Ports that are not published are closed to the outside.
    pub protects: bool,
}

impl Bridge {
    /// Returns what the firewall has to know of a network; `None` if it has no bridge.
    pub fn of(state: &NetworkState) -> Option<Self> {
        if !state.is_bridged() {
            return None;
        }
        let spec = &state.spec;
        let mode = |name: &str| spec.options.get(name).map_or("", String::as_str);
        let mode = mode("com.docker.network.bridge.gateway_mode_ipv4");
        Some(Self {
            name: state.bridge.clone()?,
            subnets: state.pools.iter().map(|pool| pool.subnet).collect(),
            gateways: state.pools.iter().map(|pool| pool.gateway).collect(),
            internal: spec.internal,
            connects: spec.flag("com.docker.network.bridge.enable_icc").unwrap_or(true),
            masquerades: mode != "routed"
                && spec
                    .flag("com.docker.network.bridge.enable_ip_masquerade")
                    .unwrap_or(true),
            protects: !["routed", "nat-unprotected"].contains(&mode),
        })
    }
}

/// A published port and the container behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub port: PortState,
    pub container: IpAddr,
}

/// Returns all rules for these networks and ports.
pub fn rules(bridges: &[Bridge], published: &[Published]) -> Vec<Rule> {
    let mut rules = vec![
        // route_localnet lets what came to 127.0.0.1 go on to a container. It must not let a container, which is a
        // neighbour on the bridge, reach what listens on 127.0.0.1 only (CVE-2020-8558).
        Rule::new(
            GUARD.name,
            [
                nft::comes_in_by_group(GROUP),
                nft::is_family_of(LOOPBACK.address),
                nft::goes_to(LOOPBACK),
                nft::drop(),
            ],
        ),
        Rule::new(FORWARD.name, [nft::is_of_known_connection(), nft::accept()]),
    ];
    for entry in published {
        rules.extend(published_rules(entry));
    }
    for bridge in bridges {
        rules.extend(forward_rules(bridge));
        rules.extend(masquerade_rules(bridge));
    }
    rules
}

/// Returns the rules that lead what containers send out of their networks to the gate, in a namespace that has no way out
/// of its own. What containers send to each other, or to everybody, stays where it is.
pub fn way_out_rules(bridges: &[Bridge], gates: &[Gate]) -> Vec<Rule> {
    let rule = |phrases: Vec<Vec<nft::Expression>>| Rule::new(WAY_OUT.name, phrases);
    let mut rules = Vec::new();
    for gate in gates {
        let any = gate.address;
        let take = |protocol| {
            let port = if protocol == Protocol::Tcp { gate.tcp } else { gate.udp };
            [nft::speaks(protocol), nft::take_to(any, port, MARK)].concat()
        };
        let open: Vec<&Bridge> = bridges.iter().filter(|bridge| !bridge.internal).collect();
        for bridge in &open {
            // To a container its gateway is the host.
            let gateways = bridge
                .gateways
                .iter()
                .filter(|gateway| gateway.is_ipv4() == any.is_ipv4());
            for &gateway in gateways {
                let host = Subnet::new(gateway, if gateway.is_ipv4() { 32 } else { 128 });
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    rules.push(rule(vec![
                        nft::comes_in_by(&bridge.name),
                        nft::is_family_of(any),
                        nft::goes_to(host),
                        take(protocol),
                    ]));
                }
            }
        }
        let near = bridges.iter().flat_map(|bridge| bridge.subnets.iter().copied());
        let stays = STAYS.map(|(address, prefix)| Subnet::new(address, prefix));
        for subnet in near
            .chain(stays)
            .filter(|subnet| subnet.address.is_ipv4() == any.is_ipv4())
        {
            rules.push(rule(vec![nft::is_family_of(any), nft::goes_to(subnet), nft::accept()]));
        }
        for bridge in &open {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                rules.push(rule(vec![
                    nft::comes_in_by(&bridge.name),
                    nft::is_family_of(any),
                    take(protocol),
                ]));
            }
        }
    }
    rules
}

/// Marks what is delivered to the gate.
pub const MARK: u32 = 0x636f;

/// Addresses of everybody at once, of nobody, and of the link.
const STAYS: [(IpAddr, u8); 7] = [
    (IpAddr::V4(Ipv4Addr::new(0, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 3),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 127),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
];

const LOOPBACK: Subnet = Subnet {
    address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    prefix: 8,
};

fn published_rules(entry: &Published) -> Vec<Rule> {
    let PortState {
        protocol,
        host_ip,
        host_port,
        container_port,
    } = entry.port;
    // What is for another family, or for ::1, which the kernel routes nowhere, is the proxy's.
    if host_ip.is_ipv4() != entry.container.is_ipv4() || host_ip == IpAddr::V6(std::net::Ipv6Addr::LOCALHOST) {
        return Vec::new();
    }
    let to = || {
        let mut phrases = nft::goes_to_port(protocol, host_port);
        phrases.extend(nft::is_family_of(entry.container));
        if host_ip.is_unspecified() {
            phrases.extend(nft::goes_to_this_machine());
        } else {
            phrases.extend(nft::goes_to(Subnet::new(
                host_ip,
                if host_ip.is_ipv4() { 32 } else { 128 },
            )));
        }
        phrases
    };
    let redirect = || nft::redirect_to(entry.container, container_port);
    let mut rules = Vec::new();
    if !host_ip.is_loopback() {
        // Containers go through the proxy: a packet sent back to the bridge it came from would get lost.
        rules.push(Rule::new(
            PUBLISHED.name,
            [to(), nft::comes_in_not_by_group(GROUP), redirect()],
        ));
    }
    let mut locally = to();
    if host_ip.is_ipv6() && host_ip.is_unspecified() {
        // ::1 counts as an address of this machine.
        locally.extend(nft::not_to_ipv6_loopback());
    }
    rules.push(Rule::new(PUBLISHED_LOCALLY.name, [locally, redirect()]));
    rules
}

fn forward_rules(bridge: &Bridge) -> Vec<Rule> {
    let rule = |phrases: Vec<Vec<nft::Expression>>| Rule::new(FORWARD.name, phrases);
    let comes = || nft::comes_in_by(&bridge.name);
    let goes = || nft::goes_out_by(&bridge.name);
    let within = if bridge.connects { nft::accept() } else { nft::drop() };
    let mut rules = vec![rule(vec![comes(), goes(), within])];
    if bridge.internal {
        rules.push(rule(vec![comes(), nft::drop()]));
        rules.push(rule(vec![goes(), nft::drop()]));
        return rules;
    }
    // Group and bridge are never the same here: what stays within was decided above.
    rules.push(rule(vec![comes(), nft::goes_out_by_group(GROUP), nft::drop()]));
    rules.push(rule(vec![comes(), nft::accept()]));
    rules.push(rule(vec![goes(), nft::came_by_published_port(), nft::accept()]));
    if bridge.protects {
        rules.push(rule(vec![goes(), nft::drop()]));
    }
    rules
}

fn masquerade_rules(bridge: &Bridge) -> Vec<Rule> {
    let mut rules = vec![Rule::new(
        MASQUERADE.name,
        [
            nft::goes_out_by(&bridge.name),
            nft::is_family_of(LOOPBACK.address),
            nft::comes_from(LOOPBACK),
            nft::masquerade(),
        ],
    )];
    if bridge.internal || !bridge.masquerades {
        return rules;
    }
    for &subnet in &bridge.subnets {
        rules.push(Rule::new(
            MASQUERADE.name,
            [
                nft::is_family_of(subnet.address),
                nft::comes_from(subnet),
                nft::goes_out_not_by(&bridge.name),
                nft::masquerade(),
            ],
        ));
    }
    rules
}

/// The firewall of one engine. Blocking: its callers are worker threads, in the host's namespace.
#[derive(Debug)]
pub struct Firewall {
    table: String,
    gates: Vec<Gate>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    socket: Option<Socket>,
    /// Why there is no firewall, once the kernel has refused it.
    missing: Option<String>,
    exists: bool,
}

impl Firewall {
    /// Returns the firewall of an engine; nothing is done yet.
    ///
    /// With gates, what leaves the networks goes to them.
    pub fn new(instance: &str, gates: Vec<Gate>) -> Self {
        Self {
            table: format!("compose-{instance}"),
            gates,
            inner: Mutex::default(),
        }
    }

    /// Returns why published ports are served by the proxy alone, if they are.
    pub fn missing(&self) -> Option<String> {
        self.lock().missing.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the rules those of these networks and ports; without networks, none are left.
    pub fn apply(&self, bridges: &[Bridge], published: &[Published]) -> Result<(), NetError> {
        let mut inner = self.lock();
        if inner.missing.is_some() {
            return Ok(());
        }
        match self.write(&mut inner, bridges, published) {
            Ok(()) => Ok(()),
            Err(error) if nft::is_missing(&error.source) => {
                tracing::warn!(%error, cause = %error.source, "no nftables: ports are served by the proxy alone");
                inner.missing = Some(format!("{error}: {}", error.source));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn write(&self, inner: &mut Inner, bridges: &[Bridge], published: &[Published]) -> Result<(), RequestError> {
        if inner.socket.is_none() {
            let socket = Socket::open(Netlink::Netfilter).map_err(|source| RequestError {
                operation: "open a socket to nftables".to_owned(),
                detail: None,
                source,
            })?;
            inner.socket = Some(socket);
        }
        let socket = inner.socket.as_mut().expect("opened above");
        let mut batch = Batch::new(Family::Inet, &self.table);
        if bridges.is_empty() {
            // Deleting what may not be there: make it first, so that it is one change and never refused.
            batch.create_table().delete_table();
            batch.commit(socket)?;
            inner.exists = false;
        } else {
            batch.create_table();
            if !inner.exists {
                // Every packet of the machine's goes through a chain, even one without rules.
                let is_wanted = |chain: &Chain| chain.name != WAY_OUT.name || !self.gates.is_empty();
                for chain in CHAINS.into_iter().filter(is_wanted) {
                    batch.create_chain(chain);
                }
            }
            batch.flush();
            for rule in way_out_rules(bridges, &self.gates)
                .into_iter()
                .chain(rules(bridges, published))
            {
                batch.add_rule(&rule);
            }
            batch.commit(socket)?;
            inner.exists = true;
        }
        for family in [Family::Ipv4, Family::Ipv6] {
            // Another firewall's table may be of a kind that cannot be changed so; ours holds without it.
            if let Err(error) = self.pass_foreign_firewall(socket, family, bridges) {
                tracing::warn!(%error, cause = %error.source, "another firewall may drop what containers send");
            }
        }
        Ok(())
    }

    /// Lets our bridges through the `FORWARD` chain of Docker's or the administrator's `filter` table.
    ///
    /// The rules go behind the jumps to Docker's own chains, so that what those forbid stays forbidden, and
    /// otherwise to the start, before a closing `REJECT`.
    fn pass_foreign_firewall(
        &self,
        socket: &mut Socket,
        family: Family,
        bridges: &[Bridge],
    ) -> Result<(), RequestError> {
        const TABLE: &str = "filter";
        const CHAIN: &str = "FORWARD";
        if !nft::has_base_chain(socket, family, TABLE, CHAIN) {
            return Ok(());
        }
        let found = nft::rules(socket, family, TABLE, CHAIN)?;
        let comment = |bridge: &Bridge, way: &str| format!("{} {} {way}", self.table, bridge.name);
        let wanted: Vec<String> = bridges
            .iter()
            .flat_map(|bridge| [comment(bridge, "in"), comment(bridge, "out")])
            .collect();
        let mine = format!("{} ", self.table);
        let present = |text: &String| found.iter().any(|rule| rule.comment.as_ref() == Some(text));
        let after = found
            .iter()
            .rfind(|rule| rule.jump.as_deref().is_some_and(|chain| chain.starts_with("DOCKER")))
            .map(|rule| rule.handle);
        let position = after.map_or(Position::Start, Position::After);

        let mut batch = Batch::new(family, TABLE);
        for rule in &found {
            if let Some(text) = &rule.comment
                && text.starts_with(&mine)
                && !wanted.contains(text)
            {
                batch.delete_rule(CHAIN, rule.handle);
            }
        }
        for bridge in bridges {
            for (way, phrase) in [
                ("in", nft::comes_in_by(&bridge.name)),
                ("out", nft::goes_out_by(&bridge.name)),
            ] {
                let text = comment(bridge, way);
                if !present(&text) {
                    let rule = Rule::new(CHAIN, [phrase, nft::counted(), nft::accept()]);
                    batch.put_rule(&rule, position, Some(&text));
                }
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        batch.commit(socket)
    }
}

/// Returns why this kernel cannot lead packets to a gate, if it cannot.
pub fn refuses_gates() -> Option<io::Error> {
    let mut socket = match Socket::open(Netlink::Netfilter) {
        Ok(socket) => socket,
        Err(error) => return Some(error),
    };
    let mut batch = Batch::new(Family::Inet, "compose-probe");
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let rule = Rule::new(
        WAY_OUT.name,
        [
            nft::is_family_of(any),
            nft::speaks(Protocol::Tcp),
            nft::take_to(any, 1, MARK),
        ],
    );
    batch
        .create_table()
        .create_chain(WAY_OUT)
        .add_rule(&rule)
        .delete_table();
    batch.commit(&mut socket).err().map(|error| error.source)
}

/// Sends what goes to port 53 of the resolver's address to another port, and its answers back, inside a container.
///
/// So the container's own port 53 stays free for a name server of its own. Nothing keeps account of connections:
/// that would slow down all of the container's traffic.
pub fn redirect_resolver(resolver: IpAddr, udp: u16, tcp: u16) -> Result<(), RequestError> {
    const TABLE: &str = "compose-dns";
    const CHAIN: Chain = Chain {
        name: "output",
        kind: ChainType::Filter,
        hook: Hook::Output,
        priority: -150,
    };
    let mut socket = Socket::open(Netlink::Netfilter).map_err(|source| RequestError {
        operation: "open a socket to nftables".to_owned(),
        detail: None,
        source,
    })?;
    let address = Subnet::new(resolver, 32);
    let mut batch = Batch::new(Family::Ipv4, TABLE);
    batch.create_table().create_chain(CHAIN);
    for (protocol, port) in [(Protocol::Udp, udp), (Protocol::Tcp, tcp)] {
        batch.add_rule(&Rule::new(
            CHAIN.name,
            [
                nft::goes_to(address),
                nft::goes_to_port(protocol, 53),
                nft::write_port(protocol, nft::PortOf::Destination, port),
            ],
        ));
        batch.add_rule(&Rule::new(
            CHAIN.name,
            [
                nft::comes_from(address),
                nft::comes_from_port(protocol, port),
                nft::write_port(protocol, nft::PortOf::Source, 53),
            ],
        ));
    }
    batch.commit(&mut socket)
}
