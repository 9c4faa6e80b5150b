//! Measures what goes in and out of a plain user's containers: `cargo bench --bench rootless [SCENARIO…]`, as root,
//! which becomes the user that `COMPOSE_BENCH_USER=UID:GID` names (64310:64310 if none: a user with one id).
//!
//! `COMPOSE_BENCH_PEER` names the other side, a command such as `podman-compose` that is rootless by itself and has the
//! image `busybox:latest`. `COMPOSE_BENCH_IMAGE` names the same image for our side (`docker-archive:PATH`), which else
//! is made of the machine's own busybox. Rates are of bytes that arrived, over the time until the last one had.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its table")]

mod shared;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use shared::{Side, engine, stop_engine, temporary, user};

/// Bytes of a bulk transfer.
const BULK: usize = 1 << 30;
const ROUNDS: usize = 5;
/// An address that documentation has for itself, and that is here the world outside.
const OUTSIDE: &str = "192.0.2.10";

fn main() {
    let wanted = shared::wanted();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    let work = temporary("bench");
    std::fs::set_permissions(work.path(), PermissionsExt::from_mode(0o755)).expect("others may read");
    println!("{:<28} {:>16} {:>16} {:>8}", "scenario", "compose", "peer", "ratio");
    if is_wanted("published") {
        published(work.path());
    }
    if is_wanted("egress") {
        // Only this thread's network changes, and that of what it starts.
        std::thread::scope(|scope| {
            scope.spawn(|| egress(work.path()));
        });
    }
}

/// Returns our side, with an engine of its own, which has the image.
fn ours(work: &Path, state: &Path) -> Side {
    let (uid, gid) = user().unwrap_or((64310, 64310));
    chown(state, Some(uid), Some(gid)).expect("root may give files away");
    let side = Side {
        user: Some((uid, gid)),
        ..Side::ours(state)
    };
    side.load_busybox(work);
    side
}

fn project(directory: &Path, file: &str) {
    std::fs::create_dir_all(directory).expect("a project directory");
    std::fs::write(directory.join("compose.yaml"), file).expect("a project file");
}

/// What comes through a published port, and what goes in by it.
fn published(work: &Path) {
    let state = temporary("cs");
    let mut sides = vec![ours(work, state.path())];
    sides.extend(Side::peer());
    let own_image = std::env::var("COMPOSE_BENCH_IMAGE").unwrap_or_else(|_| "busybox:latest".to_owned());
    let place = |number: usize| work.join(format!("published{number}"));
    let port = |number: usize, which: usize| 18_710 + number * 3 + which;
    for (number, side) in sides.iter().enumerate() {
        project(
            &place(number),
            &format!(
                "services:\n  s:\n    image: \"{}\"\n    command: [sh, -c, \"nc -ll -p 1 -e dd if=/dev/zero bs=1M count={} & nc -ll -p 2 -e sh -c 'cat >/dev/null' & nc -ll -p 3 -e cat\"]\n    ports: [\"{}:1\", \"{}:2\", \"{}:3\"]\n    stop_grace_period: 0s\n",
                if side.state.is_some() {
                    &own_image
                } else {
                    "busybox:latest"
                },
                BULK >> 20,
                port(number, 0),
                port(number, 1),
                port(number, 2)
            ),
        );
        side.run(&place(number), &["up", "-d"]);
    }
    std::thread::sleep(Duration::from_millis(500));
    let (mut out, mut inwards, mut short) = (vec![0.0; sides.len()], vec![0.0; sides.len()], vec![0.0; sides.len()]);
    // Rounds alternate, so that what else the machine does falls on both sides.
    for _ in 0..ROUNDS {
        for number in 0..sides.len() {
            let better = |best: &mut f64, figure: f64| *best = best.max(figure);
            better(&mut out[number], take(connect("127.0.0.1", port(number, 0))));
            better(&mut inwards[number], give(connect("127.0.0.1", port(number, 1))));
            better(&mut short[number], exchanges("127.0.0.1", port(number, 2), 500));
        }
    }
    for (number, side) in sides.iter().enumerate() {
        side.run(&place(number), &["down", "-t", "0"]);
    }
    row("published port, out", "Gbit/s", &out);
    row("published port, in", "Gbit/s", &inwards);
    row("published port, connections", "/s", &short);
    stop_engine(state.path());
}

