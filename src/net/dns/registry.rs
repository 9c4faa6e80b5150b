//! Who has which name on which network.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::net::spec::{EndpointState, Link, Rank};

/// The names of all containers that run. Shared by everything that answers questions.
#[derive(Debug, Default)]
pub struct Registry {
    tables: RwLock<Tables>,
    /// Moves on with every answer, so that replicas take turns.
    turn: AtomicUsize,
}

#[derive(Debug, Default)]
struct Tables {
    networks: HashMap<String, Network>,
    /// The networks of each container, in the order they are searched.
    containers: HashMap<String, Vec<Attachment>>,
}

#[derive(Debug, Default)]
struct Network {
    name: String,
    /// By name in lower case.
    hosts: HashMap<String, Vec<Host>>,
    addresses: HashMap<IpAddr, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    container: String,
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
}

#[derive(Debug)]
struct Attachment {
    network: String,
    rank: Rank,
    links: Vec<Link>,
    leads_out: bool,
}

/// The addresses behind a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    pub ipv4: Vec<Ipv4Addr>,
    pub ipv6: Vec<Ipv6Addr>,
}

impl Registry {
    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Makes a container known on a network, and the network's names known to it. Where `has_names` is false, it
    /// only may ask.
    pub fn attach(&self, container: &str, endpoint: &EndpointState, has_names: bool) {
        let mut tables = self.write();
        let attachments = tables.containers.entry(container.to_owned()).or_default();
        attachments.push(Attachment {
            network: endpoint.network.clone(),
            rank: endpoint.rank(),
            links: endpoint.links.clone(),
            leads_out: endpoint.leads_out,
        });
        attachments.sort_by(|one, other| one.rank.cmp(&other.rank));
        if !has_names {
            return;
        }
        let network = tables.networks.entry(endpoint.network.clone()).or_default();
        network.name = endpoint.network_name.to_lowercase();
        let host = Host {
            container: container.to_owned(),
            ipv4: endpoint.ipv4,
            ipv6: endpoint.ipv6,
        };
        for name in &endpoint.names {
            let hosts = network.hosts.entry(name.to_lowercase()).or_default();
            if !hosts.contains(&host) {
                hosts.push(host.clone());
            }
        }
        if let Some(name) = endpoint.names.first() {
            let addresses = endpoint.ipv4.map(IpAddr::V4).into_iter();
            for address in addresses.chain(endpoint.ipv6.map(IpAddr::V6)) {
                let full = format!("{name}.{}", endpoint.network_name);
                network.addresses.insert(address, full);
            }
        }
    }

    /// Makes a container known by another name where it was known by an old one.
    pub fn rename(&self, container: &str, old: &str, new: &str) {
        let mut tables = self.write();
        let Some(attachments) = tables.containers.get(container) else {
            return;
        };
        let networks: Vec<String> = attachments
            .iter()
            .map(|attachment| attachment.network.clone())
            .collect();
        for network in networks {
            let Some(table) = tables.networks.get_mut(&network) else {
                continue;
            };
            let Some(hosts) = table.hosts.get_mut(&old.to_lowercase()) else {
                continue;
            };
            let moved: Vec<Host> = hosts.extract_if(.., |host| host.container == container).collect();
            if hosts.is_empty() {
                table.hosts.remove(&old.to_lowercase());
            }
            for host in &moved {
                let addresses = host.ipv4.map(IpAddr::V4).into_iter();
                for address in addresses.chain(host.ipv6.map(IpAddr::V6)) {
                    if let Some(full) = table.addresses.get_mut(&address)
                        && let Some(rest) = full.strip_prefix(old)
                    {
                        *full = format!("{new}{rest}");
                    }
                }
            }
            table.hosts.entry(new.to_lowercase()).or_default().extend(moved);
        }
    }

    /// Forgets a container on a network.
    pub fn detach(&self, container: &str, network: &str) {
        let mut tables = self.write();
        if let Some(attachments) = tables.containers.get_mut(container) {
            attachments.retain(|attachment| attachment.network != network);
            if attachments.is_empty() {
                tables.containers.remove(container);
            }
        }
        let Some(table) = tables.networks.get_mut(network) else {
            return;
        };
        let mut gone = Vec::new();
        table.hosts.retain(|_, hosts| {
            hosts.retain(|host| {
                let stays = host.container != container;
                if !stays {
                    gone.extend(host.ipv4.map(IpAddr::V4));
                    gone.extend(host.ipv6.map(IpAddr::V6));
                }
                stays
            });
            !hosts.is_empty()
        });
        for address in gone {
            table.addresses.remove(&address);
        }
        if table.hosts.is_empty() {
            tables.networks.remove(network);
        }
    }

