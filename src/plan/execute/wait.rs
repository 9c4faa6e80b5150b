//! Waiting until the containers of a service are as somebody needs them.

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::watch as channel;

use super::watch::{Verdict, Watcher, judge};
use super::{Execution, ExecutionError};
use crate::client::ClientError;
use crate::plan::observed::{Container, State};
use crate::plan::operation::Condition;
use crate::ui::{Progress, Status, stream};

/// What is waited for, and by whom.
pub(super) struct Wait<'w> {
    pub service: &'w str,
    pub condition: Condition,
    pub required: bool,
    pub dependent: &'w str,
}

impl Execution<'_> {
    /// Waits for a service's containers.
    pub(super) async fn wait(
        &self,
        wait: &Wait<'_>,
        watcher: Option<&Watcher>,
        cancelled: channel::Receiver<bool>,
        progress: &Progress,
    ) -> Result<(), ExecutionError> {
        let containers = self.lock().services.get(wait.service).cloned().unwrap_or_default();
        let shown = |status: Status, text: &str| {
            for container in &containers {
                progress.event(container.progress_id(), status, "", text);
            }
        };
        shown(Status::Working, "Waiting");
        if containers.is_empty() {
            let missing = ExecutionError::MissingDependency {
                dependent: wait.dependent.to_owned(),
                dependency: wait.service.to_owned(),
            };
            if wait.required {
                return Err(missing);
            }
            stream::warn(missing);
            return Ok(());
        }
        let verdict = match watcher {
            _ if self.holds_already(wait.service, wait.condition) => Verdict::Holds,
            Some(watcher) => self.verdict(wait.condition, &containers, watcher, cancelled).await?,
            None => Verdict::Holds,
        };
        let skipped = |reason: String, warning: String| {
            shown(Status::Warning, &format!("Skipped: {reason}"));
            stream::warn(warning);
            Ok(())
        };
        let service = wait.service;
        match (verdict, wait.condition) {
            (Verdict::Holds, Condition::CompletedSuccessfully) | (Verdict::Exited(0), _) => {
                shown(Status::Done, "Exited");
                Ok(())
            }
            (Verdict::Holds, _) => {
                shown(Status::Done, "Healthy");
                Ok(())
            }
            // Cancelled.
            (Verdict::NotYet(_), _) => Ok(()),
            (Verdict::Exited(status), _) if !wait.required => {
                let reason = format!("optional dependency {service:?} didn't complete successfully: exit {status}");
                skipped(reason.clone(), reason)
            }
            (Verdict::Exited(status), _) => {
                let error = ExecutionError::Incomplete {
                    service: service.to_owned(),
                    status,
                };
                shown(Status::Error, &error.to_string());
                Err(error)
            }
            (Verdict::Fails(cause), Condition::RunningOrHealthy) => Err(ExecutionError::Unhealthy(cause)),
            (Verdict::Fails(cause), _) if !wait.required => {
                let reason = format!("optional dependency {service:?} failed to start");
                skipped(reason.clone(), format!("{reason}: {cause}"))
            }
            (Verdict::Fails(cause), _) => {
                shown(Status::Error, "Error");
                Err(ExecutionError::Dependency(cause))
            }
        }
    }

    /// Returns whether the snapshot says already that a condition holds.
    pub(super) fn holds_already(&self, service: &str, condition: Condition) -> bool {
        condition != Condition::CompletedSuccessfully
            && self.lock().services.get(service).is_some_and(|containers| {
                !containers.is_empty()
                    && containers
                        .iter()
                        .all(|container| container.healthy && container.state == State::Running)
            })
    }

    /// Looks at the containers until it is clear what to say of them, or the plan has failed elsewhere.
    pub(super) async fn verdict(
        &self,
        condition: Condition,
        containers: &[Container],
        watcher: &Watcher,
        mut cancelled: channel::Receiver<bool>,
    ) -> Result<Verdict, ExecutionError> {
        let mut changes = watcher.changes();
        loop {
            changes.mark_unchanged();
            let is_cancelled = *cancelled.borrow();
            let inspections = containers
                .iter()
                .map(|container| self.engine.docker.inspect_container(&container.id, None));
            let mut verdict = Verdict::Holds;
            let mut patience = watcher.patience();
            let mut waiting = Vec::new();
            for inspected in join_all(inspections).await {
                let inspected = inspected.map_err(ClientError::from)?;
                match judge(&inspected, condition, is_cancelled, Timestamp::now()) {
                    Verdict::Holds => {}
                    // Of several containers the first that ends decides.
                    Verdict::Exited(status) => return Ok(Verdict::Exited(status)),
                    Verdict::Fails(cause) => return Ok(Verdict::Fails(cause)),
                    Verdict::NotYet(at_the_latest) => {
                        patience = patience.min(at_the_latest.unwrap_or(patience));
                        verdict = Verdict::NotYet(None);
                        waiting.push(inspected);
                    }
                }
            }
            if verdict == Verdict::Holds || is_cancelled {
                return Ok(verdict);
            }
            if let Some(due) = self.checks.run_due(self.engine, &waiting).await? {
                patience = patience.min(due);
            }
            tokio::select! {
                _ = changes.changed() => {}
                _ = cancelled.changed() => {}
                () = tokio::time::sleep(patience) => {}
            }
        }
    }
}
