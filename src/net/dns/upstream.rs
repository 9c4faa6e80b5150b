//! Asking others: the servers that a container's file names, or the host's.
//!
//! Questions go out as they came in, so that whatever a client and a server agree on (EDNS, DNSSEC) passes through.
//! They are asked from the host's namespace; only a server on a loopback address that the container's file names is
//! looked for inside the container.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::net::error::NetError;
use crate::net::files::{Upstream, host_servers};
use crate::net::worker::Workers;

/// When the next server is asked as well.
const IMPATIENCE: Duration = Duration::from_millis(700);
/// When a question is given up: before the client does, which usually waits five seconds.
const PATIENCE: Duration = Duration::from_secs(4);
/// When a question is given up while all servers were silent a moment ago: a machine without a way out should not
/// wait for each name anew.
const LITTLE_PATIENCE: Duration = Duration::from_millis(500);
/// How long a server counts as silent after it did not answer.
const SILENCE: Duration = Duration::from_secs(10);
/// As many as resolvers use; more would only make failing slower.
const SERVERS: usize = 3;

/// The servers that did not answer, and since when.
static SILENT: LazyLock<Mutex<HashMap<IpAddr, Instant>>> = LazyLock::new(Mutex::default);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a container's questions go.
#[derive(Debug)]
pub struct Servers {
    upstream: Upstream,
    /// The container's namespace, for servers of its own on its loopback.
    inside: Option<(Workers, Arc<OwnedFd>)>,
}

impl Servers {
    /// Returns the servers of a container with its namespace.
    pub fn new(upstream: Upstream, workers: &Workers, namespace: &Arc<OwnedFd>) -> Self {
        let has_inside = matches!(&upstream, Upstream::Named(servers) if servers.iter().any(IpAddr::is_loopback));
        Self {
            upstream,
            inside: has_inside.then(|| (workers.clone(), Arc::clone(namespace))),
        }
    }

    /// Asks the servers, and returns the first answer that is one.
    pub async fn ask(&self, question: &[u8], datagram: bool) -> Option<Vec<u8>> {
        let servers = match &self.upstream {
            Upstream::Host => host_servers_now(),
            Upstream::Named(servers) => servers.clone(),
        };
        let servers = &servers[..servers.len().min(SERVERS)];
        let silent = {
            let mut silent = lock(&SILENT);
            silent.retain(|_, since| since.elapsed() < SILENCE);
            servers.iter().all(|server| silent.contains_key(server))
        };
        let patience = if silent { LITTLE_PATIENCE } else { PATIENCE };
        let answer = timeout(patience, self.ask_each(servers, question, datagram)).await;
        let mut silent = lock(&SILENT);
        for &server in servers {
            match answer {
                Ok(Some(_)) => silent.remove(&server),
                Ok(None) => None,
                Err(_) => silent.insert(server, Instant::now()),
            };
        }
        answer.ok().flatten()
    }

    /// Asks one server after the other, without waiting for the end of a slow one.
    async fn ask_each(&self, servers: &[IpAddr], question: &[u8], datagram: bool) -> Option<Vec<u8>> {
        let mut asked: JoinSet<io::Result<Vec<u8>>> = JoinSet::new();
        let mut waiting = servers.iter();
        let mut refusal = None;
        loop {
            let next = waiting.next();
            if let Some(&server) = next {
                let inside = self.inside.clone().filter(|_| server.is_loopback());
                asked.spawn(ask_one(server, inside, question.to_vec(), datagram));
            }
            if asked.is_empty() {
                return refusal;
            }
            // While there are others to ask, wait only a little; a failure goes on to the next at once.
            let answer = match next {
                Some(_) => timeout(IMPATIENCE, asked.join_next()).await.unwrap_or(None),
                None => asked.join_next().await,
            };
            match answer {
                Some(Ok(Ok(answer))) if is_refusal(&answer) => refusal = Some(answer),
                Some(Ok(Ok(answer))) => return Some(answer),
                _ => {}
            }
        }
    }
}

/// Servers that fail or refuse are not the last word while others can be asked.
fn is_refusal(answer: &[u8]) -> bool {
    const SERVER_FAILURE: u8 = 2;
    const REFUSED: u8 = 5;
    answer
        .get(3)
        .is_some_and(|flags| [SERVER_FAILURE, REFUSED].contains(&(flags & 0x0f)))
}

