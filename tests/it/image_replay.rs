//! Power that fails at any write: what a pull does to the disk is recorded, and every beginning of it is done again elsewhere.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::image_faults::{image_of, name_at, pull_now, serve, sound};
use crate::support::served::tar_of;
use crate::support::{self, available, text};

const CALLS: &str = "openat,write,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir,link,linkat,symlinkat,mknodat,\
    fchmod,utimensat,fsetxattr,fremovexattr,fsync,fdatasync,syncfs,ftruncate";

/// An argument as strace prints it with `-y -xx`.
#[derive(Debug, Clone, Default)]
struct Argument {
    /// Outside of quotes and brackets.
    plain: String,
    /// In quotes.
    string: Option<Vec<u8>>,
    /// The path of a file descriptor.
    path: Option<PathBuf>,
}

#[derive(Debug)]
struct Call {
    name: String,
    arguments: Vec<Argument>,
    result: i64,
}

fn unescape(text: &str) -> Vec<u8> {
    let digits: Vec<&str> = text.split("\\x").skip(1).collect();
    digits
        .iter()
        .map(|digits| u8::from_str_radix(digits, 16).expect("strace -xx"))
        .collect()
}

fn arguments(text: &str) -> Vec<Argument> {
    let mut all = vec![Argument::default()];
    let mut depth = 0;
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let last = all.last_mut().expect("there is one");
        rest = &rest[character.len_utf8()..];
        match character {
            '"' => {
                let (string, after) = rest.split_once('"').expect("a string ends");
                last.string = Some(unescape(string));
                rest = after;
            }
            '<' if rest.starts_with('\\') => {
                let (path, after) = rest.split_once('>').expect("a path ends");
                last.path = Some(PathBuf::from(OsString::from_vec(unescape(path))));
                rest = after;
            }
            ',' if depth == 0 => all.push(Argument::default()),
            other => {
                depth += i32::from(matches!(other, '{' | '[' | '(')) - i32::from(matches!(other, '}' | ']' | ')'));
                last.plain.push(other);
            }
        }
    }
    all
}

/// Reads a log of strace in the order in which the calls came to their ends.
fn calls(log: &str) -> Vec<Call> {
    let mut begun = std::collections::BTreeMap::new();
    let mut calls = Vec::new();
    for line in log.lines() {
        let Some((thread, line)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let line = line.trim_start();
        if let Some(beginning) = line.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, beginning.to_owned());
            continue;
        }
        let whole = match line.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            Some((_, end)) => begun.remove(thread).unwrap_or_default() + end,
            None => line.to_owned(),
        };
        let Some((call, result)) = whole.rsplit_once(" = ") else {
            continue;
        };
        let Some((name, inside)) = call.trim_end().strip_suffix(')').and_then(|call| call.split_once('(')) else {
            continue;
        };
        let result = result
            .split(|end: char| !(end == '-' || end.is_ascii_digit()))
            .next()
            .unwrap_or_default();
        calls.push(Call {
            name: name.to_owned(),
            arguments: arguments(inside),
            result: result.parse().unwrap_or(-1),
        });
    }
    calls
}

/// A directory in which what was done in another one is done again.
struct Replay {
    recorded: PathBuf,
    replayed: PathBuf,
    /// Files whose content has not been asked to reach the disk.
    unsynced: BTreeSet<PathBuf>,
}

impl Replay {
    fn place(&self, path: &Path) -> Option<PathBuf> {
        let path = path.strip_prefix(&self.recorded).ok()?;
        Some(if path.as_os_str().is_empty() {
            self.replayed.clone()
        } else {
            self.replayed.join(path)
        })
    }

    /// Does a call again, and returns whether it did anything to the directory.
    fn apply(&mut self, call: &Call) -> bool {
        if call.result < 0 {
            return false;
        }
        self.try_apply(call).is_some()
    }

