//! `compose stop`: stop services.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Stop services
#[derive(Debug, clap::Args)]
#[command(override_usage = "stop [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Specify a shutdown timeout in seconds
    #[arg(short = 't', long, value_name = "int")]
    pub timeout: Option<i64>,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("stop"))
}
