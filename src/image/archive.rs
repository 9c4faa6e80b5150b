//! Images from and to files of this machine: `docker save` archives, OCI layouts, and plain directories.

use std::fs;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::config::{ImageConfig, Platform};
use super::digest::{self, HashingReader};
use super::files::Files;
use super::index::Stamp;
use super::layers::{self, Compression, MEDIA_TYPE_TAR};
use super::progress::{Progress, ProgressSink};
use super::reference::{Reference, Source};
use super::store::{Blob, Image, LayerInfo, Store};
use super::{ArchiveProblem, ImageError, sha256};

/// An image that was read from an archive.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub image: Image,
    /// The names it now has because of that, as people write them.
    pub names: Vec<String>,
}

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(super) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
const IMAGE_NAME: &str = "io.containerd.image.name";

/// One image in `manifest.json` of `docker save`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Points at bytes by their digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DescriptorPlatform {
    pub os: String,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A manifest or an index, told apart by what is in it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    pub media_type: Option<String>,
    #[serde(default)]
    pub artifact_type: Option<String>,
    #[serde(default)]
    pub config: Option<Descriptor>,
    #[serde(default)]
    pub layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    pub manifests: Option<Vec<Descriptor>>,
}

impl Manifest {
    /// Reads a manifest. One that is also an index, or says it is the other, could mean two things to two readers.
    pub(super) fn parse(bytes: &[u8], what: &str) -> Result<Self, ImageError> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(ImageError::document(what))?;
        if manifest.schema_version == 1 {
            return Err(ImageError::SchemaOne(what.to_owned()));
        }
        let is_index = manifest.manifests.is_some();
        let is_image = manifest.config.is_some() || manifest.layers.is_some();
        let agrees = match manifest.media_type.as_deref() {
            Some(OCI_INDEX | DOCKER_INDEX) => is_index && !is_image,
            Some(OCI_MANIFEST | DOCKER_MANIFEST) => is_image && !is_index,
            _ => is_image != is_index,
        };
        if agrees {
            return Ok(manifest);
        }
        Err(ImageError::MediaType(
            manifest.media_type.unwrap_or_else(|| what.to_owned()),
        ))
    }

    /// Returns the entry of an index for a platform; attestations and the like are not images.
    pub(super) fn choose(&self, platform: &Platform) -> Option<&Descriptor> {
        let entries = self.manifests.as_deref().unwrap_or_default();
        let fits = |entry: &&Descriptor| {
            entry
                .platform
                .as_ref()
                .is_none_or(|other| platform.accepts(&other.os, &other.architecture, other.variant.as_deref()))
        };
        let exact = |entry: &&Descriptor| {
            entry
                .platform
                .as_ref()
                .is_some_and(|other| other.variant == platform.variant && fits(entry))
        };
        entries.iter().find(exact).or_else(|| entries.iter().find(fits))
    }
}

/// A layer that is to come from an archive.
struct Incoming<'a> {
    file: &'a str,
    diff_id: &'a str,
    /// The digest of the file, where the archive states it.
    digest: Option<&'a str>,
}

impl Store {
    /// Reads an image from a file or directory of this machine. What was read before and did not change is not read again.
    pub fn read_source(
        &self,
        source: &Source,
        platform: &Platform,
        progress: &ProgressSink,
    ) -> Result<Image, ImageError> {
        let Some(path) = source.local_path() else {
            return self.get(&source.to_string());
        };
        if let Source::Rootfs(path) = source {
            return self.rootfs(source, path);
        }
        let watched = match source {
            Source::Oci { .. } => path.join("index.json"),
            _ => path.to_owned(),
        };
        let stamp = Stamp::of(&watched)
            .map_err(ImageError::file("read", &watched))?
            .to_string();
        if let Some(image) = self.source(source, &stamp)? {
            return Ok(image);
        }
        let loaded = self.tidied(self.load_source(source, path, platform, progress))?;
        let Some((id, _)) = loaded.into_iter().next() else {
            return Err(ImageError::NotFound(source.to_string()));
        };
        self.add_source(source, stamp, &id)?;
        self.get(&id)
    }

