//! Short forms become long ones, and defaults are filled in.
// compose-go transform/

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::model::{Dialect, Emit, parse_mount, parse_ports};
use crate::yaml::{Diagnostic, Diagnostics, Mapping, Node, Span, Value};

use super::tree::{as_list, at_mut, each_entry, each_service, entry, go_format, go_type, object};

/// How many ports a project's short forms may stand for: every port there is, once for each of two protocols.
pub const MOST_PORTS: usize = 2 << 16;

/// Warnings that come up on the way.
pub type Warnings = Vec<Diagnostic>;

/// Brings every attribute into its long form.
///
/// `ports_left` says how many more ports short forms may stand for. With `lenient`, what cannot be read stays as it is: variables may still stand in it.
pub fn canonical(
    root: &mut Node,
    lenient: bool,
    ports_left: &AtomicUsize,
    warnings: &mut Warnings,
) -> Result<(), Diagnostics> {
    each_service(root, |name, service| {
        canonical_service(name, service, lenient, ports_left)
    })?;
    for section in ["networks", "volumes", "secrets", "configs"] {
        each_entry(root, section, |name, resource| {
            canonical_external(&format!("{section}.{name}"), resource, warnings)
        })?;
    }
    if let Some(items) = root.get_mut("include").and_then(Node::as_sequence_mut) {
        for item in items {
            if item.as_str().is_some() {
                *item = object("path", item.clone());
            }
        }
    }
    Ok(())
}

fn canonical_service(
    name: &str,
    service: &mut Node,
    lenient: bool,
    ports_left: &AtomicUsize,
) -> Result<(), Diagnostics> {
    let mut wrong = Vec::new();
    let mut note = |result: Result<(), Diagnostic>| wrong.extend(result.err());
    let path = |attribute: &str| format!("services.{name}.{attribute}");
    if let Some(build) = service.get_mut("build") {
        if build.as_str().is_some() {
            *build = object("context", build.clone());
        }
        note(file_references(build.get_mut("secrets"), &path("build.secrets")));
        if let Some(contexts) = build.get_mut("additional_contexts") {
            note(key_values(contexts, &path("build.additional_contexts")));
        }
        if let Some(ssh) = build.get_mut("ssh") {
            note(ssh_keys(ssh));
        }
        for attribute in ["provenance", "sbom"] {
            if let Some(node) = build.get_mut(attribute)
                && node.as_bool().is_some()
            {
                node.value = Value::String(go_format(node));
            }
        }
    }
    if let Some(dependencies) = service.get_mut("depends_on") {
        note(depends_on(dependencies, &path("depends_on")));
    }
    if let Some(files) = service.get_mut("env_file") {
        note(env_files(files));
    }
    for attribute in ["label_file", "dns"] {
        if let Some(list) = service.get_mut(attribute) {
            string_or_list(list);
        }
    }
    if let Some(extends) = service.get_mut("extends")
        && extends.as_str().is_some()
    {
        *extends = object("service", extends.clone());
    }
    if let Some(gpus) = service.get_mut("gpus")
        && gpus.as_str().is_some()
    {
        let span = gpus.span;
        *gpus = Node::new(Value::Sequence(vec![object("count", gpus.clone())]), span);
    }
    for attribute in ["networks", "models"] {
        if let Some(names) = service.get_mut(attribute)
            && let Value::Sequence(items) = &names.value
        {
            let mapping = items
                .iter()
                .filter_map(|item| Some(entry(item.as_str()?, Value::Null, item.span)))
                .collect();
            names.value = Value::Mapping(mapping);
        }
    }
    note(check_ulimits(service.get("ulimits"), &path("ulimits")));
    let build_limits = service.get("build").and_then(|build| build.get("ulimits"));
    note(check_ulimits(build_limits, &path("build.ulimits")));
    if let Some(mounts) = service.get_mut("volumes").and_then(Node::as_sequence_mut) {
        for item in mounts {
            note(mount_object(item, lenient));
        }
    }
    if let Some(watches) = at_mut(service, &["develop", "watch"]).and_then(Node::as_sequence_mut) {
        for watch in watches {
            for attribute in ["ignore", "include"] {
                if let Some(list) = watch.get_mut(attribute) {
                    string_or_list(list);
                }
            }
        }
    }
    if let Some(devices) = service.get_mut("devices").and_then(Node::as_sequence_mut) {
        for device in devices {
            note(device_object(device, lenient));
        }
    }
    note(file_references(service.get_mut("secrets"), &path("secrets")));
    note(file_references(service.get_mut("configs"), &path("configs")));
    if let Some(ports) = service.get_mut("ports") {
        wrong.extend(port_objects(ports, &path("ports"), lenient, ports_left));
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Diagnostics(wrong)),
    }
}

