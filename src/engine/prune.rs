//! Taking away what nothing uses.

use std::sync::Arc;

use jiff::Timestamp;

use super::config::StringMap;
use super::container::Status;
use super::filters::Filters;
use super::{Engine, EngineError, Result, time};
use crate::image::Blocks;

impl Engine {
    /// Removes containers that do not run; returns their ids and the room they took.
    pub async fn prune_containers(self: &Arc<Self>, filters: &Filters) -> Result<(Vec<String>, u64)> {
        filters.only(&["label", "label!", "until"])?;
        let until = until(filters)?;
        let mut removed = Vec::new();
        let mut space = 0;
        for container in self.containers.all() {
            let matches = {
                let record = container.record();
                matches!(record.state.status, Status::Created | Status::Exited | Status::Dead)
                    && filters.labels_match(&record.config.labels)
                    && until.is_none_or(|until| record.created < until)
            };
            if !matches {
                continue;
            }
            let size = Blocks::default().of(&container.dir);
            if self.remove(&container, false, false).await.is_ok() {
                space += size;
                removed.push(container.id.clone());
            }
        }
        self.events.publish("container", "prune", "", reclaimed(space));
        Ok((removed, space))
    }

    /// Removes volumes that no container uses: anonymous ones, or all where the filter says so.
    pub fn prune_volumes(&self, filters: &Filters) -> Result<(Vec<String>, u64)> {
        filters.only(&["all", "label", "label!"])?;
        let all = filters.truth("all")?.unwrap_or(false);
        let mut removed = Vec::new();
        let mut space = 0;
        for volume in self.volumes.list() {
            let labels = volume.labels.clone().unwrap_or_default();
            if !(all || volume.is_anonymous()) || !filters.labels_match(&labels) {
                continue;
            }
            let size = Blocks::default().of(&self.volumes.home(&volume.name));
            if self.remove_volume(&volume.name, false).is_ok() {
                space += size;
                removed.push(volume.name);
            }
        }
        self.events.publish("volume", "prune", "", reclaimed(space));
        Ok((removed, space))
    }
}

/// Returns the attributes of an event that says what was gained.
pub fn reclaimed(space: u64) -> StringMap {
    [("reclaimed".to_owned(), space.to_string())].into()
}

/// Reads the filter `until`: a moment, or a span before now such as `24h`.
pub fn until(filters: &Filters) -> Result<Option<Timestamp>> {
    let Some(text) = filters.all("until").first() else {
        return Ok(None);
    };
    if let Some(moment) = time::parse(text) {
        return Ok(Some(moment));
    }
    let span: jiff::SignedDuration = text
        .parse()
        .map_err(|_| EngineError::InvalidParameter(format!("invalid value for \"until\": {text}")))?;
    Ok(time::now().checked_sub(span).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_is_a_moment_or_a_span() {
        let until_of = |text: &str| until(&Filters::parse(Some(&format!(r#"{{"until":["{text}"]}}"#))).unwrap());
        assert_eq!(
            until_of("1795473260").unwrap(),
            Timestamp::from_second(1_795_473_260).ok()
        );
        let day = until_of("24h").unwrap().unwrap();
        let age = time::now().duration_since(day).as_secs();
        assert!((86_395..=86_405).contains(&age));
        assert!(until_of("soon").is_err());
    }
}
