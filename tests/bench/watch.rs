//! Measures `watch`, ours and docker compose's in one run: `cargo bench --bench watch`.
//!
//! A tree of 100,000 files is watched. A file is saved, and a process in the container, which looks every 0.2 ms, says
//! when it reads the new content. Then 1,000 files at once, a file of 100 MB beside `cp`, and the time of the processor
//! while nothing happens. The other side is named by `COMPOSE_BENCH_PEER`, as in the bench `peers`. With the argument
//! `quick` the tree is small.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its table")]

mod shared;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use shared::{Side, stop_engine, temporary};

const DIRECTORIES: usize = 1000;
const PROBES: usize = 16;
const BURST: usize = 1000;
const BIG: usize = 100 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// How many files are saved one by one, and how long is waited between two: a side that takes long gets fewer.
fn pace(side: &Side) -> (usize, Duration) {
    match side.state {
        Some(_) => (300, Duration::from_millis(30)),
        None => (20, Duration::from_millis(300)),
    }
}

/// What was measured of one side.
struct Figures {
    ready: Duration,
    single: Vec<Duration>,
    burst: Vec<Duration>,
    big: Vec<Duration>,
    /// `cp` of the same file, in the same moments.
    copies: Vec<Duration>,
    idle: Duration,
    memory: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == "__reader") {
        return read_in_container();
    }
    let per_directory = if arguments.iter().any(|word| word == "quick") {
        2
    } else {
        100
    };
    let (state, work) = (temporary("cs"), temporary("wbench"));
    let mut sides = vec![Side::ours(state.path())];
    sides[0].load_busybox(work.path());
    sides.extend(Side::peer());
    let project = work.path().join("project");
    make_project(&project, per_directory);
    println!("{} files in {DIRECTORIES} directories", DIRECTORIES * per_directory);
    for side in &sides {
        let figures = measure(side, &project);
        let burst = percentile(&figures.burst, 50);
        let big = percentile(&figures.big, 50);
        println!(
            "{:<8} ready {} · save p50 {} p95 {} max {} ({} saves) · {BURST} files {} · 100 MB {} (cp {}, {:.2}x) · idle {:.1} ms CPU in 10 s · {} MB",
            side.name,
            shown(figures.ready),
            shown(percentile(&figures.single, 50)),
            shown(percentile(&figures.single, 95)),
            shown(percentile(&figures.single, 100)),
            figures.single.len(),
            shown(burst),
            shown(big),
            shown(percentile(&figures.copies, 50)),
            big.as_secs_f64() / percentile(&figures.copies, 50).as_secs_f64(),
            figures.idle.as_secs_f64() * 1e3,
            figures.memory / 1024,
        );
    }
    stop_engine(state.path());
}

/// Makes the tree, the file, and the pipe by which the reader speaks.
fn make_project(project: &Path, per_directory: usize) {
    for directory in 0..DIRECTORIES {
        let path = project.join(format!("tree/d{directory:04}"));
        fs::create_dir_all(&path).expect("a directory");
        for file in 0..per_directory {
            fs::write(path.join(format!("f{file:03}")), format!("{directory} {file}\n")).expect("a file");
        }
    }
    fs::create_dir_all(project.join("tree/probes")).expect("a directory");
    fs::create_dir_all(project.join("tree/burst")).expect("a directory");
    fs::create_dir_all(project.join("out")).expect("a directory");
    let program = std::env::current_exe().expect("this program");
    fs::copy(program, project.join("reader")).expect("a copy of this program");
    let file = "services:
  web:
    image: busybox:latest
    network_mode: none
    stop_grace_period: 0s
    command: [/reader, __reader]
    volumes: ['./reader:/reader:ro', './out:/out']
    develop:
      watch:
        - {action: sync, path: ./tree, target: /srv/app}
";
    fs::write(project.join("compose.yaml"), file).expect("a project file");
}

fn measure(side: &Side, project: &Path) -> Figures {
    let pipe = project.join("out/pipe");
    let _ = fs::remove_file(&pipe);
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).expect("a pipe");
    // Both ends, so that opening does not wait for the container.
    let ours = File::options().read(true).write(true).open(&pipe).expect("a pipe");
    let (sender, heard) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(ours).lines().map_while(Result::ok) {
            if sender.send((Instant::now(), line)).is_err() {
                return;
            }
        }
    });
    side.run(project, &["up", "-d"]);
    let begun = Instant::now();
    let mut watch = Watch::start(side, project);
    let ready = begun.elapsed();
    let mut single = Vec::new();
    let (saves, pause) = pace(side);
    for number in 0..saves {
        let path = project.join(format!("tree/probes/{}", number % PROBES));
        let text = format!("save{number}");
        let saved = Instant::now();
        if number % 2 == 0 {
            fs::write(&path, &text).expect("a file");
        } else {
            // As editors do.
            let beside = path.with_extension("new~");
            fs::write(&beside, &text).expect("a file");
            fs::rename(&beside, &path).expect("a file");
        }
        single.push(hears(&heard, saved, &text));
        std::thread::sleep(pause);
    }
    let mut burst = Vec::new();
    for round in 0..5 {
        let text = format!("burst{round}");
        let saved = Instant::now();
        for number in 0..BURST {
            fs::write(project.join(format!("tree/burst/{number}")), &text).expect("a file");
        }
        burst.push(hears(&heard, saved, &text));
        std::thread::sleep(pause);
    }
    let (mut big, mut copies) = (Vec::new(), Vec::new());
    for round in 0..7 {
        let text = format!("big{round}");
        write_big(&project.join("big.new"), &text);
        copies.push(copy_time(project));
        let saved = Instant::now();
        fs::rename(project.join("big.new"), project.join("tree/big")).expect("a file");
        big.push(hears(&heard, saved, &text));
        std::thread::sleep(pause);
    }
    std::thread::sleep(Duration::from_secs(2));
    let before = watch.processor_time();
    std::thread::sleep(Duration::from_secs(10));
    let idle = watch.processor_time().saturating_sub(before);
    let memory = watch.memory();
    watch.end();
    side.run(project, &["down", "-t", "0"]);
    Figures {
        ready,
        single,
        burst,
        big,
        copies,
        idle,
        memory,
    }
}

