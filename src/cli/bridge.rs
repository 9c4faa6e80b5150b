//! `compose bridge`: convert compose files into another model, such as Kubernetes manifests.

use std::process::ExitCode;

use super::{CommandError, Context};

/// Convert compose files into another model
#[derive(Debug, clap::Args)]
#[command(override_usage = "bridge [OPTIONS] COMMAND")]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// What `bridge` can be asked for.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Convert(ConvertArgs),
    Transformations(TransformationsArgs),
}

/// Convert compose files to Kubernetes manifests, Helm charts, or another model
#[derive(Debug, clap::Args)]
#[command(override_usage = "bridge convert")]
pub struct ConvertArgs {
    /// The output directory for the Kubernetes resources
    #[arg(short, long, value_name = "string", default_value = "out")]
    pub output: String,
    /// Directory containing transformation templates
    #[arg(long, value_name = "string")]
    pub templates: Option<String>,
    /// Transformation to apply to compose model (default: docker/compose-bridge-kubernetes)
    #[arg(short, long, value_name = "stringArray")]
    pub transformation: Vec<String>,
}

/// Manage transformation images
#[derive(Debug, clap::Args)]
#[command(override_usage = "bridge transformations COMMAND")]
pub struct TransformationsArgs {
    #[command(subcommand)]
    pub command: TransformationsCommand,
}

/// What can be done with transformations.
#[derive(Debug, clap::Subcommand)]
pub enum TransformationsCommand {
    Create(CreateArgs),
    #[command(visible_alias = "ls")]
    List(ListArgs),
}

/// Create a new transformation
#[derive(Debug, clap::Args)]
#[command(override_usage = "bridge transformations create [OPTION] PATH")]
pub struct CreateArgs {
    /// Existing transformation to copy (default: docker/compose-bridge-kubernetes)
    #[arg(short, long, value_name = "string")]
    pub from: Option<String>,
    #[arg(value_name = "PATH")]
    pub path: String,
}

/// List available transformations
#[derive(Debug, clap::Args)]
#[command(override_usage = "bridge transformations list")]
pub struct ListArgs {
    /// Format the output. Values: [table | json]
    #[arg(long, value_name = "string", default_value = "table")]
    pub format: String,
    /// Only display transformer names
    #[arg(short, long)]
    pub quiet: bool,
}

/// Says that transformations, which are container images that Docker publishes, are not run here.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let name = match args.command {
        Command::Convert(_) => "bridge convert",
        Command::Transformations(_) => "bridge transformations",
    };
    Err(context
        .not_available(name)
        .hint("it runs images that Docker publishes; `compose config` prints the project for tools such as kompose"))
}
