//! `compose push`: push service images.

use std::process::ExitCode;

use super::{CommandError, Context};

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

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("push"))
}
