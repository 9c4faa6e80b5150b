//! Figures, asked for by name: `cargo test --test it runtime::measure -- --ignored --nocapture`. `COMPOSE_MEASURED`
//! names the program to measure, as an optimised one differs from the one that tests run.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use compose::runtime::Runtime;

use super::support::*;
use crate::support::{binary, is_root};

fn measured() -> PathBuf {
    std::env::var_os("COMPOSE_MEASURED").map_or_else(binary, PathBuf::from)
}

fn median(mut times: Vec<Duration>) -> String {
    times.sort();
    format!(
        "median {:?}, least {:?}, n = {}",
        times[times.len() / 2],
        times[0],
        times.len()
    )
}

/// Returns the proportional set size of a process, in KiB.
fn proportional(process: u32) -> u64 {
    fs::read_to_string(format!("/proc/{process}/smaps_rollup"))
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|value| value.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[tokio::test]
#[ignore = "prints figures"]
async fn start_exec_stop_and_memory() {
    assert!(is_root(), "needs root");
    let state = tempfile::tempdir_in("/tmp").expect("a directory");
    let opened = Instant::now();
    let runtime = Runtime::open_with_program(config(state.path()), measured()).expect("a runtime");
    println!("open the runtime: {:?}", opened.elapsed());
    let place = Box::new();
    let (mut starts, mut stops) = (Vec::new(), Vec::new());
    for _ in 0..60 {
        let mut launch = place.launch("");
        set_command(&mut launch.spec, &["sleep", "60"]);
        let begun = Instant::now();
        let container = runtime.start(launch).await.expect("it starts");
        starts.push(begun.elapsed());
        let begun = Instant::now();
        container.kill(9).await.expect("killed");
        within(container.wait()).await;
        stops.push(begun.elapsed());
    }
    println!("start to exec: {}", median(starts));
    println!("kill to exit record: {}", median(stops));
    let places: Vec<Box> = (0..10).map(|_| Box::new()).collect();
    let mut containers = Vec::new();
    for place in &places {
        containers.push(runtime.start(place.launch("exec sleep 60")).await.expect("it starts"));
    }
    let mut execs = Vec::new();
    for _ in 0..60 {
        let begun = Instant::now();
        let process = containers[0].exec(exec_spec(&["true"])).await.expect("it runs");
        execs.push(begun.elapsed());
        within(process.wait()).await;
    }
    println!("exec to exec'ed: {}", median(execs));
    let shims: Vec<u64> = containers
        .iter()
        .map(|container| proportional(container.shim_pid()))
        .collect();
    let stat = fs::read_to_string(format!("/proc/{}/stat", containers[0].shim_pid())).expect("a process");
    let zygote: u32 = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok())
        .expect("a parent");
    let total = shims.iter().sum::<u64>() + proportional(zygote);
    println!(
        "memory (KiB PSS): shims {shims:?}, zygote {}, together {total}",
        proportional(zygote)
    );
    let text = fs::read_to_string(format!("/proc/{}/smaps", containers[5].shim_pid())).expect("maps");
    let mut name = String::new();
    for line in text.lines() {
        if line.contains('-') && !line.contains(':') || line.contains(" r") || line.contains(" -") {
            name = line.to_owned();
        } else if let Some(size) = line.strip_prefix("Pss:")
            && !size.contains(" 0 kB")
        {
            println!("  {} {name}", size.trim());
        }
    }
    for container in containers {
        container.kill(9).await.expect("killed");
        within(container.wait()).await;
    }
}
