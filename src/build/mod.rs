//! Builds images from Dockerfiles: stages, steps and their cache.
//!
//! A step's key is the digest of all that goes into it: the layers below by their content, the instruction with its variables
//! expanded, the files it copies. A step whose key is known is not done again; its layer is found in the store. Files count by
//! content, mode and name, never by time.
//!
//! Follows <https://docs.docker.com/reference/dockerfile/> and, where that is silent, BuildKit.

mod add;
mod cache;
pub mod check;
mod configure;
pub mod context;
mod copy;
mod dockerfile;
mod error;
mod exchange;
mod expand;
mod fetch;
mod files;
mod fingerprint;
pub mod ignore;
mod instruction;
mod mode;
mod mount;
mod mounted;
mod network;
mod progress;
mod run;
mod running;
mod secrets;
mod source;
mod stage;
mod syntax;
mod turn;

pub use cache::shrink as shrink_caches;
pub use error::{BuildError, Place, Problem};
pub use exchange::{CacheTarget, Place as CachePlace, cache_source, cache_target};
pub use fetch::{RemoteContext, is_remote, open_context};
pub use network::{Network, Plug, PlugError, Plugs};
pub use progress::{BuildEvent, BuildSink, Plain};
pub use secrets::Secrets;
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
    /// Do the steps of these stages again.
    pub no_cache_filter: Vec<String>,
    /// Other places for FROM, `--from` and mounts, by name. They come before stages and images of that name.
    pub contexts: BTreeMap<String, Named>,
    pub secrets: Secrets,
    /// What steps may ask for that is not for everybody: `security.insecure`, `network.host`.
    pub entitlements: Vec<String>,
    /// Name, soft and hard limit.
    pub ulimits: Vec<(String, i64, i64)>,
    /// Where steps may be known that nobody did here.
    pub cache_from: Vec<CachePlace>,
    pub cache_to: Vec<CacheTarget>,
    /// What is to be said of the request before anything of it is done.
    pub notes: Vec<String>,
    /// Ask the registry for newer base images.
    pub pull: bool,
    pub pull_options: PullOptions,
    pub platform: Option<Platform>,
    pub network: Network,
    /// Where steps get a network of their own from.
    pub plugs: Option<Plugs>,
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

/// A place to take files from that the build was given under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    Directory(PathBuf),
    /// An image's name, of any kind.
    Image(String),
}

impl BuildRequest {
    /// Returns the context that was given for a name: of a stage, or of an image however it is written.
    fn context_named(&self, name: &str) -> Option<&Named> {
        if let Some(named) = self
            .contexts
            .get(&name.to_ascii_lowercase())
            .or_else(|| self.contexts.get(name))
        {
            return Some(named);
        }
        let whole = |name: &str| Reference::parse(name).ok().map(|name| name.tagged().to_string());
        let wanted = whole(name)?;
        let mut contexts = self.contexts.iter();
        contexts
            .find(|(known, _)| whole(known).as_ref() == Some(&wanted))
            .map(|(_, named)| named)
    }

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
            no_cache_filter: Vec::new(),
            contexts: BTreeMap::new(),
            secrets: Secrets::default(),
            entitlements: Vec::new(),
            ulimits: Vec::new(),
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            notes: Vec::new(),
            pull: false,
            pull_options: PullOptions::default(),
            platform: None,
            network: Network::Host,
            plugs: None,
            extra_hosts: Vec::new(),
            shm_size: None,
            privileged: false,
            store,
            runtime,
        }
    }
}
