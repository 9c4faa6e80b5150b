//! Starting, ending, watching, and what remains when one of the watchers is killed.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use compose::os::netns;
use compose::runtime::{Adoption, AttachOptions, Log, Respawn, Runtime};
use tokio::io::AsyncReadExt;

use super::support::*;
use crate::support::binary;

#[tokio::test]
async fn a_command_runs_and_its_output_is_logged() {
    let Some(_) = runtime() else { return };
    let place = Box::new();
    let (record, text) = place.run("echo hello; echo oops >&2; exit 3").await;
    assert_eq!((record.code, record.signal, record.oom), (3, None, false));
    assert_eq!(text, "hello\noops\n");
    let entries = place.entries();
    assert_eq!(entries[0], ("stdout".to_owned(), "hello\n".to_owned()));
    assert_eq!(entries[1], ("stderr".to_owned(), "oops\n".to_owned()));
    assert!(record.started <= record.finished);
}

/// Makes a network namespace.
fn network_namespace() -> OwnedFd {
    let make = || {
        netns::unshare().expect("a namespace");
        netns::current().expect("a namespace")
    };
    std::thread::spawn(make).join().expect("a thread")
}

#[tokio::test]
async fn a_container_waits_for_its_network_or_comes_to_nothing() {
    let Some(runtime) = runtime() else { return };
    let place = Box::new();
    let command = "readlink /proc/self/ns/net; ls /sys/class/net";
    let unborn = runtime.begin(place.launch(command)).expect("it begins");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(place.log(), "", "it waits");
    let (kept, other) = std::os::unix::net::UnixStream::pair().expect("a descriptor");
    let namespace = network_namespace();
    let inode = rustix::fs::fstat(&namespace).expect("a namespace").st_ino;
    let fds = [("kept".to_owned(), kept.into())];
    let container = within(unborn.go_on(namespace, &fds)).await.expect("it starts");
    assert_eq!(within(container.wait()).await.code, 0);
    assert_eq!(place.log(), format!("net:[{inode}]\nlo\n"));
    drop((container, fds, other));
    assert_clean(&place).await;

    // Its network cannot be made.
    let unborn = runtime.begin(place.launch("echo never")).expect("it begins");
    within(unborn.give_up()).await;
    assert_clean(&place).await;
    assert_eq!(place.log(), format!("net:[{inode}]\nlo\n"));

    // It cannot be made itself: the reason is told, whatever was sent meanwhile.
    for pause in [0, 50] {
        let mut launch = place.launch("echo never");
        launch.log = Log::JsonFile {
            path: place.path("nowhere/log"),
            max_size: None,
            max_files: 1,
        };
        let unborn = runtime.begin(launch).expect("it begins");
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let (kept, _other) = std::os::unix::net::UnixStream::pair().expect("a descriptor");
        let fds = [("kept".to_owned(), kept.into())];
        let failed = within(unborn.go_on(network_namespace(), &fds)).await;
        let text = failed.expect_err("it has no log").to_string();
        assert!(text.contains("failed to initialize logging driver"), "{text}");
        assert_clean(&place).await;
    }

    // Whoever began it is gone; its place is free again.
    drop(runtime.begin(place.launch("echo never")).expect("it begins"));
    assert_eq!(place.run("echo again").await.0.code, 0);
    assert!(
        place.log().ends_with("again\n") && !place.log().contains("never"),
        "{}",
        place.log()
    );
    assert_clean(&place).await;
}

