//! Pushing: layers the registry does not have, the config, and last the manifest that makes them an image.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _};
use reqwest::Body;
use serde_json::json;

use super::remote::{Remote, Upload};
use super::settings::Settings;
use super::{PushOptions, RegistryError, blocking, retrying};
use crate::image::archive::{DOCKER_MANIFEST, Manifest, OCI_MANIFEST};
use crate::image::digest::{self, HashingWriter};
use crate::image::layers;
use crate::image::progress::{Progress, ProgressSink};
use crate::image::reference::Reference;
use crate::image::store::{Blob, Image, LayerInfo, Store};
use crate::image::{ImageError, sha256};

/// As many uploads at once as Docker does.
const UPLOADS: usize = 5;

const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

impl Store {
    /// Pushes an image under a name it has.
    pub async fn push(
        &self,
        reference: &Reference,
        options: &PushOptions,
        progress: &ProgressSink,
    ) -> Result<String, ImageError> {
        let _working = self.working()?;
        let reference = reference.clone().tagged();
        let image = self.get(&reference.to_string())?;
        let (digest, manifest) = self.send(&image, &reference, options, progress).await?;
        let config = self.read_blob(&image.id)?;
        self.add_raw(&config, &[reference.with_digest(&digest)?], None, Some(&manifest))?;
        Ok(digest)
    }

    /// Pushes an image under a name that it need not have here. Returns the digest that the registry has it by, and that of
    /// the manifest here.
    pub async fn send(
        &self,
        image: &Image,
        reference: &Reference,
        options: &PushOptions,
        progress: &ProgressSink,
    ) -> Result<(String, String), ImageError> {
        let _working = self.working()?;
        let Some(tag) = reference.tag().map(str::to_owned) else {
            return Err(RegistryError::PushWithoutTag.into());
        };
        image.check()?;
        if let Some(directory) = &image.directory {
            return Err(ImageError::DirectoryView {
                image: reference.familiar(),
                directory: directory.display().to_string(),
            });
        }
        let settings = match &options.settings {
            Some(settings) => settings.clone(),
            None => Settings::load()?,
        };
        progress(Progress::line(format!(
            "The push refers to repository [{}]",
            reference.name()
        )));
        let endpoint = settings.origin(reference.domain());
        let remote = Remote::connect(&endpoint, reference, options.login.as_ref(), true).await?;
        for layer in &image.layers {
            progress(Progress::layer(digest::short(&layer.diff_id), "Preparing"));
        }
        for layer in image.layers.iter().skip(UPLOADS) {
            progress(Progress::layer(digest::short(&layer.diff_id), "Waiting"));
        }
        let elsewhere = self.elsewhere(reference)?;
        let layers: Vec<Blob> = futures_util::stream::iter(&image.layers)
            .map(|layer| self.push_layer(&remote, layer, elsewhere.get(&layer.diff_id), progress))
            .buffered(UPLOADS)
            .try_collect()
            .await?;
        let config = self.read_blob(&image.id)?;
        let push_error = |error| remote.push_refused(error);
        let has_config = retrying(|_| {}, || remote.has_blob(&image.id)).await;
        if !has_config.map_err(push_error)? {
            let body = || Ok(Body::from(config.clone()));
            retrying(
                |_| {},
                async || match remote.begin_upload(&image.id, None).await? {
                    Upload::To(url) => remote.upload(url, &image.id, config.len() as u64, &body).await,
                    Upload::Mounted(_) => Ok(()),
                },
            )
            .await
            .map_err(push_error)?;
        }
        let (manifest, media_type) = self.push_manifest(image, config.len(), &layers)?;
        let (digest, size) = (sha256(&manifest), manifest.len());
        retrying(|_| {}, || remote.put_manifest(&tag, &manifest, media_type))
            .await
            .map_err(push_error)?;
        let kept = self.put_blob(&manifest)?;
        progress(Progress::line(format!("{tag}: digest: {digest} size: {size}")));
        Ok((digest, kept))
    }

    /// Returns, for layers, other repositories of the same registry that have them as they are here.
    fn elsewhere(&self, reference: &Reference) -> Result<BTreeMap<String, String>, ImageError> {
        let mut found = BTreeMap::new();
        for image in self.list()? {
            // Only what was pulled from there or pushed there has a digest of that registry.
            let names = image.repo_digests.iter().filter_map(|name| Reference::parse(name).ok());
            for name in names {
                if name.domain() == reference.domain() && name.path() != reference.path() {
                    for layer in &image.layers {
                        found.insert(layer.diff_id.clone(), name.path().to_owned());
                    }
                }
            }
        }
        Ok(found)
    }

