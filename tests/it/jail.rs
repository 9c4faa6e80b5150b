//! What a project's containers can do to the host, to each other and to the engine, and what they cannot.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{Project, available, busybox, has_busybox, is_root, text};

/// Whose range of ids the containers here get: `tests/setup.sh` makes that user.
const OWNER: &str = "compose-test";

/// Starts a project, where the rights for it are there; it is down again once the value is dropped.
fn project(file: &str) -> Option<Project> {
    project_with(file, &[])
}

/// The same, in an environment that has these variables from its engine's first moment on.
fn project_with(file: &str, variables: &[(&str, &str)]) -> Option<Project> {
    if !available("root", is_root()) || !available("a static busybox at /bin/busybox", has_busybox()) {
        return None;
    }
    let mut project = Project::new(&[("compose.yaml", file)]);
    project.set("COMPOSE_USERNS_OWNER", OWNER);
    project.set("COMPOSE_ENGINE_IDLE", "2");
    for (name, value) in variables {
        project.set(name, value);
    }
    busybox(&project);
    Some(project)
}

/// Returns the range's start, where there is one.
fn range() -> Option<u32> {
    let text = fs::read_to_string("/etc/subuid").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(OWNER)?.strip_prefix(':'));
    let start = line.and_then(|line| line.split(':').next()?.parse().ok());
    available("ids of compose-test in /etc/subuid", start.is_some()).then_some(start?)
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (metadata.uid(), metadata.gid())
}

fn process_of(project: &Project, service: &str) -> u32 {
    let id = project.succeed(&["ps", "-q", service]);
    let said = project.docker(&["inspect", "-f", "{{.State.Pid}}", id.trim()]);
    said.trim().parse().expect("a process")
}

const IDS: &str = r#"
services:
  own:
    image: busybox:latest
    userns_mode: auto
    init: true
    command: [sh, -c, "echo here > /tmp-index; mkdir /www && cp /tmp-index /www/index.html; exec httpd -f -p 80 -h /www"]
    volumes: ["data:/data", "./mine:/mine:idmap", "./plain:/plain"]
    cap_add: [NET_ADMIN]
  usual:
    image: busybox:latest
    userns_mode: host
    init: true
    command: [sleep, "1000"]
    volumes: ["data:/data"]
volumes:
  data:
"#;

