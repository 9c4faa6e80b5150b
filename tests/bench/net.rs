//! Measures containers' networks, ours and Docker's where it is there, in one run: `cargo bench --bench net`.
//!
//! The other side is named by `COMPOSE_BENCH_PEER`, a command such as `docker compose` with its engine running and the
//! image `busybox:latest` loaded. The server echoes, so that a request is one packet there and one back: what is
//! measured is the way. Rounds of all ways alternate, so that what else the machine does falls on all of them.
#![allow(clippy::print_stdout, reason = "a bench prints its table")]

mod shared;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use compose::os::netns;

use shared::{Side, stop_engine, temporary};

const FILE: &str = "services:
  server:
    image: busybox:latest
    init: true
    command: [busybox, nc, -ll, -p, '80', -e, cat]
    ports: ['PORT:80']
    stop_grace_period: 0s
  asker:
    image: busybox:latest
    init: true
    command: [sleep, 'TOKEN']
    stop_grace_period: 0s
  three:
    image: busybox:latest
    init: true
    command: [sleep, '86400']
    networks: [one, two, three]
    profiles: [three]
    stop_grace_period: 0s
networks: {one: {}, two: {}, three: {}}
";
const CONNECTIONS: usize = 8;
const ROUND: Duration = Duration::from_millis(500);
const ROUNDS: usize = 5;
const STARTS: usize = 5;

/// One side of the comparison, with its project up.
struct Running {
    side: Side,
    directory: PathBuf,
    port: u16,
    token: String,
}

impl Running {
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.side.run(&self.directory, arguments);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The process of the asker, known by what it sleeps.
    fn asker(&self) -> u32 {
        let wanted = format!("sleep\0{}\0", self.token);
        let entries = std::fs::read_dir("/proc").expect("procfs").flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .find(|pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted.as_bytes()))
            .expect("the asker runs")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.run(&["--profile", "three", "down", "-t", "0"]);
        if let Some(state) = &self.side.state {
            stop_engine(state);
        }
    }
}

fn main() {
    if !rustix::process::geteuid().is_root() {
        println!("networks are measured as root");
        return;
    }
    let work = temporary("cb");
    let ours = Side::ours(&work.path().join("state"));
    ours.load_busybox(work.path());
    let sides: Vec<Running> = [ours]
        .into_iter()
        .chain(Side::peer())
        .map(|side| running(side, work.path()))
        .collect();
    println!("| what | side | a second | median | 99 of 100 |\n|---|---|---|---|---|");
    for side in &sides {
        side.run(&["up", "-d"]);
    }
    // What takes long comes last.
    lookups(&sides);
    requests(&sides);
    starts(&sides);
}

fn running(side: Side, work: &Path) -> Running {
    let directory = work.join(format!("net{}", side.name));
    std::fs::create_dir_all(&directory).expect("a project directory");
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let token = format!("86400.{}", std::process::id() + u32::from(side.name == "peer"));
    let file = FILE.replace("PORT", &port.to_string()).replace("TOKEN", &token);
    std::fs::write(directory.join("compose.yaml"), file).expect("a project file");
    Running {
        side,
        directory,
        port,
        token,
    }
}

/// Requests through the published port by each way, and to the container itself.
fn requests(sides: &[Running]) {
    let own = own_address();
    let mut ways: Vec<(String, &str, SocketAddr)> = Vec::new();
    for side in sides {
        let address = side.run(&["exec", "-T", "server", "hostname", "-i"]);
        let direct: IpAddr = address
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .parse()
            .expect("an address");
        ways.push(("the container itself".into(), side.side.name, (direct, 80).into()));
        if let Some(own) = own {
            ways.push(("the machine's address".into(), side.side.name, (own, side.port).into()));
        }
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().expect("an address");
            ways.push((address.to_string(), side.side.name, (address, side.port).into()));
        }
    }
    let mut found: Vec<Vec<Duration>> = vec![Vec::new(); ways.len()];
    let mut counts: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for (at, (_, _, address)) in ways.iter().enumerate() {
            let started = Instant::now();
            let times = echo(*address);
            counts[at].push(times.len() as f64 / started.elapsed().as_secs_f64());
            found[at].extend(times);
        }
    }
    for (at, (way, side, _)) in ways.iter().enumerate() {
        line(&format!("requests to {way}"), side, &mut counts[at], &mut found[at]);
    }
}

