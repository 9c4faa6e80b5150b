//! Which program this process runs, and running it from memory.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::memfd;

/// The argument that tells a copy in memory which file it was made from.
const PROGRAM: &str = "--program";

/// Goes on in the sealed copy of the program that shims run in too, so that all of them share its pages. Where that
/// cannot be done this process stays as it is, with two copies in memory.
pub fn share() {
    if File::open("/proc/self/exe").is_ok_and(|program| memfd::is_sealed(&program)) {
        let _ = rustix::thread::set_name(c"compose");
        return;
    }
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if argument(std::env::args_os(), PROGRAM).is_none() {
        arguments.extend([PROGRAM.into(), path().into()]);
    }
    let _ = memfd::become_copy(Path::new("/proc/self/exe"), arguments);
}

/// Returns the file that this program was started from.
pub fn path() -> PathBuf {
    argument(std::env::args_os(), PROGRAM)
        .map(PathBuf::from)
        .or_else(|| std::env::current_exe().ok())
        .unwrap_or_else(|| PathBuf::from("compose"))
}

/// Returns the arguments that start this program again, from its file or from a copy of it.
pub fn arguments(command: &str) -> [OsString; 3] {
    [command.into(), PROGRAM.into(), path().into()]
}

/// Returns what follows an argument's name.
pub fn argument(arguments: impl Iterator<Item = OsString>, name: &str) -> Option<OsString> {
    arguments.skip_while(|argument| argument != name).nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_what_follows_its_name() {
        let arguments = ["compose", "__engine", "--state-dir", "/tmp/x"].map(OsString::from);
        assert_eq!(
            argument(arguments.clone().into_iter(), "--state-dir"),
            Some("/tmp/x".into())
        );
        assert_eq!(argument(arguments.into_iter(), "--program"), None);
        assert_eq!(argument(["compose".into(), "--x".into()].into_iter(), "--x"), None);
    }
}
