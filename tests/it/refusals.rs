//! What `up` says when the file is right but the world is not, and that it says it before or instead of harm.

use std::net::TcpListener;

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
        name: "a bind source that may not be created",
        file: "services:\n  web:\n    image: busybox:latest\n    volumes: [{type: bind, source: ./nowhere, target: /x, bind: {create_host_path: false}}]\n",
        command: &["up", "-d"],
        says: &["bind source path does not exist"],
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
