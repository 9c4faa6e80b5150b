//! The networks of one engine, and the containers on them.
//!
//! [`Networks`] is what the engine talks to. Decisions (addresses, ports) are made under one lock and at once; the
//! kernel is then changed by worker threads, and what fails is taken back.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::attachment;
use super::bridge;
use super::dialer::Dialer;
use super::dns::{self, Registry, Servers};
use super::egress;
use super::error::NetError;
use super::files::{self, Files, HostFiles};
use super::firewall::Firewall;
use super::ipam::{self, Leases, Subnet};
use super::link;
use super::parent;
use super::ports;
use super::sandbox::{self, Plan, Plug};
use super::spec::{Driver, EndpointSpec, EndpointState, Mode, NetworkSpec, NetworkState, SandboxRecord, SandboxSpec};
use super::state::{Container, Network, State};
use super::store::Store;
use super::worker::Workers;

/// Where an engine keeps its networks, and the name that sets its interfaces and rules apart from others'.
#[derive(Debug)]
pub struct NetConfig {
    pub state_dir: PathBuf,
    /// 8 hexadecimal digits.
    pub instance: String,
    /// Where bridges are made and containers' interfaces lead; `None`: in the host's namespace, which is where published
    /// ports are listened on in any case.
    pub namespace: Option<OwnedFd>,
}

/// The networks of one engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Networks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    instance: String,
    store: Store,
    workers: Workers,
    dialer: Dialer,
    /// What carries containers' connections out of a namespace that has no way out.
    _egress: JoinSet<()>,
    gateways: egress::Gateways,
    firewall: Arc<Firewall>,
    registry: Arc<Registry>,
    state: Mutex<State>,
    /// How many changes of the firewall were wished for, and how many of them have come true.
    wanted: AtomicU64,
    applied: tokio::sync::Mutex<u64>,
}

/// The network side of a container that is about to start.
#[derive(Debug)]
pub struct Sandbox {
    /// The namespace to start it in; `None`: the host's.
    pub netns: Option<OwnedFd>,
    pub record: SandboxRecord,
    pub files: Files,
    /// Listening sockets, for a process that outlives the engine; [`Networks::adopt`] takes them back.
    pub fds: Vec<(String, OwnedFd)>,
    /// What does not work as it should, in words for the user.
    pub warnings: Vec<String>,
}

const RESOLVER_UDP: &str = "net/dns/udp";
const RESOLVER_TCP: &str = "net/dns/tcp";

impl Networks {
    /// Opens the networks of an engine, and makes their bridges if the machine was started anew.
    ///
    /// Must be called where tokio runs, in the network namespace that is the host's. Published ports of containers
    /// that run are served when they are adopted; [`Networks::settle`] says that all are.
    pub async fn open(config: NetConfig) -> Result<Self, NetError> {
        let store = Store::open(&config.state_dir)?;
        let has_own_namespace = config.namespace.is_some();
        let workers = Workers::start(config.namespace)?;
        let dialer = if has_own_namespace {
            Dialer::inside(&workers)
        } else {
            Dialer::default()
        };
        let gates = if has_own_namespace {
            egress::open(&workers).await?
        } else {
            Vec::new()
        };
        let gateways = egress::Gateways::default();
        let egress = egress::serve(&gates, &workers, &gateways).map_err(NetError::system("open the way out"))?;
        let gates = gates.iter().map(egress::Sockets::gate).collect();
        let records = store.load()?;
        let mut networks = BTreeMap::new();
        for state in records {
            let made = {
                let state = state.clone();
                workers.run(move |host| bridge::ensure(host, &state)).await?
            };
            let index = made.unwrap_or_else(|error| {
                tracing::warn!(network = state.spec.name, %error, "a network's bridge cannot be made");
                None
            });
            let leases = Leases::new(&state.pools);
            networks.insert(
                state.spec.id.clone(),
                Network {
                    state,
                    leases,
                    bridge: index,
                    making: watch::channel(()).1,
                },
            );
        }
        Ok(Self {
            inner: Arc::new(Inner {
                firewall: Arc::new(Firewall::new(&config.instance, gates)),
                _egress: egress,
                gateways,
                instance: config.instance,
                store,
                workers,
                dialer,
                registry: Arc::default(),
                state: Mutex::new(State {
                    networks,
                    ..State::default()
                }),
                wanted: AtomicU64::new(0),
                applied: tokio::sync::Mutex::new(0),
            }),
        })
    }

