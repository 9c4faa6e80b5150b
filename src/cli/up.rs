//! `compose up`: create and start containers.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;

use super::attached::{Cascade, Session, Watch, Wishes};
use super::converge::{Converge, ImageWishes};
use super::lifecycle::{self, interruptible, set};
use super::watching::{Voice, Watching};
use super::{CommandError, Context, menu};
use crate::model::{Dependencies, Project};
use crate::plan::observed::Container;
use crate::plan::{Options, Recreate, Stage};
use crate::ui::logs::{LogSettings, Logs, Target};
use crate::ui::stream;

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

/// Makes the engine agree with the files, starts everything, and shows what it writes.
pub async fn run(mut args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    args.check()?;
    let loaded = async { Ok(context.load_to_run(&args.services)?.project) };
    let mut project = interruptible(loaded).await?;
    let orphans = lifecycle::orphans(context, &project, args.remove_orphans)?;
    if !args.attach.is_empty() && args.attach_dependencies {
        return Err(CommandError::message(
            "cannot combine --attach and --attach-dependencies",
        ));
    }
    if project.services.is_empty() && !context.globals.all_resources {
        return Err(CommandError::message("no service selected"));
    }
    let separator = lifecycle::separator(context);
    let images = ImageWishes {
        pull: &args.pull,
        build: args.build,
        no_build: args.no_build,
        quiet_pull: args.quiet_pull,
        quiet_build: args.quiet_build,
    };
    images.apply(&mut project)?;
    lifecycle::apply_scale(&mut project, &args.scale)?;
    if args.no_deps {
        project = project.with_selected_services(&args.services, Dependencies::Ignore)?;
    }
    if let Some(service) = args
        .exit_code_from
        .as_deref()
        .filter(|name| !project.services.contains_key(*name))
    {
        return Err(CommandError::message(format!("no such service: {service}: not found")));
    }
    let attached = if args.detach || args.no_start {
        None
    } else {
        Some(args.attached(&project)?)
    };
    let options = Options {
        services: set(&args.services),
        // New volumes come with new containers.
        recreate: Recreate::from_flags(args.force_recreate || args.renew_anon_volumes, args.no_recreate),
        recreate_dependencies: Recreate::from_flags(args.always_recreate_deps, args.no_recreate),
        inherit: !args.renew_anon_volumes,
        timeout: args.timeout,
        orphans,
        start: !args.no_start,
        wait: args.wait,
        separator,
    };
    let mut converge = interruptible(Converge::plan(context, project, &images, options, args.yes)).await?;
    converge.settings.wait_timeout = super::start::wait_timeout(args.wait_timeout).filter(|_| args.wait);
    let Some(attached) = attached else {
        let execution = converge.execution();
        interruptible(lifecycle::with_picture(context, "Running", |progress| async move {
            execution.run_all(&progress).await
        }))
        .await?;
        return Ok(ExitCode::SUCCESS);
    };
    up_attached(context, &args, converge, attached).await
}

