//! What a registry has under a name now; nothing of it is kept.

use super::{PullOptions, pull};
use crate::image::archive::{self, DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, Manifest, OCI_INDEX, OCI_MANIFEST};
use crate::image::config::Platform;
use crate::image::{ImageError, Reference};

/// An image, or an index of some, in a registry.
#[derive(Debug, Clone)]
pub struct RemoteImage {
    pub media_type: &'static str,
    pub digest: String,
    pub size: u64,
    /// What it is for: that of the image, or those that the index lists.
    pub platforms: Vec<Platform>,
}

/// Asks the registry, or a mirror of it, what it has under a name.
pub async fn inspect_remote(reference: &Reference, options: &PullOptions) -> Result<RemoteImage, ImageError> {
    pull::ask_somewhere(reference, options, async |remote| {
        let (bytes, digest) = remote.manifest(None).await?;
        let manifest = Manifest::parse(&bytes, &digest)?;
        let platforms = match (&manifest.manifests, &manifest.config) {
            (Some(entries), _) => entries.iter().filter_map(platform).collect(),
            (None, Some(config)) => {
                let document = archive::parse_config(&remote.document(config).await?, &config.digest)?;
                vec![Platform {
                    os: document.os,
                    architecture: document.architecture,
                    variant: document.variant,
                }]
            }
            (None, None) => Vec::new(),
        };
        let is_index = manifest.manifests.is_some();
        Ok(RemoteImage {
            media_type: match manifest.media_type.as_deref() {
                Some(DOCKER_MANIFEST) => DOCKER_MANIFEST,
                Some(DOCKER_INDEX) => DOCKER_INDEX,
                _ if is_index => OCI_INDEX,
                _ => OCI_MANIFEST,
            },
            digest,
            size: bytes.len() as u64,
            platforms,
        })
    })
    .await
}

fn platform(entry: &Descriptor) -> Option<Platform> {
    let platform = entry.platform.as_ref()?;
    Some(Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
    })
}
