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

use super::{ImageError, sha256};

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

/// Begins the line after a document that has its digest, by which it is seen when a byte of it has changed.
const SEAL: &[u8] = b"\nsha256:";

/// Adds its digest to a document.
pub(super) fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let digest = sha256(&bytes);
    bytes.push(b'\n');
    bytes.extend_from_slice(digest.as_bytes());
    bytes.push(b'\n');
    bytes
}

/// Reads a document, sealed or not.
pub(super) fn parse<T: serde::de::DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, ImageError> {
    let end = bytes.windows(SEAL.len()).rposition(|window| window == SEAL);
    let document = &bytes[..end.unwrap_or(bytes.len())];
    if let Some(end) = end {
        let expected = String::from_utf8_lossy(&bytes[end + 1..]).trim_end().to_owned();
        let actual = sha256(document);
        if expected != actual {
            let what = path.display().to_string();
            return Err(ImageError::Digest { what, expected, actual });
        }
    }
    serde_json::from_slice(document).map_err(ImageError::document(path.display().to_string()))
}

/// Reads a JSON document; one that is not there is the default.
pub(super) fn read<T: Default + serde::de::DeserializeOwned>(path: &Path) -> Result<T, ImageError> {
    match std::fs::read(path) {
        Ok(bytes) => parse(path, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(ImageError::file("read", path)(error)),
    }
}

/// Writes a JSON document so that a crash leaves the old one or the new one.
pub(super) fn write<T: Serialize>(path: &Path, document: &T) -> Result<(), ImageError> {
    let bytes = serde_json::to_vec(document).map_err(ImageError::document(path.display().to_string()))?;
    write_bytes(path, &seal(bytes), true).map_err(ImageError::file("write", path))
}

/// The same, and keeps the document that is replaced under another name, should the new one be damaged one day.
pub(super) fn write_kept<T: Serialize>(path: &Path, document: &T) -> Result<(), ImageError> {
    let bytes = serde_json::to_vec(document).map_err(ImageError::document(path.display().to_string()))?;
    let before = || {
        let previous = previous(path);
        // Without it things work as well.
        let _ = std::fs::remove_file(&previous);
        let _ = std::fs::hard_link(path, &previous);
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    replace(path, directory, &seal(bytes), true, before).map_err(ImageError::file("write", path))
}

pub(super) fn previous(path: &Path) -> PathBuf {
    path.with_extension("json.previous")
}

/// Moves a damaged document aside, for whoever wants to look at it.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf, ImageError> {
    let aside = path.with_extension("json.damaged");
    std::fs::rename(path, &aside).map_err(ImageError::file("rename", path))?;
    Ok(aside)
}

/// Writes a file under a temporary name and renames it; `durable` also survives a loss of power.
pub(super) fn write_bytes(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    replace(path, directory, bytes, durable, || {})
}

/// The same where nobody would find what a crash left: that is in another directory of the same file system.
pub(super) fn write_bytes_by(tmp: &Path, path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    replace(path, tmp, bytes, durable, || {})
}

/// What the names of files begin with that are not whole yet.
pub(super) const NEW: &str = ".new";

/// `before` is called when all is written, and only the name is left to be given.
fn replace(path: &Path, tmp: &Path, bytes: &[u8], durable: bool, before: impl FnOnce()) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new().prefix(NEW).tempfile_in(tmp)?;
    file.write_all(bytes)?;
    if durable {
        file.as_file().sync_all()?;
    }
    before();
    file.persist(path)?;
    if durable {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_seen() {
        let path = Path::new("index.json");
        let whole = seal(br#"{"names":{"docker.io/library/a:1":"sha256:0"}}"#.to_vec());
        assert_eq!(parse::<Index>(path, &whole).unwrap().names.len(), 1);
        for position in 0..whole.len() - 1 {
            let mut changed = whole.clone();
            changed[position] ^= 1;
            assert!(parse::<Index>(path, &changed).is_err(), "byte {position}");
        }
        // What was written before there were seals.
        assert!(parse::<Index>(path, b"{}").is_ok());
    }
}
