//! Commands about images, with a registry of the test's own.

use std::os::unix::net::UnixListener;

use super::containers;
use crate::support::registry::Registry;
use crate::support::{Project, busybox, text};

/// A project whose images are in a registry, or will be.
fn project(file: &str) -> Option<(Project, Registry)> {
    let project = containers("")?;
    let registry = Registry::start()?;
    project.write("compose.yaml", &file.replace("REGISTRY", &registry.address));
    std::fs::copy("/bin/busybox", project.path().join("busybox")).expect("busybox-static is installed");
    Some((project, registry))
}

const BUILT: &str = "\
services:
  base:
    image: REGISTRY/base:1
    build:
      context: .
      dockerfile_inline: |
        FROM scratch
        ARG X=0
        COPY busybox /bin/sh
        LABEL x=$$X
        CMD sh
  app:
    image: REGISTRY/app:1
    depends_on: [base]
    build:
      context: .
      dockerfile_inline: |
        FROM scratch
        COPY busybox /bin/sh
  other: {image: REGISTRY/base:1}
";

#[test]
fn build_does_what_its_flags_say() {
    let Some((project, registry)) = project(BUILT) else {
        return;
    };
    let images = || project.docker(&["images", "--format", "{{.Repository}}"]);
    let label = || {
        project.docker(&[
            "inspect",
            "-f",
            "{{index .Config.Labels \"x\"}}",
            &format!("{}/base:1", registry.address),
        ])
    };
    project.succeed(&["build", "app"]);
    assert_eq!(images(), format!("{}/app\n", registry.address));
    project.succeed(&["build", "--with-dependencies", "--build-arg", "X=7", "app"]);
    assert_eq!(label(), "7\n");
    let quiet = project.run(&[
        "build",
        "--quiet",
        "--pull",
        "--progress",
        "plain",
        "--memory",
        "64m",
        "base",
    ]);
    assert!(quiet.status.success());
    assert_eq!(
        (text(&quiet.stdout), text(&quiet.stderr)),
        (String::new(), String::new())
    );
    assert_eq!(label(), "0\n");
    let cached = |more: &[&str]| {
        let output = project.run(&[&["build", "base"], more].concat());
        assert!(output.status.success());
        format!("{}{}", text(&output.stdout), text(&output.stderr)).contains("CACHED")
    };
    assert!(cached(&[]));
    assert!(!cached(&["--no-cache"]));
    // Flags of docker's older builders, and what is not written here.
    let old = ["--compress", "--force-rm", "--no-rm", "--parallel"];
    assert!(cached(&old));
    let told = text(
        &project
            .run(&[
                "build",
                "--sbom",
                "true",
                "--provenance",
                "mode=max",
                "--builder",
                "mine",
                "base",
            ])
            .stderr,
    );
    for flag in ["--sbom", "--provenance", "--builder"] {
        assert!(told.contains(&format!("{flag} has no effect")), "{told}");
    }
    let up = project.run(&["up", "--no-start", "--build", "--quiet-build", "base"]);
    assert!(
        up.status.success() && !text(&up.stderr).contains("CACHED"),
        "{}",
        text(&up.stderr)
    );
    project.succeed(&["down"]);
    project.succeed(&["build", "--push", "base"]);
    project.docker(&["rmi", "-f", &format!("{}/base:1", registry.address)]);
    project.succeed(&["pull", "--quiet", "other"]);
    assert_eq!(label(), "0\n");
}

#[test]
fn build_offers_keys_and_prints_what_it_would_do() {
    let file = "services:\n  base:\n    image: base:1\n    build:\n      context: .\n      args: {A: \"1\"}\n      dockerfile_inline: |\n        FROM \
                scratch\n        COPY busybox /bin/sh\n        RUN --mount=type=ssh,id=mine [\"/bin/sh\", \"-c\", \"test -S $SSH_AUTH_SOCK && true\"]\n";
    let Some((project, _registry)) = project(file) else {
        return;
    };
    let agent = project.path().join("agent");
    let _agent = UnixListener::bind(&agent).unwrap();
    let given = format!("mine={}", agent.display());
    let told = text(&project.run(&["--dry-run", "build"]).stderr);
    let lines: Vec<&str> = told.lines().filter(|line| line.starts_with(" DRY-RUN")).collect();
    assert!(
        lines[0].starts_with(" DRY-RUN MODE -  base ==> ==> writing image dryRun-")
            && lines[1..]
                == [
                    " DRY-RUN MODE -  base ==> ==> naming to base:1 ",
                    " DRY-RUN MODE -  base  Built"
                ],
        "{told}"
    );
    project.succeed(&["build", "--ssh", &given]);
    let printed = project.succeed(&["build", "--print"]);
    assert!(
        !printed.contains('<') && printed.contains("\\u0026\\u0026 true"),
        "{printed}"
    );
    let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(printed["group"]["default"]["targets"][0], "base");
    assert_eq!(printed["target"]["base"]["args"]["A"], "1");
    assert_eq!(printed["target"]["base"]["tags"][0], "base:1");
}

