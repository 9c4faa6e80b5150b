//! What of this machine a container sees that has its root as its own (`rootfs:/`): everything but other people's things and secrets.
//!
//! A layer of whiteouts lies over the machine's root, so that files are absent and directories empty, and may be made anew. What is
//! mounted on the machine (`/proc`, `/run` …) is never seen in the first place: overlayfs does not look into it. Nor are sockets of
//! any use there: the kernel does not take them for those that somebody listens on.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use super::digest::Hasher;
use super::store::Store;
use super::tree::OverlayXattrs;
use super::{ImageError, digest};

/// Files and directories that hold what only the machine itself may know. Directories are seen empty.
const SECRETS: &[&str] = &[
    "/etc/docker",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/krb5.keytab",
    "/etc/NetworkManager/system-connections",
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/ssl/private",
    "/etc/wireguard",
    "/run",
    "/tmp",
    "/var/lib/compose",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/NetworkManager",
    "/var/lib/sss",
    "/var/spool/cron",
    "/var/spool/mail",
    "/var/tmp",
];

/// The same in a home directory, also in one's own.
const SECRETS_AT_HOME: &[&str] = &[
    ".aws",
    ".azure",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".config/containers",
    ".config/gcloud",
    ".config/gh",
    ".docker",
    ".git-credentials",
    ".gnupg",
    ".kube",
    ".netrc",
    ".npmrc",
    ".password-store",
    ".pgpass",
    ".pypirc",
    ".ssh",
];

/// Something to cover.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Covered {
    path: PathBuf,
    is_directory: bool,
}

impl Store {
    /// Returns the layer to lie over the machine's root, made anew where what is to be covered has changed.
    pub(super) fn mask(&self) -> Result<PathBuf, ImageError> {
        let covered = self.covered();
        let mut hasher = Hasher::default();
        for one in &covered {
            hasher.field(one.path.as_os_str().as_encoded_bytes());
            hasher.field(&[u8::from(one.is_directory)]);
        }
        let masks = self.root().join("masks");
        let place = masks.join(digest::short(&hasher.finish().0));
        if place.is_dir() {
            return Ok(place);
        }
        let attempt = || -> io::Result<()> {
            fs::create_dir_all(&masks)?;
            let new = tempfile::Builder::new()
                .prefix("mask-")
                .tempdir_in(self.root().join("tmp"))?;
            let top = new.path().join("fs");
            copy_directory(Path::new("/"), &top)?;
            for one in &covered {
                cover(&top, one)?;
            }
            // Once more: what was made in a directory has changed its time.
            for one in &covered {
                for above in one.path.ancestors().skip(1) {
                    copy_looks(above, &beneath(&top, above))?;
                }
            }
            match fs::rename(&top, &place) {
                Err(_) if place.is_dir() => Ok(()),
                other => other,
            }
        };
        attempt().map_err(ImageError::file("create", &place))?;
        Ok(place)
    }

    /// Returns what there is to cover on this machine, in order.
    fn covered(&self) -> Vec<Covered> {
        let mut paths: Vec<PathBuf> = SECRETS.iter().map(PathBuf::from).collect();
        // Host keys, whatever their kind.
        paths.extend(children(Path::new("/etc/ssh")).filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("ssh_host_") && !name.ends_with(".pub")
        }));
        let own = rustix::process::geteuid().as_raw();
        let caller = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse::<u32>().ok());
        for home in children(Path::new("/home")).chain([PathBuf::from("/root")]) {
            let Ok(found) = home.symlink_metadata() else { continue };
            if found.uid() == own || Some(found.uid()) == caller {
                paths.extend(SECRETS_AT_HOME.iter().map(|name| home.join(name)));
            } else {
                paths.push(home);
            }
        }
        // All that other containers have, and the way to command them.
        let state = self.root().parent().filter(|state| state.join("containers").is_dir());
        paths.push(state.unwrap_or(self.root()).to_owned());
        let mut covered: Vec<Covered> = paths
            .into_iter()
            .filter_map(|path| {
                // A link is only another way to what is covered at its own place.
                let path = fs::canonicalize(path).ok()?;
                let is_directory = path.is_dir();
                Some(Covered { path, is_directory })
            })
            .collect();
        covered.sort();
        covered.dedup();
        // What lies in a covered directory is gone with it.
        let mut kept: Vec<Covered> = Vec::new();
        for one in covered {
            if !kept.iter().any(|above| one.path.starts_with(&above.path)) {
                kept.push(one);
            }
        }
        kept
    }
}

fn children(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.flatten().map(|entry| entry.path())
}

fn beneath(top: &Path, path: &Path) -> PathBuf {
    top.join(path.strip_prefix("/").unwrap_or(path))
}

fn cover(top: &Path, covered: &Covered) -> io::Result<()> {
    let mut above: Vec<&Path> = covered.path.ancestors().skip(1).collect();
    above.reverse();
    for directory in above {
        let place = beneath(top, directory);
        if !place.is_dir() {
            copy_directory(directory, &place)?;
        }
    }
    let place = beneath(top, &covered.path);
    if covered.is_directory {
        copy_directory(&covered.path, &place)?;
        let directory = rustix::fs::open(
            &place,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        OverlayXattrs::of(directory.as_fd()).set_opaque(directory.as_fd())?;
        copy_looks(&covered.path, &place)
    } else {
        let parent = place.parent().unwrap_or(top);
        let parent = rustix::fs::open(
            parent,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let name = place.file_name().unwrap_or(OsStr::new("file"));
        Ok(rustix::fs::mknodat(
            parent,
            name,
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )?)
    }
}

fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    copy_looks(from, to)
}

/// Gives a directory the owner, mode and time of another: merged with it, it is the one that is seen.
fn copy_looks(from: &Path, to: &Path) -> io::Result<()> {
    let found = from.metadata()?;
    let directory = rustix::fs::open(to, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    if rustix::process::geteuid().is_root() {
        rustix::fs::fchown(
            &directory,
            Some(Uid::from_raw(found.uid())),
            Some(Gid::from_raw(found.gid())),
        )?;
    }
    rustix::fs::fchmod(&directory, Mode::from_raw_mode(found.mode() & 0o7777))?;
    let modified = Timespec {
        tv_sec: found.mtime(),
        tv_nsec: found.mtime_nsec() as _,
    };
    let times = Timestamps {
        last_access: modified,
        last_modification: modified,
    };
    Ok(rustix::fs::futimens(&directory, &times)?)
}
