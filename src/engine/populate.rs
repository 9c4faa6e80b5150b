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
    copy_directory(&view, &source, &target)
}

fn copy_directory(view: &View, source: &Found, target: &OwnedFd) -> io::Result<()> {
    for name in view.names(source)? {
        let Some(child) = view.child(source, &name)? else {
            continue;
        };
        copy_entry(view, &child, target.as_fd(), &name)?;
    }
    copy_attributes(source, target.as_fd())?;
    rustix::fs::fchown(target, Some(owner(&source.stat)), Some(group(&source.stat)))?;
    rustix::fs::fchmod(target, Mode::from_raw_mode(source.stat.st_mode & 0o7777))?;
    rustix::fs::futimens(target, &times(&source.stat))?;
    Ok(())
}

fn copy_entry(view: &View, source: &Found, parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
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
            return copy_directory(view, source, &directory);
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
            return Ok(());
        }
        FileKind::Symlink => rustix::fs::symlinkat(source.read_link()?, parent, name)?,
        FileKind::CharacterDevice | FileKind::BlockDevice if user_namespace::is_nested() => return Ok(()),
        kind @ (FileKind::Fifo | FileKind::CharacterDevice | FileKind::BlockDevice | FileKind::Socket) => {
            rustix::fs::mknodat(parent, name, kind, mode, source.stat.st_rdev)?;
        }
        FileKind::Unknown => return Ok(()),
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
    Ok(())
}

/// Copies extended attributes, but not overlayfs's own.
fn copy_attributes(source: &Found, target: BorrowedFd<'_>) -> io::Result<()> {
    let from = source.open()?;
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
}
