//! Projects come up, change and go down: on the embedded engine where this process may make containers, and on
//! Docker and Podman where `COMPOSE_TEST_DOCKER` and `COMPOSE_TEST_PODMAN` are the addresses of such. With
//! `COMPOSE_TEST_FOREIGN` set, on those alone.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::support::{self, text};

/// A project on one engine; it goes down with the value.
struct Stage {
    project: support::Project,
    name: String,
    /// `embedded`, or an address.
    engine: String,
    image: &'static str,
}

impl Stage {
    fn compose(&self, arguments: &[&str]) -> Command {
        let mut command = self.project.compose(arguments);
        command
            .env("COMPOSE_ENGINE", &self.engine)
            .env("COMPOSE_PROJECT_NAME", &self.name)
            .env("COMPOSE_PROGRESS", "plain")
            .env("COMPOSE_ENGINE_IDLE", "2")
            .env("IMAGE", self.image);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.compose(arguments).output().expect("the binary runs")
    }

    /// Runs a command that must succeed, and returns what it wrote to both streams.
    fn succeeds(&self, arguments: &[&str]) -> (String, String) {
        let output = self.run(arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "{arguments:?} on {}: {}\n{out}\n{err}",
            self.engine,
            output.status
        );
        (out, err)
    }

    /// Runs a command that must fail with `code`, and returns what it wrote to standard error.
    fn fails(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        let err = text(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?} on {}:\n{}\n{err}",
            self.engine,
            text(&output.stdout)
        );
        err
    }

    /// Returns `name state exit-code` of every container, one-off ones too.
    fn containers(&self) -> Vec<String> {
        let (out, _) = self.succeeds(&["ps", "-a", "--format", "{{.Name}} {{.State}} {{.ExitCode}}"]);
        out.lines()
            .map(|line| line.replace(&format!("{}-", self.name), ""))
            .collect()
    }

    fn wait_for(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(15);
        while !is_so(self) {
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what} on {}",
                self.engine
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let output = self.run(&["down", "-v", "-t", "0", "--remove-orphans"]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("down on {}: {}", self.engine, text(&output.stderr));
        }
        // By name alone too: whatever a test did to the file.
        self.run(&["-p", &self.name, "down", "-v", "-t", "0", "--remove-orphans"]);
    }
}

/// Plays a test on every engine that is there.
fn on_every_engine(file: &str, test: impl Fn(&Stage)) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let mut engines = Vec::new();
    if std::env::var_os("COMPOSE_TEST_FOREIGN").is_none()
        && support::available("root, for the embedded engine", support::is_root())
    {
        engines.push(("embedded".to_owned(), "rootfs:/"));
    }
    for variable in ["COMPOSE_TEST_DOCKER", "COMPOSE_TEST_PODMAN"] {
        engines.extend(std::env::var(variable).map(|address| (address, "busybox")));
    }
    for (engine, image) in engines {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let stage = Stage {
            project: support::Project::new(&[("compose.yaml", file)]),
            name: format!("lt{}x{number}", std::process::id()),
            engine,
            image,
        };
        test(&stage);
    }
}

