//! Pushing what is no image: blobs and the manifest that lists them.

use http::StatusCode;
use reqwest::Body;

use super::remote::{Remote, Upload};
use super::settings::Settings;
use super::{PushOptions, RegistryError, TransportError, retrying};
use crate::image::reference::Reference;
use crate::image::{ImageError, sha256};

/// What is pushed: the manifest last, so that nobody sees one whose blobs are not there.
#[derive(Debug, Clone, Default)]
pub struct Artifact {
    pub blobs: Vec<Vec<u8>>,
    pub manifest: Vec<u8>,
    /// The manifest for registries that refuse the first, as those do that know version 1.0 of the specification.
    pub fallback: Option<Vec<u8>>,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Pushes an artifact under a tag, and returns the digest of the manifest that was taken.
pub async fn push_artifact(
    reference: &Reference,
    artifact: &Artifact,
    options: &PushOptions,
) -> Result<String, ImageError> {
    let reference = reference.clone().tagged();
    let Some(tag) = reference.tag().map(str::to_owned) else {
        return Err(RegistryError::PushWithoutTag.into());
    };
    let settings = match &options.settings {
        Some(settings) => settings.clone(),
        None => Settings::load()?,
    };
    let endpoint = settings.origin(reference.domain());
    let remote = Remote::connect(&endpoint, &reference, options.login.as_ref(), true).await?;
    for blob in &artifact.blobs {
        let digest = sha256(blob);
        let send = retrying(
            |_| {},
            async || {
                if remote.has_blob(&digest).await? {
                    return Ok(());
                }
                match remote.begin_upload(&digest, None).await? {
                    Upload::To(url) => {
                        let body = || Ok(Body::from(blob.clone()));
                        remote.upload(url, &digest, blob.len() as u64, &body).await
                    }
                    Upload::Mounted(_) => Ok(()),
                }
            },
        );
        send.await.map_err(|error| remote.push_refused(error))?;
    }
    let put = async |manifest: &Vec<u8>| retrying(|_| {}, || remote.put_manifest(&tag, manifest, MANIFEST)).await;
    let taken = match (put(&artifact.manifest).await, &artifact.fallback) {
        (Err(TransportError::Answer(answer)), Some(fallback)) if answer.status == StatusCode::BAD_REQUEST => {
            put(fallback).await.map(|()| fallback)
        }
        (result, _) => result.map(|()| &artifact.manifest),
    };
    Ok(sha256(taken.map_err(|error| remote.push_refused(error))?))
}
