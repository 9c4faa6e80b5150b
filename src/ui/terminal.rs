//! The user's terminal when a process in a container takes it over, and its return to the state it was in.

use std::io::{self, IsTerminal};

use rustix::termios::{self, LocalModes, OptionalActions, Termios};

/// Standard input in raw mode: every key goes to the process. Dropping it gives the terminal back.
#[derive(Debug)]
pub struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Switches standard input to raw mode, if it is a terminal.
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        // As docker: output of the process still gets its line ends from the terminal in the container.
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl RawTerminal {
    /// Switches standard input so that single keys can be read; interrupts stay signals. Nothing, if standard input is
    /// no terminal or somebody else's at the moment: changing it from the background would stop this process.
    pub fn keys() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() || termios::tcgetpgrp(&stdin)? != rustix::process::getpgrp() {
            return Ok(None);
        }
        let before = termios::tcgetattr(&stdin)?;
        let mut single = before.clone();
        single
            .local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ECHONL);
        termios::tcsetattr(&stdin, OptionalActions::Now, &single)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to give back.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Returns whether the user types into standard input.
pub fn in_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Returns rows and columns of the terminal behind standard output.
pub fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Finds the keys that detach the user from a process, in what is typed.
#[derive(Debug)]
pub struct DetachKeys {
    keys: Vec<u8>,
    /// How many of them have been typed.
    typed: usize,
}

/// The text names no keys.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("Unknown character: '{0}'")]
pub struct UnknownKey(String);

impl DetachKeys {
    /// Reads keys as docker writes them: `ctrl-p,ctrl-q`, `ctrl-@`, `a`.
    pub fn parse(text: &str) -> Result<Self, UnknownKey> {
        let keys = text
            .split(',')
            .map(|key| match key.as_bytes() {
                [single] => Ok(*single),
                _ => match key.to_ascii_lowercase().strip_prefix("ctrl-").map(str::as_bytes) {
                    Some([letter @ (b'a'..=b'z' | b'[' | b'\\' | b']' | b'^' | b'_' | b'@')]) => Ok(letter & 0x1f),
                    _ => Err(UnknownKey(key.to_owned())),
                },
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { keys, typed: 0 })
    }

    /// Returns what of the typed bytes goes to the process, and whether the user detaches.
    pub fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len());
        for &byte in typed {
            if byte == self.keys[self.typed] {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    self.typed = 0;
                    return (passed, true);
                }
                continue;
            }
            // The beginning was not meant to detach, so it goes where it was typed for.
            passed.extend_from_slice(&self.keys[..std::mem::take(&mut self.typed)]);
            if byte == self.keys[0] {
                self.typed = 1;
            } else {
                passed.push(byte);
            }
        }
        (passed, false)
    }
}

impl Default for DetachKeys {
    fn default() -> Self {
        Self {
            // ctrl-p, ctrl-q
            keys: vec![16, 17],
            typed: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_found_across_reads() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.filter(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.filter(b"\x11x"), (b"".to_vec(), true));
    }

    #[test]
    fn keys_are_written_as_dockers() {
        assert_eq!(DetachKeys::parse("ctrl-p,ctrl-q").unwrap().keys, [16, 17]);
        assert_eq!(DetachKeys::parse("ctrl-@,x").unwrap().keys, [0, b'x']);
        assert!(DetachKeys::parse("ctrl-ä").is_err());
        assert!(DetachKeys::parse("").is_err());
    }
}
