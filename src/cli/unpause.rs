//! `compose unpause`: unpause services.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Unpause services
#[derive(Debug, clap::Args)]
#[command(override_usage = "unpause [SERVICE...]")]
pub struct Args {
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("unpause"))
}
