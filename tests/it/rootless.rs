//! A plain user runs projects with nothing but the kernel: once with one user id, once with a range of them.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::support::{self, Project, User, http};

/// A project with most of what containers are used for.
fn stack(port: u16) -> String {
    format!(
        r#"
services:
  web:
    image: busybox
    init: true
    command: sh -c "mkdir -p /www; echo it works > /www/index.html; touch /data/made /source/made; exec httpd -f -p 8000 -h /www"
    ports: ["{port}:8000"]
    volumes: ["data:/data", "./source:/source"]
    healthcheck: {{test: "wget -qO- 127.0.0.1:8000", interval: 5s}}
    read_only: false
  client:
    image: busybox
    init: true
    user: "1000:1000"
    command: sh -c "wget -qO- web:8000; id -u; sleep 1000"
    depends_on: {{web: {{condition: service_healthy}}}}
volumes: {{data: }}
"#
    )
}

fn users() -> Vec<User> {
    [Some(User::unknown(1)), User::with_ranges()]
        .into_iter()
        .flatten()
        .collect()
}

fn may_run() -> bool {
    support::available(
        "root (to become a plain user) and busybox-static",
        support::is_root() && support::has_busybox(),
    )
}

#[test]
fn a_plain_user_brings_a_project_up_uses_it_and_takes_it_down() {
    if !may_run() {
        return;
    }
    for user in users() {
        let port = support::free_port();
        let project = Project::of(Some(user), &[("compose.yaml", &stack(port)), ("source/file", "text\n")]);
        support::busybox(&project);
        project.succeed(&["up", "-d", "--wait"]);
        // Published, healthy, found by name, and as the user it asked for.
        assert_eq!(http::get_when_up(&format!("127.0.0.1:{port}"), "/"), "it works\n");
        assert_eq!(
            http::get(format!("[::1]:{port}"), "/").expect("IPv6 as well"),
            "it works\n"
        );
        let logs = project.succeed(&["logs", "--no-log-prefix", "client"]);
        assert_eq!(logs, "it works\n1000\n", "{user:?}");
        // What is made in a bind mount is the user's.
        let made = project
            .path()
            .join("source/made")
            .metadata()
            .expect("the service made it");
        assert_eq!((made.uid(), made.gid()), (user.uid, user.gid));
        assert_eq!(project.succeed(&["exec", "-T", "web", "cat", "/source/file"]), "text\n");
        let status = project.run(&["exec", "-T", "web", "sh", "-c", "exit 7"]).status;
        assert_eq!(status.code(), Some(7));
        project.succeed(&["cp", "web:/www/index.html", "copied"]);
        assert_eq!(
            std::fs::read_to_string(project.path().join("copied")).expect("copied"),
            "it works\n"
        );
        project.succeed(&["cp", "copied", "web:/www/again"]);
        assert_eq!(
            http::get(format!("127.0.0.1:{port}"), "/again").expect("copied in"),
            "it works\n"
        );
        let said = project.succeed(&["run", "--rm", "-T", "web", "sh", "-c", "ls /data"]);
        assert_eq!(said, "made\n", "the volume is the service's");
        let top = project.succeed(&["top", "web"]);
        assert!(top.contains("httpd"), "{top}");
        project.succeed(&["pause", "web"]);
        assert!(project.succeed(&["ps", "web"]).contains("Paused"));
        project.succeed(&["unpause", "web"]);
        assert_eq!(
            http::get(format!("127.0.0.1:{port}"), "/").expect("goes on"),
            "it works\n"
        );
        // The volume lasts until it is not wanted any more.
        project.succeed(&["down"]);
        project.succeed(&["up", "-d", "--wait", "web"]);
        project.succeed(&["down", "-v", "--rmi", "all"]);
        end(project, user);
    }
}

/// Ends a project's engine, after which nothing of the user's may be left: no process, mount or interface.
fn end(project: Project, user: User) {
    let pid = project.engine_pid().expect("an engine");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    let processes = || {
        let all = std::fs::read_dir("/proc").expect("procfs").flatten();
        all.filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.uid() == user.uid))
            .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
            .map(|line| support::text(&line).replace('\0', " "))
            // Other tests may run as the same user: this project's processes name its directory, or nothing at all.
            .filter(|line| line.contains(&*project.state_dir().to_string_lossy()))
            .collect::<Vec<_>>()
    };
    for _ in 0..500 {
        if processes().is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(processes(), Vec::<String>::new());
    let left: Vec<_> = ["engine.sock", "rootless.sock"]
        .into_iter()
        .filter(|name| project.state_dir().join(name).exists())
        .collect();
    assert_eq!(left, Vec::<&str>::new());
}

