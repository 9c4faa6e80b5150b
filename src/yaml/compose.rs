//! Raw documents become [`Node`] trees: aliases and merges resolved, keys checked, scalars given their values.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::events::{self, Document, Extract, RawId, RawKind};
use super::scalar::{self, ScalarStyle};
use super::{Diagnostic, Diagnostics, Mapping, Node, SourceId, Sources, Span, Value, parts, syntax};

/// How deep a document may nest, aliases expanded.
pub const MAX_DEPTH: usize = 256;

/// How many values a file may have, aliases expanded.
pub const MAX_NODES: usize = 400_000;

/// How many values all files together may have: they may include each other many times.
const MAX_NODES_OF_ALL: usize = 4 * MAX_NODES;

/// How large a source may be.
pub const MAX_SOURCE_BYTES: usize = 16 << 20;

/// Reads a YAML stream and returns the root of each document.
///
/// # Errors
///
/// Reports everything that is wrong: a syntax error alone, since nothing after it can be trusted; otherwise all
/// duplicate keys, then all scalars and keys that do not fit, as docker compose would meet them.
pub fn parse(sources: &mut Sources, id: SourceId) -> Result<Vec<Node>, Diagnostics> {
    let stream = parse_stream(sources, id);
    match stream.failure {
        None => Ok(stream.documents),
        Some(failure) => Err(failure.named(sources, id)),
    }
}

/// A YAML stream as far as it could be read.
pub struct Stream {
    /// The documents before the first that is wrong.
    pub documents: Vec<Node>,
    pub failure: Option<Failure>,
}

/// Why a stream cannot be read to its end.
pub struct Failure {
    /// Whether it is no YAML; its message does not name the source then.
    pub is_syntax: bool,
    pub diagnostics: Diagnostics,
}

impl Failure {
    /// Returns what is wrong, with the source's name in it.
    pub fn named(mut self, sources: &Sources, id: SourceId) -> Diagnostics {
        if self.is_syntax {
            for diagnostic in &mut self.diagnostics.0 {
                name_source(sources, id, diagnostic);
            }
        }
        self.diagnostics
    }
}

/// Reads a YAML stream as [`parse`] does, and keeps what comes before the first thing that is wrong: documents are
/// looked at one by one, and an earlier one may be wrong in another way.
pub fn parse_stream(sources: &mut Sources, id: SourceId) -> Stream {
    let mut left = MAX_NODES.min(MAX_NODES_OF_ALL.saturating_sub(sources.values));
    if let Some((root, built)) = parts::read(sources, id, left) {
        sources.values += built;
        return Stream {
            documents: vec![root],
            failure: None,
        };
    }
    let before = left;
    let (documents, broken) = read(sources, id);
    let mut found = Vec::new();
    let mut roots = Vec::new();
    let mut unprefixed = Vec::new();
    for document in documents {
        let mut composer = Composer::new(&document, left, 0);
        let root = composer.node(document.root);
        left -= composer.built.min(left);
        let exhausted = composer.exhausted;
        for diagnostic in &mut composer.structure {
            name_lines(sources, diagnostic);
        }
        found.append(&mut composer.structure);
        found.append(&mut composer.values);
        unprefixed.append(&mut composer.keys);
        if found.is_empty() && unprefixed.is_empty() {
            roots.extend(root);
        }
        if exhausted {
            break;
        }
    }
    sources.values += before - left;
    for diagnostic in &mut found {
        name_source(sources, id, diagnostic);
    }
    found.append(&mut unprefixed);
    let failure = match (found.is_empty(), broken) {
        (true, None) => None,
        (true, Some(diagnostics)) => Some(Failure {
            is_syntax: true,
            diagnostics,
        }),
        (false, _) => Some(Failure {
            is_syntax: false,
            diagnostics: Diagnostics(found),
        }),
    };
    Stream {
        documents: roots,
        failure,
    }
}

