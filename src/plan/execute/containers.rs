//! Containers: made, replaced, started, stopped, removed.

use std::collections::BTreeMap;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptions, KillContainerOptions, RemoveContainerOptions, RenameContainerOptions,
    RestartContainerOptions, StartContainerOptions, StopContainerOptions, UploadToContainerOptions,
};

use super::{Execution, ExecutionError};
use crate::client::{ClientError, Engine, labels};
use crate::model::{Hook, Project, Service};
use crate::plan::create::files::{self, Kind};
use crate::plan::create::{self, ContainerRequest, references};
use crate::plan::observed::{Container, State};
use crate::plan::operation::{Action, Replica, Target};
use crate::ui::{Progress, Status, stream};

impl Execution<'_> {
    pub(super) async fn create(
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

    pub(super) async fn create_container(
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
            name = temporary_name(&replaced.id, &name);
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
    pub(super) fn resolved(&self, service: &Service) -> Service {
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

    pub(super) fn links(&self, service: &Service, number: u32, one_off: bool) -> Vec<String> {
        links(
            self.engine,
            &self.project.name,
            service,
            number,
            one_off,
            self.settings.separator,
            &self.lock().services,
        )
    }

    pub(super) async fn rename(
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

    /// Starts a container that is in a state in which the engine may have something against it.
    pub(super) async fn revive(&self, container: &Container, progress: &Progress) -> Result<(), ExecutionError> {
        let event = container.progress_id();
        progress.event(&event, Status::Working, "", "Restart");
        if !self.settings.dry_run {
            let start = None::<StartContainerOptions>;
            let started = self.engine.docker.start_container(&container.id, start).await;
            started.map_err(ClientError::from)?;
        }
        self.set_state(&container.id, State::Running);
        progress.event(&event, Status::Done, "", "Restarted");
        Ok(())
    }

    /// Returns how a container that is started is shown.
    fn started_name(&self, target: &Target) -> String {
        let name = target.name();
        if let Target::Created(index, _) = target
            && self.settings.dry_run
            && let Action::Create {
                replaces: Some(replaced),
                ..
            } = &self.plan.operations[*index].action
        {
            // Nothing was renamed, so it still has the name it was to be made under.
            return format!("Container {}", temporary_name(&replaced.id, name));
        }
        format!("Container {name}")
    }

    pub(super) async fn start(&self, target: &Target, progress: &Progress) -> Result<(), ExecutionError> {
        let event = self.started_name(target);
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
            let started = self
                .engine
                .docker
                .start_container(&id, None::<StartContainerOptions>)
                .await
                .map_err(ClientError::from);
            match started {
                Err(error) if error.is_not_modified() => {}
                other => other?,
            }
            let named = self.find(&id);
            for hook in service.iter().flat_map(|service| &service.post_start) {
                self.hook(&named, target.service(), hook).await?;
            }
        }
        self.set_state(&id, State::Running);
        progress.event(&event, Status::Done, "", "Started");
        Ok(())
    }

    pub(super) async fn stop(
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
                Err(error) if error.is_not_found() || error.is_not_modified() => {}
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

    pub(super) async fn remove(
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
            let remove = || async {
                let removed = self
                    .engine
                    .docker
                    .remove_container(&container.id, Some(options.clone()));
                removed.await.map_err(ClientError::from)
            };
            match self.engine.settled(remove).await {
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

    pub(super) async fn restart(
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

    pub(super) async fn kill(
        &self,
        container: &Container,
        signal: &str,
        progress: &Progress,
    ) -> Result<(), ExecutionError> {
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

    pub(super) async fn pre_stop(&self, container: &Container) -> Result<(), ExecutionError> {
        let Some(service) = self.project.services.get(&container.service) else {
            return Ok(());
        };
        for hook in &service.pre_stop {
            self.hook(container, &service.name, hook).await?;
        }
        Ok(())
    }

    pub(super) async fn hook(&self, container: &Container, service: &str, hook: &Hook) -> Result<(), ExecutionError> {
        let status = crate::plan::hooks::run(self.engine, container, hook, self.settings.hook_output.as_ref()).await?;
        if status == 0 {
            return Ok(());
        }
        Err(ExecutionError::Hook {
            service: service.to_owned(),
            status,
        })
    }
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
    engine: &Engine,
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
    if engine.is_podman() {
        // It has no links, and refuses containers that have some. Services and containers answer to their names there.
        let aliases = service.links.iter().chain(&service.external_links);
        for link in aliases.filter(|link| link.split_once(':').is_some_and(|(name, alias)| name != alias)) {
            stream::warn(format!(
                "service {:?}: Podman has no links, so that {link:?} gives no other name; use the name that is there",
                service.name
            ));
        }
        return Vec::new();
    }
    links
}

/// Returns the name of a container that is made beside the one it replaces.
fn temporary_name(replaced: &str, name: &str) -> String {
    format!("{}_{name}", replaced.get(..12).unwrap_or(replaced))
}

fn seconds(timeout: Option<i64>) -> Option<i32> {
    timeout.map(|seconds| i32::try_from(seconds).unwrap_or(i32::MAX))
}