    /// Brings the firewall in line, after every running container was adopted.
    pub async fn settle(&self) -> Result<(), NetError> {
        if self.inner.lock().networks.is_empty() {
            return Ok(());
        }
        self.inner.sync_firewall().await
    }

    /// Returns all networks.
    pub fn list(&self) -> Vec<NetworkState> {
        let state = self.inner.lock();
        state.networks.values().map(|network| network.state.clone()).collect()
    }

    /// Returns the network with that id.
    pub fn get(&self, id: &str) -> Option<NetworkState> {
        Some(self.inner.lock().networks.get(id)?.state.clone())
    }

    /// Returns the containers on a network, by id, with their attachments.
    pub fn endpoints(&self, network: &str) -> Vec<(String, EndpointState)> {
        let state = self.inner.lock();
        state
            .containers
            .values()
            .flat_map(|container| {
                let record = &container.record;
                record
                    .endpoints
                    .iter()
                    .filter(|endpoint| endpoint.network == network)
                    .map(|endpoint| (record.container.clone(), endpoint.clone()))
            })
            .collect()
    }

    /// Makes a network.
    pub async fn create(&self, spec: NetworkSpec) -> Result<NetworkState, NetError> {
        let namesake = {
            let all = self.inner.lock();
            let mut networks = all.networks.values().map(|network| &network.state.spec);
            networks
                .find(|other| other.name == spec.name)
                .map(|other| other.id.clone())
        };
        if let Some(id) = namesake {
            // Whoever is told that there is one already may go on with it at once.
            self.inner.made(&id).await;
        }
        // Until this is dropped, those who want to join wait.
        let (_making, made) = watch::channel(());
        // Others choose subnets too, and may have taken the same one at the same time.
        for _ in 0..8 {
            let state = self.create_once(spec.clone(), &made).await?;
            if !self.was_too_late(&state).await? {
                return Ok(state);
            }
            tracing::info!(
                network = state.spec.name,
                "somebody else has its subnet; choosing another"
            );
            self.remove(&state.spec.id).await?;
        }
        self.create_once(spec, &made).await
    }

    /// Returns whether a subnet that was chosen for a network is routed to somebody who was there before.
    async fn was_too_late(&self, state: &NetworkState) -> Result<bool, NetError> {
        let chosen: Vec<Subnet> = state
            .pools
            .iter()
            .filter(|pool| pool.automatic)
            .map(|pool| pool.subnet)
            .collect();
        let Some(bridge) = state
            .bridge
            .clone()
            .filter(|_| state.is_bridged() && !chosen.is_empty())
        else {
            return Ok(false);
        };
        let look = move |host: &mut super::worker::Host| -> Result<bool, NetError> {
            let Some(own) = link::find(&mut host.route, &bridge)? else {
                return Ok(false);
            };
            let routes = link::routes(&mut host.route)?;
            Ok(routes.iter().any(|route| {
                // Of two the later gives way.
                let is_elder = route.out.is_some_and(|other| other < own.index);
                is_elder && chosen.iter().any(|subnet| subnet.overlaps(route.subnet))
            }))
        };
        self.inner.workers.run(look).await?
    }