    /// Returns the addresses of a name as `container` knows it; `None` if it knows no such name.
    ///
    /// Networks are asked in the order of their ranks, and for each family the first that has an address answers, as
    /// Docker does it: a link first, then the whole name, then `name.network` as the name on that network alone.
    pub fn find(&self, container: &str, name: &str) -> Option<Addresses> {
        let name = name.to_lowercase();
        let tables = self.read();
        let attachments: Vec<(&Attachment, &Network)> = tables
            .containers
            .get(container)?
            .iter()
            .filter_map(|attachment| Some((attachment, tables.networks.get(&attachment.network)?)))
            .collect();
        let mut found = None;
        let whole = std::iter::once((name.as_str(), None));
        let parts = name
            .rmatch_indices('.')
            .map(|(at, _)| (&name[..at], Some(&name[at + 1..])));
        for (host, on) in whole.chain(parts) {
            let on_this = |network: &Network| on.is_none_or(|on| on == network.name);
            let linked = attachments.iter().filter_map(|(attachment, network)| {
                let mut links = attachment.links.iter().filter(|_| on_this(network));
                let link = links.find(|link| link.alias.eq_ignore_ascii_case(host))?;
                network.hosts.get(&link.target.to_lowercase())
            });
            let named = attachments
                .iter()
                .filter_map(|(_, network)| network.hosts.get(host).filter(|_| on_this(network)));
            for hosts in linked.chain(named) {
                self.add_addresses(found.get_or_insert_default(), hosts);
            }
        }
        found
    }

    /// Adds the addresses of the families that have none yet.
    fn add_addresses(&self, found: &mut Addresses, hosts: &[Host]) {
        let turn = if hosts.len() > 1 {
            self.turn.load(Ordering::Relaxed)
        } else {
            0
        };
        if found.ipv4.is_empty() {
            found.ipv4 = hosts.iter().filter_map(|host| host.ipv4).collect();
            let count = found.ipv4.len().max(1);
            found.ipv4.rotate_left(turn % count);
        }
        if found.ipv6.is_empty() {
            found.ipv6 = hosts.iter().filter_map(|host| host.ipv6).collect();
            let count = found.ipv6.len().max(1);
            found.ipv6.rotate_left(turn % count);
        }
    }

