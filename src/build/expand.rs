//! Words of a Dockerfile: quotes, escapes and `$variables`.
//!
//! Follows buildkit's `frontend/dockerfile/shell/lex.go`, whose rules resemble a shell's and are not.

use std::iter::Peekable;
use std::str::Chars;

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    #[error("unexpected end of statement while looking for matching {0}")]
    Quote(&'static str),
    #[error("syntax error: missing '}}'")]
    Brace,
    #[error("syntax error: bad substitution")]
    Substitution,
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    #[error("{0}: {1}")]
    Required(String, String),
}

/// Looks variables up and remembers which were asked for.
pub struct Expander<'e> {
    pub escape: char,
    pub lookup: &'e dyn Fn(&str) -> Option<String>,
}

impl Expander<'_> {
    /// Expands a text as one word.
    pub fn word(&self, text: &str) -> Result<String, ExpandError> {
        Ok(self.run(text)?.0)
    }

    /// Expands a text and splits it at what spaces are not quoted, those in variables included.
    pub fn words(&self, text: &str) -> Result<Vec<String>, ExpandError> {
        Ok(self.run(text)?.1)
    }

    /// Expands variables only; quotes and escapes stay, as in a here-document.
    pub fn text(&self, text: &str) -> Result<String, ExpandError> {
        let mut walk = Walk::new(self, text, true);
        walk.until(None)?;
        Ok(walk.result)
    }

    fn run(&self, text: &str) -> Result<(String, Vec<String>), ExpandError> {
        let mut walk = Walk::new(self, text, false);
        walk.until(None)?;
        walk.end_word();
        Ok((walk.result, walk.words))
    }
}

struct Walk<'w> {
    expander: &'w Expander<'w>,
    chars: Peekable<Chars<'w>>,
    /// Quotes and escapes are kept as they are.
    raw: bool,
    result: String,
    words: Vec<String>,
    word: String,
    in_word: bool,
}

impl<'w> Walk<'w> {
    fn new(expander: &'w Expander<'w>, text: &'w str, raw: bool) -> Self {
        Self {
            expander,
            chars: text.chars().peekable(),
            raw,
            result: String::new(),
            words: Vec::new(),
            word: String::new(),
            in_word: false,
        }
    }

    fn push(&mut self, text: &str) {
        self.result.push_str(text);
        self.word.push_str(text);
        self.in_word = true;
    }

    fn push_splitting(&mut self, text: &str) {
        for character in text.chars() {
            self.result.push(character);
            if character.is_whitespace() {
                self.end_word();
            } else {
                self.word.push(character);
                self.in_word = true;
            }
        }
    }

    fn end_word(&mut self) {
        if self.in_word {
            self.words.push(std::mem::take(&mut self.word));
            self.in_word = false;
        }
    }

    fn until(&mut self, stop: Option<char>) -> Result<(), ExpandError> {
        loop {
            let Some(character) = self.chars.next() else {
                return if stop.is_some() {
                    Err(ExpandError::Brace)
                } else {
                    Ok(())
                };
            };
            if Some(character) == stop {
                return Ok(());
            }
            match character {
                '\'' if !self.raw => self.single_quoted()?,
                '"' if !self.raw => self.double_quoted()?,
                '$' => {
                    let value = self.dollar()?;
                    self.push_splitting(&value);
                }
                escape if escape == self.expander.escape => {
                    let next = self.chars.next();
                    if self.raw {
                        // An escaped dollar is a dollar; any other escape is the text's own.
                        if next != Some('$') {
                            self.push(&escape.to_string());
                        }
                    }
                    if let Some(next) = next {
                        self.push(&next.to_string());
                    } else if !self.raw {
                        self.push(&escape.to_string());
                    }
                }
                other => self.push_splitting(other.encode_utf8(&mut [0; 4])),
            }
        }
    }

