//! The graph of services and what each waits for.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::Direction::{self, Incoming, Outgoing};
use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};

/// Why a project has no start order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Services wait for each other, so none of them could ever start.
    #[error("dependency cycle detected: {}", .0.join(" -> "))]
    Cycle(Vec<String>),
    /// A service waits for one that the project does not define.
    #[error("service {service:?} depends on undefined service {dependency:?}")]
    Undefined { service: String, dependency: String },
}

/// Services and the services they wait for; never a cycle.
///
/// An edge points from a dependency to its dependent, so a topological walk is a start order and its reverse is a stop
/// order.
#[derive(Debug, Clone)]
pub struct StartGraph {
    graph: DiGraph<String, ()>,
    nodes: BTreeMap<String, NodeIndex>,
    order: Vec<NodeIndex>,
}

impl StartGraph {
    /// Builds the graph from each service's name and the names of the services it waits for.
    pub fn new<'a, D>(services: impl IntoIterator<Item = (&'a str, D)>) -> Result<Self, GraphError>
    where
        D: IntoIterator<Item = &'a str>,
    {
        let mut graph = DiGraph::new();
        let services: BTreeMap<&str, BTreeSet<&str>> = services
            .into_iter()
            .map(|(name, dependencies)| (name, dependencies.into_iter().collect()))
            .collect();
        let nodes: BTreeMap<String, NodeIndex> = services
            .keys()
            .map(|name| ((*name).to_owned(), graph.add_node((*name).to_owned())))
            .collect();
        for (service, dependencies) in &services {
            for dependency in dependencies {
                let Some(&from) = nodes.get(*dependency) else {
                    return Err(GraphError::Undefined {
                        service: (*service).to_owned(),
                        dependency: (*dependency).to_owned(),
                    });
                };
                graph.add_edge(from, nodes[*service], ());
            }
        }
        match toposort(&graph, None) {
            Ok(order) => Ok(Self { graph, nodes, order }),
            // `toposort` names one node of the cycle; a person needs the whole of it.
            Err(_) => Err(GraphError::Cycle(first_cycle(&services))),
        }
    }

    /// Returns the services, each after everything it waits for.
    pub fn start_order(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.order.iter().map(|&node| self.graph[node].as_str())
    }

    /// Returns the services that `service` itself waits for, sorted.
    pub fn dependencies(&self, service: &str) -> Vec<&str> {
        self.neighbours(service, Incoming)
    }

    /// Returns the services that themselves wait for `service`, sorted.
    pub fn dependents(&self, service: &str) -> Vec<&str> {
        self.neighbours(service, Outgoing)
    }

    /// Returns `services` and everything they wait for, directly or not.
    pub fn with_dependencies<'a>(&'a self, services: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
        self.closure(services, Incoming)
    }

    /// Returns `services` and everything that waits for them, directly or not.
    pub fn with_dependents<'a>(&'a self, services: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
        self.closure(services, Outgoing)
    }

    fn neighbours(&self, service: &str, direction: Direction) -> Vec<&str> {
        let Some(&node) = self.nodes.get(service) else {
            return Vec::new();
        };
        let mut names: Vec<&str> = self
            .graph
            .neighbors_directed(node, direction)
            .map(|node| self.graph[node].as_str())
            .collect();
        names.sort_unstable();
        names
    }

    fn closure<'a>(&'a self, services: impl IntoIterator<Item = &'a str>, direction: Direction) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        let mut pending: Vec<NodeIndex> = services
            .into_iter()
            .filter_map(|service| self.nodes.get(service).copied())
            .collect();
        while let Some(node) = pending.pop() {
            if reached.insert(self.graph[node].as_str()) {
                pending.extend(self.graph.neighbors_directed(node, direction));
            }
        }
        reached
    }
}

