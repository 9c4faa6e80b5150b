//! Lines of several containers, each with the name of who wrote it in front.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::stream;

/// How lines are shown.
#[derive(Debug, Clone, Copy)]
pub struct LogSettings {
    pub colours: bool,
    pub prefix: bool,
    /// What containers write to standard error goes to standard output too.
    pub merged: bool,
}

/// Where a line goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Out,
    Err,
}

/// Who writes lines: a name that was registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source(usize);

/// Shows the lines of several sources.
#[derive(Debug)]
pub struct Logs {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    settings: LogSettings,
    sources: Vec<Named>,
    /// The longest name and one blank.
    width: usize,
    out: Vec<u8>,
    err: Vec<u8>,
    /// What containers did to the terminal, to be undone at the end.
    modes: TerminalModes,
    /// What stands below the last line on a terminal; empty: nothing.
    footer: String,
    footer_is_shown: bool,
}

#[derive(Debug)]
struct Named {
    name: String,
    colour: &'static str,
    prefix: Vec<u8>,
}

/// docker's cycle of colours: the plain ones, then the same, bold.
const COLOURS: [&str; 10] = ["36", "33", "32", "35", "34", "36;1", "33;1", "32;1", "35;1", "34;1"];

/// Output is written at the latest when so much of it has come together.
const WRITE_AT: usize = 64 * 1024;

