//! What an engine knows of its networks and the containers on them, and what it decides from that alone.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::watch;

use super::attachment::{self, choose_endpoint};
use super::bridge;
use super::error::NetError;
use super::firewall::{Bridge, Published};
use super::ipam::Leases;
use super::link::Index;
use super::parent;
use super::ports::{self, Ports};
use super::published::Proxies;
use super::sandbox::{self, Plug};
use super::spec::{EndpointSpec, EndpointState, Mode, NetworkState, PortState, SandboxRecord, SandboxSpec};

#[derive(Debug, Default)]
pub struct State {
    pub networks: BTreeMap<String, Network>,
    pub containers: HashMap<String, Container>,
    pub ports: Ports,
}

#[derive(Debug)]
pub struct Network {
    pub state: NetworkState,
    pub leases: Leases,
    pub bridge: Option<Index>,
    /// Closed when it is made, or is not going to be.
    pub making: watch::Receiver<()>,
}

#[derive(Debug)]
pub struct Container {
    pub record: SandboxRecord,
    pub namespace: Option<Arc<OwnedFd>>,
    pub proxies: Proxies,
    pub resolver: tokio::task::JoinSet<()>,
}

impl State {
    /// Decides everything about a container's network side, and reserves it.
    pub fn reserve(&mut self, instance: &str, spec: &SandboxSpec) -> Result<Vec<Plug>, NetError> {
        if self.containers.contains_key(&spec.container) {
            return Err(NetError::AlreadyAttached {
                container: spec.name.clone(),
                network: "its own".to_owned(),
            });
        }
        let mut plugs: Vec<Plug> = Vec::new();
        let wished: Vec<&str> = spec
            .endpoints
            .iter()
            .filter_map(|endpoint| endpoint.interface.as_deref())
            .collect();
        if spec.mode == Mode::Networks {
            for wish in &spec.endpoints {
                let taken: Vec<EndpointState> = plugs.iter().map(|plug| plug.endpoint.clone()).collect();
                match self.reserve_endpoint(instance, &spec.name, wish, &taken, &wished) {
                    Ok(plug) => plugs.push(plug),
                    Err(error) => {
                        for plug in &plugs {
                            self.give_back(&plug.endpoint);
                        }
                        return Err(error);
                    }
                }
            }
        }
        let record = SandboxRecord {
            container: spec.container.clone(),
            name: spec.name.clone(),
            hostname: spec.hostname.clone(),
            domainname: spec.domainname.clone(),
            mode: spec.mode.clone(),
            endpoints: plugs.iter().map(|plug| plug.endpoint.clone()).collect(),
            ports: Vec::new(),
            dns: spec.dns.clone(),
        };
        let mut container = Container::new(record, None);
        if let Err(error) = self.publish(spec, &mut container) {
            for plug in &plugs {
                self.give_back(&plug.endpoint);
            }
            return Err(error);
        }
        self.containers.insert(spec.container.clone(), container);
        Ok(plugs)
    }

    pub fn reserve_endpoint(
        &mut self,
        instance: &str,
        container: &str,
        wish: &EndpointSpec,
        others: &[EndpointState],
        wished_interfaces: &[&str],
    ) -> Result<Plug, NetError> {
        let Some(network) = self.networks.get_mut(&wish.network) else {
            return Err(NetError::NoSuchNetwork(wish.network.clone()));
        };
        if others.iter().any(|other| other.network == wish.network) {
            return Err(NetError::AlreadyAttached {
                container: container.to_owned(),
                network: network.state.spec.name.clone(),
            });
        }
        let endpoint = choose_endpoint(
            instance,
            &network.state,
            &mut network.leases,
            wish,
            others,
            wished_interfaces,
        )?;
        Ok(Plug {
            endpoint,
            bridge: network.bridge,
            child: parent::child(&network.state.spec)?,
            mtu: bridge::mtu(&network.state),
        })
    }

    pub fn give_back(&mut self, endpoint: &EndpointState) {
        if let Some(network) = self.networks.get_mut(&endpoint.network) {
            for address in attachment::addresses(endpoint) {
                network.leases.release(address);
            }
        }
    }

    /// Binds the ports that a container publishes. One that has no way out publishes none, as in Docker.
    pub fn publish(&mut self, spec: &SandboxSpec, container: &mut Container) -> Result<(), NetError> {
        let record = &container.record;
        let endpoints: Vec<&EndpointState> = record.endpoints.iter().collect();
        let Some(way_out) = sandbox::default(&endpoints, true).or_else(|| sandbox::default(&endpoints, false)) else {
            return Ok(());
        };
        let default_address = self.networks.get(&way_out.network).and_then(|network| {
            let option = network
                .state
                .spec
                .options
                .get("com.docker.network.bridge.host_binding_ipv4")?;
            option.parse::<IpAddr>().ok()
        });
        let mut bound: Vec<ports::Binding> = Vec::new();
        for wish in &spec.ports {
            let mut wish = wish.clone();
            wish.host_ip = wish.host_ip.or(default_address);
            let containers = &self.containers;
            let owner = |protocol, address, port| {
                let clashes = |other: &&PortState| ports::clash(other, protocol, address, port);
                containers
                    .values()
                    .find(|other| other.record.ports.iter().any(|of| clashes(&of)))
                    .map(|other| format!("container {}", other.record.name))
                    .or_else(|| {
                        let own = bound.iter().map(|binding| &binding.port).any(|of| clashes(&of));
                        own.then(|| format!("container {}", spec.name))
                    })
            };
            let bindings = self.ports.bind(&wish, owner).map_err(|problem| NetError::Publish {
                container: spec.name.clone(),
                endpoint: way_out.endpoint_id.clone(),
                problem,
            })?;
            bound.extend(bindings);
        }
        for binding in bound {
            container.record.ports.push(binding.port.clone());
            container.proxies.add(binding);
        }
        Ok(())
    }

    /// What the firewall has to know.
    pub fn firewall(&self) -> (Vec<Bridge>, Vec<Published>) {
        let bridges = self
            .networks
            .values()
            .filter_map(|network| Bridge::of(&network.state))
            .collect();
        let mut published: Vec<Published> = self
            .containers
            .values()
            .flat_map(|container| {
                let record = &container.record;
                record.ports.iter().filter_map(|port| {
                    Some(Published {
                        container: attachment::published_address(record, port.host_ip)?,
                        port: port.clone(),
                    })
                })
            })
            .collect();
        published.sort_by(|one, other| one.port.cmp(&other.port));
        (bridges, published)
    }
}

impl Container {
    pub fn new(record: SandboxRecord, namespace: Option<Arc<OwnedFd>>) -> Self {
        Self {
            record,
            namespace,
            proxies: Proxies::default(),
            resolver: tokio::task::JoinSet::new(),
        }
    }
}
