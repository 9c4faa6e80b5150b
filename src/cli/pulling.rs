//! Getting the images of services from registries, with the progress docker shows.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use futures_util::future::join_all;
use serde::Deserialize;

use super::converge::local_source;
use super::{CommandError, Context};
use crate::client::stream::JsonLines;
use crate::client::{ClientError, Engine};
use crate::image::{ImageError, Login, PullOptions, Reference, inspect_remote, login_for};
use crate::model::{Project, Service};
use crate::percent;
use crate::ui::progress::Event;
use crate::ui::{Progress, Status};

/// Pulls the services' images, each image once. What can be built need not be there to be pulled.
// docker/compose pkg/compose/pull.go: pullRequiredImages
pub async fn pull_images(
    context: &Context,
    engine: &Engine,
    project: &Project,
    services: &[&Service],
    quiet: bool,
) -> Result<(), CommandError> {
    let by_image: BTreeMap<&str, &Service> = services
        .iter()
        .map(|service| (service.image.as_str(), *service))
        .collect();
    let layers = if quiet {
        Progress::quiet()
    } else {
        context.progress.clone()
    };
    context.progress.begin("Running");
    let pulls = by_image.values().map(|service| {
        let layers = &layers;
        async move {
            let can_be_built = project
                .services
                .values()
                .any(|other| other.image == service.image && other.build.is_some());
            match pull_image(context, engine, project, service, layers).await {
                Err(error) if !can_be_built => Err(error),
                _ => Ok(()),
            }
        }
    });
    let results = join_all(pulls).await;
    context.progress.end();
    results.into_iter().collect()
}

/// Pulls the image of one service. `layers` is told of each of its parts.
pub async fn pull_image(
    context: &Context,
    engine: &Engine,
    project: &Project,
    service: &Service,
    layers: &Progress,
) -> Result<(), CommandError> {
    let progress = &context.progress;
    progress.event(&service.name, Status::Working, "Pulling", "");
    let pulled = match context.globals.dry_run {
        true => look(&service.image)
            .await
            .map_err(|error| (error.to_string(), error.into())),
        false => pull(engine, project, service, layers)
            .await
            .map_err(|error| (error.to_string(), error.into())),
    };
    match pulled {
        Ok(()) => {
            progress.event(&service.name, Status::Done, "Pulled", "");
            Ok(())
        }
        Err((text, error)) => {
            let (status, word) = if service.build.is_some() {
                (Status::Warning, "Warning")
            } else {
                (Status::Error, "Error")
            };
            // docker compose leaves the engine's part of the text out here.
            let text = text.strip_prefix("Error response from daemon: ").unwrap_or(&text);
            progress.event(&service.name, status, word, text);
            Err(error)
        }
    }
}

/// Asks the registry whether an image could be pulled.
async fn look(image: &str) -> Result<(), ImageError> {
    if local_source(image).is_none() {
        inspect_remote(&Reference::parse(image)?, &PullOptions::default()).await?;
    }
    Ok(())
}

/// Has the engine pull the service's image.
pub async fn pull(engine: &Engine, project: &Project, service: &Service, layers: &Progress) -> Result<(), ClientError> {
    let platform = match service.platform.as_str() {
        "" => project
            .environment
            .get("DOCKER_DEFAULT_PLATFORM")
            .map(String::as_str)
            .unwrap_or_default(),
        platform => platform,
    };
    let path = format!(
        "/images/create?fromImage={}&platform={}{}",
        percent::encoded(&service.image),
        percent::encoded(platform),
        tag(&service.image)
    );
    // The embedded engine looks for itself as well, but where its environment says, which may be that of another day.
    let authentication = authentication(&service.image);
    let headers: Vec<(&str, &str)> = authentication
        .as_deref()
        .map(|value| ("x-registry-auth", value))
        .into_iter()
        .collect();
    let response = engine.post_with_headers(&path, &headers).await?;
    follow(response, &service.name, layers).await
}

/// Follows the engine's news of an image's parts to their end.
pub async fn follow(
    response: http::Response<hyper::body::Incoming>,
    service: &str,
    layers: &Progress,
) -> Result<(), ClientError> {
    let mut lines = JsonLines::new(response);
    while let Some(line) = lines.next().await {
        take(line?, service, layers)?;
    }
    Ok(())
}

/// Without a tag the engine would take all of a repository's.
fn tag(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or_default();
    let is_complete = name.contains([':', '@']) || local_source(image).is_some();
    if is_complete { "" } else { "&tag=latest" }
}

/// Returns the user's credentials for the image's registry, as the Engine API takes them.
pub fn authentication(image: &str) -> Option<String> {
    let reference = Reference::parse(image).ok()?;
    credentials(&reference).map(|json| URL_SAFE.encode(json.to_string()))
}

/// The same before it is packed.
pub fn credentials(reference: &Reference) -> Option<serde_json::Value> {
    let server = match reference.domain() {
        "docker.io" => "https://index.docker.io/v1/",
        registry => registry,
    };
    Some(match login_for(reference)? {
        Login::Token(token) => serde_json::json!({"registrytoken": token, "serveraddress": server}),
        Login::Identity(token) => serde_json::json!({"identitytoken": token, "serveraddress": server}),
        Login::Password { username, password } => {
            serde_json::json!({"username": username, "password": password, "serveraddress": server})
        }
    })
}

/// What the engine tells while it pulls.
#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    id: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    progress: String,
    #[serde(default, rename = "progressDetail")]
    detail: Option<Detail>,
    error: Option<String>,
}

#[derive(Deserialize, Default)]
struct Detail {
    #[serde(default)]
    current: i64,
    #[serde(default)]
    total: i64,
}

fn take(message: Message, service: &str, layers: &Progress) -> Result<(), ClientError> {
    if let Some(error) = message.error {
        return Err(ClientError::Stream(error));
    }
    let Some(detail) = message.detail.filter(|_| !message.id.is_empty()) else {
        return Ok(());
    };
    let is_done = matches!(
        message.status.as_str(),
        "Download complete" | "Already exists" | "Pull complete" | "Layer already exists" | "Pushed"
    );
    layers.send(Event {
        parent: Some(service.to_owned()),
        current: detail.current,
        total: detail.total,
        ..Event::new(
            message.id,
            if is_done { Status::Done } else { Status::Working },
            message.status,
            message.progress,
        )
    });
    Ok(())
}
