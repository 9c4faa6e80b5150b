//! Connections that the kernel remembers: those to a container that is gone must be forgotten.
//!
//! A client that keeps sending datagrams to a published port keeps its connection, and with it the address of the
//! container that first answered, however many containers have had the port since.

use std::net::IpAddr;

use crate::os::netlink::{Message, RequestError, Socket};

const DELETE: u16 = 1 << 8 | 2;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const IPV4_SOURCE: u16 = 1;
const IPV6_SOURCE: u16 = 3;
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
const BY_SOURCE: u32 = 1;
const NESTED: u16 = 0x8000;

/// Forgets all connections that the address answers. Kernels before 6.0 refuse.
pub fn forget(socket: &mut Socket, address: IpAddr) -> Result<(), RequestError> {
    let mut message = Message::new(DELETE, 0, format!("forget the connections to {address}"));
    let (family, kind, octets) = match address {
        IpAddr::V4(address) => (libc::AF_INET, IPV4_SOURCE, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, IPV6_SOURCE, address.octets().to_vec()),
    };
    // The version says that the family is meant.
    const VERSION: u8 = 1;
    message
        .fixed(&[family as u8, VERSION, 0, 0])
        .nested(TUPLE_REPLY | NESTED, |tuple| {
            tuple.nested(TUPLE_IP | NESTED, |ip| {
                ip.attribute(kind, &octets);
            });
        })
        .nested(FILTER | NESTED, |filter| {
            filter.number(FILTER_ORIGINAL, 0).number(FILTER_REPLY, BY_SOURCE);
        });
    socket.request(vec![message])
}
