//! `compose events`: receive real time events from containers.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Receive real time events from containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "events [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Output events as a stream of json objects
    #[arg(long)]
    pub json: bool,
    /// Show all events created since timestamp
    #[arg(long, value_name = "string")]
    pub since: Option<String>,
    /// Stream events until this timestamp
    #[arg(long, value_name = "string")]
    pub until: Option<String>,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("events"))
}
