//! Measures builds, ours and docker's where it is there, in one run: `cargo bench --bench build [SCENARIO…]`.
//!
//! The other side is named by `COMPOSE_BENCH_PEER`, a command such as `docker` with its engine running, BuildKit in it, and the
//! image `busybox:latest` loaded. Rounds of both sides alternate; medians, with the best in brackets. Memory is the most that
//! the engine and the command held, added up, in any round.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its table")]

mod shared;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use shared::{Side, engine, stop_engine, summary, temporary};

const TAG: &str = "compose-bench-build";

/// Six steps as projects have them: packages, a user, dependencies, sources, what is compiled, and what is left.
const SIX_STEPS: &str = "FROM busybox:latest\n\
    RUN mkdir -p /app/bin /app/lib && for i in $(seq 200); do echo $i > /app/lib/$i; done\n\
    RUN mkdir -p /etc && echo 'app:x:1000:1000::/app:/bin/sh' >> /etc/passwd && chown -R 1000:1000 /app\n\
    WORKDIR /app\n\
    COPY dependencies dependencies/\n\
    COPY src src/\n\
    RUN cat src/* | md5sum > bin/sum && rm -r lib\n";

const ALL_FILES: &str = "FROM busybox:latest\nCOPY . /app/\nRUN find /app | wc -l > /count\n";

struct Scenario {
    name: &'static str,
    dockerfile: &'static str,
    files: usize,
    is_cold: bool,
    rounds: usize,
    /// How many times faster than the other side it is to be, and how fast at the least.
    ratio: Option<f64>,
    limit: Option<Duration>,
}

fn scenarios() -> [Scenario; 4] {
    [
        Scenario {
            name: "6 steps, cold",
            dockerfile: SIX_STEPS,
            files: 300,
            is_cold: true,
            rounds: 7,
            ratio: Some(3.0),
            limit: None,
        },
        Scenario {
            name: "6 steps, cached",
            dockerfile: SIX_STEPS,
            files: 300,
            is_cold: false,
            rounds: 11,
            ratio: Some(20.0),
            limit: None,
        },
        Scenario {
            name: "50000 files, cold",
            dockerfile: ALL_FILES,
            files: 50_000,
            is_cold: true,
            rounds: 2,
            ratio: None,
            limit: None,
        },
        Scenario {
            name: "50000 files, cached",
            dockerfile: ALL_FILES,
            files: 50_000,
            is_cold: false,
            rounds: 7,
            ratio: None,
            limit: Some(Duration::from_millis(300)),
        },
    ]
}

fn main() {
    let wanted = shared::wanted();
    let (state, work) = (temporary("cs"), temporary("bench"));
    let mut sides = vec![Side::ours(state.path())];
    sides.extend(Side::peer());
    sides[0].load_busybox(work.path());
    println!(
        "{:<20} {:>22} {:>22} {:>8} {:>16} {:>12}",
        "scenario", "compose", "peer", "ratio", "target", "memory"
    );
    for scenario in scenarios() {
        if wanted.is_empty() || wanted.iter().any(|name| scenario.name.contains(name.as_str())) {
            run(&scenario, &sides, work.path());
        }
    }
    if let Some(peer) = sides.get(1) {
        peer.run(work.path(), &["image", "rm", "-f", TAG]);
    }
    stop_engine(state.path());
}

/// Writes a context of small files, a hundred to a directory.
fn write_context(directory: &Path, scenario: &Scenario) {
    std::fs::create_dir_all(directory).expect("a context");
    std::fs::write(directory.join("Dockerfile"), scenario.dockerfile).expect("a Dockerfile");
    let file = format!("services: {{app: {{build: ., image: {TAG}}}}}\n");
    std::fs::write(directory.join("compose.yaml"), file).expect("a project file");
    for top in ["dependencies", "src"] {
        for number in 0..scenario.files / 2 {
            let place = match scenario.files {
                0..1000 => directory.join(top),
                _ => directory.join(top).join((number / 100).to_string()),
            };
            if number % 100 == 0 {
                std::fs::create_dir_all(&place).expect("a directory");
            }
            let text = format!("{top} {number}\n").repeat(20);
            std::fs::write(place.join(format!("{number}.txt")), text).expect("a file");
        }
    }
}

fn run(scenario: &Scenario, sides: &[Side], work: &Path) {
    let directory = work.join(scenario.files.to_string());
    write_context(&directory, scenario);
    let mut times = vec![Vec::new(); sides.len()];
    let mut memory = 0;
    // The first round fills caches and is not counted.
    for round in 0..=scenario.rounds {
        for (side, times) in sides.iter().zip(&mut times) {
            let mut arguments = vec!["build", "-q"];
            if scenario.is_cold {
                arguments.push("--no-cache");
            }
            if side.state.is_none() {
                arguments.extend(["-t", TAG, "."]);
            }
            let (time, held) = measure(side, &directory, &arguments);
            if round > 0 {
                times.push(time);
                memory = memory.max(held);
            }
        }
    }
    let shown: Vec<(Duration, String)> = times.iter_mut().map(|times| summary(times)).collect();
    let peer = shown.get(1);
    let ratio = |median: Duration| median.as_secs_f64() / shown[0].0.as_secs_f64();
    let target = match (scenario.ratio, scenario.limit) {
        (Some(ratio), _) => format!("{ratio}x"),
        (None, Some(limit)) => format!("{} ms", limit.as_millis()),
        (None, None) => "-".to_owned(),
    };
    println!(
        "{:<20} {:>22} {:>22} {:>8} {:>16} {:>12}",
        scenario.name,
        shown[0].1,
        peer.map_or("-", |(_, text)| text),
        peer.map_or("-".to_owned(), |(median, _)| format!("{:.1}x", ratio(*median))),
        target,
        format!("{:.1} MB", memory as f64 / 1024.0),
    );
}

/// Returns how long a command takes, and the most memory in kB that it and its engine hold.
fn measure(side: &Side, directory: &Path, arguments: &[&str]) -> (Duration, u64) {
    let engine = side.state.as_deref().and_then(engine);
    let engine = engine.map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
    // What it held before this is another one's. One that nobody asked for a while has ended.
    let engine = engine.filter(|engine| std::fs::write(format!("/proc/{engine}/clear_refs"), "5").is_ok());
    let mut command = side.command(directory, arguments);
    command.env("COMPOSE_PROGRESS", "quiet");
    let begun = Instant::now();
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command runs");
    // The kernel keeps the maximum; it is gone with the process, so the last answer counts.
    let mut held = 0;
    let status = loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            break status;
        }
        if side.state.is_some() {
            held = high_water_mark(child.id()).unwrap_or(0).max(held);
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let time = begun.elapsed();
    assert!(status.success(), "{} {arguments:?}: {status}", side.name);
    (time, held + engine.and_then(high_water_mark).unwrap_or(0))
}

/// Returns the most memory in kB that a process had so far.
fn high_water_mark(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
