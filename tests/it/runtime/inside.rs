//! What a process in a container sees and may do.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::time::Duration;

use compose::os::device_filter::{DeviceRule, attach};
use compose::runtime::{Log, Root, Seccomp, capability, spec};
use oci_spec::runtime::{LinuxCpuBuilder, LinuxMemoryBuilder, LinuxNamespaceType, LinuxPidsBuilder};
use tokio::io::AsyncReadExt;

use super::support::*;

#[tokio::test]
async fn every_namespace_is_its_own_unless_shared() {
    let Some(_) = runtime() else { return };
    let place = Box::new();
    let (_, text) = place
        .run("for n in mnt net uts pid ipc cgroup user; do readlink /proc/self/ns/$n; done")
        .await;
    let inside: Vec<&str> = text.lines().collect();
    for (name, own) in ["mnt", "net", "uts", "pid", "ipc"].iter().zip(&inside) {
        let host = fs::read_link(format!("/proc/self/ns/{name}")).expect("a namespace");
        assert_ne!(host.to_str(), Some(*own), "{name}");
    }
    let place = Box::new();
    let mut launch = place.launch("for n in net uts pid ipc; do readlink /proc/self/ns/$n; done");
    for kind in [
        LinuxNamespaceType::Network,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
    ] {
        share(&mut launch, kind);
    }
    launch.spec.set_hostname(None);
    // These two may be set only in a network namespace of the container's own.
    launch.spec.linux_mut().as_mut().expect("linux").set_sysctl(None);
    let (_, text) = place.run_launch(launch).await.expect("it starts");
    for (name, own) in ["net", "uts", "pid", "ipc"].iter().zip(text.lines()) {
        let host = fs::read_link(format!("/proc/self/ns/{name}")).expect("a namespace");
        assert_eq!(host.to_str(), Some(own), "{name}");
    }
}

#[tokio::test]
async fn namespaces_of_another_container_are_joined() {
    let Some(runtime) = runtime() else { return };
    let first = Box::new();
    let mut launch = first.launch("hostname; sleep 60");
    launch.spec.set_hostname(Some("first".to_owned()));
    let container = runtime.start(launch).await.expect("it starts");
    let second = Box::new();
    let mut launch = second
        .launch("hostname; readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; kill -0 1 && cat /proc/1/cmdline");
    let path = |name: &str| Some(format!("/proc/{}/ns/{name}", container.pid()).into());
    for (kind, name) in [
        (LinuxNamespaceType::Uts, "uts"),
        (LinuxNamespaceType::Ipc, "ipc"),
        (LinuxNamespaceType::Pid, "pid"),
    ] {
        spec::set_namespace(&mut launch.spec, kind, Some(spec::namespace(kind, path(name))));
    }
    launch.netns = Some(
        fs::File::open(format!("/proc/{}/ns/net", container.pid()))
            .expect("a namespace")
            .into(),
    );
    let (record, text) = second.run_launch(launch).await.expect("it starts");
    assert_eq!(record.code, 0, "{text}");
    let link = |name: &str| {
        fs::read_link(format!("/proc/{}/ns/{name}", container.pid()))
            .expect("a namespace")
            .display()
            .to_string()
    };
    assert!(
        text.starts_with(&format!("first\n{}\n{}\n", link("net"), link("ipc"))),
        "{text}"
    );
    assert!(text.ends_with("sleep\u{0}60\u{0}"), "{text:?}");
    container.kill(9).await.expect("killed");
    within(container.wait()).await;
}

