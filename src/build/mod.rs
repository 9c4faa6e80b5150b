//! Builds images from Dockerfiles: stages, steps and their cache.
//!
//! A step's key is the digest of all that goes into it: the layers below by their content, the instruction with its variables
//! expanded, the files it copies. A step whose key is known is not done again; its layer is found in the store. Files count by
//! content, mode and name, never by time.
//!
//! Follows <https://docs.docker.com/reference/dockerfile/> and, where that is silent, BuildKit.

pub mod context;
mod copy;
mod dockerfile;
mod error;
mod expand;
mod heredoc;
pub mod ignore;
mod progress;
mod run;
mod source;
mod stage;
mod steps;

pub use error::{BuildError, Place, Problem};
pub use progress::{BuildEvent, BuildSink, Plain};
pub use run::Network;
pub use stage::build;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::image::{Platform, PullOptions, Reference, Store};
use crate::runtime::Runtime;

/// What to build.
#[derive(Clone)]
pub struct BuildRequest {
    /// The directory that COPY and ADD see.
    pub context: PathBuf,
    pub dockerfile: DockerfileSource,
    /// The stage to build; the last one if not given.
    pub target: Option<String>,
    pub arguments: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub tags: Vec<Reference>,
    /// Do every step again.
    pub no_cache: bool,
    /// Ask the registry for newer base images.
    pub pull: bool,
    pub pull_options: PullOptions,
    pub platform: Option<Platform>,
    pub network: Network,
    pub extra_hosts: Vec<(String, String)>,
    pub shm_size: Option<u64>,
    pub privileged: bool,
    pub store: Store,
    /// What RUN runs in; a build without RUN needs none.
    pub runtime: Option<Runtime>,
}

/// Where the Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileSource {
    /// A path, taken from the context if it is relative.
    Path(PathBuf),
    /// Its text (`dockerfile_inline`).
    Inline(String),
}

impl BuildRequest {
    /// Returns a request to build the `Dockerfile` of a directory.
    pub fn new(context: impl Into<PathBuf>, store: Store, runtime: Option<Runtime>) -> Self {
        Self {
            context: context.into(),
            dockerfile: DockerfileSource::Path(PathBuf::from("Dockerfile")),
            target: None,
            arguments: BTreeMap::new(),
            labels: BTreeMap::new(),
            tags: Vec::new(),
            no_cache: false,
            pull: false,
            pull_options: PullOptions::default(),
            platform: None,
            network: Network::Host,
            extra_hosts: Vec::new(),
            shm_size: None,
            privileged: false,
            store,
            runtime,
        }
    }
}
