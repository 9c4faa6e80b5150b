//! Writes YAML exactly as go-yaml v3 does with an indentation of two, so that `config` prints what docker compose
//! prints, byte for byte: which texts are quoted and how, when a block is used, where lists stand.

use std::borrow::Cow;

use super::scalar::resolve_plain;
use super::{Node, Value, format_float};
use crate::parallel::{MANY, in_parts};

/// Something that can be written as YAML.
pub trait Tree: Sized {
    /// Returns what the value is, without what is in it.
    fn view(&self) -> View<'_>;
    /// Returns what is in a list.
    fn items(&self) -> impl Iterator<Item = &Self>;
    /// Returns what is in a map, in the order in which it is written.
    fn entries(&self) -> impl Iterator<Item = (&str, &Self)>;
}

/// One level of a [`Tree`].
pub enum View<'a> {
    Null,
    Bool(bool),
    /// A whole number, or another text that is to stand as it is.
    Plain(Cow<'a, str>),
    Float(f64),
    Text(&'a str),
    /// A list or a map, with how many entries it has.
    List(usize),
    Map(usize),
}

impl Tree for Node {
    fn view(&self) -> View<'_> {
        match &self.value {
            Value::Null => View::Null,
            Value::Bool(value) => View::Bool(*value),
            Value::Int(number) => View::Plain(number.to_string().into()),
            Value::Float(number) => View::Float(*number),
            Value::String(text) => View::Text(text),
            Value::Timestamp(text) => View::Plain(text.into()),
            Value::Sequence(items) => View::List(items.len()),
            Value::Mapping(mapping) => View::Map(mapping.len()),
        }
    }

    fn items(&self) -> impl Iterator<Item = &Self> {
        self.as_sequence().into_iter().flatten()
    }

    fn entries(&self) -> impl Iterator<Item = (&str, &Self)> {
        let entries = self.as_mapping().into_iter().flat_map(super::Mapping::iter);
        entries.map(|(key, entry)| (key, &entry.node))
    }
}

/// Returns a document, ended by a line break.
pub fn write<T: Tree + Sync>(root: &T) -> String {
    let mut writer = Writer { out: String::new() };
    match root.view() {
        View::List(1..) => writer.list(root, 0, false),
        View::Map(1..) => writer.map(root, 0, false),
        view => {
            writer.scalar(&view, 0);
            writer.end_line();
        }
    }
    writer.out
}

/// How wide a level of nesting is.
const INDENT: usize = 2;

/// The longest key that may stand before its colon on one line.
const SIMPLE_KEY_BYTES: usize = 128;

struct Writer {
    out: String,
}

impl Writer {
    fn pad(&mut self, width: usize) {
        const BLANKS: &str = "                                ";
        match BLANKS.get(..width) {
            Some(blanks) => self.out.push_str(blanks),
            None => self.out.extend(std::iter::repeat_n(' ', width)),
        }
    }

    /// Ends the line, unless a block of text has ended it already.
    fn end_line(&mut self) {
        if !self.out.ends_with('\n') {
            self.out.push('\n');
        }
    }

    /// Writes entries at `indent`; the first one's padding is there already if `inline`.
    fn map<T: Tree + Sync>(&mut self, map: &T, indent: usize, inline: bool) {
        let entries = map.entries().enumerate();
        let padded = entries.map(|(index, (key, value))| (index > 0 || !inline, key, value));
        if !matches!(map.view(), View::Map(MANY..)) {
            self.entries(padded, indent);
            return;
        }
        let parts = in_parts(padded.collect(), |part| {
            let mut writer = Writer { out: String::new() };
            writer.entries(part, indent);
            writer.out
        });
        self.out.reserve(parts.iter().map(String::len).sum());
        self.out.extend(parts);
    }

    fn entries<'v, T: Tree + Sync + 'v>(
        &mut self,
        entries: impl IntoIterator<Item = (bool, &'v str, &'v T)>,
        indent: usize,
    ) {
        for (padded, key, value) in entries {
            if padded {
                self.pad(indent);
            }
            if key.len() <= SIMPLE_KEY_BYTES && !key.contains(is_break) {
                self.text(key, true, indent);
                self.out.push(':');
                self.value(value, indent, false);
            } else {
                self.out.push_str("? ");
                self.text(key, false, indent);
                self.end_line();
                self.pad(indent);
                self.out.push(':');
                self.value(value, indent, true);
            }
        }
    }

    fn list<T: Tree + Sync>(&mut self, list: &T, indent: usize, inline: bool) {
        for (index, item) in list.items().enumerate() {
            if index > 0 || !inline {
                self.pad(indent);
            }
            self.out.push('-');
            self.value(item, indent, true);
        }
    }

