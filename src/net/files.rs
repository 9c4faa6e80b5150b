//! The three files of /etc that tell a container about names: hosts, resolv.conf and hostname.
//!
//! Same lines in the same order as Docker writes them (moby `libnetwork/etchosts`, `internal/resolvconf`).

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use super::spec::{DnsSpec, EndpointState, Mode, SandboxRecord};

/// Where containers find our resolver.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// What a host without any name server of its own is given; Docker's choice.
const DEFAULT_SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)];

const LOCAL_HOSTS: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// The texts of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    pub hosts: String,
    pub resolv_conf: String,
    pub hostname: String,
}

/// What the host's own files say.
#[derive(Clone, Debug, Default)]
pub struct HostFiles {
    pub hosts: String,
    pub resolv_conf: String,
}

impl HostFiles {
    /// Reads the host's files; one that is missing says nothing.
    pub fn read() -> Self {
        Self {
            hosts: std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
            resolv_conf: std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        }
    }
}

/// Returns the texts for a container. `gateway` is what `host-gateway` means to it.
pub fn texts(record: &SandboxRecord, gateway: Option<IpAddr>, host: &HostFiles) -> Files {
    Files {
        hosts: hosts(record, gateway, &host.hosts),
        resolv_conf: resolv_conf(&record.mode, &record.dns, &host.resolv_conf),
        hostname: format!("{}\n", record.hostname),
    }
}

fn hosts(record: &SandboxRecord, gateway: Option<IpAddr>, of_host: &str) -> String {
    let mut text = match record.mode {
        Mode::Host => of_host.to_owned(),
        _ => LOCAL_HOSTS.to_owned(),
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for entry in &record.dns.extra_hosts {
        if let Some((name, address)) = extra_host(entry, gateway) {
            let _ = writeln!(text, "{address}\t{name}");
        }
    }
    let names = own_names(&record.hostname, &record.domainname);
    for endpoint in &record.endpoints {
        for address in addresses(endpoint) {
            let _ = writeln!(text, "{address}\t{names}");
        }
    }
    text
}

fn addresses(endpoint: &EndpointState) -> impl Iterator<Item = IpAddr> {
    let ipv4 = endpoint.ipv4.map(IpAddr::V4);
    let ipv6 = endpoint.ipv6.map(IpAddr::V6);
    ipv4.into_iter().chain(ipv6)
}

/// A host name that carries its domain is also known without it.
fn own_names(hostname: &str, domainname: &str) -> String {
    let full = if domainname.is_empty() {
        hostname.to_owned()
    } else {
        format!("{hostname}.{domainname}")
    };
    match full.split_once('.') {
        Some((short, _)) => format!("{full} {short}"),
        None => full,
    }
}

/// Takes `name:address` apart. Either `:` or `=` may stand between; the address may have `:` itself, and brackets.
fn extra_host(entry: &str, gateway: Option<IpAddr>) -> Option<(&str, String)> {
    let at = entry.find([':', '='])?;
    let (name, address) = (&entry[..at], &entry[at + 1..]);
    let address = address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(address);
    if address == "host-gateway" {
        return Some((name, gateway?.to_string()));
    }
    Some((name, address.to_owned()))
}

/// What a resolv.conf says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
    other: Vec<String>,
}

impl ResolvConf {
    /// Reads the host's file; a line that says nothing we know is kept as it is.
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let Some(keyword) = words.next().filter(|word| !word.starts_with(['#', ';'])) else {
                continue;
            };
            let rest: Vec<String> = words.map(str::to_owned).collect();
            match keyword {
                "nameserver" => {
                    // `fe80::1%eth0`: the zone says where to ask; the address alone is what can be asked.
                    let address = rest.first().and_then(|word| word.split('%').next());
                    found
                        .servers
                        .extend(address.and_then(|text| text.parse::<IpAddr>().ok()));
                }
                "domain" | "search" if !rest.is_empty() => found.search = rest,
                "options" => found.options.extend(rest),
                "domain" | "search" => {}
                _ => found.other.push(line.to_owned()),
            }
        }
        found
    }

    fn has_option(&self, name: &str) -> bool {
        self.options.iter().any(|option| option.split(':').next() == Some(name))
    }

    fn has_valid_ndots(&self) -> bool {
        self.options.iter().any(|option| {
            option
                .strip_prefix("ndots:")
                .is_some_and(|value| value.parse::<u32>().is_ok())
        })
    }
}

