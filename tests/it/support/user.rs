//! Plain users: projects run as them when the tests run as root.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The account that `tests/setup.sh` makes; it has ranges of ids in `/etc/subuid` and `/etc/subgid`.
const ACCOUNT: &str = "compose-test";

/// A user who is not root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// Returns users nobody knows, who so have one id each.
    pub fn unknown(number: u32) -> Self {
        let id = 64_300 + number;
        Self { uid: id, gid: id }
    }

    /// Returns the user with ranges of ids, if the machine has that account and what maps them.
    pub fn with_ranges() -> Option<Self> {
        let has_program = Path::new("/usr/bin/newuidmap").exists();
        let found = Self::named(ACCOUNT).filter(|_| has_program);
        super::available("user compose-test and newuidmap (run tests/setup.sh)", found.is_some());
        found
    }

    /// Returns the user that `COMPOSE_TEST_USER` names: an account, or `one` for a user with one id.
    pub fn of_environment() -> Option<Self> {
        let name = std::env::var("COMPOSE_TEST_USER")
            .ok()
            .filter(|name| !name.is_empty())?;
        if name == "one" {
            return Some(Self::unknown(0));
        }
        Some(Self::named(&name).expect("COMPOSE_TEST_USER is an account, or \"one\""))
    }

    fn named(name: &str) -> Option<Self> {
        let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        accounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.first() == Some(&name)).then_some(())?;
            Some(Self {
                uid: fields.get(2)?.parse().ok()?,
                gid: fields.get(3)?.parse().ok()?,
            })
        })
    }

    /// Gives the user a file or directory.
    pub fn own(self, path: &Path) {
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid)).expect("root may give files away");
    }

    /// Gives the user a directory with all that is in it.
    pub fn own_all(self, path: &Path) {
        self.own(path);
        if path.is_dir() && !path.is_symlink() {
            for entry in std::fs::read_dir(path).expect("a directory").flatten() {
                self.own_all(&entry.path());
            }
        }
    }

    /// Returns the binary, ready to run as the user.
    pub fn command(self) -> Command {
        self.program(&public_binary())
    }

    /// Returns a program, ready to run as the user.
    pub fn program(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.uid(self.uid).gid(self.gid);
        command
    }
}

/// Returns the binary where everybody may run it: a copy, if the build's directory is below somebody's home.
fn public_binary() -> PathBuf {
    static PUBLIC: OnceLock<PathBuf> = OnceLock::new();
    PUBLIC
        .get_or_init(|| {
            let built = super::binary();
            let is_open = |path: &Path| {
                std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o005 == 0o005)
            };
            if built.ancestors().all(is_open) {
                return built;
            }
            let directory = std::env::temp_dir().join("compose-test-binary");
            std::fs::create_dir_all(&directory).expect("a directory for the copy");
            std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).expect("everybody may look");
            let (copy, new) = (
                directory.join("compose"),
                directory.join(format!("new-{}", std::process::id())),
            );
            std::fs::copy(&built, &new).expect("a copy of the binary");
            std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).expect("everybody may run it");
            std::fs::rename(&new, &copy).expect("the copy in its place");
            copy
        })
        .clone()
}