    /// Writes what follows `key:` or `-`; a collection begins on the same line if `compact`.
    fn value<T: Tree + Sync>(&mut self, value: &T, indent: usize, compact: bool) {
        let view = value.view();
        let nested = matches!(view, View::List(1..) | View::Map(1..));
        self.out.push(if nested && !compact { '\n' } else { ' ' });
        match &view {
            View::List(1..) => self.list(value, indent + INDENT, compact),
            View::Map(1..) => self.map(value, indent + INDENT, compact),
            view => {
                self.scalar(view, indent);
                self.end_line();
            }
        }
    }

    fn scalar(&mut self, view: &View<'_>, indent: usize) {
        match view {
            View::Null => self.out.push_str("null"),
            View::Bool(true) => self.out.push_str("true"),
            View::Bool(false) => self.out.push_str("false"),
            View::Plain(text) => self.out.push_str(text),
            View::Float(number) => match format_float(*number).as_str() {
                "+Inf" => self.out.push_str(".inf"),
                "-Inf" => self.out.push_str("-.inf"),
                "NaN" => self.out.push_str(".nan"),
                digits => self.out.push_str(digits),
            },
            View::Text(value) => self.text(value, false, indent),
            View::List(_) => self.out.push_str("[]"),
            View::Map(_) => self.out.push_str("{}"),
        }
    }

    fn text(&mut self, value: &str, is_key: bool, indent: usize) {
        match is_plainly_text(value) {
            true => self.out.push_str(value),
            false => self.out.push_str(&text(value, is_key, indent)),
        }
    }
}

/// Says whether a text can stand as it is, as far as one look at each byte can tell. Names, paths and addresses can.
fn is_plainly_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    // Short words may be booleans or null, whose longest are as long as `false`.
    let is_word = bytes.len() <= 5 && bytes.iter().all(u8::is_ascii_alphabetic);
    let begins = matches!(bytes.first(), Some(b'a'..=b'z' | b'A'..=b'Z' | b'/' | b'_'));
    let is_safe =
        |byte: &u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'/' | b'=');
    // A colon means something where a blank or nothing follows.
    let mut pairs = bytes.iter().zip(bytes.iter().skip(1).chain([&b' ']));
    begins && !is_word && pairs.all(|(byte, next)| is_safe(byte) || (*byte == b':' && is_safe(next)))
}

