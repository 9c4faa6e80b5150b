//! The real binary against a real registry that asks who it is: passwords, helpers, tokens, certificates. And other people's tools.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::authority::Authority;
use crate::support::mock::{Mock, Reply};
use crate::support::registry::{Options, Registry};
use crate::support::{self, Project, available, text};

// The password is "secret".
const USERS: &str = "tester:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

/// Returns a project whose one image is built of one file, and belongs into a registry.
fn project(registry: &Registry) -> Option<Project> {
    if !available("root", support::is_root()) {
        return None;
    }
    let file = format!(
        "services:\n  app:\n    build: {{dockerfile_inline: \"FROM scratch\\nCOPY compose.yaml /here/\\n\"}}\n    image: {}/team/app:1\n",
        registry.address
    );
    Some(Project::new(&[("compose.yaml", &file)]))
}

fn remove_image(project: &Project, registry: &Registry) {
    project.docker(&["image", "rm", &format!("{}/team/app:1", registry.address)]);
}

fn image_id(project: &Project, registry: &Registry) -> String {
    let name = format!("{}/team/app:1", registry.address);
    project.docker(&["image", "inspect", "-f", "{{.Id}}", &name])
}

/// Writes `.docker/config.json` of the project's user.
fn docker_config(project: &Project, config: &Value) {
    project.write(".docker/config.json", &config.to_string());
}

fn passwords(registry: &Registry, pair: &str) -> Value {
    let auth = base64::engine::general_purpose::STANDARD.encode(pair);
    json!({"auths": {registry.address.clone(): {"auth": auth}}})
}

fn helper(project: &Project, name: &str, script: &str) {
    let path = project.path().join("bin").join(format!("docker-credential-{name}"));
    project.write(
        &format!("bin/docker-credential-{name}"),
        &format!("#!/bin/sh\n{script}\n"),
    );
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("our file");
}

#[test]
fn passwords_come_from_the_auth_file_or_from_a_helper() {
    let options = Options {
        users: USERS.to_owned(),
        ..Options::default()
    };
    let Some(registry) = Registry::with(options) else {
        return;
    };
    let Some(mut project) = project(&registry) else { return };
    let path = std::env::var("PATH").unwrap_or_default();
    project.set("PATH", &format!("{}/bin:{path}", project.path().display()));
    project.succeed(&["build"]);
    let refused = format!(
        "push access denied to {}/team/app: unauthorized: authentication required",
        registry.address
    );
    let said = project.fail(&["push"]);
    assert!(said.contains(&refused), "{said}");
    docker_config(&project, &passwords(&registry, "tester:wrong"));
    let said = project.fail(&["push"]);
    assert!(said.contains(&refused), "{said}");

    docker_config(&project, &json!({"credHelpers": {registry.address.clone(): "broken"}}));
    helper(&project, "broken", "echo the vault is locked >&2; exit 1");
    let said = project.fail(&["push"]);
    assert!(
        said.contains("(the credential helper docker-credential-broken failed: the vault is locked)"),
        "{said}"
    );

    docker_config(&project, &passwords(&registry, "tester:secret"));
    let id = image_id(&project, &registry);
    project.succeed(&["push"]);
    remove_image(&project, &registry);
    project.succeed(&["pull"]);
    assert_eq!(image_id(&project, &registry), id);

    docker_config(&project, &json!({"credsStore": "good"}));
    helper(
        &project,
        "good",
        &format!(
            "read server; [ \"$server\" = {} ] && echo '{{\"Username\":\"tester\",\"Secret\":\"secret\"}}' || {{ echo credentials not found in native keychain; exit 1; }}",
            registry.address
        ),
    );
    remove_image(&project, &registry);
    project.succeed(&["pull"]);
    assert_eq!(image_id(&project, &registry), id);

    // The engine runs in an environment of its own; the one of the command counts.
    std::fs::remove_file(project.path().join(".docker/config.json")).expect("ours");
    remove_image(&project, &registry);
    project.fail(&["pull"]);
    project.write(
        "elsewhere/config.json",
        &passwords(&registry, "tester:secret").to_string(),
    );
    let elsewhere = project.path().join("elsewhere").display().to_string();
    project.set("DOCKER_CONFIG", &elsewhere);
    project.succeed(&["pull"]);
    assert_eq!(image_id(&project, &registry), id);
    remove_image(&project, &registry);
    project.write(
        "on/Dockerfile",
        &format!("FROM {}/team/app:1\nLABEL a=b\n", registry.address),
    );
    let on = project.path().join("on").display().to_string();
    project.docker(&["--config", &elsewhere, "build", "-q", "-t", "on:1", &on]);
}

