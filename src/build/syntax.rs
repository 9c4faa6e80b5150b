//! A Dockerfile's text as lines: directives, continued lines joined, flags split off, here-documents with their bodies.
//!
//! Follows buildkit's `frontend/dockerfile/parser`: what an instruction's words mean is `instructions`'s to say.

use std::ops::Range;

use super::expand;

/// A file as instructions that are not understood yet.
#[derive(Debug, Clone)]
pub(super) struct Syntax {
    pub nodes: Vec<Node>,
    pub escape: char,
    /// `# syntax=`.
    pub frontend: Option<String>,
    /// `# check=`.
    pub check: Option<String>,
    /// What is tolerated and worth a word: the line and what about it.
    pub warnings: Vec<(usize, String)>,
}

/// One instruction.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    /// As written.
    pub keyword: String,
    /// Those before the arguments, with their `--`.
    pub flags: Vec<String>,
    /// What follows the flags.
    pub rest: String,
    /// The whole instruction on one line.
    pub original: String,
    pub documents: Vec<Document>,
    /// Its place in the file.
    pub span: Range<usize>,
    /// The first line of it, 1-based.
    pub line: usize,
    /// The comments right before it.
    pub comments: Vec<String>,
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub name: String,
    /// As it stands in the file.
    pub text: String,
    /// Its variables are expanded: no part of its name is quoted.
    pub expand: bool,
    /// `<<-`: tabs at the beginning of lines go.
    pub strips_tabs: bool,
}

impl Document {
    /// Returns the text as the file it becomes.
    pub fn content(&self) -> String {
        if self.strips_tabs {
            let lines = self.text.split_inclusive('\n');
            lines.map(|line| line.trim_start_matches('\t')).collect()
        } else {
            self.text.clone()
        }
    }
}

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    pub message: String,
    pub span: Range<usize>,
}

impl Syntax {
    /// Reads a file.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut lines = Lines {
            text,
            at: if text.starts_with('\u{feff}') { 3 } else { 0 },
            number: 0,
        };
        let mut directives = Directives::default();
        let mut syntax = Self {
            nodes: Vec::new(),
            escape: '\\',
            frontend: None,
            check: None,
            warnings: Vec::new(),
        };
        let mut comments: Vec<String> = Vec::new();
        while let Some((start, raw)) = lines.next() {
            let first = raw.trim_start();
            let begin = start + (raw.len() - first.len());
            directives.look_at(first).map_err(|message| SyntaxError {
                message,
                span: start..start + raw.len(),
            })?;
            if let Some(comment) = first.strip_prefix('#') {
                comments.push(comment.trim().to_owned());
                continue;
            }
            let number = lines.number;
            let (mut joined, mut continues) = continued(first, directives.escape);
            if !continues && joined.is_empty() {
                continue;
            }
            let mut end = start + raw.len();
            while continues {
                let Some((start, raw)) = lines.next() else { break };
                if raw.trim_start().starts_with('#') {
                    continue;
                }
                if raw.trim().is_empty() {
                    let message = "Empty continuation line found".to_owned();
                    syntax.warnings.push((number, message));
                    continue;
                }
                end = start + raw.trim_end().len();
                let more;
                (more, continues) = continued(raw, directives.escape);
                joined.push_str(&more);
            }
            let mut node = node(&joined);
            node.span = begin..end.max(begin);
            node.line = number;
            node.comments = std::mem::take(&mut comments);
            if node.may_have_documents() {
                for mut document in documents(&joined) {
                    document.text = lines.body(&document).ok_or_else(|| SyntaxError {
                        message: "unterminated heredoc".to_owned(),
                        span: node.span.clone(),
                    })?;
                    node.span.end = lines.ended();
                    node.documents.push(document);
                }
            }
            syntax.nodes.push(node);
        }
        if syntax.nodes.is_empty() {
            return Err(SyntaxError {
                message: "file with no instructions".to_owned(),
                span: 0..0,
            });
        }
        syntax.escape = directives.escape;
        syntax.frontend = directives.frontend;
        syntax.check = directives.check;
        Ok(syntax)
    }
}

impl Node {
    /// Returns the instruction's name in capitals.
    pub fn name(&self) -> String {
        self.keyword.to_ascii_uppercase()
    }

    /// Returns the instruction that follows `ONBUILD`.
    pub fn inner(&self) -> Option<Self> {
        if self.rest.is_empty() {
            return None;
        }
        let mut inner = node(&self.rest);
        inner.span = self.span.clone();
        inner.line = self.line;
        inner.documents.clone_from(&self.documents);
        Some(inner)
    }

