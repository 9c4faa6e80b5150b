//! `compose create`: creates containers for a service.

use std::process::ExitCode;

use super::converge::{Converge, ImageWishes};
use super::lifecycle::{self, interruptible, set};
use super::{CommandError, Context};
use crate::plan::{Options, Recreate, Stage};

/// Creates containers for a service
#[derive(Debug, clap::Args)]
#[command(override_usage = "create [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Build images before starting containers
    #[arg(long)]
    pub build: bool,
    /// Recreate containers even if their configuration and image haven't changed
    #[arg(long)]
    pub force_recreate: bool,
    /// Don't build an image, even if it's policy
    #[arg(long)]
    pub no_build: bool,
    #[arg(
        long,
        help = "If containers already exist, don't recreate them. Incompatible with --force-recreate."
    )]
    pub no_recreate: bool,
    /// Pull image before running ("always"|"missing"|"never"|"build")
    #[arg(long, value_name = "string", default_value = "policy")]
    pub pull: String,
    /// Pull without printing progress information
    #[arg(long)]
    pub quiet_pull: bool,
    /// Remove containers for services not defined in the Compose file
    #[arg(long)]
    pub remove_orphans: bool,
    #[arg(
        long,
        value_name = "scale",
        help = "Scale SERVICE to NUM instances. Overrides the scale setting in the Compose file if present."
    )]
    pub scale: Vec<String>,
    /// Assume "yes" as answer to all prompts and run non-interactively
    #[arg(short = 'y', long)]
    pub yes: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Creates what `up` would create, and starts nothing.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    if args.build && args.no_build {
        return Err(CommandError::message("--build and --no-build are incompatible"));
    }
    if args.force_recreate && args.no_recreate {
        return Err(CommandError::message(
            "--force-recreate and --no-recreate are incompatible",
        ));
    }
    interruptible(async {
        let mut project = context.load_to_run(&args.services)?.project;
        let images = ImageWishes {
            pull: &args.pull,
            build: args.build,
            no_build: args.no_build,
            quiet_pull: args.quiet_pull,
            quiet_build: false,
        };
        images.apply(&mut project)?;
        lifecycle::apply_scale(&mut project, &args.scale)?;
        let recreate = Recreate::from_flags(args.force_recreate, args.no_recreate);
        let options = Options {
            services: set(&args.services),
            recreate,
            recreate_dependencies: Recreate::from_flags(false, args.no_recreate),
            orphans: lifecycle::orphans(context, &project, args.remove_orphans)?,
            start: false,
            separator: lifecycle::separator(context),
            ..Options::default()
        };
        let converge = Converge::plan(context, project, &images, options, args.yes).await?;
        let execution = converge.execution();
        lifecycle::with_picture(context, "Creating", |progress| async move {
            execution.run(Stage::Create, &progress).await
        })
        .await?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}
