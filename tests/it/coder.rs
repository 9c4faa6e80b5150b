//! The seed's stack: `examples/coder/compose.yaml`, unchanged, on a real PostgreSQL from a real registry.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::registry::Registry;
use crate::support::{self, Project, http};

/// What the outside world is told for every name.
const OUTSIDE: [u8; 4] = [198, 51, 100, 7];

#[test]
fn the_seed_stack_runs_and_keeps_its_rows() {
    if !support::available("root", support::is_root()) {
        return;
    }
    // The stack publishes fixed ports and asks 10.0.0.1 for names: it gets a network namespace to do so in.
    support::own_network(&["10.0.0.1/32", "192.0.2.10/32"]);
    serve_names_on("10.0.0.1:53");
    let Some(registry) = Registry::start() else { return };
    let Some(rootfs) = debian_rootfs() else { return };
    build_and_push_images(&registry, &rootfs);

    let mut project = Project::new(&[("coder/compose.yaml", include_str!("../../examples/coder/compose.yaml"))]);
    project.enter("coder");
    let mirror = format!("http://127.0.0.1:{}", registry.port);
    project.set(
        "COMPOSE_REGISTRY_MIRRORS",
        &format!("docker.io={mirror},ghcr.io={mirror}"),
    );

    project.succeed(&["up", "-d"]);
    assert_eq!(http::get_when_up("127.0.0.1:7080", "/"), "1");
    assert_eq!(
        http::get("192.0.2.10:7080", "/").expect("the host's address is published too"),
        "2"
    );
    // The start order is the file's.
    assert!(
        started(&project, "database") < started(&project, "coder"),
        "the database starts before coder"
    );
    project.succeed(&["up", "-d", "--wait"]);
    let health = project.succeed(&["ps", "--format", "{{.Service}} {{.Health}}"]);
    assert_eq!(
        health.lines().map(str::trim).collect::<Vec<_>>(),
        ["coder", "database healthy"]
    );
    // Names of the project resolve inside; others are asked of `dns:`.
    let local = project.succeed(&["exec", "-T", "coder", "getent", "hosts", "database"]);
    assert!(local.contains("database"), "{local}");
    let outside = project.succeed(&["exec", "-T", "coder", "getent", "ahostsv4", "outside.example"]);
    assert!(outside.starts_with("198.51.100.7"), "{outside}");
    let resolv = http::get("127.0.0.1:7080", "/resolv").expect("resolv.conf");
    assert!(
        resolv.contains("nameserver 127.0.0.11") && resolv.contains("10.0.0.1"),
        "{resolv}"
    );
    // The mounted socket is a Docker Engine's.
    let ping = http::get("127.0.0.1:7080", "/docker").expect("the socket inside answers");
    assert!(ping.starts_with("HTTP/1.1 200") && ping.ends_with("OK"), "{ping}");

    // Nothing changed, so nothing is done.
    let before = started(&project, "coder");
    project.succeed(&["up", "-d"]);
    assert_eq!(started(&project, "coder"), before);

    project.succeed(&["down"]);
    project.succeed(&["up", "-d"]);
    assert_eq!(http::get_when_up("127.0.0.1:7080", "/rows"), "2", "rows survive down");
    project.succeed(&["down", "-v"]);

    // Other names and passwords, from `.env`.
    project.write(
        "coder/.env",
        "POSTGRES_USER=alice\nPOSTGRES_PASSWORD='s3cret'\nPOSTGRES_DB=wonderland\nCODER_VERSION=latest\n",
    );
    project.succeed(&["up", "-d"]);
    assert_eq!(
        http::get_when_up("127.0.0.1:7080", "/rows"),
        "0",
        "down -v removed the rows"
    );
    let databases = project.succeed(&[
        "exec",
        "-T",
        "database",
        "psql",
        "-U",
        "alice",
        "-d",
        "wonderland",
        "-tAc",
        "select current_user",
    ]);
    assert_eq!(databases, "alice\n");
    project.succeed(&["down", "-v"]);
}

/// Returns when a service's container was started, as the engine says it to Docker's own client.
fn started(project: &Project, service: &str) -> String {
    let id = project.succeed(&["ps", "-q", service]);
    project.docker(&["inspect", "-f", "{{.State.StartedAt}}", id.trim()])
}

/// Returns the file system that `tests/setup.sh` made.
fn debian_rootfs() -> Option<PathBuf> {
    let rootfs = support::cache_directory().join("debian-postgresql.tar");
    support::available("debian-postgresql.tar (run tests/setup.sh)", rootfs.is_file()).then_some(rootfs)
}

/// Builds both images with our own builder and pushes them.
fn build_and_push_images(registry: &Registry, rootfs: &Path) {
    let mut images = Project::new(&[]);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(format!("{}/.", source.display()))
        .arg(images.path())
        .status();
    assert!(copied.expect("cp runs").success());
    for image in ["postgres", "coder"] {
        std::fs::copy(rootfs, images.path().join(image).join("rootfs.tar")).expect("a copy of the file system");
    }
    images.set("REGISTRY_PORT", &registry.port.to_string());
    images.succeed(&["build"]);
    images.succeed(&["push"]);
}

/// Answers every question for an address with [`OUTSIDE`], on a thread of its own, until the test ends.
fn serve_names_on(address: &str) {
    let socket = UdpSocket::bind(address).expect("the name server's address is ours");
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            // The question section ends after the name's last label, type and class.
            let Some(name) = question[12..length].iter().position(|&byte| byte == 0) else {
                continue;
            };
            let end = 12 + name + 5;
            let mut answer = question[..end].to_vec();
            let wants_address = question[end - 3] == 1;
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(wants_address), 0, 0, 0, 0]);
            if wants_address {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(OUTSIDE);
            }
            // A client that went away asks again.
            let _ = socket.send_to(&answer, from);
        }
    });
}
