//! `COPY` and `ADD` at work: what is copied, found in the cache or made a layer.

use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};

use super::copy::Target;
use super::error::Problem;
use super::fetch::Fetched;
use super::files::{MADE, cached_or, reading, writing};
use super::ignore::Ignore;
use super::mode::Change;
use super::source::{Selected, Source};
use super::turn::blocking_turn;
use crate::image::{self, FileKind, Hasher, LayerInfo, Limits, PackOptions, Store, View};

/// One COPY or ADD with everything looked up, to be done where it may block.
pub(super) struct Copying {
    pub store: Store,
    pub parts: Vec<Part>,
    /// Name and content.
    pub documents: Vec<(String, String)>,
    pub destination: PathBuf,
    /// The destination is written as a directory.
    pub into_directory: bool,
    pub owner: Option<(u32, u32)>,
    pub mode: Option<Change>,
    pub below: View,
    pub latest: Option<i64>,
}

/// What is copied from one tree.
pub(super) struct Part {
    from: Source,
    words: Vec<String>,
    /// Each file keeps the directories it lies in.
    parents: bool,
    unpacks: bool,
    /// Kept as long as its files are copied.
    _fetched: Option<Fetched>,
}

impl Part {
    pub fn local(from: Source, words: Vec<String>, parents: bool, unpacks: bool) -> Self {
        Self {
            from,
            words,
            parents,
            unpacks,
            _fetched: None,
        }
    }

    pub fn fetched(fetched: Fetched, unpacks: bool, exclude: Ignore) -> Result<Self, Problem> {
        let mut from = Source::of(&[fetched.directory()])?;
        from.exclude = exclude;
        from.is_context = true;
        Ok(Self {
            from,
            words: vec![fetched.word.clone()],
            parents: false,
            unpacks,
            _fetched: Some(fetched),
        })
    }

    fn select(&self) -> Result<Vec<Selected>, Problem> {
        let mut selected = Vec::new();
        for word in &self.words {
            selected.extend(match self.parents {
                true => self.from.select_with_parents(word)?,
                false => self.from.select(word)?,
            });
        }
        Ok(selected)
    }
}

impl Copying {
    pub fn run(self, mut hasher: Hasher, store: &Store, no_cache: bool) -> Result<(String, bool), Problem> {
        let mut selected = Vec::new();
        for part in &self.parts {
            selected.push(part.select()?);
        }
        hasher.field(self.destination.as_os_str().as_encoded_bytes());
        hasher.field(format!("{} {:?} {:?}", self.into_directory, self.owner, self.mode).as_bytes());
        for (name, data) in &self.documents {
            hasher.field(name.as_bytes());
            hasher.field(data.as_bytes());
        }
        for (part, selected) in self.parts.iter().zip(&selected) {
            hasher.field(format!("{} {}", part.parents, part.unpacks).as_bytes());
            for item in selected {
                // A file goes under its own name, a directory under the destination's.
                let name = match (item.found.is_directory(), part.parents) {
                    (_, true) => item.inside.to_string_lossy().into_owned(),
                    (true, false) => String::new(),
                    (false, false) => item.name().to_string_lossy().into_owned(),
                };
                for (path, parent) in &item.parents {
                    hasher.field(path.as_os_str().as_encoded_bytes());
                    hasher.field(&parent.stat.st_mode.to_le_bytes());
                }
                let base = item.base();
                part.from
                    .digest(&mut hasher, &item.found, &name, &base)
                    .map_err(reading(item.found.path.display().to_string()))?;
            }
        }
        let (key, _) = hasher.finish();
        let _turn = (!no_cache).then(|| blocking_turn(store, &key));
        cached_or(store, no_cache, key, || self.make(&selected))
    }

    fn make(&self, selected: &[Vec<Selected>]) -> Result<LayerInfo, Problem> {
        let scratch = self.store.scratch()?;
        let mut target = Target::new(&scratch.upper(), &self.below).map_err(writing(&scratch))?;
        target.owner = self.owner;
        target.mode.clone_from(&self.mode);
        target.made = MADE;
        for (part, selected) in self.parts.iter().zip(selected) {
            for item in selected {
                self.copy(&mut target, part, item)?;
            }
        }
        for (name, data) in &self.documents {
            let mut destination = target.resolve(&self.destination)?;
            if self.into_directory || target.is_directory(&destination)? {
                destination.push(name);
            }
            target.write(&destination, data.as_bytes(), 0o644)?;
        }
        Ok(self.store.seal(scratch, PackOptions { latest: self.latest })?)
    }

    fn copy(&self, target: &mut Target<'_>, part: &Part, item: &Selected) -> Result<(), Problem> {
        let found = &item.found;
        if part.unpacks && found.kind() == FileKind::RegularFile && self.unpack(found, target)? {
            return Ok(());
        }
        let mut destination = target.resolve(&self.destination)?;
        if part.parents {
            for (path, parent) in &item.parents {
                target.parent(&part.from, parent, &destination.join(path))?;
            }
            destination.push(&item.inside);
        } else if !found.is_directory() && (self.into_directory || target.is_directory(&destination)?) {
            destination.push(item.name());
        }
        target.base = item.base();
        target.copy(&part.from, found, &destination)
    }

    /// Unpacks a file if it is an archive; returns whether it was.
    fn unpack(&self, found: &image::Found, target: &mut Target<'_>) -> Result<bool, Problem> {
        let path = found.path.display().to_string();
        let reading = |source| Problem::ReadSource {
            path: path.clone(),
            source,
        };
        let Some(tar) = archive(&found.open().map_err(reading)?).map_err(reading)? else {
            return Ok(false);
        };
        let scratch = self.store.scratch()?;
        let limits = Limits::of(&scratch.upper()).map_err(writing(&scratch))?;
        image::unpack_layer(tar, &scratch.upper(), limits).map_err(|source| Problem::Unpack {
            path: path.clone(),
            source,
        })?;
        let unpacked = Source::of(&[scratch.upper()])?;
        if let Some(root) = unpacked.view.find(Path::new("/")).map_err(reading)? {
            target.base = PathBuf::from("/");
            target.copy(&unpacked, &root, &self.destination)?;
        }
        Ok(true)
    }
}

/// Opens a file as the tar that it is, compressed or not. What is compressed but no tar, or not even that, is none.
pub(super) fn archive(file: &std::fs::File) -> std::io::Result<Option<impl std::io::Read + use<>>> {
    let mut file = file.try_clone()?;
    file.rewind()?;
    let Ok(mut tar) = image::decompress(file) else {
        return Ok(None);
    };
    let mut header = tar::Header::new_old();
    if tar.read_exact(header.as_mut_bytes()).is_err() || !is_tar_header(&header) {
        return Ok(None);
    }
    Ok(Some(std::io::Cursor::new(header.as_bytes().to_vec()).chain(tar)))
}

fn is_tar_header(header: &tar::Header) -> bool {
    let bytes = header.as_bytes();
    // The checksum field itself counts as spaces.
    let sum: u32 = bytes
        .iter()
        .enumerate()
        .map(|(at, byte)| u32::from(if (148..156).contains(&at) { b' ' } else { *byte }))
        .sum();
    header.cksum().is_ok_and(|stated| stated == sum)
}
