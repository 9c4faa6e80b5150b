//! Compose files in registries: fetched with consent only, kept by digest, and harmless whatever they are called.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use compose::image::sha256;

use crate::support::mock::{Mock, Reply};
use crate::support::registry::Registry;
use crate::support::{self, Project, available, text};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const PROJECT: &str = "application/vnd.docker.compose.project";
const FILE: &str = "application/vnd.docker.compose.file+yaml";
const ENV_FILE: &str = "application/vnd.docker.compose.envfile";

/// A layer: its type, its annotations and its content.
type Layer<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

/// Returns the manifest of an artifact as `docker compose publish` writes it.
fn manifest(artifact_type: &str, layers: &[Layer]) -> String {
    let mut descriptors = String::new();
    for (media_type, annotations, content) in layers {
        let annotations: Vec<String> = annotations
            .iter()
            .map(|(key, value)| format!("{}:{}", serde_json::json!(key), serde_json::json!(value)))
            .collect();
        let separator = if descriptors.is_empty() { "" } else { "," };
        let _ = write!(
            descriptors,
            r#"{separator}{{"mediaType":"{media_type}","digest":"{}","size":{},"annotations":{{{}}}}}"#,
            sha256(content.as_bytes()),
            content.len(),
            annotations.join(",")
        );
    }
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","artifactType":"{artifact_type}","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{}","size":2}},"layers":[{descriptors}]}}"#,
        sha256(b"{}")
    )
}

/// Sends one request and returns the answer, head and all.
fn send(address: &str, method: &str, path: &str, media_type: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    text(&answer)
}

fn push(registry: &Registry, repository: &str, tag: &str, manifest: &str, layers: &[Layer]) {
    let contents = layers.iter().map(|(_, _, content)| *content).chain(["{}"]);
    for content in contents {
        let begun = send(
            &registry.address,
            "POST",
            &format!("/v2/{repository}/blobs/uploads/"),
            "text/plain",
            "",
        );
        let location = begun
            .lines()
            .find_map(|line| line.strip_prefix("Location: "))
            .expect("a place to send to");
        let path = location
            .trim()
            .split_once(&registry.address)
            .map_or(location.trim(), |(_, path)| path);
        let path = format!("{path}&digest={}", sha256(content.as_bytes()));
        let stored = send(&registry.address, "PUT", &path, "application/octet-stream", content);
        assert!(stored.contains(" 201 "), "{stored}");
    }
    let path = format!("/v2/{repository}/manifests/{tag}");
    let stored = send(&registry.address, "PUT", &path, MANIFEST, manifest);
    assert!(stored.contains(" 201 "), "{stored}");
}

