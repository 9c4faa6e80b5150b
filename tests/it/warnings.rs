//! What is doubtful in files is said once, with its place, and only where it matters.

use crate::support::Project;

const FILE: &str = "version: '3'
services:
  web:
    image: busybox$UNSET
    deploy:
      placement: {constraints: [node.role == manager]}
  other:
    image: busybox
    deploy: {placement: {constraints: [a == b]}}
";

/// Runs a command that reads the files and then refuses, and returns what it writes to standard error.
fn said_by(project: &Project, before: &[&str]) -> String {
    let mut arguments = before.to_vec();
    arguments.extend(["up", "--attach", "web", "--attach-dependencies"]);
    let said = project.fail(&arguments);
    assert!(
        said.contains("cannot combine --attach and --attach-dependencies"),
        "{said}"
    );
    said
}

#[test]
fn what_has_no_effect_is_said_once_with_its_place_before_anything_runs() {
    let project = Project::new(&[("compose.yaml", FILE)]);
    let said = said_by(&project, &[]);
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("has no effect")).collect();
    let [line] = lines[..] else { panic!("{said}") };
    let expected = "level=warning msg=\"services.web.deploy.placement has no effect: only an orchestrator heeds it (and in one \
                    more place)\" place=\"compose.yaml:6:7\"";
    assert!(line.contains(expected), "{line}");
}

#[test]
fn other_engines_know_themselves_what_they_heed() {
    let project = Project::new(&[("compose.yaml", FILE)]);
    let said = said_by(&project, &["--engine", "docker"]);
    assert!(!said.contains("has no effect"), "{said}");
}

#[test]
fn warnings_name_their_place_beside_docker_composes_words() {
    let project = Project::new(&[("compose.yaml", FILE)]);
    let output = project.run(&["config"]);
    let said = String::from_utf8(output.stderr).unwrap();
    for expected in [
        "msg=\"The \\\"UNSET\\\" variable is not set. Defaulting to a blank string.\" place=\"compose.yaml:4:19\"",
        "please remove it to avoid potential confusion\" place=\"compose.yaml:1:1\"",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("has no effect"), "{said}");
}
