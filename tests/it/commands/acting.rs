//! Commands that change containers.

use std::time::{Duration, Instant};

use super::{PAIR, containers, ids, states};
use crate::support::text;

#[test]
fn up_makes_no_more_than_it_is_asked_to() {
    let Some(project) = containers(PAIR) else { return };
    project.succeed(&[
        "up",
        "--no-start",
        "--yes",
        "--pull",
        "never",
        "--quiet-pull",
        "--no-build",
    ]);
    assert_eq!(states(&project), ["p-db-1 created", "p-web-1 created"]);
    project.succeed(&["start", "--wait", "--wait-timeout", "20"]);
    assert_eq!(states(&project), ["p-db-1 running", "p-web-1 running"]);

    let (db, web) = (ids(&project, "db"), ids(&project, "web"));
    let changed = project
        .compose(&["up", "-d", "--no-recreate"])
        .env("V", "2")
        .output()
        .unwrap();
    assert!(changed.status.success());
    assert_eq!((ids(&project, "db"), ids(&project, "web")), (db.clone(), web.clone()));

    project.succeed(&["up", "-d", "--no-deps", "--force-recreate", "web"]);
    assert_eq!(ids(&project, "db"), db);
    assert_ne!(ids(&project, "web"), web);

    project.succeed(&["up", "-d", "--always-recreate-deps", "--timeout", "0", "web"]);
    assert_ne!(ids(&project, "db"), db);

    project.succeed(&["up", "-d", "--scale", "db=2", "db"]);
    assert_eq!(ids(&project, "db").len(), 2);
    project.succeed(&["scale", "--no-deps", "db=1"]);
    assert_eq!(ids(&project, "db").len(), 1);
    project.succeed(&["alpha", "scale", "--no-deps", "web=2"]);
    assert_eq!(ids(&project, "web").len(), 2);
}

#[test]
fn create_makes_containers_that_do_not_run() {
    let Some(project) = containers(PAIR) else { return };
    project.succeed(&[
        "create",
        "--scale",
        "db=2",
        "--pull",
        "never",
        "--quiet-pull",
        "--no-build",
        "--yes",
    ]);
    assert_eq!(
        states(&project),
        ["p-db-1 created", "p-db-2 created", "p-web-1 created"]
    );
    let web = ids(&project, "web");
    project.succeed(&["create", "--force-recreate", "web"]);
    assert_ne!(ids(&project, "web"), web);
    let db = ids(&project, "db");
    let changed = project
        .compose(&["create", "--no-recreate", "--scale", "db=2"])
        .env("V", "2")
        .output()
        .unwrap();
    assert!(changed.status.success(), "{}", text(&changed.stderr));
    assert!(ids(&project, "db").contains(&db[0]));
    project.write("compose.yaml", &PAIR.replace("  web:", "  other:"));
    project.succeed(&["create", "--remove-orphans", "--scale", "db=2", "--no-recreate"]);
    assert_eq!(
        states(&project),
        ["p-db-1 created", "p-db-2 created", "p-other-1 created"]
    );
    project.write(
        "compose.yaml",
        "services: {made: {build: {context: ., dockerfile_inline: \"FROM scratch\\nCMD [\\\"/x\\\"]\\n\"}}}",
    );
    project.succeed(&["create", "--build", "--remove-orphans"]);
    assert_eq!(states(&project), ["p-made-1 created"]);
}

#[test]
fn containers_stop_restart_and_go_as_told() {
    let Some(project) = containers(PAIR) else { return };
    project.succeed(&["up", "-d"]);
    let started = |name: &str| project.docker(&["inspect", "-f", "{{.State.StartedAt}}", name]);
    let (db, web) = (started("p-db-1"), started("p-web-1"));
    project.succeed(&["restart", "--no-deps", "-t", "0", "db"]);
    assert_ne!(started("p-db-1"), db);
    assert_eq!(started("p-web-1"), web);

    project.succeed(&["pause", "db"]);
    assert_eq!(states(&project), ["p-db-1 paused", "p-web-1 running"]);
    project.succeed(&["unpause", "db"]);
    project.succeed(&["stop", "--timeout", "0", "web"]);
    assert_eq!(states(&project), ["p-db-1 running", "p-web-1 exited"]);
    project.succeed(&["start", "web"]);

    project.write("compose.yaml", &PAIR.replace("  web:", "  other:"));
    project.succeed(&["kill", "--signal", "SIGKILL", "db"]);
    assert_eq!(states(&project), ["p-db-1 exited", "p-web-1 running"]);
    // As with docker compose, orphans are killed too, and stay.
    project.succeed(&["kill", "--remove-orphans"]);
    assert_eq!(states(&project), ["p-db-1 exited", "p-web-1 exited"]);
    project.succeed(&["up", "--no-start", "--remove-orphans", "db"]);

    project.write(
        "compose.yaml",
        &PAIR.replace("stop_grace_period: 0s\n    env", "volumes: [/anonymous]\n    env"),
    );
    project.succeed(&["up", "-d", "db"]);
    assert_eq!(project.docker(&["volume", "ls", "-q"]).lines().count(), 1);
    let (refused, nobody) = (project.run(&["rm", "db"]), project.succeed(&["ps", "-q", "db"]));
    assert!(refused.status.success() && !nobody.is_empty(), "a running one stays");
    project.succeed(&["rm", "--all", "--force", "--stop", "--volumes", "db"]);
    assert_eq!(states(&project), Vec::<String>::new());
    assert_eq!(project.docker(&["volume", "ls", "-q"]), "");
}

