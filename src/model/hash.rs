//! The configuration hashes that docker compose stores in labels, so that either tool knows the other's containers.
// docker/compose pkg/compose/hash.go

use sha2::{Digest, Sha256};

use super::{Dialect, Emit, Network, Service, Value, Volume};

/// Returns the hash of what makes a service's containers differ; how many there are, how the image is made and what
/// they wait for does not.
pub fn service_hash(service: &Service) -> String {
    let mut service = service.clone();
    service.build = None;
    service.pull_policy.clear();
    service.scale = None;
    if let Some(deploy) = &mut service.deploy {
        deploy.replicas = None;
    }
    service.depends_on.clear();
    service.profiles.clear();
    digest(&service.emit(Dialect::Json))
}

/// Returns the hash of a network's configuration.
pub fn network_hash(network: &Network) -> String {
    digest(&network.emit(Dialect::Json))
}

/// Returns the hash of a volume's configuration.
pub fn volume_hash(volume: &Volume) -> String {
    let mut volume = volume.clone();
    if volume.driver.is_empty() {
        volume.driver = "local".into();
    }
    digest(&volume.emit(Dialect::Json))
}

fn digest(value: &Value) -> String {
    let hash = Sha256::digest(value.to_json().as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Both hashes were printed by `docker compose config --hash '*'`, version 2.40.3.
    #[test]
    fn a_service_hashes_as_docker_compose_hashes_it() {
        let service = Service {
            name: "b".into(),
            image: "b".into(),
            deploy: Some(Box::default()),
            networks: [("default".to_owned(), None)].into(),
            ..Service::default()
        };
        assert_eq!(
            service_hash(&service),
            "a7758a3d7954e97b5e88be09f979413596a60525f10daef2713f44db64177f7c"
        );
    }

    #[test]
    fn the_number_of_replicas_does_not_change_the_hash() {
        let service = Service {
            image: "b".into(),
            ..Service::default()
        };
        let mut scaled = service.clone();
        scaled.set_replicas(3);
        assert_eq!(service_hash(&service), service_hash(&scaled));
    }
}
