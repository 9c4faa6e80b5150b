//! A root file system of layers, by overlayfs: as new kernels take it and as old ones do.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::os::user_namespace;
use crate::runtime::composed;
use crate::runtime::launch::Root;
use crate::runtime::mounting::{READ_ONLY, USER_MARKS, attach, copy_of_path, new_file_system};

/// Makes a mount of a root file system, attached nowhere.
pub fn root_mount(root: &Root) -> io::Result<OwnedFd> {
    match root {
        Root::Directory(path) => copy_of_path(path, true),
        Root::Overlay { lower, upper, work } => overlay(&Stack { lower, upper, work }),
    }
}

/// The layers of an overlay.
#[derive(Clone, Copy, Debug)]
pub struct Stack<'s> {
    /// Those that stay as they are, top first.
    pub lower: &'s [PathBuf],
    /// Where changes go.
    pub upper: &'s Path,
    /// Overlayfs's own directory.
    pub work: &'s Path,
}

/// Makes a mount of an overlay, attached nowhere.
pub fn overlay(stack: &Stack<'_>) -> io::Result<OwnedFd> {
    let Stack { lower, upper, work } = *stack;
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    // A mount that is attached nowhere lasts as long as its descriptor.
    let mut mounts = Vec::new();
    for layer in lower {
        if contains_another(layer, lower, upper) {
            // `mount_of_containing` says why.
            let mount = mount_of_containing(layer)?;
            fsconfig_set_fd(&context, "lowerdir+", mount.as_fd())
                .or_else(|_| fsconfig_set_string(&context, "lowerdir+", fd_path(mount.as_fd())))?;
            mounts.push(mount);
        } else {
            fsconfig_set_string(&context, "lowerdir+", layer.as_path())?;
        }
    }
    // Marks that only this one stack of layers can read would be lost where a layer becomes part of an image, and one
    // that an image brings along must not lead anywhere. A kernel that has no such thing makes no such marks.
    for (option, value) in [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")] {
        let _ = fsconfig_set_string(&context, option, value);
    }
    if user_namespace::is_nested() {
        // `trusted.` attributes are for the machine's root alone.
        fsconfig_set_flag(&context, USER_MARKS)?;
    }
    fsconfig_set_string(&context, "upperdir", upper)?;
    fsconfig_set_string(&context, "workdir", work)?;
    fsconfig_create(&context)?;
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?)
}

/// Returns whether other layers lie in a layer.
fn contains_another(layer: &Path, lower: &[PathBuf], upper: &Path) -> bool {
    let mut all = lower.iter().map(PathBuf::as_path).chain([upper]);
    all.any(|other| other != layer && other.starts_with(layer))
}

/// Makes an empty file system, attached nowhere.
fn nothing() -> io::Result<OwnedFd> {
    let data = [("size".to_owned(), Some("4k".to_owned()))];
    new_file_system("tmpfs", "nothing", &data, READ_ONLY)
}

/// Makes a layer of a directory that other layers lie in, as `/` of this host has the store in it.
///
/// Overlayfs refuses layers inside of each other. It looks no further than its own file systems, though: behind an overlay
/// of its own (with nothing beside it but an empty tmpfs, as one directory alone makes none) the directory is another one.
fn mount_of_containing(directory: &Path) -> io::Result<OwnedFd> {
    let nothing = nothing()?;
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    fsconfig_set_string(&context, "lowerdir+", directory)?;
    fsconfig_set_fd(&context, "lowerdir+", nothing.as_fd())
        .or_else(|_| fsconfig_set_string(&context, "lowerdir+", fd_path(nothing.as_fd())))?;
    fsconfig_create(&context)?;
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )?)
}