/// Waits until the reader says this, and returns how long it took.
fn hears(heard: &Receiver<(Instant, String)>, since: Instant, text: &str) -> Duration {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((at, line)) if line == text => return at - since,
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => panic!("{text} never arrived"),
            Err(RecvTimeoutError::Disconnected) => panic!("the reader's pipe is closed"),
        }
    }
}

/// A watch in the foreground.
struct Watch(Child);

impl Watch {
    fn start(side: &Side, project: &Path) -> Self {
        let mut command = side.command(project, &["watch", "--no-up"]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the watch starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        while !lines
            .next()
            .expect("it watches")
            .expect("text")
            .contains("Watch enabled")
        {}
        // Nobody reads what it says from now on, but somebody has to take it.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child)
    }

    /// Returns the watch's processes: where the peer's command is a script, the work is done below it.
    fn processes(&self) -> Vec<u32> {
        let mut all = vec![self.0.id()];
        let mut seen = 0;
        while seen < all.len() {
            let pid = all[seen];
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            seen += 1;
        }
        all
    }

    fn processor_time(&self) -> Duration {
        let ticks = |pid: u32| -> Option<u64> {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
        };
        let total: u64 = self.processes().into_iter().filter_map(ticks).sum();
        Duration::from_millis(total * 10)
    }

    /// Returns how much memory it has, in kB.
    fn memory(&self) -> u64 {
        let of = |pid: u32| -> Option<u64> {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.split_whitespace().next()?.parse().ok()
        };
        self.processes().into_iter().filter_map(of).sum()
    }

    fn end(&mut self) {
        let pids = self.processes();
        for pid in pids.into_iter().rev().filter_map(|pid| i32::try_from(pid).ok()) {
            let pid = rustix::process::Pid::from_raw(pid).expect("a process");
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        self.0.wait().expect("the watch ends");
    }
}

fn write_big(path: &Path, text: &str) {
    let mut content = vec![b'x'; BIG];
    // Random enough that nothing can be shared or compressed.
    let mut number = 0x9e37_79b9_7f4a_7c15_u64;
    for chunk in content.chunks_exact_mut(8) {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        chunk.copy_from_slice(&number.to_le_bytes());
    }
    let end = content.len() - 16;
    content[end..].fill(b' ');
    content[end..end + text.len()].copy_from_slice(text.as_bytes());
    fs::write(path, content).expect("a large file");
    // Some file systems write a file out when it takes another's place; that is the saver's time, and no part of this.
    let file = File::open(path).expect("the large file");
    file.sync_all().expect("the large file reaches the disk");
}

/// Returns how long `cp` takes for the large file, on the same file system.
fn copy_time(project: &Path) -> Duration {
    let begun = Instant::now();
    let status = Command::new("cp")
        .args(["big.new", "big.copy"])
        .current_dir(project)
        .status()
        .expect("cp runs");
    let elapsed = begun.elapsed();
    assert!(status.success());
    fs::remove_file(project.join("big.copy")).expect("the copy");
    elapsed
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

fn shown(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// In the container: says what it reads whenever it is new.
fn read_in_container() {
    let mut out = File::options().append(true).open("/out/pipe").expect("the pipe");
    let mut say = |text: &str| writeln!(out, "{text}").expect("the pipe");
    let mut known = vec![String::new(); PROBES];
    let (mut last_burst, mut last_big) = (String::new(), String::new());
    for pass in 0_u64.. {
        for (number, known) in known.iter_mut().enumerate() {
            let text = fs::read_to_string(format!("/srv/app/probes/{number}")).unwrap_or_default();
            if text != *known {
                say(&text);
                *known = text;
            }
        }
        if pass % 5 == 0 {
            if let Some(text) = end_of_big().filter(|text| *text != last_big) {
                say(&text);
                last_big = text;
            }
            let text = fs::read_to_string("/srv/app/burst/0").unwrap_or_default();
            let has =
                |number: usize| fs::read_to_string(format!("/srv/app/burst/{number}")).is_ok_and(|other| other == text);
            if text != last_burst && (1..BURST).rev().all(has) {
                say(&text);
                last_burst = text;
            }
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn end_of_big() -> Option<String> {
    let mut file = File::open("/srv/app/big").ok()?;
    if file.metadata().ok()?.len() != BIG as u64 {
        return None;
    }
    file.seek(SeekFrom::End(-16)).ok()?;
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let text = text.trim().to_owned();
    text.is_ascii().then_some(text).filter(|text| text.starts_with("big"))
}
