//! Layers and blobs on disk: made under a temporary name, renamed into place when whole, removed when nobody has them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::digest::{self, HashingReader, HashingWriter};
use super::index;
use super::pack::{self, PackOptions};
use super::store::{Blob, LayerInfo, Store};
use super::unpack::{self, Limits, UnpackError};
use super::usage::Blocks;
use super::{ImageError, check, sha256, tree};
use crate::os::held::Held;

/// How a layer is compressed, found in its first bytes: media types lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Describes a layer all of whose files have reached the disk.
const DESCRIPTION: &str = "layer.json";

/// Stands between a damaged layer's name and a number once another has its place.
const ASIDE: &str = ".damaged-";

/// Lists directories that wait for the layers below.
const IMPLIED: &str = "implied.json";

pub(super) const MEDIA_TYPE_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub(super) const MEDIA_TYPE_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(super) const MEDIA_TYPE_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

impl Compression {
    pub(super) fn of(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::None => MEDIA_TYPE_TAR,
            Self::Gzip => MEDIA_TYPE_GZIP,
            Self::Zstd => MEDIA_TYPE_ZSTD,
        }
    }
}

/// Returns what the stream holds once decompressed, be it in one of the two ways that no layer is, but archives are.
pub(crate) fn plain<'r>(mut from: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
    let mut first = Vec::with_capacity(6);
    from.by_ref().take(6).read_to_end(&mut first)?;
    let is_bzip2 = first.starts_with(b"BZh");
    let is_xz = first.starts_with(b"\xfd7zXZ\0");
    let whole = io::Cursor::new(first).chain(from);
    if is_bzip2 {
        return Ok(Box::new(bzip2_rs::DecoderReader::new(whole)));
    }
    if is_xz {
        return Ok(Box::new(lzma_rust2::XzReader::new(whole, true)));
    }
    decompress(whole).map(|(_, plain)| plain)
}

/// Returns what the stream holds once decompressed, and how it was compressed.
pub(super) fn decompress<'r>(mut from: impl Read + 'r) -> io::Result<(Compression, Box<dyn Read + 'r>)> {
    let mut first = Vec::with_capacity(4);
    from.by_ref().take(4).read_to_end(&mut first)?;
    let compression = Compression::of(&first);
    let whole = io::Cursor::new(first).chain(from);
    Ok((
        compression,
        match compression {
            Compression::None => Box::new(whole),
            // Several members after each other are one stream, as gzip itself has it.
            Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(BufReader::with_capacity(
                64 * 1024,
                whole,
            ))),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(whole)?),
        },
    ))
}

/// A directory in the store that is nobody's yet; gone with the value unless it becomes a layer.
#[derive(Debug)]
pub struct Scratch {
    directory: Temporary,
}

/// A directory in `tmp` that is gone with the value, however deep what is in it.
#[derive(Debug)]
struct Temporary(Option<PathBuf>);

impl Temporary {
    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    /// Leaves the directory to whoever has it now.
    fn keep(mut self) {
        self.0 = None;
    }

    fn remove(mut self) -> io::Result<()> {
        self.0.take().map_or(Ok(()), |path| tree::remove_path(&path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // What is left is removed when the store is opened the next time.
            let _ = tree::remove_path(path);
        }
    }
}

impl Scratch {
    /// Returns the directory that is to become the layer.
    pub fn upper(&self) -> PathBuf {
        self.directory.path().join("fs")
    }

    /// Returns a directory for overlayfs's own work.
    pub fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// Returns the directory around both, where other things may be kept meanwhile.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// A layer that is unpacked and right, but not in the store yet.
pub(super) struct Unfinished {
    scratch: Scratch,
    pub diff_id: String,
    size: u64,
}

/// Held by the process that fetches a layer.
pub(super) struct Fetching {
    path: PathBuf,
    _file: Held,
}

impl Unfinished {
    pub(super) fn directory(&self) -> PathBuf {
        self.scratch.upper()
    }