    fn may_have_documents(&self) -> bool {
        match self.name().as_str() {
            "RUN" | "COPY" | "ADD" => json_words(&self.rest).ok().flatten().is_none(),
            "ONBUILD" => self
                .inner()
                .is_some_and(|inner| inner.name() != "ONBUILD" && inner.may_have_documents()),
            _ => false,
        }
    }
}

struct Lines<'t> {
    text: &'t str,
    at: usize,
    number: usize,
}

impl<'t> Lines<'t> {
    /// Returns the next line and where it begins, without its end.
    fn next(&mut self) -> Option<(usize, &'t str)> {
        let start = self.at;
        let line = self.text[start..].split_inclusive('\n').next()?;
        self.at += line.len();
        self.number += 1;
        Some((start, line.trim_end_matches(['\r', '\n'])))
    }

    /// Reads up to the line that ends a here-document; `None` if there is none.
    fn body(&mut self, document: &Document) -> Option<String> {
        let start = self.at;
        loop {
            let (begin, line) = self.next()?;
            let line = if document.strips_tabs {
                line.trim_start_matches('\t')
            } else {
                line
            };
            if line == document.name {
                return Some(self.text[start..begin].to_owned());
            }
        }
    }

    /// Returns where the line that was read last ends.
    fn ended(&self) -> usize {
        self.text[..self.at].trim_end_matches(['\r', '\n']).len()
    }
}

struct Directives {
    done: bool,
    escape: char,
    frontend: Option<String>,
    check: Option<String>,
    has_escape: bool,
}

impl Default for Directives {
    fn default() -> Self {
        Self {
            done: false,
            escape: '\\',
            frontend: None,
            check: None,
            has_escape: false,
        }
    }
}

impl Directives {
    /// Takes a line of the file's beginning as a directive, if it is one; the first that is none is the end of them.
    fn look_at(&mut self, line: &str) -> Result<(), String> {
        if self.done {
            return Ok(());
        }
        let parsed = line
            .strip_prefix('#')
            .and_then(|rest| rest.split_once('='))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim()));
        let Some((name, value)) = parsed.filter(|(_, value)| !value.is_empty()) else {
            self.done = true;
            return Ok(());
        };
        let twice = || format!("only one {name} parser directive can be used");
        match name.as_str() {
            "syntax" if self.frontend.is_some() => return Err(twice()),
            "check" if self.check.is_some() => return Err(twice()),
            "escape" if self.has_escape => return Err(twice()),
            "syntax" => self.frontend = Some(value.to_owned()),
            "check" => self.check = Some(value.to_owned()),
            "escape" => {
                self.has_escape = true;
                self.escape = match value {
                    "`" => '`',
                    "\\" => '\\',
                    other => return Err(format!("invalid escape token '{other}' does not match ` or \\")),
                };
            }
            _ => self.done = true,
        }
        Ok(())
    }
}

/// Returns a line without the character that continues it, and whether one does. A doubled one does not.
fn continued(line: &str, escape: char) -> (String, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => (before.to_owned(), true),
        _ => (line.to_owned(), false),
    }
}

fn node(line: &str) -> Node {
    let trimmed = line.trim();
    let end = trimmed
        .find([' ', '\t', '\u{b}', '\u{c}', '\r'])
        .unwrap_or(trimmed.len());
    let (keyword, rest) = trimmed.split_at(end);
    let (flags, rest) = flags(rest.trim_start());
    Node {
        keyword: keyword.to_owned(),
        flags,
        rest: rest.trim().to_owned(),
        original: trimmed.to_owned(),
        ..Node::default()
    }
}

/// Splits the words that begin with `--` off; quotes and backslashes in them are taken away.
fn flags(line: &str) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let mut word = String::new();
        let mut quote: Option<char> = None;
        let mut chars = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, character)) = chars.next() {
            match (quote, character) {
                (None, character) if character.is_whitespace() => {
                    end = at;
                    break;
                }
                (None, '\'' | '"') => quote = Some(character),
                (Some(open), character) if open == character => quote = None,
                (_, '\\') => word.extend(chars.next().map(|(_, escaped)| escaped)),
                (_, character) => word.push(character),
            }
        }
        rest = &rest[end..];
        if word == "--" {
            return (flags, rest);
        }
        flags.push(word);
    }
}

/// Returns the here-documents that a line announces, without their texts.
fn documents(line: &str) -> Vec<Document> {
    expand::split(line, '\\')
        .iter()
        .filter_map(|word| marker(word))
        .collect()
}

