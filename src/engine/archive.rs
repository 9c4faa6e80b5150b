//! Files in and out of containers as tars, whether they run or not.
//!
//! Every path is resolved below the container's own root by the kernel (`openat2` with `RESOLVE_IN_ROOT`), so that
//! nothing inside a container can lead a copy to a file of the host.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags, Timespec, Timestamps};
use rustix::io::Errno;
use serde::Serialize;
use tokio::sync::OwnedMutexGuard;

use super::container::Container;
use super::ids::Ids;
use super::{Engine, EngineError, Result, lifecycle};
use crate::os::user_namespace;
use crate::runtime::{Root, RootHandle};

/// What the header `X-Docker-Container-Path-Stat` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathStat {
    pub name: String,
    pub size: i64,
    /// As Go writes modes: the kind of file in the high bits.
    pub mode: u32,
    pub mtime: String,
    #[serde(rename = "linkTarget")]
    pub link_target: String,
}

/// One difference between a container and its image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Change {
    pub path: String,
    /// 0: changed, 1: added, 2: deleted.
    pub kind: u8,
}

/// A container's files, open.
pub struct Files {
    root: RootHandle,
    /// While it does not run, nobody else mounts its layers and nobody starts it: overlayfs tidies up at each mount
    /// what it takes for another's remains.
    _alone: Option<OwnedMutexGuard<()>>,
}

impl std::ops::Deref for Files {
    type Target = RootHandle;

    fn deref(&self) -> &RootHandle {
        &self.root
    }
}

impl Engine {
    /// Opens a container's files as its processes see them, or would. Not for who holds its operation lock.
    pub async fn open_files(&self, container: &Arc<Container>) -> Result<Files> {
        if let Some(root) = live_root(container).await? {
            return Ok(Files { root, _alone: None });
        }
        let alone = Arc::clone(&container.operation).lock_owned().await;
        // It may have been started meanwhile.
        if let Some(root) = live_root(container).await? {
            return Ok(Files { root, _alone: None });
        }
        Ok(Files {
            root: self.mounted_root(container).await?,
            _alone: Some(alone),
        })
    }

    /// Mounts the root of a container that does not run.
    async fn mounted_root(&self, container: &Arc<Container>) -> Result<RootHandle> {
        // As when it starts: a file may be meant for a directory that is yet to be made.
        self.check_mounts(container)?;
        let record = container.record().clone();
        let image = self.image_of(&record)?;
        let root = Root::Overlay {
            lower: self.layers(&image),
            upper: container.dir.join("upper"),
            work: container.dir.join("work"),
        };
        let mut mounts = Vec::new();
        for mount in record
            .mounts
            .iter()
            .filter(|mount| matches!(mount.kind.as_str(), "bind" | "volume"))
        {
            if let Ok(value) = self.mount_of(mount)
                && let Ok(mount) = serde_json::from_value(value)
            {
                mounts.push(mount);
            }
        }
        self.runtime
            .open_root(&container.dir, &root, mounts)
            .await
            .map_err(lifecycle::runtime_failure("cannot open the files of the container"))
    }

    /// Returns what a path in a container is, which an error calls `asked`.
    pub async fn stat_path(&self, container: &Arc<Container>, asked: &str, path: &str) -> Result<PathStat> {
        let root = self.open_files(container).await?;
        let name = asked.to_owned();
        let path = path.to_owned();
        self.blocking(move || stat(root.directory(), Path::new(&path)).map_err(|cause| missing(&name, &path, cause)))
            .await?
    }

