//! `compose down`: stop and remove containers, networks.

use std::process::ExitCode;

use std::collections::{BTreeSet, HashMap};

use bollard::query_parameters::ListImagesOptions;

use super::lifecycle::{self, Look, Scene, interruptible, set};
use super::providers::{self, Request};
use super::{CommandError, Context, background};
use crate::client::{ClientError, labels};
use crate::plan::lifecycle::{DownOptions, down};
use crate::plan::observed;
use crate::ui::stream;

/// Stop and remove containers, networks
#[derive(Debug, clap::Args)]
#[command(override_usage = "down [OPTIONS] [SERVICES]")]
pub struct Args {
    /// Remove containers for services not defined in the Compose file
    #[arg(long)]
    pub remove_orphans: bool,
    /// Remove images used by services. "local" remove only images that don't have a custom tag ("local"|"all")
    #[arg(long, value_name = "string")]
    pub rmi: Option<String>,
    /// Specify a shutdown timeout in seconds
    #[arg(short = 't', long, value_name = "int")]
    pub timeout: Option<i64>,
    /// Remove named volumes declared in the "volumes" section of the Compose file and anonymous volumes attached to containers
    #[arg(short = 'v', long)]
    pub volumes: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Takes the project down.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let rmi = match args.rmi.as_deref() {
        None | Some("") => None,
        Some("all") => Some(Images::All),
        Some("local") => Some(Images::Local),
        Some(other) => {
            return Err(CommandError::message(format!(
                "invalid value for --rmi: {}",
                stream::quoted(other)
            )));
        }
    };
    let remove_orphans = args.remove_orphans || context.flag_variable("COMPOSE_REMOVE_ORPHANS");
    interruptible(async {
        let scene = Scene::open(context, &args.services, Look::Everything).await?;
        let mut services = set(&args.services);
        if !scene.from_file {
            // What is not there may be gone already.
            services.retain(|service| scene.project.services.contains_key(service));
            if services.is_empty() && !args.services.is_empty() {
                stream::info(format_args!(
                    "Any of the services [{}] not running in project {}",
                    args.services.join(" "),
                    stream::quoted(&scene.project.name)
                ));
                return Ok(ExitCode::SUCCESS);
            }
        }
        let options = DownOptions {
            services,
            timeout: args.timeout,
            volumes: args.volumes,
            remove_orphans,
            images: match rmi {
                Some(images) => images_to_remove(&scene, images, remove_orphans, lifecycle::separator(context)).await?,
                None => Vec::new(),
            },
        };
        let plan = down(&scene.project, &scene.observed, &options)?;
        if plan.operations.is_empty() && !scene.from_file {
            stream::warn(format_args!(
                "Warning: No resource found to remove for project \"{}\".",
                scene.project.name
            ));
        }
        if args.services.is_empty() && !context.globals.dry_run {
            background::end_with(context, &scene.engine, &scene.project.name).await?;
        }
        lifecycle::announce(context, &plan);
        let mut settings = lifecycle::settings(context, &scene.engine);
        settings.keep_going = true;
        lifecycle::execute(
            context,
            &scene.engine,
            &scene.project,
            &scene.observed,
            &plan,
            &settings,
        )
        .await?;
        let mut project = scene.project.clone();
        if !args.services.is_empty() {
            project.services.retain(|name, _| args.services.contains(name));
        }
        providers::run(context, &mut project, Request::Down, &context.progress).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

/// Which images `--rmi` removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Images {
    /// All that the services use.
    All,
    /// Those without a name of their own: built here.
    Local,
}

/// Returns the images to remove that are there: those the files name, those built for the project.
// docker/compose pkg/compose/image_pruner.go
async fn images_to_remove(
    scene: &Scene,
    which: Images,
    orphans: bool,
    separator: &str,
) -> Result<Vec<String>, CommandError> {
    let project = &scene.project;
    let named: BTreeSet<String> = project
        .services
        .values()
        .filter(|service| which == Images::All || service.image.is_empty())
        .map(|service| project.image_name(service, separator))
        .collect();
    let there = observed::images(&scene.engine, named.iter().map(String::as_str)).await?;
    let mut images: BTreeSet<String> = there.into_keys().map(with_tag).collect();
    let label = format!("{}={}", labels::PROJECT, project.name);
    let filters = HashMap::from([
        ("label".to_owned(), vec![label]),
        ("dangling".to_owned(), vec!["false".to_owned()]),
    ]);
    let options = ListImagesOptions {
        filters: Some(filters),
        ..ListImagesOptions::default()
    };
    let built = scene
        .engine
        .docker
        .list_images(Some(options))
        .await
        .map_err(ClientError::from)?;
    for image in built {
        let is_known = image
            .labels
            .get(labels::SERVICE)
            .is_some_and(|service| project.services.contains_key(service));
        if let Some(tag) = image.repo_tags.first().filter(|_| orphans || is_known) {
            images.insert(with_tag(tag.clone()));
        }
    }
    Ok(images.into_iter().collect())
}

/// Names are shown with their tag.
fn with_tag(image: String) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    if last.contains([':', '@']) {
        image
    } else {
        format!("{image}:latest")
    }
}
