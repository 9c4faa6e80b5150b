//! Files that must be whole or absent.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags};
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
    /// As that, and what was written out last is kept under another name (see [`super::settle`]): what was there before
    /// needs no protection from what comes in its place.
    Settling,
}

/// Writes a file beside its place and puts it there in one step.
pub fn write(path: &Path, content: &[u8], durability: Durability) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let written = (|| {
        if durability == Durability::Settling {
            return exchange(path, &temporary, content);
        }
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

/// Writes a file beside its place and has it and what was there change places: what was there is where the next content
/// goes. Files that nobody makes or deletes have no blocks to be given and taken, for which some disks take milliseconds.
fn exchange(path: &Path, spare: &Path, content: &[u8]) -> std::io::Result<()> {
    let open = || OpenOptions::new().write(true).create(true).truncate(false).open(spare);
    let mut file = open()?;
    let mut before = file.metadata()?;
    if before.nlink() > 1 {
        // Somebody keeps what it says.
        std::fs::remove_file(spare)?;
        file = open()?;
        before = file.metadata()?;
    }
    file.write_all(content)?;
    if before.len() > content.len() as u64 {
        file.set_len(content.len() as u64)?;
    }
    let exchanged = rustix::fs::renameat_with(CWD, spare, CWD, path, RenameFlags::EXCHANGE);
    // The first time there is nothing in its place; and not every file system can do this.
    exchanged
        .or_else(|_| rustix::fs::rename(spare, path))
        .map_err(Into::into)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_the_last_thing_written_whatever_its_length() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record.json");
        for text in ["first", "second, and longer", "3", "", "last"] {
            write(&path, text.as_bytes(), Durability::Settling).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn what_a_record_said_stays_where_somebody_keeps_it() {
        let directory = tempfile::tempdir().unwrap();
        let (path, kept) = (directory.path().join("record.json"), directory.path().join("kept"));
        write(&path, b"kept", Durability::Settling).unwrap();
        std::fs::hard_link(&path, &kept).unwrap();
        for text in ["one", "two", "three"] {
            write(&path, text.as_bytes(), Durability::Settling).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            assert_eq!(std::fs::read_to_string(&kept).unwrap(), "kept");
        }
    }
}
