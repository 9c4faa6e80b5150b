//! Files of this machine put straight into a container's root, whether it runs or not.
//!
//! What `watch` and `cp` by tar do in three copies and with a process in the container is done here by the kernel in
//! one: the engine opens the file here, and a place for it below the container's root (`openat2` with
//! `RESOLVE_IN_ROOT`). A file appears whole, under its name or not at all.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, StatxFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::container::Container;
use super::{Engine, EngineError, Result, lifecycle};
use crate::os::user_namespace;
use crate::runtime::in_root;

/// What is to be in the container afterwards, and what not.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    pub files: Vec<Copy>,
    /// Paths in the container that are to be gone, with all below them.
    pub removed: Vec<String>,
    /// Files that are the same there already are left alone.
    pub compare: bool,
}

/// A file, link or directory (without what is in it) of this machine, and its place in the container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Copy {
    pub from: String,
    pub to: String,
    /// Where a file takes the place of a directory, the directory may go with all that is in it.
    pub replace: bool,
}

/// What became of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Outcome {
    pub written: usize,
    pub unchanged: usize,
    pub removed: usize,
    /// Files that were not here any more when their turn came.
    pub vanished: Vec<String>,
    pub failed: Vec<Failed>,
}

/// What could not be done, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Failed {
    pub path: String,
    pub cause: String,
}

impl Engine {
    /// Makes the container's files as the request wants them. One that fails does not keep the others.
    pub async fn sync(&self, container: &Arc<Container>, request: Request) -> Result<Outcome> {
        if let Some(copy) = request.files.iter().find(|copy| !Path::new(&copy.from).is_absolute()) {
            return Err(EngineError::InvalidParameter(format!(
                "{:?} is no absolute path",
                copy.from
            )));
        }
        let root = self.open_files(container).await?;
        let user = container.record().config.user.clone();
        // As docker compose's copies: the container's user owns them; without one, whoever owns them here.
        let owner = match user.as_str() {
            "" => None,
            user => Some(
                root.identity(user)
                    .map_err(lifecycle::runtime_failure("cannot find the container's user"))?,
            ),
        };
        let synced = self.blocking(move || {
            let syncing = Syncing {
                root: root.directory(),
                owner,
                compare: request.compare,
                parents: HashMap::new(),
                outcome: Outcome::default(),
                replaced: Vec::new(),
            };
            root.as_its_root(|| syncing.run(&request))
        });
        let (outcome, replaced) = synced.await?;
        if !replaced.is_empty() {
            self.tasks.spawn_blocking(move || drop(replaced));
        }
        Ok(outcome)
    }
}

/// A request being carried out.
struct Syncing<'r> {
    root: BorrowedFd<'r>,
    owner: Option<(u32, u32)>,
    compare: bool,
    /// Directories that are open already: a burst of files is mostly in few of them.
    parents: HashMap<PathBuf, OwnedFd>,
    outcome: Outcome,
    /// Large files that others have taken the place of. To let go of one takes the kernel as long as to copy it, and
    /// need not be waited for.
    replaced: Vec<OwnedFd>,
}

/// From this size on a file is large.
const LARGE: i64 = 1 << 20;
/// How much is copied by reading and writing: more than that the kernel copies by itself, which takes longer to begin.
const SMALL: usize = 16 << 10;

/// How many directories are kept open.
const OPEN_DIRECTORIES: usize = 64;

