//! Pulling: the manifest, the config, then the layers that are missing, several at a time.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::remote::Remote;
use super::settings::Settings;
use super::{PullOptions, RegistryError, blocking, chain};
use crate::image::archive::{self, Descriptor, Manifest};
use crate::image::config::Platform;
use crate::image::progress::{Progress, ProgressSink};
use crate::image::reference::{Reference, Source};
use crate::image::store::{Image, Store};
use crate::image::{ImageError, digest};

/// As many downloads at once as Docker does.
const DOWNLOADS: usize = 3;

/// Asks the registry of an image, or first a mirror where one is set.
pub(super) async fn ask_somewhere<T>(
    reference: &Reference,
    options: &PullOptions,
    ask: impl AsyncFn(&Remote) -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    let reference = reference.clone().tagged();
    let settings = match &options.settings {
        Some(settings) => settings.clone(),
        None => Settings::load()?,
    };
    let mut refused = None;
    for endpoint in settings.endpoints(reference.domain()) {
        let attempt = async {
            let remote = Remote::connect(&endpoint, &reference, options.login(reference.domain()), false).await?;
            ask(&remote).await
        };
        match attempt.await {
            Ok(answer) => return Ok(answer),
            // What a mirror says matters only if the registry itself cannot be asked.
            Err(error) if endpoint.is_mirror => {
                tracing::debug!(mirror = %endpoint.host, image = %reference, error = %chain(&error), "mirror failed");
                refused.get_or_insert(error);
            }
            Err(error) => {
                return Err(match (refused, &error) {
                    (
                        Some(first),
                        ImageError::Registry(RegistryError::Resolve { .. } | RegistryError::Unreachable { .. }),
                    ) => first,
                    _ => error,
                });
            }
        }
    }
    Err(refused.unwrap_or_else(|| ImageError::NotFound(reference.familiar())))
}

impl Store {
    /// Finds an image by any name that `image:` may have, reading it from its file or directory where it is one of those.
    ///
    /// A registry is not asked; that is what [`Store::pull`] is for.
    pub async fn resolve(&self, name: &str, progress: &ProgressSink) -> Result<Image, ImageError> {
        match self.get(name) {
            Ok(image) if Source::parse(name).map_or(true, |source| source.local_path().is_none()) => Ok(image),
            Err(ImageError::NotFound(_)) | Ok(_) => {
                let (store, progress, source) = (self.clone(), progress.clone(), Source::parse(name)?);
                blocking(move || store.read_source(&source, &Platform::host(), &progress)).await
            }
            Err(error) => Err(error),
        }
    }

    /// Pulls an image, from a mirror where one is set and has it.
    pub async fn pull(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &ProgressSink,
    ) -> Result<Image, ImageError> {
        self.tidied(self.pull_from_somewhere(reference, options, progress).await)
    }

    async fn pull_from_somewhere(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &ProgressSink,
    ) -> Result<Image, ImageError> {
        let _working = self.working()?;
        ask_somewhere(reference, options, async |remote| {
            self.pull_from(remote, options, progress).await
        })
        .await
    }

    async fn pull_from(
        &self,
        remote: &Remote,
        options: &PullOptions,
        progress: &ProgressSink,
    ) -> Result<Image, ImageError> {
        let reference = &remote.reference;
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let (bytes, top) = remote.manifest(None).await?;
        progress(Progress {
            id: Some(reference.tag().or(reference.digest()).unwrap_or_default().to_owned()),
            status: format!("Pulling from {}", reference.path()),
            detail: None,
        });
        let mut manifest = Manifest::parse(&bytes, &top)?;
        let (mut bytes, mut manifest_digest) = (bytes, top.clone());
        // An index of indexes is allowed, one that goes on for ever is not.
        for _ in 0..4 {
            if manifest.manifests.is_none() {
                break;
            }
            let chosen = manifest
                .choose(&platform)
                .ok_or_else(|| RegistryError::NoPlatform(platform.to_string()))?;
            check_digest(reference, &chosen.digest)?;
            (bytes, manifest_digest) = remote.manifest(Some(&chosen.digest)).await?;
            check_size(chosen, bytes.len())?;
            manifest = Manifest::parse(&bytes, &manifest_digest)?;
        }
        let Some(config) = manifest.config else {
            return Err(RegistryError::NoPlatform(platform.to_string()).into());
        };
        for digest in [&config.digest]
            .into_iter()
            .chain(manifest.layers.iter().flatten().map(|layer| &layer.digest))
        {
            check_digest(reference, digest)?;
        }
        // One that is damaged here is fetched again.
        let config_bytes = match self.read_blob(&config.digest) {
            Ok(bytes) => bytes,
            Err(_) => remote.document(&config).await?,
        };
        check_size(&config, config_bytes.len())?;
        let document = archive::parse_config(&config_bytes, &config.digest)?;
        let layers = manifest.layers.unwrap_or_default();
        let diff_ids = document.rootfs.diff_ids;
        if diff_ids.len() != layers.len() {
            return Err(ImageError::LayerCount(
                config.digest.clone(),
                diff_ids.len(),
                layers.len(),
            ));
        }
        let changed = self.pull_layers(remote, &layers, &diff_ids, progress).await?;
        let names = match options.is_nameless {
            true => Vec::new(),
            false => vec![reference.clone(), reference.with_digest(&top)?],
        };
        let previous = self.get(&reference.to_string()).ok().map(|image| image.id);
        let store = self.clone();
        let image = blocking(move || {
            if changed {
                store.settle(&diff_ids)?;
            }
            let manifest = store.put_blob(&bytes)?;
            debug_assert_eq!(manifest, manifest_digest);
            store.add_raw(&config_bytes, &names, None, Some(&manifest))
        })
        .await?;
        progress(Progress::line(format!("Digest: {top}")));
        let familiar = reference.familiar();
        progress(Progress::line(if previous.as_ref() == Some(&image.id) {
            format!("Status: Image is up to date for {familiar}")
        } else {
            format!("Status: Downloaded newer image for {familiar}")
        }));
        Ok(image)
    }

