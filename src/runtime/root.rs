//! A container's root file system from outside: for copying in and out and for exports.
//!
//! A handle is an open directory; every path below it is resolved by the kernel inside it, so nothing that the
//! container wrote leads out. The root of a container that does not run is mounted where nobody sees it, and the
//! mount goes with the handle.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::os::process::{SingleThreaded, unshare};
use crate::os::user_namespace::{self, Shift};
use crate::os::{memfd, socket};
use crate::runtime::error::RuntimeError;
use crate::runtime::in_root;
use crate::runtime::init::users;
use crate::runtime::launch::Root;
use crate::runtime::mounting::{self, Options};
use crate::runtime::overlay;
use crate::runtime::protocol::{ROOT, RootPlan};

/// An open root file system.
#[derive(Debug)]
pub struct RootHandle {
    root: OwnedFd,
    /// How its ids are those of the host.
    shift: Option<Shift>,
    /// Keeps the process alive that holds the mounts; it ends with its socket.
    _helper: Option<OwnedFd>,
}

/// A file found in a root.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name: the path's last component.
    pub name: OsString,
    /// Its metadata; of the link itself where it is one.
    pub metadata: fs::Metadata,
    /// Where a link leads, as it is written.
    pub link: Option<PathBuf>,
}

impl RootHandle {
    /// Opens the root of a running process, with everything mounted there.
    pub fn of_process(pid: u32) -> Result<Self, RuntimeError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty())
            .map_err(|error| RuntimeError::OpenRoot(error.into()))?;
        Ok(Self {
            root,
            shift: None,
            _helper: None,
        })
    }

    /// Returns the same root, whose ids are shifted on the host.
    pub fn shifted(self, shift: Option<Shift>) -> Self {
        Self { shift, ..self }
    }

    /// Does something with the files as a container's root would: what it makes is that root's.
    pub fn as_its_root<T>(&self, act: impl FnOnce() -> T) -> T {
        user_namespace::within(self.shift, act)
    }

    /// Mounts a root that is not in use, attached nowhere.
    pub fn detached(root: &Root) -> Result<Self, RuntimeError> {
        let root = overlay::root_mount(root).map_err(RuntimeError::OpenRoot)?;
        Ok(Self {
            root,
            shift: None,
            _helper: None,
        })
    }

    /// Takes the root from the process that mounted it.
    pub(crate) fn from_helper(helper: OwnedFd) -> Result<Self, RuntimeError> {
        let message = socket::receive(&helper)
            .map_err(RuntimeError::OpenRoot)?
            .ok_or_else(|| RuntimeError::OpenRoot(io::ErrorKind::UnexpectedEof.into()))?;
        match message.descriptors.into_iter().next() {
            Some(root) => Ok(Self {
                root,
                shift: None,
                _helper: Some(helper),
            }),
            None => Err(RuntimeError::OpenRoot(io::Error::other(
                String::from_utf8_lossy(&message.bytes).into_owned(),
            ))),
        }
    }

    /// Returns the root directory, for [`crate::runtime::in_root`] and the `*at` calls.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Returns the user and group that a process of `user` (`user[:group]`, as Docker writes it) has here.
    pub fn identity(&self, user: &str) -> Result<(u32, u32), RuntimeError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let read = |path: &str| {
            in_root::open(self.directory(), Path::new(path), flags).map_or_else(|_| String::new(), users::text)
        };
        user_in(user, read)
    }

    /// Opens a file; links are followed inside the root, the last one too.
    pub fn open(&self, path: &Path) -> Result<File, RuntimeError> {
        in_root::open(
            self.directory(),
            path,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
        )
        .map(File::from)
        .map_err(|source| at("open", path, source))
    }

    /// Opens a directory by `O_PATH`, made where it is missing.
    pub fn make_directories(&self, path: &Path) -> Result<OwnedFd, RuntimeError> {
        in_root::make_directories(self.directory(), path, Mode::from_raw_mode(0o755))
            .map_err(|source| at("make", path, source))
    }

    /// Looks a path up; a link at its end is not followed.
    pub fn look_up(&self, path: &Path) -> Result<Found, RuntimeError> {
        let look = || -> io::Result<Found> {
            let (parent, name) = in_root::parent(self.directory(), path, false)?;
            let file = rustix::fs::openat(
                &parent,
                &name,
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            let metadata = File::from(file.try_clone()?).metadata()?;
            let link = if metadata.is_symlink() {
                use std::os::unix::ffi::OsStringExt;
                let target = rustix::fs::readlinkat(&file, c"", Vec::new())?;
                Some(PathBuf::from(OsString::from_vec(target.into_bytes())))
            } else {
                None
            };
            Ok(Found { name, metadata, link })
        };
        look().map_err(|source| at("look up", path, source))
    }

    /// Resolves a path, every link in it followed inside the root, to the path it stands for.
    pub fn resolve(&self, path: &Path) -> Result<PathBuf, RuntimeError> {
        // The kernel knows the way; asked for the way back it answers relative to the mount, so it is walked here.
        let mut resolved = PathBuf::new();
        let mut rest: Vec<OsString> = components(path);
        rest.reverse();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                resolved.pop();
                continue;
            }
            let candidate = resolved.join(&name);
            match self.look_up(&candidate) {
                Ok(Found { link: Some(link), .. }) => {
                    links += 1;
                    if links > 40 {
                        return Err(at("resolve", path, io::Error::from_raw_os_error(libc::ELOOP)));
                    }
                    if link.is_absolute() {
                        resolved.clear();
                    }
                    rest.extend(components(&link).into_iter().rev());
                }
                _ => resolved = candidate,
            }
        }
        Ok(Path::new("/").join(resolved))
    }

    /// Removes a file or a whole directory.
    pub fn remove(&self, path: &Path) -> Result<(), RuntimeError> {
        let remove = || -> io::Result<()> {
            let (parent, name) = in_root::parent(self.directory(), path, false)?;
            remove_entry(parent.as_fd(), &name)
        };
        remove().map_err(|source| at("remove", path, source))
    }
}

