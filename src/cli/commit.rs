//! `compose commit`: create a new image from a service container's changes.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Create a new image from a service container's changes
#[derive(Debug, clap::Args)]
#[command(override_usage = "commit [OPTIONS] SERVICE [REPOSITORY[:TAG]]")]
pub struct Args {
    /// Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
    #[arg(short = 'a', long, value_name = "string")]
    pub author: Option<String>,
    /// Apply Dockerfile instruction to the created image
    #[arg(short = 'c', long, value_name = "list")]
    pub change: Vec<String>,
    #[arg(
        long,
        value_name = "int",
        default_value_t = 0,
        help = "index of the container if service has multiple replicas."
    )]
    pub index: i64,
    /// Commit message
    #[arg(short = 'm', long, value_name = "string")]
    pub message: Option<String>,
    /// Pause container during commit
    #[arg(short = 'p', long, action = clap::ArgAction::Set, value_name = "bool", default_value_t = true)]
    pub pause: bool,
    #[arg(value_name = "SERVICE")]
    pub service: String,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub reference: Option<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("commit"))
}
