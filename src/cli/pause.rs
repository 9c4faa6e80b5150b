//! `compose pause`: pause services.

use std::process::ExitCode;

use super::lifecycle::{Look, Scene, interruptible, set};
use super::{CommandError, Context};
use crate::plan::{Action, lifecycle};

/// Pause services
#[derive(Debug, clap::Args)]
#[command(override_usage = "pause [SERVICE...]")]
pub struct Args {
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Suspends all processes of containers.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    interruptible(async {
        let scene = Scene::open(context, &args.services, Look::Containers).await?;
        let services = set(&args.services);
        let running =
            lifecycle::running(&scene.project, &scene.observed, &services).filter(|container| !container.one_off);
        let plan = lifecycle::for_each(running, "pause", |container| Action::Pause { container });
        scene.execute(context, "Pausing", &plan).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}