fn is_break(character: char) -> bool {
    matches!(character, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// What go-yaml takes for printable; nothing outside the basic plane is.
fn is_printable(character: char) -> bool {
    matches!(character, '\n' | ' '..='~' | '\u{A0}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}') && character != '\u{FEFF}'
}

/// Returns a text in the style that go-yaml gives it; a block is indented by one level more than `indent`.
fn text(text: &str, is_key: bool, indent: usize) -> String {
    let allowed = Allowed::of(text);
    if text.contains('\n') {
        return match allowed.block && !is_key {
            true => block(text, indent + INDENT),
            false => double_quoted(text),
        };
    }
    let reads_as_text = matches!(resolve_plain(text), Value::String(_));
    // As a key, this text would merge; go-yaml forgets that.
    let merges = is_key && text == "<<";
    if merges || !reads_as_text || is_base_60(text) || is_old_boolean(text) {
        double_quoted(text)
    } else if allowed.plain {
        text.to_owned()
    } else if allowed.single_quoted {
        format!("'{}'", text.replace('\'', "''"))
    } else {
        double_quoted(text)
    }
}

/// The styles in which a text survives.
struct Allowed {
    plain: bool,
    single_quoted: bool,
    block: bool,
}

impl Allowed {
    // libyaml emitter: yaml_emitter_analyze_scalar, outside flow collections.
    fn of(text: &str) -> Self {
        let (mut indicators, mut breaks, mut special, mut tabs) = (false, false, false, false);
        let (mut space_break, mut break_space) = (false, false);
        let mut previous: Option<char> = None;
        let mut characters = text.chars().peekable();
        indicators |= text.starts_with("---") || text.starts_with("...");
        while let Some(character) = characters.next() {
            let blank_follows = matches!(characters.peek(), None | Some(' ' | '\t'));
            indicators |= match (character, previous) {
                ('?' | ':' | '-', None) => blank_follows,
                (
                    '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`',
                    None,
                ) => true,
                (':', Some(_)) => blank_follows,
                ('#', Some(previous)) => matches!(previous, ' ' | '\t') || is_break(previous),
                _ => false,
            };
            tabs |= character == '\t';
            special |= character != '\t' && !is_printable(character);
            breaks |= is_break(character);
            space_break |= previous == Some(' ') && is_break(character);
            break_space |= character == ' ' && previous.is_some_and(is_break);
            // A separator line break that something follows would not be read back from quotes or a block.
            special |= matches!(previous, Some('\u{2028}' | '\u{2029}'));
            previous = Some(character);
        }
        let edge = |edge: Option<char>| edge.is_some_and(|edge| edge == ' ' || is_break(edge));
        let edges = edge(text.chars().next()) || edge(text.chars().next_back());
        Self {
            plain: !(indicators || edges || breaks || tabs || special || space_break || break_space),
            single_quoted: !(tabs || special || space_break || break_space),
            block: !(text.ends_with(' ') || special || space_break),
        }
    }
}

/// Says whether YAML 1.1 would read a number to the base of 60, like `22:22`.
fn is_base_60(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let mut groups = whole.split(':');
    let first = groups.next().unwrap_or("");
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let mut sexagesimal = 0;
    let fits = groups.all(|group| {
        sexagesimal += 1;
        match group.as_bytes() {
            [digit] => digit.is_ascii_digit(),
            [b'0'..=b'5', digit] => digit.is_ascii_digit(),
            _ => false,
        }
    });
    let first_fits = first.starts_with(|digit: char| digit.is_ascii_digit()) && digits(first);
    first_fits && fits && sexagesimal > 0 && digits(fraction)
}

/// Says whether YAML 1.1 would read a boolean.
fn is_old_boolean(text: &str) -> bool {
    matches!(
        text,
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF"
    )
}

fn double_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        let short = match character {
            '\0' => "\\0",
            '\u{7}' => "\\a",
            '\u{8}' => "\\b",
            '\t' => "\\t",
            '\n' => "\\n",
            '\u{b}' => "\\v",
            '\u{c}' => "\\f",
            '\r' => "\\r",
            '\u{1b}' => "\\e",
            '"' => "\\\"",
            '\\' => "\\\\",
            '\u{85}' => "\\N",
            '\u{2028}' => "\\L",
            '\u{2029}' => "\\P",
            '\u{A0}' if text.starts_with('\u{FEFF}') => "\\_",
            // go-yaml takes every character for the mark when a text begins with one.
            _ if is_printable(character) && !text.starts_with('\u{FEFF}') => {
                quoted.push(character);
                continue;
            }
            _ => "",
        };
        let code = u32::from(character);
        match code {
            _ if !short.is_empty() => quoted.push_str(short),
            0..=0xFF => quoted.push_str(&format!("\\x{code:02X}")),
            0x100..=0xFFFF => quoted.push_str(&format!("\\u{code:04X}")),
            _ => quoted.push_str(&format!("\\U{code:08X}")),
        }
    }
    quoted.push('"');
    quoted
}