/// Creates what is missing, then starts it while its output is shown.
async fn up_attached(
    context: &Context,
    args: &Args,
    mut converge: Converge,
    attached: BTreeSet<String>,
) -> Result<ExitCode, CommandError> {
    let is_watchable = converge.project.services.values().any(|service| {
        let develop = service.develop.as_ref();
        develop.is_some_and(|develop| !develop.watch.is_empty())
    });
    if args.watch && !is_watchable {
        return Err(CommandError::message(
            "none of the selected services is configured for watch, see \
             https://docs.docker.com/compose/how-tos/file-watch/",
        ));
    }
    let logs = Arc::new(Logs::new(LogSettings {
        colours: !args.no_color && context.ansi.allows(stream::out_is_terminal()),
        prefix: !args.no_log_prefix,
        merged: false,
    }));
    let hook_logs = Arc::clone(&logs);
    let project_name = converge.project.name.clone();
    converge.settings.hook_output = Some(Arc::new(move |container: &Container, line: &str| {
        let source = hook_logs.source(&format!("{} ->", container.log_name(&project_name)));
        // What cannot be shown is no reason to stop the hook.
        let _ = hook_logs.line(source, Target::Out, line.as_bytes());
        let _ = hook_logs.flush();
    }));
    let execution = converge.execution();
    let create = &execution;
    interruptible(lifecycle::with_picture(context, "Running", |progress| async move {
        create.run(Stage::Create, &progress).await
    }))
    .await?;
    if context.globals.dry_run {
        stream::out("end of 'compose up' output, interactive run is not supported in dry-run mode\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    let wishes = Wishes {
        monitored: if args.services.is_empty() {
            attached.clone()
        } else {
            set(&args.services)
        },
        attached,
        services: set(&args.services),
        timestamps: args.timestamps,
        timeout: args.timeout,
        cascade: match (args.abort_on_container_exit, args.abort_on_container_failure) {
            (true, _) => Cascade::Exit,
            (_, true) => Cascade::Failure,
            _ => Cascade::None,
        },
        exit_code_from: args.exit_code_from.clone(),
        menu: menu::is_wanted(args.menu, context),
    };
    let watching = match is_watchable {
        true => Some(Watching::new(
            context,
            &converge.engine,
            &converge.project,
            Voice::Logs(Arc::clone(&logs)),
        )?),
        false => None,
    };
    let watch = Watch {
        watching: watching.as_ref(),
        is_on: args.watch,
    };
    let result = Session::run(context, &converge, &execution, &logs, &wishes, watch).await;
    logs.end()?;
    result
}

impl Args {
    /// Refuses flags that do not go together, and settles what some imply.
    // docker/compose cmd/compose/up.go: validateFlags
    fn check(&mut self) -> Result<(), CommandError> {
        if self.exit_code_from.is_some() && !self.abort_on_container_failure {
            self.abort_on_container_exit = true;
        }
        let aborts = self.abort_on_container_exit || self.abort_on_container_failure;
        let attaches = self.attach_dependencies || !self.attach.is_empty();
        let refusals = [
            (
                self.abort_on_container_exit && self.abort_on_container_failure,
                "--abort-on-container-failure cannot be combined with --abort-on-container-exit",
            ),
            (
                self.wait && (self.abort_on_container_exit || attaches),
                "--wait cannot be combined with --abort-on-container-exit, --attach or --attach-dependencies",
            ),
            (self.build && self.no_build, "--build and --no-build are incompatible"),
            (
                (self.detach || self.wait) && (aborts || attaches || self.watch),
                "--detach cannot be combined with --abort-on-container-exit, --abort-on-container-failure, --attach, \
                 --attach-dependencies or --watch",
            ),
            (
                self.renew_anon_volumes && self.no_recreate,
                "--no-recreate and --renew-anon-volumes are incompatible",
            ),
            (
                self.force_recreate && self.no_recreate,
                "--force-recreate and --no-recreate are incompatible",
            ),
            (
                self.always_recreate_deps && self.no_recreate,
                "--always-recreate-deps and --no-recreate are incompatible",
            ),
            (self.no_build && self.watch, "--no-build and --watch are incompatible"),
        ];
        if let Some((_, text)) = refusals.into_iter().find(|(is_so, _)| *is_so) {
            return Err(CommandError::message(text));
        }
        self.detach |= self.wait;
        Ok(())
    }

    /// Returns the services whose output is shown.
    fn attached(&self, project: &Project) -> Result<BTreeSet<String>, CommandError> {
        let mut attached = set(&self.attach);
        if attached.is_empty() {
            let dependencies = if self.attach_dependencies {
                Dependencies::Include
            } else {
                Dependencies::Ignore
            };
            let chosen = if self.services.is_empty() {
                project.services.keys().cloned().collect()
            } else {
                project.closure(&self.services, dependencies)?
            };
            attached.extend(chosen.into_iter().filter(|name| {
                project
                    .services
                    .get(name)
                    .is_some_and(|service| service.attach != Some(false))
            }));
        } else {
            let unknown: Vec<&str> = attached
                .iter()
                .map(String::as_str)
                .filter(|name| !project.services.contains_key(*name))
                .collect();
            if !unknown.is_empty() {
                return Err(CommandError::message(format!(
                    "cannot attach to services not included in up: {}",
                    unknown.join(", ")
                )));
            }
        }
        for service in &self.no_attach {
            attached.remove(service);
        }
        Ok(attached)
    }
}
