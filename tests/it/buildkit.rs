//! Builds by the BuildKit of Docker's engine. Needs one that has `busybox:latest`: `COMPOSE_TEST_DOCKER_HOST` says where.

use std::os::unix::net::UnixListener;

use crate::support::{self, Project, text};

const DOCKERFILE: &str = "FROM busybox:latest AS first\n\
    ARG A\n\
    RUN --mount=type=secret,id=token,required=true cat /run/secrets/token | md5sum > /sum; echo $A > /arg\n\
    RUN --mount=type=ssh,required=true test -S $SSH_AUTH_SOCK && grep 1.2.3.4 /etc/hosts > /hosts\n\
    FROM busybox:latest AS last\n\
    COPY --link --from=first /sum /arg /hosts /\n\
    RUN <<EOT\necho heredoc > /heredoc\nEOT\n\
    FROM last AS after\n\
    RUN false\n";

const FILE: &str = "services:
  app:
    build:
      context: .
      target: last
      args: {A: one}
      labels: {l: v}
      secrets: [token]
      ssh: [default]
      extra_hosts: [\"h=1.2.3.4\"]
      network: none
      no_cache: true
      cache_to: [type=inline]
    image: compose-test-buildkit
    network_mode: none
secrets:
  token: {environment: TOKEN}
";

#[test]
fn docker_builds_by_buildkit_with_all_that_a_build_is_given() {
    let Ok(host) = std::env::var("COMPOSE_TEST_DOCKER_HOST") else {
        eprintln!("SKIPPED: COMPOSE_TEST_DOCKER_HOST is not set");
        return;
    };
    let mut project = Project::new(&[("compose.yaml", FILE), ("Dockerfile", DOCKERFILE)]);
    let agent = project.path().join("agent");
    let _listening = UnixListener::bind(&agent).expect("a socket");
    project.set("DOCKER_HOST", &host);
    project.set("COMPOSE_ENGINE", "docker");
    project.set("TOKEN", "abc");
    project.set("SSH_AUTH_SOCK", &agent.display().to_string());
    let output = project.run(&["--progress", "plain", "build"]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("[last 3/3] RUN <<EOT (echo heredoc > /heredoc)"),
        "{said}"
    );
    assert!(
        !said.contains("false"),
        "a stage that nobody needs is not built: {said}"
    );
    let cat = ["run", "--rm", "-T", "app", "cat", "/sum", "/arg", "/hosts", "/heredoc"];
    assert_eq!(
        project.succeed(&cat),
        "900150983cd24fb0d6963f7d28e17f72  -\none\n1.2.3.4\th\nheredoc\n"
    );
    project.write("compose.yaml", &FILE.replace("target: last", "target: after"));
    let failed = project.fail(&["build"]);
    assert!(
        failed.contains("did not complete successfully: exit code: 1"),
        "{failed}"
    );
    project.write("compose.yaml", &FILE.replace("secrets: [token]", "secrets: []"));
    let failed = project.fail(&["build"]);
    assert!(failed.contains("secret token: not found"), "{failed}");
    project.succeed(&["down", "--rmi", "all"]);
}

/// Returns a project whose commands go to Docker's engine, if there is one.
fn on_docker(files: &[(&str, &str)]) -> Option<Project> {
    let Ok(host) = std::env::var("COMPOSE_TEST_DOCKER_HOST") else {
        eprintln!("SKIPPED: COMPOSE_TEST_DOCKER_HOST is not set");
        return None;
    };
    let mut project = Project::new(files);
    project.set("DOCKER_HOST", &host);
    project.set("COMPOSE_ENGINE", "docker");
    Some(project)
}

const NAMED: &str = "services:
  base:
    build: {context: base, dockerfile: Own.Dockerfile}
    image: compose-test-buildkit-base
  app:
    build:
      context: .
      target: last
      args: {A: one}
      labels: {l: v}
      additional_contexts: {below: 'service:base', files: ./other, alpha: 'docker-image://busybox:latest'}
      entitlements: [network.host]
      extra_hosts: [\"h=1.2.3.4\", \"gate=host-gateway\"]
      shm_size: 10m
      ulimits: {nofile: {soft: 100, hard: 200}}
      tags: [compose-test-buildkit-named:second]
    image: compose-test-buildkit-named
    network_mode: none
";

#[test]
fn docker_builds_with_named_contexts_and_entitlements_through_the_session() {
    let dockerfile = "FROM below AS first\n\
        COPY --from=files kept deep/ /taken/\n\
        COPY . /context/\n\
        RUN --network=host grep -c 1.2.3.4 /etc/hosts > /hosts; grep -c gate /etc/hosts >> /hosts; ulimit -n >> /hosts\n\
        FROM alpha AS last\n\
        ARG A\n\
        RUN echo $A > /arg\n\
        COPY --from=first / /first/\n";
    let Some(project) = on_docker(&[
        ("compose.yaml", NAMED),
        ("Dockerfile", dockerfile),
        (".dockerignore", "secret\nbase\n*.yaml\n"),
        ("secret", "stays"),
        ("own", "text"),
        ("base/Own.Dockerfile", "FROM busybox:latest\nCOPY mark /mark\n"),
        ("base/mark", "of base\n"),
        ("other/.dockerignore", "left\ndeep/*\n!deep/kept\n"),
        ("other/kept", "kept\n"),
        ("other/left", "left\n"),
        ("other/deep/kept", "deep\n"),
        ("other/deep/left", "left\n"),
    ]) else {
        return;
    };
    let large = "x".repeat(300_000);
    project.write("large", &large);
    std::os::unix::fs::symlink("own", project.path().join("link")).expect("a link");
    let output = project.run(&["--progress", "plain", "build"]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("#app #") && said.contains("RUN echo one > /arg"),
        "{said}"
    );
    let script = "cat /arg /first/mark /first/taken/kept /first/hosts; cd /first/taken && ls; cd /first/context && ls -A; \
                  wc -c < large; readlink link; stat -c %u own";
    let run = ["run", "--rm", "-T", "app", "sh", "-c", script];
    let expected =
        "one\nof base\ndeep\n1\n1\n100\nkept\n.dockerignore\nDockerfile\nlarge\nlink\nother\nown\n300000\nown\n0\n";
    assert_eq!(project.succeed(&run), expected);
    project.write(
        "compose.yaml",
        &NAMED.replace("entitlements: [network.host]", "privileged: true"),
    );
    let refused = project.fail(&["build"]);
    assert!(refused.contains("security.insecure is not allowed"), "{refused}");
    project.write("compose.yaml", &NAMED.replace("./other", "./nowhere"));
    let refused = project.fail(&["build"]);
    assert!(
        refused.contains("/nowhere is no directory\n --> compose.yaml:11:"),
        "{refused}"
    );
    project.succeed(&["down", "--rmi", "all"]);
    support::docker_at(
        &std::env::var("COMPOSE_TEST_DOCKER_HOST").expect("it was there"),
        &["image", "rm", "compose-test-buildkit-named:second"],
    );
}

#[test]
fn docker_takes_a_cache_from_a_directory_and_what_it_cannot_is_said() {
    let file = "services:
  app:
    build:
      context: .
      network: none
      cache_from: ['type=local,src=cache', 'type=s3,bucket=b']
      cache_to: ['type=local,dest=cache']
    image: compose-test-buildkit-cache
    network_mode: none
";
    let Some(project) = on_docker(&[
        ("compose.yaml", file),
        ("Dockerfile", "FROM busybox:latest\nRUN echo a > /a\n"),
    ]) else {
        return;
    };
    let output = project.run(&["build"]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    for (place, words) in [
        ("compose.yaml:6:20", "cache/index.json"),
        ("compose.yaml:6:44", "no caches of type s3"),
        ("compose.yaml:7:18", "exports no caches of type local"),
    ] {
        let told = said
            .lines()
            .any(|line| line.contains(place) && line.contains(words) && line.contains("has no effect"));
        assert!(told, "{place}: {words}: {said}");
    }
    // A cache that is there is read, by its digest.
    let digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    project.write(&format!("cache/blobs/sha256/{digest}"), "{}");
    let index = format!("{{\"manifests\": [{{\"digest\": \"sha256:{digest}\", \"size\": 2}}]}}");
    project.write("cache/index.json", &index);
    let output = project.run(&["--progress", "plain", "build"]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("importing cache manifest from local"), "{said}");
    assert!(!said.contains("cache/index.json"), "{said}");
    project.write(
        "compose.yaml",
        &file.replace("context: .", "context: .\n      platforms: [linux/amd64, linux/arm64]"),
    );
    let refused = project.fail(&["build"]);
    assert!(
        refused.contains("one platform") && refused.contains("\n --> compose.yaml:5:18"),
        "{refused}"
    );
    project.succeed(&["down", "--rmi", "all"]);
}

#[test]
fn what_the_builder_before_buildkit_does_not_know_is_said_with_its_place() {
    let file = "services:
  app:
    build:
      context: .
      network: none
      cache_from: ['type=local,src=cache']
      cache_to: ['type=inline']
      entitlements: [network.host]
    image: compose-test-buildkit-classic
";
    let Some(mut project) = on_docker(&[("compose.yaml", file), ("Dockerfile", "FROM busybox:latest\n")]) else {
        return;
    };
    project.set("DOCKER_BUILDKIT", "0");
    let output = project.run(&["build"]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    for place in ["compose.yaml:6:20", "compose.yaml:7:18", "compose.yaml:8:21"] {
        assert!(
            said.lines()
                .any(|line| line.contains(place) && line.contains("has no effect")),
            "{place}: {said}"
        );
    }
    project.write(
        "compose.yaml",
        &file.replace("entitlements: [network.host]", "additional_contexts: {a: .}"),
    );
    let refused = project.fail(&["build"]);
    assert!(
        refused.contains("build.additional_contexts: this engine has no BuildKit")
            && refused.contains("compose.yaml:8:28"),
        "{refused}"
    );
    project.succeed(&["down", "--rmi", "all"]);
}
