//! `compose publish`: publish compose application.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Publish compose application
#[derive(Debug, clap::Args)]
#[command(override_usage = "publish [OPTIONS] REPOSITORY[:TAG]")]
pub struct Args {
    /// Published compose application (includes referenced images)
    #[arg(long)]
    pub app: bool,
    /// Use insecure registry
    #[arg(long, hide = true)]
    pub insecure_registry: bool,
    /// OCI image/artifact specification version (automatically determined by default)
    #[arg(long, value_name = "string")]
    pub oci_version: Option<String>,
    /// Pin image tags to digests
    #[arg(long)]
    pub resolve_image_digests: bool,
    /// Include environment variables in the published OCI artifact
    #[arg(long)]
    pub with_env: bool,
    /// Assume "yes" as answer to all prompts
    #[arg(short = 'y', long)]
    pub yes: bool,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub reference: String,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let _ = args;
    Err(context.not_available("publish"))
}
