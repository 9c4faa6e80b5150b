//! `compose pull`: pull service images.

use std::process::ExitCode;

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::{CommandError, Context, converge, pulling};
use crate::model::{Dependencies, Service};
use crate::plan::observed;
use crate::ui::{Progress, Status, stream};

/// Pull service images
#[derive(Debug, clap::Args)]
#[command(override_usage = "pull [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Ignore images that can be built
    #[arg(long)]
    pub ignore_buildable: bool,
    /// Pull what it can and ignores images with pull failures
    #[arg(long)]
    pub ignore_pull_failures: bool,
    /// Also pull services declared as dependencies
    #[arg(long)]
    pub include_deps: bool,
    /// DEPRECATED disable parallel pulling
    #[arg(long, value_name = "bool", hide = true)]
    pub no_parallel: Option<bool>,
    /// DEPRECATED pull multiple images in parallel
    #[arg(long, value_name = "bool", hide = true)]
    pub parallel: Option<bool>,
    /// Apply pull policy ("missing"|"always")
    #[arg(long, value_name = "string")]
    pub policy: Option<String>,
    /// Pull without printing progress information
    #[arg(short = 'q', long)]
    pub quiet: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Pulls the images of services.
// docker/compose pkg/compose/pull.go: pull
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    for (asked, flag) in [
        (args.parallel.is_some(), "parallel"),
        (args.no_parallel.is_some(), "no-parallel"),
    ] {
        if asked {
            stream::err(format_args!("option '--{flag}' is DEPRECATED and will be ignored."));
        }
    }
    let mut project = context.load_project(&args.services)?.project;
    if !args.services.is_empty() {
        let dependencies = match args.include_deps {
            true => Dependencies::Include,
            false => Dependencies::Ignore,
        };
        project = project.with_selected_services(&args.services, dependencies)?;
    }
    let engine = context.engine().await?;
    converge::check_local_images(&engine, &project, project.services.values())?;
    let images = project.services.values().map(|service| service.image.as_str());
    let present = observed::images(&engine, images.filter(|image| !image.is_empty())).await?;
    let mut pulled_for: BTreeMap<&str, &str> = BTreeMap::new();
    let mut wanted: Vec<&Service> = Vec::new();
    context.progress.begin("Pulling");
    for service in project.services.values() {
        let policy = args.policy.as_deref().unwrap_or(&service.pull_policy);
        let skipped = match policy {
            _ if service.image.is_empty() => Some("No image to be pulled".to_owned()),
            "never" | "build" => Some(String::new()),
            "missing" | "if_not_present" if is_settled(&service.image) && present.contains_key(&service.image) => {
                Some("Image is already present locally".to_owned())
            }
            _ if service.build.is_some() && args.ignore_buildable => Some("Image can be built".to_owned()),
            _ => pulled_for
                .get(service.image.as_str())
                .map(|name| format!("Image is already being pulled by {name}")),
        };
        match skipped {
            Some(why) => {
                let text = match why.as_str() {
                    "" => "Skipped".to_owned(),
                    why => format!("Skipped - {why}"),
                };
                context.progress.event(&service.name, Status::Done, text, "");
            }
            None => {
                pulled_for.insert(&service.image, &service.name);
                wanted.push(service);
            }
        }
    }
    let layers = if args.quiet {
        Progress::quiet()
    } else {
        context.progress.clone()
    };
    let pulls = wanted
        .iter()
        .map(|service| pulling::pull_image(context, &engine, &project, service, &layers));
    let results = join_all(pulls).await;
    context.progress.end();
    let mut failures = Vec::new();
    let mut to_build = Vec::new();
    for (service, result) in wanted.iter().zip(results) {
        if let Err(error) = result {
            if service.build.is_some() {
                to_build.push(service.name.as_str());
            }
            failures.push((service.build.is_some(), error));
        }
    }
    if !to_build.is_empty() {
        stream::warn(format_args!(
            "WARNING: Some service image(s) must be built from source by running:\n    docker compose build {}",
            to_build.join(" ")
        ));
    }
    if args.ignore_pull_failures {
        return Ok(ExitCode::SUCCESS);
    }
    // One that nobody can build says more than one that can be built instead.
    failures.sort_by_key(|(can_be_built, _)| *can_be_built);
    match failures.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Returns whether an image's name always means the same, so that having it is enough: with `latest` it does not.
// docker/compose pkg/compose/pull.go: imageAlreadyPresent
fn is_settled(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or_default();
    last.contains('@') || last.split_once(':').is_some_and(|(_, tag)| tag != "latest")
}
