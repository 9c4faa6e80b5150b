//! Whether a container is well: probes it, counts failures, and says when the answer changes.
//!
//! Docker waits a whole interval before its first probe. Here the first probe comes at once and, while the container
//! starts, the next ones after 50 ms, 100 ms and so on up to the interval, so that whoever waits for it waits no
//! longer than it takes. Failures of these early probes count only at the pace of the interval, so a container turns
//! unhealthy exactly when Docker would say so.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::config::Healthcheck;
use super::container::Container;
use super::exec::ExecConfig;
use super::{Engine, time};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_RETRIES: i64 = 3;
/// How many results `inspect` shows, and how much output of each; moby's numbers.
const RESULTS: usize = 5;
const OUTPUT: usize = 4096;

/// How a container is, and its last probes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    pub failing_streak: i64,
    pub log: Vec<ProbeResult>,
}

/// What one probe found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProbeResult {
    pub start: String,
    pub end: String,
    pub exit_code: i32,
    pub output: String,
}

impl Health {
    /// Returns the health of a container that has just started.
    pub fn starting() -> Self {
        Self {
            status: "starting".to_owned(),
            ..Self::default()
        }
    }

    /// Takes in what a probe found; `counts` says whether a failure brings the container nearer to `unhealthy`.
    pub fn take(&mut self, result: ProbeResult, counts: bool, retries: i64) {
        if result.exit_code == 0 {
            self.failing_streak = 0;
            "healthy".clone_into(&mut self.status);
        } else if counts {
            self.failing_streak += 1;
            if self.failing_streak >= retries {
                "unhealthy".clone_into(&mut self.status);
            }
        }
        if self.log.len() == RESULTS {
            self.log.remove(0);
        }
        self.log.push(result);
    }
}

/// How often and how patiently a container is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    /// Only where the file says so.
    start_interval: Option<Duration>,
    retries: i64,
}

impl Schedule {
    /// Reads the schedule of a health check, with Docker's defaults.
    pub fn of(check: &Healthcheck) -> Self {
        let duration = |nanoseconds: i64| match u64::try_from(nanoseconds) {
            Ok(0) | Err(_) => None,
            Ok(nanoseconds) => Some(Duration::from_nanos(nanoseconds)),
        };
        Self {
            interval: duration(check.interval).unwrap_or(DEFAULT_INTERVAL),
            timeout: duration(check.timeout).unwrap_or(DEFAULT_TIMEOUT),
            start_period: duration(check.start_period).unwrap_or_default(),
            start_interval: duration(check.start_interval),
            retries: if check.retries > 0 {
                check.retries
            } else {
                DEFAULT_RETRIES
            },
        }
    }

    /// Returns the pause before the next probe of a container that is still starting.
    ///
    /// `counted` is how long ago a failure last counted, or could have.
    fn pause_while_starting(&self, last: Option<Duration>, age: Duration, counted: Duration) -> Duration {
        if let Some(pause) = self.start_interval
            && age < self.start_period
        {
            return pause;
        }
        let doubled = last.map_or(FIRST_PAUSE, |last| last * 2).min(self.interval);
        // Never later than the moment at which Docker would have looked.
        doubled.min(self.interval.saturating_sub(counted).max(Duration::from_millis(1)))
    }
}

/// Returns the command of a health check; `None` if there is nothing to probe.
pub fn command(check: &Healthcheck, shell: Option<&[String]>) -> Option<Vec<String>> {
    let test = check.test.as_deref()?;
    match test.first()?.as_str() {
        "NONE" => None,
        "CMD" => (test.len() > 1).then(|| test[1..].to_vec()),
        "CMD-SHELL" => {
            let shell = shell
                .map(<[String]>::to_vec)
                .filter(|shell| !shell.is_empty())
                .unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
            Some(shell.into_iter().chain(test[1..].iter().cloned()).collect())
        }
        _ => None,
    }
}

