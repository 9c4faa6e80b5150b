//! The network that a build's steps have: one of their own unless the build says otherwise.

use std::io::Write as _;
use std::net::TcpListener;

use crate::support::{self, Project, User, available};

/// Answers whoever connects with one line, for as long as the test runs.
fn greet(address: &str) -> u16 {
    let listener = TcpListener::bind(address).expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that has gone already heard enough.
            let _ = (&stream).write_all(b"hello\n");
        }
    });
    port
}

/// What a step that reaches a port says, as the lines of a Dockerfile: `NAME=hello` or `NAME=`.
fn asks(name: &str, address: &str, port: u16) -> String {
    format!("echo {name}=$(nc -w 5 {address} {port} </dev/null 2>/dev/null) >> /said; ")
}

struct Built {
    project: Project,
    inside: u16,
    outside: u16,
}

impl Built {
    fn new(user: Option<User>) -> Self {
        let project = Project::of(user, &[]);
        support::busybox(&project);
        Self {
            project,
            inside: greet("127.0.0.1:0"),
            outside: greet("0.0.0.0:0"),
        }
    }

    /// Builds with these attributes, and returns what the step said.
    fn says(&self, flags: &str, attributes: &str) -> String {
        let gateway = "$(ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p')";
        let steps = asks("loopback", "127.0.0.1", self.inside)
            + &asks("gateway", gateway, self.outside)
            + &format!("echo links=$(ls /sys/class/net | grep -c -v '^lo$') >> /said; {}", {
                "echo resolver=$(grep -c '^nameserver 127.0.0.11$' /etc/resolv.conf) >> /said"
            });
        self.project.write(
            "Dockerfile",
            &format!("FROM busybox:latest\nRUN {flags} {steps}\nCMD cat /said\n"),
        );
        self.project.write(
            "compose.yaml",
            &format!(
                "services:\n  app:\n    build: {{context: .{attributes}}}\n    image: said:1\n    network_mode: none\n"
            ),
        );
        self.project.succeed(&["build"]);
        self.project.succeed(&["run", "--rm", "-T", "app"])
    }
}

fn may_run() -> bool {
    available("root and busybox-static", support::is_root() && support::has_busybox())
}

#[test]
fn a_step_reaches_what_is_outside_and_not_the_hosts_own_loopback() {
    if !may_run() {
        return;
    }
    let built = Built::new(None);
    let own = "loopback=\ngateway=hello\nlinks=1\nresolver=1\n";
    assert_eq!(built.says("", ""), own);
    assert_eq!(built.says("--network=default", ", network: default"), own);
    let none = "loopback=\ngateway=\nlinks=0\nresolver=0\n";
    assert_eq!(built.says("--network=none", ""), none);
    assert_eq!(built.says("", ", network: none"), none);
    for (flags, attributes) in [
        ("", ", network: host"),
        ("--network=host", ", network: host"),
        ("--network=host", ", entitlements: [network.host]"),
    ] {
        let said = built.says(flags, attributes);
        assert!(said.starts_with("loopback=hello\n"), "{flags} {attributes}: {said}");
    }
    built
        .project
        .write("Dockerfile", "FROM busybox:latest\nRUN --network=host echo reached\n");
    built.project.write("compose.yaml", "services: {app: {build: .}}\n");
    let error = built.project.fail(&["build"]);
    assert!(error.contains("entitlement network.host is not allowed"), "{error}");
    // Nothing is left on the network of the steps.
    let left = built
        .project
        .docker(&["network", "inspect", "bridge", "--format", "{{len .Containers}}"]);
    assert_eq!(left.trim(), "0");
}

#[test]
fn a_plain_users_steps_have_a_network_of_their_own_as_well() {
    if !may_run() {
        return;
    }
    for user in [Some(User::unknown(7)), User::with_ranges()].into_iter().flatten() {
        let built = Built::new(Some(user));
        assert_eq!(
            built.says("", ""),
            "loopback=\ngateway=hello\nlinks=1\nresolver=1\n",
            "{user:?}"
        );
    }
}

#[test]
fn a_step_finds_the_containers_of_a_network_it_is_built_on() {
    if !may_run() {
        return;
    }
    let built = Built::new(None);
    built.project.docker(&["network", "create", "shared"]);
    built.project.write(
        "server/compose.yaml",
        "services:\n  server:\n    image: busybox\n    command: sh -c \"mkdir /w; echo from the server > /w/index.html; exec httpd -f -p 80 -h /w\"\n    init: true\n    \
         networks: [shared]\nnetworks: {shared: {external: true}}\n",
    );
    built.project.succeed(&["-f", "server/compose.yaml", "up", "-d"]);
    built.project.write(
        "Dockerfile",
        "FROM busybox:latest\nRUN for i in $(seq 300); do wget -qO /said server && exit; sleep 0.1; done; exit 1\nCMD cat /said\n",
    );
    let file = "services:\n  app:\n    build: {context: ., network: NAME, extra_hosts: [\"here=host-gateway\"]}\n    image: said:1\n    network_mode: none\n";
    built.project.write("compose.yaml", &file.replace("NAME", "shared"));
    built.project.succeed(&["build"]);
    assert_eq!(
        built.project.succeed(&["run", "--rm", "-T", "app"]),
        "from the server\n"
    );
    built.project.write("compose.yaml", &file.replace("NAME", "missing"));
    let error = built.project.fail(&["build"]);
    assert!(error.contains("network missing not found"), "{error}");
    built.project.succeed(&["-f", "server/compose.yaml", "down"]);
}