fn check_ulimits(limits: Option<&Node>, path: &str) -> Result<(), Diagnostic> {
    for (name, limit) in limits.and_then(Node::as_mapping).into_iter().flat_map(Mapping::iter) {
        if !matches!(limit.node.value, Value::Int(_) | Value::Mapping(_)) {
            let found = go_type(&limit.node);
            let message = format!("{path}.{name}: invalid type {found} for external");
            return Err(Diagnostic::error(message).at(limit.node.span));
        }
    }
    Ok(())
}

fn string_or_list(node: &mut Node) {
    if node.as_str().is_some() {
        let span = node.span;
        *node = Node::new(Value::Sequence(vec![node.clone()]), span);
    }
}

fn file_references(list: Option<&mut Node>, path: &str) -> Result<(), Diagnostic> {
    for item in list.and_then(Node::as_sequence_mut).into_iter().flatten() {
        match &item.value {
            Value::Mapping(_) => {}
            Value::String(_) => *item = object("source", item.clone()),
            _ => {
                let message = format!("{path}.[]: unsupported type {}", go_type(item));
                return Err(Diagnostic::error(message).at(item.span));
            }
        }
    }
    Ok(())
}

fn key_values(node: &mut Node, path: &str) -> Result<(), Diagnostic> {
    let Value::Sequence(items) = &node.value else {
        return Ok(());
    };
    let mut mapping = Mapping::new();
    for item in items {
        let text = item.as_str().unwrap_or_default();
        let Some((key, value)) = text.split_once('=') else {
            let message = format!("{path}: invalid value {text}, expected key=value");
            return Err(Diagnostic::error(message).at(item.span));
        };
        mapping.insert(key, item.span, Node::string(value, item.span));
    }
    node.value = Value::Mapping(mapping);
    Ok(())
}

fn ssh_keys(node: &mut Node) -> Result<(), Diagnostic> {
    let Value::Sequence(items) = &node.value else {
        return Ok(());
    };
    let mut mapping = Mapping::new();
    for item in items {
        let text = go_format(item);
        match text.split_once('=') {
            Some((id, path)) => {
                mapping.insert(id, item.span, Node::string(path, item.span));
            }
            None if text == "default" => {
                mapping.insert("default", item.span, Node::new(Value::Null, item.span));
            }
            None => {
                let message = format!("invalid ssh key {}", crate::yaml::go_quote(&text));
                return Err(Diagnostic::error(message).at(item.span));
            }
        }
    }
    node.value = Value::Mapping(mapping);
    Ok(())
}

fn depends_on(node: &mut Node, path: &str) -> Result<(), Diagnostic> {
    match &mut node.value {
        Value::Mapping(mapping) => {
            for (_, dependency) in mapping.iter_mut() {
                let span = dependency.node.span;
                match dependency.node.as_mapping_mut() {
                    Some(object) => {
                        if !object.contains_key("required") {
                            object.insert("required", span, Node::new(Value::Bool(true), span));
                        }
                    }
                    None => {
                        let message = format!("{path}: unsupported value {}", go_format(&dependency.node));
                        return Err(Diagnostic::error(message).at(span));
                    }
                }
            }
        }
        Value::Sequence(items) => {
            let mapping = items
                .iter()
                .filter_map(|item| {
                    let object: Mapping = [
                        entry("condition", Value::String("service_started".into()), item.span),
                        entry("required", Value::Bool(true), item.span),
                    ]
                    .into_iter()
                    .collect();
                    Some(entry(item.as_str()?, Value::Mapping(object), item.span))
                })
                .collect();
            node.value = Value::Mapping(mapping);
        }
        _ => {}
    }
    Ok(())
}

