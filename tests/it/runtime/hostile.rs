//! Images and volumes made to deceive whoever sets a container up: whatever they do, nothing outside is touched.
//!
//! Every test here was red once against a variant of the runtime that does the obvious thing instead.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use compose::runtime::{Root, spec};

use super::support::*;

/// A directory that no container has any business in, and what it looked like.
struct Outside {
    directory: tempfile::TempDir,
    before: BTreeMap<PathBuf, String>,
}

impl Outside {
    fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("out")
            .tempdir_in("/tmp")
            .expect("a directory");
        for name in ["a", "a/b", "sub"] {
            fs::create_dir(directory.path().join(name)).expect("a directory");
        }
        for name in ["secret", "hosts", "a/hosts"] {
            fs::write(directory.path().join(name), "canary\n").expect("a file");
        }
        let before = picture(directory.path());
        Self { directory, before }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert_eq!(
            picture(self.path()),
            self.before,
            "nothing outside is created or changed"
        );
    }
}

/// Returns every path below a directory with its kind, mode, owner and content.
fn picture(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).expect("it is there");
        let content = if metadata.is_file() {
            fs::read_to_string(&path).expect("a text")
        } else {
            String::new()
        };
        let said = format!("{:o} {}:{} {content}", metadata.mode(), metadata.uid(), metadata.gid());
        if metadata.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .expect("entries")
                    .flatten()
                    .map(|entry| entry.path()),
            );
        }
        found.insert(path, said);
    }
    found
}

#[tokio::test]
async fn an_image_whose_places_are_links_leads_nowhere() {
    let Some(_) = runtime() else { return };
    let outside = Outside::new();
    let away = |name: &str| outside.path().join(name);
    for (link, target) in [
        ("dev", away("a")),
        ("proc", away("a")),
        ("sys", away("a")),
        ("dev", PathBuf::from("/etc")),
        ("dev", PathBuf::from("../../../../../../etc")),
        ("work", away("sub")),
        ("etc2", away("")),
        ("masked", away("secret")),
        ("work", PathBuf::from("/proc/self/root")),
        ("work", PathBuf::from("/proc/1/cwd")),
    ] {
        let place = Box::new();
        symlink(&target, place.lower().join(link)).expect("a link");
        let mut launch = place.launch("cat /masked /etc2/secret /work/* 2>/dev/null; test -c /dev/null && echo fine");
        change_process(&mut launch, |process| {
            process.set_cwd("/work/new".into());
        });
        let linux = launch.spec.linux_mut().as_mut().expect("linux");
        linux
            .masked_paths_mut()
            .as_mut()
            .expect("masks")
            .push("/masked".to_owned());
        linux
            .readonly_paths_mut()
            .as_mut()
            .expect("paths")
            .push("/etc2/a".to_owned());
        let mounts = launch.spec.mounts_mut().as_mut().expect("mounts");
        mounts.push(spec::tmpfs("/etc2/a/new", &[]));
        // It may start or not; what counts is what it can see and has changed.
        if let Ok((_, text)) = place.run_launch(launch).await {
            assert!(!text.contains("canary"), "{link} -> {target:?}: {text}");
        }
        outside.assert_untouched();
    }
}

#[tokio::test]
async fn the_kernel_s_own_views_are_mounted_on_ordinary_directories_only() {
    let Some(_) = runtime() else { return };
    for (name, kind) in [("proc", "proc"), ("sys", "sysfs")] {
        let refused = format!("filesystem \"{kind}\" must be mounted on ordinary directory");
        for target in [Some("elsewhere"), Some("nowhere"), None] {
            let place = Box::new();
            let path = place.lower().join(name);
            let _ = fs::remove_dir(&path);
            fs::create_dir(place.lower().join("elsewhere")).expect("a directory");
            match target {
                Some(target) => symlink(target, &path).expect("a link"),
                None => fs::write(&path, "").expect("a file"),
            }
            let error = place.run_launch(place.launch("echo started")).await;
            let error = error.expect_err("it is no place to mount on").to_string();
            assert!(error.contains(&refused), "/{name} -> {target:?}: {error}");
            let left = fs::read_dir(place.lower().join("elsewhere")).expect("a directory");
            assert_eq!(left.count(), 0, "nothing is made where the link leads");
        }
    }
    // Devices go wherever the image has its /dev, as with runc: nothing of the kernel is masked there.
    let place = Box::new();
    let _ = fs::remove_dir(place.lower().join("dev"));
    fs::create_dir(place.lower().join("elsewhere")).expect("a directory");
    symlink("elsewhere", place.lower().join("dev")).expect("a link");
    let (_, text) = place.run("test -c /elsewhere/null && echo fine").await;
    assert_eq!(text, "fine\n");
}

