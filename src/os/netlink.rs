//! Netlink: how the kernel is asked for links, addresses, routes and firewall rules.
//!
//! A [`Message`] names the operation it asks for, so that a refusal can be told in words. A [`Socket`] sends any
//! number of messages as one datagram and waits for one acknowledgement: the kernel works through a datagram in
//! order and reports every failure, so the last message's answer closes the account of all.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// Create the object if it is not there.
pub const CREATE: u16 = 0x400;
/// Fail if the object is there already.
pub const EXCLUSIVE: u16 = 0x200;
/// Put the object behind those that are there (nftables rules).
pub const APPEND: u16 = 0x800;
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;

const KIND_ERROR: u16 = 2;
const KIND_DONE: u16 = 3;
const HEADER: usize = 16;

/// Room for one datagram of a dump; the kernel never sends larger ones to a reader that offers 32 KiB.
const RECEIVE_BUFFER: usize = 32 * 1024;

/// Which part of the kernel a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses and routes.
    Route,
    /// nftables.
    Netfilter,
}

/// Why a request failed, and which of its messages.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}{}", match .detail { Some(detail) => format!(" ({detail})"), None => String::new() })]
pub struct RequestError {
    /// What the refused message asked for.
    pub operation: String,
    /// The kernel's own explanation, where it gives one.
    pub detail: Option<String>,
    #[source]
    pub source: io::Error,
}

impl RequestError {
    /// Returns the error number the kernel answered with, if it answered.
    pub fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

/// One request to the kernel, under construction.
#[derive(Clone, Debug)]
pub struct Message {
    bytes: Vec<u8>,
    operation: String,
}

impl Message {
    /// Starts a message; `operation` says in words what it asks for ("create bridge br-1").
    pub fn new(kind: u16, flags: u16, operation: impl Into<String>) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        Self {
            bytes,
            operation: operation.into(),
        }
    }

    /// Appends a fixed part, padded to the alignment of attributes.
    pub fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Appends an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = (value.len() + 4) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// Appends a number in the machine's byte order.
    pub fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Appends a number in network byte order, as nftables wants them.
    pub fn network_number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Appends a string with its closing NUL.
    pub fn string(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Appends an attribute that holds attributes.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.attribute(kind, &[]);
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Returns the message's bytes; length and sequence are filled in when it is sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn seal(&mut self, sequence: u32, flags: u16) {
        let length = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        let flags = flags | u16::from_ne_bytes([self.bytes[6], self.bytes[7]]);
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// One answer of the kernel.
#[derive(Debug)]
pub struct Answer {
    pub kind: u16,
    /// Everything after the netlink header.
    pub body: Vec<u8>,
}

/// A netlink socket of the network namespace its opener was in.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(protocol: Protocol) -> io::Result<Self> {
        let protocol = match protocol {
            Protocol::Route => None,
            Protocol::Netfilter => Some(netlink::NETFILTER),
        };
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        // Both only make refusals more telling and answers shorter; kernels before 4.12 lack them.
        set_flag(&fd, libc::NETLINK_EXT_ACK);
        set_flag(&fd, libc::NETLINK_CAP_ACK);
        Ok(Self {
            fd,
            sequence: 1,
            buffer: Vec::new(),
        })
    }

    /// Sends the messages in one datagram, and returns the first refusal.
    ///
    /// The kernel goes on after a refusal; what the others asked for is done.
    pub fn request(&mut self, mut messages: Vec<Message>) -> Result<(), RequestError> {
        let Some(last) = messages.len().checked_sub(1) else {
            return Ok(());
        };
        self.exchange(&mut messages, last)
    }

    /// Sends messages of which the one at `acknowledged` is the last that the kernel answers.
    pub fn exchange(&mut self, messages: &mut [Message], acknowledged: usize) -> Result<(), RequestError> {
        let first = self.sequence;
        let mut datagram = Vec::with_capacity(messages.iter().map(|message| message.bytes.len()).sum());
        for (at, message) in messages.iter_mut().enumerate() {
            message.seal(self.sequence, if at == acknowledged { ACKNOWLEDGE } else { 0 });
            self.sequence = self.sequence.wrapping_add(1);
            datagram.extend_from_slice(&message.bytes);
        }
        let broken = |source: io::Error| RequestError {
            operation: messages
                .get(acknowledged)
                .map_or_else(String::new, |message| message.operation.clone()),
            detail: None,
            source,
        };
        if datagram.len() > 100 * 1024 {
            // Refused without CAP_NET_ADMIN in the initial namespace; the send below then says so.
            let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&self.fd, datagram.len() * 2);
        }
        self.send(&datagram).map_err(broken)?;

