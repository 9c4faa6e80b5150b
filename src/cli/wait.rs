//! `compose wait`: block until containers of all (or specified) services stop.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Block until containers of all (or specified) services stop
#[derive(Debug, clap::Args)]
#[command(override_usage = "wait SERVICE [SERVICE...] [OPTIONS]")]
pub struct Args {
    /// Drops project when the first container stops
    #[arg(long)]
    pub down_project: bool,
    #[arg(value_name = "SERVICE", required = true)]
    pub services: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("wait"))
}
