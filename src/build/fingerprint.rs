//! What tells one state of a directory of this machine from another, where it is built on (`FROM rootfs:/`).
//!
//! Its files are too many to be read, or even asked for their times, at every build: a machine with a desktop has a million, which
//! takes seconds. What installing, updating or removing software changes is looked at: which names every directory has, by the
//! directory's own times; and for files that are written in place, the configuration above all, their times and sizes.
//!
//! So a step is done again when something is installed, removed or configured, and not when:
//!
//! - a program or library below `/usr` is overwritten in place, under its old name. What installs software writes a new file and
//!   renames it, or removes the old one first, both of which the directory's times tell.
//! - anything changes in `/root`, `/home`, and in `/var` beside the list of packages. They change all the time (histories, logs,
//!   caches, this engine's own state), so that no step would ever be found again; and what is a build's input belongs into its
//!   context, where `COPY` sees every byte.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::image::Hasher;

/// What of a root directory is looked at, whether every file or directories only.
const LOOKED_AT: [(&str, Files); 11] = [
    ("bin", Files::Directories),
    ("sbin", Files::Directories),
    ("lib", Files::Directories),
    ("lib32", Files::Directories),
    ("lib64", Files::Directories),
    ("usr", Files::Directories),
    ("opt", Files::All),
    ("srv", Files::All),
    ("etc", Files::All),
    ("usr/local", Files::All),
    ("var/lib/dpkg/status", Files::All),
];

/// What changes all the time and is nobody's input: caches, and what belongs to the machine's run.
const PASSED_OVER: [&str; 6] = ["proc", "sys", "dev", "run", "tmp", ".cache"];

/// Entries after which it is no root of a file system but a heap of data; then directories are all that counts.
const MANY: usize = 200_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Files {
    All,
    Directories,
}

/// Returns what tells this state of a directory from others.
pub(super) fn directory(root: &Path) -> String {
    let mut walk = Walk {
        hasher: Hasher::default(),
        device: root.metadata().map(|found| found.dev()).unwrap_or_default(),
        left: MANY,
    };
    let is_root = root.join("etc").is_dir() && root.join("usr").is_dir();
    if is_root {
        for (path, files) in LOOKED_AT {
            walk.entry(&root.join(path), files);
        }
    } else {
        walk.entry(root, Files::All);
    }
    walk.hasher.finish().0
}

struct Walk {
    hasher: Hasher,
    device: u64,
    left: usize,
}

impl Walk {
    fn entry(&mut self, path: &Path, files: Files) {
        let Ok(found) = path.symlink_metadata() else { return };
        self.hasher.field(path.as_os_str().as_encoded_bytes());
        for number in [
            found.ino(),
            u64::from(found.mode()),
            found.size(),
            found.mtime() as u64,
            found.mtime_nsec() as u64,
            found.ctime() as u64,
            found.ctime_nsec() as u64,
        ] {
            self.hasher.update(&number.to_le_bytes());
        }
        // What is mounted there is not part of the image.
        if !found.is_dir() || found.dev() != self.device {
            return;
        }
        // On most file systems a directory with two links has no directory in it; its own times told the rest.
        if files == Files::Directories && found.nlink() == 2 {
            return;
        }
        let Ok(entries) = std::fs::read_dir(path) else { return };
        let mut names = Vec::new();
        for entry in entries.flatten() {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let name = entry.file_name();
            let is_passed_over = PASSED_OVER.iter().any(|passed| name == *passed) && is_directory;
            if !is_passed_over && (is_directory || files == Files::All && self.left > 0) {
                names.push(name);
            }
        }
        self.left = self.left.saturating_sub(names.len());
        names.sort();
        for name in names {
            self.entry(&path.join(name), files);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_a_new_name_and_a_mode_are_seen() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().unwrap();
        for path in ["etc/a", "usr/lib/deep/x", "usr/bin/tool", "home/me"] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "1").unwrap();
        }
        let mut seen = vec![directory(root.path())];
        let mut look = |what: &str, is_seen: bool| {
            let now = directory(root.path());
            assert_eq!(!seen.contains(&now), is_seen, "{what}");
            seen.push(now);
        };
        look("nothing changed", false);
        std::fs::write(root.path().join("etc/a"), "longer").unwrap();
        look("a file of /etc was written in place", true);
        std::fs::write(root.path().join("usr/lib/deep/y"), "").unwrap();
        look("a file appeared deep in /usr", true);
        std::fs::set_permissions(root.path().join("etc/a"), std::fs::Permissions::from_mode(0o600)).unwrap();
        look("a mode changed", true);
        std::fs::write(root.path().join("home/me"), "2").unwrap();
        look("somebody wrote a file at home", false);
    }
}