/// The way to an open file for a call that takes paths only.
fn fd_path(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Attaches a root file system to a directory of this mount namespace, which must be private, and returns its root.
pub fn attach_root(root: &Root, directory: &Path) -> io::Result<OwnedFd> {
    attach_layers(root, directory).map_err(|error| match root {
        Root::Overlay { upper, .. } if error.raw_os_error() == Some(libc::EINVAL) => explained(error, upper),
        _ => error,
    })
}

/// Says of a refusal for which the kernel has only a number whether it is the place's fault.
fn explained(error: io::Error, upper: &Path) -> io::Error {
    let name = rustix::fs::statfs(upper)
        .ok()
        .and_then(|status| unfit(status.f_type as u64));
    match name {
        Some(name) => io::Error::new(
            error.kind(),
            format!(
                "{} is on {name}, which cannot hold the changes of a container: set COMPOSE_STATE_DIR to a directory on \
                 ext4, xfs, btrfs or tmpfs (inside a container: to a volume)",
                upper.display()
            ),
        ),
        None => error,
    }
}

/// Names file systems that overlayfs takes no changes to, by the number the kernel has for them.
fn unfit(kind: u64) -> Option<&'static str> {
    Some(match kind {
        0x794c_7630 => "overlayfs",
        0x6969 => "NFS",
        0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x4d44 => "FAT",
        0x2011_bab0 => "exFAT",
        0x6573_5546 => "FUSE",
        0x0102_1997 => "9P",
        0xf15f => "eCryptfs",
        _ => return None,
    })
}

fn attach_layers(root: &Root, directory: &Path) -> io::Result<OwnedFd> {
    let place = open_place(directory)?;
    if let Some(refused) = composed::refused_layer(root) {
        return composed::attach(root, refused, place.as_fd());
    }
    if let Root::Overlay { lower, upper, work } = root
        && !takes_single_layers()
    {
        return attach_overlay_by_text(lower, upper, work, directory);
    }
    match (root_mount(root), root) {
        (Ok(mount), _) => {
            attach(mount.as_fd(), place.as_fd())?;
            Ok(mount)
        }
        // Before Linux 6.15 none that is attached nowhere can be a layer.
        (Err(error), Root::Overlay { lower, upper, work }) if error.raw_os_error() == Some(libc::EINVAL) => {
            attach_overlay_by_text(lower, upper, work, directory)
        }
        (Err(error), _) => Err(error),
    }
}

/// Returns whether overlayfs takes layers one by one, as it does since Linux 6.5. Asked of the kernel by trying, it would
/// write a line to the system's log each time.
fn takes_single_layers() -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    let mut number = || {
        numbers
            .next()
            .and_then(|number| number.parse::<u32>().ok())
            .unwrap_or(0)
    };
    (number(), number()) >= (6, 5)
}

/// Opens a directory that something is to be attached to.
pub fn open_place(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory, flags, Mode::empty())?)
}

/// Attaches an overlay as kernels of old want it told: all layers in one text, which is a page long at most. Every
/// layer therefore goes by the number of an open file; that also spares their names any escaping.
fn attach_overlay_by_text(lower: &[PathBuf], upper: &Path, work: &Path, directory: &Path) -> io::Result<OwnedFd> {
    let mut layers = Vec::with_capacity(lower.len());
    for layer in lower {
        layers.push(if contains_another(layer, lower, upper) {
            attached_containing(layer, directory)?
        } else {
            open_place(layer)?
        });
    }
    let (upper, work) = (open_place(upper)?, open_place(work)?);
    let layers: Vec<String> = layers.iter().map(|layer| fd_path(layer.as_fd())).collect();
    let marks = if user_namespace::is_nested() { ",userxattr" } else { "" };
    let rest = format!(
        "lowerdir={},upperdir={},workdir={}{marks}",
        layers.join(":"),
        fd_path(upper.as_fd()),
        fd_path(work.as_fd())
    );
    // As in `root_mount`; which of these a kernel knows is not to be asked in a text.
    for start in ["redirect_dir=nofollow,metacopy=off,index=off,", "index=off,", ""] {
        match mount_overlay(&format!("{start}{rest}"), directory) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && !start.is_empty() => {}
            other => return other,
        }
    }
    Err(io::Error::from_raw_os_error(libc::EINVAL))
}

fn mount_overlay(text: &str, directory: &Path) -> io::Result<OwnedFd> {
    let text = std::ffi::CString::new(text).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount(c"overlay", directory, c"overlay", flags, &*text)?;
    open_place(directory)
}

/// Does what [`mount_of_containing`] does where only attached mounts can be layers: below the root to come.
fn attached_containing(layer: &Path, directory: &Path) -> io::Result<OwnedFd> {
    let layer = open_place(layer)?;
    let nothing = nothing()?;
    attach(nothing.as_fd(), open_place(directory)?.as_fd())?;
    let text = format!("lowerdir={}:{}", fd_path(layer.as_fd()), fd_path(nothing.as_fd()));
    mount_overlay(&text, directory)
}