#[tokio::test]
async fn a_device_directory_that_is_mounted_is_not_believed() {
    let Some(_) = runtime() else { return };
    // With one mounted there, nothing is put into `/dev`: whoever fills it chooses what is called `null`.
    let outside = Outside::new();
    for null in ["plain", "zero", "link", "trigger", "nothing"] {
        let place = Box::new();
        let devices = tempfile::Builder::new()
            .prefix("vol")
            .tempdir_in("/tmp")
            .expect("a directory");
        let path = devices.path().join("null");
        match null {
            "plain" => fs::write(&path, "canary\n").expect("a file"),
            "zero" => {
                let (kind, mode) = (
                    rustix::fs::FileType::CharacterDevice,
                    rustix::fs::Mode::from_raw_mode(0o666),
                );
                rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, rustix::fs::makedev(1, 5)).expect("a device");
            }
            "link" => symlink(outside.path().join("secret"), &path).expect("a link"),
            "trigger" => symlink("/proc/sysrq-trigger", &path).expect("a link"),
            _ => {}
        }
        let mut launch =
            place.launch("for f in /proc/keys /proc/timer_list; do stat -c '%F %t:%T' $f; done; cat /proc/keys");
        let mounts = launch.spec.mounts_mut().as_mut().expect("mounts");
        mounts.retain(|mount| !mount.destination().starts_with("/dev"));
        mounts.push(spec::bind(devices.path(), "/dev", false, "rprivate"));
        let (_, text) = place.run_launch(launch).await.expect("it starts");
        assert_eq!(text, "character special file 1:3\n".repeat(2), "{null}");
    }
    outside.assert_untouched();
}

#[tokio::test]
async fn a_terminal_comes_from_the_kernel_whatever_is_called_so() {
    let Some(_) = runtime() else { return };
    let outside = Outside::new();
    let terminals = tempfile::Builder::new()
        .prefix("vol")
        .tempdir_in("/tmp")
        .expect("a directory");
    fs::write(terminals.path().join("ptmx"), "canary\n").expect("a file");
    symlink(outside.path().join("secret"), terminals.path().join("0")).expect("a link");
    let with_terminal = |place: &Box| {
        let mut launch = place.launch("tty; readlink /dev/console");
        change_process(&mut launch, |process| {
            process.set_terminal(Some(true));
        });
        launch
    };
    let place = Box::new();
    let mut launch = with_terminal(&place);
    let mounts = launch.spec.mounts_mut().as_mut().expect("mounts");
    mounts.push(spec::bind(terminals.path(), "/dev/pts", false, "rprivate"));
    let error = place.run_launch(launch).await.expect_err("there are no terminals");
    assert!(error.to_string().contains("/dev/pts is not a devpts"), "{error}");
    // Where the console is to be, a link leads inside.
    let place = Box::new();
    let devices = tempfile::Builder::new()
        .prefix("vol")
        .tempdir_in("/tmp")
        .expect("a directory");
    symlink(outside.path().join("console"), devices.path().join("console")).expect("a link");
    fs::create_dir(devices.path().join("pts")).expect("a directory");
    let mut launch = with_terminal(&place);
    let mounts = launch.spec.mounts_mut().as_mut().expect("mounts");
    mounts.retain(|mount| !mount.destination().starts_with("/dev"));
    mounts.push(spec::bind(devices.path(), "/dev", false, "rprivate"));
    let options = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    mounts.push(spec::mount("/dev/pts", "devpts", "devpts", &options));
    let _ = place.run_launch(launch).await;
    outside.assert_untouched();
}

