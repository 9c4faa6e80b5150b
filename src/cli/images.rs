//! `compose images`: list images used by the created containers.

use std::process::ExitCode;

use super::{CommandError, Context};

/// List images used by the created containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "images [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Format the output. Values: [table | json]
    #[arg(long, value_name = "string", default_value = "table")]
    pub format: String,
    /// Only display IDs
    #[arg(short = 'q', long)]
    pub quiet: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("images"))
}
