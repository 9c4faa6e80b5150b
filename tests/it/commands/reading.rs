//! Flags that need no engine: how the project is found, and what `config` and its like print of it.

use crate::support::{Project, text};

const FILE: &str = "\
services:
  web:
    image: web:${TAG:-1}
    build: .
    env_file: [web.env]
    volumes: [\"data:/data\", ./src:/src]
    networks: [front]
    ports: [\"8080:80\"]
    depends_on: [db]
    models: [llm]
  db: {image: postgres}
  tool: {image: tool, profiles: [tools]}
models: {llm: {model: ai/small}}
networks: {front: , unused: }
volumes: {data: }
";

fn project() -> Project {
    Project::new(&[
        ("compose.yaml", FILE),
        ("web.env", "FROM_FILE=yes\n"),
        (".env", "TAG=2\n"),
    ])
}

#[test]
fn config_prints_what_it_is_asked_for() {
    let mut project = project();
    project.set("COMPOSE_PROJECT_NAME", "p");
    let config = |more: &[&str]| project.succeed(&[&["config"], more].concat());
    assert_eq!(config(&["--services"]), "db\nweb\n");
    assert_eq!(config(&["--volumes"]), "data\n");
    assert_eq!(config(&["--networks"]), "default\nfront\n");
    assert_eq!(config(&["--profiles"]), "tools\n");
    assert!(config(&["--models"]).contains("ai/small") || config(&["--models"]).contains("llm"));
    assert_eq!(config(&["--images", "db"]), "postgres\n");
    assert!(config(&["--hash", "db"]).starts_with("db "));
    assert!(config(&["--environment"]).lines().any(|line| line == "TAG=2"));
    assert!(
        config(&["--variables"])
            .lines()
            .any(|line| line.starts_with("TAG ") && line.contains(" 1"))
    );
    assert!(config(&["--explain", "TAG"]).contains(".env:1"));
    assert_eq!(config(&["--quiet"]), "");
    assert!(config(&["--format", "json"]).starts_with("{\n"));

    assert!(config(&[]).contains("image: web:2"));
    assert!(config(&["--no-interpolate"]).contains("image: web:${TAG:-1}"));
    assert!(config(&[]).contains("FROM_FILE: \"yes\""));
    // What is printed is resolved in any case, as with docker compose.
    assert_eq!(config(&["--no-env-resolution"]), config(&[]));
    assert!(
        config(&["--no-normalize"])
            .lines()
            .all(|line| !line.contains("name: p_data"))
    );
    assert!(config(&["--no-path-resolution"]).contains("source: ./src"));
    assert_eq!(config(&["--output", "out.yaml"]), "");
    assert_eq!(
        std::fs::read_to_string(project.path().join("out.yaml")).unwrap(),
        config(&[])
    );

    project.write("bad.yaml", "services: {web: {image: a, depends_on: [nobody]}}");
    let bad = |more: &[&str]| project.run(&[&["-f", "bad.yaml", "config", "-q"], more].concat());
    assert!(!bad(&[]).status.success());
    assert!(bad(&["--no-consistency"]).status.success());
    let told = project.run(&["-f", "bad.yaml", "config", "--format-errors", "json"]);
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert!(told.to_string().contains("nobody"), "{told}");
    // Files from elsewhere are read by commands that start something, and where they are asked for.
    let refused = project.run(&["-f", "https://127.0.0.1:1/x.git", "config", "--fetch=false"]);
    assert!(!refused.status.success());
}

#[test]
fn the_project_is_where_and_what_the_flags_say() {
    let mut project = project();
    project.write("other/compose.yaml", "services: {web: {image: other}}");
    project.write(
        "other/more.yaml",
        "services: {web: {labels: {a: b}}, tool: {image: tool, profiles: [tools]}}\nvolumes: {unused: }\n",
    );
    project.write("my.env", "TAG=9\n");
    let config = |globals: &[&str]| project.succeed(&[globals, &["config"]].concat());
    assert!(config(&["--file", "other/compose.yaml", "-f", "other/more.yaml"]).contains("a: b"));
    assert!(config(&["--project-directory", "other"]).contains("image: other"));
    assert!(config(&["--project-name", "named"]).starts_with("name: named\n"));
    assert!(config(&["--env-file", "my.env"]).contains("image: web:9"));
    assert!(config(&["--profile", "tools"]).contains("image: tool"));
    assert!(!config(&[]).contains("image: tool"));
    assert!(!config(&[]).contains("unused"));
    assert!(config(&["--all-resources"]).contains("unused"));
    assert!(config(&["--verbose", "--parallel", "2", "--insecure-registry", "example.com"]).contains("web:2"));
    let old = project.run(&["--workdir", "other", "--no-ansi", "config"]);
    assert!(text(&old.stdout).contains("image: other"));
    let told = text(&old.stderr);
    assert!(told.contains("option '--workdir' is DEPRECATED") && told.contains("option '--no-ansi' is DEPRECATED"));
    assert!(project.succeed(&["--version"]).starts_with("compose version "));
    assert_eq!(project.succeed(&["version", "--short"]), "2.40.3\n");
    assert_eq!(
        project.succeed(&["version", "--format", "json"]),
        "{\"version\":\"2.40.3\"}\n"
    );
    project.enter("other");
    assert_eq!(project.succeed(&["config", "--images"]), "other\n");
}

#[test]
fn an_engine_is_chosen_by_flag() {
    let project = project();
    let refused = project.run(&["--engine", "unix:///nowhere.sock", "ps"]);
    let told = text(&refused.stderr);
    assert!(
        told.contains("Cannot connect to the Docker daemon at unix:///nowhere.sock"),
        "{told}"
    );
    let refused = project.run(&["--engine", "zap", "--state-dir", "state", "ps"]);
    assert!(!refused.status.success());
    assert!(!project.path().join("state").exists());
}

#[test]
fn names_have_underscores_where_compatibility_is_asked_for() {
    let Some(project) = super::containers(super::PAIR) else {
        return;
    };
    project.succeed(&["--compatibility", "up", "--no-start", "db"]);
    assert_eq!(super::states(&project), ["p_db_1 created"]);
}

#[test]
fn a_state_directory_has_an_engine_of_its_own() {
    let Some(project) = super::containers(super::PAIR) else {
        return;
    };
    let state = project.state_dir().to_string_lossy().into_owned();
    let output = project
        .compose(&["--engine", "embedded", "--state-dir", &state, "up", "--no-start", "db"])
        .env_remove("COMPOSE_STATE_DIR")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(super::states(&project), ["p-db-1 created"]);
}

#[test]
fn a_dry_run_and_its_progress_change_nothing() {
    let Some(project) = super::containers(super::PAIR) else {
        return;
    };
    let told = text(&project.run(&["--dry-run", "--progress", "plain", "up", "-d"]).stderr);
    assert!(told.contains("DRY-RUN MODE -  Container p-web-1  Created"), "{told}");
    assert_eq!(super::states(&project), Vec::<String>::new());
}

#[test]
fn a_graph_is_drawn() {
    let project = project();
    let graph = project.succeed(&[
        "alpha",
        "viz",
        "--image",
        "--networks",
        "--ports",
        "--spaces",
        "--indentation-size",
        "2",
    ]);
    for line in [
        "\n  \"web\" -> \"db\";\n",
        "<b>Image:</b><br/>web:2<",
        "<b>Networks:</b><br/>front<",
        "8080:80 (tcp, ingress)",
    ] {
        assert!(graph.contains(line), "{graph}");
    }
    let plain = project.succeed(&["viz"]);
    assert!(
        plain.contains("\n\t\"web\" -> \"db\";\n") && !plain.contains("Image"),
        "{plain}"
    );
    let short = project.succeed(&[
        "viz",
        "--image",
        "--networks",
        "--ports",
        "--spaces",
        "--indentation-size",
        "2",
    ]);
    assert_eq!(short, graph);
}

#[test]
fn what_is_not_here_says_so() {
    let project = project();
    for arguments in [
        &[
            "bridge",
            "convert",
            "--output",
            "out",
            "--templates",
            "t",
            "--transformation",
            "x",
        ][..],
        &["bridge", "transformations", "create", "--from", "a", "here"],
        &["bridge", "transformations", "list", "--format", "json", "--quiet"],
    ] {
        let output = project.run(arguments);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(told.contains("is not available"), "{told}");
        assert!(!project.path().join("out").exists());
    }
}

#[test]
fn what_variables_say_is_used_but_not_printed() {
    let mut project = Project::new(&[
        (
            "compose.yaml",
            "include: [part/compose.yaml]\n\
             services:\n  web: {image: web, environment: [OUTER, INNER], secrets: [key], dns: [], command: []}\n\
             configs: {text: {environment: OUTER}}\n",
        ),
        (
            "part/compose.yaml",
            "services:\n  part: {image: part, environment: [OUTER, INNER], configs: [given], secrets: [key]}\n\
             secrets: {key: {environment: OUTER}}\n\
             configs: {given: {environment: INNER}}\n",
        ),
        ("part/.env", "INNER=theirs\n"),
    ]);
    project.set("OUTER", "canary");
    let resolved = project.succeed(&["--all-resources", "config"]);
    // Services have the value; what it is a secret or a config of is not told.
    assert_eq!(resolved.matches("canary").count(), 2, "{resolved}");
    assert!(resolved.contains("INNER: theirs"), "{resolved}");
    assert!(!resolved.contains("content"), "{resolved}");
    // As it is written, nothing comes from the environment of who asks.
    let written = project.succeed(&["--all-resources", "config", "--no-interpolate", "--format", "json"]);
    assert!(!written.contains("canary"), "{written}");
    assert!(written.contains("\"INNER=theirs\""), "{written}");
    assert!(
        written.contains("\"dns\": []") && written.contains("\"command\": null"),
        "{written}"
    );
}