#[test]
fn another_user_reaches_neither_socket_nor_state() {
    if !may_run() {
        return;
    }
    let (user, other) = (User::unknown(1), User::unknown(2));
    let project = Project::of(Some(user), &[("compose.yaml", "services: {a: {image: busybox}}")]);
    project.succeed(&["ls"]);
    let state = project.state_dir();
    let mode = state.metadata().expect("the state directory").mode() & 0o777;
    assert_eq!(mode, 0o700);
    for path in ["", "engine.sock", "rootless.sock", "engine.log", "images"] {
        let path = state.join(path);
        let status = other
            .program(Path::new("/bin/ls"))
            .arg(&path)
            .output()
            .expect("ls runs")
            .status;
        assert!(!status.success(), "{}", path.display());
    }
    let refused = other
        .command()
        .args(["ls"])
        .env_clear()
        .env("COMPOSE_STATE_DIR", state)
        .output()
        .expect("the binary runs");
    assert!(!refused.status.success());
    assert!(
        support::text(&refused.stderr).contains("ermission denied"),
        "{}",
        support::text(&refused.stderr)
    );
}

#[test]
fn a_plain_users_container_changes_no_cgroup() {
    if !may_run() {
        return;
    }
    let script = "for f in $(find /sys/fs/cgroup -name 'cgroup.*' -o -name notify_on_release -o -name release_agent \
                  -o -name devices.allow -o -name 'memory.max' -o -name pids.max -o -name tasks); do \
                  (echo 0 > $f) 2>/dev/null && echo WROTE $f; done; \
                  for d in $(find /sys/fs/cgroup -type d); do mkdir $d/made 2>/dev/null && echo MADE $d; done; \
                  mount -o remount,rw /sys/fs/cgroup 2>/dev/null && echo REMOUNTED; \
                  grep -E ' /sys(/[^ ]*)? ' /proc/self/mountinfo | grep -v tmpfs; find /sys/fs/cgroup | wc -l; echo end";
    let service = |more: &str| {
        format!(
            "image: busybox:latest, network_mode: none, {more} command: [sh, -c, {}]",
            serde_json::json!(script.replace('$', "$$"))
        )
    };
    let file = format!(
        "services:\n  own: {{{}}}\n  host: {{{}}}\n  more: {{{}}}\n",
        service(""),
        service("cgroup: host,"),
        service("cap_add: [ALL],")
    );
    for user in users() {
        let project = Project::of(Some(user), &[("compose.yaml", file.as_str())]);
        support::busybox(&project);
        for service in ["own", "host", "more"] {
            let said = project.succeed(&["run", "--rm", "-T", service]);
            for word in ["WROTE", "MADE", "REMOUNTED"] {
                assert!(
                    !said.contains(word) || service == "more" && word == "REMOUNTED",
                    "{user:?} {service}: {said}"
                );
            }
            // Not only by what the files' owners allow, which differs from machine to machine.
            let mounts: Vec<&str> = said.lines().filter(|line| line.contains(" /sys")).collect();
            assert!(mounts.len() > 1, "{said}");
            assert!(
                mounts.iter().all(|mount| mount.contains(" ro,")),
                "{user:?} {service}: {said}"
            );
            assert!(said.ends_with("end\n"), "{said}");
        }
        end(project, user);
    }
}

#[test]
fn a_low_port_is_refused_with_what_would_allow_it() {
    if !may_run() {
        return;
    }
    let project = Project::of(
        Some(User::unknown(1)),
        &[(
            "compose.yaml",
            "services: {a: {image: busybox, ports: ['127.0.0.1:81:80'], command: sleep 1000}}",
        )],
    );
    support::busybox(&project);
    let said = project.fail(&["up", "-d"]);
    assert!(
        said.contains("sysctl -w net.ipv4.ip_unprivileged_port_start=81"),
        "{said}"
    );
    project.succeed(&["down"]);
}

#[test]
fn containers_outlive_a_killed_engine_and_it_finds_them_again() {
    if !may_run() {
        return;
    }
    let port = support::free_port();
    let project = Project::of(
        Some(User::unknown(1)),
        &[("compose.yaml", &stack(port)), ("source/file", "")],
    );
    support::busybox(&project);
    project.succeed(&["up", "-d", "--wait"]);
    let before = project.succeed(&["ps", "-q"]);
    let pid = project.engine_pid().expect("an engine");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
    // Its containers' supervisors bring it back; whoever connects meanwhile waits.
    assert_eq!(http::get_when_up(&format!("127.0.0.1:{port}"), "/"), "it works\n");
    assert_eq!(project.succeed(&["ps", "-q"]), before);
    assert_ne!(project.engine_pid(), Some(pid));
    let named = project.succeed(&["exec", "-T", "client", "wget", "-qO-", "web:8000"]);
    assert_eq!(named, "it works\n");
    // New containers get onto the network of the old ones.
    let run = || project.succeed(&["run", "--rm", "-T", "client", "wget", "-qO-", "web:8000"]);
    assert_eq!(run(), "it works\n");
    // Without the process that holds the namespaces it needs a command that makes another, which finds the same ones.
    let engine = project.engine_pid().expect("an engine");
    let holder = rustix::process::Pid::from_raw(parent(engine)).expect("the engine has a parent");
    for pid in [holder, engine] {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
    }
    assert_eq!(project.succeed(&["ps", "-q"]), before);
    assert_eq!(http::get_when_up(&format!("127.0.0.1:{port}"), "/"), "it works\n");
    assert_eq!(run(), "it works\n");
    project.succeed(&["down", "-v"]);
    end(project, User::unknown(1));
}

