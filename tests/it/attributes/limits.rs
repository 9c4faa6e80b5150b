//! What a container may use: looked up in its own cgroups, and at its own process.

use std::path::PathBuf;

use super::{Stage, on_every_engine};

/// Reads a file of a container's cgroup, from whichever hierarchy serves its controller.
fn cgroup(stage: &Stage, service: &str, controller: &str, file: &str) -> Option<String> {
    let id = stage.succeeds(&["ps", "-q", service]);
    let root = PathBuf::from("/sys/fs/cgroup");
    let mut waiting = vec![root.join(controller)];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(id.trim()) {
                let text = std::fs::read_to_string(entry.path().join(file)).ok()?;
                return Some(text.trim().to_owned());
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(entry.path());
            }
        }
    }
    None
}

#[test]
fn limits_are_the_kernel_s() {
    let file = "services:
  memory: {<<: *base, mem_limit: 64m, memswap_limit: 96m, mem_reservation: 32m, mem_swappiness: 10, oom_score_adj: 300}
  swap: {<<: *base, mem_limit: 64m}
  processor: {<<: *base, cpus: 0.5, cpu_shares: 512, cpuset: '0', pids_limit: 50}
  quota: {<<: *base, cpu_quota: 20000, cpu_period: 50000, blkio_config: {device_read_bps: [{path: '${DEVICE}', rate: 1mb}], device_write_iops: [{path: '${DEVICE}', rate: 30}]}}
  parent: {<<: *base, cgroup_parent: '/at-parent-${COMPOSE_PROJECT_NAME}/inner'}
  deployed: {<<: *base, deploy: {resources: {limits: {cpus: '0.25', memory: 48m, pids: 40}, reservations: {memory: 24m}}}}
  ulimits: {<<: *base, ulimits: {nofile: {soft: 1000, hard: 2000}, nproc: 512, core: 0}, shm_size: 32m}
  few: {<<: *base, pids_limit: 8}
  spared: {<<: *base, mem_limit: 64m, oom_kill_disable: true, blkio_config: {device_read_iops: [{path: '${DEVICE}', rate: 40}], device_write_bps: [{path: '${DEVICE}', rate: 2mb}]}}
  small: {image: '${IMAGE}', mem_limit: 32m, memswap_limit: 32m, command: [sh, -c, 'exec tail /dev/zero']}
";
    let device = ["/dev/vda", "/dev/sda", "/dev/nvme0n1"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
        .unwrap_or("/dev/loop0");
    on_every_engine(&file.replace("${DEVICE}", device), &[], |stage| {
        let read = |service: &str, controller: &str, file: &str| cgroup(stage, service, controller, file);
        if !crate::support::available(
            "the old cgroup controllers",
            PathBuf::from("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists(),
        ) {
            return;
        }
        for (service, controller, file, expected) in [
            ("memory", "memory", "memory.limit_in_bytes", "67108864"),
            ("memory", "memory", "memory.memsw.limit_in_bytes", "100663296"),
            ("memory", "memory", "memory.soft_limit_in_bytes", "33554432"),
            ("memory", "memory", "memory.swappiness", "10"),
            // Docker: as much swap as memory, unless told otherwise.
            ("swap", "memory", "memory.memsw.limit_in_bytes", "134217728"),
            ("processor", "cpu", "cpu.cfs_quota_us", "50000"),
            ("processor", "cpu", "cpu.cfs_period_us", "100000"),
            ("processor", "cpu", "cpu.shares", "512"),
            ("processor", "cpuset", "cpuset.cpus", "0"),
            ("processor", "pids", "pids.max", "50"),
            ("quota", "cpu", "cpu.cfs_quota_us", "20000"),
            ("quota", "cpu", "cpu.cfs_period_us", "50000"),
            ("deployed", "cpu", "cpu.cfs_quota_us", "25000"),
            ("deployed", "memory", "memory.limit_in_bytes", "50331648"),
            ("deployed", "memory", "memory.soft_limit_in_bytes", "25165824"),
            ("deployed", "pids", "pids.max", "40"),
        ] {
            assert_eq!(
                read(service, controller, file).as_deref(),
                Some(expected),
                "{service} {file} on {}",
                stage.engine
            );
        }
        let rate = read("quota", "blkio", "blkio.throttle.read_bps_device").expect("a throttle");
        assert!(rate.ends_with(" 1048576"), "{rate}");
        let rate = read("quota", "blkio", "blkio.throttle.write_iops_device").expect("a throttle");
        assert!(rate.ends_with(" 30"), "{rate}");
        let rate = read("spared", "blkio", "blkio.throttle.read_iops_device").expect("a throttle");
        assert!(rate.ends_with(" 40"), "{rate}");
        let rate = read("spared", "blkio", "blkio.throttle.write_bps_device").expect("a throttle");
        assert!(rate.ends_with(" 2097152"), "{rate}");
        let spared = read("spared", "memory", "memory.oom_control").expect("a setting");
        assert!(spared.contains("oom_kill_disable 1"), "{spared} on {}", stage.engine);
        let id = stage.succeeds(&["ps", "-q", "parent"]);
        let wanted = format!("/at-parent-{}/inner/{}", stage.name, id.trim());
        let own = stage.succeeds(&["ps", "-q", "parent"]);
        let pid = stage.inside("parent", "grep -E ':memory:' /proc/1/cgroup");
        assert!(pid.trim().ends_with(&wanted), "{pid} for {own}");
        stage.prints("memory", "cat /proc/1/oom_score_adj", "300");
        stage.prints(
            "ulimits",
            "grep -E 'open files|processes|core' /proc/1/limits | tr -s ' ' | sort",
            "Max core file size 0 0 bytes\nMax open files 1000 2000 files\nMax processes 512 512 processes",
        );
        stage.prints(
            "ulimits",
            "df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2",
            "32768",
        );
        let refused = stage.inside("few", "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done");
        assert!(
            refused.to_lowercase().contains("t fork"),
            "{refused:?} on {}",
            stage.engine
        );
        // The kernel ends what takes more than it may.
        stage.run(&["wait", "small"]);
        let shown = stage.succeeds(&["ps", "-a", "--format", "{{.State}} {{.ExitCode}}", "small"]);
        assert_eq!(shown.trim(), "exited 137", "on {}", stage.engine);
    });
    if crate::support::is_root() {
        let left: Vec<_> = std::fs::read_dir("/sys/fs/cgroup/memory")
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with(&format!("at-parent-at{}x", std::process::id()))
            })
            .collect();
        if std::env::var_os("COMPOSE_TEST_DOCKER").is_none() {
            assert!(left.is_empty(), "{left:?}");
        }
    }
}
