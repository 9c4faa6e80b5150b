//! The watched files as the kernel tells of them (inotify): one watch for each directory, an index of what is there.
//!
//! The crate `notify` is not used for this: it cannot leave out directories, gives up at the first that cannot be
//! read, tells of every reading of a file (so that a build would be an avalanche of events), and loses what is written
//! into a directory before it has noticed the directory; its polling compares times in whole seconds, so that a second
//! save or a change of mode is not seen. Here every new directory is
//! watched first and read afterwards, and the index tells what was missed when the kernel's queue overflowed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::{Change, Kind};

/// Whether a directory and all below it is of no interest.
pub type Prunes = Box<dyn Fn(&Path) -> bool + Send>;

/// What there is below the watched paths.
pub struct Tree {
    roots: Vec<PathBuf>,
    prunes: Prunes,
    /// Gone where the kernel has no room for our watches.
    inotify: Option<OwnedFd>,
    /// Which directories a watch is of: one directory may be reached by several paths.
    directories: HashMap<i32, Vec<Vec<u8>>>,
    watches: BTreeMap<Vec<u8>, i32>,
    index: BTreeMap<Vec<u8>, Stamp>,
    /// What could not be watched, told once.
    told: BTreeSet<PathBuf>,
    warnings: Vec<String>,
}

/// By what a change of a file is noticed without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    mode: u32,
    owner: (u32, u32),
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Self {
            file: (stat.st_dev, stat.st_ino),
            mode: stat.st_mode,
            owner: (stat.st_uid, stat.st_gid),
            size: stat.st_size,
            modified: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or_default()),
            changed: (stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or_default()),
        }
    }

    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Returns whether it is another file, or one that was changed. What is in a directory is no matter of its own.
    fn differs(&self, other: &Self) -> bool {
        match (self.kind(), other.kind()) {
            (FileType::Directory, FileType::Directory) => (self.mode, self.owner) != (other.mode, other.owner),
            _ => self != other,
        }
    }
}

/// What we want to know of a watched directory.
fn contents() -> WatchFlags {
    WatchFlags::CLOSE_WRITE | WatchFlags::MODIFY | WatchFlags::ATTRIB | places()
}

/// What we want to know of a directory that is only on the way to a watched path.
fn places() -> WatchFlags {
    WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO
}

