//! How much room things take.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::archive::open_in;

/// Returns the bytes of all files below a directory, files with several names counted once.
pub fn size(directory: &Path) -> u64 {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = rustix::fs::open(directory, flags, Mode::empty()) else {
        return 0;
    };
    let mut total = 0;
    let mut seen = HashSet::new();
    let mut waiting = vec![PathBuf::from("/")];
    while let Some(directory) = waiting.pop() {
        // A container that runs may exchange a directory for a link at any time.
        let Ok(opened) = open_in(root.as_fd(), &directory, flags | OFlags::NOFOLLOW) else {
            continue;
        };
        let Ok(entries) = rustix::fs::Dir::read_from(&opened) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let Ok(found) = rustix::fs::statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                waiting.push(directory.join(name));
            } else if found.st_nlink < 2 || seen.insert((found.st_dev, found.st_ino)) {
                total += u64::try_from(found.st_size).unwrap_or_default();
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::exchange;

    #[test]
    fn files_are_counted_once_and_those_outside_never() {
        let directory = tempfile::tempdir().unwrap();
        let (own, outside) = (directory.path().join("own"), directory.path().join("outside"));
        std::fs::create_dir_all(own.join("inner/deep")).unwrap();
        std::fs::create_dir_all(outside.join("deep")).unwrap();
        std::fs::write(own.join("inner/deep/file"), [0; 1000]).unwrap();
        std::fs::hard_link(own.join("inner/deep/file"), own.join("again")).unwrap();
        assert_eq!(size(&own), 1000);
        assert_eq!(size(&own.join("nothing")), 0);
        std::fs::write(outside.join("deep/file"), vec![0; 1 << 20]).unwrap();
        std::os::unix::fs::symlink(&outside, own.join("link")).unwrap();
        let most = exchange::meanwhile(&own.join("inner"), &own.join("link"), || {
            (0..3000).map(|_| size(&own)).max()
        });
        assert!(most.is_some_and(|most| most < 1 << 20), "{most:?}");
    }
}
