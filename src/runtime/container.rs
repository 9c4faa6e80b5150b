//! A running container, as the engine sees it.

use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::runtime::LinuxResources;
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::os::{memfd, socket};
use crate::runtime::cgroup::{self, Cgroup, Stats};
use crate::runtime::connection::Connection;
use crate::runtime::error::RuntimeError;
use crate::runtime::family;
use crate::runtime::launch::{AttachOptions, ExecSpec, ExitRecord};
use crate::runtime::protocol::{Answer, Command, ExecPlan, State};
use crate::runtime::root::RootHandle;
use crate::runtime::time::Timestamp;

/// A running container. Cheap to clone; the conversation with its shim ends with the last clone.
#[derive(Clone, Debug)]
pub struct Container {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    state: State,
    cgroup: Cgroup,
    connection: Connection,
}

/// What became of a container while no engine watched.
#[derive(Debug)]
pub enum Adoption {
    /// It runs, and is this engine's now.
    Running(Container),
    /// It ended.
    Exited(ExitRecord),
}

impl Container {
    pub(crate) fn new(dir: PathBuf, state: State, cgroup: Cgroup, connection: Connection) -> Self {
        Self {
            inner: Arc::new(Inner {
                dir,
                state,
                cgroup,
                connection,
            }),
        }
    }

    /// Returns the container's id.
    pub fn id(&self) -> &str {
        &self.inner.state.id
    }

    /// Returns the container's directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Returns the process id of the container's first process, as this host counts.
    pub fn pid(&self) -> u32 {
        self.inner.state.pid
    }

    /// Returns the process id of the container's shim.
    pub fn shim_pid(&self) -> u32 {
        self.inner.state.shim
    }

    /// Returns when the user's process began.
    pub fn started_at(&self) -> Timestamp {
        self.inner.state.started
    }

    /// Returns whether the container's process has a terminal.
    pub fn has_terminal(&self) -> bool {
        self.inner.state.terminal
    }

    /// Takes what could not be done as asked so far: a limit no controller enforces, a clamped ulimit.
    pub fn warnings(&self) -> Vec<String> {
        self.inner.connection.warnings()
    }

    /// Waits until the container's process has ended. What it had may not be cleared away yet.
    pub async fn ending(&self) {
        let _ = self.inner.connection.ending().wait_for(|ending| *ending).await;
    }

