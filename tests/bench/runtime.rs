//! Measures the runtime beside runc and crun, and what many containers take: `cargo bench --bench runtime [SCENARIO…]`,
//! as root. Scenarios are `start`, `many` and `memory`.
//!
//! All runtimes get the same bundle, in rounds that alternate, each from a shell that waits for the word to go. Absolute
//! times differ from machine to machine. Medians, with the best in brackets.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its table")]

mod shared;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use shared::{Side, children, proportional_set_size, stop_engine, summary, temporary};

const COMPOSE: &str = env!("CARGO_BIN_EXE_compose");
const ROUNDS: usize = 40;

fn main() {
    let wanted = shared::wanted();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let work = temporary("bench");
    let state = temporary("cs");
    let engine = Engine {
        state: state.path().to_owned(),
        work: work.path().to_owned(),
    };
    Side::ours(state.path()).load_busybox(work.path());
    if is_wanted("start") {
        start(&engine, work.path());
    }
    if is_wanted("many") {
        many(&engine);
    }
    if is_wanted("memory") {
        memory(&engine);
    }
    stop_engine(state.path());
}

/// From the start of a container to its exit: ours with all that compose gives it, and every runtime with the same bundle.
fn start(engine: &Engine, work: &Path) {
    let bundle = work.join("bundle");
    make_bundle(&bundle);
    let ours = format!("{COMPOSE} oci --root {}/ours run b$n", work.display());
    let crun = format!("crun --cgroup-manager=disabled --root {}/crun run b$n", work.display());
    let runc = format!("runc --root {}/runc run b$n", work.display());
    // Debian's crun refuses to work where there are cgroups of both kinds.
    let only_unified = "mount --make-rprivate / && umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup";
    let mut runners = vec![Runner::new("compose oci run", "true", &ours, &bundle)];
    for (program, name, prepare, command) in [
        ("crun", "crun run", only_unified, &crun),
        ("runc", "runc run", "true", &runc),
    ] {
        if ["/usr/bin", "/usr/sbin", "/usr/local/bin"]
            .iter()
            .any(|place| Path::new(place).join(program).exists())
        {
            runners.push(Runner::new(name, prepare, command, &bundle));
        } else {
            eprintln!("{program} is not there");
        }
    }
    let container = engine.create(r#"{"Image":"busybox:latest","Cmd":["true"]}"#);
    let mut times = vec![Vec::new(); runners.len()];
    let (mut engine_times, mut client_times) = (Vec::new(), Vec::new());
    // The first round warms caches and is not counted.
    for round in 0..=ROUNDS {
        for (runner, times) in runners.iter_mut().zip(&mut times) {
            let time = runner.time();
            if round > 0 {
                times.push(time);
            }
        }
        let (started, ended) = engine.run_once(&container);
        if round > 0 {
            client_times.push(started);
            engine_times.push(ended);
        }
    }
    engine.request("DELETE", &format!("/containers/{container}?force=1"), "");
    println!(
        "{:<44} {:>20}",
        "engine: start to exit, with a network (6 ms)",
        summary(&mut engine_times).1
    );
    println!("{:<44} {:>20}", "engine: until started", summary(&mut client_times).1);
    for (runner, times) in runners.iter().zip(&mut times) {
        println!("{:<44} {:>20}", format!("{}, without", runner.name), summary(times).1);
    }
}

/// A bundle of busybox with Docker's defaults.
fn make_bundle(bundle: &Path) {
    for name in ["bin", "etc", "tmp", "proc", "dev", "sys"] {
        fs::create_dir_all(bundle.join("rootfs").join(name)).expect("a directory");
    }
    fs::copy("/bin/busybox", bundle.join("rootfs/bin/busybox")).expect("busybox-static is installed");
    std::os::unix::fs::symlink("busybox", bundle.join("rootfs/bin/true")).expect("a link");
    let made = Command::new(COMPOSE).args(["oci", "spec"]).current_dir(bundle).status();
    assert!(made.is_ok_and(|status| status.success()), "a spec");
    let text = fs::read_to_string(bundle.join("config.json")).expect("a spec");
    let mut spec: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    spec["process"]["args"] = serde_json::json!(["true"]);
    spec["process"]["terminal"] = serde_json::json!(false);
    spec["ociVersion"] = serde_json::json!("1.0.2");
    fs::write(bundle.join("config.json"), spec.to_string()).expect("a spec");
}

/// A shell that runs a command whenever it is told to.
struct Runner {
    name: &'static str,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Runner {
    fn new(name: &'static str, prepare: &str, command: &str, bundle: &Path) -> Self {
        let script = format!(
            "{prepare} || exit 1; while read n; do {command} </dev/null >/dev/null 2>/tmp/bench-error.$$ || cat \
             /tmp/bench-error.$$ >&2; echo; done; rm -f /tmp/bench-error.$$"
        );
        let mut child = Command::new("unshare")
            .args(["-m", "sh", "-c", &script])
            .current_dir(bundle)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is there");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self {
            name,
            child,
            input,
            output,
        }
    }

    fn time(&mut self) -> Duration {
        let begun = Instant::now();
        writeln!(self.input, "{}", std::process::id()).expect("the shell is there");
        let mut line = String::new();
        let count = self.output.read_line(&mut line).expect("an answer");
        assert!(count > 0, "{} does not run", self.name);
        begun.elapsed()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // It ends with its input; what is left of it must not outlive the bench.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fifty containers with a network, up and gone again, as the command line has them.
fn many(engine: &Engine) {
    let directory = engine.project("many", 50);
    let (mut ups, mut kills, mut downs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=5 {
        let up = engine.time(&directory, &["up", "-d"]);
        let kill = engine.time(&directory, &["kill"]);
        engine.time(&directory, &["start"]);
        let down = engine.time(&directory, &["down", "-t", "0"]);
        if round > 0 {
            ups.push(up);
            kills.push(kill);
            downs.push(down);
        }
    }
    println!("{:<44} {:>20}", "up -d of 50 (300 ms)", summary(&mut ups).1);
    println!("{:<44} {:>20}", "kill of 50 (60 ms)", summary(&mut kills).1);
    println!("{:<44} {:>20}", "down of 50", summary(&mut downs).1);
}

/// What the engine and two hundred shims hold at rest, each page divided by how many processes share it.
fn memory(engine: &Engine) {
    let directory = engine.project("memory", 200);
    engine.time(&directory, &["up", "-d"]);
    std::thread::sleep(Duration::from_secs(4));
    // The engine's only child is the zygote, whose children are the shims.
    let process = shared::engine(&engine.state)
        .expect("an engine")
        .as_raw_nonzero()
        .get()
        .cast_unsigned();
    let zygotes = children(&[process]);
    let shims = children(&zygotes);
    assert_eq!(shims.len(), 200, "one shim for each container");
    let sum = |processes: &[u32]| {
        processes
            .iter()
            .filter_map(|pid| proportional_set_size(*pid))
            .sum::<u64>() as f64
            / 1024.0
    };
    let (own, zygote, all) = (sum(&[process]), sum(&zygotes), sum(&shims));
    println!(
        "memory of engine and 200 shims: {:.1} MB PSS (100 MB): engine {own:.1}, zygote {zygote:.1}, shims {all:.1}",
        own + zygote + all
    );
    engine.time(&directory, &["down", "-t", "0"]);
}

/// An engine of the bench's own.
struct Engine {
    state: PathBuf,
    work: PathBuf,
}

impl Engine {
    fn time(&self, directory: &Path, arguments: &[&str]) -> Duration {
        let begun = Instant::now();
        Side::ours(&self.state).run(directory, arguments);
        begun.elapsed()
    }

    fn project(&self, name: &str, count: usize) -> PathBuf {
        let directory = self.work.join(name);
        fs::create_dir_all(&directory).expect("a project directory");
        let mut file = "services:\n".to_owned();
        for number in 0..count {
            let _ = writeln!(
                file,
                "  s{number}: {{image: \"busybox:latest\", command: [sleep, \"86400\"]}}"
            );
        }
        fs::write(directory.join("compose.yaml"), file).expect("a project file");
        directory
    }

    /// Asks the engine and returns what it answers.
    fn request(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = self.send(method, path, body);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn send(&self, method: &str, path: &str, body: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.state.join("engine.sock")).expect("the engine's socket");
        let length = body.len();
        let head = "Host: localhost\r\nConnection: close\r\nContent-Type: application/json";
        let request = format!("{method} {path} HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).expect("the engine listens");
        stream
    }

    fn create(&self, config: &str) -> String {
        let answer = self.request("POST", "/containers/create", config);
        let id = answer.split("\"Id\":\"").nth(1).and_then(|rest| rest.split('"').next());
        id.unwrap_or_else(|| panic!("no container: {answer}")).to_owned()
    }

    /// Starts a container; returns how long that took, and how long it was until the container had ended.
    fn run_once(&self, container: &str) -> (Duration, Duration) {
        let mut wait = self.send("POST", &format!("/containers/{container}/wait?condition=next-exit"), "");
        // Its answer begins once the engine watches.
        let mut byte = [0];
        wait.read_exact(&mut byte).expect("an answer");
        let begun = Instant::now();
        let answer = self.request("POST", &format!("/containers/{container}/start"), "");
        let started = begun.elapsed();
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
        let mut text = String::new();
        wait.read_to_string(&mut text).expect("an answer");
        let ended = begun.elapsed();
        assert!(text.contains("\"StatusCode\":0"), "{text}");
        (started, ended)
    }
}
