//! What a service looks like to the engine: the body of the request that creates a container, a network or a volume.
//!
//! Pure but for what a service names by path: secret files are looked at, seccomp profiles are read.
// docker/compose pkg/compose/create.go at 2.40.3

mod container;
pub mod files;
mod mounts;
mod network;
pub mod references;
mod resources;

use std::collections::BTreeMap;

pub use container::{ContainerRequest, Host, container};
pub use network::{endpoint, network, volume};

/// Why a container cannot be created as the file describes it.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("the service-level mac_address should have the same value as network {0}")]
    MacAddress(String),
    #[error("healthcheck.start_interval requires healthcheck.start_period to be set")]
    StartInterval,
    #[error("Invalid security-opt: {0:?}")]
    SecurityOption(String),
    #[error("opening seccomp profile ({path}) failed: {source}")]
    OpenSeccomp {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("compacting json for seccomp profile ({path}) failed: {source}")]
    ReadSeccomp {
        path: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("unsupported external {kind} {name}")]
    External { kind: &'static str, name: String },
    #[error("Docker Compose does not support {kind}s.*.{attribute}")]
    Unsupported {
        kind: &'static str,
        attribute: &'static str,
    },
    #[error("cannot create {kind} \"{name}\" in read-only service {service}: `file` is the sole supported option")]
    ReadOnly {
        kind: &'static str,
        name: String,
        service: String,
    },
    #[error("environment variable \"{variable}\" required by {kind} \"{name}\" is not set")]
    Unset {
        variable: String,
        kind: &'static str,
        name: String,
    },
    #[error("{kind} \"{name}\": {attribute} must be a number, not {text:?}: the names of users belong to the image")]
    Owner {
        kind: &'static str,
        name: String,
        attribute: &'static str,
        text: String,
    },
    #[error("can't set both interface_name and driver_opts.{0}")]
    InterfaceName(&'static str),
    /// The client library knows no other policies, so the engine's own words come from here.
    #[error(
        "Error response from daemon: invalid restart policy: unknown policy '{0}'; use one of 'no', 'always', \
         'on-failure', or 'unless-stopped'"
    )]
    RestartPolicy(String),
    #[error("use_api_socket needs an engine that listens at a unix socket")]
    ApiSocket,
}

/// Collects into what the Engine API takes; nothing becomes no field at all.
fn some<T, C: FromIterator<T>>(items: impl IntoIterator<Item = T>) -> Option<C> {
    let mut items = items.into_iter().peekable();
    items.peek()?;
    Some(items.collect())
}

/// Returns the text, unless it is empty.
fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Returns the number, unless it is zero.
fn number(number: i64) -> Option<i64> {
    (number != 0).then_some(number)
}

/// Returns the mapping, unless it is empty.
fn mapping(mapping: &BTreeMap<String, String>) -> Option<std::collections::HashMap<String, String>> {
    some(mapping.clone())
}