    /// Waits for the container's end.
    pub fn wait(&self) -> impl Future<Output = ExitRecord> + Send + 'static {
        let mut exit = self.inner.connection.exit();
        let started = self.started_at();
        async move {
            let record = exit
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|record| record.clone());
            record.unwrap_or_else(|| ExitRecord {
                code: 137,
                signal: Some(9),
                oom: false,
                started,
                finished: Timestamp::now(),
                reason: Some("the engine let go of the container".to_owned()),
            })
        }
    }

    /// Returns how the container ended, if it has.
    pub fn exit_record(&self) -> Option<ExitRecord> {
        self.inner.connection.exit().borrow().clone()
    }

    /// Sends a signal to the container's first process.
    pub async fn kill(&self, signal: i32) -> Result<(), RuntimeError> {
        self.inner
            .connection
            .tell(Command::Signal { exec: None, signal }, &[])
            .await
    }

    /// Kills every process of the container.
    pub async fn kill_all(&self) -> Result<(), RuntimeError> {
        self.kill(libc::SIGKILL).await
    }

    /// Stops every process where it is.
    pub async fn pause(&self) -> Result<(), RuntimeError> {
        self.freeze(true).await
    }

    /// Lets every process go on.
    pub async fn unpause(&self) -> Result<(), RuntimeError> {
        self.freeze(false).await
    }

    async fn freeze(&self, frozen: bool) -> Result<(), RuntimeError> {
        let cgroup = self.inner.cgroup.clone();
        let path = cgroup.unified().map(Path::to_owned).unwrap_or_default();
        let first = self.pid();
        let result = tokio::task::spawn_blocking(move || match cgroup.is_missing() {
            true => family::stop(first, frozen),
            false => cgroup.freeze(frozen),
        })
        .await;
        result
            .map_err(|_| RuntimeError::ShimGone)?
            .map_err(|source| RuntimeError::Cgroup {
                action: if frozen { "freeze" } else { "thaw" },
                path,
                source,
            })
    }

    /// Changes the size of the terminal.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), RuntimeError> {
        self.inner
            .connection
            .tell(
                Command::Resize {
                    exec: None,
                    rows,
                    columns,
                },
                &[],
            )
            .await
    }

    /// Attaches to the container's streams: Docker's frames (8 bytes of header, then data) where it has no terminal,
    /// bare bytes where it has. What is written goes to the standard input, which ends with the writing side.
    pub async fn attach(&self, options: AttachOptions) -> Result<UnixStream, RuntimeError> {
        let (ours, theirs) = socket::stream_pair().map_err(RuntimeError::Socket)?;
        self.inner
            .connection
            .tell(Command::Attach(options), &[theirs.as_fd()])
            .await?;
        stream(ours)
    }

    /// Runs a process in the container.
    pub async fn exec(&self, spec: ExecSpec) -> Result<Exec, RuntimeError> {
        let (ours, theirs) = socket::stream_pair().map_err(RuntimeError::Socket)?;
        let terminal = spec.process.terminal().unwrap_or(false);
        let size = spec.process.console_size().map(|size| {
            (
                u16::try_from(size.height()).unwrap_or(u16::MAX),
                u16::try_from(size.width()).unwrap_or(u16::MAX),
            )
        });
        let streams = AttachOptions {
            stdin: spec.stdin,
            stdout: spec.stdout,
            stderr: spec.stderr,
        };
        let unconfined = spec.privileged;
        let plan = serde_json::to_vec(&ExecPlan {
            process: spec.process,
            groups: spec.groups,
        })
        .map_err(RuntimeError::Encode)?;
        let plan = memfd::with_bytes("exec", &plan).map_err(RuntimeError::Socket)?;
        let (exec, exit) = self.inner.connection.expect_exec();
        let command = Command::Exec {
            exec,
            terminal,
            streams,
            unconfined,
            size,
        };
        let answer = self
            .inner
            .connection
            .ask(command, &[plan.as_fd(), theirs.as_fd()])
            .await;
        let pid = match answer {
            Ok((Ok(Answer::Exec { pid }), _)) => pid,
            Ok((Ok(_), _)) => 0,
            Ok((Err(text), _)) => {
                self.inner.connection.forget_exec(exec);
                return Err(RuntimeError::Exec(text));
            }
            Err(error) => {
                self.inner.connection.forget_exec(exec);
                return Err(error);
            }
        };
        Ok(Exec {
            container: self.clone(),
            exec,
            exit,
            pid,
            stream: stream(ours)?,
        })
    }

    /// Returns the descriptors the shim keeps for the engine.
    pub async fn fds(&self) -> Result<Vec<(String, OwnedFd)>, RuntimeError> {
        let mut kept = Vec::new();
        loop {
            let (answer, descriptors) = self.inner.connection.ask(Command::Fetch(kept.len()), &[]).await?;
            match answer.map_err(RuntimeError::Refused)? {
                Answer::Descriptors { names, more } => {
                    kept.extend(names.into_iter().zip(descriptors));
                    if !more {
                        return Ok(kept);
                    }
                }
                _ => return Ok(kept),
            }
        }
    }

    /// Gives the shim descriptors to keep.
    pub async fn store(&self, fds: &[(String, OwnedFd)]) -> Result<(), RuntimeError> {
        for chunk in fds.chunks(socket::DESCRIPTORS / 2) {
            let names = chunk.iter().map(|(name, _)| name.clone()).collect();
            let descriptors: Vec<_> = chunk.iter().map(|(_, descriptor)| descriptor.as_fd()).collect();
            self.inner.connection.tell(Command::Store(names), &descriptors).await?;
        }
        Ok(())
    }

    /// Lets the shim close descriptors it keeps.
    pub async fn discard(&self, names: Vec<String>) -> Result<(), RuntimeError> {
        self.inner.connection.tell(Command::Discard(names), &[]).await
    }

    /// Tells the shim that the engine leaves on purpose and shall not be brought back by it.
    pub async fn farewell(&self) -> Result<(), RuntimeError> {
        self.inner.connection.tell(Command::Farewell, &[]).await
    }

    /// Returns what the container uses.
    pub async fn stats(&self) -> Result<Stats, RuntimeError> {
        let cgroup = self.inner.cgroup.clone();
        let pid = self.pid();
        tokio::task::spawn_blocking(move || {
            let mut stats = cgroup.stats();
            stats.network = cgroup::network(pid);
            stats
        })
        .await
        .map_err(|_| RuntimeError::ShimGone)
    }

    /// Returns every process of the container, as this host counts.
    pub fn processes(&self) -> Vec<u32> {
        if self.inner.cgroup.is_missing() {
            return family::members(self.pid());
        }
        self.inner.cgroup.processes()
    }

    /// Changes the container's limits, and returns what could not be changed.
    pub async fn update(&self, resources: LinuxResources) -> Result<Vec<String>, RuntimeError> {
        let cgroup = self.inner.cgroup.clone();
        tokio::task::spawn_blocking(move || {
            let mut warnings = Vec::new();
            cgroup::apply(&cgroup, &resources, |warning| warnings.push(warning));
            warnings
        })
        .await
        .map_err(|_| RuntimeError::ShimGone)
    }

    /// Opens the container's root file system as it is, with everything mounted in it.
    pub fn root(&self) -> Result<RootHandle, RuntimeError> {
        RootHandle::of_process(self.pid())
    }
}

