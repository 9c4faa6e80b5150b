//! `compose images`: list images used by the created containers.

use std::process::ExitCode;

use std::collections::BTreeMap;

use bollard::models::ImageInspect;
use futures_util::future::try_join_all;
use serde_json::json;

use super::containers::{self, label, short_id, with_labels};
use super::{CommandError, Context, ls};
use crate::client::{ClientError, Engine, labels};
use crate::percent;
use crate::ui::{human, stream, table};

/// List images used by the created containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "images [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Format the output. Values: [table | json]
    #[arg(long, value_name = "string", default_value = "table")]
    pub format: String,
    /// Only display IDs
    #[arg(short = 'q', long)]
    pub quiet: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Asks what an image is. A path in its name must not become part of the request's.
async fn inspect(engine: &Engine, name: &str) -> Result<ImageInspect, ClientError> {
    let name = match name.contains(":/") {
        true => percent::encoded(name),
        false => name.to_owned(),
    };
    Ok(engine.docker.inspect_image(&name).await?)
}

/// Lists the images that the project's containers were made from.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let project = context.project_name()?;
    let engine = context.engine().await?;
    let mut containers = with_labels(&engine, vec![format!("{}={project}", labels::PROJECT)], true).await?;
    if !args.services.is_empty() {
        containers.retain(|container| {
            args.services
                .iter()
                .any(|name| name == label(container, labels::SERVICE))
        });
    }
    // Many containers of one image ask once.
    let mut images: BTreeMap<String, ImageInspect> = BTreeMap::new();
    let names: std::collections::BTreeSet<&str> = containers
        .iter()
        .filter_map(|container| container.image.as_deref())
        .collect();
    let inspected = try_join_all(names.iter().map(|name| inspect(&engine, name))).await?;
    images.extend(names.iter().map(|name| (*name).to_owned()).zip(inspected));
    let mut rows: Vec<(&str, &str, &ImageInspect)> = containers
        .iter()
        .filter_map(|container| {
            let image = container.image.as_deref()?;
            Some((containers::name(container), image, images.get(image)?))
        })
        .collect();
    rows.sort_by_key(|(name, ..)| *name);
    if args.quiet {
        let mut ids: Vec<&str> = Vec::new();
        for (_, _, image) in &rows {
            let id = image.id.as_deref().unwrap_or_default();
            let id = id.split_once(':').map_or(id, |(_, digits)| digits);
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        stream::out(ids.iter().map(|id| format!("{id}\n")).collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    }
    stream::out(match args.format.as_str() {
        // docker compose's list of nothing.
        "json" if rows.is_empty() => "null\n".to_owned(),
        "json" => format!("{}\n", rows.iter().map(as_json).collect::<serde_json::Value>()),
        "table" | "" => table::wide(
            &[
                "CONTAINER",
                "REPOSITORY",
                "TAG",
                "PLATFORM",
                "IMAGE ID",
                "SIZE",
                "CREATED",
            ],
            &rows.iter().map(as_cells).collect::<Vec<_>>(),
        ),
        other => return Err(ls::unknown_format(other)),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn as_json((container, reference, image): &(&str, &str, &ImageInspect)) -> serde_json::Value {
    let (repository, tag) = repository_and_tag(reference);
    let mut row = json!({
        "ID": image.id,
        "ContainerName": container,
        "Repository": repository,
        "Tag": tag,
        "Platform": platform(image),
        "Size": image.size.unwrap_or(0),
    });
    if let (Some(time), Some(row)) = (tagged(image), row.as_object_mut()) {
        row.insert("LastTagTime".to_owned(), json!(time));
    }
    row
}

fn as_cells((container, reference, image): &(&str, &str, &ImageInspect)) -> Vec<String> {
    let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    let (repository, tag) = repository_and_tag(reference);
    // When it was tagged here, as docker compose shows it, and when it was made only where nobody knows that.
    let created = tagged(image)
        .and_then(seconds_since)
        .or_else(|| image.created.as_ref().and_then(seconds_since))
        .map_or("N/A".to_owned(), |age| format!("{} ago", human::duration(age)));
    vec![
        (*container).to_owned(),
        or_none(repository),
        or_none(tag),
        platform(image),
        short_id(image.id.as_deref().unwrap_or_default()).to_owned(),
        human::short_size(image.size.unwrap_or(0) as f64),
        created,
    ]
}

/// Returns when the image got its tag on this engine.
fn tagged(image: &ImageInspect) -> Option<&impl serde::Serialize> {
    let time = image.metadata.as_ref()?.last_tag_time.as_ref()?;
    // Go's zero, which stands for no time.
    seconds_since(time)
        .is_some_and(|age| age < 1000 * 365 * 24 * 3600)
        .then_some(time)
}

/// Returns how many seconds ago a time of the engine's was.
fn seconds_since(time: &impl serde::Serialize) -> Option<i64> {
    let text = serde_json::to_value(time).ok()?;
    let time: jiff::Timestamp = text.as_str()?.parse().ok()?;
    Some(jiff::Timestamp::now().as_second() - time.as_second())
}

fn platform(image: &ImageInspect) -> String {
    [&image.os, &image.architecture, &image.variant]
        .into_iter()
        .flatten()
        .filter(|part| !part.is_empty())
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("/")
}

/// Splits a reference as docker shows it: `busybox` and `latest`, nothing for a bare id.
fn repository_and_tag(reference: &str) -> (String, String) {
    if reference.starts_with("sha256:")
        || reference.len() == 64 && reference.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return (String::new(), String::new());
    }
    let (name, has_digest) = match reference.split_once('@') {
        Some((name, _)) => (name, true),
        None => (reference, false),
    };
    // A colon before the last slash belongs to the registry's port.
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ if has_digest => (name, ""),
        _ => (name, "latest"),
    };
    let familiar = repository.strip_prefix("docker.io/").unwrap_or(repository);
    let familiar = familiar.strip_prefix("library/").unwrap_or(familiar);
    (familiar.to_owned(), tag.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_shown_as_docker_shows_them() {
        for (reference, repository, tag) in [
            ("busybox", "busybox", "latest"),
            ("docker.io/library/busybox:1.36", "busybox", "1.36"),
            ("localhost:5000/a/b", "localhost:5000/a/b", "latest"),
            ("ghcr.io/x/y:1@sha256:00", "ghcr.io/x/y", "1"),
            ("x/y@sha256:00", "x/y", ""),
            ("sha256:00", "", ""),
        ] {
            assert_eq!(
                repository_and_tag(reference),
                (repository.to_owned(), tag.to_owned()),
                "{reference}"
            );
        }
    }
}
