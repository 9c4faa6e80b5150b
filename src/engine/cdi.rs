//! Devices described by files of the Container Device Interface: what `gpus`, `deploy…devices` and
//! `devices: [vendor.com/class=name]` ask for.
//!
//! A description's hooks are not run: they are programs of the host, and what they do (links to libraries, caches of the
//! linker) is for the vendor's own runtime.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::devices::device_node;
use super::{EngineError, Result};
use crate::yaml::{self, Sources};

/// Where descriptions lie; a later directory's outweigh an earlier one's.
const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// The kind that a plain wish for graphics processors means.
const GPU: &str = "nvidia.com/gpu";

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Description {
    kind: String,
    devices: Vec<Device>,
    container_edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Device {
    name: String,
    container_edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Mount>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Node {
    path: String,
    host_path: String,
    permissions: String,
    file_mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Mount {
    host_path: String,
    container_path: String,
    options: Vec<String>,
}

/// What is asked for, as the API words it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Request {
    driver: String,
    count: i64,
    #[serde(rename = "DeviceIDs")]
    device_ids: Vec<String>,
    capabilities: Vec<Vec<String>>,
}

/// Puts the devices that are asked for into a container's spec.
pub fn apply(spec: &mut Value, requests: &[Value]) -> Result<()> {
    if requests.is_empty() {
        return Ok(());
    }
    apply_from(spec, requests, &read(&DIRECTORIES.map(PathBuf::from)))
}

fn read(directories: &[PathBuf]) -> Vec<Description> {
    let mut files: Vec<PathBuf> = Vec::new();
    for directory in directories {
        let mut here: Vec<PathBuf> = std::fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|end| ["json", "yaml", "yml"].iter().any(|known| end == *known))
            })
            .collect();
        here.sort();
        files.extend(here);
    }
    files.iter().filter_map(|path| parse(path)).collect()
}

fn parse(path: &Path) -> Option<Description> {
    let bytes = std::fs::read(path).ok()?;
    let mut sources = Sources::new();
    // JSON is YAML too.
    let documents = sources
        .add_bytes(path.display().to_string(), bytes)
        .and_then(|source| yaml::parse(&mut sources, source));
    let described = match documents {
        Ok(documents) => serde_json::from_value(documents.first().map(plain).unwrap_or_default()),
        Err(_) => {
            tracing::warn!(path = %path.display(), "a description of devices is not YAML");
            return None;
        }
    };
    described
        .inspect_err(|cause| tracing::warn!(path = %path.display(), %cause, "a description of devices cannot be read"))
        .ok()
}

/// Returns a value without its place.
fn plain(node: &yaml::Node) -> Value {
    match &node.value {
        yaml::Value::Null => Value::Null,
        yaml::Value::Bool(value) => json!(value),
        yaml::Value::Int(value) => i64::try_from(*value).map_or(Value::Null, |value| json!(value)),
        yaml::Value::Float(value) => json!(value),
        yaml::Value::String(text) | yaml::Value::Timestamp(text) => json!(text),
        yaml::Value::Sequence(items) => items.iter().map(plain).collect(),
        yaml::Value::Mapping(entries) => entries
            .iter()
            .map(|(key, entry)| (key.to_owned(), plain(&entry.node)))
            .collect(),
    }
}

fn apply_from(spec: &mut Value, requests: &[Value], known: &[Description]) -> Result<()> {
    let mut used: Vec<usize> = Vec::new();
    for request in requests {
        let request: Request = serde_json::from_value(request.clone())
            .map_err(|cause| EngineError::InvalidParameter(format!("invalid device request: {cause}")))?;
        for name in names(&request, known)? {
            let (kind, wanted) = name.split_once('=').unwrap_or((&name, ""));
            // The last one read is the weightiest.
            let found = known.iter().enumerate().rev().find_map(|(index, description)| {
                let device = description.devices.iter().find(|device| device.name == wanted)?;
                (description.kind == kind).then_some((index, description, device))
            });
            let Some((index, description, device)) = found else {
                return Err(EngineError::Start(format!(
                    "CDI device injection failed: unresolvable CDI devices {name}"
                )));
            };
            if !used.contains(&index) {
                used.push(index);
                edit(spec, &description.container_edits)?;
            }
            edit(spec, &device.container_edits)?;
        }
    }
    Ok(())
}

/// Returns the full names of the devices of a request.
fn names(request: &Request, known: &[Description]) -> Result<Vec<String>> {
    if request.driver == "cdi" {
        return Ok(request.device_ids.clone());
    }
    let wants_gpu = request.capabilities.iter().flatten().any(|name| name == "gpu");
    let mut there: Vec<&str> = known
        .iter()
        .filter(|description| description.kind == GPU)
        .flat_map(|description| &description.devices)
        .map(|device| device.name.as_str())
        .collect();
    if !wants_gpu || !matches!(request.driver.as_str(), "" | "nvidia") || there.is_empty() {
        let capabilities: Vec<String> = request
            .capabilities
            .iter()
            .map(|all| format!("[{}]", all.join(" ")))
            .collect();
        return Err(EngineError::Start(format!(
            "could not select device driver \"{}\" with capabilities: [{}]",
            request.driver,
            capabilities.join(" ")
        )));
    }
    let full = |name: &str| format!("{GPU}={name}");
    if !request.device_ids.is_empty() {
        return Ok(request.device_ids.iter().map(|id| full(id)).collect());
    }
    if request.count < 0 && there.contains(&"all") {
        return Ok(vec![full("all")]);
    }
    // The same device goes by its number and by its unique id; numbers are enough.
    there.retain(|name| name.parse::<u32>().is_ok());
    there.sort_by_key(|name| name.parse::<u32>().unwrap_or(u32::MAX));
    there.dedup();
    let count = match request.count {
        // moby: no number and no ids: one.
        0 => 1,
        count => usize::try_from(count).unwrap_or(there.len()),
    };
    if count > there.len() {
        return Err(EngineError::Start(format!(
            "{count} graphics processors are asked for, but only {} are described in {}",
            there.len(),
            DIRECTORIES.join(" and ")
        )));
    }
    Ok(there[..count].iter().map(|name| full(name)).collect())
}

