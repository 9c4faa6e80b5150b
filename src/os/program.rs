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

/// Returns what an engine reads of this process's environment, and nothing else: it lives on when the one who started it
/// is gone, and should not keep their secrets.
pub fn engine_s_environment() -> Vec<(String, String)> {
    const NAMES: [&str; 21] = [
        "HOME",
        "PATH",
        "USER",
        "LOGNAME",
        "SUDO_UID",
        "TMPDIR",
        "LANG",
        "TZ",
        "DOCKER_CONFIG",
        "REGISTRY_AUTH_FILE",
        "SSH_AUTH_SOCK",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
    ];
    const STARTS: [&str; 3] = ["COMPOSE_", "XDG_", "RUST_"];
    let all =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    all.filter(|(name, _)| NAMES.contains(&name.as_str()) || STARTS.iter().any(|start| name.starts_with(start)))
        .collect()
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