        let mut failure = None;
        loop {
            let answers = self.receive().map_err(broken)?;
            for (sequence, answer) in answers {
                if answer.kind != KIND_ERROR {
                    continue;
                }
                let index = sequence.wrapping_sub(first) as usize;
                let Some((errno, detail)) = parse_error(&answer.body) else {
                    continue;
                };
                if errno != 0 && failure.is_none() && index < messages.len() {
                    failure = Some(RequestError {
                        operation: messages[index].operation.clone(),
                        detail,
                        source: io::Error::from_raw_os_error(errno),
                    });
                }
                // A refused first message of an nftables batch ends the whole: nothing else is answered.
                if index == acknowledged || (index == 0 && errno != 0 && acknowledged + 1 < messages.len()) {
                    return failure.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Asks for all objects of a kind.
    pub fn dump(&mut self, message: Message) -> Result<Vec<Answer>, RequestError> {
        self.ask(message, DUMP)
    }

    /// Asks for one object.
    pub fn get(&mut self, message: Message) -> Result<Option<Answer>, RequestError> {
        Ok(self.ask(message, ACKNOWLEDGE)?.into_iter().next())
    }

    fn ask(&mut self, mut message: Message, flags: u16) -> Result<Vec<Answer>, RequestError> {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        message.seal(sequence, flags);
        let failed = |source: io::Error, detail| RequestError {
            operation: message.operation.clone(),
            detail,
            source,
        };
        self.send(&message.bytes).map_err(|error| failed(error, None))?;
        let mut found = Vec::new();
        loop {
            for (of, answer) in self.receive().map_err(|error| failed(error, None))? {
                if of != sequence {
                    continue;
                }
                match answer.kind {
                    KIND_DONE => return Ok(found),
                    KIND_ERROR => {
                        return match parse_error(&answer.body) {
                            None | Some((0, _)) => Ok(found),
                            Some((errno, detail)) => Err(failed(io::Error::from_raw_os_error(errno), detail)),
                        };
                    }
                    _ => found.push(answer),
                }
            }
        }
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        let sent = rustix::io::retry_on_intr(|| rustix::net::send(&self.fd, datagram, SendFlags::empty()))?;
        if sent == datagram.len() {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::WriteZero))
        }
    }

    fn receive(&mut self) -> io::Result<Vec<(u32, Answer)>> {
        self.buffer.resize(RECEIVE_BUFFER, 0);
        let (length, _) =
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::empty()))?;
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        Ok(parse_datagram(&self.buffer[..length]))
    }
}

/// Returns the attributes in `bytes`, with the flags of their kinds removed.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Returns the first attribute of a kind.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(of, _)| *of == kind).map(|(_, value)| value)
}

/// Returns an attribute's value as text, without its closing NUL.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn parse_datagram(mut bytes: &[u8]) -> Vec<(u32, Answer)> {
    let mut answers = Vec::new();
    while bytes.len() >= HEADER {
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let length = word(0) as usize;
        let Some(body) = bytes.get(HEADER..length) else { break };
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        answers.push((
            word(8),
            Answer {
                kind,
                body: body.to_vec(),
            },
        ));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

/// Takes an error answer apart: the error number (0: done) and the kernel's explanation.
fn parse_error(body: &[u8]) -> Option<(i32, Option<String>)> {
    const EXPLANATION: u16 = 1;
    let errno = i32::from_ne_bytes(body.get(0..4)?.try_into().ok()?);
    // The error number, then the header of the refused message (CAP_ACK leaves out the rest), then attributes.
    let detail = body
        .get(4 + HEADER..)
        .and_then(|rest| attribute(rest, EXPLANATION))
        .map(text)
        .filter(|detail| !detail.is_empty());
    Some((-errno, detail))
}

fn set_flag(fd: &OwnedFd, option: libc::c_int) {
    let on: libc::c_int = 1;
    // SAFETY: `on` lives through the call and its size is passed; the kernel only reads it.
    unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_laid_out_as_the_kernel_reads_it() {
        let mut message = Message::new(16, CREATE | EXCLUSIVE, "create link");
        message.fixed(&[1, 2, 3, 4]).string(3, "eth0").nested(18, |inner| {
            inner.number(1, 7);
        });
        message.seal(9, ACKNOWLEDGE);
        let mut expected = Vec::new();
        expected.extend_from_slice(&44u32.to_ne_bytes());
        expected.extend_from_slice(&16u16.to_ne_bytes());
        expected.extend_from_slice(&0x605u16.to_ne_bytes());
        expected.extend_from_slice(&9u32.to_ne_bytes());
        expected.extend_from_slice(&0u32.to_ne_bytes());
        expected.extend_from_slice(&[1, 2, 3, 4]);
        expected.extend_from_slice(&9u16.to_ne_bytes());
        expected.extend_from_slice(&3u16.to_ne_bytes());
        expected.extend_from_slice(b"eth0\0\0\0\0");
        expected.extend_from_slice(&12u16.to_ne_bytes());
        expected.extend_from_slice(&18u16.to_ne_bytes());
        expected.extend_from_slice(&8u16.to_ne_bytes());
        expected.extend_from_slice(&1u16.to_ne_bytes());
        expected.extend_from_slice(&7u32.to_ne_bytes());
        assert_eq!(message.as_bytes(), expected);
    }

    #[test]
    fn attributes_are_read_back() {
        let mut message = Message::new(0, 0, "");
        message.string(3, "lo").attribute(1, &[1, 2, 3]).number(0x8004, 5);
        let found: Vec<_> = attributes(&message.as_bytes()[HEADER..]).collect();
        assert_eq!(
            found,
            [
                (3, b"lo\0".as_slice()),
                (1, &[1, 2, 3]),
                (4, 5u32.to_ne_bytes().as_slice())
            ]
        );
    }

    #[test]
    fn a_refusal_names_its_operation() {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        // Deleting a link that is not there: refused on every machine, with or without rights.
        let mut message = Message::new(17, 0, "delete link no-such-link");
        message.fixed(&[0; 16]).string(3, "no-such-link");
        let error = socket.request(vec![message]).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot delete link no-such-link"),
            "{error}"
        );
        assert!(
            [libc::ENODEV, libc::EPERM].contains(&error.errno().unwrap()),
            "{error:?}"
        );
    }

    #[test]
    fn torn_answers_are_not_read_past_their_end() {
        assert!(parse_datagram(&[1, 2, 3]).is_empty());
        assert!(parse_datagram(&[255; 32]).is_empty());
        assert_eq!(attributes(&[9, 0, 1, 0, 7]).count(), 0);
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0);
    }
}
