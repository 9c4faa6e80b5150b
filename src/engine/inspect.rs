//! Containers as `inspect` and lists print them.

use indexmap::IndexMap;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::config::{Endpoint, PortBinding};
use super::container::{Container, Record, Status, inspect_state};
use super::filters::Filters;
use super::{Engine, Result, time};

/// Docker's masked and read-only paths, which `inspect` shows.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Which containers a list shows.
#[derive(Debug, Default)]
pub struct ListOptions {
    pub all: bool,
    pub limit: Option<usize>,
    pub size: bool,
    pub filters: Filters,
}

impl Engine {
    /// Returns a container as `inspect` prints it.
    pub fn inspect(&self, container: &Container, size: bool) -> Value {
        let record = container.record().clone();
        let execs: Vec<String> = {
            let execs = container
                .execs
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            execs
                .iter()
                .filter(|exec| exec.state().running)
                .map(|exec| exec.id.clone())
                .collect()
        };
        let dir = &container.dir;
        let mut host = record.host.clone();
        if !host.privileged {
            host.masked_paths
                .get_or_insert_with(|| MASKED.iter().map(|path| (*path).to_owned()).collect());
            host.readonly_paths
                .get_or_insert_with(|| READ_ONLY.iter().map(|path| (*path).to_owned()).collect());
        }
        let lower = self
            .image_of(&record)
            .map(|image| self.layers(&image))
            .unwrap_or_default()
            .iter()
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
            .join(":");
        let mut value = json!({
            "Id": record.id,
            "Created": time::rfc3339(record.created),
            "Path": record.path,
            "Args": record.args,
            "State": inspect_state(&record.state),
            "Image": record.image,
            "ResolvConfPath": dir.join("resolv.conf"),
            "HostnamePath": dir.join("hostname"),
            "HostsPath": dir.join("hosts"),
            "LogPath": if host.log_config.r#type == "none" { json!("") } else { json!(container.log_path()) },
            "Name": format!("/{}", record.name),
            "RestartCount": record.restart_count,
            "Driver": "overlay2",
            "Platform": "linux",
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": "",
            "ExecIDs": if execs.is_empty() { Value::Null } else { json!(execs) },
            "HostConfig": host,
            "GraphDriver": {
                "Data": {
                    "ID": record.id,
                    "LowerDir": lower,
                    "UpperDir": dir.join("upper"),
                    "WorkDir": dir.join("work"),
                },
                "Name": "overlay2",
            },
        });
        if size {
            value["SizeRw"] = json!(super::disk::size(&dir.join("upper")));
            value["SizeRootFs"] =
                json!(super::disk::size(&dir.join("upper")) + self.image_of(&record).map_or(0, |image| image.size));
        }
        value["Mounts"] = record.mounts.iter().map(|mount| mount.inspect(&self.volumes)).collect();
        value["Config"] = json!(record.config);
        value["NetworkSettings"] = network_settings(&record);
        value
    }

