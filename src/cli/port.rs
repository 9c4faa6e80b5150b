//! `compose port`: print the public port for a port binding.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Print the public port for a port binding
#[derive(Debug, clap::Args)]
#[command(override_usage = "port [OPTIONS] SERVICE PRIVATE_PORT")]
pub struct Args {
    /// Index of the container if service has multiple replicas
    #[arg(long, value_name = "int", default_value_t = 0)]
    pub index: i64,
    /// tcp or udp
    #[arg(long, value_name = "string", default_value = "tcp")]
    pub protocol: String,
    #[arg(value_name = "SERVICE")]
    pub service: String,
    #[arg(value_name = "PRIVATE_PORT")]
    pub private_port: String,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("port"))
}