    async fn create_once(&self, spec: NetworkSpec, made: &watch::Receiver<()>) -> Result<NetworkState, NetError> {
        let inner = &self.inner;
        let child = parent::child(&spec)?;
        let (name_of_bridge, is_own) = match child {
            Some(_) => parent::name(&spec),
            None => (bridge::name(&spec), true),
        };
        let (foreign, exists) = {
            let name = name_of_bridge.clone();
            inner
                .workers
                .run(move |host| -> Result<_, NetError> {
                    let foreign = link::routes(&mut host.route)?;
                    let foreign: Vec<Subnet> = foreign.into_iter().map(|route| route.subnet).collect();
                    let exists = link::find(&mut host.route, &name)?.is_some();
                    Ok((foreign, exists))
                })
                .await??
        };
        let state = {
            let mut all = inner.lock();
            let mut others = all.networks.values().map(|network| &network.state.spec);
            if others.any(|other| other.name == spec.name || other.id == spec.id) {
                return Err(NetError::NetworkExists(spec.name));
            }
            let state = match spec.driver {
                Driver::Bridge | Driver::Macvlan | Driver::Ipvlan => {
                    let ours: Vec<_> = all
                        .networks
                        .values()
                        .flat_map(|network| network.state.pools.iter().map(|pool| pool.subnet))
                        .collect();
                    NetworkState {
                        pools: ipam::choose_pools(&spec, &ours, &foreign, &inner.instance)?,
                        bridge: Some(name_of_bridge),
                        owns_bridge: is_own && !exists,
                        spec,
                    }
                }
                Driver::Host | Driver::Null => NetworkState {
                    pools: Vec::new(),
                    bridge: None,
                    owns_bridge: false,
                    spec,
                },
            };
            // From here on nobody else gets its name and subnets.
            all.networks.insert(
                state.spec.id.clone(),
                Network {
                    leases: Leases::new(&state.pools),
                    state: state.clone(),
                    bridge: None,
                    making: made.clone(),
                },
            );
            state
        };
        match self.make_network(&state).await {
            Ok(()) => Ok(state),
            Err(error) => {
                let _ = self.remove(&state.spec.id).await;
                Err(error)
            }
        }
    }

    async fn make_network(&self, state: &NetworkState) -> Result<(), NetError> {
        let inner = &self.inner;
        // The record must be safe on disk when this returns, but nothing waits for it before.
        let save = {
            let (store, state) = (inner.store.clone(), state.clone());
            tokio::task::spawn_blocking(move || store.save(&state))
        };
        let made = {
            let state = state.clone();
            inner.workers.run(move |host| bridge::ensure(host, &state)).await?
        };
        let index = made?;
        if let Some(network) = inner.lock().networks.get_mut(&state.spec.id) {
            network.bridge = index;
        }
        if state.is_bridged() {
            inner.sync_firewall().await?;
        }
        save.await.map_err(|_| NetError::Ended)?
    }

    /// Removes a network, with its bridge and its rules.
    pub async fn remove(&self, id: &str) -> Result<(), NetError> {
        let inner = &self.inner;
        let endpoints = self.endpoints(id);
        let state = {
            let mut all = inner.lock();
            let Some(network) = all.networks.get(id) else {
                return Err(NetError::NoSuchNetwork(id.to_owned()));
            };
            if !endpoints.is_empty() {
                let describe = |(container, endpoint): &(String, EndpointState)| {
                    let name = all.containers.get(container).map_or("", |of| of.record.name.as_str());
                    let short = endpoint.endpoint_id.get(..12).unwrap_or(&endpoint.endpoint_id);
                    format!("name:{name:?} id:{short:?}")
                };
                return Err(NetError::ActiveEndpoints {
                    network: network.state.spec.name.clone(),
                    endpoints: endpoints.iter().map(describe).collect(),
                });
            }
            all.networks.remove(id).expect("found above").state
        };
        // All of it is tried, and the first failure told: what is left is not a reason to leave more.
        let deleted = async {
            let Some(bridge) = state.bridge.clone().filter(|_| state.owns_bridge) else {
                return Ok(());
            };
            let delete = move |host: &mut super::worker::Host| match host.route.request(vec![link::delete(&bridge)]) {
                Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
                other => other.map_err(NetError::from),
            };
            inner.workers.run(delete).await?
        };
        let synced = async {
            match state.is_bridged() {
                true => inner.sync_firewall().await,
                false => Ok(()),
            }
        };
        let (deleted, synced) = tokio::join!(deleted, synced);
        let forgotten = inner.store.remove(id);
        deleted.and(synced).and(forgotten)
    }