    /// Returns the containers of a list, the newest first.
    pub fn list(&self, options: &ListOptions) -> Result<Vec<Value>> {
        let filters = &options.filters;
        filters.only(&[
            "ancestor",
            "before",
            "exited",
            "expose",
            "health",
            "id",
            "is-task",
            "isolation",
            "label",
            "name",
            "network",
            "publish",
            "since",
            "status",
            "volume",
        ])?;
        let created = |name: &str| -> Result<Option<Timestamp>> {
            let Some(wanted) = filters.all(name).first() else {
                return Ok(None);
            };
            Ok(Some(self.containers.find(wanted)?.record().created))
        };
        let (before, since) = (created("before")?, created("since")?);
        // moby: asking for a status other than running means asking for all.
        let all = options.all || options.limit.is_some() || filters.has("status") || filters.has("exited");
        let names: Vec<_> = filters.all("name").iter().map(|name| NamePattern::new(name)).collect();
        let now = Timestamp::now();
        let mut found = Vec::new();
        for container in self.containers.all() {
            if options.limit.is_some_and(|limit| found.len() >= limit) {
                break;
            }
            let record = container.record();
            let state = &record.state;
            let shown = (all || state.status.is_running())
                && before.is_none_or(|before| record.created < before)
                && since.is_none_or(|since| record.created > since)
                && (names.is_empty() || names.iter().any(|pattern| pattern.matches(&record.name)))
                && (!filters.has("id") || filters.any("id", |wanted| record.id.starts_with(wanted)))
                && filters.labels_match(&record.config.labels)
                && filters.allows("status", state.status.as_str())
                && (!filters.has("exited")
                    || filters.any("exited", |wanted| {
                        state.status != Status::Created
                            && !state.status.is_running()
                            && wanted.parse() == Ok(state.exit_code)
                    }))
                && (!filters.has("health") || {
                    let health = state.health.as_ref().map_or("none", |health| health.status.as_str());
                    filters.any("health", |wanted| wanted == health)
                })
                && (!filters.has("network")
                    || filters.any("network", |wanted| {
                        record.networks.iter().any(|(name, endpoint)| {
                            name == wanted
                                || (!endpoint.network_id.is_empty() && endpoint.network_id.starts_with(wanted))
                        })
                    }))
                && (!filters.has("volume")
                    || filters.any("volume", |wanted| {
                        record
                            .mounts
                            .iter()
                            .any(|mount| mount.name == wanted || mount.destination == wanted || mount.source == wanted)
                    }))
                && (!filters.has("ancestor") || filters.any("ancestor", |wanted| self.descends(&record, wanted)))
                && (!filters.has("publish")
                    || filters.any("publish", |wanted| {
                        record
                            .ports
                            .values()
                            .flatten()
                            .any(|binding| binding.host_port == port_number(wanted))
                    }))
                && (!filters.has("expose")
                    || filters.any("expose", |wanted| {
                        record
                            .config
                            .exposed_ports
                            .keys()
                            .any(|port| port_number(port) == port_number(wanted))
                    }));
            if shown {
                let mut value = summary(self, &record, now);
                if options.size {
                    value["SizeRw"] = json!(super::disk::size(&container.dir.join("upper")));
                    value["SizeRootFs"] = json!(self.image_of(&record).map_or(0, |image| image.size));
                }
                found.push(value);
            }
        }
        Ok(found)
    }

    fn descends(&self, record: &Record, wanted: &str) -> bool {
        record.config.image == wanted || self.image(wanted).is_ok_and(|image| image.id == record.image)
    }
}

fn port_number(text: &str) -> &str {
    text.split('/').next().unwrap_or(text)
}

/// A `name` filter: Docker takes it for a regular expression; the anchors and literal text people use are understood.
struct NamePattern<'n> {
    text: &'n str,
    start: bool,
    end: bool,
}