fn name_source(sources: &Sources, id: SourceId, diagnostic: &mut Diagnostic) {
    diagnostic.message = format!("failed to parse {}: {}", sources.name(id), diagnostic.message);
}

/// Completes the message about a duplicate key with the two lines, which only the source knows.
fn name_lines(sources: &Sources, diagnostic: &mut Diagnostic) {
    if let (Some(span), Some((first, _))) = (diagnostic.span, diagnostic.related.first()) {
        let (line, _) = sources.position(span);
        let (first, _) = sources.position(*first);
        diagnostic.message = format!("line {line}: {} at line {first}", diagnostic.message);
    }
}

fn read(sources: &Sources, id: SourceId) -> (Vec<Document<'_>>, Option<Diagnostics>) {
    let text = sources.text(id);
    if text.len() > MAX_SOURCE_BYTES {
        let limit = MAX_SOURCE_BYTES >> 20;
        let diagnostic = Diagnostic::error(format!("yaml: file is larger than {limit} MiB"));
        return (Vec::new(), Some(diagnostic.into()));
    }
    if let Some(diagnostic) = syntax::forbidden_character(id, text) {
        return (Vec::new(), Some(diagnostic.into()));
    }
    let whole = Extract {
        source: id,
        text,
        start: 0,
        depth: 0,
    };
    events::read(whole, MAX_NODES)
}

/// A part of a source.
pub(super) struct Read {
    pub root: Node,
    /// How many values it has, aliases expanded, and how many nodes as it is written.
    pub built: usize,
    pub raw: usize,
}

/// Reads a part of a source that stands inside so many collections; nothing unless it is one document and right.
pub(super) fn read_range(
    sources: &Sources,
    id: SourceId,
    range: Range<usize>,
    limit: usize,
    depth: usize,
) -> Option<Read> {
    let whole = sources.text(id);
    let text = whole.get(range.clone())?;
    if whole.len() > MAX_SOURCE_BYTES || syntax::forbidden_character(id, text).is_some() {
        return None;
    }
    let extract = Extract {
        source: id,
        text,
        start: range.start,
        depth,
    };
    let (documents, None) = events::read(extract, MAX_NODES) else {
        return None;
    };
    let [document] = documents.as_slice() else {
        return None;
    };
    let mut composer = Composer::new(document, limit, depth);
    let root = composer.node(document.root)?;
    let is_right = composer.structure.is_empty() && composer.values.is_empty() && composer.keys.is_empty();
    is_right.then_some(Read {
        root,
        built: composer.built,
        raw: document.nodes.len(),
    })
}

/// What a key turned out to be.
enum Key {
    Text(String),
    Merge,
    /// A number, a boolean, null or a date, as Go would print it.
    Other(String),
}

/// The keys of a mapping as they are written, and where.
#[derive(Default)]
struct Defined<'d> {
    few: Vec<(&'d str, Span)>,
    many: HashMap<&'d str, Span>,
}

impl<'d> Defined<'d> {
    /// Adds a key; returns where it stands already.
    fn add(&mut self, key: &'d str, span: Span) -> Option<Span> {
        if self.many.is_empty() && self.few.len() < 16 {
            let known = self.few.iter().find(|(name, _)| *name == key);
            if let Some(&(_, first)) = known {
                return Some(first);
            }
            self.few.push((key, span));
            return None;
        }
        self.many.extend(self.few.drain(..));
        match self.many.entry(key) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(place) => {
                place.insert(span);
                None
            }
        }
    }
}

struct Composer<'d> {
    document: &'d Document<'d>,
    /// The keys and positions that lead to the value at hand.
    path: Vec<PathPart<'d>>,
    /// The collections around the value at hand, with the length of the path that leads to each.
    open: Vec<(RawId, usize)>,
    /// How many values were made, and how many may be.
    built: usize,
    limit: usize,
    /// How many collections are around the document.
    depth: usize,
    exhausted: bool,
    /// Places already complained about: an alias leads to the same place again.
    seen: HashSet<(u32, u32)>,
    structure: Vec<Diagnostic>,
    values: Vec<Diagnostic>,
    keys: Vec<Diagnostic>,
}

