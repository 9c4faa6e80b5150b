//! What a network, an attachment and a published port are: as asked for, and as made.
//!
//! The `…Spec` types are wishes, in the words of Docker's API; the `…State` types are what came of them, and are
//! kept on disk so that another engine process can find everything again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::ipam::Pool;

/// Who moves a network's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge of the host with a veth pair per container.
    #[default]
    Bridge,
    /// Interfaces with addresses of their own on one of the host's.
    Macvlan,
    /// Interfaces that share the hardware address of one of the host's.
    Ipvlan,
    /// The host's own interfaces.
    Host,
    /// Nobody.
    Null,
}

impl Driver {
    /// Returns the driver of that name, as Docker names them.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "" | "default" | "bridge" => Some(Self::Bridge),
            "macvlan" => Some(Self::Macvlan),
            "ipvlan" => Some(Self::Ipvlan),
            "host" => Some(Self::Host),
            "null" | "none" => Some(Self::Null),
            _ => None,
        }
    }

    /// Returns the driver's name, as Docker names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Host => "host",
            Self::Null => "null",
        }
    }
}

/// A network to be made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// 64 hexadecimal digits, chosen by the engine.
    pub id: String,
    pub name: String,
    pub driver: Driver,
    /// No way out of it, and none in.
    pub internal: bool,
    pub attachable: bool,
    /// `None`: yes.
    pub enable_ipv4: Option<bool>,
    pub enable_ipv6: bool,
    /// Empty: one pool per address family, chosen so that it clashes with nothing.
    pub pools: Vec<PoolSpec>,
    /// `com.docker.network.…`; unknown ones are kept and ignored.
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// When the engine was asked for it (RFC 3339).
    pub created: String,
}

impl NetworkSpec {
    /// Returns whether containers get IPv4 addresses.
    pub fn has_ipv4(&self) -> bool {
        self.enable_ipv4.unwrap_or(true)
    }

    /// Returns an option of the bridge driver that is a yes or no.
    pub fn flag(&self, name: &str) -> Option<bool> {
        match self.options.get(name)?.as_str() {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
            _ => None,
        }
    }
}

/// One address pool of a network, as its file or request words it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSpec {
    pub subnet: Option<String>,
    pub ip_range: Option<String>,
    pub gateway: Option<String>,
    /// Addresses that are not given out, by what they are for.
    pub aux_addresses: BTreeMap<String, String>,
}

/// A network that exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkState {
    pub spec: NetworkSpec,
    /// The host's interface, on which containers' interfaces are; none for `host` and `none`.
    pub bridge: Option<String>,
    /// Whether the interface is ours to delete; one that a user made before is not.
    pub owns_bridge: bool,
    pub pools: Vec<Pool>,
}

impl NetworkState {
    /// Returns whether it is a bridge of the host, which packets are forwarded from and to.
    pub fn is_bridged(&self) -> bool {
        self.spec.driver == Driver::Bridge && self.bridge.is_some()
    }

    /// Returns whether containers on it find each other by name; on Docker's `bridge` they never did.
    pub fn has_names(&self) -> bool {
        self.spec.name != "bridge"
    }
}

/// How a container's network is made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Mode {
    /// A namespace of its own, attached to the networks of the endpoints.
    #[default]
    Networks,
    /// A namespace of its own with nothing but a loopback interface.
    None,
    /// The host's.
    Host,
    /// That of another container, by id.
    Container(String),
}

/// A container's attachment to a network, to be made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// The network's id.
    pub network: String,
    /// 64 hexadecimal digits; made up where empty.
    pub endpoint_id: String,
    /// Every name the container answers to there: its own, its service's, aliases, its short id.
    pub names: Vec<String>,
    pub links: Vec<Link>,
    pub ipv4: Option<String>,
    pub ipv6: Option<String>,
    pub link_local: Vec<String>,
    pub mac: Option<String>,
    /// `None`: `eth0`, `eth1`, … in the order of the endpoints.
    pub interface: Option<String>,
    /// The highest gives the default route; then the network's name decides.
    pub gw_priority: i64,
    /// `net.…` settings of the interface, whose name is written `IFNAME` in them.
    pub sysctls: Vec<(String, String)>,
}

/// Another container under a name that only one container knows it by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The name or id of the other container on the same network.
    pub target: String,
    pub alias: String,
}

