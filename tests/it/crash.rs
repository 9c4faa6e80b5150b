//! What survives when a process of ours is killed.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{self, Project, text};

const COUNTER: &str = r#"
services:
  counter:
    image: busybox:latest
    command: ["sh", "-c", "i=0; while true; do i=$$((i+1)); echo line $$i; sleep 0.02; done"]
    healthcheck: {test: ["CMD", "true"], interval: 1s}
    restart: always
"#;

fn project() -> Option<Project> {
    if !support::available("root", support::is_root()) {
        return None;
    }
    let project = Project::new(&[("compose.yaml", COUNTER)]);
    support::busybox(&project);
    Some(project)
}

/// Returns the numbers that the counter has logged.
fn numbers(project: &Project) -> Vec<u64> {
    let log = project.succeed(&["logs", "--no-log-prefix", "counter"]);
    log.lines()
        .filter_map(|line| line.strip_prefix("line ")?.parse().ok())
        .collect()
}

fn inspect(project: &Project, field: &str) -> String {
    let id = project.succeed(&["ps", "-a", "-q", "counter"]);
    project.docker(&["inspect", "-f", field, id.trim()]).trim().to_owned()
}

#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn containers_and_their_logs_survive_the_engine() {
    let Some(project) = project() else { return };
    project.succeed(&["up", "-d", "--wait"]);
    let pid = inspect(&project, "{{.State.Pid}}");
    let engine = project.engine_pid().expect("an engine runs");

    kill_process(engine, Signal::KILL).expect("the engine is ours");
    std::thread::sleep(Duration::from_millis(500));

    // The next command works, with the same container.
    assert_eq!(project.succeed(&["ps", "--format", "{{.State}}"]).trim(), "running");
    assert_eq!(inspect(&project, "{{.State.Pid}}"), pid);
    let seen = numbers(&project);
    assert!(seen.len() > 20, "it went on counting: {}", seen.len());
    assert!(
        seen.iter().copied().eq(1..=seen.len() as u64),
        "no line is lost or doubled"
    );
    // Health checks and restarts resume.
    let checked = inspect(&project, "{{(index .State.Health.Log 0).Start}}");
    eventually("health checks resume", || {
        inspect(&project, "{{(index .State.Health.Log 0).Start}}") != checked
    });
    let container: i32 = pid.parse().expect("a process id");
    kill_process(Pid::from_raw(container).expect("a process id"), Signal::KILL)
        .expect("the container's process is ours");
    eventually("the restart policy is still honoured", || {
        let now = inspect(&project, "{{.State.Pid}}");
        now != pid && now != "0"
    });
}

#[test]
fn a_dead_shim_is_reported_and_its_container_restarted() {
    let Some(project) = project() else { return };
    project.succeed(&["up", "-d"]);
    let pid = inspect(&project, "{{.State.Pid}}");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the container's process");
    let shim = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .expect("its parent")
        .trim();
    let shim: i32 = shim.parse().expect("a process id");
    kill_process(Pid::from_raw(shim).expect("a process id"), Signal::KILL).expect("the shim is ours");

    eventually("the container is started anew", || {
        let now = inspect(&project, "{{.State.Pid}}");
        now != pid && now != "0"
    });
    assert_eq!(inspect(&project, "{{.RestartCount}}"), "1");
    eventually("no process of the old container is left", || {
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
    });

    // Without a policy it is dead, and says why.
    let file = COUNTER.replace("restart: always", "restart: \"no\"");
    project.write("compose.yaml", &file);
    project.succeed(&["up", "-d", "-t", "0"]);
    let pid = inspect(&project, "{{.State.Pid}}");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the container's process");
    let shim = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .expect("its parent")
        .trim();
    kill_process(
        Pid::from_raw(shim.parse().expect("a number")).expect("a process id"),
        Signal::KILL,
    )
    .expect("ours");
    eventually("the container is reported as ended", || {
        inspect(&project, "{{.State.Running}}") == "false"
    });
    assert_eq!(inspect(&project, "{{.State.ExitCode}}"), "137");
    assert!(
        inspect(&project, "{{.State.Error}}").contains("supervising process was killed"),
        "{}",
        inspect(&project, "{{.State.Error}}")
    );
}

#[test]
fn a_mounted_socket_of_the_engine_outlives_it() {
    if !support::available("root", support::is_root()) {
        return;
    }
    let file = "services:\n  tool:\n    image: busybox:latest\n    command: [sleep, \"1000\"]\n    volumes: [\"/var/run/docker.sock:/var/run/docker.sock\"]\n";
    let project = Project::new(&[("compose.yaml", file)]);
    support::busybox(&project);
    project.succeed(&["up", "-d"]);
    let id = project.succeed(&["ps", "-q", "tool"]);
    let pid = project.docker(&["inspect", "-f", "{{.State.Pid}}", id.trim()]);
    let socket = format!("/proc/{}/root/var/run/docker.sock", pid.trim());
    let ask = || {
        let mut stream = UnixStream::connect(&socket).expect("somebody listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n").expect("it is written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    };
    assert!(ask().ends_with("OK"), "{:?}", ask());
    for _ in 0..2 {
        let engine = project.engine_pid().expect("an engine runs");
        kill_process(engine, Signal::KILL).expect("the engine is ours");
        eventually("another engine takes over", || project.engine_pid() != Some(engine));
        assert!(ask().ends_with("OK"), "{:?}", ask());
    }
}

#[test]
fn a_file_that_does_not_load_changes_nothing() {
    let project = Project::new(&[("compose.yaml", "services:\n  web:\n    imagee: nginx\n")]);
    let output = project.run(&["up", "-d"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("imagee"), "{}", text(&output.stderr));
    assert!(
        !project.state_dir().join("engine.sock").exists(),
        "no engine is started for it"
    );
}

#[test]
fn a_record_that_a_loss_of_power_took_is_no_lost_container() {
    if !support::available("root", support::is_root()) {
        return;
    }
    let file = "services:\n  counter:\n    image: busybox:latest\n    command: sleep 3600\n    volumes: [data:/data]\nvolumes:\n  data:\n";
    let project = Project::new(&[("compose.yaml", file)]);
    support::busybox(&project);
    project.succeed(&["up", "-d"]);
    let (id, pid) = (inspect(&project, "{{.Id}}"), inspect(&project, "{{.State.Pid}}"));
    let home = project.state_dir().join("containers").join(&id);
    eventually("the record reaches the disk", || {
        std::fs::read_to_string(home.join("record.settled")).is_ok_and(|text| text.contains("\"running\""))
    });
    // What some file systems leave of a file that was replaced, and not written out.
    std::fs::remove_file(home.join("record.json")).expect("the record");
    std::fs::write(home.join("record.json"), "").expect("the record");
    kill_process(project.engine_pid().expect("an engine runs"), Signal::KILL).expect("the engine is ours");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(inspect(&project, "{{.Id}}"), id);
    assert_eq!(inspect(&project, "{{.State.Pid}}"), pid);
    project.succeed(&["down", "-v"]);
    assert!(!home.exists());
}
