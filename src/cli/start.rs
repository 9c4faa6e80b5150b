//! `compose start`: start services.

use std::process::ExitCode;

use std::time::Duration;

use super::lifecycle::{self, Look, Scene, interruptible};
use super::{CommandError, Context};
use crate::plan::reconcile::{self, Options};

/// Start services
#[derive(Debug, clap::Args)]
#[command(override_usage = "start [SERVICE...]")]
pub struct Args {
    #[arg(long, help = "Wait for services to be running|healthy. Implies detached mode.")]
    pub wait: bool,
    /// Maximum duration in seconds to wait for the project to be running|healthy
    #[arg(long, value_name = "int")]
    pub wait_timeout: Option<i64>,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Starts containers that exist, in the order of their dependencies.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    interruptible(async {
        let scene = Scene::open(context, &args.services, Look::Containers).await?;
        if scene.project.services.is_empty() && !scene.from_file {
            return Err(CommandError::message(format!(
                "no container found for project \"{}\": not found",
                scene.project.name
            )));
        }
        let unknown = args
            .services
            .iter()
            .find(|name| !scene.project.services.contains_key(*name));
        if let Some(unknown) = unknown.filter(|_| !scene.from_file) {
            return Err(CommandError::message(format!(
                "no such service: {unknown:?}: not found"
            )));
        }
        let project = scene
            .project
            .clone()
            .with_selected_services(&args.services, crate::model::Dependencies::Include)?;
        let options = Options {
            wait: args.wait,
            separator: lifecycle::separator(context),
            ..Options::default()
        };
        let plan = reconcile::start(&project, &scene.observed, &options)?;
        lifecycle::announce(context, &plan);
        let mut settings = lifecycle::settings(context, &scene.engine);
        settings.wait_timeout = wait_timeout(args.wait_timeout);
        lifecycle::execute(context, &scene.engine, &project, &scene.observed, &plan, &settings).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}

/// Returns the limit that `--wait-timeout` sets; 0 sets none.
pub fn wait_timeout(seconds: Option<i64>) -> Option<Duration> {
    seconds
        .and_then(|seconds| u64::try_from(seconds).ok())
        .filter(|&seconds| seconds > 0)
        .map(Duration::from_secs)
}
