//! Networks as the API knows them: found by name, described, joined and left by containers.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::config::{Endpoint, HostConfig, PortBinding, StringMap};
use super::container::{Container, Record, new_id};
use super::filters::Filters;
use super::{Engine, EngineError, Result, time};
use crate::net::spec::{
    DnsSpec, Driver, EndpointSpec, EndpointState, Link, Mode, NetworkSpec, NetworkState, PoolSpec, PortSpec, Protocol,
    SandboxRecord, SandboxSpec,
};
use crate::net::{self, ErrorKind, NetError, Sandbox};
use crate::runtime::spec;

/// The networks that are always there.
const PREDEFINED: [(&str, Driver); 3] = [
    ("bridge", Driver::Bridge),
    ("host", Driver::Host),
    ("none", Driver::Null),
];

/// All networks of an engine. `bridge` is made when the first container joins it.
#[derive(Debug)]
pub struct Networks {
    pub net: net::Networks,
    instance: String,
    making_bridge: tokio::sync::Mutex<()>,
}

/// The body of `POST /networks/create`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct CreateNetwork {
    #[serde(rename = "Name")]
    pub name: String,
    #[serde(rename = "Driver")]
    pub driver: String,
    #[serde(rename = "Scope")]
    pub scope: String,
    #[serde(rename = "Internal")]
    pub internal: bool,
    #[serde(rename = "Attachable")]
    pub attachable: bool,
    #[serde(rename = "Ingress")]
    pub ingress: bool,
    #[serde(rename = "ConfigOnly")]
    pub config_only: bool,
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    #[serde(rename = "Options")]
    pub options: StringMap,
    #[serde(rename = "Labels")]
    pub labels: StringMap,
}

/// Where a network's addresses come from.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ipam {
    pub driver: String,
    pub config: Vec<IpamPool>,
}

/// One range of addresses.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct IpamPool {
    #[serde(rename = "Subnet")]
    pub subnet: String,
    #[serde(rename = "IPRange")]
    pub ip_range: String,
    #[serde(rename = "Gateway")]
    pub gateway: String,
    #[serde(rename = "AuxiliaryAddresses")]
    pub auxiliary_addresses: StringMap,
}

impl Networks {
    /// Opens what the engine knows of networks.
    pub fn new(net: net::Networks, instance: String) -> Self {
        Self {
            net,
            instance,
            making_bridge: tokio::sync::Mutex::default(),
        }
    }

    fn predefined(&self, name: &str, driver: Driver) -> NetworkState {
        let digest = Sha256::digest(format!("{}/{name}", self.instance));
        NetworkState {
            spec: NetworkSpec {
                id: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
                name: name.to_owned(),
                driver,
                ..NetworkSpec::default()
            },
            bridge: None,
            owns_bridge: false,
            pools: Vec::new(),
        }
    }

    /// Returns all networks.
    pub fn list(&self) -> Vec<NetworkState> {
        let mut all = self.net.list();
        for (name, driver) in PREDEFINED {
            if !all.iter().any(|network| network.spec.name == name) {
                all.push(self.predefined(name, driver));
            }
        }
        all.sort_by(|one, other| {
            one.spec
                .created
                .cmp(&other.spec.created)
                .then(one.spec.name.cmp(&other.spec.name))
        });
        all
    }

    /// Finds a network by id, name or the beginning of an id that only one has.
    pub fn find(&self, wanted: &str) -> Result<NetworkState> {
        let all = self.list();
        let wanted = if wanted == "default" { "bridge" } else { wanted };
        if let Some(network) = all
            .iter()
            .find(|network| network.spec.id == wanted)
            .or_else(|| all.iter().find(|network| network.spec.name == wanted))
        {
            return Ok(network.clone());
        }
        let mut found = all
            .iter()
            .filter(|network| !wanted.is_empty() && network.spec.id.starts_with(wanted));
        match (found.next(), found.next()) {
            (Some(network), None) => Ok(network.clone()),
            (Some(_), Some(_)) => Err(EngineError::InvalidParameter(format!(
                "network {wanted} is ambiguous (2 matches found based on ID prefix)"
            ))),
            (None, _) => Err(EngineError::NotFound(format!("network {wanted} not found"))),
        }
    }

