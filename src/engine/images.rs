//! Images as containers and the API need them: found by any name, described, removed when nothing has them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::config::StringMap;
use super::container::Record;
use super::filters::Filters;
use super::{Engine, EngineError, Result, time};
use crate::image::{Image, ImageError, ImageUser, Platform, Removed, Source, silent};

impl Engine {
    /// Finds an image by any name. A name of a file or directory of this machine is read if need be.
    pub fn image(&self, name: &str) -> Result<Image> {
        match Source::parse(name) {
            Ok(source) if source.local_path().is_some() => self
                .store
                .read_source(&source.absolute(Path::new("/")), &Platform::host(), &silent())
                .map_err(image_failure),
            _ => self.store.get(name).map_err(image_failure),
        }
    }

    /// Returns the image a container was made from, even when it has lost its names since.
    pub fn image_of(&self, record: &Record) -> Result<Image> {
        self.store
            .get(&record.image)
            .or_else(|_| self.store.get_detached(&record.image))
            .map_err(image_failure)
    }

    /// Returns the read-only layers of a container of this image, top first.
    pub fn layers(&self, image: &Image) -> Vec<PathBuf> {
        let mut layers = self.store.layer_dirs(image);
        // Below everything else: it covers nothing and saves the runtime from making mount points.
        if let Ok(scaffold) = self.store.scaffold() {
            layers.push(scaffold);
        }
        layers
    }

    /// Returns who uses images.
    pub fn image_users(&self) -> Vec<ImageUser> {
        self.containers
            .all()
            .iter()
            .map(|container| {
                let record = container.record();
                ImageUser {
                    container_id: record.id.clone(),
                    image_id: record.image.clone(),
                    running: record.state.status.is_running(),
                }
            })
            .collect()
    }

    /// Says that something happened to an image.
    pub fn image_event(&self, id: &str, name: &str, action: &str) {
        let mut attributes: StringMap = self
            .store
            .get(id)
            .map(|image| image.config.config.labels.clone())
            .unwrap_or_default();
        attributes.insert("name".to_owned(), name.to_owned());
        self.events.publish("image", action, id, attributes);
    }

    /// Removes a name, and with its last name the image.
    ///
    /// Says also how many bytes that frees.
    pub fn remove_image(&self, name: &str, force: bool, prune: bool) -> Result<(Vec<Removed>, u64)> {
        let id = match self.image(name) {
            Ok(image) => image.id,
            // What is damaged can be removed all the same.
            Err(EngineError::DamagedImage(_)) => name.to_owned(),
            Err(error) => return Err(error),
        };
        let (removed, freed) = self
            .store
            .remove(name, force, prune, &self.image_users())
            .map_err(image_failure)?;
        for one in &removed {
            match one {
                Removed::Untagged(name) => {
                    self.events
                        .publish("image", "untag", &id, [("name".to_owned(), name.clone())].into())
                }
                Removed::Deleted(id) => {
                    self.events
                        .publish("image", "delete", id, [("name".to_owned(), id.clone())].into());
                }
            }
        }
        Ok((removed, freed))
    }

