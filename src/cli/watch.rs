//! `compose watch`: watch build context for service and rebuild/refresh containers when files are updated.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::converge::{Converge, ImageWishes};
use super::lifecycle::{self, interruptible, set};
use super::watching::{Voice, Watching};
use super::{CommandError, Context, background};
use crate::engine::watches::Home;
use crate::model::Project;
use crate::plan::{Options, Recreate};

/// Watch build context for service and rebuild/refresh containers when files are updated
#[derive(Debug, clap::Args)]
#[command(override_usage = "watch [SERVICE...]")]
pub struct Args {
    /// Go on in the background, also when the terminal is gone
    #[arg(short, long)]
    pub detach: bool,
    /// Format of --status ("text"|"json")
    #[arg(long, value_name = "string", default_value = "text")]
    pub format: String,
    /// Do not build & start services before watching
    #[arg(long)]
    pub no_up: bool,
    /// Prune dangling images on rebuild
    #[arg(long, action = clap::ArgAction::Set, value_name = "bool", default_value_t = true)]
    pub prune: bool,
    /// hide build output
    #[arg(long)]
    pub quiet: bool,
    /// Show what is watched in the background and what was done last
    #[arg(long)]
    pub status: bool,
    /// End the watch in the background
    #[arg(long)]
    pub stop: bool,
    /// Be the watch in the background.
    #[arg(long, hide = true)]
    pub kept: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Brings the project up, then watches its files until the user has enough; or has to do with the watch that goes on
/// in the background.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    if args.kept {
        return background::keep(args, context).await;
    }
    match (args.detach, args.status, args.stop) {
        (true, false, false) => background::begin(args, context).await,
        (false, true, false) => background::status(&args, context).await,
        (false, false, true) => background::stop(context).await,
        (false, false, false) => in_foreground(args, context).await,
        _ => Err(CommandError::message(
            "--detach, --status and --stop exclude each other",
        )),
    }
}

async fn in_foreground(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let mut project = context.load_project(&args.services)?.project;
    // Before anything is started for nothing.
    crate::watch::Rules::of(&project)?;
    let _lock = background::lock(&Home::of(&context.engine_paths(), &project.name)?)?;
    let engine = match args.no_up {
        true => interruptible(async { context.engine().await }).await?,
        false => interruptible(up(&args, context, &mut project)).await?,
    };
    let mut watching = Watching::new(context, &engine, &project, Voice::Plain)?;
    watching.prune = args.prune;
    watching.quiet = args.quiet;
    until_interrupted(&watching).await?;
    Ok(ExitCode::SUCCESS)
}

/// Watches until the user has enough; what is under way then is finished, unless the user insists.
pub async fn until_interrupted(watching: &Watching<'_>) -> Result<(), CommandError> {
    let stop = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut run = std::pin::pin!(watching.run(&stop));
    loop {
        tokio::select! {
            result = &mut run => return result,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if stop.is_cancelled() {
            return Err(CommandError::interrupted());
        }
        stop.cancel();
    }
}

/// Builds what is watched and starts it.
pub async fn up(args: &Args, context: &Context, project: &mut Project) -> Result<crate::client::Engine, CommandError> {
    for service in project.services.values_mut() {
        if service.build.is_some() && service.develop.is_some() {
            service.pull_policy = "build".to_owned();
        }
    }
    let images = ImageWishes {
        quiet_pull: args.quiet,
        quiet_build: args.quiet,
        ..ImageWishes::default()
    };
    let options = Options {
        services: set(&args.services),
        recreate_dependencies: Recreate::Never,
        separator: lifecycle::separator(context),
        orphans: lifecycle::orphans(context, project, false)?,
        ..Options::default()
    };
    let converge = Converge::plan(context, project.clone(), &images, options, false).await?;
    let execution = converge.execution();
    lifecycle::with_picture(context, "Running", |progress| async move {
        execution.run_all(&progress).await
    })
    .await?;
    *project = converge.project;
    Ok(converge.engine)
}
