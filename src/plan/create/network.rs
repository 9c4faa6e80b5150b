//! Networks and volumes as the engine takes them, and a container's place in its networks.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkCreateRequest, NetworkingConfig, VolumeCreateRequest,
};

use super::container::ContainerRequest;
use super::{CreateError, mapping, number, some, text};
use crate::client::labels;
use crate::model::hash::{network_hash, volume_hash};
use crate::model::{Network, Project, Service, Volume};

const INTERFACE_NAME: &str = "com.docker.network.endpoint.ifname";

/// Returns the request that creates the project's network `key`.
pub fn network(project: &Project, key: &str, network: &Network) -> NetworkCreateRequest {
    let pools = network.ipam.config.iter().map(|pool| IpamConfig {
        subnet: text(&pool.subnet),
        ip_range: text(&pool.ip_range),
        gateway: text(&pool.gateway),
        auxiliary_addresses: mapping(&pool.aux_addresses),
    });
    let has_ipam = !network.ipam.driver.is_empty() || !network.ipam.config.is_empty();
    NetworkCreateRequest {
        name: network.name.clone(),
        driver: text(&network.driver),
        internal: Some(network.internal),
        attachable: Some(network.attachable),
        ipam: has_ipam.then(|| Ipam {
            driver: text(&network.ipam.driver),
            config: some(pools),
            options: mapping(&network.ipam.options),
        }),
        enable_ipv4: network.enable_ipv4,
        enable_ipv6: network.enable_ipv6,
        options: mapping(&network.driver_opts),
        labels: Some(resource_labels(
            &network.labels,
            project,
            labels::NETWORK,
            key,
            network_hash(network),
        )),
        ..NetworkCreateRequest::default()
    }
}

/// Returns the request that creates the project's volume `key`.
pub fn volume(project: &Project, key: &str, volume: &Volume) -> VolumeCreateRequest {
    VolumeCreateRequest {
        name: Some(volume.name.clone()),
        driver: text(&volume.driver),
        driver_opts: mapping(&volume.driver_opts),
        labels: Some(resource_labels(
            &volume.labels,
            project,
            labels::VOLUME,
            key,
            volume_hash(volume),
        )),
        ..VolumeCreateRequest::default()
    }
}

