//! A container as `ps` shows it: its fields, and the ports in docker's short form.

use bollard::models::{ContainerSummary, PortSummary};
use serde_json::{Map, Value, json};

use super::containers::{id, label, name, short_id};
use crate::client::labels;
use crate::ui::{human, stream};

/// Returns the fields of a row, sorted by name as docker's JSON has them.
pub fn fields(container: &ContainerSummary, is_short: bool) -> Value {
    let status = container.status.as_deref().unwrap_or_default();
    let created = container.created.unwrap_or(0);
    let ports = published(container);
    let networks = container
        .network_settings
        .as_ref()
        .and_then(|settings| settings.networks.as_ref())
        .map(|networks| sorted(networks.keys().cloned()).join(","))
        .unwrap_or_default();
    let mounts = container.mounts.as_deref().unwrap_or_default();
    let mount_names: Vec<String> = mounts
        .iter()
        .map(|mount| {
            let name = mount.name.as_deref().filter(|name| !name.is_empty());
            shortened(name.or(mount.source.as_deref()).unwrap_or_default(), 15, is_short)
        })
        .collect();
    let local_volumes = mounts
        .iter()
        .filter(|mount| mount.driver.as_deref() == Some("local"))
        .count();
    let command = shortened(container.command.as_deref().unwrap_or_default(), 20, is_short);
    let id = id(container);
    let names = container.names.as_deref().unwrap_or_default();
    let names: Vec<&str> = match is_short {
        true => vec![name(container)],
        false => names
            .iter()
            .map(|name| name.strip_prefix('/').unwrap_or(name))
            .collect(),
    };
    let age = jiff::Timestamp::now().as_second() - created;
    let pairs = [
        ("Command", json!(stream::quoted(&command))),
        ("CreatedAt", json!(go_time(created))),
        ("ExitCode", json!(exit_code(status))),
        ("Health", json!(health(status))),
        ("ID", json!(if is_short { short_id(id) } else { id })),
        ("Image", json!(container.image.as_deref().unwrap_or_default())),
        ("Labels", json!(label_pairs(container).join(","))),
        ("LocalVolumes", json!(local_volumes.to_string())),
        ("Mounts", json!(mount_names.join(","))),
        ("Name", json!(name(container))),
        ("Names", json!(names.join(","))),
        ("Networks", json!(networks)),
        ("Ports", json!(displayable(&ports))),
        ("Project", json!(label(container, labels::PROJECT))),
        ("Publishers", publishers(&ports)),
        ("RunningFor", json!(format!("{} ago", human::duration(age)))),
        ("Service", json!(label(container, labels::SERVICE))),
        ("Size", json!(size(container))),
        ("State", json!(state(container))),
        ("Status", json!(status)),
    ];
    Value::Object(
        pairs
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect::<Map<_, _>>(),
    )
}

/// Returns the state's word: `running`, `exited`, …
pub fn state(container: &ContainerSummary) -> String {
    container.state.map(|state| state.to_string()).unwrap_or_default()
}

/// Reads the exit code that the engine's status tells: `Exited (143) 2 seconds ago`.
fn exit_code(status: &str) -> i64 {
    status
        .strip_prefix("Exited (")
        .and_then(|rest| rest.split_once(')'))
        .and_then(|(code, _)| code.parse().ok())
        .unwrap_or(0)
}

/// Reads the health that the engine's status tells: `Up 2 seconds (healthy)`.
fn health(status: &str) -> &'static str {
    match status.rsplit_once('(') {
        Some((_, "healthy)")) => "healthy",
        Some((_, "unhealthy)")) => "unhealthy",
        Some((_, "health: starting)")) => "starting",
        _ => "",
    }
}

/// Prints a time as Go does.
pub fn go_time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map(|time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string())
        .unwrap_or_default()
}

fn size(container: &ContainerSummary) -> String {
    let own = human::short_size(container.size_rw.unwrap_or(0) as f64);
    match container.size_root_fs {
        Some(all) if all > 0 => format!("{own} (virtual {})", human::short_size(all as f64)),
        _ => own,
    }
}

fn label_pairs(container: &ContainerSummary) -> Vec<String> {
    let labels = container.labels.iter().flatten();
    sorted(labels.map(|(name, value)| format!("{name}={value}")))
}