    /// Returns the images of a list as the API writes them.
    pub fn list_images(&self, filters: &Filters, digests: bool) -> Result<Vec<Value>> {
        filters.only(&["before", "dangling", "label", "label!", "reference", "since", "until"])?;
        let dangling = filters.truth("dangling")?;
        let until = super::prune::until(filters)?;
        let created_of = |name: &str| -> Result<Option<i64>> {
            match filters.all(name).first() {
                Some(wanted) => Ok(Some(created_seconds(&self.image(wanted)?))),
                None => Ok(None),
            }
        };
        let (before, since) = (created_of("before")?, created_of("since")?);
        let users = self.image_users();
        let mut images = self.store.list().map_err(image_failure)?;
        images.sort_by_key(|image| std::cmp::Reverse(created_seconds(image)));
        let shown = images.iter().filter(|image| {
            let created = created_seconds(image);
            dangling.is_none_or(|dangling| (image.repo_tags.is_empty() && image.repo_digests.is_empty()) == dangling)
                && filters.labels_match(&image.config.config.labels)
                && before.is_none_or(|before| created < before)
                && since.is_none_or(|since| created > since)
                && until.is_none_or(|until| created < until.as_second())
                && (!filters.has("reference")
                    || filters.any("reference", |pattern| {
                        image.repo_tags.iter().any(|tag| matches_reference(pattern, tag))
                    }))
        });
        let _ = digests;
        Ok(shown
            .map(|image| {
                let containers = users.iter().filter(|user| user.image_id == image.id).count();
                let labels = &image.config.config.labels;
                json!({
                    "Containers": containers,
                    "Created": created_seconds(image),
                    "Id": image.id,
                    "Labels": if labels.is_empty() { Value::Null } else { json!(labels) },
                    "ParentId": image.parent.clone().unwrap_or_default(),
                    "RepoDigests": image.repo_digests,
                    "RepoTags": image.repo_tags,
                    "SharedSize": -1,
                    "Size": image.size,
                })
            })
            .collect())
    }

    /// Returns an image as `inspect` prints it.
    pub fn inspect_image(&self, name: &str) -> Result<Value> {
        let image = self.image(name)?;
        image.check().map_err(image_failure)?;
        let layers = self.layers(&image);
        let config = &image.config;
        let of_container = &config.config;
        let tagged = jiff::Timestamp::from_second(image.tagged).unwrap_or_default();
        let none_if_empty = |value: Value| match &value {
            Value::Array(items) if items.is_empty() => Value::Null,
            Value::Object(fields) if fields.is_empty() => Value::Null,
            _ => value,
        };
        let mut container = json!({
            "Cmd": of_container.cmd,
            "Entrypoint": of_container.entrypoint,
            "Env": none_if_empty(json!(of_container.env)),
            "Labels": none_if_empty(json!(of_container.labels)),
            "OnBuild": none_if_empty(json!(of_container.on_build)),
            "User": of_container.user,
            "Volumes": none_if_empty(json!(of_container.volumes)),
            "WorkingDir": of_container.working_dir,
        });
        if !of_container.exposed_ports.is_empty() {
            container["ExposedPorts"] = json!(of_container.exposed_ports);
        }
        if let Some(check) = &of_container.healthcheck {
            container["Healthcheck"] = json!(check);
        }
        if let Some(signal) = &of_container.stop_signal {
            container["StopSignal"] = json!(signal);
        }
        if let Some(shell) = &of_container.shell {
            container["Shell"] = json!(shell);
        }
        Ok(json!({
            "Id": image.id,
            "RepoTags": image.repo_tags,
            "RepoDigests": image.repo_digests,
            "Parent": image.parent.clone().unwrap_or_default(),
            "Comment": config.history.last().and_then(|step| step.comment.clone()).unwrap_or_default(),
            "Created": image.created.clone().unwrap_or_else(|| time::NEVER.to_owned()),
            "DockerVersion": "",
            "Author": config.author.clone().unwrap_or_default(),
            "Architecture": config.architecture,
            "Os": config.os,
            "Size": image.size,
            "GraphDriver": {
                "Data": {
                    "LowerDir": layers.iter().skip(1).map(|path| path.display().to_string()).collect::<Vec<_>>().join(":"),
                    "UpperDir": layers.first(),
                },
                "Name": "overlay2",
            },
            "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
            "Metadata": { "LastTagTime": time::rfc3339(tagged) },
            "Config": container,
        }))
    }