#[test]
fn a_project_in_a_registry_is_fetched_with_consent_and_kept() {
    let Some(registry) = Registry::start() else {
        return;
    };
    let layers: &[Layer] = &[
        (
            FILE,
            &[("com.docker.compose.file", "compose.yaml")],
            "services:\n  web:\n    extends: {file: base.yaml, service: base}\n    env_file: [x.env]\n",
        ),
        (
            FILE,
            &[("com.docker.compose.file", "more.yaml")],
            "services:\n  web:\n    hostname: second\n",
        ),
        (
            FILE,
            &[
                ("com.docker.compose.extends", "true"),
                ("com.docker.compose.file", "base.yaml"),
            ],
            "services:\n  base:\n    image: one\n",
        ),
        (ENV_FILE, &[("com.docker.compose.envfile", "x.env")], "A=b\n"),
    ];
    push(&registry, "team/app", "v1", &manifest(PROJECT, layers), layers);
    let name = format!("oci://{}/team/app:v1", registry.address);
    let mut project = Project::new(&[("compose.yaml", &format!("include:\n  - {name}\n"))]);
    let cache = project.path().join("cache");
    project.set("XDG_CACHE_HOME", cache.to_str().unwrap());

    for arguments in [&["-f", name.as_str(), "config"][..], &["config"]] {
        let refused = project.fail(arguments);
        assert!(refused.contains("this command fetches nothing by itself"), "{refused}");
    }
    assert!(!cache.exists(), "nothing is written without consent");

    let shown = project.succeed(&["-f", &name, "config", "--fetch"]);
    for line in ["image: one", "hostname: second", "A: b"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    // What is there is named by its digest, and read again without anybody being asked.
    let digest = sha256(manifest(PROJECT, layers).as_bytes());
    let directory = cache.join("compose/oci").join(digest.trim_start_matches("sha256:"));
    let mut files: Vec<_> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    files.sort();
    assert_eq!(files, ["base.yaml", "compose.yaml", "x.env"]);
    let pinned = format!("oci://{}/team/app@{digest}", registry.address);
    drop(registry);
    assert!(project.succeed(&["-f", &name, "config"]).contains("image: one"));
    assert!(project.succeed(&["config"]).contains("image: one"));
    assert!(project.succeed(&["-f", &pinned, "config"]).contains("image: one"));

    project.set("COMPOSE_EXPERIMENTAL_OCI_REMOTE", "false");
    let refused = project.fail(&["-f", &name, "config", "--fetch"]);
    assert!(
        refused.contains("OCI remote resource is disabled by \"COMPOSE_EXPERIMENTAL_OCI_REMOTE\""),
        "{refused}"
    );
}

/// Serves an artifact under `v1`, another document under the digest of its first file, and an index of it as `index`.
fn serve(artifact_type: &str, layers: &'static [Layer], first: &'static str) -> Mock {
    let manifest = manifest(artifact_type, layers);
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{MANIFEST}","digest":"{}","size":1}},{{"mediaType":"{MANIFEST}","artifactType":"{artifact_type}","digest":"{}","size":{}}}]}}"#,
        sha256(b"an image"),
        sha256(manifest.as_bytes()),
        manifest.len()
    );
    Mock::start(move |request| {
        let asked = request.path.rsplit('/').next().unwrap_or_default();
        let blob = layers
            .iter()
            .find(|(_, _, content)| asked == sha256(content.as_bytes()));
        match (asked, blob) {
            ("", _) => Reply::ok("{}"),
            ("index", _) => Reply::ok(index.clone()),
            (_, Some((_, _, content))) if *content == layers[0].2 => Reply::ok(first),
            (_, Some((_, _, content))) => Reply::ok(*content),
            (asked, None) if asked == "v1" || asked == sha256(manifest.as_bytes()) => Reply::ok(manifest.clone()),
            _ => Reply::status(404, ""),
        }
    })
}

