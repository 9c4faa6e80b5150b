//! `compose build`: build or rebuild services.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Build or rebuild services
#[derive(Debug, clap::Args)]
#[command(override_usage = "build [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Set build-time variables for services
    #[arg(long, value_name = "stringArray")]
    pub build_arg: Vec<String>,
    /// Set builder to use
    #[arg(long, value_name = "string")]
    pub builder: Option<String>,
    /// Check build configuration
    #[arg(long)]
    pub check: bool,
    /// Compress the build context using gzip. DEPRECATED
    #[arg(long, value_name = "bool", hide = true)]
    pub compress: Option<bool>,
    /// Always remove intermediate containers. DEPRECATED
    #[arg(long, value_name = "bool", hide = true)]
    pub force_rm: Option<bool>,
    #[arg(
        short = 'm',
        long,
        value_name = "bytes",
        help = "Set memory limit for the build container. Not supported by BuildKit."
    )]
    pub memory: Option<String>,
    /// Do not use cache when building the image
    #[arg(long)]
    pub no_cache: bool,
    /// Do not remove intermediate containers after a successful build. DEPRECATED
    #[arg(long, hide = true)]
    pub no_rm: bool,
    /// Build images in parallel. DEPRECATED
    #[arg(long, value_name = "bool", hide = true)]
    pub parallel: Option<bool>,
    /// Print equivalent bake file
    #[arg(long)]
    pub print: bool,
    /// Set type of ui output (auto, tty, plain, json, quiet)
    #[arg(long, value_name = "string", hide = true)]
    pub progress: Option<String>,
    /// Add a provenance attestation
    #[arg(long, value_name = "string")]
    pub provenance: Option<String>,
    /// Always attempt to pull a newer version of the image
    #[arg(long)]
    pub pull: bool,
    /// Push service images
    #[arg(long)]
    pub push: bool,
    /// Suppress the build output
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Add a SBOM attestation
    #[arg(long, value_name = "string")]
    pub sbom: Option<String>,
    /// Set SSH authentications used when building service images. (use 'default' for using your default SSH Agent)
    #[arg(long, value_name = "string")]
    pub ssh: Option<String>,
    /// Also build dependencies (transitively)
    #[arg(long)]
    pub with_dependencies: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("build"))
}
