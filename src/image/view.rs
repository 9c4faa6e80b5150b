//! The tree that layers make together, looked at without mounting them.
//!
//! Answers what a container made of these layers would find at a path: opaque directories, whiteouts and symbolic links are
//! followed as overlayfs and a root directory at the top of the stack would. Nothing outside the layers is ever opened.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::tree;

/// A stack of layer directories, top first.
#[derive(Debug, Clone)]
pub struct View {
    roots: Vec<Arc<OwnedFd>>,
}

/// What kind of file was found.
pub type FileKind = FileType;

/// Something that exists in the merged tree.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its path without any links in it, from `/`.
    pub path: PathBuf,
    pub stat: Stat,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    /// The directories that are merged here, top first.
    Directory(Vec<Arc<OwnedFd>>),
    /// The directory of one layer that has it, and its name there.
    Entry(Arc<OwnedFd>, OsString),
}

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

impl View {
    /// Opens the layers' directories, top first.
    pub fn open(layers: &[PathBuf]) -> io::Result<Self> {
        let roots = layers
            .iter()
            .map(|layer| {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                Ok(Arc::new(rustix::fs::open(layer, flags, Mode::empty())?))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { roots })
    }

    /// Finds what a path leads to, links followed; `None` if there is nothing.
    pub fn find(&self, path: &Path) -> io::Result<Option<Found>> {
        self.walk(path, true).map(|(_, found)| found)
    }

    /// Finds what has this path; a link at its end is found itself.
    pub fn find_link(&self, path: &Path) -> io::Result<Option<Found>> {
        self.walk(path, false).map(|(_, found)| found)
    }

    /// Returns where a path leads with the links in it followed, whether or not all of it exists.
    pub fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.walk(path, true).map(|(path, _)| path)
    }