    /// Returns the directories that the tar implies but does not list.
    pub(super) fn implied(&self) -> Result<Vec<PathBuf>, ImageError> {
        let list = self.scratch.path().join(IMPLIED);
        if list.is_file() {
            index::read(&list)
        } else {
            Ok(Vec::new())
        }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        // Whoever waits has it open. Should a third one begin anew, a layer is fetched twice, and one of them thrown away.
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns what names this life of the machine.
pub(super) fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        match id.trim() {
            // Nothing is known of other processes then, so it counts for this one.
            "" => std::process::id().to_string(),
            id => id.to_owned(),
        }
    })
}

/// Describes a layer some of whose files may not have reached the disk: as long as the machine does not start anew, they are there.
fn unsynced_description() -> String {
    format!("unsynced-{}.json", boot())
}

impl Store {
    /// Returns the directory of an unpacked layer.
    pub fn layer_directory(&self, diff_id: &str) -> PathBuf {
        self.layer_home(diff_id).join("fs")
    }

    fn layer_home(&self, diff_id: &str) -> PathBuf {
        self.root().join("layers").join(digest::hex(diff_id))
    }

    /// Returns a directory to lie under all layers of an image: it has only mount points, so it covers nothing, and a runtime need
    /// not make them in the writable layer.
    pub fn scaffold(&self) -> Result<PathBuf, ImageError> {
        let scaffold = self.root().join("scaffold");
        if scaffold.is_dir() {
            return Ok(scaffold);
        }
        let attempt = || -> io::Result<()> {
            let new = self.scratch_directory()?;
            let fs = new.path().join("scaffold");
            for directory in ["", "dev", "dev/pts", "dev/shm", "dev/mqueue", "etc", "proc", "sys"] {
                fs::DirBuilder::new().mode(0o755).create(fs.join(directory))?;
            }
            for file in ["etc/hostname", "etc/hosts", "etc/resolv.conf"] {
                File::create(fs.join(file))?;
            }
            match fs::rename(&fs, &scaffold) {
                Err(_) if scaffold.is_dir() => Ok(()),
                other => other,
            }
        };
        attempt().map_err(ImageError::file("create", &scaffold))?;
        Ok(scaffold)
    }

    fn scratch_directory(&self) -> io::Result<Temporary> {
        let directory = tempfile::Builder::new()
            .prefix("layer-")
            .rand_bytes(10)
            .tempdir_in(self.root().join("tmp"))?;
        Ok(Temporary(Some(directory.keep())))
    }

    /// Returns an empty directory on the store's file system to make a layer in.
    pub fn scratch(&self) -> Result<Scratch, ImageError> {
        let tmp = self.root().join("tmp");
        let attempt = || -> io::Result<Scratch> {
            let scratch = Scratch {
                directory: self.scratch_directory()?,
            };
            fs::DirBuilder::new().mode(0o755).create(scratch.upper())?;
            fs::DirBuilder::new().mode(0o700).create(scratch.work())?;
            Ok(scratch)
        };
        attempt().map_err(ImageError::file("create a directory in", &tmp))
    }

    /// Makes a directory that holds what changed (overlayfs's upper directory) a layer. Nothing is copied.
    pub fn seal(&self, scratch: Scratch, options: PackOptions) -> Result<LayerInfo, ImageError> {
        let upper = scratch.upper();
        let (writer, size) =
            pack::pack_directory(&upper, HashingWriter::new(io::sink()), options).map_err(|source| {
                ImageError::Pack {
                    layer: upper.display().to_string(),
                    source,
                }
            })?;
        let (_, diff_id, _) = writer.finish();
        if let Ok(info) = self.layer(&diff_id) {
            return Ok(info);
        }
        // Times are part of the tar; the directory must give the same one when it is packed again.
        if let Some(latest) = options.latest {
            pack::clamp_times(&upper, latest).map_err(ImageError::file("set times in", &upper))?;
        }
        let info = LayerInfo {
            diff_id,
            size,
            blob: None,
        };
        self.install(scratch, info)
    }

