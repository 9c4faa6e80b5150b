//! `compose unpause`: unpause services.

use std::process::ExitCode;

use super::lifecycle::{Look, Scene, interruptible, set};
use super::{CommandError, Context};
use crate::plan::{Action, lifecycle};

/// Unpause services
#[derive(Debug, clap::Args)]
#[command(override_usage = "unpause [SERVICE...]")]
pub struct Args {
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Resumes all processes of containers.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    interruptible(async {
        let scene = Scene::open(context, &args.services, Look::Containers).await?;
        let services = set(&args.services);
        let running =
            lifecycle::running(&scene.project, &scene.observed, &services).filter(|container| !container.one_off);
        let plan = lifecycle::for_each(running, "unpause", |container| Action::Unpause { container });
        scene.execute(context, "Running", &plan).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}