    fn load_source(
        &self,
        source: &Source,
        path: &Path,
        platform: &Platform,
        progress: &ProgressSink,
    ) -> Result<Vec<(String, Vec<Reference>)>, ImageError> {
        let _working = self.working()?;
        let tmp = self.root().join("tmp");
        match source {
            Source::Oci { tag, .. } => {
                let files = Files::directory(path)?;
                self.load_layout(&files, tag.as_deref(), platform, progress)
            }
            Source::OciArchive { tag, .. } => {
                let files = Files::tar(path, &tmp)?;
                self.load_layout(&files, tag.as_deref(), platform, progress)
            }
            Source::DockerArchive { reference, .. } => {
                let files = Files::tar(path, &tmp)?;
                self.load_saved(&files, Some(reference.as_ref()), progress)
            }
            Source::Registry(_) | Source::Rootfs(_) => Ok(Vec::new()),
        }
    }

    /// Reads every image of an archive that comes as a stream, as `docker load` does.
    pub fn load(&self, from: impl Read, progress: &ProgressSink) -> Result<Vec<Loaded>, ImageError> {
        self.tidied(self.load_all(from, progress))
    }

    fn load_all(&self, from: impl Read, progress: &ProgressSink) -> Result<Vec<Loaded>, ImageError> {
        let _working = self.working()?;
        let files = Files::stream(from, Path::new("archive"), &self.root().join("tmp"))?;
        let loaded = if files.has("manifest.json") {
            self.load_saved(&files, None, progress)?
        } else {
            self.load_layout(&files, None, &Platform::host(), progress)?
        };
        let mut all = Vec::new();
        for (id, names) in loaded {
            for name in &names {
                self.tag(&id, name)?;
            }
            let names: Vec<String> = names.iter().map(Reference::familiar).collect();
            for name in &names {
                progress(Progress::line(format!("Loaded image: {name}\n")));
            }
            if names.is_empty() {
                progress(Progress::line(format!("Loaded image ID: {id}\n")));
            }
            let image = self.get(&id)?;
            all.push(Loaded { image, names });
        }
        Ok(all)
    }

    /// Makes an image of a plain tar of a file system, as `docker import` does.
    pub fn import(&self, from: impl Read, config: ImageConfig, name: Option<&Reference>) -> Result<Image, ImageError> {
        self.tidied(self.import_whole(from, config, name))
    }

    fn import_whole(
        &self,
        from: impl Read,
        mut config: ImageConfig,
        name: Option<&Reference>,
    ) -> Result<Image, ImageError> {
        let _working = self.working()?;
        let mut spool = self.blob_file()?;
        let (_, tar) = layers::decompress(from).map_err(ImageError::file("read", Path::new("archive")))?;
        let unfinished = self.unpack(
            Tee {
                from: tar,
                to: &mut spool,
            },
            None,
        )?;
        let size = spool
            .as_file()
            .metadata()
            .map_err(ImageError::file("read", spool.path()))?
            .len();
        self.keep_blob(spool, &unfinished.diff_id)?;
        let blob = Blob {
            digest: unfinished.diff_id.clone(),
            size,
            media_type: MEDIA_TYPE_TAR.to_owned(),
        };
        let info = self.finish(unfinished, Some(blob))?;
        config.rootfs.diff_ids = vec![info.diff_id];
        self.add(&config, name.map(std::slice::from_ref).unwrap_or_default(), None)
    }