#[test]
fn a_container_may_have_ids_of_its_own() {
    let Some(start) = range() else { return };
    let Some(project) = project(IDS) else { return };
    for name in ["mine", "plain"] {
        fs::create_dir(project.path().join(name)).expect("a directory");
        fs::write(project.path().join(name).join("file"), "text").expect("a file");
    }
    for name in ["mine", "mine/file"] {
        std::os::unix::fs::chown(project.path().join(name), Some(1234), Some(1235)).expect("an owner");
    }
    project.succeed(&["up", "-d"]);
    let own = |script: &str| project.succeed(&["exec", "-T", "own", "sh", "-c", script]);
    // Root inside is nobody outside, and has Docker's capabilities, but over what is the container's alone.
    assert_eq!(
        own("id -u; cat /proc/self/uid_map")
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["0", "0", &start.to_string(), "65536"]
    );
    let process = process_of(&project, "own");
    assert_eq!(owner(Path::new(&format!("/proc/{process}"))).0, start);
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a status");
    assert!(
        status.contains("CapEff:\t00000000a80435fb") || status.contains("CapEff:\t00000000a80425fb"),
        "{status}"
    );
    // All files of the image are its own; what it writes is in the store as anybody's would be.
    assert_eq!(
        own("stat -c %u:%g / /bin /bin/busybox /etc/hosts /data")
            .lines()
            .collect::<Vec<_>>(),
        ["0:0"; 5]
    );
    own(
        "echo volume > /data/from-own; chown 33:34 /data/from-own; echo 127.9.9.9 more >> /etc/hosts; touch /etc/new; rm /bin/wc",
    );
    assert_eq!(
        project
            .succeed(&["exec", "-T", "usual", "stat", "-c", "%u:%g", "/data/from-own"])
            .trim(),
        "33:34"
    );
    // Its network is its own too, and in touch with the others'.
    assert_eq!(
        project
            .succeed(&["exec", "-T", "usual", "wget", "-qO-", "http://own/index.html"])
            .trim(),
        "here"
    );
    own("ip addr add 10.9.9.9/32 dev lo");
    // What is mounted from the host is as its owner left it: the container's root is not the host's.
    let refused = project.run(&["exec", "-T", "own", "sh", "-c", "echo x > /plain/new"]);
    assert!(
        text(&refused.stderr).contains("Permission denied"),
        "{}",
        text(&refused.stderr)
    );
    assert_eq!(own("stat -c %u:%g /plain/file").trim(), "65534:65534");
    // With `idmap` the owner's files are the container's user's.
    assert_eq!(
        own("stat -c %u:%g /mine/file; echo x > /mine/new; cat /mine/file")
            .lines()
            .collect::<Vec<_>>(),
        ["0:0", "text"]
    );
    assert_eq!(owner(&project.path().join("mine/new")), (1234, 1235));
    // Copies in and out see the container's ids.
    fs::write(project.path().join("in"), "copied").expect("a file");
    project.succeed(&["cp", "in", "own:/etc/in"]);
    project.succeed(&["cp", "in", "own:/data/in"]);
    assert_eq!(
        own("stat -c %u:%g /etc/in /data/in; cat /etc/in")
            .lines()
            .collect::<Vec<_>>(),
        ["0:0", "0:0", "copied"]
    );
    let id = project.succeed(&["ps", "-q", "own"]);
    let tar = project.docker(&["cp", &format!("{}:/data/from-own", id.trim()), "-"]);
    assert_eq!((&tar[108..115], &tar[116..123]), ("0000041", "0000042"), "33 and 34");
    // What it wrote stays, also for a start with other ids.
    project.succeed(&["restart", "-t", "0", "own"]);
    assert_eq!(
        own("stat -c %u:%g /etc/new; ls /bin/wc 2>&1 || true")
            .lines()
            .collect::<Vec<_>>(),
        ["0:0", "ls: /bin/wc: No such file or directory"]
    );
    // There is one range, and it is in use.
    let again = ["run", "--rm", "-T", "own", "true"];
    let said = project.fail(&again);
    assert!(said.contains("/etc/subuid"), "{said}");
    project.succeed(&["down", "-v", "-t", "0"]);
}

#[test]
fn ids_of_its_own_and_what_belongs_to_the_host_exclude_each_other() {
    for (more, wanted) in [
        (
            "privileged: true",
            "privileged mode is incompatible with user namespaces",
        ),
        ("network_mode: host", "cannot share the host's network namespace"),
        ("pid: host", "cannot share the PID namespace"),
        ("ipc: host", "cannot share the IPC namespace"),
    ] {
        let file = format!(
            "services:\n  a:\n    image: busybox:latest\n    userns_mode: auto\n    command: [\"true\"]\n    {more}\n"
        );
        let Some(project) = project(&file) else { return };
        let said = project.fail(&["up", "-d"]);
        assert!(said.contains(wanted), "{more}: {said}");
        project.write(
            "compose.yaml",
            "services: {a: {image: \"busybox:latest\", userns_mode: \"keep-id\"}}",
        );
        let said = project.fail(&["up", "-d"]);
        assert!(said.contains("invalid user namespace mode \"keep-id\""), "{said}");
        project.succeed(&["down", "-v", "-t", "0"]);
    }
}

