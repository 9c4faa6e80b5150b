//! The project as a whole, and the choice of some of its services.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::emit::{Attributes, sorted};
use super::{Config, Dialect, Emit, Extensions, Key, Model, Network, Places, Secret, Service, Value, Volume};

/// Why services cannot be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProjectError {
    #[error("no such service: {0}")]
    NoSuchService(String),
    #[error("no such service: {0}: not found")]
    NotFound(String),
    #[error("no such service: {0}: disabled")]
    Disabled(String),
}

/// Which services come along with those that were named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dependencies {
    /// Those that the named ones wait for, and so on.
    #[default]
    Include,
    /// Those that wait for the named ones, and so on.
    Dependents,
    /// None.
    Ignore,
}

/// A project: services and the resources they use.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Project {
    pub name: String,
    pub working_dir: PathBuf,
    /// Services that are on.
    pub services: BTreeMap<String, Service>,
    /// Services that are off because none of their profiles is on, or because they were not chosen.
    pub disabled_services: BTreeMap<String, Service>,
    pub networks: BTreeMap<String, Network>,
    pub volumes: BTreeMap<String, Volume>,
    pub secrets: BTreeMap<String, Secret>,
    pub configs: BTreeMap<String, Config>,
    pub models: BTreeMap<String, Model>,
    pub extensions: Extensions,
    /// The files the project was read from, absolute; `-` for standard input.
    pub compose_files: Vec<String>,
    /// The variables the files could use.
    pub environment: BTreeMap<String, String>,
    /// The profiles that are on.
    pub profiles: Vec<String>,
    /// Where attributes are written that others than the loader may refuse.
    pub places: Places,
}

impl Project {
    /// Returns a service that is on.
    pub fn service(&self, name: &str) -> Result<&Service, ProjectError> {
        match self.services.get(name) {
            Some(service) => Ok(service),
            None if self.disabled_services.contains_key(name) => Err(ProjectError::Disabled(name.into())),
            None => Err(ProjectError::NotFound(name.into())),
        }
    }

    /// Returns all services, those that are off too.
    pub fn all_services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().chain(self.disabled_services.values())
    }

    /// Turns services on and off by profiles; `*` turns on all.
    pub fn enable_profiles(&mut self, profiles: &[String]) {
        let everything = profiles.iter().any(|profile| profile == "*");
        let is_on = |service: &Service| everything || service.has_profile(profiles);
        // Most services stay where they are; moving them all costs more than looking at them.
        let off: Vec<_> = self.services.extract_if(.., |_, service| !is_on(service)).collect();
        let on: Vec<_> = self
            .disabled_services
            .extract_if(.., |_, service| is_on(service))
            .collect();
        self.services.extend(on);
        self.disabled_services.extend(off);
        self.profiles = profiles.to_vec();
    }

    /// Turns on the profiles of the services named, so that naming a service is enough to use it.
    pub fn enable_services(&mut self, names: &[String]) {
        let mut profiles = self.profiles.clone();
        for name in names {
            if let Some(service) = self.disabled_services.get(name) {
                profiles.extend(service.profiles.iter().cloned());
            }
        }
        if profiles != self.profiles {
            self.enable_profiles(&profiles);
        }
    }

    /// Turns a service off; nothing waits for it any more.
    pub fn disable_service(&mut self, name: &str) {
        for service in self.services.values_mut() {
            service.depends_on.remove(name);
        }
        if let Some(service) = self.services.remove(name) {
            self.disabled_services.insert(name.to_owned(), service);
        }
    }

    /// Returns the services named and what comes along with them, each after those it waits for.
    pub fn closure(&self, names: &[String], dependencies: Dependencies) -> Result<Vec<String>, ProjectError> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        // Children are pushed before their parent is emitted; a stack of our own, since chains can be long.
        enum Step<'p> {
            Enter(&'p str),
            Leave(&'p str),
        }
        let mut stack: Vec<Step<'_>> = Vec::new();
        if let Some(unknown) = names.iter().find(|name| !self.services.contains_key(*name)) {
            return Err(ProjectError::NoSuchService(unknown.clone()));
        }
        stack.extend(names.iter().rev().map(|name| Step::Enter(name)));
        while let Some(step) = stack.pop() {
            let name = match step {
                Step::Leave(name) => {
                    order.push(name.to_owned());
                    continue;
                }
                Step::Enter(name) => name,
            };
            let Some(service) = self.services.get(name) else {
                continue;
            };
            if !seen.insert(name) {
                continue;
            }
            stack.push(Step::Leave(name));
            match dependencies {
                Dependencies::Ignore => {}
                Dependencies::Include => {
                    for (dependency, how) in service.depends_on.iter().rev() {
                        if how.required && !self.services.contains_key(dependency) {
                            return Err(ProjectError::NoSuchService(dependency.clone()));
                        }
                        stack.push(Step::Enter(dependency));
                    }
                }
                Dependencies::Dependents => {
                    for (dependent, other) in self.services.iter().rev() {
                        if other.depends_on.contains_key(name) {
                            stack.push(Step::Enter(dependent));
                        }
                    }
                }
            }
        }
        Ok(order)
    }

    /// Turns off every service that was neither named nor comes along; no names choose all.
    pub fn with_selected_services(
        mut self,
        names: &[String],
        dependencies: Dependencies,
    ) -> Result<Project, ProjectError> {
        if names.is_empty() {
            return Ok(self);
        }
        let chosen: BTreeSet<String> = self.closure(names, dependencies)?.into_iter().collect();
        for (name, mut service) in std::mem::take(&mut self.services) {
            if chosen.contains(&name) {
                service.depends_on.retain(|dependency, _| chosen.contains(dependency));
                self.services.insert(name, service);
            } else {
                self.disabled_services.insert(name, service);
            }
        }
        Ok(self)
    }

    /// Forgets the networks, volumes, secrets, configs and models that no service uses.
    pub fn drop_unused_resources(&mut self) {
        let mut networks = BTreeSet::new();
        let mut volumes = BTreeSet::new();
        let mut secrets = BTreeSet::new();
        let mut configs = BTreeSet::new();
        let mut models = BTreeSet::new();
        for service in self.services.values() {
            networks.extend(service.networks.keys());
            volumes.extend(
                service
                    .volumes
                    .iter()
                    .filter(|mount| mount.r#type == "volume")
                    .map(|mount| &mount.source),
            );
            secrets.extend(service.secrets.iter().map(|secret| &secret.source));
            if let Some(build) = &service.build {
                secrets.extend(build.secrets.iter().map(|secret| &secret.source));
            }
            configs.extend(service.configs.iter().map(|config| &config.source));
            models.extend(service.models.keys());
        }
        self.networks.retain(|name, _| networks.contains(name));
        self.volumes.retain(|name, _| volumes.contains(name));
        self.secrets.retain(|name, _| secrets.contains(name));
        self.configs.retain(|name, _| configs.contains(name));
        self.models.retain(|name, _| models.contains(name));
    }

    /// Returns the image a service's containers are made from: its own name, or the one given to what is built.
    pub fn image_name(&self, service: &Service, separator: &str) -> String {
        match service.image.as_str() {
            "" => format!("{}{separator}{}", self.name, service.name),
            image => image.to_owned(),
        }
    }
}

