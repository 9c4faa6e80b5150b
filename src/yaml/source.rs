//! The texts that nodes and diagnostics point into.

use std::sync::OnceLock;

use super::{Diagnostic, Diagnostics, MAX_SOURCE_BYTES};

/// One text known to [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(u32);

/// A range of bytes in one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    pub source: SourceId,
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// Returns the range `start..end` of `source`; positions beyond 4 GiB (no such source is accepted) saturate.
    pub fn new(source: SourceId, start: usize, end: usize) -> Self {
        let narrow = |position: usize| u32::try_from(position).unwrap_or(u32::MAX);
        Self {
            source,
            start: narrow(start),
            end: narrow(end),
        }
    }

    /// Returns the range as indices into the source's text.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Returns the smallest range that holds both, or `self` if they stand in different sources.
    pub fn to(self, other: Self) -> Self {
        if self.source != other.source {
            return self;
        }
        Self {
            source: self.source,
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        }
    }
}

/// Every text that took part in loading a project: Compose files, env files, generated ones.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    entries: Vec<Source>,
    /// How many values were read from all of them.
    pub(super) values: usize,
}

#[derive(Clone, Debug)]
struct Source {
    name: String,
    text: String,
    /// Where its lines begin; found when somebody asks for a position.
    line_starts: OnceLock<Vec<u32>>,
}

impl Source {
    fn line_starts(&self) -> &[u32] {
        self.line_starts.get_or_init(|| {
            let breaks = self.text.bytes().zip(1..).filter(|(byte, _)| *byte == b'\n');
            std::iter::once(0).chain(breaks.map(|(_, next)| next)).collect()
        })
    }
}

impl Sources {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a text in under the name that messages show: the path as the user would recognise it.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> SourceId {
        let id = SourceId(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        self.entries.push(Source {
            name: name.into(),
            text: text.into(),
            line_starts: OnceLock::new(),
        });
        id
    }

    /// Takes in the bytes of a file: UTF-8, or UTF-16 with a byte order mark, as go-yaml reads them.
    ///
    /// # Errors
    ///
    /// Refuses bytes that are no text, and more than [`MAX_SOURCE_BYTES`] of them; whoever opens files should read
    /// no further than one byte beyond that.
    pub fn add_bytes(&mut self, name: impl Into<String>, bytes: Vec<u8>) -> Result<SourceId, Diagnostics> {
        let name = name.into();
        let refuse = |reason: String| Diagnostic::error(format!("failed to parse {name}: yaml: {reason}"));
        if bytes.len() > MAX_SOURCE_BYTES {
            let limit = MAX_SOURCE_BYTES >> 20;
            return Err(refuse(format!("file is larger than {limit} MiB")).into());
        }
        let utf_16 = match bytes.get(..2) {
            Some([0xFF, 0xFE]) => Some(u16::from_le_bytes as fn([u8; 2]) -> u16),
            Some([0xFE, 0xFF]) => Some(u16::from_be_bytes as fn([u8; 2]) -> u16),
            _ => None,
        };
        if let Some(unit) = utf_16 {
            let units = bytes[2..].chunks(2).map(|pair| match *pair {
                [first, second] => unit([first, second]),
                _ => 0xD800,
            });
            let text: Result<String, _> = char::decode_utf16(units).collect();
            return match text {
                Ok(text) => Ok(self.add(name, text)),
                Err(_) => Err(refuse("incomplete UTF-16 character".to_owned()).into()),
            };
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(self.add(name, text)),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let reason = match (error.utf8_error().error_len(), error.as_bytes()[at]) {
                    (None, _) => "incomplete UTF-8 octet sequence",
                    (Some(_), 0xC2..=0xF4) => "invalid trailing UTF-8 octet",
                    (Some(_), _) => "invalid leading UTF-8 octet",
                };
                let diagnostic = refuse(reason.to_owned());
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                let id = self.add(name, text);
                Err(diagnostic.at(Span::new(id, at, at + 3)).into())
            }
        }
    }

    pub fn name(&self, id: SourceId) -> &str {
        self.entries.get(id.0 as usize).map_or("", |entry| entry.name.as_str())
    }

    pub fn text(&self, id: SourceId) -> &str {
        self.entries.get(id.0 as usize).map_or("", |entry| entry.text.as_str())
    }

    /// Returns the text a span covers, or nothing if it does not fit its source.
    pub fn slice(&self, span: Span) -> &str {
        self.text(span.source).get(span.range()).unwrap_or("")
    }

    /// Returns the line and column (both from 1, the column in characters) where a span begins.
    pub fn position(&self, span: Span) -> (usize, usize) {
        let text = self.text(span.source);
        let mut start = (span.start as usize).min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let Some(source) = self.entries.get(span.source.0 as usize) else {
            return (1, 1);
        };
        let line = source.line_starts().partition_point(|line| *line as usize <= start);
        let line_start = source.line_starts()[line - 1] as usize;
        (line, text[line_start..start].chars().count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_lines_and_characters_from_one() {
        let mut sources = Sources::new();
        let id = sources.add("compose.yaml", "a: é\nbé: c\n");
        assert_eq!(sources.position(Span::new(id, 0, 1)), (1, 1));
        let at = sources.text(id).find(": c").unwrap();
        assert_eq!(sources.position(Span::new(id, at, at + 1)), (2, 3));
        assert_eq!(sources.position(Span::new(id, 999, 999)), (3, 1));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_where_they_stand() {
        let mut sources = Sources::new();
        let error = sources.add_bytes("c.yaml", b"a: b\nc: \xff\n".to_vec()).unwrap_err();
        assert_eq!(
            error.0[0].message,
            "failed to parse c.yaml: yaml: invalid leading UTF-8 octet"
        );
        assert_eq!(sources.position(error.0[0].span.unwrap()), (2, 4));
        let id = sources.add_bytes("u16", b"\xff\xfea\0\n\0".to_vec()).unwrap();
        assert_eq!(sources.text(id), "a\n");
    }
}
