//! What a build asks of a foreign engine beyond its build request: by BuildKit's own interface where that has words for it,
//! and otherwise it is said what is not done, and where it is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::building::{BuildWishes, arguments, labels_of, platform_of, ulimits};
use super::{CommandError, Context, buildkit};
use crate::build::context::Context as BuildContext;
use crate::build::ignore::Ignore;
use crate::client::Engine;
use crate::client::filesync::Tree;
use crate::client::session::Given;
use crate::client::solve::{Builder, Cache, Solve};
use crate::model::{Build, Places, Project, Service, placed};
use crate::ui::stream;

/// A build for a foreign engine.
pub struct Asked<'b> {
    pub context: &'b Context,
    pub engine: &'b Engine,
    pub project: &'b Project,
    pub service: &'b Service,
    pub build: &'b Build,
    pub wishes: &'b BuildWishes,
    pub has_buildkit: bool,
}

/// What only BuildKit's own interface has words for.
#[derive(Default)]
pub struct Beyond {
    cache_from: Vec<Cache>,
    cache_to: Vec<Cache>,
    /// OCI layouts that have caches.
    layouts: Vec<PathBuf>,
}

impl Asked<'_> {
    /// Returns what is asked beyond a build request; nothing if that says it all. What the engine cannot do and the image
    /// does not depend on is said; anything else is refused.
    pub async fn beyond(&self) -> Result<Option<Beyond>, CommandError> {
        if !self.has_buildkit {
            self.without_buildkit()?;
            return Ok(None);
        }
        let build = self.build;
        let is_request_enough = build.additional_contexts.is_empty()
            && build.platforms.len() < 2
            && build.entitlements.is_empty()
            && !build.privileged
            && build.no_cache_filter.is_empty()
            && build.cache_from.iter().all(|cache| buildkit::image_of(cache).is_some())
            && build.cache_to.iter().all(|cache| buildkit::is_inline(cache));
        if is_request_enough {
            return Ok(None);
        }
        let keeps_all = self.keeps_images_whole().await?;
        if build.platforms.len() > 1 && !keeps_all {
            return Err(self.refused(
                "platforms",
                "this engine's image store has one platform of an image, so it builds for one at a time",
            ));
        }
        let mut beyond = Beyond::default();
        for (index, text) in build.cache_from.iter().enumerate() {
            let ignored = |reason: &str| self.ignored(&format!("cache_from[{index}]"), text, reason);
            let Some(cache) = cache(text) else {
                ignored("it is not KEY=VALUE,…");
                continue;
            };
            match cache.kind.as_str() {
                "registry" => beyond.cache_from.push(cache),
                "local" => match local_cache(&self.project.working_dir, cache) {
                    Ok((cache, layout)) => {
                        beyond.cache_from.push(cache);
                        beyond.layouts.push(layout);
                    }
                    Err(reason) => ignored(&reason),
                },
                // The last of what the engine's builder is made with, where it has containerd's images.
                "gha" if keeps_all => beyond.cache_from.push(cache),
                kind => ignored(&format!("this engine's builder has no caches of type {kind}")),
            }
        }
        for (index, text) in build.cache_to.iter().enumerate() {
            let ignored = |reason: &str| self.ignored(&format!("cache_to[{index}]"), text, reason);
            let Some(cache) = cache(text) else {
                ignored("it is not KEY=VALUE,…");
                continue;
            };
            match cache.kind.as_str() {
                "inline" => beyond.cache_to.push(cache),
                "registry" | "gha" if keeps_all => beyond.cache_to.push(cache),
                "local" if keeps_all => ignored("it is written by the builder's own client only: use buildx"),
                kind => ignored(&format!(
                    "this engine's image store exports no caches of type {kind}, only inline ones"
                )),
            }
        }
        Ok(Some(beyond))
    }

    /// Says or refuses what the builder before BuildKit does not know.
    fn without_buildkit(&self) -> Result<(), CommandError> {
        let build = self.build;
        let asked = [
            (!build.secrets.is_empty(), "secrets"),
            (!build.ssh.0.is_empty(), "ssh"),
            (!build.additional_contexts.is_empty(), "additional_contexts"),
            (build.platforms.len() > 1, "platforms"),
            (crate::build::is_remote(&build.context), "context"),
        ];
        if let Some((_, attribute)) = asked.iter().find(|(is_so, _)| *is_so) {
            let reason = match *attribute {
                "platforms" => "this engine builds for one platform at a time",
                "context" => {
                    "this engine builds from directories of this machine only: it has no BuildKit, or may not use it"
                }
                _ => "this engine has no BuildKit, or may not use it",
            };
            return Err(self.refused(attribute, reason));
        }
        for (index, text) in build.cache_to.iter().enumerate() {
            let reason = "this engine does not export build caches";
            self.ignored(&format!("cache_to[{index}]"), text, reason);
        }
        for (index, text) in build.cache_from.iter().enumerate() {
            if buildkit::image_of(text).is_none() {
                let reason = "this engine takes build caches from images only";
                self.ignored(&format!("cache_from[{index}]"), text, reason);
            }
        }
        for (is_so, attribute) in [
            (!build.entitlements.is_empty(), "entitlements"),
            (!build.no_cache_filter.is_empty(), "no_cache_filter"),
            (build.privileged, "privileged"),
        ] {
            if is_so {
                self.ignored(attribute, "", "this engine has no BuildKit, or may not use it");
            }
        }
        Ok(())
    }

    fn place(&self, attribute: &str) -> Option<&str> {
        let places: &Places = &self.project.places;
        let of = |attribute: &str| places.of_service(&self.service.name, &format!("build.{attribute}"));
        of(attribute).or_else(|| of(attribute.split('[').next().unwrap_or_default()))
    }

    fn refused(&self, attribute: &str, reason: &str) -> CommandError {
        let message = format!("service {:?}: build.{attribute}: {reason}", self.service.name);
        CommandError::of_kind(
            super::error::Kind::NotSupported,
            placed(&message, self.place(attribute)),
        )
    }

    fn ignored(&self, attribute: &str, value: &str, reason: &str) {
        let value = match value {
            "" => String::new(),
            value => format!(" {value:?}"),
        };
        let message = format!(
            "service {:?}: build.{attribute}{value} has no effect: {reason}",
            self.service.name
        );
        match self.place(attribute) {
            Some(place) => stream::warn_at(&message, place),
            None => stream::warn(message),
        }
    }

    /// Returns whether the engine has containerd's images, which are kept as they are in registries.
    async fn keeps_images_whole(&self) -> Result<bool, CommandError> {
        let info: Info = self.engine.ask(http::Method::GET, "/info", None).await?;
        let mut status = info.driver_status.iter().flatten();
        Ok(status.any(|[key, value]| key == "driver-type" && value == "io.containerd.snapshotter.v1"))
    }

    /// Puts into words what BuildKit is asked, and gives the session what it needs for it.
    pub async fn solve(
        &self,
        beyond: Beyond,
        builder: &Builder,
        files: &BuildContext,
        image: &str,
        given: &mut Given,
    ) -> Result<Solve, CommandError> {
        let (build, wishes) = (self.build, self.wishes);
        let mut attributes: BTreeMap<String, String> = BTreeMap::new();
        let mut set = |name: &str, value: String| {
            if !value.is_empty() {
                attributes.insert(name.to_owned(), value);
            }
        };
        if crate::build::is_remote(&build.context) {
            set("context", build.context.clone());
            set("filename", build.dockerfile.clone());
        } else {
            set("filename", self.give_context(files, given)?);
        }
        set("target", build.target.clone());
        set(
            "platform",
            match build.platforms.len() {
                0 | 1 => platform_of(self.service, build).to_owned(),
                _ => build.platforms.join(","),
            },
        );
        match build.network.as_str() {
            "" | "default" => {}
            network @ ("host" | "none") => set("force-network-mode", network.to_owned()),
            network => {
                let reason = format!("network mode {network:?} not supported by buildkit");
                return Err(self.refused("network", &reason));
            }
        }
        if build.shm_size.0 > 0 {
            set("shm-size", build.shm_size.0.to_string());
        }
        let limits = ulimits(build).into_iter();
        let limits = limits.map(|limit| {
            let name = limit["Name"].as_str().unwrap_or_default().to_owned();
            format!("{name}={}:{}", limit["Soft"], limit["Hard"])
        });
        set("ulimit", limits.collect::<Vec<_>>().join(","));
        set("add-hosts", self.hosts(builder).await?);
        let mode = if wishes.pull || build.pull { "pull" } else { "default" };
        set("image-resolve-mode", mode.to_owned());
        set("no-cache", build.no_cache_filter.join(","));
        for (name, value) in arguments(self.context, self.project, build, wishes) {
            if let Some(value) = value {
                attributes.insert(format!("build-arg:{name}"), value);
            }
        }
        for (name, value) in labels_of(self.project, self.service, build) {
            attributes.insert(format!("label:{name}"), value.to_owned());
        }
        if wishes.no_cache || build.no_cache {
            // Nothing as a value stands for all stages.
            attributes.insert("no-cache".to_owned(), String::new());
        }
        for (name, place) in &build.additional_contexts {
            let value = self.give_named_context(name, place, given)?;
            attributes.insert(format!("context:{name}"), value);
        }
        let mut entitlements = build.entitlements.clone();
        if build.network == "host" {
            entitlements.push("network.host".to_owned());
        }
        if build.privileged {
            // docker/compose pkg/compose/build_bake.go
            entitlements.push("security.insecure".to_owned());
        }
        entitlements.sort();
        entitlements.dedup();
        given.layouts = beyond.layouts;
        Ok(Solve {
            attributes,
            names: vec![whole_name(image)],
            cache_from: beyond.cache_from,
            cache_to: beyond.cache_to,
            entitlements,
        })
    }

    /// Gives the session the context and the Dockerfile, and returns the Dockerfile's name.
    fn give_context(&self, files: &BuildContext, given: &mut Given) -> Result<String, CommandError> {
        let path = files.directory.join(&files.dockerfile);
        let text = match &files.inline {
            Some(text) => text.clone().into_bytes(),
            None => std::fs::read(&path)
                .map_err(|error| CommandError::message(format!("cannot read {}: {error}", path.display())))?,
        };
        let name = match &files.inline {
            Some(_) => "Dockerfile".to_owned(),
            None => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        // What stays behind is settled here: the rules of both places are followed when the context is sent.
        let ignore = Box::new(files.ignore_file()?);
        let texts = BTreeMap::from([(name.clone(), text)]);
        given.trees.insert("dockerfile".to_owned(), Tree::Texts(texts));
        given
            .trees
            .insert("context".to_owned(), Tree::Directory(files.directory.clone(), ignore));
        Ok(name)
    }

    /// Returns how BuildKit is told of a place under a name; the session has its files if it is a directory.
    fn give_named_context(&self, name: &str, place: &str, given: &mut Given) -> Result<String, CommandError> {
        let attribute = format!("additional_contexts.{name}");
        if let Some(below) = place.strip_prefix("service:") {
            let separator = super::lifecycle::separator(self.context);
            let image = self.project.image_name(self.project.service(below)?, separator);
            return Ok(format!("docker-image://{image}"));
        }
        if place.starts_with("docker-image://") || crate::build::is_remote(place) {
            return Ok(place.to_owned());
        }
        if place.starts_with("oci-layout://") {
            return Err(self.refused(&attribute, "OCI layouts are contexts of the embedded engine only"));
        }
        let directory = self.project.working_dir.join(place);
        if !directory.is_dir() {
            return Err(self.refused(&attribute, &format!("{} is no directory", directory.display())));
        }
        let rules = BuildContext {
            directory: directory.clone(),
            dockerfile: PathBuf::new(),
            inline: None,
        };
        let ignore: Box<Ignore> = Box::new(rules.ignore_file()?);
        // Their own names are those of the build's own places.
        let key = match name {
            "context" | "dockerfile" => format!("_{name}"),
            name => name.to_owned(),
        };
        given.trees.insert(key.clone(), Tree::Directory(directory, ignore));
        Ok(format!("local:{key}"))
    }

    /// Returns more names of machines, as BuildKit writes them.
    async fn hosts(&self, builder: &Builder) -> Result<String, CommandError> {
        let mut hosts = self.build.extra_hosts.to_list("=");
        if hosts.iter().any(|host| host.ends_with("=host-gateway")) {
            let Some(gateway) = builder.host_gateway().await? else {
                return Err(self.refused("extra_hosts", "unable to derive the IP value for host-gateway"));
            };
            for host in &mut hosts {
                if let Some(name) = host.strip_suffix("=host-gateway") {
                    *host = format!("{name}={gateway}");
                }
            }
        }
        Ok(hosts.join(","))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(default)]
    driver_status: Option<Vec<[String; 2]>>,
}

