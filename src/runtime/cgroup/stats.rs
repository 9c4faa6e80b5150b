//! Reading what a container uses.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{Cgroup, Controller};

/// What a container uses.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes and threads.
    pub pids: PidsStats,
    /// Reads and writes of disks.
    pub block: Vec<BlockStats>,
    /// Traffic, by interface.
    pub network: BTreeMap<String, NetworkStats>,
}

/// Processor time, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct CpuStats {
    /// All of it.
    pub total: u64,
    /// In programs.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// Per processor, where the kernel counts it.
    pub per_cpu: Vec<u64>,
    /// How many periods of enforcement there were.
    pub periods: u64,
    /// In how many of them the limit was reached.
    pub throttled_periods: u64,
    /// For how long it was held back.
    pub throttled: u64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default)]
pub struct MemoryStats {
    /// What is used, caches included.
    pub usage: u64,
    /// The most there ever was, where the kernel keeps it.
    pub max_usage: u64,
    /// The limit; the machine's memory where there is none.
    pub limit: u64,
    /// How often the limit was hit.
    pub failures: u64,
    /// The kernel's own break-down.
    pub detail: BTreeMap<String, u64>,
    /// Whether the detail is that of the unified hierarchy.
    pub unified: bool,
}

/// Processes and threads.
#[derive(Clone, Debug, Default)]
pub struct PidsStats {
    /// How many there are.
    pub current: u64,
    /// How many there may be; 0 for any number.
    pub limit: u64,
}

/// Reads and writes of one disk.
#[derive(Clone, Debug, Default)]
pub struct BlockStats {
    /// The device.
    pub major: u64,
    /// The device.
    pub minor: u64,
    /// `read` or `write`.
    pub operation: &'static str,
    /// How many bytes.
    pub bytes: u64,
    /// How many operations.
    pub operations: u64,
}

/// Traffic of one interface.
#[derive(Clone, Debug, Default)]
pub struct NetworkStats {
    /// Bytes received.
    pub received_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Errors receiving.
    pub received_errors: u64,
    /// Packets dropped on the way in.
    pub received_dropped: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Errors sending.
    pub sent_errors: u64,
    /// Packets dropped on the way out.
    pub sent_dropped: u64,
}

/// Reads everything but the network.
pub fn read(cgroup: &Cgroup) -> Stats {
    Stats {
        cpu: cpu(cgroup),
        memory: memory(cgroup),
        pids: pids(cgroup),
        block: block(cgroup),
        network: BTreeMap::new(),
    }
}

/// Reads the traffic of the network namespace that a process is in.
pub fn network(pid: u32) -> BTreeMap<String, NetworkStats> {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/net/dev")) else {
        return BTreeMap::new();
    };
    text.lines()
        .skip(2)
        .filter_map(|line| {
            let (name, counters) = line.split_once(':')?;
            let counters: Vec<u64> = counters
                .split_whitespace()
                .filter_map(|text| text.parse().ok())
                .collect();
            let at = |index: usize| counters.get(index).copied().unwrap_or(0);
            let name = name.trim();
            (name != "lo").then(|| {
                (
                    name.to_owned(),
                    NetworkStats {
                        received_bytes: at(0),
                        received_packets: at(1),
                        received_errors: at(2),
                        received_dropped: at(3),
                        sent_bytes: at(8),
                        sent_packets: at(9),
                        sent_errors: at(10),
                        sent_dropped: at(11),
                    },
                )
            })
        })
        .collect()
}

fn cpu(cgroup: &Cgroup) -> CpuStats {
    let mut stats = CpuStats::default();
    if let Some(Controller::Legacy(path)) = cgroup.controller("cpuacct") {
        stats.total = number(path, "cpuacct.usage");
        stats.per_cpu = fs::read_to_string(path.join("cpuacct.usage_percpu"))
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|text| text.parse().ok())
            .collect();
        // In ticks, of which Linux shows 100 a second whatever its own clock does.
        let ticks = pairs(path, "cpuacct.stat");
        stats.user = ticks.get("user").copied().unwrap_or(0) * 10_000_000;
        stats.system = ticks.get("system").copied().unwrap_or(0) * 10_000_000;
    } else if let Some(path) = cgroup.unified() {
        let usage = pairs(path, "cpu.stat");
        let micro = |name: &str| usage.get(name).copied().unwrap_or(0) * 1000;
        stats.total = micro("usage_usec");
        stats.user = micro("user_usec");
        stats.system = micro("system_usec");
    }
    if let Some(Controller::Legacy(path) | Controller::Unified(path)) = cgroup.controller("cpu") {
        let throttling = pairs(path, "cpu.stat");
        let at = |name: &str| throttling.get(name).copied().unwrap_or(0);
        stats.periods = at("nr_periods");
        stats.throttled_periods = at("nr_throttled");
        stats.throttled = at("throttled_time").max(at("throttled_usec") * 1000);
    }
    stats
}

