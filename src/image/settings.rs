//! Where images are really fetched from: mirrors, and which registries may be spoken to without encryption.
//!
//! `registries.json` in the configuration directory: `{"mirrors": {"docker.io": ["http://127.0.0.1:5000"], "*": […]}, "insecure":
//! ["host:port"]}`; `COMPOSE_REGISTRY_MIRRORS="docker.io=http://127.0.0.1:5000,*=…"` comes before it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ImageError;
use super::index;

/// Mirrors and exceptions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Settings {
    /// Registry (or `*` for all others) to addresses, tried in order before the registry itself.
    #[serde(default)]
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Registries that are spoken to over plain HTTP.
    #[serde(default)]
    pub insecure: Vec<String>,
}

/// A registry as it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Host and port.
    pub host: String,
    /// What stands before the repository in its path there.
    pub prefix: String,
    pub plain_http: bool,
    pub is_mirror: bool,
}

impl Settings {
    /// Reads the settings of this machine, or of the user of this process.
    pub fn load() -> Result<Self, ImageError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mut settings = Self::default();
        for directory in config_directories(variable) {
            let path = directory.join("registries.json");
            if path.is_file() {
                settings = index::read(&path)?;
                break;
            }
        }
        if let Some(mirrors) = variable("COMPOSE_REGISTRY_MIRRORS") {
            settings.prefer(&mirrors);
        }
        Ok(settings)
    }

    /// Puts mirrors (`registry=address,…`) before those there are.
    fn prefer(&mut self, mirrors: &str) {
        let mut first: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for mirror in mirrors.split(',') {
            if let Some((registry, address)) = mirror.trim().split_once('=') {
                first.entry(registry.to_owned()).or_default().push(address.to_owned());
            }
        }
        for (registry, mut addresses) in first {
            let known = self.mirrors.entry(registry).or_default();
            addresses.append(known);
            *known = addresses;
        }
    }

    /// Returns where to look for images of a registry, in order; the registry itself is last.
    pub(super) fn endpoints(&self, registry: &str) -> Vec<Endpoint> {
        let mirrors = self.mirrors.get(registry).or_else(|| self.mirrors.get("*"));
        let mut endpoints: Vec<Endpoint> = mirrors
            .into_iter()
            .flatten()
            .filter_map(|mirror| self.mirror(mirror))
            .collect();
        endpoints.push(self.origin(registry));
        endpoints
    }

    /// Returns the registry itself, where images are pushed to.
    pub(super) fn origin(&self, registry: &str) -> Endpoint {
        let host = match registry {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        Endpoint {
            host: host.to_owned(),
            prefix: String::new(),
            plain_http: self.may_be_plain(host),
            is_mirror: false,
        }
    }

    fn mirror(&self, address: &str) -> Option<Endpoint> {
        let (plain_http, rest) = if let Some(rest) = address.strip_prefix("http://") {
            (Some(true), rest)
        } else if let Some(rest) = address.strip_prefix("https://") {
            (Some(false), rest)
        } else {
            (None, address)
        };
        let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() {
            return None;
        }
        Some(Endpoint {
            host: host.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
            // A mirror written with `http://` is listed as such by that.
            plain_http: plain_http.unwrap_or_else(|| self.may_be_plain(host)),
            is_mirror: true,
        })
    }

    fn may_be_plain(&self, host: &str) -> bool {
        is_loopback(host) || self.insecure.iter().any(|listed| listed == host)
    }
}

impl Endpoint {
    /// Returns the path of a repository there.
    pub(super) fn repository(&self, path: &str) -> String {
        if self.prefix.is_empty() {
            path.to_owned()
        } else {
            format!("{}/{path}", self.prefix)
        }
    }
}

fn config_directories(variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    if let Some(directory) = variable("COMPOSE_CONFIG_DIR") {
        return vec![PathBuf::from(directory)];
    }
    let home = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".config")));
    home.map(|home| home.join("compose"))
        .into_iter()
        .chain([PathBuf::from("/etc/compose")])
        .collect()
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(settings: &Settings, registry: &str) -> Vec<(String, bool)> {
        let endpoints = settings.endpoints(registry).into_iter();
        endpoints
            .map(|endpoint| (endpoint.repository(&endpoint.host), endpoint.plain_http))
            .collect()
    }

    #[test]
    fn mirrors_come_before_the_registry_itself() {
        let mut settings: Settings = serde_json::from_str(
            r#"{"mirrors": {"docker.io": ["https://second"], "*": ["http://any:1/cache"]}, "insecure": ["lan:5000"]}"#,
        )
        .unwrap();
        settings.prefer("docker.io=http://127.0.0.1:5000, ghcr.io=[::1]:5000");
        let expected = |list: &[(&str, bool)]| -> Vec<(String, bool)> {
            list.iter().map(|(host, plain)| ((*host).to_owned(), *plain)).collect()
        };
        assert_eq!(
            hosts(&settings, "docker.io"),
            expected(&[
                ("127.0.0.1:5000", true),
                ("second", false),
                ("registry-1.docker.io", false)
            ])
        );
        assert_eq!(
            hosts(&settings, "ghcr.io"),
            expected(&[("[::1]:5000", true), ("ghcr.io", false)])
        );
        assert_eq!(
            hosts(&settings, "lan:5000"),
            expected(&[("cache/any:1", true), ("lan:5000", true)])
        );
    }

    #[test]
    fn only_loopback_is_plain_by_itself() {
        for (host, loopback) in [
            ("localhost:5000", true),
            ("127.1.2.3", true),
            ("[::1]:80", true),
            ("localhost.example.com", false),
            ("127.0.0.1.example.com", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(is_loopback(host), loopback, "{host}");
        }
    }
}