#[test]
fn files_in_a_bind_mount_belong_to_whoever_has_the_directory() {
    let file = r#"
services:
  root:
    image: busybox:latest
    command: [sh, -c, "stat -c %u:%g /src/mine /src/root; echo x > /src/by-root; mkdir /src/sub; echo y > /src/sub/y"]
    volumes: ["./src:/src:idmap"]
  web:
    image: busybox:latest
    user: "33:34"
    command: [sh, -c, "stat -c %u:%g /src/mine /src/root; echo x > /src/by-web; cat /src/mine"]
    volumes: [{type: bind, source: ./src, target: /src, bind: {x-idmap: true}}]
  without:
    image: busybox:latest
    command: [sh, -c, "echo x > /src/without"]
    volumes: ["./src:/src"]
"#;
    let Some(project) = project(file) else { return };
    let source = project.path().join("src");
    fs::create_dir(&source).expect("a directory");
    for name in ["mine", "root"] {
        fs::write(source.join(name), "text\n").expect("a file");
    }
    for path in [source.clone(), source.join("mine")] {
        std::os::unix::fs::chown(path, Some(1234), Some(1235)).expect("an owner");
    }
    fs::set_permissions(source.join("mine"), fs::Permissions::from_mode(0o600)).expect("a mode");
    let run = |service: &str| project.succeed(&["run", "--rm", "-T", service]);
    assert_eq!(run("root").lines().collect::<Vec<_>>(), ["0:0", "1234:1235"]);
    for name in ["by-root", "sub", "sub/y"] {
        assert_eq!(owner(&source.join(name)), (1234, 1235), "{name}");
    }
    assert_eq!(run("web").lines().collect::<Vec<_>>(), ["33:34", "0:0", "text"]);
    assert_eq!(owner(&source.join("by-web")), (1234, 1235));
    run("without");
    assert_eq!(owner(&source.join("without")), (0, 0));
    assert_eq!(
        owner(&source.join("root")),
        (0, 0),
        "what is not theirs stays whose it was"
    );
    assert!(project.succeed(&["config"]).contains("x-idmap: true"));
    project.succeed(&["down", "-v", "-t", "0"]);
}

#[test]
fn a_fork_bomb_and_a_memory_hog_harm_nobody_else() {
    let file = r#"
services:
  bomb:
    image: busybox:latest
    init: true
    pids_limit: 30
    command: [sh, -c, "b() { b | b & }; b 2>/dev/null & exec sleep 1000"]
  hog:
    image: busybox:latest
    mem_limit: 16m
    tmpfs: /fill
    command: [dd, if=/dev/zero, of=/fill/x, bs=1M, count=64]
  spinner:
    image: busybox:latest
    init: true
    cpus: 0.2
    command: [sh, -c, "while :; do :; done"]
  neighbour:
    image: busybox:latest
    init: true
    command: [sh, -c, "echo fine > /index.html; exec httpd -f -p 80 -h /"]
"#;
    let Some(project) = project(file) else { return };
    project.succeed(&["up", "-d", "bomb", "spinner", "neighbour"]);
    // Usage is what the cgroup counted, so however busy the machine is, there is no more of it than the quota.
    let cgroup = cgroup_of(process_of(&project, "spinner"), &["cpuacct"]);
    let usage = || -> u64 {
        let read = |name: &str| fs::read_to_string(cgroup.join(name)).unwrap_or_default();
        let unified = read("cpu.stat")
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok());
        let legacy = || Some(read("cpuacct.usage").trim().parse::<u64>().ok()? / 1000);
        unified.or_else(legacy).expect("what was used")
    };
    let (before, begun) = (usage(), std::time::Instant::now());
    let said = project.run(&["up", "--no-log-prefix", "hog"]);
    let said = text(&said.stdout) + &text(&said.stderr);
    let place = "limit of 16MiB, see compose.yaml:10:";
    assert!(said.contains("exited with code 137") && said.contains(place), "{said}");
    std::thread::sleep(Duration::from_millis(500));
    let (used, passed) = (usage() - before, begun.elapsed().as_micros());
    // A period of 100 ms may have begun full at both ends.
    assert!(
        u128::from(used) <= passed / 5 + 60_000,
        "{used} of {passed} microseconds"
    );
    assert!(used > 0, "it does run");
    let count = || -> u32 {
        let pids = cgroup_of(process_of(&project, "bomb"), &["pids"]);
        let text = fs::read_to_string(pids.join("pids.current")).expect("a count");
        text.trim().parse().expect("a number")
    };
    assert!(count() <= 30, "{}", count());
    let answer = project.succeed(&["exec", "-T", "neighbour", "wget", "-qO-", "http://neighbour/index.html"]);
    assert_eq!(answer.trim(), "fine");
    project.succeed(&["down", "-v", "-t", "0"]);
}

