//! Start, stop, kill, restart, pause, remove, rename, wait: what moves a container from one state to the next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::config::HostConfig;
use super::container::{Container, Progress, Status};
use super::health::Health;
use super::restart::Pace;
use super::{Engine, EngineError, Result, containers, health, signals, time};
use crate::image::remove_tree;
use crate::runtime::{self, ExitRecord};

/// What a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// The container does not run, now or later.
    NotRunning,
    /// It ends once more.
    NextExit,
    /// It is gone.
    Removed,
}

/// How long a killed container may take to end before that is called an error.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

impl Engine {
    /// Starts a container.
    pub async fn start(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let _operation = container.operation.lock().await;
        match container.status() {
            Status::Paused => {
                return Err(EngineError::Conflict(
                    "cannot start a paused container, try unpause instead".to_owned(),
                ));
            }
            Status::Running | Status::Restarting => return Err(EngineError::NotModified),
            Status::Removing | Status::Dead => {
                return Err(EngineError::Conflict(
                    "container is marked for removal and cannot be started".to_owned(),
                ));
            }
            Status::Created | Status::Exited => {}
        }
        container.restart.reset();
        {
            let mut record = container.record();
            record.manually_stopped = false;
            record.restart_count = 0;
        }
        self.start_now(container).await
    }

    /// Starts a container whose operation lock is held.
    async fn start_now(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        match self.launch(container).await {
            Ok(live) => {
                let started = time::now();
                container.note(|record| {
                    let state = &mut record.state;
                    state.status = Status::Running;
                    state.pid = i32::try_from(live.pid()).unwrap_or_default();
                    state.started_at = Some(started);
                    state.exit_code = 0;
                    state.error.clear();
                    state.oom_killed = false;
                    let probed = record
                        .config
                        .healthcheck
                        .as_ref()
                        .is_some_and(|check| health::command(check, None).is_some());
                    state.health = probed.then(Health::starting);
                    record.boot_id.clone_from(&self.boot_id);
                });
                let live = Arc::new(live);
                container.set_live(Some(Arc::clone(&live)));
                container.announce_running();
                self.activity.touch();
                self.container_event(container, "start", &[]);
                self.watch_health(container);
                self.monitor(container, live);
                Ok(())
            }
            Err(cause) => {
                let text = cause.chain();
                container.note(|record| {
                    record.state.error.clone_from(&text);
                    record.state.exit_code = start_failure_code(&text);
                    if record.state.status == Status::Restarting {
                        record.state.status = Status::Exited;
                    }
                });
                self.leave_networks(container).await;
                if container.record().host.auto_remove {
                    let _ = self.remove_now(container, true).await;
                }
                Err(cause)
            }
        }
    }

    /// Waits in the background for a container's end.
    pub(super) fn monitor(self: &Arc<Self>, container: &Arc<Container>, live: Arc<runtime::Container>) {
        let engine = Arc::clone(self);
        let container = Arc::clone(container);
        self.tasks.spawn(async move {
            tokio::select! {
                () = live.ending() => {}
                () = engine.closing.cancelled() => return,
            }
            engine.leave_networks(&container).await;
            tokio::select! {
                exit = live.wait() => engine.ended(&container, exit).await,
                () = engine.closing.cancelled() => {}
            }
        });
    }

