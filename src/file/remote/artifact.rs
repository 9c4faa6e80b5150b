//! Compose files in registries, as `docker compose publish` puts them there.
// docker/compose pkg/remote/oci.go and internal/oci/push.go

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Write as _;
use std::path::Path;

use super::cache::Cache;
use super::{Refusal, check_turned_on};
use crate::file::LoadOptions;

/// What stands before the name of an artifact where a file is named.
const PREFIX: &str = "oci://";

/// The type of an artifact that holds a project.
pub const PROJECT: &str = "application/vnd.docker.compose.project";
/// The type of the config of an artifact that is too old to say what it is.
pub const PROJECT_CONFIG: &str = "application/vnd.docker.compose.config.empty.v1+json";
const COMPOSE_FILE: &str = "application/vnd.docker.compose.file+yaml";
const ENV_FILE: &str = "application/vnd.docker.compose.envfile";
/// The name under which whoever asked for the artifact gets its files.
const MAIN_FILE: &str = "compose.yaml";

/// What a registry keeps under a name: files with a type each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The digest of all of it, `sha256:…`.
    pub digest: String,
    pub layers: Vec<Layer>,
}

/// A file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub media_type: String,
    pub annotations: BTreeMap<String, String>,
    pub content: Vec<u8>,
}

/// Who fetches artifacts: this module knows what they hold, not how registries are spoken to.
pub trait Registry: Debug + Send + Sync {
    /// Fetches the artifact of a name; what is wrong is said in words.
    fn fetch(&self, name: &str) -> Result<Artifact, String>;
}

/// Returns the path at which the files of an artifact lie on this machine, fetching them if need and consent be.
pub(super) fn local_path(path: &str, options: &LoadOptions) -> Result<String, Refusal> {
    let environment = &options.environment;
    check_turned_on("OCI", "COMPOSE_EXPERIMENTAL_OCI_REMOTE", environment)?;
    let name = path.strip_prefix(PREFIX).unwrap_or(path);
    let cache = Cache::of("oci", environment)?;
    let pinned = name.split_once('@').map(|(_, digest)| digest.to_owned());
    let is_there = |digest: &str| hexadecimal(digest).is_some_and(|name| cache.tree(name).is_dir());
    // What a digest names does not change; what a tag names may, so whoever may ask does.
    let known = match pinned {
        Some(digest) if is_there(&digest) => Some(digest),
        None if !options.fetch => cache.known(name).filter(|digest| is_there(digest)),
        _ => None,
    };
    let digest = match (known, &options.registry) {
        (Some(digest), _) => digest,
        (None, Some(registry)) if options.fetch => {
            let artifact = registry.fetch(name)?;
            let directory = hexadecimal(&artifact.digest).ok_or_else(|| "its digest is none".to_owned())?;
            if !cache.tree(directory).is_dir() {
                cache.fill(directory, |directory| write_files(&artifact, directory))?;
            }
            let _ = cache.remember(name, &artifact.digest);
            artifact.digest
        }
        (None, _) => return Err(Refusal::not_fetched()),
    };
    let directory = cache.tree(hexadecimal(&digest).unwrap_or_default());
    Ok(directory.join(MAIN_FILE).to_string_lossy().into_owned())
}

/// Returns the part of a digest that can name a directory.
fn hexadecimal(digest: &str) -> Option<&str> {
    let name = digest.strip_prefix("sha256:")?;
    let is_hexadecimal = name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (name.len() == 64 && is_hexadecimal).then_some(name)
}

