//! Images against a real registry on loopback, and against one that misbehaves.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use compose::image::{
    ImageConfig, Login, Platform, Progress, ProgressSink, PullOptions, PushOptions, Reference, Settings, Store, sha256,
    silent,
};

use crate::support::available;

/// A real docker-registry with its own storage; ends with the value.
pub struct Registry {
    child: Child,
    pub address: String,
    _storage: tempfile::TempDir,
}

impl Registry {
    /// Starts one, or says why not. `users` are lines of an htpasswd file; without any, everybody may do everything.
    pub fn start(users: &str) -> Option<Self> {
        let program = Path::new("/usr/bin/docker-registry");
        if !available("docker-registry", program.exists()) {
            return None;
        }
        let storage = tempfile::tempdir().expect("a directory");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let root = storage.path().display().to_string();
        let auth = if users.is_empty() {
            String::new()
        } else {
            std::fs::write(storage.path().join("users"), users).expect("a file");
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {root}/users\n")
        };
        let config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {root}/data\nhttp:\n  addr: 127.0.0.1:{port}\n  secret: test\n{auth}"
        );
        let path = storage.path().join("config.yml");
        std::fs::write(&path, config).expect("a file");
        let child = Command::new(program)
            .arg("serve")
            .arg(&path)
            .env_clear()
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry starts");
        let registry = Self {
            child,
            address: format!("127.0.0.1:{port}"),
            _storage: storage,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&registry.address).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

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
    let Some(registry) = Registry::start("") else { return };
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
    let Some(registry) = Registry::start(users) else { return };
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

/// A registry of a few files that does with each request what its test says.
struct Misbehaving {
    address: String,
    requests: Arc<AtomicUsize>,
}

/// What to answer to a path, asked for the n-th time, from an offset.
type Answer = dyn Fn(&str, usize, Option<usize>) -> Reply + Send + Sync;

enum Reply {
    Whole(Vec<u8>),
    /// So many bytes of it, although the header promises all; then the connection ends.
    Part(Vec<u8>, usize),
    /// What follows an offset.
    Rest(Vec<u8>),
    Status(u16),
}

impl Misbehaving {
    fn start(answer: impl Fn(&str, usize, Option<usize>) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let answer: Arc<Answer> = Arc::new(answer);
        let times = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let Ok(connection) = connection else { break };
                let (answer, times, counted) = (answer.clone(), times.clone(), counted.clone());
                std::thread::spawn(move || {
                    let _ = Self::serve(&connection, &*answer, &times, &counted);
                });
            }
        });
        Self { address, requests }
    }

    fn serve(
        mut connection: &TcpStream,
        answer: &Answer,
        times: &Mutex<BTreeMap<String, usize>>,
        counted: &AtomicUsize,
    ) -> std::io::Result<()> {
        let mut lines = BufReader::new(connection.take(64 * 1024)).lines();
        let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut from = None;
        for line in lines {
            let line = line?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(range) = line.strip_prefix("range: bytes=") {
                from = range.trim_end_matches('-').parse().ok();
            }
        }
        counted.fetch_add(1, Ordering::Relaxed);
        let time = {
            let mut times = times.lock().unwrap();
            let time = times.entry(path.clone()).or_default();
            *time += 1;
            *time
        };
        let reply = answer(&path, time, from);
        let (status, length, body) = match &reply {
            Reply::Whole(body) => (200, body.len(), &body[..]),
            Reply::Part(body, sent) => (200, body.len(), &body[..*sent]),
            Reply::Rest(body) => (206, body.len(), &body[..]),
            Reply::Status(status) => (*status, 0, &[][..]),
        };
        write!(
            connection,
            "HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        )?;
        connection.write_all(body)?;
        connection.shutdown(std::net::Shutdown::Both)
    }
}

/// A small image as a registry has it.
struct Served {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
}