    fn rootfs(&self, source: &Source, path: &Path) -> Result<Image, ImageError> {
        let unknown = |source| ImageError::Rootfs {
            path: path.to_owned(),
            source,
        };
        let path = fs::canonicalize(path).map_err(unknown)?;
        if !fs::metadata(&path).map_err(unknown)?.is_dir() {
            return Err(ImageError::NotADirectory(path));
        }
        let mut config = ImageConfig::scratch();
        config.config.env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
        config.config.cmd = Some(vec!["/bin/sh".to_owned()]);
        config.rootfs.directory = Some(path.display().to_string());
        let bytes = serde_json::to_vec(&config).map_err(ImageError::document("an image config"))?;
        let id = sha256(&bytes);
        if let Some(image) = self.source(source, &id)? {
            return Ok(image);
        }
        self.add_raw(&bytes, &[], None, None)?;
        self.add_source(source, id.clone(), &id)?;
        self.get(&id)
    }

    /// Reads the images of `manifest.json`: all of them, or the one that `only` names.
    fn load_saved(
        &self,
        files: &Files,
        only: Option<Option<&Reference>>,
        progress: &ProgressSink,
    ) -> Result<Vec<(String, Vec<Reference>)>, ImageError> {
        if !files.has("manifest.json") {
            return Err(files.problem(ArchiveProblem::NotAnArchive));
        }
        let mut images: Vec<SavedImage> =
            serde_json::from_slice(&files.read("manifest.json")?).map_err(ImageError::document("manifest.json"))?;
        let names = |image: &SavedImage| -> Vec<Reference> {
            let tags = image.repo_tags.iter().flatten();
            tags.filter_map(|tag| Reference::parse(tag).ok()).collect()
        };
        match only {
            Some(Some(wanted)) => {
                images.retain(|image| names(image).contains(wanted));
                if images.is_empty() {
                    return Err(files.problem(ArchiveProblem::NoSuchName(wanted.familiar())));
                }
            }
            Some(None) if images.len() > 1 => {
                let all = images.iter().flat_map(names).map(|name| name.familiar()).collect();
                return Err(files.problem(ArchiveProblem::Several(all)));
            }
            _ => {}
        }
        let mut loaded = Vec::new();
        for image in &images {
            let config = files.read(&image.config)?;
            let document = parse_config(&config, &image.config)?;
            let diff_ids = &document.rootfs.diff_ids;
            if diff_ids.len() != image.layers.len() {
                let counts = (diff_ids.len(), image.layers.len());
                return Err(ImageError::LayerCount(image.config.clone(), counts.0, counts.1));
            }
            let incoming = image.layers.iter().zip(diff_ids).map(|(file, diff_id)| Incoming {
                file,
                diff_id,
                digest: None,
            });
            self.load_layers(files, &incoming.collect::<Vec<_>>(), progress)?;
            let added = self.add_raw(&config, &[], None, None)?;
            loaded.push((added.id, names(image)));
        }
        Ok(loaded)
    }

