//! Compose files in registries, fetched by the client that images are pulled with.

use crate::file::remote::artifact::{Artifact, Layer, PROJECT, PROJECT_CONFIG, Registry};
use crate::image::{self, ArtifactKind, ImageError, Reference, Settings, chain};

/// The registries of this machine's settings and logins.
#[derive(Debug)]
pub struct Registries {
    /// Those that need not prove who they are.
    pub insecure: Vec<String>,
}

impl Registry for Registries {
    /// Files are read in the middle of whatever the command does, so the network gets a thread and a runtime of its own.
    fn fetch(&self, name: &str) -> Result<Artifact, String> {
        let fail = |error: ImageError| format!("failed to pull OCI resource \"{name}\": {}", chain(&error));
        let reference = Reference::parse(name).map_err(|error| fail(error.into()))?;
        let fetched = std::thread::scope(|scope| {
            // All of the runtime lives in its own thread: one may not end inside another.
            let fetching = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.map_err(|error| error.to_string())?;
                runtime.block_on(self.fetch_artifact(&reference)).map_err(fail)
            });
            fetching.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let artifact = fetched?;
        Ok(Artifact {
            digest: artifact.digest,
            layers: artifact
                .layers
                .into_iter()
                .map(|layer| Layer {
                    media_type: layer.media_type,
                    annotations: layer.annotations,
                    content: layer.content,
                })
                .collect(),
        })
    }
}

impl Registries {
    async fn fetch_artifact(&self, reference: &Reference) -> Result<image::FetchedArtifact, ImageError> {
        let mut settings = Settings::load()?;
        settings.insecure.extend(self.insecure.iter().cloned());
        let kind = ArtifactKind {
            artifact_type: PROJECT,
            config_type: PROJECT_CONFIG,
        };
        image::FetchedArtifact::fetch(reference, kind, &settings).await
    }
}