    /// Notes that a container ended and does what its policy says.
    pub(super) async fn ended(self: &Arc<Self>, container: &Arc<Container>, exit: ExitRecord) {
        self.stop_health(container);
        container.set_live(None);
        let finished = super::moment(exit.finished);
        let (policy, pace, manually_stopped, ran) = {
            let record = container.record();
            let started = record.state.started_at.unwrap_or(finished);
            let ran = Duration::try_from(finished.duration_since(started)).unwrap_or_default();
            let pace = Pace::of(&record.host.annotations);
            (record.host.restart_policy.clone(), pace, record.manually_stopped, ran)
        };
        if exit.oom {
            self.container_event(container, "oom", &[]);
        }
        let again = container
            .restart
            .decide(&policy, exit.code, manually_stopped, ran, pace);
        self.leave_networks(container).await;
        self.unmount_events(container);
        container.note(|record| {
            let state = &mut record.state;
            state.status = if again.is_some() {
                Status::Restarting
            } else {
                Status::Exited
            };
            state.pid = 0;
            state.exit_code = exit.code;
            state.oom_killed = exit.oom;
            state.finished_at = Some(finished);
            if let Some(reason) = &exit.reason {
                state.error.clone_from(reason);
            }
            health::close(&mut state.health);
            if again.is_some() {
                record.restart_count += 1;
            }
        });
        self.container_event(
            container,
            "die",
            &[
                ("execDuration", &ran.as_secs().to_string()),
                ("exitCode", &exit.code.to_string()),
            ],
        );
        container.announce_exit(exit.code, again.is_some());
        self.activity.touch();
        match again {
            Some((delay, cancelled)) => {
                let engine = Arc::clone(self);
                let container = Arc::clone(container);
                self.tasks.spawn(async move {
                    tokio::select! {
                        () = tokio::time::sleep(delay) => engine.start_again(&container).await,
                        () = cancelled.cancelled() => engine.give_up(&container),
                        () = engine.closing.cancelled() => {}
                    }
                });
            }
            None => {
                let restarting = container.manually_restarting.load(Ordering::Relaxed);
                if container.record().host.auto_remove && !restarting {
                    let engine = Arc::clone(self);
                    let container = Arc::clone(container);
                    self.tasks.spawn(async move {
                        let _operation = container.operation.lock().await;
                        if container.status() == Status::Exited {
                            let _ = engine.remove_now(&container, true).await;
                        }
                    });
                }
            }
        }
    }

    /// Starts a container as its policy demands.
    pub(super) fn start_again<'e>(
        self: &'e Arc<Self>,
        container: &'e Arc<Container>,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'e>> {
        // Boxed, because an end may lead to a start that leads to an end.
        Box::pin(async move {
            let _operation = container.operation.lock().await;
            if container.status() != Status::Restarting {
                return;
            }
            if let Err(cause) = self.start_now(container).await {
                tracing::warn!(container = container.id, cause = cause.chain(), "cannot restart");
                let exit_code = container.record().state.exit_code;
                container.announce_exit(exit_code, false);
            }
        })
    }

    fn give_up(&self, container: &Container) {
        let exit_code = container.note(|record| {
            if record.state.status == Status::Restarting {
                record.state.status = Status::Exited;
            }
            record.state.exit_code
        });
        container.announce_exit(exit_code, false);
    }

    /// Stops a container: its signal first, and force when its time is up. A negative time never is.
    pub async fn stop(
        self: &Arc<Self>,
        container: &Arc<Container>,
        signal: Option<&str>,
        patience: Option<i64>,
    ) -> Result<()> {
        let _operation = container.operation.lock().await;
        if !container.status().is_running() {
            return Err(EngineError::NotModified);
        }
        self.stop_now(container, signal, patience).await
    }

    async fn stop_now(
        self: &Arc<Self>,
        container: &Arc<Container>,
        signal: Option<&str>,
        patience: Option<i64>,
    ) -> Result<()> {
        let (signal, patience) = {
            let record = container.record();
            let signal = signals::parse(signal.unwrap_or_else(|| record.stop_signal()))?;
            (signal, patience.or(record.config.stop_timeout).unwrap_or(10))
        };
        let mut progress = container.watch();
        let before = progress.borrow_and_update().exits;
        self.send_stop(container, signal).await?;
        let ended = async { progress.wait_for(|progress| progress.exits > before).await.is_ok() };
        let in_time = match u64::try_from(patience) {
            Ok(seconds) => tokio::time::timeout(Duration::from_secs(seconds), ended).await.is_ok(),
            Err(_) => ended.await,
        };
        if !in_time {
            let mut progress = container.watch();
            self.send_stop(container, signals::KILL).await?;
            let ended = progress.wait_for(|progress| progress.exits > before);
            if tokio::time::timeout(KILL_PATIENCE, ended).await.is_err() {
                return Err(EngineError::Runtime {
                    attempt: "cannot stop container",
                    text: format!(
                        "{}: tried to kill container, but did not receive an exit event",
                        container.id
                    ),
                });
            }
        }
        self.container_event(container, "stop", &[]);
        Ok(())
    }