    /// Makes a copy of a directory a layer, whoever goes on writing to the directory.
    pub fn copy_layer(&self, directory: &Path) -> Result<LayerInfo, ImageError> {
        let (reader, writer) = io::pipe().map_err(ImageError::file("copy", directory))?;
        std::thread::scope(|scope| {
            let packing = scope.spawn(move || {
                let out = io::BufWriter::with_capacity(256 * 1024, writer);
                pack::pack_directory(directory, out, PackOptions::default())
                    .and_then(|(mut out, _)| out.flush().map_err(pack::PackError::Write))
            });
            // The tar of what was unpacked is the tar it was unpacked from: both are in the one order.
            let unpacked = self.unpack(reader, None);
            // A panic there has been reported already; here it is a pack that did not finish.
            match packing.join() {
                Ok(Err(source)) => Err(ImageError::Pack {
                    layer: directory.display().to_string(),
                    source,
                }),
                _ => self.finish(unpacked?, None),
            }
        })
    }

    /// Unpacks an uncompressed tar, which must have the digest `expected` if one is known. It is no layer until it is finished.
    pub(super) fn unpack(&self, tar: impl Read, expected: Option<&str>) -> Result<Unfinished, ImageError> {
        let name = expected.map_or("of an archive", digest::short).to_owned();
        let refused = |source| ImageError::Unpack {
            layer: name.clone(),
            source,
        };
        let scratch = self.scratch()?;
        let upper = scratch.upper();
        let limits = Limits::of(&upper).map_err(|error| refused(UnpackError::Root(error)))?;
        let unpacked = unpack::unpack_layer(tar, &upper, limits).map_err(&refused)?;
        if let Some(expected) = expected
            && unpacked.diff_id != expected
        {
            return Err(ImageError::Digest {
                what: "layer".to_owned(),
                expected: expected.to_owned(),
                actual: unpacked.diff_id,
            });
        }
        if !unpacked.implied.is_empty() {
            let path = scratch.path().join(IMPLIED);
            let list: Vec<String> = unpacked.implied.iter().map(|path| path.display().to_string()).collect();
            index::write(&path, &list)?;
        }
        Ok(Unfinished {
            scratch,
            diff_id: unpacked.diff_id,
            size: unpacked.size,
        })
    }

    /// Makes what was unpacked a layer. `blob` is what it arrived as, already kept; without one, packing it must give its tar.
    pub(super) fn finish(&self, unfinished: Unfinished, blob: Option<Blob>) -> Result<LayerInfo, ImageError> {
        let info = LayerInfo {
            diff_id: unfinished.diff_id,
            size: unfinished.size,
            blob,
        };
        self.install(unfinished.scratch, info)
    }