/// A container's attachment to a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointState {
    pub network: String,
    pub network_name: String,
    pub endpoint_id: String,
    pub names: Vec<String>,
    pub links: Vec<Link>,
    pub ipv4: Option<Ipv4Addr>,
    pub ipv4_prefix: u8,
    pub gateway: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    pub ipv6_prefix: u8,
    pub gateway6: Option<Ipv6Addr>,
    pub mac: Mac,
    /// The interface's name inside.
    pub interface: String,
    /// The other end, on the bridge.
    pub host_interface: String,
    pub gw_priority: i64,
    /// Further addresses, with their prefixes.
    pub link_local: Vec<(IpAddr, u8)>,
    /// Whether the network leads out of itself.
    pub leads_out: bool,
    /// `net.…` settings of the interface, under its name.
    #[serde(default)]
    pub sysctls: Vec<(String, String)>,
}

/// Where an attachment stands among the others of its container: the first that has a gateway gives the default route,
/// and names are looked for on the first. As Docker has it: what the file says, then networks that lead out, those with
/// both families, and the network's name.
pub type Rank = (std::cmp::Reverse<i64>, bool, bool, String);

impl EndpointState {
    /// Returns where the attachment stands among the others of its container.
    pub fn rank(&self) -> Rank {
        let both = self.gateway.is_some() && self.gateway6.is_some();
        (
            std::cmp::Reverse(self.gw_priority),
            !self.leads_out,
            !both,
            self.network_name.clone(),
        )
    }
}

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Returns the address of the container that holds an IPv4 address.
    ///
    /// It follows from the address, so that neighbours which remember the pair stay right when another container
    /// gets the address next.
    pub fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// Returns the address of a container without IPv4.
    pub fn of_ipv6(address: Ipv6Addr) -> Self {
        let octets = address.octets();
        Self([0x02, 0x43, octets[12], octets[13], octets[14], octets[15]])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("invalid MAC address: {text}"))
    }
}

impl Mac {
    /// Reads an address with `:` or `-` between its bytes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next()?;
            if part.len() != 2 {
                return None;
            }
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }
}

/// What a published port speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// Returns the protocol's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Returns the protocol's number in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// A port to be published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    pub protocol: Protocol,
    pub container_port: u16,
    /// `None`: every address of the host.
    pub host_ip: Option<IpAddr>,
    /// The first free port of the range is taken; `0`: any free port.
    pub host_ports: (u16, u16),
}

/// A port that is published. One wish for every address gives two of them: IPv4 and IPv6.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortState {
    pub container_port: u16,
    pub protocol: Protocol,
    pub host_ip: IpAddr,
    pub host_port: u16,
}

/// What a container is told about names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsSpec {
    /// Empty: the host's.
    pub servers: Vec<String>,
    pub search: Vec<String>,
    pub options: Vec<String>,
    /// `name:address` or `name=address`; the address `host-gateway` is the host's own.
    pub extra_hosts: Vec<String>,
}

/// The network side of a container, to be made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The container's id.
    pub container: String,
    /// The container's name, for messages.
    pub name: String,
    pub hostname: String,
    pub domainname: String,
    pub mode: Mode,
    pub endpoints: Vec<EndpointSpec>,
    pub ports: Vec<PortSpec>,
    pub dns: DnsSpec,
    /// `net.…` settings of the namespace.
    pub sysctls: BTreeMap<String, String>,
}

/// The network side of a container: what its engine keeps on disk, and an engine after it adopts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub container: String,
    pub name: String,
    pub hostname: String,
    pub domainname: String,
    pub mode: Mode,
    pub endpoints: Vec<EndpointState>,
    pub ports: Vec<PortState>,
    pub dns: DnsSpec,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_follows_from_the_address() {
        let mac = Mac::of(Ipv4Addr::new(172, 18, 0, 2));
        assert_eq!(mac.to_string(), "02:42:ac:12:00:02");
        assert_eq!(Mac::parse("02-42-AC-12-00-02"), Some(mac));
        for wrong in [
            "",
            "02:42:ac:12:00",
            "02:42:ac:12:00:02:03",
            "2:42:ac:12:00:02",
            "zz:42:ac:12:00:02",
        ] {
            assert_eq!(Mac::parse(wrong), None, "{wrong}");
        }
    }
}
