//! When a container that ended starts again, and after how long: moby's restart manager.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::config::{RestartPolicy, StringMap};

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A container that ran this long starts from the first delay again.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// The annotations by which the client says how `deploy.restart_policy` paces restarts, in nanoseconds; its own constants
/// have the same names.
const DELAY: &str = "compose.restart.delay";
const WINDOW: &str = "compose.restart.window";

/// How restarts follow each other where the file says so.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// The time before each start, in place of one that grows.
    pub delay: Option<Duration>,
    /// How long a start must last to be no failed attempt.
    pub window: Option<Duration>,
}

impl Pace {
    /// Reads a container's annotations.
    pub fn of(annotations: &StringMap) -> Self {
        let duration = |name: &str| annotations.get(name)?.parse().ok().map(Duration::from_nanos);
        Self {
            delay: duration(DELAY),
            window: duration(WINDOW),
        }
    }
}

/// Returns whether the policy wants a container back that ended so, after `restarts` automatic starts.
pub fn wants_restart(policy: &RestartPolicy, exit_code: i32, restarts: u32, manually_stopped: bool) -> bool {
    match policy.name.as_str() {
        "always" => true,
        "unless-stopped" => !manually_stopped,
        "on-failure" => {
            let most = policy.maximum_retry_count;
            exit_code != 0 && (most == 0 || i64::from(restarts) < most)
        }
        _ => false,
    }
}

/// Returns whether the policy wants a container back after the engine or the machine was down.
pub fn wants_revival(policy: &RestartPolicy, exit_code: i32, manually_stopped: bool) -> bool {
    match policy.name.as_str() {
        // moby: `always` comes back even after a user's stop, when the daemon starts anew.
        "always" => true,
        "unless-stopped" => !manually_stopped,
        "on-failure" => exit_code != 0 && !manually_stopped,
        _ => false,
    }
}

/// Returns whether the policy makes a difference between an end that a user brought about and any other.
pub fn heeds_a_users_stop(policy: &RestartPolicy) -> bool {
    matches!(policy.name.as_str(), "unless-stopped" | "on-failure")
}

/// Returns the delay that follows `last`, after a run of this length.
pub fn next_delay(last: Option<Duration>, ran: Duration) -> Duration {
    match last {
        Some(last) if ran < GOOD_RUN => (last * 2).min(LONGEST_DELAY),
        _ => FIRST_DELAY,
    }
}

/// Where a container is in its series of restarts.
#[derive(Debug, Default)]
pub struct Restarts(Mutex<Series>);

#[derive(Debug, Default)]
struct Series {
    delay: Option<Duration>,
    restarts: u32,
    pending: Option<CancellationToken>,
    /// A stop or kill is under way: its end is final whatever the policy says.
    cancelled: bool,
}

impl Restarts {
    /// Decides about a container that ended: the delay and what cancels it, or `None` to leave it.
    pub fn decide(
        &self,
        policy: &RestartPolicy,
        exit_code: i32,
        manually_stopped: bool,
        ran: Duration,
        pace: Pace,
    ) -> Option<(Duration, CancellationToken)> {
        let mut series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pace.window.is_some_and(|window| ran >= window) {
            // The attempt succeeded: it is none of those that are counted.
            series.restarts = series.restarts.saturating_sub(1);
        }
        if series.cancelled || !wants_restart(policy, exit_code, series.restarts, manually_stopped) {
            return None;
        }
        let delay = pace.delay.unwrap_or_else(|| next_delay(series.delay, ran));
        series.delay = Some(delay);
        series.restarts += 1;
        let token = CancellationToken::new();
        series.pending = Some(token.clone());
        Some((delay, token))
    }

    /// Makes the next end final, and ends the wait for the next start.
    pub fn cancel(&self) {
        let mut series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        series.cancelled = true;
        if let Some(pending) = series.pending.take() {
            pending.cancel();
        }
    }

    /// Begins a new series, because a user started the container.
    pub fn reset(&self) {
        self.cancel();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Series::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, most: i64) -> RestartPolicy {
        RestartPolicy {
            name: name.to_owned(),
            maximum_retry_count: most,
        }
    }

    #[test]
    fn a_user_s_stop_makes_no_difference_to_a_policy_that_does_not_heed_it() {
        for name in ["", "no", "always", "unless-stopped", "on-failure"] {
            let policy = policy(name, 0);
            let differs = (0..2).any(|code| {
                wants_restart(&policy, code, 0, true) != wants_restart(&policy, code, 0, false)
                    || wants_revival(&policy, code, true) != wants_revival(&policy, code, false)
            });
            assert_eq!(heeds_a_users_stop(&policy), differs, "{name}");
        }
    }

    #[test]
    fn each_policy_wants_what_its_name_says() {
        for (name, most, exit_code, restarts, stopped, wanted) in [
            ("no", 0, 1, 0, false, false),
            ("", 0, 1, 0, false, false),
            ("always", 0, 0, 9, false, true),
            ("always", 0, 0, 9, true, true),
            ("unless-stopped", 0, 0, 0, false, true),
            ("unless-stopped", 0, 0, 0, true, false),
            ("on-failure", 0, 0, 0, false, false),
            ("on-failure", 0, 1, 99, false, true),
            ("on-failure", 3, 1, 2, false, true),
            ("on-failure", 3, 1, 3, false, false),
            ("on-failure", 3, 137, 0, true, true),
        ] {
            assert_eq!(
                wants_restart(&policy(name, most), exit_code, restarts, stopped),
                wanted,
                "{name} {most} {exit_code} {restarts} {stopped}"
            );
        }
    }

    #[test]
    fn the_delay_doubles_up_to_a_minute_and_starts_over_after_a_good_run() {
        let short = Duration::from_secs(1);
        let mut delay = None;
        let mut delays = Vec::new();
        for _ in 0..12 {
            let next = next_delay(delay, short);
            delays.push(next.as_millis());
            delay = Some(next);
        }
        assert_eq!(
            delays,
            [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]
        );
        assert_eq!(next_delay(delay, GOOD_RUN).as_millis(), 100);
    }

    #[test]
    fn only_attempts_that_fail_within_the_window_count() {
        let annotations = [
            (DELAY.to_owned(), "5".to_owned()),
            (WINDOW.to_owned(), "1000".to_owned()),
        ];
        let pace = Pace::of(&annotations.into_iter().collect());
        let restarts = Restarts::default();
        let again = |ran: u64| {
            let ended = restarts.decide(&policy("on-failure", 2), 1, false, Duration::from_nanos(ran), pace);
            ended.map(|(delay, _)| delay.as_nanos())
        };
        // The container itself, then attempts: good, good, bad, good, and at last the second bad one.
        for ran in [1, 1000, 2000, 999, 1000] {
            assert_eq!(again(ran), Some(5), "{ran}");
        }
        assert_eq!(again(1), None);
    }

    #[tokio::test]
    async fn a_stop_ends_the_wait() {
        let restarts = Restarts::default();
        let (_, token) = restarts
            .decide(&policy("always", 0), 0, false, Duration::ZERO, Pace::default())
            .expect("a restart");
        restarts.cancel();
        assert!(token.is_cancelled());
        assert!(
            restarts
                .decide(&policy("always", 0), 0, false, Duration::ZERO, Pace::default())
                .is_none()
        );
        restarts.reset();
        assert!(
            restarts
                .decide(&policy("always", 0), 0, false, Duration::ZERO, Pace::default())
                .is_some()
        );
    }
}
