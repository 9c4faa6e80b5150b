//! Setting limits, in the words of whichever hierarchy has the controller.

use std::io;
use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice};

use crate::os::user_namespace;

use super::{Cgroup, Controller, devices, write};

/// Sets the limits. One that cannot be set is a warning, as on a host without that controller.
pub fn apply(cgroup: &Cgroup, resources: &LinuxResources, mut warn: impl FnMut(String)) {
    // Whoever may make no cgroup was told so when they asked for the container.
    if cgroup.is_missing() {
        return;
    }
    let mut settings = Settings {
        cgroup,
        warn: &mut warn,
    };
    if let Some(memory) = resources.memory() {
        settings.memory(memory);
    }
    if let Some(cpu) = resources.cpu() {
        settings.cpu(cpu);
    }
    if let Some(pids) = resources.pids() {
        settings.pids(pids);
    }
    if let Some(block) = resources.block_io() {
        settings.block(block);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = limit.page_size();
        settings.set(
            "hugetlb",
            &format!("hugetlb.{size}.limit_in_bytes"),
            &format!("hugetlb.{size}.max"),
            &limit.limit().to_string(),
        );
    }
    for (name, value) in resources.unified().iter().flatten() {
        settings.unified(name, value);
    }
    if let Some(rules) = resources.devices().as_deref()
        && !rules.is_empty()
        // In a user namespace nobody makes device nodes: there is nothing to restrict.
        && !user_namespace::is_nested()
        && let Err(error) = devices::apply(cgroup, rules)
    {
        warn(format!("cannot restrict devices: {error}"));
    }
}

struct Settings<'s> {
    cgroup: &'s Cgroup,
    warn: &'s mut dyn FnMut(String),
}