    /// Fetches the layers that are not here, and returns whether there were any.
    async fn pull_layers(
        &self,
        remote: &Remote,
        layers: &[Descriptor],
        diff_ids: &[String],
        progress: &ProgressSink,
    ) -> Result<bool, ImageError> {
        let mut seen = std::collections::BTreeSet::new();
        let mut missing = Vec::new();
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            let short = digest::short(&layer.digest);
            if !seen.insert(diff_id) {
                continue;
            }
            if self.layer(diff_id).is_ok() {
                progress(Progress::layer(short, "Already exists"));
                continue;
            }
            if layer.media_type.contains("nondistributable") || layer.media_type.contains("foreign") {
                return Err(RegistryError::ForeignLayer(layer.digest.clone()).into());
            }
            progress(Progress::layer(short, "Pulling fs layer"));
            missing.push((layer, diff_id));
        }
        let changed = !missing.is_empty();
        let downloads = Semaphore::new(DOWNLOADS);
        let stop = CancellationToken::new();
        for (layer, _) in missing.iter().skip(DOWNLOADS) {
            progress(Progress::layer(digest::short(&layer.digest), "Waiting"));
        }
        let mut running: FuturesUnordered<_> = missing
            .into_iter()
            .map(|(layer, diff_id)| self.pull_layer(remote, layer, diff_id, &downloads, &stop, progress))
            .collect();
        // After one has failed the others are stopped, and waited for: nothing is left at work behind the answer.
        let mut failed = None;
        while let Some(result) = running.next().await {
            if let Err(error) = result {
                failed.get_or_insert(error);
                stop.cancel();
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(changed),
        }
    }

    async fn pull_layer(
        &self,
        remote: &Remote,
        layer: &Descriptor,
        diff_id: &str,
        downloads: &Semaphore,
        stop: &CancellationToken,
        progress: &ProgressSink,
    ) -> Result<(), ImageError> {
        let short = digest::short(&layer.digest).to_owned();
        // Whoever else pulls an image with this layer, in this process or another, waits here, and then has it.
        let flight = self.flight(diff_id);
        let _flight = flight.lock().await;
        let _fetching = {
            let (store, diff_id) = (self.clone(), diff_id.to_owned());
            blocking(move || store.fetching(&diff_id)).await?
        };
        if self.layer(diff_id).is_ok() {
            progress(Progress::layer(&short, "Already exists"));
            return Ok(());
        }
        // Closed only with the semaphore, which outlives us.
        let permit = downloads.acquire().await;
        if stop.is_cancelled() {
            // Another layer has failed, and says why.
            return Ok(());
        }
        let (send, receive) = mpsc::channel(16);
        let unpacking = {
            let (store, layer, diff_id) = (self.clone(), layer.clone(), diff_id.to_owned());
            tokio::task::spawn_blocking(move || store.receive_layer(&layer, &diff_id, receive))
        };
        let last = std::cell::Cell::new(None::<Instant>);
        let listen = |done| {
            if last
                .get()
                .is_none_or(|last| last.elapsed() >= Duration::from_millis(100))
            {
                last.set(Some(Instant::now()));
                progress(Progress::bytes(&short, "Downloading", done, layer.size));
            }
        };
        let wait = |pause: Duration| progress(retrying_in(&short, pause));
        let downloaded = tokio::select! {
            downloaded = remote.blob(layer, &send, listen, wait) => downloaded,
            () = stop.cancelled() => Ok(()),
        };
        drop((send, permit));
        if downloaded.is_ok() && !stop.is_cancelled() {
            progress(Progress::layer(&short, "Verifying Checksum"));
            progress(Progress::layer(&short, "Download complete"));
            progress(Progress::bytes(&short, "Extracting", layer.size, layer.size));
        }
        let unpacked = match unpacking.await {
            Ok(unpacked) => unpacked,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        // What broke the download explains also why unpacking failed.
        downloaded?;
        if stop.is_cancelled() {
            return Ok(());
        }
        unpacked?;
        progress(Progress::layer(&short, "Pull complete"));
        Ok(())
    }
}

// moby distribution/xfer/download.go: makeDownloadFunc
pub(super) fn retrying_in(layer: &str, pause: Duration) -> Progress {
    let seconds = pause.as_secs_f64().ceil().max(1.0);
    let unit = if seconds > 1.0 { "seconds" } else { "second" };
    Progress::layer(layer, &format!("Retrying in {seconds} {unit}"))
}

fn check_digest(reference: &Reference, digest: &str) -> Result<(), ImageError> {
    if digest::is_digest(digest) {
        return Ok(());
    }
    Err(ImageError::Digest {
        what: reference.familiar(),
        expected: "sha256:…".to_owned(),
        actual: digest.to_owned(),
    })
}

fn check_size(descriptor: &Descriptor, actual: usize) -> Result<(), ImageError> {
    let actual = actual as u64;
    if descriptor.size == actual {
        return Ok(());
    }
    let (digest, stated) = (descriptor.digest.clone(), descriptor.size);
    Err(RegistryError::Size { digest, stated, actual }.into())
}