    /// Returns the names in a directory, in byte order.
    pub fn names(&self, directory: &Found) -> io::Result<Vec<OsString>> {
        let Place::Directory(merged) = &directory.place else {
            return Err(Errno::NOTDIR.into());
        };
        let mut names = BTreeSet::new();
        let mut hidden = BTreeSet::new();
        for (position, layer) in merged.iter().enumerate() {
            for (name, may_be_whiteout) in tree::entries(layer.as_fd())? {
                if hidden.contains(&name) || names.contains(&name) {
                    continue;
                }
                if !may_be_whiteout {
                    names.insert(name);
                    continue;
                }
                // Only a layer above another can hide anything, but a whiteout is never shown itself.
                let stat = rustix::fs::statat(layer, OsStr::from_bytes(&name), AtFlags::SYMLINK_NOFOLLOW);
                match stat {
                    Ok(stat) if tree::is_whiteout(&stat) => {
                        if position + 1 < merged.len() {
                            hidden.insert(name);
                        }
                    }
                    Ok(_) => {
                        names.insert(name);
                    }
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        Ok(names.into_iter().map(OsString::from_vec).collect())
    }

    /// Finds an entry of a directory; a link is found itself.
    pub fn child(&self, directory: &Found, name: &OsStr) -> io::Result<Option<Found>> {
        let Place::Directory(merged) = &directory.place else {
            return Err(Errno::NOTDIR.into());
        };
        Ok(step(merged, name, &directory.path)?)
    }

    fn root(&self) -> Result<Found, Errno> {
        let Some(top) = self.roots.first() else {
            return Err(Errno::NOENT);
        };
        Ok(Found {
            path: PathBuf::from("/"),
            stat: rustix::fs::fstat(top)?,
            place: Place::Directory(self.roots.clone()),
        })
    }

    fn walk(&self, path: &Path, follow_last: bool) -> io::Result<(PathBuf, Option<Found>)> {
        let mut left: VecDeque<OsString> = components(path);
        let mut links = 0;
        if self.roots.is_empty() {
            let mut path = PathBuf::from("/");
            path.extend(left);
            return Ok((path, None));
        }
        let mut stack = vec![self.root()?];
        while let Some(name) = left.pop_front() {
            if name == ".." {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            let Some(here) = stack.last() else { break };
            let Place::Directory(merged) = &here.place else {
                return Err(Errno::NOTDIR.into());
            };
            let Some(found) = step(merged, &name, &here.path)? else {
                // Nothing can be below what is not there: what is left is taken as written.
                let mut path = here.path.join(name);
                for name in left {
                    if name == ".." {
                        path.pop();
                    } else {
                        path.push(name);
                    }
                }
                return Ok((path, None));
            };
            if found.kind() == FileType::Symlink && (follow_last || !left.is_empty()) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = found.read_link()?;
                if target.is_absolute() {
                    stack.truncate(1);
                }
                for component in components(&target).into_iter().rev() {
                    left.push_front(component);
                }
                continue;
            }
            stack.push(found);
        }
        let found = stack.pop();
        let path = found
            .as_ref()
            .map_or_else(|| PathBuf::from("/"), |found| found.path.clone());
        Ok((path, found))
    }
}

impl Found {
    pub fn kind(&self) -> FileKind {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// Reads where a link points.
    pub fn read_link(&self) -> io::Result<PathBuf> {
        let Place::Entry(parent, name) = &self.place else {
            return Err(Errno::INVAL.into());
        };
        let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
        Ok(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
    }

    /// Opens a regular file or a directory (the topmost of those merged) for reading.
    pub fn open(&self) -> io::Result<File> {
        let (parent, name, flags): (BorrowedFd<'_>, &OsStr, _) = match &self.place {
            Place::Directory(merged) => match merged.first() {
                Some(top) => (top.as_fd(), OsStr::new("."), OFlags::DIRECTORY),
                None => return Err(Errno::NOENT.into()),
            },
            // Not to wait for a writer, should this be a pipe.
            Place::Entry(parent, name) => (parent.as_fd(), name, OFlags::NONBLOCK),
        };
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(parent, name, flags, Mode::empty())?))
    }
}

impl Found {
    /// Returns where it lies on this machine: the directories that are merged here, top first, or the one file.
    pub(crate) fn places(&self) -> io::Result<Vec<PathBuf>> {
        let path_of = |directory: &Arc<OwnedFd>| std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        match &self.place {
            Place::Directory(merged) => merged.iter().map(path_of).collect(),
            Place::Entry(parent, name) => Ok(vec![path_of(parent)?.join(name)]),
        }
    }

    /// Returns the extended attributes of a regular file or directory.
    pub(crate) fn xattrs(&self) -> io::Result<tree::Xattrs> {
        // Most have none, which is asked without opening them.
        if let Place::Entry(parent, name) = &self.place {
            let path = Path::new("/proc/self/fd")
                .join(parent.as_raw_fd().to_string())
                .join(name);
            if let Ok(0) = rustix::fs::llistxattr_query(&path) {
                return Ok(Vec::new());
            }
        }
        match self.kind() {
            FileType::RegularFile | FileType::Directory => Ok(tree::xattrs(self.open()?.as_fd())?),
            _ => Ok(Vec::new()),
        }
    }
}

/// Returns the parts of a path that lead somewhere; `/` and `.` do not.
fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        })
        .collect()
}

fn step(merged: &[Arc<OwnedFd>], name: &OsStr, path: &Path) -> Result<Option<Found>, Errno> {
    let mut directories = Vec::new();
    let mut first: Option<Stat> = None;
    for layer in merged {
        let stat = match rustix::fs::statat(layer, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        if tree::is_whiteout(&stat) {
            break;
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            if first.is_none() {
                return Ok(Some(Found {
                    path: path.join(name),
                    stat,
                    place: Place::Entry(layer.clone(), name.to_owned()),
                }));
            }
            break;
        }
        first.get_or_insert(stat);
        // overlayfs does not look into what is mounted inside a lower directory.
        if stat.st_dev == rustix::fs::fstat(layer)?.st_dev {
            let directory = rustix::fs::openat(
                layer,
                name,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            let opaque = tree::is_opaque(directory.as_fd());
            directories.push(Arc::new(directory));
            if opaque {
                break;
            }
        }
    }
    Ok(first.map(|stat| Found {
        path: path.join(name),
        stat,
        place: Place::Directory(directories),
    }))
}
