//! nftables' language, as far as we speak it: tables, chains, rules and the expressions they are made of.
//!
//! A rule is a list of [`Expression`]s over the kernel's registers; the functions below are the phrases that our
//! rules use ("comes in by this interface"). Nothing here decides what the rules are: that is `firewall`.

use std::io;
use std::net::IpAddr;

use super::ipam::Subnet;
use super::spec::Protocol;
use crate::os::netlink::{self, APPEND, Answer, CREATE, Message, RequestError, Socket, attribute, attributes};

const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const GET_RULE: u16 = SUBSYSTEM | 7;
const DELETE_RULE: u16 = SUBSYSTEM | 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NESTED: u16 = 0x8000;

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    Ipv4 = 2,
    Ipv6 = 10,
}

/// Where a base chain sits in a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainType {
    Filter,
    Nat,
}

/// A base chain whose policy is to accept.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    pub name: &'static str,
    pub kind: ChainType,
    pub hook: Hook,
    pub priority: i32,
}

/// A step of a rule: the kernel's name of it and its attributes.
#[derive(Clone, Debug)]
pub struct Expression {
    name: &'static str,
    attributes: Message,
}

impl Expression {
    fn new(name: &'static str, fill: impl FnOnce(&mut Message)) -> Self {
        let mut attributes = Message::new(0, 0, "");
        fill(&mut attributes);
        Self { name, attributes }
    }
}

/// A rule of a chain.
#[derive(Clone, Debug)]
pub struct Rule {
    pub chain: &'static str,
    pub expressions: Vec<Expression>,
}

impl Rule {
    /// Puts phrases together.
    pub fn new(chain: &'static str, phrases: impl IntoIterator<Item = Vec<Expression>>) -> Self {
        Self {
            chain,
            expressions: phrases.into_iter().flatten().collect(),
        }
    }
}

/// Changes that the kernel makes all at once or not at all.
#[derive(Debug)]
pub struct Batch {
    family: Family,
    table: String,
    messages: Vec<Message>,
}

impl Batch {
    /// Starts a batch of changes to one table.
    pub fn new(family: Family, table: &str) -> Self {
        let mut begin = Message::new(BATCH_BEGIN, 0, "begin a change of the firewall");
        begin.fixed(&[0, 0, 0, 10]);
        Self {
            family,
            table: table.to_owned(),
            messages: vec![begin],
        }
    }

    fn message(&mut self, kind: u16, flags: u16, operation: String) -> &mut Message {
        let mut message = Message::new(kind, flags, operation);
        message.fixed(&[self.family as u8, 0, 0, 0]).string(1, &self.table);
        self.messages.push(message);
        self.messages.last_mut().expect("one was pushed")
    }

    /// Makes the table, if it is not there.
    pub fn create_table(&mut self) -> &mut Self {
        let operation = format!("create firewall table {}", self.table);
        self.message(NEW_TABLE, CREATE, operation);
        self
    }

    /// Deletes the table and all that is in it.
    pub fn delete_table(&mut self) -> &mut Self {
        let operation = format!("delete firewall table {}", self.table);
        self.message(DELETE_TABLE, 0, operation);
        self
    }

    /// Makes a base chain, if it is not there.
    pub fn create_chain(&mut self, chain: Chain) -> &mut Self {
        const ACCEPT: u32 = 1;
        let operation = format!("create firewall chain {} {}", self.table, chain.name);
        let kind = match chain.kind {
            ChainType::Filter => "filter",
            ChainType::Nat => "nat",
        };
        self.message(NEW_CHAIN, CREATE, operation)
            .string(3, chain.name)
            .nested(4 | NESTED, |hook| {
                hook.network_number(1, chain.hook as u32)
                    .network_number(2, chain.priority as u32);
            })
            .string(7, kind)
            .network_number(5, ACCEPT);
        self
    }

    /// Deletes all rules of the table.
    pub fn flush(&mut self) -> &mut Self {
        let operation = format!("empty firewall table {}", self.table);
        self.message(DELETE_RULE, 0, operation);
        self
    }