fn sorted(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut texts: Vec<String> = texts.collect();
    texts.sort();
    texts
}

/// Cuts a text that is longer than `length`, with an ellipsis for its last character.
fn shortened(text: &str, length: usize, is_short: bool) -> String {
    if !is_short || text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length - 1).chain(['…']).collect()
}

/// A published or exposed port. The order is docker's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    private: u16,
    address: String,
    public: u16,
    protocol: String,
}

fn published(container: &ContainerSummary) -> Vec<Port> {
    let port = |port: &PortSummary| Port {
        private: port.private_port,
        address: port.ip.clone().unwrap_or_default(),
        public: port.public_port.unwrap_or(0),
        protocol: port.typ.map(|protocol| protocol.to_string()).unwrap_or_default(),
    };
    let mut ports: Vec<Port> = container.ports.iter().flatten().map(port).collect();
    ports.sort();
    ports
}

fn publishers(ports: &[Port]) -> Value {
    ports
        .iter()
        .map(|port| {
            json!({
                "URL": port.address,
                "TargetPort": port.private,
                "PublishedPort": port.public,
                "Protocol": port.protocol,
            })
        })
        .collect()
}

/// Writes ports in docker's short form: `80/tcp, 0.0.0.0:8080->80/tcp, 0.0.0.0:90-92->90-92/tcp`.
///
/// Ports that are published under their own number, or not at all, form ranges.
fn displayable(ports: &[Port]) -> String {
    let mut groups: Vec<((&str, &str), u16, u16)> = Vec::new();
    let mut complete = Vec::new();
    let mut mapped = Vec::new();
    for port in ports {
        if !port.address.is_empty() && port.public != port.private {
            let host = host_and_port(&port.address, &port.public.to_string());
            mapped.push(format!("{host}->{}/{}", port.private, port.protocol));
            continue;
        }
        let key = (port.address.as_str(), port.protocol.as_str());
        match groups.iter_mut().find(|(known, ..)| *known == key) {
            None => groups.push((key, port.private, port.private)),
            Some((_, _, last)) if port.private == last.saturating_add(1) => *last = port.private,
            Some((_, first, last)) => {
                complete.push(group_text(key, *first, *last));
                (*first, *last) = (port.private, port.private);
            }
        }
    }
    complete.extend(
        groups
            .into_iter()
            .map(|(key, first, last)| group_text(key, first, last)),
    );
    complete.extend(mapped);
    complete.join(", ")
}

fn group_text((address, protocol): (&str, &str), first: u16, last: u16) -> String {
    let range = match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    match address {
        "" => format!("{range}/{protocol}"),
        _ => format!("{}->{range}/{protocol}", host_and_port(address, &range)),
    }
}

/// Joins an address and a port, an IPv6 address in brackets.
pub fn host_and_port(address: &str, port: &str) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(texts: &[(&str, u16, u16)]) -> Vec<Port> {
        let mut ports: Vec<Port> = texts
            .iter()
            .map(|&(address, public, private)| Port {
                private,
                address: address.to_owned(),
                public,
                protocol: "tcp".to_owned(),
            })
            .collect();
        ports.sort();
        ports
    }

    #[test]
    fn ports_are_written_short() {
        for (given, expected) in [
            (vec![], ""),
            (vec![("", 0, 80)], "80/tcp"),
            (vec![("", 0, 80), ("", 0, 81), ("", 0, 90)], "80-81/tcp, 90/tcp"),
            (
                vec![("0.0.0.0", 8080, 80), ("::", 8080, 80)],
                "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
            ),
            (
                vec![("0.0.0.0", 80, 80), ("0.0.0.0", 81, 81), ("", 0, 443)],
                "0.0.0.0:80-81->80-81/tcp, 443/tcp",
            ),
        ] {
            assert_eq!(displayable(&ports(&given)), expected);
        }
    }

    #[test]
    fn the_status_tells_exit_code_and_health() {
        assert_eq!(exit_code("Exited (143) 2 seconds ago"), 143);
        assert_eq!(exit_code("Up 2 seconds"), 0);
        assert_eq!(health("Up 2 seconds (healthy)"), "healthy");
        assert_eq!(health("Up 2 seconds (health: starting)"), "starting");
        assert_eq!(health("Up 2 seconds (Paused)"), "");
    }
}
