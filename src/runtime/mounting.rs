//! Mounts: from the words of a spec to the kernel's new mount calls, always onto an open file, never onto a path.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::os::mount::{Attributes, set_attributes};
use crate::os::user_namespace;
use crate::runtime::in_root;

/// Overlayfs's option to keep its marks in attributes that a plain user may set.
pub(super) const USER_MARKS: &str = "userxattr";

pub(super) const READ_ONLY: u64 = MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64;
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
    /// Whether its files show other ids, and whether those of everything below too.
    pub ids: Option<bool>,
    /// The directory that a bind's source lies in, whatever links are on the way to it.
    pub below: Option<PathBuf>,
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
            "idmap" => self.ids = Some(false),
            "ridmap" => self.ids = Some(true),
            _ if option.starts_with(BELOW) => self.below = Some(option[BELOW.len()..].into()),
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

/// How an option names the directory that a bind's source must not leave.
pub const BELOW: &str = "x-below=";

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
        .chain(["bind", "rbind", "idmap", "ridmap"].map(str::to_owned))
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
    if matches!(kind, "proc" | "sysfs") {
        check_ordinary(root, destination, kind)?;
    }
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

/// Refuses a link where the kernel's own view of things is to be: what is masked in it would be masked elsewhere.
// runc libcontainer/rootfs_linux.go: mountToRootfs
fn check_ordinary(root: BorrowedFd<'_>, destination: &Path, kind: &str) -> io::Result<()> {
    let found = match in_root::open(root, destination, OFlags::PATH | OFlags::NOFOLLOW) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    match FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) {
        FileType::Directory => Ok(()),
        _ => Err(io::Error::other(format!(
            "filesystem \"{kind}\" must be mounted on ordinary directory"
        ))),
    }
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

/// Copies the mount that the source of a bind leads to.
///
/// Who can write to a volume can exchange its directories for links at any time, so a part of it is found by the kernel,
/// from the volume on and never out of it.
pub fn source_of(mount: &Mount, options: &Options) -> io::Result<OwnedFd> {
    let path = mount.source().as_deref().unwrap_or(Path::new(""));
    let recursive = options.bind.unwrap_or(true);
    let Some(below) = &options.below else {
        return copy_of_path(path, recursive);
    };
    let rest = path.strip_prefix(below).map_err(|_| io::ErrorKind::InvalidInput)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(below, flags, Mode::empty())?;
    let found = in_root::open(directory.as_fd(), rest, OFlags::PATH)?;
    copy_of_file(found.as_fd(), recursive)
}

fn bind(root: BorrowedFd<'_>, mount: &Mount, options: &Options, source: Option<OwnedFd>) -> io::Result<()> {
    let tree = match source {
        Some(tree) => tree,
        None => source_of(mount, options)?,
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
