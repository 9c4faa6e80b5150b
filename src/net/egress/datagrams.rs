//! Datagrams out: each pair of addresses is a conversation with a socket in either namespace.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::SocketType;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::Gateways;
use super::gate::stand_in;
use crate::net::worker::Workers;
use crate::os::datagram;

/// How long a conversation may be silent; what a firewall that keeps account of connections allows one that was answered.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many conversations there may be at a time.
const CONVERSATIONS: usize = 4096;
const BUFFER: usize = 64 * 1024;

/// A container's address, and the one it speaks to.
type Pair = (SocketAddr, SocketAddr);
type Conversations = Arc<Mutex<HashMap<Pair, Arc<UdpSocket>>>>;

/// Carries on every datagram that comes to the gate.
pub fn serve(tasks: &mut JoinSet<()>, gate: OwnedFd, workers: Workers, gateways: Gateways) -> io::Result<()> {
    let gate = UdpSocket::from_std(gate.into())?;
    tasks.spawn(async move {
        let conversations = Conversations::default();
        let mut running = JoinSet::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let received = tokio::select! {
                received = gate.async_io(Interest::READABLE, || datagram::receive_all(gate.as_fd(), &mut buffer)) => received,
                Some(_) = running.join_next() => continue,
            };
            let Ok(received) = received else {
                tokio::task::yield_now().await;
                continue;
            };
            let Some(wanted) = received.original else { continue };
            let pair = (received.from, wanted);
            let known = lock(&conversations).get(&pair).cloned();
            let outside = match known {
                Some(outside) => outside,
                None if lock(&conversations).len() >= CONVERSATIONS => continue,
                None => {
                    let Ok(outside) = open_outside(pair.1, &gateways).await else { continue };
                    let outside = Arc::new(outside);
                    lock(&conversations).insert(pair, Arc::clone(&outside));
                    let conversations = Arc::clone(&conversations);
                    running.spawn(converse(pair, Arc::clone(&outside), workers.clone(), conversations));
                    outside
                }
            };
            let _ = outside.send(&buffer[..received.length]).await;
        }
    });
    Ok(())
}

async fn open_outside(wanted: SocketAddr, gateways: &Gateways) -> io::Result<UdpSocket> {
    let to = gateways.outside(wanted).ok_or(io::ErrorKind::ConnectionRefused)?;
    let any: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    Ok(socket)
}

/// Carries a conversation's datagrams both ways until there were none for a while.
async fn converse(pair: Pair, outside: Arc<UdpSocket>, workers: Workers, conversations: Conversations) {
    if let Ok(inside) = open_inside(pair, &workers).await {
        let mut buffer = vec![0; BUFFER];
        // Silence ends it: which of the two spoke last does not matter.
        while let Ok(speaker) = tokio::time::timeout(PATIENCE, next_speaker(&inside, &outside)).await {
            let (from, to) = match speaker {
                Speaker::Inside => (&inside, &*outside),
                Speaker::Outside => (&*outside, &inside),
            };
            match from.try_recv(&mut buffer) {
                Ok(length) => drop(to.send(&buffer[..length]).await),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Nobody listens there (yet).
                Err(_) => {}
            }
        }
    }
    lock(&conversations).remove(&pair);
}

enum Speaker {
    Inside,
    Outside,
}

async fn next_speaker(inside: &UdpSocket, outside: &UdpSocket) -> Speaker {
    tokio::select! {
        _ = inside.readable() => Speaker::Inside,
        _ = outside.readable() => Speaker::Outside,
    }
}

/// Makes the socket that stands in for whom the container speaks to: answers come from it, and further datagrams to it.
async fn open_inside((container, wanted): Pair, workers: &Workers) -> io::Result<UdpSocket> {
    let socket = workers
        .run(move |_| -> io::Result<OwnedFd> {
            let socket = stand_in(wanted, SocketType::DGRAM)?;
            rustix::net::connect(&socket, &container)?;
            Ok(socket)
        })
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))??;
    UdpSocket::from_std(socket.into())
}

fn lock(conversations: &Conversations) -> MutexGuard<'_, HashMap<Pair, Arc<UdpSocket>>> {
    conversations.lock().unwrap_or_else(PoisonError::into_inner)
}
