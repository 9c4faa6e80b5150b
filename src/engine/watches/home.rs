//! A background watch on disk: what it is run with, what it says of itself, its log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::FlockOperation;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::super::files::{self, Durability};
use super::super::paths::Paths;
use super::super::{EngineError, Result};
use crate::os::program;

/// How a watch is run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    pub arguments: Vec<String>,
    /// Whole, since the project's files may refer to any of it.
    pub environment: BTreeMap<String, String>,
    pub directory: PathBuf,
    /// It is a watch of another engine's project: nobody begins it again when it ends.
    pub is_detached: bool,
}

/// What a watch says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Report {
    pub pid: u32,
    /// When it began.
    pub since: String,
    /// Whether every change is noticed from now on; before, the tree is walked through.
    pub is_watching: bool,
    pub watched: Vec<Watched>,
    /// What was done last.
    pub last: Option<Entry>,
    /// What went wrong lately.
    pub errors: Vec<Entry>,
}

/// A rule in a few words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Watched {
    pub service: String,
    pub action: String,
    pub path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
}

/// Something that was said, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Entry {
    pub at: String,
    pub text: String,
}

/// Where the background watch of a project has its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    project: String,
    directory: PathBuf,
    lock: PathBuf,
}

impl Home {
    /// Returns the place of a project's watch.
    pub fn of(paths: &Paths, project: &str) -> Result<Self> {
        let is_name = !project.is_empty() && !project.starts_with('.') && !project.contains('/');
        if !is_name {
            return Err(EngineError::InvalidParameter(format!(
                "invalid project name {project:?}"
            )));
        }
        Ok(Self {
            project: project.to_owned(),
            directory: paths.state_dir().join("watches").join(project),
            lock: paths.run_dir().join("watch").join(format!("{project}.lock")),
        })
    }

    /// Returns the places of all watches that the embedded engine is to run.
    pub fn all(paths: &Paths) -> Vec<Self> {
        let entries = std::fs::read_dir(paths.state_dir().join("watches"));
        let names = entries
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        let mut all: Vec<Self> = names
            .filter_map(|name| Self::of(paths, &name).ok())
            .filter(|home| home.record().is_some_and(|record| !record.is_detached))
            .collect();
        all.sort_by(|one, other| one.project.cmp(&other.project));
        all
    }

    /// Returns whose watch it is.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// Returns where everything that the watch and its builds print goes.
    pub fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Returns where it is kept what the watched files contained.
    pub fn snapshot(&self) -> PathBuf {
        self.directory.join("snapshot")
    }

    fn record_path(&self) -> PathBuf {
        self.directory.join("watch.json")
    }

    fn report_path(&self) -> PathBuf {
        self.directory.join("report.json")
    }

    /// Returns how the watch is run, if it is to run.
    pub fn record(&self) -> Option<Record> {
        files::read_json(&self.record_path()).ok()
    }

    /// Notes that the watch is to run, and how.
    pub fn set_record(&self, record: &Record) -> Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .map_err(EngineError::file("cannot create", &self.directory))?;
        files::write_json(&self.record_path(), record, Durability::Synced)
    }

    /// Returns what the watch said of itself last.
    pub fn report(&self) -> Option<Report> {
        files::read_json(&self.report_path()).ok()
    }

    /// Replaces what the watch says of itself, unless its place is gone.
    pub fn set_report(&self, report: &Report) -> Result<()> {
        files::write_json(&self.report_path(), report, Durability::Renamed)
    }

    /// Forgets the watch: it is not to run any more.
    pub fn forget(&self) -> Result<()> {
        let _ = std::fs::remove_file(self.record_path());
        match std::fs::remove_dir_all(&self.directory) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(EngineError::file("cannot remove", &self.directory)(cause))
            }
            _ => Ok(()),
        }
    }

    /// Takes the right to be the only watch of the project, which the kernel takes back when the process ends, however
    /// it ends. Returns the process that has it already as the error. The process that has it must not ask for its
    /// [`holder`](Self::holder): to close the file once is to let go.
    pub fn take_lock(&self) -> io::Result<std::result::Result<File, Option<Pid>>> {
        if let Some(directory) = self.lock.parent() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&self.lock)?;
        // A lock of the process (not of the open file), since the kernel tells whose such a lock is.
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Ok(file)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Ok(Err(self.holder())),
            Err(cause) => Err(cause.into()),
        }
    }

    /// Returns the process that watches the project now, in the background or not.
    pub fn holder(&self) -> Option<Pid> {
        let file = File::options().read(true).write(true).open(&self.lock).ok()?;
        let wanted = rustix::process::Flock::from(rustix::process::FlockType::WriteLock);
        rustix::process::fcntl_getlk(&file, &wanted).ok()??.pid
    }

    /// Returns the process that watches the project in the background now.
    pub fn background(&self) -> Option<Pid> {
        let holder = self.holder()?;
        let report = self.report()?;
        (i32::try_from(report.pid) == Ok(holder.as_raw_nonzero().get())).then_some(holder)
    }

    /// Returns the command that runs the watch, with its words in its log.
    pub fn command(&self, record: &Record) -> Result<Command> {
        let path = self.log();
        let log = File::options().create(true).append(true).mode(0o600).open(&path);
        let log = log.map_err(EngineError::file("cannot open", &path))?;
        let errors = log.try_clone().map_err(EngineError::file("cannot open", &path))?;
        let program = program::path();
        // After an upgrade the file is the new program; where it was removed, this one goes on.
        let program = if program.exists() {
            program
        } else {
            Path::new("/proc/self/exe").to_owned()
        };
        let mut command = Command::new(program);
        command
            .arg0("compose")
            .args(&record.arguments)
            .env_clear()
            .envs(&record.environment)
            .current_dir(&record.directory)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_there_from_its_record_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::in_directory(directory.path());
        let home = Home::of(&paths, "shop").unwrap();
        assert_eq!((Home::all(&paths), home.record()), (vec![], None));
        let record = Record {
            arguments: vec!["watch".to_owned()],
            environment: [("SECRET".to_owned(), "x".to_owned())].into(),
            directory: "/".into(),
            is_detached: false,
        };
        home.set_record(&record).unwrap();
        assert_eq!((Home::all(&paths), home.record()), (vec![home.clone()], Some(record)));
        let mode = std::os::unix::fs::PermissionsExt::mode;
        let metadata = std::fs::metadata(directory.path().join("watches/shop")).unwrap();
        assert_eq!(
            mode(&metadata.permissions()) & 0o777,
            0o700,
            "the environment may hold secrets"
        );
        home.forget().unwrap();
        home.forget().unwrap();
        assert_eq!(Home::all(&paths), []);
    }

    #[test]
    fn a_name_is_no_path() {
        let paths = Paths::in_directory(Path::new("/nonexistent"));
        for name in ["", "..", ".", "a/b", "../x"] {
            assert!(Home::of(&paths, name).is_err(), "{name:?}");
        }
    }
}