    /// Sends a signal after which the container is not to come back.
    async fn send_stop(&self, container: &Arc<Container>, signal: i32) -> Result<()> {
        container.restart.cancel();
        container.keep_down();
        if container.status() == Status::Restarting {
            // Nothing runs; the wait for the next start just ended.
            return Ok(());
        }
        self.signal(container, signal).await
    }

    /// Sends a signal, and lets a frozen container go so that it gets it.
    async fn signal(&self, container: &Arc<Container>, signal: i32) -> Result<()> {
        let Some(live) = container.live() else { return Ok(()) };
        if let Err(cause) = live.kill(signal).await {
            // It may have ended in the meantime, which is what was wanted.
            tracing::debug!(container = container.id, %cause, "the signal did not arrive");
        }
        self.container_event(container, "kill", &[("signal", &signal.to_string())]);
        if container.status() == Status::Paused && !matches!(signal, 19) {
            let _ = live.unpause().await;
            container.note(|record| {
                if record.state.status == Status::Paused {
                    record.state.status = Status::Running;
                }
            });
        }
        Ok(())
    }

    /// Sends a signal as `docker kill` does.
    pub async fn kill(self: &Arc<Self>, container: &Arc<Container>, signal: Option<&str>) -> Result<()> {
        let signal = signals::parse(signal.unwrap_or("KILL"))?;
        if !container.status().is_running() {
            return Err(EngineError::Conflict(format!(
                "container {} is not running",
                container.id
            )));
        }
        let stop_signal = {
            let record = container.record();
            let configured = &record.config.stop_signal;
            if configured.is_empty() {
                None
            } else {
                signals::parse(configured).ok()
            }
        };
        if signal == signals::KILL {
            let mut progress = container.watch();
            let before = progress.borrow_and_update().exits;
            self.send_stop(container, signal).await?;
            let ended = progress.wait_for(|progress| progress.exits > before);
            let _ = tokio::time::timeout(KILL_PATIENCE, ended).await;
            return Ok(());
        }
        // moby: any other signal ends the restarts too, unless the container names another one as its stop signal.
        if stop_signal.is_none_or(|stop| stop == signal) {
            return self.send_stop(container, signal).await;
        }
        container.keep_down();
        self.signal(container, signal).await
    }

    /// Stops a container if it runs, and starts it.
    pub async fn restart(
        self: &Arc<Self>,
        container: &Arc<Container>,
        signal: Option<&str>,
        patience: Option<i64>,
    ) -> Result<()> {
        let _operation = container.operation.lock().await;
        if matches!(container.status(), Status::Removing | Status::Dead) {
            return Err(EngineError::Conflict(
                "container is marked for removal and cannot be started".to_owned(),
            ));
        }
        if container.status().is_running() {
            container.manually_restarting.store(true, Ordering::Relaxed);
            let stopped = self.stop_now(container, signal, patience).await;
            container.manually_restarting.store(false, Ordering::Relaxed);
            stopped?;
        }
        container.restart.reset();
        {
            let mut record = container.record();
            record.manually_stopped = false;
            record.restart_count = 0;
        }
        self.start_now(container).await?;
        self.container_event(container, "restart", &[]);
        Ok(())
    }