    /// Returns the manifest to push: the one it was pulled by if its layers travel as they did, so that the digest stays.
    fn push_manifest(
        &self,
        image: &Image,
        config_size: usize,
        layers: &[Blob],
    ) -> Result<(Vec<u8>, &'static str), ImageError> {
        // One that is damaged here is written anew.
        if let Some(known) = &image.manifest
            && let Ok(bytes) = self.read_blob(known)
        {
            let manifest = Manifest::parse(&bytes, known)?;
            let as_pulled = manifest.layers.as_deref().unwrap_or_default();
            let same = as_pulled.len() == layers.len()
                && as_pulled.iter().zip(layers).all(|(old, new)| old.digest == new.digest);
            if same {
                let media_type = match manifest.media_type.as_deref() {
                    Some(DOCKER_MANIFEST) => DOCKER_MANIFEST,
                    _ => OCI_MANIFEST,
                };
                return Ok((bytes, media_type));
            }
        }
        let layers: Vec<_> = layers
            .iter()
            .map(|blob| json!({"mediaType": DOCKER_LAYER, "size": blob.size, "digest": blob.digest}))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": {"mediaType": DOCKER_CONFIG, "size": config_size, "digest": image.id},
            "layers": layers,
        });
        let bytes = serde_json::to_vec(&manifest).map_err(ImageError::document("a manifest"))?;
        Ok((bytes, DOCKER_MANIFEST))
    }

    async fn push_layer(
        &self,
        remote: &Remote,
        layer: &LayerInfo,
        elsewhere: Option<&String>,
        progress: &ProgressSink,
    ) -> Result<Blob, ImageError> {
        let short = digest::short(&layer.diff_id).to_owned();
        let blob = {
            let (store, layer) = (self.clone(), layer.clone());
            let keeps_its_form = remote.reference.digest().is_some();
            blocking(move || store.travelling(&layer, keeps_its_form)).await?
        };
        let push_error = |error| remote.push_refused(error);
        let exists = retrying(|_| {}, || remote.has_blob(&blob.digest)).await;
        if exists.map_err(push_error)? {
            progress(Progress::layer(&short, "Layer already exists"));
            return Ok(blob);
        }
        let path = self.blob_path(&blob.digest);
        let done = Arc::new(AtomicU64::new(0));
        let body = || {
            let file = tokio::fs::File::from_std(std::fs::File::open(&path)?);
            let (listen, short, size, done) = (progress.clone(), short.clone(), blob.size, done.clone());
            done.store(0, Ordering::Relaxed);
            let mut last = None::<Instant>;
            let stream = tokio_util::io::ReaderStream::with_capacity(file, 256 * 1024).map(move |chunk| {
                let chunk = chunk?;
                let sent = done.fetch_add(chunk.len() as u64, Ordering::Relaxed) + chunk.len() as u64;
                if last.is_none_or(|last| last.elapsed() >= Duration::from_millis(100)) || sent == size {
                    last = Some(Instant::now());
                    listen(Progress::bytes(&short, "Pushing", sent, size));
                }
                Ok::<_, std::io::Error>(chunk)
            });
            Ok(Body::wrap_stream(stream))
        };
        let wait = |pause: Duration| progress(super::pull::retrying_in(&short, pause));
        let sent = retrying(wait, async || {
            match remote.begin_upload(&blob.digest, elsewhere.map(String::as_str)).await? {
                Upload::Mounted(from) => Ok(Some(from)),
                Upload::To(url) => {
                    remote.upload(url, &blob.digest, blob.size, &body).await?;
                    Ok(None)
                }
            }
        });
        match sent.await.map_err(push_error)? {
            Some(from) => progress(Progress::layer(&short, &format!("Mounted from {from}"))),
            None => progress(Progress::layer(&short, "Pushed")),
        }
        Ok(blob)
    }

    /// Returns a layer as it is sent: gzip, which every registry and engine takes.
    fn travelling(&self, layer: &LayerInfo, keeps_its_form: bool) -> Result<Blob, ImageError> {
        if let Some(blob) = &layer.blob
            && (blob.media_type == layers::MEDIA_TYPE_GZIP || keeps_its_form)
        {
            return Ok(blob.clone());
        }
        let mut spool = self.blob_file()?;
        let path = spool.path().to_owned();
        let writing = || ImageError::file("write", &path);
        // No name and no time in the header: the same layer gives the same bytes.
        let mut gzip = flate2::write::GzEncoder::new(HashingWriter::new(&mut spool), flate2::Compression::fast());
        self.write_layer_tar(layer, &mut gzip)?;
        let (_, digest, size) = gzip.finish().map_err(writing())?.finish();
        self.keep_blob(spool, &digest)?;
        let blob = Blob {
            digest,
            size,
            media_type: layers::MEDIA_TYPE_GZIP.to_owned(),
        };
        self.set_layer_blob(&layer.diff_id, blob.clone())?;
        Ok(blob)
    }
}
