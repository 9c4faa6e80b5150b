//! The sockets and proxies of one container's published ports.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::Shutdown;
use tokio::task::JoinSet;

use super::attachment;
use super::dialer::Dialer;
use super::ports::Binding;
use super::proxy;
use super::spec::{Protocol, SandboxRecord};

/// The published ports of a container.
#[derive(Debug, Default)]
pub struct Proxies {
    bindings: Vec<Binding>,
    tasks: JoinSet<()>,
}

impl Proxies {
    /// Adds a port; it is served from the next [`Proxies::serve`] on.
    pub fn add(&mut self, binding: Binding) {
        self.bindings.push(binding);
    }

    /// Serves all ports, at the addresses that the container has now.
    pub fn serve(&mut self, record: &SandboxRecord, dialer: &Dialer) -> io::Result<()> {
        self.tasks = JoinSet::new();
        for binding in &self.bindings {
            let port = &binding.port;
            let Some(address) = attachment::published_address(record, port.host_ip) else {
                continue;
            };
            if let Some(socket) = &binding.socket {
                let container = SocketAddr::new(address, port.container_port);
                proxy::serve(&mut self.tasks, port.protocol, socket.try_clone()?, container, dialer)?;
            }
        }
        Ok(())
    }

    /// Returns copies of the sockets, each with its name.
    pub fn copies(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        self.bindings
            .iter()
            .filter_map(|binding| Some((Binding::key(&binding.port), binding.socket.as_ref()?)))
            .map(|(key, socket)| Ok((key, socket.try_clone()?)))
            .collect()
    }

    /// Frees the ports, even where a copy of a socket lives on for a moment.
    pub fn close(mut self) {
        self.tasks.abort_all();
        for binding in &self.bindings {
            if let (Protocol::Tcp, Some(socket)) = (binding.port.protocol, &binding.socket) {
                // A listening socket that was shut down listens no more; refusing is all this can fail with.
                let _ = rustix::net::shutdown(socket, Shutdown::Both);
            }
        }
    }
}
