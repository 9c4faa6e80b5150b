//! Files copied into a new layer: what overlayfs would have in its upper directory had they been copied in a container.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::error::Problem;
use super::mode::Change;
use super::source::Source;
use crate::image::{Found, View};
use crate::os::user_namespace;

/// A layer being filled, over the layers below it.
pub(super) struct Target<'t> {
    upper: OwnedFd,
    below: &'t View,
    pub owner: Option<(u32, u32)>,
    pub mode: Option<Change>,
    /// The time of directories that no source has.
    pub made: i64,
    /// Where patterns that leave files out begin.
    pub base: PathBuf,
    links: HashMap<(u64, u64), PathBuf>,
    /// The directory that was written to last: many files go where the one before them went.
    last: Option<Rc<Parent>>,
}

/// A directory that files are copied into.
struct Parent {
    path: PathBuf,
    here: OwnedFd,
    /// What the layers below have in its place.
    below: Option<Found>,
}

impl<'t> Target<'t> {
    pub fn new(upper: &Path, below: &'t View) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            upper: rustix::fs::open(upper, flags, Mode::empty())?,
            below,
            owner: None,
            mode: None,
            made: 0,
            base: PathBuf::from("/"),
            links: HashMap::new(),
            last: None,
        })
    }

    /// Returns whether a path, its links followed, is a directory below or in this layer.
    pub fn is_directory(&self, path: &Path) -> Result<bool, Problem> {
        let resolved = self.below.resolve(path).map_err(writing(path))?;
        if let Ok(found) = rustix::fs::statat(&self.upper, inner(&resolved), AtFlags::SYMLINK_NOFOLLOW) {
            return Ok(FileType::from_raw_mode(found.st_mode) == FileType::Directory);
        }
        let found = self.below.find_link(&resolved).map_err(writing(path))?;
        Ok(found.is_some_and(|found| found.is_directory()))
    }

    /// Makes a directory and those it lies in; returns whether any had to be made.
    pub fn make_directories(&mut self, path: &Path) -> Result<bool, Problem> {
        let resolved = self.below.resolve(path).map_err(writing(path))?;
        self.directories(&resolved).map(|(_, made)| made)
    }

    /// Makes a directory on the way to a file, like the one it stands for.
    pub fn parent(&mut self, source: &Source, found: &Found, destination: &Path) -> Result<(), Problem> {
        let destination = self.below.resolve(destination).map_err(writing(destination))?;
        if self.is_directory(&destination)? {
            return Ok(());
        }
        let (directory, _) = self.directories(&destination)?;
        self.describe(source, found, directory.as_fd())
            .and_then(|()| set_time(directory.as_fd(), &found.stat))
            .map_err(|errno| writing(&destination)(errno.into()))
    }

    /// Returns where a path leads.
    pub fn resolve(&self, path: &Path) -> Result<PathBuf, Problem> {
        self.below.resolve(path).map_err(writing(path))
    }

    /// Copies a file, or what a directory holds, to a path. A file of that name is replaced, be it a link.
    pub fn copy(&mut self, source: &Source, found: &Found, destination: &Path) -> Result<(), Problem> {
        if found.is_directory() {
            let destination = self.resolve(destination)?;
            // It is not the directory that is copied: a new one is like any other new one.
            self.directories(&destination)?;
            return self.contents(source, found, &destination);
        }
        let parent = self.resolve(destination.parent().unwrap_or(Path::new("/")))?;
        let destination = parent.join(destination.file_name().unwrap_or_default());
        self.entry(source, found, &destination)
    }

    /// Writes a file of its own.
    pub fn write(&mut self, destination: &Path, data: &[u8], mode: u32) -> Result<(), Problem> {
        let parent = self.resolve(destination.parent().unwrap_or(Path::new("/")))?;
        let path = parent.join(destination.file_name().unwrap_or_default());
        let (directory, _) = self.directories(path.parent().unwrap_or(Path::new("/")))?;
        if self.is_directory(&path)? {
            return Err(Problem::OverDirectory(path));
        }
        let attempt = || -> io::Result<()> {
            let mut file = create(directory.as_fd(), path.file_name().unwrap_or_default())?;
            file.write_all(data)?;
            self.own(file.as_fd(), 0, 0)?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(self.mode_of(mode, false)))?;
            Ok(rustix::fs::futimens(&file, &times(self.made, 0))?)
        };
        attempt().map_err(writing(&path))
    }

    fn contents(&mut self, source: &Source, directory: &Found, destination: &Path) -> Result<(), Problem> {
        let children = source
            .children(directory, &self.base)
            .map_err(reading(&directory.path))?;
        for child in children {
            let name = child.path.file_name().unwrap_or_default().to_owned();
            self.entry(source, &child, &destination.join(name))?;
        }
        Ok(())
    }

    fn entry(&mut self, source: &Source, found: &Found, path: &Path) -> Result<(), Problem> {
        let name = path.file_name().unwrap_or_default();
        let parent = self.parent_of(path)?;
        let directory = parent.here.as_fd();
        if found.is_directory() {
            let (made, _) = self.directories(path)?;
            self.describe(source, found, made.as_fd())
                .map_err(|errno| writing(path)(errno.into()))?;
            self.contents(source, found, path)?;
            return set_time(made.as_fd(), &found.stat).map_err(|errno| writing(path)(errno.into()));
        }
        if self.is_directory_in(&parent, path)? {
            return Err(Problem::OverDirectory(path.to_owned()));
        }
        let link = (found.stat.st_dev, found.stat.st_ino);
        if found.stat.st_nlink > 1
            && found.kind() == FileType::RegularFile
            && let Some(first) = self.links.get(&link)
        {
            // Another source may have brought the same file to the same place.
            if first == path {
                return Ok(());
            }
            let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
            return rustix::fs::linkat(&self.upper, inner(first), directory, name, AtFlags::empty())
                .map_err(|errno| writing(path)(errno.into()));
        }
        match found.kind() {
            FileType::RegularFile => {
                let mut from = found.open().map_err(reading(&found.path))?;
                let mut attempt = || -> io::Result<()> {
                    let mut file = create(directory, name)?;
                    // The kernel copies, and shares blocks where the file system can.
                    io::copy(&mut from, &mut file)?;
                    self.describe(source, found, file.as_fd())?;
                    Ok(set_time(file.as_fd(), &found.stat)?)
                };
                attempt().map_err(writing(path))?;
                if found.stat.st_nlink > 1 {
                    self.links.insert(link, path.to_owned());
                }
            }
            FileType::Symlink => {
                let target = found.read_link().map_err(reading(&found.path))?;
                let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
                rustix::fs::symlinkat(&target, directory, name)
                    .and_then(|()| self.own_named(source, found, directory, name))
                    .map_err(|errno| writing(path)(errno.into()))?;
            }
            FileType::CharacterDevice | FileType::BlockDevice if user_namespace::is_nested() => {}
            FileType::Socket => return Err(Problem::Socket(found.path.clone())),
            kind => {
                let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
                let mode = Mode::from_raw_mode(found.stat.st_mode & 0o7777);
                rustix::fs::mknodat(directory, name, kind, mode, found.stat.st_rdev)
                    .and_then(|()| self.own_named(source, found, directory, name))
                    .map_err(|errno| writing(path)(errno.into()))?;
            }
        }
        Ok(())
    }

    /// Returns the directory that a path lies in.
    fn parent_of(&mut self, path: &Path) -> Result<Rc<Parent>, Problem> {
        let path = path.parent().unwrap_or(Path::new("/"));
        if let Some(last) = self.last.as_ref().filter(|last| last.path == path) {
            return Ok(Rc::clone(last));
        }
        let (here, _) = self.directories(path)?;
        let parent = Rc::new(Parent {
            path: path.to_owned(),
            here,
            below: self.below.find_link(path).map_err(writing(path))?,
        });
        self.last = Some(Rc::clone(&parent));
        Ok(parent)
    }

    /// Returns what [`Self::is_directory`] does of a path in a directory. What is new has nothing below that leads elsewhere.
    fn is_directory_in(&self, parent: &Parent, path: &Path) -> Result<bool, Problem> {
        let name = path.file_name().unwrap_or_default();
        let is_new = match &parent.below {
            None => true,
            Some(below) if below.is_directory() => self.below.child(below, name).map_err(writing(path))?.is_none(),
            Some(_) => false,
        };
        if !is_new {
            return self.is_directory(path);
        }
        let found = rustix::fs::statat(&parent.here, name, AtFlags::SYMLINK_NOFOLLOW);
        Ok(found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory))
    }

    /// Opens a directory of this layer, made like the one it stands for below, or new.
    fn directories(&mut self, path: &Path) -> Result<(OwnedFd, bool), Problem> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut here =
            rustix::fs::openat(&self.upper, ".", flags, Mode::empty()).map_err(|errno| writing(path)(errno.into()))?;
        let mut walked = PathBuf::from("/");
        let mut any = false;
        for part in inner(path).components() {
            walked.push(part);
            let name = part.as_os_str();
            if name == "." {
                continue;
            }
            here = match rustix::fs::openat(&here, name, flags, Mode::empty()) {
                Ok(known) => known,
                Err(Errno::NOENT) => {
                    let below = self.below.find_link(&walked).map_err(writing(&walked))?;
                    if below.as_ref().is_some_and(|below| !below.is_directory()) {
                        return Err(Problem::NotADirectory(walked));
                    }
                    let attempt = || -> Result<OwnedFd, Errno> {
                        rustix::fs::mkdirat(&here, name, Mode::RWXU)?;
                        let made = rustix::fs::openat(&here, name, flags, Mode::empty())?;
                        self.like(below.as_ref(), made.as_fd())?;
                        Ok(made)
                    };
                    any |= below.is_none();
                    attempt().map_err(|errno| writing(&walked)(errno.into()))?
                }
                Err(Errno::NOTDIR | Errno::LOOP) => return Err(Problem::NotADirectory(walked)),
                Err(errno) => return Err(writing(&walked)(errno.into())),
            };
        }
        Ok((here, any))
    }

    /// Copies a directory up: the same in this layer as below. A new one is everybody's to enter.
    fn like(&self, below: Option<&Found>, made: BorrowedFd<'_>) -> Result<(), Errno> {
        let Some(below) = below else {
            self.own(made, 0, 0)?;
            // buildkit: a mode that is to be takes the place of this one, too; one that only changes does not.
            let mode = match self.mode {
                Some(Change::To(mode)) => mode,
                _ => 0o755,
            };
            rustix::fs::fchmod(made, Mode::from_raw_mode(mode))?;
            return rustix::fs::futimens(made, &times(self.made, 0));
        };
        chown(made, below.stat.st_uid, below.stat.st_gid)?;
        set_xattrs(made, below)?;
        rustix::fs::fchmod(made, Mode::from_raw_mode(below.stat.st_mode & 0o7777))?;
        set_time(made, &below.stat)
    }

    fn describe(&self, source: &Source, found: &Found, file: BorrowedFd<'_>) -> Result<(), Errno> {
        let (uid, gid) = source_owner(source, found);
        self.own(file, uid, gid)?;
        // A context has no more of them than it has owners.
        if !source.is_context {
            set_xattrs(file, found)?;
        }
        let mode = self.mode_of(found.stat.st_mode & 0o7777, found.is_directory());
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode))
    }

    fn mode_of(&self, mode: u32, is_directory: bool) -> u32 {
        self.mode
            .as_ref()
            .map_or(mode, |change| change.apply(mode, is_directory))
    }

    fn own(&self, file: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<(), Errno> {
        let (uid, gid) = self.owner.unwrap_or((uid, gid));
        chown(file, uid, gid)
    }

    fn own_named(&self, source: &Source, found: &Found, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        let (uid, gid) = self.owner.unwrap_or_else(|| source_owner(source, found));
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = (user_namespace::user_for(uid), user_namespace::group_for(gid));
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        let time = times(found.stat.st_mtime, found.stat.st_mtime_nsec);
        rustix::fs::utimensat(parent, name, &time, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// Returns the path as one beneath the layer's directory.
fn inner(path: &Path) -> &Path {
    let inner = path.strip_prefix("/").unwrap_or(path);
    if inner.as_os_str().is_empty() {
        Path::new(".")
    } else {
        inner
    }
}

fn source_owner(source: &Source, found: &Found) -> (u32, u32) {
    if source.is_context {
        (0, 0)
    } else {
        (found.stat.st_uid, found.stat.st_gid)
    }
}

fn chown(file: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<(), Errno> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    rustix::fs::fchown(
        file,
        Some(user_namespace::user_for(uid)),
        Some(user_namespace::group_for(gid)),
    )
}

fn create(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let opened = match rustix::fs::openat(directory, name, flags, mode) {
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
            rustix::fs::openat(directory, name, flags, mode)
        }
        other => other,
    };
    Ok(File::from(opened?))
}

/// The one extended attribute that Docker's layers have (moby `pkg/archive`): what a program may do that its user may not.
pub(super) const CAPABILITY: &[u8] = b"security.capability";

fn set_xattrs(file: BorrowedFd<'_>, found: &Found) -> Result<(), Errno> {
    let Ok(attributes) = found.xattrs() else { return Ok(()) };
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    for (name, value) in attributes.into_iter().filter(|(name, _)| name == CAPABILITY) {
        match rustix::fs::setxattr(&path, OsStr::from_bytes(&name), &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn times(seconds: i64, nanoseconds: u64) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds as _,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn set_time(file: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
    rustix::fs::futimens(file, &times(stat.st_mtime, stat.st_mtime_nsec))
}

fn reading(path: &Path) -> impl FnOnce(io::Error) -> Problem {
    let path = path.display().to_string();
    move |source| Problem::ReadSource { path, source }
}

fn writing(path: &Path) -> impl FnOnce(io::Error) -> Problem {
    let path = path.to_owned();
    move |source| match source.kind() {
        io::ErrorKind::NotADirectory => Problem::NotADirectory(path),
        _ => Problem::Write { path, source },
    }
}
