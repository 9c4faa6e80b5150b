//! The file by which docker's `buildx bake` would build the same images: what `build --print` prints.

use serde_json::{Map, Value, json};

use super::CommandError;
use crate::client::labels;
use crate::model::{Build, Project, Service};

/// Returns the file for these services.
// docker/compose pkg/compose/build_bake.go
pub fn file(project: &Project, services: &[String], arguments: &[String], no_cache: bool, pull: bool) -> Value {
    let mut targets = Map::new();
    for service in services.iter().filter_map(|name| project.services.get(name)) {
        if let Some(build) = &service.build {
            let target = target(project, service, build, arguments, (no_cache, pull));
            targets.insert(service.name.clone(), Value::Object(target));
        }
    }
    let names: Vec<&String> = targets.keys().collect();
    json!({"group": {"default": {"targets": names}}, "target": targets})
}

fn target(
    project: &Project,
    service: &Service,
    build: &Build,
    arguments: &[String],
    (no_cache, pull): (bool, bool),
) -> Map<String, Value> {
    let mut target = Map::new();
    let mut add = |key: &str, value: Value| {
        let is_empty = match &value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(entries) => entries.is_empty(),
            _ => false,
        };
        if !is_empty {
            target.insert(key.to_owned(), value);
        }
    };
    add("context", json!(build.context));
    add("contexts", json!(build.additional_contexts));
    if build.dockerfile_inline.is_empty() {
        let is_local = build.context.starts_with('/');
        let dockerfile = match is_local && !build.dockerfile.starts_with('/') {
            true => format!("{}/{}", build.context.trim_end_matches('/'), build.dockerfile),
            false => build.dockerfile.clone(),
        };
        add("dockerfile", json!(dockerfile));
    }
    add("dockerfile-inline", json!(build.dockerfile_inline));
    let mut values: Map<String, Value> = Map::new();
    for (name, value) in &build.args {
        if let Some(value) = value.as_ref().or_else(|| project.environment.get(name)) {
            values.insert(name.clone(), json!(value));
        }
    }
    for argument in arguments {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (argument.as_str(), project.environment.get(argument).map(String::as_str)),
        };
        if let Some(value) = value {
            values.insert(name.to_owned(), json!(value));
        }
    }
    add("args", Value::Object(values));
    let mut all_labels = build.labels.clone();
    all_labels.insert(labels::PROJECT.to_owned(), project.name.clone());
    all_labels.insert(labels::SERVICE.to_owned(), service.name.clone());
    all_labels.insert(labels::VERSION.to_owned(), labels::COMPATIBLE_VERSION.to_owned());
    add("labels", json!(all_labels));
    let mut tags = build.tags.clone();
    tags.push(project.image_name(service, "-"));
    add("tags", json!(tags));
    add("cache-from", json!(build.cache_from));
    add("cache-to", json!(build.cache_to));
    add("target", json!(build.target));
    let secrets: Vec<String> = build
        .secrets
        .iter()
        .filter_map(|reference| {
            let secret = project.secrets.get(&reference.source)?;
            let id = match reference.target.as_str() {
                "" => &reference.source,
                target => target,
            };
            Some(match secret.environment.as_str() {
                "" => format!("id={id},type=file,src={}", secret.file),
                variable => format!("id={id},type=env,env={variable}"),
            })
        })
        .collect();
    add("secret", json!(secrets));
    let keys = build.ssh.0.iter().map(|key| match key.path.as_str() {
        "" => key.id.clone(),
        path => format!("{}={path}", key.id),
    });
    add("ssh", json!(keys.collect::<Vec<_>>()));
    add("platforms", json!(build.platforms));
    add("pull", json!(build.pull || pull));
    add("no-cache", json!(build.no_cache || no_cache));
    add("network", json!(build.network));
    add("no-cache-filter", json!(build.no_cache_filter));
    add("entitlements", json!(build.entitlements));
    add("output", json!(["type=docker"]));
    target
}

/// Prints the file as docker compose does.
pub fn print(file: &Value) -> Result<(), CommandError> {
    let mut text = serde_json::to_string_pretty(file).map_err(|error| CommandError::message(error.to_string()))?;
    // As Go writes JSON; outside of strings there are none of these.
    for (character, escape) in [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026")] {
        text = text.replace(character, escape);
    }
    crate::ui::stream::out(text + "\n")?;
    Ok(())
}