impl Served {
    fn new() -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        let data: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        header.set_size(data.len() as u64);
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_data(&mut header, "file", data.as_slice()).unwrap();
        let layer = builder.into_inner().unwrap();
        let platform = Platform::host();
        let config = format!(
            r#"{{"architecture":"{}","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            platform.architecture,
            sha256(&layer)
        )
        .into_bytes();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{}}}]}}"#,
            sha256(&config),
            config.len(),
            sha256(&layer),
            layer.len()
        )
        .into_bytes();
        Self {
            manifest,
            config,
            layer,
        }
    }

    fn index(&self, architecture: &str) -> Vec<u8> {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"{architecture}"}}}},{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":1,"platform":{{"os":"unknown","architecture":"unknown"}}}}]}}"#,
            sha256(&self.manifest),
            self.manifest.len(),
            sha256(b"attestation"),
        )
        .into_bytes()
    }

    /// Answers as a good registry does.
    fn answer(&self, path: &str) -> Reply {
        if path == "/v2/" {
            return Reply::Whole(b"{}".to_vec());
        }
        let asked = path.rsplit('/').next().unwrap_or_default();
        for (digest, body) in [
            (sha256(&self.manifest), &self.manifest),
            (sha256(&self.config), &self.config),
            (sha256(&self.layer), &self.layer),
        ] {
            if asked == digest {
                return Reply::Whole(body.clone());
            }
        }
        match asked {
            "latest" => Reply::Whole(self.manifest.clone()),
            "index" => Reply::Whole(self.index(&Platform::host().architecture)),
            "foreign" => Reply::Whole(self.index("pdp11")),
            _ => Reply::Status(404),
        }
    }

    fn is_layer(&self, path: &str) -> bool {
        path.ends_with(&sha256(&self.layer))
    }
}

async fn pull(registry: &Misbehaving, tag: &str) -> Result<compose::image::Image, String> {
    let (_directory, store) = store();
    let name = Reference::parse(&format!("{}/served:{tag}", registry.address)).unwrap();
    let result = store
        .pull(&name, &pull_options(Settings::default()), &silent())
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

#[tokio::test]
async fn an_index_leads_to_the_image_of_this_platform() {
    let served = Served::new();
    let id = sha256(&served.config);
    let registry = Misbehaving::start(move |path, _, _| served.answer(path));
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
    let offsets = Arc::new(Mutex::new(Vec::new()));
    let seen = offsets.clone();
    let registry = Misbehaving::start(move |path, time, from| {
        if !served.is_layer(path) {
            return served.answer(path);
        }
        seen.lock().unwrap().push(from);
        match (time, from) {
            (1, _) => Reply::Part(served.layer.clone(), 300_000),
            (2, _) => Reply::Status(503),
            (_, Some(from)) => Reply::Rest(served.layer[from..].to_vec()),
            _ => Reply::Status(400),
        }
    });
    assert_eq!(pull(&registry, "latest").await.unwrap().id, id);
    let offsets = offsets.lock().unwrap();
    assert_eq!(offsets.len(), 3);
    assert!(
        offsets[2].is_some_and(|offset| offset > 0 && offset <= 300_000),
        "{offsets:?}"
    );
}

#[tokio::test]
async fn a_registry_without_ranges_is_read_again_from_the_start() {
    let served = Served::new();
    let id = sha256(&served.config);
    let registry = Misbehaving::start(move |path, time, _| {
        if served.is_layer(path) && time == 1 {
            return Reply::Part(served.layer.clone(), 100_000);
        }
        served.answer(path)
    });
    assert_eq!(pull(&registry, "latest").await.unwrap().id, id);
}

#[tokio::test]
async fn wrong_bytes_never_become_an_image() {
    let served = Served::new();
    let digest = sha256(&served.layer);
    let registry = Misbehaving::start(move |path, _, _| {
        if served.is_layer(path) {
            let mut wrong = served.layer.clone();
            wrong[200_000] ^= 1;
            return Reply::Whole(wrong);
        }
        served.answer(path)
    });
    let error = pull(&registry, "latest").await.unwrap_err();
    assert!(
        error == format!("filesystem layer verification failed for digest {digest}")
            || error.contains("failed to copy"),
        "{error}"
    );

    let served = Served::new();
    let registry = Misbehaving::start(move |path, _, _| {
        if path.ends_with(&sha256(&served.config)) {
            return Reply::Whole(br#"{"architecture":"amd64","os":"linux"}"#.to_vec());
        }
        served.answer(path)
    });
    assert!(pull(&registry, "latest").await.is_err());

    let served = Served::new();
    let registry = Misbehaving::start(move |path, _, _| {
        if path.ends_with(&sha256(&served.manifest)) {
            let text = String::from_utf8_lossy(&served.manifest).replace(".tar\"", ".tar+gzip\"");
            return Reply::Whole(text.into_bytes());
        }
        served.answer(path)
    });
    assert!(pull(&registry, "index").await.is_err());
}

#[tokio::test]
async fn a_broken_registry_is_given_up_on() {
    let registry = Misbehaving::start(|path, _, _| Reply::Status(if path == "/v2/" { 200 } else { 500 }));
    let error = pull(&registry, "latest").await.unwrap_err();
    assert!(error.starts_with("failed to resolve reference"), "{error}");
    assert!(registry.requests.load(Ordering::Relaxed) <= 12);
}