    /// Puts a tar's files into a directory of a container.
    pub async fn extract<R: Read + Send + 'static>(
        &self,
        container: &Arc<Container>,
        asked: &str,
        path: &str,
        tar: R,
        keep_kinds: bool,
    ) -> Result<()> {
        let read_only = {
            let record = container.record();
            let inside = super::mounts::clean(path);
            let in_mount = record
                .mounts
                .iter()
                .filter(|mount| Path::new(&inside).starts_with(&mount.destination))
                .max_by_key(|mount| mount.destination.len());
            match in_mount {
                Some(mount) if !mount.writable => Some("mounted volume is marked read-only"),
                None if record.host.readonly_rootfs => Some("container rootfs is marked read-only"),
                _ => None,
            }
        };
        if let Some(text) = read_only {
            return Err(EngineError::Forbidden(text.to_owned()));
        }
        let root = self.open_files(container).await?;
        let name = asked.to_owned();
        let path = path.to_owned();
        self.blocking(move || {
            let target =
                open_in(root.directory(), Path::new(&path), OFlags::RDONLY | OFlags::DIRECTORY).map_err(|cause| {
                    if cause == Errno::NOTDIR {
                        EngineError::InvalidParameter("extraction point is not a directory".to_owned())
                    } else {
                        missing(&name, &path, cause.into())
                    }
                })?;
            root.as_its_root(|| unpack(&target, tar, keep_kinds))
                .map_err(EngineError::file("cannot write to", Path::new(&path)))
        })
        .await??;
        self.container_event(container, "extract-to-dir", &[]);
        Ok(())
    }

    /// Returns what the container has changed of its image's files.
    pub async fn changes(&self, container: &Arc<Container>) -> Result<Option<Vec<Change>>> {
        let record = container.record().clone();
        let image = self.image_of(&record)?;
        let layers = self.layers(&image);
        let upper = container.dir.join("upper");
        let changes = self
            .blocking(move || changed(&upper, &layers))
            .await?
            .map_err(EngineError::file("cannot compare", &container.dir))?;
        Ok((!changes.is_empty()).then_some(changes))
    }
}

/// Opens the root of a container that runs.
async fn live_root(container: &Arc<Container>) -> Result<Option<RootHandle>> {
    // Between the end of its process and the word of its shim a container has no root to be entered by: its layers
    // are free once the shim has spoken.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while let Some(live) = container.live() {
        match live.root() {
            Ok(root) => return Ok(Some(root.shifted(container.record().ids.map(Ids::shift)))),
            Err(_) if std::time::Instant::now() < deadline => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            Err(cause) => {
                return Err(lifecycle::runtime_failure("cannot open the files of the container")(
                    cause,
                ));
            }
        }
    }
    Ok(None)
}

fn missing(name: &str, path: &str, cause: io::Error) -> EngineError {
    match cause.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            EngineError::NotFound(format!("Could not find the file {path} in container {name}"))
        }
        _ => EngineError::file("cannot open", Path::new(path))(cause),
    }
}

/// Opens a path below a root; links are followed there and lead nowhere else.
pub(super) fn open_in(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let relative = relative(path);
    loop {
        let opened = rustix::fs::openat2(
            root,
            &relative,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        );
        match opened {
            // The kernel saw a rename above us and cannot tell whether it still is inside.
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

fn relative(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir => {
                // `..` after a link means the link's target's parent: left to the kernel.
                clean.push("..");
            }
            _ => {}
        }
    }
    if clean.as_os_str().is_empty() {
        clean.push(".");
    }
    clean
}

/// Splits off the last name unless the path names a directory's inside (`/x/`, `/x/.`).
fn parent_and_name(path: &Path) -> (PathBuf, Option<std::ffi::OsString>) {
    let bytes = path.as_os_str().as_bytes();
    let inside = bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes == b".";
    match path.components().next_back() {
        Some(Component::Normal(name)) if !inside => (
            path.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf),
            Some(name.to_owned()),
        ),
        _ => (path.to_path_buf(), None),
    }
}

