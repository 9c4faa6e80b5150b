//! `compose watch`: watch build context for service and rebuild/refresh containers when files are updated.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Watch build context for service and rebuild/refresh containers when files are updated
#[derive(Debug, clap::Args)]
#[command(override_usage = "watch [SERVICE...]")]
pub struct Args {
    /// Do not build & start services before watching
    #[arg(long)]
    pub no_up: bool,
    /// Prune dangling images on rebuild
    #[arg(long, action = clap::ArgAction::Set, value_name = "bool", default_value_t = true)]
    pub prune: bool,
    /// hide build output
    #[arg(long)]
    pub quiet: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("watch"))
}