impl Syncing<'_> {
    /// Does it, and hands over what is still to be let go of.
    fn run(mut self, request: &Request) -> (Outcome, Vec<OwnedFd>) {
        for path in &request.removed {
            match self.remove(Path::new(path)) {
                Ok(()) => self.outcome.removed += 1,
                Err(cause) => self.fail(path, &cause),
            }
        }
        // What was removed may have been one of them.
        self.parents.clear();
        for copy in &request.files {
            match self.copy(copy) {
                Ok(Done::Written) => self.outcome.written += 1,
                Ok(Done::Unchanged) => self.outcome.unchanged += 1,
                Ok(Done::Vanished) => self.outcome.vanished.push(copy.from.clone()),
                Err(cause) => self.fail(&copy.to, &cause),
            }
        }
        (self.outcome, self.replaced)
    }

    fn fail(&mut self, path: &str, cause: &io::Error) {
        self.outcome.failed.push(Failed {
            path: path.to_owned(),
            cause: in_words(cause),
        });
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = match in_root::parent(self.root, path, false) {
            Err(error) if is_missing(&error) => return Ok(()),
            other => other?,
        };
        if name == "." {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the root directory cannot be removed",
            ));
        }
        let mount = mount_of(parent.as_fd(), OsStr::new("."))?;
        remove_all(parent.as_fd(), &name, mount)
    }

    fn copy(&mut self, copy: &Copy) -> io::Result<Done> {
        let from = Path::new(&copy.from);
        let here = match rustix::fs::lstat(from) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Done::Vanished),
            other => other?,
        };
        let kind = FileType::from_raw_mode(here.st_mode);
        let mut to = in_root::relative(Path::new(&copy.to));
        let names_directory = copy.to.ends_with('/');
        if kind != FileType::Directory && names_directory {
            to.push(from.file_name().ok_or(io::ErrorKind::InvalidInput)?);
        }
        if kind == FileType::Directory {
            return self.directory(&to, &here, copy.replace || names_directory);
        }
        let name = match to.file_name() {
            Some(name) if to != Path::new(".") => name.to_owned(),
            _ => return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is the root directory")),
        };
        let parent = self.parent(to.parent().unwrap_or(Path::new("")), copy.replace)?;
        let there = match rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => None,
            other => Some(other?),
        };
        let is_directory = there.is_some_and(|there| FileType::from_raw_mode(there.st_mode) == FileType::Directory);
        if is_directory {
            if !copy.replace {
                return Err(io::Error::new(
                    io::ErrorKind::IsADirectory,
                    "a directory is there, and a file cannot take its place",
                ));
            }
            let mount = mount_of(parent.as_fd(), OsStr::new("."))?;
            remove_all(parent.as_fd(), &name, mount)?;
            self.parents.clear();
        }
        match kind {
            FileType::Symlink => self.link(from, &here, parent.as_fd(), &name),
            FileType::RegularFile => self.file(from, parent.as_fd(), &name, there.filter(|_| !is_directory)),
            // Sockets and pipes belong to the processes here, devices to this machine.
            _ => Ok(Done::Unchanged),
        }
    }

    /// Makes a directory, or gives one that is there the mode and owner of the one here.
    fn directory(&mut self, to: &Path, here: &Stat, replace: bool) -> io::Result<Done> {
        if to == Path::new(".") {
            return Ok(Done::Unchanged);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        // A link to a directory stays what it is.
        if in_root::open(self.root, to, flags).is_err() {
            let parent = self.parent(to.parent().unwrap_or(Path::new("")), replace)?;
            let name = to.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
                Err(Errno::EXIST) if replace => {
                    rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
                    rustix::fs::mkdirat(&parent, name, Mode::RWXU)?;
                }
                other => other?,
            }
        }
        let directory = in_root::open(self.root, to, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let there = rustix::fs::fstat(&directory)?;
        let (owner, group) = self.owner_of(here);
        if (there.st_uid, there.st_gid, there.st_mode) == (owner, group, here.st_mode) {
            return Ok(Done::Unchanged);
        }
        self.own(rustix::fs::fchown(
            &directory,
            Some(Uid::from_raw(owner)),
            Some(Gid::from_raw(group)),
        ))?;
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(here.st_mode & 0o7777))?;
        Ok(Done::Written)
    }

    fn link(&self, from: &Path, here: &Stat, parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<Done> {
        let target = match rustix::fs::readlink(from, Vec::new()) {
            Err(Errno::NOENT | Errno::INVAL) => return Ok(Done::Vanished),
            other => other?,
        };
        if self.compare && rustix::fs::readlinkat(parent, name, Vec::new()).is_ok_and(|there| there == target) {
            return Ok(Done::Unchanged);
        }
        let draft = draft_name();
        rustix::fs::symlinkat(&target, parent, &draft)?;
        let (owner, group) = self.owner_of(here);
        let settle = || -> io::Result<()> {
            let (owner, group) = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(group)));
            self.own(rustix::fs::chownat(
                parent,
                &draft,
                owner,
                group,
                AtFlags::SYMLINK_NOFOLLOW,
            ))?;
            Ok(rustix::fs::renameat(parent, &draft, parent, name)?)
        };
        settle().inspect_err(|_| {
            let _ = rustix::fs::unlinkat(parent, &draft, AtFlags::empty());
        })?;
        Ok(Done::Written)
    }

    fn file(&mut self, from: &Path, parent: BorrowedFd<'_>, name: &OsStr, there: Option<Stat>) -> io::Result<Done> {
        // Not to hang on a pipe, nor to read what a link leads to, should the file have become one.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mut source = match rustix::fs::open(from, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => return Ok(Done::Vanished),
            other => File::from(other?),
        };
        let here = rustix::fs::fstat(&source)?;
        if FileType::from_raw_mode(here.st_mode) != FileType::RegularFile {
            return Ok(Done::Vanished);
        }
        let (owner, group) = self.owner_of(&here);
        let mut replaced = Vec::new();
        if self.compare
            && let Some(there) = there
            && (there.st_uid, there.st_gid, there.st_mode) == (owner, group, here.st_mode)
            && there.st_size == here.st_size
            && is_same(&source, parent, name)?
        {
            return Ok(Done::Unchanged);
        }
        let finish = |file: &File| -> io::Result<()> {
            self.own(rustix::fs::fchown(
                file,
                Some(Uid::from_raw(owner)),
                Some(Gid::from_raw(group)),
            ))?;
            rustix::fs::fchmod(file, Mode::from_raw_mode(here.st_mode & 0o7777))?;
            Ok(rustix::fs::futimens(file, &times(&here))?)
        };
        if there.is_some_and(|there| there.st_size >= LARGE) {
            // Held open, it is let go of later.
            let old = rustix::fs::openat(
                parent,
                name,
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            );
            replaced.extend(old);
        }
        let draft = draft_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(parent, &draft, flags, Mode::RUSR | Mode::WUSR)?;
        let settle = || -> io::Result<()> {
            let mut made = File::from(made);
            copy_content(&mut source, &mut made, here.st_size)?;
            finish(&made)?;
            Ok(rustix::fs::renameat(parent, &draft, parent, name)?)
        };
        let settled = settle().inspect_err(|_| {
            let _ = rustix::fs::unlinkat(parent, &draft, AtFlags::empty());
        });
        match settled {
            // A file that is mounted there: it can only be written into.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
                let mut mounted = File::from(rustix::fs::openat(parent, name, flags, Mode::empty())?);
                io::Seek::rewind(&mut source)?;
                io::copy(&mut source, &mut mounted)?;
                finish(&mounted)?;
            }
            other => other?,
        }
        self.replaced.append(&mut replaced);
        Ok(Done::Written)
    }

    /// Returns whose a file is to be there.
    fn owner_of(&self, here: &Stat) -> (u32, u32) {
        let (owner, group) = self.owner.unwrap_or((here.st_uid, here.st_gid));
        (
            user_namespace::user_for(owner).as_raw(),
            user_namespace::group_for(group).as_raw(),
        )
    }

    /// An owner from here that a user's namespace has no number for is no reason to refuse the file.
    fn own(&self, result: rustix::io::Result<()>) -> io::Result<()> {
        match result {
            Err(Errno::INVAL | Errno::PERM) if self.owner.is_none() => Ok(()),
            other => Ok(other?),
        }
    }

    /// Opens the directory of a file, made where it is missing; with `replace`, also where a file is in its way.
    fn parent(&mut self, path: &Path, replace: bool) -> io::Result<OwnedFd> {
        if let Some(known) = self.parents.get(path) {
            return known.try_clone();
        }
        let mode = Mode::from_raw_mode(0o755);
        let opened = match in_root::make_directories(self.root, path, mode) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory && replace => {
                self.clear_the_way(path)?;
                in_root::make_directories(self.root, path, mode)?
            }
            other => other?,
        };
        if self.parents.len() >= OPEN_DIRECTORIES {
            self.parents.clear();
        }
        self.parents.insert(path.to_owned(), opened.try_clone()?);
        Ok(opened)
    }

    /// Removes the file that stands where a directory is to be.
    fn clear_the_way(&self, path: &Path) -> io::Result<()> {
        let mut above: Vec<&Path> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        above.reverse();
        for directory in above {
            let (parent, name) = in_root::parent(self.root, directory, false)?;
            let stat = rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                return Ok(rustix::fs::unlinkat(&parent, &name, AtFlags::empty())?);
            }
        }
        Ok(())
    }
}

