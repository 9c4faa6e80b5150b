//! `.dockerignore`: which files of a build's context stay behind.
//!
//! The rules are those of moby's patternmatcher: patterns of Go's `filepath.Match` with `**` besides, the last one
//! that matches wins, `!` takes files back in, and what holds for a directory holds for all below it.

/// Which files stay behind.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    takes_back: bool,
    tokens: Vec<Token>,
    /// The only path that the pattern matches, if it has no wildcard.
    literal: Option<String>,
}

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Letter(char),
    /// `?`: any letter but a slash.
    One,
    /// `*`: any letters but slashes.
    Star,
    /// `**` at the end: anything.
    Rest,
    /// `**` and a slash, any number of directories: this token and the next may be skipped,
    Directories,
    /// or this one reads them, up to a slash.
    Inside,
    /// `[a-z]`, `[^a]`.
    Class(bool, Vec<(char, char)>),
}

/// A line is no pattern.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("error checking context: syntax error in pattern: {0:?}")]
pub struct PatternError(pub String);

impl Ignore {
    /// Reads the text of an ignore file.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self::from_patterns(text.lines().filter(|line| !line.starts_with('#')))
    }

    /// Reads patterns, one each.
    pub fn from_patterns<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, PatternError> {
        let mut patterns = Vec::new();
        for line in lines {
            let line = line.trim();
            let (takes_back, pattern) = match line.strip_prefix('!') {
                Some(pattern) => (true, pattern.trim()),
                None => (false, line),
            };
            if pattern.is_empty() {
                continue;
            }
            let clean = cleaned(pattern);
            let pattern = clean.strip_prefix('/').unwrap_or(&clean);
            // The whole context cannot be left out.
            if pattern.is_empty() || pattern == "." {
                continue;
            }
            let tokens = tokens(pattern).ok_or_else(|| PatternError(line.to_owned()))?;
            patterns.push(Pattern::new(takes_back, tokens));
        }
        Ok(Self { patterns })
    }

    /// Takes a file back in, whatever the patterns say.
    pub fn always_include(&mut self, path: &str) {
        self.patterns
            .push(Pattern::new(true, path.chars().map(Token::Letter).collect()));
    }

    /// Returns whether the file at `path`, relative to the context, stays behind.
    pub fn excludes(&self, path: &str) -> bool {
        let mut excluded = false;
        for pattern in &self.patterns {
            // A pattern can only change what the ones before it said.
            if pattern.takes_back == excluded && pattern.matches_it_or_parent(path) {
                excluded = !pattern.takes_back;
            }
        }
        excluded
    }

    /// Returns whether nothing below the directory at `path` can come along, so that it need not be read.
    pub fn excludes_all_below(&self, path: &str) -> bool {
        self.excludes(path) && !self.patterns.iter().any(|pattern| pattern.takes_back)
    }
}

impl Pattern {
    fn new(takes_back: bool, tokens: Vec<Token>) -> Self {
        let letter = |token: &Token| match token {
            Token::Letter(letter) => Some(*letter),
            _ => None,
        };
        Self {
            takes_back,
            literal: tokens.iter().map(letter).collect(),
            tokens,
        }
    }

    fn matches_it_or_parent(&self, path: &str) -> bool {
        if let Some(literal) = &self.literal {
            let rest = path.strip_prefix(literal.as_str());
            return rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        }
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        ends.into_iter().any(|end| self.matches(&path[..end]))
    }

