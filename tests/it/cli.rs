//! The command line from outside: what it refuses and in which words, its help, and its streams.

use std::io::{Read, Write};
use std::process::Stdio;

use crate::support::{Project, text};

/// Runs the binary in a project of one service and returns status, standard output and standard error.
fn compose(arguments: &[&str]) -> (Option<i32>, String, String) {
    let project = Project::new(&[("compose.yaml", "services: {web: {image: busybox}}")]);
    let output = project.run(arguments);
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn what_cannot_be_read_is_refused_in_dockers_words() {
    for (arguments, expected) in [
        (&["up", "--nope"][..], "unknown flag: --nope"),
        (&["--nope", "up"], "unknown flag: --nope"),
        (&["nosuch"], "unknown docker command: \"compose nosuch\""),
        (&["ps", "-z"], "unknown shorthand flag: 'z' in -z"),
        (&["ps", "--format"], "flag needs an argument: --format"),
        (&["kill", "-s"], "flag needs an argument: 's' in -s"),
        (&["exec"], "requires at least 2 arg(s), only received 0"),
        (&["run"], "requires at least 1 arg(s), only received 0"),
        (&["port", "web"], "requires at least 2 arg(s), only received 1"),
        (&["commit"], "accepts between 1 and 2 arg(s), received 0"),
        (
            &["up", "-t", "x"],
            "invalid argument \"x\" for \"-t, --timeout\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            &["--parallel", "x", "ps"],
            "invalid argument \"x\" for \"--parallel\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (&["--progress", "zap", "ps"], "unsupported --progress value \"zap\""),
        (
            &["up", "--build", "--no-build"],
            "--build and --no-build are incompatible",
        ),
        (&["up", "--pull", "zap"], "invalid --pull option \"zap\""),
        (
            &["ps", "--filter", "status"],
            "arguments to --filter should be in form KEY=VAL",
        ),
        (&["ps", "--filter", "nope=1"], "unknown filter nope"),
        (&["logs", "--index", "2"], "--index requires one service to be selected"),
        (&["cp", "a", "b"], "unknown copy direction"),
        (&["cp", "a:/x", "b:/y"], "copying between services is not supported"),
        (
            &["port", "web", "abc"],
            "strconv.ParseUint: parsing \"abc\": invalid syntax",
        ),
        (&["config", "--format", "zap"], "unsupported format \"zap\""),
        (
            &["completion", "zap"],
            "unknown shell \"zap\": expected one of bash, elvish, fish, powershell, zsh",
        ),
    ] {
        let (status, stdout, stderr) = compose(arguments);
        assert_eq!(
            (status, stdout.as_str(), stderr.trim_end()),
            (Some(1), "", expected),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_number_in_the_environment_must_be_one() {
    let project = Project::new(&[]);
    let output = project
        .compose(&["ps"])
        .env("COMPOSE_PARALLEL_LIMIT", "x")
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "COMPOSE_PARALLEL_LIMIT must be an integer (found: \"x\")\n"
    );
}

#[test]
fn a_failure_is_json_where_progress_is() {
    let project = Project::new(&[]);
    let output = project.run(&["--progress", "json", "config"]);
    assert_eq!(output.status.code(), Some(1));
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).expect("one JSON object");
    assert_eq!(error["error"], true);
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("no configuration file provided: not found")),
        "{error}"
    );
}