#[test]
fn a_registry_behind_a_private_authority_is_believed_only_with_its_certificate() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(directory.path(), "authority");
    let stranger = Authority::new(directory.path(), "stranger");
    let (certificate, key) = authority.sign("server");
    let path = |name: &str| directory.path().join(name);
    let options = Options {
        http: format!(
            "  tls:\n    certificate: {}\n    key: {}\n    clientcas: [{}]\n",
            certificate.display(),
            key.display(),
            path("authority.crt").display()
        ),
        ..Options::default()
    };
    let Some(registry) = Registry::with(options) else {
        return;
    };
    let Some(mut project) = project(&registry) else { return };
    let config = project.path().join("config");
    project.set("COMPOSE_CONFIG_DIR", &config.display().to_string());
    let certificates = config.join("certs.d").join(&registry.address);
    std::fs::create_dir_all(&certificates).expect("a directory");
    let put = |from: &Path, name: &str| std::fs::copy(from, certificates.join(name)).expect("a file");
    project.succeed(&["build"]);

    put(&path("stranger.crt"), "ca.crt");
    let said = project.fail(&["push"]);
    assert!(said.contains("certificate"), "{said}");
    put(&path("authority.crt"), "ca.crt");
    let said = project.fail(&["push"]);
    assert!(said.contains("ertificate"), "the registry wants one of ours: {said}");
    let (certificate, key) = stranger.sign("client");
    put(&certificate, "client.cert");
    let said = project.fail(&["push"]);
    assert!(
        said.contains("missing key client.key for client certificate client.cert"),
        "{said}"
    );
    put(&key, "client.key");
    project.fail(&["push"]);
    let (certificate, key) = authority.sign("client");
    put(&certificate, "client.cert");
    put(&key, "client.key");
    project.succeed(&["push"]);
    let id = image_id(&project, &registry);
    remove_image(&project, &registry);
    project.succeed(&["pull"]);
    assert_eq!(image_id(&project, &registry), id);
}

#[test]
fn a_certificate_is_believed_for_its_time_and_its_host_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(directory.path(), "authority");
    for (files, is_believed) in [
        (authority.sign("good"), true),
        (
            authority.sign_with("expired", "127.0.0.1", |params| {
                params.not_before = rcgen::date_time_ymd(2020, 1, 1);
                params.not_after = rcgen::date_time_ymd(2021, 1, 1);
            }),
            false,
        ),
        (
            authority.sign_with("early", "127.0.0.1", |params| {
                params.not_before = rcgen::date_time_ymd(3000, 1, 1);
            }),
            false,
        ),
        (authority.sign_with("other", "192.0.2.1", |_| {}), false),
    ] {
        let (certificate, key) = files;
        let Some(registry) = behind_tls(&certificate, &key) else {
            return;
        };
        let Some(mut project) = project(&registry) else { return };
        let config = project.path().join("config");
        project.set("COMPOSE_CONFIG_DIR", &config.display().to_string());
        let certificates = config.join("certs.d").join(&registry.address);
        std::fs::create_dir_all(&certificates).expect("a directory");
        std::fs::copy(directory.path().join("authority.crt"), certificates.join("ca.crt")).expect("a file");
        project.succeed(&["build"]);
        let output = project.run(&["push"]);
        let said = crate::support::text(&output.stderr);
        assert_eq!(
            output.status.success(),
            is_believed,
            "{}: {said}",
            certificate.display()
        );
        assert!(is_believed || said.contains("certificate"), "{said}");
    }
}

