//! One container: what it was asked to be, what it is, and what wakes those who wait for it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indexmap::IndexMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::config::{Config, Endpoint, HostConfig, PortBinding, StringMap};
use super::files::{self, Durability};
use super::health::Health;
use super::mounts::MountPoint;
use super::settle::Settling;
use super::{Result, exec, restart, time};
use crate::runtime;

/// What a container is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Created,
    Running,
    Paused,
    /// It ended and will start again after a while.
    Restarting,
    Removing,
    Exited,
    Dead,
}

impl Status {
    /// Returns the word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }

    /// Returns whether Docker's `Running` says yes: restarting and paused containers count.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }

    /// Returns whether there are processes.
    pub fn has_processes(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// What a container is doing, and what it did last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    pub status: Status,
    pub pid: i32,
    pub exit_code: i32,
    pub error: String,
    pub oom_killed: bool,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub health: Option<Health>,
}

/// Everything about a container that outlives the engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    /// Without the slash that the API puts before it.
    pub name: String,
    pub created: Timestamp,
    /// The image's id, `sha256:…`.
    pub image: String,
    pub path: String,
    pub args: Vec<String>,
    pub config: Config,
    pub host: HostConfig,
    /// By the network's name as it was asked for.
    pub networks: IndexMap<String, Endpoint>,
    pub mounts: Vec<MountPoint>,
    pub state: State,
    pub restart_count: u32,
    /// A user stopped it, so that its policy must not bring it back.
    pub manually_stopped: bool,
    /// The ports as they are published now.
    #[serde(default)]
    pub ports: IndexMap<String, Vec<PortBinding>>,
    /// The boot during which it was last started.
    #[serde(default)]
    pub boot_id: String,
    #[serde(default)]
    pub sandbox_id: String,
    /// The ids it has of its own, since its latest start.
    #[serde(default)]
    pub ids: Option<super::ids::Ids>,
    /// What the network keeps of the sandbox, to adopt it after a restart of the engine.
    #[serde(default)]
    pub sandbox: Option<serde_json::Value>,
}

impl Record {
    /// Returns the stop signal's name as it was configured.
    pub fn stop_signal(&self) -> &str {
        if self.config.stop_signal.is_empty() {
            "SIGTERM"
        } else {
            &self.config.stop_signal
        }
    }

    /// Returns the attributes by which events and filters know the container.
    pub fn attributes(&self) -> StringMap {
        let mut attributes: StringMap = self.config.labels.clone();
        attributes.insert("image".to_owned(), self.config.image.clone());
        attributes.insert("name".to_owned(), self.name.clone());
        attributes
    }

    /// Returns what `docker ps` says about the state: `Up 2 minutes (healthy)`.
    pub fn status_line(&self, now: Timestamp) -> String {
        let state = &self.state;
        let since = |moment: Option<Timestamp>| {
            let seconds = moment.map_or(0, |moment| now.duration_since(moment).as_secs());
            super::human::duration(seconds.max(0).unsigned_abs())
        };
        match state.status {
            Status::Created => "Created".to_owned(),
            Status::Running => {
                let health = match &state.health {
                    Some(health) if health.status == "starting" => " (health: starting)".to_owned(),
                    Some(health) if health.status != "none" => format!(" ({})", health.status),
                    _ => String::new(),
                };
                format!("Up {}{health}", since(state.started_at))
            }
            Status::Paused => format!("Up {} (Paused)", since(state.started_at)),
            Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_at)),
            Status::Removing => "Removal In Progress".to_owned(),
            Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished_at)),
            Status::Dead => "Dead".to_owned(),
        }
    }
}

/// What those who wait for a container see of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// How often it ended since the engine knows it.
    pub exits: u64,
    pub running: bool,
    pub exit_code: i32,
    pub removed: bool,
}

/// The file in a container's directory that says what it is.
pub const RECORD: &str = "record.json";

/// One container.
pub struct Container {
    pub id: String,
    pub dir: PathBuf,
    record: Mutex<Record>,
    settling: Arc<Settling>,
    /// Held by whoever changes what the container does, so that start, stop and remove do not cross.
    pub operation: Arc<tokio::sync::Mutex<()>>,
    live: Mutex<Option<Arc<runtime::Container>>>,
    progress: watch::Sender<Progress>,
    pub execs: Mutex<Vec<Arc<exec::Exec>>>,
    /// Cancels the wait before the next automatic start.
    pub restart: super::restart::Restarts,
    /// A user's restart is under way: the end in the middle of it is no reason to remove anything.
    pub manually_restarting: std::sync::atomic::AtomicBool,
    /// Streams that clients attached before there was anything to attach to.
    attachments: Mutex<Vec<(runtime::AttachOptions, OwnedFd)>>,
    /// Ends the task that probes the container's health.
    pub probing: Mutex<Option<tokio_util::sync::CancellationToken>>,
}

