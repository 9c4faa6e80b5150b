//! Datagrams with both their addresses: where one came from, and which of our addresses it was sent to.
//!
//! A socket bound to every address answers from whichever the route back suggests; a client that asked another
//! address would not take the answer. So the address is read with the datagram and given with the answer.

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Room for one `in_pktinfo` or `in6_pktinfo`, aligned as control messages must be.
#[repr(align(8))]
struct Control([u8; 64]);

/// Asks the kernel to tell which address each datagram was sent to.
pub fn tell_destination(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    let (level, option) = if ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    };
    set_on(socket, level, option)
}

/// Asks the kernel to tell where each datagram was going that a rule led to a socket that is somewhere else.
pub fn tell_original_destination(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        set_on(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVORIGDSTADDR)
    } else {
        set_on(socket, libc::IPPROTO_IP, libc::IP_RECVORIGDSTADDR)
    }
}

/// Lets a socket have addresses that are not this machine's, for packets that are led to it on their way there.
pub fn stand_in_for_others(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        set_on(socket, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT)
    } else {
        set_on(socket, libc::IPPROTO_IP, libc::IP_TRANSPARENT)
    }
}

fn set_on(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` lives through the call and its size is passed; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A datagram that was received into a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    pub length: usize,
    pub from: SocketAddr,
    /// The address it was sent to, where [`tell_destination`] asked for it.
    pub to: Option<IpAddr>,
    /// Where it was going, where [`tell_original_destination`] asked for it.
    pub original: Option<SocketAddr>,
}

/// Receives a datagram: its length, where it came from, and the address it was sent to.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
    let received = receive_all(socket, buffer)?;
    Ok((received.length, received.from, received.to))
}

/// Receives a datagram with all that is known of its way.
pub fn receive_all(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut control = Control([0; 64]);
    let mut vector = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: all-zero is a valid `msghdr`: null pointers with zero lengths.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len() as _;
    // SAFETY: every pointer in `header` is to a local or to `buffer`, with its true length.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed before and at most written to by the kernel: initialised either way.
    let name = unsafe { name.assume_init() };
    let from = address(&name).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;

    let (mut to, mut original) = (None, None);
    // SAFETY: `header` is as the kernel left it and `control` still lives; the macros stay within msg_controllen, and
    // the kernel puts a whole pktinfo or socket address behind a header of that level and type.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(&raw const header);
        while !message.is_null() {
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = libc::CMSG_DATA(message).cast::<libc::in_pktinfo>().read_unaligned();
                    to = Some(Ipv4Addr::from_bits(u32::from_be(info.ipi_addr.s_addr)).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = libc::CMSG_DATA(message).cast::<libc::in6_pktinfo>().read_unaligned();
                    to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                (libc::IPPROTO_IP, libc::IP_ORIGDSTADDR) => {
                    let stored = libc::CMSG_DATA(message).cast::<libc::sockaddr_in>().read_unaligned();
                    let address = Ipv4Addr::from_bits(u32::from_be(stored.sin_addr.s_addr));
                    original = Some(SocketAddr::new(address.into(), u16::from_be(stored.sin_port)));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_ORIGDSTADDR) => {
                    let stored = libc::CMSG_DATA(message).cast::<libc::sockaddr_in6>().read_unaligned();
                    let address = Ipv6Addr::from(stored.sin6_addr.s6_addr);
                    original = Some(SocketAddr::new(address.into(), u16::from_be(stored.sin6_port)));
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
    }
    Ok(Received {
        length: length as usize,
        from,
        to,
        original,
    })
}

/// Sends a datagram from one of our addresses.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], to: SocketAddr, from: Option<IpAddr>) -> io::Result<()> {
    let (name, name_length) = storage(to);
    let mut control = Control([0; 64]);
    let mut vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all-zero is a valid `msghdr`: null pointers with zero lengths.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = (&raw const name).cast_mut().cast();
    header.msg_namelen = name_length;
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    if let Some(from) = from {
        header.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: the control buffer is zeroed, aligned and larger than either CMSG_SPACE, and msg_controllen is set
        // before CMSG_FIRSTHDR reads it, which therefore returns the buffer's start.
        unsafe {
            match from {
                IpAddr::V4(from) => {
                    let info = libc::in_pktinfo {
                        ipi_ifindex: 0,
                        ipi_spec_dst: libc::in_addr {
                            s_addr: from.to_bits().to_be(),
                        },
                        ipi_addr: libc::in_addr { s_addr: 0 },
                    };
                    header.msg_controllen = libc::CMSG_SPACE(size_of_val(&info) as u32) as _;
                    let message = libc::CMSG_FIRSTHDR(&raw const header);
                    (*message).cmsg_level = libc::IPPROTO_IP;
                    (*message).cmsg_type = libc::IP_PKTINFO;
                    (*message).cmsg_len = libc::CMSG_LEN(size_of_val(&info) as u32) as _;
                    libc::CMSG_DATA(message)
                        .cast::<libc::in_pktinfo>()
                        .write_unaligned(info);
                }
                IpAddr::V6(from) => {
                    let info = libc::in6_pktinfo {
                        ipi6_addr: libc::in6_addr { s6_addr: from.octets() },
                        ipi6_ifindex: 0,
                    };
                    header.msg_controllen = libc::CMSG_SPACE(size_of_val(&info) as u32) as _;
                    let message = libc::CMSG_FIRSTHDR(&raw const header);
                    (*message).cmsg_level = libc::IPPROTO_IPV6;
                    (*message).cmsg_type = libc::IPV6_PKTINFO;
                    (*message).cmsg_len = libc::CMSG_LEN(size_of_val(&info) as u32) as _;
                    libc::CMSG_DATA(message)
                        .cast::<libc::in6_pktinfo>()
                        .write_unaligned(info);
                }
            }
        }
    }
    // SAFETY: every pointer in `header` is to a local or to `bytes`, with its true length; the kernel only reads.
    let sent = unsafe {
        libc::sendmsg(
            socket.as_raw_fd(),
            &raw const header,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that a `sockaddr_in` is stored, and storage is large and aligned enough for it.
            let stored = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from_bits(u32::from_be(stored.sin_addr.s_addr));
            Some(SocketAddrV4::new(address, u16::from_be(stored.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that a `sockaddr_in6` is stored, and storage is large and aligned enough for it.
            let stored = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let address = Ipv6Addr::from(stored.sin6_addr.s6_addr);
            let port = u16::from_be(stored.sin6_port);
            Some(SocketAddrV6::new(address, port, stored.sin6_flowinfo, stored.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn storage(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all-zero is a valid `sockaddr_storage`.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    match address {
        SocketAddr::V4(address) => {
            // SAFETY: storage is large and aligned enough for every kind of socket address.
            let stored = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in>() };
            stored.sin_family = libc::AF_INET as libc::sa_family_t;
            stored.sin_port = address.port().to_be();
            stored.sin_addr.s_addr = address.ip().to_bits().to_be();
            (storage, size_of::<libc::sockaddr_in>() as libc::socklen_t)
        }
        SocketAddr::V6(address) => {
            // SAFETY: storage is large and aligned enough for every kind of socket address.
            let stored = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in6>() };
            stored.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            stored.sin6_port = address.port().to_be();
            stored.sin6_addr.s6_addr = address.ip().octets();
            stored.sin6_scope_id = address.scope_id();
            (storage, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn an_answer_comes_from_the_address_that_was_asked() {
        for (any, asked) in [("0.0.0.0:0", "127.0.0.7"), ("[::]:0", "::1")] {
            let Ok(server) = UdpSocket::bind(any) else { continue };
            let asked: IpAddr = asked.parse().unwrap();
            tell_destination(server.as_fd(), asked.is_ipv6()).unwrap();
            let client = UdpSocket::bind(SocketAddr::new(asked, 0)).unwrap();
            let port = server.local_addr().unwrap().port();
            client.send_to(b"ping", SocketAddr::new(asked, port)).unwrap();
            let mut buffer = [0; 16];
            let (length, from, to) = receive(server.as_fd(), &mut buffer).unwrap();
            assert_eq!(
                (&buffer[..length], from, to),
                (b"ping".as_slice(), client.local_addr().unwrap(), Some(asked))
            );
            send(server.as_fd(), b"pong", from, to).unwrap();
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(
                (&buffer[..length], from),
                (b"pong".as_slice(), SocketAddr::new(asked, port))
            );
        }
    }
}