async fn ask_one(
    server: IpAddr,
    inside: Option<(Workers, Arc<OwnedFd>)>,
    question: Vec<u8>,
    datagram: bool,
) -> io::Result<Vec<u8>> {
    let server = SocketAddr::new(server, 53);
    if datagram {
        let socket = UdpSocket::from_std(socket_for(server, inside).await?)?;
        socket.connect(server).await?;
        socket.send(&question).await?;
        let mut buffer = vec![0; 4096];
        loop {
            let length = socket.recv(&mut buffer).await?;
            // Late or forged answers have another number or another question.
            if is_answer(&question, &buffer[..length]) {
                buffer.truncate(length);
                return Ok(buffer);
            }
        }
    }
    let mut stream = match inside {
        None => TcpStream::connect(server).await?,
        Some((workers, namespace)) => {
            let connect = move |host: &mut crate::net::worker::Host| {
                host.in_namespace(namespace.as_fd(), |_| {
                    std::net::TcpStream::connect_timeout(&server, PATIENCE)
                        .map_err(NetError::system("ask a name server"))
                })
            };
            let stream = workers
                .run(connect)
                .await
                .and_then(|stream| stream)
                .map_err(io::Error::other)?;
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)?
        }
    };
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    let mut message = length.to_be_bytes().to_vec();
    message.extend_from_slice(&question);
    stream.write_all(&message).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if is_answer(&question, &answer) {
        Ok(answer)
    } else {
        Err(io::Error::from(io::ErrorKind::InvalidData))
    }
}

async fn socket_for(server: SocketAddr, inside: Option<(Workers, Arc<OwnedFd>)>) -> io::Result<std::net::UdpSocket> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let bind = move || std::net::UdpSocket::bind((any, 0));
    let socket = match inside {
        None => bind()?,
        Some((workers, namespace)) => {
            let open = move |host: &mut crate::net::worker::Host| {
                host.in_namespace(namespace.as_fd(), |_| {
                    bind().map_err(NetError::system("ask a name server"))
                })
            };
            workers
                .run(open)
                .await
                .and_then(|socket| socket)
                .map_err(io::Error::other)?
        }
    };
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Returns whether the bytes answer the question: same number, and the same question told back.
fn is_answer(question: &[u8], answer: &[u8]) -> bool {
    const HEADER: usize = 12;
    if question.len() < HEADER || answer.len() < HEADER || answer[..2] != question[..2] || answer[2] & 0x80 == 0 {
        return false;
    }
    let asked = question_section(question);
    let told = question_section(answer);
    // Servers that refuse may leave the question out.
    told.is_empty() || told.eq_ignore_ascii_case(asked)
}

/// The first question of a message, as it is written there.
fn question_section(message: &[u8]) -> &[u8] {
    const HEADER: usize = 12;
    if message.get(4..6) == Some(&[0, 0]) {
        return &[];
    }
    let rest = &message[HEADER..];
    let mut at = 0;
    loop {
        match rest.get(at) {
            Some(0) => return rest.get(..at + 5).unwrap_or_default(),
            Some(&length) if length < 64 => at += usize::from(length) + 1,
            _ => return &[],
        }
    }
}

/// Reads the host's servers; its file is small, changes rarely, and is looked at for each question.
fn host_servers_now() -> Vec<IpAddr> {
    static LAST: Mutex<Option<(SystemTime, Vec<IpAddr>)>> = Mutex::new(None);
    const FILE: &str = "/etc/resolv.conf";
    let changed = std::fs::metadata(FILE).and_then(|metadata| metadata.modified());
    let mut last = lock(&LAST);
    if let (Ok(changed), Some((then, servers))) = (&changed, &*last)
        && changed == then
    {
        return servers.clone();
    }
    let servers = host_servers(&std::fs::read_to_string(FILE).unwrap_or_default());
    if let Ok(changed) = changed {
        *last = Some((changed, servers.clone()));
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_to_the_question_is_one() {
        let mut question = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        question.extend_from_slice(b"\x02db\x00\x00\x01\x00\x01");
        let mut answer = question.clone();
        assert!(!is_answer(&question, &answer), "a question is no answer");
        answer[2] |= 0x80;
        assert!(is_answer(&question, &answer));
        answer[13] = b'D';
        assert!(is_answer(&question, &answer), "case does not matter");
        answer[13] = b'x';
        assert!(!is_answer(&question, &answer), "another question");
        answer[13] = b'd';
        answer[0] = 9;
        assert!(!is_answer(&question, &answer), "another number");
        assert!(!is_answer(&question, &[]));
    }
}
