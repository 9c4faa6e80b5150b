//! What the watch keeps for the next one: what the files contained when their changes were acted upon.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::voice::Voice;
use crate::watch::{Identity, Snapshot};

/// How many lines may be added to the list on disk before it is written anew.
const ADDED_LINES: usize = 50_000;

/// Files as they were when they were acted upon.
type Batch = Vec<(PathBuf, Option<Identity>)>;

/// Notes what was acted upon, on a thread of its own: to read files takes longer than to copy them.
pub struct Memory {
    /// Acted upon, but perhaps not done yet.
    open: BTreeMap<PathBuf, Option<Identity>>,
    writer: Option<mpsc::Sender<Batch>>,
    thread: Option<JoinHandle<()>>,
}

impl Memory {
    /// Looks at the files, and says which of them changed since an earlier watch last acted upon them. Begins anew
    /// where there was none.
    pub fn open(place: &Path, files: Vec<PathBuf>, voice: Voice) -> std::io::Result<(Self, Vec<PathBuf>)> {
        let mut missed = Vec::new();
        let mut all = Some(files);
        if let Some(known) = Snapshot::load(place) {
            let now = Snapshot::take(all.take().unwrap_or_default(), Some(&known));
            missed = known.changes_to(&now);
            // What was missed counts as such until it has been acted upon.
            now.with(&missed, &known).store(place)?;
        }
        let (writer, batches) = mpsc::channel::<Batch>();
        let place = place.to_owned();
        let thread = std::thread::Builder::new().name("memory".to_owned()).spawn(move || {
            let tell = |written: std::io::Result<()>| {
                if let Err(error) = written {
                    voice.warn(format_args!(
                        "cannot write {}: {error}; a later watch will not know what was done",
                        place.display()
                    ));
                }
            };
            if let Some(all) = all {
                // There is nothing to catch up with, and nobody has to wait until all of it is read.
                tell(Snapshot::take(all, None).store(&place));
            }
            let mut added = 0;
            for batch in batches {
                tell(Snapshot::append(&place, &batch).and_then(|count| {
                    added += count;
                    if added > ADDED_LINES {
                        added = 0;
                        Snapshot::load(&place).unwrap_or_default().store(&place)?;
                    }
                    Ok(())
                }));
            }
        })?;
        let memory = Self {
            open: BTreeMap::new(),
            writer: Some(writer),
            thread: Some(thread),
        };
        Ok((memory, missed))
    }

    /// Notes files that are about to be acted upon, as they are now.
    pub fn begin(&mut self, paths: &[PathBuf]) {
        self.open
            .extend(paths.iter().map(|path| (path.clone(), Identity::of(path))));
    }

    /// Notes that everything that was begun is done.
    pub fn done(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.open).into_iter().collect();
        if let Some(writer) = &self.writer {
            // The thread ends only with the channel.
            let _ = writer.send(batch);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.writer = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