const SLEEPER: &str = "\
services:
  web:
    image: ${IMAGE}
    init: true
    command: sleep 300
    environment: {V: \"${V:-1}\"}
    stop_grace_period: 0s
";

#[test]
fn a_second_up_changes_nothing_and_a_change_replaces_the_container() {
    on_every_engine(SLEEPER, |stage| {
        let (_, first) = stage.succeeds(&["up", "-d"]);
        assert!(first.contains("-web-1  Started"), "{first}");
        let id = stage.succeeds(&["ps", "-q"]).0;
        let (_, second) = stage.succeeds(&["up", "-d"]);
        assert_eq!(second, format!(" Container {}-web-1  Running\n", stage.name));
        assert_eq!(stage.succeeds(&["ps", "-q"]).0, id);
        let changed = stage
            .compose(&["up", "-d"])
            .env("V", "2")
            .output()
            .expect("the binary runs");
        assert!(text(&changed.stderr).contains("Recreated"), "{}", text(&changed.stderr));
        assert_ne!(stage.succeeds(&["ps", "-q"]).0, id);
        assert_eq!(stage.containers(), ["web-1 running 0"]);
        stage.succeeds(&["up", "-d", "--force-recreate"]);
        assert_eq!(stage.containers(), ["web-1 running 0"]);
    });
}

#[test]
fn a_dependent_starts_as_soon_as_its_dependency_is_healthy() {
    let file = "\
services:
  db:
    image: ${IMAGE}
    init: true
    command: sh -c 'sleep 0.3; touch /tmp/ready; sleep 300'
    healthcheck: {test: test -f /tmp/ready, interval: 200ms, retries: 50}
    stop_grace_period: 0s
  web:
    image: ${IMAGE}
    init: true
    command: sleep 300
    depends_on: {db: {condition: service_healthy}}
    stop_grace_period: 0s
";
    on_every_engine(file, |stage| {
        let (_, err) = stage.succeeds(&["up", "-d"]);
        let at = |text: &str| err.find(text).unwrap_or_else(|| panic!("{text} in {err}"));
        assert!(at("db-1  Healthy") < at("web-1  Starting"), "{err}");
        assert!(at("db-1  Started") < at("db-1  Waiting"), "{err}");
    });
}

#[test]
fn an_unhealthy_dependency_is_named_and_its_dependent_stays_created() {
    let file = "\
services:
  db:
    image: ${IMAGE}
    init: true
    command: sleep 300
    healthcheck: {test: 'false', interval: 100ms, retries: 2}
    stop_grace_period: 0s
  web:
    image: ${IMAGE}
    init: true
    command: sleep 300
    depends_on: {db: {condition: service_healthy}}
    stop_grace_period: 0s
";
    on_every_engine(file, |stage| {
        let err = stage.fails(&["up", "-d"], 1);
        let expected = format!("dependency failed to start: container {}-db-1 is unhealthy", stage.name);
        assert!(err.contains(&expected), "{err}");
        assert_eq!(stage.containers(), ["db-1 running 0", "web-1 created 0"]);
    });
}

#[test]
fn jobs_complete_before_what_waits_for_them() {
    let file = "\
services:
  job:
    image: ${IMAGE}
    command: sh -c 'exit ${STATUS:-0}'
  web:
    image: ${IMAGE}
    init: true
    command: sleep 300
    depends_on: {job: {condition: service_completed_successfully}}
    stop_grace_period: 0s
";
    on_every_engine(file, |stage| {
        stage.succeeds(&["up", "-d"]);
        assert_eq!(stage.containers(), ["job-1 exited 0", "web-1 running 0"]);
        stage.succeeds(&["down", "-t", "0"]);
        let failed = stage
            .compose(&["up", "-d"])
            .env("STATUS", "3")
            .output()
            .expect("the binary runs");
        assert_eq!(failed.status.code(), Some(1));
        let err = text(&failed.stderr);
        assert!(
            err.contains("service \"job\" didn't complete successfully: exit 3"),
            "{err}"
        );
    });
}

#[test]
fn replicas_come_and_go() {
    on_every_engine(SLEEPER, |stage| {
        stage.succeeds(&["up", "-d", "--scale", "web=3"]);
        assert_eq!(stage.containers().len(), 3);
        stage.succeeds(&["scale", "web=1"]);
        assert_eq!(stage.containers(), ["web-1 running 0"]);
        stage.succeeds(&["scale", "web=2"]);
        assert_eq!(stage.containers(), ["web-1 running 0", "web-2 running 0"]);
    });
}

#[test]
fn attached_output_is_prefixed_and_ends_are_told() {
    let file = "\
services:
  a: {image: '${IMAGE}', command: sh -c 'echo from a; exit 3'}
  bb: {image: '${IMAGE}', command: sh -c 'echo from bb'}
";
    on_every_engine(file, |stage| {
        let (out, _) = stage.succeeds(&["up"]);
        let mut lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.remove(0), "Attaching to a-1, bb-1");
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "a-1   | from a",
                "a-1 exited with code 3",
                "bb-1  | from bb",
                "bb-1 exited with code 0"
            ]
        );
        stage.fails(&["up", "--abort-on-container-failure"], 3);
    });
}

