//! Images through the library: pushed to a real registry and pulled back.

use std::sync::{Arc, Mutex};

use compose::image::{
    ImageConfig, Login, Progress, ProgressSink, PullOptions, PushOptions, Reference, Settings, Store, silent,
};

use crate::support::registry::{Options, Registry};

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(directory.path().join("images")).expect("a store");
    (directory, store)
}

/// Makes an image of two layers; the second is large enough to be sent in many pieces.
fn make_image(store: &Store, name: &Reference) -> compose::image::Image {
    let mut config = ImageConfig::scratch();
    config.config.cmd = Some(vec!["/bin/true".to_owned()]);
    let mut noise = vec![0_u8; 3_000_000];
    let mut state = 1_u32;
    for byte in &mut noise {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    for (path, data) in [("etc/hello", b"hello".as_slice()), ("data/noise", &noise)] {
        let scratch = store.scratch().unwrap();
        let file = scratch.upper().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, data).unwrap();
        let layer = store.seal(scratch, Default::default()).unwrap();
        config.rootfs.diff_ids.push(layer.diff_id);
    }
    store.add(&config, std::slice::from_ref(name), None).unwrap()
}

fn listening() -> (ProgressSink, Arc<Mutex<Vec<Progress>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = {
        let heard = heard.clone();
        Arc::new(move |progress| heard.lock().unwrap().push(progress))
    };
    (sink, heard)
}

fn said(heard: &Mutex<Vec<Progress>>, status: &str) -> usize {
    let heard = heard.lock().unwrap();
    heard.iter().filter(|progress| progress.status == status).count()
}

/// Settings that look at loopback only, so that no test ever asks the world.
fn only(mirrors: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::default();
    for (registry, address) in mirrors {
        let addresses = settings.mirrors.entry((*registry).to_owned()).or_default();
        addresses.push((*address).to_owned());
    }
    settings
}

fn pull_options(settings: Settings) -> PullOptions {
    PullOptions {
        settings: Some(settings),
        ..PullOptions::default()
    }
}

#[tokio::test]
async fn what_is_pushed_is_pulled_back_the_same() {
    let Some(registry) = Registry::start() else { return };
    let (_one, first) = store();
    let name = Reference::parse(&format!("{}/made/here:1", registry.address)).unwrap();
    let image = make_image(&first, &name);
    let (listen, heard) = listening();
    let digest = first.push(&name, &PushOptions::default(), &listen).await.unwrap();
    assert_eq!(said(&heard, "Pushed"), 2);
    let (listen, heard) = listening();
    assert_eq!(
        first.push(&name, &PushOptions::default(), &listen).await.unwrap(),
        digest
    );
    assert_eq!(said(&heard, "Layer already exists"), 2);

    let (_two, second) = store();
    let (listen, heard) = listening();
    let pulled = second.pull(&name, &PullOptions::default(), &listen).await.unwrap();
    assert_eq!(pulled.id, image.id);
    assert_eq!(pulled.repo_tags, [name.familiar()]);
    assert_eq!(pulled.repo_digests, [format!("{}@{digest}", name.familiar_name())]);
    assert_eq!(said(&heard, "Pulling from made/here"), 1);
    assert_eq!(said(&heard, "Pulling fs layer"), 2);
    assert_eq!(said(&heard, "Pull complete"), 2);
    assert_eq!(said(&heard, &format!("Digest: {digest}")), 1);
    assert_eq!(
        said(
            &heard,
            &format!("Status: Downloaded newer image for {}", name.familiar())
        ),
        1
    );
    let directories = second.layer_dirs(&pulled);
    assert_eq!(std::fs::read(directories[1].join("etc/hello")).unwrap(), b"hello");
    assert_eq!(
        std::fs::metadata(directories[0].join("data/noise")).unwrap().len(),
        3_000_000
    );

    let (listen, heard) = listening();
    second.pull(&name, &PullOptions::default(), &listen).await.unwrap();
    assert_eq!(said(&heard, "Already exists"), 2);
    assert_eq!(
        said(&heard, &format!("Status: Image is up to date for {}", name.familiar())),
        1
    );

    // By digest, and through a mirror of the registry everybody means.
    let (_three, third) = store();
    let pinned = name.with_digest(&digest).unwrap();
    let by_digest = third.pull(&pinned, &PullOptions::default(), &silent()).await.unwrap();
    assert_eq!(by_digest.id, image.id);
    let mirror = format!("http://{}", registry.address);
    let options = pull_options(only(&[("docker.io", &mirror)]));
    let hub = Reference::parse("made/here:1").unwrap();
    let mirrored = third.pull(&hub, &options, &silent()).await.unwrap();
    assert_eq!(mirrored.id, image.id);
    assert_eq!(third.get("made/here:1").unwrap().id, image.id);

    // What is not there, in Docker's words.
    let missing = Reference::parse(&format!("{}/made/here:2", registry.address)).unwrap();
    let error = third
        .pull(&missing, &PullOptions::default(), &silent())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "manifest for {} not found: manifest unknown: manifest unknown",
            missing.familiar()
        )
    );
}

#[tokio::test]
async fn a_login_is_asked_for_and_used() {
    // The password is "secret".
    let users = "tester:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
    let Some(registry) = Registry::with(Options {
        users: users.to_owned(),
        ..Options::default()
    }) else {
        return;
    };
    let (_directory, store) = store();
    let name = Reference::parse(&format!("{}/private:1", registry.address)).unwrap();
    make_image(&store, &name);
    let error = store.push(&name, &PushOptions::default(), &silent()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "push access denied to {}: unauthorized: authentication required",
            name.familiar_name()
        )
    );
    let login = Some(Login::Password {
        username: "tester".to_owned(),
        password: "secret".to_owned(),
    });
    let options = PushOptions {
        login: login.clone(),
        ..PushOptions::default()
    };
    store.push(&name, &options, &silent()).await.unwrap();
    let error = store.pull(&name, &PullOptions::default(), &silent()).await.unwrap_err();
    assert!(
        error.to_string().starts_with(&format!(
            "pull access denied for {}, repository does not exist or may require 'docker login'",
            name.familiar_name()
        )),
        "{error}"
    );
    let options = PullOptions {
        login,
        ..PullOptions::default()
    };
    store.pull(&name, &options, &silent()).await.unwrap();
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named() {
    let (_directory, store) = store();
    let error = store
        .pull(
            &Reference::parse("127.0.0.1:1/nothing").unwrap(),
            &PullOptions::default(),
            &silent(),
        )
        .await
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("Get \"http://127.0.0.1:1/v2/"), "{error}");
    assert!(error.contains("Connection refused"), "{error}");
}
