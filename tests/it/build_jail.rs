//! Dockerfiles made to reach what is not theirs: files of the machine through mounts, caches and links, its environment,
//! its registries.
//!
//! Every test here was red once against a variant of the builder that does the obvious thing instead.

use crate::support::mock::{Mock, Reply};
use crate::support::{self, Project, available, text};

const FILE: &str =
    "services:\n  app:\n    build: {context: ., network: none}\n    image: built:1\n    network_mode: none\n";

/// Returns a project that can build on busybox, with a directory outside that no build has any business in.
fn project() -> Option<Project> {
    project_with(&[])
}

/// The same, in an environment that has these variables from its engine's first moment on.
fn project_with(variables: &[(&str, &str)]) -> Option<Project> {
    if !available("root", support::is_root()) || !available("a static busybox at /bin/busybox", support::has_busybox())
    {
        return None;
    }
    let mut project = Project::new(&[("compose.yaml", FILE), (".dockerignore", "outside\n")]);
    for (name, value) in variables {
        project.set(name, value);
    }
    support::busybox(&project);
    project.write("outside/secret", "canary\n");
    project.write("outside/sub/file", "canary\n");
    Some(project)
}

/// Builds, and returns whether that succeeded and what was said; what is outside stays as it is, whatever becomes of it.
#[track_caller]
fn build(project: &Project, dockerfile: &str) -> (bool, String) {
    let outside = project.path().join("outside");
    let before = support::below(&outside);
    project.write(
        "Dockerfile",
        &dockerfile.replace("OUTSIDE", &outside.display().to_string()),
    );
    let output = project.run(&["build"]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(
        support::below(&outside),
        before,
        "nothing outside is made, changed or taken away: {said}"
    );
    assert!(!said.contains("canary"), "{said}");
    (output.status.success(), said)
}

#[test]
fn what_is_mounted_is_found_where_its_links_lead_inside() {
    let Some(project) = project() else { return };
    // From another stage: a link leads to what that stage has of its name, and to nothing where it has nothing.
    for (target, source, is_there) in [
        ("OUTSIDE", "/link", false),
        ("OUTSIDE", "/link/sub", false),
        ("../../../../../../../../..OUTSIDE", "/link", false),
        ("/proc/self/root", "/link", false),
        ("/proc/self/cwd", "/link", false),
        ("/", "/link/inner", true),
        ("/inner", "/link", true),
        ("../../../inner", "/link", true),
    ] {
        let (succeeded, said) = build(
            &project,
            &format!(
                "FROM busybox:latest AS other\nRUN mkdir /inner && echo the-stage-s > /inner/file && ln -s {target} /link\n\
                 FROM busybox:latest\n\
                 RUN --mount=type=bind,from=other,source={source},target=/m,rw \
                 echo {target}; cat /m/file /m/secret /mOUTSIDE/secret; touch /m/new; rm -rf /m/secret /m/file; true\n"
            ),
        );
        assert_eq!(succeeded, is_there, "{target} {source}: {said}");
        assert!(
            said.contains(if is_there { "the-stage-s\n" } else { "not found" }),
            "{target} {source}: {said}"
        );
    }
    // From the context, whose links lead no further than the context.
    let link = project.path().join("link");
    std::os::unix::fs::symlink(project.path().join("outside"), &link).expect("a link");
    for source in ["link", "link/sub", "../outside", "/outside"] {
        let (succeeded, said) = build(
            &project,
            &format!(
                "FROM busybox:latest\nRUN --mount=type=bind,source={source},target=/m,rw cat /m/secret /m/file; touch /m/new\n"
            ),
        );
        assert!(!succeeded && said.contains("not found"), "{source}: {said}");
    }
    let (succeeded, said) = build(&project, "FROM busybox:latest\nCOPY link/secret /secret\n");
    assert!(!succeeded && said.contains("not found"), "{said}");
}

#[test]
fn a_cache_is_named_by_its_id_and_holds_what_was_put_there() {
    let Some(project) = project() else { return };
    let climbs = format!("{}OUTSIDE", "../".repeat(12));
    for id in [climbs.as_str(), "OUTSIDE", "..", "../../images", "."] {
        let (succeeded, said) = build(
            &project,
            &format!(
                "FROM busybox:latest\n\
                 RUN --mount=type=cache,id={id},target=/c ls -A /c > /had; cat /c/secret /c/fs/secret; touch /c/new\n\
                 RUN test ! -s /had\n"
            ),
        );
        assert!(succeeded, "{id}: {said}");
    }
    // What one step leaves in a cache leads the next one nowhere.
    for source in ["link", "link/sub"] {
        build(
            &project,
            &format!(
                "FROM busybox:latest\n\
                 RUN --mount=type=cache,id=shared,target=/c ln -sfn OUTSIDE /c/link; echo {source}\n\
                 RUN --mount=type=cache,id=shared,source={source},target=/d \
                 find /d -type f -exec cat {{}} ';'; touch /d/new; rm -f /d/secret /d/file; true\n"
            ),
        );
    }
}

#[test]
fn places_to_mount_on_are_made_and_taken_away_inside() {
    let Some(project) = project() else { return };
    for (prepare, target) in [
        // The place is below a link of the image, or is one.
        ("ln -s OUTSIDE /link", "/link/made"),
        ("ln -s OUTSIDE /link", "/link/sub"),
        ("ln -s OUTSIDE/made /link", "/link"),
        (
            "mkdir /a && ln -s ../../../../../../../../..OUTSIDE /a/link",
            "/a/link/deep/er",
        ),
    ] {
        for kind in [
            "tmpfs",
            "cache",
            "bind,from=other,source=/x",
            "bind,from=other,source=/x/f",
        ] {
            let (_, said) = build(
                &project,
                &format!(
                    "FROM busybox:latest AS other\nRUN mkdir /x && echo f > /x/f\n\
                     FROM busybox:latest\nRUN {prepare}\n\
                     RUN --mount=type={kind},target={target} cat {target}/secret {target}/file; true\n"
                ),
            );
            assert!(!said.contains("panicked"), "{said}");
        }
    }
    // A step that may do so takes its mount away, and makes the way to it a link.
    project.write(
        "compose.yaml",
        &FILE.replace("network: none", "network: none, privileged: true"),
    );
    for (target, way) in [
        ("/way/secret", "/way"),
        ("/way/sub/file", "/way/sub"),
        ("/new/way/file", "/new"),
    ] {
        for kind in ["tmpfs", "bind,from=other,source=/x/f"] {
            let (succeeded, said) = build(
                &project,
                &format!(
                    "FROM busybox:latest AS other\nRUN mkdir /x && echo f > /x/f\n\
                     FROM busybox:latest\n\
                     RUN --mount=type={kind},target={target} umount {target} && rm -rf {way} && ln -s OUTSIDE {way}\n\
                     RUN --mount=type={kind},target={target} umount {target}; rm -rf {way}; ln -s OUTSIDE/sub {way}\n"
                ),
            );
            assert!(succeeded, "{target}: {said}");
        }
    }
}

#[test]
fn the_environment_of_whoever_builds_is_nowhere_in_the_image() {
    // The engine keeps variables that begin like the last two; the steps get none of them.
    let variables = ["HOST_CANARY", "COMPOSE_CANARY", "COMPOSE_UNDECLARED_CANARY"].map(|name| (name, "tell-nobody"));
    let Some(project) = project_with(&variables) else {
        return;
    };
    project.write(
        "Dockerfile",
        "FROM busybox:latest\n\
         ARG HOST_CANARY\nARG COMPOSE_CANARY=default\n\
         RUN env > /environment; cat /proc/self/environ /proc/1/environ >> /environment\n\
         RUN echo \"${HOST_CANARY}${COMPOSE_CANARY}\" > /arguments\n\
         ENV FROM_ARGUMENT=$HOST_CANARY\n",
    );
    project.succeed(&["build"]);
    let image = ["image", "inspect", "built:1"];
    assert!(!project.docker(&image).contains("tell-nobody"));
    let history = project.docker(&["history", "--no-trunc", "built:1"]);
    assert!(
        history.contains("/environment") && !history.contains("tell-nobody"),
        "{history}"
    );
    let said = project.succeed(&["run", "--rm", "-T", "app", "cat", "/environment", "/arguments"]);
    assert!(said.contains("PATH=") && said.contains("default"), "{said}");
    assert!(!said.contains("tell-nobody"), "{said}");
    let archive = project.path().join("built.tar").display().to_string();
    project.docker(&["image", "save", "-o", &archive, "built:1"]);
    let archive = std::fs::read(archive).expect("an archive");
    assert!(!text(&archive).contains("tell-nobody"), "not in its layers either");
}

#[test]
fn no_program_that_a_dockerfile_names_reads_it_and_no_step_has_more_rights_than_it_was_given() {
    let Some(project) = project() else { return };
    let registry = Mock::start(|_| Reply::status(404, ""));
    let (succeeded, said) = build(
        &project,
        &format!(
            "# syntax={}/evil/frontend:1\nFROM busybox:latest\nRUN echo own > /own\n",
            registry.address
        ),
    );
    assert!(succeeded && said.contains("is not used"), "{said}");
    assert!(registry.requests().is_empty(), "{:?}", registry.requests());
    let (succeeded, said) = build(
        &project,
        "FROM busybox:latest\nRUN --security=insecure mount -t tmpfs x /mnt && echo mounted\n",
    );
    assert!(
        !succeeded && said.contains("security.insecure is not allowed"),
        "{said}"
    );
    let (succeeded, said) = build(&project, "FROM busybox:latest\nRUN --network=host true\n");
    assert!(!succeeded && said.contains("network.host is not allowed"), "{said}");
}