    /// Reads an image of an OCI layout: the one called `tag`, or the only one.
    pub(super) fn load_layout(
        &self,
        files: &Files,
        tag: Option<&str>,
        platform: &Platform,
        progress: &ProgressSink,
    ) -> Result<Vec<(String, Vec<Reference>)>, ImageError> {
        if !files.has("index.json") {
            return Err(files.problem(ArchiveProblem::NotAnArchive));
        }
        let index = Manifest::parse(&files.read("index.json")?, "index.json")?;
        let entries = index.manifests.unwrap_or_default();
        let name_of = |entry: &Descriptor| {
            let names = [IMAGE_NAME, REF_NAME].into_iter();
            names
                .filter_map(|key| entry.annotations.get(key).cloned())
                .collect::<Vec<_>>()
        };
        let mut chosen: Vec<&Descriptor> = entries.iter().collect();
        if let Some(tag) = tag {
            chosen.retain(|entry| name_of(entry).iter().any(|name| name == tag));
            if chosen.is_empty() {
                return Err(files.problem(ArchiveProblem::NoSuchName(tag.to_owned())));
            }
        }
        let mut loaded = Vec::new();
        for entry in chosen {
            let (manifest, bytes) = self.layout_manifest(files, entry, platform, 0)?;
            let config = manifest
                .config
                .as_ref()
                .ok_or_else(|| files.problem(ArchiveProblem::Missing("the config of an image".to_owned())))?;
            let config_bytes = layout_blob(files, &config.digest)?;
            let document = parse_config(&config_bytes, &config.digest)?;
            let layers = manifest.layers.as_deref().unwrap_or_default();
            let diff_ids = &document.rootfs.diff_ids;
            if diff_ids.len() != layers.len() {
                return Err(ImageError::LayerCount(
                    config.digest.clone(),
                    diff_ids.len(),
                    layers.len(),
                ));
            }
            let paths: Vec<String> = layers
                .iter()
                .map(|layer| blob_name(&layer.digest))
                .collect::<Result<_, _>>()?;
            let incoming = paths
                .iter()
                .zip(layers)
                .zip(diff_ids)
                .map(|((file, layer), diff_id)| Incoming {
                    file,
                    diff_id,
                    digest: Some(&layer.digest),
                });
            self.load_layers(files, &incoming.collect::<Vec<_>>(), progress)?;
            let manifest = self.put_blob(&bytes)?;
            let added = self.add_raw(&config_bytes, &[], None, Some(&manifest))?;
            // `org.opencontainers.image.ref.name` is often a bare tag, which names no repository to load into.
            let name = entry
                .annotations
                .get(IMAGE_NAME)
                .and_then(|name| Reference::parse(name).ok());
            loaded.push((added.id, name.into_iter().collect()));
        }
        match loaded.len() {
            0 => Err(files.problem(ArchiveProblem::NotAnArchive)),
            1 => Ok(loaded),
            _ if tag.is_none() => {
                let all = entries
                    .iter()
                    .flat_map(|entry| name_of(entry).into_iter().next())
                    .collect();
                Err(files.problem(ArchiveProblem::Several(all)))
            }
            _ => Ok(loaded),
        }
    }

    /// Follows an index to the manifest for a platform.
    fn layout_manifest(
        &self,
        files: &Files,
        entry: &Descriptor,
        platform: &Platform,
        depth: usize,
    ) -> Result<(Manifest, Vec<u8>), ImageError> {
        let bytes = layout_blob(files, &entry.digest)?;
        let manifest = Manifest::parse(&bytes, &entry.digest)?;
        if manifest.manifests.is_none() {
            return Ok((manifest, bytes));
        }
        // An index of indexes is allowed, one that goes on for ever is not.
        match manifest.choose(platform) {
            Some(chosen) if depth < 4 => self.layout_manifest(files, chosen, platform, depth + 1),
            _ => Err(files.problem(ArchiveProblem::Platform(platform.to_string()))),
        }
    }

