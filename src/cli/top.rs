//! `compose top`: display the running processes.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Display the running processes
#[derive(Debug, clap::Args)]
#[command(override_usage = "top [SERVICES...]")]
pub struct Args {
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("top"))
}
