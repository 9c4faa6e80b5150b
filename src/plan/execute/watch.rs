//! Waiting until a container is healthy, runs, or has ended: woken by the engine's events.
//!
//! The subscription is open before anything is started, so that nothing happens unseen. A look now and then stands in
//! for events that a broken stream never brought.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, HealthConfig, HealthStatusEnum};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::events::Events;
use crate::client::{ClientError, Engine};
use crate::plan::operation::Condition;

/// How long a container without a health check has to run before it counts as running: one that ends at once has failed.
const SETTLE: Duration = Duration::from_millis(500);
/// How often to look without an event.
const LOOK: Duration = Duration::from_secs(2);
/// The same, once the stream of events has ended.
const LOOK_WITHOUT_EVENTS: Duration = Duration::from_millis(250);

/// What a container was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::plan) enum Verdict {
    Holds,
    /// Not yet; look again after that time at the latest.
    NotYet(Option<Duration>),
    /// It never will.
    Fails(String),
    /// It has ended, with this status.
    Exited(i64),
}

/// The events of a project's containers, counted.
pub(in crate::plan) struct Watcher {
    changes: watch::Receiver<u64>,
    alive: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Watcher {
    /// Subscribes; when this returns, nothing that happens from now on is missed.
    pub(in crate::plan) async fn start(engine: &Engine, project: &str) -> Result<Self, ClientError> {
        let mut events: Events = engine.container_events(project).await?;
        let (sender, changes) = watch::channel(0);
        let alive = Arc::new(AtomicBool::new(true));
        let is_alive = Arc::clone(&alive);
        let task = tokio::spawn(async move {
            while let Some(Ok(event)) = events.next().await {
                if event.action == "die" || event.action == "start" || event.action.starts_with("health_status") {
                    sender.send_modify(|count| *count += 1);
                }
            }
            is_alive.store(false, Ordering::Relaxed);
            // Keeps the channel open: those who wait go on by looking.
            sender.closed().await;
        });
        Ok(Self { changes, alive, task })
    }

    /// Returns a receiver that wakes at the next change.
    pub(in crate::plan) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Returns how long to wait for an event before looking by ourselves.
    pub(in crate::plan) fn patience(&self) -> Duration {
        if self.alive.load(Ordering::Relaxed) {
            LOOK
        } else {
            LOOK_WITHOUT_EVENTS
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Judges a container. `settled` says that running now is enough.
// docker/compose pkg/compose/convergence.go: isServiceHealthy, isServiceCompleted
pub(in crate::plan) fn judge(
    container: &ContainerInspectResponse,
    condition: Condition,
    settled: bool,
    now: Timestamp,
) -> Verdict {
    let name = container.name.as_deref().unwrap_or_default().trim_start_matches('/');
    let Some(state) = &container.state else {
        return Verdict::NotYet(None);
    };
    let status = state.status.unwrap_or(ContainerStateStatusEnum::EMPTY);
    let exit_code = state.exit_code.unwrap_or_default();
    if status == ContainerStateStatusEnum::EXITED {
        return match condition {
            Condition::CompletedSuccessfully => Verdict::Exited(exit_code),
            _ => Verdict::Fails(format!("container {name} exited ({exit_code})")),
        };
    }
    if condition == Condition::CompletedSuccessfully {
        return Verdict::NotYet(None);
    }
    let has_check = check(container).is_some();
    let health = state.health.as_ref().and_then(|health| health.status);
    if condition == Condition::RunningOrHealthy && !has_check && health.is_none_or(is_no_status) {
        if status != ContainerStateStatusEnum::RUNNING {
            return Verdict::NotYet(None);
        }
        let ran = state
            .started_at
            .as_deref()
            .and_then(|started| started.parse::<Timestamp>().ok())
            .map_or(SETTLE, |started| {
                Duration::try_from(now.duration_since(started)).unwrap_or_default()
            });
        return if settled || ran >= SETTLE {
            Verdict::Holds
        } else {
            Verdict::NotYet(Some(SETTLE - ran))
        };
    }
    match health {
        Some(HealthStatusEnum::HEALTHY) => Verdict::Holds,
        Some(HealthStatusEnum::UNHEALTHY) => Verdict::Fails(format!("container {name} is unhealthy")),
        Some(HealthStatusEnum::STARTING) => Verdict::NotYet(None),
        // An engine may say nothing of health between the start and the first probe.
        _ if has_check => Verdict::NotYet(None),
        _ => Verdict::Fails(format!("container {name} has no healthcheck configured")),
    }
}

/// Returns a container's health check, where it has one.
pub(super) fn check(container: &ContainerInspectResponse) -> Option<&HealthConfig> {
    let check = container.config.as_ref()?.healthcheck.as_ref()?;
    let test = check.test.as_deref()?;
    (!test.is_empty() && test[0] != "NONE").then_some(check)
}

fn is_no_status(status: HealthStatusEnum) -> bool {
    matches!(status, HealthStatusEnum::EMPTY | HealthStatusEnum::NONE)
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerConfig, ContainerState, Health};

    use super::*;

    fn container(
        status: ContainerStateStatusEnum,
        health: Option<HealthStatusEnum>,
        started: &str,
    ) -> ContainerInspectResponse {
        ContainerInspectResponse {
            name: Some("/p-db-1".into()),
            state: Some(ContainerState {
                status: Some(status),
                exit_code: Some(3),
                started_at: Some(started.into()),
                health: health.map(|status| Health {
                    status: Some(status),
                    ..Health::default()
                }),
                ..ContainerState::default()
            }),
            config: Some(ContainerConfig {
                healthcheck: health.map(|_| HealthConfig {
                    test: Some(vec!["CMD".into(), "true".into()]),
                    ..HealthConfig::default()
                }),
                ..ContainerConfig::default()
            }),
            ..ContainerInspectResponse::default()
        }
    }

    #[test]
    fn containers_are_judged_as_docker_compose_judges_them() {
        use ContainerStateStatusEnum::{EXITED, RUNNING};
        use HealthStatusEnum::{HEALTHY, STARTING, UNHEALTHY};
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        let long_ago = "2026-01-01T00:00:00Z";
        let fails = |text: &str| Verdict::Fails(text.to_owned());
        for (container, condition, verdict) in [
            (
                container(RUNNING, Some(HEALTHY), long_ago),
                Condition::Healthy,
                Verdict::Holds,
            ),
            (
                container(RUNNING, Some(STARTING), long_ago),
                Condition::Healthy,
                Verdict::NotYet(None),
            ),
            (
                container(RUNNING, Some(UNHEALTHY), long_ago),
                Condition::RunningOrHealthy,
                fails("container p-db-1 is unhealthy"),
            ),
            (
                container(RUNNING, None, long_ago),
                Condition::Healthy,
                fails("container p-db-1 has no healthcheck configured"),
            ),
            (
                container(RUNNING, None, long_ago),
                Condition::RunningOrHealthy,
                Verdict::Holds,
            ),
            (
                container(RUNNING, None, "2026-01-01T00:00:09.9Z"),
                Condition::RunningOrHealthy,
                Verdict::NotYet(Some(Duration::from_millis(400))),
            ),
            (
                container(EXITED, None, long_ago),
                Condition::RunningOrHealthy,
                fails("container p-db-1 exited (3)"),
            ),
            (
                container(EXITED, None, long_ago),
                Condition::CompletedSuccessfully,
                Verdict::Exited(3),
            ),
            (
                container(RUNNING, None, long_ago),
                Condition::CompletedSuccessfully,
                Verdict::NotYet(None),
            ),
        ] {
            assert_eq!(judge(&container, condition, false, now), verdict);
        }
    }
}
