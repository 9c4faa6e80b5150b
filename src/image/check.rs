//! Disks forget, and page caches are only memory: the layers that containers run from are read once in every life of the machine,
//! and compared with what they were.
//!
//! Reading all of an image before each start would cost more than the start, so it is done beside it, by a thread that gives way to
//! all others. A layer that changed is distrusted: whoever uses its image next is told, and the next pull makes it anew.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::store::{Image, LayerInfo, Store};
use super::verify::packed;
use super::{ImageError, digest, index, layers};

/// Beside a layer: what its directory was when it was last looked at.
pub(super) const CHECKED: &str = "checked.json";

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Checked {
    /// During which life of the machine it was made or looked at.
    boot: String,
    /// The digest of its directory packed. None yet if it was only made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tree: Option<String>,
}

impl Store {
    /// Returns the layers of an image that nobody has looked at since the machine started.
    pub fn unchecked(&self, image: &Image) -> Vec<LayerInfo> {
        let is_new = |layer: &&LayerInfo| {
            let checked = self.checked(&layer.diff_id);
            checked.tree.is_none() || checked.boot != layers::boot()
        };
        image.layers.iter().filter(is_new).cloned().collect()
    }

    /// Reads a layer, and returns an error if it is not what it was: then it is one no more. `image` is one that has it.
    pub fn check_layer(&self, layer: &LayerInfo, image: &Image) -> Result<(), ImageError> {
        let _working = self.working()?;
        let id = &layer.diff_id;
        let known = self.checked(id);
        let is_made_now = known.tree.is_none() && known.boot == layers::boot();
        let result = match &known.tree {
            // What it was when it was made is known by its digest, or by unpacking it once more.
            None if !is_made_now => {
                let below = image.layers.iter().take_while(|other| other.diff_id != *id);
                let below: Vec<String> = below.map(|layer| layer.diff_id.clone()).collect();
                self.verify_layer(id, &BTreeSet::from([below]))
            }
            _ => Ok(()),
        };
        let result = result
            .and_then(|()| packed(&self.layer_directory(id), layer))
            .and_then(|tree| {
                let is_same = known.tree.as_ref().is_none_or(|known| *known == tree);
                if is_same {
                    Ok(tree)
                } else {
                    Err(self.changed(id, known.tree, tree))
                }
            });
        match result {
            Ok(tree) => self.set_checked(id, tree),
            Err(error) => {
                // What cannot be read now may be read later; what differs has changed.
                if matches!(error, ImageError::Digest { .. }) {
                    self.distrust(id)?;
                }
                Err(error)
            }
        }
    }

    fn changed(&self, id: &str, expected: Option<String>, actual: String) -> ImageError {
        ImageError::Digest {
            what: format!("the directory of layer {}", digest::short(id)),
            expected: expected.unwrap_or_default(),
            actual,
        }
    }

    fn set_checked(&self, diff_id: &str, tree: String) -> Result<(), ImageError> {
        let path = self.checked_path(diff_id);
        let tmp = self.root().join("tmp");
        index::write_bytes_by(&tmp, &path, &said(Some(tree))?, false).map_err(ImageError::file("write", &path))
    }

    fn checked(&self, diff_id: &str) -> Checked {
        // One that is damaged says nothing; the layer is looked at with more care then.
        index::read(&self.checked_path(diff_id)).unwrap_or_default()
    }

    fn checked_path(&self, diff_id: &str) -> PathBuf {
        let directory = self.layer_directory(diff_id);
        directory.with_file_name(CHECKED)
    }
}

/// Returns what stands beside a layer that was made just now.
pub(super) fn made_now() -> Result<Vec<u8>, ImageError> {
    said(None)
}

fn said(tree: Option<String>) -> Result<Vec<u8>, ImageError> {
    let boot = layers::boot().to_owned();
    let bytes = serde_json::to_vec(&Checked { boot, tree }).map_err(ImageError::document(CHECKED))?;
    Ok(index::seal(bytes))
}
