//! Artifacts: what registries keep that is no image, small files with a type each.

use super::remote::Remote;
use super::settings::Settings;
use super::{MAX_DOCUMENT, RegistryError};
use crate::image::archive::{Descriptor, Manifest};
use crate::image::{ImageError, Reference};

/// Which kind of artifact is wanted.
#[derive(Debug, Clone, Copy)]
pub struct ArtifactKind<'a> {
    /// What its manifest says it is.
    pub artifact_type: &'a str,
    /// What type its config has where the manifest, an older one, does not say.
    pub config_type: &'a str,
}

/// An artifact, whole.
#[derive(Debug, Clone)]
pub struct FetchedArtifact {
    /// The digest that the name stands for: that of an index, if it is one.
    pub digest: String,
    pub layers: Vec<FetchedLayer>,
}

/// One file of an artifact.
#[derive(Debug, Clone)]
pub struct FetchedLayer {
    pub media_type: String,
    pub annotations: std::collections::BTreeMap<String, String>,
    pub content: Vec<u8>,
}

/// More files than this, or more bytes than a document may have in all of them, are no artifact of small files.
const MOST_LAYERS: usize = 1000;

impl FetchedArtifact {
    /// Fetches an artifact from its registry, or from a mirror where one is set and has it.
    pub async fn fetch(reference: &Reference, kind: ArtifactKind<'_>, settings: &Settings) -> Result<Self, ImageError> {
        let reference = reference.clone().tagged();
        let mut failure = None;
        for endpoint in settings.endpoints(reference.domain()) {
            let attempt = async {
                let remote = Remote::connect(&endpoint, &reference, None, false).await?;
                Self::fetch_from(&remote, kind).await
            };
            match attempt.await {
                Ok(artifact) => return Ok(artifact),
                Err(error) if endpoint.is_mirror => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(failure.unwrap_or_else(|| ImageError::NotFound(reference.familiar())))
    }

    async fn fetch_from(remote: &Remote, kind: ArtifactKind<'_>) -> Result<Self, ImageError> {
        let (bytes, digest) = remote.manifest(None).await?;
        let mut manifest = Manifest::parse(&bytes, &digest)?;
        if let Some(entries) = &manifest.manifests {
            let fits = |entry: &&Descriptor| entry.artifact_type.as_deref() == Some(kind.artifact_type);
            let entry = entries.iter().find(fits).ok_or_else(|| RegistryError::NoArtifact {
                reference: remote.reference.familiar(),
                wanted: kind.artifact_type.to_owned(),
            })?;
            let (bytes, digest) = remote.manifest(Some(&entry.digest)).await?;
            manifest = Manifest::parse(&bytes, &digest)?;
        }
        let config_type = manifest.config.as_ref().map_or("", |config| config.media_type.as_str());
        let is_wanted = match manifest.artifact_type.as_deref() {
            None | Some("") => config_type == kind.config_type,
            Some(found) => found == kind.artifact_type,
        };
        let descriptors = manifest.layers.unwrap_or_default();
        let size = descriptors
            .iter()
            .fold(0u64, |sum, layer| sum.saturating_add(layer.size));
        if !is_wanted {
            return Err(RegistryError::OtherArtifact {
                reference: remote.reference.familiar(),
                wanted: kind.artifact_type.to_owned(),
                found: manifest.artifact_type.unwrap_or_else(|| config_type.to_owned()),
            }
            .into());
        }
        if descriptors.len() > MOST_LAYERS || size > MAX_DOCUMENT {
            return Err(RegistryError::TooLarge {
                digest,
                limit: MAX_DOCUMENT,
            }
            .into());
        }
        let mut layers = Vec::with_capacity(descriptors.len());
        for descriptor in descriptors {
            layers.push(FetchedLayer {
                content: remote.document(&descriptor).await?,
                media_type: descriptor.media_type,
                annotations: descriptor.annotations,
            });
        }
        Ok(Self { digest, layers })
    }
}