#[tokio::test]
async fn the_file_systems_are_docker_s() {
    let Some(_) = runtime() else { return };
    let place = Box::new();
    let (_, text) = place.run("cat /proc/self/mountinfo").await;
    let mounts = mounts(&text);
    for (point, kind, options) in [
        ("/", "overlay", "rw,relatime"),
        ("/proc", "proc", "rw,nosuid,nodev,noexec,relatime"),
        ("/dev", "tmpfs", "rw,nosuid"),
        ("/dev/pts", "devpts", "rw,nosuid,noexec,relatime"),
        ("/sys", "sysfs", "ro,nosuid,nodev,noexec,relatime"),
        ("/dev/mqueue", "mqueue", "rw,nosuid,nodev,noexec,relatime"),
        ("/dev/shm", "tmpfs", "rw,nosuid,nodev,noexec,relatime"),
        ("/proc/bus", "proc", "ro,nosuid,nodev,noexec,relatime"),
        ("/proc/sys", "proc", "ro,nosuid,nodev,noexec,relatime"),
    ] {
        assert_eq!(
            mounts.get(point),
            Some(&(options.to_owned(), kind.to_owned())),
            "{point}"
        );
    }
    assert!(mounts.contains_key("/proc/acpi") || !Path::new("/proc/acpi").exists());
    assert!(mounts["/sys/firmware"].0.starts_with("ro"));
    for line in text.lines() {
        assert!(
            !line.contains("master:") && !line.contains("shared:"),
            "cut off from the host: {line}"
        );
    }
    let host = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(
        !host.contains(place.dir.path().to_str().expect("UTF-8")),
        "nothing is mounted on the host"
    );
}

fn mounts(text: &str) -> BTreeMap<String, (String, String)> {
    text.lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let left: Vec<&str> = left.split(' ').collect();
            let kind = right.split(' ').next()?;
            Some((left[4].to_owned(), (left[5].to_owned(), kind.to_owned())))
        })
        .collect()
}