#[test]
fn artifacts_that_lie_or_lead_out_change_nothing() {
    const TEXT: &str = "services: {a: {image: x}}\n";
    const GOOD: &[Layer] = &[(FILE, &[], TEXT)];
    const OUTSIDE: &[Layer] = &[
        (FILE, &[], TEXT),
        (ENV_FILE, &[("com.docker.compose.envfile", "../../../stolen")], "A=1"),
    ];
    let cases: [(&str, &'static [Layer], &'static str, &str); 3] = [
        (
            PROJECT,
            GOOD,
            "services: {a: {image: evil}}\n",
            "does not have the digest",
        ),
        (PROJECT, OUTSIDE, TEXT, "invalid OCI artifact"),
        (
            "application/other",
            GOOD,
            TEXT,
            "is not a application/vnd.docker.compose.project artifact",
        ),
    ];
    for (artifact_type, layers, first, expected) in cases {
        let registry = serve(artifact_type, layers, first);
        let mut project = Project::new(&[]);
        let cache = project.path().join("cache");
        project.set("XDG_CACHE_HOME", cache.to_str().unwrap());
        let name = format!("oci://{}/a/b:v1", registry.address);
        let refused = project.fail(&["-f", &name, "config", "--fetch"]);
        assert!(refused.contains(expected), "{expected}: {refused}");
        let left = std::fs::read_dir(cache.join("compose/oci")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{expected}");
    }
}

/// Returns every file below a directory.
fn files(directory: &Path) -> BTreeMap<PathBuf, String> {
    let all = support::below(directory).into_iter();
    all.filter_map(|(path, content)| Some((path, content?))).collect()
}

#[test]
fn names_in_an_artifact_are_names_and_lead_nowhere() {
    const TEXT: &str = "services: {a: {image: x}}\n";
    let long: &'static str = "x".repeat(4096).leak();
    let absolute = tempfile::tempdir().expect("a directory");
    let absolute: &'static str = absolute.path().join("stolen").display().to_string().leak();
    let names: [&'static str; 13] = [
        "../stolen",
        "../../../stolen",
        "a/../../stolen",
        absolute,
        "/stolen",
        "a/b",
        "..",
        ".",
        "",
        "a\\b",
        "a\0b",
        "compose.yaml/x",
        long,
    ];
    for name in names {
        for (media_type, key) in [
            (FILE, "com.docker.compose.file"),
            (ENV_FILE, "com.docker.compose.envfile"),
        ] {
            let annotations: Vec<(&str, &str)> = vec![("com.docker.compose.extends", "true"), (key, name)];
            let annotations: &'static [(&str, &str)] = leak(annotations);
            let layers: &'static [Layer] = leak(vec![(FILE, &[], TEXT), (media_type, annotations, "STOLEN=1")]);
            let registry = serve(PROJECT, layers, TEXT);
            let mut project = Project::new(&[("here/file", "")]);
            project.enter("here");
            let cache = project.path().join("here/cache");
            project.set("XDG_CACHE_HOME", cache.to_str().expect("text"));
            let address = format!("oci://{}/a/b:v1", registry.address);
            let refused = project.fail(&["-f", &address, "config", "--fetch"]);
            assert!(
                refused.contains("invalid OCI artifact") || refused.contains("File name too long"),
                "{name:?}: {refused}"
            );
            let left: Vec<PathBuf> = files(project.path()).into_keys().collect();
            assert_eq!(left, [project.path().join("here/file")], "{name:?}");
            assert!(!Path::new(absolute).exists() && !Path::new("/stolen").exists());
        }
    }
    // Names that differ in case are different, and what is a link elsewhere is a file's content here.
    let layers: &'static [Layer] = leak(vec![
        (FILE, &[], TEXT),
        (
            FILE,
            &[
                ("com.docker.compose.extends", "true"),
                ("com.docker.compose.file", "COMPOSE.YAML"),
            ],
            "services: {b: {image: y}}\n",
        ),
        (
            "application/vnd.oci.image.layer.v1.tar",
            &[("org.opencontainers.image.title", "../stolen")],
            "a tar",
        ),
    ]);
    let registry = serve(PROJECT, layers, TEXT);
    let mut project = Project::new(&[]);
    let cache = project.path().join("cache");
    project.set("XDG_CACHE_HOME", cache.to_str().expect("text"));
    let shown = project.succeed(&["-f", &format!("oci://{}/a/b:v1", registry.address), "config", "--fetch"]);
    assert!(shown.contains("image: x") && !shown.contains("image: y"), "{shown}");
    let all = files(&cache);
    let mut names: Vec<_> = all
        .keys()
        .filter(|path| !path.to_string_lossy().contains("references"))
        .collect();
    names.sort();
    let names: Vec<_> = names
        .into_iter()
        .map(|path| path.file_name().expect("a name"))
        .collect();
    assert_eq!(names, ["COMPOSE.YAML", "compose.yaml"]);
    assert!(
        all.keys()
            .all(|path| path.symlink_metadata().is_ok_and(|found| found.is_file()))
    );
}

fn leak<T>(values: Vec<T>) -> &'static [T] {
    Vec::leak(values)
}

