//! Passes a container's output on to a syslog daemon or the journal, as Docker's drivers of these names do.
//!
//! The container never waits long for a daemon that is slow or gone: what cannot be passed on is lost there, and still
//! in the log.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;

use super::log::Stream;
use crate::runtime::launch::{Forward, SyslogAddress, SyslogFormat};

/// Where the journal listens.
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Where a syslog daemon listens usually.
const LOCAL: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
/// How long a daemon may keep a line waiting.
const PATIENCE: Duration = Duration::from_secs(1);

/// Passes lines on.
#[derive(Debug)]
pub struct Forwarder {
    to: Forward,
    host: String,
    zone: TimeZone,
    wire: Option<Wire>,
    /// When the daemon was last looked for in vain.
    failed: Option<Instant>,
    lines: u64,
}

#[derive(Debug)]
enum Wire {
    UnixDatagram(UnixDatagram),
    Unix(UnixStream),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Forwarder {
    /// Connects to the daemon, which must be there.
    pub fn open(to: &Forward) -> io::Result<Self> {
        Ok(Self {
            wire: Some(Wire::open(to)?),
            to: to.clone(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            zone: TimeZone::system(),
            failed: None,
            lines: 0,
        })
    }

    /// Passes a line on, or a part of one that is long.
    pub fn pass(&mut self, stream: Stream, pieces: [&[u8]; 2]) {
        let mut text = pieces.concat();
        let is_whole = text.last() == Some(&b'\n');
        if is_whole {
            text.pop();
        }
        self.lines += 1;
        let message = self.message(stream, &text, is_whole, jiff::Timestamp::now());
        if let Some(wire) = &mut self.wire
            && wire.send(&message).is_ok()
        {
            return;
        }
        // Once more, to a daemon that was started anew, but not so often that the container waits all the time.
        self.wire = None;
        if self.failed.is_some_and(|failed| failed.elapsed() < PATIENCE) {
            return;
        }
        self.wire = Wire::open(&self.to).ok();
        let sent = self.wire.as_mut().is_some_and(|wire| wire.send(&message).is_ok());
        self.failed = (!sent).then(Instant::now);
    }

    fn message(&self, stream: Stream, text: &[u8], is_whole: bool, now: jiff::Timestamp) -> Vec<u8> {
        // LOG_INFO and LOG_ERR.
        let severity = match stream {
            Stream::Stdout => 6,
            Stream::Stderr => 3,
        };
        match &self.to {
            Forward::Syslog {
                format, facility, tag, ..
            } => {
                let header = self.header(*format, facility * 8 + severity, tag, now);
                // A line feed ends a message on a stream, and does no harm elsewhere.
                [header.as_bytes(), text, b"\n"].concat()
            }
            Forward::Journald { fields } => {
                let mut entry = Vec::new();
                field(&mut entry, "MESSAGE", text);
                field(&mut entry, "PRIORITY", severity.to_string().as_bytes());
                field(&mut entry, "SYSLOG_TIMESTAMP", now.to_string().as_bytes());
                field(&mut entry, "CONTAINER_LOG_ORDINAL", self.lines.to_string().as_bytes());
                if !is_whole {
                    field(&mut entry, "CONTAINER_PARTIAL_MESSAGE", b"true");
                }
                for (name, value) in fields {
                    field(&mut entry, name, value.as_bytes());
                }
                entry
            }
        }
    }

    /// Writes what precedes the text. The forms are those of Docker's driver.
    // RackSec/srslog formatter.go; moby daemon/logger/syslog/syslog.go: rfc5424formatterWithAppNameAsTag
    fn header(&self, format: SyslogFormat, priority: u8, tag: &str, now: jiff::Timestamp) -> String {
        let now = now.to_zoned_datetime(self.zone.clone());
        let zone = if now.offset().is_zero() { "Z" } else { "%:z" };
        let (pid, host) = (std::process::id(), &self.host);
        match format {
            SyslogFormat::Unix => format!("<{priority}>{} {tag}[{pid}]: ", now.strftime("%b %e %H:%M:%S")),
            SyslogFormat::Rfc3164 => {
                format!("<{priority}>{} {host} {tag}[{pid}]: ", now.strftime("%b %e %H:%M:%S"))
            }
            SyslogFormat::Rfc5424 | SyslogFormat::Rfc5424Micro => {
                let fraction = if format == SyslogFormat::Rfc5424 { "" } else { ".%6f" };
                let time = format!("%Y-%m-%dT%H:%M:%S{fraction}{zone}");
                format!("<{priority}>1 {} {host} {tag} {pid} {tag} - ", now.strftime(&time))
            }
        }
    }
}

/// Appends a field of the journal's native protocol: a value with line feeds comes with its length.
// https://systemd.io/JOURNAL_NATIVE_PROTOCOL
fn field(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

impl Wire {
    fn open(to: &Forward) -> io::Result<Self> {
        match to {
            Forward::Journald { .. } => match unixgram(Path::new(JOURNAL)) {
                Ok(wire) => Ok(wire),
                Err(_) => Err(io::Error::other(format!(
                    "journald is not enabled on this host: nobody listens at {JOURNAL}; choose another `logging.driver`"
                ))),
            },
            Forward::Syslog { address, .. } => match address {
                SyslogAddress::Local => {
                    let found = LOCAL.iter().find_map(|place| {
                        let place = Path::new(place);
                        unixgram(place).or_else(|_| unix(place)).ok()
                    });
                    found.ok_or_else(|| {
                        io::Error::other(format!(
                            "no syslog daemon listens at {}; name one by the option syslog-address",
                            LOCAL.join(", ")
                        ))
                    })
                }
                SyslogAddress::Unix(path) => named("unix", path.display(), unix(path)),
                SyslogAddress::Unixgram(path) => named("unixgram", path.display(), unixgram(path)),
                SyslogAddress::Udp(address) => named("udp", address, udp(*address)),
                SyslogAddress::Tcp(address) => named("tcp", address, tcp(*address)),
            },
        }
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::UnixDatagram(socket) => socket.send(message).map(drop),
            Self::Udp(socket) => socket.send(message).map(drop),
            Self::Unix(stream) => stream.write_all(message),
            Self::Tcp(stream) => stream.write_all(message),
        }
    }
}

fn named(kind: &str, address: impl std::fmt::Display, wire: io::Result<Wire>) -> io::Result<Wire> {
    wire.map_err(|error| io::Error::new(error.kind(), format!("dial {kind} {address}: {error}")))
}

fn unixgram(path: &Path) -> io::Result<Wire> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(Wire::UnixDatagram(socket))
}

fn unix(path: &Path) -> io::Result<Wire> {
    let stream = UnixStream::connect(path)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(Wire::Unix(stream))
}

fn udp(address: SocketAddr) -> io::Result<Wire> {
    let own: IpAddr = if address.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((own, 0))?;
    socket.connect(address)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(Wire::Udp(socket))
}

fn tcp(address: SocketAddr) -> io::Result<Wire> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(Wire::Tcp(stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarder(to: Forward) -> Forwarder {
        Forwarder {
            to,
            host: "host".to_owned(),
            zone: TimeZone::UTC,
            wire: None,
            failed: None,
            lines: 1,
        }
    }

    #[test]
    fn syslog_messages_are_docker_s() {
        let now = jiff::Timestamp::new(1_700_000_000, 123_456_789).unwrap();
        let pid = std::process::id();
        for (format, stream, expected) in [
            (
                SyslogFormat::Unix,
                Stream::Stdout,
                format!("<30>Nov 14 22:13:20 tag[{pid}]: said\n"),
            ),
            (
                SyslogFormat::Rfc3164,
                Stream::Stderr,
                format!("<27>Nov 14 22:13:20 host tag[{pid}]: said\n"),
            ),
            (
                SyslogFormat::Rfc5424,
                Stream::Stdout,
                format!("<30>1 2023-11-14T22:13:20Z host tag {pid} tag - said\n"),
            ),
            (
                SyslogFormat::Rfc5424Micro,
                Stream::Stdout,
                format!("<30>1 2023-11-14T22:13:20.123456Z host tag {pid} tag - said\n"),
            ),
        ] {
            let forwarder = forwarder(Forward::Syslog {
                address: SyslogAddress::Local,
                format,
                facility: 3,
                tag: "tag".to_owned(),
            });
            let message = forwarder.message(stream, b"said", true, now);
            assert_eq!(String::from_utf8(message).unwrap(), expected);
        }
    }

    #[test]
    fn journal_entries_have_lengths_where_they_need_them() {
        let forwarder = forwarder(Forward::Journald {
            fields: vec![("CONTAINER_TAG".to_owned(), "two\nlines".to_owned())],
        });
        let entry = forwarder.message(Stream::Stderr, b"said", false, jiff::Timestamp::UNIX_EPOCH);
        let mut expected = b"MESSAGE=said\nPRIORITY=3\nSYSLOG_TIMESTAMP=1970-01-01T00:00:00Z\nCONTAINER_LOG_ORDINAL=1\nCONTAINER_PARTIAL_MESSAGE=true\nCONTAINER_TAG\n".to_vec();
        expected.extend_from_slice(&9u64.to_le_bytes());
        expected.extend_from_slice(b"two\nlines\n");
        assert_eq!(entry, expected);
    }
}