    /// Removes the network of that name if no container is on it.
    pub async fn remove_unused(&self, name: &str) {
        let Some(network) = self.list().into_iter().find(|network| network.spec.name == name) else {
            return;
        };
        match self.remove(&network.spec.id).await {
            Ok(()) | Err(NetError::ActiveEndpoints { .. }) => {}
            Err(error) => tracing::warn!(name, %error, "a network that nobody uses cannot be removed"),
        }
    }

    /// Makes the network side of a container.
    pub async fn sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, NetError> {
        self.sandbox_in(spec, None).await
    }

    /// Makes the network side of a container in a namespace that is there already, with nothing set up in it.
    pub async fn sandbox_in(&self, spec: SandboxSpec, namespace: Option<OwnedFd>) -> Result<Sandbox, NetError> {
        let inner = &self.inner;
        let container = spec.container.clone();
        if let Mode::Container(other) = &spec.mode {
            return self.share(&spec, other);
        }
        for endpoint in &spec.endpoints {
            inner.made(&endpoint.network).await;
        }
        let plugs = inner.lock().reserve(&inner.instance, &spec)?;
        match self.make_sandbox(&spec, plugs, namespace).await {
            Ok(sandbox) => Ok(sandbox),
            Err(error) => {
                self.release(&container).await;
                Err(error)
            }
        }
    }

    async fn make_sandbox(
        &self,
        spec: &SandboxSpec,
        plugs: Vec<Plug>,
        namespace: Option<OwnedFd>,
    ) -> Result<Sandbox, NetError> {
        let inner = &self.inner;
        let publishes = inner
            .lock()
            .containers
            .get(&spec.container)
            .is_some_and(|container| !container.record.ports.is_empty());
        let make = async {
            if spec.mode == Mode::Host {
                return Ok(None);
            }
            let plan = Plan {
                plugs,
                sysctls: spec.sysctls.clone(),
                resolves: spec.mode == Mode::Networks,
                namespace,
            };
            inner
                .workers
                .run(move |host| sandbox::make(host, plan))
                .await?
                .map(Some)
        };
        let sync = async { if publishes { inner.sync_firewall().await } else { Ok(()) } };
        let (made, synced) = tokio::join!(make, sync);
        let made = made?;
        synced?;

        let mut fds = Vec::new();
        let mut warnings = Vec::new();
        let mut all = inner.lock();
        let Some(entry) = all.containers.get_mut(&spec.container) else {
            // Released while it was being made.
            return Err(NetError::NoSandbox(spec.container.clone()));
        };
        let failed = || NetError::system("keep the container's sockets");
        let mut netns = None;
        if let Some(made) = made {
            netns = Some(made.namespace.try_clone().map_err(failed())?);
            let namespace = Arc::new(made.namespace);
            entry.namespace = Some(Arc::clone(&namespace));
            if let Some(sockets) = made.resolver {
                fds.push((RESOLVER_UDP.to_owned(), sockets.udp.try_clone().map_err(failed())?));
                fds.push((RESOLVER_TCP.to_owned(), sockets.tcp.try_clone().map_err(failed())?));
                inner.start_resolver(entry, sockets)?;
            }
        }
        fds.extend(entry.proxies.copies().map_err(failed())?);
        entry.proxies.serve(&entry.record, &inner.dialer).map_err(failed())?;
        let record = entry.record.clone();
        inner.announce(&all, &record.container, &record.endpoints);
        drop(all);
        if publishes && let Some(reason) = inner.firewall.missing() {
            warnings.push(format!("published ports are served by the proxy alone: {reason}"));
        }
        Ok(Sandbox {
            netns,
            files: inner.files(&record),
            record,
            fds,
            warnings,
        })
    }

