//! Build caches that come from elsewhere and go elsewhere: `cache_from` and `cache_to`.
//!
//! A cache travels as an image: its layers are those that steps made, and its config says under which keys. So a registry
//! keeps it as it keeps any image, a directory as an OCI layout, and an image that is pushed anyway may carry its own
//! (`type=inline`). The keys are our own: BuildKit's caches have others, and nothing is found in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use super::error::{BuildError, Problem};
use super::progress::BuildEvent;
use super::stage::Build;
use crate::image::{CacheRecord, CachedStep, Image, ImageConfig, ImageError, PushOptions, Reference, chain, silent};

/// Where a cache lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Registry(Reference),
    /// A directory, and the tag it has there.
    Directory(PathBuf, String),
    /// The image that is built.
    Inline,
}

/// Where a build's cache goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheTarget {
    pub place: Place,
    /// The steps of all stages go, not only those whose layers the image has.
    pub is_whole: bool,
    /// Whether the build goes on without it.
    pub may_fail: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(formatter),
            Self::Directory(path, _) => path.display().fmt(formatter),
            Self::Inline => formatter.write_str("the image"),
        }
    }
}

/// Says that a kind of cache is one that other builders have.
fn foreign(kind: &str) -> String {
    format!(
        "the built-in engine has no build cache of type {kind:?}, only registry, local and inline: it has no effect"
    )
}

/// Takes `type=TYPE,KEY=VALUE,…` apart.
fn fields(text: &str) -> Result<BTreeMap<String, String>, Problem> {
    let wrong = |field: &str| Problem::Cache(format!("invalid build cache {text:?}: {field:?} is not KEY=VALUE"));
    text.split(',')
        .map(|field| {
            let (key, value) = field.split_once('=').ok_or_else(|| wrong(field))?;
            Ok((key.trim().to_lowercase(), value.trim().to_owned()))
        })
        .collect()
}

fn place(text: &str, fields: &BTreeMap<String, String>, directory: &str) -> Result<Option<Place>, Problem> {
    let needed = |key: &str| match fields.get(key).filter(|value| !value.is_empty()) {
        Some(value) => Ok(value.as_str()),
        None => Err(Problem::Cache(format!(
            "invalid build cache {text:?}: {key} is missing"
        ))),
    };
    Ok(Some(match needed("type")? {
        "registry" => {
            let reference = needed("ref")?;
            let parsed = Reference::parse(reference);
            let parsed = parsed.map_err(|error| Problem::Cache(format!("invalid build cache {text:?}: {error}")))?;
            Place::Registry(parsed.tagged())
        }
        "local" => {
            let tag = fields.get("tag").cloned().unwrap_or_else(|| "latest".to_owned());
            Place::Directory(PathBuf::from(needed(directory)?), tag)
        }
        "inline" => Place::Inline,
        _ => return Ok(None),
    }))
}

/// Reads an entry of `cache_from`: `type=…` or an image's name. What only others know is said instead.
pub fn cache_source(text: &str) -> Result<Result<Place, String>, Problem> {
    if !text.contains('=') {
        let reference = Reference::parse(text);
        let reference = reference.map_err(|error| Problem::Cache(format!("invalid build cache {text:?}: {error}")))?;
        return Ok(Ok(Place::Registry(reference.tagged())));
    }
    let fields = fields(text)?;
    Ok(place(text, &fields, "src")?.ok_or_else(|| foreign(&fields["type"])))
}

