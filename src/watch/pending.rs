//! When a change is acted upon: at once where the file is whole, a little later where it may be on its way.
//!
//! There is no silence to wait for. What comes while an earlier change is being carried out is taken together, so a
//! burst becomes few batches, and a writer that never stops is served at growing intervals instead of never.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Change, Kind};

/// How long a file that is gone may take to come back: editors move the old one away before they write the new one.
const ABSENCE: Duration = Duration::from_millis(40);
/// How long a file that is being written is waited for, the first time and at the most.
const PATIENCE: Duration = Duration::from_millis(100);
const LONGEST_PATIENCE: Duration = Duration::from_secs(2);

/// Changes that have not been acted upon.
#[derive(Debug, Default)]
pub struct Pending {
    due: BTreeMap<PathBuf, (Instant, Kind)>,
    /// Files that were taken before they were whole, and how long the next time is.
    unfinished: BTreeMap<PathBuf, Duration>,
}

impl Pending {
    /// Adds a change.
    pub fn note(&mut self, change: Change, now: Instant) {
        let Change { path, kind } = change;
        let due = match kind {
            Kind::Whole => now,
            Kind::Gone => now + ABSENCE,
            Kind::Begun => now + self.unfinished.get(&path).copied().unwrap_or(PATIENCE),
        };
        if kind != Kind::Begun {
            self.unfinished.remove(&path);
        }
        let entry = self.due.entry(path).or_insert((due, kind));
        // Waiting again and again would be waiting for ever.
        entry.0 = entry.0.min(due);
        entry.1 = kind;
    }

    /// Returns when there is something to take.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.values().map(|(due, _)| *due).min()
    }

    /// Takes the paths whose time has come, in order: a directory before what is in it.
    pub fn take(&mut self, now: Instant) -> Vec<PathBuf> {
        let mut taken = Vec::new();
        self.due.retain(|path, (due, kind)| {
            if *due > now {
                return true;
            }
            if *kind == Kind::Begun {
                let patience = self.unfinished.entry(path.clone()).or_insert(PATIENCE);
                *patience = (*patience * 2).min(LONGEST_PATIENCE);
            }
            taken.push(path.clone());
            false
        });
        taken
    }

    /// Returns whether something is known of the path and not acted upon.
    pub fn has(&self, path: &Path) -> bool {
        self.due.contains_key(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(path: &str, kind: Kind) -> Change {
        Change {
            path: path.into(),
            kind,
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_whole_file_is_due_at_once() {
        let mut pending = Pending::default();
        let now = Instant::now();
        pending.note(change("a", Kind::Begun), now);
        assert!(pending.take(now).is_empty());
        pending.note(change("a", Kind::Whole), now + MS);
        assert_eq!(pending.take(now + MS), [Path::new("a")]);
        assert_eq!(pending.next_due(), None);
    }

    #[test]
    fn a_file_that_comes_back_was_never_gone() {
        let mut pending = Pending::default();
        let now = Instant::now();
        pending.note(change("a", Kind::Gone), now);
        assert!(pending.take(now + 30 * MS).is_empty());
        pending.note(change("a", Kind::Whole), now + 31 * MS);
        assert_eq!(pending.take(now + 31 * MS).len(), 1);
        assert!(pending.take(now + ABSENCE).is_empty());
    }

    #[test]
    fn a_writer_that_never_stops_is_not_waited_for() {
        let mut pending = Pending::default();
        let start = Instant::now();
        let mut taken = 0;
        for step in 0..10_000 {
            let now = start + step * MS;
            pending.note(change("log", Kind::Begun), now);
            taken += pending.take(now).len();
        }
        // After 0.1, 0.3, 0.7, 1.5, 3.1, 5.1 … seconds.
        assert_eq!(taken, 8);
    }

    #[test]
    fn a_burst_is_taken_together() {
        let mut pending = Pending::default();
        let now = Instant::now();
        for number in 0..1000 {
            pending.note(change(&format!("{number}"), Kind::Whole), now);
            pending.note(change(&format!("{number}"), Kind::Whole), now);
        }
        assert_eq!(pending.take(now).len(), 1000);
    }
}
