//! How a canonical tree becomes typed objects.
// compose-go decodes with mapstructure and a few hooks of its own; conversions and messages follow both.

use std::collections::BTreeMap;

use super::{
    Bytes, Command, DeviceCount, Duration, EnvFile, Environment, Extensions, FileMode, HealthTest, Hosts, Key,
    Required, SshKey, SshKeys, Ulimit, Value,
};
use crate::parallel::in_parts;
use crate::yaml::{Node, Span, Value as Yaml, go_format, go_quote, go_type};

/// Something that can be made of a node.
pub trait Decode: Sized {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self;

    /// Decodes a list of such values.
    fn decode_list<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Vec<Self> {
        match &node.value {
            Yaml::Sequence(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| at.indexed(index, item))
                .collect(),
            Yaml::Null => Vec::new(),
            _ => {
                let found = kind(node);
                at.fail(node, format!("source data must be an array or slice, got {found}"));
                Vec::new()
            }
        }
    }

    /// Decodes a mapping to such values.
    fn decode_map<'n>(node: &'n Node, at: &mut Decoder<'n>) -> BTreeMap<String, Self> {
        match &node.value {
            Yaml::Mapping(mapping) => {
                // Keys are small and services are not: sorted now, nothing large is moved later.
                let mut entries: Vec<(&str, &Node)> = mapping.iter().map(|(key, entry)| (key, &entry.node)).collect();
                entries.sort_unstable_by_key(|(key, _)| *key);
                let decoded = entries
                    .into_iter()
                    .map(|(key, node)| (key.to_owned(), at.keyed(key, node)));
                decoded.collect()
            }
            Yaml::Null => BTreeMap::new(),
            _ => {
                at.fail(node, format!("expected a map, got '{}'", kind(node)));
                BTreeMap::new()
            }
        }
    }

    /// Decodes a mapping in which a value may be missing.
    fn decode_optional_map<'n>(node: &'n Node, at: &mut Decoder<'n>) -> BTreeMap<String, Option<Self>> {
        match &node.value {
            Yaml::Mapping(mapping) => mapping
                .iter()
                .map(|(key, entry)| {
                    let value = (!entry.node.is_null()).then(|| at.keyed(key, &entry.node));
                    (key.to_owned(), value)
                })
                .collect(),
            Yaml::Sequence(items) => items.iter().map(|item| (text(item), None)).collect(),
            _ => BTreeMap::new(),
        }
    }
}

/// A value that did not fit, its place, and docker compose's words for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    pub path: String,
    pub message: String,
    pub span: Span,
}

enum Step<'n> {
    Field(&'static str),
    Key(&'n str),
    Index(usize),
}

/// Where decoding has got to, and what did not fit so far.
#[derive(Default)]
pub struct Decoder<'n> {
    path: Vec<Step<'n>>,
    pub errors: Vec<DecodeError>,
}

impl<'n> Decoder<'n> {
    /// Decodes the services, those of a large project at the same time.
    pub fn services<T: Decode + Send>(&mut self, root: &'n Node) -> BTreeMap<String, T> {
        const SECTION: &str = "services";
        let Some(mapping) = root.get(SECTION).and_then(Node::as_mapping) else {
            return self.section(root, SECTION);
        };
        let mut entries: Vec<(&str, &Node)> = mapping.iter().map(|(key, entry)| (key, &entry.node)).collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        let parts = in_parts(entries, |part| {
            let mut decoder = Decoder {
                path: vec![Step::Field(SECTION)],
                errors: Vec::new(),
            };
            let services = part.into_iter();
            let services = services.map(|(key, node)| (key.to_owned(), decoder.keyed(key, node)));
            (services.collect::<Vec<_>>(), decoder.errors)
        });
        // Sorted as they are, they fill the map's nodes; services are large, and half-empty nodes are memory to clear.
        let mut services = Vec::new();
        for (mut part, errors) in parts {
            match services.is_empty() {
                true => services = part,
                false => services.append(&mut part),
            }
            self.errors.extend(errors);
        }
        BTreeMap::from_iter(services)
    }