#[derive(Clone, Copy)]
enum PathPart<'d> {
    Key(&'d str),
    Index(usize),
}

impl<'d> Composer<'d> {
    fn new(document: &'d Document<'d>, limit: usize, depth: usize) -> Self {
        Self {
            document,
            path: Vec::new(),
            open: Vec::new(),
            built: 0,
            limit,
            depth,
            exhausted: false,
            seen: HashSet::new(),
            structure: Vec::new(),
            values: Vec::new(),
            keys: Vec::new(),
        }
    }

    /// Builds a node; nothing if it cannot be, and then a diagnostic says why.
    fn node(&mut self, id: RawId) -> Option<Node> {
        let document = self.document;
        let raw = &document.nodes[id];
        if self.exhausted {
            return None;
        }
        if self.depth + self.path.len() > MAX_DEPTH {
            return self.exhaust(format!("yaml: exceeded max depth of {MAX_DEPTH}"), raw.span);
        }
        self.built += 1;
        if self.built > self.limit {
            return self.exhaust("yaml: document contains excessive aliasing".into(), raw.span);
        }
        let value = match &raw.kind {
            RawKind::Alias(target) => {
                let cycle = self.open.iter().find(|(open, _)| open == target);
                return match cycle {
                    Some(&(_, start)) => self.cycle(start, raw.span),
                    None => self.node(*target),
                };
            }
            RawKind::Scalar { text, style } => match scalar::resolve(text, *style, raw.core_tag) {
                Ok(value) => value,
                Err(error) => {
                    if self.is_new(raw.span) {
                        let diagnostic = Diagnostic::error(error.to_string()).at(raw.span);
                        self.values.push(diagnostic);
                    }
                    return None;
                }
            },
            RawKind::Sequence(items) => {
                self.open.push((id, self.path.len()));
                let items = items.iter().enumerate().filter_map(|(index, &item)| {
                    self.path.push(PathPart::Index(index));
                    let item = self.node(item);
                    self.path.pop();
                    item
                });
                let items = items.collect();
                self.open.pop();
                Value::Sequence(items)
            }
            RawKind::Mapping(entries) => {
                self.open.push((id, self.path.len()));
                let mapping = self.mapping(entries);
                self.open.pop();
                Value::Mapping(mapping)
            }
        };
        Some(Node {
            value,
            span: raw.span,
            tag: raw.tag,
        })
    }

    fn mapping(&mut self, entries: &[(RawId, RawId)]) -> Mapping {
        let mut mapping = Mapping::with_capacity(entries.len());
        let mut defined = Defined::default();
        let mut merge = None;
        for &(key_id, value_id) in entries {
            let key_span = self.document.nodes[key_id].span;
            let Some((written, key)) = self.key(key_id) else {
                continue;
            };
            if let Some(first) = defined.add(written, key_span) {
                self.duplicate(written, key_span, first);
                continue;
            }
            match key {
                Key::Merge => merge = Some(value_id),
                Key::Text(text) => {
                    self.path.push(PathPart::Key(written));
                    let node = self.node(value_id);
                    self.path.pop();
                    if let Some(node) = node {
                        mapping.insert(text, key_span, node);
                    }
                }
                Key::Other(shown) => self.non_string_key(&shown, key_span),
            }
        }
        if let Some(value_id) = merge {
            self.merge(value_id, &mut mapping);
        }
        mapping
    }