#[tokio::test]
async fn devices_and_links_are_there_and_nothing_else() {
    let Some(_) = runtime() else { return };
    let place = Box::new();
    let (_, text) = place.run("cd /dev; for f in *; do stat -c '%n %F %t,%T %a' $f; done; for l in ptmx fd stdin; do readlink $l; done; cat null; head -c 3 zero | wc -c; echo x > full; cat /proc/kcore").await;
    for line in [
        "null character special file 1,3 666",
        "tty character special file 5,0 666",
        "urandom character special file 1,9 666",
        "shm directory 0,0 1777",
        "pts/ptmx\n/proc/self/fd\n/proc/self/fd/0\n3\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(text.contains("No space left"), "{text}");
    for forbidden in ["kmsg", "mem", "vda", "console"] {
        assert!(!text.contains(&format!("\n{forbidden} ")), "{forbidden}");
    }
}

#[tokio::test]
async fn devices_outside_the_list_cannot_be_opened() {
    let Some(_) = runtime() else { return };
    let place = Box::new();
    let (_, text) = place
        .run("mknod /tmp/kmsg c 1 11 && head -c1 /tmp/kmsg 2>&1; mknod /tmp/null c 1 3 && cat /tmp/null && echo fine")
        .await;
    assert!(
        text.contains("Operation not permitted") && text.ends_with("fine\n"),
        "{text}"
    );
    let place = Box::new();
    let mut launch = place.launch("cat /dev/mine && echo added");
    spec::add_device(&mut launch.spec, Path::new("/dev/null"), Path::new("/dev/mine"), "rwm").expect("a device");
    assert_eq!(place.run_launch(launch).await.expect("it starts").1, "added\n");
}

#[tokio::test]
async fn capabilities_filter_and_privileges_are_set() {
    let Some(_) = runtime() else { return };
    let place = Box::new();
    let (_, text) = place
        .run("cat /proc/self/status; unshare -m true; mount -t tmpfs x /tmp; hostname other")
        .await;
    let found = status(&text);
    for (key, value) in [
        ("CapInh", "0000000000000000"),
        ("CapPrm", "00000000a80425fb"),
        ("CapEff", "00000000a80425fb"),
        ("CapBnd", "00000000a80425fb"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "0"),
        ("Seccomp", "2"),
        ("Seccomp_filters", "1"),
        ("SigIgn", "0000000000000000"),
        ("SigBlk", "0000000000000000"),
        ("Umask", "0022"),
    ] {
        assert_eq!(found[key], value, "{key}");
    }
    assert_eq!(
        text.matches("Operation not permitted").count() + text.matches("permission denied").count(),
        3,
        "{text}"
    );

    for restricted in [true, false] {
        let place = Box::new();
        let mut launch = place.launch("cat /proc/self/status; id");
        change_process(&mut launch, |process| {
            process.set_no_new_privileges(Some(restricted));
            process.user_mut().set_username(Some("web".to_owned()));
            spec::change_capabilities(process, &["NET_ADMIN".to_owned()], &["ALL".to_owned()]).expect("names");
        });
        let (_, text) = place.run_launch(launch).await.expect("it starts");
        let found = status(&text);
        assert_eq!(found["NoNewPrivs"], u8::from(restricted).to_string());
        assert_eq!(
            (found["CapBnd"].as_str(), found["CapEff"].as_str()),
            ("0000000000001000", "0000000000000000")
        );
        assert!(
            text.contains("uid=33(web) gid=34(web) groups=34(web),50(logs)"),
            "{text}"
        );
    }
    let place = Box::new();
    let mut launch = place.launch("cat /proc/self/status");
    launch.seccomp = Seccomp::Unconfined;
    assert_eq!(
        status(&place.run_launch(launch).await.expect("it starts").1)["Seccomp"],
        "0"
    );
}

#[tokio::test]
async fn a_privileged_container_has_what_the_host_gives() {
    let Some(_) = runtime() else { return };
    let place = Box::new();
    let mut launch = place
        .launch("cat /proc/self/status; mount -t tmpfs x /tmp && touch /tmp/x /sys/fs/cgroup && echo did; ls /dev");
    spec::make_privileged(&mut launch.spec);
    launch.seccomp = Seccomp::Unconfined;
    let (_, text) = place.run_launch(launch).await.expect("it starts");
    let bits = capability::available()
        .into_iter()
        .map(capability::bit)
        .fold(0, |set, bit| set | bit);
    assert_eq!(status(&text)["CapEff"], format!("{bits:016x}"));
    assert!(text.contains("did\n") && text.contains("kmsg"), "{text}");
}

#[tokio::test]
async fn limits_hold() {
    let Some(runtime) = runtime() else { return };
    let place = Box::new();
    let mut launch = place.launch("ulimit -n; x=; i=0; while :; do x=$x$(head -c 100000 /dev/urandom | cat -v); done");
    let resources = launch
        .spec
        .linux_mut()
        .as_mut()
        .expect("linux")
        .resources_mut()
        .get_or_insert_default();
    resources.set_memory(
        LinuxMemoryBuilder::default()
            .limit(16 << 20)
            .swap(16 << 20)
            .build()
            .ok(),
    );
    resources.set_pids(LinuxPidsBuilder::default().limit(30).build().ok());
    resources.set_cpu(
        LinuxCpuBuilder::default()
            .quota(50_000)
            .period(100_000_u64)
            .shares(512_u64)
            .build()
            .ok(),
    );
    change_process(&mut launch, |process| {
        assert!(spec::set_ulimit(process, "nofile", 123, 456));
    });
    let container = runtime.start(launch).await.expect("it starts");
    let stats = container.stats().await.expect("stats");
    assert_eq!((stats.memory.limit, stats.pids.limit), (16 << 20, 30));
    let record = within(container.wait()).await;
    assert_eq!((record.code, record.oom), (137, true));
    assert_eq!(place.log(), "123\n");

    let place = Box::new();
    let mut launch = place.launch("for i in $(seq 1 20); do sleep 5 & done; echo all");
    let resources = launch
        .spec
        .linux_mut()
        .as_mut()
        .expect("linux")
        .resources_mut()
        .get_or_insert_default();
    resources.set_pids(LinuxPidsBuilder::default().limit(10).build().ok());
    let (_, text) = place.run_launch(launch).await.expect("it starts");
    assert!(text.contains("can't fork") && !text.contains("all"), "{text}");
}

#[tokio::test]
async fn what_may_not_be_raised_is_clamped_with_a_warning() {
    let Some(runtime) = runtime() else { return };
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let Some(hard) = hard else { return };
    let place = Box::new();
    let mut launch = place.launch("ulimit -Hn");
    change_process(&mut launch, |process| {
        let wanted = i64::try_from(hard + 1).expect("a limit");
        assert!(spec::set_ulimit(process, "nofile", 10, wanted));
    });
    let container = runtime.start(launch).await.expect("it starts");
    let warnings = container.warnings();
    within(container.wait()).await;
    let text = place.log();
    if text == format!("{hard}\n") {
        assert!(
            warnings.iter().any(|warning| warning.contains("NOFILE")),
            "{warnings:?}"
        );
    } else {
        assert_eq!(text, format!("{}\n", hard + 1));
    }
}

#[tokio::test]
async fn pausing_stops_and_resuming_goes_on() {
    let Some(runtime) = runtime() else { return };
    let place = Box::new();
    let container = runtime
        .start(place.launch("while :; do echo x; sleep 0.01; done"))
        .await
        .expect("it starts");
    tokio::time::sleep(Duration::from_millis(100)).await;
    container.pause().await.expect("paused");
    tokio::time::sleep(Duration::from_millis(30)).await;
    let paused = place.log().len();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(place.log().len(), paused);
    container.unpause().await.expect("resumed");
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(place.log().len() > paused);
    let stats = container.stats().await.expect("stats");
    assert!(
        stats.cpu.total > 0 && stats.memory.usage > 0 && stats.pids.current >= 1,
        "{stats:?}"
    );
    // A frozen container can be killed.
    container.pause().await.expect("paused");
    container.kill(9).await.expect("killed");
    assert_eq!(within(container.wait()).await.code, 137);
}

#[tokio::test]
async fn mounts_land_inside_whatever_the_image_links() {
    let Some(_) = runtime() else { return };
    let place = Box::new();
    let outside = tempfile::tempdir_in("/tmp").expect("a directory");
    let data = tempfile::tempdir_in("/tmp").expect("a directory");
    fs::write(data.path().join("file"), "content\n").expect("a file");
    symlink(outside.path(), place.lower().join("escape")).expect("a link");
    symlink("/proc/self/cwd/../../..", place.lower().join("magic")).expect("a link");
    symlink(outside.path(), place.lower().join("dev")).expect("a link");
    let mut launch = place.launch(
        "cat /data/file /escape/in/file /single; touch /data/new; (echo > /ro/new) 2>&1; cat /ro/file; ls /dev/null",
    );
    let mounts = launch.spec.mounts_mut().as_mut().expect("mounts");
    mounts.push(spec::bind(data.path(), "/data", false, "rprivate"));
    mounts.push(spec::bind(data.path(), "/ro", true, "rprivate"));
    mounts.push(spec::bind(data.path(), "/escape/in", false, "rprivate"));
    mounts.push(spec::bind(data.path().join("file"), "/single", false, "rprivate"));
    let (_, text) = place.run_launch(launch).await.expect("it starts");
    assert!(text.starts_with("content\ncontent\ncontent\n"), "{text}");
    assert!(
        text.contains("Read-only file system") && text.contains("content\n/dev/null\n"),
        "{text}"
    );
    assert!(data.path().join("new").exists());
    assert_eq!(
        fs::read_dir(outside.path()).expect("it is there").count(),
        0,
        "nothing was made outside"
    );
}

#[tokio::test]
async fn a_working_directory_outside_is_refused() {
    let Some(_) = runtime() else { return };
    for number in 0..12 {
        let place = Box::new();
        let mut launch = place.launch("pwd; ls ..");
        change_process(&mut launch, |process| {
            process.set_cwd(format!("/proc/self/fd/{number}").into());
        });
        if let Ok((_, text)) = place.run_launch(launch).await {
            panic!("fd {number} was entered: {text}");
        }
    }
    let place = Box::new();
    let mut launch = place.launch("pwd");
    change_process(&mut launch, |process| {
        process.set_cwd("/new/place".into());
    });
    assert_eq!(place.run_launch(launch).await.expect("made").1, "/new/place\n");
}

#[tokio::test]
async fn a_working_directory_outside_is_refused_to_further_processes_too() {
    let Some(runtime) = runtime() else { return };
    let place = Box::new();
    let container = runtime.start(place.launch("exec sleep 60")).await.expect("it starts");
    for number in 0..24 {
        let mut spec = exec_spec(&["sh", "-c", "pwd; ls .."]);
        spec.process.set_cwd(format!("/proc/self/fd/{number}").into());
        if let Ok(mut process) = container.exec(spec).await {
            let mut bytes = Vec::new();
            within(process.stream.read_to_end(&mut bytes))
                .await
                .expect("its output");
            panic!("fd {number} was entered: {}", String::from_utf8_lossy(&bytes));
        }
    }
    // Nor is there anything of the host's to be found by number later.
    let (_, text) = exec(&container, &["ls", "-l", "/proc/self/fd"]).await;
    assert_eq!(text.lines().filter(|line| line.contains("->")).count(), 3, "{text}");
    container.kill(9).await.expect("killed");
    within(container.wait()).await;
}

#[tokio::test]
async fn nothing_of_the_host_is_open_inside() {
    let Some(_) = runtime() else { return };
    let place = Box::new();
    let (_, text) = place.run("ls -l /proc/self/fd | cut -d' ' -f2- ; ls -d /proc/self/cwd/; cat /proc/1/environ; (echo x > /proc/self/exe) 2>&1").await;
    let descriptors = text.lines().filter(|line| line.contains("->")).count();
    assert_eq!(descriptors, 3, "only the standard streams lead anywhere: {text}");
    assert!(
        !text.contains("COMPOSE") && !text.contains("CARGO"),
        "no environment of ours: {text}"
    );
}

#[tokio::test]
async fn a_read_only_root_is_one_and_a_tmpfs_is_writable() {
    let Some(_) = runtime() else { return };
    let place = Box::new();
    let mut launch = place.launch("touch /x; touch /run/y && stat -c %a /run; touch /tmp/z");
    spec::make_root_read_only(&mut launch.spec);
    let mounts = launch.spec.mounts_mut().as_mut().expect("mounts");
    mounts.push(spec::tmpfs("/run", &["size=1m", "mode=1770"]));
    mounts.push(spec::tmpfs("/tmp", &["ro"]));
    let (_, text) = place.run_launch(launch).await.expect("it starts");
    assert!(
        text.contains("1770\n") && text.matches("Read-only file system").count() == 2,
        "{text}"
    );
}

#[tokio::test]
async fn sysctls_and_hostname_are_the_container_s() {
    let Some(_) = runtime() else { return };
    let place = Box::new();
    let mut launch = place.launch("hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax; ip addr show lo | grep -c UP");
    launch.spec.set_hostname(Some("myself".to_owned()));
    launch
        .spec
        .linux_mut()
        .as_mut()
        .expect("linux")
        .set_sysctl(Some(HashMap::from([
            ("net.ipv4.ip_unprivileged_port_start".to_owned(), "7".to_owned()),
            ("kernel.msgmax".to_owned(), "9999".to_owned()),
        ])));
    let (_, text) = place.run_launch(launch).await.expect("it starts");
    assert_eq!(text, "myself\n7\n9999\n1\n");
    let place = Box::new();
    let mut launch = place.launch("true");
    launch
        .spec
        .linux_mut()
        .as_mut()
        .expect("linux")
        .set_sysctl(Some(HashMap::from([("net.no.such".to_owned(), "1".to_owned())])));
    let error = place
        .run_launch(launch)
        .await
        .expect_err("no such parameter")
        .to_string();
    assert!(
        error.ends_with("open sysctl net.no.such file: no such file or directory"),
        "{error}"
    );
}

#[tokio::test]
async fn many_layers_are_one_root() {
    let Some(_) = runtime() else { return };
    let place = Box::new();
    let mut lower = Vec::new();
    for number in 0..150 {
        let layer = place.path(&format!("layer-with-a-rather-long-name-{number}"));
        fs::create_dir_all(layer.join("etc")).expect("a layer");
        fs::write(layer.join(format!("etc/from-{number}")), "").expect("a file");
        fs::write(layer.join("etc/top"), format!("{number}\n")).expect("a file");
        lower.push(layer);
    }
    lower.push(place.lower());
    let mut launch = place.launch("ls /etc | grep -c from; cat /etc/top");
    launch.root = Root::Overlay {
        lower,
        upper: place.path("upper"),
        work: place.path("work"),
    };
    assert_eq!(place.run_launch(launch).await.expect("it starts").1, "150\n0\n");
}

#[tokio::test]
async fn a_plain_directory_is_a_root_too() {
    let Some(_) = runtime() else { return };
    let place = Box::new();
    let mut launch = place.launch("echo mark > /written");
    launch.root = Root::Directory(place.lower());
    launch.log = Log::None;
    place.run_launch(launch).await.expect("it starts");
    assert_eq!(
        fs::read_to_string(place.lower().join("written")).expect("written"),
        "mark\n"
    );
}

#[tokio::test]
async fn a_root_is_read_and_written_from_outside() {
    let Some(runtime) = runtime() else { return };
    let place = Box::new();
    let container = runtime.start(place.launch("mkdir /tmp/d; echo inside > /tmp/d/f; ln -s /etc/passwd /tmp/l; ln -s ../../../../../etc /tmp/up; echo ready; sleep 60")).await.expect("it starts");
    place.wait_for("ready").await;
    let root = container.root().expect("open");
    let read = |path: &str| std::io::read_to_string(root.open(Path::new(path)).expect("a file")).expect("text");
    assert_eq!(read("/tmp/d/f"), "inside\n");
    assert!(read("/tmp/l").contains("web:x:33"), "a link is followed inside");
    assert!(read("/tmp/up/passwd").contains("web:x:33"));
    assert_eq!(
        root.resolve(Path::new("/tmp/up/passwd")).expect("a path"),
        Path::new("/etc/passwd")
    );
    let found = root.look_up(Path::new("/tmp/l")).expect("a link");
    assert_eq!(found.link.as_deref(), Some(Path::new("/etc/passwd")));
    container.kill(9).await.expect("killed");
    within(container.wait()).await;

    let stopped = runtime
        .open_root(&place.path("c"), &place.root(), Vec::new())
        .await
        .expect("open");
    let text = std::io::read_to_string(stopped.open(Path::new("/tmp/d/f")).expect("a file")).expect("text");
    assert_eq!(text, "inside\n");
    stopped.remove(Path::new("/tmp/d")).expect("removed");
    assert!(stopped.open(Path::new("/tmp/d/f")).is_err());
    drop(stopped);
    let volume = tempfile::tempdir_in("/tmp").expect("a volume");
    fs::write(volume.path().join("v"), "volume\n").expect("a file");
    let mounts = vec![spec::bind(volume.path(), "/data", false, "rprivate")];
    let stopped = runtime
        .open_root(&place.path("c"), &place.root(), mounts)
        .await
        .expect("open");
    let text = std::io::read_to_string(stopped.open(Path::new("/data/v")).expect("a file")).expect("text");
    assert_eq!(text, "volume\n");
    assert!(rustix::fs::fstat(stopped.directory().as_fd()).is_ok());
    drop(stopped);
    let host = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!host.contains(place.dir.path().to_str().expect("UTF-8")));
    assert_eq!(fs::metadata(place.lower().join("etc/passwd")).expect("a file").uid(), 0);
}

