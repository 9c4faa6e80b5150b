//! Which engine a command speaks to: `--engine` and `COMPOSE_ENGINE`, and the variables Docker and Podman read.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// Which engine the user wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EngineChoice {
    /// The engine in this binary.
    #[default]
    Embedded,
    /// Docker, where `DOCKER_HOST`, the docker CLI's context or its usual socket says it is.
    Docker,
    /// Podman, where `CONTAINER_HOST` or its usual sockets say it is.
    Podman,
    /// Whatever listens there.
    At(Address),
}

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// Plain HTTP to `host:port`.
    Tcp(String),
}

/// The text is no engine.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unsupported engine {0:?}: expected \"embedded\", \"docker\", \"podman\", \"unix:///path\" or \"tcp://host:port\""
)]
pub struct InvalidEngine(pub String);

impl FromStr for EngineChoice {
    type Err = InvalidEngine;

    fn from_str(text: &str) -> Result<Self, InvalidEngine> {
        match text {
            "" | "embedded" => Ok(Self::Embedded),
            "docker" => Ok(Self::Docker),
            "podman" => Ok(Self::Podman),
            _ => text.parse().map(Self::At),
        }
    }
}

impl FromStr for Address {
    type Err = InvalidEngine;

    fn from_str(text: &str) -> Result<Self, InvalidEngine> {
        let invalid = || InvalidEngine(text.to_owned());
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.is_empty() {
                Err(invalid())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        let host = text
            .strip_prefix("tcp://")
            .or_else(|| text.strip_prefix("http://"))
            .map(|host| host.trim_end_matches('/'))
            .filter(|host| !host.is_empty())
            .ok_or_else(invalid)?;
        // Docker's port without TLS.
        Ok(Self::Tcp(
            if host.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()) {
                host.to_owned()
            } else {
                format!("{host}:2375")
            },
        ))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::Tcp(host) => write!(formatter, "tcp://{host}"),
        }
    }
}

impl EngineChoice {
    /// Returns where a foreign engine is expected to listen.
    pub(super) fn address(&self) -> Address {
        match self {
            Self::At(address) => address.clone(),
            Self::Podman => podman_address(),
            Self::Docker | Self::Embedded => docker_address(),
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `DOCKER_HOST`, then the docker CLI's current context, then the usual socket: docker/cli's own order.
fn docker_address() -> Address {
    variable("DOCKER_HOST")
        .or_else(context_host)
        .and_then(|host| host.parse().ok())
        .unwrap_or_else(|| Address::Unix("/var/run/docker.sock".into()))
}

/// Returns the host of the docker CLI's current context, which it keeps under the digest of the context's name.
fn context_host() -> Option<String> {
    let config = variable("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&variable("HOME")?).join(".docker")))?;
    let name = variable("DOCKER_CONTEXT").or_else(|| {
        let text = std::fs::read(config.join("config.json")).ok()?;
        let settings: serde_json::Value = serde_json::from_slice(&text).ok()?;
        Some(settings.get("currentContext")?.as_str()?.to_owned())
    })?;
    if name.is_empty() || name == "default" {
        return None;
    }
    let digest: String = Sha256::digest(name.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let text = std::fs::read(config.join("contexts/meta").join(digest).join("meta.json")).ok()?;
    let meta: serde_json::Value = serde_json::from_slice(&text).ok()?;
    Some(meta.pointer("/Endpoints/docker/Host")?.as_str()?.to_owned())
}

fn podman_address() -> Address {
    if let Some(address) = variable("CONTAINER_HOST").and_then(|host| host.parse().ok()) {
        return address;
    }
    variable("XDG_RUNTIME_DIR")
        .map(|directory| Path::new(&directory).join("podman/podman.sock"))
        .filter(|socket| socket.exists())
        .map_or_else(|| Address::Unix("/run/podman/podman.sock".into()), Address::Unix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_named_or_addressed() {
        for (text, expected) in [
            ("embedded", EngineChoice::Embedded),
            ("docker", EngineChoice::Docker),
            ("podman", EngineChoice::Podman),
            (
                "unix:///run/x.sock",
                EngineChoice::At(Address::Unix("/run/x.sock".into())),
            ),
            ("/run/x.sock", EngineChoice::At(Address::Unix("/run/x.sock".into()))),
            ("tcp://h:1", EngineChoice::At(Address::Tcp("h:1".into()))),
            ("tcp://h", EngineChoice::At(Address::Tcp("h:2375".into()))),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_engine_is_refused() {
        for text in ["dockerd", "unix://", "tcp://", "ssh://host"] {
            assert_eq!(
                text.parse::<EngineChoice>(),
                Err(InvalidEngine(text.to_owned())),
                "{text}"
            );
        }
    }
}
