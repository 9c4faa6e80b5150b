//! Unpacks layers that are changed at random, for as long as one likes: `cargo bench --bench unpack_fuzz [SECONDS [SEED]]`.
//!
//! Whatever the bytes, unpacking must not panic, must leave nothing outside its directory, and must come to an end within its
//! limits. The seed is printed, so that what was found can be found again. Where to begin from: tars of every kind of entry, and of
//! every trick that the tests know. Needs no other tool and no nightly compiler; it does not know which branches it has reached.
#![allow(clippy::print_stdout, reason = "a bench says what it did")]

use std::path::Path;
use std::time::{Duration, Instant};

use compose::image::{Limits, unpack_layer};

fn main() {
    let arguments: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let seconds = arguments.first().copied().unwrap_or(10);
    let seed = arguments
        .get(1)
        .copied()
        .unwrap_or_else(|| u64::from(std::process::id()) | 1);
    println!("seed {seed}");
    let mut random = Random(seed.max(1));
    let base = tempfile::tempdir().expect("a directory");
    let canary = base.path().join("canary");
    let corpus = corpus();
    let limits = Limits {
        entries: 200,
        bytes: 1 << 20,
    };
    let (begun, mut rounds, mut unpacked) = (Instant::now(), 0_u64, 0_u64);
    while begun.elapsed() < Duration::from_secs(seconds) {
        std::fs::write(&canary, "untouched").expect("a file");
        let inside = base.path().join("inside");
        std::fs::create_dir(&inside).expect("a directory");
        let layer = random.change(&corpus);
        unpacked += u64::from(unpack_layer(&layer[..], &inside, limits).is_ok());
        let left: Vec<_> = std::fs::read_dir(base.path())
            .expect("our directory")
            .flatten()
            .collect();
        assert_eq!(left.len(), 2, "something was made outside: {left:?}");
        assert_eq!(std::fs::read(&canary).expect("the canary lives"), b"untouched");
        assert!(total(&inside) <= 4 << 20, "more was written than the limits allow");
        std::fs::remove_dir_all(&inside).expect("our directory");
        rounds += 1;
    }
    println!("{rounds} layers, {unpacked} of which could be unpacked");
}

fn total(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => total(&entry.path()),
            Ok(found) if found.is_file() => found.len(),
            _ => 0,
        })
        .sum()
}

/// Returns entries to make layers of.
fn corpus() -> Vec<Vec<u8>> {
    use tar::EntryType;
    let paths = [
        "a",
        "a/b",
        "a/b/c",
        "../canary",
        "/canary",
        "a/../../canary",
        "a/.wh.b",
        "a/.wh..wh..opq",
        ".wh...",
        "./",
        "dev/null",
    ];
    let kinds = [
        EntryType::Regular,
        EntryType::Directory,
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Fifo,
        EntryType::Char,
        EntryType::Block,
        EntryType::XHeader,
        EntryType::GNULongName,
        EntryType::GNUSparse,
    ];
    let mut corpus = Vec::new();
    for path in paths {
        for kind in kinds {
            for target in ["", "a", "..", "../..", "/", "../canary", "/proc/self/root"] {
                let data: &[u8] = match kind {
                    EntryType::Regular => b"some data",
                    EntryType::XHeader => b"30 mtime=1350244992.023960108\n22 SCHILY.xattr.a.b=c\n",
                    EntryType::GNULongName => b"../canary\0",
                    _ => b"",
                };
                let mut header = tar::Header::new_gnu();
                let name = &mut header.as_old_mut().name;
                name[..path.len()].copy_from_slice(path.as_bytes());
                let link = &mut header.as_old_mut().linkname;
                link[..target.len()].copy_from_slice(target.as_bytes());
                header.set_entry_type(kind);
                header.set_mode(0o755);
                header.set_uid(0);
                header.set_gid(0);
                header.set_mtime(1);
                header.set_size(data.len() as u64);
                header.set_cksum();
                let mut entry = header.as_bytes().to_vec();
                entry.extend_from_slice(data);
                entry.resize(entry.len().div_ceil(512) * 512, 0);
                corpus.push(entry);
            }
        }
    }
    corpus
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as usize
    }

    /// Puts entries together and changes some of their bytes, with a right checksum as a rule: else nothing is read further.
    fn change(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut layer = Vec::new();
        for _ in 0..1 + self.next() % 8 {
            let mut entry = corpus[self.next() % corpus.len()].clone();
            for _ in 0..self.next() % 4 {
                let at = self.next() % entry.len();
                entry[at] = match self.next() % 4 {
                    0 => b'/',
                    1 => b'.',
                    2 => b'7',
                    _ => self.next() as u8,
                };
            }
            if !self.next().is_multiple_of(8) {
                entry[148..156].fill(b' ');
                let sum: u32 = entry[..512].iter().map(|&byte| u32::from(byte)).sum();
                entry[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            layer.extend(entry);
        }
        layer.resize(layer.len() + self.next() % 3 * 512, 0);
        layer.truncate(layer.len() - self.next() % 3);
        layer
    }
}
