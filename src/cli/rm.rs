//! `compose rm`: removes stopped service containers.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Removes stopped service containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "rm [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Deprecated - no effect
    #[arg(short = 'a', long, hide = true)]
    pub all: bool,
    /// Don't ask to confirm removal
    #[arg(short = 'f', long)]
    pub force: bool,
    /// Stop the containers, if required, before removing
    #[arg(short = 's', long)]
    pub stop: bool,
    /// Remove any anonymous volumes attached to containers
    #[arg(short = 'v', long)]
    pub volumes: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("rm"))
}