    /// Decodes a section of named entries, such as `networks`.
    pub fn section<T: Decode>(&mut self, root: &'n Node, name: &'static str) -> BTreeMap<String, T> {
        self.path.push(Step::Field(name));
        let section = match root.get(name) {
            Some(node) => BTreeMap::decode(node, self),
            None => BTreeMap::new(),
        };
        self.path.pop();
        section
    }

    /// Decodes an attribute of an object.
    pub fn field<T: Decode + Default>(&mut self, object: &'n Node, key: Key) -> T {
        let Some(node) = object.get(key.name) else {
            return T::default();
        };
        self.path.push(Step::Field(key.spoken_name));
        let value = T::decode(node, self);
        self.path.pop();
        value
    }

    /// Checks that a mapping holds text only; elsewhere other scalars are taken as text.
    fn strict_texts(&mut self, object: &'n Node, name: &'static str) {
        let Some(mapping) = object.get(name).and_then(Node::as_mapping) else {
            return;
        };
        self.path.push(Step::Field(name));
        for (key, entry) in mapping.iter() {
            let _: String = self.keyed(key, &entry.node);
        }
        self.path.pop();
    }

    /// Checks that a node can be an object at all.
    pub fn object(&mut self, node: &Node) {
        if node.as_mapping().is_none() && !node.is_null() {
            let message = format!("expected a map or struct, got {}", go_quote(kind(node)));
            self.fail(node, message);
        }
    }

    fn keyed<T: Decode>(&mut self, key: &'n str, node: &'n Node) -> T {
        self.path.push(Step::Key(key));
        let value = T::decode(node, self);
        self.path.pop();
        value
    }

    fn indexed<T: Decode>(&mut self, index: usize, node: &'n Node) -> T {
        self.path.push(Step::Index(index));
        let value = T::decode(node, self);
        self.path.pop();
        value
    }

    fn fail(&mut self, node: &Node, message: impl Into<String>) {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) if path.is_empty() => path.push_str(name),
                Step::Field(name) => {
                    path.push('.');
                    path.push_str(name);
                }
                Step::Key(key) => path.push_str(&format!("[{key}]")),
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        self.errors.push(DecodeError {
            path,
            message: message.into(),
            span: node.span,
        });
    }

    fn unconvertible<T: Default>(&mut self, node: &Node, wanted: &str) -> T {
        let message = format!("expected type '{wanted}', got unconvertible type '{}'", go_type(node));
        self.fail(node, message);
        T::default()
    }

    fn parsed<T: Default, E: std::fmt::Display>(&mut self, node: &Node, result: Result<T, E>) -> T {
        result.unwrap_or_else(|error| {
            self.fail(node, error.to_string());
            T::default()
        })
    }
}

fn kind(node: &Node) -> &'static str {
    match node.value {
        Yaml::Null => "invalid",
        Yaml::Timestamp(_) => "struct",
        Yaml::Sequence(_) => "slice",
        Yaml::Mapping(_) => "map",
        _ => go_type(node),
    }
}

/// A scalar as Go's `%v` prints it.
fn text(node: &Node) -> String {
    go_format(node)
}

impl Decode for String {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
        match &node.value {
            Yaml::String(text) => text.clone(),
            Yaml::Int(number) => number.to_string(),
            Yaml::Null => String::new(),
            _ => at.unconvertible(node, "string"),
        }
    }

    /// One text is a list of it.
    fn decode_list<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Vec<Self> {
        match &node.value {
            Yaml::Sequence(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| at.indexed(index, item))
                .collect(),
            Yaml::Null => Vec::new(),
            _ => vec![Self::decode(node, at)],
        }
    }

    /// A list of `KEY=VALUE` is a mapping too.
    fn decode_map<'n>(node: &'n Node, at: &mut Decoder<'n>) -> BTreeMap<String, Self> {
        pairs(node, at, false)
            .into_iter()
            .map(|(key, value)| (key, value.unwrap_or_default()))
            .collect()
    }

    fn decode_optional_map<'n>(node: &'n Node, at: &mut Decoder<'n>) -> BTreeMap<String, Option<Self>> {
        pairs(node, at, true)
    }
}

