//! `compose push`: push service images.

use std::process::ExitCode;

use super::{CommandError, Context, pushing};
use crate::model::Dependencies;

/// Push service images
#[derive(Debug, clap::Args)]
#[command(override_usage = "push [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Push what it can and ignores images with push failures
    #[arg(long)]
    pub ignore_push_failures: bool,
    /// Also push images of services declared as dependencies
    #[arg(long)]
    pub include_deps: bool,
    /// Push without printing progress information
    #[arg(short = 'q', long)]
    pub quiet: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Pushes the images of services that are built.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let mut project = context.load_project(&args.services)?.project;
    if !args.services.is_empty() {
        let dependencies = match args.include_deps {
            true => Dependencies::Include,
            false => Dependencies::Ignore,
        };
        project = project.with_selected_services(&args.services, dependencies)?;
    }
    let engine = context.engine().await?;
    let names: Vec<String> = project.services.keys().cloned().collect();
    pushing::push_images(
        context,
        &engine,
        &project,
        &names,
        args.ignore_push_failures,
        args.quiet,
    )
    .await?;
    Ok(ExitCode::SUCCESS)
}
