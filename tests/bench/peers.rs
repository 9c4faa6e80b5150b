//! Measures us, and docker compose where it is there, in one run: `cargo bench --bench peers [SCENARIO…]`.
//!
//! The other side is named by `COMPOSE_BENCH_PEER`, a command such as `docker compose`, or the program behind it alone,
//! with its engine running and the image `busybox:latest` loaded; `config` needs neither. Rounds of both sides alternate, so that what else the machine does falls on both;
//! absolute times differ from machine to machine, the ratio is what counts. Medians, with the best in brackets.
//!
//! `COMPOSE_BENCH_USER=UID:GID` measures an engine of that user's instead of the machine's; the other side is then a
//! command that is rootless by itself.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its table")]

mod shared;

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use shared::{Side, children, proportional_set_size, stop_engine, summary, temporary, user};

/// What is measured of a side.
trait Measured {
    /// Returns the most memory in kB that the command has at once.
    fn memory(&self, directory: &Path, arguments: &[&str]) -> u64;
    fn time(&self, directory: &Path, arguments: &[&str]) -> Duration;
}

impl Measured for Side {
    fn memory(&self, directory: &Path, arguments: &[&str]) -> u64 {
        let mut command = self.command(directory, arguments);
        command.env("COMPOSE_PROGRESS", "quiet");
        let mut child = command.stdout(Stdio::null()).spawn().expect("the command runs");
        let mut most = 0;
        // The kernel keeps the maximum; it is gone with the process, so the last answer counts.
        while child.try_wait().expect("our own child").is_none() {
            most = high_water_mark(child.id()).unwrap_or(0).max(most);
            std::thread::sleep(Duration::from_micros(100));
        }
        most
    }

    fn time(&self, directory: &Path, arguments: &[&str]) -> Duration {
        let start = Instant::now();
        self.run(directory, arguments);
        start.elapsed()
    }
}

