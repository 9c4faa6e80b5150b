//! The language of `$NAME` and `${NAME:-word}` inside a string.
//!
//! A template is parsed whole, then evaluated as far as needed: the word of `${A:-word}` is looked into only when it
//! is used, so `${A:-${B?must be set}}` asks for `B` only without `A`.

/// Why a string is no template, or has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `${` that begins no reference; carries the text around it.
    #[error("Invalid template: {}", crate::yaml::go_quote(.0))]
    Invalid(String),
    /// `${NAME?reason}` without a value for NAME.
    #[error("required variable {variable} is missing a value{}{reason}", if .reason.is_empty() { "" } else { ": " })]
    Required { variable: String, reason: String },
    /// Variables whose values are put together of each other grow beyond all bounds.
    #[error("the value is longer than {} MiB with its variables filled in", MAX_VALUE_BYTES >> 20)]
    TooLong,
}

/// How long a text may become: as long as a whole file.
pub const MAX_VALUE_BYTES: usize = crate::yaml::MAX_SOURCE_BYTES;

/// What an operator does with its word; `even_empty` is the colon: an empty variable counts as unset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `-`: the word stands in for a missing value.
    Default,
    /// `+`: the word replaces a value that is there.
    Alternate,
    /// `?`: the word says why there must be a value.
    Required,
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'t> {
    Text(&'t str),
    Reference(Reference<'t>),
}

/// A variable that a template asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference<'t> {
    /// The reference as it is written, `$` and braces included.
    pub text: &'t str,
    pub name: &'t str,
    pub word: Option<Word<'t>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word<'t> {
    pub operator: Operator,
    pub even_empty: bool,
    pub text: &'t str,
    pub parts: Vec<Part<'t>>,
}

/// Where values come from.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// How deep words may nest in words.
const MAX_NESTING: usize = 64;

/// Returns the pieces of a template.
///
/// # Errors
///
/// Refuses a `${` that begins no reference.
pub fn parse_template(template: &str) -> Result<Vec<Part<'_>>, TemplateError> {
    parse(template, MAX_NESTING)
}

fn parse(template: &str, nesting: usize) -> Result<Vec<Part<'_>>, TemplateError> {
    let mut parts = Vec::new();
    let mut text_start = 0;
    let mut position = 0;
    // compose-go quotes what it was looking at: the whole, or what follows a reference with an operator on its line.
    let mut quoted = 0..template.len();
    let mut line = Line::default();
    while let Some(dollar) = template[position..].find('$').map(|at| position + at) {
        let after = &template[dollar + 1..];
        if dollar >= quoted.end {
            quoted = 0..template.len();
        }
        let end = if after.starts_with('$') {
            push_text(&mut parts, &template[text_start..=dollar]);
            text_start = dollar + 2;
            position = dollar + 2;
            continue;
        } else if let Some(braced) = after.strip_prefix('{') {
            let invalid = || TemplateError::Invalid(template[quoted.clone()].to_owned());
            let name = &braced[..name_length(braced)];
            let behind = &braced[name.len()..];
            if name.is_empty() || nesting == 0 {
                return Err(invalid());
            }
            push_text(&mut parts, &template[text_start..dollar]);
            let name_end = dollar + 2 + name.len();
            let (end, word) = if behind.starts_with('}') {
                (name_end + 1, None)
            } else {
                let (operator, even_empty) = operator(behind).ok_or_else(invalid)?;
                let word_start = name_end + 1 + usize::from(even_empty);
                line.reach(template, word_start);
                let (word_end, line_end) = line.word_end(template, word_start).ok_or_else(invalid)?;
                quoted = word_end + 1..line_end + 1;
                let text = &template[word_start..word_end];
                let parts = parse(text, nesting - 1)?;
                let word = Word {
                    operator,
                    even_empty,
                    text,
                    parts,
                };
                (word_end + 1, Some(word))
            };
            parts.push(Part::Reference(Reference {
                text: &template[dollar..end],
                name,
                word,
            }));
            end
        } else {
            let name = &after[..name_length(after)];
            if name.is_empty() {
                position = dollar + 1;
                continue;
            }
            push_text(&mut parts, &template[text_start..dollar]);
            let end = dollar + 1 + name.len();
            parts.push(Part::Reference(Reference {
                text: &template[dollar..end],
                name,
                word: None,
            }));
            end
        };
        text_start = end;
        position = end;
    }
    push_text(&mut parts, &template[text_start..]);
    Ok(parts)
}