    /// Puts a rule at the end of its chain.
    pub fn add_rule(&mut self, rule: &Rule) -> &mut Self {
        self.put_rule(rule, Position::End, None)
    }

    /// Puts a rule somewhere in its chain, with a comment by which it can be found again.
    pub fn put_rule(&mut self, rule: &Rule, position: Position, comment: Option<&str>) -> &mut Self {
        let operation = format!("add a firewall rule to {} {}", self.table, rule.chain);
        let flags = match position {
            Position::Start => CREATE,
            Position::End | Position::After(_) => CREATE | APPEND,
        };
        let message = self.message(NEW_RULE, flags, operation);
        message.string(2, rule.chain).nested(4 | NESTED, |list| {
            for expression in &rule.expressions {
                list.nested(1 | NESTED, |element| {
                    element.string(1, expression.name).nested(2 | NESTED, |data| {
                        data.fixed(&expression.attributes.as_bytes()[16..]);
                    });
                });
            }
        });
        if let Position::After(handle) = position {
            message.attribute(6, &handle.to_be_bytes());
        }
        if let Some(comment) = comment {
            message.attribute(7, &comment_data(comment));
        }
        self
    }

    /// Deletes one rule.
    pub fn delete_rule(&mut self, chain: &str, handle: u64) -> &mut Self {
        let operation = format!("delete a firewall rule of {} {chain}", self.table);
        self.message(DELETE_RULE, 0, operation)
            .string(2, chain)
            .attribute(3, &handle.to_be_bytes());
        self
    }

    /// Returns whether the batch changes nothing.
    pub fn is_empty(&self) -> bool {
        self.messages.len() == 1
    }

    /// Makes the changes.
    pub fn commit(mut self, socket: &mut Socket) -> Result<(), RequestError> {
        let last = self.messages.len() - 1;
        let mut end = Message::new(BATCH_END, 0, "end a change of the firewall");
        end.fixed(&[0, 0, 0, 10]);
        self.messages.push(end);
        socket.exchange(&mut self.messages, last)
    }
}

/// Where a rule goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    Start,
    End,
    /// Behind the rule with this handle.
    After(u64),
}

/// A rule that exists, as far as we look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRule {
    pub handle: u64,
    pub comment: Option<String>,
    /// The chain it jumps to.
    pub jump: Option<String>,
}

/// Returns whether the table has that base chain.
pub fn has_base_chain(socket: &mut Socket, family: Family, table: &str, chain: &str) -> bool {
    let mut message = Message::new(GET_CHAIN, 0, format!("find firewall chain {table} {chain}"));
    message
        .fixed(&[family as u8, 0, 0, 0])
        .string(1, table)
        .string(3, chain);
    match socket.get(message) {
        Ok(Some(answer)) => answer.body.get(4..).is_some_and(|body| attribute(body, 4).is_some()),
        Ok(None) | Err(_) => false,
    }
}

/// Returns the rules of a chain, in their order.
pub fn rules(socket: &mut Socket, family: Family, table: &str, chain: &str) -> Result<Vec<FoundRule>, RequestError> {
    let mut message = Message::new(GET_RULE, 0, format!("list firewall rules of {table} {chain}"));
    message
        .fixed(&[family as u8, 0, 0, 0])
        .string(1, table)
        .string(2, chain);
    let answers = socket.dump(message)?;
    Ok(answers
        .iter()
        .filter_map(|answer| found_rule(answer, table, chain))
        .collect())
}

fn found_rule(answer: &Answer, table: &str, chain: &str) -> Option<FoundRule> {
    let body = answer.body.get(4..)?;
    if netlink::text(attribute(body, 1)?) != table || netlink::text(attribute(body, 2)?) != chain {
        return None;
    }
    let jump = attribute(body, 4)
        .into_iter()
        .flat_map(attributes)
        .find_map(|(_, element)| {
            let data = attribute(element, 2)?;
            // immediate: register, data { verdict { code, chain } }
            let verdict = attribute(attribute(data, 2)?, 2)?;
            Some(netlink::text(attribute(verdict, 2)?))
        });
    Some(FoundRule {
        handle: u64::from_be_bytes(attribute(body, 3)?.try_into().ok()?),
        comment: attribute(body, 7).and_then(read_comment),
        jump,
    })
}

