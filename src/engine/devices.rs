//! The devices a container gets, and the rules about which may be opened. The values are runc's and moby's.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::config::{HostConfig, without_nulls};
use super::spec::invalid;
use super::{EngineError, Result};

fn device_rule(allow: bool, kind: &str, major: Option<i64>, minor: Option<i64>, access: &str) -> Value {
    without_nulls(json!({ "allow": allow, "type": kind, "major": major, "minor": minor, "access": access }))
}

/// Returns the devices to make and the rules about which may be opened.
pub fn devices(host: &HostConfig) -> Result<(Vec<Value>, Vec<Value>)> {
    if host.privileged {
        return Ok((host_devices(), vec![device_rule(true, "a", None, None, "rwm")]));
    }
    // runc's own list: anything may be made, these may be used.
    let mut rules = vec![
        device_rule(false, "a", None, None, "rwm"),
        device_rule(true, "c", None, None, "m"),
        device_rule(true, "b", None, None, "m"),
    ];
    for (major, minor) in [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(0)),
        (5, Some(1)),
        (5, Some(2)),
        // TUN and TAP, which VPNs in containers make themselves.
        (10, Some(200)),
        (136, None),
    ] {
        rules.push(device_rule(true, "c", Some(major), minor, "rwm"));
    }
    let mut nodes = Vec::new();
    for mapping in &host.devices {
        let inside = if mapping.path_in_container.is_empty() {
            &mapping.path_on_host
        } else {
            &mapping.path_in_container
        };
        let access = if mapping.cgroup_permissions.is_empty() {
            "rwm"
        } else {
            &mapping.cgroup_permissions
        };
        let path = Path::new(&mapping.path_on_host);
        let resolved = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let metadata = resolved.metadata().map_err(|cause| {
            EngineError::Start(format!(
                "error gathering device information while adding custom device \"{}\": {}",
                mapping.path_on_host,
                if cause.kind() == std::io::ErrorKind::NotFound {
                    "no such file or directory".to_owned()
                } else {
                    cause.to_string()
                }
            ))
        })?;
        if metadata.is_dir() {
            for (below, metadata) in devices_below(&resolved) {
                let rest = below.strip_prefix(&resolved).unwrap_or(&below);
                add_device(&mut nodes, &mut rules, &Path::new(inside).join(rest), &metadata, access);
            }
        } else if !add_device(&mut nodes, &mut rules, Path::new(inside), &metadata, access) {
            return Err(EngineError::Start(format!(
                "error gathering device information while adding custom device \"{}\": not a device node",
                mapping.path_on_host
            )));
        }
    }
    for rule in host.device_cgroup_rules.iter().flatten() {
        rules.push(custom_rule(rule)?);
    }
    Ok((nodes, rules))
}

fn add_device(
    nodes: &mut Vec<Value>,
    rules: &mut Vec<Value>,
    inside: &Path,
    metadata: &std::fs::Metadata,
    access: &str,
) -> bool {
    let Some((node, rule)) = device_node(inside, metadata, access) else {
        return false;
    };
    nodes.push(node);
    rules.push(rule);
    true
}

/// Returns a device to make and the rule that lets it be opened; nothing for what is no device.
pub fn device_node(inside: &Path, metadata: &std::fs::Metadata, access: &str) -> Option<(Value, Value)> {
    let kind = if metadata.file_type().is_char_device() {
        "c"
    } else if metadata.file_type().is_block_device() {
        "b"
    } else {
        return None;
    };
    let (major, minor) = (
        i64::from(rustix::fs::major(metadata.rdev())),
        i64::from(rustix::fs::minor(metadata.rdev())),
    );
    let node = json!({
        "path": inside, "type": kind, "major": major, "minor": minor, "fileMode": metadata.mode() & 0o7777,
        "uid": metadata.uid(), "gid": metadata.gid(),
    });
    Some((node, device_rule(true, kind, Some(major), Some(minor), access)))
}

fn devices_below(directory: &Path) -> Vec<(PathBuf, std::fs::Metadata)> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            let path = entry.path();
            let kind = metadata.file_type();
            if kind.is_dir() {
                // runc leaves these out: they are mounts of their own or belong to whoever looks at them.
                let name = entry.file_name();
                if !["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"]
                    .iter()
                    .any(|known| name == **known)
                {
                    waiting.push(path);
                }
            } else if (kind.is_char_device() || kind.is_block_device()) && entry.file_name() != "console" {
                found.push((path, metadata));
            }
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

/// Returns every device of the host, for privileged containers.
fn host_devices() -> Vec<Value> {
    let (mut nodes, mut rules) = (Vec::new(), Vec::new());
    for (path, metadata) in devices_below(Path::new("/dev")) {
        add_device(&mut nodes, &mut rules, &path, &metadata, "rwm");
    }
    // The runtime makes these by itself.
    const OWN: [&str; 7] = ["null", "zero", "full", "random", "urandom", "tty", "ptmx"];
    nodes.retain(|node| {
        !node["path"]
            .as_str()
            .and_then(|path| path.strip_prefix("/dev/"))
            .is_some_and(|name| OWN.contains(&name))
    });
    nodes
}

/// Reads `c 1:3 rwm`.
fn custom_rule(text: &str) -> Result<Value> {
    let wrong = || invalid(format!("invalid device cgroup rule format: '{text}'"));
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [kind, numbers, access] = parts.as_slice() else {
        return Err(wrong());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| -> Result<Option<i64>> {
        if text == "*" {
            Ok(None)
        } else {
            text.parse().map(Some).map_err(|_| wrong())
        }
    };
    if !matches!(*kind, "a" | "b" | "c") || !access.chars().all(|letter| "rwm".contains(letter)) {
        return Err(wrong());
    }
    Ok(device_rule(true, kind, number(major)?, number(minor)?, access))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::config::DeviceMapping;

    #[test]
    fn devices_are_looked_up_on_the_host() {
        let mut host = HostConfig::default();
        host.devices.push(DeviceMapping {
            path_on_host: "/dev/zero".to_owned(),
            path_in_container: "/dev/nothing".to_owned(),
            cgroup_permissions: "r".to_owned(),
        });
        let (nodes, rules) = devices(&host).unwrap();
        assert_eq!((&nodes[0]["major"], &nodes[0]["minor"]), (&json!(1), &json!(5)));
        assert_eq!(rules.last().unwrap()["access"], "r");
        assert_eq!(custom_rule("c 10:* rw").unwrap()["major"], 10);
        assert!(custom_rule("x 1:1 r").is_err());
    }
}
