//! A project as its containers, networks and volumes remember it: for commands that are given a name and no file.

use crate::client::labels;
use crate::model::{Dependency, Network, Project, Service, Volume};

use super::observed::Observed;

/// Returns the project that the labels tell of.
// docker/compose pkg/compose/compose.go: projectFromName, actualNetworks, actualVolumes
pub fn project(name: &str, observed: &Observed) -> Project {
    let mut project = Project {
        name: name.to_owned(),
        ..Project::default()
    };
    for container in observed.containers.iter().filter(|container| !container.one_off) {
        let service = project
            .services
            .entry(container.service.clone())
            .or_insert_with(|| Service {
                name: container.service.clone(),
                image: container.image.clone(),
                scale: Some(0),
                ..Service::default()
            });
        service.scale = service.scale.map(|scale| scale + 1);
        for dependency in container.label(labels::DEPENDS_ON).split(',') {
            let mut parts = dependency.split(':');
            let Some(name) = parts.next().filter(|name| !name.is_empty()) else {
                continue;
            };
            let condition = parts.next().unwrap_or("service_started").to_owned();
            let restart = parts.next() == Some("true");
            service.depends_on.insert(
                name.to_owned(),
                Dependency {
                    condition,
                    restart,
                    required: true,
                    ..Dependency::default()
                },
            );
        }
    }
    // What a service waited for may be gone.
    let known: Vec<String> = project.services.keys().cloned().collect();
    for service in project.services.values_mut() {
        service.depends_on.retain(|dependency, _| known.contains(dependency));
    }
    for network in &observed.networks {
        if let Some(key) = network.labels.get(labels::NETWORK) {
            project.networks.insert(
                key.clone(),
                Network {
                    name: network.name.clone(),
                    ..Network::default()
                },
            );
        }
    }
    for volume in &observed.volumes {
        if let Some(key) = volume.labels.get(labels::VOLUME) {
            project.volumes.insert(
                key.clone(),
                Volume {
                    name: volume.name.clone(),
                    ..Volume::default()
                },
            );
        }
    }
    project
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::observed::Container;

    #[test]
    fn dependencies_are_remembered_where_they_still_exist() {
        let container = |service: &str, depends_on: &str| Container {
            service: service.into(),
            labels: [(labels::DEPENDS_ON.to_owned(), depends_on.to_owned())].into(),
            ..Container::default()
        };
        let observed = Observed {
            containers: vec![
                container("web", "db:service_healthy:true,gone:service_started:false"),
                container("web", ""),
                container("db", ""),
            ],
            ..Observed::default()
        };
        let project = project("p", &observed);
        let web = &project.services["web"];
        assert_eq!(web.replicas(), 2);
        assert_eq!(web.depends_on.keys().collect::<Vec<_>>(), ["db"]);
        assert!(web.depends_on["db"].restart);
        assert_eq!(web.depends_on["db"].condition, "service_healthy");
    }
}
