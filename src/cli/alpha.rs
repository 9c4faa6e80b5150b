//! `compose alpha`: the experimental names under which some commands are known too.

use std::process::ExitCode;

use super::{CommandError, Context, generate, publish, scale, viz, watch};

/// Experimental commands
#[derive(Debug, clap::Args)]
#[command(override_usage = "alpha [OPTIONS] COMMAND")]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// A command that is, or once was, experimental.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Generate(generate::Args),
    #[command(override_usage = "alpha publish [OPTIONS] REPOSITORY[:TAG]")]
    Publish(publish::Args),
    #[command(hide = true, override_usage = "alpha scale [SERVICE=REPLICAS...]")]
    Scale(scale::Args),
    Viz(viz::Args),
    #[command(hide = true, override_usage = "alpha watch [SERVICE...]")]
    Watch(watch::Args),
}

/// Runs the command that has the experimental name.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    match args.command {
        Command::Generate(args) => generate::run(args, context).await,
        Command::Publish(args) => publish::run(args, context).await,
        Command::Scale(args) => scale::run(args, context).await,
        Command::Viz(args) => viz::run(args, context).await,
        Command::Watch(args) => watch::run(args, context).await,
    }
}
