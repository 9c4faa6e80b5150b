//! Which program this process runs, and running it from memory.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
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

/// Returns what tells this build of the program from others, copies of it included: the id that the linker gave it.
pub fn build() -> String {
    let program = File::open("/proc/self/exe");
    let id = program
        .as_ref()
        .ok()
        .and_then(|program| build_id(program).ok().flatten());
    id.unwrap_or_else(|| {
        // Without an id two builds differ at least in size, as a rule.
        let size = program
            .and_then(|program| program.metadata())
            .map_or(0, |found| found.len());
        format!("{}-{size}", env!("CARGO_PKG_VERSION"))
    })
}

/// Reads a program's build id out of its notes.
// elf(5)
fn build_id(program: &File) -> io::Result<Option<String>> {
    const NOTES: u32 = 4;
    const BUILD_ID: usize = 3;
    let number = |bytes: &[u8], at: usize, length: usize| {
        let bytes = bytes.get(at..at + length).unwrap_or_default();
        bytes
            .iter()
            .rev()
            .fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let mut header = [0; 64];
    program.read_exact_at(&mut header, 0)?;
    let (offset, size, count) = (number(&header, 32, 8), number(&header, 54, 2), number(&header, 56, 2));
    for index in 0..count {
        let mut part = [0; 56];
        program.read_exact_at(&mut part, offset + index * size)?;
        let length = number(&part, 32, 8);
        if number(&part, 0, 4) != u64::from(NOTES) || length > 64 * 1024 {
            continue;
        }
        let mut notes = vec![0; length as usize];
        program.read_exact_at(&mut notes, number(&part, 8, 8))?;
        let mut rest = notes.as_slice();
        while rest.len() >= 12 {
            let field = |at: usize| number(rest, at, 4) as usize;
            let (name, text, kind) = (field(0), field(4), field(8));
            let begin = 12 + name.next_multiple_of(4);
            let (Some(owner), Some(text)) = (rest.get(12..12 + name), rest.get(begin..begin + text)) else {
                break;
            };
            if kind == BUILD_ID && owner == b"GNU\0" {
                return Ok(Some(text.iter().map(|byte| format!("{byte:02x}")).collect()));
            }
            rest = rest.get(begin + text.len().next_multiple_of(4)..).unwrap_or_default();
        }
    }
    Ok(None)
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
    fn a_build_has_an_id_and_a_file_without_one_has_none() {
        let id = build();
        assert!(
            id.len() >= 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{id}"
        );
        assert_eq!(build(), id);
        let mut file = tempfile::tempfile().unwrap();
        assert!(build_id(&file).is_err(), "it is empty");
        // Numbers of all sizes, and no program.
        io::Write::write_all(&mut file, &[0xff; 4096]).unwrap();
        assert!(!matches!(build_id(&file), Ok(Some(_))));
    }

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