/// Returns the directory of a process's cgroup that has one of these controllers.
fn cgroup_of(process: u32, controllers: &[&str]) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{process}/cgroup")).expect("cgroups");
    let mut found = None;
    for line in text.lines() {
        let parts: Vec<&str> = line.splitn(3, ':').collect();
        let [_, names, path] = parts.as_slice() else { continue };
        let path = path.trim_start_matches('/');
        if names.split(',').any(|name| controllers.contains(&name)) {
            return Path::new("/sys/fs/cgroup").join(controllers[0]).join(path);
        }
        if names.is_empty() {
            found = Some(Path::new("/sys/fs/cgroup").join(path));
        }
    }
    found.expect("a cgroup")
}

#[test]
fn the_engine_is_out_of_reach_and_keeps_no_secret_of_its_starter() {
    let file = r#"
services:
  a:
    image: busybox:latest
    init: true
    command: [sleep, "1000"]
    environment: {OPEN: "told"}
  near:
    image: busybox:latest
    init: true
    network_mode: host
    command: [sleep, "1000"]
"#;
    let variables = [("DATABASE_PASSWORD", "canary-of-the-caller")];
    let Some(project) = project_with(file, &variables) else {
        return;
    };
    project.succeed(&["up", "-d"]);
    let state = project.state_dir().to_owned();
    let engine = project.engine_pid().expect("an engine").as_raw_nonzero().get();
    let socket = state.join("engine.sock");
    assert_eq!(
        fs::metadata(&socket).expect("a socket").permissions().mode() & 0o777,
        0o600
    );
    for service in ["a", "near"] {
        // No path leads to it, and there is no abstract one; the host's network changes nothing about that.
        let script = format!(
            "ls -d {} /run/compose /var/run/docker.sock 2>/dev/null; find / -xdev -name engine.sock; grep -c compose \
             /proc/self/mountinfo; ls /proc/self/fd | wc -l",
            socket.display()
        );
        let said = project.succeed(&["exec", "-T", service, "sh", "-c", &script]);
        let lines: Vec<&str> = said.lines().collect();
        assert!(!said.contains("sock"), "{service}: {said}");
        assert_eq!(
            lines.last(),
            Some(&"4"),
            "the three streams, and the directory that `ls` reads: {said}"
        );
    }
    // Nothing of it listens but on paths.
    let said = fs::read_to_string("/proc/net/unix").expect("sockets");
    assert!(
        !said.lines().any(|line| line.contains('@') && line.contains("compose")),
        "{said}"
    );
    let inodes: Vec<String> = fs::read_dir(format!("/proc/{engine}/fd"))
        .expect("descriptors")
        .flatten()
        .filter_map(|entry| {
            Some(
                fs::read_link(entry.path())
                    .ok()?
                    .to_str()?
                    .strip_prefix("socket:[")?
                    .trim_end_matches(']')
                    .to_owned(),
            )
        })
        .collect();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let said = fs::read_to_string(format!("/proc/{engine}/net/{table}")).unwrap_or_default();
        for line in said.lines().skip(1) {
            let inode = line.split_whitespace().nth(9).unwrap_or_default();
            assert!(!inodes.iter().any(|own| own == inode), "{table}: {line}");
        }
    }
    // What the caller's environment holds is neither in any process that stays nor in any file.
    let mut processes = vec![engine.cast_unsigned()];
    let mut index = 0;
    while index < processes.len() {
        let path = format!("/proc/{0}/task/{0}/children", processes[index]);
        let children = fs::read_to_string(path).unwrap_or_default();
        processes.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        index += 1;
    }
    assert!(
        processes.len() >= 6,
        "the engine, the zygote, two shims and their containers: {processes:?}"
    );
    for process in processes {
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        assert!(!text(&environment).contains("canary-of-the-caller"), "{process}");
    }
    let found = std::process::Command::new("grep")
        .args(["-rlI", "canary-of-the-caller"])
        .arg(&state)
        .output()
        .expect("grep");
    assert_eq!(text(&found.stdout), "");
    project.succeed(&["down", "-v", "-t", "0"]);
}

