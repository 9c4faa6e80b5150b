//! Commands that tell what there is.

use super::{PAIR, containers, ids};
use crate::support::text;

#[test]
fn ps_lists_what_it_is_asked_for() {
    let Some(project) = containers(PAIR) else { return };
    project.succeed(&["up", "-d"]);
    project.succeed(&["stop", "-t", "0", "web"]);
    let names = |more: &[&str]| {
        let all = [&["ps", "--format", "{{.Name}}"], more].concat();
        project.succeed(&all).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["p-db-1"]);
    assert_eq!(names(&["--all"]), ["p-db-1", "p-web-1"]);
    assert_eq!(names(&["--status", "exited"]), ["p-web-1"]);
    assert_eq!(names(&["--filter", "status=exited"]), ["p-web-1"]);
    assert_eq!(project.succeed(&["ps", "--services"]), "db\n");
    let whole = ids(&project, "db")[0].clone();
    assert_eq!(project.succeed(&["ps", "--quiet"]), format!("{}\n", whole));
    assert!(!project.succeed(&["ps"]).contains(&whole));
    assert!(
        project
            .succeed(&["ps", "--no-trunc", "--format", "{{.ID}}"])
            .contains(&whole)
    );
    assert!(!project.succeed(&["ps", "--format", "{{.ID}}"]).contains(&whole));
    project.write("compose.yaml", &PAIR.replace("  web:", "  other:"));
    assert_eq!(names(&["-a"]), ["p-db-1", "p-web-1"]);
    assert_eq!(names(&["-a", "--orphans=false"]), ["p-db-1"]);
}

#[test]
fn projects_images_and_volumes_are_listed() {
    let file = "services:\n  web:\n    image: rootfs:/\n    command: sleep 300\n    init: true\n    stop_grace_period: \
                0s\n    volumes: [\"data:/convergence\"]\n    ports: [\"127.0.0.1::80\", \"127.0.0.1::81/udp\"]\n    scale: 2\nvolumes: {data: }\n";
    let Some(project) = containers(file) else { return };
    project.succeed(&["up", "-d"]);
    assert_eq!(project.succeed(&["ls", "--quiet"]), "p\n");
    assert!(
        project
            .succeed(&["ls", "--filter", "name=p", "--format", "json"])
            .starts_with("[{\"Name\":\"p\",\"Status\":\"running(2)\"")
    );
    assert_eq!(project.succeed(&["ls", "--filter", "name=other", "-q"]), "");

    assert_eq!(project.succeed(&["volumes", "--quiet"]), "p_data\n");
    assert_eq!(
        project.succeed(&["volumes", "--format", "{{.Name}} {{.Driver}}"]),
        "p_data local\n"
    );
    let port = |arguments: &[&str]| {
        project
            .succeed(arguments)
            .trim()
            .rsplit_once(':')
            .unwrap()
            .1
            .parse::<u16>()
            .unwrap()
    };
    assert_ne!(
        port(&["port", "--index", "1", "web", "80"]),
        port(&["port", "--index", "2", "web", "80"])
    );
    assert_ne!(
        port(&["port", "web", "80"]),
        port(&["port", "--protocol", "udp", "web", "81"])
    );

    assert!(project.succeed(&["images"]).contains("p-web-2"));
    assert!(
        project
            .succeed(&["images", "--format", "json"])
            .starts_with("[{\"ID\":\"")
    );
    assert_eq!(project.succeed(&["images", "--quiet"]).lines().count(), 1);

    project.succeed(&["stop", "-t", "0"]);
    assert_eq!(project.succeed(&["ls", "-q"]), "");
    assert!(project.succeed(&["ls", "--all"]).contains("exited(2)"));
}

#[test]
fn processes_and_what_they_take_are_shown() {
    let Some(project) = containers(PAIR) else { return };
    project.succeed(&["up", "-d"]);
    let top = project.succeed(&["top", "db"]);
    assert!(top.starts_with("SERVICE") && top.contains("sleep 300"), "{top}");
    project.succeed(&["stop", "-t", "0", "web"]);
    let stats = |more: &[&str]| project.succeed(&[&["stats", "--no-stream"], more].concat());
    assert_eq!(stats(&["--format", "{{.Name}}"]), "p-db-1\n");
    assert!(stats(&["--all"]).contains("p-web-1"));
    let whole = ids(&project, "db")[0].clone();
    assert!(stats(&["--no-trunc"]).contains(&whole));
    assert!(!stats(&[]).contains(&whole));

    let used: serde_json::Value = serde_json::from_str(&project.succeed(&["df", "--format", "json"])).unwrap();
    assert!(used.to_string().contains("Containers"), "{used}");
    project.succeed(&["df", "--verify"]);
}

#[test]
fn what_happened_is_told_from_when_to_when() {
    let Some(project) = containers(PAIR) else { return };
    project.succeed(&["up", "-d", "db"]);
    // The stream ends at the time given, which docker compose takes for a failure.
    let told = |arguments: &[&str]| {
        let output = project.run(arguments);
        assert_eq!(
            (output.status.code(), text(&output.stderr).as_str()),
            (Some(1), "EOF\n")
        );
        text(&output.stdout)
    };
    let events = told(&["events", "--json", "--since", "1h", "--until", "0s", "db"]);
    let actions: Vec<String> = events
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["action"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(actions, ["create", "start"]);
    let plain = told(&["events", "--since", "1h", "--until", "0s"]);
    assert!(plain.lines().next().unwrap().contains(" container create "), "{plain}");
    assert_eq!(told(&["events", "--since", "1h", "--until", "30m"]), "");
}

#[test]
fn what_nothing_uses_goes() {
    let file = "services: {made: {build: {context: ., dockerfile_inline: \"FROM scratch\\nCMD [\\\"/x\\\"]\\n\"}, volumes: [/v]}}\n";
    let Some(project) = containers(file) else { return };
    project.succeed(&["create"]);
    project.succeed(&["rm", "-f"]);
    let count = |what: &[&str]| project.docker(what).lines().count();
    assert_eq!((count(&["volume", "ls", "-q"]), count(&["images", "-q"])), (1, 1));
    project.succeed(&["prune", "--force"]);
    assert_eq!((count(&["volume", "ls", "-q"]), count(&["images", "-q"])), (1, 1));
    project.succeed(&["prune", "--force", "--all", "--volumes"]);
    assert_eq!((count(&["volume", "ls", "-q"]), count(&["images", "-q"])), (0, 0));
}