    /// Settles the directories that layers (bottom first) only implied, once all of them are there.
    pub(super) fn settle(&self, layers: &[String]) -> Result<(), ImageError> {
        for (position, layer) in layers.iter().enumerate() {
            let list = self.layer_home(layer).join(IMPLIED);
            if !list.is_file() {
                continue;
            }
            // Another process that has the same layer may settle it at the same time, which does no harm.
            let implied: Vec<PathBuf> = match index::read(&list) {
                Err(_) if !list.exists() => continue,
                read => read?,
            };
            let below: Vec<PathBuf> = layers[..position]
                .iter()
                .rev()
                .map(|below| self.layer_directory(below))
                .collect();
            let directory = self.layer_directory(layer);
            unpack::settle(&directory, &implied, &below).map_err(ImageError::file("settle", &directory))?;
            match fs::remove_file(&list) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ImageError::file("remove", &list)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Moves a finished layer to where it is found by its digest.
    fn install(&self, scratch: Scratch, info: LayerInfo) -> Result<LayerInfo, ImageError> {
        let home = self.layer_home(&info.diff_id);
        // What else was kept beside the layer while it was made goes.
        let made = scratch.path().to_owned();
        for entry in fs::read_dir(&made).map_err(ImageError::file("read", &made))? {
            let entry = entry.map_err(ImageError::file("read", &made))?;
            let path = entry.path();
            if matches!(entry.file_name().to_str(), Some("fs" | IMPLIED)) {
                continue;
            }
            tree::remove_path(&path).map_err(ImageError::file("remove", &path))?;
        }
        let description = serde_json::to_vec(&info).map_err(ImageError::document("a layer's description"))?;
        let path = scratch.path().join(unsynced_description());
        fs::write(&path, index::seal(description)).map_err(ImageError::file("write", &path))?;
        let path = scratch.path().join(check::CHECKED);
        fs::write(&path, check::made_now()?).map_err(ImageError::file("write", &path))?;
        let mut renamed = fs::rename(scratch.path(), &home);
        if renamed.is_err() {
            // Someone else finished the same layer first; theirs is as good, unless it is no layer (any more).
            if let Ok(info) = self.read_layer(&info.diff_id) {
                return Ok(info);
            }
            if home.is_dir() {
                self.put_aside(&home)?;
                renamed = fs::rename(scratch.path(), &home);
            }
        }
        renamed.map_err(ImageError::file("create", &home))?;
        // The directory has its final name; there is nothing left under the old one.
        scratch.directory.keep();
        self.set_unsynced(&info.diff_id);
        self.forget_layer(&info.diff_id);
        Ok(info)
    }

    pub(super) fn read_layer(&self, diff_id: &str) -> Result<LayerInfo, ImageError> {
        if !digest::is_digest(diff_id) {
            return Err(ImageError::Digest {
                what: "layer".to_owned(),
                expected: "sha256:…".to_owned(),
                actual: diff_id.to_owned(),
            });
        }
        let home = self.layer_home(diff_id);
        let path = home.join(DESCRIPTION);
        let (path, bytes) = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let unsynced = home.join(unsynced_description());
                let bytes = fs::read(&unsynced).map_err(|_| ImageError::file("read", &path)(error))?;
                self.set_unsynced(diff_id);
                (unsynced, bytes)
            }
            other => (path.clone(), other.map_err(ImageError::file("read", &path))?),
        };
        let info: LayerInfo = index::parse(&path, &bytes)?;
        let fs = home.join("fs");
        if info.diff_id != diff_id || !fs.is_dir() {
            return Err(ImageError::file("read", &fs)(io::ErrorKind::NotFound.into()));
        }
        Ok(info)
    }

