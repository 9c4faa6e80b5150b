//! What has to be done so that a project is on the engine as its files say: the decisions of `up` and `create`.
//!
//! Pure: takes the project, the snapshot and the wishes of the command line, and returns a [`Plan`].
// The rules are those of docker compose 2.40.3: pkg/compose/create.go and convergence.go.

use std::collections::{BTreeMap, BTreeSet};

use super::create::references::{self, Reference};
use super::observed::{Container, Observed, State};
use super::operation::{Action, Condition, Plan, Replica, Stage, Target};
use crate::client::labels;
use crate::graph::{GraphError, StartGraph};
use crate::model::hash::{network_hash, service_hash, volume_hash};
use crate::model::{Network, Project, Service, Volume};

/// When a container that exists is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recreate {
    /// Only if its configuration or image changed.
    #[default]
    Diverged,
    Always,
    Never,
}

impl Recreate {
    /// Returns what `--force-recreate` and `--no-recreate` say.
    pub fn from_flags(always: bool, never: bool) -> Self {
        match (always, never) {
            (_, true) => Self::Never,
            (true, false) => Self::Always,
            (false, false) => Self::Diverged,
        }
    }
}

/// The wishes of the command line.
#[derive(Debug, Clone)]
pub struct Options {
    /// The services the user named; empty: all.
    pub services: BTreeSet<String>,
    /// For the services named.
    pub recreate: Recreate,
    /// For those that only came along.
    pub recreate_dependencies: Recreate,
    /// New containers take over the anonymous volumes of those they replace.
    pub inherit: bool,
    /// How long containers may take to stop, in seconds; `None`: as they say themselves.
    pub timeout: Option<i64>,
    pub orphans: Orphans,
    pub start: bool,
    /// Wait until every service runs or is healthy.
    pub wait: bool,
    /// What stands between the parts of a container's name.
    pub separator: &'static str,
}

/// What happens to containers of services that the project does not have any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Orphans {
    #[default]
    Warn,
    Ignore,
    Remove,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            services: BTreeSet::new(),
            recreate: Recreate::Diverged,
            recreate_dependencies: Recreate::Diverged,
            inherit: true,
            timeout: None,
            orphans: Orphans::Warn,
            start: true,
            wait: false,
            separator: "-",
        }
    }
}

/// Why there is no plan.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error("services.{service}: container name \"{name}\" is already in use by service {other}")]
    ContainerNameTwice {
        service: String,
        name: String,
        other: String,
    },
    #[error(
        "WARNING: The \"{service}\" service is using the custom container name \"{name}\". Docker requires each \
         container to have a unique name. Remove the custom name to scale the service"
    )]
    ScaledContainerName { service: String, name: String },
    #[error(
        "network {name} was found but has incorrect label {} set to \"{found}\" (expected: \"{expected}\")",
        labels::NETWORK
    )]
    NetworkLabel {
        name: String,
        found: String,
        expected: String,
    },
    #[error("network {0} declared as external, but could not be found")]
    ExternalNetwork(String),
    #[error("multiple networks with name \"{0}\" were found. Use network ID as `name` to avoid ambiguity")]
    AmbiguousNetwork(String),
    #[error("external volume \"{0}\" not found")]
    ExternalVolume(String),
    #[error("cannot share {what} with service {service}: container missing")]
    MissingContainer { what: &'static str, service: String },
    #[error("no such service: {0}")]
    UnknownDependency(String),
    #[error("service \"{service}\" is run by the provider \"{provider}\", and providers are not supported yet")]
    Provider { service: String, provider: String },
    #[error("service \"{0}\" has no container to start")]
    NothingToStart(String),
}

/// Decides what has to be done. `confirm` is asked before data is lost.
pub fn reconcile(
    project: &Project,
    observed: &Observed,
    options: &Options,
    confirm: &mut dyn FnMut(&str) -> bool,
) -> Result<Plan, PlanError> {
    check_container_names(project)?;
    if let Some((service, provider)) = project
        .services
        .values()
        .find_map(|service| Some((service, service.provider.as_ref()?)))
    {
        return Err(PlanError::Provider {
            service: service.name.clone(),
            provider: provider.r#type.clone(),
        });
    }
    let graph = start_graph(project)?;
    let mut reconciler = Reconciler::new(project, observed, options);
    for (key, network) in &project.networks {
        reconciler.network(key, network)?;
    }
    for (key, volume) in &project.volumes {
        reconciler.volume(key, volume, confirm)?;
    }
    reconciler.orphans();
    let order: Vec<&Service> = graph
        .start_order()
        .filter_map(|name| project.services.get(name))
        .collect();
    for service in &order {
        reconciler.service(service)?;
    }
    if options.start {
        let mut starts = Starts::default();
        for service in &order {
            reconciler.start(service, &mut starts)?;
        }
        if options.wait {
            for service in &order {
                reconciler.await_service(service);
            }
        }
    }
    Ok(reconciler.plan)
}