    /// Adds what `<<` brings in: keys the mapping does not have itself, the first of several mappings winning.
    fn merge(&mut self, value_id: RawId, mapping: &mut Mapping) {
        let target = self.follow(value_id);
        let parts = match &self.document.nodes[target].kind {
            RawKind::Sequence(items) => items.clone(),
            _ => vec![value_id],
        };
        for part in parts {
            let raw = &self.document.nodes[self.follow(part)];
            if !matches!(raw.kind, RawKind::Mapping(_)) {
                let span = self.document.nodes[part].span;
                if self.is_new(span) {
                    let text = "yaml: map merge requires map or sequence of maps as the value";
                    self.values.push(Diagnostic::error(text).at(span));
                }
                continue;
            }
            self.path.push(PathPart::Key("<<"));
            let merged = self.node(part);
            self.path.pop();
            let Some(Node {
                value: Value::Mapping(merged),
                ..
            }) = merged
            else {
                continue;
            };
            for (key, entry) in merged {
                if !mapping.contains_key(&key) {
                    mapping.insert(key, entry.key_span, entry.node);
                }
            }
        }
    }

    /// Returns what an alias stands for, or the node itself.
    fn follow(&self, id: RawId) -> RawId {
        match self.document.nodes[id].kind {
            RawKind::Alias(target) => target,
            _ => id,
        }
    }

    /// Returns a key as it is written, for telling duplicates, and what it means.
    fn key(&mut self, id: RawId) -> Option<(&'d str, Key)> {
        let document = self.document;
        let raw = &document.nodes[self.follow(id)];
        let RawKind::Scalar { text, style } = &raw.kind else {
            let span = self.document.nodes[id].span;
            let shown = self.node(id).map(|node| go_syntax(&node.value))?;
            if self.is_new(span) {
                let message = format!("yaml: invalid map key: {shown}");
                let diagnostic = Diagnostic::error(message)
                    .at(span)
                    .help("a text that begins with a bracket must be put in quotes");
                self.values.push(diagnostic);
            }
            return None;
        };
        if text == "<<" && *style == ScalarStyle::Plain && raw.core_tag.is_none() {
            return Some((text, Key::Merge));
        }
        let key = match scalar::resolve(text, *style, raw.core_tag) {
            Ok(Value::String(text)) => Key::Text(text),
            Ok(value) => Key::Other(go_syntax(&value)),
            Err(error) => {
                let diagnostic = Diagnostic::error(error.to_string()).at(raw.span);
                self.values.push(diagnostic);
                return None;
            }
        };
        Some((text, key))
    }

    /// Says whether a place is complained about for the first time.
    fn is_new(&mut self, span: Span) -> bool {
        self.seen.insert((span.start, span.end))
    }

    fn exhaust(&mut self, message: String, span: Span) -> Option<Node> {
        self.exhausted = true;
        self.structure.clear();
        self.structure.push(Diagnostic::error(message).at(span));
        None
    }

    fn duplicate(&mut self, key: &str, span: Span, first: Span) {
        if !self.is_new(span) {
            return;
        }
        let message = format!("mapping key {} already defined", go_quote(key));
        let mut diagnostic = Diagnostic::error(message)
            .at(span)
            .label("defined again here")
            .related(first, "first defined here");
        if key == "<<" {
            diagnostic = diagnostic.help("merge several mappings as one list: `<<: [*a, *b]`");
        }
        self.structure.push(diagnostic);
    }

    fn non_string_key(&mut self, shown: &str, span: Span) {
        if !self.is_new(span) {
            return;
        }
        let mut place = String::new();
        for part in &self.path {
            match part {
                PathPart::Index(index) => place.push_str(&format!("[{index}]")),
                PathPart::Key("<<") => {}
                PathPart::Key(key) => {
                    if !place.is_empty() {
                        place.push('.');
                    }
                    place.push_str(key);
                }
            }
        }
        let place = if place.is_empty() {
            "at top level".to_owned()
        } else {
            format!("in {place}")
        };
        let diagnostic = Diagnostic::error(format!("non-string key {place}: {shown}"))
            .at(span)
            .help("put the key in quotes");
        self.keys.push(diagnostic);
    }