    /// Lets the next replica take its turn. Called once per answer that names addresses: a client that asks for both
    /// families at once must not always get the same first replica.
    pub fn next_turn(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the name of an address as `container` knows it.
    pub fn name_of(&self, container: &str, address: IpAddr) -> Option<String> {
        let tables = self.read();
        let attachments = tables.containers.get(container)?;
        attachments.iter().find_map(|attachment| {
            tables
                .networks
                .get(&attachment.network)?
                .addresses
                .get(&address)
                .cloned()
        })
    }

    /// Returns whether the container's questions may leave its networks.
    pub fn leads_out(&self, container: &str) -> bool {
        self.read()
            .containers
            .get(container)
            .is_some_and(|attachments| attachments.iter().any(|attachment| attachment.leads_out))
    }

    /// Returns whether nothing is known any more.
    pub fn is_empty(&self) -> bool {
        let tables = self.read();
        tables.networks.is_empty() && tables.containers.is_empty()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::net::spec::Mac;

    /// An attachment for tests: `10.<network>.0.<host>` under the names.
    pub fn endpoint(network: u8, host: u8, names: &[&str]) -> EndpointState {
        let ipv4 = Ipv4Addr::new(10, network, 0, host);
        EndpointState {
            network: format!("id{network}"),
            network_name: format!("net{network}"),
            endpoint_id: String::new(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            links: Vec::new(),
            ipv4: Some(ipv4),
            ipv4_prefix: 24,
            gateway: None,
            ipv6: None,
            ipv6_prefix: 0,
            gateway6: None,
            mac: Mac::of(ipv4),
            interface: "eth0".into(),
            host_interface: String::new(),
            gw_priority: 0,
            link_local: Vec::new(),
            leads_out: true,
            sysctls: Vec::new(),
        }
    }

    fn found(registry: &Registry, container: &str, name: &str) -> Option<Vec<String>> {
        let addresses = registry.find(container, name)?;
        Some(addresses.ipv4.iter().map(ToString::to_string).collect())
    }

    fn one(address: &str) -> Option<Vec<String>> {
        Some(vec![address.to_owned()])
    }

    #[test]
    fn a_container_knows_the_names_of_its_own_networks_only() {
        let registry = Registry::default();
        registry.attach("web", &endpoint(1, 2, &["p-web-1", "web"]), true);
        registry.attach("db", &endpoint(2, 2, &["p-db-1", "db"]), true);
        assert_eq!(found(&registry, "web", "WEB"), one("10.1.0.2"));
        assert_eq!(found(&registry, "web", "db"), None);
        registry.attach("web", &endpoint(2, 3, &["web"]), true);
        assert_eq!(found(&registry, "web", "db"), one("10.2.0.2"));
        assert_eq!(found(&registry, "web", "web.net2"), one("10.2.0.3"));
        assert_eq!(
            registry.name_of("web", "10.1.0.2".parse().unwrap()).as_deref(),
            Some("p-web-1.net1")
        );
        assert_eq!(registry.name_of("db", "10.1.0.2".parse().unwrap()), None);
    }

    #[test]
    fn of_several_shared_networks_the_one_that_leads_out_first_answers() {
        let registry = Registry::default();
        for container in ["web", "db"] {
            let host = if container == "web" { 2 } else { 3 };
            // In the order in which Docker searches them; attached the other way round.
            let mut inner = endpoint(4, host, &[container]);
            inner.leads_out = false;
            let mut second = endpoint(3, host, &[container]);
            second.network_name = "net1a".into();
            let first = endpoint(2, host, &[container]);
            let mut both = endpoint(5, host, &[container]);
            both.ipv6 = Some(Ipv6Addr::LOCALHOST);
            both.gateway = both.ipv4;
            both.gateway6 = both.ipv6;
            for endpoint in [inner, first, second, both] {
                registry.attach(container, &endpoint, true);
            }
        }
        for network in [5, 3, 2, 4] {
            let expected = format!("10.{network}.0.3");
            assert_eq!(found(&registry, "web", "db"), one(&expected));
            registry.detach("web", &format!("id{network}"));
        }
        let mut wanted = endpoint(4, 2, &["web"]);
        wanted.leads_out = false;
        wanted.gw_priority = 1;
        registry.attach("web", &endpoint(2, 2, &["web"]), true);
        registry.attach("web", &wanted, true);
        assert_eq!(found(&registry, "web", "db"), one("10.4.0.3"));
    }

    #[test]
    fn each_family_is_answered_by_the_first_network_that_has_it() {
        let registry = Registry::default();
        registry.attach("web", &endpoint(1, 2, &["web"]), true);
        registry.attach("web", &endpoint(2, 2, &["web"]), true);
        registry.attach("db", &endpoint(1, 3, &["db"]), true);
        let mut six = endpoint(2, 3, &["db"]);
        six.ipv6 = Some(Ipv6Addr::LOCALHOST);
        registry.attach("db", &six, true);
        let addresses = registry.find("web", "db").unwrap();
        assert_eq!(addresses.ipv4, [Ipv4Addr::new(10, 1, 0, 3)]);
        assert_eq!(addresses.ipv6, [Ipv6Addr::LOCALHOST]);
    }

    #[test]
    fn a_network_s_name_may_have_dots_and_a_host_s_too() {
        let registry = Registry::default();
        let mut dotted = endpoint(1, 2, &["a.b"]);
        dotted.network_name = "my.Net".into();
        registry.attach("web", &dotted, true);
        assert_eq!(found(&registry, "web", "a.b.my.net"), one("10.1.0.2"));
        assert_eq!(found(&registry, "web", "a.b"), one("10.1.0.2"));
        assert_eq!(found(&registry, "web", "a.b.net"), None);
    }

    #[test]
    fn a_renamed_container_has_its_new_name_and_keeps_its_aliases() {
        let registry = Registry::default();
        registry.attach("web", &endpoint(1, 2, &["p-web-1", "web"]), true);
        registry.attach("db", &endpoint(1, 3, &["p-db-1", "db"]), true);
        registry.rename("db", "p-db-1", "Other");
        assert_eq!(found(&registry, "web", "other"), one("10.1.0.3"));
        assert_eq!(found(&registry, "web", "p-db-1"), None);
        assert_eq!(found(&registry, "web", "db"), one("10.1.0.3"));
        assert_eq!(
            registry.name_of("web", "10.1.0.3".parse().unwrap()).as_deref(),
            Some("Other.net1")
        );
        registry.detach("db", "id1");
        assert_eq!(found(&registry, "web", "other"), None);
    }

    #[test]
    fn replicas_take_turns() {
        let registry = Registry::default();
        registry.attach("a", &endpoint(1, 2, &["web"]), true);
        registry.attach("b", &endpoint(1, 3, &["web"]), true);
        let mut first = Vec::new();
        for _ in 0..4 {
            first.push(found(&registry, "a", "web").unwrap()[0].clone());
            registry.next_turn();
        }
        assert_eq!(first, ["10.1.0.2", "10.1.0.3", "10.1.0.2", "10.1.0.3"]);
    }

    #[test]
    fn a_link_is_a_name_that_one_container_knows() {
        let registry = Registry::default();
        let mut endpoint_of_web = endpoint(1, 2, &["web"]);
        endpoint_of_web.links = vec![Link {
            target: "p-db-1".into(),
            alias: "database".into(),
        }];
        registry.attach("web", &endpoint_of_web, true);
        registry.attach("db", &endpoint(1, 3, &["p-db-1", "db"]), true);
        assert_eq!(found(&registry, "web", "database"), one("10.1.0.3"));
        assert_eq!(found(&registry, "db", "database"), None);
    }

    #[test]
    fn nothing_is_known_of_containers_that_are_gone() {
        let registry = Registry::default();
        registry.attach("a", &endpoint(1, 2, &["web"]), true);
        registry.attach("b", &endpoint(1, 3, &["web"]), true);
        registry.detach("a", "id1");
        assert_eq!(found(&registry, "b", "web"), one("10.1.0.3"));
        assert_eq!(registry.name_of("b", "10.1.0.2".parse().unwrap()), None);
        registry.detach("b", "id1");
        assert!(registry.is_empty());
    }
}