    /// Freezes a container's processes.
    pub async fn pause(&self, container: &Arc<Container>) -> Result<()> {
        let _operation = container.operation.lock().await;
        match container.status() {
            Status::Running => {}
            Status::Paused => {
                return Err(EngineError::Conflict(format!(
                    "Container {} is already paused",
                    container.id
                )));
            }
            Status::Restarting => {
                return Err(EngineError::Conflict(format!(
                    "Container {} is restarting, wait until the container is running",
                    container.id
                )));
            }
            _ => {
                return Err(EngineError::Conflict(format!(
                    "container {} is not running",
                    container.id
                )));
            }
        }
        let live = container.live().ok_or(EngineError::NotModified)?;
        live.pause().await.map_err(runtime_failure("cannot pause container"))?;
        container.note(|record| record.state.status = Status::Paused);
        self.stop_health(container);
        self.container_event(container, "pause", &[]);
        Ok(())
    }

    /// Lets a container's processes go on.
    pub async fn unpause(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let _operation = container.operation.lock().await;
        if container.status() != Status::Paused {
            return Err(EngineError::Conflict(format!(
                "Container {} is not paused",
                container.id
            )));
        }
        let live = container.live().ok_or(EngineError::NotModified)?;
        live.unpause()
            .await
            .map_err(runtime_failure("cannot unpause container"))?;
        container.note(|record| record.state.status = Status::Running);
        self.watch_health(container);
        self.container_event(container, "unpause", &[]);
        Ok(())
    }

    /// Removes a container, with its anonymous volumes where asked.
    pub async fn remove(self: &Arc<Self>, container: &Arc<Container>, force: bool, volumes: bool) -> Result<()> {
        // `stop` may hold the lock for as long as the container takes; force does not wait for that.
        if force && container.status().is_running() {
            self.kill_for_removal(container).await?;
        }
        let _operation = container.operation.lock().await;
        if self.containers.by_id(&container.id).is_none() {
            return Ok(());
        }
        let status = container.status();
        if status.is_running() {
            if !force {
                let name = container.name();
                return Err(EngineError::Conflict(match status {
                    Status::Paused => {
                        format!("cannot remove container \"{name}\": container is paused and must be unpaused first")
                    }
                    Status::Restarting => format!(
                        "cannot remove container \"{name}\": container is restarting: stop the container before \
                         removing or force remove"
                    ),
                    _ => format!(
                        "cannot remove container \"{name}\": container is running: stop the container before \
                         removing or force remove"
                    ),
                }));
            }
            self.kill_for_removal(container).await?;
        }
        self.remove_now(container, volumes).await
    }

    async fn kill_for_removal(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let mut progress = container.watch();
        let before = progress.borrow_and_update().exits;
        self.send_stop(container, signals::KILL).await?;
        let ended = progress.wait_for(|progress| progress.exits > before || !progress.running);
        if tokio::time::timeout(KILL_PATIENCE, ended).await.is_err() {
            return Err(EngineError::Runtime {
                attempt: "could not kill container",
                text: format!("{}: did not receive an exit event", container.id),
            });
        }
        Ok(())
    }

