//! What runs to its end, each step in a container of its own, before a service's containers start.

use std::collections::{BTreeMap, VecDeque};

use bollard::container::LogOutput;
use bollard::query_parameters::{LogsOptions, RemoveContainerOptions, StartContainerOptions, WaitContainerOptions};
use futures_util::StreamExt;

use super::containers::{copy_files, send_create};
use super::{Execution, ExecutionError};
use crate::client::{ClientError, labels};
use crate::model::{Command, Hook, Service};
use crate::plan::create::{self, ContainerRequest};
use crate::plan::observed::Container;
use crate::plan::operation::Target;
use crate::ui::{Progress, Status};

/// How much of what a failed step printed is repeated in the error.
const TAIL: usize = 10;

/// One run of a step.
struct Step<'s> {
    service: &'s Service,
    index: usize,
    hook: &'s Hook,
    /// The container whose mounts it has.
    replica: &'s str,
    /// The container it runs in.
    name: String,
}

impl Execution<'_> {
    /// Runs a service's steps one after the other; `first` says that none of its containers runs yet.
    pub(super) async fn pre_start(
        &self,
        service: &str,
        targets: &[Target],
        first: bool,
        progress: &Progress,
    ) -> Result<(), ExecutionError> {
        let Some(service) = self.project.services.get(service).filter(|_| !self.settings.dry_run) else {
            return Ok(());
        };
        for (index, hook) in service.pre_start.iter().enumerate() {
            let of = match (hook.per_replica, first) {
                (true, _) => targets,
                (false, true) => &targets[..1],
                (false, false) => &[],
            };
            for target in of {
                let (replica, number) = match target {
                    Target::Existing(container) => (Some(container.id.clone()), container.number),
                    Target::Created(created, replica) => (self.created(*created), Some(replica.number)),
                };
                let Some(replica) = replica else { continue };
                let separator = self.settings.separator;
                let mut name = [&self.project.name, &service.name, "pre_start", &index.to_string()].join(separator);
                if hook.per_replica {
                    name = format!("{name}{separator}{}", number.unwrap_or(1));
                }
                let step = Step {
                    service,
                    index,
                    hook,
                    replica: &replica,
                    name,
                };
                self.step(&step, progress).await?;
            }
        }
        Ok(())
    }

    async fn step(&self, step: &Step<'_>, progress: &Progress) -> Result<(), ExecutionError> {
        let event = format!("Container {}", step.name);
        progress.event(&event, Status::Working, "", "Starting");
        let result = self.run_step(step, progress).await;
        match &result {
            Ok(()) => progress.event(&event, Status::Done, "", "Exited"),
            Err(error) => progress.event(&event, Status::Error, "", error.to_string()),
        }
        result
    }

    async fn run_step(&self, step: &Step<'_>, progress: &Progress) -> Result<(), ExecutionError> {
        // One that failed was kept to be looked at.
        self.remove_step(&step.name).await?;
        let service = self.service_of(step);
        let image_name = self.project.image_name(&service, self.settings.separator);
        let (body, _) = create::container(&ContainerRequest {
            project: self.project,
            service: &service,
            number: None,
            name: &step.name,
            image: self.images.get(&image_name),
            image_name: &image_name,
            inherit: None,
            links: &self.links(&service, 1, false),
            labels: BTreeMap::from([
                (labels::ONE_OFF.to_owned(), "True".to_owned()),
                (labels::HOOK.to_owned(), "pre_start".to_owned()),
            ]),
            auto_remove: false,
            attach_stdin: false,
            use_aliases: false,
            host: &self.settings.host,
        })?;
        let id = send_create(self.engine, self.project, &service, &step.name, body, progress).await?;
        if !self.settings.host.many_networks && service.network_mode.is_empty() {
            let container = Container {
                id: id.clone(),
                name: step.name.clone(),
                service: service.name.clone(),
                one_off: true,
                ..Container::default()
            };
            for key in service.networks_by_priority().into_iter().skip(1) {
                self.connect(key, &service.name, &id, &container).await?;
            }
        }
        copy_files(self.engine, self.project, &service, &id).await?;
        let docker = &self.engine.docker;
        if let Err(error) = docker.start_container(&id, None::<StartContainerOptions>).await {
            // It has nothing to show.
            self.remove_step(&id).await?;
            return Err(ClientError::from(error).into());
        }
        let tail = self.follow(step, &id).await;
        let options = WaitContainerOptions {
            condition: "not-running".to_owned(),
        };
        let status = match docker.wait_container(&id, Some(options)).next().await {
            Some(Ok(response)) => response.status_code,
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => code,
            Some(Err(error)) => return Err(ClientError::from(error).into()),
            None => 0,
        };
        if status == 0 {
            return self.remove_step(&id).await;
        }
        Err(ExecutionError::PreStart {
            service: service.name,
            index: step.index,
            status,
            said: tail.map(|line| format!(": {line}")).unwrap_or_default(),
            container: id.chars().take(12).collect(),
        })
    }

    /// Passes on what a step prints until it has ended, and returns the last of it: of the errors, if there were any.
    async fn follow(&self, step: &Step<'_>, id: &str) -> Option<String> {
        let options = LogsOptions {
            follow: true,
            stdout: true,
            stderr: true,
            ..LogsOptions::default()
        };
        let source = Container {
            name: format!("{} pre_start[{}]", step.service.name, step.index),
            ..Container::default()
        };
        let mut tails = [VecDeque::new(), VecDeque::new()];
        let mut lines = self.engine.docker.logs(id, Some(options));
        // With a driver whose logs cannot be read there is nothing to pass on; the step runs all the same.
        while let Some(Ok(chunk)) = lines.next().await {
            let tail = &mut tails[usize::from(matches!(chunk, LogOutput::StdErr { .. }))];
            for line in String::from_utf8_lossy(&chunk.into_bytes()).lines() {
                if let Some(output) = &self.settings.hook_output {
                    output(&source, line);
                }
                tail.push_back(line.to_owned());
                if tail.len() > TAIL {
                    tail.pop_front();
                }
            }
        }
        let [out, errors] = tails;
        let tail = if errors.is_empty() { out } else { errors };
        let tail: Vec<String> = tail.into();
        (!tail.is_empty()).then(|| tail.join("\n"))
    }

    async fn remove_step(&self, container: &str) -> Result<(), ExecutionError> {
        let options = RemoveContainerOptions {
            force: true,
            v: true,
            link: false,
        };
        let removed = self.engine.docker.remove_container(container, Some(options)).await;
        match removed.map_err(ClientError::from) {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Returns the service as a step has it: with the step's own words, the mounts of the container it prepares, and
    /// without what only that one can have.
    fn service_of(&self, step: &Step<'_>) -> Service {
        let hook = step.hook;
        let mut service = self.resolved(step.service);
        if !hook.image.is_empty() {
            service.image.clone_from(&hook.image);
            service.user.clear();
        }
        if !hook.user.is_empty() {
            service.user.clone_from(&hook.user);
        }
        if !hook.working_dir.is_empty() {
            service.working_dir.clone_from(&hook.working_dir);
        }
        service.privileged |= hook.privileged;
        let variables = hook.environment.iter();
        service
            .environment
            .extend(variables.map(|(name, value)| (name.clone(), value.clone())));
        service.entrypoint = Command(None);
        service.command = hook.command.clone();
        service.volumes = Vec::new();
        service.tmpfs = Vec::new();
        service.volumes_from = vec![step.replica.to_owned()];
        service.ports = Vec::new();
        service.expose = Vec::new();
        service.container_name.clear();
        service.healthcheck = None;
        service.restart.clear();
        if let Some(deploy) = &mut service.deploy {
            deploy.restart_policy = None;
        }
        service.tty = false;
        service.stdin_open = false;
        service.mac_address.clear();
        for network in service.networks.values_mut().flatten() {
            network.ipv4_address.clear();
            network.ipv6_address.clear();
            network.mac_address.clear();
            network.link_local_ips.clear();
            network.aliases.clear();
        }
        service
    }
}