#[tokio::test]
async fn the_unified_hierarchy_s_device_rules_hold() {
    let Some(_) = runtime() else { return };
    let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .find(|point| Path::new(point).join("cgroup.procs").exists());
    let Some(unified) = unified else { return };
    let cgroup = Path::new(unified).join(format!("compose-{}-devices", instance()));
    fs::create_dir(&cgroup).expect("a cgroup");
    let rule = |allow, kind, major, minor, access| DeviceRule {
        allow,
        kind,
        major,
        minor,
        access,
    };
    let rules = [
        rule(false, None, None, None, 7),
        rule(true, Some(2), Some(1), Some(3), 7),
        rule(true, Some(2), Some(1), Some(5), 2),
    ];
    let attached = attach(&cgroup, &rules);
    let output = std::process::Command::new("/bin/busybox")
        .args(["sh", "-c", "echo $$ > $CGROUP; echo > /dev/null && echo one; head -c 1 /dev/zero | wc -c; echo > /dev/zero; head -c 1 /dev/random"])
        .env("CGROUP", cgroup.join("cgroup.procs"))
        .output()
        .expect("busybox");
    fs::remove_dir(&cgroup).expect("empty again");
    attached.expect("attached");
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(text, "one\n1\n");
    assert_eq!(errors.matches("Operation not permitted").count(), 2, "{errors}");
}
