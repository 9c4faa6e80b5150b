//! What a service takes from the containers of other services, and how such a reference becomes a container's id.

use crate::model::Service;

/// A reference to another service's container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference<'s> {
    /// The other service.
    pub service: &'s str,
    /// What is shared, in the words of an error message.
    pub what: &'static str,
}

/// Returns the services whose containers this one's containers are made with.
pub fn of(service: &Service) -> Vec<Reference<'_>> {
    let volumes = service
        .volumes_from
        .iter()
        .filter_map(|from| volume_provider(from))
        .map(|service| Reference {
            service,
            what: "volume",
        });
    let namespaces = [
        (&service.network_mode, "network namespace"),
        (&service.ipc, "IPC namespace"),
        (&service.pid, "PID namespace"),
    ]
    .into_iter()
    .filter_map(|(mode, what)| {
        Some(Reference {
            service: mode.strip_prefix("service:")?,
            what,
        })
    });
    volumes.chain(namespaces).collect()
}

/// Returns whether the service refers to containers by their own names, which the engine looks for.
pub fn names_containers(service: &Service) -> bool {
    let modes = [&service.network_mode, &service.ipc, &service.pid];
    modes
        .into_iter()
        .chain(&service.volumes_from)
        .any(|text| text.starts_with("container:"))
        || !service.external_links.is_empty()
}

/// Returns the linked services, each with the whole text of the link.
pub fn links(service: &Service) -> impl Iterator<Item = (&str, &str)> {
    service
        .links
        .iter()
        .map(|link| (link.split(':').next().unwrap_or_default(), link.as_str()))
}

/// `volumes_from` names services, and containers as `container:NAME`.
fn volume_provider(from: &str) -> Option<&str> {
    match from.split(':').next()? {
        "container" => None,
        service => Some(service),
    }
}

/// Puts the id of `provider`'s container where the service refers to it.
pub fn resolve(service: &mut Service, provider: &str, id: &str) {
    for mode in [&mut service.network_mode, &mut service.ipc, &mut service.pid] {
        if mode.strip_prefix("service:") == Some(provider) {
            *mode = format!("container:{id}");
        }
    }
    for from in &mut service.volumes_from {
        if volume_provider(from) == Some(provider) {
            *from = with_access(from, provider, id);
        }
    }
}

/// Puts the container's name where `volumes_from` says `container:NAME`.
pub fn resolve_containers(service: &mut Service) {
    for from in &mut service.volumes_from {
        if let Some(container) = from.strip_prefix("container:") {
            *from = container.to_owned();
        }
    }
}

/// `service:ro` stays read-only.
fn with_access(from: &str, provider: &str, id: &str) -> String {
    match from.strip_prefix(provider).and_then(|rest| rest.strip_prefix(':')) {
        Some(access) => format!("{id}:{access}"),
        None => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        Service {
            name: "app".into(),
            network_mode: "service:vpn".into(),
            pid: "host".into(),
            volumes_from: vec!["data:ro".into(), "container:other".into()],
            links: vec!["db:database".into()],
            ..Service::default()
        }
    }

    #[test]
    fn references_are_found() {
        let service = service();
        let found: Vec<_> = of(&service)
            .into_iter()
            .map(|found| (found.service, found.what))
            .collect();
        assert_eq!(found, [("data", "volume"), ("vpn", "network namespace")]);
        assert_eq!(links(&service).collect::<Vec<_>>(), [("db", "db:database")]);
    }

    #[test]
    fn references_become_ids() {
        let mut service = service();
        resolve(&mut service, "vpn", "1234");
        resolve(&mut service, "data", "5678");
        resolve_containers(&mut service);
        assert_eq!(service.network_mode, "container:1234");
        assert_eq!(service.pid, "host");
        assert_eq!(service.volumes_from, ["5678:ro", "other"]);
    }
}
