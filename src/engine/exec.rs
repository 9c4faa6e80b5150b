//! Processes run in a container beside its own: what was asked, whether they run, how they ended.

use std::sync::{Arc, Mutex, PoisonError};

use oci_spec::runtime::Process;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::container::{Container, Status, new_id};
use super::{Engine, EngineError, Result, spec};
use crate::runtime;

/// The body of `POST /containers/{id}/exec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ExecConfig {
    pub user: String,
    pub privileged: bool,
    pub tty: bool,
    pub console_size: Option<[u16; 2]>,
    pub attach_stdin: bool,
    pub attach_stderr: bool,
    pub attach_stdout: bool,
    pub detach_keys: String,
    pub env: Vec<String>,
    pub working_dir: String,
    pub cmd: Vec<String>,
}

/// How far an exec has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExecState {
    pub started: bool,
    pub running: bool,
    pub pid: i32,
    pub exit_code: Option<i32>,
}

/// One process run in a container.
pub struct Exec {
    pub id: String,
    pub container: Arc<Container>,
    pub config: ExecConfig,
    state: watch::Sender<ExecState>,
    live: Mutex<Option<runtime::ExecHandle>>,
}

impl Exec {
    /// Returns how far it has come.
    pub fn state(&self) -> ExecState {
        *self.state.borrow()
    }

    fn set(&self, change: impl FnOnce(&mut ExecState)) {
        self.state.send_modify(change);
    }

    /// Waits for its end.
    pub async fn ended(&self) -> i32 {
        let mut state = self.state.subscribe();
        let ended = state.wait_for(|state| state.exit_code.is_some()).await;
        ended.ok().and_then(|state| state.exit_code).unwrap_or(-1)
    }

    fn live(&self) -> Option<runtime::ExecHandle> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the exec as `inspect` prints it.
    pub fn inspect(&self) -> Value {
        let state = self.state();
        let mut arguments = self.config.cmd.iter();
        let entrypoint = arguments.next();
        json!({
            "ID": self.id,
            "Running": state.running,
            "ExitCode": state.exit_code,
            "ProcessConfig": {
                "tty": self.config.tty,
                "entrypoint": entrypoint,
                "arguments": arguments.collect::<Vec<_>>(),
                "privileged": self.config.privileged,
                "user": self.config.user,
            },
            "OpenStdin": self.config.attach_stdin,
            "OpenStderr": self.config.attach_stderr,
            "OpenStdout": self.config.attach_stdout,
            "CanRemove": state.started && !state.running,
            "ContainerID": self.container.id,
            "DetachKeys": "",
            "Pid": state.pid,
        })
    }
}

impl Engine {
    /// Prepares a process in a running container.
    pub fn create_exec(&self, container: &Arc<Container>, config: ExecConfig) -> Result<Arc<Exec>> {
        if config.cmd.is_empty() {
            return Err(EngineError::InvalidParameter("No exec command specified".to_owned()));
        }
        check_takes_exec(container)?;
        let exec = Arc::new(Exec {
            id: new_id(),
            container: Arc::clone(container),
            config,
            state: watch::Sender::default(),
            live: Mutex::default(),
        });
        {
            let mut execs = container.execs.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that ended long ago are forgotten; clients ask for the exit code right after the end.
            if execs.len() >= 64 {
                let position = execs
                    .iter()
                    .position(|exec| exec.state().exit_code.is_some() || !exec.state().running);
                if let Some(position) = position {
                    execs.remove(position);
                }
            }
            execs.push(Arc::clone(&exec));
        }
        let action = format!("exec_create: {}", exec.config.cmd.join(" "));
        self.container_event(container, &action, &[("execID", &exec.id)]);
        Ok(exec)
    }

    /// Refuses a user whom the container does not know, as Docker does before anything is to run.
    pub async fn check_exec_user(&self, container: &Arc<Container>, user: &str) -> Result<()> {
        let name = user.split(':').next().unwrap_or_default();
        if name.is_empty() || name.bytes().all(|byte| byte.is_ascii_digit()) || container.live().is_none() {
            return Ok(());
        }
        let root = self.open_files(container).await?;
        let user = user.to_owned();
        let known = self.blocking(move || root.identity(&user)).await?;
        known.map(drop).map_err(|cause| {
            // What is wrong with the user, in Docker's words.
            let text = std::error::Error::source(&cause).map_or_else(|| cause.to_string(), ToString::to_string);
            EngineError::InvalidParameter(text)
        })
    }

    /// Returns an exec by its id.
    pub fn find_exec(&self, id: &str) -> Result<Arc<Exec>> {
        self.containers
            .all()
            .into_iter()
            .find_map(|container| {
                let execs = container.execs.lock().unwrap_or_else(PoisonError::into_inner);
                execs.iter().find(|exec| exec.id == id).cloned()
            })
            .ok_or_else(|| EngineError::NotFound(format!("No such exec instance: {id}")))
    }

