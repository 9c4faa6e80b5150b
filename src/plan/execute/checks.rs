//! Health checks that nobody else runs.
//!
//! Podman leaves its checks to timers of systemd. Where there is none, a container stays "starting" for ever, and
//! whoever waits for it with it. While we wait, we ask Podman for the checks that are due; it keeps their results and
//! their count itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use futures_util::future::join_all;
use http::Method;
use jiff::Timestamp;
use tokio::time::Instant;

use super::watch::check;
use crate::client::{ClientError, Engine};
use crate::ui::stream;

/// The interval of a check that names none.
const INTERVAL: Duration = Duration::from_secs(30);
/// How much longer than a check's interval a timer may take to start it.
const GRACE: Duration = Duration::from_secs(1);

/// When the containers' checks are due that we run.
#[derive(Default)]
pub(super) struct Checks {
    due: Mutex<HashMap<String, Instant>>,
}

impl Checks {
    /// Runs the checks that are due and that nobody runs. Returns when to look again, and `None` where the engine
    /// runs all of them.
    pub(super) async fn run_due(
        &self,
        engine: &Engine,
        waiting: &[ContainerInspectResponse],
    ) -> Result<Option<Duration>, ClientError> {
        if !engine.is_podman() {
            return Ok(None);
        }
        let mut next: Option<Duration> = None;
        let mut run = Vec::new();
        let now = Instant::now();
        for container in waiting {
            let Some(id) = &container.id else { continue };
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let at = match due.get(id) {
                Some(&at) => at,
                None => match overdue_in(container, Timestamp::now()) {
                    None => continue,
                    Some(Duration::ZERO) => {
                        if due.is_empty() {
                            stream::warn(
                                "Podman runs health checks by timers of systemd, and none has come: compose asks for the \
                                 checks itself while it waits, and health stays as it is once compose has ended",
                            );
                        }
                        now
                    }
                    Some(left) => now + left,
                },
            };
            let mut left = at.saturating_duration_since(now);
            if left.is_zero() {
                left = interval(container).unwrap_or(INTERVAL);
                due.insert(id.clone(), now + left);
                run.push(id.clone());
            }
            next = Some(next.map_or(left, |next| next.min(left)));
        }
        for result in join_all(run.iter().map(|id| run_one(engine, id))).await {
            result?;
        }
        // A result is there to be seen at once.
        Ok(if run.is_empty() { next } else { Some(Duration::ZERO) })
    }
}

async fn run_one(engine: &Engine, id: &str) -> Result<(), ClientError> {
    let path = format!("/v4.0.0/libpod/containers/{id}/healthcheck");
    match engine.request(Method::GET, &path, None).await {
        Ok(_) => Ok(()),
        // It has ended or gone meanwhile, which the next look shows.
        Err(ClientError::Refused { status: 404 | 409, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Returns how long from now the first check of a container is overdue: `None` where there is no check, it has run, or
/// the container does not run.
fn overdue_in(container: &ContainerInspectResponse, now: Timestamp) -> Option<Duration> {
    let interval = interval(container)?;
    let state = container.state.as_ref()?;
    if state.running != Some(true) {
        return None;
    }
    let has_run = state
        .health
        .as_ref()
        .and_then(|health| health.log.as_ref())
        .is_some_and(|log| !log.is_empty());
    if has_run {
        return None;
    }
    let started: Timestamp = state.started_at.as_deref()?.parse().ok()?;
    let ran = Duration::try_from(now.duration_since(started)).unwrap_or_default();
    Some((interval + GRACE).saturating_sub(ran))
}

/// Returns the interval of a container's check, and `None` where it has none.
fn interval(container: &ContainerInspectResponse) -> Option<Duration> {
    Some(match check(container)?.interval {
        Some(nanoseconds @ 1..) => Duration::from_nanos(nanoseconds.unsigned_abs()),
        _ => INTERVAL,
    })
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerConfig, ContainerState, Health, HealthConfig, HealthcheckResult};

    use super::*;

    fn container(test: &[&str], interval: i64, checks: usize, running: bool) -> ContainerInspectResponse {
        ContainerInspectResponse {
            config: Some(ContainerConfig {
                healthcheck: Some(HealthConfig {
                    test: Some(test.iter().map(|&word| word.to_owned()).collect()),
                    interval: Some(interval),
                    ..HealthConfig::default()
                }),
                ..ContainerConfig::default()
            }),
            state: Some(ContainerState {
                running: Some(running),
                started_at: Some("2026-01-01T00:00:00Z".into()),
                health: Some(Health {
                    log: Some(vec![HealthcheckResult::default(); checks]),
                    ..Health::default()
                }),
                ..ContainerState::default()
            }),
            ..ContainerInspectResponse::default()
        }
    }

    #[test]
    fn a_check_is_overdue_when_its_interval_has_passed_and_nobody_has_run_it() {
        let two_seconds = 2_000_000_000;
        let check: &[&str] = &["CMD", "true"];
        for (container, after, expected) in [
            (container(check, two_seconds, 0, true), "00:00:01", Some(2)),
            (container(check, two_seconds, 0, true), "00:00:03", Some(0)),
            (container(check, two_seconds, 0, true), "00:10:00", Some(0)),
            (container(check, 0, 0, true), "00:00:01", Some(30)),
            (container(check, two_seconds, 1, true), "00:10:00", None),
            (container(check, two_seconds, 0, false), "00:10:00", None),
            (container(&["NONE"], two_seconds, 0, true), "00:10:00", None),
            (container(&[], two_seconds, 0, true), "00:10:00", None),
        ] {
            let now: Timestamp = format!("2026-01-01T{after}Z").parse().unwrap();
            assert_eq!(
                overdue_in(&container, now),
                expected.map(Duration::from_secs),
                "{container:?}, {after}"
            );
        }
    }
}