impl Logs {
    /// Returns a view without sources.
    pub fn new(settings: LogSettings) -> Self {
        Self {
            state: Mutex::new(State {
                settings,
                sources: Vec::new(),
                width: 0,
                out: Vec::new(),
                err: Vec::new(),
                modes: TerminalModes::default(),
                footer: String::new(),
                footer_is_shown: false,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Lines are whole after every step, so what a panic left behind can be shown.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a name, which makes room for it in front of every later line.
    pub fn source(&self, name: &str) -> Source {
        let mut state = self.lock();
        if let Some(at) = state.sources.iter().position(|known| known.name == name) {
            return Source(at);
        }
        let colour = match state.settings.colours {
            true => COLOURS[state.sources.len() % COLOURS.len()],
            false => "",
        };
        state.sources.push(Named {
            name: name.to_owned(),
            colour,
            prefix: Vec::new(),
        });
        state.width = state.width.max(name.chars().count() + 1);
        let width = state.width;
        if state.settings.prefix {
            for source in &mut state.sources {
                source.prefix = coloured(source.colour, &format!("{:width$} | ", source.name)).into_bytes();
            }
        }
        Source(state.sources.len() - 1)
    }

    /// Shows a line, given without its line end.
    pub fn line(&self, source: Source, target: Target, line: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        let state = &mut *state;
        state.modes.watch(line);
        let buffer = match target {
            Target::Err if !state.settings.merged => &mut state.err,
            _ => &mut state.out,
        };
        buffer.extend_from_slice(&state.sources[source.0].prefix);
        buffer.extend_from_slice(line);
        buffer.push(b'\n');
        if buffer.len() >= WRITE_AT {
            state.write()?;
        }
        Ok(())
    }

    /// Says what became of a source: `web-1 exited with code 0`.
    pub fn status(&self, source: Source, text: &str) -> io::Result<()> {
        let mut state = self.lock();
        let Named { name, colour, .. } = &state.sources[source.0];
        // A half-typed line of the user's, or of a menu, gives way.
        let clear = if stream::out_is_terminal() { "\r\u{1b}[K" } else { "" };
        let line = coloured(colour, &format!("{clear}{name} {text}\n"));
        state.out.extend_from_slice(line.as_bytes());
        state.write()
    }

    /// Puts a line below everything that is shown, or takes it away. For terminals only.
    pub fn set_footer(&self, text: &str) -> io::Result<()> {
        let mut state = self.lock();
        text.clone_into(&mut state.footer);
        state.write()?;
        state.show_footer()
    }

    /// Says something that no container wrote, in the place of their names: what `watch` does.
    pub fn aside(&self, text: &str) -> io::Result<()> {
        let mut state = self.lock();
        let state = &mut *state;
        let colour = if state.settings.colours { "92" } else { "" };
        let prefix = match state.settings.prefix {
            true => coloured(colour, &format!("{:width$} \u{29bf} ", "", width = state.width)),
            false => String::new(),
        };
        for line in text.lines() {
            state.out.extend_from_slice(prefix.as_bytes());
            state.out.extend_from_slice(line.as_bytes());
            state.out.push(b'\n');
        }
        state.write()
    }

    /// Writes what has come together.
    pub fn flush(&self) -> io::Result<()> {
        self.lock().write()
    }

    /// Writes the rest, and takes back what containers did to the terminal.
    pub fn end(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.footer.clear();
        if stream::out_is_terminal() {
            let undo = state.modes.undo();
            state.out.extend_from_slice(undo.as_bytes());
        }
        state.write()
    }
}

impl State {
    fn write(&mut self) -> io::Result<()> {
        if self.out.is_empty() && self.err.is_empty() && !self.footer.is_empty() {
            return Ok(());
        }
        if std::mem::take(&mut self.footer_is_shown) {
            stream::out("\r\u{1b}[K")?;
        }
        if !self.err.is_empty() {
            // Nobody who listens to standard error is no reason to end.
            let _ = io::stderr().lock().write_all(&self.err);
            self.err.clear();
        }
        if !self.out.is_empty() {
            let result = stream::out(&self.out);
            self.out.clear();
            result?;
        }
        self.show_footer()
    }

    fn show_footer(&mut self) -> io::Result<()> {
        if !self.footer.is_empty() && !self.footer_is_shown {
            stream::out(&self.footer)?;
            self.footer_is_shown = true;
        }
        Ok(())
    }
}

fn coloured(colour: &str, text: &str) -> String {
    if colour.is_empty() {
        text.to_owned()
    } else {
        format!("\u{1b}[{colour}m{text}\u{1b}[0m")
    }
}

/// The lines of one source, put together from pieces.
#[derive(Debug)]
pub struct Lines {
    source: Source,
    /// Beginnings of lines: of standard output and of standard error.
    pending: [Vec<u8>; 2],
}

/// A line that is longer is shown in parts.
const LONGEST_LINE: usize = 1024 * 1024;

impl Lines {
    /// Returns the empty beginning.
    pub fn new(source: Source) -> Self {
        Self {
            source,
            pending: [Vec::new(), Vec::new()],
        }
    }

    /// Adds a piece of what the source wrote, and shows the lines that it completes.
    pub fn push(&mut self, logs: &Logs, target: Target, mut piece: &[u8]) -> io::Result<()> {
        let pending = &mut self.pending[target as usize];
        while let Some(end) = piece.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = piece.split_at(end);
            if pending.is_empty() {
                logs.line(self.source, target, line)?;
            } else {
                pending.extend_from_slice(line);
                logs.line(self.source, target, pending)?;
                pending.clear();
            }
            piece = &rest[1..];
        }
        pending.extend_from_slice(piece);
        if pending.len() > LONGEST_LINE {
            logs.line(self.source, target, pending)?;
            pending.clear();
        }
        Ok(())
    }

    /// Shows what has no line end yet.
    pub fn finish(&mut self, logs: &Logs) -> io::Result<()> {
        for (target, pending) in [Target::Out, Target::Err].into_iter().zip(&mut self.pending) {
            if !pending.is_empty() {
                logs.line(self.source, target, pending)?;
                pending.clear();
            }
        }
        Ok(())
    }
}

/// What escape sequences in output switched on, so that the terminal can be given back as it was.
#[derive(Debug, Default)]
struct TerminalModes {
    /// Private modes (`ESC [ ? n h`) that differ from their usual state.
    changed: BTreeSet<u16>,
    /// Any other sequence: colours, character sets, a title that was begun.
    touched: bool,
}

/// Private modes that are usually on: wrapping at the right edge, the cursor.
const USUALLY_ON: [u16; 2] = [7, 25];

impl TerminalModes {
    fn watch(&mut self, line: &[u8]) {
        let mut rest = line;
        while let Some(at) = rest.iter().position(|&byte| byte == 0x1b || byte == 0x0e) {
            self.touched = true;
            rest = &rest[at + 1..];
            let Some(sequence) = rest.strip_prefix(b"[?") else {
                continue;
            };
            let end = sequence
                .iter()
                .position(|byte| !byte.is_ascii_digit() && *byte != b';')
                .unwrap_or(sequence.len());
            let on = match sequence.get(end) {
                Some(b'h') => true,
                Some(b'l') => false,
                _ => continue,
            };
            for mode in sequence[..end].split(|&byte| byte == b';') {
                let Some(mode) = std::str::from_utf8(mode).ok().and_then(|mode| mode.parse().ok()) else {
                    continue;
                };
                if on == USUALLY_ON.contains(&mode) {
                    self.changed.remove(&mode);
                } else {
                    self.changed.insert(mode);
                }
            }
        }
    }

    fn undo(&mut self) -> String {
        if !std::mem::take(&mut self.touched) {
            return String::new();
        }
        // Ends a title or other string that was begun; then the usual character set, keypad, scroll region, colours.
        let mut undo = String::from("\u{1b}\\\u{0f}\u{1b}(B\u{1b}>\u{1b}[0m");
        for mode in std::mem::take(&mut self.changed) {
            let letter = if USUALLY_ON.contains(&mode) { 'h' } else { 'l' };
            undo.push_str(&format!("\u{1b}[?{mode}{letter}"));
        }
        undo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(colours: bool, prefix: bool) -> Logs {
        Logs::new(LogSettings {
            colours,
            prefix,
            merged: false,
        })
    }

    fn shown(logs: &Logs) -> String {
        String::from_utf8(std::mem::take(&mut logs.lock().out)).unwrap()
    }

    #[test]
    fn every_line_says_who_wrote_it() {
        let logs = logs(false, true);
        let web = logs.source("web-1");
        logs.line(web, Target::Out, b"early").unwrap();
        let longer = logs.source("longer-1");
        logs.line(web, Target::Out, b"late").unwrap();
        logs.line(longer, Target::Out, b"").unwrap();
        assert_eq!(shown(&logs), "web-1  | early\nweb-1     | late\nlonger-1  | \n");
    }

    #[test]
    fn names_have_colours_of_their_own() {
        let logs = logs(true, true);
        let (one, two) = (logs.source("a"), logs.source("b"));
        assert_eq!(logs.source("a"), one);
        logs.line(one, Target::Out, b"x").unwrap();
        logs.line(two, Target::Out, b"y").unwrap();
        assert_eq!(shown(&logs), "\u{1b}[36ma  | \u{1b}[0mx\n\u{1b}[33mb  | \u{1b}[0my\n");
    }

    #[test]
    fn a_line_may_come_in_pieces() {
        let logs = logs(false, false);
        let mut lines = Lines::new(logs.source("a"));
        for piece in ["one\ntw", "o", "\n\nlast"] {
            lines.push(&logs, Target::Out, piece.as_bytes()).unwrap();
        }
        assert_eq!(shown(&logs), "one\ntwo\n\n");
        lines.finish(&logs).unwrap();
        assert_eq!(shown(&logs), "last\n");
    }

    #[test]
    fn what_a_container_did_to_the_terminal_is_undone() {
        let mut modes = TerminalModes::default();
        assert_eq!(modes.undo(), "");
        modes.watch(b"\x1b[?1049h\x1b[?25l\x1b[?1000;1006h red \x1b[31m");
        modes.watch(b"\x1b[?1000l");
        let undo = modes.undo();
        assert!(
            undo.ends_with("\u{1b}[0m\u{1b}[?25h\u{1b}[?1006l\u{1b}[?1049l"),
            "{undo:?}"
        );
    }
}
