//! What the watched files contained when their changes were last acted upon, so that a watch which starts later can
//! catch up with what it missed: by content, since times say little after a `git checkout`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Files and what they contained.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    files: BTreeMap<String, Known>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// Inode, size and the time of its last change, which nobody can set: as long as they are the same, so is it.
    identity: (u64, u64, i64, i64),
    /// Mode, owner, and the digest of what it contains.
    content: String,
}

impl Snapshot {
    /// Reads one that was kept; what cannot be read was never there.
    pub fn load(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Keeps it, whole or not at all.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer(io::BufWriter::new(file.as_file_mut()), self)?;
        file.as_file().sync_data()?;
        file.persist(path)?;
        Ok(())
    }

    /// Looks at files; those whose identity is the same are not read.
    pub fn take(paths: impl IntoIterator<Item = PathBuf>, known: Option<&Self>) -> Self {
        let mut taken = Self::default();
        for path in paths {
            taken.note(&path, known);
        }
        taken
    }

    /// Looks at one file again.
    pub fn update(&mut self, path: &Path) {
        if let Some(name) = path.to_str() {
            self.files.remove(name);
        }
        self.note(path, None);
    }

    fn note(&mut self, path: &Path, known: Option<&Self>) {
        let Some(name) = path.to_str() else { return };
        let Ok(metadata) = std::fs::symlink_metadata(path) else {
            return;
        };
        let identity = (metadata.ino(), metadata.size(), metadata.ctime(), metadata.ctime_nsec());
        let old = known
            .and_then(|known| known.files.get(name))
            .filter(|old| old.identity == identity && !metadata.is_dir());
        let content = match old {
            Some(old) => old.content.clone(),
            None => match content(path, &metadata) {
                Ok(content) => content,
                // Not there any more, or nothing that could be copied either.
                Err(_) => return,
            },
        };
        self.files.insert(name.to_owned(), Known { identity, content });
    }

    /// Returns the files whose content differs, that are new, or that are gone.
    pub fn changes_to(&self, later: &Self) -> Vec<PathBuf> {
        let gone = self.files.keys().filter(|name| !later.files.contains_key(*name));
        let changed = later
            .files
            .iter()
            .filter(|(name, file)| self.files.get(*name).is_none_or(|known| known.content != file.content))
            .map(|(name, _)| name);
        gone.chain(changed).map(PathBuf::from).collect()
    }
}

fn content(path: &Path, metadata: &std::fs::Metadata) -> io::Result<String> {
    let mut digest = Sha256::new();
    if metadata.is_symlink() {
        use std::os::unix::ffi::OsStrExt;
        digest.update(std::fs::read_link(path)?.as_os_str().as_bytes());
    } else if metadata.is_file() {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let mut file = File::options().read(true).custom_flags(flags).open(path)?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => digest.update(&buffer[..count]),
            }
        }
    }
    let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!(
        "{:o}:{}:{}:{hex}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_counts_and_time_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["same", "touched", "changed", "gone"] {
            std::fs::write(path(name), "text").unwrap();
        }
        let names = ["same", "touched", "changed", "gone", "new"];
        let before = Snapshot::take(names.map(path), None);
        let kept = path("kept");
        before.store(&kept).unwrap();

        let time = std::time::SystemTime::UNIX_EPOCH;
        let set_time = |name: &str| File::options().write(true).open(path(name)).unwrap().set_modified(time);
        std::fs::write(path("touched"), "text").unwrap();
        set_time("touched").unwrap();
        let modified = std::fs::metadata(path("changed")).unwrap().modified().unwrap();
        std::fs::write(path("changed"), "TEXT").unwrap();
        let changed = File::options().write(true).open(path("changed")).unwrap();
        changed.set_modified(modified).unwrap();
        std::fs::remove_file(path("gone")).unwrap();
        std::fs::write(path("new"), "").unwrap();

        let before = Snapshot::load(&kept).unwrap();
        let after = Snapshot::take(names.map(path), Some(&before));
        let mut changes = before.changes_to(&after);
        changes.sort();
        assert_eq!(changes, ["changed", "gone", "new"].map(path));
        assert_eq!(after.changes_to(&after), Vec::<PathBuf>::new());
    }
}
