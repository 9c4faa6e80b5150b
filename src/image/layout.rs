//! Images in directories as OCI tools lay them out, written and read without a name in the store.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::archive::{OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, REF_NAME};
use super::config::Platform;
use super::files::Files;
use super::progress::ProgressSink;
use super::store::{Image, Store};
use super::{ImageError, digest, layers, sha256};

impl Store {
    /// Writes an image into a directory, beside those that are in it under other tags. Layers that are there stay.
    pub fn write_layout(&self, image: &Image, directory: &Path, tag: &str) -> Result<(), ImageError> {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(ImageError::file("create", &blobs))?;
        let put = |path: &Path, bytes: &[u8]| -> Result<(), ImageError> {
            let mut file = tempfile::NamedTempFile::new_in(directory).map_err(ImageError::file("write", path))?;
            std::io::Write::write_all(&mut file, bytes).map_err(ImageError::file("write", path))?;
            publish(file, path)
        };
        let mut entries = Vec::new();
        for layer in &image.layers {
            let path = blobs.join(digest::hex(&layer.diff_id));
            if !path.exists() {
                let file = tempfile::NamedTempFile::new_in(directory).map_err(ImageError::file("write", &path))?;
                let mut writer = std::io::BufWriter::with_capacity(1 << 20, file);
                self.write_layer_tar(layer, &mut writer)?;
                let file = writer
                    .into_inner()
                    .map_err(|error| ImageError::file("write", &path)(error.into_error()))?;
                publish(file, &path)?;
            }
            let size = path.metadata().map_err(ImageError::file("read", &path))?.len();
            entries.push(json!({"mediaType": layers::MEDIA_TYPE_TAR, "digest": layer.diff_id, "size": size}));
        }
        let config = self.read_blob(&image.id)?;
        put(&blobs.join(digest::hex(&image.id)), &config)?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": image.id, "size": config.len()},
            "layers": entries,
        }))
        .map_err(ImageError::document("a manifest"))?;
        let id = sha256(&manifest);
        put(&blobs.join(digest::hex(&id)), &manifest)?;
        let index = directory.join("index.json");
        let mut manifests = match fs::read(&index) {
            Ok(bytes) => serde_json::from_slice::<serde_json::Value>(&bytes)
                .ok()
                .and_then(|mut known| known["manifests"].as_array_mut().map(std::mem::take))
                .unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        manifests.retain(|known| known["annotations"][REF_NAME] != tag);
        manifests.push(json!({
            "mediaType": OCI_MANIFEST, "digest": id, "size": manifest.len(), "annotations": {REF_NAME: tag},
        }));
        let document = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
        put(&directory.join("oci-layout"), b"{\"imageLayoutVersion\":\"1.0.0\"}")?;
        put(&index, document.to_string().as_bytes())
    }

    /// Reads the image that a directory has under a tag.
    pub fn read_layout(&self, directory: &Path, tag: &str, progress: &ProgressSink) -> Result<Image, ImageError> {
        let _working = self.working()?;
        let files = Files::directory(directory)?;
        let loaded = self.load_layout(&files, Some(tag), &Platform::host(), progress)?;
        match loaded.into_iter().next() {
            Some((id, _)) => self.get(&id),
            None => Err(ImageError::NotFound(tag.to_owned())),
        }
    }
}

/// Gives a file its name once all of it is there, readable for whoever may see the directory.
fn publish(file: tempfile::NamedTempFile, path: &Path) -> Result<(), ImageError> {
    use std::os::unix::fs::PermissionsExt as _;
    let readable = fs::Permissions::from_mode(0o644);
    file.as_file()
        .set_permissions(readable)
        .map_err(ImageError::file("write", path))?;
    file.persist(path)
        .map_err(|error| ImageError::file("write", path)(error.error))?;
    Ok(())
}