    /// Matches by keeping all places in the pattern where the text so far may have led: no pattern takes long.
    fn matches(&self, text: &str) -> bool {
        let mut places = vec![false; self.tokens.len() + 1];
        let mut next = places.clone();
        places[0] = true;
        self.skip(&mut places);
        for letter in text.chars() {
            next.fill(false);
            for (at, token) in self.tokens.iter().enumerate() {
                if !places[at] {
                    continue;
                }
                match token {
                    Token::Letter(expected) => next[at + 1] |= *expected == letter,
                    Token::One => next[at + 1] |= letter != '/',
                    Token::Star => next[at] |= letter != '/',
                    Token::Rest => next[at] = true,
                    Token::Directories => {}
                    Token::Inside => {
                        next[at] = true;
                        next[at + 1] |= letter == '/';
                    }
                    Token::Class(negated, ranges) => {
                        let inside = ranges.iter().any(|(first, last)| (*first..=*last).contains(&letter));
                        next[at + 1] |= inside != *negated && letter != '/';
                    }
                }
            }
            std::mem::swap(&mut places, &mut next);
            self.skip(&mut places);
        }
        places[self.tokens.len()]
    }

    /// Adds the places that are reached without reading a letter.
    fn skip(&self, places: &mut [bool]) {
        for (at, token) in self.tokens.iter().enumerate() {
            match token {
                _ if !places[at] => {}
                Token::Star | Token::Rest => places[at + 1] = true,
                Token::Directories => {
                    places[at + 1] = true;
                    places[at + 2] = true;
                }
                _ => {}
            }
        }
    }
}

/// Cleans a path as Go's `filepath.Clean`: no `.`, no doubled slashes, `..` taken out with what is before it.
fn cleaned(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if path.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    let clean = parts.join("/");
    if path.starts_with('/') {
        format!("/{clean}")
    } else {
        clean
    }
}

fn tokens(pattern: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        let token = match letter {
            '*' if letters.next_if_eq(&'*').is_some() => {
                letters.next_if_eq(&'/');
                if letters.peek().is_none() {
                    Token::Rest
                } else {
                    tokens.push(Token::Directories);
                    Token::Inside
                }
            }
            '*' => Token::Star,
            '?' => Token::One,
            '[' => class(&mut letters)?,
            '\\' => Token::Letter(letters.next()?),
            letter => Token::Letter(letter),
        };
        tokens.push(token);
    }
    Some(tokens)
}

fn class(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = letters.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let first = match letters.next()? {
            ']' if !ranges.is_empty() => return Some(Token::Class(negated, ranges)),
            ']' => return None,
            '\\' => letters.next()?,
            letter => letter,
        };
        let last = match letters.next_if_eq(&'-') {
            Some(_) => match letters.next()? {
                ']' => return None,
                '\\' => letters.next()?,
                letter => letter,
            },
            None => first,
        };
        ranges.push((first, last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pattern_that_matches_wins() {
        for (patterns, path, excluded) in [
            ("*.md", "README.md", true),
            ("*.md", "docs/README.md", false),
            ("**/*.md", "docs/README.md", true),
            ("**/*.md", "README.md", true),
            ("*.md\n!README.md", "README.md", false),
            ("!README.md\n*.md", "README.md", true),
            ("docs", "docs/a/b", true),
            ("docs/", "docs/a", true),
            ("/docs", "docs", true),
            ("docs/*", "docs", false),
            ("docs\n!docs/keep", "docs/keep", false),
            ("docs\n!docs/keep", "docs/other", true),
            ("*\n!src", "src/main.rs", false),
            ("*\n!src", "Cargo.toml", true),
            ("**", "a/b", true),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/bz", false),
            ("**/b", "ab", false),
            ("a**b", "ab", true),
            ("temp?", "tempa", true),
            ("temp?", "temp/", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("# comment\n", "# comment", false),
            ("  spaced  ", "spaced", true),
            (".", "a", false),
            ("./a/../b", "b", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
        ] {
            let ignore = Ignore::parse(patterns).unwrap();
            assert_eq!(ignore.excludes(path), excluded, "{patterns:?} {path}");
        }
    }

    #[test]
    fn a_bad_pattern_is_named() {
        assert_eq!(Ignore::parse("a\n[").unwrap_err(), PatternError("[".to_owned()));
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        let pattern = "*a".repeat(60);
        let ignore = Ignore::parse(&pattern).unwrap();
        assert!(!ignore.excludes(&"a".repeat(4000).replace("aaaa", "aaab")));
    }
}
