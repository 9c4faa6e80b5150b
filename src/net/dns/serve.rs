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
use super::lively::{self, Pace};
use super::registry::Registry;
use super::upstream::Servers;
use crate::net::files::RESOLVER;
use crate::net::firewall;

/// The largest question there is room for.
pub(super) const QUESTION: usize = 4096;
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
    let udp = StdUdpSocket::from(sockets.udp);
    let asked = Arc::new(udp.try_clone()?);
    let udp = UdpSocket::from_std(udp)?;
    let tcp = TcpListener::from_std(sockets.tcp.into())?;
    let server = Arc::new(Server {
        container: container.to_owned(),
        registry: Arc::clone(registry),
        servers,
        forwarded: Semaphore::new(FORWARDED),
    });
    tasks.spawn(Arc::clone(&server).serve_datagrams(udp, asked));
    tasks.spawn(server.serve_streams(tcp));
    Ok(())
}

/// A question that nobody here can answer, and what to say if nobody else can.
struct Open {
    question: Vec<u8>,
    from: SocketAddr,
    failure: Vec<u8>,
}

struct Server {
    container: String,
    registry: Arc<Registry>,
    servers: Servers,
    forwarded: Semaphore,
}

impl Server {
    /// Serves by `watched`, which tells when there is a question, and by another descriptor of the same socket.
    async fn serve_datagrams(self: Arc<Self>, mut watched: UdpSocket, socket: Arc<StdUdpSocket>) {
        let mut forwarded = JoinSet::new();
        let mut pace = Pace::new();
        let mut buffer = vec![0; QUESTION];
        loop {
            let received = tokio::select! {
                received = watched.recv_from(&mut buffer) => received,
                Some(_) = forwarded.join_next() => continue,
            };
            let Ok((length, from)) = received else {
                tokio::task::yield_now().await;
                continue;
            };
            let mut open = self.answer(&socket, &buffer[..length], from);
            if open.is_none()
                && pace.is_lively()
                && let Some(seat) = lively::seat()
            {
                let (server, asked) = (Arc::clone(&self), Arc::clone(&socket));
                let answer = move |question: &[u8], from| server.answer(&asked, question, from);
                let talk = lively::converse(seat, Arc::clone(&socket), answer);
                // What is watched wakes whoever watches, with every question.
                let paused = async {
                    let unwatched = watched.into_std()?;
                    let open = talk.await;
                    Ok::<_, io::Error>((UdpSocket::from_std(unwatched)?, open))
                };
                (watched, open) = match paused.await {
                    Ok(resumed) => resumed,
                    Err(error) => {
                        tracing::warn!(container = self.container, %error, "its questions are not answered any more");
                        return;
                    }
                };
                pace = Pace::new();
            }
            if let Some(open) = open {
                let (server, socket) = (Arc::clone(&self), Arc::clone(&socket));
                forwarded.spawn(async move {
                    let answer = server.forward(&open.question, open.failure, true).await;
                    let _ = socket.send_to(&answer, open.from);
                });
            }
        }
    }

    /// Answers a question, or returns it if somebody else is to be asked.
    fn answer(&self, socket: &StdUdpSocket, question: &[u8], from: SocketAddr) -> Option<Open> {
        match decide(question, &self.container, &self.registry, true) {
            Verdict::Answer(answer) => {
                // One that there is no room for is lost, as datagrams may be.
                let _ = socket.send_to(&answer, from);
                None
            }
            Verdict::Forward { failure } => Some(Open {
                question: question.to_vec(),
                from,
                failure,
            }),
            Verdict::Ignore => None,
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
