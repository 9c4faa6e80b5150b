//! What a project means without saying it: networks, names, dependencies.
// compose-go loader/normalize.go

use std::collections::BTreeMap;

use crate::yaml::{Diagnostic, Diagnostics, Mapping, Node, Span, Value};

use super::tree::{as_list, each_entry, each_service, entry, go_format};

type Variables = BTreeMap<String, String>;

/// Adds the default network, names of resources, defaults of builds and dependencies that follow from other attributes.
pub fn normalize(root: &mut Node, project: &str, variables: &Variables) -> Result<(), Diagnostics> {
    default_network(root)?;
    each_service(root, |name, service| {
        if let Some(pid) = service.get("pid")
            && pid.is_null()
        {
            return Err(Diagnostic::error(format!("services.{name}.pid must be a string")).at(pid.span));
        }
        normalize_service(service, variables);
        Ok(())
    })?;
    for section in ["networks", "volumes", "configs", "secrets"] {
        each_entry(root, section, |key, resource| {
            name_resource(resource, key, project);
            Ok(())
        })?;
    }
    Ok(())
}

fn default_network(root: &mut Node) -> Result<(), Diagnostic> {
    let mut used = false;
    let span = root.span;
    each_entry(root, "services", |_, service| {
        if service.as_mapping().is_none() || service.get("provider").is_some() || service.get("network_mode").is_some()
        {
            return Ok(());
        }
        match service.get("networks").map(Node::as_mapping) {
            Some(Some(networks)) if !networks.is_empty() => {
                used |= networks.contains_key("default");
            }
            _ => {
                used = true;
                let span = service.span;
                let networks: Mapping = [entry("default", Value::Null, span)].into_iter().collect();
                if let Some(service) = service.as_mapping_mut() {
                    service.insert("networks", span, Node::new(Value::Mapping(networks), span));
                }
            }
        }
        Ok(())
    })?;
    if !used {
        return Ok(());
    }
    let Some(top) = root.as_mapping_mut() else {
        return Ok(());
    };
    if top.get("networks").is_none_or(Node::is_null) {
        top.insert("networks", span, Node::new(Value::Mapping(Mapping::new()), span));
    }
    if let Some(networks) = top.get_mut("networks").and_then(Node::as_mapping_mut)
        && !networks.contains_key("default")
    {
        networks.insert("default", span, Node::new(Value::Null, span));
    }
    Ok(())
}

/// A service that podman-compose runs in a directory, `x-podman.rootfs: PATH`, has that for an image. Writing never reaches the
/// directory, so `:O`, which asks for that, changes nothing.
// podman-compose docs/Extensions.md
fn root_directory(service: &mut Mapping) {
    if service.contains_key("image") || service.contains_key("build") || service.contains_key("provider") {
        return;
    }
    let Some(directory) = service.get("x-podman.rootfs") else {
        return;
    };
    let (Some(path), span) = (directory.as_str(), directory.span) else {
        return;
    };
    let path = path.strip_suffix(":O").unwrap_or(path);
    service.insert("image", span, Node::string(format!("rootfs:{path}"), span));
}

fn normalize_service(service: &mut Node, variables: &Variables) {
    let span = service.span;
    let Some(service) = service.as_mapping_mut() else {
        return;
    };
    root_directory(service);
    if let Some(policy) = service.get_mut("pull_policy")
        && policy.as_str() == Some("if_not_present")
    {
        policy.value = Value::String("missing".into());
    }
    if let Some(build) = service.get_mut("build") {
        let span = build.span;
        if let Some(build) = build.as_mapping_mut() {
            if build.get("context").is_none_or(Node::is_null) {
                build.insert("context", span, Node::string(".", span));
            }
            if build.get("dockerfile").is_none_or(Node::is_null)
                && build.get("dockerfile_inline").is_none_or(Node::is_null)
            {
                build.insert("dockerfile", span, Node::string("Dockerfile", span));
            }
            if let Some(arguments) = build.get_mut("args") {
                resolve_variables(arguments, variables, false);
            }
        }
    }
    if let Some(environment) = service.get_mut("environment") {
        resolve_variables(environment, variables, true);
    }
    for (name, restart, span) in implied_dependencies(service) {
        add_dependency(service, &name, restart, span);
    }
    if let Some(mounts) = service.get_mut("volumes").and_then(Node::as_sequence_mut) {
        for mount in mounts {
            if let Some(target) = mount.get_mut("target")
                && let Value::String(path) = &mut target.value
            {
                *path = super::paths::clean(path);
            }
        }
    }
    if service
        .get("depends_on")
        .and_then(Node::as_mapping)
        .is_some_and(Mapping::is_empty)
    {
        let empty = Node::new(Value::Mapping(Mapping::new()), span);
        service.insert("depends_on", span, empty);
    }
}

