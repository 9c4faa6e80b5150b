//! What is done with a container that is there: signals, its end, its processes and limits.

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Containers, OciError, Record, Status, call, file_error};
use crate::os::signal;
use crate::runtime::cgroup;
use crate::runtime::hooks::{About, Calls};

impl Containers {
    /// Sends a signal to a container's first process, or to all of its processes.
    pub fn kill(&self, id: &str, number: i32, all: bool) -> Result<(), OciError> {
        let (record, status) = self.get(id)?;
        if all && (status != Status::Stopped || number == libc::SIGKILL) {
            if number == libc::SIGKILL {
                record.cgroups().kill();
                return Ok(());
            }
            for process in record.cgroups().processes() {
                if let Some(process) = rustix::process::Pid::from_raw(process.cast_signed()) {
                    signal::kill(process, number);
                }
            }
            return Ok(());
        }
        let Some(process) = record.process() else {
            return Err(OciError::State("container not running".to_owned()));
        };
        signal::send(process.as_fd(), number).map_err(call("signal the container's first process"))?;
        // Without a pid namespace nobody else ends the rest.
        if number == libc::SIGKILL && !has_pid_namespace(&record) {
            record.cgroups().kill();
        }
        Ok(())
    }

    /// Removes what is left of a container that has ended; with `force`, ends one that has not.
    pub fn delete(&self, id: &str, force: bool) -> Result<(), OciError> {
        let directory = self.directory(id)?;
        let (record, status) = match self.get(id) {
            Err(OciError::Missing(_)) if force => {
                // One whose making was cut short has a directory and nothing else.
                let _ = fs::remove_dir_all(&directory);
                return Ok(());
            }
            other => other?,
        };
        match status {
            Status::Stopped => {}
            Status::Created => end(&record)?,
            _ if force => end(&record)?,
            _ => {
                return Err(OciError::State(format!(
                    "cannot delete container {id} that is not stopped: {}",
                    status.word()
                )));
            }
        }
        let cgroups = record.cgroups();
        cgroups.kill();
        cgroups.remove();
        fs::remove_dir_all(&directory).map_err(file_error(&directory))?;
        let hooks = record.spec.hooks().as_ref().and_then(|hooks| hooks.poststop().clone());
        let about = About {
            id,
            bundle: &record.bundle,
        };
        Calls::of(&record.spec, "poststop", hooks.into_iter().flatten())
            .run(&about, "stopped", 0)
            .map_err(OciError::Hook)
    }

    /// Returns the numbers of a container's processes.
    pub fn processes(&self, id: &str) -> Result<Vec<u32>, OciError> {
        let (record, _) = self.get(id)?;
        Ok(record.cgroups().processes())
    }

    /// Stops a container's processes where they are, or lets them go on.
    pub fn freeze(&self, id: &str, frozen: bool) -> Result<(), OciError> {
        let (record, status) = self.get(id)?;
        match (frozen, status) {
            (true, Status::Created | Status::Running) => {}
            (false, Status::Paused) => {}
            (true, _) => return Err(OciError::State("container not running or created".to_owned())),
            (false, _) => return Err(OciError::State("container not paused".to_owned())),
        }
        let attempt = if frozen { "freeze" } else { "thaw" };
        record.cgroups().freeze(frozen).map_err(call(attempt))
    }

    /// Changes a container's limits, and returns what could not be.
    pub fn update(&self, id: &str, resources: &LinuxResources) -> Result<Vec<String>, OciError> {
        let (record, status) = self.get(id)?;
        if status == Status::Stopped {
            return Err(OciError::State("container not running".to_owned()));
        }
        let mut warnings = Vec::new();
        cgroup::apply(&record.cgroups(), resources, |warning| warnings.push(warning));
        Ok(warnings)
    }
}

fn has_pid_namespace(record: &Record) -> bool {
    let namespaces = record
        .spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().as_ref());
    namespaces
        .into_iter()
        .flatten()
        .any(|namespace| namespace.typ() == oci_spec::runtime::LinuxNamespaceType::Pid && namespace.path().is_none())
}

/// Kills a container and waits, but not for ever, until its first process is gone.
fn end(record: &Record) -> Result<(), OciError> {
    let cgroups = record.cgroups();
    let Some(process) = record.process() else {
        return Ok(());
    };
    // The dead do not thaw by themselves in hierarchies of old.
    if cgroups.is_frozen() {
        let _ = cgroups.freeze(false);
    }
    let _ = signal::send(process.as_fd(), libc::SIGKILL);
    cgroups.kill();
    let deadline = Instant::now() + Duration::from_secs(10);
    while record.process().is_some() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(OciError::State(format!("container {} does not end", record.id)));
        }
        let mut descriptors = [PollFd::new(&process, PollFlags::IN)];
        let pause = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(10),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let _ = poll(&mut descriptors, Some(&pause));
    }
    Ok(())
}
