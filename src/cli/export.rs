//! `compose export`: export a service container's filesystem as a tar archive.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Export a service container's filesystem as a tar archive
#[derive(Debug, clap::Args)]
#[command(override_usage = "export [OPTIONS] SERVICE")]
pub struct Args {
    #[arg(
        long,
        value_name = "int",
        default_value_t = 0,
        help = "index of the container if service has multiple replicas."
    )]
    pub index: i64,
    /// Write to a file, instead of STDOUT
    #[arg(short = 'o', long, value_name = "string")]
    pub output: Option<String>,
    #[arg(value_name = "SERVICE")]
    pub service: String,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("export"))
}
