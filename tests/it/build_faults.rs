//! What a build leaves behind that was killed, and what its steps see of the machine.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{self, Project, available};

const DOCKERFILE: &str = "FROM busybox:latest AS base\n\
    ARG MOMENT\n\
    COPY many/ /many/\n\
    RUN i=0; while [ $i -lt 200 ]; do echo $MOMENT > /made$i; i=$((i+1)); done; sleep 0.2\n\
    FROM base AS other\n\
    RUN --mount=type=cache,target=/cache echo $MOMENT >> /cache/file; sleep 0.2; echo other > /other\n\
    FROM base\n\
    COPY --from=other /other /other\n\
    RUN sleep 0.1; cat /other /made199 > /last\n";

/// Returns the processes that have to do with a state directory, by their command lines and root directories.
fn processes(state: &Path) -> Vec<(i32, String)> {
    let state = state.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("procfs").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let mounts = std::fs::read_to_string(entry.path().join("mountinfo")).unwrap_or_default();
        // The first mount of a container is its root, which lies over the state directory.
        let root = mounts.lines().next().unwrap_or_default();
        if line.contains(&state) || root.contains(&state) {
            found.push((pid, line));
        }
    }
    found
}

fn kill_builds_at(moments: u32) {
    if !available("root", support::is_root()) {
        return;
    }
    let file = "services:\n  app:\n    build: {context: ., args: {MOMENT: \"${MOMENT}\"}}\n    image: built:1\n    network_mode: none\n";
    let mut project = Project::new(&[("compose.yaml", file), ("Dockerfile", DOCKERFILE)]);
    for number in 0..300 {
        project.write(&format!("many/{number}"), &number.to_string().repeat(100));
    }
    support::busybox(&project);
    project.set("MOMENT", "whole");
    let begun = Instant::now();
    project.succeed(&["build"]);
    let whole = begun.elapsed();
    for moment in 0..moments {
        project.set("MOMENT", &moment.to_string());
        let mut client = project
            .compose(&["build"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        std::thread::sleep(whole * moment / moments);
        // By turns the one who asked, and the one who builds.
        let victim = match moment % 2 {
            0 => Pid::from_child(&client),
            _ => project.engine_pid().expect("an engine runs"),
        };
        kill_process(victim, Signal::KILL).expect("it is ours");
        client.wait().expect("it ends");
        // Whoever comes while it is going is turned away; that is not what this is about.
        while moment % 2 == 1 && rustix::process::test_kill_process(victim).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
        project.succeed(&["build"]);
        let last = project.succeed(&["run", "--rm", "app", "cat", "/last"]);
        assert_eq!(last, format!("other\n{moment}\n"));
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let tmp = std::fs::read_dir(project.state_dir().join("images/tmp")).expect("a store");
        let left: Vec<_> = tmp.flatten().map(|entry| entry.path()).collect();
        let mut running = processes(project.state_dir());
        running.retain(|(pid, _)| {
            project
                .engine_pid()
                .is_none_or(|engine| engine.as_raw_nonzero().get() != *pid)
        });
        if left.is_empty() && running.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "left: {left:?} {running:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    project.succeed(&["df", "--verify"]);
}

#[test]
fn a_build_killed_at_some_moments_leaves_nothing_that_the_next_one_trips_over() {
    kill_builds_at(support::extent(4, 50));
}

#[test]
fn a_build_ends_with_whoever_asked_for_it_and_with_the_engine() {
    if !available("root", support::is_root()) {
        return;
    }
    let file = "services:\n  app:\n    build: .\n    image: built:1\n";
    let dockerfile = "FROM busybox:latest AS one\nRUN sleep 1000.25\nFROM busybox:latest\nRUN sleep 1000.25 && false\nCOPY --from=one / /\n";
    let project = Project::new(&[("compose.yaml", file), ("Dockerfile", dockerfile)]);
    support::busybox(&project);
    let steps = || {
        let mut steps = processes(project.state_dir());
        steps.retain(|(_, line)| line.starts_with("sleep 1000.25"));
        steps
    };
    let wait_for = |count: usize| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while steps().len() != count {
            assert!(Instant::now() < deadline, "{count} steps are expected: {:?}", steps());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let start = || {
        let said = project.path().join("said");
        let output = std::fs::File::create(&said).expect("a file");
        let mut command = project.compose(&["build"]);
        let client = command.stdout(Stdio::null()).stderr(output).spawn();
        let mut client = client.expect("the binary runs");
        while steps().len() != 2 {
            let ended = client.try_wait().expect("our own child");
            let said = || std::fs::read_to_string(&said).unwrap_or_default();
            assert!(ended.is_none(), "{ended:?}: {}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
        client
    };
    let mut client = start();
    kill_process(Pid::from_child(&client), Signal::KILL).expect("it is ours");
    client.wait().expect("it ends");
    wait_for(0);
    // One step that fails ends those beside it.
    let mut client = start();
    let (step, _) = steps().remove(0);
    kill_process(Pid::from_raw(step).expect("a process"), Signal::KILL).expect("it is ours");
    assert!(!client.wait().expect("it ends").success());
    wait_for(0);
    let mut client = start();
    let engine = project.engine_pid().expect("an engine runs");
    kill_process(engine, Signal::TERM).expect("it is ours");
    client.wait().expect("it ends");
    wait_for(0);
}

#[test]
fn a_step_sees_nothing_of_the_machine_but_what_it_was_given() {
    if !available("root", support::is_root()) {
        return;
    }
    let outside = tempfile::tempdir().expect("a directory");
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "the host's").expect("a file");
    let secret = secret.display();
    let dockerfile = format!(
        "FROM busybox:latest\n\
         RUN env | sort > /environment; cat /proc/1/environ | tr '\\\\0' '\\\\n' >> /environment\n\
         RUN ls {secret} 2>&1 | grep -q 'No such file'\n\
         RUN ls -a /proc/[0-9]*/cmdline | wc -l > /processes\n\
         RUN find / -xdev -type s > /sockets; find /run /var/run /tmp -type s >> /sockets 2>/dev/null; true\n\
         RUN ! mount -t tmpfs none /mnt 2>/dev/null; ! mknod /disk b 8 0 2>/dev/null || ! cat /disk 2>/dev/null\n"
    );
    let file = "services:\n  app:\n    build: .\n    image: built:1\n    network_mode: none\n";
    let mut project = Project::new(&[("compose.yaml", file), ("Dockerfile", &dockerfile)]);
    support::busybox(&project);
    project.set("HOST_CANARY", "the host's");
    project.set("DOCKER_HOST_CANARY", "the host's");
    project.succeed(&["build"]);
    let read = |path: &str| project.succeed(&["run", "--rm", "app", "cat", path]);
    let environment = read("/environment");
    assert!(
        environment.contains("PATH=") && !environment.contains("CANARY"),
        "{environment}"
    );
    for name in ["COMPOSE_STATE_DIR", "SSH_AUTH_SOCK", "USER="] {
        assert!(!environment.contains(name), "{environment}");
    }
    assert_eq!(read("/sockets"), "");
    let processes: u32 = read("/processes").trim().parse().expect("a number");
    assert!(processes <= 4, "{processes} processes are seen");
}
