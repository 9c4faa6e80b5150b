//! What `up` says when the file is right but the world is not, and that it says it before or instead of harm.

use std::net::TcpListener;

use crate::support::mock::{Mock, Reply};
use crate::support::{self, Project, text};

/// A project, what it needs beforehand, the command, its exit status, and texts that its standard error must have.
struct Refusal {
    name: &'static str,
    file: &'static str,
    command: &'static [&'static str],
    says: &'static [&'static str],
}

const REFUSALS: &[Refusal] = &[
    Refusal {
        name: "an image that is nowhere",
        file: "services:\n  web:\n    image: docker-archive:/nowhere/image.tar\n",
        command: &["up", "-d"],
        says: &["/nowhere/image.tar"],
    },
    Refusal {
        name: "an image that may not be pulled",
        file: "services:\n  web:\n    image: nowhere:latest\n    pull_policy: never\n",
        command: &["up", "-d"],
        says: &["No such image: nowhere:latest"],
    },
    Refusal {
        name: "a command that is not there",
        file: "services:\n  web:\n    image: busybox:latest\n    command: [nosuch]\n",
        command: &["up", "-d"],
        says: &["nosuch", "executable file not found in $PATH"],
    },
    Refusal {
        name: "a user that is not there",
        file: "services:\n  web:\n    image: busybox:latest\n    user: nosuch\n    command: [\"true\"]\n",
        command: &["up", "-d"],
        says: &["unable to find user nosuch: no matching entries in passwd file"],
    },
    Refusal {
        name: "a dependency that turns unhealthy",
        file: "services:\n  web:\n    image: busybox:latest\n    depends_on: {db: {condition: service_healthy}}\n  db:\n    image: busybox:latest\n    command: [sleep, \"100\"]\n    init: true\n    healthcheck: {test: [\"CMD\", \"false\"], interval: 50ms, retries: 2}\n",
        command: &["up", "-d"],
        says: &["dependency failed to start: container", "is unhealthy"],
    },
    Refusal {
        name: "a dependency that ends",
        file: "services:\n  web:\n    image: busybox:latest\n    depends_on: {db: {condition: service_healthy}}\n  db:\n    image: busybox:latest\n    command: [sh, -c, \"exit 3\"]\n    healthcheck: {test: [\"CMD\", \"true\"], interval: 10s, start_period: 5s, start_interval: 5s}\n",
        command: &["up", "-d"],
        says: &["dependency failed to start: container", "exited (3)"],
    },
    Refusal {
        name: "a job that fails",
        file: "services:\n  web:\n    image: busybox:latest\n    depends_on: {job: {condition: service_completed_successfully}}\n  job:\n    image: busybox:latest\n    command: [sh, -c, \"exit 7\"]\n",
        command: &["up", "-d"],
        says: &["service \"job\" didn't complete successfully: exit 7"],
    },
    Refusal {
        name: "a health check that is not there to wait for",
        file: "services:\n  web:\n    image: busybox:latest\n    depends_on: {db: {condition: service_healthy}}\n  db:\n    image: busybox:latest\n    command: [sleep, \"100\"]\n    init: true\n",
        command: &["up", "-d"],
        says: &["has no healthcheck configured"],
    },
    Refusal {
        name: "an external network that is missing",
        file: "services:\n  web:\n    image: busybox:latest\n    networks: [n]\nnetworks:\n  n: {external: true}\n",
        command: &["up", "-d"],
        says: &["network n declared as external, but could not be found"],
    },
    Refusal {
        name: "an external volume that is missing",
        file: "services:\n  web:\n    image: busybox:latest\n    volumes: [\"vol:/v\"]\nvolumes:\n  vol: {external: true}\n",
        command: &["up", "-d"],
        says: &["external volume \"vol\" not found"],
    },
    Refusal {
        name: "a size that no file system can have",
        file: "services:\n  web:\n    image: busybox:latest\n    command: [\"true\"]\n    tmpfs:\n      - /a\n      - /a/b:size=much\n",
        command: &["up", "-d"],
        says: &["/a/b", "\n --> compose.yaml:7:9"],
    },
    Refusal {
        name: "a volume of a driver's options that contradict each other",
        file: "services:\n  web:\n    image: busybox:latest\n    volumes: [\"vol:/v\"]\nvolumes:\n  vol:\n    driver_opts:\n      o: bind\n",
        command: &["up", "-d"],
        says: &["missing device in volume options\n --> compose.yaml:8:7"],
    },
    Refusal {
        name: "a volume of a device that is not there",
        file: "services:\n  web:\n    image: busybox:latest\n    command: [\"true\"]\n    volumes: [\"vol:/v\"]\nvolumes:\n  vol:\n    driver_opts: {type: none, o: bind, device: /nowhere/at/all}\n",
        command: &["up", "-d"],
        says: &["/nowhere/at/all", "\n --> compose.yaml:8:18"],
    },
    Refusal {
        name: "a limit on files that this storage does not know",
        file: "services:\n  web:\n    image: busybox:latest\n    storage_opt:\n      size: 1G\n",
        command: &["up", "-d"],
        says: &["--storage-opt is supported only for", "\n --> compose.yaml:5:7"],
    },
    Refusal {
        name: "the same of a container that is run once",
        file: "services:\n  web:\n    image: busybox:latest\n    storage_opt:\n      size: 1G\n",
        command: &["run", "--rm", "web"],
        says: &["--storage-opt is supported only for", "\n --> compose.yaml:5:7"],
    },
    Refusal {
        name: "attempts of a policy that always restarts",
        file: "services:\n  web:\n    image: busybox:latest\n    deploy: {restart_policy: {condition: any, max_attempts: 3}}\n",
        command: &["up", "-d"],
        says: &["maximum retry count can only be used with 'on-failure'\n --> compose.yaml:4:13"],
    },
    Refusal {
        name: "attempts of no policy",
        file: "services:\n  web:\n    image: busybox:latest\n    deploy: {restart_policy: {max_attempts: 3}}\n",
        command: &["up", "-d"],
        says: &["maximum retry count can only be used with 'on-failure'\n --> compose.yaml:4:13"],
    },
    Refusal {
        name: "attempts of a short form that always restarts",
        file: "services:\n  web:\n    image: busybox:latest\n    restart: always:3\n",
        command: &["up", "-d"],
        says: &["maximum retry count can only be used with 'on-failure'\n --> compose.yaml:4:14"],
    },
    Refusal {
        name: "a bind source that may not be created",
        file: "services:\n  web:\n    image: busybox:latest\n    volumes: [{type: bind, source: ./nowhere, target: /x, bind: {create_host_path: false}}]\n",
        command: &["up", "-d"],
        says: &["bind source path does not exist", "nowhere\n --> compose.yaml:4:15"],
    },
    Refusal {
        name: "a secret whose variable is not set",
        file: "services:\n  web:\n    image: busybox:latest\n    secrets: [s]\nsecrets:\n  s: {environment: NOT_SET_ANYWHERE}\n",
        command: &["up", "-d"],
        says: &["environment variable \"NOT_SET_ANYWHERE\" required by secret"],
    },
    Refusal {
        name: "an address outside its network",
        file: "services:\n  web:\n    image: busybox:latest\n    networks: {n: {ipv4_address: 10.1.2.3}}\nnetworks:\n  n: {ipam: {config: [{subnet: 172.31.250.0/24}]}}\n",
        command: &["up", "-d"],
        says: &["10.1.2.3"],
    },
    Refusal {
        name: "a restart policy that does not exist",
        file: "services:\n  web:\n    image: busybox:latest\n    restart: sometimes\n",
        command: &["up", "-d"],
        says: &["invalid restart policy"],
    },
    Refusal {
        name: "a service that the project does not have",
        file: "services:\n  web:\n    image: busybox:latest\n",
        command: &["up", "-d", "wbe"],
        says: &["no such service: wbe"],
    },
    Refusal {
        name: "a health that never comes",
        file: "services:\n  web:\n    image: busybox:latest\n    init: true\n    command: [sleep, \"100\"]\n    healthcheck: {test: [\"CMD\", \"false\"], interval: 1s, retries: 100}\n",
        command: &["up", "-d", "--wait", "--wait-timeout", "1"],
        says: &["application not healthy after 1s"],
    },
];