#[test]
fn an_exit_can_end_everything_and_choose_the_status() {
    let file = "\
services:
  quick: {image: '${IMAGE}', command: sh -c 'sleep 0.3; exit 4'}
  slow: {image: '${IMAGE}', init: true, command: sleep 300}
";
    on_every_engine(file, |stage| {
        let err = stage.fails(&["up", "--abort-on-container-exit", "-t", "5"], 4);
        assert!(err.contains("Aborting on container exit..."), "{err}");
        assert_eq!(stage.containers(), ["quick-1 exited 4", "slow-1 exited 143"]);
        stage.fails(&["up", "--exit-code-from", "slow", "-t", "5"], 143);
    });
}

#[test]
fn an_interrupt_stops_what_is_attached() {
    let file = "\
services:
  web:
    image: ${IMAGE}
    init: true
    command: sh -c 'echo ready; sleep 300'
    stop_grace_period: 1s
";
    on_every_engine(file, |stage| {
        let child = stage
            .compose(&["up"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        stage.wait_for("the container", |stage| stage.containers() == ["web-1 running 0"]);
        std::thread::sleep(Duration::from_millis(200));
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
        rustix::process::kill_process(pid.expect("a process id"), rustix::process::Signal::INT).expect("a signal");
        let output = child.wait_with_output().expect("an end");
        assert_eq!(output.status.code(), Some(130));
        let out = text(&output.stdout);
        assert!(out.contains("web-1  | ready\n"), "{out}");
        assert!(
            out.contains("Gracefully Stopping... press Ctrl+C again to force"),
            "{out}"
        );
        assert_eq!(stage.containers(), ["web-1 exited 143"]);
    });
}

#[test]
fn one_off_commands_get_input_and_pass_their_status_on() {
    on_every_engine(SLEEPER, |stage| {
        let mut child = stage
            .compose(&["run", "--rm", "-T", "web", "sh", "-c", "cat; echo err >&2; exit 7"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        child
            .stdin
            .take()
            .expect("a pipe")
            .write_all(b"through\n")
            .expect("input");
        let output = child.wait_with_output().expect("an end");
        assert_eq!(text(&output.stdout), "through\n");
        assert!(text(&output.stderr).ends_with("err\n"), "{}", text(&output.stderr));
        assert_eq!(output.status.code(), Some(7));
        assert_eq!(stage.containers(), [""; 0]);
        let (id, _) = stage.succeeds(&[
            "run",
            "-d",
            "-e",
            "X=y",
            "--name",
            &format!("{}-one", stage.name),
            "web",
        ]);
        assert_eq!(id.trim_end().len(), 64);
        assert_eq!(stage.containers(), ["one running 0"]);
        // Beside the service's own container, which is found by its names.
        stage.succeeds(&["up", "-d"]);
        let service = format!("{}-web-1", stage.name);
        let script = format!("for name in web {service}; do getent hosts $name || nslookup $name || exit; done");
        stage.succeeds(&["run", "--rm", "-T", "web", "sh", "-c", &script]);
    });
}

#[test]
fn a_project_can_be_steered_by_name_alone() {
    on_every_engine(SLEEPER, |stage| {
        stage.succeeds(&["up", "-d"]);
        let by_name = |arguments: &[&str]| {
            let mut all = vec!["-p", stage.name.as_str()];
            all.extend(arguments);
            let output = stage.compose(&all).current_dir("/").output().expect("the binary runs");
            assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
            text(&output.stderr)
        };
        by_name(&["stop", "-t", "0"]);
        assert!(stage.containers()[0].starts_with("web-1 exited"));
        by_name(&["start"]);
        assert_eq!(stage.containers(), ["web-1 running 0"]);
        by_name(&["pause"]);
        assert_eq!(stage.containers(), ["web-1 paused 0"]);
        by_name(&["unpause"]);
        by_name(&["restart", "-t", "0", "web"]);
        assert_eq!(stage.containers(), ["web-1 running 0"]);
        by_name(&["kill"]);
        stage.wait_for("the end", |stage| stage.containers() == ["web-1 exited 137"]);
        by_name(&["rm", "-f"]);
        assert_eq!(stage.containers(), [""; 0]);
        let removed = by_name(&["down"]);
        assert!(
            removed.contains(&format!("Network {}_default  Removed", stage.name)),
            "{removed}"
        );
        let nothing = by_name(&["down"]);
        let warning = format!(
            "level=warning msg=\"Warning: No resource found to remove for project \\\"{}\\\".\"",
            stage.name
        );
        assert!(nothing.contains(&warning), "{nothing}");
    });
}

#[test]
fn orphans_are_warned_of_and_removed_on_wish() {
    let file = "\
services:
  keep: {image: '${IMAGE}', init: true, command: sleep 300, stop_grace_period: 0s}
  gone: {image: '${IMAGE}', init: true, command: sh -c 'echo here; exec sleep 300', stop_grace_period: 0s}
";
    on_every_engine(file, |stage| {
        stage.succeeds(&["up", "-d", "--wait"]);
        assert!(stage.succeeds(&["logs"]).0.contains("here"));
        stage.project.write(
            "compose.yaml",
            "services:\n  keep: {image: '${IMAGE}', init: true, command: sleep 300, stop_grace_period: 0s}\n",
        );
        let (_, err) = stage.succeeds(&["up", "-d"]);
        let expected = format!("Found orphan containers ([{}-gone-1]) for this project.", stage.name);
        assert!(err.contains(&expected), "{err}");
        assert_eq!(stage.succeeds(&["logs"]).0, "", "only what the file has is shown");
        stage.succeeds(&["up", "-d", "--remove-orphans"]);
        assert_eq!(stage.containers(), ["keep-1 running 0"]);
    });
}

#[test]
fn anonymous_volumes_are_carried_over_unless_they_are_renewed() {
    let file = "\
services:
  web:
    image: ${IMAGE}
    init: true
    command: sleep 300
    volumes: [/data]
    environment: {V: \"${V:-1}\"}
    stop_grace_period: 0s
";
    on_every_engine(file, |stage| {
        stage.succeeds(&["up", "-d"]);
        stage.succeeds(&["exec", "-T", "web", "touch", "/data/mark"]);
        let up = |value: &str, arguments: &[&str]| {
            let output = stage
                .compose(arguments)
                .env("V", value)
                .output()
                .expect("the binary runs");
            assert!(output.status.success(), "{}", text(&output.stderr));
        };
        up("2", &["up", "-d"]);
        stage.succeeds(&["exec", "-T", "web", "test", "-e", "/data/mark"]);
        up("2", &["up", "-d", "-V"]);
        stage.fails(&["exec", "-T", "web", "test", "-e", "/data/mark"], 1);
    });
}

#[test]
fn secrets_and_configs_are_there_before_the_command_runs() {
    let file = "\
services:
  web:
    image: ${IMAGE}
    command: sh -c 'cat /run/secrets/file /run/secrets/variable /etc/conf; stat -c %a /etc/conf'
    secrets: [file, variable]
    configs: [{source: text, target: /etc/conf, mode: 0440}]
secrets:
  file: {file: ./secret.txt}
  variable: {environment: SECRET}
configs:
  text: {content: \"text ${V:-1}\\n\"}
";
    on_every_engine(file, |stage| {
        stage.project.write("secret.txt", "from a file\n");
        let output = stage
            .compose(&["up", "--no-log-prefix"])
            .env("SECRET", "from a variable\n")
            .output()
            .expect("the binary runs");
        let out = text(&output.stdout);
        assert!(
            out.contains("from a file\nfrom a variable\ntext 1\n440\n"),
            "{out}\n{}",
            text(&output.stderr)
        );
    });
}

#[test]
fn hooks_run_when_a_container_has_started_and_before_it_stops() {
    let file = "\
services:
  web:
    image: ${IMAGE}
    init: true
    command: sleep 300
    volumes: ['./out:/out']
    post_start: [{command: [sh, -c, 'echo post >> /out/log']}]
    pre_stop: [{command: [sh, -c, 'echo pre >> /out/log']}]
    stop_grace_period: 0s
  bad:
    image: ${IMAGE}
    init: true
    command: sleep 300
    post_start: [{command: [sh, -c, 'exit 7']}]
    stop_grace_period: 0s
";
    on_every_engine(file, |stage| {
        stage.project.write("out/.keep", "");
        let log = || std::fs::read_to_string(stage.project.path().join("out/log")).unwrap_or_default();
        stage.succeeds(&["up", "-d", "web"]);
        assert_eq!(log(), "post\n");
        stage.succeeds(&["stop", "web"]);
        assert_eq!(log(), "post\npre\n");
        let err = stage.fails(&["up", "-d", "bad"], 1);
        assert!(err.contains("bad hook exited with status 7"), "{err}");
    });
}

#[test]
fn volumes_outlive_down_and_go_when_asked() {
    let file = "\
services:
  web:
    image: ${IMAGE}
    init: true
    command: sleep 300
    volumes: ['data:/data']
    stop_grace_period: 0s
volumes: {data: {}}
";
    on_every_engine(file, |stage| {
        stage.succeeds(&["up", "-d"]);
        stage.succeeds(&["exec", "-T", "web", "touch", "/data/mark"]);
        // As long as a one-off container is on it, a network stays; so does what it can reach.
        stage.succeeds(&["run", "-d", "--name", &format!("{}-other", stage.name), "web"]);
        let (_, err) = stage.succeeds(&["down", "web"]);
        assert!(
            err.contains(&format!("Network {}_default  Resource is still in use", stage.name)),
            "{err}"
        );
        stage.succeeds(&["down", "--remove-orphans"]);
        stage.succeeds(&["up", "-d"]);
        stage.succeeds(&["exec", "-T", "web", "test", "-e", "/data/mark"]);
        let (_, err) = stage.succeeds(&["down", "-v"]);
        assert!(err.contains(&format!("Volume {}_data  Removed", stage.name)), "{err}");
        stage.succeeds(&["up", "-d"]);
        stage.fails(&["exec", "-T", "web", "test", "-e", "/data/mark"], 1);
    });
}

#[test]
fn waiting_ends_when_all_run_and_fails_when_one_ends() {
    on_every_engine(SLEEPER, |stage| {
        let (_, err) = stage.succeeds(&["up", "--wait"]);
        assert!(err.contains("web-1  Healthy"), "{err}");
        stage.project.write(
            "compose.yaml",
            "services:\n  web: {image: '${IMAGE}', command: sh -c 'exit 3'}\n",
        );
        let err = stage.fails(&["up", "--wait"], 1);
        assert!(
            err.contains(&format!("container {}-web-1 exited (3)", stage.name)),
            "{err}"
        );
    });
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    on_every_engine(SLEEPER, |stage| {
        let (_, err) = stage.succeeds(&["--dry-run", "up", "-d"]);
        assert!(
            err.contains(&format!("DRY-RUN MODE -  Container {}-web-1  Created", stage.name)),
            "{err}"
        );
        assert_eq!(stage.containers(), [""; 0]);
    });
}
