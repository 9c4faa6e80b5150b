//! Pulls from a registry that misbehaves in every way we know of.

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use compose::image::{
    Image, Login, Platform, Progress, ProgressSink, PullOptions, PushOptions, Reference, Settings, Store, sha256,
    silent,
};

use crate::support::authority::Authority;
use crate::support::mock::{Mock, Reply};
use crate::support::served::{self, Served, tar_of};
use crate::support::{available, extent, is_root, own_network};

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(directory.path().join("images")).expect("a store");
    (directory, store)
}

fn options() -> PullOptions {
    PullOptions {
        settings: Some(Settings::default()),
        ..PullOptions::default()
    }
}

fn login() -> Option<Login> {
    Some(Login::Password {
        username: "tester".to_owned(),
        password: "secret".to_owned(),
    })
}

async fn pull_with(address: &str, tag: &str, options: &PullOptions, progress: &ProgressSink) -> Result<Image, String> {
    let (_directory, store) = store();
    let name = Reference::parse(&format!("{address}/served:{tag}")).unwrap();
    let result = store
        .pull(&name, options, progress)
        .await
        .map_err(|error| error.to_string());
    if result.is_err() {
        for directory in ["layers", "tmp"] {
            let left = std::fs::read_dir(store.root().join(directory)).unwrap().count();
            assert_eq!(left, 0, "a failed pull leaves nothing in {directory}");
        }
        assert!(store.list().unwrap().is_empty());
    }
    result
}

async fn pull(registry: &Mock, tag: &str) -> Result<Image, String> {
    pull_with(&registry.address, tag, &options(), &silent()).await
}

fn listening() -> (ProgressSink, Arc<Mutex<Vec<Progress>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = {
        let heard = heard.clone();
        Arc::new(move |progress| heard.lock().unwrap().push(progress))
    };
    (sink, heard)
}