    /// Reports an alias inside the node that it stands for, which begins `start` steps down the path.
    fn cycle(&mut self, start: usize, span: Span) -> Option<Node> {
        if self.is_new(span) {
            // compose-go loader/reset.go meets the anchor a second time below the alias, and says so.
            let steps = |path: &[PathPart<'_>]| -> Vec<String> {
                let names = path.iter().filter_map(|part| match part {
                    PathPart::Key("<<") => None,
                    PathPart::Key(key) => Some((*key).to_owned()),
                    PathPart::Index(index) => Some(index.to_string()),
                });
                names.collect()
            };
            let first = steps(&self.path);
            let second = [first.clone(), steps(&self.path[start..])].concat();
            let message = format!(
                "cycle detected: node at path {} references node at path {}",
                second.join("."),
                first.join(".")
            );
            let diagnostic = Diagnostic::error(message)
                .at(span)
                .label("this alias stands for a node that contains it");
            self.structure.push(diagnostic);
        }
        None
    }
}

/// Returns a value inside a collection as Go's `%#v` prints it.
fn go_syntax_inside(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        value => go_syntax(value),
    }
}

/// Returns a value as Go's `%#v` prints it.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => go_quote(text),
        Value::Timestamp(text) => scalar::go_time(text),
        Value::Sequence(items) => {
            let items: Vec<String> = items.iter().map(|item| go_syntax_inside(&item.value)).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Mapping(mapping) => {
            let mut entries: Vec<String> = mapping
                .iter()
                .map(|(key, entry)| format!("{}:{}", go_quote(key), go_syntax_inside(&entry.node.value)))
                .collect();
            entries.sort();
            format!("map[string]interface {{}}{{{}}}", entries.join(", "))
        }
        scalar => scalar.to_text().unwrap_or_default(),
    }
}

/// Returns a text as Go's `%q` prints it.
pub(crate) fn go_quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            control if u32::from(control) < 0x20 || control == '\u{7f}' => {
                quoted.push_str(&format!("\\x{:02x}", u32::from(control)));
            }
            other if other.is_ascii() || is_printable(other) => quoted.push(other),
            other if u32::from(other) <= 0xFFFF => quoted.push_str(&format!("\\u{:04x}", u32::from(other))),
            other => quoted.push_str(&format!("\\U{:08x}", u32::from(other))),
        }
    }
    quoted.push('"');
    quoted
}