/// Plans to start what is there and does not run, in start order, waiting for conditions.
pub fn start(project: &Project, observed: &Observed, options: &Options) -> Result<Plan, PlanError> {
    let graph = start_graph(project)?;
    let mut reconciler = Reconciler::new(project, observed, options);
    let mut starts = Starts::default();
    let order: Vec<&Service> = graph
        .start_order()
        .filter_map(|name| project.services.get(name))
        .collect();
    for service in &order {
        reconciler.start(service, &mut starts)?;
    }
    if options.wait {
        for service in order {
            reconciler.await_service(service);
        }
    }
    Ok(reconciler.plan)
}

/// Returns the start graph of the services that are on. What is off, or not there and not required, is not waited for.
pub fn start_graph(project: &Project) -> Result<StartGraph, GraphError> {
    StartGraph::new(project.services.iter().map(|(name, service)| {
        let mut waits_for: BTreeSet<&str> = service
            .depends_on
            .iter()
            .filter(|(dependency, how)| {
                how.required && !project.disabled_services.contains_key(*dependency)
                    || project.services.contains_key(*dependency)
            })
            .map(|(dependency, _)| dependency.as_str())
            .collect();
        waits_for.extend(
            references::of(service)
                .into_iter()
                .map(|reference| reference.service)
                .chain(references::links(service).map(|(linked, _)| linked))
                .filter(|referred| *referred != name && project.services.contains_key(*referred)),
        );
        (name.as_str(), waits_for)
    }))
}

fn check_container_names(project: &Project) -> Result<(), PlanError> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, service) in &project.services {
        if service.container_name.is_empty() {
            continue;
        }
        if let Some(other) = seen.insert(&service.container_name, name) {
            return Err(PlanError::ContainerNameTwice {
                service: name.clone(),
                name: service.container_name.clone(),
                other: other.to_owned(),
            });
        }
    }
    Ok(())
}

/// Returns the name of a service's container.
pub fn container_name(project: &str, service: &Service, number: u32, separator: &str) -> String {
    if service.container_name.is_empty() {
        format!("{project}{separator}{}{separator}{number}", service.name)
    } else {
        service.container_name.clone()
    }
}

struct Reconciler<'r> {
    project: &'r Project,
    observed: &'r Observed,
    options: &'r Options,
    plan: Plan,
    /// By key: the id of a network that is there, or the operation that creates it.
    networks: BTreeMap<String, Resource>,
    /// By key: the volume's name, and the operation that creates it.
    volumes: BTreeMap<String, Resource>,
    /// The containers of each service as they are going to be.
    containers: BTreeMap<String, Vec<Target>>,
    /// The operations after which a service's containers are as they are going to be.
    settled: BTreeMap<String, Vec<usize>>,
    /// Containers that an operation stops on the way.
    stopped: BTreeMap<String, usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Resource {
    /// Its id or name if it exists.
    existing: Option<String>,
    /// The operations to wait for before it can be used.
    after: Vec<usize>,
}

/// The operations that start each service, and those that wait for one.
#[derive(Default)]
struct Starts {
    of: BTreeMap<String, Vec<usize>>,
    waits: BTreeMap<(String, Condition, bool), usize>,
}

