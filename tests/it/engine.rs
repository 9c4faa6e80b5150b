//! The embedded engine behind its socket, driven by the docker CLI as its users drive it.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{available, binary, is_root, text};

/// An engine of its own, ended with the value.
struct Engine {
    state: tempfile::TempDir,
    process: Child,
}

impl Engine {
    /// Starts an engine with an image of busybox in it; `None` where a right or a program is missing.
    fn start() -> Option<Self> {
        let docker = Command::new("docker").arg("--version").output().is_ok();
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .iter()
            .find(|path| Path::new(path).exists());
        if !available("root", is_root())
            || !available("the docker CLI", docker)
            || !available("busybox", busybox.is_some())
        {
            return None;
        }
        let state = tempfile::Builder::new()
            .prefix("ce")
            .tempdir_in("/tmp")
            .expect("a directory in /tmp");
        let process = spawn(state.path());
        let engine = Self { state, process };
        engine.wait_until_it_answers();
        engine.import(busybox.copied()?);
        Some(engine)
    }

    fn wait_until_it_answers(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(self.state.path().join("engine.sock")).is_err() {
            assert!(Instant::now() < deadline, "the engine does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Makes an image `box` whose only program is busybox.
    fn import(&self, busybox: &str) {
        let tar = self.state.path().join("box.tar");
        let mut builder = tar::Builder::new(std::fs::File::create(&tar).expect("a file"));
        let program = std::fs::read(busybox).expect("busybox");
        let mut header = root_header();
        header.set_size(program.len() as u64);
        builder
            .append_data(&mut header, "bin/busybox", &program[..])
            .expect("an entry");
        for name in [
            "sh", "echo", "sleep", "cat", "ls", "true", "false", "id", "hostname", "mkdir",
        ] {
            let mut header = root_header();
            header.set_entry_type(tar::EntryType::Symlink);
            builder
                .append_link(&mut header, format!("bin/{name}"), "busybox")
                .expect("a link");
        }
        builder.finish().expect("a tar");
        drop(builder);
        let out = self.docker(&["import", &tar.display().to_string(), "box"]);
        assert!(out.status.success(), "{}", text(&out.stderr));
    }

    /// Runs the docker CLI against the engine; it may not hang.
    fn docker(&self, arguments: &[&str]) -> Output {
        Command::new("timeout")
            .args(["-s", "KILL", "60", "docker"])
            .args(arguments)
            .env(
                "DOCKER_HOST",
                format!("unix://{}/engine.sock", self.state.path().display()),
            )
            .stdin(Stdio::null())
            .output()
            .expect("the docker CLI runs")
    }

    /// Runs the docker CLI and returns what it printed.
    fn ok(&self, arguments: &[&str]) -> String {
        let out = self.docker(arguments);
        assert!(out.status.success(), "{arguments:?}: {}", text(&out.stderr));
        text(&out.stdout).trim().to_owned()
    }

    /// Kills the engine as a crash would, and starts another one unless a shim did.
    fn crash(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.process = spawn(self.state.path());
        self.wait_until_it_answers();
    }

    /// Waits until a command prints what is expected.
    fn eventually(&self, arguments: &[&str], expected: &str) {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let found = text(&self.docker(arguments).stdout).trim().to_owned();
            if found == expected {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{arguments:?}: {found:?} is not {expected:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Returns the header of a file of root's that everyone may run.
fn root_header() -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

fn spawn(state: &Path) -> Child {
    Command::new(binary())
        .args(["__engine", "--state-dir"])
        .arg(state)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the engine starts")
}

impl Drop for Engine {
    fn drop(&mut self) {
        let all = text(&self.docker(&["ps", "-aq"]).stdout);
        for id in all.split_whitespace() {
            self.docker(&["rm", "-f", "-v", id]);
        }
        let networks = text(&self.docker(&["network", "ls", "-q"]).stdout);
        for id in networks.split_whitespace() {
            self.docker(&["network", "rm", id]);
        }
        // The process that answers may be one that a shim started.
        let holder = std::fs::read_to_string(self.state.path().join("engine.lock")).ok();
        if let Some(pid) = holder
            .and_then(|pid| pid.trim().parse().ok())
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.process.wait();
    }
}

/// Overlayfs tidies up when it mounts layers, and took files away that were just being made through another mount.
#[test]
fn copies_into_a_container_that_does_not_run_do_not_disturb_each_other() {
    let Some(engine) = Engine::start() else { return };
    let source = engine.state.path().join("source");
    std::fs::create_dir(&source).unwrap();
    for number in 0..50 {
        std::fs::write(source.join(number.to_string()), "").unwrap();
    }
    for _ in 0..12 {
        engine.ok(&["create", "--name", "still", "box", "true"]);
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (engine, source) = (&engine, &source);
                scope.spawn(move || {
                    let target = format!("still:/bin/{thread}");
                    engine.ok(&["cp", &source.display().to_string(), &target]);
                    engine.ok(&["cp", "still:/bin/echo", "-"]);
                });
            }
        });
        for thread in 0..3 {
            let listed = engine.docker(&["cp", &format!("still:/bin/{thread}"), "-"]).stdout;
            let entries = tar::Archive::new(&listed[..]).entries().unwrap().count();
            assert_eq!(entries, 51);
        }
        engine.ok(&["rm", "still"]);
    }
}

#[test]
fn a_container_s_output_and_exit_code_come_back() {
    let Some(engine) = Engine::start() else { return };
    let out = engine.docker(&["run", "--rm", "box", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(
        (text(&out.stdout).as_str(), text(&out.stderr).as_str()),
        ("out\n", "err\n")
    );
    assert_eq!(out.status.code(), Some(7));
    assert_eq!(engine.ok(&["ps", "-aq"]), "", "--rm removes it");
}

#[test]
fn a_command_that_is_not_there_is_said_in_docker_s_words() {
    let Some(engine) = Engine::start() else { return };
    let out = engine.docker(&["run", "--rm", "box", "nope"]);
    assert_eq!(out.status.code(), Some(127));
    assert!(
        text(&out.stderr).contains("executable file not found in $PATH"),
        "{}",
        text(&out.stderr)
    );
    let out = engine.docker(&["inspect", "nothing"]);
    assert!(
        text(&out.stderr).contains("No such object: nothing"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn a_stopped_container_keeps_its_files_and_log() {
    let Some(engine) = Engine::start() else { return };
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "box",
        "sh",
        "-c",
        "echo first; echo kept > /file; exec sleep 100",
    ]);
    engine.eventually(&["logs", "one"], "first");
    assert_eq!(engine.ok(&["exec", "one", "cat", "/file"]), "kept");
    engine.ok(&["stop", "-t", "0", "one"]);
    assert_eq!(
        engine.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "one"]),
        "exited 137"
    );
    assert!(engine.ok(&["cp", "one:/file", "-"]).contains("kept"));
    engine.ok(&["start", "one"]);
    engine.eventually(&["logs", "one"], "first\nfirst");
}

#[test]
fn a_volume_outlives_its_containers_and_is_refused_removal_while_used() {
    let Some(engine) = Engine::start() else { return };
    engine.ok(&[
        "run",
        "--rm",
        "-v",
        "data:/data",
        "box",
        "sh",
        "-c",
        "echo row > /data/rows",
    ]);
    assert_eq!(
        engine.ok(&[
            "run",
            "--name",
            "reader",
            "-v",
            "data:/data:ro",
            "box",
            "cat",
            "/data/rows"
        ]),
        "row"
    );
    let out = engine.docker(&["volume", "rm", "data"]);
    assert!(text(&out.stderr).contains("volume is in use"), "{}", text(&out.stderr));
    engine.ok(&["rm", "reader"]);
    engine.ok(&["volume", "rm", "data"]);
}

#[test]
fn a_failing_container_is_restarted_and_a_stopped_one_is_not() {
    let Some(engine) = Engine::start() else { return };
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "again",
        "--restart",
        "on-failure:2",
        "box",
        "false",
    ]);
    engine.eventually(
        &["inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "again"],
        "2 exited",
    );
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "always",
        "--restart",
        "always",
        "box",
        "sleep",
        "100",
    ]);
    engine.ok(&["stop", "-t", "0", "always"]);
    assert_eq!(engine.ok(&["inspect", "-f", "{{.State.Status}}", "always"]), "exited");
}

#[test]
fn health_is_known_long_before_the_interval() {
    let Some(engine) = Engine::start() else { return };
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "well",
        "--health-cmd",
        "true",
        "--health-interval",
        "60s",
        "box",
        "sleep",
        "100",
    ]);
    engine.eventually(&["inspect", "-f", "{{.State.Health.Status}}", "well"], "healthy");
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "ill",
        "--health-cmd",
        "false",
        "--health-interval",
        "100ms",
        "--health-retries",
        "2",
        "box",
        "sleep",
        "100",
    ]);
    engine.eventually(&["inspect", "-f", "{{.State.Health.Status}}", "ill"], "unhealthy");
}

