//! The proxy that owns every published port: it reserves the port, and carries what the firewall cannot.
//!
//! That is `::1`, a container's way to its own published port, IPv6 clients of IPv4 containers, and everything where
//! there is no nftables. The firewall's redirection is a faster way over the same port.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::dialer::Dialer;
use super::relay::relay;
use super::spec::Protocol;
use crate::os::datagram;

/// The largest datagram there can be.
const DATAGRAM_BUFFER: usize = 64 * 1024;
/// How long an answer to a datagram is waited for; docker-proxy's.
const DATAGRAM_PATIENCE: Duration = Duration::from_secs(90);
/// How many clients of one UDP port are remembered at a time.
const DATAGRAM_CLIENTS: usize = 4096;

/// Starts serving a published port; it is served until the task ends.
pub fn serve(
    tasks: &mut JoinSet<()>,
    protocol: Protocol,
    socket: OwnedFd,
    container: SocketAddr,
    dialer: &Dialer,
) -> io::Result<()> {
    match protocol {
        Protocol::Tcp => {
            let listener = std::net::TcpListener::from(socket);
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            tasks.spawn(serve_streams(listener, container, dialer.clone()));
        }
        Protocol::Udp => {
            let socket = std::net::UdpSocket::from(socket);
            socket.set_nonblocking(true)?;
            let socket = UdpSocket::from_std(socket)?;
            tasks.spawn(serve_datagrams(Arc::new(socket), container, dialer.clone()));
        }
        Protocol::Sctp => {}
    }
    Ok(())
}

async fn serve_streams(listener: TcpListener, container: SocketAddr, dialer: Dialer) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(carry(client, container, dialer.clone()));
                }
                Err(error) => {
                    // Out of descriptors or memory: the client waits in the backlog until there is room again.
                    tracing::debug!(%error, "cannot take a connection to a published port");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(client: TcpStream, container: SocketAddr, dialer: Dialer) {
    let server = match dialer.stream(container).await {
        Ok(server) => server,
        Err(_) => {
            // The client sees what it would see without us: nobody listens.
            let _ = rustix::net::sockopt::set_socket_linger(client.as_fd(), Some(Duration::ZERO));
            return;
        }
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    // Either side going away ends the connection; that is no failure of ours.
    let _ = relay(client, server).await;
}

/// A client of a UDP port, and the address it asked.
type Conversation = (SocketAddr, Option<IpAddr>);
type Conversations = Arc<Mutex<HashMap<Conversation, Arc<UdpSocket>>>>;

async fn serve_datagrams(socket: Arc<UdpSocket>, container: SocketAddr, dialer: Dialer) {
    let conversations = Conversations::default();
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BUFFER];
    loop {
        let received = tokio::select! {
            received = socket.async_io(Interest::READABLE, || datagram::receive(socket.as_fd(), &mut buffer)) => received,
            Some(_) = answers.join_next() => continue,
        };
        let Ok((length, from, to)) = received else {
            // Mostly an earlier answer that nobody listened for any more, reported late.
            tokio::task::yield_now().await;
            continue;
        };
        let conversation = (from, to);
        let known = lock(&conversations).get(&conversation).cloned();
        let server = match known {
            Some(server) => server,
            None => {
                if lock(&conversations).len() >= DATAGRAM_CLIENTS {
                    continue;
                }
                let Ok(server) = dialer.datagrams(container).await else {
                    continue;
                };
                let server = Arc::new(server);
                lock(&conversations).insert(conversation, Arc::clone(&server));
                answers.spawn(answer(
                    Arc::clone(&socket),
                    Arc::clone(&server),
                    conversation,
                    Arc::clone(&conversations),
                ));
                server
            }
        };
        let _ = server.send(&buffer[..length]).await;
    }
}

/// Carries a container's datagrams back to one client, until there were none for a while.
async fn answer(
    socket: Arc<UdpSocket>,
    server: Arc<UdpSocket>,
    conversation: Conversation,
    conversations: Conversations,
) {
    let (client, asked) = conversation;
    while let Ok(Ok(())) = tokio::time::timeout(DATAGRAM_PATIENCE, server.readable()).await {
        // Only for as long as there is something to carry: a thousand silent clients need no thousand buffers.
        let mut buffer = vec![0; DATAGRAM_BUFFER];
        loop {
            match server.try_recv(&mut buffer) {
                Ok(length) => {
                    let _ = datagram::send(socket.as_fd(), &buffer[..length], client, asked);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Nobody listens inside (yet): the next datagram may find somebody.
                Err(_) => break,
            }
        }
    }
    lock(&conversations).remove(&conversation);
}

fn lock(conversations: &Conversations) -> std::sync::MutexGuard<'_, HashMap<Conversation, Arc<UdpSocket>>> {
    conversations.lock().unwrap_or_else(PoisonError::into_inner)
}