#[test]
fn images_go_to_the_registry_and_come_back() {
    let Some((project, registry)) = project(BUILT) else {
        return;
    };
    let image = |name: &str| format!("{}/{name}:1", registry.address);
    let is_there = |name: &str| !project.docker(&["images", "-q", &image(name)]).is_empty();
    project.succeed(&["build"]);
    project.succeed(&["push", "--include-deps", "--quiet", "app"]);
    for name in ["base", "app"] {
        project.docker(&["rmi", "-f", &image(name)]);
    }
    project.succeed(&["pull", "--ignore-buildable"]);
    assert!(is_there("base") && !is_there("app"));
    project.docker(&["rmi", "-f", &image("base")]);
    let quiet = project.run(&["pull", "--quiet", "--parallel", "--no-parallel=false", "app"]);
    // Layers are not told of; the image is.
    let told = text(&quiet.stderr);
    assert!(told.ends_with(" app Pulling \n app Pulled \n"), "{told}");
    assert!(is_there("app") && !is_there("base"));
    project.succeed(&["pull", "--include-deps", "--policy", "missing", "app"]);
    assert!(is_there("base"));

    project.write(
        "compose.yaml",
        &format!(
            "services: {{there: {{image: \"{}\"}}, lost: {{image: \"{}\"}}}}",
            image("base"),
            image("lost")
        ),
    );
    project.fail(&["pull", "--policy", "always"]);
    project.succeed(&["pull", "--ignore-pull-failures"]);
    project.write(
        "compose.yaml",
        "services: {lost: {image: \"127.0.0.1:1/lost:1\", build: {context: ., dockerfile_inline: \"FROM scratch\\nCOPY busybox /b\\n\"}}}",
    );
    project.succeed(&["build"]);
    project.fail(&["push"]);
    project.succeed(&["push", "--ignore-push-failures"]);
}

#[test]
fn digests_are_asked_of_the_registry() {
    let Some((project, registry)) = project(BUILT) else {
        return;
    };
    project.succeed(&["build", "--push", "base"]);
    let image = format!("{}/base:1", registry.address);
    let pushed = project.docker(&["image", "inspect", "-f", "{{index .RepoDigests 0}}", &image]);
    let (_, digest) = pushed.trim_end().split_once('@').expect("a digest");
    // What is here under that name by now is something else, and counts for nothing.
    project.write(
        "compose.yaml",
        &format!("services: {{base: {{image: \"{image}\", build: {{context: ., dockerfile_inline: \"FROM scratch\\nCOPY busybox /other\\n\"}}}}}}"),
    );
    project.succeed(&["build"]);
    project.write(
        "compose.yaml",
        &format!("services: {{web: {{image: \"{image}\", hostname: a}}, local: {{image: \"rootfs:/\"}}}}"),
    );
    let expected = format!("{image}@{digest}");
    let pinned = project.succeed(&["config", "--resolve-image-digests"]);
    assert!(
        pinned.contains(&expected) && pinned.contains("hostname: a") && pinned.contains("image: rootfs:/\n"),
        "{expected}: {pinned}"
    );
    let locked = project.succeed(&["config", "--lock-image-digests"]);
    assert!(
        locked.contains(&expected) && !locked.contains("hostname"),
        "{expected}: {locked}"
    );
    // A dry run asks as well.
    let told = project.run(&["--dry-run", "pull"]);
    assert!(
        told.status.success() && crate::support::text(&told.stderr).contains("web Pulled"),
        "{told:?}"
    );
    project.write("compose.yaml", &format!("services: {{web: {{image: \"{image}0\"}}}}"));
    let told = project.fail(&["--dry-run", "pull"]);
    assert!(told.contains("base:10"), "{told}");
}