    /// Takes the interface of `bridge` away; whoever needs it next gets it anew.
    pub async fn put_away(&self) {
        if let Ok(bridge) = self.find("bridge")
            && self.net.get(&bridge.spec.id).is_some()
            && let Err(cause) = self.net.remove(&bridge.spec.id).await
        {
            tracing::debug!(%cause, "the default bridge stays");
        }
    }

    /// Returns a network that containers can join, and makes `bridge` if nobody needed it before.
    pub(super) async fn ready(&self, wanted: &str) -> Result<NetworkState> {
        let network = self.find(wanted)?;
        if network.spec.name != "bridge" || self.net.get(&network.spec.id).is_some() {
            return Ok(network);
        }
        let _making = self.making_bridge.lock().await;
        if let Some(made) = self.net.get(&network.spec.id) {
            return Ok(made);
        }
        let spec = NetworkSpec {
            created: time::rfc3339(Timestamp::now()),
            ..network.spec
        };
        self.net.create(spec).await.map_err(failure)
    }
}

/// Returns whether a container gets a network namespace of its own, with networks in it.
pub(super) fn has_namespace(record: &Record) -> bool {
    let mode = record.host.network_mode.as_str();
    !record.config.network_disabled && !matches!(mode, "host" | "none") && !mode.starts_with("container:")
}

/// Turns the network's errors into the engine's.
pub fn failure(cause: NetError) -> EngineError {
    let text = super::error::chain(&cause);
    match cause.kind() {
        ErrorKind::NotFound => EngineError::NotFound(text),
        ErrorKind::Invalid => EngineError::InvalidParameter(text),
        ErrorKind::Conflict => EngineError::Conflict(text),
        ErrorKind::Forbidden => EngineError::Forbidden(text),
        ErrorKind::Internal => EngineError::Network(text),
    }
}

impl Engine {
    /// Makes a network.
    pub async fn create_network(&self, body: CreateNetwork) -> Result<NetworkState> {
        if body.name.is_empty() {
            return Err(EngineError::InvalidParameter("network name is required".to_owned()));
        }
        if body.name == "default" || PREDEFINED.iter().any(|(name, _)| *name == body.name) {
            return Err(EngineError::Forbidden(format!(
                "operation is not permitted on predefined {} network",
                body.name
            )));
        }
        let driver = Driver::parse(&body.driver).ok_or_else(|| {
            EngineError::NotFound(format!(
                "could not find plugin {} in v1 plugin registry: plugin not found",
                body.driver
            ))
        })?;
        if matches!(driver, Driver::Host | Driver::Null) {
            return Err(EngineError::Forbidden(format!(
                "only one instance of \"{}\" network is allowed",
                driver.name()
            )));
        }
        if body.ingress || body.config_only || body.scope == "swarm" {
            return Err(EngineError::NotImplemented(
                "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this \
                 node to swarm and try again."
                    .to_owned(),
            ));
        }
        if !matches!(body.ipam.driver.as_str(), "" | "default") {
            return Err(EngineError::NotFound(format!(
                "could not find plugin {} in v1 plugin registry: plugin not found",
                body.ipam.driver
            )));
        }
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let spec = NetworkSpec {
            id: new_id(),
            name: body.name,
            driver,
            internal: body.internal,
            attachable: body.attachable,
            enable_ipv4: body.enable_ipv4,
            enable_ipv6: body.enable_ipv6,
            pools: body
                .ipam
                .config
                .into_iter()
                .map(|pool| PoolSpec {
                    subnet: given(pool.subnet),
                    ip_range: given(pool.ip_range),
                    gateway: given(pool.gateway),
                    aux_addresses: pool.auxiliary_addresses,
                })
                .collect(),
            options: body.options,
            labels: body.labels,
            created: time::rfc3339(Timestamp::now()),
        };
        let network = self.networks.net.create(spec).await.map_err(failure)?;
        self.network_event(&network, "create", None);
        Ok(network)
    }

    /// Removes a network that no container is on.
    pub async fn remove_network(&self, wanted: &str) -> Result<()> {
        let network = self.networks.find(wanted)?;
        let name = &network.spec.name;
        if PREDEFINED.iter().any(|(predefined, _)| predefined == name) {
            return Err(EngineError::Forbidden(format!(
                "{name} is a pre-defined network and cannot be removed"
            )));
        }
        self.networks
            .net
            .remove(&network.spec.id)
            .await
            .map_err(|cause| match cause {
                NetError::ActiveEndpoints { .. } => {
                    EngineError::Forbidden(format!("error while removing network: {cause}"))
                }
                cause => failure(cause),
            })?;
        self.network_event(&network, "destroy", None);
        Ok(())
    }

