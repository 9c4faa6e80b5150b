//! `compose config`: parse, resolve and render compose file in canonical format.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Parse, resolve and render compose file in canonical format
#[derive(Debug, clap::Args)]
#[command(override_usage = "config [OPTIONS] [SERVICE...]")]
pub struct Args {
    #[arg(long, help = "Print environment used for interpolation.")]
    pub environment: bool,
    /// Format the output. Values: [yaml | json]
    #[arg(long, value_name = "string")]
    pub format: Option<String>,
    #[arg(long, value_name = "string", help = "Print the service config hash, one per line.")]
    pub hash: Option<String>,
    #[arg(long, help = "Print the image names, one per line.")]
    pub images: bool,
    /// Produces an override file with image digests
    #[arg(long)]
    pub lock_image_digests: bool,
    #[arg(long, help = "Print the model names, one per line.")]
    pub models: bool,
    #[arg(long, help = "Print the network names, one per line.")]
    pub networks: bool,
    /// Don't check model consistency - warning: may produce invalid Compose output
    #[arg(long)]
    pub no_consistency: bool,
    /// Don't resolve service env files
    #[arg(long)]
    pub no_env_resolution: bool,
    /// Don't interpolate environment variables
    #[arg(long)]
    pub no_interpolate: bool,
    /// Don't normalize compose model
    #[arg(long)]
    pub no_normalize: bool,
    /// Don't resolve file paths
    #[arg(long)]
    pub no_path_resolution: bool,
    /// Save to file (default to stdout)
    #[arg(short = 'o', long, value_name = "string")]
    pub output: Option<String>,
    #[arg(long, help = "Print the profile names, one per line.")]
    pub profiles: bool,
    /// Only validate the configuration, don't print anything
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Pin image tags to digests
    #[arg(long)]
    pub resolve_image_digests: bool,
    #[arg(long = "services", help = "Print the service names, one per line.")]
    pub list_services: bool,
    #[arg(long, help = "Print model variables and default values.")]
    pub variables: bool,
    #[arg(long, help = "Print the volume names, one per line.")]
    pub volumes: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("config"))
}
