//! `compose create`: creates containers for a service.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Creates containers for a service
#[derive(Debug, clap::Args)]
#[command(override_usage = "create [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Build images before starting containers
    #[arg(long)]
    pub build: bool,
    /// Recreate containers even if their configuration and image haven't changed
    #[arg(long)]
    pub force_recreate: bool,
    /// Don't build an image, even if it's policy
    #[arg(long)]
    pub no_build: bool,
    #[arg(
        long,
        help = "If containers already exist, don't recreate them. Incompatible with --force-recreate."
    )]
    pub no_recreate: bool,
    /// Pull image before running ("always"|"missing"|"never"|"build")
    #[arg(long, value_name = "string", default_value = "policy")]
    pub pull: String,
    /// Pull without printing progress information
    #[arg(long)]
    pub quiet_pull: bool,
    /// Remove containers for services not defined in the Compose file
    #[arg(long)]
    pub remove_orphans: bool,
    #[arg(
        long,
        value_name = "scale",
        help = "Scale SERVICE to NUM instances. Overrides the scale setting in the Compose file if present."
    )]
    pub scale: Vec<String>,
    /// Assume "yes" as answer to all prompts and run non-interactively
    #[arg(short = 'y', long)]
    pub yes: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("create"))
}