impl<'r> Reconciler<'r> {
    fn new(project: &'r Project, observed: &'r Observed, options: &'r Options) -> Self {
        let mut containers: BTreeMap<String, Vec<Target>> = BTreeMap::new();
        for container in observed.containers.iter().filter(|container| !container.one_off) {
            containers
                .entry(container.service.clone())
                .or_default()
                .push(Target::Existing(container.clone()));
        }
        Self {
            project,
            observed,
            options,
            plan: Plan::default(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            containers,
            settled: BTreeMap::new(),
            stopped: BTreeMap::new(),
        }
    }

    fn network(&mut self, key: &str, network: &Network) -> Result<(), PlanError> {
        let by_name: Vec<_> = self
            .observed
            .networks
            .iter()
            .filter(|found| found.name == network.name)
            .collect();
        if network.external {
            let found: Vec<_> = if by_name.is_empty() {
                // The name may be an id.
                self.observed
                    .networks
                    .iter()
                    .filter(|found| found.id == network.name)
                    .collect()
            } else {
                by_name
            };
            return match found.as_slice() {
                [] => Err(PlanError::ExternalNetwork(network.name.clone())),
                [found] => {
                    self.networks.insert(key.to_owned(), Resource::existing(&found.id));
                    Ok(())
                }
                _ => Err(PlanError::AmbiguousNetwork(network.name.clone())),
            };
        }
        let subject = format!("network {key}");
        let Some(found) = by_name.first() else {
            let create = Action::CreateNetwork { key: key.to_owned() };
            let create = self.plan.add(Stage::Create, create, subject, "not found", []);
            self.networks.insert(key.to_owned(), Resource::created(create));
            return Ok(());
        };
        match found.labels.get(labels::PROJECT) {
            None => self.plan.warnings.push(format!(
                "a network with name {} exists but was not created by compose.\nSet `external: true` to use an \
                 existing network",
                network.name
            )),
            Some(owner) if *owner != self.project.name => self.plan.warnings.push(format!(
                "a network with name {} exists but was not created for project \"{}\".\nSet `external: true` to use \
                 an existing network",
                network.name, self.project.name
            )),
            Some(_) => {}
        }
        let label = found.labels.get(labels::NETWORK).map_or("", String::as_str);
        if label != key {
            return Err(PlanError::NetworkLabel {
                name: network.name.clone(),
                found: label.to_owned(),
                expected: key.to_owned(),
            });
        }
        let hash = found.labels.get(labels::CONFIG_HASH).map_or("", String::as_str);
        if hash.is_empty() || hash == network_hash(network) {
            self.networks.insert(key.to_owned(), Resource::existing(&found.id));
            return Ok(());
        }
        let id = found.id.clone();
        self.replace_network(key, network, id);
        Ok(())
    }

    /// A network cannot be changed: its containers are stopped and let go, it is made anew, and they come back.
    fn replace_network(&mut self, key: &str, network: &Network, id: String) {
        let cause = format!("network {key} changed");
        let users: Vec<String> = self
            .project
            .services
            .values()
            .filter(|service| service.networks.contains_key(key))
            .map(|service| service.name.clone())
            .collect();
        let mut released = Vec::new();
        let mut connected = Vec::new();
        for service in users {
            let stops = self.stop_service(&service, &cause, self.options.timeout);
            for (container, stop) in stops {
                if container.networks.contains_key(&network.name) {
                    let disconnect = Action::Disconnect {
                        network: id.clone(),
                        container: container.clone(),
                    };
                    released.push(
                        self.plan
                            .add(Stage::Create, disconnect, subject(&container), &cause, [stop]),
                    );
                    connected.push(container);
                } else {
                    released.push(stop);
                }
            }
        }
        let remove = Action::RemoveNetwork {
            id,
            name: network.name.clone(),
            replaced: true,
        };
        let resource = format!("network {key}");
        let remove = self
            .plan
            .add(Stage::Create, remove, &resource, "configuration changed", released);
        let create = Action::CreateNetwork { key: key.to_owned() };
        let create = self
            .plan
            .add(Stage::Create, create, resource, "configuration changed", [remove]);
        let mut after = vec![create];
        for container in connected {
            let subject = subject(&container);
            let connect = Action::Connect {
                key: key.to_owned(),
                container,
            };
            after.push(self.plan.add(Stage::Create, connect, subject, &cause, [create]));
        }
        self.networks.insert(key.to_owned(), Resource { existing: None, after });
    }

    fn volume(&mut self, key: &str, volume: &Volume, confirm: &mut dyn FnMut(&str) -> bool) -> Result<(), PlanError> {
        let subject = format!("volume {key}");
        let Some(found) = self.observed.volumes.iter().find(|found| found.name == volume.name) else {
            if volume.external {
                return Err(PlanError::ExternalVolume(volume.name.clone()));
            }
            let create = Action::CreateVolume { key: key.to_owned() };
            let create = self.plan.add(Stage::Create, create, subject, "not found", []);
            self.volumes.insert(key.to_owned(), Resource::created(create));
            return Ok(());
        };
        self.volumes.insert(key.to_owned(), Resource::existing(&volume.name));
        if volume.external {
            return Ok(());
        }
        match found.labels.get(labels::PROJECT) {
            None => self.plan.warnings.push(format!(
                "volume \"{}\" already exists but was not created by Docker Compose. Use `external: true` to use an \
                 existing volume",
                volume.name
            )),
            Some(owner) if *owner != self.project.name => self.plan.warnings.push(format!(
                "volume \"{}\" already exists but was created for project \"{owner}\" (expected \"{}\"). Use \
                 `external: true` to use an existing volume",
                volume.name, self.project.name
            )),
            Some(_) => {}
        }
        let diverged = found
            .labels
            .get(labels::CONFIG_HASH)
            .is_some_and(|hash| *hash != volume_hash(volume));
        if diverged
            && confirm(&format!(
                "Volume \"{}\" exists but doesn't match configuration in compose file. Recreate (data will be lost)?",
                volume.name
            ))
        {
            self.replace_volume(key, volume);
        }
        Ok(())
    }

    /// A volume can only be removed when no container has it, stopped or not.
    fn replace_volume(&mut self, key: &str, volume: &Volume) {
        let cause = format!("volume {key} changed");
        let users: Vec<String> = self
            .project
            .services
            .values()
            .filter(|service| service.volumes.iter().any(|mount| mount.source == key))
            .map(|service| service.name.clone())
            .collect();
        let mut removed = Vec::new();
        for service in users {
            for (container, stop) in self.stop_service(&service, &cause, None) {
                let subject = subject(&container);
                let remove = Action::Remove {
                    container,
                    force: false,
                    volumes: false,
                    replaced: false,
                };
                removed.push(self.plan.add(Stage::Create, remove, subject, &cause, [stop]));
            }
            self.settled.entry(service.clone()).or_default().extend(&removed);
            self.containers.remove(&service);
        }
        let subject = format!("volume {key}");
        let remove = Action::RemoveVolume {
            name: volume.name.clone(),
            replaced: true,
        };
        let remove = self
            .plan
            .add(Stage::Create, remove, &subject, "configuration changed", removed);
        let create = Action::CreateVolume { key: key.to_owned() };
        let create = self
            .plan
            .add(Stage::Create, create, subject, "configuration changed", [remove]);
        self.volumes.insert(key.to_owned(), Resource::created(create));
    }

    /// Stops all containers of a service that are not stopped on the way already; returns each with its operation.
    fn stop_service(&mut self, service: &str, cause: &str, timeout: Option<i64>) -> Vec<(Container, usize)> {
        let mut stops = Vec::new();
        for target in self.containers.entry(service.to_owned()).or_default() {
            let Target::Existing(container) = target else {
                continue;
            };
            let stop = match self.stopped.get(&container.id) {
                Some(&stop) => stop,
                None => {
                    let stop = Action::Stop {
                        container: container.clone(),
                        timeout,
                        replaced: false,
                    };
                    let stop = self.plan.add(Stage::Create, stop, subject(container), cause, []);
                    self.stopped.insert(container.id.clone(), stop);
                    stop
                }
            };
            container.state = State::Exited;
            stops.push((container.clone(), stop));
        }
        stops
    }

    fn orphans(&mut self) {
        let orphans: Vec<&Container> = self
            .observed
            .containers
            .iter()
            .filter(|container| is_orphan(self.project, container))
            .collect();
        if orphans.is_empty() {
            return;
        }
        match self.options.orphans {
            Orphans::Ignore => {}
            Orphans::Warn => {
                let names: Vec<&str> = orphans.iter().map(|container| container.name.as_str()).collect();
                self.plan.warnings.push(format!(
                    "Found orphan containers ([{}]) for this project. If you removed or renamed this service in your \
                     compose file, you can run this command with the --remove-orphans flag to clean it up.",
                    names.join(" ")
                ));
            }
            Orphans::Remove => {
                for container in orphans {
                    add_stop_and_remove(&mut self.plan, container, None, false, "orphan", []);
                }
            }
        }
    }

    /// Decides about the containers of one service; those it waits for have been decided about.
    fn service(&mut self, service: &Service) -> Result<(), PlanError> {
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
                if container.state == State::Running {
                    let keep = Action::Keep {
                        container: container.clone(),
                    };
                    self.plan
                        .add(Stage::Create, keep, subject(&container), "up to date", []);
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
    fn identity(&self, service: &Service) -> Result<(Identity, Vec<usize>), PlanError> {
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

    fn image_id(&self, service: &Service) -> String {
        self.observed
            .images
            .get(&self.project.image_name(service, self.options.separator))
            .map(|image| image.id.clone())
            .unwrap_or_default()
    }

    /// Returns why the container must be replaced, if it must.
    fn divergence(
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
    fn replace(
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
    fn stop_dependents(&mut self, service: &Service) -> Vec<usize> {
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

    fn start(&mut self, service: &Service, starts: &mut Starts) -> Result<(), PlanError> {
        if service.replicas() == 0 {
            return Ok(());
        }
        let mut after = Vec::new();
        for (dependency, how) in &service.depends_on {
            let Some(target) = self.project.services.get(dependency) else {
                if how.required && !self.project.disabled_services.contains_key(dependency) {
                    return Err(PlanError::UnknownDependency(dependency.clone()));
                }
                continue;
            };
            let started = starts.of.get(dependency).cloned().unwrap_or_default();
            let Some(condition) = condition(&how.condition).filter(|_| target.replicas() > 0) else {
                after.extend(started);
                continue;
            };
            let wait = *starts
                .waits
                .entry((dependency.clone(), condition, how.required))
                .or_insert_with(|| {
                    let wait = Action::Wait {
                        service: dependency.clone(),
                        condition,
                        required: how.required,
                        dependent: service.name.clone(),
                    };
                    let cause = format!("{} waits for it", service.name);
                    self.plan
                        .add(Stage::Start, wait, format!("service:{dependency}"), cause, started)
                });
            after.push(wait);
        }
        if self.containers.values().all(Vec::is_empty) {
            return Err(PlanError::NothingToStart(service.name.clone()));
        }
        // Of a range of ports each replica takes the first that is free, so they come one after the other.
        let one_by_one = service.ports.iter().any(|port| port.published.contains('-'));
        // Who waits for this service waits for what it waits for too.
        let mut operations = after.clone();
        for target in self.containers.get(&service.name).into_iter().flatten() {
            let (number, cause) = match target {
                Target::Existing(container) if container.state == State::Running => continue,
                Target::Existing(container) => (container.number.unwrap_or(1), "not running"),
                Target::Created(_, replica) => (replica.number, "created"),
            };
            let subject = format!("service:{}:{number}", service.name);
            let start = Action::Start { target: target.clone() };
            let start = self.plan.add(Stage::Start, start, subject, cause, after.clone());
            operations.push(start);
            if one_by_one {
                after.push(start);
            }
        }
        starts.of.insert(service.name.clone(), operations);
        Ok(())
    }

    /// `up --wait`: a service that others wait to complete is waited for until it completes.
    fn await_service(&mut self, service: &Service) {
        if service.replicas() == 0 {
            return;
        }
        let completes = self.project.services.values().any(|dependent| {
            dependent
                .depends_on
                .get(&service.name)
                .is_some_and(|how| condition(&how.condition) == Some(Condition::CompletedSuccessfully))
        });
        let wait = Action::Wait {
            service: service.name.clone(),
            condition: if completes {
                Condition::CompletedSuccessfully
            } else {
                Condition::RunningOrHealthy
            },
            required: true,
            dependent: self.project.name.clone(),
        };
        self.plan.add(
            Stage::Wait,
            wait,
            format!("service:{}", service.name),
            "the user waits for it",
            [],
        );
    }
}

impl Resource {
    fn existing(id: &str) -> Self {
        Self {
            existing: Some(id.to_owned()),
            after: Vec::new(),
        }
    }

    fn created(operation: usize) -> Self {
        Self {
            existing: None,
            after: vec![operation],
        }
    }
}

/// What a container of a service is recognised by.
struct Identity {
    hash: String,
    image: String,
    /// Why no container that exists can be one, where that is so.
    renewed: Option<String>,
}

/// Returns the condition that has to be waited for; a dependency that only has to be started is none.
pub fn condition(text: &str) -> Option<Condition> {
    match text {
        "service_healthy" => Some(Condition::Healthy),
        "service_completed_successfully" => Some(Condition::CompletedSuccessfully),
        _ => None,
    }
}

/// Returns whether a container belongs to a service that the project does not know, or is a one-off one that ended.
pub fn is_orphan(project: &Project, container: &Container) -> bool {
    if container.one_off {
        return matches!(container.state, State::Exited | State::Dead);
    }
    !project.services.contains_key(&container.service) && !project.disabled_services.contains_key(&container.service)
}

/// Returns how a plan names an existing container.
pub fn subject(container: &Container) -> String {
    match container.number {
        Some(number) if !container.one_off => format!("service:{}:{number}", container.service),
        _ => format!("container {}", container.name),
    }
}

/// Adds the operations that stop and remove a container; returns the last.
pub fn add_stop_and_remove(
    plan: &mut Plan,
    container: &Container,
    timeout: Option<i64>,
    volumes: bool,
    cause: &str,
    after: impl IntoIterator<Item = usize>,
) -> usize {
    let stop = Action::Stop {
        container: container.clone(),
        timeout,
        replaced: false,
    };
    let stop = plan.add(Stage::Create, stop, subject(container), cause, after);
    let remove = Action::Remove {
        container: container.clone(),
        force: true,
        volumes,
        replaced: false,
    };
    plan.add(Stage::Create, remove, subject(container), cause, [stop])
}