/// A rule's comment, as `nft` and `iptables` write and show it.
fn comment_data(comment: &str) -> Vec<u8> {
    let mut data = vec![0, comment.len() as u8 + 1];
    data.extend_from_slice(comment.as_bytes());
    data.push(0);
    data
}

fn read_comment(data: &[u8]) -> Option<String> {
    match data {
        [0, length, text @ ..] => Some(netlink::text(text.get(..usize::from(*length))?)),
        _ => None,
    }
}

/// Returns whether an error says that this kernel has no nftables for us.
pub fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EPERM
                | libc::EACCES
                | libc::ENOENT
                | libc::EOPNOTSUPP
                | libc::EPROTONOSUPPORT
                | libc::EAFNOSUPPORT
                | libc::EINVAL
        )
    )
}

const REGISTER_1: u32 = 1;
const REGISTER_2: u32 = 2;

#[derive(Clone, Copy)]
enum Comparison {
    Equal = 0,
    NotEqual = 1,
}

fn compare(how: Comparison, value: &[u8]) -> Expression {
    Expression::new("cmp", |data| {
        data.network_number(1, REGISTER_1)
            .network_number(2, how as u32)
            .nested(3 | NESTED, |inner| {
                inner.attribute(1, value);
            });
    })
}

fn meta(key: u32) -> Expression {
    Expression::new("meta", |data| {
        data.network_number(1, REGISTER_1).network_number(2, key);
    })
}

fn payload(base: u32, offset: u32, length: u32) -> Expression {
    Expression::new("payload", |data| {
        data.network_number(1, REGISTER_1)
            .network_number(2, base)
            .network_number(3, offset)
            .network_number(4, length);
    })
}

fn mask(mask: &[u8]) -> Expression {
    Expression::new("bitwise", |data| {
        data.network_number(1, REGISTER_1)
            .network_number(2, REGISTER_1)
            .network_number(3, mask.len() as u32)
            .nested(4 | NESTED, |inner| {
                inner.attribute(1, mask);
            })
            .nested(5 | NESTED, |inner| {
                inner.attribute(1, &vec![0; mask.len()]);
            });
    })
}

fn immediate(register: u32, value: &[u8]) -> Expression {
    Expression::new("immediate", |data| {
        data.network_number(1, register).nested(2 | NESTED, |inner| {
            inner.attribute(1, value);
        });
    })
}

fn verdict(code: u32) -> Expression {
    Expression::new("immediate", |data| {
        data.network_number(1, 0).nested(2 | NESTED, |inner| {
            inner.nested(2 | NESTED, |verdict| {
                verdict.network_number(1, code);
            });
        });
    })
}

fn interface(key: u32, how: Comparison, name: &str) -> Vec<Expression> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    vec![meta(key), compare(how, &bytes)]
}

const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const META_IIFGROUP: u32 = 21;
const META_OIFGROUP: u32 = 22;

/// The packet comes in by the interface.
pub fn comes_in_by(name: &str) -> Vec<Expression> {
    interface(META_IIFNAME, Comparison::Equal, name)
}

/// The packet goes out by the interface.
pub fn goes_out_by(name: &str) -> Vec<Expression> {
    interface(META_OIFNAME, Comparison::Equal, name)
}

/// The packet goes out by another interface.
pub fn goes_out_not_by(name: &str) -> Vec<Expression> {
    interface(META_OIFNAME, Comparison::NotEqual, name)
}

/// The packet speaks the protocol.
pub fn speaks(protocol: Protocol) -> Vec<Expression> {
    vec![meta(META_L4PROTO), compare(Comparison::Equal, &[protocol.number()])]
}

/// The packet comes in by an interface of the group.
pub fn comes_in_by_group(group: u32) -> Vec<Expression> {
    vec![meta(META_IIFGROUP), compare(Comparison::Equal, &group.to_ne_bytes())]
}

/// The packet comes in by an interface outside of the group.
pub fn comes_in_not_by_group(group: u32) -> Vec<Expression> {
    vec![meta(META_IIFGROUP), compare(Comparison::NotEqual, &group.to_ne_bytes())]
}

