//! What an attached `up` and `logs` print, and how `attach` and `exec` connect.

use std::io::Write;
use std::process::Stdio;

use super::{PAIR, containers, states};
use crate::support::text;

const TALKERS: &str = "\
services:
  one: {image: \"rootfs:/\", command: echo from one, network_mode: none}
  two: {image: \"rootfs:/\", command: echo from two, network_mode: none, depends_on: [one]}
";

#[test]
fn an_attached_up_shows_the_output_that_is_asked_for() {
    let Some(project) = containers(TALKERS) else { return };
    let lines = |arguments: &[&str]| -> Vec<String> {
        let output = project.succeed(arguments);
        // One that was not watched may run a little longer; the next command is to start it anew.
        while !project.succeed(&["ps", "-q", "--status", "running"]).is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let mut lines: Vec<String> = output
            .lines()
            .filter(|line| line.contains("from "))
            .map(|line| line.trim().to_owned())
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(
        lines(&["up", "--no-color", "--menu=false"]),
        ["one-1  | from one", "two-1  | from two"]
    );
    assert_eq!(lines(&["up", "--no-log-prefix"]), ["from one", "from two"]);
    assert_eq!(lines(&["up", "--no-attach", "one"]), ["two-1  | from two"]);
    assert_eq!(lines(&["up", "--attach", "one"]), ["one-1  | from one"]);
    assert_eq!(lines(&["up", "two"]), ["two-1  | from two"]);
    assert_eq!(lines(&["up", "--attach-dependencies", "two"]).len(), 2);
    let stamped = lines(&["up", "--timestamps", "--attach", "one"]);
    assert!(
        stamped[0].starts_with("one-1  | 20") && stamped[0].ends_with("Z from one"),
        "{stamped:?}"
    );
    assert!(
        project
            .succeed(&["--ansi", "always", "--progress", "quiet", "up"])
            .contains("\u{1b}[")
    );
    assert!(
        !project
            .succeed(&["--ansi", "always", "--progress", "quiet", "up", "--no-color"])
            .contains("\u{1b}[3")
    );
}

#[test]
fn waiting_for_what_never_gets_well_has_an_end() {
    let file = "services:\n  web:\n    image: rootfs:/\n    command: sleep 300\n    init: true\n    stop_grace_period: \
                0s\n    healthcheck: {test: [CMD, sleep, \"60\"], timeout: 60s}\n";
    let Some(project) = containers(file) else { return };
    let err = project.fail(&["up", "--wait", "--wait-timeout", "1"]);
    assert!(err.ends_with("application not healthy after 1s\n"), "{err}");
    let err = project.fail(&["start", "--wait", "--wait-timeout", "1"]);
    assert!(err.ends_with("application not healthy after 1s\n"), "{err}");
}

#[test]
fn logs_are_cut_to_what_is_asked_for() {
    let file = "services:\n  talk:\n    image: rootfs:/\n    command: [sh, -c, \"echo one; echo two; echo three\"]\n    \
                network_mode: none\n    scale: 2\n";
    let Some(project) = containers(file) else { return };
    project.succeed(&["up", "--no-attach", "talk", "-t", "0"]);
    let lines = |arguments: &[&str]| -> Vec<String> {
        let mut lines: Vec<String> = project.succeed(arguments).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(&["logs", "--tail", "1"]), ["talk-1  | three", "talk-2  | three"]);
    assert_eq!(
        lines(&["logs", "--no-log-prefix", "--index", "2", "talk", "-n", "2"]),
        ["three", "two"]
    );
    assert_eq!(lines(&["logs", "--since", "1h", "--until", "0s"]).len(), 6);
    assert_eq!(lines(&["logs", "--until", "1h"]).len(), 0);
    assert_eq!(lines(&["logs", "--since", "2100-01-01"]).len(), 0);
    let stamped = lines(&["logs", "--timestamps", "--tail", "1", "--index", "1", "talk"]);
    assert!(
        stamped[0].starts_with("talk-1  | 20") && stamped[0].ends_with("Z three"),
        "{stamped:?}"
    );
    assert_eq!(lines(&["logs", "--follow", "--tail", "1"]).len(), 2);
    assert!(
        project
            .succeed(&["--ansi", "always", "--progress", "quiet", "logs"])
            .contains("\u{1b}[")
    );
    assert!(
        !project
            .succeed(&["--ansi", "always", "--progress", "quiet", "logs", "--no-color"])
            .contains('\u{1b}')
    );
}

#[test]
fn exec_runs_where_and_as_it_is_told() {
    let Some(project) = containers(&PAIR.replace("    environment:", "    scale: 2\n    environment:")) else {
        return;
    };
    project.succeed(&["up", "-d", "db"]);
    let shown = "echo $Z $(pwd) $(id -u) $(cat /etc/hostname | wc -l); test -t 0 || echo no terminal";
    let output = project.succeed(&[
        "exec",
        "-T",
        "--tty=false",
        "--index",
        "2",
        "--env",
        "Z=1",
        "--workdir",
        "/usr",
        "--privileged",
        "--user",
        "0",
        "db",
        "sh",
        "-c",
        shown,
    ]);
    assert_eq!(output, "1 /usr 0 1\nno terminal\n");
    assert_eq!(
        project.succeed(&["exec", "-T", "-u", "65534", "db", "id", "-u"]),
        "65534\n"
    );
    let rights = |more: &[&str]| {
        project.succeed(&[&["exec", "-T"], more, &["db", "grep", "CapEff", "/proc/self/status"]].concat())
    };
    assert_ne!(rights(&["--privileged"]), rights(&[]));
    project.succeed(&["exec", "--detach", "db", "touch", "/var/tmp/detached"]);
    let there = project.run(&[
        "exec",
        "-T",
        "db",
        "sh",
        "-c",
        "until test -e /var/tmp/detached; do sleep 0.02; done",
    ]);
    assert!(there.status.success());
    let mut child = project
        .compose(&["exec", "--interactive=false", "-T", "db", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(b"not read\n");
    assert_eq!(text(&child.wait_with_output().unwrap().stdout), "");
    let refused = project.run(&["exec", "-T", "--index", "7", "db", "true"]);
    assert_eq!(text(&refused.stderr), "service \"db\" is not running container #7\n");
}

#[test]
fn attach_connects_to_the_command_itself() {
    let file = "services:\n  echo:\n    image: rootfs:/\n    command: [sh, -c, \"read line; echo got $$line\"]\n    \
                stdin_open: true\n    network_mode: none\n    stop_grace_period: 0s\n  term: {image: \"rootfs:/\", \
                command: cat, tty: true, stdin_open: true, stop_grace_period: 0s}\n";
    let Some(project) = containers(file) else { return };
    project.succeed(&["up", "-d"]);
    let attach = |arguments: &[&str], input: &[u8]| {
        let mut child = project
            .compose(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = attach(&["attach", "--index", "1", "--sig-proxy=false", "echo"], b"hello\n");
    assert_eq!(text(&output.stdout), "got hello\n");
    assert!(
        states(&project).contains(&"p-echo-1 exited".to_owned()),
        "its input has ended"
    );

    // The keys leave the container running.
    let output = attach(&["attach", "--detach-keys", "ctrl-x,q", "term"], b"a\n\x18q");
    assert!(output.status.success(), "{output:?}");
    assert!(states(&project).contains(&"p-term-1 running".to_owned()));

    let mut child = project
        .compose(&["attach", "--no-stdin", "term"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(b"unheard\n");
    std::thread::sleep(std::time::Duration::from_millis(300));
    project.succeed(&["kill", "term"]);
    assert!(!text(&child.wait_with_output().unwrap().stdout).contains("unheard"));
}