impl Tree {
    /// Watches the paths and looks at what is there. Paths that do not exist are watched for.
    pub fn open(roots: Vec<PathBuf>, prunes: Prunes) -> Self {
        let mut tree = Self {
            roots,
            prunes,
            inotify: None,
            directories: HashMap::new(),
            watches: BTreeMap::new(),
            index: BTreeMap::new(),
            told: BTreeSet::new(),
            warnings: Vec::new(),
        };
        match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
            Ok(descriptor) => tree.inotify = Some(descriptor),
            Err(error) => tree.give_up_watching(error),
        }
        let mut index = BTreeMap::new();
        for root in tree.roots.clone() {
            tree.look(&root, &mut |path, stamp| {
                index.insert(path, stamp);
            });
        }
        tree.index = index;
        tree
    }

    /// Returns what tells that there are events; nothing where the kernel does not tell.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Takes what the user should know.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Returns all watched files and directories.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.index.keys().map(|key| path_of(key))
    }

    /// Returns how many watches there are.
    #[cfg(test)]
    fn watch_count(&self) -> usize {
        self.watches.len()
    }

    /// Reads all events that have come.
    pub fn read(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut events = Vec::new();
        let mut overflowed = false;
        if let Some(descriptor) = &self.inotify {
            let mut buffer = [MaybeUninit::<u8>::uninit(); 64 * 1024];
            let mut reader = inotify::Reader::new(descriptor, &mut buffer);
            while let Ok(event) = reader.next() {
                overflowed |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                let name = event.file_name().map(|name| name.to_bytes().to_vec());
                events.push((event.wd(), event.events(), name));
            }
        }
        if overflowed {
            return self.compare();
        }
        for (watch, what, name) in events {
            if what.contains(ReadFlags::IGNORED) {
                for path in self.directories.remove(&watch).unwrap_or_default() {
                    self.watches.remove(&path);
                }
                continue;
            }
            let Some(name) = name else { continue };
            if let Some(descriptor) = &self.inotify
                && !self.directories.contains_key(&watch)
            {
                // Of a directory that was moved away.
                let _ = inotify::remove_watch(descriptor, watch);
            }
            for directory in self.directories.get(&watch).cloned().unwrap_or_default() {
                self.happened(below(&directory, &name), what, &mut changes);
            }
        }
        changes
    }

    /// Looks at everything again, and returns how it differs from what was known.
    pub fn compare(&mut self) -> Vec<Change> {
        // Paths may have come to mean other directories; those that are still there get their watches again.
        self.directories.clear();
        self.watches.clear();
        let mut now = BTreeMap::new();
        for root in self.roots.clone() {
            self.look(&root, &mut |path, stamp| {
                now.insert(path, stamp);
            });
        }
        let change = |key: &Vec<u8>, kind| Change {
            path: path_of(key),
            kind,
        };
        let mut changes: Vec<Change> = self
            .index
            .keys()
            .filter(|key| !now.contains_key(*key))
            .map(|key| change(key, Kind::Gone))
            .collect();
        let differs = |(key, stamp): &(&Vec<u8>, &Stamp)| self.index.get(*key).is_none_or(|known| known.differs(stamp));
        changes.extend(now.iter().filter(differs).map(|(key, _)| change(key, Kind::Whole)));
        self.index = now;
        changes
    }

    fn happened(&mut self, key: Vec<u8>, what: ReadFlags, changes: &mut Vec<Change>) {
        let path = path_of(&key);
        let comes_or_goes = ReadFlags::CREATE | ReadFlags::MOVED_TO | ReadFlags::DELETE | ReadFlags::MOVED_FROM;
        let is_place = what.intersects(comes_or_goes);
        let roots: Vec<PathBuf> = self
            .roots
            .iter()
            .filter(|root| root.starts_with(&path))
            .cloned()
            .collect();
        if is_place {
            for root in &roots {
                let begun = changes.len();
                self.renew(root, changes);
                let is_open = what.contains(ReadFlags::CREATE) && *root == path && !is_further_name(root);
                for change in changes.iter_mut().skip(begun).filter(|change| change.path == *root) {
                    if is_open && change.kind == Kind::Whole && root.is_file() && !root.is_symlink() {
                        change.kind = Kind::Begun;
                    }
                }
            }
        }
        let is_inside = self.roots.iter().any(|root| path.starts_with(root));
        if !is_inside || is_place && !roots.is_empty() {
            return;
        }
        if what.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            self.forget(&key, changes);
            return;
        }
        let Some(stamp) = stamp_of(&path, self.roots.contains(&path)) else {
            // It went since.
            self.forget(&key, changes);
            return;
        };
        let kind = match stamp.kind() {
            FileType::Directory if (self.prunes)(&path) => return,
            FileType::Directory => {
                // One that could not be read before may be readable now.
                if what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) || !self.is_watched(&key) {
                    self.arrived(&path, changes);
                    return;
                }
                Kind::Whole
            }
            FileType::RegularFile if what.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO) => Kind::Whole,
            FileType::RegularFile if what.contains(ReadFlags::ATTRIB) => {
                let known = self.index.get(&key).copied();
                // The number of its names changed, or it was only read.
                let same = |known: Stamp| {
                    Stamp {
                        changed: stamp.changed,
                        ..known
                    } == stamp
                };
                if known.is_some_and(same) {
                    return;
                }
                Kind::Whole
            }
            // Whoever made it has it open; unless it is a further name of a file that is whole.
            FileType::RegularFile if what.contains(ReadFlags::CREATE) && is_further_name(&path) => Kind::Whole,
            FileType::RegularFile => Kind::Begun,
            _ => Kind::Whole,
        };
        self.index.insert(key, stamp);
        changes.push(Change { path, kind });
    }

    /// Takes in a directory that has come, with all that is in it.
    fn arrived(&mut self, path: &Path, changes: &mut Vec<Change>) {
        let mut found = Vec::new();
        self.look(path, &mut |key, stamp| found.push((key, stamp)));
        for (key, stamp) in found {
            changes.push(Change {
                path: path_of(&key),
                kind: Kind::Whole,
            });
            self.index.insert(key, stamp);
        }
    }

    /// Looks at a watched path again that may have come, gone or been replaced.
    fn renew(&mut self, root: &Path, changes: &mut Vec<Change>) {
        let key = key_of(root);
        let mut found = BTreeMap::new();
        self.look(root, &mut |key, stamp| {
            found.insert(key, stamp);
        });
        let known: Vec<Vec<u8>> = self.subtree(&key);
        for key in known.iter().filter(|key| !found.contains_key(*key)) {
            self.index.remove(key);
            self.drop_watch(key);
            changes.push(Change {
                path: path_of(key),
                kind: Kind::Gone,
            });
        }
        for (key, stamp) in found {
            let old = self.index.insert(key.clone(), stamp);
            if old.is_none_or(|old| old.differs(&stamp)) {
                changes.push(Change {
                    path: path_of(&key),
                    kind: Kind::Whole,
                });
            }
        }
    }

    /// Lets go of a path and all below it.
    fn forget(&mut self, key: &[u8], changes: &mut Vec<Change>) {
        for key in self.subtree(key) {
            self.index.remove(&key);
            self.drop_watch(&key);
            changes.push(Change {
                path: path_of(&key),
                kind: Kind::Gone,
            });
        }
    }

    /// Returns what is known at and below a path.
    fn subtree(&self, key: &[u8]) -> Vec<Vec<u8>> {
        let (mut first, mut end) = (key.to_vec(), key.to_vec());
        first.push(b'/');
        // The letter after the slash.
        end.push(b'0');
        let own = self.index.contains_key(key).then(|| key.to_vec());
        own.into_iter()
            .chain(self.index.range(first..end).map(|(key, _)| key.clone()))
            .collect()
    }

    fn is_watched(&self, key: &[u8]) -> bool {
        self.inotify.is_none() || self.watches.contains_key(key)
    }

    fn drop_watch(&mut self, key: &[u8]) {
        let Some(watch) = self.watches.remove(key) else { return };
        if let Some(paths) = self.directories.get_mut(&watch) {
            paths.retain(|path| path != key);
            if paths.is_empty() {
                self.directories.remove(&watch);
                if let Some(descriptor) = &self.inotify {
                    // A directory that is gone has no watch any more.
                    let _ = inotify::remove_watch(descriptor, watch);
                }
            }
        }
    }

    /// Watches a path and all below it, and tells what is there. The way to a watched path is watched too.
    fn look(&mut self, top: &Path, found: &mut dyn FnMut(Vec<u8>, Stamp)) {
        let is_root = self.roots.iter().any(|root| root == top);
        if is_root {
            let above = top.ancestors().skip(1).find(|above| above.is_dir());
            if let Some(above) = above {
                let is_file = !top.is_dir();
                self.watch(above, if is_file { contents() } else { places() });
            }
        }
        let Some(stamp) = stamp_of(top, is_root) else { return };
        found(key_of(top), stamp);
        if stamp.kind() != FileType::Directory {
            return;
        }
        let mut waiting = vec![top.to_path_buf()];
        while let Some(directory) = waiting.pop() {
            // First watched, then read: what comes in between is told twice, and nothing is missed.
            self.watch(&directory, contents());
            let entries = match std::fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) => {
                    self.tell_unreadable(&directory, &error);
                    continue;
                }
            };
            for entry in entries.flatten() {
                let path = entry.path();
                let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_directory && (self.prunes)(&path) {
                    continue;
                }
                // Gone again where there is none.
                if let Some(stamp) = stamp_of(&path, false) {
                    found(key_of(&path), stamp);
                    if is_directory {
                        waiting.push(path);
                    }
                }
            }
        }
    }

    fn watch(&mut self, directory: &Path, wanted: WatchFlags) {
        let Some(descriptor) = &self.inotify else { return };
        let flags = wanted | WatchFlags::ONLYDIR | WatchFlags::EXCL_UNLINK | WatchFlags::MASK_ADD;
        match inotify::add_watch(descriptor, directory, flags) {
            Ok(watch) => {
                let key = key_of(directory);
                let paths = self.directories.entry(watch).or_default();
                if !paths.contains(&key) {
                    paths.push(key.clone());
                }
                if let Some(old) = self.watches.insert(key.clone(), watch).filter(|old| *old != watch)
                    && let Some(paths) = self.directories.get_mut(&old)
                {
                    paths.retain(|path| *path != key);
                }
            }
            Err(error @ (Errno::NOSPC | Errno::NOMEM)) => self.give_up_watching(error),
            // Gone, or no directory any more: its parent tells.
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => self.tell_unreadable(directory, &error.into()),
        }
    }

    fn tell_unreadable(&mut self, directory: &Path, error: &io::Error) {
        if error.kind() != io::ErrorKind::NotFound && self.told.insert(directory.to_owned()) {
            self.warnings.push(format!(
                "cannot watch {}: {}; the rest is watched",
                directory.display(),
                error.to_string().split(" (os error").next().unwrap_or_default()
            ));
        }
    }

    /// From here on changes are looked for instead of told.
    fn give_up_watching(&mut self, error: Errno) {
        self.inotify = None;
        let count = self.watches.len();
        self.directories.clear();
        self.watches.clear();
        let limit = match error {
            Errno::MFILE => "fs.inotify.max_user_instances",
            _ => "fs.inotify.max_user_watches",
        };
        let value = std::fs::read_to_string(format!("/proc/sys/{}", limit.replace('.', "/"))).unwrap_or_default();
        self.warnings.push(format!(
            "the kernel's limit {limit} (now {}) is reached after {count} directories: changes are looked for every \
             second instead of told at once; raise it with: sysctl {limit}=1048576",
            value.trim()
        ));
    }
}

/// Looks at a file; a link is the file itself, except where it is a watched path.
fn stamp_of(path: &Path, follow: bool) -> Option<Stamp> {
    let stat = if follow {
        rustix::fs::stat(path)
    } else {
        rustix::fs::lstat(path)
    };
    stat.ok().map(|stat| Stamp::of(&stat))
}

fn is_further_name(path: &Path) -> bool {
    rustix::fs::lstat(path).is_ok_and(|stat| stat.st_nlink > 1)
}

fn below(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut key = directory.to_vec();
    if key != b"/" {
        key.push(b'/');
    }
    key.extend_from_slice(name);
    key
}

fn key_of(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

fn path_of(key: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(OsStr::from_bytes(key).as_bytes().to_vec()))
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
