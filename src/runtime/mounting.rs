//! Mounts: from the words of a spec to the kernel's new mount calls, always onto an open file, never onto a path.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::os::mount::{Attributes, set_attributes};
use crate::os::user_namespace;
use crate::runtime::composed;
use crate::runtime::in_root;
use crate::runtime::launch::Root;

/// Overlayfs's option to keep its marks in attributes that a plain user may set.
const USER_MARKS: &str = "userxattr";

const READ_ONLY: u64 = MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64;
const ATIME: u64 = MountAttrFlags::MOUNT_ATTR__ATIME.bits() as u64;

/// The options of a mount, sorted by what they speak to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether this is a bind mount, and whether of everything below too.
    pub bind: Option<bool>,
    /// Attributes of the mount itself.
    pub set: u64,
    /// Attributes it shall not have.
    pub clear: u64,
    /// Attributes of the mount and everything below.
    pub recursive_set: u64,
    /// Attributes neither shall have.
    pub recursive_clear: u64,
    /// `MS_SHARED` and the like, and whether for everything below too.
    pub propagation: Option<(u64, bool)>,
    /// What the file system itself understands.
    pub data: Vec<(String, Option<String>)>,
}

impl Options {
    /// Sorts the options of a spec.
    pub fn parse<'o>(options: impl IntoIterator<Item = &'o str>) -> Self {
        let mut sorted = Self::default();
        for option in options {
            if !sorted.take_known(option) {
                match option.split_once('=') {
                    Some((name, value)) => sorted.data.push((name.to_owned(), Some(value.to_owned()))),
                    None if option.is_empty() || IGNORED.contains(&option) => {}
                    None => sorted.data.push((option.to_owned(), None)),
                }
            }
        }
        sorted
    }

    fn take_known(&mut self, option: &str) -> bool {
        match option {
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            _ => {
                if let Some((_, kind)) = PROPAGATION.iter().find(|(name, _)| option == *name) {
                    self.propagation = Some((*kind, false));
                } else if let Some((_, kind)) = PROPAGATION
                    .iter()
                    .find(|(name, _)| option.strip_prefix('r') == Some(*name))
                {
                    self.propagation = Some((*kind, true));
                } else if let Some((_, set, clear)) = ATTRIBUTES.iter().find(|(name, ..)| option == *name) {
                    self.set = self.set & !clear | set;
                    self.clear = self.clear & !set | clear;
                } else if let Some((_, set, clear)) = ATTRIBUTES
                    .iter()
                    .find(|(name, ..)| option.strip_prefix('r') == Some(*name))
                {
                    self.recursive_set |= set;
                    self.recursive_clear |= clear;
                } else {
                    return false;
                }
            }
        }
        true
    }

    /// Returns whether the mount shall be read-only.
    pub fn is_read_only(&self) -> bool {
        (self.set | self.recursive_set) & READ_ONLY != 0
    }
}

/// Options that ask for what is so anyway.
const IGNORED: [&str; 6] = ["rw", "defaults", "async", "nomand", "tmpcopyup", "norelatime"];

const PROPAGATION: [(&str, u64); 4] = [
    ("private", libc::MS_PRIVATE),
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// The attribute options: what each sets and what it clears.
const ATTRIBUTES: [(&str, u64, u64); 14] = {
    const fn bit(flag: MountAttrFlags) -> u64 {
        flag.bits() as u64
    }
    const NO_SUID: u64 = bit(MountAttrFlags::MOUNT_ATTR_NOSUID);
    const NO_DEVICES: u64 = bit(MountAttrFlags::MOUNT_ATTR_NODEV);
    const NO_EXEC: u64 = bit(MountAttrFlags::MOUNT_ATTR_NOEXEC);
    const NO_DIRECTORY_ATIME: u64 = bit(MountAttrFlags::MOUNT_ATTR_NODIRATIME);
    [
        ("ro", READ_ONLY, 0),
        ("rw", 0, READ_ONLY),
        ("nosuid", NO_SUID, 0),
        ("suid", 0, NO_SUID),
        ("nodev", NO_DEVICES, 0),
        ("dev", 0, NO_DEVICES),
        ("noexec", NO_EXEC, 0),
        ("exec", 0, NO_EXEC),
        ("noatime", bit(MountAttrFlags::MOUNT_ATTR_NOATIME), ATIME),
        ("relatime", 0, ATIME),
        ("strictatime", bit(MountAttrFlags::MOUNT_ATTR_STRICTATIME), ATIME),
        ("nodiratime", NO_DIRECTORY_ATIME, 0),
        ("diratime", 0, NO_DIRECTORY_ATIME),
        ("nosymfollow", bit(MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW), 0),
    ]
};

/// Returns the names of the options that are understood, whatever the file system.
pub fn option_names() -> Vec<String> {
    let attributes = ATTRIBUTES.iter().map(|(name, ..)| *name);
    let spread = PROPAGATION.iter().map(|(name, _)| *name);
    let mut names: Vec<String> = attributes
        .chain(spread)
        .flat_map(|name| [name.to_owned(), format!("r{name}")])
        .chain(["bind", "rbind"].map(str::to_owned))
        .chain(IGNORED.map(str::to_owned))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Attaches a mount that is attached nowhere onto an open file or directory.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, c"", target, c"", flags)?)
}