fn push_text<'t>(parts: &mut Vec<Part<'t>>, text: &'t str) {
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
}

/// Returns the length of the name at the start of a text: `[_a-zA-Z][_a-zA-Z0-9]*`, or 0.
fn name_length(text: &str) -> usize {
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return 0;
    }
    text.bytes()
        .take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        .count()
}

fn operator(text: &str) -> Option<(Operator, bool)> {
    let (even_empty, text) = match text.strip_prefix(':') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let operator = match text.as_bytes().first()? {
        b'-' => Operator::Default,
        b'+' => Operator::Alternate,
        b'?' => Operator::Required,
        _ => return None,
    };
    Some((operator, even_empty))
}

/// The line that is being looked at: found once for all references on it.
#[derive(Default)]
struct Line {
    end: usize,
    last_brace: Option<usize>,
}

impl Line {
    /// Moves on to the line that `position` is on.
    fn reach(&mut self, template: &str, position: usize) {
        if position < self.end {
            return;
        }
        let rest = &template[position..];
        let line = rest.split('\n').next().unwrap_or(rest);
        self.end = position + line.len();
        self.last_brace = line.rfind('}').map(|at| position + at);
    }

    /// Returns where the brace stands that ends a word, and the last brace of the line.
    ///
    /// Braces inside the word count in pairs; if they do not pair up, the last one of the line ends the word.
    fn word_end(&self, template: &str, word_start: usize) -> Option<(usize, usize)> {
        let last = self.last_brace.filter(|&last| last >= word_start)?;
        let mut open = 1_usize;
        for (at, byte) in template[word_start..self.end].bytes().enumerate() {
            match byte {
                b'{' => open += 1,
                b'}' => {
                    open -= 1;
                    if open == 0 {
                        return Some((word_start + at, last));
                    }
                }
                _ => {}
            }
        }
        Some((last, last))
    }
}

