//! What is remembered of a container between two commands.

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

use super::{Containers, OciError, file_error};
use crate::runtime::cgroup::{Cgroup, Layout};
use crate::runtime::time::Timestamp;

/// The record in a container's directory.
const STATE: &str = "state.json";
/// What a container that was not started yet waits at.
pub const GATE: &str = "exec.fifo";

/// How a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Its first process waits for the word to start.
    Created,
    /// It runs.
    Running,
    /// It is stopped where it is.
    Paused,
    /// It has ended.
    Stopped,
}

impl Status {
    /// Returns the specification's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// What is remembered of a container.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub id: String,
    /// Where its spec came from.
    pub bundle: PathBuf,
    /// The number of its first process.
    pub pid: i32,
    /// When that began, in the kernel's ticks, so that another process of the number is not taken for it.
    pub began: u64,
    /// When it was made.
    pub created: Timestamp,
    /// Its cgroups, below each hierarchy's root.
    pub cgroup: PathBuf,
    /// Whether the cgroups' parent is this runtime's own.
    pub owns_parent: bool,
    /// What it was made from.
    pub spec: Spec,
}

impl Record {
    /// Returns its cgroups.
    pub fn cgroups(&self) -> Cgroup {
        let layout = Layout::read();
        match (self.owns_parent, self.cgroup.parent(), self.cgroup.file_name()) {
            (true, Some(parent), Some(name)) => {
                Cgroup::new(&layout, &parent.to_string_lossy(), &name.to_string_lossy())
            }
            _ => Cgroup::at(&layout, &self.cgroup),
        }
    }

    /// Opens its first process, where that lives.
    pub fn process(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.pid)?;
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Asked after the descriptor is there: it keeps the number from being given to another.
        (began(self.pid) == Some(self.began)).then_some(process)
    }

    /// Returns how it is.
    pub fn status(&self, directory: &Path) -> Status {
        if self.process().is_none() {
            Status::Stopped
        } else if directory.join(GATE).exists() {
            Status::Created
        } else if self.cgroups().is_frozen() {
            Status::Paused
        } else {
            Status::Running
        }
    }

    /// Returns the specification's account of it, and what else runc tells.
    pub fn state(&self, status: Status) -> serde_json::Value {
        let root = self.spec.root().as_ref().map(|root| self.bundle.join(root.path()));
        let mut state = serde_json::json!({
            "ociVersion": self.spec.version(),
            "id": self.id,
            "pid": if status == Status::Stopped { 0 } else { self.pid },
            "status": status.word(),
            "bundle": self.bundle,
            "rootfs": root,
            "created": self.created.to_string(),
            "owner": "",
        });
        if let Some(annotations) = self.spec.annotations() {
            state["annotations"] = serde_json::json!(annotations);
        }
        state
    }

    /// Writes the record, whole or not at all.
    pub fn write(&self, directory: &Path) -> Result<(), OciError> {
        let path = directory.join(STATE);
        let temporary = directory.join(".state.json.new");
        let bytes = serde_json::to_vec(self).map_err(|error| OciError::Content {
            path: path.clone(),
            why: error.to_string(),
        })?;
        let mut file = fs::OpenOptions::new();
        let file = file.write(true).create(true).truncate(true).mode(0o600);
        // What it is made from has an environment in it, which is nobody's business.
        file.open(&temporary)
            .and_then(|mut file| file.write_all(&bytes))
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(file_error(&path))
    }
}

impl Containers {
    /// Reads what is remembered of a container, and how that is.
    pub fn get(&self, id: &str) -> Result<(Record, Status), OciError> {
        let directory = self.directory(id)?;
        let path = directory.join(STATE);
        let bytes = fs::read(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => OciError::Missing(id.to_owned()),
            _ => OciError::File {
                path: path.clone(),
                source,
            },
        })?;
        let record: Record = serde_json::from_slice(&bytes).map_err(|error| OciError::Content {
            path,
            why: error.to_string(),
        })?;
        let status = record.status(&directory);
        Ok((record, status))
    }

    /// Returns every container, by id.
    pub fn list(&self) -> Result<Vec<(Record, Status)>, OciError> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(file_error(&self.root))?,
        };
        let mut ids: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        ids.sort();
        // One that goes away meanwhile, or is being made, is none.
        Ok(ids.iter().filter_map(|id| self.get(id).ok()).collect())
    }
}

/// Returns when a process began, in ticks since the machine did; none for one that has ended and only waits to be
/// taken note of.
pub fn began(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may have anything in it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next(), Some("Z" | "X")) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