/// The packet goes out by an interface of the group.
pub fn goes_out_by_group(group: u32) -> Vec<Expression> {
    vec![meta(META_OIFGROUP), compare(Comparison::Equal, &group.to_ne_bytes())]
}

/// The packet's address family is that of the address.
pub fn is_family_of(address: IpAddr) -> Vec<Expression> {
    vec![
        meta(META_NFPROTO),
        compare(Comparison::Equal, &[nfproto(address) as u8]),
    ]
}

/// The packet speaks the protocol and goes to the port.
pub fn goes_to_port(protocol: Protocol, port: u16) -> Vec<Expression> {
    vec![
        meta(META_L4PROTO),
        compare(Comparison::Equal, &[protocol.number()]),
        payload(2, 2, 2),
        compare(Comparison::Equal, &port.to_be_bytes()),
    ]
}

/// The packet speaks the protocol and comes from the port.
pub fn comes_from_port(protocol: Protocol, port: u16) -> Vec<Expression> {
    vec![
        meta(META_L4PROTO),
        compare(Comparison::Equal, &[protocol.number()]),
        payload(2, 0, 2),
        compare(Comparison::Equal, &port.to_be_bytes()),
    ]
}

fn in_subnet(subnet: Subnet, offset: u32, offset6: u32) -> Vec<Expression> {
    let mut phrase = Vec::new();
    let (bytes, mask_bytes) = match subnet.masked().address {
        IpAddr::V4(address) => {
            phrase.push(payload(1, offset, 4));
            let mask = !u32::MAX.checked_shr(u32::from(subnet.prefix)).unwrap_or(0);
            (address.octets().to_vec(), mask.to_be_bytes().to_vec())
        }
        IpAddr::V6(address) => {
            phrase.push(payload(1, offset6, 16));
            let mask = !u128::MAX.checked_shr(u32::from(subnet.prefix)).unwrap_or(0);
            (address.octets().to_vec(), mask.to_be_bytes().to_vec())
        }
    };
    if mask_bytes.iter().any(|&byte| byte != 255) {
        phrase.push(mask(&mask_bytes));
    }
    phrase.push(compare(Comparison::Equal, &bytes));
    phrase
}

/// The packet comes from the subnet; its family has to be checked before in a table of both.
pub fn comes_from(subnet: Subnet) -> Vec<Expression> {
    in_subnet(subnet, 12, 8)
}

/// The packet goes to the subnet; its family has to be checked before in a table of both.
pub fn goes_to(subnet: Subnet) -> Vec<Expression> {
    in_subnet(subnet, 16, 24)
}

/// The packet goes to an address of this machine.
pub fn goes_to_this_machine() -> Vec<Expression> {
    const RESULT_ADDRESS_TYPE: u32 = 3;
    const OF_DESTINATION: u32 = 2;
    const RTN_LOCAL: u32 = 2;
    vec![
        Expression::new("fib", |data| {
            data.network_number(1, REGISTER_1)
                .network_number(2, RESULT_ADDRESS_TYPE)
                .network_number(3, OF_DESTINATION);
        }),
        compare(Comparison::Equal, &RTN_LOCAL.to_ne_bytes()),
    ]
}

/// The packet does not go to `::1`.
pub fn not_to_ipv6_loopback() -> Vec<Expression> {
    vec![
        payload(1, 24, 16),
        compare(Comparison::NotEqual, &std::net::Ipv6Addr::LOCALHOST.octets()),
    ]
}

fn connection(key: u32, bits: u32, how: Comparison) -> Vec<Expression> {
    vec![
        Expression::new("ct", |data| {
            data.network_number(1, REGISTER_1).network_number(2, key);
        }),
        mask(&bits.to_ne_bytes()),
        compare(how, &[0; 4]),
    ]
}

/// The packet belongs to a connection that was let through before.
pub fn is_of_known_connection() -> Vec<Expression> {
    const STATE: u32 = 0;
    const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
    connection(STATE, ESTABLISHED_OR_RELATED, Comparison::NotEqual)
}