/// Returns an image's name with its tag, as the engine keeps it.
fn whole_name(image: &str) -> String {
    let reference = crate::image::Reference::parse(image);
    reference.map_or_else(|_| image.to_owned(), |reference| reference.tagged().to_string())
}

/// Takes an entry of `cache_from` or `cache_to` apart: `type=TYPE,KEY=VALUE,…`, or an image's name.
fn cache(text: &str) -> Option<Cache> {
    if !text.contains('=') {
        return Some(Cache {
            kind: "registry".to_owned(),
            attributes: [("ref".to_owned(), text.to_owned())].into(),
        });
    }
    let fields = text.split(',').map(|field| {
        let (key, value) = field.split_once('=')?;
        Some((key.trim().to_lowercase(), value.trim().to_owned()))
    });
    let mut attributes = fields.collect::<Option<BTreeMap<String, String>>>()?;
    let kind = attributes.remove("type")?;
    Some(Cache { kind, attributes })
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<IndexEntry>,
}

#[derive(Deserialize)]
struct IndexEntry {
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// Finds a cache in a directory, and says which of the directory's it is. That there is none is no failure.
// buildkit client/solve.go: parseCacheOptions
fn local_cache(working_dir: &Path, mut cache: Cache) -> Result<(Cache, PathBuf), String> {
    let source = cache.attributes.get("src").filter(|source| !source.is_empty());
    let source = source.ok_or("it has no src")?;
    let layout = working_dir.join(source);
    cache.attributes.insert("src".to_owned(), layout.display().to_string());
    if !cache.attributes.contains_key("digest") {
        let path = layout.join("index.json");
        let text = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let index: Index = serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let wanted = cache.attributes.remove("tag").unwrap_or_else(|| "latest".to_owned());
        let has_tag = |entry: &&IndexEntry| {
            let name = entry.annotations.get("org.opencontainers.image.ref.name");
            name.is_some_and(|name| *name == wanted)
        };
        let found = index.manifests.iter().find(has_tag);
        // An index of one has no need of names.
        let found = found.or(match index.manifests.as_slice() {
            [only] if only.annotations.is_empty() => Some(only),
            _ => None,
        });
        let found = found.ok_or_else(|| format!("{} has no {wanted:?}", path.display()))?;
        cache.attributes.insert("digest".to_owned(), found.digest.clone());
    }
    Ok((cache, layout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_taken_apart_and_found_by_their_tags() {
        let image = cache("r.example/app:cache").unwrap();
        assert_eq!(
            (image.kind.as_str(), image.attributes["ref"].as_str()),
            ("registry", "r.example/app:cache")
        );
        assert!(cache("type=local,nonsense").is_none() && cache("src=x").is_none());
        let directory = tempfile::tempdir().unwrap();
        let find = |text: &str| local_cache(directory.path(), cache(text).unwrap());
        assert!(find("type=local,src=c").unwrap_err().contains("c/index.json"));
        assert_eq!(find("type=local").unwrap_err(), "it has no src");
        std::fs::create_dir(directory.path().join("c")).unwrap();
        let index = r#"{"manifests": [
            {"digest": "sha256:a", "annotations": {"org.opencontainers.image.ref.name": "latest"}},
            {"digest": "sha256:b", "annotations": {"org.opencontainers.image.ref.name": "other"}}]}"#;
        std::fs::write(directory.path().join("c/index.json"), index).unwrap();
        let digest = |text: &str| find(text).map(|(cache, _)| cache.attributes["digest"].clone());
        assert_eq!(digest("type=local,src=c").unwrap(), "sha256:a");
        assert_eq!(digest("type=local,src=./c,tag=other").unwrap(), "sha256:b");
        assert_eq!(digest("type=local,src=c,digest=sha256:z").unwrap(), "sha256:z");
        assert!(
            digest("type=local,src=c,tag=none")
                .unwrap_err()
                .contains("has no \"none\"")
        );
        let (found, layout) = find("type=local,src=c").unwrap();
        assert_eq!(layout, directory.path().join("c"));
        assert_eq!(found.attributes["src"], layout.display().to_string());
    }
}
