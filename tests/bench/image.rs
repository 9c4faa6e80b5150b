//! Measures how images are pulled: `cargo bench --bench image [MEGABYTES]`.
//!
//! One image of one layer of so many megabytes (90 if not said), compressed, and one of the same in four layers, are fetched from a
//! `docker-registry` on loopback into an empty store, in a process of its own whose peak of memory is measured. Beside it: how long
//! `gzip` takes to decompress the same layer. Other engines are measured where `COMPOSE_BENCH_PULLERS` names them, commands
//! separated by `;` that are given the image's name, `docker pull -q` for instance; what removes the image again stands after a
//! `|`: `docker pull -q|docker rmi -f`. Rounds alternate; medians, with the best in brackets.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its table")]

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use compose::image::{ImageConfig, PullOptions, PushOptions, Reference, Settings, Store, silent};

const ROUNDS: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    if let [flag, store, name] = arguments.as_slice()
        && flag == "--pull"
    {
        return pull(Path::new(store), name);
    }
    let megabytes: usize = arguments.first().and_then(|number| number.parse().ok()).unwrap_or(90);
    let directory = tempfile::tempdir().expect("a directory");
    let (_registry, address) = registry(directory.path());
    let single = format!("{address}/bench/single:1");
    let four = format!("{address}/bench/four:1");
    let layer = push_images(directory.path(), &single, &four, megabytes);
    let size = std::fs::metadata(&layer).expect("the layer").len();
    println!("a layer of {} MB as it travels", size / 1_000_000);

    let mut rows: Vec<(String, Vec<Duration>)> = Vec::new();
    let mut note = |name: &str, took: Duration| match rows.iter_mut().find(|(known, _)| known == name) {
        Some((_, times)) => times.push(took),
        None => rows.push((name.to_owned(), vec![took])),
    };
    let mut peak = 0;
    let others = std::env::var("COMPOSE_BENCH_PULLERS").unwrap_or_default();
    for round in 0..ROUNDS {
        note("gunzip, 1 layer", gunzip(&layer));
        for (name, image) in [("compose, 1 layer", &single), ("compose, 4 layers", &four)] {
            let store = directory.path().join(format!("store-{round}"));
            let begun = Instant::now();
            let memory = pull_in_a_process(&store, image);
            note(name, begun.elapsed());
            peak = peak.max(memory);
            std::fs::remove_dir_all(&store).expect("our store");
        }
        for other in others.split(';').filter(|other| !other.is_empty()) {
            let (pull, remove) = other.split_once('|').unwrap_or((other, ""));
            for (what, image) in [("1 layer", &single), ("4 layers", &four)] {
                let begun = Instant::now();
                run(pull, image);
                note(&format!("{pull}, {what}"), begun.elapsed());
                if !remove.is_empty() {
                    run(remove, image);
                }
            }
        }
    }
    for (name, times) in &mut rows {
        times.sort();
        println!(
            "{name:<40} {:>7.0} ms  ({:.0})",
            times[times.len() / 2].as_secs_f64() * 1000.0,
            times[0].as_secs_f64() * 1000.0
        );
    }
    println!("peak memory of a pull: {} MB", peak / 1000);
}

fn run(command: &str, image: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().expect("a command"))
        .args(words)
        .arg(image)
        .output()
        .expect("the command runs");
    assert!(
        output.status.success(),
        "{command} {image}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn gunzip(layer: &Path) -> Duration {
    let begun = Instant::now();
    let status = Command::new("gzip")
        .arg("-dc")
        .stdin(std::fs::File::open(layer).expect("the layer"))
        .stdout(Stdio::null())
        .status()
        .expect("gzip runs");
    assert!(status.success());
    begun.elapsed()
}

/// Pulls, and returns the peak of memory in kilobytes.
fn pull_in_a_process(store: &Path, image: &str) -> u64 {
    let output = Command::new(std::env::current_exe().expect("our program"))
        .arg("--pull")
        .arg(store)
        .arg(image)
        .output()
        .expect("our program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .expect("a number")
}

fn pull(store: &Path, name: &str) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let store = Store::open(store).expect("a store");
    let options = PullOptions {
        settings: Some(Settings::default()),
        ..PullOptions::default()
    };
    let name = Reference::parse(name).expect("a name");
    runtime
        .block_on(store.pull(&name, &options, &silent()))
        .expect("the image is pulled");
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("the peak");
    println!("{}", peak.trim().trim_end_matches(" kB"));
}

/// Makes and pushes the images, and returns the file of the one layer as it travels.
fn push_images(directory: &Path, single: &str, four: &str, megabytes: usize) -> std::path::PathBuf {
    let store = Store::open(directory.join("made")).expect("a store");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut noise = Noise(1);
    let mut file = directory.to_owned();
    for (name, layers) in [(single, 1), (four, 4)] {
        let mut config = ImageConfig::scratch();
        for layer in 0..layers {
            let scratch = store.scratch().expect("a directory");
            // About two fifths are left after compression, as of programs.
            let files = megabytes * 25 / layers;
            for number in 0..files {
                let path = scratch.upper().join(format!("{layer}/{}/{number}", number % 50));
                std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
                std::fs::write(path, noise.words(100_000)).expect("a file");
            }
            let info = store.seal(scratch, Default::default()).expect("a layer");
            config.rootfs.diff_ids.push(info.diff_id);
        }
        let name = Reference::parse(name).expect("a name");
        let image = store.add(&config, std::slice::from_ref(&name), None).expect("an image");
        let options = PushOptions {
            settings: Some(Settings::default()),
            ..PushOptions::default()
        };
        runtime
            .block_on(store.push(&name, &options, &silent()))
            .expect("the image is pushed");
        if layers == 1 {
            let pushed = store
                .layer(&image.layers[0].diff_id)
                .expect("a layer")
                .blob
                .expect("a blob");
            file = store
                .root()
                .join("blobs/sha256")
                .join(pushed.digest.trim_start_matches("sha256:"));
        }
    }
    file
}

struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns bytes some of which repeat what came before.
    fn words(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 64);
        while bytes.len() < length {
            let choice = self.next();
            if choice % 8 < 5 && bytes.len() > 4096 {
                let back = 1 + (self.next() as usize % 4000);
                let count = 4 + (choice >> 32) as usize % 24;
                let start = bytes.len() - back;
                for at in start..start + count.min(back) {
                    bytes.push(bytes[at]);
                }
            } else {
                bytes.extend_from_slice(&self.next().to_le_bytes());
            }
        }
        bytes.truncate(length);
        bytes
    }
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Already gone is as good as ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn registry(directory: &Path) -> (Ended, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    let config = directory.join("config.yml");
    let text = format!(
        "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
        directory.join("registry").display()
    );
    std::fs::write(&config, text).expect("a file");
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("docker-registry is installed");
    let ended = Ended(child);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    (ended, format!("127.0.0.1:{port}"))
}
