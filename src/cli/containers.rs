//! The containers of a project, as the reading commands look for them: by docker compose's labels.

use bollard::models::ContainerSummary;

use super::CommandError;
use crate::client::{Engine, labels};

/// Which of the containers that `run` made are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OneOff {
    Include,
    Exclude,
}

/// Returns the project's containers of the named services (of all, if none is named), sorted by name.
///
/// `all` includes those that do not run.
pub async fn list(
    engine: &Engine,
    project: &str,
    services: &[String],
    one_off: OneOff,
    all: bool,
) -> Result<Vec<ContainerSummary>, CommandError> {
    let mut wanted = vec![
        format!("{}={project}", labels::PROJECT),
        // Set on whatever compose made, and not on what only borrowed the project's label.
        labels::CONFIG_HASH.to_owned(),
    ];
    if one_off == OneOff::Exclude {
        wanted.push(format!("{}=False", labels::ONE_OFF));
    }
    if let [service] = services {
        wanted.push(format!("{}={service}", labels::SERVICE));
    }
    let mut containers = with_labels(engine, wanted, all).await?;
    if services.len() > 1 {
        containers.retain(|container| services.iter().any(|name| name == label(container, labels::SERVICE)));
    }
    containers.sort_by(|left, right| name(left).cmp(name(right)));
    Ok(containers)
}

/// Returns the containers that have all the labels, given as `name` or `name=value`.
pub async fn with_labels(
    engine: &Engine,
    labels: Vec<String>,
    all: bool,
) -> Result<Vec<ContainerSummary>, CommandError> {
    Ok(engine.containers(&labels, all).await?)
}

/// Returns one container of a service: the one with the number `index`, or the first if that is 0.
pub async fn one(
    engine: &Engine,
    project: &str,
    service: &str,
    index: i64,
    one_off: OneOff,
    all: bool,
) -> Result<ContainerSummary, CommandError> {
    let mut containers = list(engine, project, &[service.to_owned()], one_off, all).await?;
    if index > 0 {
        containers.retain(|container| number(container) == index);
    }
    // One-off containers have no number and come last.
    containers.sort_by_key(|container| {
        let is_one_off = label(container, labels::ONE_OFF) == "True";
        (is_one_off, number(container))
    });
    containers.into_iter().next().ok_or_else(|| {
        CommandError::message(if index > 0 {
            format!("service \"{service}\" is not running container #{index}")
        } else {
            format!("service \"{service}\" is not running")
        })
    })
}

/// Returns the container's name without the slash; names with more slashes are links of other containers.
pub fn name(container: &ContainerSummary) -> &str {
    let names = container.names.as_deref().unwrap_or_default();
    names
        .iter()
        .map(|name| name.strip_prefix('/').unwrap_or(name))
        .find(|name| !name.contains('/'))
        .or(names.first().map(String::as_str))
        .unwrap_or_default()
}

/// Returns the name as logs show it: without the project where compose made the name up, whole where the file or
/// the user gave it.
pub fn short_name(container: &ContainerSummary) -> &str {
    let name = name(container);
    let parts = [labels::PROJECT, labels::SERVICE, labels::CONTAINER_NUMBER].map(|part| label(container, part));
    if ["-", "_"].iter().any(|separator| name == parts.join(separator)) {
        &name[parts[0].len() + 1..]
    } else {
        name
    }
}

/// Returns a label's value, or nothing.
pub fn label<'a>(container: &'a ContainerSummary, name: &str) -> &'a str {
    container
        .labels
        .as_ref()
        .and_then(|labels| labels.get(name))
        .map(String::as_str)
        .unwrap_or_default()
}

/// Returns the number among the service's replicas; 0 for those that `run` made.
pub fn number(container: &ContainerSummary) -> i64 {
    label(container, labels::CONTAINER_NUMBER).parse().unwrap_or(0)
}

/// Returns the container's id, or nothing.
pub fn id(container: &ContainerSummary) -> &str {
    container.id.as_deref().unwrap_or_default()
}

/// Returns the first twelve digits of an id.
pub fn short_id(id: &str) -> &str {
    let id = id.split_once(':').map_or(id, |(_, digits)| digits);
    id.get(..12).unwrap_or(id)
}
