//! `compose volumes`: list volumes.

use std::process::ExitCode;

use super::{CommandError, Context};

/// List volumes
#[derive(Debug, clap::Args)]
#[command(override_usage = "volumes [OPTIONS] [SERVICE...]")]
pub struct Args {
    #[arg(
        long,
        value_name = "string",
        default_value = "table",
        help = "Format output using a custom template:\n'table':            Print output in table format with column headers (default)\n'table TEMPLATE':   Print output in table format using the given Go template\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates"
    )]
    pub format: String,
    /// Only display volume names
    #[arg(short = 'q', long)]
    pub quiet: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("volumes"))
}