fn env_files(node: &mut Node) -> Result<(), Diagnostic> {
    string_or_list(node);
    for item in node.as_sequence_mut().into_iter().flatten() {
        let span = item.span;
        if item.as_str().is_some() {
            *item = object("path", item.clone());
        }
        if let Some(mapping) = item.as_mapping_mut()
            && !mapping.contains_key("required")
        {
            mapping.insert("required", span, Node::new(Value::Bool(true), span));
        }
    }
    Ok(())
}

fn mount_object(node: &mut Node, lenient: bool) -> Result<(), Diagnostic> {
    let Some(text) = node.as_str() else {
        return Ok(());
    };
    match parse_mount(text) {
        Ok(mut mount) => {
            if !mount.target.is_empty() {
                mount.target = super::paths::clean(&mount.target);
            }
            *node = from_value(mount.emit(Dialect::Yaml), node.span);
            Ok(())
        }
        Err(_) if lenient => Ok(()),
        Err(error) => Err(Diagnostic::error(error.to_string()).at(node.span)),
    }
}

fn device_object(node: &mut Node, lenient: bool) -> Result<(), Diagnostic> {
    let Some(text) = node.as_str() else {
        return Ok(());
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, permissions) = match parts.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, target] => (*source, *target, "rwm"),
        [source, target, permissions] => (*source, *target, *permissions),
        _ if lenient => return Ok(()),
        _ => {
            let message = format!("confusing device mapping, please use long syntax: {text}");
            return Err(Diagnostic::error(message).at(node.span));
        }
    };
    let target = if target.is_empty() { source } else { target };
    let object: Mapping = [("source", source), ("target", target), ("permissions", permissions)]
        .into_iter()
        .map(|(key, value)| entry(key, Value::String(value.into()), node.span))
        .collect();
    node.value = Value::Mapping(object);
    Ok(())
}

/// Makes objects of the ports, and returns what is wrong with them.
fn port_objects(node: &mut Node, path: &str, lenient: bool, left: &AtomicUsize) -> Vec<Diagnostic> {
    let mut ports = Vec::new();
    let mut wrong = Vec::new();
    for item in as_list(node) {
        match &item.value {
            Value::Int(_) | Value::String(_) => match parse_ports(&go_format(item)) {
                Ok(parsed) => {
                    let count = parsed.len();
                    let take = |left: usize| left.checked_sub(count);
                    if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
                        let message = format!("{path}: the project has more than {MOST_PORTS} ports");
                        wrong.push(Diagnostic::error(message).at(item.span));
                        return wrong;
                    }
                    let parsed = parsed.iter();
                    ports.extend(parsed.map(|port| from_value(port.emit(Dialect::Yaml), item.span)));
                }
                Err(_) if lenient => return Vec::new(),
                Err(error) => wrong.push(Diagnostic::error(error.to_string()).at(item.span)),
            },
            Value::Mapping(_) => ports.push(item.clone()),
            _ => {
                let message = format!("{path}: invalid type {} for port", go_type(item));
                wrong.push(Diagnostic::error(message).at(item.span));
            }
        }
    }
    node.value = Value::Sequence(ports);
    wrong
}

fn canonical_external(path: &str, resource: &mut Node, warnings: &mut Warnings) -> Result<(), Diagnostic> {
    let Some(mapping) = resource.as_mapping_mut() else {
        return Ok(());
    };
    let Some(external) = mapping.get("external") else {
        return Ok(());
    };
    let Some(fields) = external.as_mapping() else {
        return Ok(());
    };
    let span = external.span;
    if let Some(name) = fields.get("name").cloned() {
        warnings.push(
            Diagnostic::warning(format!(
                "{path}: external.name is deprecated. Please set name and external: true"
            ))
            .at(span),
        );
        if let Some(other) = mapping.get("name")
            && other.value != name.value
        {
            let message = format!("{path}: name and external.name conflict; only use name");
            return Err(Diagnostic::error(message)
                .at(span)
                .related(other.span, "the other name"));
        }
        mapping.insert("name", name.span, name);
    }
    mapping.insert("external", span, Node::new(Value::Bool(true), span));
    Ok(())
}