/// What became of one file.
enum Done {
    Written,
    Unchanged,
    Vanished,
}

/// A name that nothing else has, for a file until it is whole. Tools that watch files take it for an editor's.
fn draft_name() -> OsString {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(".compose-{:x}-{number:x}.swp", std::process::id()).into()
}

/// Returns whether two files of the same length have the same content.
fn is_same(here: &File, parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let there = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Err(_) => return Ok(false),
        Ok(file) => File::from(file),
    };
    let length = there.metadata()?.size();
    let (mut ours, mut theirs) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut at = 0;
    while at < length {
        let count = ours.len().min(usize::try_from(length - at).unwrap_or(usize::MAX));
        let read = here
            .read_exact_at(&mut ours[..count], at)
            .and_then(|()| there.read_exact_at(&mut theirs[..count], at));
        match read {
            // One of them became shorter.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        if ours[..count] != theirs[..count] {
            return Ok(false);
        }
        at += count as u64;
    }
    Ok(true)
}

/// Copies a file from where it is read to where it is written.
fn copy_content(from: &mut File, to: &mut File, size: i64) -> io::Result<()> {
    if usize::try_from(size).is_ok_and(|size| size <= SMALL) {
        let mut buffer = [0; SMALL];
        loop {
            match io::Read::read(from, &mut buffer)? {
                0 => return Ok(()),
                count => io::Write::write_all(to, &buffer[..count])?,
            }
        }
    }
    // With its place set aside at once, the file system does not look for more with every write. Where it cannot be set
    // aside, or there is none, writing says so.
    let length = u64::try_from(size).unwrap_or_default();
    let is_reserved = rustix::fs::fallocate(&*to, rustix::fs::FallocateFlags::empty(), 0, length).is_ok();
    let copied = io::copy(from, to)?;
    if is_reserved && copied < length {
        // It became shorter meanwhile.
        to.set_len(copied)?;
    }
    Ok(())
}