#[test]
fn nothing_of_a_container_runs_outside_of_it() {
    let file = r#"
services:
  a:
    image: busybox:latest
    init: true
    command: [sleep, "1000"]
"#;
    let Some(project) = project(file) else { return };
    project.succeed(&["up", "-d"]);
    // Programs that an engine might call to look into a container, and libraries it might load.
    let outside = project.path().join("was-run");
    let script = format!(
        "for n in ps tar xz gzip unpigz nsenter mount cp mv runc tini; do rm -f /bin/$n; \
         printf '#!/bin/sh\\ntouch /was-run {}\\n' > /bin/$n; chmod +x /bin/$n; done; \
         mkdir -p /usr/bin /usr/sbin /lib /etc; ln -s /bin/ps /usr/bin/ps; echo /evil.so > /etc/ld.so.preload; \
         echo 'passwd: evil' > /etc/nsswitch.conf; seq 100 > /data",
        outside.display()
    );
    project.succeed(&["exec", "-T", "a", "sh", "-c", &script]);
    let id = project.succeed(&["ps", "-q", "a"]);
    project.succeed(&["top", "a"]);
    project.succeed(&["cp", "a:/data", "."]);
    project.write("other", "more");
    project.succeed(&["cp", "other", "a:/other"]);
    project.succeed(&["stats", "--no-stream"]);
    let exported = project.path().join("exported");
    project.docker(&["export", "-o", &exported.to_string_lossy(), id.trim()]);
    project.docker(&["diff", id.trim()]);
    project.succeed(&["commit", "a", "made:latest"]);
    project.succeed(&["pause", "a"]);
    project.succeed(&["unpause", "a"]);
    assert!(!outside.exists(), "with the host's files in sight");
    let look = [
        "exec",
        "-T",
        "a",
        "sh",
        "-c",
        "ls / | grep was-run; echo end; /bin/ps 2>/dev/null; true",
    ];
    assert_eq!(project.succeed(&look), "end\n");
    assert_eq!(project.succeed(&look), "was-run\nend\n", "the traps work");
    project.succeed(&["down", "-v", "-t", "0", "--rmi", "local"]);
}

/// Exchanges two names for as long as the flag is set.
fn exchange(one: PathBuf, other: PathBuf, goes_on: Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut count = 0;
        while goes_on.load(Ordering::Relaxed) {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            let here = rustix::fs::CWD;
            count += u64::from(rustix::fs::renameat_with(here, &one, here, &other, flags).is_ok());
            std::thread::yield_now();
        }
        count
    })
}

#[test]
fn copies_and_parts_of_volumes_never_follow_a_link_out() {
    let file = r#"
services:
  a:
    image: busybox:latest
    init: true
    command: [sleep, "1000"]
    volumes: ["data:/data"]
  part:
    image: busybox:latest
    command: [sh, -c, "cat /part/file; echo written > /part/new"]
    volumes: [{type: volume, source: data, target: /part, volume: {subpath: dir/sub}}]
volumes:
  data:
"#;
    let Some(project) = project(file) else { return };
    project.succeed(&["up", "-d", "a"]);
    project.succeed(&[
        "exec",
        "-T",
        "a",
        "sh",
        "-c",
        "mkdir -p /data/dir/sub; echo own > /data/dir/sub/file",
    ]);
    let id = project.succeed(&["ps", "-q", "a"]);
    let format = "{{range .Mounts}}{{.Source}}{{end}}";
    let data = PathBuf::from(project.docker(&["inspect", "-f", format, id.trim()]).trim());
    let outside = project.path().join("outside");
    fs::create_dir_all(outside.join("sub")).expect("a directory");
    fs::write(outside.join("sub/file"), "canary").expect("a file");
    symlink(&outside, data.join("link")).expect("a link");
    let goes_on = Arc::new(AtomicBool::new(true));
    let swapper = exchange(data.join("dir"), data.join("link"), Arc::clone(&goes_on));
    project.write("in", "copied in");
    let mut read = 0;
    for _ in 0..15 {
        let output = project.run(&["cp", "a:/data/dir/sub/file", "out"]);
        let copied = fs::read_to_string(project.path().join("out")).unwrap_or_default();
        assert_ne!(copied, "canary");
        read += u32::from(output.status.success());
        project.run(&["cp", "in", "a:/data/dir/sub/put"]);
        let output = project.run(&["run", "--rm", "-T", "part"]);
        assert!(!text(&output.stdout).contains("canary"), "{}", text(&output.stdout));
        read += u32::from(output.status.success());
    }
    goes_on.store(false, Ordering::Relaxed);
    let swapped = swapper.join().expect("the thread ends");
    assert!(swapped > 100 && read > 0, "{swapped} exchanges, {read} successes");
    let left: Vec<_> = fs::read_dir(outside.join("sub"))
        .expect("a directory")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["file"], "nothing came to be outside");
    assert_eq!(fs::read_to_string(outside.join("sub/file")).expect("a file"), "canary");
    project.succeed(&["down", "-v", "-t", "0"]);
}

