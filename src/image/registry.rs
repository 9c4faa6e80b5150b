//! Pulling from and pushing to registries.
//!
//! Layers are downloaded several at a time and unpacked while they arrive. Every byte is digested on its way; what does not have
//! the digest it was asked for by never becomes a layer. A download that breaks off goes on where it was.

use std::io::{self, Read, Write as _};
use std::sync::Once;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use oci_client::client::{BlobResponse, Client, ClientConfig, ClientProtocol, SizedStream};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference as OciReference, RegistryOperation};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};

use super::archive::{self, DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, Manifest, OCI_INDEX, OCI_MANIFEST};
use super::config::Platform;
use super::credentials;
pub use super::credentials::Login;
use super::digest::{self, HashingReader, HashingWriter};
use super::layers;
use super::progress::{Progress, ProgressSink};
use super::reference::{Reference, Source};
use super::settings::{Endpoint, Settings};
use super::store::{Blob, Image, LayerInfo, Store};
use super::{ImageError, sha256};

/// Why a registry did not give or take an image. The texts that scripts look for are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("pull access denied for {name}, repository does not exist or may require 'docker login': {reason}")]
    Denied { name: String, reason: String },
    #[error("manifest for {reference} not found: {reason}")]
    ManifestNotFound { reference: String, reason: String },
    #[error("repository {name} not found: {reason}")]
    RepositoryNotFound { name: String, reason: String },
    #[error("push access denied to {name}: {reason}")]
    PushDenied { name: String, reason: String },
    #[error("failed to resolve reference {reference:?}: {reason}")]
    Resolve {
        reference: String,
        reason: String,
        #[source]
        source: Box<OciDistributionError>,
    },
    #[error("Get \"{url}\": {reason}")]
    Unreachable { url: String, reason: String },
    #[error("failed to copy {what}: {reason}")]
    Transfer { what: String, reason: String },
    #[error("no matching manifest for {0} in the manifest list entries")]
    NoPlatform(String),
    #[error("filesystem layer verification failed for digest {0}")]
    LayerVerification(String),
    #[error("layer {0} may only be fetched from where its vendor keeps it, which is not supported")]
    ForeignLayer(String),
    #[error("blob {digest} is larger than the {limit} bytes such a document may have")]
    TooLarge { digest: String, limit: u64 },
    #[error("an image without a tag cannot be pushed")]
    PushWithoutTag,
}

/// How to pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// For which platform; this machine's if not given.
    pub platform: Option<Platform>,
    /// The login to use instead of those in the auth files. It is for the registry itself, so mirrors do not get it.
    pub login: Option<Login>,
    /// Mirrors and exceptions; those of this machine if not given.
    pub settings: Option<Settings>,
}

/// How to push.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    pub login: Option<Login>,
    pub settings: Option<Settings>,
}

/// Configs and manifests above this are refused.
const MAX_DOCUMENT: u64 = 16 * 1024 * 1024;
/// As many downloads at once as Docker does.
const DOWNLOADS: usize = 3;
/// As many tries for one blob as Docker makes.
const ATTEMPTS: u32 = 5;

const ACCEPTED: &[&str] = &[OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX];
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// One repository at one registry, with what is needed to talk to it.
struct Remote {
    client: Client,
    auth: RegistryAuth,
    name: OciReference,
    reference: Reference,
    is_mirror: bool,
}

