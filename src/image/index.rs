//! The one file that says which images there are and what they are called.
//!
//! Written as a new file that takes the old one's place, after what it refers to; so at every moment it is either the old state or
//! the new one, and never names what is not there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ImageError;

/// Everything that is known of images beyond their own bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    /// By id, which is the digest of the config.
    #[serde(default)]
    pub images: BTreeMap<String, ImageRecord>,
    /// Full references (with tag or digest) to ids.
    #[serde(default)]
    pub names: BTreeMap<String, String>,
    /// Names of files and directories of this machine (`oci:PATH` …) to what was read from them.
    #[serde(default)]
    pub sources: BTreeMap<String, SourceRecord>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    /// Digest of the manifest the image was pulled or pushed by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Bottom first.
    pub layers: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// When a name was last given to it, in seconds of the epoch.
    #[serde(default)]
    pub tagged: i64,
    /// Removed by force while a container has it: not an image any more, but its layers stay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SourceRecord {
    pub id: String,
    /// What the file looked like when it was read.
    pub stamp: String,
}

/// Tells one version of a file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stamp(u64, i64, i64, u64);

impl Stamp {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        match path.metadata() {
            Ok(file) => Ok(Self(file.ino(), file.mtime(), file.mtime_nsec(), file.size())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }
}

impl std::fmt::Display for Stamp {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}-{}.{}-{}", self.0, self.1, self.2, self.3)
    }
}

/// Reads a JSON document; one that is not there is the default.
pub(super) fn read<T: Default + serde::de::DeserializeOwned>(path: &Path) -> Result<T, ImageError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(ImageError::document(path.display().to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(ImageError::file("read", path)(error)),
    }
}

/// Writes a JSON document so that a crash leaves the old one or the new one.
pub(super) fn write<T: Serialize>(path: &Path, document: &T) -> Result<(), ImageError> {
    let bytes = serde_json::to_vec(document).map_err(ImageError::document(path.display().to_string()))?;
    write_bytes(path, &bytes, true).map_err(ImageError::file("write", path))
}

/// Writes a file under a temporary name and renames it; `durable` also survives a loss of power.
pub(super) fn write_bytes(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new().prefix(".new").tempfile_in(directory)?;
    file.write_all(bytes)?;
    if durable {
        file.as_file().sync_all()?;
    }
    file.persist(path)?;
    if durable {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}