impl std::fmt::Debug for Container {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Container")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Container {
    /// Returns a container as its record says it is.
    pub fn new(dir: PathBuf, record: Record, settling: &Arc<Settling>) -> Arc<Self> {
        let progress = Progress {
            exits: 0,
            running: record.state.status.is_running(),
            exit_code: record.state.exit_code,
            removed: false,
        };
        Arc::new(Self {
            id: record.id.clone(),
            dir,
            record: Mutex::new(record),
            settling: Arc::clone(settling),
            operation: Arc::default(),
            live: Mutex::new(None),
            progress: watch::Sender::new(progress),
            execs: Mutex::new(Vec::new()),
            restart: super::restart::Restarts::default(),
            manually_restarting: std::sync::atomic::AtomicBool::new(false),
            attachments: Mutex::new(Vec::new()),
            probing: Mutex::new(None),
        })
    }

    /// Returns the record for reading. Nothing may wait while it is held.
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the record and writes it down.
    pub fn update<T>(&self, change: impl FnOnce(&mut Record) -> T) -> Result<T> {
        let mut record = self.record();
        let value = change(&mut record);
        self.save(&record)?;
        Ok(value)
    }

    /// Changes the record; if it cannot be written down, that is logged and life goes on.
    pub fn note<T>(&self, change: impl FnOnce(&mut Record) -> T) -> T {
        let mut record = self.record();
        let value = change(&mut record);
        if let Err(cause) = self.save(&record) {
            tracing::warn!(container = self.id, cause = cause.chain(), "cannot save the record");
        }
        value
    }

    /// Notes that a user ends the container, which is not to come back by itself.
    pub fn keep_down(&self) {
        let decides = {
            let mut record = self.record();
            record.manually_stopped = true;
            restart::heeds_a_users_stop(&record.host.restart_policy)
        };
        // Elsewhere it is written down with what happens next, and nothing is lost if that is never.
        if decides {
            self.note(|_| ());
        }
    }

    fn save(&self, record: &Record) -> Result<()> {
        let path = self.dir.join(RECORD);
        files::write_json(&path, record, Durability::Settling)?;
        self.settling.soon(&path);
        Ok(())
    }

    /// Returns the runtime's handle while there are processes.
    pub fn live(&self) -> Option<Arc<runtime::Container>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps or drops the runtime's handle.
    pub fn set_live(&self, live: Option<Arc<runtime::Container>>) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = live;
    }

    /// Keeps a stream until the container starts.
    pub fn attach_later(&self, options: runtime::AttachOptions, stream: OwnedFd) {
        self.attachments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((options, stream));
    }

    /// Returns the streams that wait for the start.
    pub fn take_attachments(&self) -> Vec<(runtime::AttachOptions, OwnedFd)> {
        std::mem::take(&mut self.attachments.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns what the container is doing.
    pub fn status(&self) -> Status {
        self.record().state.status
    }

    /// Returns the name without its slash.
    pub fn name(&self) -> String {
        self.record().name.clone()
    }

    /// Returns the first twelve digits of the id.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// Returns the file that the container's output goes to.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join(format!("{}-json.log", self.id))
    }

    /// Returns a view of the container for waiting.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Tells those who wait that the container runs.
    pub fn announce_running(&self) {
        self.progress.send_modify(|progress| progress.running = true);
    }

    /// Tells those who wait that the container ended.
    pub fn announce_exit(&self, exit_code: i32, restarting: bool) {
        self.progress.send_modify(|progress| {
            progress.exits += 1;
            progress.running = restarting;
            progress.exit_code = exit_code;
        });
    }

    /// Tells those who wait that the container is gone.
    pub fn announce_removed(&self) {
        self.progress.send_modify(|progress| {
            progress.running = false;
            progress.removed = true;
        });
    }

    /// Returns the moment of creation as the API's lists write it: seconds.
    pub fn created_seconds(&self) -> i64 {
        self.record().created.as_second()
    }
}

/// Returns sixty-four random hexadecimal digits.
pub fn new_id() -> String {
    loop {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes).expect("the kernel has random bytes");
        let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        // moby: an id whose first twelve digits are a number would be taken for one by the resolver.
        if id[..12].bytes().any(|byte| byte.is_ascii_alphabetic()) {
            return id;
        }
    }
}

/// Returns the id of the machine's present boot.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// Returns the state as `inspect` prints it.
pub fn inspect_state(state: &State) -> serde_json::Value {
    let mut value = serde_json::json!({
        "Status": state.status.as_str(),
        "Running": state.status.is_running(),
        "Paused": state.status == Status::Paused,
        "Restarting": state.status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == Status::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": time::rfc3339_or_never(state.started_at),
        "FinishedAt": time::rfc3339_or_never(state.finished_at),
    });
    if let Some(health) = &state.health {
        value["Health"] = serde_json::json!(health);
    }
    value
}
