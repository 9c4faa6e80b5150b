//! Sending the images of services to their registries.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::commit::split_tag;
use super::{CommandError, Context, pulling};
use crate::client::{ClientError, Engine};
use crate::model::Project;
use crate::percent;
use crate::ui::{Progress, Status};

/// Pushes the images of the services that are built, under all their tags.
// docker/compose pkg/compose/push.go: pushServiceImage
pub async fn push_images(
    context: &Context,
    engine: &Engine,
    project: &Project,
    services: &[String],
    ignore_failures: bool,
    quiet: bool,
) -> Result<(), CommandError> {
    let progress = if quiet {
        Progress::quiet()
    } else {
        context.progress.clone()
    };
    let mut seen = BTreeSet::new();
    let mut pushes = Vec::new();
    progress.begin("Pushing");
    for service in services.iter().filter_map(|name| project.services.get(name)) {
        let build = service.build.as_ref().filter(|_| !service.image.is_empty());
        let Some(build) = build else {
            progress.event(&service.name, Status::Done, "Skipped", "");
            continue;
        };
        for image in std::iter::once(&service.image).chain(&build.tags) {
            if seen.insert(image) {
                pushes.push(push_one(context, engine, &service.name, image, &progress));
            }
        }
    }
    let results = join_all(pushes).await;
    progress.end();
    match results.into_iter().find(Result::is_err) {
        Some(Err(error)) if !ignore_failures => Err(error.into()),
        _ => Ok(()),
    }
}

async fn push_one(
    context: &Context,
    engine: &Engine,
    service: &str,
    image: &str,
    progress: &Progress,
) -> Result<(), ClientError> {
    progress.event(image, Status::Working, "Pushing", "");
    if context.globals.dry_run {
        progress.event(image, Status::Done, "Pushed", "");
        return Ok(());
    }
    match push(engine, service, image, progress).await {
        Ok(()) => {
            progress.event(image, Status::Done, "Pushed", "");
            Ok(())
        }
        Err(error) => {
            progress.event(image, Status::Error, "Error", error.to_string());
            Err(error)
        }
    }
}

async fn push(engine: &Engine, service: &str, image: &str, layers: &Progress) -> Result<(), ClientError> {
    let (repository, tag) = split_tag(image);
    let tag = if tag.is_empty() { "latest" } else { tag };
    let path = format!(
        "/images/{}/push?tag={}",
        percent::encoded(repository),
        percent::encoded(tag)
    );
    // The engine insists on the header, even where there is nothing to say.
    let authentication = pulling::authentication(image).unwrap_or_else(|| "e30=".to_owned());
    let response = engine
        .post_with_headers(&path, &[("x-registry-auth", &authentication)])
        .await?;
    pulling::follow(response, service, layers).await
}