/// Returns the here-document that a word announces: `<<EOF`, `<<-EOF`, `3<<"EOF"`.
pub(super) fn marker(word: &str) -> Option<Document> {
    let word = word
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .strip_prefix("<<")?;
    let (strips_tabs, word) = word.strip_prefix('-').map_or((false, word), |word| (true, word));
    if word.is_empty() || word.contains('<') || word.contains(char::is_whitespace) && !word.contains(['"', '\'', '\\'])
    {
        return None;
    }
    let mut name = String::new();
    let mut quote: Option<char> = None;
    let mut is_quoted = false;
    let mut chars = word.chars();
    while let Some(character) = chars.next() {
        match (quote, character) {
            (None, '\'' | '"') => {
                quote = Some(character);
                is_quoted = true;
            }
            (Some(open), character) if open == character => quote = None,
            (None | Some('"'), '\\') => name.extend(chars.next()),
            (_, character) => name.push(character),
        }
    }
    (quote.is_none() && !name.is_empty()).then_some(Document {
        name,
        text: String::new(),
        expand: !is_quoted,
        strips_tabs,
    })
}

/// Reads `["a", "b"]`; `None` if it is no JSON array, an error if it is one of something else than strings.
pub(super) fn json_words(text: &str) -> Result<Option<Vec<String>>, String> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(list) = serde_json::from_str::<Vec<serde_json::Value>>(text) else {
        return Ok(None);
    };
    let words = list.into_iter().map(|value| match value {
        serde_json::Value::String(word) => Ok(word),
        _ => Err("when using JSON array syntax, arrays must be comprised of strings only".to_owned()),
    });
    words.collect::<Result<Vec<String>, String>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(text: &str) -> Vec<Node> {
        Syntax::parse(text)
            .unwrap_or_else(|error| panic!("{text}: {error:?}"))
            .nodes
    }

    #[test]
    fn continued_lines_are_one_without_comments_between() {
        let text = "# escape=`\n\nFROM a `\n  # no\n\n  AS b\nRUN x``\n";
        let nodes = nodes(text);
        assert_eq!(nodes[0].original, "FROM a   AS b");
        assert_eq!(nodes[1].rest, "x``");
        assert_eq!(&text[nodes[0].span.clone()], "FROM a `\n  # no\n\n  AS b");
        assert_eq!((nodes[0].line, nodes[1].line), (3, 7));
    }

    #[test]
    fn flags_are_split_off_unquoted() {
        let node = &nodes("COPY --from=x --chown=\"a b\" --parents -- --not /d\n")[0];
        assert_eq!(node.flags, ["--from=x", "--chown=a b", "--parents"]);
        assert_eq!(node.rest, "--not /d");
    }

    #[test]
    fn documents_have_names_and_texts() {
        let text = "RUN cat <<A 3<<-\"B\" && \\\n  b\néx\n\nA\n\ty\n\tB\nUSER c\n";
        let nodes = nodes(text);
        let found: Vec<_> = nodes[0]
            .documents
            .iter()
            .map(|document| (document.name.as_str(), document.content(), document.expand))
            .collect();
        assert_eq!(
            found,
            [("A", "éx\n\n".to_owned(), true), ("B", "y\n".to_owned(), false)]
        );
        assert!(text[nodes[0].span.end..].starts_with("\nUSER"));
        for text in [
            "RUN [\"a\", \"<<b\"]\n",
            "RUN a <<<b\n",
            "RUN echo \"x <<b\"\n",
            "ENV x=<<b\n",
            "# RUN <<b\nUSER a\n",
        ] {
            assert!(self::nodes(text)[0].documents.is_empty(), "{text}");
        }
        assert_eq!(
            nodes_error("FROM a\nRUN <<b\nx\n"),
            ("unterminated heredoc".to_owned(), 7..14)
        );
        assert_eq!(self::nodes("ONBUILD COPY <<b /\nx\nb\n")[0].documents[0].text, "x\n");
    }

    fn nodes_error(text: &str) -> (String, Range<usize>) {
        let error = Syntax::parse(text).unwrap_err();
        (error.message, error.span)
    }

    #[test]
    fn directives_stand_at_the_top_once() {
        let syntax =
            Syntax::parse("# syntax=docker/dockerfile:1\n# check=skip=all\n# other\n# escape=`\nFROM a\n").unwrap();
        assert_eq!(syntax.frontend.as_deref(), Some("docker/dockerfile:1"));
        assert_eq!(syntax.check.as_deref(), Some("skip=all"));
        assert_eq!(syntax.escape, '\\');
        assert_eq!(
            nodes_error("# escape=`\n# escape=`\nFROM a").0,
            "only one escape parser directive can be used"
        );
        assert_eq!(nodes_error("# just\n").0, "file with no instructions");
    }
}
