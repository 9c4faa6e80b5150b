//! Links, addresses and routes: the netlink messages that make a bridge and plug containers into it.
//!
//! A container's veth is never deleted, because the kernel takes 30 ms for that; it dies with its namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::ipam::Subnet;
use super::spec::Mac;
use crate::os::netlink::{self, CREATE, EXCLUSIVE, Message, RequestError, Socket, attribute};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_FLUSH: u16 = 24;
const VETH_INFO_PEER: u16 = 1;
/// `IFLA_MACVLAN_MODE` and `IFLA_IPVLAN_MODE`.
const IFLA_CHILD_MODE: u16 = 1;
const IFLA_IPVLAN_FLAGS: u16 = 2;
const NESTED: u16 = 0x8000;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_NODAD: u8 = 0x02;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;

/// Bridges of every engine carry this group, so that one rule keeps each from all others. ("cmp" in ASCII.)
pub const GROUP: u32 = 0x0063_6d70;

/// An interface's index in its namespace.
pub type Index = u32;

/// `struct ifinfomsg`.
fn header(family: i32, index: Index, up: Option<bool>) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = family as u8;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    let flags = u32::from(up == Some(true)) * libc::IFF_UP as u32;
    let change = u32::from(up.is_some()) * libc::IFF_UP as u32;
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

/// Makes a bridge, up.
pub fn create_bridge(name: &str, mac: Mac, mtu: Option<u32>) -> Message {
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE, format!("create bridge {name}"));
    // A bridge without an address of its own takes its ports' lowest, and would change it as containers come and go.
    message
        .fixed(&header(0, 0, Some(true)))
        .string(IFLA_IFNAME, name)
        .attribute(IFLA_ADDRESS, &mac.0)
        .number(IFLA_GROUP, GROUP)
        .nested(IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_KIND, "bridge");
        });
    if let Some(mtu) = mtu {
        message.number(IFLA_MTU, mtu);
    }
    message
}

/// Sets an existing link up.
pub fn set_up(index: Index, name: &str) -> Message {
    let mut message = Message::new(RTM_NEWLINK, 0, format!("set {name} up"));
    message.fixed(&header(0, index, Some(true)));
    message
}

/// Marks an existing link as one of ours.
pub fn set_group(index: Index, name: &str) -> Message {
    let mut message = Message::new(RTM_NEWLINK, 0, format!("mark {name}"));
    message.fixed(&header(0, index, None)).number(IFLA_GROUP, GROUP);
    message
}

/// Keeps a link without IPv6 from giving itself a link-local address.
pub fn no_link_local(index: Index, name: &str) -> Message {
    const NONE: u8 = 1;
    let mut message = Message::new(RTM_SETLINK, 0, format!("keep {name} without a link-local address"));
    message
        .fixed(&header(0, index, None))
        .nested(IFLA_AF_SPEC | NESTED, |families| {
            families.nested(libc::AF_INET6 as u16 | NESTED, |settings| {
                settings.attribute(IFLA_INET6_ADDR_GEN_MODE, &[NONE]);
            });
        });
    message
}

/// Deletes a link.
pub fn delete(name: &str) -> Message {
    let mut message = Message::new(RTM_DELLINK, 0, format!("delete link {name}"));
    message.fixed(&header(0, 0, None)).string(IFLA_IFNAME, name);
    message
}

/// What a veth pair is to be.
#[derive(Debug)]
pub struct Veth<'a> {
    /// The end that stays here.
    pub host: &'a str,
    pub bridge: Index,
    /// The end inside, and the namespace it is born in.
    pub inside: &'a str,
    pub namespace: BorrowedFd<'a>,
    pub mac: Mac,
    pub mtu: Option<u32>,
}

/// Makes a veth pair: one end up on a bridge, the other already in its namespace.
pub fn create_veth(veth: &Veth<'_>) -> Message {
    let mut message = Message::new(
        RTM_NEWLINK,
        CREATE | EXCLUSIVE,
        format!("create interface {} as {}", veth.inside, veth.host),
    );
    message
        .fixed(&header(0, 0, Some(true)))
        .string(IFLA_IFNAME, veth.host)
        .number(IFLA_MASTER, veth.bridge);
    if let Some(mtu) = veth.mtu {
        message.number(IFLA_MTU, mtu);
    }
    message.nested(IFLA_LINKINFO, |info| {
        info.string(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |data| {
            data.nested(VETH_INFO_PEER, |peer| {
                // It cannot be up before it has its other end.
                peer.fixed(&header(0, 0, None))
                    .string(IFLA_IFNAME, veth.inside)
                    .attribute(IFLA_ADDRESS, &veth.mac.0)
                    .number(IFLA_NET_NS_FD, veth.namespace.as_raw_fd() as u32);
                if let Some(mtu) = veth.mtu {
                    peer.number(IFLA_MTU, mtu);
                }
            });
        });
    });
    message
}

