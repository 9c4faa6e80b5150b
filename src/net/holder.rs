//! Who has a port: the process behind a listening socket, found in /proc as `ss -p` finds it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::spec::Protocol;

const LISTENING: &str = "0A";

/// Returns the process that keeps `address`:`port` from being bound, as `process 12 (nginx -g daemon off;)`.
pub fn find(protocol: Protocol, address: IpAddr, port: u16) -> Option<String> {
    let tables: &[&str] = match protocol {
        Protocol::Tcp => &["tcp", "tcp6"],
        Protocol::Udp => &["udp", "udp6"],
        Protocol::Sctp => return None,
    };
    let inodes: Vec<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok())
        .flat_map(|text| {
            text.lines()
                .filter_map(|line| inode_in_the_way(line, protocol, address, port))
                .collect::<Vec<_>>()
        })
        .collect();
    inodes.iter().find_map(|inode| process_with(inode))
}

/// Returns the socket's inode if the line of the kernel's table is of one in the way.
fn inode_in_the_way(line: &str, protocol: Protocol, address: IpAddr, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, local_port) = fields.get(1)?.split_once(':')?;
    if u16::from_str_radix(local_port, 16) != Ok(port) {
        return None;
    }
    if protocol == Protocol::Tcp && *fields.get(3)? != LISTENING {
        return None;
    }
    let local = parse_address(local)?;
    let overlaps = local == address
        || (address.is_unspecified() && (address.is_ipv6() == local.is_ipv6()))
        // `::` usually takes IPv4 too.
        || (local.is_unspecified() && (local.is_ipv6() || address.is_ipv4()));
    overlaps
        .then(|| fields.get(9).map(|inode| (*inode).to_owned()))
        .flatten()
}

/// Reads an address as the kernel prints it: words of the machine's byte order in hexadecimal.
fn parse_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok();
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?.to_ne_bytes()).into()),
        32 => {
            let mut octets = [0; 16];
            for at in 0..4 {
                octets[at * 4..at * 4 + 4].copy_from_slice(&word(at)?.to_ne_bytes());
            }
            let address = Ipv6Addr::from(octets);
            Some(address.to_ipv4_mapped().map_or(address.into(), IpAddr::V4))
        }
        _ => None,
    }
}

fn process_with(inode: &str) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name
            .to_str()
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        let has_it = descriptors
            .flatten()
            .any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|link| link == Path::new(&wanted)));
        if has_it {
            return Some(format!("process {pid}{}", command(&entry.path())));
        }
    }
    None
}

fn command(process: &Path) -> String {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let mut words = command_line(&line);
    if words.is_empty() {
        words = fs::read_to_string(process.join("comm"))
            .unwrap_or_default()
            .trim_end()
            .to_owned();
    }
    if words.is_empty() {
        return String::new();
    }
    if let Some((at, _)) = words.char_indices().nth(60) {
        words.truncate(at);
        words.push('…');
    }
    // What another process calls itself must not move our cursor.
    let words: String = words
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect();
    format!(" ({words})")
}

/// Returns a command line as people type it: the program by its own name, which the start of a long path would crowd
/// out of the room there is, then its arguments.
fn command_line(cmdline: &[u8]) -> String {
    let text = String::from_utf8_lossy(cmdline).replace('\0', " ");
    let text = text.trim();
    let (program, arguments) = text.split_once(' ').unwrap_or((text, ""));
    let name = program.rsplit('/').next().unwrap_or(program);
    format!("{name} {arguments}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_prints_them() {
        if cfg!(target_endian = "little") {
            assert_eq!(parse_address("0100007F"), Some("127.0.0.1".parse().unwrap()));
            assert_eq!(
                parse_address("00000000000000000000000001000000"),
                Some("::1".parse().unwrap())
            );
            assert_eq!(
                parse_address("0000000000000000FFFF00000100007F"),
                Some("127.0.0.1".parse().unwrap())
            );
        }
        assert_eq!(parse_address("xyz"), None);
    }

    #[test]
    fn a_program_is_named_without_its_directory() {
        assert_eq!(
            command_line(b"/usr/sbin/nginx\0-g\0daemon off;\0"),
            "nginx -g daemon off;"
        );
        assert_eq!(
            command_line(b"nginx: master process /usr/sbin/nginx\0"),
            "nginx: master process /usr/sbin/nginx"
        );
        assert_eq!(command_line(b"sshd\0"), "sshd");
        assert_eq!(command_line(b"\0\0"), "");
    }

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for address in ["127.0.0.1", "0.0.0.0"] {
            let holder = find(Protocol::Tcp, address.parse().unwrap(), port).unwrap();
            assert!(
                holder.starts_with(&format!("process {} (", std::process::id())),
                "{holder}"
            );
        }
        assert_eq!(find(Protocol::Tcp, "127.0.0.2".parse().unwrap(), port), None);
        assert_eq!(find(Protocol::Udp, "127.0.0.1".parse().unwrap(), port), None);
    }
}