impl Decode for bool {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
        match &node.value {
            Yaml::Bool(value) => *value,
            Yaml::Null => false,
            Yaml::String(text) => match text.to_lowercase().as_str() {
                "true" | "yes" | "y" | "on" => true,
                "false" | "no" | "n" | "off" => false,
                _ => {
                    at.fail(node, format!("invalid boolean: {text}"));
                    false
                }
            },
            _ => at.unconvertible(node, "bool"),
        }
    }
}

/// Go's `strconv.ParseInt(text, 10, 64)`.
fn parse_int(text: &str, function: &str) -> Result<i64, String> {
    text.parse::<i64>().map_err(|error| {
        let reason = match error.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.{function}: parsing {}: {reason}", go_quote(text))
    })
}

impl Decode for i64 {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
        match &node.value {
            Yaml::Int(number) => *number as i64,
            Yaml::Float(number) => *number as i64,
            Yaml::Null => 0,
            Yaml::String(text) => {
                let parsed = parse_int(text, "ParseInt");
                at.parsed(node, parsed)
            }
            _ => at.unconvertible(node, "int64"),
        }
    }
}

macro_rules! decode_unsigned {
    ($($type:ty => $name:literal),*) => {$(
        impl Decode for $type {
            fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
                match &node.value {
                    Yaml::Int(number) if *number < 0 => {
                        at.fail(node, format!("cannot parse value as '{}': {number} overflows uint", $name));
                        0
                    }
                    Yaml::Int(number) => *number as $type,
                    Yaml::Float(number) => *number as $type,
                    Yaml::Null => 0,
                    _ => at.unconvertible(node, $name),
                }
            }
        }
    )*};
}
decode_unsigned!(u16 => "uint16", u32 => "uint32", u64 => "uint64");

impl Decode for f32 {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
        match &node.value {
            Yaml::Int(number) => *number as f32,
            Yaml::Float(number) => *number as f32,
            Yaml::Null => 0.0,
            Yaml::String(text) => {
                let parsed = text
                    .parse::<f32>()
                    .map_err(|_| format!("strconv.ParseFloat: parsing {}: invalid syntax", go_quote(text)));
                at.parsed(node, parsed)
            }
            _ => at.unconvertible(node, "float32"),
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
        if node.is_null() {
            return None;
        }
        Some(T::decode(node, at))
    }

    fn decode_map<'n>(node: &'n Node, at: &mut Decoder<'n>) -> BTreeMap<String, Self> {
        T::decode_optional_map(node, at)
    }
}

impl<T: Decode> Decode for Box<T> {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
        Box::new(T::decode(node, at))
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
        T::decode_list(node, at)
    }
}

impl<T: Decode> Decode for BTreeMap<String, T> {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
        T::decode_map(node, at)
    }
}

/// Reads `KEY=VALUE` lists and mappings; the value of a key without one is nothing. Names of variables must not end
/// in white space.
fn pairs(node: &Node, at: &mut Decoder<'_>, variables: bool) -> Environment {
    match &node.value {
        Yaml::Mapping(mapping) => mapping
            .iter()
            .map(|(key, entry)| {
                let value = (!entry.node.is_null()).then(|| text(&entry.node));
                (key.to_owned(), value)
            })
            .collect(),
        Yaml::Sequence(items) => items
            .iter()
            .map(|item| {
                let line = text(item);
                let (key, value) = match line.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (line, None),
                };
                if variables && key.ends_with(char::is_whitespace) {
                    let name = key.trim();
                    let message = format!("environment variable {name} is declared with a trailing space");
                    at.fail(node, message);
                }
                (key, value)
            })
            .collect(),
        Yaml::Null => Environment::new(),
        _ => {
            let message = format!("unexpected value type {} for mapping", go_type(node));
            at.fail(node, message);
            Environment::new()
        }
    }
}

