//! Plans for what is there already: stop, start, restart, kill, pause, remove, and taking the whole project down.
//!
//! Pure, as [`mod@super::reconcile`] is.

use std::collections::{BTreeMap, BTreeSet};

use super::observed::{Container, Observed, State};
use super::operation::{Action, Plan, Stage};
use super::reconcile::{PlanError, add_stop_and_remove, condition, is_orphan, start_graph, subject};
use crate::client::labels;
use crate::graph::StartGraph;
use crate::model::Project;

/// The wishes of `down`.
#[derive(Debug, Clone, Default)]
pub struct DownOptions {
    /// The services to take down, with those that depend on them; empty: all, and what they share.
    pub services: BTreeSet<String>,
    pub timeout: Option<i64>,
    pub volumes: bool,
    pub remove_orphans: bool,
    /// The images to remove.
    pub images: Vec<String>,
}

/// Plans to take a project down: containers in reverse start order, then what they shared.
pub fn down(project: &Project, observed: &Observed, options: &DownOptions) -> Result<Plan, PlanError> {
    let graph = start_graph(project)?;
    let mut plan = Plan::default();
    let chosen = chosen(&graph, &options.services, true);
    let mut ends = reverse(&mut plan, &graph, &chosen, |plan, service, after| {
        // With orphans go one-off containers, even those that run; failed steps were only kept to be looked at.
        let one_off = observed.containers.iter().filter(|container| {
            let goes = options.remove_orphans || !container.label(labels::HOOK).is_empty();
            goes && container.one_off && container.service == service
        });
        observed
            .of_service(service)
            .into_iter()
            .chain(one_off)
            .map(|container| {
                add_stop_and_remove(
                    plan,
                    container,
                    options.timeout,
                    options.volumes,
                    "down",
                    after.iter().copied(),
                )
            })
            .collect()
    });
    if options.remove_orphans {
        for container in observed
            .containers
            .iter()
            .filter(|container| is_orphan(project, container))
            .filter(|container| !container.one_off || !chosen.contains(container.service.as_str()))
        {
            ends.push(add_stop_and_remove(
                &mut plan,
                container,
                options.timeout,
                false,
                "orphan",
                [],
            ));
        }
    }
    for (key, network) in &project.networks {
        if network.external {
            continue;
        }
        for found in &observed.networks {
            let is_ours = found.name == network.name
                && found.labels.get(labels::PROJECT) == Some(&project.name)
                && found.labels.get(labels::NETWORK) == Some(key);
            if is_ours {
                let remove = Action::RemoveNetwork {
                    id: found.id.clone(),
                    name: found.name.clone(),
                    replaced: false,
                };
                plan.add(
                    Stage::Create,
                    remove,
                    format!("network {key}"),
                    "down",
                    ends.iter().copied(),
                );
            }
        }
    }
    for image in &options.images {
        let remove = Action::RemoveImage {
            reference: image.clone(),
        };
        plan.add(
            Stage::Create,
            remove,
            format!("image {image}"),
            "down",
            ends.iter().copied(),
        );
    }
    if options.volumes {
        for (key, volume) in project.volumes.iter().filter(|(_, volume)| !volume.external) {
            if observed.volumes.iter().any(|found| found.name == volume.name) {
                let remove = Action::RemoveVolume {
                    name: volume.name.clone(),
                    replaced: false,
                };
                plan.add(
                    Stage::Create,
                    remove,
                    format!("volume {key}"),
                    "down",
                    ends.iter().copied(),
                );
            }
        }
    }
    Ok(plan)
}

/// Plans to stop services in reverse start order; none named: all.
pub fn stop(
    project: &Project,
    observed: &Observed,
    services: &BTreeSet<String>,
    timeout: Option<i64>,
) -> Result<Plan, PlanError> {
    let graph = start_graph(project)?;
    let mut plan = Plan::default();
    let chosen = chosen(&graph, services, false);
    reverse(&mut plan, &graph, &chosen, |plan, service, after| {
        observed
            .of_service(service)
            .into_iter()
            .map(|container| {
                let stop = Action::Stop {
                    container: container.clone(),
                    timeout,
                    replaced: false,
                };
                plan.add(Stage::Create, stop, subject(container), "stop", after.iter().copied())
            })
            .collect()
    });
    Ok(plan)
}