#[test]
fn what_only_reads_asks_nobody_and_writes_nothing() {
    if !available("strace", Command::new("strace").arg("-V").output().is_ok()) {
        return;
    }
    const GOOD: &[Layer] = &[(FILE, &[], "services: {a: {image: x}}\n")];
    let registry = serve(PROJECT, GOOD, GOOD[0].2);
    let address = format!("oci://{}/a/b:v1", registry.address);
    let repository = format!("http://{}/a/b.git#main:sub", registry.address);
    for file in [
        format!("include:\n  - {address}\n"),
        format!("include:\n  - {repository}\n"),
        format!("services:\n  a:\n    extends: {{file: \"{address}\", service: a}}\n"),
        format!("include:\n  - path: {address}\n    project_directory: /\n    env_file: ../../x\n"),
    ] {
        let mut project = Project::new(&[("compose.yaml", file.as_str())]);
        let cache = project.path().join("cache");
        project.set("XDG_CACHE_HOME", cache.to_str().expect("text"));
        let before = files(project.path());
        for arguments in [&["ps"][..], &["config"], &["images"], &["logs"], &["top"], &["events"]] {
            let (said, calls) = traced(&project, arguments);
            assert!(said.contains("fetches nothing by itself"), "{arguments:?}: {said}");
            if let Some(call) = calls.lines().find(|call| is_writing(call)) {
                panic!("{arguments:?}: {call}");
            }
        }
        assert_eq!(files(project.path()), before);
    }
    assert!(registry.requests().is_empty(), "{:?}", registry.requests());
    // With consent, the trace shows what it would show.
    let mut project = Project::new(&[("compose.yaml", &format!("include: [\"{address}\"]\n"))]);
    project.set("XDG_CACHE_HOME", &project.path().join("cache").display().to_string());
    let (said, calls) = traced(&project, &["config", "--fetch"]);
    assert!(said.contains("image: x"), "{said}");
    let written: Vec<_> = calls.lines().filter(|call| is_writing(call)).collect();
    for wanted in ["connect(", "mkdir(", "/compose.yaml", "rename("] {
        assert!(
            written.iter().any(|call| call.contains(wanted)),
            "{wanted}: {written:?}"
        );
    }
}

/// Runs a command of a project, and returns what it said and the calls by which it may have written something.
fn traced(project: &Project, arguments: &[&str]) -> (String, String) {
    const CALLS: &str = "--trace=openat,openat2,open,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,\
        symlinkat,unlink,unlinkat,chmod,fchmodat,chown,fchownat,truncate,mknodat,connect";
    let trace = project.state_dir().with_extension("trace");
    let plain = project.compose(arguments);
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", CALLS, "-o"])
        .arg(&trace)
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir(project.path())
        .env_clear()
        .envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(std::process::Stdio::null());
    let output = command.output().expect("strace runs");
    let calls = std::fs::read_to_string(&trace).expect("a trace");
    let _ = std::fs::remove_file(&trace);
    (text(&output.stdout) + &text(&output.stderr), calls)
}

/// Returns whether a line of a trace shows that something was written, or somebody spoken to.
fn is_writing(call: &str) -> bool {
    let Some((_, call)) = call.split_once(' ') else {
        return false;
    };
    let call = call.trim_start();
    let name = call.split('(').next().unwrap_or_default();
    let result = call.rsplit(" = ").next().unwrap_or_default();
    let failed = result.starts_with('-') && !result.contains("EINPROGRESS");
    let opens = name.starts_with("open")
        && ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"]
            .iter()
            .any(|flag| call.contains(flag));
    let others = [
        "creat", "mkdir", "rename", "link", "symlink", "unlink", "chmod", "fchmod", "chown", "fchown", "truncate",
        "mknod", "connect",
    ];
    let is_null = call.contains("\"/dev/null\"") || call.contains("\"/dev/tty\"");
    !failed && !is_null && (opens || others.iter().any(|other| name.starts_with(other)))
}

#[test]
fn an_index_leads_to_the_artifact() {
    const GOOD: &[Layer] = &[(FILE, &[], "services: {a: {image: x}}\n")];
    let registry = serve(PROJECT, GOOD, GOOD[0].2);
    let mut project = Project::new(&[]);
    project.set("XDG_CACHE_HOME", project.path().join("cache").to_str().unwrap());
    let name = format!("oci://{}/a/b:index", registry.address);
    let shown = project.succeed(&["-f", &name, "config", "--fetch"]);
    assert!(shown.contains("image: x"), "{shown}");
}
