//! Connections out: taken at the gate, carried on from the host's namespace.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Gateways;
use crate::net::relay::relay;

/// How long a connection to somebody who does not answer is tried; the kernel's own patience is two minutes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Carries on every connection that comes to the gate.
pub fn serve(tasks: &mut JoinSet<()>, gate: OwnedFd, gateways: Gateways) -> io::Result<()> {
    let listener = TcpListener::from_std(gate.into())?;
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((container, from)) => drop(connections.spawn(carry(container, from, gateways.clone()))),
                    Err(error) => {
                        // Out of descriptors or memory: it waits in the backlog until there is room again.
                        tracing::debug!(%error, "cannot take a connection on its way out");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    });
    Ok(())
}

async fn carry(container: TcpStream, from: SocketAddr, gateways: Gateways) {
    match connect(&container, &gateways).await {
        Ok(outside) => {
            let _ = container.set_nodelay(true);
            let _ = outside.set_nodelay(true);
            // Either side going away ends the connection; that is no failure of ours.
            let _ = relay(container, outside).await;
        }
        Err(error) => {
            tracing::debug!(%from, %error, "a connection goes nowhere");
            // The container sees it end as one that was refused does.
            let _ = rustix::net::sockopt::set_socket_linger(container.as_fd(), Some(Duration::ZERO));
        }
    }
}

async fn connect(container: &TcpStream, gateways: &Gateways) -> io::Result<TcpStream> {
    let wanted = container.local_addr()?;
    let to = gateways.outside(wanted).ok_or(io::ErrorKind::ConnectionRefused)?;
    tokio::time::timeout(PATIENCE, TcpStream::connect(to))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
