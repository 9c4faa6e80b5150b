//! A root file system over a directory with other mounts below it, as `/` of the host is, for a plain user.
//!
//! The kernel lets a user namespace have no view of a directory without the mounts that cover parts of it, so overlayfs
//! refuses such a layer. Its parts that nothing is mounted in are no secret: each of them gets an overlay of its own, on
//! top of a skeleton that has the few directories in between, with their links and small files. Where changes go is
//! the same as with one overlay: to the same place below `upper`.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::in_root;
use super::launch::Root;
use super::mountinfo;
use super::mounting;
use super::overlay::{self, Stack};
use crate::os::user_namespace;

/// The largest file that is copied into the skeleton.
const LARGEST: u64 = 16 * 1024 * 1024;

/// Returns the layer that overlayfs would refuse, if there is one.
pub fn refused_layer(root: &Root) -> Option<&Path> {
    let Root::Overlay { lower, .. } = root else {
        return None;
    };
    if !user_namespace::is_nested() {
        return None;
    }
    let points = mount_points();
    lower
        .iter()
        .map(PathBuf::as_path)
        .find(|layer| points.iter().any(|point| is_below(point, layer)))
}

fn is_below(point: &Path, directory: &Path) -> bool {
    point != directory && point.starts_with(directory)
}

/// Returns where something is mounted in this namespace.
fn mount_points() -> Vec<PathBuf> {
    mountinfo::read().into_iter().map(|mounted| mounted.point).collect()
}

/// Attaches the root file system to an open directory, and returns its root.
pub fn attach(root: &Root, refused: &Path, place: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let Root::Overlay { lower, upper, work } = root else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let skeleton = mounting::new_file_system("tmpfs", "skeleton", &[("mode".to_owned(), Some("755".to_owned()))], 0)?;
    let skeleton_path = PathBuf::from(format!("/proc/self/fd/{}", skeleton.as_raw_fd()));
    let mut parts = Vec::new();
    build(refused, Path::new(""), &skeleton_path, &mount_points(), &mut parts)?;
    // Before anything is mounted over it, which must not see it change.
    let parts: Vec<Part> = parts
        .into_iter()
        .filter_map(|path| Part::plan(path, lower, refused, upper))
        .collect();
    for part in &parts {
        part.make_upper(upper)?;
    }
    let layers: Vec<PathBuf> = lower
        .iter()
        .map(|layer| {
            if layer == refused {
                skeleton_path.clone()
            } else {
                layer.clone()
            }
        })
        .collect();
    let stack = Stack {
        lower: &layers,
        upper,
        work,
    };
    let whole = overlay::overlay(&stack)?;
    mounting::attach(whole.as_fd(), place)?;
    let works = work.with_file_name("work-of-parts");
    for (number, part) in parts.iter().enumerate() {
        let Ok(target) = in_root::open(whole.as_fd(), &part.path, OFlags::PATH | OFlags::DIRECTORY) else {
            continue;
        };
        let work = works.join(number.to_string());
        fs::create_dir_all(&work)?;
        let stack = Stack {
            lower: &part.lower,
            upper: &upper.join(&part.path),
            work: &work,
        };
        match overlay::overlay(&stack) {
            Ok(mount) => mounting::attach(mount.as_fd(), target.as_fd())?,
            // The host goes on meanwhile: a directory that has been removed since is not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound && part.lower.iter().any(|layer| !layer.is_dir()) => {
            }
            Err(error) => return Err(error),
        }
    }
    Ok(whole)
}

/// Makes what is between the parts: directories that something is mounted below, links and files; collects the parts.
fn build(
    source: &Path,
    relative: &Path,
    target: &Path,
    points: &[PathBuf],
    parts: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(source.join(relative)) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let relative = relative.join(entry.file_name());
        let (from, to) = (source.join(&relative), target.join(&relative));
        let Ok(metadata) = from.symlink_metadata() else {
            continue;
        };
        let kind = metadata.file_type();
        if kind.is_symlink() {
            let Ok(link) = fs::read_link(&from) else {
                continue;
            };
            std::os::unix::fs::symlink(link, &to)?;
        } else if kind.is_dir() {
            fs::create_dir(&to)?;
            fs::set_permissions(&to, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
            // What is mounted there is no part of the directory, for root neither.
            if points.contains(&from) {
                continue;
            }
            if points.iter().any(|point| is_below(point, &from)) {
                build(source, &relative, target, points, parts)?;
            } else {
                parts.push(relative);
            }
        } else if kind.is_file() && metadata.len() <= LARGEST && !points.contains(&from) {
            // One that its owner keeps to themselves is not there.
            if fs::copy(&from, &to).is_err() {
                let _ = fs::remove_file(&to);
            }
        } else if kind.is_fifo() {
            rustix::fs::mkfifoat(
                rustix::fs::CWD,
                &to,
                rustix::fs::Mode::from_raw_mode(metadata.mode() & 0o777),
            )?;
        }
    }
    Ok(())
}

