//! `compose pull`: pull service images.

use std::process::ExitCode;

use super::{CommandError, Context};

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

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("pull"))
}
