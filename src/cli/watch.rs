//! `compose watch`: watch build context for service and rebuild/refresh containers when files are updated.

use std::fs::File;
use std::io::{Read, Write};
use std::process::ExitCode;

use rustix::fs::FlockOperation;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::converge::{Converge, ImageWishes};
use super::lifecycle::{self, interruptible, set};
use super::watching::{Voice, Watching};
use super::{CommandError, Context};
use crate::engine::paths::Paths;
use crate::model::Project;
use crate::plan::{Options, Recreate};

/// Watch build context for service and rebuild/refresh containers when files are updated
#[derive(Debug, clap::Args)]
#[command(override_usage = "watch [SERVICE...]")]
pub struct Args {
    /// Do not build & start services before watching
    #[arg(long)]
    pub no_up: bool,
    /// Prune dangling images on rebuild
    #[arg(long, action = clap::ArgAction::Set, value_name = "bool", default_value_t = true)]
    pub prune: bool,
    /// hide build output
    #[arg(long)]
    pub quiet: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Brings the project up, then watches its files until the user has enough.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let mut project = context.load_project(&args.services)?.project;
    // Before anything is started for nothing.
    crate::watch::Rules::of(&project)?;
    let _lock = Lock::take(&context.engine_paths(), &project.name)?;
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

/// The right to be the only watch of a project. The kernel takes it back when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the right, unless another watch has it.
    pub fn take(paths: &Paths, project: &str) -> Result<Self, CommandError> {
        let directory = paths.run_dir().join("watch");
        let failed = |error: std::io::Error| {
            CommandError::message(format!("cannot take exclusive lock for project \"{project}\": {error}"))
        };
        std::fs::create_dir_all(&directory).map_err(failed)?;
        let path = directory.join(format!("{project}.lock"));
        let mut options = File::options();
        let mut file = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                return Err(CommandError::message(format!(
                    "cannot take exclusive lock for project \"{project}\": process with PID {} is still running",
                    pid.trim()
                )));
            }
            Err(error) => return Err(failed(error.into())),
        }
        file.set_len(0).map_err(failed)?;
        file.write_all(std::process::id().to_string().as_bytes())
            .map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Watches until the user has enough; what is under way then is finished, unless the user insists.
async fn until_interrupted(watching: &Watching<'_>) -> Result<(), CommandError> {
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
async fn up(args: &Args, context: &Context, project: &mut Project) -> Result<crate::client::Engine, CommandError> {
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
    lifecycle::with_picture(context, |progress| async move { execution.run_all(&progress).await }).await?;
    *project = converge.project;
    Ok(converge.engine)
}