/// Returns what a path is; a link at its end is described itself.
pub fn stat(root: BorrowedFd<'_>, path: &Path) -> io::Result<PathStat> {
    let (parent, name) = parent_and_name(path);
    let parent = open_in(root, &parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let (stat, target) = match &name {
        Some(name) => {
            let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let target = if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                let target = rustix::fs::readlinkat(&parent, name, Vec::new())?;
                absolute_target(path, Path::new(OsStr::from_bytes(target.as_bytes())))
            } else {
                String::new()
            };
            (stat, target)
        }
        None => (rustix::fs::fstat(&parent)?, String::new()),
    };
    let shown = name
        .or_else(|| path.file_name().map(OsStr::to_owned))
        .map_or_else(|| "/".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(PathStat {
        name: shown,
        size: stat.st_size,
        mode: go_mode(stat.st_mode),
        mtime: jiff::Timestamp::new(stat.st_mtime, i32::try_from(stat.st_mtime_nsec).unwrap_or_default())
            .map(super::time::rfc3339)
            .unwrap_or_default(),
        link_target: target,
    })
}

/// moby resolves the target against the link's directory, in the container.
fn absolute_target(link: &Path, target: &Path) -> String {
    let base = link.parent().unwrap_or(Path::new("/"));
    super::mounts::clean(&base.join(target).to_string_lossy())
}

fn go_mode(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)]
        .into_iter()
        .filter(|(bit, _)| mode & bit != 0)
        .fold(0, |sum, (_, go)| sum | go);
    mode & 0o777 | kind | special
}

