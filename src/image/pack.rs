//! A layer's directory becomes a tar again, the same bytes every time.
//!
//! Entries come in byte order of their names, owners as numbers, without access times; overlayfs's marks become the whiteouts of
//! the image format. The tree may belong to a running container, so it is walked by file descriptors that follow nothing.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::tree;

/// Why a directory could not be written as a tar.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("cannot read {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the tar")]
    Write(#[source] io::Error),
}

/// What to change while packing.
#[derive(Debug, Clone, Copy, Default)]
pub struct PackOptions {
    /// Times later than this (in seconds of the epoch) become this, as `SOURCE_DATE_EPOCH` asks.
    pub latest: Option<i64>,
}

/// Writes the tree under `directory` as a layer's tar and returns the writer and the sizes of the files added up.
pub fn pack_directory<W: Write>(directory: &Path, out: W, options: PackOptions) -> Result<(W, u64), PackError> {
    let root = rustix::fs::open(
        directory,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| PackError::Read {
        path: directory.to_owned(),
        source: errno.into(),
    })?;
    let mut packer = Packer {
        builder: tar::Builder::new(out),
        links: HashMap::new(),
        options,
        size: 0,
    };
    let opaque = tree::is_opaque(root.as_fd());
    packer.directory(root, opaque)?;
    let size = packer.size;
    let out = packer.builder.into_inner().map_err(PackError::Write)?;
    Ok((out, size))
}

struct Packer<W: Write> {
    builder: tar::Builder<W>,
    /// Files with several names, by device and inode: the first name is the file, the others link to it.
    links: HashMap<(u64, u64), PathBuf>,
    options: PackOptions,
    size: u64,
}

/// A directory being walked: its path, its open file, and the names left, last first.
struct Level {
    path: PathBuf,
    directory: OwnedFd,
    names: Vec<Vec<u8>>,
}

