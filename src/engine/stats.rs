//! What containers use, in Docker's shape.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::container::Container;
use super::{Engine, Result, lifecycle, time};
use crate::runtime::{BlockStats, Stats};

impl Engine {
    /// Returns what a container uses now; a stopped one uses nothing.
    pub async fn stats(&self, container: &Arc<Container>) -> Result<Value> {
        let name = container.name();
        let read = time::rfc3339(time::now());
        let mut value = json!({
            "name": format!("/{name}"),
            "id": container.id,
            "read": read,
            "preread": time::NEVER,
            "pids_stats": {},
            "blkio_stats": { "io_service_bytes_recursive": null, "io_serviced_recursive": null },
            "num_procs": 0,
            "storage_stats": {},
            "cpu_stats": empty_cpu(),
            "precpu_stats": empty_cpu(),
            "memory_stats": {},
        });
        let Some(live) = container.live() else {
            value["read"] = json!(time::NEVER);
            return Ok(value);
        };
        let stats = live
            .stats()
            .await
            .map_err(lifecycle::runtime_failure("cannot read the statistics of"))?;
        value["pids_stats"] = json!({ "current": stats.pids.current });
        if stats.pids.limit > 0 {
            value["pids_stats"]["limit"] = json!(stats.pids.limit);
        }
        value["blkio_stats"] = json!({
            "io_service_bytes_recursive": block(&stats.block, |entry| entry.bytes),
            "io_serviced_recursive": block(&stats.block, |entry| entry.operations),
            "io_queue_recursive": null,
            "io_service_time_recursive": null,
            "io_wait_time_recursive": null,
            "io_merged_recursive": null,
            "io_time_recursive": null,
            "sectors_recursive": null,
        });
        value["cpu_stats"] = cpu(&stats);
        value["memory_stats"] = json!({
            "usage": stats.memory.usage,
            "stats": stats.memory.detail,
            "limit": stats.memory.limit,
        });
        if !stats.memory.unified {
            value["memory_stats"]["max_usage"] = json!(stats.memory.max_usage);
            value["memory_stats"]["failcnt"] = json!(stats.memory.failures);
        }
        let networks: BTreeMap<&String, Value> = stats
            .network
            .iter()
            .filter(|(name, _)| *name != "lo")
            .map(|(name, of)| {
                let value = json!({
                    "rx_bytes": of.received_bytes,
                    "rx_packets": of.received_packets,
                    "rx_errors": of.received_errors,
                    "rx_dropped": of.received_dropped,
                    "tx_bytes": of.sent_bytes,
                    "tx_packets": of.sent_packets,
                    "tx_errors": of.sent_errors,
                    "tx_dropped": of.sent_dropped,
                });
                (name, value)
            })
            .collect();
        if !networks.is_empty() {
            value["networks"] = json!(networks);
        }
        Ok(value)
    }

    /// Returns one sample; unless told not to, with an earlier one to compare it with.
    pub async fn stats_once(&self, container: &Arc<Container>, one_shot: bool) -> Result<Value> {
        let before = self.stats(container).await?;
        if one_shot || container.live().is_none() {
            return Ok(before);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut value = self.stats(container).await?;
        remember(&mut value, &before);
        Ok(value)
    }
}

/// Puts what an earlier sample said of the processor beside the present.
pub fn remember(value: &mut Value, before: &Value) {
    if before.is_object() {
        value["preread"] = before["read"].clone();
        value["precpu_stats"] = before["cpu_stats"].clone();
    }
}

fn empty_cpu() -> Value {
    json!({
        "cpu_usage": { "total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0 },
        "throttling_data": { "periods": 0, "throttled_periods": 0, "throttled_time": 0 },
    })
}

fn cpu(stats: &Stats) -> Value {
    let mut usage = Map::new();
    usage.insert("total_usage".to_owned(), json!(stats.cpu.total));
    if !stats.cpu.per_cpu.is_empty() {
        usage.insert("percpu_usage".to_owned(), json!(stats.cpu.per_cpu));
    }
    usage.insert("usage_in_kernelmode".to_owned(), json!(stats.cpu.system));
    usage.insert("usage_in_usermode".to_owned(), json!(stats.cpu.user));
    json!({
        "cpu_usage": usage,
        "system_cpu_usage": machine_time(),
        "online_cpus": std::thread::available_parallelism().map_or(1, usize::from),
        "throttling_data": {
            "periods": stats.cpu.periods,
            "throttled_periods": stats.cpu.throttled_periods,
            "throttled_time": stats.cpu.throttled,
        },
    })
}

/// Returns the processor time of the whole machine in nanoseconds.
fn machine_time() -> u64 {
    let ticks: u64 = std::fs::read_to_string("/proc/stat")
        .unwrap_or_default()
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(7)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second().max(1))
}

fn block(entries: &[BlockStats], number: impl Fn(&BlockStats) -> u64) -> Value {
    if entries.is_empty() {
        return Value::Null;
    }
    entries
        .iter()
        .map(|entry| {
            json!({ "major": entry.major, "minor": entry.minor, "op": entry.operation, "value": number(entry) })
        })
        .collect()
}