impl Engine {
    /// Begins to probe a container that has just started, if it says how.
    pub(super) fn watch_health(self: &Arc<Self>, container: &Arc<Container>) {
        self.stop_health(container);
        let (check, command) = {
            let record = container.record();
            let Some(check) = record.config.healthcheck.clone() else {
                return;
            };
            let Some(command) = command(&check, record.config.shell.as_deref()) else {
                return;
            };
            (check, command)
        };
        let schedule = Schedule::of(&check);
        let token = CancellationToken::new();
        *container
            .probing
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(token.clone());
        let engine = Arc::clone(self);
        let container = Arc::clone(container);
        self.tasks.spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = engine.closing.cancelled() => {}
                () = engine.probe_forever(&container, &schedule, command) => {}
            }
        });
    }

    /// Ends the probing of a container.
    pub(super) fn stop_health(&self, container: &Container) {
        let token = container
            .probing
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        if let Some(token) = token {
            token.cancel();
        }
    }

    async fn probe_forever(self: &Arc<Self>, container: &Arc<Container>, schedule: &Schedule, command: Vec<String>) {
        let started = {
            let record = container.record();
            let age = record.state.started_at.map_or(Duration::ZERO, |started| {
                Duration::try_from(time::now().duration_since(started)).unwrap_or_default()
            });
            Instant::now().checked_sub(age).unwrap_or_else(Instant::now)
        };
        let mut counted = Instant::now();
        let mut pause = None;
        loop {
            let probe_started = Instant::now();
            let result = self.probe(container, schedule, command.clone()).await;
            let starting = container
                .record()
                .state
                .health
                .as_ref()
                .is_none_or(|health| health.status == "starting");
            let in_start_period = starting && probe_started.duration_since(started) < schedule.start_period;
            let early = starting
                && schedule.start_interval.is_none()
                && probe_started.duration_since(counted) + Duration::from_millis(2) < schedule.interval;
            let counts = !in_start_period && !early;
            if counts || in_start_period {
                counted = probe_started;
            }
            self.take_probe(container, result, counts, schedule.retries);
            let still_starting = container
                .record()
                .state
                .health
                .as_ref()
                .is_some_and(|health| health.status == "starting");
            let next = if still_starting {
                schedule.pause_while_starting(pause, started.elapsed(), counted.elapsed())
            } else {
                schedule.interval
            };
            pause = Some(
                pause
                    .map_or(FIRST_PAUSE, |last: Duration| last * 2)
                    .min(schedule.interval),
            );
            tokio::time::sleep(next).await;
        }
    }

    async fn probe(
        self: &Arc<Self>,
        container: &Arc<Container>,
        schedule: &Schedule,
        command: Vec<String>,
    ) -> ProbeResult {
        let start = time::rfc3339(time::now());
        let config = ExecConfig {
            cmd: command,
            attach_stdout: true,
            attach_stderr: true,
            ..ExecConfig::default()
        };
        let (exit_code, output) =
            match tokio::time::timeout(schedule.timeout, self.run_to_end(container, config, OUTPUT)).await {
                Ok(Ok((exit_code, output))) => (exit_code, output),
                Ok(Err(cause)) => (-1, cause.chain()),
                Err(_) => (
                    -1,
                    format!("Health check exceeded timeout ({})", go_duration(schedule.timeout)),
                ),
            };
        ProbeResult {
            start,
            end: time::rfc3339(time::now()),
            exit_code,
            output,
        }
    }

    fn take_probe(&self, container: &Container, result: ProbeResult, counts: bool, retries: i64) {
        let changed = {
            let mut record = container.record();
            if !record.state.status.has_processes() {
                return;
            }
            let health = record.state.health.get_or_insert_with(Health::starting);
            let before = health.status.clone();
            health.take(result, counts, retries);
            (before != health.status).then(|| health.status.clone())
        };
        // Only changes are worth a write; the log of probes begins anew with the engine.
        if let Some(status) = changed {
            container.note(|_| ());
            self.container_event(container, &format!("health_status: {status}"), &[]);
        }
    }
}

/// Writes a duration as Go prints it in moby's message: `30s`, `1m30s`, `500ms`.
fn go_duration(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{}ms", duration.as_millis());
    }
    let seconds = duration.as_secs();
    let fraction = duration.subsec_millis();
    let rest = if fraction == 0 {
        format!("{}s", seconds % 60)
    } else {
        format!("{}.{}s", seconds % 60, format!("{fraction:03}").trim_end_matches('0'))
    };
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => rest,
        (0, minutes) => format!("{minutes}m{rest}"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
    }
}

/// Marks the moment a container stopped being watched: moby calls it unhealthy from then on.
pub fn close(health: &mut Option<Health>) {
    if let Some(health) = health {
        "unhealthy".clone_into(&mut health.status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(exit_code: i32) -> ProbeResult {
        ProbeResult {
            exit_code,
            ..ProbeResult::default()
        }
    }

    #[test]
    fn three_failures_that_count_make_a_container_unhealthy_and_one_success_heals_it() {
        let mut health = Health::starting();
        health.take(result(1), false, 3);
        for status in ["starting", "starting", "unhealthy"] {
            health.take(result(1), true, 3);
            assert_eq!(health.status, status);
        }
        health.take(result(0), true, 3);
        assert_eq!((health.status.as_str(), health.failing_streak), ("healthy", 0));
        health.take(result(0), true, 3);
        assert_eq!(health.log.len(), RESULTS);
    }

    #[test]
    fn early_probes_come_quickly_and_never_miss_docker_s_moment() {
        let schedule = Schedule::of(&Healthcheck {
            interval: 1_000_000_000,
            ..Healthcheck::default()
        });
        let mut now = Duration::ZERO;
        let mut pause = None;
        let mut moments = Vec::new();
        while now < Duration::from_secs(1) {
            let next = schedule.pause_while_starting(pause, now, now);
            pause = Some(pause.map_or(FIRST_PAUSE, |last: Duration| last * 2));
            now += next;
            moments.push(now.as_millis());
        }
        assert_eq!(moments, [50, 150, 350, 750, 1000]);
    }

    #[test]
    fn a_start_interval_of_the_file_is_kept() {
        let schedule = Schedule::of(&Healthcheck {
            start_period: 10_000_000_000,
            start_interval: 2_000_000_000,
            ..Healthcheck::default()
        });
        let pause = schedule.pause_while_starting(None, Duration::from_secs(1), Duration::ZERO);
        assert_eq!(pause, Duration::from_secs(2));
    }

    #[test]
    fn tests_become_commands() {
        let check = |words: &[&str]| Healthcheck {
            test: Some(words.iter().map(|word| (*word).to_owned()).collect()),
            ..Healthcheck::default()
        };
        assert_eq!(command(&check(&["NONE"]), None), None);
        assert_eq!(command(&check(&[]), None), None);
        assert_eq!(
            command(&check(&["CMD", "a", "b"]), None),
            Some(vec!["a".into(), "b".into()])
        );
        assert_eq!(
            command(&check(&["CMD-SHELL", "a | b"]), None),
            Some(vec!["/bin/sh".into(), "-c".into(), "a | b".into()])
        );
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (milliseconds, text) in [(500, "500ms"), (30_000, "30s"), (90_000, "1m30s"), (1_500, "1.5s")] {
            assert_eq!(go_duration(Duration::from_millis(milliseconds)), text);
        }
    }
}
