//! Paths inside a root file system that somebody else wrote.
//!
//! Every step is the kernel's (`openat2` with `RESOLVE_IN_ROOT` and no magic links): a symbolic link, however it is
//! swapped meanwhile, leads somewhere inside.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// How often a lookup that raced with a rename is tried again.
const ATTEMPTS: usize = 128;
/// How many links to nothing are followed, the kernel's own limit.
const LINKS: usize = 40;

/// Opens a path inside a root.
pub fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let relative = relative(path);
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..ATTEMPTS {
        match openat2(root, &relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// Opens a directory inside a root, made where it is missing, its parents too. Where a link leads to nothing, what it
/// leads to is made, inside the root.
pub fn make_directories(root: BorrowedFd<'_>, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY;
    match open(root, path, directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let mut walked = PathBuf::new();
    let mut rest = names(&relative(path));
    let mut links = 0;
    let mut current = open(root, Path::new("/"), directory)?;
    while let Some(name) = rest.pop() {
        if name == ".." {
            walked.pop();
            current = open(root, &walked, directory)?;
            continue;
        }
        let candidate = walked.join(&name);
        let next = match open(root, &candidate, directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match rustix::fs::mkdirat(&current, &name, mode) {
                Ok(()) => open(root, &candidate, directory)?,
                Err(Errno::EXIST) => {
                    links += 1;
                    let target = dangling(current.as_fd(), &name, links)?;
                    if target.is_absolute() {
                        walked.clear();
                        current = open(root, Path::new("/"), directory)?;
                    }
                    rest.extend(names(&target));
                    continue;
                }
                Err(error) => return Err(error.into()),
            },
            other => other?,
        };
        walked = candidate;
        current = next;
    }
    Ok(current)
}

/// Opens (by `O_PATH`) a file inside a root, made empty where it is missing, its parents too. Where a link leads to
/// nothing, what it leads to is made, inside the root: `/etc/resolv.conf` is often such a link.
pub fn make_file(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let mut path = path.to_owned();
    for links in 1.. {
        match open(root, &path, OFlags::PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (parent, name) = parent(root, &path, true)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        match rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(0o755)) {
            Ok(_) => return open(root, &path, OFlags::PATH),
            Err(Errno::EXIST) => {
                let target = dangling(parent.as_fd(), &name, links)?;
                path = path.parent().unwrap_or(Path::new("/")).join(target);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::LOOP.into())
}

/// Reads a link that leads to nothing, the how-manieth on this way.
fn dangling(parent: BorrowedFd<'_>, name: &OsStr, links: usize) -> io::Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    if links > LINKS {
        return Err(Errno::LOOP.into());
    }
    let target = rustix::fs::readlinkat(parent, name, Vec::new()).map_err(|error| match error {
        // Made by somebody else a moment ago, and no link.
        Errno::INVAL => Errno::NOTDIR,
        other => other,
    })?;
    Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
}

/// Returns the names of a path, the first one last.
fn names(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    let mut names: Vec<OsString> = names.collect();
    names.reverse();
    names
}

/// Opens the directory a path's last name is in, and returns that name.
pub fn parent(root: BorrowedFd<'_>, path: &Path, make: bool) -> io::Result<(OwnedFd, OsString)> {
    let relative = relative(path);
    let name = relative.file_name().unwrap_or(OsStr::new(".")).to_owned();
    let above = relative.parent().unwrap_or(Path::new(""));
    let directory = if make {
        make_directories(root, above, Mode::from_raw_mode(0o755))?
    } else {
        open(root, above, OFlags::PATH | OFlags::DIRECTORY)?
    };
    Ok((directory, name))
}

/// Returns the path as the kernel is asked for it: relative to the root, without `.` and with every `..` undone by
/// name, as Docker cleans a destination.
pub fn relative(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if clean.as_os_str().is_empty() {
        clean.push(".");
    }
    clean
}

/// Opens the root of this mount namespace.
pub fn own_root() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/", flags, Mode::empty())?)
}

/// Returns whether the file is one of procfs.
pub fn is_procfs(file: impl AsFd) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|statistics| statistics.f_type == libc::PROC_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_below_the_root() {
        for (path, clean) in [
            ("/", "."),
            ("/etc/hosts", "etc/hosts"),
            ("etc/./hosts", "etc/hosts"),
            ("/../../etc", "etc"),
            ("/a/b/../c", "a/c"),
            ("..", "."),
        ] {
            assert_eq!(relative(Path::new(path)), Path::new(clean), "{path}");
        }
    }

    #[test]
    fn links_lead_nowhere_outside() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("out")).unwrap();
        std::os::unix::fs::symlink("/proc/self/root", root.path().join("magic")).unwrap();
        let handle = rustix::fs::open(root.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        std::os::unix::fs::symlink("loop", root.path().join("loop")).unwrap();
        std::os::unix::fs::symlink("../../run/stub", root.path().join("resolv.conf")).unwrap();
        let mode = Mode::from_raw_mode(0o755);
        assert!(open(handle.as_fd(), Path::new("/out"), OFlags::PATH).is_err());
        assert!(make_file(handle.as_fd(), Path::new("/loop")).is_err());
        assert!(make_directories(handle.as_fd(), Path::new("/loop/x"), mode).is_err());
        make_file(handle.as_fd(), Path::new("/out/file")).unwrap();
        make_file(handle.as_fd(), Path::new("/resolv.conf")).unwrap();
        make_directories(handle.as_fd(), Path::new("/magic/new"), mode).unwrap();
        assert!(root.path().join("run/stub").is_file());
        assert!(root.path().join("proc/self/root/new").is_dir());
        make_file(handle.as_fd(), Path::new("/new/deep/file")).unwrap();
        assert!(root.path().join("new/deep/file").is_file());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
