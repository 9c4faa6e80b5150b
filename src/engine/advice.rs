//! What a container does not get because its engine is a plain user's, said when it is asked for.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Engine;
use super::config::HostConfig;
use super::container::Container;
use crate::os::user_namespace;
use crate::rootless;

/// What has been said already.
#[derive(Debug, Default)]
pub struct Advice {
    one_id: AtomicBool,
    no_limits: AtomicBool,
}

impl Engine {
    /// Returns what a new container will not have as it was asked for, each once in an engine's life.
    pub fn warnings(&self, container: &Container) -> Vec<String> {
        let Some(owner) = rootless::owner() else {
            return Vec::new();
        };
        let is_first = |said: &AtomicBool| !said.swap(true, Ordering::Relaxed);
        let mut warnings = Vec::new();
        let limits = limits(&container.record().host);
        if !limits.is_empty() && !self.runtime.has_cgroups() && is_first(&self.advice.no_limits) {
            warnings.push(format!(
                "limits have no effect ({}): a plain user may make no cgroup here. With systemd, start the engine by \
                 \"systemd-run --user --scope -p Delegate=yes compose ls\" after its last container has ended; otherwise \
                 root has to hand a cgroup over, or run compose",
                limits.join(", ")
            ));
        }
        if user_namespace::users().len() == 1 && is_first(&self.advice.one_id) {
            warnings.push(format!(
                "there is one user id for all containers: one may run as any user from its start (\"user:\"), but not change to \
                 another, as entrypoints by gosu or su do, or give files away. To have more: {}; then end the engine \
                 (it ends a minute after its last container)",
                rootless::why_one(owner.uid)
            ));
        }
        warnings
    }
}

/// Returns the limits that are set, by their names in a Compose file.
fn limits(host: &HostConfig) -> Vec<&'static str> {
    [
        ("mem_limit", host.memory > 0),
        ("mem_reservation", host.memory_reservation > 0),
        ("cpus", host.nano_cpus > 0 || host.cpu_quota > 0),
        ("cpu_shares", host.cpu_shares > 0),
        ("cpuset", !host.cpuset_cpus.is_empty() || !host.cpuset_mems.is_empty()),
        ("pids_limit", host.pids_limit.is_some_and(|limit| limit > 0)),
        ("blkio_config", host.blkio_weight > 0),
    ]
    .into_iter()
    .filter_map(|(name, is_set)| is_set.then_some(name))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named_as_in_the_file() {
        let host = HostConfig {
            memory: 1 << 20,
            pids_limit: Some(5),
            ..HostConfig::default()
        };
        assert_eq!(limits(&host), ["mem_limit", "pids_limit"]);
        assert!(limits(&HostConfig::default()).is_empty());
    }
}