/// Plans to restart services, each after what it depends on, and whatever wants to be restarted with them.
pub fn restart(
    project: &Project,
    observed: &Observed,
    services: &BTreeSet<String>,
    no_dependencies: bool,
    timeout: Option<i64>,
) -> Result<Plan, PlanError> {
    // Only dependencies that are restarted together matter here.
    let edges = project.services.iter().map(|(name, service)| {
        let waits_for = service
            .depends_on
            .iter()
            .filter(|(dependency, how)| how.restart && project.services.contains_key(*dependency))
            .map(|(dependency, _)| dependency.as_str());
        (name.as_str(), waits_for)
    });
    let graph = StartGraph::new(edges)?;
    let chosen = if no_dependencies {
        chosen(&graph, services, false)
    } else {
        chosen(&graph, services, true)
    };
    let mut plan = Plan::default();
    let mut ends: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut waits = BTreeMap::new();
    for service in graph.start_order().filter(|service| chosen.contains(service)) {
        let mut after = Vec::new();
        for dependency in graph
            .dependencies(service)
            .into_iter()
            .filter(|name| chosen.contains(name))
        {
            let restarted = ends.get(dependency).cloned().unwrap_or_default();
            let how = &project.services[service].depends_on[dependency];
            match condition(&how.condition).filter(|_| project.services[dependency].replicas() > 0) {
                None => after.extend(restarted),
                Some(condition) => {
                    after.push(*waits.entry((dependency, condition, how.required)).or_insert_with(|| {
                        let wait = Action::Wait {
                            service: dependency.to_owned(),
                            condition,
                            required: how.required,
                            dependent: service.to_owned(),
                        };
                        let cause = format!("{service} waits for it");
                        plan.add(Stage::Start, wait, format!("service:{dependency}"), cause, restarted)
                    }))
                }
            }
        }
        let restarts: Vec<usize> = observed
            .of_service(service)
            .into_iter()
            .map(|container| {
                let restart = Action::Restart {
                    container: container.clone(),
                    timeout,
                };
                plan.add(Stage::Start, restart, subject(container), "restart", after.clone())
            })
            .collect();
        ends.insert(service, restarts);
    }
    Ok(plan)
}

/// Plans the same action for containers that do not have to wait for each other.
pub fn for_each<'c>(
    containers: impl IntoIterator<Item = &'c Container>,
    cause: &str,
    action: impl Fn(Container) -> Action,
) -> Plan {
    let mut plan = Plan::default();
    for container in containers {
        plan.add(Stage::Create, action(container.clone()), subject(container), cause, []);
    }
    plan
}

/// Returns the containers of services of the project that are up, paused ones too.
pub fn running<'o>(
    project: &'o Project,
    observed: &'o Observed,
    services: &'o BTreeSet<String>,
) -> impl Iterator<Item = &'o Container> {
    observed.containers.iter().filter(|container| {
        matches!(container.state, State::Running | State::Paused | State::Restarting)
            && project.services.contains_key(&container.service)
            && (services.is_empty() || services.contains(&container.service))
    })
}

fn chosen<'g>(graph: &'g StartGraph, services: &'g BTreeSet<String>, with_dependents: bool) -> BTreeSet<&'g str> {
    if services.is_empty() {
        graph.start_order().collect()
    } else if with_dependents {
        graph.with_dependents(services.iter().map(String::as_str))
    } else {
        services.iter().map(String::as_str).collect()
    }
}

/// Adds operations for services, each after those of the services that depend on it; returns all ends.
fn reverse<'g>(
    plan: &mut Plan,
    graph: &'g StartGraph,
    chosen: &BTreeSet<&str>,
    mut add: impl FnMut(&mut Plan, &str, &[usize]) -> Vec<usize>,
) -> Vec<usize> {
    let mut ends: BTreeMap<&'g str, Vec<usize>> = BTreeMap::new();
    let mut all = Vec::new();
    for service in graph.start_order().rev() {
        let after: Vec<usize> = graph
            .dependents(service)
            .into_iter()
            .flat_map(|dependent| ends.get(dependent).cloned().unwrap_or_default())
            .collect();
        let mut own = if chosen.contains(service) {
            add(plan, service, &after)
        } else {
            Vec::new()
        };
        all.extend(&own);
        // A service without containers still stands between its neighbours.
        if own.is_empty() {
            own = after;
        }
        ends.insert(service, own);
    }
    all
}
