//! Directory trees by file descriptor: what unpacking, packing and copying of layers have in common.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::Errno;

/// Opens a path as a process rooted in `root` would, so that neither `..` nor a link leads out of it.
pub(crate) fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    loop {
        match rustix::fs::openat2(
            root,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        ) {
            // Something else was renamed on the machine while the kernel walked a `..`: it asks to try again.
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

/// Returns whether this is overlayfs's mark for "deleted".
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Returns whether overlayfs reads this attribute as its own.
pub(crate) fn is_overlay_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Which attributes overlayfs reads here: `trusted.` where we may set those, else `user.` (mounted with `userxattr`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OverlayXattrs {
    Trusted,
    User,
}

impl OverlayXattrs {
    /// Finds out by trying on a directory of our own.
    pub(crate) fn of(directory: BorrowedFd<'_>) -> Self {
        const PROBE: &str = "trusted.overlay.probe";
        if rustix::fs::fsetxattr(directory, PROBE, b"y", XattrFlags::empty()).is_err() {
            return Self::User;
        }
        // A leftover probe would be harmless: overlayfs does not know it, and packing drops it.
        let _ = rustix::fs::fremovexattr(directory, PROBE);
        Self::Trusted
    }

    pub(crate) fn set_opaque(self, directory: BorrowedFd<'_>) -> Result<(), Errno> {
        rustix::fs::fsetxattr(directory, self.opaque(), b"y", XattrFlags::empty())
    }

    fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }
}

/// Returns whether a directory of a layer hides the same directory in the layers below.
pub(crate) fn is_opaque(directory: BorrowedFd<'_>) -> bool {
    let mut value = [0; 1];
    [OverlayXattrs::Trusted, OverlayXattrs::User]
        .into_iter()
        .any(|kind| rustix::fs::fgetxattr(directory, kind.opaque(), &mut value[..]) == Ok(1) && value == *b"y")
}

/// Returns the names in a directory, in byte order.
pub(crate) fn names(directory: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    Ok(entries(directory)?.into_iter().map(|(name, _)| name).collect())
}

/// Returns the names in a directory, in byte order, and whether each may be a whiteout, which only a look at it can tell.
pub(crate) fn entries(directory: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, bool)>, Errno> {
    let mut entries = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            let may_be = matches!(entry.file_type(), FileType::CharacterDevice | FileType::Unknown);
            entries.push((name.to_owned(), may_be));
        }
    }
    entries.sort_unstable();
    Ok(entries)
}

/// Names and values of extended attributes.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Returns the extended attributes of an open file, by name, without overlayfs's own.
pub(crate) fn xattrs(file: BorrowedFd<'_>) -> Result<Xattrs, Errno> {
    let mut list: Vec<u8> = Vec::new();
    let length = match rustix::fs::flistxattr_query(file) {
        Err(Errno::NOTSUP) | Ok(0) => return Ok(Vec::new()),
        other => other?,
    };
    list.resize(length + 1024, 0);
    let length = rustix::fs::flistxattr(file, &mut list[..])?;
    let mut found = Vec::new();
    for name in list[..length].split(|&byte| byte == 0) {
        // Labels belong to the place, not to the file.
        if name.is_empty() || is_overlay_xattr(name) || name == b"security.selinux" {
            continue;
        }
        let mut value = vec![0; 64 * 1024];
        match rustix::fs::fgetxattr(file, OsStr::from_bytes(name), &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                found.push((name.to_owned(), value));
            }
            // Some listed attributes belong to a security module that keeps them to itself.
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// As deep as this a tree is removed with an open directory for every level.
const DEPTH: usize = 64;

/// Removes whatever has this name, and what is in it; nothing of it is followed.
///
/// A layer, and even more so a container, may nest directories deeper than a process may have files open: what lies deeper than
/// [`DEPTH`] is moved up to the first level, and is removed from there.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(Errno::NOENT) => return Ok(()),
        other => return other,
    }
    let open = |parent: BorrowedFd<'_>, name: &OsStr| {
        rustix::fs::openat(
            parent,
            name,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
    };
    let first = open(parent, name)?;
    let mut moved = 0_u64;
    let mut stack = vec![(name.as_bytes().to_owned(), names(first.as_fd())?, first)];
    loop {
        let depth = stack.len();
        let Some((_, left, directory)) = stack.last_mut() else {
            break;
        };
        if let Some(child) = left.pop() {
            let child_name = OsStr::from_bytes(&child);
            match rustix::fs::unlinkat(&*directory, child_name, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) if depth > DEPTH => {
                    let [(_, waiting, top), .., (_, _, directory)] = &mut stack[..] else {
                        return Err(Errno::INVAL);
                    };
                    let name = loop {
                        let name = format!(".deep-{moved}").into_bytes();
                        moved += 1;
                        let to = OsStr::from_bytes(&name);
                        let flags = rustix::fs::RenameFlags::NOREPLACE;
                        match rustix::fs::renameat_with(&*directory, child_name, &*top, to, flags) {
                            Err(Errno::EXIST) => {}
                            other => break other.map(|()| name)?,
                        }
                    };
                    waiting.push(name);
                }
                Err(Errno::ISDIR | Errno::PERM) => {
                    let opened = open(directory.as_fd(), child_name)?;
                    let inside = names(opened.as_fd())?;
                    stack.push((child, inside, opened));
                }
                Err(Errno::NOENT) => {}
                other => other?,
            }
        } else {
            let Some((done, _, _)) = stack.pop() else { break };
            let above = stack.last().map_or(parent, |(_, _, directory)| directory.as_fd());
            rustix::fs::unlinkat(above, OsStr::from_bytes(&done), AtFlags::REMOVEDIR)?;
        }
    }
    Ok(())
}

/// The same for a path, all of which but its end is ours.
pub(crate) fn remove_path(path: &Path) -> std::io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL.into());
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::open(parent, flags, Mode::empty())?;
    Ok(remove(parent.as_fd(), name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_a_process_has_files_is_removed() {
        let base = tempfile::tempdir().unwrap();
        let top = base.path().join("top");
        std::fs::create_dir(&top).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut here = rustix::fs::open(&top, flags, Mode::empty()).unwrap();
        let depth = 3000;
        for _ in 0..depth {
            for name in ["d", ".deep-0"] {
                rustix::fs::mkdirat(&here, name, Mode::RWXU).unwrap();
            }
            here = rustix::fs::openat(&here, "d", flags, Mode::empty()).unwrap();
        }
        remove_path(&top).unwrap();
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    }
}