fn implied_dependencies(service: &Mapping) -> Vec<(String, bool, Span)> {
    let mut found = Vec::new();
    for link in service.get("links").map(as_list).unwrap_or_default() {
        if let Some(text) = link.as_str() {
            let parts: Vec<&str> = text.split(':').collect();
            let name = if parts.len() == 2 { parts[0] } else { text };
            found.push((name.to_owned(), true, link.span));
        }
    }
    for namespace in ["network_mode", "ipc", "pid", "uts", "cgroup"] {
        if let Some(node) = service.get(namespace)
            && let Some(name) = node.as_str().and_then(|text| text.strip_prefix("service:"))
        {
            found.push((name.to_owned(), true, node.span));
        }
    }
    for source in service.get("volumes_from").map(as_list).unwrap_or_default() {
        if let Some(text) = source.as_str()
            && !text.starts_with("container:")
        {
            let name = text.split(':').next().unwrap_or_default();
            found.push((name.to_owned(), false, source.span));
        }
    }
    found
}

fn add_dependency(service: &mut Mapping, name: &str, restart: bool, span: Span) {
    if service.get("depends_on").is_none_or(Node::is_null) {
        let none = Node::new(Value::Mapping(Mapping::new()), span);
        service.insert("depends_on", span, none);
    }
    let Some(dependencies) = service.get_mut("depends_on").and_then(Node::as_mapping_mut) else {
        return;
    };
    if dependencies.contains_key(name) {
        return;
    }
    let dependency: Mapping = [
        entry("condition", Value::String("service_started".into()), span),
        entry("restart", Value::Bool(restart), span),
        entry("required", Value::Bool(true), span),
    ]
    .into_iter()
    .collect();
    dependencies.insert(name, span, Node::new(Value::Mapping(dependency), span));
}

/// Gives variables without a value the one of the project's environment; those it lacks go or stay.
pub(super) fn resolve_variables(node: &mut Node, variables: &Variables, keep_unset: bool) {
    match &mut node.value {
        Value::Sequence(items) => items.retain_mut(|item| {
            let Value::String(text) = &mut item.value else {
                return false;
            };
            if text.contains('=') {
                return true;
            }
            match variables.get(text.as_str()) {
                Some(value) => {
                    *text = format!("{text}={value}");
                    true
                }
                None => keep_unset,
            }
        }),
        Value::Mapping(mapping) => mapping.retain(|key, entry| {
            if !entry.node.is_null() {
                return true;
            }
            match variables.get(key) {
                Some(value) => {
                    entry.node.value = Value::String(value.clone());
                    true
                }
                None => keep_unset,
            }
        }),
        _ => {}
    }
}

fn name_resource(resource: &mut Node, key: &str, project: &str) {
    let span = resource.span;
    if resource.is_null() {
        resource.value = Value::Mapping(Mapping::new());
    }
    let Some(mapping) = resource.as_mapping_mut() else {
        return;
    };
    if mapping.get("name").is_some_and(|name| !name.is_null()) {
        return;
    }
    let external = mapping.get("external").is_some_and(|node| is_true(&go_format(node)));
    let name = if external {
        key.to_owned()
    } else {
        format!("{project}_{key}")
    };
    mapping.insert("name", span, Node::string(name, span));
}

/// What Go's `strconv.ParseBool` takes for true.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}