    /// Removes networks that no container is on.
    pub async fn prune_networks(&self, filters: &Filters) -> Result<Vec<String>> {
        filters.only(&["label", "label!", "until"])?;
        let until = super::prune::until(filters)?;
        let mut removed = Vec::new();
        for network in self.networks.net.list() {
            let created: Option<Timestamp> = network.spec.created.parse().ok();
            let wanted = !PREDEFINED.iter().any(|(name, _)| *name == network.spec.name)
                && filters.labels_match(&network.spec.labels)
                && until.is_none_or(|until| created.is_some_and(|created| created < until))
                && !self.is_referred_to(&network);
            if wanted && self.remove_network(&network.spec.id).await.is_ok() {
                removed.push(network.spec.name);
            }
        }
        self.events.publish("network", "prune", "", super::prune::reclaimed(0));
        Ok(removed)
    }

    /// Returns whether a container, running or not, is to be on a network.
    fn is_referred_to(&self, network: &NetworkState) -> bool {
        self.containers
            .all()
            .iter()
            .any(|container| container.record().networks.contains_key(&network.spec.name))
    }

    /// Returns the networks of a list.
    pub fn list_networks(&self, filters: &Filters) -> Result<Vec<Value>> {
        filters.only(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
        let dangling = filters.truth("dangling")?;
        Ok(self
            .networks
            .list()
            .iter()
            .filter(|network| {
                let spec = &network.spec;
                let predefined = PREDEFINED.iter().any(|(name, _)| *name == spec.name);
                filters.allows("driver", spec.driver.name())
                    && filters.allows("scope", "local")
                    && filters.allows("type", if predefined { "builtin" } else { "custom" })
                    && (!filters.has("id") || filters.any("id", |wanted| spec.id.starts_with(wanted)))
                    && (!filters.has("name") || filters.any("name", |wanted| name_matches(wanted, &spec.name)))
                    && filters.labels_match(&spec.labels)
                    && dangling.is_none_or(|dangling| (!predefined && !self.is_referred_to(network)) == dangling)
            })
            .map(|network| self.network_json(network, false))
            .collect())
    }

    /// Returns a network as the API writes it.
    pub fn network_json(&self, network: &NetworkState, with_containers: bool) -> Value {
        let spec = &network.spec;
        let pools: Vec<Value> = network
            .pools
            .iter()
            .map(|pool| {
                let asked = spec.pools.iter().find(|asked| {
                    asked
                        .subnet
                        .as_deref()
                        .is_none_or(|subnet| subnet == pool.subnet.to_string())
                });
                let mut value = json!({ "Subnet": pool.subnet.to_string() });
                if let Some(range) = asked.and_then(|asked| asked.ip_range.as_ref()) {
                    value["IPRange"] = json!(range);
                }
                value["Gateway"] = json!(pool.gateway.to_string());
                if let Some(asked) = asked
                    && !asked.aux_addresses.is_empty()
                {
                    value["AuxiliaryAddresses"] = json!(asked.aux_addresses);
                }
                value
            })
            .collect();
        let mut containers = BTreeMap::new();
        if with_containers {
            for (id, endpoint) in self.networks.net.endpoints(&spec.id) {
                let name = self
                    .containers
                    .by_id(&id)
                    .map(|container| container.name())
                    .unwrap_or_default();
                let address = |address: Option<String>, prefix: u8| {
                    address.map_or_else(String::new, |address| format!("{address}/{prefix}"))
                };
                containers.insert(
                    id,
                    json!({
                        "Name": name,
                        "EndpointID": endpoint.endpoint_id,
                        "MacAddress": endpoint.mac.to_string(),
                        "IPv4Address": address(endpoint.ipv4.map(|ip| ip.to_string()), endpoint.ipv4_prefix),
                        "IPv6Address": address(endpoint.ipv6.map(|ip| ip.to_string()), endpoint.ipv6_prefix),
                    }),
                );
            }
        }
        let created = if spec.created.is_empty() {
            time::NEVER
        } else {
            spec.created.as_str()
        };
        json!({
            "Name": spec.name,
            "Id": spec.id,
            "Created": created,
            "Scope": "local",
            "Driver": spec.driver.name(),
            "EnableIPv4": spec.enable_ipv4.unwrap_or(true),
            "EnableIPv6": spec.enable_ipv6,
            "IPAM": {
                "Driver": "default",
                "Options": null,
                "Config": if pools.is_empty() && spec.driver != Driver::Bridge { Value::Null } else { json!(pools) },
            },
            "Internal": spec.internal,
            "Attachable": spec.attachable,
            "Ingress": false,
            "ConfigFrom": { "Network": "" },
            "ConfigOnly": false,
            "Containers": containers,
            "Options": spec.options,
            "Labels": spec.labels,
        })
    }

    /// Makes the network side of a container that is about to start, and writes its files.
    pub(super) async fn join_networks(&self, container: &Container, namespace: Option<OwnedFd>) -> Result<Sandbox> {
        // What an earlier start left behind must not stand in the way.
        self.networks.net.release(&container.id).await;
        let record = container.record().clone();
        let mut ids = IndexMap::new();
        for name in record.networks.keys() {
            ids.insert(name.clone(), self.networks.ready(name).await?);
        }
        let spec = self.sandbox_spec(&record, &ids)?;
        let sandbox = self.networks.net.sandbox_in(spec, namespace).await.map_err(failure)?;
        for warning in &sandbox.warnings {
            tracing::warn!(container = container.id, warning);
        }
        let ports = ports_of(&sandbox.record);
        let stored = serde_json::to_value(&sandbox.record).ok();
        {
            let mut record = container.record();
            record.ports = ports;
            record.sandbox = stored;
            record.sandbox_id = new_id();
            for (name, network) in &ids {
                let state = sandbox
                    .record
                    .endpoints
                    .iter()
                    .find(|endpoint| endpoint.network == network.spec.id);
                if let Some(endpoint) = record.networks.get_mut(name) {
                    fill_endpoint(endpoint, network, state);
                }
            }
        }
        for network in ids.values() {
            self.network_event(network, "connect", Some(&container.id));
        }
        Ok(sandbox)
    }

    /// Refuses addresses that the networks of a new container cannot give.
    pub(super) fn check_endpoints(&self, record: &Record) -> Result<()> {
        for (name, endpoint) in &record.networks {
            // A network that is missing is told of when the container starts.
            if let Ok(network) = self.networks.find(name) {
                net::check_wish(&network, &endpoint_spec(record, endpoint, &network)?).map_err(failure)?;
            }
        }
        Ok(())
    }

    fn sandbox_spec(&self, record: &Record, networks: &IndexMap<String, NetworkState>) -> Result<SandboxSpec> {
        let host = &record.host;
        let mode = match host.network_mode.as_str() {
            "host" => Mode::Host,
            "none" => Mode::None,
            mode => match mode.strip_prefix("container:") {
                Some(other) => Mode::Container(self.owner_of_network(other)?),
                None if record.config.network_disabled => Mode::None,
                None => Mode::Networks,
            },
        };
        let own = mode == Mode::Networks;
        let endpoints = record
            .networks
            .iter()
            .filter(|_| own)
            .filter_map(|(name, endpoint)| Some(endpoint_spec(record, endpoint, networks.get(name)?)))
            .collect::<Result<_>>()?;
        let mut sysctls: BTreeMap<String, String> = BTreeMap::new();
        if matches!(mode, Mode::Networks | Mode::None) && rustix::process::geteuid().is_root() {
            sysctls.extend(spec::network_sysctls());
        }
        sysctls.extend(
            host.sysctls
                .iter()
                .filter(|(name, _)| name.starts_with("net."))
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        Ok(SandboxSpec {
            container: record.id.clone(),
            name: record.name.clone(),
            hostname: record.config.hostname.clone(),
            domainname: record.config.domainname.clone(),
            endpoints,
            ports: if own {
                port_specs(host, &record.config.exposed_ports)?
            } else {
                Vec::new()
            },
            dns: DnsSpec {
                servers: host.dns.clone(),
                search: host.dns_search.clone(),
                options: host.dns_options.clone(),
                extra_hosts: host.extra_hosts.clone().unwrap_or_default(),
            },
            sysctls,
            mode,
        })
    }

    /// Gives a container on another one's network that one's name, as Docker does.
    /// Gives a container the name of the one whose network it has.
    pub(super) fn share_hostname(&self, container: &Container) {
        let other = container
            .record()
            .host
            .network_mode
            .strip_prefix("container:")
            .map(str::to_owned);
        if let Some(owner) = other.and_then(|other| self.containers.by_id(&other)) {
            let (hostname, domainname) = {
                let record = owner.record();
                (record.config.hostname.clone(), record.config.domainname.clone())
            };
            let mut record = container.record();
            record.config.hostname = hostname;
            record.config.domainname = domainname;
        }
    }

    /// Follows `container:` to whoever has a namespace of their own.
    fn owner_of_network(&self, other: &str) -> Result<String> {
        let mut id = other.to_owned();
        for _ in 0..16 {
            let container = self.containers.find(&id)?;
            let record = container.record();
            if !record.state.status.has_processes() {
                return Err(EngineError::Conflict(format!(
                    "cannot join network of a non running container: {}",
                    record.id
                )));
            }
            match record.host.network_mode.strip_prefix("container:") {
                Some(next) => id = next.to_owned(),
                None => return Ok(record.id.clone()),
            }
        }
        Err(EngineError::Conflict("cannot join own network".to_owned()))
    }

    /// Takes a container that does not run any more off its networks.
    pub(super) async fn leave_networks(&self, container: &Container) {
        self.networks.net.release(&container.id).await;
        let left: Vec<String> = {
            let mut record = container.record();
            if record.sandbox.take().is_none() {
                return;
            }
            record.ports.clear();
            record.sandbox_id.clear();
            for endpoint in record.networks.values_mut() {
                clear_endpoint(endpoint);
            }
            record.networks.keys().cloned().collect()
        };
        for name in left {
            if let Ok(network) = self.networks.find(&name) {
                self.network_event(&network, "disconnect", Some(&container.id));
            }
        }
    }

    /// Connects a container to one more network.
    pub async fn connect_network(&self, wanted: &str, container: &Arc<Container>, wish: Endpoint) -> Result<()> {
        let _operation = container.operation.lock().await;
        let network = self.networks.ready(wanted).await?;
        let name = network.spec.name.clone();
        {
            let record = container.record();
            let mode = &record.host.network_mode;
            if mode == "host" || mode.starts_with("container:") {
                return Err(EngineError::InvalidParameter(format!(
                    "container sharing network namespace with {} cannot be connected to any other network",
                    if mode == "host" {
                        "the host"
                    } else {
                        "another container"
                    }
                )));
            }
            if record.networks.contains_key(&name) && record.state.status.has_processes() {
                return Err(EngineError::Forbidden(format!(
                    "endpoint with name {} already exists in network {name}",
                    record.name
                )));
            }
        }
        let mut endpoint = Endpoint {
            network_id: network.spec.id.clone(),
            ..wish
        };
        if container.live().is_some() {
            let spec = endpoint_spec(&container.record(), &endpoint, &network)?;
            let state = self.networks.net.connect(&container.id, &spec).await.map_err(failure)?;
            fill_endpoint(&mut endpoint, &network, Some(&state));
            self.sandbox_changed(container);
            self.network_event(&network, "connect", Some(&container.id));
        }
        container.note(|record| {
            // moby: a container of no network at all is on this one from now on.
            if record.host.network_mode == "none" {
                record.networks.shift_remove("none");
            }
            record.networks.insert(name, endpoint);
        });
        Ok(())
    }

    /// Takes a container off a network.
    pub async fn disconnect_network(&self, wanted: &str, container: &Arc<Container>, force: bool) -> Result<()> {
        let _operation = container.operation.lock().await;
        let network = self.networks.find(wanted)?;
        let name = network.spec.name.clone();
        if !container.record().networks.contains_key(&name) {
            return Err(EngineError::Forbidden(format!(
                "container {} is not connected to network {name}",
                container.id
            )));
        }
        if name == "host" {
            return Err(EngineError::Conflict(
                "container cannot be disconnected from host network or connected to host network".to_owned(),
            ));
        }
        if container.live().is_some() {
            let left = self.networks.net.disconnect(&container.id, &network.spec.id).await;
            if !force {
                left.map_err(failure)?;
            }
            self.sandbox_changed(container);
            self.network_event(&network, "disconnect", Some(&container.id));
        }
        container.note(|record| record.networks.shift_remove(&name));
        Ok(())
    }

    /// Notes what the network now keeps of a running container, and brings its files up to date.
    pub(super) fn sandbox_changed(&self, container: &Container) {
        if let Some(sandbox) = self.networks.net.record(&container.id) {
            let mut record = container.record();
            record.ports = ports_of(&sandbox);
            record.sandbox = serde_json::to_value(&sandbox).ok();
        }
        if let Some(files) = self.networks.net.files(&container.id) {
            // Written in place: the container has these very files mounted.
            let _ = std::fs::write(container.dir.join("hosts"), files.hosts);
        }
    }
}

fn name_matches(wanted: &str, name: &str) -> bool {
    let start = wanted.starts_with('^');
    let end = wanted.ends_with('$');
    let text = wanted.trim_start_matches('^').trim_end_matches('$');
    match (start, end) {
        (true, true) => name == text,
        (true, false) => name.starts_with(text),
        (false, true) => name.ends_with(text),
        (false, false) => name.contains(text),
    }
}

fn endpoint_spec(record: &Record, endpoint: &Endpoint, network: &NetworkState) -> Result<EndpointSpec> {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let ipam = endpoint.ipam_config.clone().unwrap_or_default();
    let links = endpoint
        .links
        .iter()
        .flatten()
        .chain(record.host.links.iter().flatten())
        .map(|link| {
            let (target, alias) = link.split_once(':').unwrap_or((link, link));
            Link {
                target: target.trim_start_matches('/').to_owned(),
                alias: alias.rsplit('/').next().unwrap_or(alias).to_owned(),
            }
        })
        .collect();
    let option = |name: &str| endpoint.driver_opts.as_ref().and_then(|options| options.get(name));
    let sysctls = option("com.docker.network.endpoint.sysctls").map(|text| interface_sysctls(text));
    Ok(EndpointSpec {
        network: network.spec.id.clone(),
        endpoint_id: new_id(),
        names: dns_names(record, endpoint),
        links,
        ipv4: given(&ipam.ipv4_address),
        ipv6: given(&ipam.ipv6_address),
        link_local: ipam.link_local_ips,
        mac: given(&endpoint.mac_address),
        interface: option("com.docker.network.endpoint.ifname").cloned(),
        gw_priority: endpoint.gw_priority,
        sysctls: sysctls.transpose()?.unwrap_or_default(),
    })
}

/// Reads `net.ipv4.conf.IFNAME.log_martians=1,…`: settings of one interface, whatever it will be called.
fn interface_sysctls(text: &str) -> Result<Vec<(String, String)>> {
    text.split(',')
        .map(|setting| {
            let wrong = |why: &str| {
                EngineError::InvalidParameter(format!(
                    "invalid endpoint settings: com.docker.network.endpoint.sysctls: {why} in '{setting}'"
                ))
            };
            let (name, value) = setting.split_once('=').ok_or_else(|| wrong("no value"))?;
            let parts: Vec<&str> = name.trim().split('.').collect();
            match parts.as_slice() {
                ["net", _, "conf" | "neigh", "IFNAME", _, ..] => Ok((name.trim().to_owned(), value.to_owned())),
                _ => Err(wrong(
                    "unrecognised network interface sysctl; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V'",
                )),
            }
        })
        .collect()
}

/// Returns every name a container answers to on a network.
fn dns_names(record: &Record, endpoint: &Endpoint) -> Vec<String> {
    let mut names = vec![record.name.clone()];
    let more = endpoint
        .aliases
        .iter()
        .flatten()
        .cloned()
        .chain([record.id[..12].to_owned(), record.config.hostname.clone()]);
    for name in more {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Notes what came of a container's wish to be on a network.
fn fill_endpoint(endpoint: &mut Endpoint, network: &NetworkState, state: Option<&EndpointState>) {
    endpoint.network_id.clone_from(&network.spec.id);
    let Some(state) = state else { return };
    endpoint.endpoint_id.clone_from(&state.endpoint_id);
    endpoint.gateway = state.gateway.map(|address| address.to_string()).unwrap_or_default();
    endpoint.ip_address = state.ipv4.map(|address| address.to_string()).unwrap_or_default();
    endpoint.ip_prefix_len = if state.ipv4.is_some() { state.ipv4_prefix } else { 0 };
    endpoint.ipv6_gateway = state.gateway6.map(|address| address.to_string()).unwrap_or_default();
    endpoint.global_ipv6_address = state.ipv6.map(|address| address.to_string()).unwrap_or_default();
    endpoint.global_ipv6_prefix_len = if state.ipv6.is_some() { state.ipv6_prefix } else { 0 };
    endpoint.wished_mac = std::mem::take(&mut endpoint.mac_address);
    endpoint.mac_address = state.mac.to_string();
    endpoint.dns_names = (network.spec.name != "bridge").then(|| state.names.clone());
}

/// Forgets what came of it, and keeps the wish.
fn clear_endpoint(endpoint: &mut Endpoint) {
    *endpoint = Endpoint {
        ipam_config: endpoint.ipam_config.take(),
        links: endpoint.links.take(),
        aliases: endpoint.aliases.take(),
        mac_address: std::mem::take(&mut endpoint.wished_mac),
        driver_opts: endpoint.driver_opts.take(),
        gw_priority: endpoint.gw_priority,
        network_id: std::mem::take(&mut endpoint.network_id),
        dns_names: endpoint.dns_names.take(),
        ..Endpoint::default()
    };
}

/// Returns what is published, by the port inside.
fn ports_of(sandbox: &SandboxRecord) -> IndexMap<String, Vec<PortBinding>> {
    let mut ports: IndexMap<String, Vec<PortBinding>> = IndexMap::new();
    for port in &sandbox.ports {
        ports
            .entry(format!("{}/{}", port.container_port, port.protocol.name()))
            .or_default()
            .push(PortBinding {
                host_ip: port.host_ip.to_string(),
                host_port: port.host_port.to_string(),
            });
    }
    ports
}

fn port_specs(host: &HostConfig, exposed: &super::config::Set) -> Result<Vec<PortSpec>> {
    let mut specs = Vec::new();
    for (port, bindings) in &host.port_bindings {
        let (container_port, protocol) = parse_port(port)?;
        let any = [PortBinding::default()];
        let bindings = match bindings.as_deref() {
            None | Some([]) => &any[..],
            Some(bindings) => bindings,
        };
        for binding in bindings {
            let host_ip =
                match binding.host_ip.trim_matches(['[', ']']) {
                    "" => None,
                    text => Some(text.parse().map_err(|_| {
                        EngineError::InvalidParameter(format!("invalid IP address: {}", binding.host_ip))
                    })?),
                };
            specs.push(PortSpec {
                protocol,
                container_port,
                host_ip,
                host_ports: parse_range(&binding.host_port)?,
            });
        }
    }
    if host.publish_all_ports {
        for port in exposed.keys() {
            if !host.port_bindings.contains_key(port) {
                let (container_port, protocol) = parse_port(port)?;
                specs.push(PortSpec {
                    protocol,
                    container_port,
                    host_ip: None,
                    host_ports: (0, 0),
                });
            }
        }
    }
    Ok(specs)
}

fn parse_port(text: &str) -> Result<(u16, Protocol)> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_lowercase().as_str() {
        "tcp" | "" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(EngineError::InvalidParameter(format!("invalid proto: {protocol}"))),
    };
    let number = number
        .parse()
        .map_err(|_| EngineError::InvalidParameter(format!("invalid port specification: \"{text}\"")))?;
    Ok((number, protocol))
}

fn parse_range(text: &str) -> Result<(u16, u16)> {
    let wrong = || EngineError::InvalidParameter(format!("invalid host port: {text}"));
    if text.is_empty() {
        return Ok((0, 0));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if last < first {
        return Err(wrong());
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_bindings() {
        let host: HostConfig = serde_json::from_str(
            r#"{"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080-8090"}],"53/udp":null},
                "PublishAllPorts":true}"#,
        )
        .unwrap();
        let exposed = ["80/tcp", "90"]
            .map(|port| (port.to_owned(), super::super::config::Empty {}))
            .into();
        let specs = port_specs(&host, &exposed).unwrap();
        let told: Vec<_> = specs
            .iter()
            .map(|spec| (spec.container_port, spec.protocol.name(), spec.host_ports))
            .collect();
        assert_eq!(
            told,
            [(53, "udp", (0, 0)), (80, "tcp", (8080, 8090)), (90, "tcp", (0, 0))]
        );
        assert!(parse_range("9-8").is_err());
        assert!(parse_port("80/odd").is_err());
    }
}