/// Writes an artifact's files: those of the project one after the other into one, those that it extends and those with
/// variables under the names they have.
fn write_files(artifact: &Artifact, directory: &Path) -> Result<(), String> {
    for (index, layer) in artifact.layers.iter().enumerate() {
        let annotation = |name: &str| layer.annotations.get(name).map(String::as_str);
        match layer.media_type.as_str() {
            COMPOSE_FILE => {
                let named = annotation("com.docker.compose.file");
                let name = match annotation("com.docker.compose.extends") {
                    Some(_) => plain_name(named.unwrap_or_default())?,
                    None => MAIN_FILE,
                };
                let separator: &[u8] = match named {
                    Some(_) if index > 0 => b"\n---\n",
                    _ => b"",
                };
                let file = std::fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(directory.join(name));
                let written = file.and_then(|mut file| {
                    file.write_all(separator)?;
                    file.write_all(&layer.content)
                });
                written.map_err(|error| format!("{name}: {error}"))?;
            }
            ENV_FILE => {
                let name = annotation("com.docker.compose.envfile")
                    .ok_or_else(|| "missing annotation com.docker.compose.envfile in a layer".to_owned())?;
                let name = plain_name(name)?;
                std::fs::write(directory.join(name), &layer.content).map_err(|error| format!("{name}: {error}"))?;
            }
            _ => {}
        }
    }
    match directory.join(MAIN_FILE).is_file() {
        true => Ok(()),
        false => Err("there is no Compose file in it".to_owned()),
    }
}

/// Returns a name that leads nowhere else: an artifact may be anybody's.
fn plain_name(name: &str) -> Result<&str, String> {
    match name {
        "" | "." | ".." => Err("invalid OCI artifact".to_owned()),
        name if name.contains(['/', '\\', '\0']) => Err("invalid OCI artifact".to_owned()),
        name => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(media_type: &str, annotations: &[(&str, &str)], content: &str) -> Layer {
        Layer {
            media_type: media_type.to_owned(),
            annotations: annotations
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            content: content.as_bytes().to_vec(),
        }
    }

    fn written(layers: Vec<Layer>) -> Result<BTreeMap<String, String>, String> {
        let directory = tempfile::tempdir().unwrap();
        let artifact = Artifact {
            digest: String::new(),
            layers,
        };
        write_files(&artifact, directory.path())?;
        let entries = std::fs::read_dir(directory.path()).unwrap().map(|entry| {
            let entry = entry.unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), text)
        });
        Ok(entries.collect())
    }

    #[test]
    fn files_that_merge_become_one_and_others_keep_their_names() {
        let files = written(vec![
            layer(COMPOSE_FILE, &[("com.docker.compose.file", "compose.yaml")], "a: 1"),
            layer(COMPOSE_FILE, &[("com.docker.compose.file", "b.yaml")], "a: 2"),
            layer(
                COMPOSE_FILE,
                &[
                    ("com.docker.compose.extends", "true"),
                    ("com.docker.compose.file", "0af.yaml"),
                ],
                "b: 1",
            ),
            layer(ENV_FILE, &[("com.docker.compose.envfile", "x.env")], "A=1"),
            layer("application/other", &[], "c"),
        ]);
        let files = files.unwrap();
        let expected = [
            ("0af.yaml", "\n---\nb: 1"),
            ("compose.yaml", "a: 1\n---\na: 2"),
            ("x.env", "A=1"),
        ];
        assert_eq!(
            files,
            expected.map(|(name, text)| (name.to_owned(), text.to_owned())).into()
        );
    }

    #[test]
    fn no_name_leads_out() {
        for name in ["../x", "/etc/x", "a/b", "..", ".", "a\\b", "a\0b", ""] {
            let main = || layer(COMPOSE_FILE, &[], "a: 1");
            let annotations = [
                ("com.docker.compose.extends", "true"),
                ("com.docker.compose.file", name),
            ];
            for layer in [
                layer(COMPOSE_FILE, &annotations, "a: 1"),
                layer(ENV_FILE, &[("com.docker.compose.envfile", name)], ""),
            ] {
                assert_eq!(
                    written(vec![main(), layer]),
                    Err("invalid OCI artifact".to_owned()),
                    "{name:?}"
                );
            }
            assert!(written(vec![main()]).is_ok());
        }
    }
}