    fn single_quoted(&mut self) -> Result<(), ExpandError> {
        self.push("");
        loop {
            match self.chars.next() {
                None => return Err(ExpandError::Quote("single-quote")),
                Some('\'') => return Ok(()),
                Some(other) => self.push(other.encode_utf8(&mut [0; 4])),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<(), ExpandError> {
        self.push("");
        loop {
            match self.chars.next() {
                None => return Err(ExpandError::Quote("double-quote")),
                Some('"') => return Ok(()),
                Some('$') => {
                    let value = self.dollar()?;
                    self.push(&value);
                }
                Some(escape) if escape == self.expander.escape => match self.chars.next() {
                    None => return Err(ExpandError::Quote("double-quote")),
                    Some(next) => {
                        if next != '"' && next != '$' && next != escape {
                            self.push(escape.encode_utf8(&mut [0; 4]));
                        }
                        self.push(next.encode_utf8(&mut [0; 4]));
                    }
                },
                Some(other) => self.push(other.encode_utf8(&mut [0; 4])),
            }
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(&next) = self.chars.peek() {
            let first = name.is_empty();
            if next == '_' || next.is_ascii_alphabetic() || (!first && next.is_ascii_digit()) {
                name.push(next);
            } else if first && (next.is_ascii_digit() || "@*#?-$!".contains(next)) {
                // A shell's own parameter: one character, and nothing of it here.
                name.push(next);
                self.chars.next();
                return name;
            } else {
                break;
            }
            self.chars.next();
        }
        name
    }

    fn dollar(&mut self) -> Result<String, ExpandError> {
        if self.chars.peek() != Some(&'{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok((self.expander.lookup)(&name).unwrap_or_default());
        }
        self.chars.next();
        if self.chars.peek() == Some(&'}') {
            return Err(ExpandError::Substitution);
        }
        let name = self.name();
        if name.is_empty() {
            return Err(ExpandError::Substitution);
        }
        let value = (self.expander.lookup)(&name);
        let Some(first) = self.chars.next() else {
            return Err(ExpandError::Brace);
        };
        match first {
            '}' => Ok(value.unwrap_or_default()),
            ':' => {
                let modifier = self.chars.next().ok_or(ExpandError::Brace)?;
                let set = value.clone().filter(|value| !value.is_empty());
                self.default(
                    modifier,
                    &format!(":{modifier}"),
                    &name,
                    set,
                    value,
                    "not allowed to be empty",
                )
            }
            '+' | '-' | '?' => self.default(first, &first.to_string(), &name, value.clone(), value, "not set"),
            '#' | '%' => {
                let greedy = self.chars.next_if_eq(&first).is_some();
                let pattern = self.operand()?;
                Ok(trim(&value.unwrap_or_default(), &pattern, first == '#', greedy))
            }
            '/' => {
                let all = self.chars.next_if_eq(&'/').is_some();
                let mut pattern = String::new();
                loop {
                    match self.chars.next() {
                        None => return Err(ExpandError::Brace),
                        Some('/') => break,
                        Some('}') => return Ok(replace(&value.unwrap_or_default(), &pattern, "", all)),
                        Some('\\') => {
                            pattern.push('\\');
                            pattern.extend(self.chars.next());
                        }
                        Some(other) => pattern.push(other),
                    }
                }
                let with = self.operand()?;
                Ok(replace(&value.unwrap_or_default(), &pattern, &with, all))
            }
            other => Err(ExpandError::Modifier(other.to_string())),
        }
    }

    /// `-`, `+` and `?`, where `set` is the value if it counts as set.
    fn default(
        &mut self,
        modifier: char,
        shown: &str,
        name: &str,
        set: Option<String>,
        value: Option<String>,
        complaint: &str,
    ) -> Result<String, ExpandError> {
        let operand = self.operand()?;
        match modifier {
            '-' => Ok(set.unwrap_or(operand)),
            '+' => Ok(set.map_or_else(String::new, |_| operand)),
            '?' => set.or_else(|| value.filter(|_| shown == "?")).ok_or_else(|| {
                let message = if operand.is_empty() {
                    complaint.to_owned()
                } else {
                    operand
                };
                ExpandError::Required(name.to_owned(), message)
            }),
            _ => Err(ExpandError::Modifier(shown.to_owned())),
        }
    }

    /// Reads and expands up to the closing brace.
    fn operand(&mut self) -> Result<String, ExpandError> {
        let mut inner = Walk {
            expander: self.expander,
            chars: self.chars.clone(),
            raw: false,
            result: String::new(),
            words: Vec::new(),
            word: String::new(),
            in_word: false,
        };
        inner.until(Some('}'))?;
        self.chars = inner.chars;
        Ok(inner.result)
    }
}

/// Removes what a pattern matches at the beginning or the end: the shortest, or the longest.
fn trim(value: &str, pattern: &str, front: bool, greedy: bool) -> String {
    let mut cuts: Vec<usize> = value.char_indices().map(|(at, _)| at).chain([value.len()]).collect();
    // The first cut that matches is the one: order them from the shortest removal to the longest, or back.
    if front == greedy {
        cuts.reverse();
    }
    for cut in cuts {
        let (head, tail) = value.split_at(cut);
        if front && matches(pattern, head) {
            return tail.to_owned();
        }
        if !front && matches(pattern, tail) {
            return head.to_owned();
        }
    }
    value.to_owned()
}

fn replace(value: &str, pattern: &str, with: &str, all: bool) -> String {
    let mut result = String::new();
    let mut rest = value;
    'next: while !rest.is_empty() {
        let ends: Vec<usize> = rest
            .char_indices()
            .map(|(at, _)| at)
            .chain([rest.len()])
            .skip(1)
            .collect();
        for end in ends.into_iter().rev() {
            if matches(pattern, &rest[..end]) {
                result.push_str(with);
                rest = &rest[end..];
                if all {
                    continue 'next;
                }
                return result + rest;
            }
        }
        let mut chars = rest.chars();
        result.extend(chars.next());
        rest = chars.as_str();
    }
    result
}

/// Matches a whole text against `*`, `?` and escaped characters.
fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<(char, bool)> = {
        let mut list = Vec::new();
        let mut chars = pattern.chars();
        while let Some(character) = chars.next() {
            match character {
                '\\' => list.push((chars.next().unwrap_or('\\'), false)),
                other => list.push((other, matches!(other, '*' | '?'))),
            }
        }
        list
    };
    let text: Vec<char> = text.chars().collect();
    // The usual two-pointer walk: on a mismatch, the last star takes one more.
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(('*', true)) => {
                star = Some((p, t));
                p += 1;
            }
            Some((wanted, special)) if (*special && *wanted == '?') || *wanted == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|item| *item == ('*', true))
}

/// Splits at spaces that are neither quoted nor escaped; quotes and escapes stay in the words.
pub fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(character) = chars.next() {
        match quote {
            None if character.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if matches!(character, '\'' | '"') => quote = Some(character),
            Some(open) if character == open => quote = None,
            // Inside single quotes an escape is a character like any other.
            _ if character == escape && quote != Some('\'') => {
                word.push(character);
                word.extend(chars.next());
                continue;
            }
            _ => {}
        }
        word.push(character);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            "SPACES" => Some("x y".to_owned()),
            "PATH" => Some("/usr/lib/x.tar.gz".to_owned()),
            _ => None,
        }
    }

    fn expander() -> Expander<'static> {
        Expander {
            escape: '\\',
            lookup: &lookup,
        }
    }

    #[test]
    fn words_expand_as_buildkits_do() {
        for (text, expected) in [
            ("plain", "plain"),
            ("$A${A}b", "aab"),
            ("'$A' \"$A\" \\$A", "$A a $A"),
            ("\"a\\\"b\\n\"", "a\"b\\n"),
            ("a\\ b", "a b"),
            ("$", "$"),
            ("$NONE-x", "-x"),
            ("${NONE:-d}${EMPTY:-e}${EMPTY-f}${NONE-g}", "deg"),
            ("${A:+x}${EMPTY:+y}${EMPTY+z}${NONE+w}", "xz"),
            ("${NONE:-${A}b}", "ab"),
            ("${NONE:-'}'}", "}"),
            ("${A:?x}", "a"),
            ("${EMPTY?x}", ""),
            ("${PATH#*/}", "usr/lib/x.tar.gz"),
            ("${PATH##*/}", "x.tar.gz"),
            ("${PATH%.*}", "/usr/lib/x.tar"),
            ("${PATH%%.*}", "/usr/lib/x"),
            ("${PATH/x/y}", "/usr/lib/y.tar.gz"),
            ("${PATH//\\//-}", "-usr-lib-x.tar.gz"),
            ("$1x", "x"),
        ] {
            assert_eq!(expander().word(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn variables_split_into_words_unless_quoted() {
        assert_eq!(
            expander().words("$SPACES \"$SPACES\" a\\ b ''").unwrap(),
            ["x", "y", "x y", "a b", ""]
        );
        assert_eq!(
            split("a=\"b c\" d=e\\ f  'g h'", '\\'),
            ["a=\"b c\"", "d=e\\ f", "'g h'"]
        );
    }

    #[test]
    fn a_here_document_keeps_its_quotes() {
        assert_eq!(expander().text("'$A' \\$A \\n \"x\"").unwrap(), "'a' $A \\n \"x\"");
    }

    #[test]
    fn what_is_wrong_is_said_as_buildkit_says_it() {
        for (text, expected) in [
            ("${NONE:?}", "NONE: not allowed to be empty"),
            ("${NONE?}", "NONE: not set"),
            ("${NONE:?give one}", "NONE: give one"),
            ("${}", "syntax error: bad substitution"),
            ("${A", "syntax error: missing '}'"),
            ("${A:-x", "syntax error: missing '}'"),
            ("${A:=x}", "unsupported modifier (:=) in substitution"),
            ("${A^x}", "unsupported modifier (^) in substitution"),
            (
                "'x",
                "unexpected end of statement while looking for matching single-quote",
            ),
            (
                "\"x",
                "unexpected end of statement while looking for matching double-quote",
            ),
        ] {
            assert_eq!(expander().word(text).unwrap_err().to_string(), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\$\\{\\}:\\-\\+\\?#%/'\"\\\\ A-Ca\\*]{0,24}") {
            let _ = expander().word(&text);
            let _ = expander().words(&text);
            let _ = expander().text(&text);
        }
    }
}
