//! The store: images by name and id, over blobs and layers by digest.
//!
//! ```text
//! <root>/index.json               which images there are and their names
//! <root>/cache.json               what build steps made
//! <root>/blobs/sha256/<digest>    configs, manifests, layers as they arrived
//! <root>/layers/<diff id>/fs      a layer as overlayfs mounts it
//! <root>/layers/<diff id>/layer.json    there once all of it has reached the disk
//! <root>/scaffold                 a bottom layer that has only mount points
//! <root>/masks/<digest>           what covers other people's things where the machine's root is a container's
//! <root>/tmp                      what is being made; renamed into place when whole
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::config::ImageConfig;
use super::index::{self, ImageRecord, Index, SourceRecord, Stamp};
use super::reference::{Reference, Source};
use super::remove::{self, Case, ImageUser, Removed};
use super::{ImageError, UnpackError, digest, tree};
use crate::os::held::Held;
use crate::rootless;

/// Images and their layers on this machine. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) root: PathBuf,
    state: Mutex<State>,
    /// Layers that are being pulled, by diff id.
    flights: Mutex<HashMap<String, Flight>>,
    /// Layers and blobs that may not have reached the disk yet.
    unsynced: Mutex<BTreeSet<String>>,
    /// Held shared as long as the store is open, so that nobody clears its unfinished work away.
    _open: File,
}

/// Held by whoever is fetching a layer.
type Flight = Arc<tokio::sync::Mutex<()>>;

#[derive(Default)]
struct State {
    index: Index,
    index_stamp: Stamp,
    cache: BTreeMap<String, CacheRecord>,
    cache_stamp: Stamp,
    configs: HashMap<String, Arc<ImageConfig>>,
    layers: HashMap<String, LayerInfo>,
    /// The index was damaged, and an older one may not name everything that is in use: nothing is collected by it.
    is_recovered: bool,
}

/// What is known of an unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInfo {
    pub diff_id: String,
    /// The sizes of its files added up.
    pub size: u64,
    /// The layer as it arrived or was last sent. Where there is none, packing the directory gives the layer's tar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<Blob>,
}

/// Bytes in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    pub digest: String,
    pub size: u64,
    pub media_type: String,
}

/// What a build step made, found again by the digest of all that went into it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRecord {
    /// The layer it made, if it made one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// When it was made and when it was last used, in seconds of the epoch.
    #[serde(default)]
    pub made: i64,
    #[serde(default)]
    pub used: i64,
}

/// An image as the engine shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// `sha256:…` of its config.
    pub id: String,
    pub config: Arc<ImageConfig>,
    /// Tags as people write them (`busybox:latest`), and the files and directories it was read from.
    pub repo_tags: Vec<String>,
    /// Digests by which registries know it (`busybox@sha256:…`).
    pub repo_digests: Vec<String>,
    /// The sizes of its layers added up.
    pub size: u64,
    pub created: Option<String>,
    /// Bottom first.
    pub layers: Vec<LayerInfo>,
    /// The directory of this machine that lies under the layers (`rootfs:PATH`).
    pub directory: Option<PathBuf>,
    /// The image it was made from, if a build or commit here made it.
    pub parent: Option<String>,
    /// Digest of its manifest, if a registry has one.
    pub manifest: Option<String>,
    /// When a name was last given to it, in seconds of the epoch.
    pub tagged: i64,
    /// Layers of it that are not here (any more): it cannot be used until it is pulled again.
    pub missing: Vec<String>,
}

impl Image {
    /// Returns an error that names the layer, if one is missing.
    pub fn check(&self) -> Result<(), ImageError> {
        match self.missing.first() {
            Some(layer) => Err(ImageError::Damaged {
                image: self.repo_tags.first().unwrap_or(&self.id).clone(),
                what: format!("layer {}", digest::short(layer)),
            }),
            None => Ok(()),
        }
    }
}

