//! A layer's tar becomes a directory that overlayfs can mount.
//!
//! The tar is hostile until proven otherwise. No path of it is ever given to the kernel as such: its parent is resolved beneath the
//! layer's directory by `openat2(RESOLVE_IN_ROOT)`, and the last component is used with calls that do not follow links. Extended
//! attributes that overlayfs would believe are dropped; the only ones written are our own. What the entries add up to is bounded.
//!
//! Follows <https://github.com/opencontainers/image-spec/blob/main/layer.md>.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::bounded::Bounded;
use super::digest::HashingReader;
use super::tree::{self, OverlayXattrs};
use super::view::View;
use crate::os::user_namespace;

/// Why a layer could not be unpacked. Whatever was made of it until then is inside its own directory, which the caller removes.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("cannot read the layer")]
    Read(#[source] io::Error),
    #[error("cannot open the directory for the layer")]
    Root(#[source] io::Error),
    #[error("{path:?} leads outside the layer")]
    Outside { path: PathBuf },
    #[error("whiteout {path:?} names nothing that can be removed")]
    Whiteout { path: PathBuf },
    #[error("{path:?} has an entry type that layers do not have: {kind:?}")]
    Kind { path: PathBuf, kind: char },
    #[error("{path:?} is stored in a sparse format that layers do not use")]
    Sparse { path: PathBuf },
    #[error("cannot create {path:?}")]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot link {path:?} to {target:?}")]
    Link {
        path: PathBuf,
        target: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the layer has more than {0} entries")]
    TooManyEntries(u64),
    #[error("the layer is larger than the {0} bytes that are free for it")]
    TooLarge(u64),
}

/// How much a layer may unpack to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub entries: u64,
    pub bytes: u64,
}

impl Limits {
    /// Returns what the file system of `directory` has room for.
    pub fn of(directory: &Path) -> io::Result<Self> {
        let room = rustix::fs::statvfs(directory)?;
        Ok(Self {
            // Some file systems have no fixed number of inodes and say 0.
            entries: match room.f_favail {
                0 => 50_000_000,
                free => free.min(50_000_000),
            },
            bytes: room.f_bavail.saturating_mul(room.f_frsize),
        })
    }
}

/// What a layer was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// The digest of the tar, over every byte of it.
    pub diff_id: String,
    /// The length of the tar.
    pub tar_size: u64,
    /// The sizes of its files added up, which is what Docker calls the size of a layer.
    pub size: u64,
    /// Directories that the tar has things in but does not list. In an image they are not this layer's to describe: see `settle`.
    pub implied: Vec<PathBuf>,
}

/// Unpacks an uncompressed tar into the empty directory `into`.
///
/// `parents` are the directories of the layers below, top first: a directory that the tar implies but does not list takes its
/// owner and mode from there, because it would otherwise cover the real one.
pub fn unpack_layer<R: Read>(tar: R, into: &Path, limits: Limits) -> Result<Unpacked, UnpackError> {
    let root = open_directory(into).map_err(UnpackError::Root)?;
    let mut unpacker = Unpacker {
        overlay: OverlayXattrs::of(root.as_fd()),
        privileged: rustix::process::geteuid().is_root(),
        root,
        parent: None,
        implied: Vec::new(),
        times: Vec::new(),
        limits,
        entries: 0,
        size: 0,
        buffer: vec![0; 128 * 1024],
    };
    let (tar, mut bound) = Bounded::new(HashingReader::new(tar));
    let mut archive = tar::Archive::new(tar);
    let mut entries = archive.entries().map_err(UnpackError::Read)?;
    while let Some(entry) = bound.next(&mut entries).map_err(UnpackError::Read)? {
        unpacker.entry(entry)?;
    }
    unpacker.finish_times()?;
    unpacker.finish_implied()?;
    let size = unpacker.size;
    let implied = unpacker.implied;
    // What follows the end marker belongs to the digest as well.
    let (diff_id, tar_size) = archive.into_inner().into_inner().finish().map_err(UnpackError::Read)?;
    Ok(Unpacked {
        diff_id,
        tar_size,
        size,
        implied,
    })
}

