//! `compose generate`: generate a Compose file from existing containers.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Generate a Compose file from existing containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "alpha generate [OPTIONS] [CONTAINERS...]")]
pub struct Args {
    /// Format the output. Values: [yaml | json]
    #[arg(long, value_name = "string", default_value = "yaml")]
    pub format: String,
    /// Project name to set in the Compose file
    #[arg(long, value_name = "string")]
    pub name: Option<String>,
    /// Directory to use for the project
    #[arg(long, value_name = "string")]
    pub project_dir: Option<String>,
    #[arg(value_name = "CONTAINERS")]
    pub containers: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("alpha generate"))
}