#[test]
fn the_end_of_one_can_be_the_end_of_all() {
    let Some(project) = containers(PAIR) else { return };
    project.succeed(&["up", "-d"]);
    let waiting = project
        .compose(&["wait", "--down-project", "db"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    project.succeed(&["kill", "-s", "KILL", "db"]);
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(137));
    assert!(text(&output.stdout).ends_with("exited with status code 137\n"));
    assert_eq!(states(&project), Vec::<String>::new());
    assert_eq!(
        project.docker(&["network", "ls", "-q", "--filter", "name=p_default"]),
        ""
    );
}

#[test]
fn down_takes_images_and_volumes_along_when_asked() {
    let file = "services:\n  web:\n    build: {context: ., dockerfile_inline: \"FROM scratch\\nCMD [\\\"/x\\\"]\\n\"}\n    \
                volumes: [\"data:/data\"]\nvolumes: {data: }\n";
    let Some(project) = containers(file) else { return };
    project.succeed(&["create"]);
    project.succeed(&["down", "--timeout", "0"]);
    assert_eq!(project.succeed(&["volumes", "-q"]), "p_data\n");
    assert!(project.docker(&["images"]).contains("p-web"));
    project.succeed(&["create"]);
    project.write("compose.yaml", &file.replace("  web:", "  other:"));
    project.succeed(&["down", "--remove-orphans", "--rmi", "all", "--volumes"]);
    assert_eq!(states(&project), Vec::<String>::new());
    assert_eq!(project.succeed(&["volumes", "-q"]), "");
    project.write("compose.yaml", file);
    project.succeed(&["create"]);
    project.succeed(&["down", "--rmi", "local", "-v"]);
    assert!(!project.docker(&["images"]).contains("p-web"));
    assert_eq!(
        project.fail(&["down", "--rmi", "zap"]),
        "invalid value for --rmi: \"zap\"\n"
    );
}

#[test]
fn files_go_in_and_out_and_become_images() {
    let Some(project) = containers(&PAIR.replace("    depends_on: [db]\n", "    scale: 2\n")) else {
        return;
    };
    project.write("in.txt", "in\n");
    std::os::unix::fs::symlink("in.txt", project.path().join("link")).unwrap();
    project.succeed(&["up", "-d"]);
    project.succeed(&["cp", "--index", "2", "--follow-link", "link", "web:/var/tmp/given"]);
    let cat = |index: &str| project.run(&["exec", "-T", "--index", index, "web", "cat", "/var/tmp/given"]);
    assert_eq!(text(&cat("2").stdout), "in\n");
    assert!(!cat("1").status.success());
    project.succeed(&["cp", "--all", "--archive", "in.txt", "web:/var/tmp/given"]);
    assert_eq!(text(&cat("1").stdout), "in\n");
    project.succeed(&["cp", "web:/var/tmp/given", "out.txt"]);
    assert_eq!(std::fs::read_to_string(project.path().join("out.txt")).unwrap(), "in\n");

    let image = project.path().join(".busy");
    std::fs::create_dir(&image).unwrap();
    std::fs::copy("/bin/busybox", image.join("busybox")).unwrap();
    project.write(
        "compose.yaml",
        "services:\n  box:\n    build: {context: .busy, dockerfile_inline: \"FROM scratch\\nCOPY busybox \
         /bin/sh\\n\"}\n    image: box:old\n    command: [\"/bin/sh\", \"-c\", \"echo made > /made; sleep 300\"]\n    \
         init: true\n",
    );
    project.succeed(&["up", "-d", "--remove-orphans"]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !project
        .run(&["exec", "-T", "box", "sh", "-c", "test -e /made"])
        .status
        .success()
    {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    let commit = [
        "commit",
        "--author",
        "me",
        "--message",
        "a note",
        "--pause=false",
        "--change",
        "ENV A=1",
        "--index",
        "1",
        "box",
        "box:new",
    ];
    project.succeed(&commit);
    let about = project.docker(&["inspect", "-f", "{{.Author}} {{.Comment}} {{.Config.Env}}", "box:new"]);
    assert!(about.starts_with("me a note [") && about.contains("A=1"), "{about}");
    project.succeed(&["export", "--index", "1", "--output", "box.tar", "box"]);
    let mut archive = tar::Archive::new(std::fs::File::open(project.path().join("box.tar")).unwrap());
    let names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned())
        .collect();
    assert!(names.iter().any(|name| name == "made"), "{names:?}");
}

#[test]
fn what_is_paused_already_is_all_that_is_told_of() {
    let Some(project) = containers(PAIR) else { return };
    project.succeed(&["up", "-d"]);
    project.succeed(&["pause", "db"]);
    let told = project.fail(&["pause"]);
    assert!(told.contains("is already paused") && !told.contains("Paused"), "{told}");
    assert_eq!(states(&project), ["p-db-1 paused", "p-web-1 paused"]);
    project.succeed(&["unpause", "web"]);
    let told = project.fail(&["up", "-d"]);
    assert!(told.contains("Container p-db-1  Restart"), "{told}");
    assert!(
        told.contains("cannot start a paused container, try unpause instead"),
        "{told}"
    );
    project.succeed(&["unpause", "db"]);
    assert_eq!(states(&project), ["p-db-1 running", "p-web-1 running"]);
}

#[test]
fn refusals_are_docker_composes() {
    let Some(mut project) = containers(PAIR) else { return };
    project.succeed(&["up", "-d"]);
    let directory = project.path().canonicalize().unwrap();
    let directory = directory.display();
    for (arguments, expected) in [
        (&["ps", "--filter", "source=x"][..], "not implemented".to_owned()),
        (
            &["ps", "--format", "{{.Name}} {{.Nope}}"],
            "template parsing error: template: :1:12: executing \"\" at <.Nope>: can't evaluate field Nope in type \
             *formatter.ContainerContext"
                .to_owned(),
        ),
        (
            &["export", "-o", "nowhere/x", "web"],
            format!(
                "failed to export container: invalid output path: directory \"{directory}/nowhere\" does not exist"
            ),
        ),
        (
            &["run", "--rm", "--env-from-file", "nope", "db", "true"],
            "open nope: no such file or directory".to_owned(),
        ),
        (&["cp", "compose.yaml", "web:"], "no such directory".to_owned()),
        (
            &["commit", "web", "BAD"],
            "invalid reference format: repository name (library/BAD) must be lowercase".to_owned(),
        ),
    ] {
        let told = project.fail(arguments);
        assert_eq!(told.lines().last(), Some(expected.as_str()), "{arguments:?}");
    }
    assert_eq!(project.succeed(&["ls", "-q", "--filter", "name=^p$"]), "p\n");
    assert_eq!(project.succeed(&["ls", "-q", "--filter", "name=^q"]), "");
    assert!(project.succeed(&["ls", "--format", "pretty"]).contains("running(2)"));
    let raw = project.succeed(&["ps", "--format", "raw", "web"]);
    assert!(
        raw.starts_with("container_id: ") && raw.contains("\nstate: running\n"),
        "{raw}"
    );
    let table = project.succeed(&["ps", "--format", "table {{.Names}}", "web"]);
    assert_eq!(table, "<no value>\np-web-1\n");

    let elsewhere = project.run(&["-p", "p", "restart", "-t", "0", "nope"]);
    assert_eq!(text(&elsewhere.stderr), "no such service: nope\n");
    let elsewhere = project.run(&["-p", "p", "down", "nope", "other"]);
    let told = text(&elsewhere.stderr);
    assert!(
        elsewhere.status.success()
            && told.contains("level=info msg=\"Any of the services [nope other] not running in project \\\"p\\\"\""),
        "{told}"
    );
    project.set("COMPOSE_FILE", "nope.yaml");
    let told = project.fail(&["config", "-q"]);
    assert_eq!(told, format!("stat {directory}/nope.yaml: no such file or directory\n"));
}
