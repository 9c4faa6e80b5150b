//! What containers are reaches the disk soon after it was written down, without anybody waiting for it.
//!
//! Records change with every start and end, and a disk takes longer to answer than a container to start. So a record is put in its
//! place at once, which survives the engine, and written out within [`SOON`], which survives a loss of power: that costs at most
//! what happened in between. File systems differ in what they make of a file that was replaced and not written out, so the last one
//! that was is kept under a name of its own.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Result, files};

/// How long a record may wait: what a start changes, one after the other, is written out once.
const SOON: Duration = Duration::from_millis(500);

/// Records that wait to be written out.
#[derive(Debug, Default)]
pub struct Settling {
    waiting: Mutex<BTreeSet<PathBuf>>,
    wake: Notify,
}

impl Settling {
    /// Has a record written out soon.
    pub fn soon(&self, record: &Path) {
        self.waiting().insert(record.to_owned());
        self.wake.notify_one();
    }

    /// Writes records out until the engine ends, and then the last of them.
    pub async fn run(self: Arc<Self>, closing: CancellationToken) {
        let mut is_last = false;
        while !is_last {
            tokio::select! {
                () = self.wake.notified() => {
                    let _ = tokio::time::timeout(SOON, closing.cancelled()).await;
                }
                () = closing.cancelled() => {}
            }
            is_last = closing.is_cancelled();
            let records = std::mem::take(&mut *self.waiting());
            // That it could not be done is logged; a panic would be a fault of ours, and is reported where it happens.
            let _ = tokio::task::spawn_blocking(move || settle_all(&records)).await;
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeSet<PathBuf>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn settle_all(records: &BTreeSet<PathBuf>) {
    for record in records {
        match settle(record) {
            // A container that was removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(record = %record.display(), %error, "a record cannot be written out"),
            Ok(()) => {}
        }
    }
}

/// Has what a record says now reach the disk, and keeps it under a name that nothing replaces before that.
fn settle(record: &Path) -> io::Result<()> {
    let linked = record.with_extension("settling");
    let _ = std::fs::remove_file(&linked);
    std::fs::hard_link(record, &linked)?;
    File::open(&linked)?.sync_data()?;
    std::fs::rename(&linked, settled(record))?;
    let home = record.parent().unwrap_or(Path::new("/"));
    files::sync_directory(home)?;
    home.parent().map_or(Ok(()), files::sync_directory)
}

fn settled(record: &Path) -> PathBuf {
    record.with_extension("settled")
}

/// Returns whether there is such a record, or was one.
pub fn exists(record: &Path) -> bool {
    record.exists() || settled(record).exists()
}

/// Reads a record, or the last one that reached the disk where a loss of power took what came after it.
pub fn read<T: DeserializeOwned>(record: &Path) -> Result<T> {
    files::read_json(record).or_else(|cause| {
        let older = files::read_json(&settled(record)).map_err(|_| cause)?;
        tracing::warn!(record = %record.display(), "the record was lost; an older one is used");
        Ok(older)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::files::{Durability, write_json};

    #[test]
    fn a_lost_record_is_what_it_was_when_it_last_reached_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let record = directory.path().join("record.json");
        assert!(!exists(&record));
        write_json(&record, &1, Durability::Settling).unwrap();
        settle(&record).unwrap();
        write_json(&record, &2, Durability::Settling).unwrap();
        assert_eq!(read::<i32>(&record).unwrap(), 2);
        for lost in [Some(""), Some("{"), None] {
            match lost {
                Some(text) => std::fs::write(&record, text).unwrap(),
                None => std::fs::remove_file(&record).unwrap(),
            }
            assert!(exists(&record));
            assert_eq!(read::<i32>(&record).unwrap(), 1, "{lost:?}");
        }
    }

    #[tokio::test]
    async fn the_last_records_are_written_out_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let record = directory.path().join("record.json");
        write_json(&record, &1, Durability::Settling).unwrap();
        let (settling, closing) = (Arc::new(Settling::default()), CancellationToken::new());
        settling.soon(&record);
        closing.cancel();
        settling.run(closing).await;
        assert!(settled(&record).exists());
    }
}