    /// Says that a layer is not what its digest stands for, so that the next pull fetches it anew.
    pub(super) fn distrust(&self, diff_id: &str) -> Result<(), ImageError> {
        let home = self.layer_home(diff_id);
        for name in [DESCRIPTION, &unsynced_description()] {
            let path = home.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(ImageError::file("remove", &path)(error));
                }
                _ => {}
            }
        }
        self.forget_layer(diff_id);
        Ok(())
    }

    /// Remembers as which bytes a layer travels.
    pub(super) fn set_layer_blob(&self, diff_id: &str, blob: Blob) -> Result<(), ImageError> {
        let mut info = self.layer(diff_id)?;
        info.blob = Some(blob);
        self.describe_layer(&info)
    }

    /// Forgets as which bytes a layer arrived: they are not those any more, and its directory gives its tar as well.
    pub(super) fn forget_layer_blob(&self, info: &LayerInfo) -> Result<(), ImageError> {
        let mut info = info.clone();
        info.blob = None;
        self.describe_layer(&info)
    }

    fn describe_layer(&self, info: &LayerInfo) -> Result<(), ImageError> {
        let diff_id = &info.diff_id;
        let bytes = serde_json::to_vec(info).map_err(ImageError::document("a layer's description"))?;
        let home = self.layer_home(diff_id);
        let name = match home.join(DESCRIPTION).is_file() {
            true => DESCRIPTION.to_owned(),
            false => unsynced_description(),
        };
        let path = home.join(name);
        let tmp = self.root().join("tmp");
        index::write_bytes_by(&tmp, &path, &index::seal(bytes), true).map_err(ImageError::file("write", &path))?;
        self.forget_layer(diff_id);
        Ok(())
    }

    /// Writes a layer's tar, exactly the bytes that its digest stands for.
    pub(super) fn write_layer_tar(&self, info: &LayerInfo, out: &mut dyn Write) -> Result<(), ImageError> {
        let wrong = |actual| ImageError::Digest {
            what: "layer".to_owned(),
            expected: info.diff_id.clone(),
            actual,
        };
        match &info.blob {
            Some(blob) => {
                let path = self.blob_path(&blob.digest);
                let file = File::open(&path).map_err(ImageError::file("open", &path))?;
                let (_, tar) = decompress(file).map_err(ImageError::file("read", &path))?;
                let mut tar = HashingReader::new(tar);
                io::copy(&mut tar, out).map_err(ImageError::file("read", &path))?;
                let (actual, _) = tar.finish().map_err(ImageError::file("read", &path))?;
                if actual != info.diff_id {
                    return Err(wrong(actual));
                }
            }
            None => {
                let directory = self.layer_directory(&info.diff_id);
                let (writer, _) = pack::pack_directory(&directory, HashingWriter::new(out), PackOptions::default())
                    .map_err(|source| ImageError::Pack {
                        layer: digest::short(&info.diff_id).to_owned(),
                        source,
                    })?;
                let (_, actual, _) = writer.finish();
                if actual != info.diff_id {
                    return Err(wrong(actual));
                }
            }
        }
        Ok(())
    }

    pub(super) fn blob_path(&self, digest: &str) -> PathBuf {
        self.root().join("blobs/sha256").join(digest::hex(digest))
    }

    /// Keeps bytes and returns their digest. What damaged bytes of that digest there were, they take the place of. They are on the
    /// disk only after the next [`Store::sync`].
    pub(super) fn put_blob(&self, bytes: &[u8]) -> Result<String, ImageError> {
        let digest = sha256(bytes);
        let path = self.blob_path(&digest);
        if fs::read(&path).ok().as_deref() != Some(bytes) {
            index::write_bytes(&path, bytes, false).map_err(ImageError::file("write", &path))?;
            self.set_unsynced(&digest);
        }
        Ok(digest)
    }

    /// Returns bytes by their digest, checked.
    pub(super) fn read_blob(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        let path = self.blob_path(digest);
        let bytes = fs::read(&path).map_err(ImageError::file("read", &path))?;
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

    /// Returns a file to write a blob into before its digest is known to be right.
    pub(super) fn blob_file(&self) -> Result<tempfile::NamedTempFile, ImageError> {
        let tmp = self.root().join("tmp");
        tempfile::Builder::new()
            .prefix("blob-")
            .tempfile_in(&tmp)
            .map_err(ImageError::file("create a file in", &tmp))
    }

    /// Keeps a file whose digest was checked while it was written.
    pub(super) fn keep_blob(&self, file: tempfile::NamedTempFile, digest: &str) -> Result<(), ImageError> {
        let path = self.blob_path(digest);
        file.persist(&path)
            .map_err(|error| ImageError::file("write", &path)(error.error))?;
        Ok(())
    }

    /// Has everything that was written reach the disk, so that an index written next cannot name what a loss of power took.
    ///
    /// A layer whose files may not all be there has a description that counts only until the machine starts anew; here it gets the one
    /// that counts for ever. So a loss of power at any moment leaves whole layers and none.
    pub(super) fn sync(&self) -> Result<(), ImageError> {
        let unsynced = self.unsynced();
        if unsynced.is_empty() {
            return Ok(());
        }
        let root = self.root();
        let directory = File::open(root).map_err(ImageError::file("open", root))?;
        rustix::fs::syncfs(&directory).map_err(|errno| ImageError::file("sync", root)(errno.into()))?;
        for digest in &unsynced {
            let home = self.layer_home(digest);
            let path = home.join(DESCRIPTION);
            match fs::rename(home.join(unsynced_description()), &path) {
                // A blob, or a layer that someone else has taken care of.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(ImageError::file("write", &path)(error));
                }
                _ => {}
            }
        }
        self.clear_unsynced(&unsynced);
        Ok(())
    }

    /// Returns what to hold while fetching a layer, so that no other process fetches it as well. Waits for one that does.
    pub(super) fn fetching(&self, diff_id: &str) -> Result<Fetching, ImageError> {
        let path = self
            .root()
            .join("tmp")
            .join(format!("fetching-{}", digest::hex(diff_id)));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(ImageError::file("open", &path))?;
        file.lock().map_err(ImageError::file("lock", &path))?;
        Ok(Fetching {
            path,
            _file: Held::new(file),
        })
    }

    /// Removes the layers and blobs that are in neither list and returns how many bytes that frees.
    pub(super) fn sweep(&self, layers: &BTreeSet<String>, blobs: &BTreeSet<String>) -> Result<u64, ImageError> {
        let mut freed = 0;
        let mut blocks = Blocks::default();
        for (directory, keep) in [("layers", layers), ("blobs/sha256", blobs)] {
            let directory = self.root().join(directory);
            for entry in fs::read_dir(&directory).map_err(ImageError::file("read", &directory))? {
                let entry = entry.map_err(ImageError::file("read", &directory))?;
                let path = entry.path();
                let Some(digest) = entry
                    .file_name()
                    .to_str()
                    .filter(|name| digest::is_hex(name))
                    .map(|hex| format!("sha256:{hex}"))
                else {
                    continue;
                };
                if keep.contains(&digest) {
                    continue;
                }
                freed += blocks.of(&path);
                if path.is_dir() {
                    self.discard(&path)?;
                    self.forget_layer(&digest);
                } else {
                    fs::remove_file(&path).map_err(ImageError::file("remove", &path))?;
                }
            }
        }
        Ok(freed)
    }

    /// Takes what is no layer any more out of the way of one. Containers that run from it go on doing so, until
    /// [`Store::forget_aside`].
    fn put_aside(&self, home: &Path) -> Result<(), ImageError> {
        let name = home.file_name().unwrap_or_default().to_string_lossy();
        for number in 1_u32.. {
            let aside = self.root().join("layers").join(format!("{name}{ASIDE}{number}"));
            match rustix::fs::renameat_with(CWD, home, CWD, &aside, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                other => return other.map_err(|errno| ImageError::file("rename", home)(errno.into())),
            }
        }
        Ok(())
    }

    /// Removes the damaged layers that others have taken the place of. Only for who knows that no container runs.
    pub fn forget_aside(&self) -> Result<(), ImageError> {
        let directory = self.root().join("layers");
        for entry in fs::read_dir(&directory).map_err(ImageError::file("read", &directory))? {
            let entry = entry.map_err(ImageError::file("read", &directory))?;
            if entry.file_name().to_string_lossy().contains(ASIDE) {
                let path = entry.path();
                tree::remove_path(&path).map_err(ImageError::file("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Removes a directory so that a half-removed one is never found under its old name.
    fn discard(&self, path: &Path) -> Result<(), ImageError> {
        let grave = self
            .scratch_directory()
            .map_err(ImageError::file("create a directory beside", path))?;
        fs::rename(path, grave.path().join("gone")).map_err(ImageError::file("remove", path))?;
        let directory = grave.path().to_owned();
        grave.remove().map_err(ImageError::file("remove", &directory))
    }
}