    /// Removes a container that has no processes and whose operation lock is held.
    async fn remove_now(self: &Arc<Self>, container: &Arc<Container>, volumes: bool) -> Result<()> {
        container.restart.cancel();
        container.note(|record| record.state.status = Status::Removing);
        self.leave_networks(container).await;
        // Renamed first, so that a half-removed container is never taken for one.
        let trash = self.paths.containers().join(format!(".removed-{}", container.id));
        match std::fs::rename(&container.dir, &trash) {
            Ok(()) => {
                self.tasks.spawn_blocking(move || {
                    if let Err(cause) = remove_tree(&trash) {
                        tracing::warn!(path = %trash.display(), %cause, "cannot remove");
                    }
                });
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
            Err(cause) => return Err(EngineError::file("cannot remove", &container.dir)(cause)),
        }
        self.containers.remove(container);
        if volumes {
            let anonymous: Vec<String> = container
                .record()
                .mounts
                .iter()
                .filter(|mount| mount.kind == "volume" && mount.anonymous)
                .map(|mount| mount.name.clone())
                .collect();
            for name in anonymous {
                // Another container may use it through `volumes_from`; then it stays.
                let _ = self.remove_volume(&name, true);
            }
        }
        self.container_event(container, "destroy", &[]);
        container.announce_removed();
        self.activity.touch();
        Ok(())
    }

    /// Gives a container another name.
    pub async fn rename(&self, container: &Arc<Container>, new: &str) -> Result<()> {
        let _operation = container.operation.lock().await;
        let new = new.strip_prefix('/').unwrap_or(new);
        if new.is_empty() {
            return Err(EngineError::InvalidParameter(
                "Neither old nor new names may be empty".to_owned(),
            ));
        }
        let allocating = |cause: EngineError| cause.while_attempting("Error when allocating new name");
        containers::check_name(new)
            .map_err(|_| containers::invalid_name(&format!("/{new}")))
            .map_err(allocating)?;
        let old = container.name();
        if old == new {
            return Err(EngineError::InvalidParameter(
                "Renaming a container with the same name as its current name".to_owned(),
            ));
        }
        self.containers.reserve(new, &container.id).map_err(allocating)?;
        let renamed = container.update(|record| new.clone_into(&mut record.name));
        if let Err(cause) = renamed {
            self.containers.release(new);
            return Err(cause);
        }
        self.containers.release(&old);
        self.networks.net.rename(&container.id, &old, new);
        container.note(|record| {
            let names = record
                .networks
                .values_mut()
                .filter_map(|endpoint| endpoint.dns_names.as_mut());
            for name in names.flatten().filter(|name| **name == old) {
                new.clone_into(name);
            }
        });
        if container.live().is_some() {
            self.sandbox_changed(container);
        }
        self.container_event(container, "rename", &[("oldName", &format!("/{old}"))]);
        Ok(())
    }

    /// Changes limits and the restart policy of a container.
    pub async fn update(
        &self,
        container: &Arc<Container>,
        change: impl FnOnce(&mut HostConfig) -> Result<()>,
    ) -> Result<()> {
        let _operation = container.operation.lock().await;
        let mut host = container.record().host.clone();
        change(&mut host)?;
        if let Some(live) = container.live() {
            live.update(super::spec::resources(&host)?)
                .await
                .map_err(runtime_failure("Cannot update container"))?;
        }
        container.update(|record| record.host = host)?;
        self.container_event(container, "update", &[]);
        Ok(())
    }

    /// Waits for what a client wants to wait for, and returns the exit code.
    pub async fn wait(&self, container: &Arc<Container>, wanted: WaitFor) -> i32 {
        let mut progress = container.watch();
        let start = *progress.borrow_and_update();
        let reached = |progress: &Progress| match wanted {
            WaitFor::NotRunning => !progress.running || progress.exits > start.exits,
            WaitFor::NextExit => progress.exits > start.exits,
            WaitFor::Removed => progress.removed,
        };
        match progress
            .wait_for(|progress| reached(progress) || progress.removed)
            .await
        {
            Ok(progress) => progress.exit_code,
            Err(_) => container.record().state.exit_code,
        }
    }
}

/// Returns the exit code by which the docker CLI tells why a container did not start.
pub fn start_failure_code(text: &str) -> i32 {
    if text.contains("executable file not found") || text.contains("no such file or directory") {
        127
    } else if text.contains("permission denied") || text.contains("is a directory") {
        126
    } else {
        128
    }
}

/// Returns a closure that says what was attempted when the runtime failed.
pub fn runtime_failure<E: std::error::Error>(attempt: &'static str) -> impl FnOnce(E) -> EngineError {
    move |cause| EngineError::Runtime {
        attempt,
        text: super::error::chain(&cause),
    }
}
