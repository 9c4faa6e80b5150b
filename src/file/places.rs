//! Finds where those attributes are written that an engine may refuse, for whoever has to tell of it.

use crate::model::Places;
use crate::yaml::{Mapping, Node, Sources, Span};

/// Attributes of services whose places are kept as they are. Others are looked into.
const KEPT: [&str; 5] = ["image", "restart", "storage_opt", "deploy", "build"];

/// Returns the places of a project's attributes: those of limits on memory, and all others where an engine is asked.
pub(super) fn places(root: &Node, sources: &Sources, all: bool) -> Places {
    let mut places = Places::default();
    let shown = |span: Span| {
        let (line, column) = sources.position(span);
        format!("{}:{line}:{column}", sources.name(span.source))
    };
    for (name, service) in section(root, "services") {
        let owner = format!("services.{name}");
        let memory = || {
            let limits = service.get("deploy")?.get("resources")?.get("limits")?;
            limits.get("memory")
        };
        if let Some(limit) = service.get("mem_limit").or_else(memory) {
            places.insert(&owner, Places::MEMORY, shown(limit.span));
        }
        if !all {
            continue;
        }
        for kept in KEPT {
            if let Some(node) = service.get(kept) {
                places.insert(&owner, kept, shown(node.span));
            }
        }
        for mount in items(service.get("volumes")) {
            if let Some(target) = mount.get("target").and_then(Node::as_str) {
                places.insert(&owner, format!("volumes {target}"), shown(mount.span));
            }
        }
        for (index, step) in items(service.get("pre_start")).enumerate() {
            if let Some(image) = step.get("image") {
                places.insert(&owner, format!("pre_start[{index}]"), shown(image.span));
            }
        }
        for tmpfs in items(service.get("tmpfs")) {
            if let Some(text) = tmpfs.as_str() {
                places.insert(&owner, format!("tmpfs {text}"), shown(tmpfs.span));
            }
        }
        let build = service.get("build").and_then(Node::as_mapping);
        for (key, entry) in build.into_iter().flat_map(Mapping::iter) {
            places.insert(&owner, format!("build.{key}"), shown(entry.node.span));
            for (index, item) in items(Some(&entry.node)).enumerate() {
                places.insert(&owner, format!("build.{key}[{index}]"), shown(item.span));
            }
            for (name, item) in entry.node.as_mapping().into_iter().flat_map(Mapping::iter) {
                places.insert(&owner, format!("build.{key}.{name}"), shown(item.node.span));
            }
        }
    }
    for (name, volume) in section(root, "volumes").filter(|_| all) {
        if let Some(options) = volume.get("driver_opts") {
            places.insert(&format!("volumes.{name}"), "driver_opts", shown(options.span));
        }
    }
    places
}

fn section<'n>(root: &'n Node, name: &str) -> impl Iterator<Item = (&'n str, &'n Node)> {
    let section = root.get(name).and_then(Node::as_mapping);
    let entries = section.into_iter().flat_map(Mapping::iter);
    entries.map(|(name, entry)| (name, &entry.node))
}

fn items(node: Option<&Node>) -> impl Iterator<Item = &Node> {
    node.and_then(Node::as_sequence).unwrap_or_default().iter()
}