/// Returns a template's value; `unset` hears of each variable that is used, has no value and no word for that.
///
/// # Errors
///
/// Refuses what is no template, and a required variable without a value.
pub fn substitute(
    template: &str,
    lookup: &Lookup<'_>,
    unset: &mut dyn FnMut(&Reference<'_>),
) -> Result<String, TemplateError> {
    let parts = parse_template(template)?;
    let mut value = String::with_capacity(template.len());
    evaluate(&parts, lookup, unset, &mut value)?;
    Ok(value)
}

fn evaluate(
    parts: &[Part<'_>],
    lookup: &Lookup<'_>,
    unset: &mut dyn FnMut(&Reference<'_>),
    value: &mut String,
) -> Result<(), TemplateError> {
    for part in parts {
        if value.len() > MAX_VALUE_BYTES {
            return Err(TemplateError::TooLong);
        }
        let reference = match part {
            Part::Text(text) => {
                value.push_str(text);
                continue;
            }
            Part::Reference(reference) => reference,
        };
        let found = lookup(reference.name);
        let Some(word) = &reference.word else {
            match found {
                Some(found) => value.push_str(&found),
                None => unset(reference),
            }
            continue;
        };
        let present = found.filter(|found| !(word.even_empty && found.is_empty()));
        match (word.operator, present) {
            (Operator::Default | Operator::Required, Some(found)) => value.push_str(&found),
            (Operator::Default, None) | (Operator::Alternate, Some(_)) => {
                evaluate(&word.parts, lookup, unset, value)?;
            }
            (Operator::Alternate, None) => {}
            (Operator::Required, None) => {
                let mut reason = String::new();
                evaluate(&word.parts, lookup, unset, &mut reason)?;
                return Err(TemplateError::Required {
                    variable: reference.name.to_owned(),
                    reason,
                });
            }
        }
    }
    match value.len() > MAX_VALUE_BYTES {
        true => Err(TemplateError::TooLong),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(template: &str) -> String {
        let lookup = |name: &str| match name {
            "FOO" => Some("first".to_owned()),
            "BAR" => Some(String::new()),
            _ => None,
        };
        let mut missing = Vec::new();
        let value = substitute(template, &lookup, &mut |reference| {
            missing.push(reference.name.to_owned());
        });
        let value = match value {
            Ok(value) => value,
            Err(TemplateError::Invalid(text)) => format!("invalid {text}"),
            Err(error) => error.to_string(),
        };
        match missing.is_empty() {
            true => value,
            false => format!("{value} unset {}", missing.join(",")),
        }
    }

    #[test]
    fn references_become_values() {
        for (template, expected) in [
            ("$", "$"),
            ("a$", "a$"),
            ("$$FOO", "$FOO"),
            ("$${FOO}", "${FOO}"),
            ("$FOO$$", "first$"),
            ("$FOO-bar", "first-bar"),
            ("$1 $-x $(y) $É", "$1 $-x $(y) $É"),
            ("é${FOO}é", "éfirsté"),
            ("${U}", " unset U"),
            ("${FOO:-x}", "first"),
            ("${BAR-x}", ""),
            ("${BAR:-x}", "x"),
            ("${U:-${V:-${FOO}}}", "first"),
            ("${BAR+x}", "x"),
            ("${BAR:+x}", ""),
            ("${U+x}", ""),
            ("${FOO:?x}", "first"),
            ("${U?}", "required variable U is missing a value"),
            ("${BAR:?no $FOO}", "required variable BAR is missing a value: no first"),
            ("${U:-{\"a\":1}}", "{\"a\":1}"),
            ("${U:-{}}${FOO}", "{}first"),
            ("${FOO:-x} }}}", "first }}}"),
            ("${U:- x }", " x "),
            ("${U-:-b}", ":-b"),
            ("${FOO}\n${BAR}", "first\n"),
        ] {
            assert_eq!(value(template), expected, "{template:?}");
        }
    }

    #[test]
    fn a_word_that_is_not_used_is_not_looked_into() {
        assert_eq!(value("${FOO:-${U?must be set}}"), "first");
        assert_eq!(value("${U:+${V}}"), "");
    }

    #[test]
    fn what_is_no_template_is_quoted_as_compose_go_quotes_it() {
        for (template, expected) in [
            ("${", "invalid ${"),
            ("${ FOO}", "invalid ${ FOO}"),
            ("a ${FOO!} b", "invalid a ${FOO!} b"),
            ("${FOO", "invalid ${FOO"),
            ("${FOO:-${BAR}", "invalid ${BAR"),
            ("${U:-a\nb}", "invalid ${U:-a\nb}"),
            ("${U:-a} ${ } b}", "invalid  ${ } b}"),
        ] {
            assert_eq!(value(template), expected, "{template:?}");
        }
        assert!(value(&"${A:-".repeat(1000)).starts_with("invalid"));
        assert!(value(&("${A:-".repeat(1000) + &"}".repeat(1000))).starts_with("invalid"));
        assert_eq!(value(&"${FOO:-x}".repeat(100_000)).len(), 500_000);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[A$${}:?+\\-\\n é]{0,24}|\\PC*") {
            let _ = value(&text);
        }

        #[test]
        fn text_with_doubled_dollars_comes_back(text in "\\PC*") {
            let template = text.replace('$', "$$");
            let back = substitute(&template, &|_| None, &mut |_| {});
            proptest::prop_assert_eq!(back, Ok(text));
        }
    }
}
