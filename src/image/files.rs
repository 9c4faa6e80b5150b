//! Where an archive's files are read from: a tar on disk, read in place, or a directory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::bounded::Bounded;
use super::{ArchiveProblem, ImageError, layers, tree};

/// No config, manifest or index is larger; what claims to be is not read into memory.
const MAX_DOCUMENT: u64 = 16 * 1024 * 1024;

/// The files of an archive, by their paths in it.
pub(super) enum Files {
    Tar(TarFiles),
    Directory { path: PathBuf, root: Arc<File> },
}

/// A tar whose files are found by their offsets, so that nothing is copied out to be read.
pub(super) struct TarFiles {
    /// What to call it in messages.
    path: PathBuf,
    file: Arc<File>,
    entries: HashMap<String, Entry>,
}

enum Entry {
    Data { offset: u64, length: u64 },
    Link(String),
}

impl Files {
    /// Opens a directory in an image layout.
    pub(super) fn directory(path: &Path) -> Result<Self, ImageError> {
        let root = File::open(path).map_err(ImageError::file("open", path))?;
        Ok(Self::Directory {
            path: path.to_owned(),
            root: Arc::new(root),
        })
    }

    /// Opens a tar, which is unpacked to a temporary file first if it is compressed.
    pub(super) fn tar(path: &Path, tmp: &Path) -> Result<Self, ImageError> {
        let reading = || ImageError::file("read", path);
        let mut file = File::open(path).map_err(reading())?;
        let mut first = Vec::new();
        file.by_ref().take(4).read_to_end(&mut first).map_err(reading())?;
        file.seek(SeekFrom::Start(0)).map_err(reading())?;
        if layers::Compression::of(&first) == layers::Compression::None {
            return TarFiles::index(path, file).map(Self::Tar);
        }
        Self::stream(file, path, tmp)
    }

    /// Spools a tar that comes as a stream.
    pub(super) fn stream(from: impl Read, name: &Path, tmp: &Path) -> Result<Self, ImageError> {
        let mut spool = tempfile::tempfile_in(tmp).map_err(ImageError::file("create a file in", tmp))?;
        let (_, mut from) = layers::decompress(from).map_err(ImageError::file("read", name))?;
        io::copy(&mut from, &mut spool).map_err(ImageError::file("read", name))?;
        spool.seek(SeekFrom::Start(0)).map_err(ImageError::file("read", tmp))?;
        TarFiles::index(name, spool).map(Self::Tar)
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Tar(tar) => &tar.path,
            Self::Directory { path, .. } => path,
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Tar(tar) => tar.entries.contains_key(name),
            Self::Directory { .. } => self.open(name).is_ok(),
        }
    }

    /// Opens a file for reading from its beginning to its end.
    pub(super) fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, ImageError> {
        match self {
            Self::Tar(tar) => {
                let mut name = name;
                // docker save of old wrote a layer once and links to it; a link to a link would be a loop.
                for _ in 0..8 {
                    match tar.entries.get(name) {
                        Some(Entry::Data { offset, length }) => {
                            return Ok(Box::new(Section {
                                file: tar.file.clone(),
                                position: *offset,
                                end: offset.saturating_add(*length),
                            }));
                        }
                        Some(Entry::Link(target)) => name = target,
                        None => break,
                    }
                }
                Err(self.problem(ArchiveProblem::Missing(name.to_owned())))
            }
            Self::Directory { path, root } => {
                let opened = tree::open_in_root(root.as_fd(), Path::new(name), OFlags::RDONLY | OFlags::NONBLOCK);
                match opened {
                    Ok(file) => Ok(Box::new(File::from(file))),
                    Err(rustix::io::Errno::NOENT) => Err(self.problem(ArchiveProblem::Missing(name.to_owned()))),
                    Err(errno) => Err(ImageError::file("open", &path.join(name))(errno.into())),
                }
            }
        }
    }

    /// Reads a small file whole.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        self.open(name)?
            .take(MAX_DOCUMENT + 1)
            .read_to_end(&mut bytes)
            .map_err(ImageError::file("read", self.path()))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(self.problem(ArchiveProblem::TooLarge(name.to_owned())));
        }
        Ok(bytes)
    }

    pub(super) fn problem(&self, problem: ArchiveProblem) -> ImageError {
        ImageError::Archive {
            path: self.path().to_owned(),
            problem,
        }
    }
}

impl TarFiles {
    fn index(path: &Path, file: File) -> Result<Self, ImageError> {
        let mut entries = HashMap::new();
        let reading = || ImageError::file("read", path);
        let (tar, mut bound) = Bounded::new(BufReader::with_capacity(8 * 1024, file));
        let mut archive = tar::Archive::new(tar);
        let mut found_entries = archive.entries_with_seek().map_err(reading())?;
        while let Some(entry) = bound.next(&mut found_entries).map_err(reading())? {
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let Some(name) = clean("", &name) else {
                return Err(ImageError::Archive {
                    path: path.to_owned(),
                    problem: ArchiveProblem::BadPath(name),
                });
            };
            let kind = entry.header().entry_type();
            let target = entry
                .link_name_bytes()
                .map(|target| String::from_utf8_lossy(&target).into_owned());
            let found = match target {
                Some(target) if kind.is_hard_link() => clean("", &target).map(Entry::Link),
                Some(target) if kind.is_symlink() => {
                    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                    clean(directory, &target).map(Entry::Link)
                }
                _ if kind.is_file() => Some(Entry::Data {
                    offset: entry.raw_file_position(),
                    length: entry.size(),
                }),
                _ => None,
            };
            if let Some(found) = found {
                entries.insert(name, found);
            }
        }
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(archive.into_inner().into_inner().into_inner()),
            entries,
        })
    }
}

/// Returns a path of the archive in its one spelling, or `None` if it leads out of it.
fn clean(directory: &str, path: &str) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    for component in Path::new(directory).join(path).components() {
        match component {
            Component::Normal(name) => parts.push(name.to_str()?.to_owned()),
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::CurDir | Component::RootDir => {}
            Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// A part of a file, read without moving the file's own position, so that several threads can read at once.
struct Section {
    file: Arc<File>,
    position: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..length], self.position)?;
        if count == 0 && length > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += count as u64;
        Ok(count)
    }
}
