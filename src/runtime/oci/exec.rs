//! Running a further process in a container.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceType, Process};
use rustix::process::Pid;

use super::{Containers, OciError, Started, Status, call, filter, send_terminal, write_pid};
use crate::os::memfd;
use crate::os::process::{Child, SingleThreaded};
use crate::runtime::protocol::ExecPlan;
use crate::runtime::shim::birth::{self, Course, Further};

/// A process to run in a container.
#[derive(Clone, Debug)]
pub struct Execution {
    /// What to run.
    pub process: Process,
    /// Where to write its number.
    pub pid_file: Option<PathBuf>,
    /// Where to send its terminal's other side.
    pub console_socket: Option<PathBuf>,
    /// How many descriptors after the standard ones it gets.
    pub preserved: u32,
    /// Whether it may be run in a paused container.
    pub ignores_pause: bool,
}

impl Containers {
    /// Runs a process in a container.
    pub fn exec(&self, single: &SingleThreaded, id: &str, what: Execution) -> Result<Started, OciError> {
        let (record, status) = self.get(id)?;
        match status {
            Status::Created | Status::Running => {}
            Status::Paused if what.ignores_pause => {}
            Status::Paused => return Err(OciError::State("cannot exec in a paused container".to_owned())),
            Status::Stopped => return Err(OciError::State("cannot exec in a stopped container".to_owned())),
        }
        let (Some(pidfd), Some(pid)) = (record.process(), Pid::from_raw(record.pid)) else {
            return Err(OciError::State("cannot exec in a stopped container".to_owned()));
        };
        let namespaces = record
            .spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.namespaces().as_ref());
        let has_user_namespace = namespaces
            .into_iter()
            .flatten()
            .any(|namespace| namespace.typ() == LinuxNamespaceType::User);
        let filter = filter(&record.spec)?;
        let terminal = what.process.terminal() == Some(true);
        let plan = serde_json::to_vec(&ExecPlan {
            process: what.process,
            groups: Vec::new(),
        });
        let plan = plan
            .map_err(std::io::Error::from)
            .and_then(|plan| memfd::with_bytes("exec", &plan))
            .map_err(call("hand the plan over"))?;
        let born = birth::further(
            single,
            Further {
                plan,
                filter: filter.as_ref(),
                terminal,
                stdin: false,
                cgroup: &record.cgroups(),
                init: &Child { pid, pidfd },
                has_user_namespace,
                size: None,
                course: Course::Alone {
                    gate: None,
                    bundle: &record.bundle,
                    preserved: what.preserved,
                },
            },
        )?;
        let started = Started {
            child: born.child,
            terminal: born.pump.terminal,
            warnings: born.warnings,
        };
        if let Some(path) = &what.pid_file {
            write_pid(path, &started.child)?;
        }
        if let (Some(socket), Some(terminal)) = (&what.console_socket, &started.terminal) {
            send_terminal(socket, terminal)?;
        }
        Ok(started)
    }
}