fn resource_labels(
    own: &BTreeMap<String, String>,
    project: &Project,
    kind: &str,
    key: &str,
    hash: String,
) -> HashMap<String, String> {
    let mut all: HashMap<String, String> = own.clone().into_iter().collect();
    all.extend(
        [
            (kind, key.to_owned()),
            (labels::PROJECT, project.name.clone()),
            (labels::VERSION, labels::COMPATIBLE_VERSION.to_owned()),
            (labels::CONFIG_HASH, hash),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    all
}

/// Returns the container's network mode and its networks. An engine that takes only one network when it creates a
/// container is told of the others afterwards.
pub(super) fn networking(request: &ContainerRequest<'_>) -> Result<(String, Option<NetworkingConfig>), CreateError> {
    let (project, service) = (request.project, request.service);
    if !service.network_mode.is_empty() {
        return Ok((service.network_mode.clone(), alone(service)));
    }
    if project.networks.is_empty() {
        return Ok(("none".to_owned(), None));
    }
    let mut keys = service.networks_by_priority();
    if keys.is_empty() {
        keys.push("default");
    }
    let primary = keys[0];
    if !request.host.many_networks {
        keys.truncate(1);
    }
    let mut endpoints = HashMap::new();
    for key in keys {
        let mut endpoint = endpoint(service, key, request.name, request.use_aliases, request.links)?;
        if key == primary && !service.mac_address.is_empty() {
            match endpoint.mac_address.as_deref() {
                None => endpoint.mac_address = Some(service.mac_address.clone()),
                Some(address) if address == service.mac_address => {}
                Some(_) => return Err(CreateError::MacAddress(key.to_owned())),
            }
        }
        endpoints.insert(network_name(project, key), endpoint);
    }
    let networking = NetworkingConfig {
        endpoints_config: Some(endpoints),
    };
    Ok((network_name(project, primary), Some(networking)))
}

/// Returns what a service wishes for on a network that its `network_mode` names.
fn alone(service: &Service) -> Option<NetworkingConfig> {
    let mode = &service.network_mode;
    let has_own = mode != "host" && mode != "none" && !mode.contains(':');
    (has_own && !service.mac_address.is_empty()).then(|| NetworkingConfig {
        endpoints_config: Some(HashMap::from([(
            mode.clone(),
            EndpointSettings {
                mac_address: Some(service.mac_address.clone()),
                ..EndpointSettings::default()
            },
        )])),
    })
}

fn network_name(project: &Project, key: &str) -> String {
    project
        .networks
        .get(key)
        .map_or_else(|| key.to_owned(), |network| network.name.clone())
}

/// Returns the container's place in one network.
pub fn endpoint(
    service: &Service,
    key: &str,
    container_name: &str,
    use_aliases: bool,
    links: &[String],
) -> Result<EndpointSettings, CreateError> {
    let settings = service.networks.get(key).and_then(Option::as_ref);
    let mut aliases = vec![container_name.to_owned()];
    if use_aliases {
        aliases.push(service.name.clone());
        aliases.extend(settings.iter().flat_map(|settings| settings.aliases.clone()));
    }
    let Some(settings) = settings else {
        return Ok(EndpointSettings {
            aliases: Some(aliases),
            links: some(links.to_vec()),
            ..EndpointSettings::default()
        });
    };
    let mut driver_opts = settings.driver_opts.clone();
    if !settings.interface_name.is_empty()
        && driver_opts
            .insert(INTERFACE_NAME.to_owned(), settings.interface_name.clone())
            .is_some_and(|other| other != settings.interface_name)
    {
        return Err(CreateError::InterfaceName(INTERFACE_NAME));
    }
    Ok(EndpointSettings {
        aliases: Some(aliases),
        links: some(links.to_vec()),
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: text(&settings.ipv4_address),
            ipv6_address: text(&settings.ipv6_address),
            link_local_ips: some(settings.link_local_ips.clone()),
        }),
        ip_address: text(&settings.ipv4_address),
        mac_address: text(&settings.mac_address),
        driver_opts: mapping(&driver_opts),
        gw_priority: number(settings.gw_priority),
        ..EndpointSettings::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Ipam, IpamPool, ServiceNetwork};

    #[test]
    fn a_network_is_labelled_and_has_pools_only_if_the_file_says_so() {
        let project = Project {
            name: "p".into(),
            ..Project::default()
        };
        let plain = Network {
            name: "p_back".into(),
            ..Network::default()
        };
        let request = network(&project, "back", &plain);
        assert_eq!(request.ipam, None);
        let found = request.labels.unwrap();
        assert_eq!(found[labels::NETWORK], "back");
        assert_eq!(found[labels::PROJECT], "p");
        assert_eq!(found[labels::CONFIG_HASH], network_hash(&plain));
        let with_pool = Network {
            ipam: Ipam {
                config: vec![IpamPool {
                    subnet: "10.0.0.0/24".into(),
                    ..IpamPool::default()
                }],
                ..Ipam::default()
            },
            ..plain
        };
        let pools = network(&project, "back", &with_pool).ipam.unwrap().config.unwrap();
        assert_eq!(pools[0].subnet.as_deref(), Some("10.0.0.0/24"));
    }

    #[test]
    fn a_container_is_known_by_its_name_its_services_and_its_aliases() {
        let service = Service {
            name: "web".into(),
            networks: [(
                "back".to_owned(),
                Some(ServiceNetwork {
                    aliases: vec!["www".into()],
                    interface_name: "eth7".into(),
                    ..ServiceNetwork::default()
                }),
            )]
            .into(),
            ..Service::default()
        };
        let place = endpoint(&service, "back", "p-web-1", true, &[]).unwrap();
        assert_eq!(place.aliases.unwrap(), ["p-web-1", "web", "www"]);
        assert_eq!(place.driver_opts.unwrap()[INTERFACE_NAME], "eth7");
        let one_off = endpoint(&service, "back", "p-web-run-1", false, &[]).unwrap();
        assert_eq!(one_off.aliases.unwrap(), ["p-web-run-1"]);
    }
}
