//! `compose restart`: restart service containers.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Restart service containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "restart [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Don't restart dependent services
    #[arg(long)]
    pub no_deps: bool,
    /// Specify a shutdown timeout in seconds
    #[arg(short = 't', long, value_name = "int")]
    pub timeout: Option<i64>,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("restart"))
}
