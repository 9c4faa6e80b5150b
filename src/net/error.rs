//! What can go wrong with networks, in Docker's words where Docker has some.

use std::io;
use std::path::PathBuf;

use super::spec::Protocol;
use crate::os::netlink::RequestError;

/// Why a network, an attachment or a published port was not made.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("network {0} not found")]
    NoSuchNetwork(String),
    #[error("network with name {0} already exists")]
    NetworkExists(String),
    #[error("network {network} has active endpoints ({})", .endpoints.join(", "))]
    ActiveEndpoints { network: String, endpoints: Vec<String> },
    #[error("plugin \"{0}\" not found")]
    NoSuchDriver(String),
    /// What is wrong with the network's own description, all of it.
    #[error("invalid network config:\n{}", .0.join("\n"))]
    InvalidNetwork(Vec<String>),
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    PoolOverlap,
    #[error("all predefined address pools have been fully subnetted")]
    PoolsExhausted,
    #[error("failed to allocate gateway ({address}): Address already in use")]
    GatewayTaken { address: String },
    #[error("failed to allocate secondary ip address ({name}:{address}): Address already in use")]
    AuxiliaryTaken { name: String, address: String },
    /// What is wrong with an attachment's description.
    #[error("invalid config for network {network}: invalid endpoint settings:\n{}", list(.problems))]
    InvalidEndpoint { network: String, problems: Vec<String> },
    #[error("Address already in use")]
    AddressTaken,
    #[error("no available {family} addresses on this network's address pools: {network} ({id})")]
    AddressesExhausted {
        family: &'static str,
        network: String,
        id: String,
    },
    #[error("endpoint with name {container} already exists in network {network}")]
    AlreadyAttached { container: String, network: String },
    #[error("container {container} is not connected to network {network}")]
    NotAttached { container: String, network: String },
    #[error("container {0} has no network namespace of its own here")]
    NoSandbox(String),
    #[error("driver failed programming external connectivity on endpoint {container} ({endpoint})")]
    Publish {
        container: String,
        endpoint: String,
        #[source]
        problem: PortError,
    },
    #[error(
        "this kernel has no {0} interfaces: load its module (`modprobe {0}`), or choose another driver for the network"
    )]
    NoSuchLink(&'static str),
    /// The kernel refused something.
    #[error(transparent)]
    Kernel(#[from] RequestError),
    #[error("cannot {attempt}")]
    System {
        attempt: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot {attempt} {path:?}")]
    File {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot understand {path:?}")]
    Record {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// The engine is going down.
    #[error("the network's worker threads have ended")]
    Ended,
}

/// Why a port could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Another container of this engine has it.
    #[error("Bind for {address} failed: port is already allocated{}", by(.holder))]
    Allocated { address: String, holder: Option<String> },
    /// Another process has it.
    #[error("failed to bind host port {address}/{}: address already in use{}", .protocol.name(), by(.holder))]
    InUse {
        address: String,
        protocol: Protocol,
        holder: Option<String>,
    },
    /// The kernel's reason is told in Go's words, which people search for.
    #[error("failed to bind host port {address}/{}: {}{}", .protocol.name(), reason(.cause), remedy(.address, .cause))]
    Bind {
        address: String,
        protocol: Protocol,
        cause: io::Error,
    },
    #[error("all ports are allocated")]
    Exhausted,
}

/// Says how a plain user gets a port that the kernel keeps for root.
fn remedy(address: &str, cause: &io::Error) -> String {
    let port = address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    match port {
        Some(port) if cause.kind() == io::ErrorKind::PermissionDenied && port < 1024 => format!(
            " (the kernel keeps ports below net.ipv4.ip_unprivileged_port_start for root: publish a port from 1024 up, or as \
             root \"sysctl -w net.ipv4.ip_unprivileged_port_start={port}\")"
        ),
        _ => String::new(),
    }
}

/// What kind of trouble it is, as an API tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    NotFound,
    Invalid,
    Conflict,
    Forbidden,
    Internal,
}

impl NetError {
    /// Returns the error's kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSuchNetwork(_) | Self::NoSuchDriver(_) => ErrorKind::NotFound,
            Self::InvalidNetwork(_) | Self::InvalidEndpoint { .. } => ErrorKind::Invalid,
            Self::NetworkExists(_) => ErrorKind::Conflict,
            Self::PoolOverlap
            | Self::ActiveEndpoints { .. }
            | Self::AlreadyAttached { .. }
            | Self::GatewayTaken { .. }
            | Self::AuxiliaryTaken { .. } => ErrorKind::Forbidden,
            _ => ErrorKind::Internal,
        }
    }

    pub fn system(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempt = attempt.into();
        move |source| Self::System { attempt, source }
    }
}

/// One problem stands alone; several are a list.
fn list(problems: &[String]) -> String {
    match problems {
        [problem] => problem.clone(),
        several => several
            .iter()
            .map(|problem| format!("* {problem}"))
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

fn by(holder: &Option<String>) -> String {
    holder
        .as_ref()
        .map_or_else(String::new, |holder| format!(" (held by {holder})"))
}

/// Go's words for what the kernel answers, which people search for.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => "cannot assign requested address".to_owned(),
        Some(libc::EACCES) => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}