    /// Gives a container the network side of another one.
    fn share(&self, spec: &SandboxSpec, other: &str) -> Result<Sandbox, NetError> {
        let mut all = self.inner.lock();
        let Some(owner) = all.containers.get(other) else {
            return Err(NetError::NoSandbox(other.to_owned()));
        };
        let of_owner = owner.record.clone();
        let namespace = owner.namespace.clone();
        let record = SandboxRecord {
            container: spec.container.clone(),
            name: spec.name.clone(),
            hostname: of_owner.hostname.clone(),
            domainname: of_owner.domainname.clone(),
            mode: spec.mode.clone(),
            dns: spec.dns.clone(),
            ..SandboxRecord::default()
        };
        let netns = namespace
            .as_ref()
            .map(|fd| fd.try_clone())
            .transpose()
            .map_err(NetError::system("share a network namespace"))?;
        all.containers
            .insert(spec.container.clone(), Container::new(record.clone(), namespace));
        drop(all);
        Ok(Sandbox {
            netns,
            // It sees the other's files, as it has the other's addresses.
            files: self.inner.files(&of_owner),
            record,
            fds: Vec::new(),
            warnings: Vec::new(),
        })
    }

    /// Takes over a container that was started by an engine before this one.
    ///
    /// `fds` are those of [`Sandbox::fds`]; a published port whose socket is not among them is bound again.
    pub async fn adopt(
        &self,
        record: SandboxRecord,
        netns: Option<OwnedFd>,
        fds: Vec<(String, OwnedFd)>,
    ) -> Result<(), NetError> {
        let inner = &self.inner;
        let mut fds: HashMap<String, OwnedFd> = fds.into_iter().collect();
        let mut all = inner.lock();
        let mut container = Container::new(record.clone(), netns.map(Arc::new));
        for endpoint in &record.endpoints {
            if let Some(network) = all.networks.get_mut(&endpoint.network) {
                for address in attachment::addresses(endpoint) {
                    network.leases.adopt(address);
                }
            }
        }
        if let (Some(udp), Some(tcp)) = (fds.remove(RESOLVER_UDP), fds.remove(RESOLVER_TCP))
            && container.namespace.is_some()
        {
            inner.start_resolver(&mut container, dns::Sockets { udp, tcp })?;
        }
        for port in &record.ports {
            let socket = match fds.remove(&ports::Binding::key(port)) {
                Some(socket) => Some(socket),
                None => ports::bind(port).unwrap_or_else(|error| {
                    tracing::warn!(?port, %error, "a published port cannot be served again");
                    None
                }),
            };
            container.proxies.add(ports::Binding {
                port: port.clone(),
                socket,
            });
        }
        container
            .proxies
            .serve(&record, &inner.dialer)
            .map_err(NetError::system("serve the container's ports"))?;
        all.containers.insert(record.container.clone(), container);
        inner.announce(&all, &record.container, &record.endpoints);
        Ok(())
    }

    /// Gives back all that a container had. Its namespace dies with its last process.
    pub async fn release(&self, container: &str) {
        let inner = &self.inner;
        let Some(entry) = inner.lock().containers.remove(container) else {
            return;
        };
        let Container {
            record,
            namespace,
            proxies,
            resolver,
        } = entry;
        proxies.close();
        drop((namespace, resolver));
        for endpoint in &record.endpoints {
            inner.registry.detach(container, &endpoint.network);
        }
        if !record.ports.is_empty()
            && let Err(error) = inner.sync_firewall().await
        {
            tracing::warn!(%error, "rules of published ports are left");
        }
        let attached = !record.endpoints.is_empty();
        if attached {
            let endpoints = record.endpoints.clone();
            let published: Vec<IpAddr> = match record.ports.is_empty() {
                true => Vec::new(),
                false => endpoints.iter().flat_map(attachment::addresses).collect(),
            };
            // Nobody may have the addresses before nothing answers for them any more.
            let job = move |host: &mut super::worker::Host| {
                sandbox::cut_off(host, &endpoints);
                sandbox::forget_connections(&published);
            };
            let _ = inner.workers.run(job).await;
        }
        {
            let mut all = inner.lock();
            for endpoint in &record.endpoints {
                all.give_back(endpoint);
            }
        }
    }