/// Chooses who does the cryptography, once.
pub(crate) fn use_tls() {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Someone else in the process may have chosen already, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

impl Remote {
    async fn new(endpoint: &Endpoint, reference: &Reference, login: Option<&Login>) -> Result<Self, ImageError> {
        use_tls();
        let auth = match login {
            Some(login) if !endpoint.is_mirror => login.to_auth(),
            _ => {
                let (host, reference) = (endpoint.host.clone(), reference.clone());
                tokio::task::spawn_blocking(move || credentials::find(&host, &reference))
                    .await
                    .unwrap_or(RegistryAuth::Anonymous)
            }
        };
        let config = ClientConfig {
            protocol: if endpoint.plain_http {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            use_monolithic_push: true,
            connect_timeout: Some(Duration::from_secs(15)),
            read_timeout: Some(Duration::from_secs(60)),
            user_agent: concat!("compose/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|source| resolve_error(reference, source))?;
        let repository = endpoint.repository(reference.path());
        let host = endpoint.host.clone();
        let name = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => OciReference::with_digest(host, repository, digest.to_owned()),
            (None, tag) => OciReference::with_tag(host, repository, tag.unwrap_or("latest").to_owned()),
        };
        client.store_auth_if_needed(name.resolve_registry(), &auth).await;
        Ok(Self {
            client,
            auth,
            name,
            reference: reference.clone(),
            is_mirror: endpoint.is_mirror,
        })
    }

    /// Fetches a manifest and returns it with its digest, which is that of its bytes, whatever the registry says.
    async fn manifest(&self, digest: Option<&str>) -> Result<(Bytes, String), ImageError> {
        let name = digest.map_or_else(
            || self.name.clone(),
            |digest| self.name.clone_with_digest(digest.to_owned()),
        );
        let (bytes, _) = retrying(|| self.client.pull_manifest_raw(&name, &self.auth, ACCEPTED))
            .await
            .map_err(|error| pull_error(&self.reference, error))?;
        let actual = sha256(&bytes);
        let expected = digest.or(self.reference.digest());
        if let Some(expected) = expected
            && expected != actual
        {
            return Err(ImageError::Digest {
                what: format!("the manifest of {}", self.reference.familiar()),
                expected: expected.to_owned(),
                actual,
            });
        }
        Ok((bytes, actual))
    }

    /// Fetches a small blob whole.
    async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let too_large = || RegistryError::TooLarge {
            digest: descriptor.digest.clone(),
            limit: MAX_DOCUMENT,
        };
        if descriptor.size > MAX_DOCUMENT {
            return Err(too_large().into());
        }
        let fetch = async || -> Result<Vec<u8>, OciDistributionError> {
            let mut bytes = Vec::new();
            let mut stream = self
                .client
                .pull_blob_stream(&self.name, descriptor.digest.as_str())
                .await?
                .stream;
            while let Some(chunk) = stream.next().await {
                bytes.extend_from_slice(&chunk?);
                if bytes.len() as u64 > MAX_DOCUMENT {
                    break;
                }
            }
            Ok(bytes)
        };
        let bytes = retrying(fetch)
            .await
            .map_err(|error| pull_error(&self.reference, error))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(too_large().into());
        }
        let actual = sha256(&bytes);
        if actual != descriptor.digest {
            return Err(ImageError::Digest {
                what: format!("the config of {}", self.reference.familiar()),
                expected: descriptor.digest.clone(),
                actual,
            });
        }
        Ok(bytes)
    }

    /// Streams a blob to `send`, going on where it broke off.
    async fn blob(
        &self,
        descriptor: &Descriptor,
        send: &mpsc::Sender<Bytes>,
        listen: impl Fn(u64),
    ) -> Result<(), ImageError> {
        let mut done: u64 = 0;
        let mut failures = 0;
        loop {
            let result: Result<(), OciDistributionError> = async {
                let (mut stream, mut skip) = self.blob_from(descriptor, done).await?;
                while let Some(chunk) = stream.stream.next().await {
                    let mut chunk = chunk?;
                    if skip > 0 {
                        let behind = skip.min(chunk.len() as u64);
                        skip -= behind;
                        chunk = chunk.slice(usize::try_from(behind).unwrap_or(chunk.len())..);
                    }
                    done += chunk.len() as u64;
                    if send.send(chunk).await.is_err() {
                        // Whoever unpacks has given up and says why itself.
                        return Ok(());
                    }
                    listen(done);
                }
                Ok(())
            }
            .await;
            match result {
                Ok(()) if done >= descriptor.size || send.is_closed() => return Ok(()),
                // The registry closed the connection early and politely.
                Ok(()) => failures += 1,
                Err(error) if failures + 1 >= ATTEMPTS || !is_temporary(&error) => {
                    return Err(RegistryError::Transfer {
                        what: descriptor.digest.clone(),
                        reason: chain(&error),
                    }
                    .into());
                }
                Err(error) => {
                    tracing::debug!(digest = %descriptor.digest, done, error = %chain(&error), "download broke off");
                    failures += 1;
                }
            }
            if failures >= ATTEMPTS {
                return Err(RegistryError::Transfer {
                    what: descriptor.digest.clone(),
                    reason: format!("unexpected EOF after {done} of {} bytes", descriptor.size),
                }
                .into());
            }
            tokio::time::sleep(pause(failures)).await;
        }
    }

    /// Opens a blob at an offset; the second number says how many bytes come before it, where a registry has no ranges.
    async fn blob_from(
        &self,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<(SizedStream, u64), OciDistributionError> {
        let digest = descriptor.digest.as_str();
        if offset == 0 {
            return Ok((self.client.pull_blob_stream(&self.name, digest).await?, 0));
        }
        let response = self.client.pull_blob_stream_partial(&self.name, digest, offset, None);
        Ok(match response.await? {
            BlobResponse::Partial(stream) => (stream, 0),
            BlobResponse::Full(stream) => (stream, offset),
        })
    }
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
        let _working = self.working()?;
        let reference = reference.clone().tagged();
        let settings = match &options.settings {
            Some(settings) => settings.clone(),
            None => Settings::load()?,
        };
        let mut refused = None;
        for endpoint in settings.endpoints(reference.domain()) {
            let remote = Remote::new(&endpoint, &reference, options.login.as_ref()).await?;
            match self.pull_from(&remote, options, progress).await {
                Ok(image) => return Ok(image),
                // What a mirror says matters only if the registry itself cannot be asked.
                Err(error) if remote.is_mirror => {
                    tracing::debug!(mirror = %endpoint.host, image = %reference, error = %chain(&error), "mirror failed");
                    refused.get_or_insert(error);
                }
                Err(error) => {
                    return Err(match (refused, &error) {
                        (Some(first), ImageError::Registry(RegistryError::Resolve { .. })) => first,
                        _ => error,
                    });
                }
            }
        }
        Err(refused.unwrap_or_else(|| ImageError::NotFound(reference.familiar())))
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
        if manifest.manifests.is_some() {
            let chosen = manifest
                .choose(&platform)
                .ok_or_else(|| RegistryError::NoPlatform(platform.to_string()))?;
            (bytes, manifest_digest) = remote.manifest(Some(&chosen.digest)).await?;
            manifest = Manifest::parse(&bytes, &manifest_digest)?;
        }
        let Some(config) = manifest.config else {
            return Err(RegistryError::NoPlatform(platform.to_string()).into());
        };
        for digest in [&config.digest]
            .into_iter()
            .chain(manifest.layers.iter().flatten().map(|layer| &layer.digest))
        {
            if !super::is_digest(digest) {
                return Err(ImageError::Digest {
                    what: reference.familiar(),
                    expected: "sha256:…".to_owned(),
                    actual: digest.clone(),
                });
            }
        }
        let known = self.get(&config.digest).is_ok();
        let config_bytes = if known {
            self.read_blob(&config.digest)?
        } else {
            remote.document(&config).await?
        };
        let document = archive::parse_config(&config_bytes, &config.digest)?;
        let layers = manifest.layers.unwrap_or_default();
        let diff_ids = &document.rootfs.diff_ids;
        if diff_ids.len() != layers.len() {
            return Err(ImageError::LayerCount(
                config.digest.clone(),
                diff_ids.len(),
                layers.len(),
            ));
        }
        self.pull_layers(remote, &layers, diff_ids, progress).await?;
        let names = [reference.clone(), reference.with_digest(&top)?];
        let previous = self.get(&reference.to_string()).ok().map(|image| image.id);
        let store = self.clone();
        let image = blocking(move || {
            if !known {
                store.settle(&document.rootfs.diff_ids)?;
                store.sync()?;
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

    async fn pull_layers(
        &self,
        remote: &Remote,
        layers: &[Descriptor],
        diff_ids: &[String],
        progress: &ProgressSink,
    ) -> Result<(), ImageError> {
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
        let downloads = Semaphore::new(DOWNLOADS);
        for (layer, _) in missing.iter().skip(DOWNLOADS) {
            progress(Progress::layer(digest::short(&layer.digest), "Waiting"));
        }
        let mut running: FuturesUnordered<_> = missing
            .into_iter()
            .map(|(layer, diff_id)| self.pull_layer(remote, layer, diff_id, &downloads, progress))
            .collect();
        while let Some(result) = running.next().await {
            result?;
        }
        Ok(())
    }

    async fn pull_layer(
        &self,
        remote: &Remote,
        layer: &Descriptor,
        diff_id: &str,
        downloads: &Semaphore,
        progress: &ProgressSink,
    ) -> Result<(), ImageError> {
        let short = digest::short(&layer.digest).to_owned();
        // Whoever else pulls an image with this layer waits here, and then has it.
        let flight = self.flight(diff_id);
        let _flight = flight.lock().await;
        if self.layer(diff_id).is_ok() {
            progress(Progress::layer(&short, "Already exists"));
            return Ok(());
        }
        // Closed only with the semaphore, which outlives us.
        let permit = downloads.acquire().await;
        let (send, receive) = mpsc::channel(32);
        let unpacking = {
            let (store, layer, diff_id) = (self.clone(), layer.clone(), diff_id.to_owned());
            tokio::task::spawn_blocking(move || store.receive_layer(&layer, &diff_id, receive))
        };
        let last = std::cell::Cell::new(Instant::now());
        let listen = |done| {
            if last.get().elapsed() >= Duration::from_millis(100) {
                last.set(Instant::now());
                progress(Progress::bytes(&short, "Downloading", done, layer.size));
            }
        };
        let downloaded = remote.blob(layer, &send, listen).await;
        drop((send, permit));
        if downloaded.is_ok() {
            progress(Progress::layer(&short, "Download complete"));
            progress(Progress::bytes(&short, "Extracting", layer.size, layer.size));
        }
        let unpacked = match unpacking.await {
            Ok(unpacked) => unpacked,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        // What broke the download explains also why unpacking failed.
        downloaded?;
        unpacked?;
        progress(Progress::layer(&short, "Pull complete"));
        Ok(())
    }

    /// Unpacks a layer while it arrives, and keeps what arrived.
    fn receive_layer(
        &self,
        layer: &Descriptor,
        diff_id: &str,
        receive: mpsc::Receiver<Bytes>,
    ) -> Result<LayerInfo, ImageError> {
        let mut spool = self.blob_file()?;
        let path = spool.path().to_owned();
        let mut arriving = HashingReader::new(archive::Tee {
            from: Arriving {
                receive,
                chunk: Bytes::new(),
                left: layer.size,
            },
            to: &mut spool,
        });
        let (compression, tar) =
            layers::decompress(&mut arriving).map_err(ImageError::file("read the download of", &path))?;
        let unpacked = self.unpack(tar, Some(diff_id));
        let (actual, size) = arriving
            .finish()
            .map_err(ImageError::file("read the download of", &path))?;
        // Wrong bytes also fail to unpack; that they are wrong is the better thing to say.
        if actual != layer.digest && size >= layer.size {
            return Err(RegistryError::LayerVerification(layer.digest.clone()).into());
        }
        let unfinished = unpacked?;
        spool.flush().map_err(ImageError::file("write", &path))?;
        self.keep_blob(spool, &actual)?;
        let blob = Blob {
            digest: actual,
            size,
            media_type: compression.media_type().to_owned(),
        };
        self.finish(unfinished, Some(blob))
    }

    /// Pushes an image under a name it has.
    pub async fn push(
        &self,
        reference: &Reference,
        options: &PushOptions,
        progress: &ProgressSink,
    ) -> Result<String, ImageError> {
        let _working = self.working()?;
        let reference = reference.clone().tagged();
        let Some(tag) = reference.tag().map(str::to_owned) else {
            return Err(RegistryError::PushWithoutTag.into());
        };
        let image = self.get(&reference.to_string())?;
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
        let endpoint = settings.origin(reference.domain());
        let remote = Remote::new(&endpoint, &reference, options.login.as_ref()).await?;
        progress(Progress::line(format!(
            "The push refers to repository [{}]",
            reference.name()
        )));
        let push_error = |error| push_error(&reference, error);
        remote
            .client
            .auth(&remote.name, &remote.auth, RegistryOperation::Push)
            .await
            .map_err(push_error)?;
        for layer in &image.layers {
            progress(Progress::layer(digest::short(&layer.diff_id), "Preparing"));
        }
        let mut layers = Vec::new();
        for layer in &image.layers {
            layers.push(self.push_layer(&remote, layer, progress).await?);
        }
        let config = self.read_blob(&image.id)?;
        if !remote
            .client
            .blob_exists(&remote.name, &image.id)
            .await
            .map_err(push_error)?
        {
            retrying(|| remote.client.push_blob(&remote.name, config.clone(), &image.id))
                .await
                .map_err(push_error)?;
        }
        let (manifest, media_type) = self.push_manifest(&image, config.len(), &layers)?;
        let (digest, size) = (sha256(&manifest), manifest.len());
        let content_type = http::HeaderValue::from_static(media_type);
        retrying(|| {
            remote
                .client
                .push_manifest_raw(&remote.name, manifest.clone(), content_type.clone())
        })
        .await
        .map_err(push_error)?;
        let manifest_digest = self.put_blob(&manifest)?;
        self.add_raw(
            &config,
            &[reference.with_digest(&digest)?],
            None,
            Some(&manifest_digest),
        )?;
        progress(Progress::line(format!("{tag}: digest: {digest} size: {size}")));
        Ok(digest)
    }

    /// Returns the manifest to push: the one it was pulled by if its layers travel as they did, so that the digest stays.
    fn push_manifest(
        &self,
        image: &Image,
        config_size: usize,
        layers: &[Blob],
    ) -> Result<(Vec<u8>, &'static str), ImageError> {
        if let Some(known) = &image.manifest {
            let bytes = self.read_blob(known)?;
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
        progress: &ProgressSink,
    ) -> Result<Blob, ImageError> {
        let short = digest::short(&layer.diff_id).to_owned();
        let blob = {
            let (store, layer) = (self.clone(), layer.clone());
            let keeps_its_form = remote.reference.digest().is_some();
            blocking(move || store.travelling(&layer, keeps_its_form)).await?
        };
        let push_error = |error| push_error(&remote.reference, error);
        let exists = remote.client.blob_exists(&remote.name, &blob.digest);
        if exists.await.map_err(push_error)? {
            progress(Progress::layer(&short, "Layer already exists"));
            return Ok(blob);
        }
        let path = self.blob_path(&blob.digest);
        let send = async || {
            let file = tokio::fs::File::open(&path).await?;
            let (listen, short, size) = (progress.clone(), short.clone(), blob.size);
            let mut done: u64 = 0;
            let mut last = Instant::now();
            let stream = tokio_util::io::ReaderStream::with_capacity(file, 256 * 1024).map(move |chunk| {
                let chunk = chunk?;
                done += chunk.len() as u64;
                if last.elapsed() >= Duration::from_millis(100) || done == size {
                    last = Instant::now();
                    listen(Progress::bytes(&short, "Pushing", done, size));
                }
                Ok::<_, OciDistributionError>(chunk)
            });
            remote
                .client
                .push_blob_stream(&remote.name, stream, &blob.digest, Some(blob.size))
                .await
        };
        retrying(send).await.map_err(push_error)?;
        progress(Progress::layer(&short, "Pushed"));
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

/// A download as something to read from another thread.
struct Arriving {
    receive: mpsc::Receiver<Bytes>,
    chunk: Bytes,
    /// How many bytes the manifest says are still to come: more than that is not what was asked for.
    left: u64,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receive.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.chunk.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other("more bytes than the manifest says"))?;
        Ok(count)
    }
}

/// Runs what reads and writes files where it does not hold up other work.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Tries again what may succeed the next time, after a pause that doubles.
async fn retrying<T>(
    mut attempt: impl AsyncFnMut() -> Result<T, OciDistributionError>,
) -> Result<T, OciDistributionError> {
    let mut failures = 0;
    loop {
        match attempt().await {
            Err(error) if failures + 1 < ATTEMPTS && is_temporary(&error) && !is_refused_connection(&error) => {
                failures += 1;
                tokio::time::sleep(pause(failures)).await;
            }
            other => return other,
        }
    }
}

fn pause(failures: u32) -> Duration {
    Duration::from_millis(100 << failures.min(6))
}

fn is_temporary(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::ServerError { code, .. } => *code >= 500 || matches!(code, 408 | 429),
        OciDistributionError::RegistryError { envelope, .. } => envelope
            .errors
            .iter()
            .any(|error| error.code == OciErrorCode::Toomanyrequests),
        OciDistributionError::RequestError(error) => match error.status() {
            Some(status) => status.is_server_error() || matches!(status.as_u16(), 408 | 429),
            None => !error.is_builder(),
        },
        OciDistributionError::IoError(_) => true,
        _ => false,
    }
}

/// A registry that is not there will not be there in a second either; the person should not wait to be told.
fn is_refused_connection(error: &OciDistributionError) -> bool {
    matches!(error, OciDistributionError::RequestError(error) if error.is_connect())
}

fn is_refusal(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => true,
        OciDistributionError::RequestError(error) => error
            .status()
            .is_some_and(|status| matches!(status.as_u16(), 401 | 403)),
        _ => false,
    }
}

/// Writes an error and its causes in one line, as Go does.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Several libraries print the cause as part of the error.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

fn resolve_error(reference: &Reference, error: OciDistributionError) -> RegistryError {
    // Nobody answered: in Docker's words, which begin with what was asked.
    if let OciDistributionError::RequestError(request) = &error
        && request.is_connect()
        && let Some(url) = request.url()
    {
        let mut cause: &dyn std::error::Error = request;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        return RegistryError::Unreachable {
            url: url.to_string(),
            reason: cause.to_string(),
        };
    }
    RegistryError::Resolve {
        reference: reference.to_string(),
        reason: chain(&error),
        source: Box::new(error),
    }
}

/// What the registry said, in the words Docker prints it in: `code: message`.
fn spoken(error: &oci_client::errors::OciError) -> String {
    let code = match error.code {
        OciErrorCode::Denied => "denied",
        OciErrorCode::Unauthorized => "unauthorized",
        OciErrorCode::ManifestUnknown => "manifest unknown",
        OciErrorCode::NameUnknown => "name unknown",
        OciErrorCode::Toomanyrequests => "toomanyrequests",
        _ => return error.message.clone(),
    };
    format!("{code}: {}", error.message)
}

// moby distribution/errors.go: notFoundError.Error
fn pull_error(reference: &Reference, error: OciDistributionError) -> ImageError {
    let name = reference.familiar_name();
    let error = match error {
        OciDistributionError::RegistryError { envelope, url } => {
            let Some(first) = envelope.errors.first() else {
                return resolve_error(reference, OciDistributionError::RegistryError { envelope, url }).into();
            };
            let reason = spoken(first);
            match first.code {
                OciErrorCode::Denied | OciErrorCode::Unauthorized => RegistryError::Denied { name, reason },
                OciErrorCode::ManifestUnknown | OciErrorCode::NotFound => RegistryError::ManifestNotFound {
                    reference: reference.familiar(),
                    reason,
                },
                OciErrorCode::NameUnknown => RegistryError::RepositoryNotFound { name, reason },
                _ => resolve_error(reference, OciDistributionError::RegistryError { envelope, url }),
            }
        }
        OciDistributionError::UnauthorizedError { .. } => RegistryError::Denied {
            name,
            reason: "denied: requested access to the resource is denied".to_owned(),
        },
        OciDistributionError::AuthenticationFailure(_) => RegistryError::Denied {
            name,
            reason: "unauthorized: authentication required".to_owned(),
        },
        OciDistributionError::ServerError { code: 404, .. } => RegistryError::ManifestNotFound {
            reference: reference.familiar(),
            reason: "manifest unknown: manifest unknown".to_owned(),
        },
        other => resolve_error(reference, other),
    };
    error.into()
}

fn push_error(reference: &Reference, error: OciDistributionError) -> ImageError {
    let name = reference.familiar_name();
    let error = match &error {
        refusal if is_refusal(refusal) => RegistryError::PushDenied {
            name,
            reason: "unauthorized: authentication required".to_owned(),
        },
        OciDistributionError::RegistryError { envelope, .. }
            if envelope
                .errors
                .iter()
                .any(|error| matches!(error.code, OciErrorCode::Denied | OciErrorCode::Unauthorized)) =>
        {
            let reason = envelope.errors.iter().map(spoken).collect::<Vec<_>>().join(", ");
            RegistryError::PushDenied { name, reason }
        }
        other => RegistryError::Transfer {
            what: reference.familiar(),
            reason: chain(other),
        },
    };
    error.into()
}
