//! `compose start`: start services.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Start services
#[derive(Debug, clap::Args)]
#[command(override_usage = "start [SERVICE...]")]
pub struct Args {
    #[arg(long, help = "Wait for services to be running|healthy. Implies detached mode.")]
    pub wait: bool,
    /// Maximum duration in seconds to wait for the project to be running|healthy
    #[arg(long, value_name = "int")]
    pub wait_timeout: Option<i64>,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("start"))
}