#[test]
fn a_container_starts_while_another_exchanges_what_is_in_their_volume() {
    let file = r#"
services:
  one:
    image: busybox:latest
    init: true
    command:
      - sh
      - -c
      - "cd /data; echo ready > ready;
         while :; do rm -rf inner; ln -s $$OUTSIDE inner; rm -f inner; mkdir inner; done"
    environment: [OUTSIDE]
    volumes: ["data:/data"]
  other:
    image: busybox:latest
    command: [sh, -c, "echo started; cat /data/inner/secret /data/inner/made/deep/secret"]
    volumes:
      - "data:/data"
      - "./mine:/data/inner/mine"
      - "./file:/data/inner/file"
    tmpfs: ["/data/inner/made/deep"]
volumes:
  data:
"#;
    let Some(mut project) = project(file) else { return };
    let outside = project.path().join("outside");
    fs::create_dir(&outside).expect("a directory");
    fs::write(outside.join("secret"), "canary").expect("a file");
    fs::create_dir(project.path().join("mine")).expect("a directory");
    project.write("file", "own\n");
    project.set("OUTSIDE", &outside.to_string_lossy());
    project.succeed(&["up", "-d", "one"]);
    let data = project.docker(&["volume", "ls", "-q", "--filter", "name=data"]);
    let data = project.docker(&["volume", "inspect", "-f", "{{.Mountpoint}}", data.trim()]);
    let data = PathBuf::from(data.trim());
    for _ in 0..200 {
        if data.join("ready").exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut started = 0;
    for _ in 0..crate::support::extent(30, 1000) {
        let output = project.run(&["run", "--rm", "-T", "other"]);
        assert!(!text(&output.stdout).contains("canary"), "{}", text(&output.stdout));
        started += u32::from(text(&output.stdout).contains("started"));
    }
    assert!(started > 0, "some do start");
    let left: Vec<_> = fs::read_dir(&outside)
        .expect("a directory")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["secret"], "nothing came to be outside");
    project.succeed(&["down", "-v", "-t", "0"]);
}

#[test]
fn who_a_process_runs_as_is_a_name_or_a_number_and_nothing_like_one() {
    let file = r#"
services:
  a:
    image: busybox:latest
    init: true
    command: [sh, -c, "mkdir /etc; echo 'root:x:0:0::/:/bin/sh' > /etc/passwd; exec sleep 1000"]
  given:
    image: busybox:latest
    user: ${GIVEN}
    command: [id, -u]
"#;
    let Some(mut project) = project(file) else { return };
    project.set("GIVEN", "7");
    project.succeed(&["up", "-d", "a"]);
    let id = project.succeed(&["ps", "-q", "a"]);
    for user in [
        "0x0",
        "+0",
        "-0",
        " 0",
        "0 ",
        "00x",
        "1e0",
        "0.0",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "-1",
        "root\n",
        "root ",
        "\u{0660}",
        "0:-1",
        "0:+0",
        "0:0:0",
        "0:4294967296",
    ] {
        let output = project.run(&["exec", "-T", "--user", user, "a", "id", "-u"]);
        assert!(!output.status.success(), "{user:?}: {}", text(&output.stdout));
        assert_eq!(text(&output.stdout), "", "{user:?}");
        project.set("GIVEN", user);
        let output = project.run(&["run", "--rm", "-T", "given"]);
        assert!(!output.status.success(), "{user:?}: {}", text(&output.stdout));
        assert_eq!(text(&output.stdout), "", "{user:?}");
    }
    // What may run with more than it was given stays without: none of its sets is inherited.
    for privileged in [&[][..], &["--privileged"]] {
        let arguments = [
            &["exec"],
            privileged,
            &[id.trim(), "grep", "-E", "CapInh|CapAmb", "/proc/self/status"],
        ]
        .concat();
        let said = project.docker(&arguments);
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(
            words,
            ["CapInh:", "0000000000000000", "CapAmb:", "0000000000000000"],
            "{privileged:?}"
        );
    }
    project.succeed(&["down", "-v", "-t", "0"]);
}

