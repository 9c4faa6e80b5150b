//! Where an engine keeps its things: state, socket, log, lock, and the name that sets it apart from others.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::rootless;

/// The places of one engine instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    state_dir: PathBuf,
    run_dir: PathBuf,
}

impl Paths {
    /// Returns the places of the engine whose whole state lies in `state_dir`, or in the directory that
    /// `COMPOSE_STATE_DIR` names, or in the system's usual directories.
    pub fn discover(state_dir: Option<&Path>) -> Self {
        let named = state_dir
            .map(Path::to_path_buf)
            .or_else(|| variable("COMPOSE_STATE_DIR"));
        match named {
            Some(directory) => Self::in_directory(&directory),
            None if rootless::is_machine_wide() => Self {
                state_dir: "/var/lib/compose".into(),
                run_dir: "/run/compose".into(),
            },
            None => Self::of_user(),
        }
    }

    /// Returns the places of an engine that keeps everything in one directory.
    pub fn in_directory(directory: &Path) -> Self {
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf());
        Self {
            state_dir: directory.clone(),
            run_dir: directory,
        }
    }

    fn of_user() -> Self {
        let home = variable("HOME").unwrap_or_else(|| "/".into());
        let state_dir = variable("XDG_DATA_HOME")
            .unwrap_or_else(|| home.join(".local/share"))
            .join("compose");
        // Without a session (su, cron) the variable is missing, or another user's; the directory may be there all the same.
        let own = PathBuf::from(format!("/run/user/{}", rootless::real_uid()));
        let run_dir = [variable("XDG_RUNTIME_DIR"), Some(own)]
            .into_iter()
            .flatten()
            .find(|directory| is_own(directory))
            .map_or_else(|| state_dir.clone(), |directory| directory.join("compose"));
        Self { state_dir, run_dir }
    }

    /// Returns the directory of everything that outlives a reboot.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Returns the directory of what is only worth anything while the machine is up.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// Returns the address of the Engine API.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("engine.sock")
    }

    /// Returns the engine's log file.
    pub fn log(&self) -> PathBuf {
        self.state_dir.join("engine.log")
    }

    /// Returns the file whose lock says which process is the engine.
    pub fn lock(&self) -> PathBuf {
        self.state_dir.join("engine.lock")
    }

    /// Returns the file that says of which build the engine is.
    pub fn running(&self) -> PathBuf {
        self.run_dir.join("engine.build")
    }

    /// Returns the directory of one container's record, log and writable layer.
    pub fn container(&self, id: &str) -> PathBuf {
        self.state_dir.join("containers").join(id)
    }

    /// Returns the directory of all containers.
    pub fn containers(&self) -> PathBuf {
        self.state_dir.join("containers")
    }

    /// Returns the directory of all named and anonymous volumes.
    pub fn volumes(&self) -> PathBuf {
        self.state_dir.join("volumes")
    }

    /// Returns the directory of the networks' records.
    pub fn networks(&self) -> PathBuf {
        self.state_dir.join("networks")
    }

    /// Returns the directory of the image store.
    pub fn images(&self) -> PathBuf {
        self.state_dir.join("images")
    }

    /// Returns the eight digits that name this instance in cgroups, firewall tables and interfaces.
    pub fn instance(&self) -> String {
        let canonical = self.state_dir.canonicalize().unwrap_or_else(|_| self.state_dir.clone());
        let digest = Sha256::digest(canonical.as_os_str().as_encoded_bytes());
        digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns whether this is the machine's or user's own engine, not one moved elsewhere.
    pub fn is_default(&self) -> bool {
        let usual = if rootless::is_machine_wide() {
            PathBuf::from("/var/lib/compose")
        } else {
            Self::of_user().state_dir
        };
        self.state_dir == usual
    }
}

/// Returns whether a directory is this user's.
fn is_own(directory: &Path) -> bool {
    rustix::fs::stat(directory).is_ok_and(|status| status.st_uid == rustix::process::geteuid().as_raw())
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_directory_holds_everything_of_a_moved_engine() {
        let paths = Paths::discover(Some(Path::new("/tmp/somewhere")));
        assert_eq!(paths.socket(), Path::new("/tmp/somewhere/engine.sock"));
        assert_eq!(paths.log(), Path::new("/tmp/somewhere/engine.log"));
        assert_eq!(paths.container("ab"), Path::new("/tmp/somewhere/containers/ab"));
    }

    #[test]
    fn two_state_directories_have_two_names() {
        let one = Paths::in_directory(Path::new("/tmp/one"));
        let two = Paths::in_directory(Path::new("/tmp/two"));
        assert_eq!(one.instance().len(), 8);
        assert_ne!(one.instance(), two.instance());
        assert_eq!(one.instance(), one.instance());
    }
}