#[test]
fn build_checks_dockerfiles_as_buildkit_does() {
    let Some(project) = containers("") else { return };
    busybox(&project);
    project.write("Dockerfile", "FROM busybox\nENV A=$B\nCMD x\n");
    project.write(
        "compose.yaml",
        "services:\n  bad: {build: {context: ., args: {X: \"1\"}}}\n  good:\n    build: {dockerfile_inline: \"FROM \
         busybox\\nRUN true\\n\"}\n  gone: {build: {dockerfile_inline: \"FROM 127.0.0.1:1/x:1\\n\"}}\n",
    );
    let page = "https://docs.docker.com/go/dockerfile/rule";
    let file = project.path().join("Dockerfile");
    let file = file.display();
    let expected = format!(
        "bad\n\nCheck complete, 2 warnings have been found!\n\nWARNING: UndefinedVar - {page}/undefined-var/\nUsage of \
         undefined variable '$B'\n{file}:2\n--------------------\n   1 |     FROM busybox\n   2 | >>> ENV A=$B\n   3 |     \
         CMD x\n   4 |     \n--------------------\n\nWARNING: JSONArgsRecommended - {page}/json-args-recommended/\nJSON \
         arguments recommended for CMD to prevent unintended behavior related to OS signals\n{file}:3\n\
         --------------------\n   1 |     FROM busybox\n   2 |     ENV A=$B\n   3 | >>> CMD x\n   4 |     \n\
         --------------------\n\ngood\n\nCheck complete, no warnings found.\n"
    );
    let checked = project.run(&["build", "--check", "bad", "good"]);
    assert_eq!(text(&checked.stdout), expected);
    assert_eq!(checked.status.code(), Some(1));
    assert_eq!(
        project.succeed(&["build", "--check", "good"]),
        "good\n\nCheck complete, no warnings found.\n"
    );
    let gone = project.run(&["build", "--check", "gone"]);
    let told = text(&gone.stdout);
    assert!(
        told.starts_with("gone\n\nERROR: 127.0.0.1:1/x:1: failed to resolve source metadata: "),
        "{told}"
    );
    assert_eq!(gone.status.code(), Some(1));
    // Nothing was built.
    assert_eq!(project.docker(&["images", "--format", "{{.Repository}}"]), "busybox\n");
}

#[test]
fn a_published_application_has_its_images_with_it() {
    let file = "services:\n  web:\n    image: REGISTRY/web:1\n    build:\n      dockerfile_inline: |\n        FROM \
                scratch\n        COPY busybox /bin/sh\n";
    let Some((project, registry)) = project(file) else {
        return;
    };
    project.succeed(&["build"]);
    let curl = |path: &str| {
        let accept =
            "Accept: application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.index.v1+json";
        let address = format!("http://{}/v2/{path}", registry.address);
        let output = std::process::Command::new("curl")
            .args(["-sf", "-H", accept, &address])
            .output()
            .unwrap();
        (output.status.success(), output.stdout)
    };
    for (command, name) in [(&["publish"][..], "app"), (&["alpha", "publish"], "app2")] {
        let place = format!("{}/{name}:1", registry.address);
        let mut arguments = command.to_vec();
        arguments.extend(["--app", "--yes", &place]);
        project.succeed(&arguments);
        let (_, image) = curl("web/manifests/1");
        let manifest: serde_json::Value = serde_json::from_slice(&image).unwrap();
        let digest = compose::image::sha256(&image);
        let (is_there, copied) = curl(&format!("{name}/manifests/{digest}"));
        assert!(
            is_there && copied == image,
            "the image's manifest is in the application's repository"
        );
        let layer = manifest["layers"][0]["digest"].as_str().unwrap();
        assert!(curl(&format!("{name}/blobs/{layer}")).0, "and so are its layers");
        let indexes = registry.documents("\"subject\"");
        assert!(!indexes.is_empty(), "an index ties them together");
        for index in indexes {
            assert_eq!(index["manifests"][0]["digest"], digest.as_str());
            assert_eq!(index["artifactType"], "application/vnd.docker.compose.project");
        }
    }
}

