//! What the commands that change something have in common: which project, what is there, and how a plan is carried out.

use std::collections::BTreeSet;

use tokio::signal::unix::{SignalKind, signal};

use super::flags::go_bool;
use super::{CommandError, Context};
use crate::client::{Address, Engine};
use crate::model::{Dependencies, Project};
use crate::plan::create::Host;
use crate::plan::observed::Question;
use crate::plan::reconcile::Orphans;
use crate::plan::{Execution, Observed, Plan, Settings, from_labels};
use crate::ui::{Progress, prompt, stream};

/// A project and what the engine has of it.
pub struct Scene {
    pub engine: Engine,
    pub project: Project,
    pub observed: Observed,
    /// The project is one that files describe, not only what is left of one.
    pub from_file: bool,
}

/// What to look at besides the containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Containers,
    /// Networks and volumes too.
    Everything,
}

impl Scene {
    /// Looks at the project that flags and files choose, reduced to `services` and what they depend on; none: all.
    pub async fn open(context: &Context, services: &[String], look: Look) -> Result<Self, CommandError> {
        let scope = context.scope()?;
        let project = scope
            .project
            .map(|mut project| {
                project.enable_services(services);
                project.with_selected_services(services, Dependencies::Include)
            })
            .transpose()?;
        Self::look(context, scope.name, project, look).await
    }

    /// Looks at a project, with or without what its files say.
    pub async fn look(
        context: &Context,
        name: String,
        project: Option<Project>,
        look: Look,
    ) -> Result<Self, CommandError> {
        let engine = context.engine().await?;
        let everything = look == Look::Everything;
        let question = Question {
            project: &name,
            by_label: everything,
            // A volume may be somebody else's by its labels, and still the one that the file names.
            volumes: match &project {
                Some(project) if everything => project.volumes.values().map(|volume| volume.name.as_str()).collect(),
                _ => Vec::new(),
            },
            ..Question::default()
        };
        let observed = Observed::collect(&engine, &question).await?;
        let from_file = project.is_some();
        let project = project.unwrap_or_else(|| from_labels::project(&name, &observed));
        Ok(Self {
            engine,
            project,
            observed,
            from_file,
        })
    }

    /// Carries out a plan, and shows it under this title.
    pub async fn execute(&self, context: &Context, title: &str, plan: &Plan) -> Result<(), CommandError> {
        announce(context, plan);
        let settings = settings(context, &self.engine);
        let execution = Execution::new(&self.engine, &self.project, &self.observed, plan, &settings);
        with_picture(
            context,
            title,
            |progress| async move { execution.run_all(&progress).await },
        )
        .await
    }
}

/// Carries out all of a plan, and shows it.
pub async fn execute(
    context: &Context,
    engine: &Engine,
    project: &Project,
    observed: &Observed,
    plan: &Plan,
    settings: &Settings,
) -> Result<(), CommandError> {
    let execution = Execution::new(engine, project, observed, plan, settings);
    with_picture(context, "Running", |progress| async move {
        execution.run_all(&progress).await
    })
    .await
}

/// Runs something that tells its progress, inside a picture of it with this title.
pub async fn with_picture<T, E, F>(
    context: &Context,
    title: &str,
    run: impl FnOnce(Progress) -> F,
) -> Result<T, CommandError>
where
    F: Future<Output = Result<T, E>>,
    CommandError: From<E>,
{
    context.progress.begin(title);
    let result = run(context.progress.clone()).await;
    context.progress.end();
    Ok(result?)
}

/// Returns how plans are carried out under the global flags.
pub fn settings(context: &Context, engine: &Engine) -> Settings {
    Settings {
        dry_run: context.globals.dry_run,
        parallel: usize::try_from(context.globals.parallel)
            .ok()
            .filter(|&limit| limit > 0),
        separator: separator(context),
        host: Host {
            environment_files: context
                .globals
                .env_file
                .iter()
                .map(|file| context.absolute(file).display().to_string())
                .collect(),
            socket: match engine.address() {
                Address::Unix(path) => Some(path.display().to_string()),
                Address::Tcp(_) => None,
            },
            // Engines before API 1.44 connect one network when they create a container.
            many_networks: engine.api_at_least(44),
        },
        ..Settings::default()
    }
}

/// Returns what stands between the parts of a container's name.
pub fn separator(context: &Context) -> &'static str {
    if context.globals.compatibility || context.flag_variable("COMPOSE_COMPATIBILITY") {
        "_"
    } else {
        "-"
    }
}

/// Says what the plan warns of, and with `--dry-run --verbose` the plan itself: every operation with its cause.
pub fn announce(context: &Context, plan: &Plan) {
    for warning in &plan.warnings {
        stream::warn(warning);
    }
    if context.globals.dry_run && context.globals.verbose {
        for operation in plan.operations_text().lines() {
            context.progress.message(operation);
        }
    }
}

/// Returns the answerer of questions that a plan asks: always yes, or the user.
pub fn answers(yes: bool) -> impl FnMut(&str) -> bool {
    move |question| yes || prompt::confirm(question, false).unwrap_or(false)
}

/// Returns the names as a set.
pub fn set(names: &[String]) -> BTreeSet<String> {
    names.iter().cloned().collect()
}

/// Runs a command's work until it ends or the user interrupts it.
pub async fn interruptible<T>(work: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = work => result,
        _ = interrupt.recv() => Err(CommandError::interrupted()),
        _ = terminate.recv() => Err(CommandError::interrupted()),
    }
}

/// Returns what is to happen to orphans, as flags and variables say.
pub fn orphans(context: &Context, project: &Project, remove: bool) -> Result<Orphans, CommandError> {
    let is_set = |name: &str| {
        project
            .environment
            .get(name)
            .map_or_else(|| context.flag_variable(name), |value| is_yes(value))
    };
    let ignore = is_set("COMPOSE_IGNORE_ORPHANS");
    let remove = remove || context.flag_variable("COMPOSE_REMOVE_ORPHANS");
    match (remove, ignore) {
        (true, true) => Err(CommandError::message(
            "cannot combine COMPOSE_IGNORE_ORPHANS and --remove-orphans",
        )),
        (true, false) => Ok(Orphans::Remove),
        (false, true) => Ok(Orphans::Ignore),
        (false, false) => Ok(Orphans::Warn),
    }
}

/// Returns whether a variable's value says yes.
fn is_yes(value: &str) -> bool {
    go_bool(value).unwrap_or(matches!(value.to_lowercase().as_str(), "y" | "yes"))
}

/// Reads `SERVICE=NUM` pairs of `--scale` into the project.
// docker/compose cmd/compose/create.go: parseServiceReplicaArgs
pub fn apply_scale(project: &mut Project, scales: &[String]) -> Result<(), CommandError> {
    for scale in scales {
        let Some((name, number)) = scale.split_once('=').filter(|(_, number)| !number.contains('=')) else {
            return Err(CommandError::message(format!(
                "invalid --scale option {}. Should be SERVICE=NUM",
                stream::quoted(scale)
            )));
        };
        let replicas: i64 = number.parse().map_err(|_| {
            CommandError::message(format!(
                "strconv.Atoi: parsing {}: invalid syntax",
                stream::quoted(number)
            ))
        })?;
        if replicas < 0 {
            return Err(CommandError::message(format!(
                "invalid --scale option {}. NUM must not be negative",
                stream::quoted(scale)
            )));
        }
        match project.services.get_mut(name) {
            Some(service) => service.set_replicas(replicas),
            None => return Err(CommandError::message(format!("no such service: {name}: not found"))),
        }
    }
    Ok(())
}
