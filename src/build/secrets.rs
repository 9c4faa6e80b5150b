//! Secrets and keys that a step is given for as long as it runs, and that are in nothing it leaves.
//!
//! A secret is a file in memory, gone as soon as the container has it mounted. A key stays with its agent: the step has a socket
//! that leads there.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// What a build may give to its steps.
#[derive(Clone, Default)]
pub struct Secrets {
    /// By id.
    pub values: BTreeMap<String, Vec<u8>>,
    /// The sockets of agents, by id.
    pub agents: BTreeMap<String, PathBuf>,
}

// What they are is nobody's to print.
impl std::fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let values: Vec<&String> = self.values.keys().collect();
        formatter
            .debug_struct("Secrets")
            .field("values", &values)
            .field("agents", &self.agents)
            .finish()
    }
}

/// Files in memory that only this process's user can reach; gone with the value.
pub(super) struct Memory {
    directory: PathBuf,
    files: usize,
}

const MEMORY: &str = "/dev/shm";

impl Memory {
    /// Makes a directory in memory, and takes away what processes left behind that are gone.
    pub fn new() -> io::Result<Self> {
        let user = rustix::process::geteuid().as_raw();
        let top = Path::new(MEMORY).join(format!("compose-build-{user}"));
        match fs::DirBuilder::new().mode(0o700).create(&top) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Anybody may have made it: it must be a directory, this user's, and closed to others.
        let found = fs::symlink_metadata(&top)?;
        let owner = std::os::unix::fs::MetadataExt::uid(&found);
        if !found.is_dir() || owner != user || found.permissions().mode() & 0o077 != 0 {
            return Err(io::Error::other(format!("{} belongs to somebody else", top.display())));
        }
        for left in fs::read_dir(&top)?.flatten() {
            let name = left.file_name().to_string_lossy().into_owned();
            let process = name.split('-').next().unwrap_or_default().to_owned();
            if !Path::new("/proc").join(process).is_dir() {
                // Somebody else may be clearing up as well.
                let _ = fs::remove_dir_all(left.path());
            }
        }
        let directory = tempfile::Builder::new()
            .prefix(&format!("{}-", std::process::id()))
            .tempdir_in(&top)?;
        Ok(Self {
            directory: directory.keep(),
            files: 0,
        })
    }

    /// Writes a file and returns where it is.
    pub fn file(&mut self, value: &[u8], mode: u32, uid: u32, gid: u32) -> io::Result<PathBuf> {
        let path = self.directory.join(self.files.to_string());
        self.files += 1;
        let mut file = fs::File::options()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(value)?;
        if rustix::process::geteuid().is_root() {
            chown(&path, Some(uid), Some(gid))?;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        Ok(path)
    }

    /// Listens on a socket for as long as the returned value lives, and connects what comes there to an agent.
    pub fn agent(&mut self, agent: PathBuf, mode: u32, uid: u32, gid: u32) -> io::Result<(PathBuf, Agent)> {
        let path = self.directory.join(self.files.to_string());
        self.files += 1;
        let listener = UnixListener::bind(&path)?;
        if rustix::process::geteuid().is_root() {
            chown(&path, Some(uid), Some(gid))?;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                let agent = agent.clone();
                connections.spawn(async move {
                    if let Ok(mut to) = UnixStream::connect(&agent).await {
                        // However it ends, it has ended.
                        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok((path, Agent(task)))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // What is left is taken away by the next build.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A socket that leads to an agent.
pub(super) struct Agent(JoinHandle<()>);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.abort();
    }
}