fn edit(spec: &mut Value, edits: &Edits) -> Result<()> {
    let push = |place: &mut Value, value: Value| match place {
        Value::Array(all) => all.push(value),
        place => *place = json!([value]),
    };
    for variable in &edits.env {
        push(&mut spec["process"]["env"], json!(variable));
    }
    for node in &edits.device_nodes {
        let outside = if node.host_path.is_empty() {
            &node.path
        } else {
            &node.host_path
        };
        let access = if node.permissions.is_empty() {
            "rwm"
        } else {
            &node.permissions
        };
        let metadata = std::fs::metadata(outside)
            .map_err(|cause| EngineError::Start(format!("CDI device injection failed: device {outside:?}: {cause}")))?;
        let Some((mut device, rule)) = device_node(Path::new(&node.path), &metadata, access) else {
            return Err(EngineError::Start(format!(
                "CDI device injection failed: {outside:?} is not a device node"
            )));
        };
        for (name, value) in [("fileMode", node.file_mode), ("uid", node.uid), ("gid", node.gid)] {
            if let Some(value) = value {
                device[name] = json!(value);
            }
        }
        push(&mut spec["linux"]["devices"], device);
        push(&mut spec["linux"]["resources"]["devices"], rule);
    }
    for mount in &edits.mounts {
        let options = if mount.options.is_empty() {
            vec!["rbind".to_owned(), "ro".to_owned()]
        } else {
            mount.options.clone()
        };
        push(
            &mut spec["mounts"],
            json!({
                "destination": mount.container_path, "type": "bind", "source": mount.host_path, "options": options,
            }),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described() -> (tempfile::TempDir, Vec<Description>) {
        let directory = tempfile::tempdir().unwrap();
        let text = "cdiVersion: 0.6.0\nkind: nvidia.com/gpu\ncontainerEdits: {env: [SEEN=once]}\ndevices:\n\
            - {name: '0', containerEdits: {deviceNodes: [{path: /dev/gpu0, hostPath: /dev/null, permissions: r}]}}\n\
            - {name: '1', containerEdits: {deviceNodes: [{path: /dev/gpu1, hostPath: /dev/zero}]}}\n\
            - {name: all, containerEdits: {mounts: [{hostPath: /etc, containerPath: /gpu-etc}]}}\n";
        std::fs::write(directory.path().join("gpu.yaml"), text).unwrap();
        std::fs::write(directory.path().join("odd.json"), "{").unwrap();
        let known = read(&[directory.path().to_owned()]);
        (directory, known)
    }

    fn applied(request: Value) -> Result<Value> {
        let mut spec = json!({});
        apply_from(&mut spec, &[request], &described().1)?;
        Ok(spec)
    }

    #[test]
    fn devices_are_found_by_name_number_and_count() {
        let spec = applied(json!({"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=1", "nvidia.com/gpu=0"]})).unwrap();
        let paths: Vec<_> = spec["linux"]["devices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|node| &node["path"])
            .collect();
        assert_eq!(paths, ["/dev/gpu1", "/dev/gpu0"]);
        assert_eq!(spec["process"]["env"], json!(["SEEN=once"]));
        assert_eq!(spec["linux"]["resources"]["devices"][1]["access"], "r");
        let spec = applied(json!({"Count": 2, "Capabilities": [["gpu"]]})).unwrap();
        assert_eq!(spec["linux"]["devices"].as_array().unwrap().len(), 2);
        let spec = applied(json!({"Count": -1, "Capabilities": [["gpu"]]})).unwrap();
        assert_eq!(spec["mounts"][0]["destination"], "/gpu-etc");
    }

    #[test]
    fn what_is_not_described_is_refused() {
        for (request, text) in [
            (
                json!({"Driver": "cdi", "DeviceIDs": ["a.b/c=d"]}),
                "CDI device injection failed: unresolvable CDI devices a.b/c=d",
            ),
            (
                json!({"Driver": "odd", "Capabilities": [["gpu", "x"]]}),
                "could not select device driver \"odd\" with capabilities: [[gpu x]]",
            ),
            (
                json!({"Count": 3, "Capabilities": [["gpu"]]}),
                "3 graphics processors are asked for, but only 2 are described in /etc/cdi and /var/run/cdi",
            ),
        ] {
            assert_eq!(applied(request).unwrap_err().to_string(), text);
        }
    }
}
