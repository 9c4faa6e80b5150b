//! Reads env files: `.env` with quotes and variables, and the raw `KEY=value` lines of `docker run --env-file`.

use std::collections::BTreeMap;

use super::interpolate::unset_message;
use super::template::{Lookup, MAX_VALUE_BYTES, TemplateError, substitute};
use crate::yaml::{Diagnostic, Diagnostics, SourceId, Sources, Span, go_quote};

/// What an env file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EnvironmentFile {
    pub variables: BTreeMap<String, String>,
    pub warnings: Vec<Diagnostic>,
}

/// Reads a file in compose's own format.
///
/// A variable inside a value is looked up with `lookup` first, then among the earlier lines and `earlier`; a line with
/// a bare name takes its value from `lookup`, or is left out.
///
/// # Errors
///
/// Says which line cannot be read, and stops there.
pub fn parse(
    sources: &Sources,
    id: SourceId,
    lookup: &Lookup<'_>,
    earlier: &BTreeMap<String, String>,
) -> Result<EnvironmentFile, Diagnostics> {
    let text = sources.text(id);
    let mut parser = Parser {
        sources,
        id,
        text,
        position: text.len() - text.trim_start_matches('\u{feff}').len(),
        lookup,
        earlier,
        file: EnvironmentFile::default(),
        filled_in: 0,
    };
    while let Some(start) = parser.statement_start() {
        parser.statement(start)?;
    }
    Ok(parser.file)
}

struct Parser<'a> {
    sources: &'a Sources,
    id: SourceId,
    text: &'a str,
    position: usize,
    lookup: &'a Lookup<'a>,
    earlier: &'a BTreeMap<String, String>,
    file: EnvironmentFile,
    /// The length of all values with variables in them.
    filled_in: usize,
}

/// White space that does not end a line.
fn is_blank(character: char) -> bool {
    matches!(character, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{85}' | '\u{a0}')
}

impl Parser<'_> {
    /// Skips white space and comments.
    fn statement_start(&mut self) -> Option<usize> {
        loop {
            let rest = &self.text[self.position..];
            self.position += rest.len() - rest.trim_start().len();
            let rest = &self.text[self.position..];
            if rest.is_empty() {
                return None;
            }
            if !rest.starts_with('#') {
                return Some(self.position);
            }
            self.position += rest.find('\n').unwrap_or(rest.len());
        }
    }

    fn statement(&mut self, start: usize) -> Result<(), Diagnostics> {
        let mut start = start;
        if let Some(after) = self.text[start..].strip_prefix("export")
            && after.starts_with(char::is_whitespace)
        {
            start = self.text.len() - after.trim_start_matches(is_blank).len();
        }
        let rest = &self.text[start..];
        let mut key_end = None;
        for (at, character) in rest.char_indices() {
            match character {
                '=' | ':' | '\n' => {
                    key_end = Some((at, character));
                    break;
                }
                '_' | '.' | '-' | '[' | ']' => {}
                _ if is_blank(character) || character.is_alphanumeric() => {}
                _ => {
                    let line = rest.split('\n').next().unwrap_or(rest);
                    let reason = format!(
                        "unexpected character {} in variable name {}",
                        go_quote(&character.to_string()),
                        go_quote(line.trim_end_matches('\r'))
                    );
                    let place = self.span(start + at, start + at + character.len_utf8());
                    return Err(self.fail_at(start + at, &reason).at(place).into());
                }
            }
        }
        // The last line need not end.
        let (at, separator) = key_end.unwrap_or((rest.len(), '\n'));
        let key = rest[..at].trim_end();
        let key_span = self.span(start, start + key.len());
        self.position = start + at + usize::from(key_end.is_some());
        if key.contains(' ') {
            let diagnostic = self.fail_at(start, "key cannot contain a space");
            return Err(diagnostic
                .at(key_span)
                .help("a line is `KEY=value`; a comment begins with `#`")
                .into());
        }
        if separator == '\n' {
            if let Some(value) = (self.lookup)(key) {
                self.file.variables.insert(key.to_owned(), value);
            }
            return Ok(());
        }
        let after = &self.text[self.position..];
        self.position += after.len() - after.trim_start_matches(is_blank).len();
        let value = self.value()?;
        if key.is_empty() {
            // docker compose sets a variable without a name, which no container can have.
            let warning = Diagnostic::warning("a value without a variable name is ignored");
            let place = self.span(start, self.position);
            self.file.warnings.push(warning.at(place));
            return Ok(());
        }
        self.file.variables.insert(key.to_owned(), value);
        Ok(())
    }

    fn value(&mut self) -> Result<String, Diagnostics> {
        let start = self.position;
        let rest = &self.text[start..];
        let Some(quote @ (b'"' | b'\'')) = rest.bytes().next() else {
            let line = rest.split('\n').next().unwrap_or(rest);
            self.position = start + (line.len() + 1).min(rest.len());
            let value = line.split(" #").next().unwrap_or(line).trim_end();
            return self.expand(value, start, start + value.len());
        };
        let mut value = String::new();
        let mut escaped = false;
        let characters = rest.char_indices().skip(1);
        for (at, character) in characters {
            if character == char::from(quote) {
                if !escaped {
                    let end = start + at + 1;
                    self.position = end;
                    return match quote {
                        b'"' => self.expand(&expand_escapes(&value), start, end),
                        _ => Ok(value),
                    };
                }
                escaped = false;
                value.push(character);
            } else if !escaped && character == '\\' {
                escaped = true;
            } else {
                if std::mem::take(&mut escaped) {
                    value.push('\\');
                }
                // Line ends count as one character, however they are written.
                let carriage = character == '\r' && rest[at + 1..].starts_with('\n');
                if !carriage {
                    value.push(character);
                }
            }
        }
        let line = rest.split('\n').next().unwrap_or(rest);
        let line = line.trim_end_matches('\r');
        // The oracle counts the lines that it read in search of the closing quote.
        let reason = format!("unterminated quoted value {line}");
        let place = self.span(start, start + line.len());
        let diagnostic = self.fail_at(self.text.len(), &reason).at(place);
        Err(diagnostic.label("this quote is never closed").into())
    }

    fn expand(&mut self, value: &str, start: usize, end: usize) -> Result<String, Diagnostics> {
        if !value.contains('$') {
            return Ok(value.to_owned());
        }
        let known = &self.file.variables;
        let lookup = |name: &str| {
            (self.lookup)(name)
                .or_else(|| known.get(name).cloned())
                .or_else(|| self.earlier.get(name).cloned())
        };
        let mut unset = Vec::new();
        let result = substitute(value, &lookup, &mut |reference| {
            unset.push((reference.name.to_owned(), reference.text.to_owned()));
        });
        for (name, written) in unset {
            let place = match self.text[start..end].find(&written) {
                Some(at) => self.span(start + at, start + at + written.len()),
                None => self.span(start, end),
            };
            let warning = Diagnostic::warning(unset_message(&name)).at(place);
            self.file.warnings.push(warning);
        }
        let result = result.and_then(|value| {
            self.filled_in += value.len();
            match self.filled_in > MAX_VALUE_BYTES {
                true => Err(TemplateError::TooLong),
                false => Ok(value),
            }
        });
        result.map_err(|error| {
            let diagnostic = self.fail(&error.to_string()).at(self.span(start, end));
            match error {
                TemplateError::Invalid(_) => {
                    diagnostic.help("write `$$` for a dollar sign, or put the value in single quotes")
                }
                TemplateError::Required { .. } | TemplateError::TooLong => diagnostic,
            }
            .into()
        })
    }

    fn span(&self, start: usize, end: usize) -> Span {
        Span::new(self.id, start, end)
    }

    fn fail(&self, reason: &str) -> Diagnostic {
        Diagnostic::error(format!("failed to read {}: {reason}", self.sources.name(self.id)))
    }

    fn fail_at(&self, position: usize, reason: &str) -> Diagnostic {
        let line = self.text[..position].matches('\n').count() + 1;
        self.fail(&format!("line {line}: {reason}"))
    }
}

