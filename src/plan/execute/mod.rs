//! Carries out a plan: independent operations at the same time, each as soon as what it needs is done.
//!
//! Nothing is decided here; all decisions are in the plan.

mod checks;
mod containers;
mod pre_start;
mod refusal;
mod resources;
mod wait;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Semaphore, watch as channel};

pub use containers::{copy_files, links, send_create};
pub use refusal::of_container as refused_container;

use super::create::{self, CreateError};
use super::observed::{Container, Image, Observed, State};
use super::operation::{Action, Operation, Plan, Stage};
use super::reconcile::PlanError;
use crate::client::{ClientError, Engine};
use crate::model::{Duration as GoDuration, Project};
use crate::ui::{Progress, Status};
use checks::Checks;
use wait::Wait;
use watch::Watcher;

/// How the plan is carried out.
#[derive(Clone, Default)]
pub struct Settings {
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// How many operations may be under way at once; `None`: any number.
    pub parallel: Option<usize>,
    /// How long everything but the first stage may take.
    pub wait_timeout: Option<Duration>,
    /// Go on with what does not depend on a failed operation, and report all failures.
    pub keep_going: bool,
    /// What stands between the parts of a container's name.
    pub separator: &'static str,
    pub host: create::Host,
    /// Who reads what hooks print: the container's name and a line.
    pub hook_output: Option<HookOutput>,
}

/// Takes a line that a hook printed in the container of that name.
pub type HookOutput = Arc<dyn Fn(&Container, &str) + Send + Sync>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum ExecutionError {
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The engine refused what is written at a place of the files.
    #[error("{source}\n --> {place}")]
    Placed {
        #[source]
        source: ClientError,
        place: String,
    },
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error("failed to create network {name}: {source}")]
    Network {
        name: String,
        #[source]
        source: ClientError,
    },
    #[error("{service} hook exited with status {status}")]
    Hook { service: String, status: i64 },
    #[error(
        "service {service:?} pre_start[{index}] exited with code {status}{said} (hook container {container} retained for \
         inspection)"
    )]
    PreStart {
        service: String,
        index: usize,
        status: i64,
        /// A colon and the last that it printed, if it did.
        said: String,
        container: String,
    },
    #[error("{0}")]
    Unhealthy(String),
    #[error("dependency failed to start: {0}")]
    Dependency(String),
    #[error("service {service:?} didn't complete successfully: exit {status}")]
    Incomplete { service: String, status: i64 },
    #[error("{dependent} is missing dependency {dependency}")]
    MissingDependency { dependent: String, dependency: String },
    #[error("application not healthy after {}", GoDuration(i64::try_from(.0.as_nanos()).unwrap_or(i64::MAX)))]
    NotHealthy(Duration),
    #[error("cannot pack files for the container")]
    Pack(#[source] std::io::Error),
    #[error(transparent)]
    Refused(#[from] PlanError),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<ExecutionError>),
}

impl ExecutionError {
    /// Returns whether the engine was not there or went away.
    pub fn is_lost_connection(&self) -> bool {
        match self {
            Self::Client(error) | Self::Network { source: error, .. } => error.is_lost_connection(),
            Self::Several(errors) => errors.iter().any(Self::is_lost_connection),
            _ => false,
        }
    }
}

/// A plan being carried out.
pub struct Execution<'e> {
    engine: &'e Engine,
    project: &'e Project,
    plan: &'e Plan,
    images: &'e BTreeMap<String, Image>,
    settings: &'e Settings,
    state: Mutex<Containers>,
    slots: Semaphore,
    checks: Checks,
}

/// The containers as they are at the moment.
#[derive(Default)]
struct Containers {
    /// Of each service, one-off ones left out: those that are there, under the names they are going to have.
    services: BTreeMap<String, Vec<Container>>,
    /// The ids of the containers that operations created.
    created: BTreeMap<usize, String>,
    /// What is shown once all operations of the stage have succeeded.
    held: Vec<(String, &'static str)>,
}

impl<'e> Execution<'e> {
    /// Prepares to carry out `plan`, which was made for what was observed.
    pub fn new(
        engine: &'e Engine,
        project: &'e Project,
        observed: &'e Observed,
        plan: &'e Plan,
        settings: &'e Settings,
    ) -> Self {
        let mut services: BTreeMap<String, Vec<Container>> = BTreeMap::new();
        for container in observed.containers.iter().filter(|container| !container.one_off) {
            services
                .entry(container.service.clone())
                .or_default()
                .push(container.clone());
        }
        Self {
            engine,
            project,
            plan,
            images: &observed.images,
            settings,
            state: Mutex::new(Containers {
                services,
                ..Containers::default()
            }),
            slots: Semaphore::new(settings.parallel.unwrap_or(Semaphore::MAX_PERMITS).max(1)),
            checks: Checks::default(),
        }
    }