#[test]
fn a_registry_on_this_machine_needs_no_known_authority() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(directory.path(), "authority");
    let (certificate, key) = authority.sign("server");
    let Some(registry) = behind_tls(&certificate, &key) else {
        return;
    };
    let Some(project) = project(&registry) else { return };
    project.succeed(&["build"]);
    project.succeed(&["push"]);
    remove_image(&project, &registry);
    project.succeed(&["pull"]);
}

/// Starts a registry that shows a certificate; `None` where a program is missing.
fn behind_tls(certificate: &Path, key: &Path) -> Option<Registry> {
    let http = format!(
        "  tls:\n    certificate: {}\n    key: {}\n",
        certificate.display(),
        key.display()
    );
    Registry::with(Options {
        http,
        ..Options::default()
    })
}

/// Gives out tokens to who knows the password: for what the scope says, or for nothing.
fn token_server(authority: Authority) -> (Mock, Arc<Mutex<Vec<String>>>) {
    let scopes = Arc::new(Mutex::new(Vec::new()));
    let asked = scopes.clone();
    let mock = Mock::start(move |request| {
        let decode = |text: &str| text.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
        let mut access = Vec::new();
        for (name, value) in request.query.split('&').filter_map(|pair| pair.split_once('=')) {
            if name == "scope" {
                let value = decode(value);
                asked.lock().expect("no panic").push(value.clone());
                let parts: Vec<&str> = value.split(':').collect();
                let actions: Vec<&str> = parts[2].split(',').collect();
                access.push(json!({"type": parts[0], "name": parts[1], "actions": actions}));
            }
        }
        match request.header("authorization") {
            // "tester:secret"
            Some("Basic dGVzdGVyOnNlY3JldA==") => {}
            Some(_) => return Reply::status(401, r#"{"details":"incorrect username or password"}"#),
            None => access.clear(),
        }
        let now = jiff_seconds();
        let claims = json!({
            "iss": "test", "sub": "tester", "aud": "registry", "nbf": now - 60, "iat": now, "exp": now + 300, "jti": "1",
            "access": access,
        });
        Reply::ok(json!({"token": authority.token(&claims), "expires_in": 300}).to_string())
    });
    (mock, scopes)
}

fn jiff_seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

#[test]
fn tokens_are_bought_from_where_the_registry_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(directory.path(), "tokens");
    let (server, scopes) = token_server(authority);
    let Some(registry) = Registry::with(Options {
        auth: format!(
            "  token:\n    realm: http://{}/token\n    service: registry\n    issuer: test\n    rootcertbundle: {}\n",
            server.address,
            directory.path().join("tokens.crt").display()
        ),
        ..Options::default()
    }) else {
        return;
    };
    let Some(project) = project(&registry) else { return };
    project.succeed(&["build"]);
    for login in [json!({}), passwords(&registry, "tester:wrong")] {
        docker_config(&project, &login);
        let said = project.fail(&["push"]);
        assert!(said.contains("push access denied to"), "{said}");
    }
    docker_config(&project, &passwords(&registry, "tester:secret"));
    project.succeed(&["push"]);
    assert!(
        scopes
            .lock()
            .expect("no panic")
            .contains(&"repository:team/app:pull,push".to_owned())
    );
    let id = image_id(&project, &registry);
    remove_image(&project, &registry);
    scopes.lock().expect("no panic").clear();
    project.succeed(&["pull"]);
    assert_eq!(image_id(&project, &registry), id);
    // To pull, nothing more than that is asked for.
    assert_eq!(*scopes.lock().expect("no panic"), ["repository:team/app:pull"]);
}

fn skopeo(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("skopeo")
        .args(["--insecure-policy", "--override-os", "linux"])
        .args(arguments)
        .output()
        .expect("skopeo runs");
    assert!(
        output.status.success(),
        "skopeo {arguments:?}: {}",
        text(&output.stderr)
    );
    output.stdout
}

