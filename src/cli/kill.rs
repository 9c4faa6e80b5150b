//! `compose kill`: force stop service containers.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Force stop service containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "kill [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Remove containers for services not defined in the Compose file
    #[arg(long)]
    pub remove_orphans: bool,
    /// SIGNAL to send to the container
    #[arg(short = 's', long, value_name = "string", default_value = "SIGKILL")]
    pub signal: String,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("kill"))
}