#[tokio::test]
async fn nothing_is_mounted_inside_the_kernel_s_own_view() {
    let Some(_) = runtime() else { return };
    for destination in ["/proc/self/attr", "/proc/sys/kernel", "/etc/../proc/1", "/proc/self"] {
        let place = Box::new();
        let mut launch = place.launch("echo started");
        let mounts = launch.spec.mounts_mut().as_mut().expect("mounts");
        mounts.push(spec::tmpfs(destination, &[]));
        let error = place.run_launch(launch).await.expect_err("it is no place to mount on");
        assert!(error.to_string().contains("is inside /proc"), "{destination}: {error}");
    }
}

/// Exchanges two names for as long as the flag is set.
fn exchange(pairs: Vec<(PathBuf, PathBuf)>, goes_on: Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut count = 0;
        while goes_on.load(Ordering::Relaxed) {
            for (one, other) in &pairs {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                if rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, flags).is_ok() {
                    count += 1;
                }
            }
        }
        count
    })
}

#[tokio::test]
async fn paths_exchanged_for_links_meanwhile_lead_nowhere() {
    start_while_paths_are_exchanged(crate::support::extent(150, 10_000)).await;
}

async fn start_while_paths_are_exchanged(rounds: usize) {
    let Some(runtime) = runtime() else { return };
    let outside = Outside::new();
    let place = Box::new();
    let volume = tempfile::Builder::new()
        .prefix("vol")
        .tempdir_in("/tmp")
        .expect("a directory");
    // Written to directly, so that what is exchanged is what the runtime walks: places of the image and of a volume.
    let mut pairs = Vec::new();
    for (base, name, target) in [
        (place.lower(), "data", "a"),
        (place.lower(), "conf", ""),
        (place.lower(), "work", "sub"),
        (place.lower(), "run", "a"),
        (volume.path().to_owned(), "inner", "a"),
    ] {
        let (real, link) = (base.join(name), base.join(format!("{name}.link")));
        fs::create_dir_all(real.join("b")).expect("a directory");
        fs::write(real.join("hosts"), "own\n").expect("a file");
        fs::write(real.join("secret"), "own\n").expect("a file");
        symlink(outside.path().join(target), &link).expect("a link");
        pairs.push((real, link));
    }
    let goes_on = Arc::new(AtomicBool::new(true));
    let swapper = exchange(pairs, Arc::clone(&goes_on));
    let mut started = 0;
    for _ in 0..rounds {
        let mut launch =
            place.launch("cat /conf/secret /data/hosts /vol/inner/hosts 2>/dev/null; touch /data/mine 2>/dev/null");
        launch.root = Root::Directory(place.lower());
        change_process(&mut launch, |process| {
            process.set_cwd("/work/new".into());
        });
        let linux = launch.spec.linux_mut().as_mut().expect("linux");
        linux
            .masked_paths_mut()
            .as_mut()
            .expect("masks")
            .push("/conf/secret".to_owned());
        linux
            .readonly_paths_mut()
            .as_mut()
            .expect("paths")
            .push("/data/b".to_owned());
        let mounts = launch.spec.mounts_mut().as_mut().expect("mounts");
        mounts.push(spec::tmpfs("/data/fresh", &[]));
        mounts.push(spec::bind(place.path("log.in"), "/run/hosts", false, "rprivate"));
        mounts.push(spec::bind(volume.path(), "/vol", false, "rprivate"));
        mounts.push(spec::tmpfs("/vol/inner/deep/er", &[]));
        fs::write(place.path("log.in"), "mounted\n").expect("a file");
        if let Ok(container) = runtime.start(launch).await {
            started += 1;
            within(container.wait()).await;
        }
    }
    goes_on.store(false, Ordering::Relaxed);
    let exchanged = swapper.join().expect("the thread ends");
    outside.assert_untouched();
    assert!(!place.log().contains("canary"), "nothing outside is read");
    assert!(exchanged > 0 && started > 0, "{started} starts, {exchanged} exchanges");
}