    /// Unpacks what is not in the store yet, several layers at a time.
    fn load_layers(&self, files: &Files, layers: &[Incoming<'_>], progress: &ProgressSink) -> Result<(), ImageError> {
        let missing: Vec<&Incoming<'_>> = layers
            .iter()
            .filter(|layer| self.layer(layer.diff_id).is_err())
            .collect();
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || -> Result<Vec<LayerInfo>, ImageError> {
            let mut done = Vec::new();
            while let Some(layer) = missing.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                done.push(self.load_layer(files, layer, progress)?);
            }
            Ok(done)
        };
        let threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(missing.len());
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<Result<Vec<_>, _>>()
        })?;
        let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_owned()).collect();
        self.settle(&diff_ids)
    }

    fn load_layer(
        &self,
        files: &Files,
        layer: &Incoming<'_>,
        progress: &ProgressSink,
    ) -> Result<LayerInfo, ImageError> {
        let short = digest::short(layer.diff_id);
        progress(Progress::layer(short, "Loading layer"));
        let mut spool = self.blob_file()?;
        let reading = || ImageError::file("read", files.path());
        let (compression, _) = layers::decompress(files.open(layer.file)?).map_err(reading())?;
        let from = files.open(layer.file)?;
        let (unfinished, arrived) = match compression {
            // Kept compressed: fast to make, and a third of the size.
            Compression::None => {
                let mut encoder = zstd::stream::write::Encoder::new(&mut spool, 1).map_err(reading())?;
                let unfinished = self.unpack(Tee { from, to: &mut encoder }, Some(layer.diff_id))?;
                encoder.finish().map_err(reading())?;
                (unfinished, None)
            }
            Compression::Gzip | Compression::Zstd => {
                let mut arrived = HashingReader::new(Tee { from, to: &mut spool });
                let (_, tar) = layers::decompress(&mut arrived).map_err(reading())?;
                let unfinished = self.unpack(tar, Some(layer.diff_id))?;
                (unfinished, Some(arrived.finish().map_err(reading())?.0))
            }
        };
        let stated = layer.digest.unwrap_or(layer.diff_id);
        // An uncompressed file's digest is the diff id, which unpacking has checked.
        let actual = arrived.as_deref().unwrap_or(layer.diff_id);
        if layer.digest.is_some() && actual != stated {
            return Err(ImageError::Digest {
                what: "layer".to_owned(),
                expected: stated.to_owned(),
                actual: actual.to_owned(),
            });
        }
        let path = spool.path().to_owned();
        spool
            .seek(SeekFrom::Start(0))
            .map_err(ImageError::file("read", &path))?;
        let (blob, size) = HashingReader::new(spool.as_file())
            .finish()
            .map_err(ImageError::file("read", &path))?;
        self.keep_blob(spool, &blob)?;
        let compression = match compression {
            Compression::None => Compression::Zstd,
            other => other,
        };
        let blob = Blob {
            digest: blob,
            size,
            media_type: compression.media_type().to_owned(),
        };
        self.finish(unfinished, Some(blob))
    }

    /// Writes images as an archive that `docker load` and OCI tools read.
    pub fn save(&self, names: &[String], out: impl Write) -> Result<(), ImageError> {
        let _working = self.working()?;
        let mut archive = SaveArchive {
            builder: tar::Builder::new(out),
            written: std::collections::BTreeSet::new(),
        };
        let mut saved: Vec<SavedImage> = Vec::new();
        let mut manifests: Vec<serde_json::Value> = Vec::new();
        for name in names {
            let image = self.get(name)?;
            image.check()?;
            if let Some(directory) = &image.directory {
                return Err(ImageError::DirectoryView {
                    image: name.clone(),
                    directory: directory.display().to_string(),
                });
            }
            let config = self.read_blob(&image.id)?;
            archive.blob(&image.id, &config)?;
            let mut layers = Vec::new();
            for layer in &image.layers {
                let size = archive.layer(self, layer)?;
                layers.push(json!({"mediaType": MEDIA_TYPE_TAR, "digest": layer.diff_id, "size": size}));
            }
            let manifest = serde_json::to_vec(&json!({
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": OCI_CONFIG, "digest": image.id, "size": config.len()},
                "layers": layers,
            }))
            .map_err(ImageError::document("a manifest"))?;
            let digest = sha256(&manifest);
            archive.blob(&digest, &manifest)?;
            let reference = match Source::parse(name) {
                Ok(Source::Registry(reference)) if image.repo_tags.contains(&reference.familiar()) => Some(reference),
                _ => None,
            };
            let annotations = reference.as_ref().map(
                |reference| json!({IMAGE_NAME: reference.to_string(), REF_NAME: reference.tag().unwrap_or_default()}),
            );
            let mut entry = json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": manifest.len()});
            if let Some(annotations) = annotations {
                entry["annotations"] = annotations;
            }
            manifests.push(entry);
            let path = |digest: &str| format!("blobs/sha256/{}", digest::hex(digest));
            let config = path(&image.id);
            let tag = reference.map(|reference| reference.familiar());
            match saved.iter_mut().find(|saved| saved.config == config) {
                Some(known) => known.repo_tags.get_or_insert_default().extend(tag),
                None => saved.push(SavedImage {
                    config,
                    repo_tags: tag.map(|tag| vec![tag]),
                    layers: image.layers.iter().map(|layer| path(&layer.diff_id)).collect(),
                }),
            }
        }
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
        archive.document("index.json", &index)?;
        archive.document("manifest.json", &saved)?;
        archive.document("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
        archive.builder.finish().map_err(writing)
    }
}

