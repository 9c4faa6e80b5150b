//! Carries out a plan: independent operations at the same time, each as soon as what it needs is done.
//!
//! Nothing is decided here; all decisions are in the plan.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::models::{ContainerCreateBody, NetworkConnectRequest, NetworkDisconnectRequest};
use bollard::query_parameters::{
    CreateContainerOptions, KillContainerOptions, RemoveContainerOptions, RemoveImageOptions, RemoveVolumeOptions,
    RenameContainerOptions, RestartContainerOptions, StartContainerOptions, StopContainerOptions,
    UploadToContainerOptions,
};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};

use super::create::files::{self, Kind};
use super::create::{self, ContainerRequest, CreateError, references};
use super::observed::{Container, Image, Observed, State};
use super::operation::{Action, Condition, Operation, Plan, Replica, Stage, Target};
use super::wait::{Verdict, Watcher, judge};
use crate::client::{ClientError, Engine, labels};
use crate::model::{Duration as GoDuration, Hook, Project, Service};
use crate::ui::{Progress, Status, stream};

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
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<ExecutionError>),
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
}

/// The containers as they are at the moment.
#[derive(Default)]
struct Containers {
    /// Of each service, one-off ones left out: those that are there, under the names they are going to have.
    services: BTreeMap<String, Vec<Container>>,
    /// The ids of the containers that operations created.
    created: BTreeMap<usize, String>,
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
                created: BTreeMap::new(),
            }),
            slots: Semaphore::new(settings.parallel.unwrap_or(Semaphore::MAX_PERMITS).max(1)),
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
        self.walk(&operations, watcher.as_ref(), progress).await
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
        let (cancel, cancelled) = watch::channel(false);
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
        match errors.len() {
            0 => Ok(()),
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
        cancelled: watch::Receiver<bool>,
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
        match &operation.action {
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
            Action::Start { target } => self.start(target, progress).await,
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
                let pause = async { Ok(self.engine.docker.pause_container(&container.id).await?) };
                self.simple(container.progress_id(), ["", "Paused"], pause, progress)
                    .await
            }
            Action::Unpause { container } => {
                let unpause = async { Ok(self.engine.docker.unpause_container(&container.id).await?) };
                self.simple(container.progress_id(), ["", "Unpaused"], unpause, progress)
                    .await
            }
            Action::Wait { .. } => Ok(()),
        }
    }

    /// Shows that something begins, does it unless nothing is to be done, and shows that it ended.
    async fn simple(
        &self,
        id: String,
        [begins, ended]: [&str; 2],
        request: impl Future<Output = Result<(), ClientError>>,
        progress: &Progress,
    ) -> Result<(), ExecutionError> {
        let shown = !begins.is_empty();
        if shown {
            progress.event(&id, Status::Working, "", begins);
        }
        if !self.settings.dry_run
            && let Err(error) = request.await
        {
            if shown {
                progress.event(&id, Status::Error, "", "Error");
            }
            return Err(error.into());
        }
        progress.event(&id, Status::Done, "", ended);
        Ok(())
    }

    async fn create_network(&self, key: &str, progress: &Progress) -> Result<(), ExecutionError> {
        let Some(network) = self.project.networks.get(key) else {
            return Ok(());
        };
        let request = async {
            let body = create::network(self.project, key, network);
            match self.engine.docker.create_network(body).await.map_err(ClientError::from) {
                Ok(_) => Ok(()),
                // Somebody else's `up` was a moment earlier.
                Err(error) if error.is_conflict() && error.to_string().contains("already exists") => Ok(()),
                Err(error) => Err(error),
            }
        };
        match self
            .simple(
                format!("Network {}", network.name),
                ["Creating", "Created"],
                request,
                progress,
            )
            .await
        {
            Err(ExecutionError::Client(source)) => Err(ExecutionError::Network {
                name: network.name.clone(),
                source,
            }),
            other => other,
        }
    }

    async fn remove_network(
        &self,
        id: &str,
        name: &str,
        replaced: bool,
        progress: &Progress,
    ) -> Result<(), ExecutionError> {
        let event = format!("Network {name}");
        if !replaced {
            progress.event(&event, Status::Working, "", "Removing");
        }
        if self.settings.dry_run {
            progress.event(&event, Status::Done, "", "Removed");
            return Ok(());
        }
        match self.engine.docker.remove_network(id).await.map_err(ClientError::from) {
            Ok(()) => progress.event(&event, Status::Done, "", "Removed"),
            Err(error) if error.is_not_found() => {
                progress.event(&event, Status::Warning, "", "No resource found to remove");
            }
            Err(error) if !replaced && is_in_use(&error) => {
                progress.event(&event, Status::Warning, "", "Resource is still in use");
            }
            Err(error) => {
                progress.event(&event, Status::Error, "", "Error");
                return Err(error.into());
            }
        }
        Ok(())
    }

    async fn disconnect(&self, network: &str, container: &Container) -> Result<(), ExecutionError> {
        if self.settings.dry_run {
            return Ok(());
        }
        let request = NetworkDisconnectRequest {
            container: container.id.clone(),
            force: Some(true),
        };
        match self
            .engine
            .docker
            .disconnect_network(network, request)
            .await
            .map_err(ClientError::from)
        {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn connect(&self, key: &str, service: &str, id: &str, named: &Container) -> Result<(), ExecutionError> {
        let (Some(service), Some(network)) = (self.project.services.get(service), self.project.networks.get(key))
        else {
            return Ok(());
        };
        if self.settings.dry_run {
            return Ok(());
        }
        let links = self.links(service, named.number.unwrap_or(1), named.one_off);
        let request = NetworkConnectRequest {
            container: id.to_owned(),
            endpoint_config: Some(create::endpoint(service, key, &named.name, true, &links)?),
        };
        self.engine
            .docker
            .connect_network(&network.name, request)
            .await
            .map_err(ClientError::from)?;
        Ok(())
    }

    async fn create_volume(&self, key: &str, progress: &Progress) -> Result<(), ExecutionError> {
        let Some(volume) = self.project.volumes.get(key) else {
            return Ok(());
        };
        let request = async {
            let body = create::volume(self.project, key, volume);
            self.engine.docker.create_volume(body).await?;
            Ok(())
        };
        self.simple(
            format!("Volume {}", volume.name),
            ["Creating", "Created"],
            request,
            progress,
        )
        .await
    }

    async fn remove_volume(&self, name: &str, replaced: bool, progress: &Progress) -> Result<(), ExecutionError> {
        let event = format!("Volume {name}");
        let shown = |status, text: &str| {
            if !replaced {
                progress.event(&event, status, "", text);
            }
        };
        shown(Status::Working, "Removing");
        if self.settings.dry_run {
            shown(Status::Done, "Removed");
            return Ok(());
        }
        let options = RemoveVolumeOptions { force: true };
        match self
            .engine
            .docker
            .remove_volume(name, Some(options))
            .await
            .map_err(ClientError::from)
        {
            Ok(()) => shown(Status::Done, "Removed"),
            Err(error) if error.is_conflict() && !replaced => shown(Status::Warning, "Resource is still in use"),
            Err(error) if error.is_not_found() => shown(Status::Done, "Warning: No resource found to remove"),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn remove_image(&self, reference: &str, progress: &Progress) -> Result<(), ExecutionError> {
        let event = format!("Image {reference}");
        progress.event(&event, Status::Working, "", "Removing");
        if self.settings.dry_run {
            progress.event(&event, Status::Done, "", "Removed");
            return Ok(());
        }
        match self
            .engine
            .docker
            .remove_image(reference, None::<RemoveImageOptions>, None)
            .await
            .map_err(ClientError::from)
        {
            Ok(_) => progress.event(&event, Status::Done, "", "Removed"),
            Err(error) if error.is_conflict() => {
                progress.event(&event, Status::Warning, "", "Resource is still in use");
            }
            Err(error) if error.is_not_found() => {
                progress.event(&event, Status::Done, "", "Warning: No resource found to remove");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn create(
        &self,
        index: usize,
        replica: &Replica,
        replaces: Option<&Container>,
        inherit: bool,
        progress: &Progress,
    ) -> Result<(), ExecutionError> {
        let event = match replaces {
            Some(replaced) => replaced.progress_id(),
            None => format!("Container {}", replica.name),
        };
        let begins = if replaces.is_some() { "Recreate" } else { "Creating" };
        progress.event(&event, Status::Working, "", begins);
        let created = self
            .create_container(replica, replaces, inherit, progress)
            .await
            .inspect_err(|error| progress.event(&event, Status::Error, "", error.to_string()))?;
        {
            let mut state = self.lock();
            state.created.insert(index, created.id.clone());
            let containers = state.services.entry(replica.service.clone()).or_default();
            containers.retain(|container| replaces.is_none_or(|replaced| container.id != replaced.id));
            containers.push(created);
        }
        if replaces.is_none() {
            progress.event(&event, Status::Done, "", "Created");
        }
        Ok(())
    }

    async fn create_container(
        &self,
        replica: &Replica,
        replaces: Option<&Container>,
        inherit: bool,
        progress: &Progress,
    ) -> Result<Container, ExecutionError> {
        let Some(service) = self.project.services.get(&replica.service) else {
            return Ok(Container::default());
        };
        let service = self.resolved(service);
        let image_name = self.project.image_name(&service, self.settings.separator);
        let links = self.links(&service, replica.number, false);
        let mut own_labels = BTreeMap::new();
        let mut name = replica.name.clone();
        if let Some(replaced) = replaces {
            own_labels.insert(labels::REPLACE.to_owned(), replaced.id.clone());
            name = format!("{}_{name}", replaced.id.get(..12).unwrap_or(&replaced.id));
        }
        let (body, warnings) = create::container(&ContainerRequest {
            project: self.project,
            service: &service,
            number: Some(replica.number),
            name: &replica.name,
            image: self.images.get(&image_name),
            image_name: &image_name,
            inherit: replaces.filter(|_| inherit),
            links: &links,
            labels: own_labels,
            auto_remove: false,
            attach_stdin: false,
            use_aliases: true,
            host: &self.settings.host,
        })?;
        for warning in warnings {
            stream::warn(warning);
        }
        let mut container = Container {
            name: replica.name.clone(),
            service: replica.service.clone(),
            number: Some(replica.number),
            labels: body.labels.clone().unwrap_or_default(),
            image: image_name,
            ..Container::default()
        };
        if self.settings.dry_run {
            container.id = format!("{:0>64}", replica.number);
            return Ok(container);
        }
        container.id = send_create(self.engine, self.project, &service, &name, body, progress).await?;
        if !self.settings.host.many_networks && service.network_mode.is_empty() {
            for key in service.networks_by_priority().into_iter().skip(1) {
                self.connect(key, &service.name, &container.id, &container).await?;
            }
        }
        Ok(container)
    }

    /// Puts the ids of the containers that the service refers to into it.
    fn resolved(&self, service: &Service) -> Service {
        let mut resolved = service.clone();
        let state = self.lock();
        for reference in references::of(service) {
            let provider = state
                .services
                .get(reference.service)
                .and_then(|containers| containers.iter().min_by(|a, b| a.name.cmp(&b.name)));
            if let Some(provider) = provider {
                references::resolve(&mut resolved, reference.service, &provider.id);
            }
        }
        references::resolve_containers(&mut resolved);
        resolved
    }

    fn links(&self, service: &Service, number: u32, one_off: bool) -> Vec<String> {
        links(
            &self.project.name,
            service,
            number,
            one_off,
            self.settings.separator,
            &self.lock().services,
        )
    }

    async fn rename(
        &self,
        created: usize,
        replica: &Replica,
        replaced: &str,
        progress: &Progress,
    ) -> Result<(), ExecutionError> {
        if let Some(id) = self.created(created).filter(|_| !self.settings.dry_run) {
            let options = RenameContainerOptions {
                name: replica.name.clone(),
            };
            self.engine
                .docker
                .rename_container(&id, options)
                .await
                .map_err(ClientError::from)?;
        }
        progress.event(format!("Container {replaced}"), Status::Done, "", "Recreated");
        Ok(())
    }

    async fn start(&self, target: &Target, progress: &Progress) -> Result<(), ExecutionError> {
        let event = format!("Container {}", target.name());
        let id = match target {
            Target::Existing(container) => Some(container.id.clone()),
            Target::Created(index, _) => self.created(*index),
        };
        let Some(id) = id else {
            return Ok(());
        };
        let service = self.project.services.get(target.service());
        if let Some(service) = service.filter(|_| !self.settings.dry_run) {
            copy_files(self.engine, self.project, service, &id).await?;
        }
        progress.event(&event, Status::Working, "", "Starting");
        if !self.settings.dry_run {
            self.engine
                .docker
                .start_container(&id, None::<StartContainerOptions>)
                .await
                .map_err(ClientError::from)?;
            let named = self.find(&id);
            for hook in service.iter().flat_map(|service| &service.post_start) {
                self.hook(&named, target.service(), hook).await?;
            }
        }
        self.set_state(&id, State::Running);
        progress.event(&event, Status::Done, "", "Started");
        Ok(())
    }

    async fn stop(
        &self,
        container: &Container,
        timeout: Option<i64>,
        replaced: bool,
        progress: &Progress,
    ) -> Result<(), ExecutionError> {
        let event = container.progress_id();
        let shown = |status, text: &str| {
            if !replaced {
                progress.event(&event, status, "", text);
            }
        };
        shown(Status::Working, "Stopping");
        let may_run = !matches!(container.state, State::Exited | State::Created | State::Dead);
        if may_run && !self.settings.dry_run {
            if !replaced && container.state == State::Running {
                self.pre_stop(container).await?;
            }
            let options = StopContainerOptions {
                signal: None,
                t: seconds(timeout),
            };
            let stopped = self.engine.docker.stop_container(&container.id, Some(options)).await;
            match stopped.map_err(ClientError::from) {
                Ok(()) => {}
                // Gone by itself, or removed by its own wish, in the meantime.
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    shown(Status::Error, "Error while Stopping");
                    return Err(error.into());
                }
            }
        }
        self.set_state(&container.id, State::Exited);
        shown(Status::Done, "Stopped");
        Ok(())
    }

    async fn remove(
        &self,
        container: &Container,
        force: bool,
        volumes: bool,
        replaced: bool,
        progress: &Progress,
    ) -> Result<(), ExecutionError> {
        let event = container.progress_id();
        let shown = |status, text: &str| {
            if !replaced {
                progress.event(&event, status, "", text);
            }
        };
        shown(Status::Working, "Removing");
        if !self.settings.dry_run {
            let options = RemoveContainerOptions {
                force,
                v: volumes,
                link: false,
            };
            let removed = self.engine.docker.remove_container(&container.id, Some(options)).await;
            match removed.map_err(ClientError::from) {
                Ok(()) => {}
                // Somebody else removes it at the same time.
                Err(error) if error.is_not_found() || error.is_conflict() && force => {}
                Err(error) => {
                    shown(Status::Error, "Error while Removing");
                    return Err(error.into());
                }
            }
        }
        for containers in self.lock().services.values_mut() {
            containers.retain(|other| other.id != container.id);
        }
        shown(Status::Done, "Removed");
        Ok(())
    }

    async fn restart(
        &self,
        container: &Container,
        timeout: Option<i64>,
        progress: &Progress,
    ) -> Result<(), ExecutionError> {
        let event = container.progress_id();
        progress.event(&event, Status::Working, "", "Restarting");
        if !self.settings.dry_run {
            if container.state == State::Running {
                self.pre_stop(container).await?;
            }
            let options = RestartContainerOptions {
                signal: None,
                t: seconds(timeout),
            };
            self.engine
                .docker
                .restart_container(&container.id, Some(options))
                .await
                .map_err(ClientError::from)?;
            if let Some(service) = self.project.services.get(&container.service) {
                for hook in &service.post_start {
                    self.hook(container, &service.name, hook).await?;
                }
            }
        }
        progress.event(&event, Status::Done, "", "Started");
        Ok(())
    }

    async fn kill(&self, container: &Container, signal: &str, progress: &Progress) -> Result<(), ExecutionError> {
        let event = container.progress_id();
        progress.event(&event, Status::Working, "", "Killing");
        if !self.settings.dry_run {
            let options = KillContainerOptions {
                signal: signal.to_owned(),
            };
            if let Err(error) = self.engine.docker.kill_container(&container.id, Some(options)).await {
                progress.event(&event, Status::Error, "", "Error while Killing");
                return Err(ClientError::from(error).into());
            }
        }
        progress.event(&event, Status::Done, "", "Killed");
        Ok(())
    }

    async fn pre_stop(&self, container: &Container) -> Result<(), ExecutionError> {
        let Some(service) = self.project.services.get(&container.service) else {
            return Ok(());
        };
        for hook in &service.pre_stop {
            self.hook(container, &service.name, hook).await?;
        }
        Ok(())
    }

    async fn hook(&self, container: &Container, service: &str, hook: &Hook) -> Result<(), ExecutionError> {
        let status = super::hooks::run(self.engine, container, hook, self.settings.hook_output.as_ref()).await?;
        if status == 0 {
            return Ok(());
        }
        Err(ExecutionError::Hook {
            service: service.to_owned(),
            status,
        })
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

    /// Waits for a service's containers.
    async fn wait(
        &self,
        wait: &Wait<'_>,
        watcher: Option<&Watcher>,
        cancelled: watch::Receiver<bool>,
        progress: &Progress,
    ) -> Result<(), ExecutionError> {
        let containers = self.lock().services.get(wait.service).cloned().unwrap_or_default();
        let shown = |status: Status, text: &str| {
            for container in &containers {
                progress.event(container.progress_id(), status, "", text);
            }
        };
        shown(Status::Working, "Waiting");
        if containers.is_empty() {
            let missing = ExecutionError::MissingDependency {
                dependent: wait.dependent.to_owned(),
                dependency: wait.service.to_owned(),
            };
            if wait.required {
                return Err(missing);
            }
            stream::warn(missing);
            return Ok(());
        }
        let verdict = match watcher {
            _ if self.holds_already(wait.service, wait.condition) => Verdict::Holds,
            Some(watcher) => self.verdict(wait.condition, &containers, watcher, cancelled).await?,
            None => Verdict::Holds,
        };
        let skipped = |reason: String, warning: String| {
            shown(Status::Warning, &format!("Skipped: {reason}"));
            stream::warn(warning);
            Ok(())
        };
        let service = wait.service;
        match (verdict, wait.condition) {
            (Verdict::Holds, Condition::CompletedSuccessfully) | (Verdict::Exited(0), _) => {
                shown(Status::Done, "Exited");
                Ok(())
            }
            (Verdict::Holds, _) => {
                shown(Status::Done, "Healthy");
                Ok(())
            }
            // Cancelled.
            (Verdict::NotYet(_), _) => Ok(()),
            (Verdict::Exited(status), _) if !wait.required => {
                let reason = format!("optional dependency {service:?} didn't complete successfully: exit {status}");
                skipped(reason.clone(), reason)
            }
            (Verdict::Exited(status), _) => {
                let error = ExecutionError::Incomplete {
                    service: service.to_owned(),
                    status,
                };
                shown(Status::Error, &error.to_string());
                Err(error)
            }
            (Verdict::Fails(cause), Condition::RunningOrHealthy) => Err(ExecutionError::Unhealthy(cause)),
            (Verdict::Fails(cause), _) if !wait.required => {
                let reason = format!("optional dependency {service:?} failed to start");
                skipped(reason.clone(), format!("{reason}: {cause}"))
            }
            (Verdict::Fails(cause), _) => {
                shown(Status::Error, "Error");
                Err(ExecutionError::Dependency(cause))
            }
        }
    }

    /// Returns whether the snapshot says already that a condition holds.
    fn holds_already(&self, service: &str, condition: Condition) -> bool {
        condition != Condition::CompletedSuccessfully
            && self.lock().services.get(service).is_some_and(|containers| {
                !containers.is_empty()
                    && containers
                        .iter()
                        .all(|container| container.healthy && container.state == State::Running)
            })
    }

    /// Looks at the containers until it is clear what to say of them, or the plan has failed elsewhere.
    async fn verdict(
        &self,
        condition: Condition,
        containers: &[Container],
        watcher: &Watcher,
        mut cancelled: watch::Receiver<bool>,
    ) -> Result<Verdict, ExecutionError> {
        let mut changes = watcher.changes();
        loop {
            changes.mark_unchanged();
            let is_cancelled = *cancelled.borrow();
            let inspections = containers
                .iter()
                .map(|container| self.engine.docker.inspect_container(&container.id, None));
            let mut verdict = Verdict::Holds;
            let mut patience = watcher.patience();
            for inspected in join_all(inspections).await {
                let inspected = inspected.map_err(ClientError::from)?;
                match judge(&inspected, condition, is_cancelled, Timestamp::now()) {
                    Verdict::Holds => {}
                    // Of several containers the first that ends decides.
                    Verdict::Exited(status) => return Ok(Verdict::Exited(status)),
                    Verdict::Fails(cause) => return Ok(Verdict::Fails(cause)),
                    Verdict::NotYet(at_the_latest) => {
                        patience = patience.min(at_the_latest.unwrap_or(patience));
                        verdict = Verdict::NotYet(None);
                    }
                }
            }
            if verdict == Verdict::Holds || is_cancelled {
                return Ok(verdict);
            }
            tokio::select! {
                _ = changes.changed() => {}
                _ = cancelled.changed() => {}
                () = tokio::time::sleep(patience) => {}
            }
        }
    }
}

/// What is waited for, and by whom.
struct Wait<'w> {
    service: &'w str,
    condition: Condition,
    required: bool,
    dependent: &'w str,
}

/// Creates a container and returns its id; what the engine warns of is shown.
pub async fn send_create(
    engine: &Engine,
    project: &Project,
    service: &Service,
    name: &str,
    body: ContainerCreateBody,
    progress: &Progress,
) -> Result<String, ClientError> {
    let platform = match service.platform.as_str() {
        "" => project
            .environment
            .get("DOCKER_DEFAULT_PLATFORM")
            .cloned()
            .unwrap_or_default(),
        platform => platform.to_owned(),
    };
    let options = CreateContainerOptions {
        name: Some(name.to_owned()),
        platform,
    };
    let created = engine.docker.create_container(Some(options), body).await?;
    for warning in created.warnings {
        progress.event(&service.name, Status::Warning, warning, "");
    }
    Ok(created.id)
}

/// Copies the secrets and configs that are texts or variables into a container that does not run.
pub async fn copy_files(engine: &Engine, project: &Project, service: &Service, id: &str) -> Result<(), ExecutionError> {
    let mut all = files::copied(project, service, Kind::Secret)?;
    all.extend(files::copied(project, service, Kind::Config)?);
    if all.is_empty() {
        return Ok(());
    }
    let archive = files::archive(&all).map_err(ExecutionError::Pack)?;
    let options = UploadToContainerOptions {
        path: "/".to_owned(),
        copy_uidgid: Some("true".to_owned()),
        ..UploadToContainerOptions::default()
    };
    engine
        .docker
        .upload_to_container(id, Some(options), bollard::body_full(archive.into()))
        .await
        .map_err(ClientError::from)?;
    Ok(())
}

/// Returns the names under which a container knows others: `container:alias`.
// docker/compose pkg/compose/convergence.go: getLinks
pub fn links(
    project: &str,
    service: &Service,
    number: u32,
    one_off: bool,
    separator: &str,
    containers: &BTreeMap<String, Vec<Container>>,
) -> Vec<String> {
    let mut links = Vec::new();
    for (linked, link) in references::links(service) {
        let alias = link.split_once(':').map_or(linked, |(_, alias)| alias);
        for container in containers.get(linked).into_iter().flatten() {
            let name = &container.name;
            links.push(format!("{name}:{alias}"));
            links.push(format!("{name}:{linked}{separator}{number}"));
            links.push(format!("{name}:{project}{separator}{linked}{separator}{number}"));
        }
    }
    if one_off {
        for container in containers.get(&service.name).into_iter().flatten() {
            let name = &container.name;
            let short = name.strip_prefix(&format!("{project}{separator}")).unwrap_or(name);
            links.push(format!("{name}:{}", service.name));
            links.push(format!("{name}:{short}"));
            links.push(format!("{name}:{name}"));
        }
    }
    for link in &service.external_links {
        match link.split_once(':') {
            Some((name, alias)) => links.push(format!("{name}:{alias}")),
            None => links.push(format!("{link}:{link}")),
        }
    }
    links
}

fn seconds(timeout: Option<i64>) -> Option<i32> {
    timeout.map(|seconds| i32::try_from(seconds).unwrap_or(i32::MAX))
}

/// The engine forbids the removal of a network that has running containers.
fn is_in_use(error: &ClientError) -> bool {
    error.status() == Some(403) || error.to_string().contains("has active endpoints")
}