/// Returns a text as a literal block, with an indicator for its own indentation and for its last line breaks.
fn block(text: &str, indent: usize) -> String {
    let mut block = String::from("|");
    if text.starts_with([' ', '\n']) {
        block.push_str(&INDENT.to_string());
    }
    match text.strip_suffix('\n') {
        None => block.push('-'),
        Some(rest) if rest.is_empty() || rest.ends_with('\n') => block.push('+'),
        Some(_) => {}
    }
    block.push('\n');
    for line in text.split_inclusive('\n') {
        if line != "\n" {
            block.extend(std::iter::repeat_n(' ', indent));
        }
        block.push_str(line);
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{Mapping, SourceId, Sources, Span, parse};
    use proptest::prelude::*;

    fn read(text: &str) -> Node {
        let mut sources = Sources::new();
        let id = sources.add("c.yaml", text);
        parse(&mut sources, id).unwrap().remove(0)
    }

    #[test]
    fn texts_are_quoted_as_go_yaml_quotes_them() {
        for (value, expected) in [
            ("a b", "a b"),
            ("a: b", "'a: b'"),
            ("a:b", "a:b"),
            ("#x", "'#x'"),
            ("x #y", "'x #y'"),
            ("x#y", "x#y"),
            ("yes", "\"yes\""),
            ("n", "\"n\""),
            ("1", "\"1\""),
            ("0777", "\"0777\""),
            ("12:30", "\"12:30\""),
            ("~", "\"~\""),
            ("", "\"\""),
            ("2001-01-01", "\"2001-01-01\""),
            ("'q'", "'''q'''"),
            ("-", "'-'"),
            ("-x", "-x"),
            ("--a", "--a"),
            ("---", "'---'"),
            ("=", "="),
            ("<<", "<<"),
            ("?x", "?x"),
            ("a\tb", "\"a\\tb\""),
            (" a", "' a'"),
            ("\\", "\\"),
            ("\u{1}", "\"\\x01\""),
            ("a]", "a]"),
            ("é", "é"),
            ("false", "\"false\""),
            ("Null", "\"Null\""),
            ("a:", "'a:'"),
            ("a:b:", "'a:b:'"),
            ("/a:/b:ro", "/a:/b:ro"),
        ] {
            assert_eq!(text(value, false, 0), expected, "{value:?}");
        }
    }

    #[test]
    fn what_is_plainly_text_is_written_as_it_is() {
        for value in ["busybox:latest", "/src/a.b", "A=b", "_x", "falsey", "a1", "s10-x"] {
            assert!(is_plainly_text(value), "{value:?}");
        }
        for value in [
            "", "no", "y", "true", "Null", "1", "a:", ":a", "a b", "a: b", "-a", ".a", "=", "=a", "a#b",
        ] {
            assert!(!is_plainly_text(value), "{value:?}");
        }
    }

    #[test]
    fn collections_and_blocks_stand_where_go_yaml_puts_them() {
        let document = "\
a:
  - b: 1
    c:
      - x
      - - w
        - z
  - |-
    l1

    l2
  - - []
    - {}
d: |
  text
e: |2+
   lead

f: null
g:
  h: 1.5
";
        assert_eq!(write(&read(document)), document);
        assert_eq!(write(&read("{}")), "{}\n");
        assert_eq!(write(&read("[a, {b: c}]")), "- a\n- b: c\n");
        let long = "k".repeat(129);
        assert_eq!(
            write(&read(&format!("\"{long}\": {{a: 1, b: 2}}"))),
            format!("? {long}\n: a: 1\n  b: 2\n")
        );
    }

    fn node(value: Value, source: SourceId) -> Node {
        Node::new(value, Span::new(source, 0, 0))
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let source = Sources::new().add("", "");
        let text = prop_oneof![
            "\\PC{0,12}",
            "[ \\n\\t:#'\"a\\-?,|>y1.&*!%@`\\[\\]{}\u{85}\u{2028}é😀\r\u{feff}]{0,12}",
        ];
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|number| Value::Int(number.into())),
            any::<f64>()
                .prop_filter("NaN is unequal to itself", |number| number.is_finite())
                .prop_map(Value::Float),
            text.clone().prop_map(Value::String),
        ];
        scalar.prop_recursive(4, 32, 4, move |inner| {
            let list = prop::collection::vec(inner.clone(), 0..4);
            let map = prop::collection::vec((text.clone(), inner), 0..4);
            prop_oneof![
                list.prop_map(move |items| {
                    Value::Sequence(items.into_iter().map(|item| node(item, source)).collect())
                }),
                map.prop_map(move |entries| {
                    let mut mapping = Mapping::new();
                    for (key, value) in entries {
                        mapping.insert(key, Span::new(source, 0, 0), node(value, source));
                    }
                    Value::Mapping(mapping)
                }),
            ]
        })
    }

    /// Whole numbers among floats are written without a fraction, as Go writes them, and read back as integers.
    fn same(left: &Value, right: &Value) -> bool {
        match (left, right) {
            (Value::Float(left), Value::Int(right)) => *left == *right as f64,
            (Value::Sequence(left), Value::Sequence(right)) => {
                left.len() == right.len()
                    && left
                        .iter()
                        .zip(right)
                        .all(|(left, right)| same(&left.value, &right.value))
            }
            (Value::Mapping(left), Value::Mapping(right)) => {
                left.len() == right.len()
                    && left
                        .iter()
                        .zip(right.iter())
                        .all(|((key, left), (other, right))| key == other && same(&left.node.value, &right.node.value))
            }
            _ => left == right,
        }
    }

    proptest! {
        #[test]
        fn what_is_plainly_text_is_so_at_a_second_look(value in "[a-zA-Z0-9_/.=:-]{0,7}", is_key: bool) {
            if is_plainly_text(&value) {
                prop_assert_eq!(text(&value, is_key, 0), value);
            }
        }

        #[test]
        fn what_is_written_reads_back(value in any_value()) {
            let source = Sources::new().add("", "");
            let written = write(&node(value.clone(), source));
            let mut sources = Sources::new();
            let id = sources.add("c.yaml", written.as_str());
            let read = parse(&mut sources, id);
            let Ok(read) = read else {
                return Err(TestCaseError::fail(format!("{written:?} {read:?}")));
            };
            prop_assert!(same(&value, &read[0].value), "{:?}\n{}\n{:?}", value, written, read[0].value);
        }
    }
}
