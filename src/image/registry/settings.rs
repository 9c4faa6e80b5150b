//! Where images are really fetched from: mirrors, and which registries need not prove who they are.
//!
//! `registries.json` in the configuration directory: `{"mirrors": {"docker.io": ["http://127.0.0.1:5000"], "*": […]}, "insecure":
//! ["host:port", "10.0.0.0/8"]}`; `COMPOSE_REGISTRY_MIRRORS="docker.io=http://127.0.0.1:5000,*=…"` comes before it. `*` stands for
//! every registry that is not listed, so one pull-through cache can serve them all.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::image::{ImageError, index};

/// Mirrors and exceptions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Settings {
    /// Registry (or `*` for all others) to addresses, tried in order before the registry itself.
    #[serde(default)]
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Registries (hosts, or ranges of addresses) whose certificate may be anybody's, and which may have none at all.
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
    /// How to speak to it; the first that works.
    pub schemes: &'static [Scheme],
    pub is_mirror: bool,
}

/// A way to speak to a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Https,
    /// Encrypted, to whoever answers.
    UnverifiedHttps,
    Http,
}

// As Docker does with insecure registries: never in the clear what can be encrypted. What stays on this machine cannot be overheard,
// and most that listens there has no certificate.
const SECURE: &[Scheme] = &[Scheme::Https];
const INSECURE: &[Scheme] = &[Scheme::UnverifiedHttps, Scheme::Http];
const LOOPBACK: &[Scheme] = &[Scheme::Http, Scheme::UnverifiedHttps];
const PLAIN: &[Scheme] = &[Scheme::Http];

impl Settings {
    /// Reads the settings of this machine, or of the user of this process.
    pub fn load() -> Result<Self, ImageError> {
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
            schemes: self.schemes(host),
            is_mirror: false,
        }
    }

    fn mirror(&self, address: &str) -> Option<Endpoint> {
        let (schemes, rest) = if let Some(rest) = address.strip_prefix("http://") {
            (Some(PLAIN), rest)
        } else if let Some(rest) = address.strip_prefix("https://") {
            let host = rest.split('/').next().unwrap_or_default();
            (Some(if self.is_insecure(host) { &INSECURE[..1] } else { SECURE }), rest)
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
            schemes: schemes.unwrap_or_else(|| self.schemes(host)),
            is_mirror: true,
        })
    }

    fn schemes(&self, host: &str) -> &'static [Scheme] {
        if is_loopback(host) {
            LOOPBACK
        } else if self.is_insecure(host) {
            INSECURE
        } else {
            SECURE
        }
    }

    fn is_insecure(&self, host: &str) -> bool {
        let address: Option<IpAddr> = name_of(host).parse().ok();
        self.insecure
            .iter()
            .any(|listed| listed == host || address.is_some_and(|address| is_within(address, listed)))
    }
}

/// Returns whether an address is in a range such as `10.0.0.0/8`.
fn is_within(address: IpAddr, range: &str) -> bool {
    let Some((network, length)) = range.split_once('/') else {
        return false;
    };
    let (Ok(network), Ok(length)) = (network.parse::<IpAddr>(), length.parse::<u32>()) else {
        return false;
    };
    let same = |one: u128, other: u128, width: u32| match width.checked_sub(length) {
        Some(rest) => one.checked_shr(rest).unwrap_or(0) == other.checked_shr(rest).unwrap_or(0),
        None => false,
    };
    match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => same(u32::from(one).into(), u32::from(other).into(), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => same(one.into(), other.into(), 128),
        _ => false,
    }
}

pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
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

/// Returns where our configuration is, the user's first.
pub(super) fn config_directories(variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
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

/// Returns a host without its port.
fn name_of(host: &str) -> &str {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    name.unwrap_or_default()
}

pub(super) fn is_loopback(host: &str) -> bool {
    let name = name_of(host);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(settings: &Settings, registry: &str) -> Vec<(String, bool)> {
        let endpoints = settings.endpoints(registry).into_iter();
        endpoints
            .map(|endpoint| {
                (
                    endpoint.repository(&endpoint.host),
                    endpoint.schemes.contains(&Scheme::Http),
                )
            })
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
    fn an_insecure_registry_is_spoken_to_in_the_clear_only_if_it_must_be() {
        let settings = Settings {
            insecure: vec!["lan:5000".to_owned(), "10.0.0.0/8".to_owned(), "fd00::/8".to_owned()],
            ..Settings::default()
        };
        for (host, expected) in [
            ("lan:5000", INSECURE),
            ("lan", SECURE),
            ("10.1.2.3:5000", INSECURE),
            ("11.1.2.3:5000", SECURE),
            ("[fd00::1]:5000", INSECURE),
            ("docker.io", SECURE),
            ("127.0.0.1:5000", LOOPBACK),
        ] {
            assert_eq!(settings.origin(host).schemes, expected, "{host}");
        }
        assert_eq!(settings.mirror("http://docker.io").unwrap().schemes, PLAIN);
        assert_eq!(
            settings.mirror("https://10.0.0.1/x").unwrap().schemes,
            &[Scheme::UnverifiedHttps]
        );
        assert!(is_within("10.0.0.1".parse().unwrap(), "0.0.0.0/0"));
        assert!(!is_within("10.0.0.1".parse().unwrap(), "0.0.0.0/33"));
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
