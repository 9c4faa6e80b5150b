//! In the place of docker compose: under its name, as a plugin of the docker client, and with its projects.

use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use super::{PAIR, containers};
use crate::support::{Project, available, binary, text};

fn has_docker() -> bool {
    available(
        "the docker client",
        Command::new("docker").arg("--version").output().is_ok(),
    )
}

/// Runs a program in the project, with the environment of its commands.
fn run(project: &Project, program: &str, arguments: &[&str]) -> Output {
    let own = project.compose(&[]);
    let mut command = Command::new(program);
    command.args(arguments).current_dir(project.path()).env_clear();
    for (name, value) in own.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.env("DOCKER_CONFIG", project.path().join("docker"));
    command.output().expect("the program runs")
}

#[test]
fn it_answers_to_the_name_of_docker_compose() {
    let project = Project::new(&[("compose.yaml", PAIR)]);
    let link = project.path().join("docker-compose");
    symlink(binary(), &link).unwrap();
    let run = |arguments: &[&str]| run(&project, &link.to_string_lossy(), arguments);
    assert_eq!(text(&run(&["version"]).stdout), "Docker Compose version 2.40.3\n");
    assert_eq!(text(&run(&["config", "--services"]).stdout), "db\nweb\n");
    assert!(text(&run(&["--help"]).stdout).starts_with("Usage:  docker compose [OPTIONS] COMMAND\n"));
    let refused = run(&["up", "--nope"]);
    assert_eq!(
        (refused.status.code(), text(&refused.stderr)),
        (Some(1), "unknown flag: --nope\n".to_owned())
    );
}

#[test]
fn the_docker_client_runs_it_as_its_plugin() {
    let Some(project) = containers(PAIR) else { return };
    if !has_docker() {
        return;
    }
    let plugins = project.path().join("docker/cli-plugins");
    std::fs::create_dir_all(&plugins).unwrap();
    symlink(binary(), plugins.join("docker-compose")).unwrap();
    let docker = |arguments: &[&str]| run(&project, "docker", arguments);
    assert_eq!(
        text(&docker(&["compose", "version"]).stdout),
        "Docker Compose version 2.40.3\n"
    );
    assert!(text(&docker(&["help"]).stdout).contains("compose*"));
    assert_eq!(text(&docker(&["compose", "config", "--services"]).stdout), "db\nweb\n");
    // docker compose has this name for `config`.
    assert_eq!(text(&docker(&["compose", "convert", "--services"]).stdout), "db\nweb\n");
    let up = docker(&["compose", "up", "-d"]);
    assert!(up.status.success(), "{}", text(&up.stderr));
    assert_eq!(super::states(&project), ["p-db-1 running", "p-web-1 running"]);
    let status = docker(&["compose", "exec", "-T", "db", "sh", "-c", "exit 7"]).status;
    assert_eq!(status.code(), Some(7));
    let refused = docker(&["compose", "nosuch"]);
    assert_eq!(text(&refused.stderr), "unknown docker command: \"compose nosuch\"\n");
    // The engine that docker is pointed at is the one meant.
    let socket = format!("unix://{}", project.state_dir().join("engine.sock").display());
    assert_eq!(
        text(&docker(&["-H", &socket, "compose", "ps", "--services"]).stdout),
        "db\nweb\n"
    );
    let refused = docker(&["-H", "unix:///nowhere.sock", "compose", "ps"]);
    assert!(text(&refused.stderr).contains("unix:///nowhere.sock"), "{refused:?}");
}

/// On Docker (`COMPOSE_TEST_DOCKER`, its address) with docker compose beside us (`COMPOSE_TEST_PEER`, its command).
#[test]
fn projects_change_hands_between_docker_compose_and_us_without_a_new_container() {
    let (Ok(address), Ok(peer)) = (std::env::var("COMPOSE_TEST_DOCKER"), std::env::var("COMPOSE_TEST_PEER")) else {
        eprintln!("SKIPPED: COMPOSE_TEST_DOCKER and COMPOSE_TEST_PEER name no docker compose");
        return;
    };
    let file = "services:\n  web:\n    image: busybox\n    command: sleep 300\n    init: true\n    stop_grace_period: 0s\n    \
                environment: {A: \"1\"}\n    labels: {x: y}\n    ports: [\"127.0.0.1::80\"]\n    volumes: [\"data:/data\", \
                \"./src:/src:ro\"]\n    networks: [front]\n    depends_on: {db: {condition: service_healthy}}\n    secrets: \
                [given]\n    deploy: {resources: {limits: {memory: 64m}}}\n  db:\n    image: busybox\n    command: sleep \
                300\n    init: true\n    stop_grace_period: 0s\n    healthcheck: {test: [CMD, \"true\"], interval: 1s}\n    \
                scale: 2\n    networks: [front]\nnetworks: {front: }\nvolumes: {data: }\nsecrets: {given: {file: ./given}}\n";
    let mut project = Project::new(&[("compose.yaml", file), ("given", "secret\n"), ("src/file", "")]);
    project.set("COMPOSE_PROJECT_NAME", &format!("hands{}", std::process::id()));
    project.set("COMPOSE_ENGINE", &address);
    let words: Vec<&str> = peer.split_whitespace().collect();
    let theirs = |arguments: &[&str]| run(&project, words[0], &[&words[1..], arguments].concat());
    let ours = |arguments: &[&str]| project.run(arguments);
    let seen = || {
        let format =
            "{{.ID}} {{.Label \"com.docker.compose.config-hash\"}} {{.Label \"com.docker.compose.depends_on\"}}";
        let mut lines: Vec<String> = text(&ours(&["ps", "-a", "--format", format]).stdout)
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    let hashes = |lines: &[String]| -> Vec<String> {
        lines
            .iter()
            .map(|line| line.split_once(' ').unwrap_or_default().1.to_owned())
            .collect()
    };
    let first = theirs(&["up", "-d"]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let before = seen();
    assert_eq!(before.len(), 3);
    assert!(ours(&["up", "-d"]).status.success());
    assert_eq!(seen(), before);
    assert!(ours(&["down", "-v"]).status.success());

    assert!(ours(&["up", "-d"]).status.success());
    let again = seen();
    let (mut one, mut other) = (hashes(&before), hashes(&again));
    one.sort();
    other.sort();
    assert_eq!(one, other);
    assert!(theirs(&["up", "-d"]).status.success());
    assert_eq!(seen(), again);
    assert!(theirs(&["down", "-v"]).status.success());
    assert_eq!(seen(), Vec::<String>::new());
}
