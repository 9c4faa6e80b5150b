//! What programs give to services: those of providers, and language models.

use std::os::unix::fs::PermissionsExt;

use super::{Stage, on_ours};

/// Puts a plugin of the docker CLI into the project's home.
fn plugin(stage: &Stage, name: &str, script: &str) {
    let path = format!(".docker/cli-plugins/docker-{name}");
    stage.project.write(&path, &format!("#!/bin/sh\n{script}"));
    let path = stage.project.path().join(path);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
}

fn calls(stage: &Stage) -> String {
    let path = stage.project.path().join("calls");
    let calls = std::fs::read_to_string(&path).unwrap_or_default();
    let _ = std::fs::remove_file(path);
    calls
}

#[test]
fn a_provider_s_program_provides_the_service_and_its_variables_reach_dependents() {
    let file = "services:
  db: {provider: {type: cloud, options: {size: 10, zone: [a, b], big: true}}}
  web: {<<: *base, depends_on: [db], environment: {OWN: kept}}
  other: {<<: *base}
";
    on_ours(file, &[], |stage| {
        let error = stage.fails(&["up", "-d"]);
        assert!(
            error.contains("exec: \"cloud\": executable file not found in $PATH"),
            "{error}"
        );
        // Two objects on one line, then one in two pieces.
        let script = r#"
echo "$@ in $COMPOSE_PROJECT_NAME" >> "$HOME/calls"
test "$2" = metadata && exit 1
printf '{"type":"info","message":"working"}{"type":"debug","message":"x"}\n{"type":"set'
sleep 0.1
printf 'env","message":"URL=http://x?a=b"}\n'
"#;
        plugin(stage, "cloud", script);
        let name = &stage.name;
        let shown = stage.run(&["up", "-d"]);
        let shown = crate::support::text(&shown.stderr);
        for line in [" db  Creating\n", " db  working\n", " db  Created\n"] {
            assert!(shown.contains(line), "{shown}");
        }
        assert_eq!(
            calls(stage),
            format!(
                "compose metadata in {name}\ncompose --project-name={name} up --big=true --size=10 --zone=a --zone=b db in {name}\n"
            )
        );
        let variables = "tr '\\0' '\\n' < /proc/1/environ | grep -E '^(DB_|OWN)' | sort";
        stage.prints("web", variables, "DB_URL=http://x?a=b\nOWN=kept");
        stage.prints("other", variables, "");
        // What is provided as before changes nothing, and needs no container.
        let container = stage.succeeds(&["ps", "-q", "web"]);
        stage.succeeds(&["up", "-d"]);
        assert_eq!(stage.succeeds(&["ps", "-q", "web"]), container);
        stage.succeeds(&["stop"]);
        stage.succeeds(&["start"]);
        calls(stage);
        stage.succeeds(&["down"]);
        assert!(calls(stage).ends_with(&format!(
            "compose --project-name={name} down --big=true --size=10 --zone=a --zone=b db in {name}\n"
        )));
        for (script, expected) in [
            (r#"echo '{"type":"error","message":"no luck"}'"#, "no luck"),
            ("exit 3", "failed to create service provider: exit status 3"),
            ("echo hello", "invalid response from plugin: hello"),
        ] {
            plugin(stage, "cloud", &format!("test \"$3\" = down && exit 0\n{script}\n"));
            let error = stage.fails(&["up", "-d"]);
            assert!(error.contains(expected), "{error}");
            assert_eq!(stage.succeeds(&["ps", "-a", "-q"]), "", "nothing else is made");
        }
        plugin(stage, "cloud", "exit 0\n");
    });
}

#[test]
fn services_are_told_where_their_models_are() {
    let file = "services:
  web: {<<: *base, models: [llm, my-other]}
  api: {<<: *base, models: {llm: {model_var: MM, endpoint_var: WHERE}}}
models:
  llm: {model: ai/smol, context_size: 1024, runtime_flags: ['--x', '2']}
  my-other: {model: ai/other}
";
    on_ours(file, &[], |stage| {
        let error = stage.fails(&["up", "-d"]);
        assert!(
            error.contains("'models' support requires Docker Model plugin"),
            "{error}"
        );
        let script = r#"
echo "$@" >> "$HOME/calls"
case "$1" in
ls) echo '[{"id":"x","tags":["ai/other"]}]';;
status) echo '{"running":true,"endpoint":"http://m/v1/"}';;
esac
"#;
        plugin(stage, "model", script);
        stage.succeeds(&["up", "-d"]);
        let mut called: Vec<String> = calls(stage).lines().map(str::to_owned).collect();
        called.sort();
        assert_eq!(
            called,
            [
                "configure --context-size 1024 ai/smol -- --x 2",
                "configure ai/other",
                "ls --json",
                "pull ai/smol",
                "status --json",
            ]
        );
        let variables = "tr '\\0' '\\n' < /proc/1/environ | grep -E '^(LLM|MY_|MM|WHERE)' | sort";
        stage.prints(
            "web",
            variables,
            "LLM_MODEL=ai/smol\nLLM_URL=http://m/v1/\nMY_OTHER_MODEL=ai/other\nMY_OTHER_URL=http://m/v1/",
        );
        stage.prints("api", variables, "MM=ai/smol\nWHERE=http://m/v1/");
    });
}
