//! What is mounted where in this mount namespace, as the kernel lists it.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    pub point: PathBuf,
    /// Whether what is mounted below it spreads to others.
    pub shared: bool,
    /// Whether what others mount spreads to it.
    pub slave: bool,
}

/// Returns all mounts, those made later behind those made before.
pub fn read() -> Vec<Mounted> {
    parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// Reads the kernel's list.
pub fn parse(text: &str) -> Vec<Mounted> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let point = unescape(words.nth(4)?);
            let tags: Vec<&str> = words.skip(1).take_while(|word| *word != "-").collect();
            Some(Mounted {
                point,
                shared: tags.iter().any(|tag| tag.starts_with("shared:")),
                slave: tags.iter().any(|tag| tag.starts_with("master:")),
            })
        })
        .collect()
}

/// Reads a path of `mountinfo`, in which spaces and the like are octal numbers.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        let number = (*first == b'\\')
            .then(|| others.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match number {
            Some(byte) => {
                bytes.push(byte);
                rest = &others[3..];
            }
            None => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
}
