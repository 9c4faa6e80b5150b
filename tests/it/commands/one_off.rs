//! `run`: a container for one command.

use std::io::Write;
use std::process::Stdio;

use super::{PAIR, containers, states};
use crate::support::{free_port, text};

#[test]
fn run_makes_a_container_as_the_flags_say() {
    let Some(project) = containers(PAIR) else { return };
    project.write("run.env", "B=2\n");
    let given = format!("{}:/mnt/given:ro", project.path().display());
    let output = project.succeed(&[
        "run",
        "--rm",
        "--no-TTY",
        "--no-deps",
        "--name",
        "one",
        "--env",
        "A=1",
        "--env-from-file",
        "run.env",
        "--label",
        "x=y",
        "--user",
        "0",
        "--workdir",
        "/tmp",
        "--cap-drop",
        "ALL",
        "--cap-add",
        "CHOWN",
        "--volume",
        &given,
        "--entrypoint",
        "sh",
        "web",
        "-c",
        "echo $A $B $(pwd); grep CapEff /proc/self/status; cat /mnt/given/run.env",
    ]);
    assert_eq!(output, "1 2 /tmp\nCapEff:\t0000000000000001\nB=2\n");
    assert_eq!(states(&project), Vec::<String>::new());

    project.succeed(&["run", "-d", "--no-deps", "--label", "x=y", "--name", "two", "web"]);
    assert_eq!(
        project.docker(&["inspect", "-f", "{{index .Config.Labels \"x\"}}", "two"]),
        "y\n"
    );
    assert_eq!(states(&project), ["two running"]);
    let aliases = |name: &str| project.docker(&["inspect", "-f", "{{json .NetworkSettings.Networks}}", name]);
    assert!(!aliases("two").contains("\"web\""));
    project.succeed(&["run", "-d", "--no-deps", "--use-aliases", "--name", "three", "web"]);
    assert!(aliases("three").contains("\"web\""));

    // Dependencies come up unless they are to be left alone.
    project.succeed(&["run", "--rm", "-T", "web", "true"]);
    assert!(states(&project).contains(&"p-db-1 running".to_owned()));

    project.write("compose.yaml", &PAIR.replace("  web:", "  other:"));
    project.docker(&["kill", "two"]);
    let output = project.run(&["run", "--rm", "-T", "--remove-orphans", "other", "true"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        !states(&project).iter().any(|line| line.starts_with("two ")),
        "{:?}",
        states(&project)
    );
}

#[test]
fn run_publishes_ports_only_when_asked() {
    let (own, other) = (free_port(), free_port());
    let file = format!(
        "services:\n  web:\n    image: rootfs:/\n    command: sleep 300\n    init: true\n    stop_grace_period: 0s\n    ports: [\"127.0.0.1:{own}:80\"]\n"
    );
    let Some(project) = containers(&file) else { return };
    let ports = |name: &str| project.docker(&["inspect", "-f", "{{json .HostConfig.PortBindings}}", name]);
    project.succeed(&["run", "-d", "--name", "none", "web"]);
    assert!(!ports("none").contains("HostPort"), "{}", ports("none"));
    project.succeed(&["run", "-d", "--name", "own", "--service-ports", "web"]);
    assert!(
        ports("own").contains(&format!("\"HostPort\":\"{own}\"")),
        "{}",
        ports("own")
    );
    let publish = format!("127.0.0.1:{other}:81");
    project.succeed(&["run", "-d", "--name", "other", "--publish", &publish, "web"]);
    assert!(
        ports("other").contains(&format!("\"HostPort\":\"{other}\"")),
        "{}",
        ports("other")
    );
    let refused = project.fail(&["run", "--service-ports", "--publish", &publish, "web"]);
    assert_eq!(refused, "--service-ports and --publish are incompatible\n");
}

#[test]
fn run_is_as_quiet_and_as_deaf_as_it_is_told_to_be() {
    let file = "services:\n  made:\n    build: {context: ., dockerfile_inline: \"FROM scratch\\nCOPY busybox /bin/cat\\n\"}\n    \
                network_mode: none\n";
    let Some(project) = containers(file) else { return };
    std::fs::copy("/bin/busybox", project.path().join("busybox")).unwrap();
    let quiet = [
        "run",
        "--rm",
        "-T",
        "--build",
        "--pull",
        "never",
        "--quiet",
        "--quiet-build",
        "--quiet-pull",
        "made",
        "/bin/cat",
        "/proc/self/comm",
    ];
    let output = project.run(&quiet);
    assert_eq!(
        (text(&output.stdout), text(&output.stderr)),
        ("cat\n".to_owned(), String::new())
    );
    let fed = |arguments: &[&str]| {
        let mut child = project
            .compose(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(b"fed\n");
        text(&child.wait_with_output().unwrap().stdout)
    };
    assert_eq!(fed(&["run", "--rm", "-T", "made", "/bin/cat"]), "fed\n");
    assert_eq!(
        fed(&["run", "--rm", "--interactive=false", "--tty=false", "made", "/bin/cat"]),
        ""
    );
}