/// What a container sends to and gets from a host that is elsewhere.
fn egress(work: &Path) {
    // SAFETY: only the network namespace of this thread changes; no file descriptor or memory is shared less.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("a network namespace");
    for arguments in [
        ["link", "set", "lo", "up"].as_slice(),
        &["address", "add", &format!("{OUTSIDE}/32"), "dev", "lo"],
    ] {
        let status = Command::new("ip")
            .args(arguments)
            .status()
            .expect("iproute2 is installed");
        assert!(status.success(), "ip {arguments:?}");
    }
    let state = temporary("cs");
    let side = ours(work, state.path());
    let place = work.join("egress");
    project(
        &place,
        "services: {s: {image: \"busybox:latest\", command: [sleep, \"86400\"], init: true}}\n",
    );
    side.run(&place, &["up", "-d"]);
    let exec = |script: &str| {
        let output = side.run(&place, &["exec", "-T", "s", "sh", "-c", script]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };

    let listener = TcpListener::bind((OUTSIDE, 0)).expect("the address is ours");
    let port = listener.local_addr().expect("bound").port();
    let up = best(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                exec(&format!(
                    "nc {OUTSIDE} {port} -e dd if=/dev/zero bs=1M count={} 2>/dev/null",
                    BULK >> 20
                ))
            });
            take(listener.accept().expect("a connection").0)
        })
    });
    let down = best(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| exec(&format!("nc {OUTSIDE} {port} -e sh -c 'cat >/dev/null'")));
            give(listener.accept().expect("a connection").0)
        })
    });
    row("egress, to outside", "Gbit/s", &[up]);
    row("egress, from outside", "Gbit/s", &[down]);

    let engine = engine(state.path()).expect("an engine");
    let before = descriptors(engine);
    const CONNECTIONS: usize = 10_000;
    let served = std::thread::spawn(move || {
        for _ in 0..CONNECTIONS {
            let (mut connection, _) = listener.accept().expect("a connection");
            let mut line = [0; 64];
            let length = connection.read(&mut line).unwrap_or_default();
            let _ = connection.write_all(&line[..length]);
        }
    });
    let start = Instant::now();
    let script =
        format!("i=0; while [ $i -lt {CONNECTIONS} ]; do echo $i | nc {OUTSIDE} {port}; i=$((i+1)); done | wc -l");
    assert_eq!(
        exec(&script).trim(),
        CONNECTIONS.to_string(),
        "every connection is answered"
    );
    served.join().expect("all were served");
    row(
        "egress, connections",
        "/s",
        &[CONNECTIONS as f64 / start.elapsed().as_secs_f64()],
    );
    std::thread::sleep(Duration::from_secs(1));
    println!(
        "  descriptors of the engine before and after {CONNECTIONS} connections: {before}, {}",
        descriptors(engine)
    );

    let names = UdpSocket::bind((OUTSIDE, 0)).expect("the address is ours");
    let port = names.local_addr().expect("bound").port();
    let script = format!(
        "i=0; while [ $i -lt 500 ]; do nslookup -type=a some.name {OUTSIDE}:{port} >/dev/null; i=$((i+1)); done"
    );
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = names.recv_from(&mut question) {
            // The question itself, as an answer that says: no such name.
            question[2..4].copy_from_slice(&[0x81, 0x83]);
            let _ = names.send_to(&question[..length], from);
        }
    });
    let start = Instant::now();
    exec(&format!("{script}; true"));
    row(
        "egress, questions by UDP",
        "/s",
        &[500.0 / start.elapsed().as_secs_f64()],
    );
    side.run(&place, &["down", "-t", "0"]);
    stop_engine(state.path());
}

fn connect(address: &str, port: usize) -> TcpStream {
    TcpStream::connect((address, u16::try_from(port).expect("a port"))).expect("somebody listens")
}

/// Returns the best of some rounds.
fn best(mut measure: impl FnMut() -> f64) -> f64 {
    (0..ROUNDS).map(|_| measure()).fold(0.0, f64::max)
}

/// Reads all that comes; returns Gbit/s.
fn take(mut connection: TcpStream) -> f64 {
    let mut buffer = vec![0; 1 << 20];
    let (start, mut all) = (Instant::now(), 0);
    loop {
        match connection.read(&mut buffer).expect("it comes") {
            0 => break,
            length => all += length,
        }
    }
    assert_eq!(all, BULK, "all of it comes");
    all as f64 * 8.0 / 1e9 / start.elapsed().as_secs_f64()
}

/// Writes a lot and waits until it has been taken; returns Gbit/s.
fn give(mut connection: TcpStream) -> f64 {
    let buffer = vec![0; 1 << 20];
    let start = Instant::now();
    for _ in 0..BULK >> 20 {
        connection.write_all(&buffer).expect("it goes");
    }
    connection.shutdown(std::net::Shutdown::Write).expect("it is open");
    // The other side closes when it has read everything.
    let _ = connection.read(&mut [0; 8]);
    BULK as f64 * 8.0 / 1e9 / start.elapsed().as_secs_f64()
}

/// Makes many connections, one after the other, each for one word there and back; returns how many a second.
fn exchanges(address: &str, port: usize, count: usize) -> f64 {
    let start = Instant::now();
    for _ in 0..count {
        let mut connection = connect(address, port);
        connection.write_all(b"hello").expect("it goes");
        connection.shutdown(std::net::Shutdown::Write).expect("it is open");
        let mut said = String::new();
        connection.read_to_string(&mut said).expect("it answers");
        assert_eq!(said, "hello");
    }
    count as f64 / start.elapsed().as_secs_f64()
}

fn row(name: &str, unit: &str, figures: &[f64]) {
    let show = |figure: &f64| format!("{figure:.1} {unit}");
    println!(
        "{name:<28} {:>16} {:>16} {:>8}",
        show(&figures[0]),
        figures.get(1).map_or("-".to_owned(), show),
        figures
            .get(1)
            .map_or("-".to_owned(), |peer| format!("{:.1}x", figures[0] / peer)),
    );
}

fn descriptors(pid: rustix::process::Pid) -> usize {
    let directory = format!("/proc/{}/fd", pid.as_raw_nonzero());
    std::fs::read_dir(directory).expect("root may look").count()
}
