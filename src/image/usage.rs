//! How much room the store takes on the disk, to the block, and what of it would come back.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::store::Store;
use super::{ImageError, digest};

/// Adds up what files take on the disk, as `du` does: blocks and not lengths, directories as well, and what has several names
/// once.
#[derive(Debug, Default)]
pub struct Blocks {
    seen: HashSet<(u64, u64)>,
}

impl Blocks {
    /// Returns what a file, or a directory with all that is in it, takes in bytes. Other file systems mounted there do not count.
    pub fn of(&mut self, path: &Path) -> u64 {
        let Ok(top) = path.symlink_metadata() else {
            // What was removed meanwhile takes nothing.
            return 0;
        };
        let mut total = self.one(&top);
        let mut waiting = Vec::new();
        if top.is_dir() {
            waiting.push(path.to_owned());
        }
        while let Some(directory) = waiting.pop() {
            let Ok(entries) = std::fs::read_dir(&directory) else {
                continue;
            };
            for entry in entries.flatten() {
                let Ok(found) = entry.metadata() else { continue };
                if found.dev() != top.dev() {
                    continue;
                }
                total += self.one(&found);
                if found.is_dir() {
                    waiting.push(entry.path());
                }
            }
        }
        total
    }

    /// Returns what this entry alone takes.
    fn one(&mut self, found: &std::fs::Metadata) -> u64 {
        if !found.is_dir() && found.nlink() > 1 && !self.seen.insert((found.dev(), found.ino())) {
            return 0;
        }
        // Blocks are of 512 bytes, whatever the file system's are.
        found.blocks() * 512
    }
}

/// What the store takes, in bytes on the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreUsage {
    /// Layers and blobs of images.
    pub images: u64,
    /// Those of them that only images have which nobody uses.
    pub unused: u64,
    /// Layers that only steps of builds have.
    pub cache: u64,
    /// What nobody has (any more), and the next removal takes away.
    pub garbage: u64,
    /// The index and the like, and what is being made.
    pub rest: u64,
}

impl StoreUsage {
    pub fn total(&self) -> u64 {
        self.images + self.cache + self.garbage + self.rest
    }
}

impl Store {
    /// Measures the store. `is_used` says of an image's id whether somebody uses it.
    pub fn usage(&self, is_used: impl Fn(&str) -> bool, blocks: &mut Blocks) -> Result<StoreUsage, ImageError> {
        let (mut used, mut named, mut cached) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (id, record) in self.records()? {
            let mut digests: BTreeSet<String> = record.layers.iter().cloned().collect();
            for layer in &record.layers {
                digests.extend(
                    self.layer(layer)
                        .ok()
                        .and_then(|info| info.blob)
                        .map(|blob| blob.digest),
                );
            }
            digests.insert(id.clone());
            digests.extend(record.manifest);
            if is_used(&id) {
                used.extend(digests.iter().cloned());
            }
            named.extend(digests);
        }
        for layer in self.cache()?.into_values().filter_map(|record| record.layer) {
            cached.extend(
                self.layer(&layer)
                    .ok()
                    .and_then(|info| info.blob)
                    .map(|blob| blob.digest),
            );
            cached.insert(layer);
        }
        let mut usage = StoreUsage::default();
        for (path, known) in self.places()? {
            let size = blocks.of(&path);
            match known {
                None => usage.rest += size,
                Some(digest) if named.contains(&digest) => {
                    usage.images += size;
                    if !used.contains(&digest) {
                        usage.unused += size;
                    }
                }
                Some(digest) if cached.contains(&digest) => usage.cache += size,
                Some(_) => usage.garbage += size,
            }
        }
        // The directories around them.
        for directory in ["", "layers", "blobs", "blobs/sha256"] {
            if let Ok(found) = self.root().join(directory).symlink_metadata() {
                usage.rest += blocks.one(&found);
            }
        }
        Ok(usage)
    }

    /// Returns everything in the store, layers and blobs with their digest.
    fn places(&self) -> Result<Vec<(std::path::PathBuf, Option<String>)>, ImageError> {
        let mut places = Vec::new();
        for (directory, holds_digests) in [("", false), ("layers", true), ("blobs", false), ("blobs/sha256", true)] {
            let directory = self.root().join(directory);
            let reading = || ImageError::file("read", &directory);
            for entry in std::fs::read_dir(&directory).map_err(reading())? {
                let entry = entry.map_err(reading())?;
                let name = entry.file_name();
                let name = name.to_str().unwrap_or_default();
                if !holds_digests && matches!(name, "layers" | "blobs" | "sha256") {
                    continue;
                }
                let known = (holds_digests && digest::is_hex(name)).then(|| format!("sha256:{name}"));
                places.push((entry.path(), known));
            }
        }
        Ok(places)
    }

    /// Drops the build steps that were not used for the longest time, until what only the build cache has takes no more than `limit`
    /// bytes. Returns how many bytes that frees.
    pub fn trim_cache(&self, limit: u64) -> Result<u64, ImageError> {
        let mut blocks = Blocks::default();
        let named: BTreeSet<String> = self
            .records()?
            .into_iter()
            .flat_map(|(_, record)| record.layers)
            .collect();
        let mut sizes = std::collections::BTreeMap::new();
        let mut records: Vec<_> = self.cache()?.into_iter().collect();
        // Far below the limit nothing need be measured.
        let layers: BTreeSet<&String> = records.iter().filter_map(|(_, record)| record.layer.as_ref()).collect();
        let about: u64 = layers
            .iter()
            .filter_map(|layer| self.layer(layer).ok())
            .map(|info| info.size)
            .sum();
        if about < limit / 2 {
            return Ok(0);
        }
        for layer in records.iter().filter_map(|(_, record)| record.layer.as_ref()) {
            if !named.contains(layer) && !sizes.contains_key(layer) {
                let directory = self.layer_directory(layer);
                sizes.insert(layer.clone(), blocks.of(directory.parent().unwrap_or(&directory)));
            }
        }
        let mut total: u64 = sizes.values().sum();
        if total <= limit {
            return Ok(0);
        }
        records.sort_by_key(|(_, record)| record.used);
        let mut dropped = BTreeSet::new();
        for (key, record) in &records {
            if total <= limit {
                break;
            }
            // Several steps may have made the same layer; it goes with the last of them.
            let Some(layer) = record.layer.as_ref().filter(|layer| sizes.contains_key(*layer)) else {
                continue;
            };
            dropped.insert(key.clone());
            let is_last = !records
                .iter()
                .any(|(other, record)| !dropped.contains(other) && record.layer.as_ref() == Some(layer));
            if is_last {
                total -= sizes[layer];
            }
        }
        self.prune_cache(|key, _| !dropped.contains(key))
    }

    /// Returns how large the build cache may grow if nobody says otherwise: a tenth of the disk.
    pub fn default_cache_limit(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(self.root())?;
        Ok(disk.f_blocks.saturating_mul(disk.f_frsize) / 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_measured_as_du_does() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, vec![1; 10_000]).unwrap();
        std::fs::create_dir(directory.path().join("inner")).unwrap();
        std::fs::hard_link(&file, directory.path().join("inner/again")).unwrap();
        let sparse = std::fs::File::create(directory.path().join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        let du = std::process::Command::new("du")
            .args(["-s", "--block-size=1"])
            .arg(directory.path())
            .output()
            .unwrap();
        let expected: u64 = String::from_utf8(du.stdout)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(Blocks::default().of(directory.path()), expected);
    }
}
