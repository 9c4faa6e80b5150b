//! Images: what their names mean, where they come from, and how their layers become directories to mount.
//!
//! [`Store`] keeps everything by digest. A layer is unpacked once, into a directory in overlayfs's own form, and shared by
//! all images that have it. Nothing here knows of containers; who uses an image is told by the caller.

mod archive;
mod bounded;
mod check;
mod config;
mod digest;
mod files;
mod index;
mod layers;
mod layout;
mod mask;
mod pack;
mod progress;
mod reference;
mod registry;
mod remove;
mod store;
mod tree;
mod unpack;
mod usage;
mod verify;
mod view;

pub use archive::Loaded;
pub use config::{CachedStep, ContainerConfig, Empty, Healthcheck, History, ImageConfig, Platform, RootFs};
pub(crate) use digest::{Hasher, HashingReader};
pub use digest::{is_digest, sha256};
pub use layers::Scratch;
pub(crate) use layers::plain as decompress;
pub use pack::{PackError, PackOptions, pack_directory};
pub use progress::{Progress, ProgressSink, silent};
pub use reference::{Reference, ReferenceError, Source};
pub use registry::{
    Artifact, ArtifactKind, CertificateError, FetchedArtifact, FetchedLayer, Login, PullOptions, PushOptions,
    RegistryError, RemoteImage, Settings, TransportError, check_login, copy_image, inspect_remote, known_registries,
    login_for, push_artifact, push_index,
};
pub(crate) use registry::{chain, use_tls};
pub use remove::{Conflict, ImageUser, Removed};
pub use store::{Blob, CacheRecord, Image, LayerInfo, Store};
pub(crate) use tree::remove_path as remove_tree;
pub use unpack::{Limits, UnpackError, Unpacked, unpack_layer};
pub use usage::{Blocks, StoreUsage};
pub use verify::Damage;
pub use view::{FileKind, Found, View};

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with images.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error("No such image: {0}")]
    NotFound(String),
    #[error(transparent)]
    Conflict(#[from] Conflict),
    #[error("cannot {attempt} {}", path.display())]
    File {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{what} does not have the digest it is known by: expected {expected}, got {actual}")]
    Digest {
        what: String,
        expected: String,
        actual: String,
    },
    #[error(
        "image {image} is damaged: {what} is missing or is not what its digest says; pull or build it again to mend it"
    )]
    Damaged { image: String, what: String },
    #[error("cannot read {what}")]
    Document {
        what: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("failed to register layer {layer}")]
    Unpack {
        layer: String,
        #[source]
        source: UnpackError,
    },
    #[error("cannot write layer {layer} as a tar")]
    Pack {
        layer: String,
        #[source]
        source: PackError,
    },
    #[error("{}: {problem}", path.display())]
    Archive { path: PathBuf, problem: ArchiveProblem },
    #[error("image {0} has {1} layers, but its manifest lists {2}")]
    LayerCount(String, usize, usize),
    #[error(
        "image {image} is a view of the directory {directory} and cannot be written out; copy what it needs into an image made FROM scratch"
    )]
    DirectoryView { image: String, directory: String },
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("cannot tell whether {} is a directory to use as a root file system", path.display())]
    Rootfs {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("rootfs:{}: not a directory", .0.display())]
    NotADirectory(PathBuf),
    #[error("unsupported media type {0}")]
    MediaType(String),
    #[error(
        "{0} is in the format of Docker before 1.10 (manifest version 2, schema 1), which is not supported any more; push it again with a newer version"
    )]
    SchemaOne(String),
}

/// Why a file is no archive of images.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveProblem {
    #[error("neither manifest.json nor index.json is in it")]
    NotAnArchive,
    #[error("{0} is missing in it")]
    Missing(String),
    #[error("{0} is larger than such a file may be")]
    TooLarge(String),
    #[error("no image in it is called {0:?}")]
    NoSuchName(String),
    #[error("it holds several images ({}); add one of their names after a colon", .0.join(", "))]
    Several(Vec<String>),
    #[error("no image in it is for {0}")]
    Platform(String),
    #[error("a file name in it is no path: {0:?}")]
    BadPath(String),
}

impl ImageError {
    pub(crate) fn file(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { attempt, path, source }
    }

    pub(crate) fn document(what: impl Into<String>) -> impl FnOnce(serde_json::Error) -> Self {
        let what = what.into();
        move |source| Self::Document { what, source }
    }
}