/// The packet belongs to a connection whose destination was replaced: it came through a published port.
pub fn came_by_published_port() -> Vec<Expression> {
    const STATUS: u32 = 2;
    const DESTINATION_REPLACED: u32 = 1 << 5;
    connection(STATUS, DESTINATION_REPLACED, Comparison::NotEqual)
}

/// The packet goes on to where it was going.
pub fn accept() -> Vec<Expression> {
    vec![verdict(1)]
}

/// The packet ends here.
pub fn drop() -> Vec<Expression> {
    vec![verdict(0)]
}

/// Packets are counted, as `iptables` does with each rule of its own.
pub fn counted() -> Vec<Expression> {
    vec![Expression::new("counter", |data| {
        data.attribute(1, &[0; 8]).attribute(2, &[0; 8]);
    })]
}

/// The packet's source becomes the address of the interface it leaves by.
pub fn masquerade() -> Vec<Expression> {
    vec![Expression::new("masq", |_| {})]
}

/// The packet's destination becomes the address and port.
pub fn redirect_to(address: IpAddr, port: u16) -> Vec<Expression> {
    const DESTINATION: u32 = 1;
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    vec![
        immediate(REGISTER_1, &bytes),
        immediate(REGISTER_2, &port.to_be_bytes()),
        Expression::new("nat", |data| {
            data.network_number(1, DESTINATION)
                .network_number(2, nfproto(address))
                .network_number(3, REGISTER_1)
                .network_number(5, REGISTER_2);
        }),
    ]
}

/// The packet is taken by whoever listens on the port, wherever it was going, once it is routed here, which its mark is for.
pub fn take_to(address: IpAddr, port: u16, mark: u32) -> Vec<Expression> {
    vec![
        immediate(REGISTER_1, &mark.to_ne_bytes()),
        Expression::new("meta", |data| {
            data.network_number(2, META_MARK).network_number(3, REGISTER_1);
        }),
        immediate(REGISTER_1, &port.to_be_bytes()),
        Expression::new("tproxy", |data| {
            data.network_number(1, nfproto(address)).network_number(3, REGISTER_1);
        }),
    ]
}

/// Which port of a packet.
#[derive(Clone, Copy, Debug)]
pub enum PortOf {
    Source = 0,
    Destination = 2,
}

/// The packet's port is written over, without keeping account of connections.
pub fn write_port(protocol: Protocol, which: PortOf, port: u16) -> Vec<Expression> {
    const INTERNET_CHECKSUM: u32 = 1;
    let checksum_offset = match protocol {
        Protocol::Tcp => 16,
        Protocol::Udp => 6,
        Protocol::Sctp => 8,
    };
    vec![
        immediate(REGISTER_1, &port.to_be_bytes()),
        Expression::new("payload", |data| {
            data.network_number(5, REGISTER_1)
                .network_number(2, 2)
                .network_number(3, which as u32)
                .network_number(4, 2)
                .network_number(6, INTERNET_CHECKSUM)
                .network_number(7, checksum_offset);
        }),
    ]
}

fn nfproto(address: IpAddr) -> u32 {
    if address.is_ipv4() {
        Family::Ipv4 as u32
    } else {
        Family::Ipv6 as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_read_back() {
        assert_eq!(
            read_comment(&comment_data("compose-0123abcd")).as_deref(),
            Some("compose-0123abcd")
        );
        assert_eq!(read_comment(&[0, 200, b'a']), None);
        assert_eq!(read_comment(&[]), None);
    }

    #[test]
    fn a_phrase_is_laid_out_as_the_kernel_reads_it() {
        let phrase = goes_to_port(Protocol::Udp, 53);
        let names: Vec<_> = phrase.iter().map(|step| step.name).collect();
        assert_eq!(names, ["meta", "cmp", "payload", "cmp"]);
        let compared = &phrase[3].attributes.as_bytes()[16..];
        // register 1, equal, data { value 0x0035 }
        let expected = [
            8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 0, 12, 0, 3, 128, 6, 0, 1, 0, 0, 53, 0, 0,
        ];
        assert_eq!(compared, expected);
    }
}
