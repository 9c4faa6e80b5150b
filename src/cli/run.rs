//! `compose run`: run a one-off command on a service.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Run a one-off command on a service
#[derive(Debug, clap::Args)]
#[command(override_usage = "run [OPTIONS] SERVICE [COMMAND] [ARGS...]")]
pub struct Args {
    /// Build image before starting container
    #[arg(long)]
    pub build: bool,
    /// Add Linux capabilities
    #[arg(long, value_name = "list")]
    pub cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, value_name = "list")]
    pub cap_drop: Vec<String>,
    /// Run container in background and print container ID
    #[arg(short = 'd', long)]
    pub detach: bool,
    /// Override the entrypoint of the image
    #[arg(long, value_name = "string")]
    pub entrypoint: Option<String>,
    /// Set environment variables
    #[arg(short = 'e', long, value_name = "stringArray")]
    pub env: Vec<String>,
    /// Set environment variables from file
    #[arg(long, value_name = "stringArray")]
    pub env_from_file: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(short = 'i', long, value_name = "bool")]
    pub interactive: Option<bool>,
    /// Add or override a label
    #[arg(short = 'l', long, value_name = "stringArray")]
    pub label: Vec<String>,
    /// Assign a name to the container
    #[arg(long, value_name = "string")]
    pub name: Option<String>,
    /// Disable pseudo-TTY allocation (default: auto-detected)
    #[arg(short = 'T', long, alias = "no-TTY", value_name = "bool")]
    pub no_tty: Option<bool>,
    /// Don't start linked services
    #[arg(long)]
    pub no_deps: bool,
    /// Publish a container's port(s) to the host
    #[arg(short = 'p', long, value_name = "stringArray")]
    pub publish: Vec<String>,
    /// Pull image before running ("always"|"missing"|"never")
    #[arg(long, value_name = "string", default_value = "policy")]
    pub pull: String,
    /// Don't print anything to STDOUT
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Suppress progress output from the build process
    #[arg(long)]
    pub quiet_build: bool,
    /// Pull without printing progress information
    #[arg(long)]
    pub quiet_pull: bool,
    /// Remove containers for services not defined in the Compose file
    #[arg(long)]
    pub remove_orphans: bool,
    /// Automatically remove the container when it exits
    #[arg(long)]
    pub rm: bool,
    /// Run command with all service's ports enabled and mapped to the host
    #[arg(short = 'P', long)]
    pub service_ports: bool,
    /// Allocate a pseudo-TTY
    #[arg(short = 't', long, value_name = "bool", hide = true)]
    pub tty: Option<bool>,
    /// Use the service's network useAliases in the network(s) the container connects to
    #[arg(long)]
    pub use_aliases: bool,
    /// Run as specified username or uid
    #[arg(short = 'u', long, value_name = "string")]
    pub user: Option<String>,
    /// Bind mount a volume
    #[arg(short = 'v', long, value_name = "stringArray")]
    pub volume: Vec<String>,
    /// Working directory inside the container
    #[arg(short = 'w', long, value_name = "string")]
    pub workdir: Option<String>,
    #[arg(value_name = "SERVICE")]
    pub service: String,
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub command: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("run"))
}