/// Copies the mount (and with `recursive` those below) that a path of this host leads to.
pub fn copy_of_path(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(CWD, path, flags)?)
}

/// Copies the mount that an open file lies on, as seen from that file.
pub fn copy_of_file(file: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(file, c"", flags)?)
}

/// Makes a mount of a file system, attached nowhere.
pub fn new_file_system(
    kind: &str,
    source: &str,
    data: &[(String, Option<String>)],
    attributes: u64,
) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", source)?;
    for (name, value) in data {
        match value {
            Some(value) => fsconfig_set_string(&context, name.as_str(), value.as_str())?,
            None => fsconfig_set_flag(&context, name.as_str())?,
        }
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

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

fn open_place(directory: &Path) -> io::Result<OwnedFd> {
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

/// Mounts one entry of a spec below a root; returns the mount where it is to be made read-only once everything
/// below it is in place.
pub fn mount_entry(
    root: BorrowedFd<'_>,
    mount: &Mount,
    options: &Options,
    source: Option<OwnedFd>,
) -> io::Result<Option<OwnedFd>> {
    let destination = mount.destination();
    if options.bind.is_some() || mount.typ().as_deref() == Some("bind") {
        bind(root, mount, options, source)?;
        return Ok(None);
    }
    let kind = mount.typ().as_deref().unwrap_or("none");
    let name = mount.source().as_deref().and_then(Path::to_str).unwrap_or(kind);
    let existing = in_root::open(root, destination, OFlags::PATH);
    let mut data = options.data.clone();
    if kind == "tmpfs" && data.iter().all(|(name, _)| name != "mode") {
        // runc: a tmpfs over an existing directory has its mode.
        if let Ok(status) = existing
            .as_ref()
            .map_err(|_| ())
            .and_then(|file| rustix::fs::fstat(file).map_err(|_| ()))
        {
            data.push(("mode".to_owned(), Some(format!("{:04o}", status.st_mode & 0o7777))));
        }
    }
    let target = match existing {
        Ok(file) => file,
        Err(_) => in_root::make_directories(root, destination, Mode::from_raw_mode(0o755))?,
    };
    // A tmpfs becomes read-only only after mount points in it were made.
    let later = kind == "tmpfs" && options.is_read_only();
    let attributes = if later { options.set & !READ_ONLY } else { options.set };
    if attributes & READ_ONLY != 0 {
        // The file system itself too, not only its place here.
        data.push(("ro".to_owned(), None));
    }
    if user_namespace::is_nested() {
        data.retain(|(name, value)| has_its_owner(kind, name, value.as_deref()));
        if kind == "overlay" {
            data.push((USER_MARKS.to_owned(), None));
        }
    }
    let new = match new_file_system(kind, name, &data, attributes) {
        Err(error) if user_namespace::is_nested() && error.kind() == io::ErrorKind::PermissionDenied => {
            match stand_in(kind, options) {
                Some(stand_in) => stand_in?,
                None => return Err(error),
            }
        }
        other => other?,
    };
    if let Some((propagation, recursive)) = options.propagation {
        propagate(new.as_fd(), propagation, recursive)?;
    }
    attach(new.as_fd(), target.as_fd())?;
    Ok(later.then_some(new))
}

/// Returns whether an option gives files to somebody this user namespace has; they are root's otherwise.
fn has_its_owner(kind: &str, name: &str, value: Option<&str>) -> bool {
    let id = value.and_then(|value| value.parse().ok());
    match (kind, name, id) {
        ("tmpfs" | "devpts" | "mqueue", "uid", Some(uid)) => user_namespace::users().has(uid),
        ("tmpfs" | "devpts" | "mqueue", "gid", Some(gid)) => user_namespace::groups().has(gid),
        _ => true,
    }
}

/// The host's own mount in place of a new one that only the owner of the namespace it shows may make: a container that
/// shares the host's network, processes or queues sees them as its user does outside.
fn stand_in(kind: &str, options: &Options) -> Option<io::Result<OwnedFd>> {
    let path = match kind {
        "sysfs" => "/sys",
        "proc" => "/proc",
        "mqueue" => "/dev/mqueue",
        _ => return None,
    };
    let copy = || {
        let tree = copy_of_path(Path::new(path), true)?;
        set_attributes(
            tree.as_fd(),
            true,
            Attributes {
                set: options.set,
                ..Attributes::default()
            },
        )?;
        Ok(tree)
    };
    Some(copy())
}

fn bind(root: BorrowedFd<'_>, mount: &Mount, options: &Options, source: Option<OwnedFd>) -> io::Result<()> {
    let tree = match source {
        Some(tree) => tree,
        None => {
            let path = mount.source().as_deref().unwrap_or(Path::new(""));
            copy_of_path(path, options.bind.unwrap_or(true))?
        }
    };
    let is_directory = FileType::from_raw_mode(rustix::fs::fstat(&tree)?.st_mode) == FileType::Directory;
    let target = if is_directory {
        in_root::make_directories(root, mount.destination(), Mode::from_raw_mode(0o755))?
    } else {
        in_root::make_file(root, mount.destination())?
    };
    change(tree.as_fd(), options)?;
    attach(tree.as_fd(), target.as_fd())
}

/// Gives a mount the attributes and the propagation asked for.
fn change(mount: BorrowedFd<'_>, options: &Options) -> io::Result<()> {
    if options.set | options.clear != 0 {
        set_attributes(
            mount,
            false,
            Attributes {
                set: options.set,
                clear: options.clear | if options.set & ATIME != 0 { ATIME } else { 0 },
                ..Attributes::default()
            },
        )?;
    }
    if options.recursive_set | options.recursive_clear != 0 {
        set_attributes(
            mount,
            true,
            Attributes {
                set: options.recursive_set,
                clear: options.recursive_clear,
                ..Attributes::default()
            },
        )?;
    }
    if let Some((propagation, recursive)) = options.propagation {
        propagate(mount, propagation, recursive)?;
    }
    Ok(())
}

/// Changes how mounts made below a mount spread.
pub fn propagate(mount: BorrowedFd<'_>, propagation: u64, recursive: bool) -> io::Result<()> {
    let attributes = Attributes {
        propagation,
        ..Attributes::default()
    };
    set_attributes(mount, recursive, attributes)
}

/// Makes a mount read-only, alone or with everything below.
pub fn make_read_only(mount: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let attributes = Attributes {
        set: READ_ONLY,
        ..Attributes::default()
    };
    set_attributes(mount, recursive, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_sorted_by_what_they_speak_to() {
        let options = Options::parse(["rbind", "ro", "rprivate", "nosuid", "size=64k", "newinstance"]);
        assert_eq!(options.bind, Some(true));
        assert!(options.is_read_only());
        assert_eq!(options.propagation, Some((libc::MS_PRIVATE, true)));
        assert_eq!(
            options.data,
            [
                ("size".to_owned(), Some("64k".to_owned())),
                ("newinstance".to_owned(), None)
            ]
        );
        assert_eq!(options.set & 2, 2);
    }

    #[test]
    fn the_last_word_on_writing_counts() {
        assert!(!Options::parse(["ro", "rw"]).is_read_only());
        assert!(Options::parse(["rw", "ro"]).is_read_only());
        assert_eq!(Options::parse(["bind", "rro"]).recursive_set, READ_ONLY);
    }
}
