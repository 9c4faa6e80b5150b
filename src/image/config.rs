//! The configuration of an image: the OCI image config with what Docker adds to it.
//!
//! Follows <https://github.com/opencontainers/image-spec/blob/main/config.md> and moby's `image/spec`. An image's id is the
//! digest of this document's bytes, so a config that was read is never written again: the store keeps the bytes.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize};

/// The whole document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    #[serde(default, deserialize_with = "null_is_default")]
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: ContainerConfig,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub history: Vec<History>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub os: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub rootfs: RootFs,
    /// Steps of builds whose layers these are, for builds elsewhere.
    #[serde(
        default,
        rename = "compose.build.cache",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub cache: Vec<CachedStep>,
}

/// A step of a build, known by the digest of all that went into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedStep {
    pub key: String,
    /// The layer it made; `None`: it says when an image was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// In seconds of the epoch.
    pub made: i64,
}

/// What a container made from the image starts with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub user: String,
    #[serde(
        default,
        skip_serializing_if = "IndexMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub exposed_ports: IndexMap<String, Empty>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    #[serde(
        default,
        skip_serializing_if = "std::ops::Not::not",
        deserialize_with = "null_is_default"
    )]
    pub args_escaped: bool,
    #[serde(
        default,
        skip_serializing_if = "IndexMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub volumes: IndexMap<String, Empty>,
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub working_dir: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub on_build: Vec<String>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// The `{}` that Docker writes as the value of a set's members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// A health check; durations are nanoseconds and zero inherits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", "…"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub interval: i64,
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub timeout: i64,
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub start_period: i64,
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub start_interval: i64,
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub retries: i64,
}

/// One step of how the image came to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(
        default,
        skip_serializing_if = "std::ops::Not::not",
        deserialize_with = "null_is_default"
    )]
    pub empty_layer: bool,
}

/// What the image's file system is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type", default, deserialize_with = "null_is_default")]
    pub kind: String,
    /// Digests of the uncompressed layers, bottom first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<String>,
    /// The directory of this machine under the layers, where the image is a view of one (`rootfs:PATH`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self {
            kind: "layers".to_owned(),
            diff_ids: Vec::new(),
            directory: None,
        }
    }
}

impl ImageConfig {
    /// Returns the config of an image with nothing in it, for this machine.
    pub fn scratch() -> Self {
        let platform = Platform::host();
        Self {
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            ..Self::default()
        }
    }
}

/// An operating system and a processor, as Go names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

impl Platform {
    /// Returns the platform of this machine.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            // containerd's normal form leaves out arm64's only variant.
            variant: variant.filter(|_| architecture != "arm64").map(str::to_owned),
        }
    }

    /// Parses `os/architecture[/variant]`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let os = parts.next().filter(|part| !part.is_empty())?.to_ascii_lowercase();
        let Some(architecture) = parts.next() else {
            // One word is an architecture or an operating system; Docker guesses the same way.
            return match os.as_str() {
                "linux" => Some(Self::host()),
                "windows" | "darwin" | "freebsd" => None,
                architecture => Some(Self {
                    os: "linux".to_owned(),
                    ..Self::normalised(architecture, None)
                }),
            };
        };
        let variant = parts.next();
        if parts.next().is_some() || architecture.is_empty() {
            return None;
        }
        Some(Self {
            os,
            ..Self::normalised(&architecture.to_ascii_lowercase(), variant)
        })
    }

    fn normalised(architecture: &str, variant: Option<&str>) -> Self {
        let (architecture, variant) = match (architecture, variant) {
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant.filter(|&variant| variant != "v1")),
            ("i386", variant) => ("386", variant),
            ("aarch64" | "arm64", variant) => ("arm64", variant.filter(|variant| !matches!(*variant, "8" | "v8"))),
            ("armhf", _) => ("arm", Some("v7")),
            ("armel", _) => ("arm", Some("v6")),
            (architecture, variant) => (architecture, variant),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// Returns whether an image for `os/architecture/variant` runs here.
    pub fn accepts(&self, os: &str, architecture: &str, variant: Option<&str>) -> bool {
        let other = Self::normalised(architecture, variant);
        self.os == os
            && self.architecture == other.architecture
            && (self.variant.is_none() || other.variant.is_none() || self.variant == other.variant)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        self.variant
            .as_ref()
            .map_or(Ok(()), |variant| write!(formatter, "/{variant}"))
    }
}

/// Go writes an absent slice, map or struct as `null`.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_of_go_are_read_as_nothing() {
        let config: ImageConfig = serde_json::from_str(
            r#"{"architecture":"amd64","os":"linux","config":{"Hostname":"","Env":null,"Cmd":["sh"],"Image":"x","Volumes":null,
                "WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":null,"ExposedPorts":{"80/tcp":{}},
                "Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":5000000000}},
                "rootfs":{"type":"layers","diff_ids":null},"history":null}"#,
        )
        .unwrap();
        assert_eq!(config.config.cmd, Some(vec!["sh".to_owned()]));
        assert_eq!(config.config.entrypoint, None);
        assert_eq!(config.config.exposed_ports.keys().collect::<Vec<_>>(), ["80/tcp"]);
        assert_eq!(config.config.healthcheck.unwrap().interval, 5_000_000_000);
    }

    #[test]
    fn platforms_are_compared_in_their_normal_form() {
        let host = Platform::parse("linux/arm64/v8").unwrap();
        assert_eq!(host.to_string(), "linux/arm64");
        assert!(host.accepts("linux", "arm64", Some("v8")));
        assert!(!host.accepts("linux", "amd64", None));
        assert_eq!(Platform::parse("aarch64").unwrap(), host);
        assert_eq!(Platform::parse("linux/x86_64").unwrap().to_string(), "linux/amd64");
        assert_eq!(Platform::parse("a/b/c/d"), None);
    }
}
