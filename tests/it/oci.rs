//! `compose oci`: a runtime's command line, and the same jail as those of runc and crun given the same bundle.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{available, binary, has_busybox, is_root, text};

/// A bundle of busybox, and a place where a runtime remembers its containers.
struct Bundle {
    directory: tempfile::TempDir,
}

impl Bundle {
    /// Runs it where something else lies over a place of the machine, in a namespace of mounts of its own.
    fn run_behind(&self, other: &Path, place: &str) -> Output {
        let script = "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"";
        Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(other)
            .arg(place)
            .arg(binary())
            .args(["oci", "--root"])
            .arg(self.path("state"))
            .args(["run", &self.id()])
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .output()
            .expect("unshare runs")
    }

    /// Makes a bundle with Docker's defaults, changed as the test wants; nothing where the rights for it are missing.
    fn new(change: impl FnOnce(&mut Value)) -> Option<Self> {
        if !available("root", is_root()) || !available("a static busybox at /bin/busybox", has_busybox()) {
            return None;
        }
        let directory = tempfile::Builder::new()
            .prefix("co")
            .tempdir_in("/tmp")
            .expect("a directory in /tmp");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let bundle = Self { directory };
        for name in ["bin", "etc", "tmp", "proc", "dev", "sys"] {
            fs::create_dir_all(bundle.path("rootfs").join(name)).expect("a directory of the root");
        }
        fs::copy("/bin/busybox", bundle.path("rootfs/bin/busybox")).expect("busybox");
        for applet in [
            "sh", "cat", "ls", "sleep", "id", "grep", "readlink", "kill", "echo", "hostname", "stat", "tty", "stty",
            "pwd", "env", "sort", "touch", "mkfifo", "true", "head", "dd", "mount", "printf", "sed",
        ] {
            std::os::unix::fs::symlink("busybox", bundle.path("rootfs/bin").join(applet)).expect("an applet");
        }
        let output = Command::new(binary())
            .args(["oci", "spec"])
            .current_dir(bundle.directory.path())
            .output()
            .expect("the binary runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let config = fs::read_to_string(bundle.path("config.json")).expect("a spec");
        let mut config: Value = serde_json::from_str(&config).expect("JSON");
        config["process"]["args"] = json!(["sh", "-c", "true"]);
        // The newest that all runtimes on Debian know.
        config["ociVersion"] = json!("1.0.2");
        change(&mut config);
        fs::write(bundle.path("config.json"), config.to_string()).expect("a spec");
        Some(bundle)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns an id of this bundle's own.
    fn id(&self) -> String {
        let name = self.directory.path().file_name().expect("a name");
        format!("oci-{}", name.to_string_lossy())
    }

    /// Returns a command of our runtime.
    fn oci(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .arg("oci")
            .arg("--root")
            .arg(self.path("state"))
            .args(arguments)
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        // To a file: a container that stays holds its streams open.
        let out = self.path(".out");
        let error = self.path(".err");
        let mut command = self.oci(arguments);
        command.stdout(fs::File::create(&out).expect("a file"));
        command.stderr(fs::File::create(&error).expect("a file"));
        let status = command.status().expect("the binary runs");
        Output {
            status,
            stdout: fs::read(out).expect("its output"),
            stderr: fs::read(error).expect("its output"),
        }
    }

    #[track_caller]
    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    #[track_caller]
    fn fail(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        text(&output.stderr)
    }

    fn status(&self) -> String {
        let state: Value = serde_json::from_str(&self.succeed(&["state", &self.id()])).expect("a state");
        state["status"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the container has the status.
    #[track_caller]
    fn wait_for(&self, wanted: &str) {
        for _ in 0..400 {
            if self.status() == wanted {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the container is {}, not {wanted}", self.status());
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.oci(&["delete", "--force", &self.id()]).output();
    }
}

fn shell(script: &str) -> Value {
    json!(["sh", "-c", script])
}

/// What a container says of itself, and how a runtime's answer is brought to what must agree.
struct Account {
    status: BTreeMap<String, String>,
    limits: Vec<String>,
    mounts: BTreeMap<String, String>,
    rest: Vec<String>,
}

const QUESTIONS: &str = "cat /proc/self/status; echo ==; cat /proc/self/limits; echo ==; cat /proc/self/mountinfo; \
     echo ==; cd /dev; for d in *; do stat -c '%n %F %a %t:%T %u:%g' $d; done; readlink fd stdin stdout stderr ptmx; \
     hostname; pwd; env | sort; id; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; \
     for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do head -c 1 $f | wc -c 2>/dev/null; done; \
     ls /proc/acpi /sys/firmware; echo x 2>&1 >/proc/sys/kernel/domainname; echo 1 2>&1 >/proc/sysrq-trigger; \
     mount -t tmpfs x /tmp 2>&1; dd if=/dev/mem bs=1 count=1 2>&1; mkdir /sys/fs/cgroup/memory/x 2>&1; true";

impl Account {
    fn read(output: &Output, whose: &str) -> Self {
        assert!(output.status.success(), "{whose}: {}", text(&output.stderr));
        let said = text(&output.stdout);
        let mut parts = said.split("==\n");
        let mut part = || parts.next().unwrap_or_default();
        // What differs from run to run, or says how many steps a runtime took.
        let ignored = [
            "Tgid",
            "Pid",
            "PPid",
            "NStgid",
            "NSpid",
            "NSpgid",
            "NSsid",
            "Ngid",
            "State",
            "FDSize",
            "RssAnon",
            "VmPeak",
            "VmHWM",
            "VmRSS",
            "RssFile",
            "voluntary_ctxt_switches",
            "nonvoluntary_ctxt_switches",
            "VmPTE",
            "SigQ",
            "SigIgn",
            "VmSize",
            "VmData",
            "VmStk",
            "VmExe",
            "VmLib",
            "RssShmem",
            "Seccomp_filters",
        ];
        let status = part()
            .lines()
            .filter_map(|line| line.split_once(':'))
            .filter(|(key, _)| !ignored.contains(key))
            .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
            .collect();
        let limits = part().lines().map(str::to_owned).collect();
        let mounts = part()
            .lines()
            .filter_map(|line| {
                let (left, right) = line.split_once(" - ")?;
                let left: Vec<&str> = left.split(' ').collect();
                let right: Vec<&str> = right.split(' ').collect();
                // Which of the harmless null devices covers a file is the runtime's choice.
                let is_null = left[3] == "/null";
                let what = if is_null {
                    "null".to_owned()
                } else {
                    let data: Vec<&str> = right[2]
                        .split(',')
                        .filter(|option| !option.contains("inode") && *option != "size=4k")
                        .collect();
                    format!("{} {} {}", left[5], right[0], data.join(","))
                };
                let tags = left[6..].join(" ");
                Some((left[4].to_owned(), format!("{what} {tags}")))
            })
            // The systemd hierarchy has no controller, so we give it no cgroup.
            .filter(|(point, _)| point != "/sys/fs/cgroup/systemd")
            .collect();
        let rest = part().lines().map(str::to_owned).collect();
        Self {
            status,
            limits,
            mounts,
            rest,
        }
    }
}

/// Runs another runtime on a bundle.
fn peer(bundle: &Bundle, script: &str) -> Output {
    // Debian's crun takes cgroups of one kind only, so it gets a mount namespace with the unified hierarchy alone.
    Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .env("STATE", bundle.path("peer"))
        .env("ID", bundle.id())
        .current_dir(bundle.directory.path())
        .stdin(Stdio::null())
        .output()
        .expect("unshare is there")
}

fn is_installed(program: &str) -> bool {
    let places = ["/usr/sbin", "/usr/bin", "/usr/local/bin"];
    available(
        program,
        places.iter().any(|place| Path::new(place).join(program).exists()),
    )
}

#[test]
fn the_jail_is_that_of_runc_and_crun() {
    let change = |config: &mut Value| {
        config["process"]["args"] = shell(QUESTIONS);
        config["process"]["user"] = json!({"uid": 33, "gid": 34, "additionalGids": [50, 51]});
        config["process"]["noNewPrivileges"] = json!(true);
        config["process"]["env"] = json!(["PATH=/bin", "A=b", "HOME=/tmp"]);
        config["process"]["cwd"] = json!("/tmp");
        config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
        config["hostname"] = json!("jail");
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
        });
        config["linux"]["devices"] = json!([
            {"path": "/dev/extra", "type": "c", "major": 1, "minor": 3, "fileMode": 384, "uid": 33, "gid": 34},
        ]);
    };
    let Some(bundle) = Bundle::new(change) else { return };
    let ours = Account::read(&bundle.run(&["run", &bundle.id()]), "ours");
    assert_eq!(ours.status["Seccomp"], "2");
    assert_eq!(ours.status["CapEff"], "0000000000000000");
    assert!(ours.mounts.len() > 20, "{:?}", ours.mounts);
    if is_installed("runc") {
        let output = peer(&bundle, "runc --root $STATE run $ID");
        let theirs = Account::read(&output, "runc");
        assert_eq!(ours.status, theirs.status, "status, against runc");
        assert_eq!(ours.limits, theirs.limits, "limits, against runc");
        assert_eq!(ours.mounts, theirs.mounts, "mounts, against runc");
        assert_eq!(ours.rest, theirs.rest, "the rest, against runc");
    }
    if is_installed("crun") {
        let script = "mount --make-rprivate / && umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && \
                      crun --cgroup-manager=disabled --root $STATE run $ID";
        let theirs = Account::read(&peer(&bundle, script), "crun");
        assert_eq!(ours.status, theirs.status, "status, against crun");
        assert_eq!(ours.limits, theirs.limits, "limits, against crun");
        let points = |account: &Account| -> Vec<String> {
            let below_cgroup = |point: &&String| !point.starts_with("/sys/fs/cgroup");
            account.mounts.keys().filter(below_cgroup).cloned().collect()
        };
        assert_eq!(
            points(&ours),
            points(&theirs),
            "what is mounted and masked, against crun"
        );
    }
}

#[test]
fn a_container_goes_through_its_states() {
    let change = |config: &mut Value| config["process"]["args"] = shell("echo runs; sleep 1000");
    let Some(bundle) = Bundle::new(change) else { return };
    let id = bundle.id();
    assert!(bundle.fail(&["state", &id]).contains("container does not exist"));
    bundle.succeed(&["create", "--pid-file", "pid", &id]);
    assert_eq!(bundle.status(), "created");
    let state: Value = serde_json::from_str(&bundle.succeed(&["state", &id])).expect("a state");
    let pid = fs::read_to_string(bundle.path("pid")).expect("a number");
    assert_eq!(state["pid"].to_string(), pid);
    assert_eq!(
        state["bundle"],
        json!(fs::canonicalize(bundle.directory.path()).expect("a path"))
    );
    assert!(bundle.fail(&["create", &id]).contains("already exists"));
    // Before it starts it holds nothing of the host but what the word comes by.
    let held: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("descriptors")
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(|link| link.display().to_string())
        .filter(|link| link != "/dev/null" && !link.contains("/.out") && !link.contains("/.err"))
        .collect();
    assert_eq!(held.len(), 1, "{held:?}");
    assert!(held[0].ends_with("exec.fifo"), "{held:?}");
    bundle.succeed(&["start", &id]);
    assert_eq!(bundle.status(), "running");
    assert!(
        bundle
            .fail(&["start", &id])
            .contains("cannot start an already running container")
    );
    assert!(bundle.fail(&["delete", &id]).contains("that is not stopped: running"));
    bundle.succeed(&["pause", &id]);
    assert_eq!(bundle.status(), "paused");
    assert!(bundle.fail(&["exec", &id, "true"]).contains("paused"));
    bundle.succeed(&["resume", &id]);
    let numbers: Vec<u32> = serde_json::from_str(&bundle.succeed(&["ps", "-f", "json", &id])).expect("numbers");
    assert!(numbers.contains(&pid.parse().expect("a number")), "{numbers:?}");
    assert!(bundle.succeed(&["list"]).contains(&id));
    bundle.succeed(&["kill", &id, "KILL"]);
    bundle.wait_for("stopped");
    assert!(bundle.fail(&["kill", &id]).contains("container not running"));
    bundle.succeed(&["delete", &id]);
    assert!(bundle.fail(&["delete", &id]).contains("container does not exist"));
    bundle.succeed(&["delete", "--force", &id]);
    for hierarchy in fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
        assert!(
            !hierarchy.path().join("compose-oci").join(&id).exists(),
            "a cgroup is left"
        );
    }
}

#[test]
fn a_process_runs_in_a_container() {
    let change = |config: &mut Value| config["process"]["args"] = json!(["sleep", "1000"]);
    let Some(bundle) = Bundle::new(change) else { return };
    let id = bundle.id();
    bundle.succeed(&["run", "-d", &id]);
    assert_eq!(bundle.succeed(&["exec", &id, "echo", "-n", "hi"]), "hi");
    assert_eq!(bundle.run(&["exec", &id, "sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(
        bundle.run(&["exec", &id, "sh", "-c", "kill -9 $$"]).status.code(),
        Some(137)
    );
    let script = "id -u; id -g; pwd; echo $A; grep CapEff /proc/self/status; readlink /proc/self/ns/mnt";
    let said = bundle.succeed(&[
        "exec", "--user", "33:34", "--cwd", "/tmp", "--env", "A=b", &id, "sh", "-c", script,
    ]);
    let pid: Value = serde_json::from_str(&bundle.succeed(&["state", &id])).expect("a state");
    let namespace = fs::read_link(format!("/proc/{}/ns/mnt", pid["pid"])).expect("a namespace");
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        [
            "33",
            "34",
            "/tmp",
            "b",
            "CapEff:\t0000000000000000",
            &namespace.display().to_string()
        ]
    );
    // What is added is not inherited either (CVE-2022-29162).
    let sets = ["grep", "-E", "CapInh|CapEff|CapAmb", "/proc/self/status"];
    let said = bundle.succeed(&[&["exec", "--cap", "CAP_NET_ADMIN", &id], &sets[..]].concat());
    let words: Vec<&str> = said.split_whitespace().collect();
    let none = "0000000000000000";
    assert_eq!(words, ["CapInh:", none, "CapEff:", "00000000a80435fb", "CapAmb:", none]);
    let process = json!({
        "args": ["sh", "-c", "grep -E 'NoNewPrivs|Groups' /proc/self/status"],
        "cwd": "/", "env": ["PATH=/bin"], "noNewPrivileges": true,
        "user": {"uid": 0, "gid": 0, "additionalGids": [7]},
    });
    fs::write(bundle.path("process.json"), process.to_string()).expect("a process");
    let said = bundle.succeed(&["exec", "-p", "process.json", "--pid-file", "exec.pid", &id]);
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words, ["Groups:", "7", "NoNewPrivs:", "1"]);
    assert!(bundle.path("exec.pid").exists());
    assert!(
        bundle
            .fail(&["exec", &id, "nosuch"])
            .contains("executable file not found in $PATH")
    );
    // Numbers alone: what looks like one and is none is refused (CVE-2026-30892).
    for user in [
        "0x0",
        "+0",
        " 0",
        "-1",
        "4294967295",
        "4294967296",
        "root\n",
        "",
        "1:",
        "1:x",
        "1:4294967295",
    ] {
        let said = bundle.fail(&["exec", "--user", user, &id, "true"]);
        assert!(
            said.contains("is not a user's or group's number") || said.contains("unexpected"),
            "{user:?}: {said}"
        );
    }
}

#[test]
fn a_number_that_stands_for_nobody_leaves_nobody_as_root() {
    // To the kernel, the greatest number means to stay who one is.
    for user in [
        json!({"uid": 4_294_967_295_u32, "gid": 0}),
        json!({"uid": 1, "gid": 4_294_967_295_u32}),
        json!({"uid": 1, "gid": 1, "additionalGids": [4_294_967_295_u32]}),
    ] {
        let Some(bundle) = Bundle::new(|config| {
            config["process"]["user"] = user.clone();
            config["process"]["args"] = shell("id");
        }) else {
            return;
        };
        let output = bundle.run(&["run", &bundle.id()]);
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{user}: {}", text(&output.stdout));
        assert_eq!(text(&output.stdout), "", "{user}");
        assert!(
            said.contains("become user") || said.contains("setgroups: invalid argument"),
            "{user}: {said}"
        );
    }
}

#[test]
fn a_kernel_parameter_is_written_to_the_kernel_or_not_at_all() {
    let Some(bundle) = Bundle::new(|config| {
        config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        config["process"]["args"] = shell("cat /proc/sys/net/ipv4/ip_forward");
    }) else {
        return;
    };
    assert_eq!(bundle.succeed(&["run", &bundle.id()]), "1\n");
    // Something else lies where the parameter is, in a namespace of mounts of this test's own.
    let decoy = bundle.path("decoy");
    let parameter = decoy.join("net/ipv4/ip_forward");
    fs::create_dir_all(parameter.parent().expect("it is below")).expect("a directory");
    fs::write(&parameter, "untouched").expect("a file");
    let output = bundle.run_behind(&decoy, "/proc/sys");
    let said = text(&output.stderr);
    assert!(
        !output.status.success() && said.contains("unsafe procfs detected"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(parameter).expect("a file"), "untouched");
}

#[test]
fn what_hides_files_is_the_null_device_or_nothing_starts() {
    let Some(bundle) = Bundle::new(|config| {
        config["linux"]["maskedPaths"] = json!(["/proc/keys"]);
        config["process"]["args"] = shell("stat -c %t:%T /proc/keys");
    }) else {
        return;
    };
    assert_eq!(bundle.succeed(&["run", &bundle.id()]), "1:3\n");
    // Something else lies where the machine's is, in a namespace of mounts of this test's own.
    let decoy = bundle.path("decoy");
    fs::write(&decoy, "untouched").expect("a file");
    for other in [decoy.as_path(), Path::new("/dev/zero")] {
        let output = bundle.run_behind(other, "/dev/null");
        let said = text(&output.stderr);
        assert!(
            !output.status.success() && said.contains("not the null device"),
            "{}: {said}",
            other.display()
        );
        assert_eq!(text(&output.stdout), "");
    }
    assert_eq!(fs::read_to_string(decoy).expect("a file"), "untouched");
}

#[test]
fn hooks_run_where_and_when_they_should() {
    let change = |config: &mut Value| {
        let hook = |name: &str| {
            let script = format!(
                "cat >/dev/null; echo {name} $(readlink /proc/self/ns/mnt) $(test -e /bundle-mark && echo inside) >> $LOG"
            );
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["LOG=/LOG", "PATH=/bin:/usr/bin"]}])
        };
        for name in [
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ] {
            config["hooks"][name] = hook(name);
        }
        config["process"]["args"] = shell("echo process >> /LOG");
    };
    let Some(bundle) = Bundle::new(change) else { return };
    let log = bundle.path("log");
    fs::write(bundle.path("rootfs/bundle-mark"), "").expect("a mark");
    fs::write(&log, "").expect("a log");
    // Inside, the log is mounted at the path that it has outside.
    let config = fs::read_to_string(bundle.path("config.json")).expect("a spec");
    let config = config.replace("/LOG", &log.display().to_string());
    let mut config: Value = serde_json::from_str(&config).expect("JSON");
    let mounts = config["mounts"].as_array_mut().expect("mounts");
    mounts.push(json!({"destination": log, "type": "bind", "source": log, "options": ["bind"]}));
    fs::write(bundle.path("config.json"), config.to_string()).expect("a spec");
    let id = bundle.id();
    bundle.succeed(&["create", &id]);
    let names = || -> Vec<String> {
        let said = fs::read_to_string(&log).expect("a log");
        said.lines()
            .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(names(), ["createRuntime", "createContainer"]);
    bundle.succeed(&["start", &id]);
    bundle.wait_for("stopped");
    bundle.succeed(&["delete", &id]);
    let mut all = names();
    assert_eq!(all.pop().as_deref(), Some("poststop"));
    // The process may be done before or after the hook that runs once it was started.
    all.sort();
    assert_eq!(
        all,
        [
            "createContainer",
            "createRuntime",
            "poststart",
            "process",
            "startContainer"
        ]
    );
    let said = fs::read_to_string(&log).expect("a log");
    let host = fs::read_link("/proc/self/ns/mnt")
        .expect("a namespace")
        .display()
        .to_string();
    for line in said.lines().filter(|line| *line != "process") {
        let is_inside = line.starts_with("createContainer") || line.starts_with("startContainer");
        assert_eq!(line.contains(&host), !is_inside, "{line}");
        assert_eq!(line.contains("inside"), line.starts_with("startContainer"), "{line}");
    }
}

#[test]
fn a_failed_hook_leaves_nothing() {
    let change = |config: &mut Value| {
        config["hooks"]["createRuntime"] = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo no luck; exit 1"]}]);
    };
    let Some(bundle) = Bundle::new(change) else { return };
    let said = bundle.fail(&["create", &bundle.id()]);
    assert!(
        said.contains("error running createRuntime hook #0") && said.contains("no luck"),
        "{said}"
    );
    assert!(
        bundle
            .fail(&["state", &bundle.id()])
            .contains("container does not exist")
    );
    assert_eq!(fs::read_dir(bundle.path("state")).expect("the state").count(), 0);
}

#[test]
fn a_terminal_goes_to_the_console_socket() {
    use std::io::Read;
    let change = |config: &mut Value| {
        config["process"]["args"] = shell("tty; stty -echo; stat -c %F /dev/console");
        config["process"]["terminal"] = json!(true);
    };
    let Some(bundle) = Bundle::new(change) else { return };
    let id = bundle.id();
    let said = bundle.fail(&["create", &id]);
    assert!(said.contains("without setting --console-socket"), "{said}");
    let listener = std::os::unix::net::UnixListener::bind(bundle.path("console")).expect("a socket");
    bundle.succeed(&["create", "--console-socket", "console", &id]);
    let (stream, _) = listener.accept().expect("a connection");
    let message = compose::os::socket::receive(&stream).expect("a message").expect("one");
    let mut terminal = fs::File::from(message.descriptors.into_iter().next().expect("a terminal"));
    bundle.succeed(&["start", &id]);
    let mut text = String::new();
    let mut buffer = [0; 1024];
    // The end of a terminal reads as an error.
    while let Ok(count @ 1..) = terminal.read(&mut buffer) {
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert_eq!(text, "/dev/pts/0\r\ncharacter special file\r\n");
}

#[test]
fn broken_bundles_are_refused_and_leave_nothing() {
    let Some(bundle) = Bundle::new(|_| {}) else { return };
    let id = bundle.id();
    let whole: Value =
        serde_json::from_str(&fs::read_to_string(bundle.path("config.json")).expect("a spec")).expect("JSON");
    let cases: [(&str, Value, &str); 6] = [
        ("/process/args", json!([]), "process.args must not be empty"),
        ("/process/cwd", json!("tmp"), "is not absolute"),
        ("/root/path", json!("nosuch"), "No such file or directory"),
        ("/ociVersion", json!("9.0"), "is not one of 1.x"),
        ("/process/args", json!(["nosuch"]), "executable file not found in $PATH"),
        ("/process/cwd", json!("/proc/self/fd/7"), "/proc/self/fd/7"),
    ];
    for (pointer, value, wanted) in cases {
        let mut config = whole.clone();
        *config.pointer_mut(pointer).expect("a field") = value;
        fs::write(bundle.path("config.json"), config.to_string()).expect("a spec");
        let said = bundle.fail(&["create", &id]);
        assert!(said.contains(wanted), "{pointer}: {said}");
        let left = fs::read_dir(bundle.path("state")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{pointer}");
    }
    fs::write(bundle.path("config.json"), "{").expect("a spec");
    assert!(bundle.fail(&["create", &id]).contains("config.json"));
    for name in ["..", ".", "a/b", "", "a b"] {
        assert!(
            bundle.fail(&["create", name]).contains("invalid container ID format"),
            "{name:?}"
        );
    }
}

/// Every field of the specification's `linux` section that Docker fills in does its work.
#[test]
fn every_field_docker_uses_does_its_work() {
    let Some(bundle) = Bundle::new(|config| {
        let linux = &mut config["linux"];
        linux["cgroupsPath"] = json!("/compose-test-oci/one");
        linux["maskedPaths"] = json!(["/proc/version", "/tmp"]);
        linux["readonlyPaths"] = json!(["/etc"]);
        linux["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096"});
        linux["rootfsPropagation"] = json!("shared");
        linux["devices"] =
            json!([{"path": "/dev/own", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "gid": 7}]);
        linux["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        linux["gidMappings"] = json!([{"containerID": 0, "hostID": 200_000, "size": 1000}]);
        let namespaces = linux["namespaces"].as_array_mut().expect("namespaces");
        namespaces.extend([json!({"type": "cgroup"}), json!({"type": "user"})]);
        let deny = json!({"allow": false, "access": "rwm"});
        linux["resources"] = json!({
            "devices": [deny],
            "memory": {"limit": 33_554_432, "reservation": 16_777_216},
            "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0"},
            "pids": {"limit": 40},
            "blockIO": {"weight": 500},
        });
        linux["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}],
        });
        config["process"]["args"] = shell(
            "cat /proc/version | head -c 1; ls /tmp; touch /etc/x 2>&1; \
             cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; stat -c '%a %g %t:%T' /dev/own; \
             cat /proc/self/uid_map /proc/self/gid_map | sed 's/  */ /g'; cat /proc/self/cgroup | grep -c compose-test; \
             grep Cpus_allowed_list /proc/self/status; hostname new 2>&1; \
             for n in cgroup user uts ipc net pid mnt; do readlink /proc/self/ns/$n; done; sleep 1000",
        );
    }) else {
        return;
    };
    // In its user namespace root must be able to read what it runs, and write where its mount points are made.
    for path in [
        "rootfs",
        "rootfs/tmp",
        "rootfs/etc",
        "rootfs/dev",
        "rootfs/proc",
        "rootfs/sys",
    ] {
        std::os::unix::fs::chown(bundle.path(path), Some(100_000), Some(200_000)).expect("an owner");
    }
    let id = bundle.id();
    let out = bundle.path("said");
    let status = bundle
        .oci(&["run", "-d", &id])
        .stdout(fs::File::create(&out).expect("a file"))
        .stderr(fs::File::create(bundle.path("error")).expect("a file"))
        .status();
    let error = || fs::read_to_string(bundle.path("error")).unwrap_or_default();
    assert!(status.is_ok_and(|status| status.success()), "{}", error());
    let mut said = String::new();
    for _ in 0..400 {
        said = fs::read_to_string(&out).expect("its output");
        if said.contains("mnt:[") {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    assert_eq!(
        lines[..8],
        [
            "touch: /etc/x: Read-only file system",
            "1",
            "4096",
            "666 65534 1:5",
            "0 100000 1000",
            "0 200000 1000",
            "0",
            "Cpus_allowed_list:\t0",
        ],
        "{said}{}",
        error()
    );
    assert!(
        lines[8].contains("File descriptor in bad state"),
        "the error number 77: {said}"
    );
    for (line, name) in lines[9..]
        .iter()
        .zip(["cgroup", "user", "uts", "ipc", "net", "pid", "mnt"])
    {
        let host = fs::read_link(format!("/proc/self/ns/{name}")).expect("a namespace");
        assert_ne!(host.to_str(), Some(*line), "{name}");
        assert!(line.starts_with(name), "{said}");
    }
    let limit = |controller: &str, legacy: &str, unified: &str| {
        let legacy = Path::new("/sys/fs/cgroup")
            .join(controller)
            .join("compose-test-oci/one")
            .join(legacy);
        let unified = Path::new("/sys/fs/cgroup/compose-test-oci/one").join(unified);
        let read = fs::read_to_string(legacy).or_else(|_| fs::read_to_string(unified));
        read.unwrap_or_default().trim().to_owned()
    };
    assert_eq!(limit("memory", "memory.limit_in_bytes", "memory.max"), "33554432");
    assert_eq!(limit("pids", "pids.max", "pids.max"), "40");
    assert_eq!(limit("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert!(["50000", "50000 100000"].contains(&limit("cpu", "cpu.cfs_quota_us", "cpu.max").as_str()));
    assert_eq!(bundle.succeed(&["exec", &id, "head", "-c", "0", "/dev/own"]), "");
    bundle.succeed(&["update", "--memory", "50331648", "--pids-limit", "30", &id]);
    assert_eq!(limit("memory", "memory.limit_in_bytes", "memory.max"), "50331648");
    assert_eq!(limit("pids", "pids.max", "pids.max"), "30");
    bundle.succeed(&["delete", "--force", &id]);
    // The parent was named by the spec, so it is the caller's to remove.
    for hierarchy in fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
        let parent = hierarchy.path().join("compose-test-oci");
        assert!(!parent.join("one").exists());
        let _ = fs::remove_dir(parent);
    }
    let _ = fs::remove_dir("/sys/fs/cgroup/compose-test-oci");
}

/// What the rules for devices allow and nothing else, for a device that is not among those every container has.
#[test]
fn rules_for_devices_hold() {
    for (access, wanted) in [("w", "opened\n"), ("r", ""), ("", "")] {
        let Some(bundle) = Bundle::new(|config| {
            // The kernel's log, which root may open for writing without any further right.
            let number = json!({"path": "/dev/own", "type": "c", "major": 1, "minor": 11, "fileMode": 0o600});
            config["linux"]["devices"] = json!([number]);
            let mut rules = vec![json!({"allow": false, "access": "rwm"})];
            if !access.is_empty() {
                rules.push(json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": access}));
            }
            config["linux"]["resources"]["devices"] = json!(rules);
            config["process"]["args"] = shell("true >/dev/own && echo opened");
        }) else {
            return;
        };
        let output = bundle.run(&["run", &bundle.id()]);
        assert_eq!(text(&output.stdout), wanted, "{access:?}: {}", text(&output.stderr));
        if wanted.is_empty() {
            assert!(
                text(&output.stderr).contains("Operation not permitted"),
                "{}",
                text(&output.stderr)
            );
        }
    }
}

#[test]
fn what_it_can_do_is_told_to_programs() {
    let output = Command::new(binary())
        .args(["oci", "features"])
        .output()
        .expect("the binary runs");
    let features: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert!(
        features["linux"]["capabilities"]
            .as_array()
            .is_some_and(|all| all.contains(&json!("CAP_SYS_ADMIN")))
    );
    assert!(
        features["mountOptions"]
            .as_array()
            .is_some_and(|all| all.contains(&json!("rbind")))
    );
}