    /// Returns the containers of the project's services as they are now, by name.
    pub fn containers(&self) -> Vec<Container> {
        let mut containers: Vec<Container> = self.lock().services.values().flatten().cloned().collect();
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        containers
    }

    /// Carries out all stages. The time limit covers all but the first, in which nothing is waited for.
    pub async fn run_all(&self, progress: &Progress) -> Result<(), ExecutionError> {
        self.run(Stage::Create, progress).await?;
        let rest = async {
            self.run(Stage::Start, progress).await?;
            self.run(Stage::Wait, progress).await
        };
        match self.settings.wait_timeout {
            Some(limit) => tokio::time::timeout(limit, rest)
                .await
                .unwrap_or(Err(ExecutionError::NotHealthy(limit))),
            None => rest.await,
        }
    }

    /// Carries out one stage.
    pub async fn run(&self, stage: Stage, progress: &Progress) -> Result<(), ExecutionError> {
        let operations: Vec<usize> = (0..self.plan.operations.len())
            .filter(|&index| self.plan.operations[index].stage == stage)
            .collect();
        let waits = operations
            .iter()
            .any(|&index| match &self.plan.operations[index].action {
                Action::Wait { service, condition, .. } => !self.holds_already(service, *condition),
                _ => false,
            });
        let watcher = if waits && !self.settings.dry_run {
            Some(Watcher::start(self.engine, &self.project.name).await?)
        } else {
            None
        };
        self.walk(&operations, watcher.as_ref(), progress).await?;
        match &self.plan.refusal {
            Some(refusal) => Err(refusal.clone().into()),
            None => Ok(()),
        }
    }

    async fn walk(
        &self,
        operations: &[usize],
        watcher: Option<&Watcher>,
        progress: &Progress,
    ) -> Result<(), ExecutionError> {
        // How many operations each still waits for, and who waits for it; what is in an earlier stage is done.
        let mut missing: BTreeMap<usize, usize> = BTreeMap::new();
        let mut dependents: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for &index in operations {
            let before: Vec<usize> = self.plan.operations[index]
                .after
                .iter()
                .copied()
                .filter(|before| operations.binary_search(before).is_ok())
                .collect();
            missing.insert(index, before.len());
            for before in before {
                dependents.entry(before).or_default().push(index);
            }
        }
        let (cancel, cancelled) = channel::channel(false);
        let operation = |index: usize| {
            let cancelled = cancelled.clone();
            async move {
                let operation = &self.plan.operations[index];
                (
                    index,
                    self.operation(index, operation, watcher, cancelled, progress).await,
                )
            }
        };
        let mut running = FuturesUnordered::new();
        for (&index, _) in missing.iter().filter(|(_, count)| **count == 0) {
            running.push(operation(index));
        }
        let mut errors = Vec::new();
        while let Some((index, result)) = running.next().await {
            if let Err(error) = result {
                errors.push(error);
                // What waits for events would wait for ever; requests under way are let end.
                let _ = cancel.send(!self.settings.keep_going);
                continue;
            }
            if !errors.is_empty() && !self.settings.keep_going {
                continue;
            }
            for &dependent in dependents.get(&index).into_iter().flatten() {
                let count = missing.entry(dependent).or_default();
                *count -= 1;
                if *count == 0 {
                    running.push(operation(dependent));
                }
            }
        }
        let held = std::mem::take(&mut self.lock().held);
        match errors.len() {
            0 => {
                for (id, text) in held {
                    progress.event(id, Status::Done, "", text);
                }
                Ok(())
            }
            1 => Err(errors.remove(0)),
            _ if self.settings.keep_going => Err(ExecutionError::Several(errors)),
            // Later failures follow from the first.
            _ => Err(errors.remove(0)),
        }
    }

