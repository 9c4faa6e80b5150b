//! Files that are locked.

use std::fs::File;
use std::ops::Deref;

/// A locked file, let go of with the value.
///
/// By word and not by closing it: a process that another thread is starting at this moment has the file open, too,
/// until it runs its own program, and with it the lock.
#[derive(Debug)]
pub struct Held(File);

impl Held {
    /// Takes over a file that has been locked.
    pub fn new(locked: File) -> Self {
        Self(locked)
    }
}

impl Deref for Held {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Closing it does the same a little later.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_being_started_does_not_keep_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let file = File::create(&path).unwrap();
        file.lock().unwrap();
        let held = Held::new(file);
        let of_child = held.try_clone().unwrap();
        assert!(File::open(&path).unwrap().try_lock().is_err());
        drop(held);
        File::open(&path).unwrap().try_lock().unwrap();
        drop(of_child);
    }
}
