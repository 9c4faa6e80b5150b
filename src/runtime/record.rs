//! What is on disk about a container's life: the record of its end, and a lock that a living shim holds.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::runtime::launch::ExitRecord;
use crate::runtime::protocol::{EXIT, LOCK};
use crate::runtime::time::Timestamp;

/// Reads the record; `None` where the container has not ended, or nobody lived to say how.
pub fn read(dir: &Path) -> io::Result<Option<ExitRecord>> {
    match fs::read(dir.join(EXIT)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the record so that it is there whole or not at all, whoever is killed meanwhile, and returns its file: once that
/// is synced, the machine may stop as well. A disk takes its time for that, which nobody needs to wait for.
pub fn write(dir: &Path, record: &ExitRecord) -> io::Result<File> {
    let temporary = temporary(dir);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&temporary)?;
    let text = serde_json::to_vec(record)?;
    file.write_all(&text)?;
    file.set_len(text.len() as u64)?;
    fs::rename(&temporary, dir.join(EXIT))?;
    Ok(file)
}

/// Takes the record of an earlier run out of the way. Its file is kept for the next one: to free a file's blocks has some
/// disks work for milliseconds.
pub fn set_aside(dir: &Path) -> io::Result<()> {
    match fs::rename(dir.join(EXIT), temporary(dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn temporary(dir: &Path) -> PathBuf {
    dir.join(format!(".{EXIT}"))
}

/// Returns the record of a container whose shim is gone.
pub fn lost(dir: &Path, oom: bool) -> ExitRecord {
    let started = fs::metadata(dir.join(LOCK))
        .and_then(|metadata| metadata.modified())
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .and_then(|since| i64::try_from(since.as_nanos()).ok())
        .map_or_else(Timestamp::now, Timestamp::from_nanoseconds);
    ExitRecord {
        code: 137,
        signal: Some(9),
        oom,
        started,
        finished: Timestamp::now(),
        reason: Some("the container's supervising process was killed, and the container with it".to_owned()),
    }
}

/// Takes the lock of a living shim.
pub fn lock(dir: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(dir.join(LOCK))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// Returns whether a shim holds the lock.
pub fn is_alive(dir: &Path) -> bool {
    File::open(dir.join(LOCK)).is_ok_and(|file| {
        matches!(
            rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared),
            Err(rustix::io::Errno::WOULDBLOCK)
        )
    })
}
