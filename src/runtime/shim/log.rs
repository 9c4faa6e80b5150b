//! The container's log in Docker's `json-file` form.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::forward::Forwarder;
use crate::runtime::launch::{Forward, Log};
use crate::runtime::time::Timestamp;

/// The longest piece of a line in one entry; what follows it goes into the next, without a line feed between
/// (moby `daemon/logger/copier.go`).
const LONGEST_PIECE: usize = 16 * 1024;

/// Which stream a line came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The standard output, and everything of a terminal.
    Stdout,
    /// The standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Writes the log.
#[derive(Debug)]
pub struct LogWriter {
    target: Option<Target>,
    forwarder: Option<Forwarder>,
    partial: [Vec<u8>; 2],
    encoded: Vec<u8>,
}

#[derive(Debug)]
struct Target {
    path: PathBuf,
    file: File,
    size: u64,
    max_size: Option<u64>,
    max_files: u32,
}

impl LogWriter {
    /// Opens the log; an existing one is continued.
    pub fn open(log: &Log, forward: Option<&Forward>) -> io::Result<Self> {
        let target = match log {
            Log::None => None,
            Log::JsonFile {
                path,
                max_size,
                max_files,
            } => {
                let file = open_file(path, false)?;
                Some(Target {
                    path: path.clone(),
                    size: file.metadata()?.len(),
                    file,
                    max_size: *max_size,
                    max_files: (*max_files).max(1),
                })
            }
        };
        Ok(Self {
            target,
            forwarder: forward.map(Forwarder::open).transpose()?,
            partial: [Vec::new(), Vec::new()],
            encoded: Vec::new(),
        })
    }

    /// Takes output as it came; whole lines are on disk when this returns.
    pub fn write(&mut self, stream: Stream, mut bytes: &[u8]) -> io::Result<()> {
        if self.target.is_none() && self.forwarder.is_none() {
            return Ok(());
        }
        let index = stream as usize;
        let mut partial = std::mem::take(&mut self.partial[index]);
        while !bytes.is_empty() {
            let room = LONGEST_PIECE - partial.len();
            let reach = &bytes[..bytes.len().min(room)];
            match reach.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    let (line, rest) = bytes.split_at(end + 1);
                    self.entry(stream, &partial, line)?;
                    partial.clear();
                    bytes = rest;
                }
                None if reach.len() == room => {
                    let (piece, rest) = bytes.split_at(room);
                    self.entry(stream, &partial, piece)?;
                    partial.clear();
                    bytes = rest;
                }
                None => {
                    partial.extend_from_slice(bytes);
                    bytes = &[];
                }
            }
        }
        if partial.is_empty() && partial.capacity() > 512 {
            partial = Vec::new();
        }
        self.partial[index] = partial;
        self.flush()
    }

    /// Writes what remains without a line feed once a stream has ended.
    pub fn finish(&mut self, stream: Stream) -> io::Result<()> {
        let rest = std::mem::take(&mut self.partial[stream as usize]);
        if !rest.is_empty() {
            self.entry(stream, &rest, &[])?;
        }
        self.flush()
    }

    fn entry(&mut self, stream: Stream, start: &[u8], end: &[u8]) -> io::Result<()> {
        if let Some(forwarder) = &mut self.forwarder {
            forwarder.pass(stream, [start, end]);
        }
        if self.target.is_none() {
            return Ok(());
        }
        let full = self.target.as_ref().is_some_and(|target| {
            let size = target.size + self.encoded.len() as u64;
            target.max_size.is_some_and(|max| size >= max)
        });
        if full {
            self.flush()?;
            if let Some(target) = &mut self.target {
                target.rotate()?;
            }
        }
        encode(&mut self.encoded, stream, &[start, end], Timestamp::now());
        // A burst of short lines would otherwise grow the buffer to many times what was read.
        if self.encoded.len() > 64 * 1024 {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(target) = &mut self.target
            && !self.encoded.is_empty()
        {
            let result = target.file.write_all(&self.encoded);
            target.size += self.encoded.len() as u64;
            self.encoded.clear();
            if self.encoded.capacity() > 4 * 1024 {
                self.encoded = Vec::new();
            }
            return result;
        }
        Ok(())
    }
}

impl Target {
    /// Begins a new file (moby `daemon/logger/loggerutils/logfile.go`): with one file allowed the old content goes.
    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut path = self.path.clone().into_os_string();
            path.push(format!(".{number}"));
            PathBuf::from(path)
        };
        for number in (1..self.max_files).rev() {
            let from = if number == 1 {
                self.path.clone()
            } else {
                numbered(number - 1)
            };
            match fs::rename(from, numbered(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = open_file(&self.path, self.max_files == 1)?;
        self.size = 0;
        Ok(())
    }
}

fn open_file(path: &Path, truncate: bool) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    if truncate {
        file.set_len(0)?;
    }
    Ok(file)
}

