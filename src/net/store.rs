//! The records of networks on disk: one file each.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::error::NetError;
use super::spec::NetworkState;

/// The directory of the records.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// Opens the records of an engine.
    pub fn open(state_dir: &Path) -> Result<Self, NetError> {
        let directory = state_dir.join("networks");
        fs::create_dir_all(&directory).map_err(failed("create", &directory))?;
        Ok(Self { directory })
    }

    /// Reads all records. One that cannot be read is left alone and not counted: the rest must work all the same.
    pub fn load(&self) -> Result<Vec<NetworkState>, NetError> {
        let mut found = Vec::new();
        let entries = fs::read_dir(&self.directory).map_err(failed("read", &self.directory))?;
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(state) => found.push(state),
                Err(error) => tracing::warn!(%error, "a network's record is of no use"),
            }
        }
        Ok(found)
    }

    /// Writes a record, so that it is there as a whole or not at all.
    pub fn save(&self, state: &NetworkState) -> Result<(), NetError> {
        let path = self.path(&state.spec.id);
        let temporary = path.with_extension("tmp");
        let write = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(&serde_json::to_vec_pretty(state)?)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(failed("write", &path))
    }

    /// Removes a record.
    pub fn remove(&self, id: &str) -> Result<(), NetError> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }
}

fn read(path: &Path) -> Result<NetworkState, NetError> {
    let bytes = fs::read(path).map_err(failed("read", path))?;
    serde_json::from_slice(&bytes).map_err(|source| NetError::Record {
        path: path.to_owned(),
        source,
    })
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NetError {
    let path = path.to_owned();
    move |source| NetError::File { attempt, path, source }
}
