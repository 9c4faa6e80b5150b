//! How a service's image is built.

use super::{Bytes, Dialect, Emit, Environment, Extensions, FileReference, Hosts, Labels, Mapping, Ulimit, Value};
use std::collections::BTreeMap;

object! {
    /// The `build` attribute.
    pub struct Build {
        context: String = Key::new("context"),
        dockerfile: String = Key::new("dockerfile"),
        dockerfile_inline: String = Key::new("dockerfile_inline"),
        entitlements: Vec<String> = Key::new("entitlements"),
        args: Environment = Key::new("args"),
        provenance: String = Key::new("provenance"),
        sbom: String = Key::new("sbom"),
        ssh: SshKeys = Key::new("ssh"),
        labels: Labels = Key::new("labels"),
        cache_from: Vec<String> = Key::new("cache_from"),
        cache_to: Vec<String> = Key::new("cache_to"),
        no_cache: bool = Key::new("no_cache"),
        no_cache_filter: Vec<String> = Key::new("no_cache_filter"),
        additional_contexts: Mapping = Key::new("additional_contexts"),
        pull: bool = Key::new("pull"),
        extra_hosts: Hosts = Key::new("extra_hosts"),
        isolation: String = Key::new("isolation"),
        network: String = Key::new("network"),
        target: String = Key::new("target"),
        secrets: Vec<FileReference> = Key::new("secrets"),
        shm_size: Bytes = Key::new("shm_size"),
        tags: Vec<String> = Key::new("tags"),
        ulimits: BTreeMap<String, Ulimit> = Key::new("ulimits"),
        platforms: Vec<String> = Key::new("platforms"),
        privileged: bool = Key::new("privileged"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

/// A key offered to the build: an agent's (no path), or one in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SshKey {
    pub id: String,
    pub path: String,
}

/// The keys of `build.ssh`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SshKeys(pub Vec<SshKey>);

impl Emit for SshKeys {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn emit(&self, _: Dialect) -> Value {
        let text = |key: &SshKey| match key.path.as_str() {
            "" => key.id.clone(),
            path => format!("{}: {path}", key.id),
        };
        Value::List(self.0.iter().map(|key| Value::String(text(key))).collect())
    }
}
