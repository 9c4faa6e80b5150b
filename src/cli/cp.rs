//! `compose cp`: copy files/folders between a service container and the local filesystem.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Copy files/folders between a service container and the local filesystem
#[derive(Debug, clap::Args)]
#[command(override_usage = "cp [OPTIONS] SERVICE:SRC_PATH DEST_PATH|-\ncp [OPTIONS] SRC_PATH|- SERVICE:DEST_PATH")]
pub struct Args {
    /// Include containers created by the run command
    #[arg(long)]
    pub all: bool,
    /// Archive mode (copy all uid/gid information)
    #[arg(short = 'a', long)]
    pub archive: bool,
    /// Always follow symbol link in SRC_PATH
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// Index of the container if service has multiple replicas
    #[arg(long, value_name = "int", default_value_t = 0)]
    pub index: i64,
    #[arg(value_name = "SRC_PATH")]
    pub source: String,
    #[arg(value_name = "DEST_PATH")]
    pub destination: String,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("cp"))
}