impl Store {
    /// Opens the store in a directory, which is made if need be.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let root: PathBuf = root.into();
        for directory in ["blobs/sha256", "layers", "tmp"] {
            let path = root.join(directory);
            std::fs::create_dir_all(&path).map_err(ImageError::file("create", &path))?;
        }
        // Layers hold set-user-id programs and others' secrets; nobody gets there but through a container.
        rustix::fs::chmod(&root, rustix::fs::Mode::RWXU)
            .map_err(|errno| ImageError::file("set the mode of", &root)(errno.into()))?;
        let lock_path = root.join("tmp.lock");
        let open = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(ImageError::file("open", &lock_path))?;
        // Alone: whatever is unfinished belongs to a process that is gone.
        if open.try_lock().is_ok() {
            for directory in ["tmp", "", "blobs/sha256"] {
                let directory = root.join(directory);
                for entry in std::fs::read_dir(&directory).map_err(ImageError::file("read", &directory))? {
                    let entry = entry.map_err(ImageError::file("read", &directory))?;
                    let path = entry.path();
                    let is_new = entry.file_name().as_encoded_bytes().starts_with(index::NEW.as_bytes());
                    if !(is_new || directory.ends_with("tmp")) {
                        continue;
                    }
                    tree::remove_path(&path).map_err(ImageError::file("remove", &path))?;
                }
            }
        }
        open.lock_shared().map_err(ImageError::file("lock", &lock_path))?;
        let store = Self {
            inner: Arc::new(Inner {
                root,
                state: Mutex::default(),
                flights: Mutex::default(),
                unsynced: Mutex::default(),
                _open: open,
            }),
        };
        store.scaffold()?;
        drop(store.state()?);
        Ok(store)
    }

    /// Returns the directory the store is in.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Finds an image by name, id, short id or digest.
    pub fn get(&self, name: &str) -> Result<Image, ImageError> {
        let state = self.state()?;
        let id = find(&state.index, name)?;
        self.image(state, &id)
    }

    /// Returns all images, oldest name first.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let ids: Vec<String> = {
            let state = self.state()?;
            let mut ids: Vec<_> = state
                .index
                .images
                .iter()
                .filter(|(_, record)| !record.detached)
                .map(|(id, record)| (record.tagged, id.clone()))
                .collect();
            ids.sort();
            ids.into_iter().map(|(_, id)| id).collect()
        };
        let mut images = Vec::new();
        for id in ids {
            match self.image(self.state()?, &id) {
                Ok(image) => images.push(image),
                // The others are there all the same; whoever asks for this one is told.
                Err(ImageError::Damaged { image, what }) => tracing::warn!(%image, %what, "an image is damaged"),
                Err(error) => return Err(error),
            }
        }
        Ok(images)
    }

    /// Gives an image another name.
    pub fn tag(&self, name: &str, target: &Reference) -> Result<Image, ImageError> {
        let target = target.clone().tagged();
        let id = self.change(|index| {
            let id = find(index, name)?;
            index.names.insert(target.to_string(), id.clone());
            if let Some(record) = index.images.get_mut(&id) {
                record.tagged = now();
            }
            Ok(id)
        })?;
        self.image(self.state()?, &id)
    }

    /// Removes a name, and with its last name the image, unless one of `users` has it. Says also how many bytes that frees.
    pub fn remove(
        &self,
        name: &str,
        force: bool,
        prune: bool,
        users: &[ImageUser],
    ) -> Result<(Vec<Removed>, u64), ImageError> {
        let removed = self.change(|index| {
            let mut removed = Vec::new();
            let id = find(index, name)?;
            let by_id = is_id(&id, name);
            // A file's or directory's name is one as well; it is not in the registry's names, so the image itself goes.
            let reference = (!by_id)
                .then(|| match Source::parse(name) {
                    Ok(Source::Registry(reference)) => Some(reference),
                    _ => None,
                })
                .flatten();
            let reference = reference.map(|reference| canonical_name(&reference).unwrap_or(reference));
            remove_one(index, &id, reference.as_ref(), force, users, &mut removed)?;
            let mut gone = id;
            while prune && removed.last().is_some_and(|last| matches!(last, Removed::Deleted(_))) {
                let Some(parent) = index.images.get(&gone).and_then(|record| record.parent.clone()) else {
                    break;
                };
                index.images.remove(&gone);
                let named = index.names.values().any(|named| *named == parent);
                if named || remove_one(index, &parent, None, false, users, &mut removed).is_err() {
                    break;
                }
                gone = parent;
            }
            finish_removal(index, users);
            Ok(removed)
        })?;
        let freed = self.collect()?;
        Ok((removed, freed))
    }

    /// Forgets the layers of images that were removed by force, once no container has them any more.
    pub fn release(&self, users: &[ImageUser]) -> Result<(), ImageError> {
        let has_detached = self.state()?.index.images.values().any(|record| record.detached);
        if has_detached {
            self.change(|index| {
                finish_removal(index, users);
                Ok(())
            })?;
            self.collect()?;
        }
        Ok(())
    }

    /// Returns the directories of layers, top first. Of a layer that is there twice, as two steps leave it that changed nothing,
    /// the upper one is what counts: it has all that the lower one has, and overlayfs takes no directory twice.
    pub fn layer_directories<'l>(&self, top_first: impl Iterator<Item = &'l str>) -> Vec<PathBuf> {
        let mut seen = BTreeSet::new();
        let once = top_first.filter(|layer| seen.insert(*layer));
        once.map(|layer| self.layer_directory(layer)).collect()
    }

    /// Returns the directories to mount for an image, top first. The last one may be a directory of this machine.
    pub fn layer_dirs(&self, image: &Image) -> Vec<PathBuf> {
        let layers = image.layers.iter().rev();
        let mut directories = self.layer_directories(layers.map(|layer| layer.diff_id.as_str()));
        directories.extend(
            image
                .directory
                .iter()
                .flat_map(|directory| self.directory_dirs(directory)),
        );
        directories
    }

    /// Returns the directories to mount for a directory of this machine that an image or a build stands on, top first.
    pub fn directory_dirs(&self, directory: &Path) -> Vec<PathBuf> {
        let mut directories = Vec::new();
        // A plain user's containers see no more of others' things than the user does.
        if directory == Path::new("/") && rootless::is_machine_wide() {
            // Where secrets cannot be covered there is nothing of this name, and so nothing to mount.
            directories.push(self.mask().unwrap_or_else(|error| {
                tracing::warn!(%error, "other people's things cannot be covered");
                self.inner.root.join("masks/none")
            }));
        }
        directories.push(directory.to_owned());
        directories
    }

    /// Finds an image that was removed by force while a container has it.
    pub fn get_detached(&self, id: &str) -> Result<Image, ImageError> {
        self.image(self.state()?, id)
    }

    /// Adds an image whose layers are in the store.
    pub fn add(&self, config: &ImageConfig, names: &[Reference], parent: Option<&str>) -> Result<Image, ImageError> {
        let bytes = serde_json::to_vec(config).map_err(ImageError::document("an image config"))?;
        self.add_raw(&bytes, names, parent, None)
    }

    /// The same from the bytes of a config that came from elsewhere: they are the image's identity.
    pub(super) fn add_raw(
        &self,
        config: &[u8],
        names: &[Reference],
        parent: Option<&str>,
        manifest: Option<&str>,
    ) -> Result<Image, ImageError> {
        let id = self.put_blob(config)?;
        let document: ImageConfig =
            serde_json::from_slice(config).map_err(ImageError::document(format!("the config of image {id}")))?;
        for layer in &document.rootfs.diff_ids {
            self.layer(layer)?;
        }
        self.sync()?;
        self.change(|index| {
            let known = index.images.get(&id).cloned().unwrap_or_default();
            let mut record = ImageRecord {
                layers: document.rootfs.diff_ids.clone(),
                directory: document.rootfs.directory.as_ref().map(PathBuf::from),
                parent: parent.map(str::to_owned).or(known.parent.clone()),
                manifest: manifest.map(str::to_owned).or(known.manifest.clone()),
                detached: false,
                tagged: known.tagged,
            };
            let mut renamed = false;
            for name in names {
                let previous = index.names.insert(name.to_string(), id.clone());
                renamed |= previous.as_ref() != Some(&id);
            }
            // A pull that finds nothing new is worth remembering as well, for policies such as `daily`; to the hour is enough.
            let is_old = manifest.is_some() && known.tagged + 3600 < now();
            if renamed || is_old || record != known {
                record.tagged = now();
            }
            index.images.insert(id.clone(), record);
            Ok(())
        })?;
        self.image(self.state()?, &id)
    }

    /// Remembers what a file or directory of this machine was read as.
    pub(super) fn add_source(&self, source: &Source, stamp: String, id: &str) -> Result<(), ImageError> {
        self.change(|index| {
            let record = SourceRecord {
                id: id.to_owned(),
                stamp,
            };
            index.sources.insert(source.to_string(), record);
            Ok(())
        })
    }

    /// Returns what a file or directory of this machine was read as, if it still looks the same.
    pub(super) fn source(&self, source: &Source, stamp: &str) -> Result<Option<Image>, ImageError> {
        let state = self.state()?;
        match state.index.sources.get(&source.to_string()) {
            Some(record) if record.stamp == stamp && state.index.images.contains_key(&record.id) => {
                let id = record.id.clone();
                self.image(state, &id).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Returns what a build step made when it was last run with these inputs, if its layer is still there.
    pub fn cached(&self, key: &str) -> Result<Option<CacheRecord>, ImageError> {
        let record = self.state()?.cache.get(key).cloned();
        let record = record.filter(|record| record.layer.as_ref().is_none_or(|layer| self.layer(layer).is_ok()));
        // To the day is enough for who goes first when there is no room, and spares most builds a write.
        if let Some(record) = record.as_ref().filter(|record| record.used + 24 * 3600 < now()) {
            let used = CacheRecord {
                used: now(),
                ..record.clone()
            };
            self.remember([(key.to_owned(), used)])?;
        }
        Ok(record)
    }

    /// Remembers what a build's steps made.
    pub fn remember(&self, steps: impl IntoIterator<Item = (String, CacheRecord)>) -> Result<(), ImageError> {
        let _writer = self.lock()?;
        let mut state = self.state()?;
        state.cache.extend(steps);
        self.write_cache(&mut state)
    }

    /// Forgets what build steps made, except what `keep` says, and returns how many bytes that frees.
    pub fn prune_cache(&self, keep: impl Fn(&str, &CacheRecord) -> bool) -> Result<u64, ImageError> {
        {
            let _writer = self.lock()?;
            let mut state = self.state()?;
            state.cache.retain(|key, record| keep(key, record));
            self.write_cache(&mut state)?;
        }
        self.collect()
    }

    /// Returns every step of the build cache.
    pub fn cache(&self) -> Result<BTreeMap<String, CacheRecord>, ImageError> {
        Ok(self.state()?.cache.clone())
    }

    /// Keeps what is being made from being collected until the returned value is dropped: it is in no index yet.
    pub fn working(&self) -> Result<Held, ImageError> {
        let path = self.inner.root.join("work.lock");
        let file = self.lock_file(&path)?;
        file.lock_shared().map_err(ImageError::file("lock", &path))?;
        Ok(Held::new(file))
    }

    /// Removes layers and blobs that neither an image nor a build step has, and returns how many bytes that frees.
    ///
    /// While a pull, load or build is at work nothing is removed; the next removal after it does.
    fn collect(&self) -> Result<u64, ImageError> {
        let _writer = self.lock()?;
        let working = self.lock_file(&self.inner.root.join("work.lock"))?;
        if working.try_lock().is_err() {
            return Ok(0);
        }
        let _working = Held::new(working);
        let (layers, mut blobs) = {
            let state = self.state()?;
            if state.is_recovered {
                return Ok(0);
            }
            let mut layers: BTreeSet<String> = BTreeSet::new();
            let mut blobs: BTreeSet<String> = BTreeSet::new();
            for (id, record) in &state.index.images {
                layers.extend(record.layers.iter().cloned());
                blobs.insert(id.clone());
                blobs.extend(record.manifest.clone());
            }
            layers.extend(state.cache.values().filter_map(|record| record.layer.clone()));
            (layers, blobs)
        };
        for layer in &layers {
            if let Ok(info) = self.layer(layer) {
                blobs.extend(info.blob.map(|blob| blob.digest));
            }
        }
        let freed = self.sweep(&layers, &blobs)?;
        let mut state = self.state()?;
        state.layers.retain(|layer, _| layers.contains(layer));
        state.configs.retain(|id, _| blobs.contains(id));
        Ok(freed)
    }

    /// Takes away what an attempt left that failed for want of room, so that there is as much as before.
    pub(super) fn tidied<T>(&self, result: Result<T, ImageError>) -> Result<T, ImageError> {
        if let Err(error) = &result
            && is_full(error)
            && let Err(error) = self.collect()
        {
            tracing::warn!(%error, "what a failed attempt left cannot be removed");
        }
        result
    }

    /// Returns what is known of an unpacked layer.
    pub fn layer(&self, diff_id: &str) -> Result<LayerInfo, ImageError> {
        if let Some(info) = self.memory().layers.get(diff_id) {
            return Ok(info.clone());
        }
        let info = self.read_layer(diff_id)?;
        self.memory().layers.insert(diff_id.to_owned(), info.clone());
        Ok(info)
    }

    /// Returns what to hold while fetching a layer, so that nobody fetches it twice at once.
    pub(super) fn flight(&self, diff_id: &str) -> Flight {
        let mut flights = self.inner.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| Arc::strong_count(flight) > 1);
        flights.entry(diff_id.to_owned()).or_default().clone()
    }

    pub(super) fn unsynced(&self) -> BTreeSet<String> {
        self.inner
            .unsynced
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set_unsynced(&self, digest: &str) {
        let mut unsynced = self.inner.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        unsynced.insert(digest.to_owned());
    }

    pub(super) fn clear_unsynced(&self, done: &BTreeSet<String>) {
        let mut unsynced = self.inner.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        unsynced.retain(|digest| !done.contains(digest));
    }

    pub(super) fn forget_layer(&self, diff_id: &str) {
        self.memory().layers.remove(diff_id);
    }

    fn image(&self, state: MutexGuard<'_, State>, id: &str) -> Result<Image, ImageError> {
        let not_found = || ImageError::NotFound(id.to_owned());
        let record = state.index.images.get(id).cloned().ok_or_else(not_found)?;
        let (mut repo_tags, mut repo_digests) = (Vec::new(), Vec::new());
        for (name, _) in state.index.names.iter().filter(|(_, named)| *named == id) {
            if let Ok(reference) = Reference::parse(name) {
                match reference.digest() {
                    Some(_) => repo_digests.push(reference.familiar()),
                    None => repo_tags.push(reference.familiar()),
                }
            }
        }
        let sources = state.index.sources.iter().filter(|(_, record)| record.id == id);
        repo_tags.extend(sources.map(|(source, _)| source.clone()));
        let known = state.configs.get(id).cloned();
        drop(state);
        let config = match known {
            Some(config) => config,
            None => {
                let bytes = self.read_blob(id).map_err(|_| ImageError::Damaged {
                    image: repo_tags.first().map_or(id, String::as_str).to_owned(),
                    what: "the config".to_owned(),
                })?;
                let config: ImageConfig = serde_json::from_slice(&bytes)
                    .map_err(ImageError::document(format!("the config of image {id}")))?;
                let config = Arc::new(config);
                self.memory().configs.insert(id.to_owned(), config.clone());
                config
            }
        };
        let (mut layers, mut missing) = (Vec::new(), Vec::new());
        for layer in &record.layers {
            layers.push(self.layer(layer).unwrap_or_else(|_| {
                missing.push(layer.clone());
                LayerInfo {
                    diff_id: layer.clone(),
                    size: 0,
                    blob: None,
                }
            }));
        }
        Ok(Image {
            id: id.to_owned(),
            created: config.created.clone(),
            size: layers.iter().map(|layer| layer.size).sum(),
            config,
            repo_tags,
            repo_digests,
            layers,
            directory: record.directory,
            parent: record.parent,
            manifest: record.manifest,
            tagged: record.tagged,
            missing,
        })
    }

    pub(super) fn records(&self) -> Result<Vec<(String, ImageRecord)>, ImageError> {
        Ok(self.state()?.index.images.clone().into_iter().collect())
    }

    /// Returns names, as people write them, with the ids they stand for.
    pub(super) fn names(&self) -> Result<Vec<(String, String)>, ImageError> {
        let state = self.state()?;
        let names = state.index.names.iter().filter_map(|(name, id)| {
            let reference = Reference::parse(name).ok()?;
            Some((reference.familiar(), id.clone()))
        });
        Ok(names.collect())
    }

    pub(super) fn forget_config(&self, id: &str) {
        self.memory().configs.remove(id);
    }

    fn index_path(&self) -> PathBuf {
        self.inner.root.join("index.json")
    }

    fn cache_path(&self) -> PathBuf {
        self.inner.root.join("cache.json")
    }

    fn memory(&self) -> MutexGuard<'_, State> {
        // Whoever panicked while holding it left whole values: every write to it is one assignment.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the state, read again if another process wrote it.
    fn state(&self) -> Result<MutexGuard<'_, State>, ImageError> {
        let mut state = self.memory();
        let path = self.index_path();
        let stamp = Stamp::of(&path).map_err(ImageError::file("read", &path))?;
        if stamp != state.index_stamp {
            state.index = match index::read(&path) {
                Err(ImageError::Digest { .. } | ImageError::Document { .. }) => {
                    state.is_recovered = true;
                    recover(&path)?
                }
                other => other?,
            };
            state.index_stamp = Stamp::of(&path).map_err(ImageError::file("read", &path))?;
        }
        let path = self.cache_path();
        let stamp = Stamp::of(&path).map_err(ImageError::file("read", &path))?;
        if stamp != state.cache_stamp {
            state.cache = match index::read(&path) {
                // Everything in it can be made again.
                Err(error @ (ImageError::Digest { .. } | ImageError::Document { .. })) => {
                    tracing::warn!(%error, "the build cache is damaged and begins anew");
                    index::set_aside(&path)?;
                    BTreeMap::new()
                }
                other => other?,
            };
            state.cache_stamp = Stamp::of(&path).map_err(ImageError::file("read", &path))?;
        }
        Ok(state)
    }

    /// Makes this the only writer until the returned value is dropped.
    fn lock(&self) -> Result<Held, ImageError> {
        let path = self.inner.root.join("lock");
        let file = self.lock_file(&path)?;
        file.lock().map_err(ImageError::file("lock", &path))?;
        Ok(Held::new(file))
    }

    fn lock_file(&self, path: &Path) -> Result<File, ImageError> {
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(ImageError::file("open", path))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Index) -> Result<T, ImageError>) -> Result<T, ImageError> {
        let _writer = self.lock()?;
        let mut state = self.state()?;
        let mut index = state.index.clone();
        let result = change(&mut index)?;
        // A build that found every step in its cache changes nothing, and need not wait for the disk.
        if index == state.index {
            return Ok(result);
        }
        let path = self.index_path();
        index::write_kept(&path, &index)?;
        state.index = index;
        state.index_stamp = Stamp::of(&path).map_err(ImageError::file("read", &path))?;
        Ok(result)
    }

    fn write_cache(&self, state: &mut State) -> Result<(), ImageError> {
        let path = self.cache_path();
        index::write(&path, &state.cache)?;
        state.cache_stamp = Stamp::of(&path).map_err(ImageError::file("read", &path))?;
        Ok(())
    }
}