/// Makes a veth pair with both ends here.
pub fn create_wire(name: &str, other: &str, mtu: Option<u32>) -> Message {
    let mut message = Message::new(RTM_NEWLINK, CREATE | EXCLUSIVE, format!("create interface {name}"));
    message.fixed(&header(0, 0, None)).string(IFLA_IFNAME, name);
    if let Some(mtu) = mtu {
        message.number(IFLA_MTU, mtu);
    }
    message.nested(IFLA_LINKINFO, |info| {
        info.string(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, |data| {
            data.nested(VETH_INFO_PEER, |peer| {
                peer.fixed(&header(0, 0, None)).string(IFLA_IFNAME, other);
                if let Some(mtu) = mtu {
                    peer.number(IFLA_MTU, mtu);
                }
            });
        });
    });
    message
}

/// An interface that is on another one without a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    /// With its mode (`MACVLAN_MODE_…`).
    Macvlan(u32),
    /// With its mode and flags (`IPVLAN_MODE_…`, `IPVLAN_F_…`).
    Ipvlan { mode: u16, flags: u16 },
}

impl Child {
    /// Returns the kernel's name for such links, and for the module that makes them.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Macvlan(_) => "macvlan",
            Self::Ipvlan { .. } => "ipvlan",
        }
    }
}

/// Makes an interface in its namespace that is on the interface which a veth pair would be on.
pub fn create_child(child: Child, wish: &Veth<'_>) -> Message {
    let mut message = Message::new(
        RTM_NEWLINK,
        CREATE | EXCLUSIVE,
        format!("create interface {} on its network's parent", wish.inside),
    );
    message
        .fixed(&header(0, 0, None))
        .string(IFLA_IFNAME, wish.inside)
        .number(IFLA_LINK, wish.bridge)
        .number(IFLA_NET_NS_FD, wish.namespace.as_raw_fd() as u32);
    if let Child::Macvlan(_) = child {
        message.attribute(IFLA_ADDRESS, &wish.mac.0);
    }
    if let Some(mtu) = wish.mtu {
        message.number(IFLA_MTU, mtu);
    }
    message.nested(IFLA_LINKINFO, |info| match child {
        Child::Macvlan(mode) => {
            info.string(IFLA_INFO_KIND, "macvlan").nested(IFLA_INFO_DATA, |data| {
                data.number(IFLA_CHILD_MODE, mode);
            });
        }
        Child::Ipvlan { mode, flags } => {
            info.string(IFLA_INFO_KIND, "ipvlan").nested(IFLA_INFO_DATA, |data| {
                data.attribute(IFLA_CHILD_MODE, &mode.to_ne_bytes())
                    .attribute(IFLA_IPVLAN_FLAGS, &flags.to_ne_bytes());
            });
        }
    });
    message
}

/// Cuts a bridge port off at once and forgets which addresses were behind it.
///
/// The namespace behind it lives some 50 ms longer than its last process, and would answer for its old address.
pub fn disable_port(index: Index, name: &str) -> Message {
    const DISABLED: u8 = 0;
    let mut message = Message::new(RTM_SETLINK, 0, format!("cut {name} off"));
    message
        .fixed(&header(libc::AF_BRIDGE, index, None))
        .nested(IFLA_PROTINFO | NESTED, |port| {
            port.attribute(IFLA_BRPORT_STATE, &[DISABLED])
                .attribute(IFLA_BRPORT_FLUSH, &[]);
        });
    message
}

/// Gives a link an address.
pub fn add_address(index: Index, name: &str, address: IpAddr, prefix: u8) -> Message {
    let mut message = Message::new(
        RTM_NEWADDR,
        CREATE | EXCLUSIVE,
        format!("give {name} the address {address}/{prefix}"),
    );
    // Nobody else can have the address, so there is no need to wait until nobody has objected (IPv6).
    let flags = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
    let mut fixed = [family(address), prefix, flags, 0, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    message.fixed(&fixed);
    let octets = octets(address);
    message.attribute(IFA_LOCAL, &octets).attribute(IFA_ADDRESS, &octets);
    if let IpAddr::V4(ipv4) = address
        && prefix < 31
    {
        let broadcast = Ipv4Addr::from_bits(ipv4.to_bits() | u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0));
        message.attribute(IFA_BROADCAST, &broadcast.octets());
    }
    message
}

/// Sets the default route of a family.
pub fn add_default_route(index: Index, gateway: IpAddr) -> Message {
    let mut message = Message::new(
        RTM_NEWROUTE,
        CREATE | EXCLUSIVE,
        format!("set the default route to {gateway}"),
    );
    message
        .fixed(&route_header(gateway))
        .attribute(RTA_GATEWAY, &octets(gateway))
        .number(RTA_OIF, index);
    message
}