    async fn operation(
        &self,
        index: usize,
        operation: &Operation,
        watcher: Option<&Watcher>,
        cancelled: channel::Receiver<bool>,
        progress: &Progress,
    ) -> Result<(), ExecutionError> {
        tracing::debug!(subject = operation.subject, cause = operation.cause, "operation");
        if let Action::Wait {
            service,
            condition,
            required,
            dependent,
        } = &operation.action
        {
            let wait = Wait {
                service,
                condition: *condition,
                required: *required,
                dependent,
            };
            return self.wait(&wait, watcher, cancelled, progress).await;
        }
        // Never closed, so the permit always comes.
        let _slot = self.slots.acquire().await;
        let done = self.act(index, &operation.action, progress).await;
        done.map_err(|error| refusal::placed(error, self.project, &operation.action))
    }

    async fn act(&self, index: usize, action: &Action, progress: &Progress) -> Result<(), ExecutionError> {
        match action {
            Action::CreateNetwork { key } => self.create_network(key, progress).await,
            Action::RemoveNetwork { id, name, replaced } => self.remove_network(id, name, *replaced, progress).await,
            Action::Disconnect { network, container } => self.disconnect(network, container).await,
            Action::Connect { key, container } => self.connect(key, &container.service, &container.id, container).await,
            Action::CreateVolume { key } => self.create_volume(key, progress).await,
            Action::RemoveVolume { name, replaced } => self.remove_volume(name, *replaced, progress).await,
            Action::RemoveImage { reference } => self.remove_image(reference, progress).await,
            Action::Keep { container } => {
                progress.event(container.progress_id(), Status::Done, "", "Running");
                Ok(())
            }
            Action::Create {
                replica,
                replaces,
                inherit,
            } => self.create(index, replica, replaces.as_ref(), *inherit, progress).await,
            Action::Rename {
                created,
                replica,
                replaced,
            } => self.rename(*created, replica, replaced, progress).await,
            Action::PreStart {
                service,
                targets,
                first,
            } => self.pre_start(service, targets, *first, progress).await,
            Action::Start { target } => self.start(target, progress).await,
            Action::Revive { container } => self.revive(container, progress).await,
            Action::Stop {
                container,
                timeout,
                replaced,
            } => self.stop(container, *timeout, *replaced, progress).await,
            Action::Remove {
                container,
                force,
                volumes,
                replaced,
            } => self.remove(container, *force, *volumes, *replaced, progress).await,
            Action::Restart { container, timeout } => self.restart(container, *timeout, progress).await,
            Action::Kill { container, signal } => self.kill(container, signal, progress).await,
            Action::Pause { container } => {
                let pause = self.engine.docker.pause_container(&container.id);
                self.freeze(container, "Paused", pause).await
            }
            Action::Unpause { container } => {
                let unpause = self.engine.docker.unpause_container(&container.id);
                self.freeze(container, "Unpaused", unpause).await
            }
            Action::Wait { .. } => Ok(()),
        }
    }

    /// Pauses or unpauses, which is shown only if it can be done with all containers.
    async fn freeze(
        &self,
        container: &Container,
        text: &'static str,
        request: impl Future<Output = Result<(), bollard::errors::Error>>,
    ) -> Result<(), ExecutionError> {
        if !self.settings.dry_run {
            request.await.map_err(ClientError::from)?;
        }
        self.lock().held.push((container.progress_id(), text));
        Ok(())
    }

    /// Shows that something begins, does it unless nothing is to be done, and shows that it ended.
    async fn simple(
        &self,
        id: String,
        [begins, ended]: [&str; 2],
        request: impl Future<Output = Result<(), ClientError>>,
        progress: &Progress,
    ) -> Result<(), ExecutionError> {
        progress.event(&id, Status::Working, "", begins);
        if !self.settings.dry_run
            && let Err(error) = request.await
        {
            progress.event(&id, Status::Error, "", "Error");
            return Err(error.into());
        }
        progress.event(&id, Status::Done, "", ended);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Containers> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn created(&self, operation: usize) -> Option<String> {
        self.lock().created.get(&operation).cloned()
    }

    fn find(&self, id: &str) -> Container {
        self.lock()
            .services
            .values()
            .flatten()
            .find(|container| container.id == id)
            .cloned()
            .unwrap_or_default()
    }

    fn set_state(&self, id: &str, to: State) {
        for container in self.lock().services.values_mut().flatten() {
            if container.id == id {
                container.state = to;
                container.healthy = false;
            }
        }
    }
}