#[tokio::test]
async fn a_container_cannot_change_its_cgroups_or_the_kernel() {
    let Some(_) = runtime() else { return };
    let place = Box::new();
    let (_, text) = place
        .run(
            "for f in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/notify_on_release /sys/fs/cgroup/*/devices.allow \
             /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/memory.limit_in_bytes \
             /sys/fs/cgroup/*/pids.max /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sysrq-trigger \
             /proc/irq/default_smp_affinity /sys/kernel/uevent_helper /sys/power/state /proc/self/oom_adj.none; do \
             test -e $f && (echo 0 > $f) 2>/dev/null && echo WROTE $f; done; \
             mkdir /sys/fs/cgroup/memory/x 2>/dev/null && echo MADE; mount -t cgroup c /tmp 2>/dev/null && echo MOUNTED; \
             mount -o remount,rw /sys 2>/dev/null && echo REMOUNTED; unshare -U true 2>/dev/null && echo UNSHARED; \
             cat /proc/kcore 2>/dev/null | head -c 1 | wc -c; cat /proc/keys | wc -c; echo end",
        )
        .await;
    for word in ["WROTE", "MADE", "MOUNTED", "REMOUNTED", "UNSHARED"] {
        assert!(!text.contains(word), "{text}");
    }
    assert!(text.ends_with("end\n"), "{text}");
    assert!(
        text.lines().filter(|line| line.trim() == "0").count() >= 2,
        "hidden files are empty: {text}"
    );
}

#[tokio::test]
async fn the_runtime_s_own_program_cannot_be_changed_and_all_shims_share_it() {
    let Some(runtime) = runtime() else { return };
    let (one, other) = (Box::new(), Box::new());
    let mut containers = Vec::new();
    for place in [&one, &other] {
        let mut launch = place.launch("sleep 60");
        launch.init = true;
        containers.push(runtime.start(launch).await.expect("it starts"));
    }
    // Process 1 of the container is our own program (CVE-2019-5736).
    let (_, text) = exec(
        &containers[0],
        &[
            "sh",
            "-c",
            "readlink /proc/1/exe; exec 3</proc/1/exe; (echo x > /proc/self/fd/3) 2>&1; (echo x > /proc/1/exe) 2>&1",
        ],
    )
    .await;
    assert!(text.contains("memfd:compose"), "{text}");
    let refused = text.lines().filter(|line| line.contains("can't create")).count();
    assert_eq!(refused, 2, "{text}");
    let program = |process: u32| fs::File::open(format!("/proc/{process}/exe")).expect("a program");
    let inodes: Vec<u64> = containers
        .iter()
        .flat_map(|container| [container.shim_pid(), container.pid()])
        .map(|process| program(process).metadata().expect("metadata").ino())
        .collect();
    assert!(
        inodes.iter().all(|inode| *inode == inodes[0]),
        "one copy for all: {inodes:?}"
    );
    let seals = rustix::fs::fcntl_get_seals(program(containers[0].shim_pid())).expect("it is in memory");
    let wanted = rustix::fs::SealFlags::WRITE | rustix::fs::SealFlags::GROW | rustix::fs::SealFlags::SHRINK;
    assert!(seals.contains(wanted | rustix::fs::SealFlags::SEAL), "{seals:?}");
    for container in &containers {
        container.kill(9).await.expect("killed");
        within(container.wait()).await;
    }
}

#[tokio::test]
async fn secrets_stay_out_of_supervisors() {
    let Some(runtime) = runtime() else { return };
    let place = Box::new();
    let mut launch = place.launch("sleep 60");
    change_process(&mut launch, |process| {
        process
            .env_mut()
            .get_or_insert_default()
            .push("CANARY=tell-nobody".to_owned());
    });
    let container = runtime.start(launch).await.expect("it starts");
    let shim = container.shim_pid();
    for file in ["environ", "cmdline"] {
        let text = fs::read_to_string(format!("/proc/{shim}/{file}")).expect("a process's file");
        // Nor has it anything of the environment of whoever started it.
        assert!(file != "environ" || text.is_empty(), "{text}");
        assert!(!text.contains("tell-nobody"), "{file}");
    }
    for (path, said) in picture(&place.path("c")) {
        assert!(!said.contains("tell-nobody"), "{}", path.display());
    }
    container.kill(9).await.expect("killed");
    within(container.wait()).await;
}