impl Emit for Project {
    fn is_empty(&self) -> bool {
        false
    }

    // compose-go types/project.go: MarshalYAML keeps the order of the fields, MarshalJSON goes through a sorted map.
    fn emit(&self, dialect: Dialect) -> Value {
        let mut attributes = Attributes::new(dialect);
        attributes.add(Key::new("name"), &self.name);
        attributes.add(Key::new("services").kept(), &self.services);
        attributes.add(Key::new("networks"), &self.networks);
        attributes.add(Key::new("volumes"), &self.volumes);
        attributes.add(Key::new("secrets"), &self.secrets);
        attributes.add(Key::new("configs"), &self.configs);
        // docker compose forgets the models when it writes JSON.
        if dialect == Dialect::Yaml {
            attributes.add(Key::new("models"), &self.models);
        }
        attributes.add(Key::EXTENSIONS, &self.extensions);
        match (dialect, attributes.finish()) {
            (Dialect::Json, Value::Map(mut entries)) => {
                if let Value::Map(extensions) = self.extensions.emit(dialect).with_null_lists() {
                    entries.extend(extensions);
                }
                sorted(dialect, entries)
            }
            (_, value) => value,
        }
    }
}

impl serde::Serialize for Project {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.emit(Dialect::Json).serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Dependency;

    fn project(edges: &[(&str, &[&str])]) -> Project {
        let mut project = Project::default();
        for (name, dependencies) in edges {
            let depends_on = dependencies
                .iter()
                .map(|name| {
                    let dependency = Dependency {
                        required: true,
                        ..Dependency::default()
                    };
                    ((*name).to_owned(), dependency)
                })
                .collect();
            let service = Service {
                name: (*name).into(),
                depends_on,
                ..Service::default()
            };
            project.services.insert((*name).into(), service);
        }
        project
    }

    #[test]
    fn choosing_a_service_brings_what_it_waits_for() {
        let project = project(&[("a", &["b"]), ("b", &["c"]), ("c", &[]), ("d", &[])]);
        let chosen = project
            .with_selected_services(&["a".into()], Dependencies::Include)
            .unwrap();
        assert_eq!(chosen.services.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(chosen.disabled_services.contains_key("d"));
    }

    #[test]
    fn without_dependencies_nothing_else_comes_and_nothing_is_waited_for() {
        let project = project(&[("a", &["b"]), ("b", &[])]);
        let chosen = project
            .with_selected_services(&["a".into()], Dependencies::Ignore)
            .unwrap();
        assert!(chosen.services["a"].depends_on.is_empty());
        assert_eq!(chosen.services.len(), 1);
    }

    #[test]
    fn an_unknown_service_is_refused() {
        let error = project(&[]).closure(&["x".into()], Dependencies::Include);
        assert_eq!(error, Err(ProjectError::NoSuchService("x".into())));
    }

    #[test]
    fn naming_a_service_turns_its_profiles_on() {
        let mut project = project(&[("a", &[])]);
        project.services.get_mut("a").unwrap().profiles = vec!["p".into()];
        project.enable_profiles(&[]);
        assert!(project.services.is_empty());
        project.enable_services(&["a".into()]);
        assert_eq!(project.service("a").unwrap().name, "a");
    }
}