/// Appends one entry, byte for byte as Docker writes it (moby `jsonlog/jsonlogbytes.go`).
fn encode(out: &mut Vec<u8>, stream: Stream, pieces: &[&[u8]], time: Timestamp) {
    out.extend_from_slice(b"{\"log\":\"");
    if let [start, end] = pieces
        && start.is_empty()
    {
        escape(out, end);
    } else {
        // A character may be cut by the boundary between what was kept and what came.
        escape(out, &pieces.concat());
    }
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    let _ = write!(out, "{time}");
    out.extend_from_slice(b"\"}\n");
}

fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        let text = chunk.valid();
        let mut plain = 0;
        for (at, character) in text.char_indices() {
            let replacement: Option<&[u8]> = match character {
                '\\' => Some(b"\\\\"),
                '"' => Some(b"\\\""),
                '\n' => Some(b"\\n"),
                '\r' => Some(b"\\r"),
                '\u{2028}' => Some(b"\\u2028"),
                '\u{2029}' => Some(b"\\u2029"),
                '<' | '>' | '&' | '\0'..='\x1F' => {
                    out.extend_from_slice(&text.as_bytes()[plain..at]);
                    let _ = write!(out, "\\u{:04x}", u32::from(character));
                    plain = at + 1;
                    None
                }
                _ => None,
            };
            if let Some(replacement) = replacement {
                out.extend_from_slice(&text.as_bytes()[plain..at]);
                out.extend_from_slice(replacement);
                plain = at + character.len_utf8();
            }
        }
        out.extend_from_slice(&text.as_bytes()[plain..]);
        // Go replaces byte by byte.
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        encode(&mut out, Stream::Stderr, &[b"", bytes], Timestamp::from_nanoseconds(1));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_entry_is_docker_s() {
        assert_eq!(
            encoded("a\"\\<b>&\t\r\u{2028}é\n".as_bytes()),
            "{\"log\":\"a\\\"\\\\\\u003cb\\u003e\\u0026\\u0009\\r\\u2028é\\n\",\"stream\":\"stderr\",\
             \"time\":\"1970-01-01T00:00:00.000000001Z\"}\n"
        );
        assert!(encoded(b"\xFF\xE2\x82x").contains("\\ufffd\\ufffd\\ufffdx"));
    }

    fn log(dir: &Path, max_size: Option<u64>, max_files: u32) -> LogWriter {
        let log = Log::JsonFile {
            path: dir.join("log"),
            max_size,
            max_files,
        };
        LogWriter::open(&log, None).unwrap()
    }

    fn texts(path: &Path) -> Vec<String> {
        fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| {
                let entry: serde_json::Value = serde_json::from_str(line).unwrap();
                entry["log"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    #[test]
    fn lines_are_whole_and_long_ones_come_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = log(dir.path(), None, 1);
        writer.write(Stream::Stdout, b"one\ntw").unwrap();
        writer.write(Stream::Stderr, b"error\n").unwrap();
        writer.write(Stream::Stdout, b"o\n").unwrap();
        writer.write(Stream::Stdout, &[b'x'; LONGEST_PIECE + 5]).unwrap();
        writer.write(Stream::Stdout, b"\nend").unwrap();
        writer.finish(Stream::Stdout).unwrap();
        let long = "x".repeat(LONGEST_PIECE);
        assert_eq!(
            texts(&dir.path().join("log")),
            ["one\n", "error\n", "two\n", &long, "xxxxx\n", "end"]
        );
    }

    #[test]
    fn files_rotate_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = log(dir.path(), Some(200), 3);
        for number in 0..20 {
            writer
                .write(Stream::Stdout, format!("line {number}\n").as_bytes())
                .unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
        let mut kept = texts(&dir.path().join("log.2"));
        kept.extend(texts(&dir.path().join("log.1")));
        kept.extend(texts(&dir.path().join("log")));
        assert_eq!(kept.last().unwrap(), "line 19\n");
        let first: usize = kept[0].trim().rsplit(' ').next().unwrap().parse().unwrap();
        let expected: Vec<String> = (first..20).map(|number| format!("line {number}\n")).collect();
        assert_eq!(kept, expected);
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_written_reads_back(pieces in proptest::collection::vec(".{0,40}\n?", 0..20)) {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = log(dir.path(), None, 1);
            for piece in &pieces {
                writer.write(Stream::Stdout, piece.as_bytes()).unwrap();
            }
            writer.finish(Stream::Stdout).unwrap();
            proptest::prop_assert_eq!(texts(&dir.path().join("log")).concat(), pieces.concat());
        }
    }
}
