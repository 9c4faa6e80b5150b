//! Every attribute of a service does its work: looked at from inside the container, or in the kernel, never in our own
//! records. Each project holds many services, so that one engine serves many tests.

mod identity;
mod limits;
mod lives;
mod mounts;
mod namespaces;
mod networks;
mod provided;
mod resources;
mod same;
pub mod shown;
mod traffic;
mod words;

use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::{self, text};

/// A project on one engine: ours, or the Docker that `COMPOSE_TEST_DOCKER` is the address of. It goes down with the
/// value.
struct Stage {
    project: support::Project,
    name: String,
    engine: String,
    image: &'static str,
}

impl Stage {
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.project.compose(arguments);
        command
            .env("COMPOSE_ENGINE", &self.engine)
            .env("COMPOSE_PROJECT_NAME", &self.name)
            .env("COMPOSE_PROGRESS", "plain")
            .env("COMPOSE_ENGINE_IDLE", "2")
            .env("IMAGE", self.image);
        command.output().expect("the binary runs")
    }

    /// Runs a command that must succeed, and returns what it printed.
    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?} on {}: {}\n{}\n{}",
            self.engine,
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Runs a command that must fail, and returns what it said about that.
    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} on {} succeeds", self.engine);
        text(&output.stderr)
    }

    /// Runs a script of the shell in a service's container, and returns what it printed to either stream.
    #[track_caller]
    fn inside(&self, service: &str, script: &str) -> String {
        let script = format!("exec 2>&1; {script}");
        let output = self.run(&["exec", "-T", service, "sh", "-c", &script]);
        let code = output.status.code();
        // 125 and above: the shell itself did not run.
        assert!(
            code.is_some_and(|code| code < 125),
            "{service} on {}: {}",
            self.engine,
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Asserts what a script prints in a service's container; blanks at line ends do not count.
    #[track_caller]
    fn prints(&self, service: &str, script: &str, expected: &str) {
        let found: Vec<String> = self
            .inside(service, script)
            .trim()
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        let expected: Vec<&str> = expected.trim().lines().map(str::trim).collect();
        assert_eq!(found, expected, "{service} on {}: {script}", self.engine);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let output = self.run(&["down", "-v", "-t", "0", "--remove-orphans"]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("down on {}: {}", self.engine, text(&output.stderr));
        }
    }
}

/// What every service of these projects has; the first line of each file.
const BASE: &str = "x-base: &base {image: '${IMAGE}', init: true, command: sleep 600, stop_grace_period: 0s}\n";

/// Plays a test on every engine that is there, with the project up.
fn on_every_engine(file: &str, others: &[(&str, &str)], test: impl Fn(&Stage)) {
    let mut engines = Vec::new();
    if support::available("root, for the embedded engine", support::is_root()) {
        engines.push(("embedded".to_owned(), "rootfs:/"));
    }
    if let Ok(address) = std::env::var("COMPOSE_TEST_DOCKER") {
        engines.push((address, "busybox"));
    }
    for (engine, image) in engines {
        let stage = stage(file, others, engine, image);
        stage.succeeds(&["up", "-d"]);
        test(&stage);
    }
}

/// Plays a test on the embedded engine alone, for what Docker does not do; the project is not up.
fn on_ours(file: &str, others: &[(&str, &str)], test: impl Fn(&Stage)) {
    if support::available("root, for the embedded engine", support::is_root()) {
        test(&stage(file, others, "embedded".to_owned(), "rootfs:/"));
    }
}

fn stage(file: &str, others: &[(&str, &str)], engine: String, image: &'static str) -> Stage {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let project = support::Project::new(&[("compose.yaml", &format!("{BASE}{file}"))]);
    for (path, text) in others {
        project.write(path, text);
    }
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Stage {
        project,
        name: format!("at{}x{number}", std::process::id()),
        engine,
        image,
    }
}