/// Finds the cycle that a walk in name order meets first, as compose-go's graph/cycle.go does, and closes it:
/// `a -> b -> a`.
fn first_cycle(services: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<String> {
    let mut harmless = BTreeSet::new();
    for service in services.keys() {
        let mut path = Vec::new();
        if let Some(cycle) = search_cycle(services, service, &mut path, &mut harmless) {
            return cycle;
        }
    }
    Vec::new()
}

/// Walks depth first without recursion: a chain may be as long as the file.
fn search_cycle<'a>(
    services: &'a BTreeMap<&'a str, BTreeSet<&'a str>>,
    start: &'a str,
    path: &mut Vec<(&'a str, std::collections::btree_set::Iter<'a, &'a str>)>,
    harmless: &mut BTreeSet<&'a str>,
) -> Option<Vec<String>> {
    if harmless.contains(start) {
        return None;
    }
    path.push((start, services.get(start)?.iter()));
    while let Some((service, dependencies)) = path.last_mut() {
        let Some(&next) = dependencies.next() else {
            harmless.insert(service);
            path.pop();
            continue;
        };
        if let Some(first) = path.iter().position(|(seen, _)| *seen == next) {
            let mut cycle: Vec<String> = path[first..].iter().map(|(name, _)| (*name).to_owned()).collect();
            cycle.push(next.to_owned());
            return Some(cycle);
        }
        if !harmless.contains(next) {
            path.push((next, services.get(next)?.iter()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads `web: db cache, db, cache: db`.
    fn graph(text: &str) -> Result<StartGraph, GraphError> {
        StartGraph::new(text.split(", ").map(|service| {
            let (name, dependencies) = service.split_once(": ").unwrap_or((service, ""));
            (name, dependencies.split_whitespace())
        }))
    }

    #[test]
    fn a_dependency_starts_before_its_dependent() {
        let graph = graph("web: db cache, db, cache: db").unwrap();
        assert_eq!(graph.start_order().collect::<Vec<_>>(), ["db", "cache", "web"]);
    }

    #[test]
    fn a_cycle_is_shown_whole() {
        for (services, cycle) in [
            ("a: b, b: a", "a -> b -> a"),
            ("a: c, b: c, c: b", "c -> b -> c"),
            ("a: a", "a -> a"),
            ("x, a: x b, b: x c, c: a", "a -> b -> c -> a"),
        ] {
            assert_eq!(
                graph(services).unwrap_err().to_string(),
                format!("dependency cycle detected: {cycle}")
            );
        }
    }

    #[test]
    fn an_undefined_dependency_is_named() {
        assert_eq!(
            graph("web: db").unwrap_err().to_string(),
            "service \"web\" depends on undefined service \"db\""
        );
    }

    #[test]
    fn neighbours_and_closures_follow_the_edges() {
        let graph = graph("web: app, app: db, db, other").unwrap();
        assert_eq!(graph.dependencies("web"), ["app"]);
        assert_eq!(graph.dependents("db"), ["app"]);
        assert_eq!(
            graph.with_dependencies(["app"]).into_iter().collect::<Vec<_>>(),
            ["app", "db"]
        );
        assert_eq!(
            graph.with_dependents(["app"]).into_iter().collect::<Vec<_>>(),
            ["app", "web"]
        );
    }

    proptest! {
        /// Whatever the edges: either an order in which every dependency comes first, or a cycle that is one.
        #[test]
        fn every_graph_has_an_order_or_a_cycle(edges in prop::collection::vec((0u8..12, 0u8..12), 0..40)) {
            let names: Vec<String> = (0..12).map(|number| format!("s{number:02}")).collect();
            let mut services: BTreeMap<&str, Vec<&str>> = names.iter().map(|name| (name.as_str(), vec![])).collect();
            for (service, dependency) in edges {
                services
                    .get_mut(names[usize::from(service)].as_str())
                    .expect("every name is a key")
                    .push(&names[usize::from(dependency)]);
            }
            match StartGraph::new(services.iter().map(|(name, dependencies)| (*name, dependencies.clone()))) {
                Ok(graph) => {
                    let order: Vec<&str> = graph.start_order().collect();
                    for (service, dependencies) in &services {
                        let at = order.iter().position(|name| name == service);
                        for dependency in dependencies {
                            prop_assert!(order.iter().position(|name| name == dependency) < at);
                        }
                    }
                }
                Err(GraphError::Cycle(cycle)) => {
                    prop_assert_eq!(cycle.first(), cycle.last());
                    for pair in cycle.windows(2) {
                        prop_assert!(services[pair[0].as_str()].contains(&pair[1].as_str()));
                    }
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }
}