    /// Starts a prepared process and returns the stream of its input and output.
    pub async fn start_exec(self: &Arc<Self>, exec: &Arc<Exec>, console_size: Option<[u16; 2]>) -> Result<UnixStream> {
        let container = &exec.container;
        if exec.state().started {
            return Err(EngineError::Conflict(format!("exec {} has already run", exec.id)));
        }
        check_takes_exec(container)?;
        let live = container.live().ok_or_else(|| not_running(container))?;
        exec.set(|state| state.started = true);
        let action = format!("exec_start: {}", exec.config.cmd.join(" "));
        self.container_event(container, &action, &[("execID", &exec.id)]);
        let (process, groups) = self.exec_process(exec, console_size)?;
        let spec = runtime::ExecSpec {
            process,
            groups,
            stdin: exec.config.attach_stdin,
            stdout: exec.config.attach_stdout,
            stderr: exec.config.attach_stderr,
            privileged: exec.config.privileged,
        };
        match live.exec(spec).await {
            Ok(running) => {
                exec.set(|state| {
                    state.running = true;
                    state.pid = i32::try_from(running.pid).unwrap_or_default();
                });
                *exec.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(running.handle());
                let engine = Arc::clone(self);
                let exec = Arc::clone(exec);
                let end = running.wait();
                self.tasks.spawn(async move {
                    let code = end.await;
                    engine.end_exec(&exec, code);
                });
                Ok(running.stream)
            }
            Err(cause) => {
                let text = cause.to_string();
                let code = if text.contains("executable file not found") || text.contains("no such file") {
                    127
                } else {
                    126
                };
                self.end_exec(exec, code);
                Err(EngineError::Start(text))
            }
        }
    }

    fn end_exec(&self, exec: &Exec, code: i32) {
        exec.set(|state| {
            state.running = false;
            state.exit_code = Some(code);
        });
        *exec.live.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.container_event(
            &exec.container,
            "exec_die",
            &[("execID", &exec.id), ("exitCode", &code.to_string())],
        );
    }

    fn exec_process(&self, exec: &Exec, console_size: Option<[u16; 2]>) -> Result<(Process, Vec<String>)> {
        let record = exec.container.record();
        let config = &exec.config;
        let size = console_size.or(config.console_size).filter(|size| *size != [0, 0]);
        spec::exec_process(&record, config, size)
    }

    /// Runs a process to its end and returns its exit code and the beginning of what it wrote.
    pub(super) async fn run_to_end(
        self: &Arc<Self>,
        container: &Arc<Container>,
        config: ExecConfig,
        most: usize,
    ) -> Result<(i32, String)> {
        let exec = self.create_exec(container, config)?;
        let guard = KillOnDrop(&exec);
        let mut stream = self.start_exec(&exec, None).await?;
        let mut output = Vec::new();
        let mut buffer = vec![0u8; 4096];
        let mut frames = Frames::default();
        loop {
            let read = stream.read(&mut buffer).await.unwrap_or(0);
            if read == 0 {
                break;
            }
            frames.take(&buffer[..read], |payload| {
                let room = most.saturating_sub(output.len());
                output.extend_from_slice(&payload[..payload.len().min(room)]);
            });
        }
        let code = exec.ended().await;
        drop(guard);
        // Nobody will ask for it again.
        container
            .execs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|other| other.id != exec.id);
        Ok((code, String::from_utf8_lossy(&output).into_owned()))
    }

    /// Changes the size of an exec's terminal.
    pub async fn resize_exec(&self, exec: &Exec, rows: u16, columns: u16) -> Result<()> {
        let live = exec
            .live()
            .ok_or_else(|| EngineError::Conflict(format!("exec {} is not running", exec.id)))?;
        live.resize(rows, columns).await.map_err(|cause| EngineError::Runtime {
            attempt: "cannot resize",
            text: cause.to_string(),
        })
    }
}

/// Ends a probe that nobody waits for any more.
struct KillOnDrop<'e>(&'e Arc<Exec>);

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(live) = self.0.live() {
            tokio::spawn(async move {
                let _ = live.kill(9).await;
            });
        }
    }
}

fn check_takes_exec(container: &Container) -> Result<()> {
    let status = container.status();
    match status {
        Status::Running => Ok(()),
        Status::Paused => Err(EngineError::Conflict(format!(
            "Container {} is paused, unpause the container before exec",
            container.id
        ))),
        Status::Restarting => Err(EngineError::Conflict(format!(
            "Container {} is restarting, wait until the container is running",
            container.id
        ))),
        _ => Err(not_running(container)),
    }
}

fn not_running(container: &Container) -> EngineError {
    EngineError::Conflict(format!("container {} is not running", container.id))
}

/// Takes the eight-byte headers out of a stream of frames.
#[derive(Debug, Default)]
pub struct Frames {
    header: Vec<u8>,
    left: usize,
}

impl Frames {
    /// Hands each piece of payload to `sink`.
    pub fn take(&mut self, mut bytes: &[u8], mut sink: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
                sink(payload);
                self.left -= payload.len();
                bytes = rest;
                continue;
            }
            let (start, rest) = bytes.split_at((8 - self.header.len()).min(bytes.len()));
            self.header.extend_from_slice(start);
            bytes = rest;
            if let Some(length) = self.header.get(4..8) {
                let length = [length[0], length[1], length[2], length[3]];
                self.left = u32::from_be_bytes(length) as usize;
                self.header.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Frames;

    proptest::proptest! {
        #[test]
        fn frames_are_found_however_the_stream_is_cut(
            payloads in proptest::collection::vec(proptest::collection::vec(0u8..255, 0..20), 0..10),
            size in 1usize..30,
        ) {
            let mut bytes = Vec::new();
            for payload in &payloads {
                bytes.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, u8::try_from(payload.len()).unwrap()]);
                bytes.extend_from_slice(payload);
            }
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for chunk in bytes.chunks(size) {
                frames.take(chunk, |payload| found.extend_from_slice(payload));
            }
            proptest::prop_assert_eq!(found, payloads.concat());
        }
    }
}
