//! `compose exec`: execute a command in a running container.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Execute a command in a running container
#[derive(Debug, clap::Args)]
#[command(override_usage = "exec [OPTIONS] SERVICE COMMAND [ARGS...]")]
pub struct Args {
    /// Detached mode: Run command in the background
    #[arg(short = 'd', long)]
    pub detach: bool,
    /// Set environment variables
    #[arg(short = 'e', long, value_name = "stringArray")]
    pub env: Vec<String>,
    /// Index of the container if service has multiple replicas
    #[arg(long, value_name = "int", default_value_t = 0)]
    pub index: i64,
    /// Keep STDIN open even if not attached
    #[arg(short = 'i', long, value_name = "bool", hide = true)]
    pub interactive: Option<bool>,
    #[arg(
        short = 'T',
        long,
        value_name = "bool",
        help = "Disable pseudo-TTY allocation. By default 'docker compose exec' allocates a TTY."
    )]
    pub no_tty: Option<bool>,
    /// Give extended privileges to the process
    #[arg(long)]
    pub privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(short = 't', long, value_name = "bool", hide = true)]
    pub tty: Option<bool>,
    /// Run the command as this user
    #[arg(short = 'u', long, value_name = "string")]
    pub user: Option<String>,
    /// Path to workdir directory for this command
    #[arg(short = 'w', long, value_name = "string")]
    pub workdir: Option<String>,
    #[arg(value_name = "SERVICE")]
    pub service: String,
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    pub command: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("exec"))
}
