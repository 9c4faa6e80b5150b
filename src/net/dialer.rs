//! Connections to containers, made where the containers can be reached from.
//!
//! A socket belongs to the namespace it was made in, and to whichever thread uses it then. Where the containers' bridges lie
//! in another namespace than the engine, sockets are made there by a worker, some at a time, so that a connection seldom
//! waits for one.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::worker::Workers;

/// How many sockets a worker makes at a time.
const BATCH: usize = 16;

/// Makes connections to containers.
#[derive(Clone, Debug, Default)]
pub struct Dialer {
    inside: Option<Arc<Inside>>,
}

#[derive(Debug)]
struct Inside {
    workers: Workers,
    spare: Mutex<Vec<OwnedFd>>,
}

impl Dialer {
    /// Makes connections from the namespace of the workers.
    pub fn inside(workers: &Workers) -> Self {
        Self {
            inside: Some(Arc::new(Inside {
                workers: workers.clone(),
                spare: Mutex::default(),
            })),
        }
    }

    /// Opens a stream.
    pub async fn stream(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let Some(inside) = &self.inside else {
            return TcpStream::connect(to).await;
        };
        let socket = inside.stream_socket(to.is_ipv4()).await?;
        TcpSocket::from_std_stream(socket.into()).connect(to).await
    }

    /// Opens a socket whose datagrams go to one address and come from it.
    pub async fn datagrams(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        let socket = match &self.inside {
            Some(inside) => inside.make(to.is_ipv4(), SocketType::DGRAM, 1).await?.pop(),
            None => Some(new_socket(to.is_ipv4(), SocketType::DGRAM)?),
        };
        let socket = socket.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let socket = std::net::UdpSocket::from(socket);
        socket.connect(to)?;
        UdpSocket::from_std(socket)
    }
}

impl Inside {
    async fn stream_socket(&self, ipv4: bool) -> io::Result<OwnedFd> {
        if ipv4 && let Some(socket) = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(socket);
        }
        let mut made = self
            .make(ipv4, SocketType::STREAM, if ipv4 { BATCH } else { 1 })
            .await?;
        let socket = made.pop().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        self.spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .append(&mut made);
        Ok(socket)
    }

    async fn make(&self, ipv4: bool, kind: SocketType, count: usize) -> io::Result<Vec<OwnedFd>> {
        let job = move |_: &mut super::worker::Host| (0..count).map(|_| new_socket(ipv4, kind)).collect();
        self.workers
            .run(job)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
    }
}

fn new_socket(ipv4: bool, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if ipv4 {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, kind, flags, None)?)
}