#[tokio::test]
async fn exit_codes_and_signals_are_told_apart() {
    let Some(runtime) = runtime() else { return };
    for code in [0, 1, 2, 42, 126, 127, 128, 254, 255] {
        assert_eq!(Box::new().run(&format!("exit {code}")).await.0.code, code);
    }
    for (signal, code) in [(9, 137), (15, 143), (10, 138)] {
        let place = Box::new();
        let mut launch = place.launch("");
        // Process 1 has no default actions: only what it handles, and KILL from outside, end it.
        set_command(
            &mut launch.spec,
            &[
                "sh",
                "-c",
                "trap 'trap - TERM; exit 143' TERM; trap 'exit 138' USR1; echo up; while :; do sleep 0.05; done",
            ],
        );
        let container = runtime.start(launch).await.expect("it starts");
        place.wait_for("up").await;
        container.kill(signal).await.expect("a signal is sent");
        let record = within(container.wait()).await;
        assert_eq!(record.code, code, "signal {signal}");
        assert_eq!(record.signal, (signal == 9).then_some(9));
        assert!(container.kill(9).await.is_err());
    }
}

#[tokio::test]
async fn what_cannot_run_says_why_in_docker_s_words() {
    let Some(_) = runtime() else { return };
    let start = "OCI runtime create failed: runc create failed: unable to start container process: error during \
                 container init: ";
    for (command, text) in [
        ("nosuch", "exec: \"nosuch\": executable file not found in $PATH"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
        ("/etc", "exec: \"/etc\": is a directory: permission denied"),
        (
            "/no/such",
            "exec: \"/no/such\": stat /no/such: no such file or directory",
        ),
    ] {
        let place = Box::new();
        let mut launch = place.launch("");
        set_command(&mut launch.spec, &[command]);
        let error = place.run_launch(launch).await.expect_err("it cannot run");
        assert_eq!(error.to_string(), format!("{start}{text}"));
        assert_clean(&place).await;
    }
    let place = Box::new();
    let mut launch = place.launch("true");
    change_process(&mut launch, |process| {
        process.user_mut().set_username(Some("nobody-here".to_owned()));
    });
    let error = place.run_launch(launch).await.expect_err("no such user");
    assert_eq!(
        error.to_string(),
        "unable to find user nobody-here: no matching entries in passwd file"
    );
}

#[tokio::test]
async fn a_broken_program_tells_on_its_own_stderr() {
    let Some(_) = runtime() else { return };
    let place = Box::new();
    fs::write(place.lower().join("bin/broken"), "#!/no/such/interpreter\n").expect("a script");
    fs::set_permissions(
        place.lower().join("bin/broken"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("its mode");
    let mut launch = place.launch("");
    set_command(&mut launch.spec, &["broken"]);
    let (record, text) = place.run_launch(launch).await.expect("it starts");
    assert_eq!(
        (record.code, text.as_str()),
        (255, "exec /bin/broken: no such file or directory\n")
    );
}

#[tokio::test]
async fn logs_rotate_and_keep_the_latest() {
    let Some(_) = runtime() else { return };
    let place = Box::new();
    let mut launch = place.launch("for i in $(seq 1 500); do echo line $i; done");
    launch.log = Log::JsonFile {
        path: place.path("log"),
        max_size: Some(10_000),
        max_files: 3,
    };
    place.run_launch(launch).await.expect("it runs");
    assert!(place.log().ends_with("line 500\n"));
    assert!(place.path("log.1").exists() && place.path("log.2").exists() && !place.path("log.3").exists());
    for name in ["log", "log.1", "log.2"] {
        assert!(fs::metadata(place.path(name)).expect("a log").len() < 10_200);
    }
}

#[tokio::test]
async fn a_flood_of_output_loses_nothing() {
    let Some(_) = runtime() else { return };
    let place = Box::new();
    let (_, text) = place.run("seq 1 40000").await;
    let expected: String = (1..=40_000).map(|number| format!("{number}\n")).collect();
    assert!(text == expected, "{} bytes of {}", text.len(), expected.len());
}

#[tokio::test]
async fn attached_streams_carry_frames_and_input() {
    let Some(runtime) = runtime() else { return };
    let place = Box::new();
    let mut launch = place.launch("while read line; do echo got $line; echo err $line >&2; done; echo end");
    launch.stdin_open = true;
    launch.stdin_once = true;
    let container = runtime.start(launch).await.expect("it starts");
    let mut stream = container.attach(ALL).await.expect("attached");
    write(&mut stream, "one\n").await;
    read_until(&mut stream, "err one\n").await;
    write(&mut stream, "two\n").await;
    tokio::io::AsyncWriteExt::shutdown(&mut stream)
        .await
        .expect("the input ends");
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest)).await.expect("the rest");
    let rest = frames(&rest);
    let of = |stream| {
        let pieces = rest.iter().filter(|(from, _)| *from == stream);
        pieces.map(|(_, text)| text.as_str()).collect::<String>()
    };
    assert_eq!((of(1).as_str(), of(2).as_str()), ("got two\nend\n", "err two\n"));
    assert_eq!(within(container.wait()).await.code, 0);
}

#[tokio::test]
async fn a_slow_reader_gets_everything() {
    let Some(runtime) = runtime() else { return };
    let place = Box::new();
    let mut launch = place.launch("read go; dd if=/dev/zero bs=1k count=3000 2>/dev/null");
    launch.log = Log::None;
    launch.stdin_open = true;
    let container = runtime.start(launch).await.expect("it starts");
    let mut stream = container.attach(ALL).await.expect("attached");
    write(&mut stream, "go\n").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(container.exit_record().is_none(), "the process waits for its reader");
    let mut bytes = Vec::new();
    within(stream.read_to_end(&mut bytes)).await.expect("everything");
    let total: usize = frames(&bytes).iter().map(|(_, text)| text.len()).sum();
    assert_eq!(total, 3000 * 1024);
}

#[tokio::test]
async fn a_terminal_is_one_and_has_a_size() {
    let Some(runtime) = runtime() else { return };
    let place = Box::new();
    let mut launch = place.launch("tty; stty size; read line; echo $line; stty size; exit 7");
    launch.stdin_open = true;
    change_process(&mut launch, |process| {
        process.set_terminal(Some(true));
        process.set_console_size(
            oci_spec::runtime::BoxBuilder::default()
                .height(24_u64)
                .width(80_u64)
                .build()
                .ok(),
        );
    });
    let container = runtime.start(launch).await.expect("it starts");
    assert!(container.has_terminal());
    let mut stream = container.attach(ALL).await.expect("attached");
    place.wait_for("24 80").await;
    assert!(place.log().contains("/dev/pts/0\r\n"));
    container.resize(40, 132).await.expect("resized");
    write(&mut stream, "typed\n").await;
    let text = read_until(&mut stream, "40 132").await;
    assert!(text.contains("typed\r\ntyped\r\n"), "echo and answer: {text:?}");
    assert_eq!(within(container.wait()).await.code, 7);
}

#[tokio::test]
async fn processes_run_in_a_running_container() {
    let Some(runtime) = runtime() else { return };
    let place = Box::new();
    let container = runtime
        .start(place.launch("hostname inside; exec sleep 60"))
        .await
        .expect("it starts");
    assert_eq!(exec(&container, &["echo", "hi"]).await, (0, "hi\n".to_owned()));
    assert_eq!(exec(&container, &["sh", "-c", "exit 9"]).await.0, 9);
    let (_, text) = exec(&container, &["cat", "/proc/self/status"]).await;
    let inside = status(&text);
    assert_eq!(
        (inside["CapEff"].as_str(), inside["Seccomp"].as_str()),
        ("00000000a80425fb", "2")
    );
    assert_eq!(inside["NSpid"].split_whitespace().count(), 1);
    let (_, text) = exec(&container, &["cat", "/proc/1/cmdline"]).await;
    assert!(text.starts_with("sleep"), "{text:?}");
    let (_, text) = exec(&container, &["ls", "/proc/self/fd"]).await;
    assert_eq!(text, "0\n1\n2\n3\n", "3 is the directory being listed");

    let mut spec = exec_spec(&["sh", "-c", "read x; echo $x; id -u; id -G; pwd; echo $HOME"]);
    spec.stdin = true;
    spec.groups = vec!["77".to_owned()];
    spec.process.user_mut().set_username(Some("web".to_owned()));
    spec.process.set_cwd("/tmp".into());
    let mut process = container.exec(spec).await.expect("it runs");
    write(&mut process.stream, "word\n").await;
    let mut bytes = Vec::new();
    within(process.stream.read_to_end(&mut bytes))
        .await
        .expect("its output");
    let text: String = frames(&bytes).into_iter().map(|(_, text)| text).collect();
    assert_eq!(text, "word\n33\n34 50 77\n/tmp\n/home\n");

    for (command, text) in [
        ("nosuch", "exec: \"nosuch\": executable file not found in $PATH"),
        ("/etc", "exec: \"/etc\": is a directory: permission denied"),
    ] {
        let error = container.exec(exec_spec(&[command])).await.expect_err("it cannot run");
        let start = "OCI runtime exec failed: exec failed: unable to start container process: ";
        assert_eq!(error.to_string(), format!("{start}{text}"));
    }
    let mut spec = exec_spec(&["sh", "-c", "tty; stty size; read x"]);
    spec.process.set_terminal(Some(true));
    spec.process.set_console_size(
        oci_spec::runtime::BoxBuilder::default()
            .height(10_u64)
            .width(20_u64)
            .build()
            .ok(),
    );
    spec.stdin = true;
    let mut process = container.exec(spec).await.expect("it runs");
    let text = read_until(&mut process.stream, "10 20").await;
    assert!(text.contains("/dev/pts/"), "{text:?}");
    write(&mut process.stream, "\n").await;
    assert_eq!(within(process.wait()).await, 0);

    let process = container.exec(exec_spec(&["sleep", "60"])).await.expect("it runs");
    assert!(container.processes().contains(&process.pid));
    process.kill(9).await.expect("killed");
    assert_eq!(within(process.wait()).await, 137);
    container.kill_all().await.expect("killed");
    within(container.wait()).await;
}

#[tokio::test]
async fn an_init_of_ours_forwards_signals_and_reaps() {
    let Some(runtime) = runtime() else { return };
    let place = Box::new();
    let mut launch = place.launch("");
    // Without a process 1 that reaps, the orphan stays a zombie.
    set_command(
        &mut launch.spec,
        &[
            "sh",
            "-c",
            "trap 'echo bye; exit 5' TERM; sh -c 'sleep 0.05 & true'; echo up; while :; do sleep 0.05; done",
        ],
    );
    launch.init = true;
    let container = runtime.start(launch).await.expect("it starts");
    place.wait_for("up").await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    let (_, text) = exec(
        &container,
        &[
            "sh",
            "-c",
            "cat /proc/1/cmdline; for p in /proc/[0-9]*; do grep State $p/status; done",
        ],
    )
    .await;
    assert!(text.starts_with("/sbin/docker-init\0--\0sh\0"), "{text:?}");
    assert!(!text.contains("zombie"), "{text:?}");
    container.kill(15).await.expect("a signal is sent");
    assert_eq!(within(container.wait()).await.code, 5);
    assert!(place.log().ends_with("bye\n"));
}

#[tokio::test]
async fn a_container_without_a_pid_namespace_takes_its_children_along() {
    let Some(runtime) = runtime() else { return };
    let place = Box::new();
    let mut launch = place.launch("sleep 987 & sleep 987 & echo up; sleep 0.2; exit 4");
    share(&mut launch, oci_spec::runtime::LinuxNamespaceType::Pid);
    let container = runtime.start(launch).await.expect("it starts");
    place.wait_for("up").await;
    let processes = container.processes();
    assert!(processes.len() >= 3, "{processes:?}");
    assert_eq!(within(container.wait()).await.code, 4);
    for process in processes {
        assert!(
            !std::path::Path::new(&format!("/proc/{process}/cmdline")).exists_with("987"),
            "{process} lives"
        );
    }
    assert_clean(&place).await;
}

trait ExistsWith {
    fn exists_with(&self, text: &str) -> bool;
}

impl ExistsWith for std::path::Path {
    fn exists_with(&self, text: &str) -> bool {
        fs::read_to_string(self).is_ok_and(|found| found.contains(text))
    }
}

#[tokio::test]
async fn a_killed_shim_takes_its_container_along_and_the_engine_hears_why() {
    let Some(runtime) = runtime() else { return };
    let place = Box::new();
    let container = runtime.start(place.launch("sleep 60")).await.expect("it starts");
    kill(container.shim_pid());
    let record = within(container.wait()).await;
    assert_eq!((record.code, record.signal), (137, Some(9)));
    assert!(
        record
            .reason
            .expect("a reason")
            .contains("supervising process was killed")
    );
    wait_gone(container.pid()).await;
    assert!(place.path("c/exit.json").exists());
    assert_clean(&place).await;
    // A later engine hears the same.
    let Adoption::Exited(record) = runtime.adopt(&place.id, &place.path("c"), None).await.expect("found") else {
        panic!("it does not run");
    };
    assert_eq!(record.code, 137);
}

#[tokio::test]
async fn a_new_engine_adopts_what_the_old_one_left() {
    let Some(_) = runtime() else { return };
    let place = Box::new();
    let old = Runtime::open_with_program(config(place.dir.path()), binary()).expect("a runtime");
    let (kept, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let mut launch = place.launch("i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done");
    launch.fds = vec![("port:80".to_owned(), kept.into())];
    let container = old.start(launch).await.expect("it starts");
    let pid = container.pid();
    // The engine dies: its connection and its zygote with it.
    drop(container);
    drop(old);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let new = Runtime::open_with_program(config(place.dir.path()), binary()).expect("a runtime");
    let Adoption::Running(container) = new.adopt(&place.id, &place.path("c"), None).await.expect("found") else {
        panic!("it runs");
    };
    assert_eq!((container.pid(), container.id()), (pid, place.id.as_str()));
    let fds = container.fds().await.expect("what was kept");
    assert_eq!(fds.len(), 1);
    assert_eq!(fds[0].0, "port:80");
    assert!(rustix::net::sockopt::socket_type(fds[0].1.as_fd()).is_ok());
    assert_eq!(exec(&container, &["echo", "still"]).await.1, "still\n");
    container.kill(9).await.expect("killed");
    assert_eq!(within(container.wait()).await.code, 137);
    let numbers: Vec<u32> = place
        .log()
        .lines()
        .map(|line| line.parse().expect("a number"))
        .collect();
    assert!(numbers.len() > 10);
    assert!(
        numbers.iter().copied().eq(1..=numbers.len() as u32),
        "no line is lost or torn"
    );
    // One that ended while nobody watched.
    let place = Box::new();
    let mut launch = place.launch("read line; exit 6");
    launch.stdin_open = true;
    launch.stdin_once = true;
    let container = new.start(launch).await.expect("it starts");
    let stream = container.attach(ALL).await.expect("attached");
    drop((container, stream));
    let deadline = Instant::now() + Duration::from_secs(5);
    while !place.path("c/exit.json").exists() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let Adoption::Exited(record) = new.adopt(&place.id, &place.path("c"), None).await.expect("found") else {
        panic!("it ended");
    };
    assert_eq!(record.code, 6);
}

#[tokio::test]
async fn a_shim_brings_the_engine_back_unless_it_said_farewell() {
    let Some(runtime) = runtime() else { return };
    for farewell in [false, true] {
        let place = Box::new();
        let mark = place.path("engine-was-here");
        let mut launch = place.launch("sleep 60");
        launch.engine_respawn = Some(Respawn {
            argv: [
                "/bin/busybox",
                "sh",
                "-c",
                "echo $WHO > $MARK; ls /proc/self/fd >> $MARK",
            ]
            .map(str::to_owned)
            .to_vec(),
            env: vec![
                ("MARK".to_owned(), mark.to_str().expect("UTF-8").to_owned()),
                ("WHO".to_owned(), "engine".to_owned()),
            ],
        });
        let container = runtime.start(launch).await.expect("it starts");
        let shim = container.shim_pid();
        if farewell {
            container.farewell().await.expect("heard");
        }
        drop(container);
        tokio::time::sleep(Duration::from_millis(600)).await;
        let came = fs::read_to_string(&mark).unwrap_or_default();
        if farewell {
            assert_eq!(came, "");
        } else {
            assert_eq!(came, "engine\n0\n1\n2\n3\n");
        }
        let Adoption::Running(container) = runtime.adopt(&place.id, &place.path("c"), None).await.expect("found")
        else {
            panic!("it runs");
        };
        container.kill(9).await.expect("killed");
        within(container.wait()).await;
        wait_gone(shim).await;
    }
}

#[tokio::test]
async fn a_container_can_start_again_at_once() {
    let Some(runtime) = runtime() else { return };
    let place = Box::new();
    for round in 0..20 {
        let container = runtime
            .start(place.launch(&format!("exit {round}")))
            .await
            .expect("it starts");
        assert_eq!(within(container.wait()).await.code, round);
    }
    assert_clean(&place).await;
}

#[tokio::test]
async fn a_hundred_containers_leave_nothing_behind() {
    let Some(runtime) = runtime() else { return };
    let mounts = fs::read_to_string("/proc/self/mountinfo")
        .expect("mounts")
        .lines()
        .count();
    let places: Vec<Box> = (0..10).map(|_| Box::new()).collect();
    for _ in 0..10 {
        let mut containers = Vec::new();
        for place in &places {
            containers.push(runtime.start(place.launch("sleep 60")).await.expect("it starts"));
        }
        for container in containers {
            container.kill(9).await.expect("killed");
            assert_eq!(within(container.wait()).await.code, 137);
            wait_gone(container.pid()).await;
            wait_gone(container.shim_pid()).await;
        }
    }
    for place in &places {
        assert_clean(place).await;
        assert!(!place.path("c/shim.sock").exists());
    }
    let after = fs::read_to_string("/proc/self/mountinfo")
        .expect("mounts")
        .lines()
        .count();
    assert!(after <= mounts + 2, "{mounts} mounts became {after}");
}

#[tokio::test]
async fn the_output_before_the_end_reaches_those_attached() {
    let Some(runtime) = runtime() else { return };
    let place = Box::new();
    let mut launch = place.launch("read x; echo last words");
    launch.stdin_open = true;
    let container = runtime.start(launch).await.expect("it starts");
    let options = AttachOptions {
        stdout: true,
        ..AttachOptions::default()
    };
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(container.attach(options).await.expect("attached"));
    }
    let mut writer = container.attach(ALL).await.expect("attached");
    write(&mut writer, "\n").await;
    within(container.wait()).await;
    for mut reader in readers {
        let mut bytes = Vec::new();
        within(reader.read_to_end(&mut bytes)).await.expect("its output");
        assert_eq!(frames(&bytes), [(1, "last words\n".to_owned())]);
    }
}

#[tokio::test]
async fn nothing_is_run_in_a_paused_container() {
    let Some(runtime) = runtime() else { return };
    let place = Box::new();
    let container = runtime.start(place.launch("sleep 60")).await.expect("it starts");
    container.pause().await.expect("paused");
    let error = within(container.exec(exec_spec(&["true"])))
        .await
        .expect_err("it is paused");
    assert_eq!(
        error.to_string(),
        format!("Container {} is paused, unpause the container before exec", place.id)
    );
    container.unpause().await.expect("resumed");
    assert_eq!(exec(&container, &["true"]).await.0, 0);
    container.kill(9).await.expect("killed");
    within(container.wait()).await;
}