/// Says whether Go prints a character as it is; the standard library goes by the same classes of characters, and
/// treats only the first of a text specially.
fn is_printable(character: char) -> bool {
    !format!("{:?}", format!("x{character}")).contains('\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Tag;

    fn load(text: &str) -> Result<Vec<Node>, Vec<String>> {
        let mut sources = Sources::new();
        let id = sources.add("c.yaml", text);
        parse(&mut sources, id).map_err(|found| {
            let messages = found.0.iter().map(|diagnostic| {
                let message = diagnostic.message.replace("failed to parse c.yaml: ", "~");
                match diagnostic.span {
                    Some(span) => {
                        let (line, column) = sources.position(span);
                        format!("{line}:{column} {message}")
                    }
                    None => message,
                }
            });
            messages.collect()
        })
    }

    fn value(text: &str) -> String {
        match load(text) {
            Ok(documents) => documents
                .iter()
                .map(|node| go_syntax(&node.value).replace("interface {}", "any"))
                .collect::<Vec<_>>()
                .join(" --- "),
            Err(messages) => messages.join(" | "),
        }
    }

    #[test]
    fn scalars_follow_go_yaml() {
        for (text, expected) in [
            ("yes", "\"yes\""),
            ("True", "true"),
            ("~", "<nil>"),
            ("0777", "511"),
            ("0o777", "511"),
            ("08", "8"),
            ("0x1F", "31"),
            ("0b101", "5"),
            ("1_000", "1000"),
            ("+1", "1"),
            ("-0", "0"),
            ("00", "0"),
            ("22:22", "\"22:22\""),
            ("1.10", "1.1"),
            ("1e3", "1000"),
            ("100000000.0", "1e+08"),
            ("12345678.9", "1.23456789e+07"),
            ("1e21", "1e+21"),
            ("685230.15", "685230.15"),
            ("0.00001", "1e-05"),
            ("18446744073709551615", "18446744073709551615"),
            ("18446744073709551616", "1.8446744073709552e+19"),
            (".inf", "+Inf"),
            (".nan", "NaN"),
            ("._5", "\"._5\""),
            ("1e", "\"1e\""),
            ("++1", "\"++1\""),
            ("!!str 1", "\"1\""),
            ("!local 5", "\"5\""),
            ("!!binary aGk=", "\"hi\""),
            ("!!float 1", "1"),
            ("\"1\"", "\"1\""),
            ("!!bool yes", "1:8 ~yaml: cannot decode !!str `yes` as a !!bool"),
            ("2001-1-2", "time.Date(2001, time.January, 2, 0, 0, 0, 0, time.UTC)"),
            ("2001-02-30", "\"2001-02-30\""),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn a_merge_fills_in_what_the_mapping_does_not_say() {
        let text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {z: 9, <<: [*a, *b]}\n";
        let documents = load(text).unwrap();
        assert_eq!(
            go_syntax(&documents[0].get("c").unwrap().value),
            r#"map[string]interface {}{"x":1, "y":2, "z":9}"#
        );
        assert_eq!(
            value("a: {<<: , b: 2}"),
            "1:7 ~yaml: map merge requires map or sequence of maps as the value"
        );
        assert_eq!(
            value("x: &x {k: 1}\na: {\"<<\": *x}"),
            r#"map[string]any{"a":map[string]any{"<<":map[string]any{"k":1}}, "x":map[string]any{"k":1}}"#
        );
    }

    #[test]
    fn all_duplicate_keys_are_reported_with_both_lines() {
        let text = "a:\n  b: 1\n  'b': 2\na: 3\n";
        assert_eq!(
            load(text).unwrap_err(),
            [
                "3:3 ~line 3: mapping key \"b\" already defined at line 2",
                "4:1 ~line 4: mapping key \"a\" already defined at line 1"
            ]
        );
    }

    #[test]
    fn a_key_that_is_not_text_is_named_with_its_path() {
        assert_eq!(
            value("services:\n  s:\n    - 1: v\n"),
            "3:7 non-string key in services.s[0]: 1"
        );
        assert_eq!(value("1: v"), "1:1 non-string key at top level: 1");
        assert_eq!(value("[a]: v"), "1:1 ~yaml: invalid map key: []interface {}{\"a\"}");
    }

    #[test]
    fn an_alias_inside_its_own_anchor_is_a_cycle() {
        assert_eq!(
            value("x-a: &a {b: *a}"),
            "1:13 ~cycle detected: node at path x-a.b.b references node at path x-a.b"
        );
        assert_eq!(
            value("x-h: &h\n  e:\n    <<: *h\n"),
            "3:9 ~cycle detected: node at path x-h.e.e references node at path x-h.e"
        );
    }

    #[test]
    fn reset_and_override_are_kept_and_other_local_tags_dropped() {
        let documents = load("a: !reset null\nb: !override [1]\nc: !other {d: 1}\n").unwrap();
        assert_eq!(documents[0].get("a").unwrap().tag, Some(Tag::Reset));
        assert_eq!(documents[0].get("b").unwrap().tag, Some(Tag::Override));
        assert_eq!(documents[0].get("c").unwrap().tag, None);
    }

    #[test]
    fn documents_come_one_by_one_and_an_empty_one_is_null() {
        assert_eq!(value("a\n---\nb\n"), "\"a\" --- \"b\"");
        assert_eq!(value("a\n---\n"), "\"a\" --- <nil>");
        assert_eq!(value(""), "");
        assert_eq!(value("# nothing\n"), "");
        assert_eq!(value("\u{feff}a"), "\"a\"");
    }

    #[test]
    fn bombs_and_abysses_are_refused_quickly() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for level in 1..12 {
            let alias = format!("*a{},", level - 1).repeat(9);
            bomb.push_str(&format!("a{level}: &a{level} [{alias}]\n"));
        }
        let started = std::time::Instant::now();
        assert!(value(&bomb).contains("document contains excessive aliasing"));
        assert!(value(&"[".repeat(10_000)).contains("exceeded max depth"));
        assert!(value(&"a: {".repeat(10_000)).contains("exceeded max depth"));
        let steps: String = (0..10_000).map(|depth| " ".repeat(depth) + "a:\n").collect();
        assert!(value(&steps).contains("file is larger") || value(&steps).contains("max depth"));
        assert!(value(&"a".repeat(100 << 20)).contains("file is larger"));
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }

    #[test]
    fn control_characters_are_refused() {
        assert_eq!(value("a: \"x\u{0}\""), "1:6 ~yaml: control characters are not allowed");
    }

    #[test]
    fn syntax_errors_speak_as_go_yaml_does() {
        for (text, expected) in [
            ("s:\n  a:\n    i: i\n   c: x\n", "line 1: did not find expected key"),
            ("s:\n  k: @x\n", "line 2: found character that cannot start any token"),
            ("x: {k: @x}\n", "found character that cannot start any token"),
            (
                "s:\n  k: a: b\n",
                "line 2: mapping values are not allowed in this context",
            ),
            ("s:\n  k: [a\n", "line 1: did not find expected ',' or ']'"),
            ("s:\n  k: {a\n", "line 1: did not find expected ',' or '}'"),
            ("x: {k: a: b}\ns: 1\n", "did not find expected ',' or '}'"),
            ("x: {k: a #c}\ns:\n  k: 1\n", "line 1: did not find expected ',' or '}'"),
            ("x: {k: a]}\ns: 1\n", "did not find expected ',' or '}'"),
            ("x: {k: [a}\ns: 1\n", "did not find expected ',' or ']'"),
            ("x: {k: {a}\ns:\n  k: 1\n", "line 1: did not find expected ',' or '}'"),
            (
                "s:\n  k: - a\n",
                "line 2: block sequence entries are not allowed in this context",
            ),
            ("x: {k: - a}\ns: 1\n", "did not find expected node content"),
            ("s:\n  k: ? a\n", "line 2: mapping keys are not allowed in this context"),
            ("s:\n  k: |\n  l1\n  l2\n", "line 3: could not find expected ':'"),
            ("s:\n  k: plain\n  multi\n", "line 3: could not find expected ':'"),
            ("s:\n\tk: v\n", "line 2: found character that cannot start any token"),
            ("s:\n  k: *x\n", "unknown anchor 'x' referenced"),
            (
                "{\n  \"s\": {\n    \"w\": {\"i\": \"n\" \"c\": 1}\n  }\n}\n",
                "line 2: did not find expected ',' or '}'",
            ),
            ("s:\n  w: {i: n, c: [a}\n", "line 1: did not find expected ',' or ']'"),
            ("%YAML 1.2\n---\na: 1\n", "found incompatible YAML document"),
            ("s:\n  k: \"abc\n", "line 2: found unexpected end of stream"),
            ("s:\n  k: \"\\q\"\n", "line 2: found unknown escape character"),
        ] {
            let found = load(text).unwrap_err();
            let found = found[0].split_once("~yaml: ").map_or("", |(_, found)| found);
            assert_eq!(found, expected, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a: \\-?\\[\\]{},&*!|>'\"%@`#\\n\\t<~1é]{0,40}|\\PC*") {
            let _ = load(&text);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
            let mut sources = Sources::new();
            if let Ok(id) = sources.add_bytes("c.yaml", bytes) {
                let _ = parse(&mut sources, id);
            }
        }
    }
}
