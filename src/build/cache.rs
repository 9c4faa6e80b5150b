//! `RUN --mount=type=cache`: directories that outlive the build.
//!
//! ```text
//! <store>/mounts/<digest of the id>/0/fs     the directory
//! <store>/mounts/<digest of the id>/0/lock   held by who uses it
//! ```
//!
//! Private ones that are in use at the same time are `1`, `2` and so on. What has not been used for longest goes when all of them
//! together have become too large.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::mount::{Mount, Sharing};
use crate::image::{Hasher, Store};
use crate::os::held::Held;

/// What all caches together may hold.
const MOST: u64 = 10 << 30;

/// A cache in use.
pub(super) struct Cache {
    pub directory: PathBuf,
    /// It was made just now: there is nothing in it.
    pub is_new: bool,
    _lock: Held,
}

fn home(store: &Store) -> PathBuf {
    store.root().join("mounts")
}

/// Opens the cache that a mount names; waits for those that it may not be used with.
pub(super) fn open(store: &Store, mount: &Mount, target: &str) -> io::Result<Cache> {
    let mut hasher = Hasher::default();
    let id = if mount.id.is_empty() { target } else { &mount.id };
    hasher.field(id.as_bytes());
    // What is in it at first, and whose it is, makes it another one.
    hasher.field(mount.from.as_bytes());
    hasher.field(mount.source.as_bytes());
    let owner = [
        mount.uid.unwrap_or(0),
        mount.gid.unwrap_or(0),
        mount.mode.unwrap_or(0o755),
    ];
    hasher.field(format!("{owner:?}").as_bytes());
    let (digest, _) = hasher.finish();
    let home = home(store).join(digest.trim_start_matches("sha256:"));
    let mut number = 0;
    let (place, lock) = loop {
        let place = home.join(number.to_string());
        fs::create_dir_all(&place)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(place.join("lock"))?;
        match mount.sharing {
            Sharing::Shared => lock.lock_shared()?,
            Sharing::Locked => lock.lock()?,
            Sharing::Private => {
                if lock.try_lock().is_err() {
                    number += 1;
                    continue;
                }
            }
        }
        // It may have been taken away while it was waited for.
        match (lock.metadata(), place.join("lock").metadata()) {
            (Ok(ours), Ok(there)) if ours.ino() == there.ino() => break (place, lock),
            _ => continue,
        }
    };
    lock.set_modified(SystemTime::now())?;
    let directory = place.join("fs");
    let is_new = !directory.is_dir();
    if is_new {
        // Whole or not at all: another one may look for it.
        let making = tempfile::Builder::new().prefix("new").tempdir_in(&place)?;
        let [uid, gid, mode] = owner;
        if rustix::process::geteuid().is_root() {
            chown(making.path(), Some(uid), Some(gid))?;
        }
        fs::set_permissions(making.path(), fs::Permissions::from_mode(mode))?;
        match fs::rename(making.path(), &directory) {
            Ok(()) => {
                // It has its final name.
                let _ = making.keep();
            }
            Err(_) if directory.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Cache {
        directory,
        is_new,
        _lock: Held::new(lock),
    })
}

/// Takes away what was used longest ago, until the rest is small enough. What is in use stays.
pub(super) fn keep_bounded(store: &Store) {
    // That there is too much is no reason for a build to fail.
    let _ = shrink(store, MOST);
}

/// Takes away caches until those left hold no more than `most`, and returns how much that freed.
pub fn shrink(store: &Store, most: u64) -> io::Result<u64> {
    let mut places = Vec::new();
    let entries = match fs::read_dir(home(store)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    for entry in entries.flatten() {
        for place in fs::read_dir(entry.path())?.flatten() {
            let Ok(found) = place.path().join("lock").metadata() else {
                continue;
            };
            places.push((found.modified()?, place.path()));
        }
    }
    places.sort();
    let mut sizes: Vec<u64> = Vec::new();
    for (_, place) in &places {
        sizes.push(size(place)?);
    }
    let mut total: u64 = sizes.iter().sum();
    let mut freed = 0;
    for ((_, place), size) in places.iter().zip(sizes) {
        if total <= most && most > 0 {
            break;
        }
        let Ok(lock) = File::open(place.join("lock")) else {
            continue;
        };
        if lock.try_lock().is_err() {
            continue;
        }
        fs::remove_dir_all(place)?;
        if let Some(home) = place.parent() {
            // Another one of the same name may still be there.
            let _ = fs::remove_dir(home);
        }
        total -= size;
        freed += size;
    }
    Ok(freed)
}

fn size(path: &Path) -> io::Result<u64> {
    let mut total = 0;
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(entries) = fs::read_dir(&path) else { continue };
        for entry in entries.flatten() {
            let Ok(found) = entry.metadata() else { continue };
            total += found.blocks() * 512;
            if found.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_found_again_shared_or_not_and_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let mount =
            |text: &str| Mount::parse(&format!("type=cache,{text}"), Some(&|value| Ok(value.to_owned()))).unwrap();
        let first = open(&store, &mount("id=a,mode=0700"), "/x").unwrap();
        assert!(first.is_new);
        assert_eq!(first.directory.metadata().unwrap().mode() & 0o777, 0o700);
        fs::write(first.directory.join("f"), vec![1; 100_000]).unwrap();
        let shared = open(&store, &mount("id=a,mode=0700"), "/y").unwrap();
        assert_eq!((shared.is_new, &shared.directory), (false, &first.directory));
        let private = mount("id=b,sharing=private");
        let (one, two) = (
            open(&store, &private, "/").unwrap(),
            open(&store, &private, "/").unwrap(),
        );
        assert_ne!(one.directory, two.directory);
        assert_eq!(shrink(&store, 1 << 30).unwrap(), 0);
        assert_eq!(shrink(&store, 0).unwrap(), 0, "all are in use");
        drop((first, shared, one, two));
        assert!(shrink(&store, 0).unwrap() >= 100_000);
        assert!(open(&store, &mount("id=a,mode=0700"), "/x").unwrap().is_new);
    }
}