/// The servers that a container's own questions go to when we have no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// Those of the host, asked from where the host asks them; read anew for each question.
    Host,
    /// Those that the container's file names.
    Named(Vec<IpAddr>),
}

/// Returns whom to ask for a container with these settings.
pub fn upstream(dns: &DnsSpec) -> Upstream {
    let named: Vec<IpAddr> = dns.servers.iter().filter_map(|text| text.parse().ok()).collect();
    if named.is_empty() {
        Upstream::Host
    } else {
        Upstream::Named(named)
    }
}

/// Returns the host's servers, or Docker's defaults if it has none.
pub fn host_servers(text: &str) -> Vec<IpAddr> {
    let servers = ResolvConf::parse(text).servers;
    if servers.is_empty() {
        DEFAULT_SERVERS.map(IpAddr::V4).to_vec()
    } else {
        servers
    }
}

fn resolv_conf(mode: &Mode, dns: &DnsSpec, of_host: &str) -> String {
    let mut conf = ResolvConf::parse(of_host);
    let mut overrides = Vec::new();
    let mut ndots_from = conf.has_option("ndots").then_some("host");
    if let Upstream::Named(servers) = upstream(dns) {
        conf.servers = servers;
        overrides.push("nameservers");
    }
    if !dns.search.is_empty() {
        // A single `.` means: no search domain at all.
        conf.search = dns.search.iter().filter(|domain| *domain != ".").cloned().collect();
        overrides.push("search");
    }
    if !dns.options.is_empty() {
        conf.options.clone_from(&dns.options);
        ndots_from = conf.has_option("ndots").then_some("override");
        overrides.push("options");
    }

    let named = !dns.servers.is_empty();
    let mut used_default = false;
    let mut upstream = Vec::new();
    let transformed = match mode {
        Mode::Host => "",
        Mode::None | Mode::Container(_) => {
            if !named {
                conf.servers.retain(|server| !server.is_loopback());
                if conf.servers.is_empty() {
                    conf.servers = DEFAULT_SERVERS.map(IpAddr::V4).to_vec();
                    used_default = true;
                }
            }
            " (legacy)"
        }
        Mode::Networks => {
            if conf.servers.is_empty() {
                conf.servers = DEFAULT_SERVERS.map(IpAddr::V4).to_vec();
                used_default = true;
            }
            let show = |server: &IpAddr| match named || used_default {
                true => server.to_string(),
                false => format!("host({server})"),
            };
            upstream = conf.servers.iter().map(show).collect();
            conf.servers = vec![RESOLVER.into()];
            if !conf.has_valid_ndots() {
                conf.options.retain(|option| !option.starts_with("ndots:"));
                conf.options.push("ndots:0".to_owned());
                ndots_from = Some("internal");
            }
            " (internal resolver)"
        }
    };

    let mut text = String::from("# Generated by compose.\n\n");
    for server in &conf.servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !conf.search.is_empty() {
        let _ = writeln!(text, "search {}", conf.search.join(" "));
    }
    if !conf.options.is_empty() {
        let _ = writeln!(text, "options {}", conf.options.join(" "));
    }
    for line in &conf.other {
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(text, "\n# Based on host file: '/etc/resolv.conf'{transformed}");
    if used_default {
        text.push_str("# Used default nameservers.\n");
    }
    if !upstream.is_empty() {
        let _ = writeln!(text, "# ExtServers: [{}]", upstream.join(" "));
    }
    let _ = writeln!(text, "# Overrides: [{}]", overrides.join(" "));
    if let Some(from) = ndots_from {
        let _ = writeln!(text, "# Option ndots from: {from}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::spec::Mac;

    fn endpoint(ipv4: &str, ipv6: Option<&str>) -> EndpointState {
        let ipv4: Ipv4Addr = ipv4.parse().unwrap();
        EndpointState {
            network: "n".into(),
            network_name: "n".into(),
            endpoint_id: String::new(),
            names: Vec::new(),
            links: Vec::new(),
            ipv4: Some(ipv4),
            ipv4_prefix: 16,
            gateway: None,
            ipv6: ipv6.map(|text| text.parse().unwrap()),
            ipv6_prefix: 64,
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

    fn record(mode: Mode, dns: DnsSpec) -> SandboxRecord {
        SandboxRecord {
            hostname: "hh".into(),
            domainname: "dd.ee".into(),
            mode,
            dns,
            ..SandboxRecord::default()
        }
    }

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn hosts_has_the_lines_docker_writes() {
        let mut record = record(
            Mode::Networks,
            DnsSpec {
                extra_hosts: strings(&["a:1.2.3.4", "h:host-gateway", "six=[fd00::1]", "s:fd00::2"]),
                ..DnsSpec::default()
            },
        );
        record.endpoints = vec![endpoint("172.18.0.2", Some("fd37::2")), endpoint("172.19.0.2", None)];
        let gateway = Some("172.18.0.1".parse().unwrap());
        assert_eq!(
            texts(&record, gateway, &HostFiles::default()).hosts,
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
             ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n1.2.3.4\ta\n172.18.0.1\th\nfd00::1\tsix\nfd00::2\ts\n\
             172.18.0.2\thh.dd.ee hh\nfd37::2\thh.dd.ee hh\n172.19.0.2\thh.dd.ee hh\n"
        );
    }

    #[test]
    fn on_the_hosts_network_the_hosts_files_are_continued() {
        let mut record = record(Mode::Host, DnsSpec::default());
        record.dns.extra_hosts = strings(&["a:1.2.3.4"]);
        let host = HostFiles {
            hosts: "127.0.0.1 localhost".into(),
            resolv_conf: "nameserver 127.0.0.53\n".into(),
        };
        let files = texts(&record, None, &host);
        assert_eq!(files.hosts, "127.0.0.1 localhost\n1.2.3.4\ta\n");
        assert!(
            files.resolv_conf.contains("\nnameserver 127.0.0.53\n"),
            "{}",
            files.resolv_conf
        );
        assert_eq!(files.hostname, "hh\n");
    }

    #[test]
    fn resolv_conf_names_our_resolver_and_says_whom_it_asks() {
        let host = HostFiles {
            resolv_conf: "# c\nnameserver 10.1.1.1\nsearch corp.example\noptions edns0 ndots:x\nsortlist 1.2.3.4\n"
                .into(),
            ..HostFiles::default()
        };
        let plain = texts(&record(Mode::Networks, DnsSpec::default()), None, &host).resolv_conf;
        assert_eq!(
            plain,
            "# Generated by compose.\n\nnameserver 127.0.0.11\nsearch corp.example\noptions edns0 ndots:0\nsortlist 1.2.3.4\n\n\
             # Based on host file: '/etc/resolv.conf' (internal resolver)\n# ExtServers: [host(10.1.1.1)]\n\
             # Overrides: []\n# Option ndots from: internal\n"
        );
        let dns = DnsSpec {
            servers: strings(&["10.0.0.1", "8.8.4.4"]),
            search: strings(&["."]),
            options: strings(&["timeout:3", "ndots:2"]),
            extra_hosts: Vec::new(),
        };
        let named = texts(&record(Mode::Networks, dns), None, &HostFiles::default()).resolv_conf;
        assert_eq!(
            named,
            "# Generated by compose.\n\nnameserver 127.0.0.11\noptions timeout:3 ndots:2\n\n\
             # Based on host file: '/etc/resolv.conf' (internal resolver)\n# ExtServers: [10.0.0.1 8.8.4.4]\n\
             # Overrides: [nameservers search options]\n# Option ndots from: override\n"
        );
    }

    #[test]
    fn without_a_network_the_hosts_loopback_resolver_is_of_no_use() {
        let host = HostFiles {
            resolv_conf: "nameserver 127.0.0.53\n".into(),
            ..HostFiles::default()
        };
        let text = texts(&record(Mode::None, DnsSpec::default()), None, &host).resolv_conf;
        assert!(text.contains("nameserver 8.8.8.8\nnameserver 8.8.4.4\n"), "{text}");
        assert!(text.contains("# Used default nameservers.\n"), "{text}");
    }
}
