//! What stands in a list once only: the later of two entries with the same key takes the earlier one's place.
// compose-go override/uncity.go

use std::collections::HashMap;

use crate::yaml::{Diagnostic, Diagnostics, Node, Value};

use super::tree::{at_mut, each_entry, each_service, go_format, go_type};

/// By what entries of a list are told apart.
#[derive(Clone, Copy)]
enum Identity {
    /// The text before `=`.
    Key,
    /// Where it is mounted.
    MountTarget,
    DeviceTarget,
    /// Where it is mounted, below this directory unless it says so itself.
    FileTarget(&'static str),
    Port,
    Expose,
    EnvFile,
}

const SERVICE_LISTS: [(&[&str], Identity); 25] = [
    (&["annotations"], Identity::Key),
    (&["build", "args"], Identity::Key),
    (&["build", "additional_contexts"], Identity::Key),
    (&["build", "platform"], Identity::Key),
    (&["build", "tags"], Identity::Key),
    (&["build", "labels"], Identity::Key),
    (&["cap_add"], Identity::Key),
    (&["cap_drop"], Identity::Key),
    (&["devices"], Identity::DeviceTarget),
    (&["configs"], Identity::FileTarget("")),
    (&["deploy", "labels"], Identity::Key),
    (&["dns"], Identity::Key),
    (&["dns_opt"], Identity::Key),
    (&["dns_search"], Identity::Key),
    (&["environment"], Identity::Key),
    (&["env_file"], Identity::EnvFile),
    (&["expose"], Identity::Expose),
    (&["labels"], Identity::Key),
    (&["links"], Identity::Key),
    (&["ports"], Identity::Port),
    (&["profiles"], Identity::Key),
    (&["secrets"], Identity::FileTarget("/run/secrets")),
    (&["sysctls"], Identity::Key),
    (&["tmpfs"], Identity::Key),
    (&["volumes"], Identity::MountTarget),
];

/// Returns whether the list at a path is one whose entries are told apart, which docker compose makes anew.
pub fn is_unique(path: &[&str]) -> bool {
    match path {
        ["networks", _, "labels"] | ["networks", _, "ipam", "options"] => true,
        ["services", _, "networks", _, "aliases" | "link_local_ips"] => true,
        ["services", _, keys @ ..] => SERVICE_LISTS.iter().any(|(list, _)| *list == keys),
        _ => false,
    }
}

/// Removes entries that a later one of the same list redefines.
pub fn enforce_unicity(root: &mut Node) -> Result<(), Diagnostics> {
    each_entry(root, "networks", |name, network| {
        let path = || format!("networks.{name}.labels");
        unique(network.get_mut("labels"), Identity::Key, path)?;
        let path = || format!("networks.{name}.ipam.options");
        unique(at_mut(network, &["ipam", "options"]), Identity::Key, path)
    })?;
    each_service(root, |name, service| {
        for (keys, identity) in &SERVICE_LISTS {
            if service.get(keys[0]).is_none() {
                continue;
            }
            let path = || format!("services.{name}.{}", keys.join("."));
            unique(at_mut(service, keys), *identity, path)?;
        }
        if let Some(networks) = service.get_mut("networks").and_then(Node::as_mapping_mut) {
            for (network, entry) in networks.iter_mut() {
                for list in ["aliases", "link_local_ips"] {
                    let path = || format!("services.{name}.networks.{network}.{list}");
                    unique(entry.node.get_mut(list), Identity::Key, path)?;
                }
            }
        }
        Ok::<(), Diagnostic>(())
    })
}

/// `path` says where the list stands, should something be wrong with it.
fn unique(list: Option<&mut Node>, identity: Identity, path: impl Fn() -> String) -> Result<(), Diagnostic> {
    let Some(items) = list.and_then(Node::as_sequence_mut) else {
        return Ok(());
    };
    // Few keys are compared faster than hashed.
    const FEW: usize = 16;
    let many = items.len() > FEW;
    let mut few: Vec<String> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut kept: Vec<Node> = Vec::with_capacity(items.len());
    for (index, item) in std::mem::take(items).into_iter().enumerate() {
        let place = |error: String| Diagnostic::error(error).at(item.span);
        let key = key_of(&item, identity, || format!("{}.[{index}]", path())).map_err(place)?;
        let earlier = match many {
            true => places.get(&key).copied(),
            false => few.iter().position(|known| *known == key),
        };
        match earlier {
            Some(earlier) => kept[earlier] = item,
            None => {
                match many {
                    true => drop(places.insert(key, kept.len())),
                    false => few.push(key),
                }
                kept.push(item);
            }
        }
    }
    *items = kept;
    Ok(())
}

fn key_of(item: &Node, identity: Identity, path: impl Fn() -> String) -> Result<String, String> {
    let text = item.as_str();
    match identity {
        Identity::Key => match text {
            Some(text) => Ok(text.split_once('=').map_or(text, |(key, _)| key).to_owned()),
            None => Err(format!("{}: unexpected type {}", path(), go_type(item))),
        },
        Identity::MountTarget => match (&item.value, text) {
            (Value::Mapping(mapping), _) => mapping
                .get("target")
                .and_then(Node::as_str)
                .map(str::to_owned)
                .ok_or_else(|| format!("service volume {} is missing a mount target", path())),
            (_, Some(text)) => crate::model::parse_mount(text)
                .map(|mount| mount.target)
                .map_err(|error| error.to_string()),
            _ => Ok(String::new()),
        },
        Identity::DeviceTarget => match (&item.value, text) {
            (Value::Mapping(mapping), _) => mapping
                .get("target")
                .and_then(Node::as_str)
                .map(str::to_owned)
                .ok_or_else(|| format!("service device {} is missing a mount target", path())),
            (_, Some(text)) => {
                let mut parts = text.split(':');
                let first = parts.next().unwrap_or_default();
                Ok(parts.next().unwrap_or(first).to_owned())
            }
            _ => Ok(String::new()),
        },
        Identity::FileTarget(directory) => match (&item.value, text) {
            (_, Some(text)) => Ok(format!("{directory}/{text}")),
            (Value::Mapping(mapping), _) => Ok(match mapping.get("target") {
                Some(target) => go_format(target),
                None => format!(
                    "{directory}/{}",
                    mapping.get("source").map_or_else(|| "%!s(<nil>)".into(), go_verb_s)
                ),
            }),
            _ => Err(format!("{}: unsupported expose value {}", path(), go_verb_s(item))),
        },
        Identity::Expose => match &item.value {
            Value::String(text) => Ok(text.clone()),
            Value::Int(number) => Ok(number.to_string()),
            _ => Err(format!("{}: unsupported expose value {}", path(), go_verb_s(item))),
        },
        Identity::EnvFile => match (&item.value, text) {
            (_, Some(text)) => Ok(text.to_owned()),
            (Value::Mapping(mapping), _) => mapping
                .get("path")
                .and_then(Node::as_str)
                .map(str::to_owned)
                .ok_or_else(|| format!("environment path attribute {} is missing", path())),
            _ => Ok(String::new()),
        },
        Identity::Port => match (&item.value, text) {
            (Value::Int(number), _) => Ok(number.to_string()),
            (_, Some(text)) => Ok(text.to_owned()),
            (Value::Mapping(mapping), _) => {
                let part =
                    |key: &str, otherwise: &str| mapping.get(key).map_or_else(|| otherwise.to_owned(), go_format);
                if !mapping.contains_key("target") {
                    return Err(format!("service ports {} is missing a target port", path()));
                }
                Ok(format!(
                    "{}:{}:{}/{}",
                    part("host_ip", "0.0.0.0"),
                    part("published", ""),
                    part("target", ""),
                    part("protocol", "tcp")
                ))
            }
            _ => Ok(String::new()),
        },
    }
}

/// What Go's `%s` makes of something that is not a string.
fn go_verb_s(item: &Node) -> String {
    match &item.value {
        Value::Null => "%!s(<nil>)".into(),
        Value::Bool(_) | Value::Int(_) => format!("%!s({}={})", go_type(item), go_format(item)),
        Value::Float(number) => format!("%!s(float64={number})"),
        _ => go_format(item),
    }
}
