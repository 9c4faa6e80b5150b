//! `docker-compose.example.yaml`, as README's first command brings it up.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::support::{self, Project, http};

#[test]
fn the_example_comes_up_without_a_registry_and_keeps_its_count() {
    if !support::available("root", support::is_root()) {
        return;
    }
    support::own_network(&[]);
    let mut project = Project::new(&[(
        "docker-compose.example.yaml",
        include_str!("../../docker-compose.example.yaml"),
    )]);
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(&examples)
        .arg(project.path())
        .status()
        .expect("cp runs");
    assert!(copied.success());
    for name in ["HOME", "CARGO_HOME", "RUSTUP_HOME"] {
        if let Ok(value) = std::env::var(name) {
            project.set(name, &value);
        }
    }
    project.set("COMPOSE_FILE", "docker-compose.example.yaml");
    project.set("GREETING", "good day");

    project.succeed(&["up", "-d", "--build"]);
    let replicas: BTreeSet<String> = ["127.0.0.1:8080", "127.0.0.1:8081"]
        .into_iter()
        .map(|address| http::get_when_up(address, "/"))
        .map(|body| body.split(':').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(replicas.len(), 2, "each port leads to another replica: {replicas:?}");
    assert!(
        replicas.iter().all(|replica| replica.starts_with("good day from ")),
        "{replicas:?}"
    );

    project.succeed(&["down"]);
    project.succeed(&["up", "-d"]);
    let body = http::get_when_up("127.0.0.1:8081", "/");
    assert!(body.ends_with(": visit 3\n"), "the count survives down and up: {body}");
    project.succeed(&["down", "-v", "--rmi", "all"]);
}