impl<'n> NamePattern<'n> {
    fn new(pattern: &'n str) -> Self {
        let (text, start) = match pattern.strip_prefix('^') {
            Some(rest) => (rest.strip_prefix('/').unwrap_or(rest), true),
            None => (pattern, false),
        };
        let (text, end) = match text.strip_suffix('$') {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (text, start) = match text.strip_prefix('/') {
            Some(rest) => (rest, true),
            None => (text, start),
        };
        Self { text, start, end }
    }

    fn matches(&self, name: &str) -> bool {
        let text = self.text.replace('\\', "");
        match (self.start, self.end) {
            (true, true) => name == text,
            (true, false) => name.starts_with(&text),
            (false, true) => name.ends_with(&text),
            (false, false) => name.contains(&text),
        }
    }
}

fn summary(engine: &Engine, record: &Record, now: Timestamp) -> Value {
    let mut command = record.path.clone();
    for argument in &record.args {
        command.push(' ');
        // moby quotes what would otherwise fall apart.
        if argument.contains(' ') {
            command.push_str(&format!("'{argument}'"));
        } else {
            command.push_str(argument);
        }
    }
    let running = record.state.status.is_running();
    let networks: IndexMap<&String, Endpoint> = record
        .networks
        .iter()
        .map(|(name, endpoint)| (name, endpoint.clone()))
        .collect();
    json!({
        "Id": record.id,
        "Names": [format!("/{}", record.name)],
        "Image": image_name(record, engine),
        "ImageID": record.image,
        "Command": command,
        "Created": record.created.as_second(),
        "Ports": if running { ports_of_list(record) } else { Vec::new() },
        "Labels": record.config.labels,
        "State": record.state.status.as_str(),
        "Status": record.status_line(now),
        "HostConfig": { "NetworkMode": record.host.network_mode },
        "NetworkSettings": { "Networks": networks },
        "Mounts": record.mounts.iter().map(|mount| mount.inspect(&engine.volumes)).collect::<Vec<_>>(),
    })
}

/// Returns the image's name as it was asked for, or its id once the name means another image.
fn image_name(record: &Record, engine: &Engine) -> String {
    match engine.image(&record.config.image) {
        Ok(image) if image.id == record.image => record.config.image.clone(),
        _ => record.image.clone(),
    }
}

fn ports_of_list(record: &Record) -> Vec<Value> {
    let mut ports = Vec::new();
    let mut keys: Vec<&String> = record.config.exposed_ports.keys().chain(record.ports.keys()).collect();
    keys.sort_by_key(|port| (port_number(port).parse::<u16>().unwrap_or_default(), (*port).clone()));
    keys.dedup();
    for port in keys {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let Ok(number) = number.parse::<u16>() else { continue };
        let bindings = record.ports.get(port).map_or(&[][..], Vec::as_slice);
        if bindings.is_empty() {
            ports.push(json!({ "PrivatePort": number, "Type": protocol }));
        }
        for binding in bindings {
            ports.push(json!({
                "IP": binding.host_ip,
                "PrivatePort": number,
                "PublicPort": binding.host_port.parse::<u16>().unwrap_or_default(),
                "Type": protocol,
            }));
        }
    }
    ports
}

fn network_settings(record: &Record) -> Value {
    let running = record.state.status.has_processes();
    // The deprecated fields at the top describe the default bridge, if the container is on it.
    let empty = Endpoint::default();
    let main = record.networks.get("bridge").filter(|_| running).unwrap_or(&empty);
    let mut ports: IndexMap<String, Option<Vec<PortBinding>>> = IndexMap::new();
    if running {
        for port in record.config.exposed_ports.keys() {
            ports.insert(port.clone(), None);
        }
        for (port, bindings) in &record.ports {
            ports.insert(port.clone(), Some(bindings.clone()));
        }
    }
    json!({
        "Bridge": "",
        "SandboxID": if running { record.sandbox_id.as_str() } else { "" },
        "SandboxKey": if running && record.state.pid > 0 {
            format!("/proc/{}/ns/net", record.state.pid)
        } else {
            String::new()
        },
        "Ports": ports,
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": main.endpoint_id,
        "Gateway": main.gateway,
        "GlobalIPv6Address": main.global_ipv6_address,
        "GlobalIPv6PrefixLen": main.global_ipv6_prefix_len,
        "IPAddress": main.ip_address,
        "IPPrefixLen": main.ip_prefix_len,
        "IPv6Gateway": main.ipv6_gateway,
        "MacAddress": main.mac_address,
        "Networks": record.networks,
    })
}

#[cfg(test)]
mod tests {
    use super::NamePattern;

    #[test]
    fn names_are_matched_as_people_write_them() {
        for (pattern, name, matches) in [
            ("web", "my-web-1", true),
            ("^web$", "web", true),
            ("^/web$", "web", true),
            ("/web", "web-1", true),
            ("^web", "my-web", false),
            ("1$", "web-1", true),
        ] {
            assert_eq!(NamePattern::new(pattern).matches(name), matches, "{pattern} {name}");
        }
    }
}