    fn try_apply(&mut self, call: &Call) -> Option<()> {
        let argument = |at: usize| call.arguments.get(at).cloned().unwrap_or_default();
        // A path that is a string, on its own or relative to the directory before it.
        let named = |at: usize| -> Option<PathBuf> {
            let path = PathBuf::from(OsString::from_vec(argument(at).string?));
            match at.checked_sub(1).and_then(|before| argument(before).path) {
                Some(directory) => Some(directory.join(path)),
                None => Some(path),
            }
        };
        let open = || argument(0).path.filter(|_| !argument(0).plain.contains("deleted"));
        let done = "what was done once can be done again";
        match call.name.as_str() {
            "openat" => {
                let flags = argument(2).plain;
                let place = self.place(&named(1)?)?;
                if !flags.contains("O_CREAT") || flags.contains("O_TMPFILE") {
                    return None;
                }
                let mut options = fs::File::options();
                options
                    .write(true)
                    .create(true)
                    .truncate(flags.contains("O_TRUNC"))
                    .open(&place)
                    .expect(done);
            }
            "write" => {
                use std::io::Write as _;
                let place = self.place(&open()?)?;
                let data = argument(1).string?;
                let length = usize::try_from(call.result).expect("not negative");
                let mut file = fs::File::options().append(true).open(&place).ok()?;
                file.write_all(&data[..length]).expect(done);
                self.unsynced.insert(place);
            }
            "rename" | "renameat" | "renameat2" => {
                let (from, to) = if call.name == "rename" {
                    (named(0)?, named(1)?)
                } else {
                    (named(1)?, named(3)?)
                };
                let (from, to) = (self.place(&from)?, self.place(&to)?);
                fs::rename(&from, &to).expect(done);
                let moved: Vec<PathBuf> = self
                    .unsynced
                    .iter()
                    .filter(|path| path.starts_with(&from))
                    .cloned()
                    .collect();
                self.unsynced.retain(|path| !path.starts_with(&to));
                for path in moved {
                    self.unsynced.remove(&path);
                    let rest = path.strip_prefix(&from).expect("filtered");
                    let path = if rest.as_os_str().is_empty() {
                        to.clone()
                    } else {
                        to.join(rest)
                    };
                    self.unsynced.insert(path);
                }
            }
            "mkdir" | "mkdirat" => {
                let place = self.place(&named(usize::from(call.name == "mkdirat"))?)?;
                fs::create_dir(place).expect(done);
            }
            "unlink" | "rmdir" | "unlinkat" => {
                let place = self.place(&named(usize::from(call.name == "unlinkat"))?)?;
                let is_directory = call.name == "rmdir" || argument(2).plain.contains("AT_REMOVEDIR");
                if is_directory {
                    fs::remove_dir(&place)
                } else {
                    fs::remove_file(&place)
                }
                .expect(done);
                self.unsynced.remove(&place);
            }
            "link" | "linkat" => {
                let (from, to) = if call.name == "link" {
                    (named(0)?, named(1)?)
                } else {
                    (named(1)?, named(3)?)
                };
                fs::hard_link(self.place(&from)?, self.place(&to)?).expect(done);
            }
            "symlinkat" => {
                let target = PathBuf::from(OsString::from_vec(argument(0).string?));
                std::os::unix::fs::symlink(target, self.place(&named(2)?)?).expect(done);
            }
            "mknodat" => {
                let place = self.place(&named(1)?)?;
                rustix::fs::mknodat(CWD, &place, FileType::CharacterDevice, Mode::empty(), 0).expect(done);
            }
            "fchmod" => {
                let mode = u32::from_str_radix(argument(1).plain.trim(), 8).ok()?;
                fs::set_permissions(self.place(&open()?)?, fs::Permissions::from_mode(mode)).expect(done);
            }
            "utimensat" => {
                let path = match argument(1).string {
                    Some(_) => named(1)?,
                    None => open()?,
                };
                let times = argument(2).plain;
                let number = |text: &str| {
                    text.chars()
                        .take_while(char::is_ascii_digit)
                        .collect::<String>()
                        .parse()
                        .ok()
                };
                let second = times.rsplit_once("tv_sec=").and_then(|(_, rest)| number(rest))?;
                let nanosecond = times.rsplit_once("tv_nsec=").and_then(|(_, rest)| number(rest))?;
                let modified = Timespec {
                    tv_sec: second,
                    tv_nsec: nanosecond as _,
                };
                let times = Timestamps {
                    last_access: modified,
                    last_modification: modified,
                };
                rustix::fs::utimensat(CWD, &self.place(&path)?, &times, AtFlags::SYMLINK_NOFOLLOW).expect(done);
            }
            "fsetxattr" => {
                let name = OsString::from_vec(argument(1).string?);
                let value = argument(2).string?;
                rustix::fs::setxattr(&self.place(&open()?)?, &name, &value, XattrFlags::empty()).expect(done);
            }
            "fremovexattr" => {
                let name = OsString::from_vec(argument(1).string?);
                rustix::fs::removexattr(&self.place(&open()?)?, &name).expect(done);
            }
            "fsync" | "fdatasync" => {
                let place = self.place(&open()?)?;
                self.unsynced.remove(&place);
            }
            "syncfs" => {
                self.place(&open()?)?;
                self.unsynced.clear();
            }
            _ => return None,
        }
        Some(())
    }