/// Sends one byte and waits for it, again and again, on several connections; returns how long each took.
fn echo(address: SocketAddr) -> Vec<Duration> {
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(address).expect("the server listens");
                stream.set_nodelay(true).expect("an option");
                let mut byte = [0];
                let mut times = Vec::new();
                let end = Instant::now() + ROUND;
                loop {
                    let started = Instant::now();
                    stream.write_all(b"x").expect("it is sent");
                    stream.read_exact(&mut byte).expect("it comes back");
                    times.push(started.elapsed());
                    if Instant::now() > end {
                        return times;
                    }
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .flat_map(|thread| thread.join().expect("a thread"))
        .collect()
}

/// Questions for a name, from inside.
fn lookups(sides: &[Running]) {
    let namespaces: Vec<std::fs::File> = sides
        .iter()
        .map(|side| std::fs::File::open(format!("/proc/{}/ns/net", side.asker())).expect("its namespace"))
        .collect();
    let mut found: Vec<(Vec<f64>, Vec<Duration>)> = vec![Default::default(); sides.len()];
    for _ in 0..ROUNDS {
        for (namespace, (counts, times)) in namespaces.iter().zip(&mut found) {
            let namespace = namespace.try_clone().expect("a descriptor");
            let asked = std::thread::spawn(move || {
                netns::enter(&namespace).expect("the namespace can be entered");
                ask(ROUND)
            });
            let started = Instant::now();
            let round = asked.join().expect("a thread");
            counts.push(round.len() as f64 / started.elapsed().as_secs_f64());
            times.extend(round);
        }
    }
    for (side, (counts, times)) in sides.iter().zip(&mut found) {
        line("lookups of a service's name", side.side.name, counts, times);
    }
}

fn ask(how_long: Duration) -> Vec<Duration> {
    // Recursion desired; one question: server, A, IN.
    let mut question = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 6];
    question.extend_from_slice(b"server\0\0\x01\0\x01");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect("127.0.0.11:53").expect("the resolver");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a limit");
    let mut answer = [0; 512];
    let mut times = Vec::new();
    let end = Instant::now() + how_long;
    while Instant::now() < end {
        let started = Instant::now();
        socket.send(&question).expect("it is sent");
        let count = socket.recv(&mut answer).expect("an answer");
        assert!(count > question.len() && answer[7] == 1, "one address");
        times.push(started.elapsed());
    }
    times
}

/// Starts of a container on three networks.
fn starts(sides: &[Running]) {
    for side in sides {
        side.run(&["--profile", "three", "create", "three"]);
    }
    let mut times = vec![Vec::new(); sides.len()];
    for _ in 0..STARTS {
        for (at, side) in sides.iter().enumerate() {
            let started = Instant::now();
            side.run(&["--profile", "three", "start", "three"]);
            times[at].push(started.elapsed());
            side.run(&["--profile", "three", "stop", "-t", "0", "three"]);
        }
    }
    for (at, side) in sides.iter().enumerate() {
        let mut counts: Vec<f64> = times[at].iter().map(|time| 1.0 / time.as_secs_f64()).collect();
        line("starts on three networks", side.side.name, &mut counts, &mut times[at]);
    }
}

fn line(what: &str, side: &str, counts: &mut [f64], times: &mut [Duration]) {
    counts.sort_by(f64::total_cmp);
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e6;
    println!(
        "| {what} | {side} | {:.0} | {:.0} µs | {:.0} µs |",
        counts[counts.len() / 2],
        at(50),
        at(99)
    );
}

/// An address of the machine's that is not a loopback one.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the kernel only chooses.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then_some(address)
}