/// Writes a file or directory of a container as a tar whose names begin with its own.
pub fn pack<W: Write>(root: BorrowedFd<'_>, path: &Path, out: W) -> io::Result<()> {
    let mut builder = tar::Builder::new(out);
    let (parent, name) = parent_and_name(path);
    let directory = open_in(root, &parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
    match name {
        Some(name) => pack_entry(&mut builder, directory.as_fd(), &name, Path::new(&name), None)?,
        None => {
            let bytes = path.as_os_str().as_bytes();
            let shown = if bytes.ends_with(b".") || path.file_name().is_none() {
                PathBuf::from(".")
            } else {
                PathBuf::from(path.file_name().unwrap_or(OsStr::new(".")))
            };
            append(&mut builder, &shown, &rustix::fs::fstat(&directory)?, None, io::empty())?;
            pack_children(&mut builder, &directory, &shown, None)?;
        }
    }
    builder.finish()
}

/// Writes all of a container's files.
pub fn export<W: Write>(root: BorrowedFd<'_>, out: W) -> io::Result<()> {
    let mut builder = tar::Builder::new(out);
    let directory = open_in(root, Path::new("/"), OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mount = mount_of(directory.as_fd(), OsStr::new("."))?;
    pack_children(&mut builder, &directory, Path::new(""), Some(mount))?;
    builder.finish()
}

/// Returns which mount a file is on.
fn mount_of(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<u64> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    Ok(rustix::fs::statx(parent, name, flags, StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// Packs what is in a directory; with `only`, not what is on another mount than that one.
fn pack_children<W: Write>(
    builder: &mut tar::Builder<W>,
    directory: &OwnedFd,
    shown: &Path,
    only: Option<u64>,
) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    names.sort();
    for name in names {
        match pack_entry(builder, directory.as_fd(), &name, &shown.join(&name), only) {
            // Gone while we were on our way.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

fn pack_entry<W: Write>(
    builder: &mut tar::Builder<W>,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    shown: &Path,
    only: Option<u64>,
) -> io::Result<()> {
    let mut stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let elsewhere = only.is_some_and(|only| mount_of(parent, name).is_ok_and(|mount| mount != only));
    if elsewhere {
        // The place something is mounted on, without what is mounted there.
        return match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => append(builder, shown, &stat, None, io::empty()),
            FileType::RegularFile => {
                stat.st_size = 0;
                append(builder, shown, &stat, None, io::empty())
            }
            _ => Ok(()),
        };
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let directory = rustix::fs::openat(parent, name, flags | OFlags::DIRECTORY, Mode::empty())?;
            append(builder, shown, &stat, None, io::empty())?;
            pack_children(builder, &directory, shown, only)
        }
        FileType::RegularFile => {
            let file = File::from(rustix::fs::openat(
                parent,
                name,
                flags | OFlags::NONBLOCK,
                Mode::empty(),
            )?);
            let stat = rustix::fs::fstat(&file)?;
            let size = u64::try_from(stat.st_size).unwrap_or_default();
            // A file that shrinks under our hands must not shift everything after it.
            append(
                builder,
                shown,
                &stat,
                None,
                file.take(size).chain(io::repeat(0)).take(size),
            )
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
            let target = PathBuf::from(OsStr::from_bytes(target.as_bytes()));
            append(builder, shown, &stat, Some(&target), io::empty())
        }
        // Docker leaves sockets out as well.
        FileType::Socket | FileType::Unknown => Ok(()),
        _ => append(builder, shown, &stat, None, io::empty()),
    }
}

fn append<W: Write>(
    builder: &mut tar::Builder<W>,
    shown: &Path,
    stat: &Stat,
    target: Option<&Path>,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(u64::from(user_namespace::shown_user(stat.st_uid)));
    header.set_gid(u64::from(user_namespace::shown_group(stat.st_gid)));
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or_default());
    header.set_size(0);
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => tar::EntryType::Directory,
        FileType::Symlink => tar::EntryType::Symlink,
        FileType::Fifo => tar::EntryType::Fifo,
        FileType::CharacterDevice => tar::EntryType::Char,
        FileType::BlockDevice => tar::EntryType::Block,
        _ => {
            header.set_size(u64::try_from(stat.st_size).unwrap_or_default());
            tar::EntryType::Regular
        }
    };
    header.set_entry_type(kind);
    if matches!(kind, tar::EntryType::Char | tar::EntryType::Block) {
        header.set_device_major(rustix::fs::major(stat.st_rdev))?;
        header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
    }
    match target {
        Some(target) => builder.append_link(&mut header, shown, target),
        None => builder.append_data(&mut header, shown, content),
    }
}

/// Unpacks the context of a build into a directory of ours.
pub fn unpack_context<R: Read + 'static>(directory: &Path, tar: R) -> io::Result<()> {
    let target = rustix::fs::open(
        directory,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    unpack(&target, tar, false)
}

/// Unpacks a tar below an open directory, and follows no link on the way.
/// Returns a number of a header. One that was left blank is nought, as Go reads it; some writers leave the owner so.
fn number(field: &[u8], value: io::Result<u64>) -> io::Result<u64> {
    match field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        true => Ok(0),
        false => value,
    }
}

fn unpack<R: Read + 'static>(target: &OwnedFd, tar: R, keep_kinds: bool) -> io::Result<()> {
    let mut archive = tar::Archive::new(decompressed(tar)?);
    unpack_entries(target, &mut archive, keep_kinds)?;
    // The padding after the end: a client that still sends it must not find the connection closed.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}

fn unpack_entries<R: Read>(target: &OwnedFd, archive: &mut tar::Archive<R>, keep_kinds: bool) -> io::Result<()> {
    let mut directories: Vec<(PathBuf, i64)> = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = inside(&entry.path()?)?;
        let header = entry.header().clone();
        let kind = header.entry_type();
        if matches!(
            kind,
            tar::EntryType::XGlobalHeader | tar::EntryType::XHeader | tar::EntryType::GNULongName
        ) {
            continue;
        }
        let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
        let modified = i64::try_from(number(&header.as_old().mtime, header.mtime())?).unwrap_or_default();
        if path.as_os_str().is_empty() {
            // The directory itself, which exists and keeps its owner.
            continue;
        }
        let parent = make_parents(target, path.parent().unwrap_or(Path::new("")))?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let existing = rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW)
            .ok()
            .map(|stat| FileType::from_raw_mode(stat.st_mode));
        let is_directory = kind == tar::EntryType::Directory;
        match existing {
            Some(FileType::Directory) if is_directory => {}
            Some(found) => {
                if keep_kinds && (found == FileType::Directory) != is_directory {
                    let what = if is_directory {
                        "cannot overwrite non-directory with directory"
                    } else {
                        "cannot overwrite directory with non-directory"
                    };
                    return Err(io::Error::other(format!("{what}: {}", path.display())));
                }
                remove_all(&parent, &name, found)?;
            }
            None => {}
        }
        match kind {
            tar::EntryType::Directory => {
                match rustix::fs::mkdirat(&parent, &name, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(cause) => return Err(cause.into()),
                }
                directories.push((path.clone(), modified));
            }
            tar::EntryType::Symlink => {
                let link = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
                rustix::fs::symlinkat(&*link, &parent, &name)?;
            }
            tar::EntryType::Link => {
                let link = inside(&entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?)?;
                let from = make_parents(target, link.parent().unwrap_or(Path::new("")))?;
                let old = link.file_name().ok_or(io::ErrorKind::InvalidData)?;
                rustix::fs::linkat(&from, old, &parent, &name, AtFlags::empty())?;
                continue;
            }
            tar::EntryType::Fifo => rustix::fs::mknodat(&parent, &name, FileType::Fifo, mode, 0)?,
            // Nobody makes device nodes in a user namespace; a container there has those of its /dev.
            tar::EntryType::Char | tar::EntryType::Block if user_namespace::is_nested() => continue,
            tar::EntryType::Char | tar::EntryType::Block => {
                let device = rustix::fs::makedev(
                    header.device_major()?.unwrap_or_default(),
                    header.device_minor()?.unwrap_or_default(),
                );
                let file = if kind == tar::EntryType::Char {
                    FileType::CharacterDevice
                } else {
                    FileType::BlockDevice
                };
                rustix::fs::mknodat(&parent, &name, file, mode, device)?;
            }
            _ => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(rustix::fs::openat(&parent, &name, flags, Mode::RUSR | Mode::WUSR)?);
                io::copy(&mut entry, &mut file)?;
            }
        }
        let owner =
            user_namespace::user_for(u32::try_from(number(&header.as_old().uid, header.uid())?).unwrap_or_default());
        let group =
            user_namespace::group_for(u32::try_from(number(&header.as_old().gid, header.gid())?).unwrap_or_default());
        rustix::fs::chownat(&parent, &name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != tar::EntryType::Symlink {
            rustix::fs::chmodat(&parent, &name, mode, AtFlags::empty())?;
        }
        rustix::fs::utimensat(&parent, &name, &times(modified), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    // What was written into them changed their times.
    for (path, modified) in directories.into_iter().rev() {
        let parent = make_parents(target, path.parent().unwrap_or(Path::new("")))?;
        if let Some(name) = path.file_name() {
            rustix::fs::utimensat(&parent, name, &times(modified), AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(())
}

/// Takes off the compression that Docker allows an upload to have.
fn decompressed<R: Read + 'static>(mut from: R) -> io::Result<Box<dyn Read>> {
    let mut start = [0u8; 4];
    let mut length = 0;
    while length < start.len() {
        match from.read(&mut start[length..])? {
            0 => break,
            read => length += read,
        }
    }
    let head = io::Cursor::new(start[..length].to_vec());
    let all = head.chain(from);
    Ok(match &start[..length] {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(all)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::stream::read::Decoder::new(all)?),
        _ => Box::new(all),
    })
}

fn times(modified: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: modified,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Returns an entry's path below the target, and refuses one that leads out of it.
fn inside(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir | Component::RootDir => {}
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("the archive has an entry outside of it: {}", path.display()),
                ));
            }
        }
    }
    Ok(clean)
}