    /// Lets a container that runs be found by another name.
    pub fn rename(&self, container: &str, old: &str, new: &str) {
        let mut all = self.inner.lock();
        let Some(entry) = all.containers.get_mut(container) else {
            return;
        };
        new.clone_into(&mut entry.record.name);
        for endpoint in &mut entry.record.endpoints {
            for name in endpoint.names.iter_mut().filter(|name| *name == old) {
                new.clone_into(name);
            }
        }
        self.inner.registry.rename(container, old, new);
    }

    /// Attaches a running container to one more network.
    pub async fn connect(&self, container: &str, spec: &EndpointSpec) -> Result<EndpointState, NetError> {
        let inner = &self.inner;
        inner.made(&spec.network).await;
        let (namespace, plug, others) = {
            let mut all = inner.lock();
            let Some(entry) = all.containers.get(container) else {
                return Err(NetError::NoSandbox(container.to_owned()));
            };
            let Some(namespace) = entry.namespace.clone().filter(|_| entry.record.mode == Mode::Networks) else {
                return Err(NetError::NoSandbox(container.to_owned()));
            };
            let others = entry.record.endpoints.clone();
            let name = entry.record.name.clone();
            let plug = all.reserve_endpoint(&inner.instance, &name, spec, &others, &[])?;
            let entry = all.containers.get_mut(container).expect("found above");
            entry.record.endpoints.push(plug.endpoint.clone());
            (namespace, plug, others)
        };
        let endpoint = plug.endpoint.clone();
        let connected = inner
            .workers
            .run(move |host| sandbox::connect(host, namespace.as_fd(), &plug, &others))
            .await
            .and_then(|result| result);
        if let Err(error) = connected {
            let mut all = inner.lock();
            if let Some(entry) = all.containers.get_mut(container) {
                entry.record.endpoints.retain(|other| other.network != endpoint.network);
            }
            all.give_back(&endpoint);
            return Err(error);
        }
        {
            let all = inner.lock();
            let attached = |entry: &Container| entry.record.endpoints.contains(&endpoint);
            if !all.containers.get(container).is_some_and(attached) {
                // Released or taken off again while it was being attached.
                return Err(NetError::NoSandbox(container.to_owned()));
            }
            inner.announce(&all, container, std::slice::from_ref(&endpoint));
        }
        self.serve_again(container).await?;
        Ok(endpoint)
    }

    /// Takes a running container off a network.
    pub async fn disconnect(&self, container: &str, network: &str) -> Result<(), NetError> {
        let inner = &self.inner;
        let (namespace, endpoint, others) = {
            let mut all = inner.lock();
            let Some(entry) = all.containers.get_mut(container) else {
                return Err(NetError::NoSandbox(container.to_owned()));
            };
            let endpoints = &mut entry.record.endpoints;
            let Some(at) = endpoints.iter().position(|endpoint| endpoint.network == network) else {
                return Err(NetError::NotAttached {
                    container: entry.record.name.clone(),
                    network: network.to_owned(),
                });
            };
            let endpoint = endpoints.remove(at);
            (entry.namespace.clone(), endpoint, entry.record.endpoints.clone())
        };
        inner.registry.detach(container, network);
        let result = match namespace {
            Some(namespace) => {
                let endpoint = endpoint.clone();
                let job = move |host: &mut super::worker::Host| {
                    sandbox::disconnect(host, namespace.as_fd(), &endpoint, &others)
                };
                inner.workers.run(job).await.and_then(|result| result)
            }
            None => Ok(()),
        };
        inner.lock().give_back(&endpoint);
        self.serve_again(container).await?;
        let published: Vec<IpAddr> = attachment::addresses(&endpoint).collect();
        inner
            .workers
            .run(move |_| sandbox::forget_connections(&published))
            .await?;
        result
    }

