//! `compose pause`: pause services.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Pause services
#[derive(Debug, clap::Args)]
#[command(override_usage = "pause [SERVICE...]")]
pub struct Args {
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("pause"))
}
