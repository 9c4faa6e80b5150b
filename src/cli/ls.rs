//! `compose ls`: list running compose projects.

use std::process::ExitCode;

use super::{CommandError, Context};

/// List running compose projects
#[derive(Debug, clap::Args)]
#[command(override_usage = "ls [OPTIONS]")]
pub struct Args {
    /// Show all stopped Compose projects
    #[arg(short = 'a', long)]
    pub all: bool,
    /// Filter output based on conditions provided
    #[arg(long, value_name = "filter")]
    pub filter: Vec<String>,
    /// Format the output. Values: [table | json]
    #[arg(long, value_name = "string", default_value = "table")]
    pub format: String,
    /// Only display project names
    #[arg(short = 'q', long)]
    pub quiet: bool,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("ls"))
}
