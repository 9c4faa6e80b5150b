//! What has to be done so that a project is on the engine as its files say: the decisions of `up` and `create`.
//!
//! Pure: takes the project, the snapshot and the wishes of the command line, and returns a [`Plan`].
// The rules are those of docker compose 2.40.3: pkg/compose/create.go and convergence.go.

mod resources;
mod services;
mod starts;

use std::collections::{BTreeMap, BTreeSet};

use super::create::references;
use super::observed::{Container, Observed, State};
use super::operation::{Action, Condition, Plan, Stage, Target};
use crate::client::labels;
use crate::graph::{GraphError, StartGraph};
use crate::model::{Project, Service};
use starts::Starts;

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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    let graph = start_graph(project)?;
    let mut reconciler = Reconciler::new(project, observed, options);
    for (key, network) in &project.networks {
        match reconciler.network(key, network) {
            // Whose network it is has been warned of by then.
            Err(foreign @ PlanError::NetworkLabel { .. }) => {
                reconciler.plan.refusal = Some(foreign);
                return Ok(reconciler.plan);
            }
            other => other?,
        }
    }
    for (key, volume) in &project.volumes {
        match reconciler.volume(key, volume, confirm) {
            // The networks are made by then.
            Err(missing @ PlanError::ExternalVolume(_)) => {
                reconciler.plan.refusal = Some(missing);
                return Ok(reconciler.plan);
            }
            other => other?,
        }
    }
    reconciler.orphans();
    let surroundings = reconciler.plan.operations.len();
    let order = with_containers(project, &graph);
    for service in &order {
        match reconciler.service(service) {
            // What is around containers is made by then; the others are looked at, but nothing of them is changed.
            Err(refusal @ PlanError::ScaledContainerName { .. }) => reconciler.plan.refusal = Some(refusal),
            other => other?,
        }
    }
    if let Some(PlanError::ScaledContainerName { service, .. }) = &reconciler.plan.refusal {
        let unreached = graph.with_dependents([service.as_str()]);
        let mut index = 0;
        reconciler.plan.operations.retain(|operation| {
            index += 1;
            match &operation.action {
                Action::Keep { container } => !unreached.contains(container.service.as_str()),
                _ => index <= surroundings,
            }
        });
        return Ok(reconciler.plan);
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
    let order = with_containers(project, &graph);
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

/// Returns the services that have containers, in start order: what a provider provides has none.
fn with_containers<'p>(project: &'p Project, graph: &'p StartGraph) -> Vec<&'p Service> {
    graph
        .start_order()
        .filter_map(|name| project.services.get(name))
        .filter(|service| service.provider.is_none())
        .collect()
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