fn writing(source: io::Error) -> ImageError {
    ImageError::file("write", Path::new("archive"))(source)
}

struct SaveArchive<W: Write> {
    builder: tar::Builder<W>,
    written: std::collections::BTreeSet<String>,
}

impl<W: Write> SaveArchive<W> {
    fn file(&mut self, name: &str, length: u64, data: impl Read) -> Result<(), ImageError> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(length);
        self.builder.append_data(&mut header, name, data).map_err(writing)
    }

    fn blob(&mut self, digest: &str, bytes: &[u8]) -> Result<(), ImageError> {
        if self.written.insert(digest.to_owned()) {
            let name = format!("blobs/sha256/{}", digest::hex(digest));
            self.file(&name, bytes.len() as u64, bytes)?;
        }
        Ok(())
    }

    fn document(&mut self, name: &str, document: &impl Serialize) -> Result<(), ImageError> {
        let bytes = serde_json::to_vec(document).map_err(ImageError::document(name))?;
        self.file(name, bytes.len() as u64, bytes.as_slice())
    }

    /// Writes a layer's tar, whose length must be known before its first byte, and returns that.
    fn layer(&mut self, store: &Store, layer: &LayerInfo) -> Result<u64, ImageError> {
        let mut spool = store.blob_file()?;
        store.write_layer_tar(layer, &mut io::BufWriter::new(spool.as_file_mut()))?;
        let path = spool.path().to_owned();
        let mut file = spool.into_file();
        let length = file.stream_position().map_err(ImageError::file("read", &path))?;
        if self.written.insert(layer.diff_id.clone()) {
            file.seek(SeekFrom::Start(0)).map_err(ImageError::file("read", &path))?;
            let name = format!("blobs/sha256/{}", digest::hex(&layer.diff_id));
            self.file(&name, length, file)?;
        }
        Ok(length)
    }
}

/// Copies what is read to a writer.
pub(super) struct Tee<R, W> {
    pub from: R,
    pub to: W,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.to.write_all(&buffer[..count])?;
        Ok(count)
    }
}

pub(super) fn parse_config(bytes: &[u8], name: &str) -> Result<ImageConfig, ImageError> {
    let mut config: ImageConfig =
        serde_json::from_slice(bytes).map_err(ImageError::document(format!("the image config {name}")))?;
    // Only an image made here may stand on a directory of this machine.
    if config.rootfs.directory.take().is_some() {
        return Err(ImageError::MediaType("rootfs directory".to_owned()));
    }
    Ok(config)
}

fn blob_name(digest: &str) -> Result<String, ImageError> {
    if !super::is_digest(digest) {
        return Err(ImageError::Digest {
            what: "blob".to_owned(),
            expected: "sha256:…".to_owned(),
            actual: digest.to_owned(),
        });
    }
    Ok(format!("blobs/sha256/{}", digest::hex(digest)))
}

fn layout_blob(files: &Files, digest: &str) -> Result<Vec<u8>, ImageError> {
    let bytes = files.read(&blob_name(digest)?)?;
    let actual = sha256(&bytes);
    if actual != digest {
        return Err(ImageError::Digest {
            what: "blob".to_owned(),
            expected: digest.to_owned(),
            actual,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
