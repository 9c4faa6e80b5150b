//! `compose attach`: attach local standard input, output, and error streams to a service's running container.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Attach local standard input, output, and error streams to a service's running container
#[derive(Debug, clap::Args)]
#[command(override_usage = "attach [OPTIONS] SERVICE")]
pub struct Args {
    #[arg(
        long,
        value_name = "string",
        help = "Override the key sequence for detaching from a container."
    )]
    pub detach_keys: Option<String>,
    #[arg(
        long,
        value_name = "int",
        default_value_t = 0,
        help = "index of the container if service has multiple replicas."
    )]
    pub index: i64,
    /// Do not attach STDIN
    #[arg(long)]
    pub no_stdin: bool,
    /// Proxy all received signals to the process
    #[arg(long, action = clap::ArgAction::Set, value_name = "bool", default_value_t = true)]
    pub sig_proxy: bool,
    #[arg(value_name = "SERVICE")]
    pub service: String,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("attach"))
}