    /// Copies the directory as the disk might have it: with what was never asked to reach it, or without.
    fn crash(&self, to: &Path, loses_what_it_may: bool) {
        let status = Command::new("cp")
            .arg("-a")
            .arg(&self.replayed)
            .arg(to)
            .status()
            .expect("cp runs");
        assert!(status.success());
        if loses_what_it_may {
            for path in &self.unsynced {
                let path = to.join(path.strip_prefix(&self.replayed).expect("it lies there"));
                fs::File::create(path).expect("a file that is there");
            }
        }
        // The machine has started anew.
        let layers = fs::read_dir(to.join("layers")).into_iter().flatten().flatten();
        for layer in layers {
            for entry in fs::read_dir(layer.path()).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with("unsynced-") {
                    fs::rename(entry.path(), layer.path().join("unsynced-before.json")).expect("ours");
                }
            }
        }
    }
}

#[test]
fn power_that_fails_at_any_write_leaves_a_sound_store_and_the_next_pull_finishes_it() {
    if !available("root", support::is_root()) || !available("strace", Path::new("/usr/bin/strace").exists()) {
        return;
    }
    let registry = serve(image_of(&[
        tar_of(&[("etc/one", b"one"), ("data/two", &[2; 5000])]),
        tar_of(&[("etc/.wh.one", b""), ("data/three", b"three")]),
    ]));
    let name = name_at(&registry);
    let base = tempfile::Builder::new().tempdir_in(if Path::new("/dev/shm").is_dir() {
        "/dev/shm"
    } else {
        "/tmp"
    });
    let base = base.expect("a directory");
    let recorded = base.path().join("recorded");
    let log = base.path().join("log");
    let output = Command::new("strace")
        .args(["-f", "-y", "-xx", "-s", "1000000", "-e"])
        .arg(format!("trace={CALLS}"))
        .arg("-o")
        .arg(&log)
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "image_faults::pull_in_a_process", "--ignored"])
        .env("PULL_INTO", &recorded)
        .env("PULL_NAME", name.to_string())
        .stdin(Stdio::null())
        .output()
        .expect("strace runs");
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    let expected = sound(&recorded).get(&name.familiar()).expect("it was pulled");
    let calls = calls(&fs::read_to_string(&log).expect("a log"));

    let mut replay = Replay {
        replayed: base.path().join("replayed"),
        recorded,
        unsynced: BTreeSet::new(),
    };
    let (mut writes, mut finished) = (0, 0);
    for call in &calls {
        if !replay.apply(call) || !replay.replayed.is_dir() {
            continue;
        }
        writes += 1;
        for loses_what_it_may in [false, true] {
            let crashed = base.path().join("crashed");
            replay.crash(&crashed, loses_what_it_may);
            let store = sound(&crashed);
            let image = store.list().expect("a list").into_iter().next();
            if let Some(image) = &image {
                assert_eq!(image.id, expected.id);
                finished += 1;
            }
            // Looking at it again takes time, and is worth it only where something is left to do.
            if image.is_none() && writes % 5 == 0 {
                assert_eq!(pull_now(&store, &name).expect("it is pulled").id, expected.id);
                drop(store);
                sound(&crashed);
            }
            fs::remove_dir_all(&crashed).expect("ours");
        }
    }
    assert!(writes > 40, "{writes}: all that a pull does was recorded");
    assert!(finished >= 2, "the last of them have the image");
    let image = sound(&replay.replayed).get(&name.familiar()).expect("replayed whole");
    assert_eq!(image.layers.len(), 2);
}
