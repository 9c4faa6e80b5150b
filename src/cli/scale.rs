//! `compose scale`: scale services.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Scale services
#[derive(Debug, clap::Args)]
#[command(override_usage = "scale [SERVICE=REPLICAS...]")]
pub struct Args {
    /// Don't start linked services
    #[arg(long)]
    pub no_deps: bool,
    #[arg(value_name = "SERVICE=REPLICAS", required = true)]
    pub scales: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("scale"))
}