#[test]
fn a_killed_engine_s_containers_go_on_and_the_next_engine_looks_after_them() {
    let Some(mut engine) = Engine::start() else { return };
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "survivor",
        "--restart",
        "always",
        "box",
        "sleep",
        "1000",
    ]);
    let before = engine.ok(&["inspect", "-f", "{{.State.Pid}}", "survivor"]);
    engine.crash();
    assert_eq!(
        engine.ok(&["inspect", "-f", "{{.State.Status}} {{.State.Pid}}", "survivor"]),
        format!("running {before}")
    );
    assert_eq!(engine.ok(&["exec", "survivor", "echo", "hi"]), "hi");
    // Its policy holds under the new engine: an end that no user asked for is followed by a start.
    engine.ok(&["exec", "survivor", "sh", "-c", "kill -9 1; kill 1; true"]);
    let pid = before
        .parse()
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it can be killed");
    engine.eventually(
        &["inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "survivor"],
        "1 running",
    );
}

#[test]
fn events_come_in_docker_s_order() {
    let Some(engine) = Engine::start() else { return };
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "short",
        "-v",
        "fresh:/data",
        "box",
        "sleep",
        "100",
    ]);
    engine.ok(&["rm", "-f", "short"]);
    // The CLI asks for events up to the last whole second.
    std::thread::sleep(Duration::from_millis(1100));
    let events = engine.ok(&[
        "events",
        "--since",
        "60s",
        "--until",
        "0s",
        "--format",
        "{{.Type}} {{.Action}}",
    ]);
    let events: Vec<&str> = events.lines().filter(|line| !line.starts_with("image")).collect();
    assert_eq!(
        events,
        [
            "volume create",
            "container create",
            "volume mount",
            "network connect",
            "container start",
            "container kill",
            "network disconnect",
            "volume unmount",
            "container die",
            "container destroy",
        ]
    );
    engine.ok(&["volume", "rm", "fresh"]);
}