#[test]
fn what_cannot_be_done_is_said() {
    if !support::available("root", support::is_root()) {
        return;
    }
    let project = Project::new(&[]);
    support::busybox(&project);
    let mut wrong = Vec::new();
    for refusal in REFUSALS {
        project.write("compose.yaml", refusal.file);
        let output = project.run(refusal.command);
        let said = text(&output.stderr);
        if output.status.code() != Some(1) {
            wrong.push(format!("{}: {}\n{said}", refusal.name, output.status));
        }
        for words in refusal.says {
            if !said.contains(words) {
                wrong.push(format!("{}: does not say {words:?}:\n{said}", refusal.name));
            }
        }
        project.succeed(&["down", "-v", "-t", "0", "--remove-orphans"]);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_taken_port_is_reported_with_its_holder() {
    if !support::available("root", support::is_root()) {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    let file = format!(
        "services:\n  web:\n    image: busybox:latest\n    command: [sleep, \"100\"]\n    ports: [\"127.0.0.1:{port}:80\"]\n"
    );
    let project = Project::new(&[("compose.yaml", &file)]);
    support::busybox(&project);
    let said = project.fail(&["up", "-d"]);
    assert!(
        said.contains(&format!("127.0.0.1:{port}")) && said.contains("address already in use"),
        "{said}"
    );
    assert!(
        said.contains(&std::process::id().to_string()),
        "the holder's process id: {said}"
    );
    let own_name = std::env::current_exe().expect("this program");
    let own_name = own_name.file_name().expect("its name").to_string_lossy().into_owned();
    assert!(
        said.contains(&own_name[..own_name.len().min(5)]),
        "the holder's command: {said}"
    );
}

#[test]
fn a_state_directory_that_cannot_hold_changes_is_named_with_what_can() {
    if !support::available("root and busybox-static", support::is_root() && support::has_busybox()) {
        return;
    }
    let project = Project::of(
        None,
        &[(
            "compose.yaml",
            "services: {a: {image: \"rootfs:./root\", command: [\"true\"], network_mode: none}}",
        )],
    );
    for directory in ["root", "lower", "upper/state", "work", "whole"] {
        std::fs::create_dir_all(project.path().join(directory)).expect("a directory");
    }
    std::fs::copy("/bin/busybox", project.path().join("root/true")).expect("busybox-static is installed");
    // As in a container whose files are layers themselves, and whose state directory is none of its volumes.
    let script = "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work whole && \
                  COMPOSE_STATE_DIR=$PWD/whole/state exec \"$0\" up --no-color";
    let output = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(support::binary())
        .current_dir(project.path())
        .env("HOME", project.path())
        .output()
        .expect("util-linux is installed");
    let engine = std::fs::read_to_string(project.path().join("upper/state/engine.lock")).expect("an engine");
    let engine = rustix::process::Pid::from_raw(engine.trim().parse().expect("a number")).expect("a process");
    rustix::process::kill_process(engine, rustix::process::Signal::TERM).expect("it runs");
    let said = text(&output.stderr);
    assert!(!output.status.success(), "{said}");
    for part in [
        "whole/state",
        "is on overlayfs",
        "set COMPOSE_STATE_DIR to a directory on ext4",
    ] {
        assert!(said.contains(part), "{part:?} is missing in {said}");
    }
}

#[test]
fn places_are_left_out_where_docker_compose_s_lines_are_asked_for() {
    if !support::available("root", support::is_root()) {
        return;
    }
    let file = "services:\n  web:\n    image: busybox:latest\n    storage_opt: {size: 1G}\n";
    let project = Project::new(&[("compose.yaml", file)]);
    support::busybox(&project);
    let said = project.fail(&["--progress", "plain", "--ansi", "never", "create"]);
    let last = said.trim_end().lines().next_back().unwrap_or_default();
    assert!(last.starts_with("Error response from daemon: --storage-opt"), "{said}");
}

#[test]
fn images_that_only_the_embedded_engine_takes_are_refused_on_others_before_anything_is_asked() {
    let engine = Mock::start(|request| match request.path.as_str() {
        path if path.ends_with("/_ping") => Reply::ok("OK"),
        _ => Reply::status(301, ""),
    });
    let file = "services:\n  web:\n    image: rootfs:/\n  zoo:\n    image: busybox\n    pre_start:\n      - image: oci:./x\n        command: [a]\n";
    let project = Project::new(&[("compose.yaml", file)]);
    let engine = format!("tcp://{}", engine.address);
    for (command, place) in [
        (&["up", "-d"] as &[&str], "compose.yaml:3:12"),
        (&["create"], "compose.yaml:3:12"),
        (&["pull"], "compose.yaml:3:12"),
        (&["run", "web"], "compose.yaml:3:12"),
        (&["up", "zoo"], "compose.yaml:7:16"),
    ] {
        let said = project.fail(&[&["--engine", &engine], command].concat());
        assert!(
            said.contains("of this machine, which only the embedded engine takes"),
            "{command:?}: {said}"
        );
        assert!(
            said.contains(&engine) && said.contains(&format!("\n --> {place}\n")),
            "{command:?}: {said}"
        );
        assert!(said.contains("hint: use the embedded engine"), "{command:?}: {said}");
    }
}