    /// Leads published ports to the address the container has now.
    async fn serve_again(&self, container: &str) -> Result<(), NetError> {
        let publishes = {
            let mut all = self.inner.lock();
            let Some(entry) = all.containers.get_mut(container) else {
                return Ok(());
            };
            entry
                .proxies
                .serve(&entry.record, &self.inner.dialer)
                .map_err(NetError::system("serve the container's ports"))?;
            !entry.record.ports.is_empty()
        };
        if publishes {
            self.inner.sync_firewall().await
        } else {
            Ok(())
        }
    }

    /// Returns what is to be kept on disk of a container.
    pub fn record(&self, container: &str) -> Option<SandboxRecord> {
        Some(self.inner.lock().containers.get(container)?.record.clone())
    }

    /// Returns the texts of a container's files, as they would be written now.
    pub fn files(&self, container: &str) -> Option<Files> {
        let record = self.record(container)?;
        Some(self.inner.files(&record))
    }

    /// Returns a container's network namespace.
    pub fn namespace(&self, container: &str) -> Option<OwnedFd> {
        let all = self.inner.lock();
        all.containers.get(container)?.namespace.as_ref()?.try_clone().ok()
    }

    /// Returns whether nothing is kept for any container: what tests ask for leaks.
    pub fn is_idle(&self) -> bool {
        self.inner.lock().containers.is_empty() && self.inner.registry.is_empty()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while a network is being made: it is known from the moment its name and subnets are taken, but has no
    /// bridge yet, and may still have to take other subnets.
    async fn made(&self, network: &str) {
        let making = self.lock().networks.get(network).map(|network| network.making.clone());
        if let Some(mut making) = making {
            // Nothing is ever sent.
            let _ = making.changed().await;
        }
    }

    fn start_resolver(&self, container: &mut Container, sockets: dns::Sockets) -> Result<(), NetError> {
        let Some(namespace) = &container.namespace else {
            return Ok(());
        };
        let servers = Servers::new(files::upstream(&container.record.dns), &self.workers, namespace);
        dns::serve(
            &mut container.resolver,
            sockets,
            &container.record.container,
            &self.registry,
            servers,
        )
        .map_err(NetError::system("answer the container's questions"))
    }

    /// Lets others find the container by its names. Called with the state locked and the container in it, so that
    /// whoever releases it takes the names back afterwards.
    fn announce(&self, all: &State, container: &str, endpoints: &[EndpointState]) {
        for endpoint in endpoints {
            let network = all.networks.get(&endpoint.network);
            let has_names = network.is_some_and(|network| network.state.has_names());
            self.registry.attach(container, endpoint, has_names);
        }
    }

    fn files(&self, record: &SandboxRecord) -> Files {
        files::texts(record, self.host_gateway(record), &HostFiles::read())
    }

    /// The host's address as the container sees it.
    fn host_gateway(&self, record: &SandboxRecord) -> Option<IpAddr> {
        if record.mode == Mode::Host {
            return Some(std::net::Ipv4Addr::LOCALHOST.into());
        }
        let endpoints: Vec<&EndpointState> = record.endpoints.iter().collect();
        let all = self.lock();
        // A container on internal networks alone has no way out, but the host is on the bridge all the same.
        let endpoint = sandbox::default(&endpoints, true).or(endpoints.first().copied())?;
        let pools = &all.networks.get(&endpoint.network)?.state.pools;
        pools.first().map(|pool| pool.gateway)
    }

    /// Makes the firewall's rules those that the networks and ports of this moment need. Many who wish for it at the
    /// same time get it by one change.
    async fn sync_firewall(self: &Arc<Self>) -> Result<(), NetError> {
        let mine = self.wanted.fetch_add(1, Ordering::SeqCst) + 1;
        let mut applied = self.applied.lock().await;
        if *applied >= mine {
            return Ok(());
        }
        let now = self.wanted.load(Ordering::SeqCst);
        let (bridges, published) = self.lock().firewall();
        let gateways = bridges.iter().flat_map(|bridge| bridge.gateways.iter().copied());
        self.gateways.set(gateways.collect());
        let firewall = Arc::clone(&self.firewall);
        self.workers
            .run(move |_| firewall.apply(&bridges, &published))
            .await??;
        *applied = now;
        Ok(())
    }
}
