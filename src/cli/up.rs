//! `compose up`: create and start containers.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Create and start containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "up [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Stops all containers if any container was stopped. Incompatible with -d
    #[arg(long)]
    pub abort_on_container_exit: bool,
    /// Stops all containers if any container exited with failure. Incompatible with -d
    #[arg(long)]
    pub abort_on_container_failure: bool,
    #[arg(long, help = "Recreate dependent containers. Incompatible with --no-recreate.")]
    pub always_recreate_deps: bool,
    #[arg(
        long,
        value_name = "stringArray",
        help = "Restrict attaching to the specified services. Incompatible with --attach-dependencies."
    )]
    pub attach: Vec<String>,
    /// Automatically attach to log output of dependent services
    #[arg(long)]
    pub attach_dependencies: bool,
    /// Build images before starting containers
    #[arg(long)]
    pub build: bool,
    /// Detached mode: Run containers in the background
    #[arg(short = 'd', long)]
    pub detach: bool,
    /// Return the exit code of the selected service container. Implies --abort-on-container-exit
    #[arg(long, value_name = "string")]
    pub exit_code_from: Option<String>,
    /// Recreate containers even if their configuration and image haven't changed
    #[arg(long)]
    pub force_recreate: bool,
    #[arg(
        long,
        value_name = "bool",
        help = "Enable interactive shortcuts when running attached. Incompatible with --detach. Can also be enable/disable by setting COMPOSE_MENU environment var."
    )]
    pub menu: Option<bool>,
    /// Do not attach (stream logs) to the specified services
    #[arg(long, value_name = "stringArray")]
    pub no_attach: Vec<String>,
    /// Don't build an image, even if it's policy
    #[arg(long)]
    pub no_build: bool,
    /// Produce monochrome output
    #[arg(long)]
    pub no_color: bool,
    /// Don't start linked services
    #[arg(long)]
    pub no_deps: bool,
    /// Don't print prefix in logs
    #[arg(long)]
    pub no_log_prefix: bool,
    #[arg(
        long,
        help = "If containers already exist, don't recreate them. Incompatible with --force-recreate."
    )]
    pub no_recreate: bool,
    /// Don't start the services after creating them
    #[arg(long)]
    pub no_start: bool,
    /// Pull image before running ("always"|"missing"|"never")
    #[arg(long, value_name = "string", default_value = "policy")]
    pub pull: String,
    /// Suppress the build output
    #[arg(long)]
    pub quiet_build: bool,
    /// Pull without printing progress information
    #[arg(long)]
    pub quiet_pull: bool,
    /// Remove containers for services not defined in the Compose file
    #[arg(long)]
    pub remove_orphans: bool,
    /// Recreate anonymous volumes instead of retrieving data from the previous containers
    #[arg(short = 'V', long)]
    pub renew_anon_volumes: bool,
    #[arg(
        long,
        value_name = "scale",
        help = "Scale SERVICE to NUM instances. Overrides the scale setting in the Compose file if present."
    )]
    pub scale: Vec<String>,
    /// Use this timeout in seconds for container shutdown when attached or when containers are already running
    #[arg(short = 't', long, value_name = "int")]
    pub timeout: Option<i64>,
    /// Show timestamps
    #[arg(long)]
    pub timestamps: bool,
    #[arg(long, help = "Wait for services to be running|healthy. Implies detached mode.")]
    pub wait: bool,
    /// Maximum duration in seconds to wait for the project to be running|healthy
    #[arg(long, value_name = "int")]
    pub wait_timeout: Option<i64>,
    #[arg(
        short = 'w',
        long,
        help = "Watch source code and rebuild/refresh containers when files are updated."
    )]
    pub watch: bool,
    /// Assume "yes" as answer to all prompts and run non-interactively
    #[arg(short = 'y', long)]
    pub yes: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("up"))
}