fn parent(pid: rustix::process::Pid) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).expect("it runs");
    let after_name = stat.rsplit_once(')').expect("a name in brackets").1;
    let number = after_name.split_whitespace().nth(1).expect("a parent");
    number.parse().expect("a number")
}

#[test]
fn containers_reach_what_is_outside_and_the_host_but_not_its_loopback() {
    if !may_run() {
        return;
    }
    // The world: addresses of a namespace of the test's own, in which the engine is started.
    support::own_network(&["192.0.2.10/32", "192.0.2.11/32"]);
    let echo = |address: &str| {
        let listener = std::net::TcpListener::bind(address).expect("the address is ours");
        let port = listener.local_addr().expect("bound").port();
        std::thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                let mut line = [0; 64];
                let length = connection.read(&mut line).unwrap_or_default();
                // A client that is gone needs no answer.
                let _ = connection.write_all(&line[..length]);
            }
        });
        port
    };
    let (outside, loopback) = (echo("192.0.2.10:0"), echo("127.0.0.1:0"));
    let names = std::net::UdpSocket::bind("192.0.2.11:0").expect("the address is ours");
    let names_port = names.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = names.recv_from(&mut question) {
            // The question itself, as an answer that says: no such name.
            question[2..4].copy_from_slice(&[0x81, 0x83]);
            let _ = names.send_to(&question[..length], from);
        }
    });
    let project = Project::of(
        Some(User::unknown(1)),
        &[(
            "compose.yaml",
            "services:\n  a: {image: busybox, command: sleep 1000, init: true}\n  \
             b: {image: busybox, command: sleep 1000, init: true, networks: [closed]}\n\
             networks: {closed: {internal: true}}\n",
        )],
    );
    support::busybox(&project);
    project.succeed(&["up", "-d"]);
    let ask = |service: &str, address: &str, port: u16| {
        let script = format!("echo hello | timeout 5 nc {address} {port}");
        let output = project.run(&["exec", "-T", service, "sh", "-c", &script]);
        support::text(&output.stdout)
    };
    assert_eq!(ask("a", "192.0.2.10", outside), "hello\n");
    assert_eq!(
        ask("b", "192.0.2.10", outside),
        "",
        "an internal network has no way out"
    );
    assert_eq!(
        ask("a", "127.0.0.1", loopback),
        "",
        "the container's loopback is its own"
    );
    let gateway = project.succeed(&[
        "exec",
        "-T",
        "a",
        "sh",
        "-c",
        "ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p'",
    ]);
    assert_eq!(
        ask("a", gateway.trim(), loopback),
        "",
        "the host's loopback is nobody's"
    );
    let server = format!("192.0.2.11:{names_port}");
    let answer = project.run(&["exec", "-T", "a", "nslookup", "-type=a", "some.name", &server]);
    let said = support::text(&answer.stdout) + &support::text(&answer.stderr);
    assert!(said.contains("NXDOMAIN"), "datagrams get out and back: {said}");
    // Many short ones, of which none may be left behind.
    let script = format!("i=0; while [ $i -lt 200 ]; do echo $i | nc 192.0.2.10 {outside}; i=$((i+1)); done | wc -l");
    assert_eq!(project.succeed(&["exec", "-T", "a", "sh", "-c", &script]).trim(), "200");
    let pid = project.engine_pid().expect("an engine").as_raw_nonzero();
    let descriptors = || {
        std::fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("root may look")
            .count()
    };
    for _ in 0..200 {
        if descriptors() < 100 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(descriptors() < 100, "{}", descriptors());
    project.succeed(&["down", "-t", "0"]);
}

#[test]
fn the_hosts_own_files_are_a_plain_users_image_too() {
    if !may_run() {
        return;
    }
    for user in users() {
        let project = Project::of(
            Some(user),
            &[
                ("compose.yaml", "services: {a: {build: .}}"),
                (
                    "Dockerfile",
                    "FROM rootfs:/\nWORKDIR /build\nRUN echo made > file && ls /usr/bin/env && cat /etc/passwd > users\nCMD cat file\n",
                ),
            ],
        );
        project.succeed(&["build"]);
        assert_eq!(project.succeed(&["run", "--rm", "-T", "a"]), "made\n");
        let users = project.succeed(&["run", "--rm", "-T", "a", "cat", "/build/users"]);
        assert!(users.contains("root:"), "{users}");
        project.succeed(&["down", "--rmi", "all"]);
    }
}