/// Removes the default route of a family.
pub fn delete_default_route(index: Index, gateway: IpAddr) -> Message {
    const RTM_DELROUTE: u16 = 25;
    let mut message = Message::new(RTM_DELROUTE, 0, format!("remove the default route to {gateway}"));
    message
        .fixed(&route_header(gateway))
        .attribute(RTA_GATEWAY, &octets(gateway))
        .number(RTA_OIF, index);
    message
}

/// Delivers here whatever has the mark, wherever it was going: a rule that sends it to a table of its own, and that table's
/// one route.
pub fn deliver_marked(ipv6: bool, mark: u32, loopback: Index) -> [Message; 2] {
    const RTM_NEWRULE: u16 = 32;
    const FRA_FWMARK: u16 = 10;
    const TO_TABLE: u8 = 1;
    const TABLE: u8 = 100;
    const SCOPE_HOST: u8 = 254;
    const RTN_LOCAL: u8 = 2;
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET } as u8;
    let mut rule = Message::new(
        RTM_NEWRULE,
        CREATE | EXCLUSIVE,
        "route marked packets by a table of their own",
    );
    let mut fixed = [0; 12];
    (fixed[0], fixed[4], fixed[7]) = (family, TABLE, TO_TABLE);
    rule.fixed(&fixed).number(FRA_FWMARK, mark);
    let mut route = Message::new(RTM_NEWROUTE, CREATE | EXCLUSIVE, "deliver marked packets here");
    let mut fixed = [0; 12];
    (fixed[0], fixed[4], fixed[5]) = (family, TABLE, RTPROT_STATIC);
    (fixed[6], fixed[7]) = (SCOPE_HOST, RTN_LOCAL);
    route.fixed(&fixed).number(RTA_OIF, loopback);
    [rule, route]
}

/// `struct rtmsg` of a default route.
fn route_header(gateway: IpAddr) -> [u8; 12] {
    let mut fixed = [0; 12];
    fixed[0] = family(gateway);
    fixed[4] = RT_TABLE_MAIN;
    fixed[5] = RTPROT_STATIC;
    fixed[7] = RTN_UNICAST;
    fixed
}

/// A link that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: Index,
    pub name: String,
    pub group: u32,
    pub mac: Option<Mac>,
}

/// Returns the link of a name in the socket's namespace, if there is one.
pub fn find(socket: &mut Socket, name: &str) -> Result<Option<Link>, RequestError> {
    let mut message = Message::new(RTM_GETLINK, 0, format!("find link {name}"));
    message.fixed(&header(0, 0, None)).string(IFLA_IFNAME, name);
    match socket.get(message) {
        Ok(answer) => Ok(answer.and_then(|answer| link(&answer.body))),
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

fn link(body: &[u8]) -> Option<Link> {
    let index = Index::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    let rest = body.get(16..)?;
    Some(Link {
        index,
        name: netlink::text(attribute(rest, IFLA_IFNAME)?),
        group: attribute(rest, IFLA_GROUP).map_or(0, number),
        mac: attribute(rest, IFLA_ADDRESS).and_then(|bytes| Some(Mac(bytes.try_into().ok()?))),
    })
}

/// A subnet that the host routes somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub subnet: Subnet,
    /// The interface it leads out of.
    pub out: Option<Index>,
}

/// Returns every subnet that the host routes somewhere.
pub fn routes(socket: &mut Socket) -> Result<Vec<Route>, RequestError> {
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut message = Message::new(RTM_GETROUTE, 0, "list routes");
        let mut fixed = [0; 12];
        fixed[0] = family as u8;
        message.fixed(&fixed);
        let answers = match socket.dump(message) {
            Ok(answers) => answers,
            // A kernel without IPv6 has no routes of it.
            Err(_) if family == libc::AF_INET6 => continue,
            Err(error) => return Err(error),
        };
        found.extend(answers.iter().filter_map(|answer| route(&answer.body)));
    }
    Ok(found)
}

fn route(body: &[u8]) -> Option<Route> {
    let (&family, &prefix, &table) = (body.first()?, body.get(1)?, body.get(4)?);
    let rest = body.get(12..)?;
    if table == RT_TABLE_LOCAL || prefix == 0 {
        return None;
    }
    let out = attribute(rest, RTA_OIF).map(number);
    let address = address(i32::from(family), attribute(rest, RTA_DST)?)?;
    Some(Route {
        subnet: Subnet::new(address, prefix),
        out,
    })
}

fn number(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_ne_bytes)
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() {
        libc::AF_INET as u8
    } else {
        libc::AF_INET6 as u8
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address(family: i32, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        libc::AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        libc::AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}
