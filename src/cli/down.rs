//! `compose down`: stop and remove containers, networks.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Stop and remove containers, networks
#[derive(Debug, clap::Args)]
#[command(override_usage = "down [OPTIONS] [SERVICES]")]
pub struct Args {
    /// Remove containers for services not defined in the Compose file
    #[arg(long)]
    pub remove_orphans: bool,
    /// Remove images used by services. "local" remove only images that don't have a custom tag ("local"|"all")
    #[arg(long, value_name = "string")]
    pub rmi: Option<String>,
    /// Specify a shutdown timeout in seconds
    #[arg(short = 't', long, value_name = "int")]
    pub timeout: Option<i64>,
    /// Remove named volumes declared in the "volumes" section of the Compose file and anonymous volumes attached to containers
    #[arg(short = 'v', long)]
    pub volumes: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("down"))
}
