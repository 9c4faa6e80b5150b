//! Whether everything in the store is what its digest says. What is not is named, and no longer taken for it, so that the next pull
//! or build makes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::Path;

use super::digest::{HashingReader, HashingWriter};
use super::layers;
use super::pack::{self, PackOptions};
use super::store::{LayerInfo, Store};
use super::{ImageError, digest, unpack};

/// Something in the store that is not what it is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// `layer 0123456789ab`, `the config` …
    pub what: String,
    /// The names or ids of the images that have it; none if only the build cache does.
    pub images: Vec<String>,
    pub problem: String,
}

impl Store {
    /// Reads everything in the store and returns what is damaged.
    pub fn verify(&self) -> Result<Vec<Damage>, ImageError> {
        let _working = self.working()?;
        let mut damages = Vec::new();
        let records: BTreeMap<_, _> = self
            .records()?
            .into_iter()
            .filter(|(_, record)| !record.detached)
            .collect();
        let names = self.names()?;
        let called = |id: &String| -> Vec<String> {
            let known = names.iter().filter(|(_, named)| named == id);
            let known: Vec<String> = known.map(|(name, _)| name.clone()).collect();
            if known.is_empty() { vec![id.clone()] } else { known }
        };
        let mut parents: BTreeMap<String, BTreeSet<Vec<String>>> = BTreeMap::new();
        let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (id, record) in &records {
            let documents = [("the config", Some(id)), ("the manifest", record.manifest.as_ref())];
            for (what, digest) in documents {
                if let Some(Err(error)) = digest.map(|digest| self.read_blob(digest)) {
                    damages.push(Damage {
                        what: what.to_owned(),
                        images: called(id),
                        problem: describe(&error),
                    });
                    self.forget_config(id);
                }
            }
            for (position, layer) in record.layers.iter().enumerate() {
                let below = record.layers[..position].to_vec();
                parents.entry(layer.clone()).or_default().insert(below);
                owners.entry(layer.clone()).or_default().extend(called(id));
            }
        }
        for layer in self.cache()?.into_values().filter_map(|record| record.layer) {
            // What a build made and was then removed is no damage: the step is done again.
            if self.read_layer(&layer).is_ok() {
                parents.entry(layer).or_default();
            }
        }
        for (layer, parents) in &parents {
            if let Err(error) = self.verify_layer(layer, parents) {
                self.distrust(layer)?;
                damages.push(Damage {
                    what: format!("layer {}", digest::short(layer)),
                    images: owners.get(layer).into_iter().flatten().cloned().collect(),
                    problem: describe(&error),
                });
            }
        }
        Ok(damages)
    }

    pub(super) fn verify_layer(&self, diff_id: &str, parents: &BTreeSet<Vec<String>>) -> Result<(), ImageError> {
        let info = self.read_layer(diff_id)?;
        let directory = self.layer_directory(diff_id);
        let Some(blob) = &info.blob else {
            return self.verify_packed(&info);
        };
        let path = self.blob_path(&blob.digest);
        let reading = || ImageError::file("read", &path);
        let mut file = HashingReader::new(File::open(&path).map_err(reading())?);
        let (_, tar) = layers::decompress(&mut file).map_err(reading())?;
        let fresh = self.unpack(tar, Some(diff_id));
        let (actual, _) = file.finish().map_err(reading())?;
        let fresh = match fresh {
            Ok(fresh) if actual == blob.digest => fresh,
            other => {
                // The tar is still in the directory, if packing it gives that.
                if self.verify_packed(&info).is_ok() {
                    return self.forget_layer_blob(&info);
                }
                other?;
                return Err(ImageError::Digest {
                    what: "blob".to_owned(),
                    expected: blob.digest.clone(),
                    actual,
                });
            }
        };
        let stored = packed(&directory, &info)?;
        let nothing = BTreeSet::from([Vec::new()]);
        let parents = if parents.is_empty() { &nothing } else { parents };
        let mut last = String::new();
        for below in parents {
            // Directories that the tar only implies were given the looks they have in the layers below.
            let below: Vec<_> = below.iter().rev().map(|below| self.layer_directory(below)).collect();
            unpack::settle(&fresh.directory(), &fresh.implied()?, &below)
                .map_err(ImageError::file("settle", &directory))?;
            last = packed(&fresh.directory(), &info)?;
            if last == stored {
                return Ok(());
            }
        }
        Err(ImageError::Digest {
            what: "the directory of the layer".to_owned(),
            expected: last,
            actual: stored,
        })
    }

    fn verify_packed(&self, info: &LayerInfo) -> Result<(), ImageError> {
        let actual = packed(&self.layer_directory(&info.diff_id), info)?;
        if actual == info.diff_id {
            return Ok(());
        }
        Err(ImageError::Digest {
            what: "layer".to_owned(),
            expected: info.diff_id.clone(),
            actual,
        })
    }
}

pub(super) fn packed(directory: &Path, info: &LayerInfo) -> Result<String, ImageError> {
    let writer = HashingWriter::new(io::sink());
    let (writer, _) =
        pack::pack_directory(directory, writer, PackOptions::default()).map_err(|source| ImageError::Pack {
            layer: digest::short(&info.diff_id).to_owned(),
            source,
        })?;
    Ok(writer.finish().1)
}

fn describe(error: &ImageError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
