//! Taking up what an earlier engine left: containers that run on, those that ended meanwhile, and half-made things.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::container::{Container, RECORD, Record, Status};
use super::restart::wants_revival;
use super::{Engine, EngineError, Result, moment, settle};
use crate::image::remove_tree;
use crate::net::spec::SandboxRecord;
use crate::runtime::{self, Adoption, ExitRecord, Timestamp};

impl Engine {
    /// Reads every container's record and finds out how it is now.
    pub(super) async fn take_up(self: &Arc<Self>) -> Result<()> {
        let directory = self.paths.containers();
        let entries = std::fs::read_dir(&directory).map_err(EngineError::file("cannot list", &directory))?;
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let record = path.join(RECORD);
            if name.as_encoded_bytes().starts_with(b".removed-") || !settle::exists(&record) {
                // A removal that was cut short, or a creation.
                self.tasks.spawn_blocking(move || remove_tree(&path));
                continue;
            }
            match settle::read::<Record>(&record) {
                Ok(record) => {
                    if let Err(cause) = self.containers.reserve(&record.name, &record.id) {
                        tracing::warn!(
                            container = record.id,
                            cause = cause.chain(),
                            "two containers of one name"
                        );
                    }
                    self.containers.insert(Container::new(path, record, &self.settling));
                }
                Err(cause) => tracing::error!(cause = cause.chain(), "a container cannot be taken up"),
            }
        }
        // Oldest first: those that share another's namespaces come after it.
        let mut all = self.containers.all();
        all.reverse();
        for container in &all {
            self.take_up_one(container).await;
        }
        self.networks.net.settle().await.map_err(super::networks::failure)?;
        self.take_up_watches();
        Ok(())
    }

    async fn take_up_one(self: &Arc<Self>, container: &Arc<Container>) {
        let (status, same_boot) = {
            let record = container.record();
            (record.state.status, record.boot_id == self.boot_id)
        };
        match status {
            Status::Removing | Status::Dead => {
                let engine = Arc::clone(self);
                let container = Arc::clone(container);
                self.tasks.spawn(async move {
                    container.note(|record| record.state.status = Status::Exited);
                    let _ = engine.remove(&container, true, false).await;
                });
            }
            Status::Created | Status::Exited if !container.dir.join(SHIM_SOCKET).exists() => {
                if !same_boot && status == Status::Exited {
                    self.revive(container);
                }
            }
            // Running as far as anyone knows; or started in the very moment the engine died.
            _ if same_boot || !status.is_running() => self.find_out(container, status).await,
            _ => {
                // The machine was restarted: nothing runs.
                container.note(|record| record.sandbox = None);
                self.found_dead(container, "the machine was restarted").await;
                self.revive(container);
            }
        }
    }

    /// Asks a container's shim how it is.
    async fn find_out(self: &Arc<Self>, container: &Arc<Container>, status: Status) {
        if status == Status::Restarting {
            self.start_later(container);
            return;
        }
        let parent = super::spec::cgroup_parent(&container.record().host);
        match self
            .runtime
            .adopt(&container.id, &container.dir, parent.as_deref())
            .await
        {
            Ok(Adoption::Running(live)) => {
                if let Err(cause) = self.adopt_network(container, &live).await {
                    tracing::warn!(
                        container = container.id,
                        cause = cause.chain(),
                        "its network is not whole"
                    );
                }
                container.note(|record| {
                    if !record.state.status.has_processes() {
                        record.state.status = Status::Running;
                    }
                    record.state.pid = i32::try_from(live.pid()).unwrap_or_default();
                    record.state.started_at = Some(moment(live.started_at()));
                    record.boot_id.clone_from(&self.boot_id);
                });
                let live = Arc::new(live);
                container.set_live(Some(Arc::clone(&live)));
                container.announce_running();
                if container.status() == Status::Running {
                    self.watch_health(container);
                }
                self.monitor(container, live);
            }
            Ok(Adoption::Exited(exit)) => {
                if status.has_processes() {
                    self.ended(container, exit).await;
                }
            }
            Err(cause) => {
                tracing::warn!(container = container.id, %cause, "its supervising process cannot be found");
                if status.has_processes() {
                    self.found_dead(container, "its supervising process was killed").await;
                }
            }
        }
    }

    /// Takes back the descriptors that a container's shim kept, and the container's network with them.
    async fn adopt_network(self: &Arc<Self>, container: &Container, live: &runtime::Container) -> Result<()> {
        let fds = live
            .fds()
            .await
            .map_err(super::lifecycle::runtime_failure("cannot get back the sockets of"))?;
        let fds = self.answer_on_kept(fds);
        let Some(sandbox) = container.record().sandbox.clone() else {
            return Ok(());
        };
        let sandbox: SandboxRecord = serde_json::from_value(sandbox).map_err(|cause| EngineError::Record {
            path: container.dir.join(RECORD),
            cause,
        })?;
        let path = format!("/proc/{}/ns/net", live.pid());
        let netns = File::open(Path::new(&path)).ok().map(OwnedFd::from);
        self.networks
            .net
            .adopt(sandbox, netns, fds)
            .await
            .map_err(super::networks::failure)
    }

    async fn found_dead(self: &Arc<Self>, container: &Arc<Container>, reason: &str) {
        let exit = ExitRecord {
            code: 137,
            signal: None,
            oom: false,
            started: Timestamp::now(),
            finished: Timestamp::now(),
            reason: Some(reason.to_owned()),
        };
        self.ended(container, exit).await;
    }

    /// Starts a container whose policy brings it back after the machine was down.
    fn revive(self: &Arc<Self>, container: &Arc<Container>) {
        let wanted = {
            let mut record = container.record();
            record.boot_id.clone_from(&self.boot_id);
            record.state.status == Status::Exited
                && wants_revival(
                    &record.host.restart_policy,
                    record.state.exit_code,
                    record.manually_stopped,
                )
        };
        if wanted {
            container.note(|record| record.state.status = Status::Restarting);
            self.start_later(container);
        }
    }

    fn start_later(self: &Arc<Self>, container: &Arc<Container>) {
        let engine = Arc::clone(self);
        let container = Arc::clone(container);
        container.announce_running();
        self.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(100)) => engine.start_again(&container).await,
                () = engine.closing.cancelled() => {}
            }
        });
    }
}

/// The shim's socket in a container's directory.
const SHIM_SOCKET: &str = "shim.sock";
