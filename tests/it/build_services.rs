//! Services that are built, several at a time.

use std::time::{Duration, Instant};

use crate::support::{self, Project, text};

fn project(file: &str) -> Option<Project> {
    if !support::available("root and busybox-static", support::is_root() && support::has_busybox()) {
        return None;
    }
    let project = Project::new(&[("compose.yaml", file)]);
    support::busybox(&project);
    Some(project)
}

#[test]
fn images_that_do_not_need_each_other_are_built_at_the_same_time() {
    // Each waits until the other has begun, too.
    let Some(project) = project(
        "services:
  one: {build: {dockerfile_inline: &meet \"FROM busybox:latest\\nARG ME\\nARG OTHER\\nRUN --mount=type=cache,id=meet,target=/m \
         touch /m/$$ME && for i in $$(seq 300); do test -e /m/$$OTHER && exit 0; sleep 0.1; done; exit 1\\n\", args: {ME: a, OTHER: b}, network: none}}
  two: {build: {dockerfile_inline: *meet, args: {ME: b, OTHER: a}, network: none}}
",
    ) else {
        return;
    };
    let output = project.run(&["--progress", "plain", "build"]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    for built in [" one  Built", " two  Built", "#one #", "#two #"] {
        assert!(said.contains(built), "{built}: {said}");
    }
    project.write(
        "compose.yaml",
        &std::fs::read_to_string(project.path().join("compose.yaml"))
            .expect("the file")
            .replace("id=meet", "id=alone")
            .replace("seq 300", "seq 5"),
    );
    let said = project.fail(&["--parallel", "1", "build"]);
    assert!(said.contains("exit code: 1"), "one at a time, they do not meet: {said}");
}

#[test]
fn a_step_that_several_need_at_the_same_time_is_done_once() {
    let Some(project) = project(
        "services:
  one: &same
    build:
      network: none
      dockerfile_inline: |
        FROM busybox:latest
        RUN --mount=type=cache,id=count,target=/m echo done >> /m/count; sleep 0.5; cp /m/count /count
  two: *same
  three: *same
  counted:
    build: {network: none, additional_contexts: {two: 'service:two'}, dockerfile_inline: \"FROM two\\nRUN wc -l < /count > /lines\\n\"}
    command: [cat, /lines]
    network_mode: none
",
    ) else {
        return;
    };
    let output = project.run(&["--progress", "plain", "build"]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("[2/2] RUN --mount=type=cache").count(), 3, "{said}");
    assert_eq!(project.succeed(&["run", "--rm", "-T", "counted"]), "1\n");
    project.succeed(&["down"]);
}

#[test]
fn the_first_build_that_fails_ends_the_others() {
    let Some(project) = project(
        "services:
  slow: {build: {network: none, dockerfile_inline: \"FROM busybox:latest\\nRUN sleep 100\\n\"}}
  wrong: {build: {network: none, dockerfile_inline: \"FROM busybox:latest\\nRUN echo the reason; sleep 1; exit 3\\n\"}}
  third: {build: {network: none, additional_contexts: {slow: 'service:slow'}, dockerfile_inline: \"FROM slow\\n\"}}
",
    ) else {
        return;
    };
    let begun = Instant::now();
    let said = project.fail(&["--progress", "plain", "build"]);
    assert!(begun.elapsed() < Duration::from_secs(50), "{said}");
    assert!(said.contains("the reason") && said.contains("exit code: 3"), "{said}");
    assert!(
        said.contains(" wrong  Error") && said.contains(" slow  Canceled"),
        "{said}"
    );
    assert!(
        !said.contains("third"),
        "what is built on another one has to wait for it: {said}"
    );
}

#[test]
fn an_image_may_have_the_same_layer_twice() {
    let Some(project) = project(
        "services:
  app:
    build:
      network: none
      dockerfile_inline: |
        FROM busybox:latest
        RUN true 1
        RUN true 2
        RUN mkdir /a && echo one > /a/one
        RUN rm -r /a
        RUN mkdir /a && echo one > /a/one
        RUN true 3
        RUN cat /a/one > /seen
    command: [cat, /seen, /a/one]
    network_mode: none
",
    ) else {
        return;
    };
    project.succeed(&["build"]);
    assert_eq!(project.succeed(&["run", "--rm", "-T", "app"]), "one\none\n");
    project.succeed(&["down"]);
}
