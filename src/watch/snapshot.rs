//! What the watched files contained when their changes were last acted upon, so that a watch which starts later can
//! catch up with what it missed: by content, since times say little after a `git checkout`.
//!
//! On disk it is a list of lines, one for each file, the last of a file counts: what changes is added at the end.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Files and what they contained.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    files: BTreeMap<PathBuf, Known>,
}

/// Inode, size and the time of its last change, which nobody can set: as long as they are the same, so is the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity(u64, u64, i64, i64);

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    identity: Identity,
    /// Mode, owner, and the digest of what it contains.
    content: String,
}

/// A line: a file, and nothing more where it is not there any more.
#[derive(Debug, Serialize, Deserialize)]
struct Line(Name, Option<Known>);

/// A path; hexadecimal where it is no text.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Bytes { hex: String },
}

impl Identity {
    /// Looks at a file; nothing where there is none.
    pub fn of(path: &Path) -> Option<Self> {
        Some(Self::from(&std::fs::symlink_metadata(path).ok()?))
    }

    fn from(metadata: &std::fs::Metadata) -> Self {
        Self(metadata.ino(), metadata.size(), metadata.ctime(), metadata.ctime_nsec())
    }
}

impl Snapshot {
    /// Reads one that was kept; nothing where there is none. A line that was cut off says nothing.
    pub fn load(path: &Path) -> Option<Self> {
        let mut reader = BufReader::new(File::open(path).ok()?);
        let mut files = BTreeMap::new();
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).ok()? > 0 {
            if let Ok(Line(name, known)) = serde_json::from_slice(&line)
                && let Some(name) = name.path()
            {
                match known {
                    Some(known) => files.insert(name, known),
                    None => files.remove(&name),
                };
            }
            line.clear();
        }
        Some(Self { files })
    }

    /// Keeps it, whole or not at all.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        let mut writer = BufWriter::new(file.as_file_mut());
        for (path, known) in &self.files {
            write_line(&mut writer, path, Some(known.clone()))?;
        }
        writer.flush()?;
        drop(writer);
        file.as_file().sync_data()?;
        file.persist(path)?;
        Ok(())
    }

    /// Looks at files; those whose identity is the same are not read.
    pub fn take(paths: impl IntoIterator<Item = PathBuf>, known: Option<&Self>) -> Self {
        let look = |path: PathBuf| {
            let old = known.and_then(|known| known.files.get(&path));
            let now = Known::of(&path, old)?;
            Some((path, now))
        };
        Self {
            files: paths.into_iter().filter_map(look).collect(),
        }
    }

    /// Returns the files whose content differs, that are new, or that are gone.
    pub fn changes_to(&self, later: &Self) -> Vec<PathBuf> {
        let gone = self.files.keys().filter(|name| !later.files.contains_key(*name));
        let changed = later
            .files
            .iter()
            .filter(|(name, file)| self.files.get(*name).is_none_or(|known| known.content != file.content))
            .map(|(name, _)| name);
        gone.chain(changed).cloned().collect()
    }

    /// Returns it with some files as an earlier one knew them.
    pub fn with(mut self, files: &[PathBuf], as_in: &Self) -> Self {
        for file in files {
            match as_in.files.get(file) {
                Some(known) => self.files.insert(file.clone(), known.clone()),
                None => self.files.remove(file),
            };
        }
        self
    }

    /// Adds to a kept snapshot what files contain now, if they are what they were when they were acted upon; of others
    /// there will be more news. Returns how many lines were written.
    pub fn append(to: &Path, files: &[(PathBuf, Option<Identity>)]) -> io::Result<usize> {
        let mut lines = Vec::new();
        let mut count = 0;
        for (path, identity) in files {
            let known = match identity {
                None => None,
                Some(identity) => match Known::of(path, None).filter(|known| known.identity == *identity) {
                    Some(known) => Some(known),
                    None => continue,
                },
            };
            write_line(&mut lines, path, known)?;
            count += 1;
        }
        // In one piece, so that at most one line is cut off.
        File::options().append(true).create(true).open(to)?.write_all(&lines)?;
        Ok(count)
    }
}

fn write_line(to: &mut impl Write, path: &Path, known: Option<Known>) -> io::Result<()> {
    serde_json::to_writer(&mut *to, &Line(Name::of(path), known))?;
    to.write_all(b"\n")
}

impl Name {
    fn of(path: &Path) -> Self {
        match path.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes {
                hex: hex(path.as_os_str().as_bytes()),
            },
        }
    }

    fn path(self) -> Option<PathBuf> {
        match self {
            Self::Text(text) => Some(text.into()),
            Self::Bytes { hex } => {
                let pairs = hex.as_bytes().chunks_exact(2);
                let bytes = pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
                Some(OsString::from_vec(bytes.collect::<Option<Vec<u8>>>()?).into())
            }
        }
    }
}

impl Known {
    /// Reads a file, unless what is known of it still holds. Nothing where there is none, or none that can be read
    /// and copied.
    fn of(path: &Path, old: Option<&Self>) -> Option<Self> {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        let identity = Identity::from(&metadata);
        if let Some(old) = old.filter(|old| old.identity == identity && !old.content.is_empty() && !metadata.is_dir()) {
            return Some(old.clone());
        }
        let content = content(path, &metadata).ok()?;
        // Read while it was written: it is not known what was read.
        let is_same = metadata.is_dir() || Identity::of(path) == Some(identity);
        let content = if is_same { content } else { String::new() };
        Some(Self { identity, content })
    }
}

fn content(path: &Path, metadata: &std::fs::Metadata) -> io::Result<String> {
    let mut digest = Sha256::new();
    if metadata.is_symlink() {
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
    Ok(format!(
        "{:o}:{}:{}:{}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        hex(&digest.finalize())
    ))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
        let some = after.clone().with(&changes[..2], &before);
        assert_eq!(some.changes_to(&after), ["gone", "changed"].map(path));
        assert_eq!(before.changes_to(&some), [path("new")]);
    }

    #[test]
    fn what_is_added_later_counts_unless_it_changed_again() {
        let directory = tempfile::tempdir().unwrap();
        let odd = OsString::from_vec(b"odd \xff".to_vec());
        let path = |name: &str| directory.path().join(name);
        let all = || [path("a"), path("b"), path("c"), directory.path().join(&odd)];
        for path in all() {
            std::fs::write(path, "1").unwrap();
        }
        let kept = path("kept");
        Snapshot::take(all(), None).store(&kept).unwrap();
        std::fs::write(path("a"), "2").unwrap();
        std::fs::write(path("b"), "2").unwrap();
        std::fs::remove_file(path("c")).unwrap();
        let acted_upon: Vec<_> = [path("a"), path("b"), path("c")]
            .map(|path| (path.clone(), Identity::of(&path)))
            .into();
        // After it was copied, and before it was noted.
        std::fs::write(path("b"), "three").unwrap();
        assert_eq!(Snapshot::append(&kept, &acted_upon).unwrap(), 2);
        // A crash cuts off what was being written.
        File::options()
            .append(true)
            .open(&kept)
            .unwrap()
            .write_all(b"[\"x\", {\"iden")
            .unwrap();
        let known = Snapshot::load(&kept).unwrap();
        let now = Snapshot::take(all(), Some(&known));
        assert_eq!(known.changes_to(&now), [path("b")]);
        assert_eq!(now.files.len(), 3);
    }
}
