//! Listening for questions of one container.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::answer::{Verdict, decide};
use super::registry::Registry;
use super::upstream::Servers;
use crate::net::files::RESOLVER;
use crate::net::firewall;

/// How many questions of one container are forwarded at a time.
const FORWARDED: usize = 256;
/// How many TCP connections of one container are served at a time.
const STREAMS: usize = 64;
/// How long a TCP connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);

/// The listening sockets, made inside the container's namespace.
#[derive(Debug)]
pub struct Sockets {
    pub udp: OwnedFd,
    pub tcp: OwnedFd,
}

impl Sockets {
    /// Makes the sockets in the calling thread's namespace.
    ///
    /// Where nftables can lead port 53 to them, they listen elsewhere: `127.0.0.11:53` would be in the way of a name
    /// server that the container itself runs on `0.0.0.0:53`.
    pub fn open() -> io::Result<Self> {
        let sockets = Self::bind(0)?;
        let port = |fd: &OwnedFd| -> io::Result<u16> {
            let address = rustix::net::getsockname(fd)?;
            let address = SocketAddr::try_from(address).map_err(io::Error::from)?;
            Ok(address.port())
        };
        let (udp, tcp) = (port(&sockets.udp)?, port(&sockets.tcp)?);
        match firewall::redirect_resolver(RESOLVER.into(), udp, tcp) {
            Ok(()) => Ok(sockets),
            Err(error) => {
                tracing::debug!(%error, cause = %error.source, "the resolver takes port 53 itself");
                Self::bind(53)
            }
        }
    }

    fn bind(port: u16) -> io::Result<Self> {
        let udp = StdUdpSocket::bind((RESOLVER, port))?;
        udp.set_nonblocking(true)?;
        let tcp = StdTcpListener::bind((RESOLVER, port))?;
        tcp.set_nonblocking(true)?;
        Ok(Self {
            udp: udp.into(),
            tcp: tcp.into(),
        })
    }
}

/// Starts answering a container's questions; they are answered until the tasks end.
pub fn serve(
    tasks: &mut JoinSet<()>,
    sockets: Sockets,
    container: &str,
    registry: &Arc<Registry>,
    servers: Servers,
) -> io::Result<()> {
    let udp = UdpSocket::from_std(sockets.udp.into())?;
    let tcp = TcpListener::from_std(sockets.tcp.into())?;
    let server = Arc::new(Server {
        container: container.to_owned(),
        registry: Arc::clone(registry),
        servers,
        forwarded: Semaphore::new(FORWARDED),
    });
    tasks.spawn(Arc::clone(&server).serve_datagrams(udp));
    tasks.spawn(server.serve_streams(tcp));
    Ok(())
}

struct Server {
    container: String,
    registry: Arc<Registry>,
    servers: Servers,
    forwarded: Semaphore,
}

impl Server {
    async fn serve_datagrams(self: Arc<Self>, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let mut forwarded = JoinSet::new();
        let mut buffer = vec![0; 4096];
        loop {
            let received = tokio::select! {
                received = socket.recv_from(&mut buffer) => received,
                Some(_) = forwarded.join_next() => continue,
            };
            let Ok((length, from)) = received else {
                tokio::task::yield_now().await;
                continue;
            };
            let question = &buffer[..length];
            match decide(question, &self.container, &self.registry, true) {
                Verdict::Answer(answer) => {
                    let _ = socket.send_to(&answer, from).await;
                }
                Verdict::Forward { failure } => {
                    let (server, socket, question) = (Arc::clone(&self), Arc::clone(&socket), question.to_vec());
                    forwarded.spawn(async move {
                        let answer = server.forward(&question, failure, true).await;
                        let _ = socket.send_to(&answer, from).await;
                    });
                }
                Verdict::Ignore => {}
            }
        }
    }

    async fn forward(&self, question: &[u8], failure: Vec<u8>, datagram: bool) -> Vec<u8> {
        // More at once than anyone needs: failing now is better than an ever longer queue.
        let Ok(_permit) = self.forwarded.try_acquire() else {
            return failure;
        };
        self.servers.ask(question, datagram).await.unwrap_or(failure)
    }

    async fn serve_streams(self: Arc<Self>, listener: TcpListener) {
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if streams.len() < STREAMS => match accepted {
                    Ok((stream, _)) => {
                        streams.spawn(Arc::clone(&self).serve_stream(stream));
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                },
                Some(_) = streams.join_next() => {}
            }
        }
    }

    async fn serve_stream(self: Arc<Self>, mut stream: TcpStream) {
        while let Ok(Ok(length)) = tokio::time::timeout(SILENCE, stream.read_u16()).await {
            let mut question = vec![0; usize::from(length)];
            let read = tokio::time::timeout(SILENCE, stream.read_exact(&mut question)).await;
            if !matches!(read, Ok(Ok(_))) {
                return;
            }
            let answer = match decide(&question, &self.container, &self.registry, false) {
                Verdict::Answer(answer) => answer,
                Verdict::Forward { failure } => self.forward(&question, failure, false).await,
                Verdict::Ignore => return,
            };
            let Ok(length) = u16::try_from(answer.len()) else {
                return;
            };
            let mut message = length.to_be_bytes().to_vec();
            message.extend_from_slice(&answer);
            if stream.write_all(&message).await.is_err() {
                return;
            }
        }
    }
}