/// Replaces the escapes of a double-quoted value; `\$` becomes `$$`, which the template turns into a dollar sign.
fn expand_escapes(text: &str) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        expanded.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        let (replacement, length) = match escape.bytes().next() {
            Some(b'a') => ("\u{7}", 1),
            Some(b'b') => ("\u{8}", 1),
            Some(b'f') => ("\u{c}", 1),
            Some(b'n') => ("\n", 1),
            Some(b'r') => ("\r", 1),
            Some(b't') => ("\t", 1),
            Some(b'v') => ("\u{b}", 1),
            Some(b'\\') => ("\\", 1),
            Some(b'"') => ("\"", 1),
            Some(b'$') => ("$$", 1),
            Some(b'0') => {
                let digits = escape[1..].bytes().take(3);
                let digits = digits.take_while(u8::is_ascii_digit).count();
                let octal = &escape[1..=digits];
                let code = u8::from_str_radix(octal, 8).ok().filter(|_| digits == 3);
                match code {
                    Some(code) if code.is_ascii() => expanded.push(char::from(code)),
                    // Go makes a lone byte of it, which is no text.
                    Some(_) => expanded.push('\u{fffd}'),
                    None => {
                        expanded.push('\\');
                        expanded.push_str(&escape[..=digits]);
                    }
                }
                rest = &escape[1 + digits..];
                continue;
            }
            // An escape of no meaning stays as it is.
            _ => ("\\", 0),
        };
        expanded.push_str(replacement);
        rest = &escape[length..];
    }
    expanded.push_str(rest);
    expanded
}