/// Gives directories that a layer only implied the owner and mode that they have in the layers below (top first), which they would
/// otherwise cover.
pub(crate) fn settle(layer: &Path, implied: &[PathBuf], below: &[PathBuf]) -> io::Result<()> {
    let root = open_directory(layer)?;
    let view = View::open(below)?;
    for path in implied {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let Ok(directory) = tree::open_in_root(root.as_fd(), path, flags) else {
            continue;
        };
        let Ok(Some(found)) = view.find_link(path) else {
            continue;
        };
        if !found.is_directory() {
            continue;
        }
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = (
                user_namespace::user_for(found.stat.st_uid),
                user_namespace::group_for(found.stat.st_gid),
            );
            rustix::fs::fchown(&directory, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(found.stat.st_mode & 0o7777))?;
        let modified = Timespec {
            tv_sec: found.stat.st_mtime,
            tv_nsec: found.stat.st_mtime_nsec as _,
        };
        rustix::fs::futimens(&directory, &times(modified))?;
    }
    Ok(())
}

struct Unpacker {
    root: OwnedFd,
    overlay: OverlayXattrs,
    privileged: bool,
    /// The parent of the last entry: most entries have the same parent as the one before.
    parent: Option<(PathBuf, OwnedFd)>,
    implied: Vec<PathBuf>,
    /// Directories' times, set last because every file made in a directory changes them.
    times: Vec<(PathBuf, Timespec)>,
    limits: Limits,
    entries: u64,
    size: u64,
    buffer: Vec<u8>,
}