fn at(action: &'static str, path: &Path, source: io::Error) -> RuntimeError {
    RuntimeError::InRoot {
        action,
        path: path.to_owned(),
        source,
    }
}

fn components(path: &Path) -> Vec<OsString> {
    use std::path::Component;
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

/// Removes a name from an open directory, never following a link.
fn remove_entry(parent: BorrowedFd<'_>, name: &std::ffi::OsStr) -> io::Result<()> {
    use rustix::io::Errno;
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return Ok(other?),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&directory)? {
        let entry = entry?;
        let bytes = entry.file_name().to_bytes();
        if bytes != b"." && bytes != b".." {
            use std::os::unix::ffi::OsStringExt;
            names.push(OsString::from_vec(bytes.to_vec()));
        }
    }
    for name in names {
        remove_entry(directory.as_fd(), &name)?;
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Returns the user and group that a process of `user` has where `read` reads files; what it cannot read is empty.
pub fn user_in(user: &str, read: impl Fn(&str) -> String) -> Result<(u32, u32), RuntimeError> {
    users::look_up_in(user, &[], read)
        .map(|identity| (identity.uid, identity.gid))
        .map_err(|failure| RuntimeError::OpenRoot(io::Error::other(failure.executing())))
}

/// The helper's side: mounts, hands the root over, and waits for the end of the conversation.
pub(crate) fn hold(single: &SingleThreaded, engine: &OwnedFd, plan: &OwnedFd) {
    match mount_all(single, plan) {
        Ok(root) => {
            if socket::send(engine, b"root", &[root.as_fd()]).is_ok() {
                let _ = socket::receive(engine);
            }
        }
        Err(error) => drop(socket::send(engine, error.to_string().as_bytes(), &[])),
    }
}

fn mount_all(single: &SingleThreaded, plan: &OwnedFd) -> io::Result<OwnedFd> {
    let plan: RootPlan = serde_json::from_slice(&memfd::read_all(plan)?)?;
    unshare(single, libc::CLONE_NEWNS as u64)?;
    mounting::propagate(in_root::own_root()?.as_fd(), libc::MS_SLAVE, true)?;
    let root = overlay::attach_root(&plan.root, &plan.dir.join(ROOT))?;
    for mount in &plan.mounts {
        let options = mount.options().as_deref().unwrap_or_default();
        let mut options = Options::parse(options.iter().map(String::as_str));
        if mount.typ().as_deref() == Some("bind") && options.bind.is_none() {
            options.bind = Some(true);
        }
        mounting::mount_entry(root.as_fd(), mount, &options, None)?;
    }
    Ok(root)
}
