//! The short form of `ports`: `[[HOST_IP:][PUBLISHED[-END]]:]TARGET[-END][/PROTOCOL]`.

use std::net::IpAddr;

use super::Port;

/// Why a text publishes no port; the texts are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    #[error("Invalid ip address {address}: address {address}:: {reason}")]
    Bracket { address: String, reason: &'static str },
    #[error("Invalid ip address: {0}")]
    Address(String),
    #[error("No port specified: {0}<empty>")]
    Missing(String),
    #[error("Invalid containerPort: {0}")]
    Container(String),
    #[error("Invalid hostPort: {0}")]
    Host(String),
    #[error("Invalid ranges specified for container and host Ports: {container} and {host}")]
    Ranges { container: String, host: String },
    #[error("Invalid proto: {0}")]
    Protocol(String),
}

/// Returns the ports a short form stands for: one for each container port of a range.
///
/// # Errors
///
/// Says what of the text does not fit.
pub fn parse_ports(text: &str) -> Result<Vec<Port>, PortError> {
    let (address, host, container) = split(text);
    let address = strip_brackets(address)?;
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(PortError::Address(address.to_owned()));
    }
    let (container, protocol) = split_protocol(container);
    if container.is_empty() {
        return Err(PortError::Missing(text.to_owned()));
    }
    let range = parse_range(container).ok_or_else(|| PortError::Container(container.to_owned()))?;
    let host_range = match host {
        "" => None,
        host => Some(parse_range(host).ok_or_else(|| PortError::Host(host.to_owned()))?),
    };
    let (first, last) = range;
    if let Some((host_first, host_last)) = host_range
        && last - first != host_last - host_first
        && first != last
    {
        return Err(PortError::Ranges {
            container: container.to_owned(),
            host: host.to_owned(),
        });
    }
    let protocol_name = protocol.to_lowercase();
    if !matches!(protocol_name.as_str(), "tcp" | "udp" | "sctp") {
        return Err(PortError::Protocol(protocol.to_owned()));
    }
    let mut ports: Vec<Port> = (first..=last)
        .map(|target| {
            let published = match host_range {
                None => String::new(),
                // One container port: the engine picks a free one of the range.
                Some((from, to)) if first == last && from != to => format!("{from}-{to}"),
                Some((from, _)) => (from + (target - first)).to_string(),
            };
            Port {
                mode: "ingress".to_owned(),
                host_ip: address.to_owned(),
                target: u32::from(target),
                published,
                protocol: protocol_name.clone(),
                ..Port::default()
            }
        })
        .collect();
    // compose-go orders the ports of a range by their text.
    ports.sort_by_key(|port| port.target.to_string());
    Ok(ports)
}

/// Returns address, host port and container port; whatever stands before the last two colons is the address.
fn split(text: &str) -> (&str, &str, &str) {
    let Some((before, container)) = text.rsplit_once(':') else {
        return ("", "", text);
    };
    match before.rsplit_once(':') {
        Some((address, host)) => (address, host, container),
        None => ("", before, container),
    }
}

/// Returns an address without the brackets an IPv6 one needs here, refusing what Go's `SplitHostPort` refuses.
fn strip_brackets(address: &str) -> Result<&str, PortError> {
    let refuse = |reason| PortError::Bracket {
        address: address.to_owned(),
        reason,
    };
    if let Some(inner) = address.strip_prefix('[') {
        let Some(end) = inner.find(']') else {
            return Err(refuse("missing ']' in address"));
        };
        if end + 1 != inner.len() {
            return Err(refuse(if inner[end + 1..].starts_with(':') {
                "too many colons in address"
            } else {
                "missing port in address"
            }));
        }
        return Ok(&inner[..end]);
    }
    if address.contains(':') {
        return Err(refuse("too many colons in address"));
    }
    if address.contains('[') {
        return Err(refuse("unexpected '[' in address"));
    }
    if address.contains(']') {
        return Err(refuse("unexpected ']' in address"));
    }
    Ok(address)
}

fn split_protocol(container: &str) -> (&str, &str) {
    let mut parts = container.split('/');
    let port = parts.next().unwrap_or("");
    let protocol = parts.next().filter(|protocol| !protocol.is_empty());
    (port, protocol.unwrap_or("tcp"))
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| {
        // Go takes no sign here; Rust would.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok())?
    };
    let mut parts = text.split('-');
    let first = port(parts.next()?)?;
    let last = match parts.next() {
        Some(last) => port(last)?,
        None => first,
    };
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match parse_ports(text) {
            Ok(ports) => ports
                .iter()
                .map(|port| {
                    let Port {
                        host_ip,
                        published,
                        target,
                        protocol,
                        ..
                    } = port;
                    format!("{host_ip}|{published}|{target}/{protocol}")
                })
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn short_forms_mean_what_docker_says() {
        for (text, expected) in [
            ("3000", "||3000/tcp"),
            ("8000:80", "|8000|80/tcp"),
            ("9090-9091:8080-8081", "|9090|8080/tcp |9091|8081/tcp"),
            ("80-90:8080", "|80-90|8080/tcp"),
            ("127.0.0.1::5000", "127.0.0.1||5000/tcp"),
            ("[::1]:80:81/UDP", "::1|80|81/udp"),
            (":80", "||80/tcp"),
            ("::80", "||80/tcp"),
            ("080:080", "|80|80/tcp"),
            ("80:80/tcp/udp", "|80|80/tcp"),
            ("80/", "||80/tcp"),
            ("3000-3001:80-80", "|3000-3001|80/tcp"),
            ("80:", "No port specified: 80:<empty>"),
            ("80/xyz", "Invalid proto: xyz"),
            ("65536", "Invalid containerPort: 65536"),
            ("-80", "Invalid containerPort: -80"),
            ("100000:80", "Invalid hostPort: 100000"),
            ("5-3:1-3", "Invalid hostPort: 5-3"),
            (
                "1-2:3-5",
                "Invalid ranges specified for container and host Ports: 3-5 and 1-2",
            ),
            ("localhost:80:80", "Invalid ip address: localhost"),
            (
                "::1:80:80",
                "Invalid ip address ::1: address ::1:: too many colons in address",
            ),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]0-9a-z:/.-]{0,24}|\\PC*") {
            let _ = read(&text);
        }
    }
}