/// Reads a file in the raw format: no quotes, no variables, no comments behind a value.
///
/// # Errors
///
/// Reports every line that has no name, or white space in it.
pub fn parse_raw(sources: &Sources, id: SourceId, lookup: &Lookup<'_>) -> Result<EnvironmentFile, Diagnostics> {
    let mut file = EnvironmentFile::default();
    let mut errors = Vec::new();
    let mut start = 0;
    for line in sources.text(id).split_inclusive('\n') {
        let line_start = start;
        start += line.len();
        let content = line.strip_suffix('\n').unwrap_or(line);
        let content = content.strip_suffix('\r').unwrap_or(content);
        let content = match line_start {
            0 => content.trim_start_matches('\u{feff}'),
            _ => content,
        };
        let content = content.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let (key, value) = match content.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (content, None),
        };
        let reason = if key.is_empty() {
            format!("no variable name on line '{content}'")
        } else if key.contains([' ', '\t']) {
            format!("variable '{key}' contains whitespaces")
        } else {
            let value = value.map(str::to_owned).or_else(|| lookup(key));
            if let Some(value) = value {
                file.variables.insert(key.to_owned(), value);
            }
            continue;
        };
        let message = format!("failed to parse env_file {}: {reason}", sources.name(id));
        let offset = line.find(content).unwrap_or(0);
        let place = Span::new(id, line_start + offset, line_start + offset + content.len());
        errors.push(Diagnostic::error(message).at(place));
    }
    if errors.is_empty() {
        Ok(file)
    } else {
        Err(Diagnostics(errors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let mut sources = Sources::new();
        let id = sources.add("t.env", text);
        let lookup = |name: &str| (name == "OSV").then(|| "os".to_owned());
        show(&sources, parse(&sources, id, &lookup, &BTreeMap::new()))
    }

    fn read_raw(text: &str) -> String {
        let mut sources = Sources::new();
        let id = sources.add("t.env", text);
        let lookup = |name: &str| (name == "OSV").then(|| "os".to_owned());
        show(&sources, parse_raw(&sources, id, &lookup))
    }

    fn show(sources: &Sources, file: Result<EnvironmentFile, Diagnostics>) -> String {
        match file {
            Ok(file) => {
                let variables = file.variables.iter();
                let variables: Vec<String> = variables.map(|(key, value)| format!("{key}={value}")).collect();
                variables.join("|")
            }
            Err(error) => {
                let (line, column) = sources.position(error.0[0].span.unwrap());
                format!("{line}:{column} {}", error.0[0].message)
            }
        }
    }

    #[test]
    fn lines_are_read_as_compose_reads_them() {
        for (text, expected) in [
            ("A=b", "A=b"),
            ("export A= b # c\nB:d", "A=b|B=d"),
            ("A=1# c\nB= #c", "A=1# c|B=#c"),
            ("A='x $OSV \\' \\n'", "A=x $OSV ' \\n"),
            ("A=\"x\\n$OSV\\$B \\q \\0101\"", "A=x\nos$B \\q A"),
            ("A=\"l1\r\nl2\"\r\nB=2", "A=l1\nl2|B=2"),
            ("OSV=file\nA=$OSV ${B-c}", "A=os c|OSV=file"),
            ("OSV\nNOPE\nA", "OSV=os"),
            ("\u{feff}A=1\n\n# B=2\nC.d-e[0]=3", "A=1|C.d-e[0]=3"),
            ("A B=1", "1:1 failed to read t.env: line 1: key cannot contain a space"),
            (
                "\nA?=1",
                "2:2 failed to read t.env: line 2: unexpected character \"?\" in variable name \"A?=1\"",
            ),
            (
                "A=\"x",
                "1:3 failed to read t.env: line 1: unterminated quoted value \"x",
            ),
            (
                "A=1\nB=${C:?no}",
                "2:3 failed to read t.env: required variable C is missing a value: no",
            ),
            ("A=${", "1:3 failed to read t.env: Invalid template: \"${\""),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
    }

    #[test]
    fn values_that_double_with_every_line_are_refused() {
        let bomb = format!("A={}\n{}", "x".repeat(100), "A=$A$A\n".repeat(40));
        let shown = read(&bomb);
        assert!(
            shown.contains("longer than 16 MiB"),
            "{}",
            shown.get(..200).unwrap_or(&shown)
        );
    }

    #[test]
    fn raw_lines_keep_everything_behind_the_equals_sign() {
        for (text, expected) in [
            ("A='x' # c \n B=$C\nOSV\nNOPE\r\n#D=1", "A='x' # c |B=$C|OSV=os"),
            (
                "A=1\nB C=2",
                "2:1 failed to parse env_file t.env: variable 'B C' contains whitespaces",
            ),
            (
                "=x",
                "1:1 failed to parse env_file t.env: no variable name on line '=x'",
            ),
        ] {
            assert_eq!(read_raw(text), expected, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_them_panic(text in "[A='\"\\\\$ {}\\n\\r#0:é?\u{feff}\u{a0}-]{0,30}|\\PC*") {
            let _ = (read(&text), read_raw(&text));
        }

        #[test]
        fn a_single_quoted_value_comes_back(value in "[^'\\\\\r]*") {
            proptest::prop_assert_eq!(read(&format!("A='{value}'")), format!("A={value}"));
        }
    }
}
