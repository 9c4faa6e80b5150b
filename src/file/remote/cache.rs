//! Where fetched files lie: a directory for each kind, in it one for each content, and notes of what names meant.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::Refusal;

pub(super) struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// Returns the cache of a kind of files.
    pub(super) fn of(kind: &str, environment: &BTreeMap<String, String>) -> Result<Self, Refusal> {
        let absolute = |name: &str| {
            environment
                .get(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let top = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        let top = top.ok_or_else(|| Refusal {
            reason: "there is no directory for a cache".to_owned(),
            help: Some("set XDG_CACHE_HOME, or HOME"),
        })?;
        Ok(Self {
            directory: top.join("compose").join(kind),
        })
    }

    /// Where a content is, if it is there.
    pub(super) fn tree(&self, content: &str) -> PathBuf {
        self.directory.join(content)
    }

    fn note(&self, name: &str) -> PathBuf {
        let name = Sha256::digest(name);
        let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        self.directory.join("references").join(name)
    }

    /// Returns which content a name meant when it was last fetched.
    pub(super) fn known(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.note(name)).ok()
    }

    /// Notes which content a name means now.
    pub(super) fn remember(&self, name: &str, content: &str) -> io::Result<()> {
        let note = self.note(name);
        if let Some(directory) = note.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let unfinished = note.with_extension(std::process::id().to_string());
        std::fs::write(&unfinished, content)?;
        std::fs::rename(unfinished, note)
    }

    /// Lets a content's files be put into a directory of their own, and that into its place: all of them or none.
    pub(super) fn fill(&self, content: &str, fill: impl FnOnce(&Path) -> Result<(), String>) -> Result<(), String> {
        let unfinished = self.directory.join(format!("{content}.{}", std::process::id()));
        let made = std::fs::create_dir_all(&unfinished).map_err(|error| format!("{}: {error}", unfinished.display()));
        let filled = made.and_then(|()| fill(&unfinished));
        let placed = filled.and_then(|()| match std::fs::rename(&unfinished, self.tree(content)) {
            // Somebody else was faster, with the same files.
            Err(_) if self.tree(content).is_dir() => Ok(()),
            renamed => renamed.map_err(|error| error.to_string()),
        });
        let _ = std::fs::remove_dir_all(&unfinished);
        placed
    }
}