impl Decode for HealthTest {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
        match node.as_str() {
            Some(line) => Self(vec!["CMD-SHELL".into(), line.into()]),
            None => Self(Vec::decode(node, at)),
        }
    }
}

impl Decode for DeviceCount {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
        match &node.value {
            Yaml::Int(number) => Self(*number as i64),
            Yaml::String(text) if text.to_lowercase() == "all" => Self(-1),
            Yaml::String(text) => {
                let parsed = text.parse().map_err(|_| {
                    let text = go_quote(text);
                    format!("invalid value {text}, the only value allowed is 'all' or a number")
                });
                Self(at.parsed(node, parsed))
            }
            Yaml::Null => Self(0),
            _ => {
                let found = go_type(node);
                at.fail(node, format!("invalid type {found} for device count"));
                Self(0)
            }
        }
    }
}

impl Decode for EnvFile {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
        Self {
            path: at.field(node, Key::new("path")),
            required: at.field(node, Key::new("required")),
            format: at.field(node, Key::new("format")),
        }
    }
}

impl Decode for Required {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
        Self(bool::decode(node, at))
    }
}

impl Decode for Duration {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
        let parsed = text(node).parse::<Duration>();
        at.parsed(node, parsed)
    }
}

impl Decode for Bytes {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
        match &node.value {
            Yaml::Int(number) => Self(*number as i64),
            Yaml::String(text) => {
                let parsed = text.parse::<Bytes>();
                at.parsed(node, parsed)
            }
            // docker compose takes no notice of anything else, such as a fraction.
            _ => Self(0),
        }
    }
}

impl Decode for FileMode {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
        match &node.value {
            Yaml::Int(number) => Self(*number as i64),
            Yaml::String(text) => {
                let parsed = text.parse::<FileMode>();
                at.parsed(node, parsed)
            }
            Yaml::Null => Self(0),
            _ => {
                let message = format!("unexpected value type {} for mode", go_type(node));
                at.fail(node, message);
                Self(0)
            }
        }
    }
}

impl Decode for Command {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
        match &node.value {
            Yaml::Null => Self(None),
            Yaml::String(line) => {
                let parsed = crate::file::words::split_words(line);
                Self(Some(at.parsed(node, parsed)))
            }
            _ => Self(Some(Vec::decode(node, at))),
        }
    }
}

impl Decode for Hosts {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
        let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        match &node.value {
            Yaml::Mapping(mapping) => {
                for (name, entry) in mapping.iter() {
                    let addresses = match &entry.node.value {
                        Yaml::Null => vec![String::new()],
                        Yaml::String(address) => vec![address.clone()],
                        Yaml::Sequence(items) => items.iter().map(text).collect(),
                        _ => {
                            let found = go_type(node);
                            at.fail(node, format!("unexpected value type {found} for extra_hosts entry"));
                            continue;
                        }
                    };
                    hosts.insert(name.to_owned(), addresses);
                }
            }
            Yaml::Sequence(items) => {
                for item in items {
                    let line = text(item);
                    match line.split_once('=').or_else(|| line.split_once(':')) {
                        Some((name, addresses)) => hosts
                            .entry(name.to_owned())
                            .or_default()
                            .extend(addresses.split(',').map(str::to_owned)),
                        None => {
                            let message = format!("invalid additional host, missing IP: {line}");
                            at.fail(item, message);
                        }
                    }
                }
            }
            Yaml::Null => {}
            _ => {
                let message = format!("unexpected value type {} for extra_hosts", go_type(node));
                at.fail(node, message);
            }
        }
        for (name, addresses) in &mut hosts {
            if name.is_empty() || name.contains([':', '=']) {
                at.fail(node, format!("bad host name '{name}'"));
            }
            for address in addresses {
                let bare = address
                    .strip_prefix('[')
                    .and_then(|rest| rest.strip_suffix(']'))
                    .filter(|bare| !bare.is_empty());
                if let Some(bare) = bare {
                    *address = bare.to_owned();
                }
            }
        }
        Self(hosts)
    }
}