impl<W: Write> Packer<W> {
    fn directory(&mut self, root: OwnedFd, opaque: bool) -> Result<(), PackError> {
        let mut levels = vec![self.level(PathBuf::new(), root, opaque)?];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.pop() else {
                levels.pop();
                continue;
            };
            let path = level.path.join(OsStr::from_bytes(&name));
            if let Some(below) = self.entry(level.directory.as_fd(), OsStr::from_bytes(&name), path)? {
                levels.push(below);
            }
        }
        Ok(())
    }

    fn level(&mut self, path: PathBuf, directory: OwnedFd, opaque: bool) -> Result<Level, PackError> {
        let mut names = tree::names(directory.as_fd()).map_err(reading(&path))?;
        names.reverse();
        if opaque {
            self.builder
                .append_data(&mut empty_header(), path.join(".wh..wh..opq"), io::empty())
                .map_err(PackError::Write)?;
        }
        Ok(Level { path, directory, names })
    }

    fn entry(&mut self, parent: BorrowedFd<'_>, name: &OsStr, path: PathBuf) -> Result<Option<Level>, PackError> {
        let found = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // A running container may remove a file between the listing and now.
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(reading(&path))?,
        };
        if tree::is_whiteout(&found) {
            let mut hidden = b".wh.".to_vec();
            hidden.extend_from_slice(name.as_bytes());
            let path = path.with_file_name(OsStr::from_bytes(&hidden));
            self.builder
                .append_data(&mut empty_header(), path, io::empty())
                .map_err(PackError::Write)?;
            return Ok(None);
        }
        let kind = FileType::from_raw_mode(found.st_mode);
        let open = |flags: OFlags| {
            rustix::fs::openat(
                parent,
                name,
                flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )
        };
        let mut header = self.header(&found);
        if found.st_nlink > 1 && kind != FileType::Directory {
            let file = (found.st_dev, found.st_ino);
            if let Some(first) = self.links.get(&file) {
                header.set_entry_type(tar::EntryType::Link);
                header.set_size(0);
                self.builder
                    .append_link(&mut header, &path, first)
                    .map_err(PackError::Write)?;
                return Ok(None);
            }
            self.links.insert(file, path.clone());
        }
        match kind {
            FileType::Directory => {
                let directory = open(OFlags::DIRECTORY).map_err(reading(&path))?;
                self.extensions(Some(directory.as_fd()), &found, &path)?;
                header.set_entry_type(tar::EntryType::Directory);
                let mut with_slash = path.clone().into_os_string();
                with_slash.push("/");
                self.builder
                    .append_data(&mut header, &with_slash, io::empty())
                    .map_err(PackError::Write)?;
                let opaque = tree::is_opaque(directory.as_fd());
                return self.level(path, directory, opaque).map(Some);
            }
            FileType::RegularFile => {
                // Not to wait for a writer, should a pipe have taken the file's place.
                let file = open(OFlags::NONBLOCK).map_err(reading(&path))?;
                self.extensions(Some(file.as_fd()), &found, &path)?;
                let length = u64::try_from(found.st_size).unwrap_or_default();
                self.size += length;
                header.set_size(length);
                // Exactly as many bytes as the header says, whatever happens to the file meanwhile.
                let room = usize::try_from(length).unwrap_or(usize::MAX).clamp(1, 128 * 1024);
                let data = io::BufReader::with_capacity(room, File::from(file))
                    .chain(io::repeat(0))
                    .take(length);
                self.builder
                    .append_data(&mut header, &path, data)
                    .map_err(PackError::Write)?;
            }
            FileType::Symlink => {
                self.extensions(None, &found, &path)?;
                let target = rustix::fs::readlinkat(parent, name, Vec::new()).map_err(reading(&path))?;
                header.set_entry_type(tar::EntryType::Symlink);
                self.builder
                    .append_link(&mut header, &path, OsStr::from_bytes(target.as_bytes()))
                    .map_err(PackError::Write)?;
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                self.extensions(None, &found, &path)?;
                header.set_entry_type(match kind {
                    FileType::CharacterDevice => tar::EntryType::Char,
                    FileType::BlockDevice => tar::EntryType::Block,
                    _ => tar::EntryType::Fifo,
                });
                if kind != FileType::Fifo {
                    header
                        .set_device_major(rustix::fs::major(found.st_rdev))
                        .map_err(PackError::Write)?;
                    header
                        .set_device_minor(rustix::fs::minor(found.st_rdev))
                        .map_err(PackError::Write)?;
                }
                self.builder
                    .append_data(&mut header, &path, io::empty())
                    .map_err(PackError::Write)?;
            }
            // A socket is nothing without the process that listens on it.
            _ => {}
        }
        Ok(None)
    }

    fn header(&self, found: &Stat) -> tar::Header {
        let mut header = empty_header();
        header.set_mode(found.st_mode & 0o7777);
        header.set_uid(u64::from(found.st_uid));
        header.set_gid(u64::from(found.st_gid));
        header.set_mtime(u64::try_from(self.modified(found).0).unwrap_or_default());
        header
    }

    fn modified(&self, found: &Stat) -> (i64, u64) {
        let time = (found.st_mtime, found.st_mtime_nsec);
        match self.options.latest {
            Some(latest) if time.0 >= latest => (latest, 0),
            _ => time,
        }
    }

    /// Writes what the header has no room for: fractions of seconds and extended attributes.
    fn extensions(&mut self, file: Option<BorrowedFd<'_>>, found: &Stat, path: &Path) -> Result<(), PackError> {
        let (seconds, nanoseconds) = self.modified(found);
        let mut extensions: Vec<(String, Vec<u8>)> = Vec::new();
        if nanoseconds != 0 && seconds >= 0 {
            let fraction = format!("{nanoseconds:09}");
            let text = format!("{seconds}.{}", fraction.trim_end_matches('0'));
            extensions.push(("mtime".to_owned(), text.into_bytes()));
        }
        if let Some(file) = file {
            for (name, value) in tree::xattrs(file).map_err(reading(path))? {
                // A name that is no text cannot be a key of the extension header.
                if let Ok(name) = String::from_utf8(name) {
                    extensions.push((format!("SCHILY.xattr.{name}"), value));
                }
            }
        }
        if extensions.is_empty() {
            return Ok(());
        }
        self.builder
            .append_pax_extensions(extensions.iter().map(|(key, value)| (key.as_str(), value.as_slice())))
            .map_err(PackError::Write)
    }
}

fn empty_header() -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(0);
    header.set_mtime(0);
    header
}

fn reading(path: &Path) -> impl Fn(Errno) -> PackError + use<'_> {
    move |errno| PackError::Read {
        path: path.to_owned(),
        source: errno.into(),
    }
}

/// Sets every time under a directory that is later than `latest` to it.
pub(crate) fn clamp_times(directory: &Path, latest: i64) -> io::Result<()> {
    let root = rustix::fs::open(
        directory,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let time = rustix::fs::Timespec {
        tv_sec: latest,
        tv_nsec: 0,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    let mut left = vec![root];
    while let Some(directory) = left.pop() {
        for name in tree::names(directory.as_fd())? {
            let name = OsStr::from_bytes(&name);
            let found = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if found.st_mtime >= latest {
                rustix::fs::utimensat(&directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                left.push(rustix::fs::openat(
                    &directory,
                    name,
                    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::empty(),
                )?);
            }
        }
    }
    Ok(())
}
