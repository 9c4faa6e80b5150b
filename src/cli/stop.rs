//! `compose stop`: stop services.

use std::process::ExitCode;

use super::lifecycle::{Look, Scene, interruptible, set};
use super::{CommandError, Context};
use crate::plan::lifecycle;

/// Stop services
#[derive(Debug, clap::Args)]
#[command(override_usage = "stop [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Specify a shutdown timeout in seconds
    #[arg(short = 't', long, value_name = "int")]
    pub timeout: Option<i64>,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Stops containers, those first that nothing else depends on.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    interruptible(async {
        let scene = Scene::open(context, &args.services, Look::Containers).await?;
        let plan = lifecycle::stop(&scene.project, &scene.observed, &set(&args.services), args.timeout)?;
        scene.execute(context, "Stopping", &plan).await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}