impl Decode for SshKeys {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
        let mut keys: Vec<SshKey> = pairs(node, at, false)
            .into_iter()
            .map(|(id, path)| SshKey {
                id,
                path: path.unwrap_or_default(),
            })
            .collect();
        keys.sort_by(|left, right| left.id.cmp(&right.id));
        Self(keys)
    }
}

impl Decode for Ulimit {
    fn decode<'n>(node: &'n Node, at: &mut Decoder<'n>) -> Self {
        match &node.value {
            Yaml::Mapping(_) => Self {
                single: 0,
                soft: at.field(node, Key::new("soft")),
                hard: at.field(node, Key::new("hard")),
            },
            _ => Self {
                single: i64::decode(node, at),
                ..Self::default()
            },
        }
    }
}

/// Returns a point in time, as YAML allows it to be written, in the one form that Go prints.
fn rfc3339(text: &str) -> String {
    let (date, time) = match text.find(['T', 't', ' ', '\t']) {
        Some(end) => (&text[..end], text[end + 1..].trim_start()),
        None => (text, ""),
    };
    let padded = |text: &str, separator: char| -> String {
        let parts: Vec<String> = text.split(separator).map(|part| format!("{part:0>2}")).collect();
        parts.join(&separator.to_string())
    };
    let date = padded(date, '-');
    if time.is_empty() {
        return format!("{date}T00:00:00Z");
    }
    let zone_start = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at(zone_start);
    let (clock, fraction) = clock.trim_end().split_once('.').unwrap_or((clock.trim_end(), ""));
    let fraction = match fraction.trim_end_matches('0') {
        "" => String::new(),
        digits => format!(".{digits}"),
    };
    let zone = match zone {
        "" | "z" | "Z" => "Z".to_owned(),
        offset if offset.contains(':') => offset.to_owned(),
        offset => format!("{offset}:00"),
    };
    format!("{date}T{}{fraction}{zone}", padded(clock, ':'))
}

/// Decodes the attribute of a key; `x-` keys are collected from all over the object.
pub fn attribute<'n, T: Decode + Default>(key: Key, node: &'n Node, at: &mut Decoder<'n>) -> T {
    if key.is_extensions {
        return T::decode(node, at);
    }
    if key.is_strict {
        at.strict_texts(node, key.name);
    }
    at.field(node, key)
}

impl Decode for Value {
    fn decode<'n>(node: &'n Node, _: &mut Decoder<'n>) -> Self {
        plain(node)
    }

    /// Extensions are the only mappings to just anything.
    fn decode_map<'n>(node: &'n Node, _: &mut Decoder<'n>) -> Extensions {
        extensions(node)
    }
}

/// Collects the `x-` keys of an object.
pub fn extensions(node: &Node) -> Extensions {
    node.as_mapping()
        .into_iter()
        .flat_map(|mapping| mapping.iter())
        .filter(|(key, _)| key.starts_with("x-") && *key != super::FROM_ENVIRONMENT)
        .map(|(key, entry)| (key.to_owned(), plain(&entry.node)))
        .collect()
}

/// Returns a node's value without its places.
pub fn plain(node: &Node) -> Value {
    match &node.value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => Value::Bool(*value),
        Yaml::Int(number) => match i64::try_from(*number) {
            Ok(number) => Value::Int(number),
            Err(_) => u64::try_from(*number).map_or(Value::Float(*number as f64), Value::Uint),
        },
        Yaml::Float(number) => Value::Float(*number),
        Yaml::String(text) => Value::String(text.clone()),
        Yaml::Timestamp(text) => Value::Timestamp(rfc3339(text)),
        Yaml::Sequence(items) => Value::List(items.iter().map(plain).collect()),
        Yaml::Mapping(mapping) => Value::Map(
            mapping
                .iter()
                .map(|(key, entry)| (key.to_owned(), plain(&entry.node)))
                .collect(),
        ),
    }
}