#[test]
fn variables_of_the_env_file_count_where_the_environment_has_none() {
    let project = Project::new(&[
        ("compose.yaml", "services: {web: {image: busybox}}"),
        (".env", "COMPOSE_PROGRESS=zap\n"),
    ]);
    let refused = project.run(&["config"]);
    assert_eq!(text(&refused.stderr), "unsupported --progress value \"zap\"\n");
    let output = project
        .compose(&["config", "-q"])
        .env("COMPOSE_PROGRESS", "plain")
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn every_command_explains_itself() {
    let (status, stdout, _) = compose(&[]);
    assert_eq!(status, Some(0));
    assert!(stdout.starts_with("Usage:  compose [OPTIONS] COMMAND\n"), "{stdout}");
    let commands: Vec<&str> = stdout
        .lines()
        .skip_while(|line| !line.ends_with("Commands:"))
        .filter(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() > 30, "{commands:?}");
    for command in commands {
        let (status, stdout, stderr) = compose(&[command, "--help"]);
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{command}");
        assert!(stdout.starts_with(&format!("Usage:  compose {command}")), "{stdout}");
        assert!(stdout.contains("--dry-run"), "{stdout}");
        assert!(stdout.lines().all(|line| line.len() < 130), "{stdout}");
    }
}

#[test]
fn help_looks_like_dockers() {
    let (_, stdout, _) = compose(&["kill", "--help"]);
    assert_eq!(
        stdout,
        "Usage:  compose kill [OPTIONS] [SERVICE...]\n\nForce stop service containers\n\nOptions:\n      --dry-run          \
         Execute command in dry run mode\n      --remove-orphans   Remove containers for services not defined in\n                         \
         the Compose file\n  -s, --signal string    SIGNAL to send to the container (default \"SIGKILL\")\n"
    );
}

#[test]
fn the_version_is_that_of_docker_compose_for_those_who_compare() {
    for (arguments, expected) in [
        (&["version"][..], "Docker Compose version 2.40.3\n".to_owned()),
        (&["version", "--short"], "2.40.3\n".to_owned()),
        (&["version", "-f", "json"], "{\"version\":\"2.40.3\"}\n".to_owned()),
        (
            &["--version"],
            format!(
                "compose version {}, compatible with docker compose 2.40.3\n",
                env!("CARGO_PKG_VERSION")
            ),
        ),
    ] {
        assert_eq!(compose(arguments).1, expected, "{arguments:?}");
    }
}

#[test]
fn the_docker_cli_may_call_it_as_a_plugin() {
    let (status, stdout, _) = compose(&["docker-cli-plugin-metadata"]);
    assert_eq!(status, Some(0));
    let metadata: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(metadata["SchemaVersion"], "0.1.0");
    let project = Project::new(&[]);
    let output = project
        .compose(&["--debug", "compose", "version", "--short"])
        .env("DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND", "/usr/bin/docker")
        .output()
        .expect("the binary runs");
    assert_eq!(text(&output.stdout), "2.40.3\n");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let project = Project::new(&[]);
    let mut child = project
        .compose(&["--help"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the binary ends");
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn it_works_without_standard_input() {
    let project = Project::new(&[("compose.yaml", "services: {web: {image: busybox}}")]);
    let mut child = project
        .compose(&["-f", "-", "config", "--services"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin
        .write_all(b"services: {piped: {image: busybox}}")
        .expect("the binary reads");
    drop(stdin);
    let mut stdout = String::new();
    child
        .stdout
        .take()
        .expect("a pipe")
        .read_to_string(&mut stdout)
        .expect("text");
    assert!(child.wait().expect("the binary ends").success());
    assert_eq!(stdout, "piped\n");
}

#[test]
fn a_shell_completes_commands_and_services() {
    let project = Project::new(&[(
        "compose.yaml",
        "services: {web: {image: busybox}, worker: {image: busybox}}",
    )]);
    let script = project.run(&["completion", "bash"]);
    assert!(text(&script.stdout).contains("COMPLETE="), "{}", text(&script.stdout));
    let asked = |words: &[&str], index: usize| {
        let output = project
            .compose(&[&["--"], words].concat())
            .env("COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", index.to_string())
            .env("_CLAP_COMPLETE_COMP_TYPE", "9")
            .env("_CLAP_COMPLETE_SPACE", "true")
            .env("_CLAP_IFS", "\n")
            .output()
            .expect("the binary runs");
        text(&output.stdout)
    };
    assert!(asked(&["compose", "res"], 1).contains("restart"));
    let services = asked(&["compose", "logs", "w"], 2);
    assert!(services.contains("web") && services.contains("worker"), "{services}");
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let project = Project::new(&[]);
    assert!(project.run(&["manual", "pages"]).status.success());
    for page in ["compose.1", "compose-up.1", "compose-bridge-convert.1"] {
        let text = std::fs::read_to_string(project.path().join("pages").join(page)).expect("a page");
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
}
