//! The engine's side of the conversation with a shim.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::os::socket;
use crate::runtime::error::RuntimeError;
use crate::runtime::launch::ExitRecord;
use crate::runtime::protocol::{Answer, Command, Report, Request, State};

type Reply = (Result<Answer, String>, Vec<OwnedFd>);

/// How a start came out.
pub type Started = Result<State, RuntimeError>;

/// A conversation with a shim. Its reader ends with it.
#[derive(Debug)]
pub struct Connection {
    socket: Arc<AsyncFd<OwnedFd>>,
    shared: Arc<Shared>,
    next: AtomicU64,
    reader: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[derive(Debug)]
struct Shared {
    pending: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
    execs: Mutex<HashMap<u64, watch::Sender<Option<i32>>>>,
    ending: watch::Sender<bool>,
    exit: watch::Sender<Option<ExitRecord>>,
    warnings: Mutex<Vec<String>>,
    gone: watch::Sender<bool>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    /// Takes up a conversation. `started` hears whether the container started; `bury` is asked for an exit record when
    /// the shim is gone without having sent one.
    pub fn open(
        socket: OwnedFd,
        started: Option<oneshot::Sender<Started>>,
        bury: impl FnOnce() -> ExitRecord + Send + 'static,
    ) -> Result<Self, RuntimeError> {
        rustix::io::ioctl_fionbio(&socket, true).map_err(|error| RuntimeError::Socket(error.into()))?;
        let socket = Arc::new(socket::watch(socket).map_err(RuntimeError::Socket)?);
        let shared = Arc::new(Shared {
            pending: Mutex::default(),
            execs: Mutex::default(),
            ending: watch::Sender::new(false),
            exit: watch::Sender::new(None),
            warnings: Mutex::default(),
            gone: watch::Sender::new(false),
        });
        let reader = tokio::spawn(read(Arc::clone(&socket), Arc::clone(&shared), started, bury));
        Ok(Self {
            socket,
            shared,
            next: AtomicU64::new(1),
            reader,
        })
    }

    /// Asks the shim and waits for its answer.
    pub async fn ask(&self, command: Command, descriptors: &[BorrowedFd<'_>]) -> Result<Reply, RuntimeError> {
        let sequence = self.next.fetch_add(1, Ordering::Relaxed);
        let request = serde_json::to_vec(&Request { sequence, command }).map_err(RuntimeError::Encode)?;
        let (sender, receiver) = oneshot::channel();
        locked(&self.shared.pending).insert(sequence, sender);
        let sent = self
            .socket
            .async_io(Interest::WRITABLE, |socket| socket::send(socket, &request, descriptors))
            .await;
        if let Err(error) = sent {
            locked(&self.shared.pending).remove(&sequence);
            return Err(if error.kind() == io::ErrorKind::BrokenPipe {
                RuntimeError::ShimGone
            } else {
                RuntimeError::Send(error)
            });
        }
        // The reader may have ended, and emptied the list, before this entry was made.
        if *self.shared.gone.borrow() {
            locked(&self.shared.pending).remove(&sequence);
        }
        receiver.await.map_err(|_| RuntimeError::ShimGone)
    }

    /// Asks for something that is answered with "done".
    pub async fn tell(&self, command: Command, descriptors: &[BorrowedFd<'_>]) -> Result<(), RuntimeError> {
        let (answer, _) = self.ask(command, descriptors).await?;
        answer.map(drop).map_err(RuntimeError::Refused)
    }

    /// Returns whether the container's process has ended, though not all may be cleared away.
    pub fn ending(&self) -> watch::Receiver<bool> {
        self.shared.ending.subscribe()
    }

    /// Returns the container's end, once it comes.
    pub fn exit(&self) -> watch::Receiver<Option<ExitRecord>> {
        self.shared.exit.subscribe()
    }

    /// Returns the end of a process about to be run in the container.
    pub fn expect_exec(&self) -> (u64, watch::Receiver<Option<i32>>) {
        // Unlike an answer's number, one that an earlier engine's processes in this container cannot have.
        let exec = u64::from(std::process::id()) << 32 | self.next.fetch_add(1, Ordering::Relaxed);
        let sender = watch::Sender::new(None);
        let receiver = sender.subscribe();
        locked(&self.shared.execs).insert(exec, sender);
        (exec, receiver)
    }

    /// Forgets a process that did not start.
    pub fn forget_exec(&self, exec: u64) {
        locked(&self.shared.execs).remove(&exec);
    }

    /// Takes the warnings that came so far.
    pub fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.shared.warnings))
    }
}

async fn read(
    socket: Arc<AsyncFd<OwnedFd>>,
    shared: Arc<Shared>,
    mut started: Option<oneshot::Sender<Started>>,
    bury: impl FnOnce() -> ExitRecord + Send + 'static,
) {
    let mut failed = false;
    loop {
        let received = socket
            .async_io(Interest::READABLE, |socket| socket::receive(socket.as_fd()))
            .await;
        let Ok(Some(message)) = received else {
            break;
        };
        match serde_json::from_slice(&message.bytes) {
            Ok(Report::Started(state)) => {
                if let Some(started) = started.take() {
                    let _ = started.send(Ok(state));
                }
            }
            Ok(Report::Failed(text)) => {
                failed = true;
                if let Some(started) = started.take() {
                    let _ = started.send(Err(RuntimeError::Start(text)));
                }
            }
            Ok(Report::Warning(text)) => {
                tracing::warn!("{text}");
                locked(&shared.warnings).push(text);
            }
            Ok(Report::Answer { sequence, result }) => {
                if let Some(sender) = locked(&shared.pending).remove(&sequence) {
                    let _ = sender.send((result, message.descriptors));
                }
            }
            Ok(Report::Ending) => {
                shared.ending.send_replace(true);
            }
            Ok(Report::Exited(record)) => {
                shared.exit.send_replace(Some(record));
                // A shim of an earlier release says it all at once.
                shared.ending.send_replace(true);
            }
            Ok(Report::ExecExited { exec, code }) => {
                if let Some(sender) = locked(&shared.execs).remove(&exec) {
                    sender.send_replace(Some(code));
                }
            }
            // A shim of a later release says something this engine does not know.
            Err(error) => tracing::debug!(%error, "unknown message from a shim"),
        }
    }
    shared.gone.send_replace(true);
    locked(&shared.pending).clear();
    let is_open = shared.exit.borrow().is_none() && !failed;
    if is_open && let Ok(record) = tokio::task::spawn_blocking(bury).await {
        shared.exit.send_replace(Some(record));
    }
    shared.ending.send_replace(true);
    if let Some(started) = started.take() {
        let _ = started.send(Err(RuntimeError::ShimGone));
    }
    // A process whose container is gone was killed with it.
    for (_, sender) in locked(&shared.execs).drain() {
        sender.send_replace(Some(137));
    }
}
