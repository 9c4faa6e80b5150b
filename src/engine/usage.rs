//! What everything takes on the disk, so that it adds up to what `du` says of the state directory.

use serde::Serialize;

use super::images::image_failure;
use super::{Engine, Result};
use crate::image::{Blocks, Damage};

/// What one kind of thing takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Part {
    pub count: usize,
    /// How many of them are in use.
    pub active: usize,
    /// Bytes on the disk.
    pub size: u64,
    /// How many of those removing what is not in use would give back.
    pub reclaimable: u64,
}

/// What everything takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Usage {
    pub directory: String,
    pub total: u64,
    pub images: Part,
    pub containers: Part,
    pub volumes: Part,
    pub build_cache: Part,
    /// Logs, records, and what is being made.
    pub other: u64,
    /// What is not what its digest says; not looked for unless asked.
    pub damaged: Vec<Damaged>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Damaged {
    pub what: String,
    pub images: Vec<String>,
    pub problem: String,
}

impl From<Damage> for Damaged {
    fn from(damage: Damage) -> Self {
        Self {
            what: damage.what,
            images: damage.images,
            problem: damage.problem,
        }
    }
}

impl Engine {
    /// Measures the state directory. With `verify`, everything in the image store is read and compared with its digest first.
    pub fn usage(&self, verify: bool) -> Result<Usage> {
        let damaged = match verify {
            true => self.store.verify().map_err(image_failure)?,
            false => Vec::new(),
        };
        let mut blocks = Blocks::default();
        let users = self.image_users();
        let is_used = |id: &str| users.iter().any(|user| user.image_id == id);
        let store = self.store.usage(is_used, &mut blocks).map_err(image_failure)?;
        let all = self.store.list().map_err(image_failure)?;
        let images = Part {
            count: all.len(),
            active: all.iter().filter(|image| is_used(&image.id)).count(),
            size: store.images + store.garbage,
            reclaimable: store.unused + store.garbage,
        };
        let cache = self.store.cache().map_err(image_failure)?;
        let build_cache = Part {
            count: cache.len(),
            active: 0,
            size: store.cache,
            reclaimable: store.cache,
        };
        let mut containers = Part::default();
        for container in self.containers.all() {
            let size = blocks.of(&container.dir);
            let is_active = container.record().state.status.is_running();
            containers.count += 1;
            containers.active += usize::from(is_active);
            containers.size += size;
            containers.reclaimable += if is_active { 0 } else { size };
        }
        let mut volumes = Part::default();
        for volume in self.volumes.list() {
            let size = blocks.of(&self.volumes.home(&volume.name));
            let is_active = !self.users_of_volume(&volume.name).is_empty();
            volumes.count += 1;
            volumes.active += usize::from(is_active);
            volumes.size += size;
            volumes.reclaimable += if is_active { 0 } else { size };
        }
        let known = store.total() + containers.size + volumes.size;
        let total = Blocks::default().of(self.paths.state_dir());
        Ok(Usage {
            directory: self.paths.state_dir().display().to_string(),
            total,
            images,
            containers,
            volumes,
            build_cache,
            other: total.saturating_sub(known) + store.rest,
            damaged: damaged.into_iter().map(Damaged::from).collect(),
        })
    }
}
