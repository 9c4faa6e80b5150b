//! Networks and volumes: what is missing is made, what changed is made anew.

use super::{PlanError, Reconciler, Resource, subject};
use crate::client::labels;
use crate::model::hash::{network_hash, volume_hash};
use crate::model::{Network, Volume};
use crate::plan::operation::{Action, Stage, Target};

impl Reconciler<'_> {
    pub(super) fn network(&mut self, key: &str, network: &Network) -> Result<(), PlanError> {
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
    pub(super) fn replace_network(&mut self, key: &str, network: &Network, id: String) {
        let cause = format!("network {key} changed");
        let is_on = |service: &str| {
            self.containers.get(service).into_iter().flatten().any(|target| {
                matches!(target, Target::Existing(container) if container.networks.contains_key(&network.name))
            })
        };
        // Also who is about to leave it: a network that somebody is on cannot be removed.
        let users: Vec<(String, bool)> = self
            .project
            .services
            .values()
            .map(|service| (service.name.clone(), service.networks.contains_key(key)))
            .filter(|(service, stays)| *stays || is_on(service))
            .collect();
        let mut released = Vec::new();
        let mut connected = Vec::new();
        for (service, stays) in users {
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
                    if stays {
                        connected.push(container);
                    }
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

    pub(super) fn volume(
        &mut self,
        key: &str,
        volume: &Volume,
        confirm: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), PlanError> {
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
    pub(super) fn replace_volume(&mut self, key: &str, volume: &Volume) {
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
}
