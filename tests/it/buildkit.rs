//! Builds by the BuildKit of Docker's engine. Needs one that has `busybox:latest`: `COMPOSE_TEST_DOCKER_HOST` says where.

use std::os::unix::net::UnixListener;

use crate::support::{Project, text};

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
