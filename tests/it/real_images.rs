//! Images of real programs, each built of Debian packages by a Dockerfile in `tests/images/stack`, at work together.

use std::path::Path;
use std::process::Command;

use crate::support::{self, Project, cache_directory, http};

#[test]
fn programs_from_packages_are_built_started_when_healthy_and_do_what_they_are_for() {
    let packages = cache_directory().join("debian-packages.tar");
    let has_packages = support::available("debian-packages.tar (run tests/setup.sh)", packages.is_file());
    if !support::available("root", support::is_root()) || !has_packages {
        return;
    }
    let mut project = Project::new(&[]);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/stack");
    let from = format!("{}/.", source.display());
    let copied = Command::new("cp").args(["-a", &from]).arg(project.path()).status();
    assert!(copied.expect("cp runs").success());
    std::fs::copy(packages, project.path().join("base/packages.tar")).expect("a copy of the packages");
    let port = support::free_port();
    project.set("PORT", &port.to_string());
    project.succeed(&["build"]);
    project.succeed(&["up", "-d", "--wait", "--no-build"]);

    let address = format!("127.0.0.1:{port}");
    assert_eq!(http::get_when_up(&address, "/"), "served by nginx\n");
    assert_eq!(http::get_when_up(&address, "/app/"), "visit 1, remembered: nothing\n");
    assert_eq!(http::get_when_up(&address, "/app/"), "visit 2, remembered: 1\n");
    let visits = project.succeed(&["exec", "-T", "redis", "redis-cli", "get", "visits"]);
    assert_eq!(visits, "2\n");
    for (service, user) in [("redis", "redis"), ("memcached", "memcache"), ("app", "nobody")] {
        let said = project.succeed(&["exec", "-T", service, "id", "-un"]);
        assert_eq!(said.trim(), user, "{service}");
    }
    // What Redis has written outlives its container, what memcached knew does not.
    project.succeed(&["down", "-t", "10"]);
    project.succeed(&["up", "-d", "--wait", "--no-build"]);
    assert_eq!(http::get_when_up(&address, "/app/"), "visit 3, remembered: nothing\n");
    project.succeed(&["down", "-v", "-t", "10"]);
    let said = project.run(&["build"]);
    let said = support::text(&said.stderr) + &support::text(&said.stdout);
    let steps = said.lines().filter(|line| line.contains("] RUN "));
    let cached = said.lines().filter(|line| line.ends_with(" CACHED"));
    assert!(
        steps.count() >= 9 && cached.count() >= 9,
        "nothing is done again: {said}"
    );
}
