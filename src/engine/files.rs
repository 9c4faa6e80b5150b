//! Files that must be whole or absent.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{EngineError, Result};

/// How much a file is worth after a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It must be there: names and identities.
    Synced,
    /// It may be lost: the next start finds out what it said anyway, or it is written out later.
    Renamed,
}

/// Writes a file beside its place and puts it there in one step.
pub fn write(path: &Path, content: &[u8], durability: Durability) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        if durability == Durability::Synced {
            file.sync_data()?;
        }
        std::fs::rename(&temporary, path)?;
        match path.parent() {
            Some(directory) if durability == Durability::Synced => sync_directory(directory),
            _ => Ok(()),
        }
    })();
    written.map_err(EngineError::file("cannot write", path))
}

/// Has the names in a directory reach the disk.
pub fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Writes a value as JSON.
pub fn write_json<T: Serialize>(path: &Path, value: &T, durability: Durability) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|cause| EngineError::Record {
        path: path.to_path_buf(),
        cause,
    })?;
    write(path, &text, durability)
}

/// Reads a value that [`write_json`] wrote.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).map_err(EngineError::file("cannot read", path))?;
    serde_json::from_slice(&text).map_err(|cause| EngineError::Record {
        path: path.to_path_buf(),
        cause,
    })
}