impl Settings<'_> {
    /// Writes a value where the controller is; `legacy` and `unified` are the file's names.
    fn set(&mut self, controller: &str, legacy: &str, unified: &str, value: &str) {
        match self.cgroup.controller(controller) {
            Some(Controller::Legacy(path)) => self.put(path, legacy, value),
            Some(Controller::Unified(path)) => self.put(path, unified, value),
            None => (self.warn)(format!(
                "the kernel has no {controller} controller here, so this limit is ignored: {unified}={value}"
            )),
        }
    }

    fn put(&mut self, path: &Path, name: &str, value: &str) {
        if name.is_empty() {
            return;
        }
        if let Err(error) = write(&path.join(name), value) {
            // A file that this kernel does not have belongs to a feature it does not have.
            let why = if error.kind() == io::ErrorKind::NotFound {
                "not supported by the kernel".to_owned()
            } else {
                error.to_string()
            };
            (self.warn)(format!("cannot set {name} to {value}: {why}"));
        }
    }

    fn unified(&mut self, name: &str, value: &str) {
        match self.cgroup.unified() {
            Some(path) if !name.contains('/') => {
                let path = path.to_owned();
                self.put(&path, name, value);
            }
            _ => (self.warn)(format!("cannot set {name}: no unified cgroup")),
        }
    }

    fn memory(&mut self, memory: &LinuxMemory) {
        let (limit, swap) = (
            memory.limit().filter(|limit| *limit != 0),
            memory.swap().filter(|swap| *swap != 0),
        );
        let legacy = matches!(self.cgroup.controller("memory"), Some(Controller::Legacy(_)));
        let bytes = |value: i64| if legacy { value.to_string() } else { unlimited(value) };
        if let Some(limit) = limit {
            self.set("memory", "memory.limit_in_bytes", "memory.max", &bytes(limit));
        }
        if let Some(swap) = swap {
            if legacy {
                self.set("memory", "memory.memsw.limit_in_bytes", "", &swap.to_string());
            } else {
                // The old limit is memory and swap together, the new one swap alone.
                let alone = if swap < 0 {
                    -1
                } else {
                    (swap - limit.unwrap_or(0).max(0)).max(0)
                };
                self.set("memory", "", "memory.swap.max", &unlimited(alone));
            }
        }
        if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
            self.set(
                "memory",
                "memory.soft_limit_in_bytes",
                "memory.low",
                &bytes(reservation),
            );
        }
        if let Some(swappiness) = memory.swappiness() {
            if legacy {
                self.set("memory", "memory.swappiness", "", &swappiness.to_string());
            } else {
                (self.warn)("memory.swappiness has no counterpart in the unified hierarchy and is ignored".to_owned());
            }
        }
        if memory.disable_oom_killer() == Some(true) {
            if legacy {
                self.set("memory", "memory.oom_control", "", "1");
            } else {
                (self.warn)("the OOM killer cannot be disabled in the unified hierarchy".to_owned());
            }
        }
    }

    fn cpu(&mut self, cpu: &LinuxCpu) {
        if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
            match self.cgroup.controller("cpu") {
                Some(Controller::Unified(_)) => self.set("cpu", "", "cpu.weight", &weight(shares).to_string()),
                _ => self.set("cpu", "cpu.shares", "cpu.weight", &shares.to_string()),
            }
        }
        let quota = cpu.quota().filter(|quota| *quota != 0);
        let period = cpu.period().filter(|period| *period != 0);
        if let Some(Controller::Unified(_)) = self.cgroup.controller("cpu") {
            if quota.is_some() || period.is_some() {
                let quota = quota
                    .filter(|quota| *quota > 0)
                    .map_or("max".to_owned(), |quota| quota.to_string());
                self.set("cpu", "", "cpu.max", &format!("{quota} {}", period.unwrap_or(100_000)));
            }
        } else {
            if let Some(period) = period {
                self.set("cpu", "cpu.cfs_period_us", "cpu.max", &period.to_string());
            }
            if let Some(quota) = quota {
                self.set("cpu", "cpu.cfs_quota_us", "cpu.max", &quota.to_string());
            }
        }
        if let Some(idle) = cpu.idle() {
            self.set("cpu", "cpu.idle", "cpu.idle", &idle.to_string());
        }
        if let Some(burst) = cpu.burst() {
            self.set("cpu", "cpu.cfs_burst_us", "cpu.max.burst", &burst.to_string());
        }
        if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
            self.set("cpu", "cpu.rt_period_us", "cpu.rt_period_us", &period.to_string());
        }
        if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
            self.set("cpu", "cpu.rt_runtime_us", "cpu.rt_runtime_us", &runtime.to_string());
        }
        if let Some(cpus) = cpu.cpus().as_deref().filter(|cpus| !cpus.is_empty()) {
            self.set("cpuset", "cpuset.cpus", "cpuset.cpus", cpus);
        }
        if let Some(mems) = cpu.mems().as_deref().filter(|mems| !mems.is_empty()) {
            self.set("cpuset", "cpuset.mems", "cpuset.mems", mems);
        }
    }

    fn pids(&mut self, pids: &LinuxPids) {
        if pids.limit() != 0 {
            self.set("pids", "pids.max", "pids.max", &unlimited(pids.limit()));
        }
    }

    fn block(&mut self, block: &LinuxBlockIo) {
        let controller = if matches!(self.cgroup.controller("blkio"), Some(Controller::Legacy(_))) {
            "blkio"
        } else {
            "io"
        };
        if let Some(weight) = block.weight().filter(|weight| *weight != 0) {
            // runc: 10..1000 becomes 1..10000.
            let unified = 1 + (u64::from(weight).max(10) - 10) * 9999 / 990;
            let value = if controller == "blkio" {
                u64::from(weight)
            } else {
                unified
            };
            self.set(controller, "blkio.weight", "io.weight", &value.to_string());
        }
        for device in block.weight_device().iter().flatten() {
            if let Some(weight) = device.weight() {
                self.set(
                    controller,
                    "blkio.weight_device",
                    "io.weight",
                    &format!("{}:{} {weight}", device.major(), device.minor()),
                );
            }
        }
        for (devices, legacy, key) in [
            (
                block.throttle_read_bps_device(),
                "blkio.throttle.read_bps_device",
                "rbps",
            ),
            (
                block.throttle_write_bps_device(),
                "blkio.throttle.write_bps_device",
                "wbps",
            ),
            (
                block.throttle_read_iops_device(),
                "blkio.throttle.read_iops_device",
                "riops",
            ),
            (
                block.throttle_write_iops_device(),
                "blkio.throttle.write_iops_device",
                "wiops",
            ),
        ] {
            for device in devices.iter().flatten() {
                self.throttle(controller, legacy, key, device);
            }
        }
    }

    fn throttle(&mut self, controller: &str, legacy: &str, key: &str, device: &LinuxThrottleDevice) {
        let (major, minor, rate) = (device.major(), device.minor(), device.rate());
        let value = if controller == "blkio" {
            format!("{major}:{minor} {rate}")
        } else {
            format!("{major}:{minor} {key}={rate}")
        };
        self.set(controller, legacy, "io.max", &value);
    }
}

/// Writes "no limit" as the new interface does.
fn unlimited(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// Returns the weight that stands for old shares: runc's mapping of 2..262144 to 1..10000.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        for (shares, expected) in [(2, 1), (1024, 39), (262_144, 10_000)] {
            assert_eq!(weight(shares), expected);
        }
    }
}