/// Fills in what is true when a file says nothing.
// compose-go transform/defaults.go
pub fn set_defaults(root: &mut Node, lenient: bool) -> Result<(), Diagnostics> {
    each_service(root, |_, service| {
        if let Some(build) = service.get_mut("build") {
            let span = build.span;
            if let Some(build) = build.as_mapping_mut()
                && !build.contains_key("context")
            {
                build.insert("context", span, Node::string(".", span));
            }
        }
        for secret in service
            .get_mut("secrets")
            .and_then(Node::as_sequence_mut)
            .into_iter()
            .flatten()
        {
            let span = secret.span;
            if let Some(secret) = secret.as_mapping_mut()
                && !secret.contains_key("target")
            {
                let source = secret.get("source").map(go_format).unwrap_or_default();
                secret.insert("target", span, Node::string(format!("/run/secrets/{source}"), span));
            }
        }
        for port in service
            .get_mut("ports")
            .and_then(Node::as_sequence_mut)
            .into_iter()
            .flatten()
        {
            let span = port.span;
            if let Some(port) = port.as_mapping_mut() {
                for (key, value) in [("protocol", "tcp"), ("mode", "ingress")] {
                    if !port.contains_key(key) {
                        port.insert(key, span, Node::string(value, span));
                    }
                }
            }
        }
        // docker compose does this where it types the tree; a tree alone it leaves as it is written.
        if !lenient && let Some(options) = at_mut(service, &["provider", "options"]).and_then(Node::as_mapping_mut) {
            for (_, option) in options.iter_mut() {
                if option.node.as_sequence().is_none() && option.node.as_mapping().is_none() {
                    let span = option.node.span;
                    option.node = Node::new(Value::Sequence(vec![option.node.clone()]), span);
                }
                for item in option.node.as_sequence_mut().into_iter().flatten() {
                    item.value = Value::String(go_format(item));
                }
            }
        }
        device_requests(service.get_mut("gpus"));
        device_requests(at_mut(service, &["deploy", "resources", "reservations", "devices"]));
        Ok::<(), Diagnostic>(())
    })
}

fn device_requests(list: Option<&mut Node>) {
    for request in list.and_then(Node::as_sequence_mut).into_iter().flatten() {
        let span = request.span;
        if let Some(request) = request.as_mapping_mut()
            && !request.contains_key("count")
            && !request.contains_key("device_ids")
        {
            request.insert("count", span, Node::string("all", span));
        }
    }
}

/// Removes empty items of lists in which they mean nothing.
// compose-go loader/omitEmpty.go
pub fn omit_empty(root: &mut Node) -> Result<(), Diagnostic> {
    each_entry(root, "services", |_, service| {
        if let Some(servers) = service.get_mut("dns").and_then(Node::as_sequence_mut) {
            servers.retain(|server| !server.is_null() && server.as_str() != Some(""));
        }
        Ok(())
    })
}

/// Makes nodes of a value, all placed where `span` says.
pub fn from_value(value: crate::model::Value, span: Span) -> Node {
    use crate::model::Value as Plain;
    let value = match value {
        Plain::Null => Value::Null,
        Plain::Bool(value) => Value::Bool(value),
        Plain::Int(value) => Value::Int(value.into()),
        Plain::Uint(value) => Value::Int(value.into()),
        Plain::Float32(value) => Value::Float(value.into()),
        Plain::Float(value) => Value::Float(value),
        Plain::String(value) => Value::String(value),
        Plain::Timestamp(value) => Value::Timestamp(value),
        Plain::List(items) => Value::Sequence(items.into_iter().map(|item| from_value(item, span)).collect()),
        Plain::Map(entries) => {
            let mut mapping = Mapping::new();
            for (key, value) in entries {
                mapping.insert(key, span, from_value(value, span));
            }
            Value::Mapping(mapping)
        }
    };
    Node::new(value, span)
}