#[test]
fn an_application_is_published_with_the_files_it_names() {
    let Some((project, registry)) = project("") else { return };
    project.write(
        "compose.yaml",
        "services:\n  web:\n    image: busybox\n    env_file:\n      - web.env\n  two:\n    extends:\n      file: \
         base.yaml\n      service: base\n",
    );
    project.write("web.env", "X=1\n");
    project.write(
        "base.yaml",
        "services:\n  base:\n    image: busybox\n    volumes: [/srv:/srv:ro]\n",
    );
    let name = format!("{}/app:1", registry.address);
    let refused = project.fail(&["publish", "--yes", &name]);
    assert!(
        refused.starts_with("service \"web\" has env_file declared.\n"),
        "{refused}"
    );
    let asked = project.succeed(&["publish", "--with-env", &name]);
    assert!(
        asked.ends_with("Are you ok to publish these bind mount declarations?"),
        "{asked}"
    );
    project.succeed(&["publish", "--with-env", "--yes", "--insecure-registry", &name]);
    let manifest = || {
        let address = format!("http://{}/v2/app/manifests/1", registry.address);
        let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
        let output = std::process::Command::new("curl")
            .args(["-sf", "-H", accept, &address])
            .output()
            .unwrap();
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let published = manifest();
    assert_eq!(published["artifactType"], "application/vnd.docker.compose.project");
    let layers = published["layers"].as_array().unwrap();
    let kinds: Vec<&str> = layers
        .iter()
        .map(|layer| layer["mediaType"].as_str().unwrap())
        .collect();
    let file = "application/vnd.docker.compose.file+yaml";
    assert_eq!(kinds, [file, file, "application/vnd.docker.compose.envfile"]);
    let blob =
        |index: usize| std::fs::read_to_string(registry.blob(layers[index]["digest"].as_str().unwrap())).unwrap();
    let (own, base) = (blob(0), &layers[1]["annotations"]["com.docker.compose.file"]);
    assert!(own.contains(&format!("file: {}\n", base.as_str().unwrap())), "{own}");
    assert!(!own.contains("web.env") && !own.contains("base.yaml"), "{own}");
    assert_eq!(blob(2), "X=1\n");

    project.succeed(&[
        "alpha",
        "publish",
        "--with-env",
        "-y",
        "--insecure-registry",
        "--oci-version",
        "1.0",
        &name,
    ]);
    assert_eq!(
        manifest()["config"]["mediaType"],
        "application/vnd.docker.compose.config.empty.v1+json"
    );
    let refused = project.fail(&["publish", "--oci-version", "7", &name]);
    assert!(refused.contains("invalid OCI version \"7\""), "{refused}");
    let refused = project.fail(&[
        "alpha",
        "publish",
        "--resolve-image-digests",
        "--with-env",
        "--yes",
        "--oci-version",
        "1.1",
        &name,
    ]);
    assert!(!refused.is_empty(), "busybox is at no registry that could be asked");
    project.write(
        "base.yaml",
        &format!("services:\n  base:\n    image: {}/app:1\n", registry.address),
    );
    project.fail(&["publish", "--resolve-image-digests", "--with-env", "--yes", &name]);
}

#[test]
fn a_file_is_generated_from_containers() {
    let Some(project) = containers(super::PAIR) else { return };
    project.succeed(&["up", "-d", "--scale", "db=2", "db"]);
    let names = ["p-db-1", "p-db-2"];
    let generated = project.succeed(&["generate", "--name", "again", names[0], names[1]]);
    assert!(generated.starts_with("name: again\nservices:\n  db:\n"), "{generated}");
    assert!(
        generated.contains("    scale: 2\n") && generated.contains("      - sleep\n"),
        "{generated}"
    );
    let json = project.succeed(&["alpha", "generate", "--format", "json", "--name", "again", "p-db-1"]);
    assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{json}");
    project.succeed(&[
        "generate",
        "--format",
        "yaml",
        "--project-dir",
        "out",
        names[0],
        names[1],
    ]);
    project.succeed(&["-f", "out/compose.yaml", "config", "-q"]);
    project.succeed(&["alpha", "generate", "--project-dir", "other", names[0]]);
    assert!(project.path().join("other/compose.yaml").is_file());
    let refused = project.fail(&["generate", "nobody"]);
    assert!(
        refused.ends_with("no container(s) found with the following name(s): nobody\n"),
        "{refused}"
    );
}