fn memory(cgroup: &Cgroup) -> MemoryStats {
    let machine = machine_memory();
    let mut stats = match cgroup.controller("memory") {
        Some(Controller::Legacy(path)) => MemoryStats {
            usage: number(path, "memory.usage_in_bytes"),
            max_usage: number(path, "memory.max_usage_in_bytes"),
            limit: number(path, "memory.limit_in_bytes"),
            failures: number(path, "memory.failcnt"),
            detail: pairs(path, "memory.stat"),
            unified: false,
        },
        Some(Controller::Unified(path)) => MemoryStats {
            usage: number(path, "memory.current"),
            max_usage: number(path, "memory.peak"),
            limit: number(path, "memory.max"),
            failures: pairs(path, "memory.events").get("max").copied().unwrap_or(0),
            detail: pairs(path, "memory.stat"),
            unified: true,
        },
        None => MemoryStats::default(),
    };
    if stats.limit == 0 || stats.limit > machine {
        stats.limit = machine;
    }
    stats
}

fn machine_memory() -> u64 {
    fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        })
        .map_or(0, |kibibytes| kibibytes * 1024)
}

fn pids(cgroup: &Cgroup) -> PidsStats {
    match cgroup.controller("pids") {
        Some(Controller::Legacy(path) | Controller::Unified(path)) => PidsStats {
            current: number(path, "pids.current"),
            limit: number(path, "pids.max"),
        },
        None => PidsStats {
            current: cgroup.processes().len() as u64,
            limit: 0,
        },
    }
}

fn block(cgroup: &Cgroup) -> Vec<BlockStats> {
    match (cgroup.controller("blkio"), cgroup.controller("io")) {
        (Some(Controller::Legacy(path)), _) => {
            let mut stats = legacy_block(path, "blkio.throttle.io_service_bytes_recursive");
            for operations in legacy_block(path, "blkio.throttle.io_serviced_recursive") {
                if let Some(entry) = stats.iter_mut().find(|entry| {
                    (entry.major, entry.minor, entry.operation)
                        == (operations.major, operations.minor, operations.operation)
                }) {
                    entry.operations = operations.bytes;
                }
            }
            stats
        }
        (_, Some(Controller::Unified(path))) => unified_block(path),
        _ => Vec::new(),
    }
}

fn legacy_block(path: &Path, name: &str) -> Vec<BlockStats> {
    let text = fs::read_to_string(path.join(name)).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let operation = match words.next()? {
                "Read" => "read",
                "Write" => "write",
                _ => return None,
            };
            Some(BlockStats {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
                operation,
                bytes: words.next()?.parse().ok()?,
                operations: 0,
            })
        })
        .collect()
}

fn unified_block(path: &Path) -> Vec<BlockStats> {
    let text = fs::read_to_string(path.join("io.stat")).unwrap_or_default();
    let mut stats = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((Ok(major), Ok(minor))) = words
            .next()
            .and_then(|device| device.split_once(':'))
            .map(|(major, minor)| (major.parse(), minor.parse()))
        else {
            continue;
        };
        let values: BTreeMap<&str, u64> = words
            .filter_map(|word| word.split_once('='))
            .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
            .collect();
        let at = |name: &str| values.get(name).copied().unwrap_or(0);
        for (operation, bytes, operations) in [("read", "rbytes", "rios"), ("write", "wbytes", "wios")] {
            stats.push(BlockStats {
                major,
                minor,
                operation,
                bytes: at(bytes),
                operations: at(operations),
            });
        }
    }
    stats
}

/// Reads a file of one number; 0 where there is none, or where it says `max`.
fn number(path: &Path, name: &str) -> u64 {
    fs::read_to_string(path.join(name))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// Reads a file of names and numbers.
fn pairs(path: &Path, name: &str) -> BTreeMap<String, u64> {
    fs::read_to_string(path.join(name))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}