/// Opens the directory of an entry, made where it is missing. A link on the way is not followed out of the target.
fn make_parents(target: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    match open_in(target.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => {}
        other => return other.map_err(io::Error::from),
    }
    let parent = make_parents(target, path.parent().unwrap_or(Path::new("")))?;
    if let Some(name) = path.file_name() {
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(cause) => return Err(cause.into()),
        }
    }
    Ok(open_in(target.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY)?)
}

fn remove_all(parent: &OwnedFd, name: &OsStr, kind: FileType) -> io::Result<()> {
    if kind != FileType::Directory {
        return Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?);
    }
    let directory = rustix::fs::openat(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    for entry in rustix::fs::Dir::read_from(&directory)? {
        let entry = entry?;
        let child = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
        if child != "." && child != ".." {
            let stat = rustix::fs::statat(&directory, &child, AtFlags::SYMLINK_NOFOLLOW)?;
            remove_all(&directory, &child, FileType::from_raw_mode(stat.st_mode))?;
        }
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Compares a writable layer with what lies below it.
fn changed(upper: &Path, layers: &[PathBuf]) -> io::Result<Vec<Change>> {
    let view = crate::image::View::open(layers)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(upper, flags, Mode::empty())?;
    let mut changes = Vec::new();
    let mut waiting = vec![PathBuf::from("/")];
    while let Some(directory) = waiting.pop() {
        // The container may run: what was a directory a moment ago may be a link by now, or gone.
        let real = match open_in(root.as_fd(), &directory, flags | OFlags::NOFOLLOW) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            opened => opened?,
        };
        for entry in rustix::fs::Dir::read_from(&real)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let stat = match rustix::fs::statat(&real, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                found => found?,
            };
            let path = directory.join(name);
            let found = FileType::from_raw_mode(stat.st_mode);
            let is_whiteout = found == FileType::CharacterDevice && stat.st_rdev == 0;
            let below = view.find_link(&path)?;
            let kind = match (is_whiteout, below.is_some()) {
                (true, _) => 2,
                (false, true) => 0,
                (false, false) => 1,
            };
            changes.push(Change {
                path: path.to_string_lossy().into_owned(),
                kind,
            });
            if found == FileType::Directory {
                waiting.push(path);
            }
        }
    }
    changes.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::exchange;

    fn root(directory: &Path) -> OwnedFd {
        rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    #[test]
    fn what_changed_is_looked_for_in_the_container_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (upper, outside) = (directory.path().join("upper"), directory.path().join("outside"));
        std::fs::create_dir_all(upper.join("inner/deep")).unwrap();
        std::fs::create_dir_all(outside.join("deep")).unwrap();
        std::fs::write(upper.join("inner/deep/own"), "").unwrap();
        std::fs::write(outside.join("canary"), "").unwrap();
        std::fs::write(outside.join("deep/canary"), "").unwrap();
        std::os::unix::fs::symlink(&outside, upper.join("link")).unwrap();
        let looks: Vec<_> = exchange::meanwhile(&upper.join("inner"), &upper.join("link"), || {
            (0..3000).map(|_| changed(&upper, &[])).collect()
        });
        let mut seen = 0;
        for changes in looks {
            let changes = changes.unwrap();
            let led_out = changes.iter().find(|change| change.path.contains("canary"));
            assert_eq!(led_out, None);
            seen += usize::from(changes.iter().any(|change| change.path.ends_with("/deep/own")));
        }
        assert!(seen > 0);
    }

    #[test]
    fn what_is_packed_unpacks_the_same_and_stays_inside() {
        let directory = tempfile::tempdir().unwrap();
        let from = directory.path().join("from");
        std::fs::create_dir_all(from.join("data/deep")).unwrap();
        std::fs::write(from.join("data/deep/file"), "text").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", from.join("data/link")).unwrap();
        let mut tar = Vec::new();
        pack(root(&from).as_fd(), Path::new("/data"), &mut tar).unwrap();

        let to = directory.path().join("to");
        std::fs::create_dir(&to).unwrap();
        unpack(&root(&to), io::Cursor::new(tar.clone()), false).unwrap();
        assert_eq!(std::fs::read_to_string(to.join("data/deep/file")).unwrap(), "text");
        assert_eq!(
            std::fs::read_link(to.join("data/link")).unwrap(),
            Path::new("/etc/passwd")
        );
        unpack(&root(&to), io::Cursor::new(tar), false).unwrap();
    }

    #[test]
    fn a_link_in_the_way_leads_nowhere_outside() {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        let to = directory.path().join("to");
        std::fs::create_dir(&outside).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::os::unix::fs::symlink(&outside, to.join("trap")).unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        builder.append_data(&mut header, "trap/file", &b"x"[..]).unwrap();
        let tar = builder.into_inner().unwrap();
        let _ = unpack(&root(&to), io::Cursor::new(tar), false);
        assert!(!outside.join("file").exists());
        assert!(inside(Path::new("../x")).is_err());
    }

    #[test]
    fn links_are_described_themselves() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("d")).unwrap();
        std::os::unix::fs::symlink("d", directory.path().join("l")).unwrap();
        let root = root(directory.path());
        let link = stat(root.as_fd(), Path::new("/l")).unwrap();
        assert_eq!((link.name.as_str(), link.link_target.as_str()), ("l", "/d"));
        assert_eq!(link.mode >> 27 & 1, 1);
        let through = stat(root.as_fd(), Path::new("/l/")).unwrap();
        assert_eq!(through.mode >> 31, 1);
    }
}