#[tokio::test]
async fn an_index_leads_to_the_image_of_this_platform() {
    let served = Served::new();
    let id = sha256(&served.config);
    let registry = Mock::start(move |request| served.answer(request));
    assert_eq!(pull(&registry, "index").await.unwrap().id, id);
    assert_eq!(
        pull(&registry, "foreign").await.unwrap_err(),
        format!(
            "no matching manifest for {} in the manifest list entries",
            Platform::host()
        )
    );
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_was() {
    let served = Served::new();
    let id = sha256(&served.config);
    let registry = {
        let served = served.clone();
        Mock::start(move |request| match request.time {
            1 if served.is_layer(request) => served.answer(request).cut(300_000),
            2 if served.is_layer(request) => Reply::status(503, ""),
            _ => served.answer(request),
        })
    };
    let (listen, heard) = listening();
    let pulled = pull_with(&registry.address, "latest", &options(), &listen)
        .await
        .unwrap();
    assert_eq!(pulled.id, id);
    let requests = registry.requests();
    let offsets: Vec<_> = requests
        .iter()
        .filter(|request| served.is_layer(request))
        .map(|request| request.from())
        .collect();
    assert_eq!(offsets.len(), 3);
    assert!(
        offsets[2].is_some_and(|offset| offset > 0 && offset <= 300_000),
        "{offsets:?}"
    );
    let heard = heard.lock().unwrap();
    assert!(
        heard.iter().any(|progress| progress.status == "Retrying in 1 second"),
        "{heard:?}"
    );
}

#[tokio::test]
async fn a_line_that_breaks_again_and_again_is_used_as_long_as_it_brings_something() {
    let served = Served::new();
    let id = sha256(&served.config);
    let registry = Mock::start(move |request| {
        let reply = served.answer(request);
        if served.is_layer(request) {
            reply.cut(100_000)
        } else {
            reply
        }
    });
    assert_eq!(pull(&registry, "latest").await.unwrap().id, id);
}

#[tokio::test]
async fn a_registry_without_ranges_is_read_again_from_the_start() {
    let served = Served::new();
    let id = sha256(&served.config);
    let registry = Mock::start(move |request| {
        if !served.is_layer(request) {
            return served.answer(request);
        }
        let whole = Reply::ok(served.layer.clone());
        if request.time == 1 { whole.cut(100_000) } else { whole }
    });
    assert_eq!(pull(&registry, "latest").await.unwrap().id, id);
}

#[tokio::test]
async fn a_range_that_begins_elsewhere_is_not_taken_for_what_was_asked() {
    let served = Served::new();
    let id = sha256(&served.config);
    let earlier = served.clone();
    let registry = Mock::start(move |request| {
        let size = earlier.layer.len();
        match request.from() {
            _ if !earlier.is_layer(request) => earlier.answer(request),
            None => earlier.answer(request).cut(100_000),
            // Some caches hand out whole pieces of theirs.
            Some(_) => {
                Reply::status(206, &earlier.layer[50..]).with("Content-Range", format!("bytes 50-{}/{size}", size - 1))
            }
        }
    });
    assert_eq!(pull(&registry, "latest").await.unwrap().id, id);
    let later = served.clone();
    let registry = Mock::start(move |request| {
        let size = later.layer.len();
        match request.from() {
            _ if !later.is_layer(request) => later.answer(request),
            None => later.answer(request).cut(100_000),
            Some(from) => Reply::status(206, &later.layer[from + 1..])
                .with("Content-Range", format!("bytes {}-{}/{size}", from + 1, size - 1)),
        }
    });
    let error = pull(&registry, "latest").await.unwrap_err();
    assert!(error.contains("it leaves bytes out"), "{error}");
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_when_it_says() {
    let served = Served::new();
    let id = sha256(&served.config);
    let busy = |seconds: u32| {
        Reply::status(429, r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#)
            .with("Retry-After", seconds.to_string())
    };
    let patient = served.clone();
    let registry = Mock::start(move |request| match request.time {
        1 if request.path != "/v2/" => busy(1),
        _ => patient.answer(request),
    });
    let begun = Instant::now();
    assert_eq!(pull(&registry, "latest").await.unwrap().id, id);
    // The manifest, the config and the layer were each busy once; it is the registry that says how long, not we.
    assert!(begun.elapsed() >= Duration::from_secs(3));

    // One that wants to be left alone for an hour is not waited for.
    let registry = Mock::start(move |request| match request.path.as_str() {
        "/v2/" => Reply::ok("{}"),
        _ => busy(3600),
    });
    assert_eq!(
        pull(&registry, "latest").await.unwrap_err(),
        format!(
            "failed to resolve reference \"{}/served:latest\": toomanyrequests: slow down (it asks to try again in 3600 s)",
            registry.address
        )
    );
    assert_eq!(registry.requests().len(), 2);
}

#[tokio::test]
async fn a_broken_registry_is_given_up_on() {
    let registry = Mock::start(|request| Reply::status(if request.path == "/v2/" { 200 } else { 500 }, ""));
    let error = pull(&registry, "latest").await.unwrap_err();
    assert!(error.starts_with("failed to resolve reference"), "{error}");
    assert!(
        error.ends_with("received unexpected HTTP status: 500 Internal Server Error"),
        "{error}"
    );
    assert!(registry.requests().len() <= 12);
}

#[tokio::test]
async fn a_registry_that_takes_the_call_and_says_nothing_is_given_up_on() {
    // That takes minutes: it is asked again, and given a minute each time.
    let Some(limit) = extent(None, Some(Duration::from_secs(900))) else {
        return;
    };
    let registry = Mock::start(|_| {
        std::thread::sleep(Duration::from_secs(1000));
        Reply::ok("{}")
    });
    let error = tokio::time::timeout(limit, pull(&registry, "latest")).await;
    error.expect("it is given up on").unwrap_err();
}

#[tokio::test]
async fn wrong_bytes_never_become_an_image() {
    let served = Served::new();
    let digest = sha256(&served.layer);
    let wrong = served.clone();
    let registry = Mock::start(move |request| {
        let mut reply = wrong.answer(request);
        if wrong.is_layer(request) {
            reply.body[200_000] ^= 1;
        }
        reply
    });
    assert_eq!(
        pull(&registry, "latest").await.unwrap_err(),
        format!("filesystem layer verification failed for digest {digest}")
    );

    let wrong = served.clone();
    let registry = Mock::start(move |request| {
        if request.path.ends_with(&sha256(&wrong.config)) {
            let mut config = wrong.config.clone();
            config[10] ^= 1;
            return Reply::ok(config);
        }
        wrong.answer(request)
    });
    let error = pull(&registry, "latest").await.unwrap_err();
    assert!(error.starts_with("the config of "), "{error}");

    let wrong = served.clone();
    let registry = Mock::start(move |request| {
        if request.path.ends_with(&sha256(&wrong.manifest)) {
            let text = String::from_utf8_lossy(&wrong.manifest).replace(".tar\"", ".tar+gzip\"");
            return Reply::ok(text);
        }
        wrong.answer(request)
    });
    let error = pull(&registry, "index").await.unwrap_err();
    assert!(error.starts_with("the manifest of "), "{error}");
}

#[tokio::test]
async fn sizes_that_do_not_agree_are_refused() {
    let served = Served::new();
    let right = served.layer.len();
    for (stated, expected) in [
        (right - 1, "more bytes than the manifest says".to_owned()),
        (
            right + 1,
            format!("unexpected EOF after {right} of {} bytes", right + 1),
        ),
    ] {
        let lying = served.clone();
        let registry = Mock::start(move |request| match request.path.rsplit('/').next() {
            Some("latest") => Reply::ok(lying.manifest_of(served::LAYER, stated)),
            _ => lying.answer(request),
        });
        let (_directory, store) = store();
        let name = Reference::parse(&format!("{}/served:latest", registry.address)).unwrap();
        let error = store.pull(&name, &options(), &silent()).await.unwrap_err();
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        assert!(text.contains(&expected), "{text}");
    }
    // The config's and, in an index, the manifest's.
    let lying = served.clone();
    let registry = Mock::start(move |request| match request.path.rsplit('/').next() {
        Some("latest") => {
            let text = String::from_utf8(lying.manifest.clone()).unwrap();
            Reply::ok(text.replace(
                &format!("\"size\":{}}},\"layers\"", lying.config.len()),
                "\"size\":7},\"layers\"",
            ))
        }
        Some("index") => {
            let text = String::from_utf8(lying.index(&Platform::host().architecture)).unwrap();
            Reply::ok(text.replace(&format!("\"size\":{}", lying.manifest.len()), "\"size\":7"))
        }
        _ => lying.answer(request),
    });
    for (tag, digest) in [("latest", sha256(&served.config)), ("index", sha256(&served.manifest))] {
        let error = pull(&registry, tag).await.unwrap_err();
        assert!(
            error.starts_with(&format!("the manifest says that {digest} has 7 bytes")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_document_that_means_two_things_is_refused() {
    let served = Served::new();
    let both = {
        let manifest: serde_json::Value = serde_json::from_slice(&served.manifest).unwrap();
        let mut index: serde_json::Value =
            serde_json::from_slice(&served.index(&Platform::host().architecture)).unwrap();
        index["config"] = manifest["config"].clone();
        index["layers"] = manifest["layers"].clone();
        index.to_string()
    };
    let swapped = String::from_utf8(served.manifest.clone())
        .unwrap()
        .replace(served::MANIFEST, served::INDEX);
    let first = r#"{"schemaVersion":1,"name":"served","tag":"v1","fsLayers":[],"history":[]}"#.to_owned();
    let endless = |request: &crate::support::mock::Request| {
        let inner = format!("{}/again", request.path);
        format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{}","digest":"{}","size":1}}]}}"#,
            served::INDEX,
            sha256(inner.as_bytes())
        )
    };
    let good = served.clone();
    let registry = Mock::start(move |request| match request.path.rsplit('/').next() {
        Some("both") => Reply::ok(both.clone()),
        Some("swapped") => Reply::ok(swapped.clone()),
        Some("first") => Reply::ok(first.clone()),
        Some("empty") => Reply::ok("{}"),
        Some("html") => Reply::ok("<html>please log in</html>"),
        Some("deep") => Reply::ok("[".repeat(100_000)),
        Some("endless") => Reply::ok(endless(request)),
        Some("outside") => Reply::ok(
            String::from_utf8(good.manifest.clone())
                .unwrap()
                .replace(&sha256(&good.layer), "sha256:../../../../etc/passwd"),
        ),
        _ => good.answer(request),
    });
    for (tag, expected) in [
        ("both", "unsupported media type application/vnd.oci.image.index.v1+json"),
        (
            "swapped",
            "unsupported media type application/vnd.oci.image.index.v1+json",
        ),
        ("first", "manifest version 2, schema 1"),
        ("empty", "unsupported media type"),
        ("html", "cannot read"),
        ("deep", "cannot read"),
        ("endless", "manifest"),
        ("outside", "expected sha256:…"),
    ] {
        let error = pull(&registry, tag).await.unwrap_err();
        assert!(error.contains(expected), "{tag}: {error}");
    }
}

#[tokio::test]
async fn what_is_only_at_its_vendors_is_refused_with_the_reason() {
    let served = Served::new();
    let digest = sha256(&served.layer);
    for kind in [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ] {
        let foreign = served.clone();
        let registry = Mock::start(move |request| match request.path.rsplit('/').next() {
            Some("latest") => Reply::ok(foreign.manifest_of(kind, foreign.layer.len())),
            _ => foreign.answer(request),
        });
        assert_eq!(
            pull(&registry, "latest").await.unwrap_err(),
            format!("layer {digest} may only be fetched from where its vendor keeps it, which is not supported")
        );
    }
}

#[tokio::test]
async fn layers_are_read_however_they_are_compressed_and_whatever_their_type_says() {
    let tar = tar_of(&[("hello", b"hello")]);
    let gzip = |data: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |data: &[u8]| zstd::encode_all(data, 3).unwrap();
    // Both kinds may come in several pieces after each other.
    let halves = tar.split_at(tar.len() / 2);
    let several = |compress: &dyn Fn(&[u8]) -> Vec<u8>| [compress(halves.0), compress(halves.1)].concat();
    for (what, layer) in [
        ("tar", tar.clone()),
        ("gzip", gzip(&tar)),
        ("zstd", zstd(&tar)),
        ("gzip in two members", several(&gzip)),
        ("zstd in two frames", several(&zstd)),
    ] {
        let served = Served::compressed(layer, &sha256(&tar));
        let registry = Mock::start(move |request| served.answer(request));
        let (_directory, store) = store();
        let name = Reference::parse(&format!("{}/served:latest", registry.address)).unwrap();
        let image = store.pull(&name, &options(), &silent()).await.expect(what);
        let file = store.layer_dirs(&image)[0].join("hello");
        assert_eq!(std::fs::read(file).unwrap(), b"hello", "{what}");
    }
    // What is compressed well, and is something else.
    let served = Served::compressed(gzip(&tar), &sha256(b"something else"));
    let registry = Mock::start(move |request| served.answer(request));
    let error = pull(&registry, "latest").await.unwrap_err();
    assert!(error.contains("does not have the digest it is known by"), "{error}");
}

#[tokio::test]
async fn credentials_go_to_nobody_but_the_registry() {
    let served = Served::new();
    let id = sha256(&served.config);
    let storage = {
        let served = served.clone();
        Mock::start(move |request| match request.header("authorization") {
            Some(_) => Reply::status(400, "what are these credentials?"),
            None => served.answer(request),
        })
    };
    let registry = {
        let (served, storage) = (served.clone(), storage.address.clone());
        Mock::start(move |request| match request.header("authorization") {
            // "tester:secret"
            Some("Basic dGVzdGVyOnNlY3JldA==") if served.is_layer(request) => {
                Reply::status(307, "").with("Location", format!("http://{storage}{}?X-Signature=abc", request.path))
            }
            Some("Basic dGVzdGVyOnNlY3JldA==") => served.answer(request),
            _ => Reply::status(401, "").with("WWW-Authenticate", "Basic realm=\"test\""),
        })
    };
    let mut options = options();
    options.login = login();
    let pulled = pull_with(&registry.address, "latest", &options, &silent())
        .await
        .unwrap();
    assert_eq!(pulled.id, id);
    assert_eq!(storage.requests().len(), 1);

    // Another host that asks for them gets none.
    let greedy = Mock::start(|_| Reply::status(401, "").with("WWW-Authenticate", "Basic realm=\"greedy\""));
    let target = greedy.address.clone();
    let registry = Mock::start(move |request| match request.path.as_str() {
        "/v2/" => Reply::ok("{}"),
        _ => Reply::status(307, "").with("Location", format!("http://{target}{}", request.path)),
    });
    let error = pull_with(&registry.address, "latest", &options, &silent())
        .await
        .unwrap_err();
    assert!(error.starts_with("pull access denied for "), "{error}");
    assert_eq!(greedy.requests().len(), 1);
    assert!(greedy.requests()[0].header("authorization").is_none());

    // A mirror does not get the registry's.
    let mirror = Mock::start(|_| Reply::status(401, "").with("WWW-Authenticate", "Basic realm=\"mirror\""));
    let registry = {
        let served = served.clone();
        Mock::start(move |request| served.answer(request))
    };
    let mut settings = Settings::default();
    let addresses = vec![format!("http://{}", mirror.address)];
    settings.mirrors.insert(registry.address.clone(), addresses);
    options.settings = Some(settings);
    pull_with(&registry.address, "latest", &options, &silent())
        .await
        .unwrap();
    assert!(!mirror.requests().is_empty());
    assert!(
        mirror
            .requests()
            .iter()
            .all(|request| request.header("authorization").is_none())
    );

    // Nor does one that sends around in circles keep us.
    let registry = Mock::start(|request| match request.path.as_str() {
        "/v2/" => Reply::ok("{}"),
        path => Reply::status(302, "").with("Location", path),
    });
    let error = pull(&registry, "latest").await.unwrap_err();
    assert!(error.contains("sends on for ever"), "{error}");
}

#[tokio::test]
async fn no_login_and_no_image_goes_where_anybody_can_read_and_change_it() {
    if !available("root", is_root()) {
        return;
    }
    // What clouds tell their machines secrets at, and a server of somebody else's.
    own_network(&["169.254.169.254/32", "192.0.2.10/32"]);
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(directory.path(), "authority");
    let mut options = options();
    options.login = login();
    for address in ["169.254.169.254:0", "192.0.2.10:0"] {
        // A registry that is spoken to in secret sends on to where nothing is secret, or wants the login there.
        let served = Served::new();
        let plain = {
            let served = served.clone();
            Mock::start_at(address, None, move |request| match request.path.as_str() {
                "/token" => Reply::ok(r#"{"token":"x"}"#),
                _ => served.answer(request),
            })
        };
        let target = plain.address.clone();
        let files = authority.sign("server");
        let registry = Mock::start_encrypted("127.0.0.1:0", files.clone(), move |request| {
            match served.is_layer(request) {
                true => Reply::status(307, "").with("Location", format!("http://{target}{}", request.path)),
                false => served.answer(request),
            }
        });
        let error = pull_with(&registry.address, "latest", &options, &silent())
            .await
            .unwrap_err();
        assert!(error.contains("which is not encrypted"), "{error}");
        let target = plain.address.clone();
        let registry = Mock::start_encrypted("127.0.0.1:0", files, move |_| {
            let challenge = format!("Bearer realm=\"http://{target}/token\",service=\"s\"");
            Reply::status(401, "").with("WWW-Authenticate", challenge)
        });
        let error = pull_with(&registry.address, "latest", &options, &silent())
            .await
            .unwrap_err();
        assert!(error.contains("gives out tokens without encryption"), "{error}");
        assert!(plain.requests().is_empty(), "{:?}", plain.requests());
    }
    // A registry elsewhere is not spoken to in the clear because it does not answer otherwise.
    let served = Served::new();
    let plain = Mock::start_at("192.0.2.10:0", None, move |request| served.answer(request));
    pull_with(&plain.address, "latest", &options, &silent())
        .await
        .unwrap_err();
    let understood: Vec<_> = plain
        .requests()
        .into_iter()
        .filter(|request| request.path.starts_with('/'))
        .collect();
    assert!(understood.is_empty(), "{understood:?}");
}

#[tokio::test]
async fn what_is_let_pass_on_this_machine_is_let_pass_nowhere_else() {
    if !available("root", is_root()) {
        return;
    }
    own_network(&["192.0.2.10/32"]);
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(directory.path(), "authority");
    let served = Served::new();
    // Nobody knows whose signature is under these certificates.
    let here = authority.sign("here");
    let mut options = options();
    options.login = login();
    for (address, host, may_have_it) in [
        ("192.0.2.10:0", "192.0.2.10", false),
        ("127.0.0.1:0", "127.0.0.1", true),
    ] {
        let files = authority.sign_with("tokens", host, |_| {});
        let tokens = Mock::start_encrypted(address, files, |_| Reply::ok(r#"{"token":"x"}"#));
        let (realm, served) = (tokens.address.clone(), served.clone());
        let registry = Mock::start_encrypted("127.0.0.1:0", here.clone(), move |request| {
            match request.header("authorization") {
                Some("Bearer x") => served.answer(request),
                _ => {
                    let challenge = format!("Bearer realm=\"https://{realm}/token\",service=\"s\"");
                    Reply::status(401, "").with("WWW-Authenticate", challenge)
                }
            }
        });
        let pulled = pull_with(&registry.address, "latest", &options, &silent()).await;
        assert_eq!(pulled.is_ok(), may_have_it, "{address}: {pulled:?}");
        assert_eq!(
            tokens.requests().is_empty(),
            !may_have_it,
            "{address}: {:?}",
            tokens.requests()
        );
    }
}

#[tokio::test]
async fn tokens_are_bought_for_what_they_are_for_and_renewed_when_they_run_out() {
    let served = Served::new();
    let id = sha256(&served.config);
    let address = Arc::new(Mutex::new(String::new()));
    let (realm, given) = (address.clone(), Arc::new(Mutex::new(0)));
    let registry = Mock::start(move |request| {
        if request.path == "/token" {
            if request.method == "POST" {
                let body = String::from_utf8_lossy(&request.body).into_owned();
                assert!(
                    body.contains("grant_type=refresh_token&refresh_token=identity"),
                    "{body}"
                );
            } else {
                assert!(request.query.contains("service=test"), "{}", request.query);
                assert!(
                    request.query.contains("scope=repository%3Aserved%3Apull"),
                    "{}",
                    request.query
                );
            }
            let mut given = given.lock().unwrap();
            *given += 1;
            return Reply::ok(format!(r#"{{"token":"t{given}","expires_in":300}}"#));
        }
        // Every token is good for two requests.
        let token = request
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer t"));
        let uses = format!("t{}", token.unwrap_or_default());
        let good = token.is_some() && {
            let mut spent = SPENT.lock().unwrap();
            let count = spent
                .entry((request.header("host").unwrap_or_default().to_owned(), uses))
                .or_insert(0);
            *count += 1;
            *count <= 2
        };
        if good {
            return served.answer(request);
        }
        let realm = realm.lock().unwrap().clone();
        Reply::status(401, "").with(
            "WWW-Authenticate",
            format!(r#"Bearer realm="http://{realm}/token",service="test",scope="repository:served:pull""#),
        )
    });
    static SPENT: Mutex<std::collections::BTreeMap<(String, String), u32>> =
        Mutex::new(std::collections::BTreeMap::new());
    address.lock().unwrap().clone_from(&registry.address);
    assert_eq!(pull(&registry, "index").await.unwrap().id, id);
    let bought = registry
        .requests()
        .iter()
        .filter(|request| request.path == "/token")
        .count();
    assert_eq!(bought, 2);

    let mut options = options();
    options.login = Some(Login::Identity("identity".to_owned()));
    let pulled = pull_with(&registry.address, "index", &options, &silent())
        .await
        .unwrap();
    assert_eq!(pulled.id, id);
    assert!(registry.requests().iter().any(|request| request.method == "POST"));
}

#[tokio::test]
async fn a_blob_of_another_repository_is_mounted_and_not_sent() {
    let served = Served::new();
    let registry = {
        let served = served.clone();
        Mock::start(move |request| {
            let place = format!("/v2{}x", request.path);
            match (request.method.as_str(), request.query.contains("mount=")) {
                ("POST", true) => Reply::status(201, ""),
                ("POST", false) => Reply::status(202, "").with("Location", place),
                ("PUT", _) => Reply::status(201, ""),
                ("HEAD", _) => Reply::status(404, ""),
                _ => served.answer(request),
            }
        })
    };
    let (_directory, store) = store();
    let name = Reference::parse(&format!("{}/served:latest", registry.address)).unwrap();
    let image = store.pull(&name, &options(), &silent()).await.unwrap();
    // The layer travels uncompressed here, and is sent in another form; so give it that form first.
    let other = Reference::parse(&format!("{}/elsewhere:1", registry.address)).unwrap();
    store.tag(&image.id, &other).unwrap();
    let (listen, heard) = listening();
    let push = PushOptions {
        settings: Some(Settings::default()),
        ..PushOptions::default()
    };
    store.push(&other, &push, &listen).await.unwrap();
    let mounts: Vec<_> = registry
        .requests()
        .into_iter()
        .filter(|request| request.query.contains("mount="))
        .collect();
    assert_eq!(mounts.len(), 1);
    assert_eq!(mounts[0].path, "/v2/elsewhere/blobs/uploads/");
    assert!(mounts[0].query.ends_with("&from=served"), "{}", mounts[0].query);
    let heard = heard.lock().unwrap();
    assert!(
        heard.iter().any(|progress| progress.status == "Mounted from served"),
        "{heard:?}"
    );
}

#[tokio::test]
async fn two_who_pull_the_same_share_the_work() {
    let served = Served::new();
    let registry = {
        let served = served.clone();
        Mock::start(move |request| {
            if served.is_layer(request) {
                // Long enough for both to want it.
                std::thread::sleep(Duration::from_millis(300));
            }
            served.answer(request)
        })
    };
    let name = Reference::parse(&format!("{}/served:latest", registry.address)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let open = || Store::open(directory.path().join("images")).unwrap();
    // Two stores in one directory are what two processes have; two pulls of one store are what an engine has.
    let (one, other) = (open(), open());
    let options = options();
    let progress = silent();
    let (first, second, third) = tokio::join!(
        one.pull(&name, &options, &progress),
        other.pull(&name, &options, &progress),
        one.pull(&name, &options, &progress)
    );
    assert_eq!(first.unwrap().id, second.unwrap().id);
    third.unwrap();
    let fetched = registry
        .requests()
        .iter()
        .filter(|request| served.is_layer(request))
        .count();
    assert_eq!(fetched, 1);
}