/// A process running in a container.
#[derive(Debug)]
pub struct Exec {
    container: Container,
    exec: u64,
    exit: watch::Receiver<Option<i32>>,
    /// Its process id, as this host counts.
    pub pid: u32,
    /// Its streams, framed as those of [`Container::attach`].
    pub stream: UnixStream,
}

impl Exec {
    /// Waits for its end and returns its exit code.
    pub fn wait(&self) -> impl Future<Output = i32> + Send + 'static {
        let mut exit = self.exit.clone();
        async move {
            exit.wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|code| *code)
                .unwrap_or(137)
        }
    }

    /// Changes the size of its terminal.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), RuntimeError> {
        self.handle().resize(rows, columns).await
    }

    /// Sends it a signal.
    pub async fn kill(&self, signal: i32) -> Result<(), RuntimeError> {
        self.handle().kill(signal).await
    }

    /// Returns what controls the process without owning its stream.
    pub fn handle(&self) -> ExecHandle {
        ExecHandle {
            container: self.container.clone(),
            exec: self.exec,
        }
    }
}

/// What controls a process running in a container.
#[derive(Clone, Debug)]
pub struct ExecHandle {
    container: Container,
    exec: u64,
}

impl ExecHandle {
    /// Changes the size of its terminal.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), RuntimeError> {
        let command = Command::Resize {
            exec: Some(self.exec),
            rows,
            columns,
        };
        self.container.inner.connection.tell(command, &[]).await
    }

    /// Sends it a signal.
    pub async fn kill(&self, signal: i32) -> Result<(), RuntimeError> {
        let command = Command::Signal {
            exec: Some(self.exec),
            signal,
        };
        self.container.inner.connection.tell(command, &[]).await
    }
}

fn stream(socket: OwnedFd) -> Result<UnixStream, RuntimeError> {
    let stream = StdUnixStream::from(socket);
    stream.set_nonblocking(true).map_err(RuntimeError::Socket)?;
    UnixStream::from_std(stream).map_err(RuntimeError::Socket)
}
