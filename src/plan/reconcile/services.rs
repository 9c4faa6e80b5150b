//! The containers of a service: which stay, which go, which are made.

use super::{PlanError, Reconciler, Recreate, add_stop_and_remove, container_name, subject};
use crate::client::labels;
use crate::model::Service;
use crate::model::hash::service_hash;
use crate::plan::create::references::{self, Reference};
use crate::plan::observed::{Container, State};
use crate::plan::operation::{Action, Replica, Stage, Target};

/// What a container of a service is recognised by.
pub(super) struct Identity {
    hash: String,
    image: String,
    /// Why no container that exists can be one, where that is so.
    renewed: Option<String>,
}

impl Reconciler<'_> {
    /// Decides about the containers of one service; those it waits for have been decided about.
    pub(super) fn service(&mut self, service: &Service) -> Result<(), PlanError> {
        let expected = usize::try_from(service.replicas()).unwrap_or(0);
        if expected > 1 && !service.container_name.is_empty() {
            return Err(PlanError::ScaledContainerName {
                service: service.name.clone(),
                name: service.container_name.clone(),
            });
        }
        let strategy = if self.options.services.is_empty() || self.options.services.contains(&service.name) {
            self.options.recreate
        } else {
            self.options.recreate_dependencies
        };
        let (identity, prerequisites) = self.identity(service)?;
        let mut actual: Vec<(Container, Option<String>)> = self
            .containers
            .remove(&service.name)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|target| match target {
                Target::Existing(container) => Some(container),
                Target::Created(..) => None,
            })
            .map(|container| {
                let cause = self.divergence(service, &identity, &container, strategy);
                (container, cause)
            })
            .collect();
        // What is to be replaced anyway goes first when there are too many, then the highest numbers.
        actual.sort_by(|(a, a_cause), (b, b_cause)| {
            (a_cause.is_some(), a.number, a.created).cmp(&(b_cause.is_some(), b.number, b.created))
        });
        let next = 1 + actual
            .iter()
            .filter_map(|(container, _)| container.number)
            .max()
            .unwrap_or(0);
        let missing = expected.saturating_sub(actual.len());
        let mut settled = self.settled.remove(&service.name).unwrap_or_default();
        let cleared = settled.clone();
        let mut targets = Vec::new();
        for (index, (container, cause)) in actual.into_iter().enumerate() {
            if index >= expected {
                let after = self.stopped.get(&container.id).copied();
                settled.push(add_stop_and_remove(
                    &mut self.plan,
                    &container,
                    self.options.timeout,
                    false,
                    "scale down",
                    after,
                ));
            } else if let Some(cause) = cause {
                let (created, replica, rename) = self.replace(service, container, cause, &prerequisites);
                targets.push(Target::Created(created, replica));
                settled.push(rename);
            } else {
                let subject = subject(&container);
                match container.state {
                    State::Running => {
                        let container = container.clone();
                        let keep = Action::Keep { container };
                        self.plan.add(Stage::Create, keep, subject, "up to date", []);
                    }
                    State::Created | State::Restarting | State::Exited => {}
                    // docker/compose pkg/compose/convergence.go: whatever is in another state is started at once.
                    State::Paused | State::Removing | State::Dead => {
                        let container = container.clone();
                        let revive = Action::Revive { container };
                        let after = cleared.clone();
                        self.plan
                            .add(Stage::Create, revive, subject, "neither runs nor stands", after);
                    }
                }
                targets.push(Target::Existing(container));
            }
        }
        for number in (next..).take(missing) {
            let replica = Replica {
                service: service.name.clone(),
                number,
                name: container_name(&self.project.name, service, number, self.options.separator),
            };
            let subject = format!("service:{}:{number}", service.name);
            let create = Action::Create {
                replica: replica.clone(),
                replaces: None,
                inherit: false,
            };
            let after = prerequisites.iter().chain(&cleared).copied();
            let created = self
                .plan
                .add(Stage::Create, create, subject, "no existing container", after);
            targets.push(Target::Created(created, replica));
            settled.push(created);
        }
        self.settled.insert(service.name.clone(), settled);
        self.containers.insert(service.name.clone(), targets);
        Ok(())
    }

    /// Returns what a container of the service is recognised by, and what must be there before one can be made.
    pub(super) fn identity(&self, service: &Service) -> Result<(Identity, Vec<usize>), PlanError> {
        let mut prerequisites = Vec::new();
        for key in service.networks.keys() {
            prerequisites.extend(self.networks.get(key).into_iter().flat_map(|network| &network.after));
        }
        for mount in &service.volumes {
            prerequisites.extend(
                self.volumes
                    .get(&mount.source)
                    .into_iter()
                    .flat_map(|volume| &volume.after),
            );
        }
        for (linked, _) in references::links(service) {
            prerequisites.extend(self.settled.get(linked).into_iter().flatten());
        }
        // A container named outright may be one of this project's: the file's order says so.
        if references::names_containers(service) {
            for dependency in service.depends_on.keys() {
                prerequisites.extend(self.settled.get(dependency).into_iter().flatten());
            }
        }
        let mut resolved = service.clone();
        let mut renewed = None;
        for Reference { service: name, what } in references::of(service) {
            let provider = self
                .containers
                .get(name)
                .and_then(|targets| targets.iter().min_by_key(|target| target.name()))
                .ok_or(PlanError::MissingContainer {
                    what,
                    service: name.to_owned(),
                })?;
            match provider {
                Target::Existing(container) => references::resolve(&mut resolved, name, &container.id),
                Target::Created(..) => renewed = Some(format!("{what} of {name}, whose container is new")),
            }
            prerequisites.extend(self.settled.get(name).into_iter().flatten());
        }
        let identity = Identity {
            hash: service_hash(&resolved),
            image: self.image_id(service),
            renewed,
        };
        Ok((identity, prerequisites))
    }

    pub(super) fn image_id(&self, service: &Service) -> String {
        self.observed
            .images
            .get(&self.project.image_name(service, self.options.separator))
            .map(|image| image.id.clone())
            .unwrap_or_default()
    }

    /// Returns why the container must be replaced, if it must.
    pub(super) fn divergence(
        &self,
        service: &Service,
        identity: &Identity,
        container: &Container,
        strategy: Recreate,
    ) -> Option<String> {
        match strategy {
            Recreate::Never => return None,
            Recreate::Always => return Some("forced".to_owned()),
            Recreate::Diverged => {}
        }
        if let Some(renewed) = &identity.renewed {
            return Some(renewed.clone());
        }
        if container.label(labels::CONFIG_HASH) != identity.hash {
            return Some("configuration changed".to_owned());
        }
        if container.label(labels::IMAGE_DIGEST) != identity.image {
            return Some("image changed".to_owned());
        }
        if container.state == State::Running {
            for key in service.networks.keys() {
                let is_connected = self
                    .networks
                    .get(key)
                    .and_then(|network| network.existing.as_ref())
                    .is_some_and(|id| container.networks.values().any(|connected| connected == id));
                if self.networks.contains_key(key) && !is_connected {
                    return Some(format!("not connected to network {key}"));
                }
            }
        }
        for mount in service.volumes.iter().filter(|mount| mount.r#type == "volume") {
            let Some(volume) = self.project.volumes.get(&mount.source) else {
                continue;
            };
            let is_mounted = container
                .mounts
                .iter()
                .any(|mounted| mounted.kind == "volume" && mounted.name == volume.name);
            if !is_mounted {
                return Some(format!("volume {} is not mounted", mount.source));
            }
        }
        None
    }

    /// Replaces a container: the new one is made beside the old one, which then goes, and gets its name.
    pub(super) fn replace(
        &mut self,
        service: &Service,
        container: Container,
        cause: String,
        prerequisites: &[usize],
    ) -> (usize, Replica, usize) {
        let mut after = self.stop_dependents(service);
        after.extend(prerequisites);
        after.extend(self.stopped.get(&container.id));
        let number = container.number.unwrap_or(1);
        let replica = Replica {
            service: service.name.clone(),
            number,
            name: container_name(&self.project.name, service, number, self.options.separator),
        };
        let subject = format!("service:{}:{number}", service.name);
        let create = Action::Create {
            replica: replica.clone(),
            replaces: Some(container.clone()),
            inherit: self.options.inherit,
        };
        let created = self.plan.add(Stage::Create, create, &subject, &cause, after);
        let stop = Action::Stop {
            container: container.clone(),
            timeout: self.options.timeout,
            replaced: true,
        };
        let stop = self.plan.add(
            Stage::Create,
            stop,
            &subject,
            format!("replaced by #{}", created + 1),
            [created],
        );
        let replaced = container.name.clone();
        let remove = Action::Remove {
            container,
            force: false,
            volumes: false,
            replaced: true,
        };
        let remove = self.plan.add(
            Stage::Create,
            remove,
            &subject,
            format!("replaced by #{}", created + 1),
            [stop],
        );
        let rename = Action::Rename {
            created,
            replica: replica.clone(),
            replaced,
        };
        let rename = self
            .plan
            .add(Stage::Create, rename, subject, "takes the name", [remove]);
        (created, replica, rename)
    }

    /// Stops the services that want to be restarted with `service`; they start again after it.
    pub(super) fn stop_dependents(&mut self, service: &Service) -> Vec<usize> {
        let dependents: Vec<String> = self
            .project
            .services
            .values()
            .filter(|dependent| dependent.depends_on.get(&service.name).is_some_and(|how| how.restart))
            .map(|dependent| dependent.name.clone())
            .collect();
        let cause = format!("restarts with {}", service.name);
        dependents
            .iter()
            .flat_map(|dependent| self.stop_service(dependent, &cause, None))
            .map(|(_, stop)| stop)
            .collect()
    }
}
