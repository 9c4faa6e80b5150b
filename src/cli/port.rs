//! `compose port`: print the public port for a port binding.

use std::process::ExitCode;

use super::containers::{self, OneOff};
use super::{CommandError, Context, ps_row};
use crate::ui::stream;

/// Print the public port for a port binding
#[derive(Debug, clap::Args)]
#[command(override_usage = "port [OPTIONS] SERVICE PRIVATE_PORT")]
pub struct Args {
    /// Index of the container if service has multiple replicas
    #[arg(long, value_name = "int", default_value_t = 0)]
    pub index: i64,
    /// tcp or udp
    #[arg(long, value_name = "string", default_value = "tcp")]
    pub protocol: String,
    #[arg(value_name = "SERVICE")]
    pub service: String,
    #[arg(value_name = "PRIVATE_PORT")]
    pub private_port: String,
}

/// Prints where a port of a container is published.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let port: u16 = args.private_port.parse().map_err(|_| {
        let is_number = args.private_port.bytes().all(|byte| byte.is_ascii_digit()) && !args.private_port.is_empty();
        let reason = if is_number {
            "value out of range"
        } else {
            "invalid syntax"
        };
        CommandError::message(format!(
            "strconv.ParseUint: parsing {}: {reason}",
            stream::quoted(&args.private_port)
        ))
    })?;
    let project = context.project_name()?;
    let engine = context.engine().await?;
    let container = containers::one(&engine, &project, &args.service, args.index, OneOff::Exclude, false).await?;
    let ports = container.ports.as_deref().unwrap_or_default();
    let protocol = args.protocol.to_lowercase();
    let kind = |port: &bollard::models::PortSummary| port.typ.map(|kind| kind.to_string()).unwrap_or_default();
    // A port has an entry per address family; docker shows the IPv4 one.
    let mut matching: Vec<_> = ports
        .iter()
        .filter(|entry| entry.private_port == port && kind(entry) == protocol)
        .collect();
    matching.sort_by_key(|entry| entry.ip.as_deref().is_some_and(|address| address.contains(':')));
    if let Some(entry) = matching.first() {
        let public = entry.public_port.unwrap_or(0).to_string();
        let address = entry.ip.as_deref().unwrap_or_default();
        stream::out(format!("{}\n", ps_row::host_and_port(address, &public)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let published: Vec<String> = ports
        .iter()
        .map(|entry| format!("{}/{}", entry.public_port.unwrap_or(0), kind(entry)))
        .collect();
    Err(CommandError::message(format!(
        "no port {port}/{protocol} for container {}: {}",
        containers::name(&container),
        published.join(", ")
    )))
}