#[test]
fn skopeo_reads_what_we_push_and_we_what_it_pushes() {
    if !available("skopeo", Path::new("/usr/bin/skopeo").exists()) {
        return;
    }
    let Some(registry) = Registry::start() else { return };
    let Some(project) = project(&registry) else { return };
    project.succeed(&["build"]);
    project.succeed(&["push"]);
    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path().join("copy");
    let name = format!("docker://{}/team/app:1", registry.address);
    skopeo(&[
        "copy",
        "-q",
        "--src-tls-verify=false",
        &name,
        &format!("dir:{}", copy.display()),
    ]);
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(copy.join("manifest.json")).expect("a manifest")).expect("JSON");
    let id = image_id(&project, &registry);
    assert_eq!(manifest["config"]["digest"], id.trim());
    for blob in manifest["layers"].as_array().into_iter().flatten() {
        let digest = blob["digest"].as_str().expect("a digest");
        let bytes = std::fs::read(copy.join(digest.trim_start_matches("sha256:"))).expect("a layer");
        assert_eq!(compose::image::sha256(&bytes), digest);
        assert_eq!(bytes, std::fs::read(registry.blob(digest)).expect("a blob"));
    }

    // The other way: as it writes them, in every form, and by a path for the others.
    let source = format!("dir:{}", copy.display());
    for (tag, arguments) in [
        ("docker", &["--format", "v2s2"][..]),
        ("oci", &["--format", "oci"]),
        ("zstd", &["--format", "oci", "--dest-compress-format", "zstd"]),
    ] {
        let target = format!("docker://{}/team/app:{tag}", registry.address);
        let mut all = vec!["copy", "-q", "--dest-tls-verify=false"];
        all.extend(arguments);
        all.extend([source.as_str(), &target]);
        skopeo(&all);
        let name = format!("{}/team/app:{tag}", registry.address);
        project.docker(&["pull", "-q", &name]);
        let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &target]);
        let digests = project.docker(&["image", "inspect", "-f", "{{.RepoDigests}}", &name]);
        assert!(digests.contains(&compose::image::sha256(&raw)), "{tag}: {digests}");
        // Sent again, it is the same to the byte.
        project.docker(&["push", "-q", &name]);
        let again = skopeo(&["inspect", "--raw", "--tls-verify=false", &target]);
        assert_eq!(again, raw, "{tag}");
    }
    for (scheme, path) in [
        ("oci", "layout"),
        ("oci-archive", "layout.tar"),
        ("docker-archive", "saved.tar"),
    ] {
        let path = directory.path().join(path);
        // Archives and layouts have names of their own.
        let target = match scheme {
            "docker-archive" => format!("{scheme}:{}:team/other:1", path.display()),
            _ => format!("{scheme}:{}:1", path.display()),
        };
        skopeo(&["copy", "-q", &source, &target]);
        let name = match scheme {
            "docker-archive" => format!("{scheme}:{}", path.display()),
            _ => target.clone(),
        };
        // On the way from Docker's format to that of OCI, its config is written anew.
        let manifest: Value = serde_json::from_slice(&skopeo(&["inspect", "--raw", &target])).expect("JSON");
        assert_eq!(
            project.docker(&["image", "inspect", "-f", "{{.Id}}", &name]).trim(),
            manifest["config"]["digest"],
            "{scheme}"
        );
    }
    let saved = directory.path().join("ours.tar");
    let name = format!("{}/team/app:1", registry.address);
    project.docker(&["save", "-o", &saved.display().to_string(), &name]);
    for scheme in ["docker-archive", "oci-archive"] {
        let source = format!("{scheme}:{}", saved.display());
        let copy = directory.path().join(format!("from-{scheme}"));
        skopeo(&["copy", "-q", &source, &format!("dir:{}", copy.display())]);
        let manifest: Value =
            serde_json::from_slice(&std::fs::read(copy.join("manifest.json")).expect("a manifest")).expect("JSON");
        assert_eq!(manifest["config"]["digest"], id.trim(), "{scheme}");
    }
}
