//! Build caches between engines: one builds and gives its cache away, another one takes it and does nothing again.

use crate::support::registry::{Options, Registry};
use crate::support::{self, Project, available};

/// Steps that never make the same twice.
const DOCKERFILE: &str = "FROM busybox:latest AS first\n\
    RUN cat /proc/sys/kernel/random/uuid > /first\n\
    FROM busybox:latest\n\
    RUN cat /proc/sys/kernel/random/uuid > /own\n\
    COPY --from=first /first /first\n\
    WORKDIR /work\n";

/// The password is "secret".
const USERS: &str = "tester:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

/// Returns a project with an engine of its own that has nothing but `busybox`.
fn engine() -> Project {
    let project = Project::new(&[("Dockerfile", DOCKERFILE)]);
    support::busybox(&project);
    project
}

/// Returns another one, which has the same `busybox`.
fn another(one: &Project) -> Project {
    let project = Project::new(&[("Dockerfile", DOCKERFILE)]);
    let archive = project.path().join("busybox.tar").display().to_string();
    one.docker(&["image", "save", "-o", &archive, "busybox:latest"]);
    // An engine is started by the first command that needs one.
    project.succeed(&["ls"]);
    project.docker(&["image", "load", "-i", &archive]);
    project
}

/// Builds with these attributes, and returns the image's id and what its steps made.
fn build(project: &Project, image: &str, attributes: &str) -> (String, String) {
    project.write(
        "compose.yaml",
        &format!(
            "name: cached\nservices:\n  app:\n    build: {{context: ., network: none, {attributes}}}\n    image: {image}\n    network_mode: none\n"
        ),
    );
    let said = project.run(&["build"]);
    let text = support::text(&said.stderr) + &support::text(&said.stdout);
    assert!(said.status.success(), "{text}");
    assert!(
        !text.contains("not imported") && !text.contains("not exported"),
        "{text}"
    );
    let id = project.docker(&["image", "inspect", "-f", "{{.Id}}", image]);
    let made = project.succeed(&["run", "--rm", "-T", "app", "cat", "/first", "/own"]);
    assert_eq!(made.lines().count(), 2, "{made}");
    (id, made)
}

fn names(project: &Project) -> Vec<String> {
    let list = project.docker(&["image", "ls", "-a", "--format", "{{.Repository}}:{{.Tag}}"]);
    let mut names: Vec<String> = list.lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn a_cache_travels_by_directory_by_registry_and_in_the_image() {
    let may_run = available("root and busybox-static", support::is_root() && support::has_busybox());
    let registry = if may_run { Registry::start() } else { None };
    let Some(registry) = registry else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let (shared, address) = (directory.path().display(), &registry.address);
    let one = engine();
    let to = format!(
        "cache_to: [\"type=local,dest={shared},mode=max\", \"type=registry,ref={address}/cache:max,mode=max\"]"
    );
    let built = build(&one, "app:1", &to);
    assert_eq!(built, build(&one, "app:1", ""), "it is in the engine's own cache");
    for from in [
        format!("\"type=local,src={shared}\""),
        format!("\"type=registry,ref={address}/cache:max\""),
        format!("\"{address}/cache:max\""),
    ] {
        let two = another(&one);
        assert_eq!(built, build(&two, "app:1", &format!("cache_from: [{from}]")), "{from}");
        assert_eq!(names(&two), ["app:1", "busybox:latest"], "the cache itself is no image");
    }
    let without = build(&another(&one), "app:1", "");
    assert_ne!(built.1, without.1, "the steps never make the same twice");

    // An image that carries the cache of its own steps.
    let image = format!("{address}/app:1");
    let inline = build(&one, &image, "cache_to: [type=inline]");
    one.succeed(&["push"]);
    let two = another(&one);
    let taken = build(&two, "app:1", &format!("cache_from: [\"{image}\"]"));
    let own = |(_, made): &(String, String)| made.lines().nth(1).map(str::to_owned);
    assert_eq!(own(&inline), own(&taken), "what the image has is known");
}

#[test]
fn a_cache_that_cannot_be_had_is_said_and_one_that_cannot_be_given_is_an_error() {
    if !available("root", support::is_root()) {
        return;
    }
    let project = Project::new(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let file = |attributes: &str| {
        let text = format!("services: {{app: {{build: {{context: ., {attributes}}}, image: \"app:1\"}}}}\n");
        project.write("compose.yaml", &text);
    };
    let all = |output: std::process::Output| support::text(&output.stderr) + &support::text(&output.stdout);
    file("cache_from: [\"type=local,src=missing\"], cache_to: [\"type=gha,scope=x\"]");
    let output = project.run(&["build"]);
    assert!(output.status.success());
    let said = all(output);
    assert!(said.contains("not imported: "), "{said}");
    assert!(said.contains("no build cache of type \"gha\""), "{said}");
    file("cache_to: [\"type=local,dest=Dockerfile\"]");
    let said = project.fail(&["build"]);
    assert!(said.contains("cannot export the build cache to "), "{said}");
    file("cache_to: [\"type=local,dest=Dockerfile,ignore-error=true\"]");
    let said = all(project.run(&["build"]));
    assert!(said.contains("not exported: "), "{said}");
    file("cache_to: [\"type=local\"]");
    let said = project.fail(&["build"]);
    assert!(said.contains("dest is missing"), "{said}");
}

#[test]
fn a_base_and_a_cache_are_fetched_with_the_login_of_who_builds() {
    let options = Options {
        users: USERS.to_owned(),
        ..Options::default()
    };
    let may_run = available("root and busybox-static", support::is_root() && support::has_busybox());
    let registry = if may_run { Registry::with(options) } else { None };
    let Some(registry) = registry else { return };
    let address = &registry.address;
    let one = engine();
    let login = |project: &Project| {
        let auth = "dGVzdGVyOnNlY3JldA==";
        let config = format!("{{\"auths\": {{\"{address}\": {{\"auth\": \"{auth}\"}}}}}}");
        project.write("who/config.json", &config);
        let mut command = project.compose(&["build"]);
        // The engine started without it: only this command knows the login.
        command.env("DOCKER_CONFIG", project.path().join("who"));
        command
    };
    one.write(
        "compose.yaml",
        &format!(
            "services: {{app: {{build: {{context: ., network: none, cache_to: [\"type=registry,ref={address}/cache:1\"]}}, image: \"{address}/base:1\"}}}}\n"
        ),
    );
    let output = login(&one).output().expect("the binary runs");
    assert!(output.status.success(), "{}", support::text(&output.stderr));
    let output = {
        let mut command = one.compose(&["push"]);
        command.env("DOCKER_CONFIG", one.path().join("who")).output()
    };
    assert!(output.expect("the binary runs").status.success());
    let two = engine();
    two.write("Dockerfile", &format!("FROM {address}/base:1\nRUN test -s /own\n"));
    two.write(
        "compose.yaml",
        "services: {app: {build: {context: ., network: none}}}\n",
    );
    let refused = two.fail(&["build"]);
    assert!(
        refused.contains("unauthorized") || refused.contains("denied"),
        "{refused}"
    );
    let output = login(&two).output().expect("the binary runs");
    assert!(output.status.success(), "{}", support::text(&output.stderr));
}