/// A directory that gets an overlay of its own.
struct Part {
    path: PathBuf,
    /// Its layers, top first.
    lower: Vec<PathBuf>,
}

impl Part {
    /// Finds the layers that have a directory; none where a layer or what was written hides the host's.
    fn plan(path: PathBuf, layers: &[PathBuf], refused: &Path, upper: &Path) -> Option<Self> {
        let mut lower = Vec::new();
        for layer in [upper].into_iter().chain(layers.iter().map(PathBuf::as_path)) {
            let directory = layer.join(&path);
            match directory.symlink_metadata() {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) => return None,
                Err(_) => continue,
            }
            if layer != upper {
                lower.push(directory.clone());
            }
            if layer == refused {
                return Some(Self { path, lower });
            }
            if is_opaque(&directory) {
                return None;
            }
        }
        None
    }

    /// Makes the directory that its changes go to, with the mode it has below.
    fn make_upper(&self, upper: &Path) -> io::Result<()> {
        let mut made = PathBuf::new();
        for name in &self.path {
            made.push(name);
            let directory = upper.join(&made);
            match fs::create_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other?,
            }
            // The layers' depth is the same as the path's: their ancestors are those of the part.
            let depth = self.path.iter().count() - made.iter().count();
            if let Some(mode) = self
                .lower
                .first()
                .and_then(|layer| layer.ancestors().nth(depth))
                .and_then(|layer| layer.metadata().ok())
                .map(|metadata| metadata.mode())
            {
                fs::set_permissions(&directory, fs::Permissions::from_mode(mode & 0o7777))?;
            }
        }
        Ok(())
    }
}

fn is_opaque(directory: &Path) -> bool {
    let mut value = [0; 1];
    rustix::fs::lgetxattr(directory, "user.overlay.opaque", &mut value[..]) == Ok(1) && value == *b"y"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_somewhere_divides_a_directory_into_parts() {
        let directory = tempfile::tempdir().unwrap();
        let (source, target) = (directory.path().join("source"), directory.path().join("target"));
        for path in ["usr/bin", "var/lib", "var/log", "proc"] {
            fs::create_dir_all(source.join(path)).unwrap();
        }
        fs::create_dir(&target).unwrap();
        fs::write(source.join("var/file"), "text").unwrap();
        std::os::unix::fs::symlink("usr/bin", source.join("bin")).unwrap();
        let points = ["proc", "var/lib/deep"].map(|point| source.join(point));
        let mut parts = Vec::new();
        build(&source, Path::new(""), &target, &points, &mut parts).unwrap();
        parts.sort();
        assert_eq!(parts, ["usr", "var/log"].map(PathBuf::from));
        assert_eq!(fs::read_to_string(target.join("var/file")).unwrap(), "text");
        assert_eq!(fs::read_link(target.join("bin")).unwrap(), Path::new("usr/bin"));
        assert!(target.join("proc").is_dir() && target.join("var/lib").is_dir());
    }

    #[test]
    fn a_layer_that_hides_the_hosts_directory_leaves_no_part() {
        let directory = tempfile::tempdir().unwrap();
        let of = |name: &str| directory.path().join(name);
        for path in ["host/usr", "host/opt", "top/usr", "upper"] {
            fs::create_dir_all(of(path)).unwrap();
        }
        fs::write(of("top/opt"), "").unwrap();
        let layers = [of("top"), of("host")];
        let part = Part::plan("usr".into(), &layers, &of("host"), &of("upper")).unwrap();
        assert_eq!(part.lower, [of("top/usr"), of("host/usr")]);
        assert!(Part::plan("opt".into(), &layers, &of("host"), &of("upper")).is_none());
    }
}