/// Puts the index as it was before its last change in the place of a damaged one.
fn recover(path: &Path) -> Result<Index, ImageError> {
    let previous = index::previous(path);
    let index: Index = match index::read(&previous) {
        Ok(index) => index,
        Err(error) => {
            tracing::warn!(%error, "the older list of images is damaged as well");
            Index::default()
        }
    };
    let aside = index::set_aside(path)?;
    index::write(path, &index)?;
    tracing::warn!(
        damaged = %aside.display(),
        images = index.images.len(),
        "the list of images was damaged; this is the one before its last change"
    );
    Ok(index)
}

/// Returns whether an error says that the disk is full.
fn is_full(error: &ImageError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let is_full = match (
            error.downcast_ref::<std::io::Error>(),
            error.downcast_ref::<UnpackError>(),
        ) {
            (Some(error), _) => {
                use std::io::ErrorKind::{QuotaExceeded, StorageFull};
                matches!(error.kind(), StorageFull | QuotaExceeded)
            }
            (_, Some(UnpackError::TooLarge(_) | UnpackError::TooManyEntries(_))) => true,
            _ => false,
        };
        if is_full {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Finds an image's id by whatever a person may call it, in Docker's order: full id, name, beginning of an id.
fn find(index: &Index, name: &str) -> Result<String, ImageError> {
    let is_image = |id: &str| index.images.get(id).is_some_and(|record| !record.detached);
    let whole = if digest::is_hex(name) {
        format!("sha256:{name}")
    } else {
        name.to_owned()
    };
    if is_image(&whole) {
        return Ok(whole);
    }
    let mut not_found = name.to_owned();
    if !digest::is_digest(&whole) {
        match Source::parse(name)? {
            Source::Registry(reference) => {
                let key = canonical_name(&reference)?.to_string();
                if let Some(id) = index.names.get(&key) {
                    return Ok(id.clone());
                }
                not_found = reference.familiar();
            }
            source => {
                if let Some(record) = index.sources.get(&source.to_string())
                    && is_image(&record.id)
                {
                    return Ok(record.id.clone());
                }
            }
        }
    }
    let beginning = name.strip_prefix("sha256:").unwrap_or(name);
    if !beginning.is_empty() && beginning.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        let mut matches = index
            .images
            .keys()
            .filter(|id| is_image(id) && digest::hex(id).starts_with(beginning));
        if let (Some(id), None) = (matches.next(), matches.next()) {
            return Ok(id.clone());
        }
    }
    Err(ImageError::NotFound(not_found))
}

/// Returns the name under which a reference is kept: one with a digest is found by that alone.
fn canonical_name(reference: &Reference) -> Result<Reference, ImageError> {
    Ok(match reference.digest() {
        Some(digest) => reference.with_digest(digest)?,
        None => reference.clone(),
    })
}

/// Returns whether the text is the id or its beginning, rather than a name.
fn is_id(id: &str, text: &str) -> bool {
    let text = text.strip_prefix("sha256:").unwrap_or(text);
    !text.is_empty() && digest::hex(id).starts_with(text)
}

fn remove_one(
    index: &mut Index,
    id: &str,
    reference: Option<&Reference>,
    force: bool,
    users: &[ImageUser],
    removed: &mut Vec<Removed>,
) -> Result<(), ImageError> {
    let names: Vec<Reference> = index
        .names
        .iter()
        .filter(|(_, named)| *named == id)
        .filter_map(|(name, _)| Reference::parse(name).ok())
        .collect();
    let has_children = index
        .images
        .values()
        .any(|record| !record.detached && record.parent.as_deref() == Some(id));
    let decision = remove::decide(&Case {
        id,
        reference,
        names: &names,
        users,
        has_children,
        force,
    })?;
    for name in decision.untag {
        index.names.remove(&name.to_string());
        removed.push(Removed::Untagged(name.familiar()));
    }
    if decision.delete {
        index.sources.retain(|_, record| record.id != id);
        if let Some(record) = index.images.get_mut(id) {
            record.detached = true;
        }
        removed.push(Removed::Deleted(id.to_owned()));
    }
    Ok(())
}

/// Drops removed images, but keeps those whose layers a container still stands on.
fn finish_removal(index: &mut Index, users: &[ImageUser]) {
    index
        .images
        .retain(|id, record| !record.detached || users.iter().any(|user| user.image_id == *id));
}

pub(super) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
