//! Which engine runs: its process, and the build of the program that it is.
//!
//! An engine lives on when its program is replaced by a newer one. Clients read here whether that is so, before they ask for
//! anything.

use std::io;
use std::path::PathBuf;

use super::paths::Paths;
use crate::os::program;

/// An engine that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub pid: i32,
    pub version: String,
    pub build: String,
    /// The file that it was started from.
    pub program: PathBuf,
}

impl Running {
    /// Returns this process as the engine.
    pub fn this() -> Self {
        Self {
            pid: std::process::id().cast_signed(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: program::build(),
            program: program::path(),
        }
    }

    /// Writes down that this is the engine.
    pub fn write(&self, paths: &Paths) -> io::Result<()> {
        let text = format!(
            "{}\n{}\n{}\n{}\n",
            self.pid,
            self.version,
            self.build,
            self.program.display()
        );
        std::fs::write(paths.running(), text)
    }

    /// Returns the engine that holds the lock, as far as it is known: engines of old builds say no more than their process.
    pub fn read(paths: &Paths) -> Option<Self> {
        let pid = std::fs::read_to_string(paths.lock()).ok()?.trim().parse().ok()?;
        let text = std::fs::read_to_string(paths.running()).unwrap_or_default();
        let mut lines = text.lines();
        // One that says nothing leaves behind what another one said.
        let is_its_own = lines.next().is_some_and(|line| line.parse() == Ok(pid));
        let mut lines = lines.filter(|_| is_its_own).map(str::to_owned);
        Some(Self {
            pid,
            version: lines.next().unwrap_or_default(),
            build: lines.next().unwrap_or_default(),
            program: lines.next().map(PathBuf::from).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_while_its_engine_has_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::in_directory(directory.path());
        assert_eq!(Running::read(&paths), None);
        let this = Running::this();
        this.write(&paths).unwrap();
        std::fs::write(paths.lock(), format!("{}\n", this.pid)).unwrap();
        assert_eq!(Running::read(&paths), Some(this.clone()));
        std::fs::write(paths.lock(), "1\n").unwrap();
        let other = Running::read(&paths).unwrap();
        assert_eq!((other.pid, other.build.as_str()), (1, ""));
    }
}