/// What every kind of entry has.
struct Attributes {
    mode: Mode,
    owner: Option<(Uid, Gid)>,
    modified: Timespec,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

impl Unpacker {
    fn entry<R: Read>(&mut self, mut entry: tar::Entry<'_, R>) -> Result<(), UnpackError> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        self.count(1)?;
        let raw = entry.path_bytes().into_owned();
        let path = inside(&raw)?;
        let attributes = self.attributes(&mut entry, &path)?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            // The root itself: its attributes are the whole tree's root's.
            if kind.is_dir() {
                self.root_attributes(&attributes)?;
            }
            return Ok(());
        };
        if name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(&path, name.as_bytes());
        }
        let parent = self.parent_of(&path)?;
        let created = |source: Errno| UnpackError::Create {
            path: path.clone(),
            source: source.into(),
        };
        let as_file = kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse();
        if kind.is_dir() || (as_file && raw.ends_with(b"/")) {
            self.directory(parent, &path, &name, &attributes).map_err(created)
        } else if as_file {
            self.file(parent, &path, &name, &attributes, entry)
        } else if kind.is_symlink() {
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            self.replacing(parent.as_fd(), &name, |parent, name| {
                rustix::fs::symlinkat(OsStr::from_bytes(&target), parent, name)
            })
            .and_then(|()| self.finish_special(parent.as_fd(), &name, &attributes, false))
            .map_err(created)?;
            self.keep_parent(&path, parent);
            Ok(())
        } else if kind.is_hard_link() {
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            let target = inside(&target)?;
            self.hard_link(parent, &path, &name, &target)
        } else if kind.is_character_special() || kind.is_block_special() || kind.is_fifo() {
            let node = if kind.is_fifo() {
                FileType::Fifo
            } else if kind.is_character_special() {
                FileType::CharacterDevice
            } else {
                FileType::BlockDevice
            };
            let number = |number: io::Result<Option<u32>>| number.map(Option::unwrap_or_default);
            let device = if kind.is_fifo() {
                0
            } else {
                rustix::fs::makedev(
                    number(entry.header().device_major()).map_err(UnpackError::Read)?,
                    number(entry.header().device_minor()).map_err(UnpackError::Read)?,
                )
            };
            // Without the right to make devices, an image's device nodes are left out: the runtime brings its own /dev.
            if node != FileType::Fifo && (!self.privileged || user_namespace::is_nested()) {
                return Ok(());
            }
            self.replacing(parent.as_fd(), &name, |parent, name| {
                rustix::fs::mknodat(parent, name, node, attributes.mode, device)
            })
            .and_then(|()| self.finish_special(parent.as_fd(), &name, &attributes, true))
            .map_err(created)?;
            self.keep_parent(&path, parent);
            Ok(())
        } else {
            Err(UnpackError::Kind {
                path,
                kind: char::from(kind.as_byte()),
            })
        }
    }

    fn attributes<R: Read>(&self, entry: &mut tar::Entry<'_, R>, path: &Path) -> Result<Attributes, UnpackError> {
        let header = entry.header();
        // A number that was left blank is nought, as Go reads it; some writers leave the owner so.
        let raw = header.as_old();
        let number = |field: &[u8], value: io::Result<u64>| match field.iter().all(|byte| matches!(byte, 0 | b' ')) {
            true => Ok(0),
            false => value.map_err(UnpackError::Read),
        };
        let mut uid = number(&raw.uid, header.uid())?;
        let mut gid = number(&raw.gid, header.gid())?;
        let mode = header.mode().map_err(UnpackError::Read)?;
        let mut modified = Timespec {
            tv_sec: i64::try_from(number(&raw.mtime, header.mtime())?).unwrap_or(i64::MAX),
            tv_nsec: 0,
        };
        let mut xattrs = Vec::new();
        if let Some(extensions) = entry.pax_extensions().map_err(UnpackError::Read)? {
            for extension in extensions {
                let extension = extension.map_err(UnpackError::Read)?;
                let key = extension.key_bytes();
                let value = extension.value_bytes();
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    // A layer that could write these would decide what overlayfs shows of other layers.
                    if !tree::is_overlay_xattr(name) {
                        xattrs.push((name.to_owned(), value.to_owned()));
                    }
                } else if key.starts_with(b"GNU.sparse.") {
                    return Err(UnpackError::Sparse { path: path.to_owned() });
                } else if let Ok(text) = extension.value() {
                    match key {
                        b"uid" => uid = text.parse().unwrap_or(uid),
                        b"gid" => gid = text.parse().unwrap_or(gid),
                        b"mtime" => modified = pax_time(text).unwrap_or(modified),
                        _ => {}
                    }
                }
            }
        }
        let id = |id: u64| u32::try_from(id).ok().filter(|&id| id != u32::MAX);
        Ok(Attributes {
            mode: Mode::from_raw_mode(mode & 0o7777),
            owner: self
                .privileged
                .then(|| Some((user_namespace::user_for(id(uid)?), user_namespace::group_for(id(gid)?))))
                .flatten(),
            modified,
            xattrs,
        })
    }

    fn root_attributes(&mut self, attributes: &Attributes) -> Result<(), UnpackError> {
        let root = self.root.as_fd();
        self.finish_open(root, attributes)
            .map_err(|source| UnpackError::Create {
                path: PathBuf::from("/"),
                source: source.into(),
            })?;
        self.times.push((PathBuf::new(), attributes.modified));
        Ok(())
    }

    fn directory(&mut self, parent: OwnedFd, path: &Path, name: &OsStr, attributes: &Attributes) -> Result<(), Errno> {
        let mut opaque = false;
        match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
            Err(Errno::EXIST) => {
                let there = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
                    // A whiteout of the same name hides what is below; the new directory must go on hiding it.
                    opaque = tree::is_whiteout(&there);
                    self.remove(parent.as_fd(), name)?;
                    rustix::fs::mkdirat(&parent, name, Mode::RWXU)?;
                }
            }
            other => other?,
        }
        let directory = open_beneath(parent.as_fd(), name)?;
        if opaque {
            self.overlay.set_opaque(directory.as_fd())?;
        }
        self.finish_open(directory.as_fd(), attributes)?;
        // What the tar does describe, be it late, is its own.
        self.implied.retain(|implied| implied != path);
        self.times.push((path.to_owned(), attributes.modified));
        self.keep_parent(path, parent);
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        parent: OwnedFd,
        path: &Path,
        name: &OsStr,
        attributes: &Attributes,
        mut entry: tar::Entry<'_, R>,
    ) -> Result<(), UnpackError> {
        // A sparse entry says how large it is without having to bring the bytes.
        self.size = self.size.saturating_add(entry.size());
        if self.size > self.limits.bytes {
            return Err(UnpackError::TooLarge(self.limits.bytes));
        }
        let created = |source: io::Error| UnpackError::Create {
            path: path.to_owned(),
            source,
        };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut file = None;
        self.replacing(parent.as_fd(), name, |parent, name| {
            file = Some(rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
            Ok(())
        })
        .map_err(|errno| created(errno.into()))?;
        let Some(file) = file else {
            return Err(created(Errno::EXIST.into()));
        };
        let mut file = File::from(file);
        loop {
            let count = entry.read(&mut self.buffer).map_err(UnpackError::Read)?;
            if count == 0 {
                break;
            }
            file.write_all(&self.buffer[..count]).map_err(created)?;
        }
        self.finish_open(file.as_fd(), attributes)
            .and_then(|()| rustix::fs::futimens(&file, &times(attributes.modified)))
            .map_err(|errno| created(errno.into()))?;
        self.keep_parent(path, parent);
        Ok(())
    }

    fn hard_link(&mut self, parent: OwnedFd, path: &Path, name: &OsStr, target: &Path) -> Result<(), UnpackError> {
        let failed = |source: Errno| UnpackError::Link {
            path: path.to_owned(),
            target: target.to_owned(),
            source: source.into(),
        };
        let Some(target_name) = target.file_name() else {
            return Err(UnpackError::Outside {
                path: target.to_owned(),
            });
        };
        if target == path {
            return Ok(());
        }
        let beneath = target.parent().unwrap_or(Path::new(""));
        let target_parent = self.resolve(beneath).map_err(failed)?;
        // Without AT_SYMLINK_FOLLOW a link to a symbolic link is a link to that, never to what it points at.
        self.replacing(parent.as_fd(), name, |parent, name| {
            rustix::fs::linkat(&target_parent, target_name, parent, name, AtFlags::empty())
        })
        .map_err(failed)?;
        self.keep_parent(path, parent);
        Ok(())
    }

    fn whiteout(&mut self, path: &Path, name: &[u8]) -> Result<(), UnpackError> {
        let created = |source: Errno| UnpackError::Create {
            path: path.to_owned(),
            source: source.into(),
        };
        if name == OPAQUE {
            let parent = self.parent_of(path)?;
            let directory = open_beneath(parent.as_fd(), OsStr::new(".")).map_err(created)?;
            self.overlay.set_opaque(directory.as_fd()).map_err(created)?;
            self.keep_parent(path, parent);
            return Ok(());
        }
        if name.starts_with(WHITEOUT_META) {
            // aufs's own bookkeeping; says nothing about the tree.
            return Ok(());
        }
        let hidden = &name[WHITEOUT.len()..];
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(UnpackError::Whiteout { path: path.to_owned() });
        }
        let hidden = OsStr::from_bytes(hidden);
        let parent = self.parent_of(path)?;
        match rustix::fs::mknodat(&parent, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            // A whiteout hides what is below, not what its own layer has: there, only a directory would let it shine through.
            Err(Errno::EXIST) => {
                let there = rustix::fs::statat(&parent, hidden, AtFlags::SYMLINK_NOFOLLOW).map_err(created)?;
                if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
                    let directory = open_beneath(parent.as_fd(), hidden).map_err(created)?;
                    self.overlay.set_opaque(directory.as_fd()).map_err(created)?;
                }
            }
            other => other.map_err(created)?,
        }
        self.keep_parent(path, parent);
        Ok(())
    }

    /// Makes something new under a name, removing what an earlier entry of the layer made there.
    fn replacing(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        mut make: impl FnMut(BorrowedFd<'_>, &OsStr) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        match make(parent, name) {
            Err(Errno::EXIST) => {
                self.remove(parent, name)?;
                make(parent, name)
            }
            other => other,
        }
    }

    fn remove(&mut self, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        // The remembered parent may be what goes.
        self.parent = None;
        tree::remove(parent, name)
    }

    /// Sets owner, attributes and mode, in this order: a change of owner clears capabilities and set-user-id bits.
    fn finish_open(&self, file: BorrowedFd<'_>, attributes: &Attributes) -> Result<(), Errno> {
        if let Some((uid, gid)) = attributes.owner {
            rustix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        for (name, value) in &attributes.xattrs {
            tolerate(rustix::fs::fsetxattr(
                file,
                OsStr::from_bytes(name),
                value,
                XattrFlags::empty(),
            ))?;
        }
        rustix::fs::fchmod(file, attributes.mode)
    }

    /// The same for what cannot be opened: links, devices and pipes.
    fn finish_special(
        &self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        attributes: &Attributes,
        has_mode: bool,
    ) -> Result<(), Errno> {
        if let Some((uid, gid)) = attributes.owner {
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if !attributes.xattrs.is_empty() {
            let path = Path::new("/proc/self/fd")
                .join(parent.as_raw_fd().to_string())
                .join(name);
            for (name, value) in &attributes.xattrs {
                tolerate(rustix::fs::lsetxattr(
                    &path,
                    OsStr::from_bytes(name),
                    value,
                    XattrFlags::empty(),
                ))?;
            }
        }
        if has_mode {
            // Nothing but this thread writes here, and the entry was just made and is no link.
            rustix::fs::chmodat(parent, name, attributes.mode, AtFlags::empty())?;
        }
        rustix::fs::utimensat(parent, name, &times(attributes.modified), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn keep_parent(&mut self, path: &Path, parent: OwnedFd) {
        self.parent = path.parent().map(|path| (path.to_owned(), parent));
    }

    fn parent_of(&mut self, path: &Path) -> Result<OwnedFd, UnpackError> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if let Some((known, _)) = &self.parent
            && known == parent
            && let Some((_, directory)) = self.parent.take()
        {
            return Ok(directory);
        }
        let failed = |source: Errno| UnpackError::Create {
            path: path.to_owned(),
            source: source.into(),
        };
        match self.resolve(parent) {
            Err(Errno::NOENT) => {
                let before = self.implied.len();
                let made = self.make_parents(parent).map_err(failed)?;
                // They are entries that the tar does not even have to list.
                self.count((self.implied.len() - before) as u64)?;
                Ok(made)
            }
            other => other.map_err(failed),
        }
    }

    fn count(&mut self, entries: u64) -> Result<(), UnpackError> {
        self.entries += entries;
        if self.entries > self.limits.entries {
            return Err(UnpackError::TooManyEntries(self.limits.entries));
        }
        Ok(())
    }

    /// Opens a directory of the layer; links in the path lead to where they would inside a container, never further.
    fn resolve(&self, path: &Path) -> Result<OwnedFd, Errno> {
        tree::open_in_root(self.root.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY)
    }

    fn make_parents(&mut self, parent: &Path) -> Result<OwnedFd, Errno> {
        let mut directory = self.resolve(Path::new(""))?;
        let mut done = PathBuf::new();
        for component in parent.components() {
            done.push(component);
            directory = match self.resolve(&done) {
                Err(Errno::NOENT) => {
                    let name = component.as_os_str();
                    rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755))?;
                    let made = open_beneath(directory.as_fd(), name)?;
                    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
                    self.implied.push(done.clone());
                    made
                }
                other => other?,
            };
        }
        Ok(directory)
    }

    /// Gives what the tar does not describe a time that is always the same: two unpackings of a layer are one.
    fn finish_implied(&self) -> Result<(), UnpackError> {
        let root = (!self.times.iter().any(|(path, _)| path.as_os_str().is_empty())).then(PathBuf::new);
        let nothing = Timespec { tv_sec: 0, tv_nsec: 0 };
        for path in self.implied.iter().chain(&root) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let Ok(directory) = tree::open_in_root(self.root.as_fd(), path, flags) else {
                continue;
            };
            rustix::fs::futimens(&directory, &times(nothing)).map_err(|source| UnpackError::Create {
                path: path.clone(),
                source: source.into(),
            })?;
        }
        Ok(())
    }

    fn finish_times(&mut self) -> Result<(), UnpackError> {
        for (path, modified) in &self.times {
            // A later entry may have replaced the directory; then it is nobody's time any more.
            let Ok(directory) = tree::open_in_root(
                self.root.as_fd(),
                path,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW,
            ) else {
                continue;
            };
            rustix::fs::futimens(&directory, &times(*modified)).map_err(|source| UnpackError::Create {
                path: path.clone(),
                source: source.into(),
            })?;
        }
        Ok(())
    }
}

