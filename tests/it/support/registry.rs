//! A real `docker-registry` on a free port of loopback, with storage of its own.

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a registry asks for.
#[derive(Default)]
pub struct Options {
    /// Lines of an htpasswd file.
    pub users: String,
    /// What stands below `auth:`, if nothing else does.
    pub auth: String,
    /// What stands below `http:`, `tls:` for instance.
    pub http: String,
}

/// A running registry; it ends with the value.
pub struct Registry {
    child: Child,
    /// The port on 127.0.0.1.
    pub port: u16,
    /// Its address, `127.0.0.1:port`.
    pub address: String,
    storage: tempfile::TempDir,
}

impl Registry {
    /// Starts a registry that lets everybody do everything, or returns nothing where the program is not installed.
    pub fn start() -> Option<Self> {
        Self::with(Options::default())
    }

    /// Starts a registry that asks for something.
    pub fn with(options: Options) -> Option<Self> {
        let program = ["/usr/bin/docker-registry", "/usr/local/bin/docker-registry"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        if !super::available("docker-registry", program.is_some()) {
            return None;
        }
        let storage = tempfile::tempdir().expect("a temporary directory");
        let port = super::free_port();
        let root = storage.path().display();
        let auth = if !options.users.is_empty() {
            std::fs::write(storage.path().join("users"), options.users).expect("a file");
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {root}/users\n")
        } else if !options.auth.is_empty() {
            format!("auth:\n{}", options.auth)
        } else {
            String::new()
        };
        let config = storage.path().join("config.yml");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {root}/data\nhttp:\n  addr: 127.0.0.1:{port}\n  secret: test\n{}{auth}",
                options.http
            ),
        )
        .expect("the registry's configuration");
        let log = std::fs::File::create(storage.path().join("log")).expect("a file");
        let child = Command::new(program.expect("checked above"))
            .arg("serve")
            .arg(&config)
            .env_clear()
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("docker-registry starts");
        let registry = Self {
            child,
            port,
            address: format!("127.0.0.1:{port}"),
            storage,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                Instant::now() < deadline,
                "the registry does not listen on port {port}: {}",
                std::fs::read_to_string(registry.storage.path().join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    /// Returns the file of a blob in its storage.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let blobs = self.storage.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

impl Registry {
    /// Returns the documents in its storage in which a text occurs.
    pub fn documents(&self, text: &str) -> Vec<serde_json::Value> {
        let blobs = self.storage.path().join("data/docker/registry/v2/blobs");
        let mut waiting = vec![blobs];
        let mut found = Vec::new();
        while let Some(path) = waiting.pop() {
            if path.is_dir() {
                let entries = std::fs::read_dir(&path).expect("a directory of the registry");
                waiting.extend(entries.map(|entry| entry.expect("an entry").path()));
            } else if let Ok(document) = std::fs::read_to_string(&path)
                && document.contains(text)
            {
                found.extend(serde_json::from_str(&document).ok());
            }
        }
        found
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Already gone is as good as ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a port that nothing listens on at the moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