#[test]
fn secrets_are_in_no_file_of_the_engine_and_in_no_process_but_their_own() {
    let file = r#"
services:
  a:
    image: busybox:latest
    init: true
    command: [sh, -c, "cat /run/secrets/token /run/secrets/kept > /dev/null; exec sleep 1000"]
    secrets: [token, kept]
    environment: {SHOWN: "canary-of-the-service"}
secrets:
  token: {environment: TOKEN}
  kept: {file: ./kept}
"#;
    let Some(project) = project_with(file, &[("TOKEN", "canary-of-the-secret")]) else {
        return;
    };
    project.write("kept", "canary-of-the-file");
    project.succeed(&["up", "-d"]);
    assert_eq!(
        project.succeed(&["exec", "-T", "a", "cat", "/run/secrets/token", "/run/secrets/kept"]),
        "canary-of-the-secretcanary-of-the-file"
    );
    let engine = project
        .engine_pid()
        .expect("an engine")
        .as_raw_nonzero()
        .get()
        .cast_unsigned();
    let mut processes = vec![engine];
    let mut index = 0;
    while index < processes.len() {
        let path = format!("/proc/{0}/task/{0}/children", processes[index]);
        let children = fs::read_to_string(path).unwrap_or_default();
        processes.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        index += 1;
    }
    assert!(processes.len() >= 4, "{processes:?}");
    for process in processes {
        let read = |file: &str| text(&fs::read(format!("/proc/{process}/{file}")).unwrap_or_default());
        let (environment, line) = (read("environ"), read("cmdline"));
        for canary in ["canary-of-the-secret", "canary-of-the-file"] {
            assert!(
                !environment.contains(canary) && !line.contains(canary),
                "{process}: {line}"
            );
        }
        // The service's own variables are in the service's own processes.
        let program = fs::read_link(format!("/proc/{process}/exe")).unwrap_or_default();
        if program.to_string_lossy().contains("compose") && !line.contains("sleep") {
            assert!(!environment.contains("canary-of-the-service"), "{process}: {line}");
        }
    }
    for canary in ["canary-of-the-secret", "canary-of-the-file"] {
        let found = std::process::Command::new("grep")
            .args(["-rl", canary])
            .arg(project.state_dir())
            .output()
            .expect("grep");
        // As with Docker Compose, what comes from a variable is a file of the container's own, and one from a file is
        // mounted.
        let found = text(&found.stdout);
        let is_the_service_s = |path: &str| path.ends_with("/upper/run/secrets/token");
        assert!(found.lines().all(is_the_service_s), "{canary}: {found}");
        assert!(canary == "canary-of-the-secret" || found.is_empty(), "{found}");
        for arguments in [&["events", "--since", "0", "--until", "0"][..], &["logs"]] {
            let output = project.run(arguments);
            assert!(!(text(&output.stdout) + &text(&output.stderr)).contains(canary));
        }
        let id = project.succeed(&["ps", "-q", "a"]);
        assert!(!project.docker(&["inspect", id.trim()]).contains(canary));
    }
    project.succeed(&["down", "-v", "-t", "0"]);
}