/// Returns the path as one beneath the root: absolute paths begin there, and `..` may not lead above it.
fn inside(raw: &[u8]) -> Result<PathBuf, UnpackError> {
    let mut clean = PathBuf::new();
    let path = Path::new(OsStr::from_bytes(raw));
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir => {
                if !clean.pop() {
                    return Err(UnpackError::Outside { path: path.to_owned() });
                }
            }
            Component::Prefix(_) => return Err(UnpackError::Outside { path: path.to_owned() }),
        }
    }
    if raw.contains(&0) {
        return Err(UnpackError::Outside { path: path.to_owned() });
    }
    Ok(clean)
}

fn pax_time(text: &str) -> Option<Timespec> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let tv_sec: i64 = seconds.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanoseconds: i64 = digits.parse().ok()?;
    Some(if seconds.starts_with('-') && nanoseconds > 0 {
        Timespec {
            tv_sec: tv_sec.checked_sub(1)?,
            tv_nsec: 1_000_000_000 - nanoseconds,
        }
    } else {
        Timespec {
            tv_sec,
            tv_nsec: nanoseconds,
        }
    })
}

fn times(modified: Timespec) -> Timestamps {
    Timestamps {
        last_access: modified,
        last_modification: modified,
    }
}

/// A file system that has no such attribute is no reason to refuse the image.
fn tolerate(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOTSUP | Errno::PERM) => Ok(()),
        other => other,
    }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

fn open_beneath(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
