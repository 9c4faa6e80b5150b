//! Copying an image from one repository to another, as it is: nothing of it is unpacked or kept here.

use std::io::Write as _;

use bytes::Bytes;
use http::StatusCode;
use reqwest::Body;
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::remote::{Remote, Upload};
use super::settings::Settings;
use super::{PushOptions, RegistryError, TransportError, retrying};
use crate::image::archive::{DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, OCI_INDEX, OCI_MANIFEST};
use crate::image::digest::HashingWriter;
use crate::image::{ImageError, Reference, sha256};

/// Copies an image, for all its platforms, into the repository of `into`, where only its digest names it. Returns its descriptor.
pub async fn copy_image(image: &Reference, into: &Reference, options: &PushOptions) -> Result<Value, ImageError> {
    let settings = match &options.settings {
        Some(settings) => settings.clone(),
        None => Settings::load()?,
    };
    let image = image.clone().tagged();
    let source = Remote::connect(&settings.origin(image.domain()), &image, None, false).await?;
    let target = settings.origin(into.domain());
    let target = Remote::connect(&target, into, options.login.as_ref(), true).await?;
    let copy = Copy { source, target };
    let (bytes, digest) = copy.source.manifest(None).await?;
    copy.manifest(&bytes, &digest).await
}

/// Puts an index into a repository, where only its digest names it.
pub async fn push_index(reference: &Reference, index: &Value, options: &PushOptions) -> Result<String, ImageError> {
    let settings = match &options.settings {
        Some(settings) => settings.clone(),
        None => Settings::load()?,
    };
    let endpoint = settings.origin(reference.domain());
    let remote = Remote::connect(&endpoint, reference, options.login.as_ref(), true).await?;
    let bytes = index.to_string().into_bytes();
    let digest = sha256(&bytes);
    let put = retrying(|_| {}, || remote.put_manifest(&digest, &bytes, OCI_INDEX)).await;
    put.map_err(|error| remote.push_refused(error))?;
    Ok(digest)
}

struct Copy {
    source: Remote,
    target: Remote,
}

impl Copy {
    /// Copies what a manifest lists, and then the manifest itself.
    async fn manifest(&self, bytes: &[u8], digest: &str) -> Result<Value, ImageError> {
        let document: Value = serde_json::from_slice(bytes).map_err(ImageError::document("a manifest"))?;
        let is_index = document.get("manifests").is_some();
        let media_type = match document.get("mediaType").and_then(Value::as_str) {
            Some(DOCKER_MANIFEST) => DOCKER_MANIFEST,
            Some(DOCKER_INDEX) => DOCKER_INDEX,
            _ if is_index => OCI_INDEX,
            _ => OCI_MANIFEST,
        };
        let listed = |name: &str| document.get(name).and_then(Value::as_array).into_iter().flatten();
        for child in listed("manifests").filter_map(|child| child.get("digest").and_then(Value::as_str)) {
            let (bytes, digest) = self.source.manifest(Some(child)).await?;
            Box::pin(self.manifest(&bytes, &digest)).await?;
        }
        for blob in document.get("config").into_iter().chain(listed("layers")) {
            let blob = Descriptor::deserialize(blob).map_err(ImageError::document("a manifest"))?;
            self.blob(&blob).await?;
        }
        let put = retrying(|_| {}, || self.target.put_manifest(digest, bytes, media_type)).await;
        put.map_err(|error| self.target.push_refused(error))?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
    }

    async fn blob(&self, blob: &Descriptor) -> Result<(), ImageError> {
        let refused = |error| self.target.push_refused(error);
        let has_blob = retrying(|_| {}, || self.target.has_blob(&blob.digest)).await;
        if has_blob.map_err(refused)? {
            return Ok(());
        }
        let (from, to) = (&self.source.reference, &self.target.reference);
        if from.domain() == to.domain() {
            let mounted = retrying(|_| {}, || self.target.begin_upload(&blob.digest, Some(from.path()))).await;
            match mounted {
                Ok(Upload::Mounted(_)) => return Ok(()),
                Ok(Upload::To(_)) => {}
                // Who may write here need not be one who may read there.
                Err(TransportError::Answer(answer)) if answer.status != StatusCode::NOT_FOUND => {}
                Err(error) => return Err(refused(error)),
            }
        }
        let file = self.fetch(blob).await?;
        let sent = retrying(
            |_| {},
            async || {
                let Upload::To(url) = self.target.begin_upload(&blob.digest, None).await? else {
                    return Ok(());
                };
                let body = || Ok(Body::from(tokio::fs::File::from_std(file.reopen()?)));
                self.target.upload(url, &blob.digest, blob.size, &body).await
            },
        );
        sent.await.map_err(refused)
    }

    /// Fetches a blob into a file that has no name for long.
    async fn fetch(&self, blob: &Descriptor) -> Result<tempfile::NamedTempFile, ImageError> {
        let mut file = tempfile::NamedTempFile::new().map_err(ImageError::file("write", &std::env::temp_dir()))?;
        let path = file.path().to_owned();
        let mut hashing = HashingWriter::new(&mut file);
        let (sender, mut receiver) = mpsc::channel::<Bytes>(16);
        let write = async {
            while let Some(bytes) = receiver.recv().await {
                hashing.write_all(&bytes).map_err(ImageError::file("write", &path))?;
            }
            Ok::<_, ImageError>(())
        };
        let read = async {
            let result = self.source.blob(blob, &sender, |_| {}, |_| {}).await;
            drop(sender);
            result
        };
        let (written, read) = tokio::join!(write, read);
        written?;
        read?;
        let (_, actual, size) = hashing.finish();
        if actual != blob.digest {
            return Err(ImageError::Digest {
                what: format!("a blob of {}", self.source.reference.familiar()),
                expected: blob.digest.clone(),
                actual,
            });
        }
        if blob.size != size {
            return Err(RegistryError::Size {
                digest: actual,
                stated: blob.size,
                actual: size,
            }
            .into());
        }
        Ok(file)
    }
}