/// A scenario: a project, what to do before the measured command, what is measured, and what to do after.
struct Scenario {
    name: &'static str,
    file: String,
    before: &'static [&'static [&'static str]],
    measured: &'static [&'static str],
    after: &'static [&'static [&'static str]],
    rounds: usize,
    target: Option<Duration>,
    /// Whether what is measured changes nothing, so that before and after are for all rounds together.
    once: bool,
}

const DOWN: &[&[&str]] = &[&["down", "-t", "0"]];
const UP: &[&[&str]] = &[&["up", "-d"]];
/// Has a million lines written, and returns when they are.
const WRITE: &[&str] = &[
    "exec",
    "-T",
    "s0",
    "sh",
    "-c",
    "touch /go; while [ ! -e /done ]; do sleep 0.01; done",
];

fn services(count: usize, extra: impl Fn(usize) -> String) -> String {
    let mut text = "services:\n".to_owned();
    for number in 0..count {
        let _ = write!(
            text,
            "  s{number}:\n    image: busybox:latest\n    command: [\"sleep\", \"86400\"]\n{}",
            extra(number)
        );
    }
    text
}

fn chain(number: usize) -> String {
    let mut text = "    healthcheck: {test: [\"CMD\", \"true\"], interval: 1s, timeout: 5s, retries: 3}\n".to_owned();
    if let Some(previous) = number.checked_sub(1) {
        let _ = writeln!(text, "    depends_on: {{s{previous}: {{condition: service_healthy}}}}");
    }
    text
}

/// One service in many containers.
fn replicas(count: usize) -> String {
    services(1, |_| format!("    deploy: {{replicas: {count}}}\n"))
}

/// A service that writes a million lines when it is told to.
fn writer() -> String {
    let script = "while [ ! -e /go ]; do sleep 0.01; done; seq 1000000; touch /done; exec sleep 86400";
    services(1, |_| format!("    entrypoint: [\"sh\", \"-c\", \"{script}\"]\n"))
}

/// A file as large projects have them: environment, ports, volumes, labels, a health check.
fn large(count: usize) -> String {
    services(count, |number| {
        format!(
            "    environment: {{A: \"${{HOME}}/{number}\", B: two, C: \"3\"}}\n    ports: [\"{}:80\"]\n    volumes: [\"data:/data\", \"./src:/src:ro\"]\n    labels: [\"a.b=c\", \"d.e={number}\"]\n    healthcheck: {{test: [\"CMD\", \"true\"], interval: 30s}}\n",
            10_000 + number
        )
    }) + "volumes:\n  data:\n"
}

fn scenarios() -> Vec<Scenario> {
    let milliseconds = |number| Some(Duration::from_millis(number));
    let plain = |count| services(count, |_| String::new());
    let scenario = |name, file, before, measured, after, rounds, target| Scenario {
        name,
        file,
        before,
        measured,
        after,
        rounds,
        target,
        once: false,
    };
    let reading = |name, file, before, measured, rounds, target| Scenario {
        once: true,
        ..scenario(name, file, before, measured, DOWN, rounds, target)
    };
    vec![
        scenario("config 1", large(1), &[], &["config"], &[], 20, None),
        scenario("config 100", large(100), &[], &["config"], &[], 10, None),
        scenario("config 1000", large(1000), &[], &["config"], &[], 5, None),
        scenario("up 1", plain(1), &[], &["up", "-d"], DOWN, 10, milliseconds(30)),
        scenario(
            "down 1",
            plain(1),
            &[&["up", "-d"]],
            &["down", "-t", "0"],
            &[],
            10,
            None,
        ),
        scenario("up 10", plain(10), &[], &["up", "-d"], DOWN, 5, milliseconds(150)),
        scenario(
            "down 10",
            plain(10),
            &[&["up", "-d"]],
            &["down", "-t", "0"],
            &[],
            5,
            milliseconds(100),
        ),
        scenario("up 50", plain(50), &[], &["up", "-d"], DOWN, 3, None),
        scenario(
            "down 50",
            plain(50),
            &[&["up", "-d"]],
            &["down", "-t", "0"],
            &[],
            3,
            None,
        ),
        scenario(
            "chain 10",
            services(10, chain),
            &[],
            &["up", "-d"],
            DOWN,
            3,
            milliseconds(500),
        ),
        scenario("up 1 x 20", replicas(20), &[], &["up", "-d"], DOWN, 3, None),
        scenario("down 1 x 20", replicas(20), UP, &["down", "-t", "0"], &[], 3, None),
        reading("no-op up 10", plain(10), UP, &["up", "-d"], 5, milliseconds(15)),
        reading("no-op up 50", plain(50), UP, &["up", "-d"], 5, None),
        reading(
            "exec",
            plain(1),
            UP,
            &["exec", "-T", "s0", "true"],
            10,
            milliseconds(15),
        ),
        reading("ps 10", plain(10), UP, &["ps"], 5, milliseconds(10)),
        reading("ps 200", replicas(200), UP, &["ps"], 5, None),
        scenario("write 1M lines", writer(), UP, WRITE, DOWN, 3, None),
        reading("logs 1M lines", writer(), &[&["up", "-d"], WRITE], &["logs"], 3, None),
    ]
}

fn main() {
    let wanted = shared::wanted();
    let (state, work) = (temporary("cs"), temporary("bench"));
    let mut sides = vec![Side {
        user: user(),
        ..Side::ours(state.path())
    }];
    sides.extend(Side::peer());
    if let Some((uid, gid)) = sides[0].user {
        std::os::unix::fs::chown(state.path(), Some(uid), Some(gid)).expect("root may give files away");
        std::fs::set_permissions(work.path(), PermissionsExt::from_mode(0o755)).expect("others may read");
    }
    sides[0].load_busybox(work.path());

    println!(
        "{:<14} {:>22} {:>22} {:>8} {:>10}",
        "scenario", "compose", "peer", "ratio", "target"
    );
    for scenario in scenarios() {
        if wanted.is_empty() || wanted.iter().any(|name| scenario.name.contains(name.as_str())) {
            run(&scenario, &sides, work.path());
        }
    }
    if wanted.is_empty() || wanted.iter().any(|name| name == "memory") {
        memory(&sides[0], work.path());
    }
    stop_engine(state.path());
}

fn run(scenario: &Scenario, sides: &[Side], work: &Path) {
    let directory = work.join(scenario.name.replace(' ', "-"));
    std::fs::create_dir_all(&directory).expect("a project directory");
    std::fs::write(directory.join("compose.yaml"), &scenario.file).expect("a project file");
    let all = |side: &Side, commands: &[&[&str]]| {
        for arguments in commands {
            side.run(&directory, arguments);
        }
    };
    let mut times = vec![Vec::new(); sides.len()];
    if scenario.once {
        sides.iter().for_each(|side| all(side, scenario.before));
    }
    // The first round warms caches and is not counted.
    for round in 0..=scenario.rounds {
        for (side, times) in sides.iter().zip(&mut times) {
            if !scenario.once {
                all(side, scenario.before);
            }
            let time = side.time(&directory, scenario.measured);
            if round > 0 {
                times.push(time);
            }
            if !scenario.once {
                all(side, scenario.after);
            }
        }
    }
    if scenario.once {
        sides.iter().for_each(|side| all(side, scenario.after));
    }
    let shown: Vec<(Duration, String)> = times.iter_mut().map(|times| summary(times)).collect();
    let peer = shown.get(1);
    println!(
        "{:<14} {:>22} {:>22} {:>8} {:>10}",
        scenario.name,
        shown[0].1,
        peer.map_or("-", |(_, text)| text),
        peer.map_or("-".to_owned(), |(median, _)| format!(
            "{:.1}x",
            median.as_secs_f64() / shown[0].0.as_secs_f64()
        )),
        scenario
            .target
            .map_or("-".to_owned(), |target| format!("{} ms", target.as_millis())),
    );
    if scenario.measured == ["config"] {
        let memory = sides.iter().map(|side| side.memory(&directory, scenario.measured));
        let memory: Vec<u64> = memory.collect();
        println!(
            "{:<14} {:>19} MB {:>19} {:>8}",
            "  memory",
            format!("{:.1}", memory[0] as f64 / 1024.0),
            memory
                .get(1)
                .map_or("-".to_owned(), |kb| format!("{:.1} MB", *kb as f64 / 1024.0)),
            memory
                .get(1)
                .map_or("-".to_owned(), |kb| format!("1/{:.1}", *kb as f64 / memory[0] as f64)),
        );
    }
}

/// Prints what the engine and ten shims hold of memory at rest, each page divided by how many processes share it.
fn memory(side: &Side, work: &Path) {
    let directory = work.join("memory");
    std::fs::create_dir_all(&directory).expect("a project directory");
    std::fs::write(directory.join("compose.yaml"), services(10, |_| String::new())).expect("a project file");
    side.run(&directory, &["up", "-d"]);
    let state = side.state.as_ref().expect("our side has a state directory");
    let engine: u32 = std::fs::read_to_string(state.join("engine.lock"))
        .ok()
        .and_then(|pid| pid.trim().parse().ok())
        .unwrap_or(0);
    // What counts is what they hold while nobody asks for anything.
    std::thread::sleep(Duration::from_secs(4));
    // The engine's only child is the zygote, whose children are the shims.
    let zygotes = children(&[engine]);
    let shims = children(&zygotes);
    assert_eq!(shims.len(), 10, "one shim for each container");
    let mut total = 0;
    let mut lines = Vec::new();
    for (name, pids) in [("engine", vec![engine]), ("zygote", zygotes), ("shims", shims)] {
        let pss: u64 = pids.iter().filter_map(|pid| proportional_set_size(*pid)).sum();
        total += pss;
        lines.push(format!("  {name} {:.1} MB", pss as f64 / 1024.0));
    }
    println!(
        "memory: at rest, engine and ten shims hold {:.1} MB PSS (target 16 MB)",
        total as f64 / 1024.0
    );
    for line in lines {
        println!("{line}");
    }
    side.run(&directory, &["down", "-t", "0"]);
}

/// Returns the most memory in kB that a process had so far.
fn high_water_mark(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