    /// Returns how an image came to be, the last step first.
    pub fn image_history(&self, name: &str) -> Result<Vec<Value>> {
        let image = self.image(name)?;
        let mut layers = image.layers.iter();
        let mut steps: Vec<Value> = image
            .config
            .history
            .iter()
            .map(|step| {
                let size = if step.empty_layer {
                    0
                } else {
                    layers.next().map_or(0, |layer| layer.size)
                };
                let created = step
                    .created
                    .as_deref()
                    .and_then(time::parse)
                    .map_or(0, jiff::Timestamp::as_second);
                json!({
                    "Comment": step.comment.clone().unwrap_or_default(),
                    "Created": created,
                    "CreatedBy": step.created_by.clone().unwrap_or_default(),
                    "Id": "<missing>",
                    "Size": size,
                    "Tags": null,
                })
            })
            .collect();
        steps.reverse();
        if let Some(last) = steps.first_mut() {
            last["Id"] = json!(image.id);
            last["Tags"] = json!(image.repo_tags);
        }
        Ok(steps)
    }

    /// Removes images nothing uses: those without a name, or all where the filter says so.
    pub fn prune_images(&self, filters: &Filters) -> Result<(Vec<Value>, u64)> {
        filters.only(&["dangling", "label", "label!", "until"])?;
        let only_dangling = filters.truth("dangling")?.unwrap_or(true);
        let until = super::prune::until(filters)?;
        let users = self.image_users();
        let mut deleted = Vec::new();
        let mut space = 0;
        for image in self.store.list().map_err(image_failure)? {
            let in_use = users.iter().any(|user| user.image_id == image.id);
            let wanted = (!only_dangling || image.repo_tags.is_empty())
                && filters.labels_match(&image.config.config.labels)
                && until.is_none_or(|until| created_seconds(&image) < until.as_second());
            if in_use || !wanted {
                continue;
            }
            let mut names = image.repo_tags.clone();
            if names.is_empty() {
                names.push(image.id.clone());
            }
            for name in names {
                let Ok((removed, freed)) = self.remove_image(&name, false, true) else {
                    continue;
                };
                space += freed;
                deleted.extend(removed.iter().map(removed_json));
            }
        }
        self.events
            .publish("image", "prune", "", super::prune::reclaimed(space));
        Ok((deleted, space))
    }
}

/// Returns what a removal did as the API writes it.
pub fn removed_json(removed: &Removed) -> Value {
    match removed {
        Removed::Untagged(name) => json!({ "Untagged": name }),
        Removed::Deleted(id) => json!({ "Deleted": id }),
    }
}

fn created_seconds(image: &Image) -> i64 {
    image
        .created
        .as_deref()
        .and_then(time::parse)
        .map_or(0, jiff::Timestamp::as_second)
}

/// A `reference` filter: a pattern over the name with or without its tag.
fn matches_reference(pattern: &str, tag: &str) -> bool {
    let Ok(glob) = globset::GlobBuilder::new(pattern).literal_separator(true).build() else {
        return false;
    };
    let matcher = glob.compile_matcher();
    let name = tag.rsplit_once(':').map_or(tag, |(name, _)| name);
    matcher.is_match(tag) || matcher.is_match(name)
}

/// Turns the store's errors into the engine's.
pub fn image_failure(cause: ImageError) -> EngineError {
    let text = super::error::chain(&cause);
    match cause {
        ImageError::NotFound(_) => EngineError::NotFound(text),
        ImageError::Damaged { .. } => EngineError::DamagedImage(text),
        ImageError::Conflict(_) => EngineError::Conflict(text),
        ImageError::Reference(_) | ImageError::NotADirectory(_) | ImageError::Archive { .. } => {
            EngineError::InvalidParameter(text)
        }
        _ => EngineError::Image(text),
    }
}

#[cfg(test)]
mod tests {
    use super::matches_reference;

    #[test]
    fn references_are_matched_with_and_without_their_tag() {
        assert!(matches_reference("busybox", "busybox:latest"));
        assert!(matches_reference("busy*", "busybox:latest"));
        assert!(matches_reference("busybox:l*", "busybox:latest"));
        assert!(!matches_reference("box", "busybox:latest"));
        assert!(matches_reference("ghcr.io/*/x", "ghcr.io/a/x:1"));
    }
}