/// Reads an entry of `cache_to`.
pub fn cache_target(text: &str) -> Result<Result<CacheTarget, String>, Problem> {
    let fields = match text.contains('=') {
        true => fields(text)?,
        false => [("type", "registry"), ("ref", text)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    };
    let Some(place) = place(text, &fields, "dest")? else {
        return Ok(Err(foreign(&fields["type"])));
    };
    let is_whole = match fields.get("mode").map(String::as_str) {
        None | Some("min") => false,
        Some("max") => true,
        Some(mode) => {
            return Err(Problem::Cache(format!(
                "invalid build cache {text:?}: mode {mode:?} is neither min nor max"
            )));
        }
    };
    Ok(Ok(CacheTarget {
        is_whole: is_whole && place != Place::Inline,
        place,
        may_fail: fields.get("ignore-error").is_some_and(|value| value == "true"),
    }))
}

impl Build {
    /// Makes known what the caches elsewhere have. One that cannot be read is said, and does not matter otherwise.
    pub(super) async fn import(&self) -> Result<(), BuildError> {
        if self.request.no_cache {
            return Ok(());
        }
        for place in &self.request.cache_from {
            let step = self.begin(format!("importing cache manifest from {place}"));
            let begun = Instant::now();
            let failure = self.import_from(place).await.err();
            self.end(
                step,
                begun,
                failure.map(|error| format!("not imported: {}\n", chain(&error))),
            );
        }
        Ok(())
    }

    /// Ends a step, which may have failed without harm.
    fn end(&self, step: usize, begun: Instant, failure: Option<String>) {
        if let Some(text) = failure {
            let stderr = true;
            (self.sink)(BuildEvent::Output { step, stderr, text });
        }
        let seconds = begun.elapsed().as_secs_f64();
        (self.sink)(BuildEvent::Done { step, seconds });
    }

    async fn import_from(&self, place: &Place) -> Result<(), ImageError> {
        let store = &self.request.store;
        let known: BTreeSet<String> = store.list()?.into_iter().map(|image| image.id).collect();
        let image = match place {
            Place::Inline => return Ok(()),
            Place::Directory(directory, tag) => {
                let (store, directory, tag) = (store.clone(), directory.clone(), tag.clone());
                aside(move || store.read_layout(&directory, &tag, &silent())).await?
            }
            Place::Registry(reference) => {
                let options = crate::image::PullOptions {
                    is_nameless: true,
                    ..self.request.pull_options.clone()
                };
                match store.pull(reference, &options, &silent()).await {
                    Ok(image) => image,
                    // It may have been loaded from an archive.
                    Err(error) => store.get(&reference.to_string()).map_err(|_| error)?,
                }
            }
        };
        let layers = &image.config.rootfs.diff_ids;
        let steps = image.config.cache.iter();
        let steps = steps.filter(|step| step.layer.as_ref().is_none_or(|layer| layers.contains(layer)));
        let now = jiff::Timestamp::now().as_second();
        let records = steps.map(|step| {
            let record = CacheRecord {
                layer: step.layer.clone(),
                made: step.made,
                used: now,
            };
            (step.key.clone(), record)
        });
        store.remember(records.collect::<Vec<_>>())?;
        if !known.contains(&image.id) {
            // The layers stay as those of the steps.
            store.remove(&image.id, false, false, &[])?;
        }
        Ok(())
    }

    /// Returns what steps made these layers, which is all that another engine needs to know of them.
    pub(super) fn steps_of(&self, layers: &BTreeSet<String>) -> Result<Vec<CachedStep>, ImageError> {
        let records = self.request.store.cache()?.into_iter();
        let wanted = records.filter(|(_, record)| record.layer.as_ref().is_some_and(|layer| layers.contains(layer)));
        let step = |(key, record): (String, CacheRecord)| CachedStep {
            key,
            layer: record.layer,
            made: record.made,
        };
        Ok(wanted.map(step).collect())
    }

    /// Sends the cache where the request says. `dated` is the record of when the image was made.
    pub(super) async fn export(&self, image: &Image, dated: Option<CachedStep>) -> Result<(), BuildError> {
        for target in &self.request.cache_to {
            let name = match &target.place {
                Place::Inline => continue,
                Place::Registry(_) => "exporting cache to registry",
                Place::Directory(..) => "exporting cache to client directory",
            };
            let step = self.begin(name.to_owned());
            let begun = Instant::now();
            let made: BTreeSet<String> = match target.is_whole {
                true => self.layers().collect(),
                false => image.config.rootfs.diff_ids.iter().cloned().collect(),
            };
            let failure = match self.export_to(&target.place, &made, dated.clone()).await {
                Err(source) if !target.may_fail => {
                    let place = target.place.to_string();
                    return Err(Problem::CacheExport { place, source }.into());
                }
                other => other.err(),
            };
            self.end(
                step,
                begun,
                failure.map(|error| format!("not exported: {}\n", chain(&error))),
            );
        }
        Ok(())
    }

    async fn export_to(
        &self,
        place: &Place,
        made: &BTreeSet<String>,
        dated: Option<CachedStep>,
    ) -> Result<(), ImageError> {
        let store = &self.request.store;
        let mut config = ImageConfig::scratch();
        config.cache = self.steps_of(made)?;
        let layers: BTreeSet<String> = config.cache.iter().filter_map(|step| step.layer.clone()).collect();
        config.rootfs.diff_ids = layers.into_iter().collect();
        config.cache.extend(dated);
        let image = store.add(&config, &[], None)?;
        let sent = match place {
            Place::Inline => Ok(()),
            Place::Directory(directory, tag) => {
                let (store, image) = (store.clone(), image.clone());
                let (directory, tag) = (directory.clone(), tag.clone());
                aside(move || store.write_layout(&image, &directory, &tag)).await
            }
            Place::Registry(reference) => {
                let options = PushOptions {
                    login: self.request.pull_options.login(reference.domain()).cloned(),
                    settings: self.request.pull_options.settings.clone(),
                };
                store.send(&image, reference, &options, &silent()).await.map(drop)
            }
        };
        // It was made to be sent; the steps stay in the cache.
        store.remove(&image.id, false, false, &[])?;
        sent
    }
}

/// Does what takes a while where it may block.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_buildx_reads_them() {
        let reference = |text: &str| Place::Registry(Reference::parse(text).unwrap().tagged());
        assert_eq!(cache_source("app").unwrap(), Ok(reference("app:latest")));
        assert_eq!(
            cache_source("type=registry,ref=r.example/a/b:c").unwrap(),
            Ok(reference("r.example/a/b:c"))
        );
        let directory = |tag: &str| Place::Directory("/c".into(), tag.to_owned());
        assert_eq!(cache_source("type=local,src=/c").unwrap(), Ok(directory("latest")));
        let target = cache_target("type=local,dest=/c,tag=t,mode=max,ignore-error=true").unwrap();
        assert_eq!(
            target,
            Ok(CacheTarget {
                place: directory("t"),
                is_whole: true,
                may_fail: true
            })
        );
        let inline = cache_target("type=inline,mode=max").unwrap().unwrap();
        assert!(!inline.is_whole && inline.place == Place::Inline);
        assert!(cache_target("type=gha,scope=x").unwrap().is_err());
        for wrong in ["type=local", "type=registry,ref=", "ref=x", "type=local,src"] {
            assert!(cache_source(wrong).is_err(), "{wrong}");
        }
        assert!(cache_target("type=local,dest=/c,mode=some").is_err());
    }
}