fn mount_of(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<u64> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    Ok(rustix::fs::statx(parent, name, flags, StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// Removes a file or a directory with all that is in it, but nothing of what is mounted there: a volume below a
/// directory that was deleted keeps its data.
fn remove_all(parent: BorrowedFd<'_>, name: &OsStr, mount: u64) -> io::Result<()> {
    let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    if mount_of(parent, name)? != mount {
        return Ok(());
    }
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return gone(rustix::fs::unlinkat(parent, name, AtFlags::empty()));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&directory)? {
        let entry = entry?;
        let child = OsStr::from_bytes(entry.file_name().to_bytes());
        if child != "." && child != ".." {
            remove_all(directory.as_fd(), child, mount)?;
        }
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        // Something is mounted below it, or was made meanwhile.
        Err(Errno::NOTEMPTY | Errno::BUSY) => Ok(()),
        other => gone(other),
    }
}

fn gone(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or_default(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Says what is wrong without the number of the system's error.
fn in_words(cause: &io::Error) -> String {
    match cause.raw_os_error() {
        Some(libc::EROFS) => "the file system is read-only there".to_owned(),
        Some(libc::ENOSPC) => "no space is left there".to_owned(),
        _ => {
            let text = cause.to_string();
            text.split(" (os error").next().unwrap_or_default().to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        here: tempfile::TempDir,
        there: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            Self {
                here: tempfile::tempdir().unwrap(),
                there: tempfile::tempdir().unwrap(),
            }
        }

        fn write(&self, name: &str, text: &str) -> String {
            let path = self.here.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        }

        fn sync(&self, request: &Request) -> Outcome {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let root = rustix::fs::open(self.there.path(), flags, Mode::empty()).unwrap();
            Syncing {
                root: root.as_fd(),
                owner: None,
                compare: request.compare,
                parents: HashMap::new(),
                outcome: Outcome::default(),
                replaced: Vec::new(),
            }
            .run(request)
            .0
        }

        fn copy(&self, from: &str, to: &str) -> Outcome {
            self.sync(&Request {
                files: vec![Copy {
                    from: from.to_owned(),
                    to: to.to_owned(),
                    replace: true,
                }],
                ..Request::default()
            })
        }

        fn read(&self, name: &str) -> String {
            std::fs::read_to_string(self.there.path().join(name)).unwrap()
        }
    }

    #[test]
    fn a_file_arrives_with_its_mode_and_time() {
        let world = World::new();
        let file = world.write("a", "text");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
        std::fs::set_permissions(&file, mode).unwrap();
        assert_eq!(world.copy(&file, "/app/deep/a").written, 1);
        assert_eq!(world.read("app/deep/a"), "text");
        let (here, there) = (
            std::fs::metadata(&file).unwrap(),
            std::fs::metadata(world.there.path().join("app/deep/a")).unwrap(),
        );
        assert_eq!((here.mode(), here.mtime_nsec()), (there.mode(), there.mtime_nsec()));
        assert_eq!(world.copy(&file, "/app/").written, 1);
        assert_eq!(std::fs::read_dir(world.there.path().join("app")).unwrap().count(), 2);
    }

    #[test]
    fn nothing_leads_out_of_the_root() {
        let world = World::new();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("keep"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), world.there.path().join("out")).unwrap();
        std::os::unix::fs::symlink("../../../../..", world.there.path().join("up")).unwrap();
        let file = world.write("a", "text");
        world.copy(&file, "/out/a");
        world.copy(&file, "/up/b");
        world.copy(&file, "/../../c");
        let removed = world.sync(&Request {
            removed: vec![
                format!("/out{}/keep", outside.path().display()),
                "/out/keep".to_owned(),
                "/../up/keep".to_owned(),
            ],
            ..Request::default()
        });
        assert_eq!(removed.failed, []);
        let names: Vec<_> = std::fs::read_dir(outside.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["keep"]);
        assert_eq!((world.read("b"), world.read("c")), ("text".into(), "text".into()));
    }

    #[test]
    fn what_is_the_same_is_left_alone() {
        let world = World::new();
        let file = world.write("a", "text");
        let request = Request {
            files: vec![Copy {
                from: file,
                to: "/a".to_owned(),
                replace: true,
            }],
            compare: true,
            ..Request::default()
        };
        assert_eq!(world.sync(&request).written, 1);
        assert_eq!(world.sync(&request).unchanged, 1);
        world.write("a", "teXt");
        assert_eq!(world.sync(&request).written, 1);
    }

    #[test]
    fn files_and_directories_take_each_others_place() {
        let world = World::new();
        let file = world.write("x", "file");
        world.copy(&file, "/x");
        let below = world.write("d/y", "below");
        assert_eq!(world.copy(&below, "/x/y").failed, []);
        assert_eq!(world.read("x/y"), "below");
        assert_eq!(world.copy(&file, "/x").failed, []);
        assert_eq!(world.read("x"), "file");
        // A rule's own target is never emptied for a file.
        std::fs::create_dir(world.there.path().join("etc")).unwrap();
        let refused = world.sync(&Request {
            files: vec![Copy {
                from: file,
                to: "/etc".to_owned(),
                replace: false,
            }],
            ..Request::default()
        });
        assert_eq!(refused.failed.len(), 1);
        assert!(world.there.path().join("etc").is_dir());
    }

    #[test]
    fn a_file_that_went_is_no_failure() {
        let world = World::new();
        let outcome = world.copy("/nonexistent/file", "/a");
        assert_eq!((outcome.vanished.len(), outcome.failed.len()), (1, 0));
    }
}
