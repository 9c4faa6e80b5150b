//! A volume's first content: what the image has where the volume will be mounted.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};

use crate::image::{FileKind, Found, View};
use crate::os::user_namespace;

/// Copies what a container of these layers would find at `path` into the directory `target`, with owners, modes, times
/// and attributes. An image without that directory, and a target that is not empty, mean that nothing is copied.
pub fn from_layers(layers: &[PathBuf], path: &Path, target: &Path) -> io::Result<()> {
    if std::fs::read_dir(target)?.next().is_some() {
        return Ok(());
    }
    let view = View::open(layers)?;
    let Some(source) = view.find(path)? else { return Ok(()) };
    if !source.is_directory() {
        return Ok(());
    }
    let target = rustix::fs::open(
        target,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    copy_directory(&view, &source, &target, path)
        .map_err(|Failed { path, cause }| io::Error::new(cause.kind(), format!("{}: {cause}", path.display())))
}

/// What could not be copied, and why.
struct Failed {
    path: PathBuf,
    cause: io::Error,
}

fn copy_directory(view: &View, source: &Found, target: &OwnedFd, path: &Path) -> Result<(), Failed> {
    let failed = |cause| Failed {
        path: path.to_owned(),
        cause,
    };
    for name in view.names(source).map_err(failed)? {
        let path = path.join(&name);
        let Some(child) = view.child(source, &name).map_err(failed)? else {
            continue;
        };
        let copied = copy_entry(&child, target.as_fd(), &name);
        if let Some(directory) = copied.map_err(|cause| Failed {
            path: path.clone(),
            cause,
        })? {
            copy_directory(view, &child, &directory, &path)?;
        }
    }
    finish_directory(source, target).map_err(failed)
}

fn finish_directory(source: &Found, target: &OwnedFd) -> io::Result<()> {
    copy_attributes(source, target.as_fd())?;
    rustix::fs::fchown(target, Some(owner(&source.stat)), Some(group(&source.stat)))?;
    rustix::fs::fchmod(target, Mode::from_raw_mode(source.stat.st_mode & 0o7777))?;
    rustix::fs::futimens(target, &times(&source.stat))?;
    Ok(())
}

/// Copies one entry; returns a directory's copy, which has nothing in it yet.
fn copy_entry(source: &Found, parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    let mode = Mode::from_raw_mode(source.stat.st_mode & 0o7777);
    match source.kind() {
        FileKind::Directory => {
            rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
            let directory = rustix::fs::openat(
                parent,
                name,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            return Ok(Some(directory));
        }
        FileKind::RegularFile => {
            let mut from = source.open()?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?;
            let mut to = std::fs::File::from(file);
            io::copy(&mut from, &mut to)?;
            copy_attributes(source, to.as_fd())?;
            rustix::fs::fchown(&to, Some(owner(&source.stat)), Some(group(&source.stat)))?;
            rustix::fs::fchmod(&to, mode)?;
            rustix::fs::futimens(&to, &times(&source.stat))?;
            return Ok(None);
        }
        FileKind::Symlink => rustix::fs::symlinkat(source.read_link()?, parent, name)?,
        FileKind::CharacterDevice | FileKind::BlockDevice if user_namespace::is_nested() => return Ok(None),
        kind @ (FileKind::Fifo | FileKind::CharacterDevice | FileKind::BlockDevice | FileKind::Socket) => {
            rustix::fs::mknodat(parent, name, kind, mode, source.stat.st_rdev)?;
        }
        FileKind::Unknown => return Ok(None),
    }
    rustix::fs::chownat(
        parent,
        name,
        Some(owner(&source.stat)),
        Some(group(&source.stat)),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    if source.kind() != FileKind::Symlink {
        rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?;
    }
    rustix::fs::utimensat(parent, name, &times(&source.stat), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(None)
}

/// Copies extended attributes, but not overlayfs's own.
fn copy_attributes(source: &Found, target: BorrowedFd<'_>) -> io::Result<()> {
    let from = match source.open() {
        // Where the machine has another file system mounted, its own root is empty.
        Err(error) if error.kind() == io::ErrorKind::NotFound && source.is_directory() => return Ok(()),
        opened => opened?,
    };
    let mut names = vec![0u8; 4096];
    let length = match rustix::fs::flistxattr(&from, &mut names[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        Err(cause) => return Err(cause.into()),
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0u8; 64 * 1024];
        let length = rustix::fs::fgetxattr(&from, name, &mut value[..])?;
        let set = rustix::fs::fsetxattr(target, name, &value[..length], rustix::fs::XattrFlags::empty());
        match set {
            // Labels of a security module that is not there, or a file system without attributes.
            Ok(()) | Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::PERM) => {}
            Err(cause) => return Err(cause.into()),
        }
    }
    Ok(())
}

fn owner(stat: &Stat) -> Uid {
    user_namespace::user_for(stat.st_uid)
}

fn group(stat: &Stat) -> Gid {
    user_namespace::group_for(stat.st_gid)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    Timestamps {
        last_access: time(stat.st_atime, i64::try_from(stat.st_atime_nsec).unwrap_or_default()),
        last_modification: time(stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn the_image_s_content_comes_with_modes_and_links() {
        let directory = tempfile::tempdir().unwrap();
        let layer = directory.path().join("layer");
        let upper = directory.path().join("upper");
        std::fs::create_dir_all(layer.join("data/deep")).unwrap();
        std::fs::create_dir_all(upper.join("data")).unwrap();
        std::fs::write(layer.join("data/deep/file"), "lower").unwrap();
        std::fs::write(layer.join("data/both"), "lower").unwrap();
        std::fs::write(upper.join("data/both"), "upper").unwrap();
        std::os::unix::fs::symlink("deep/file", layer.join("data/link")).unwrap();
        std::fs::set_permissions(layer.join("data/deep"), std::fs::Permissions::from_mode(0o1750)).unwrap();
        let target = directory.path().join("target");
        std::fs::create_dir(&target).unwrap();

        let layers = [upper, layer];
        from_layers(&layers, Path::new("/data"), &target).unwrap();
        assert_eq!(std::fs::read_to_string(target.join("both")).unwrap(), "upper");
        assert_eq!(std::fs::read_to_string(target.join("link")).unwrap(), "lower");
        assert_eq!(target.join("deep").metadata().unwrap().mode() & 0o7777, 0o1750);

        std::fs::remove_file(target.join("both")).unwrap();
        from_layers(&layers, Path::new("/data"), &target).unwrap();
        assert!(!target.join("both").exists(), "a volume with content is left as it is");
    }

    #[test]
    fn what_cannot_be_copied_is_named() {
        // Files that nobody can read from their beginning.
        let target = tempfile::tempdir().unwrap();
        let thread = rustix::thread::gettid().as_raw_nonzero();
        let layers = [PathBuf::from("/proc/self/task")];
        let error = from_layers(&layers, Path::new(&format!("/{thread}")), target.path()).unwrap_err();
        assert!(error.to_string().starts_with(&format!("/{thread}/")), "{error}");
    }
}
