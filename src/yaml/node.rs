//! The tree that the loader works on: values with their places.

use indexmap::IndexMap;

use super::Span;

/// A value and where it was written.
///
/// Equality compares values and tags only, so that the same text in two places is equal.
#[derive(Clone, Debug)]
pub struct Node {
    pub value: Value,
    pub span: Span,
    pub tag: Option<Tag>,
}

/// The tags that mean something to Compose; every other local tag is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// `!reset`: what earlier files say about this attribute is forgotten.
    Reset,
    /// `!override`: this value replaces what earlier files say instead of merging with it.
    Override,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    /// Any of go-yaml's `int`, `int64` and `uint64`.
    Int(i128),
    Float(f64),
    String(String),
    /// `2001-01-01` and its like, as written; no attribute of Compose accepts one.
    Timestamp(String),
    Sequence(Vec<Node>),
    Mapping(Mapping),
}

/// A value under a key, and where the key was written.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key_span: Span,
    pub node: Node,
}

/// String keys to values, in the order they were written.
#[derive(Clone, Debug)]
pub struct Mapping {
    entries: Entries,
}

/// How the entries are kept. Nearly all mappings of a Compose file are short, and a short list is searched faster than
/// a table; many services make a long one.
#[derive(Clone, Debug)]
enum Entries {
    Few(Vec<(String, Entry)>),
    Many(Box<IndexMap<String, Entry>>),
}

/// How many entries are searched one by one.
const FEW: usize = 16;

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value && self.tag == other.tag
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node
    }
}

impl Node {
    pub fn new(value: Value, span: Span) -> Self {
        Self { value, span, tag: None }
    }

    pub fn string(text: impl Into<String>, span: Span) -> Self {
        Self::new(Value::String(text.into()), span)
    }

    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self.value {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub fn as_int(&self) -> Option<i128> {
        match self.value {
            Value::Int(value) => Some(value),
            _ => None,
        }
    }

    pub fn as_sequence(&self) -> Option<&[Node]> {
        match &self.value {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_sequence_mut(&mut self) -> Option<&mut Vec<Node>> {
        match &mut self.value {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_mapping(&self) -> Option<&Mapping> {
        match &self.value {
            Value::Mapping(mapping) => Some(mapping),
            _ => None,
        }
    }

    pub fn as_mapping_mut(&mut self) -> Option<&mut Mapping> {
        match &mut self.value {
            Value::Mapping(mapping) => Some(mapping),
            _ => None,
        }
    }

    /// Returns the value under `key`, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_mapping()?.get(key)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.as_mapping_mut()?.get_mut(key)
    }
}

impl Value {
    /// Returns a scalar as Go's `%v` prints it, which is how Compose turns one into text; nothing for a collection.
    pub fn to_text(&self) -> Option<String> {
        match self {
            Self::Null => Some(String::new()),
            Self::Bool(value) => Some(value.to_string()),
            Self::Int(value) => Some(value.to_string()),
            Self::Float(value) => Some(super::format_float(*value)),
            Self::String(text) | Self::Timestamp(text) => Some(text.clone()),
            Self::Sequence(_) | Self::Mapping(_) => None,
        }
    }
}

impl Mapping {
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns an empty mapping with room for some entries.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            entries: match capacity {
                0..=FEW => Entries::Few(Vec::with_capacity(capacity)),
                _ => Entries::Many(Box::new(IndexMap::with_capacity(capacity))),
            },
        }
    }

    pub fn len(&self) -> usize {
        match &self.entries {
            Entries::Few(entries) => entries.len(),
            Entries::Many(entries) => entries.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        let entry = match &mut self.entries {
            Entries::Few(entries) => entries
                .iter_mut()
                .find(|(name, _)| same(name, key))
                .map(|(_, entry)| entry),
            Entries::Many(entries) => entries.get_mut(key),
        };
        entry.map(|entry| &mut entry.node)
    }

    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.entries {
            Entries::Few(entries) => entries.iter().find(|(name, _)| same(name, key)).map(|(_, entry)| entry),
            Entries::Many(entries) => entries.get(key),
        }
    }

    /// Puts a value under a key: in its place if the key is known, else at the end.
    pub fn insert(&mut self, key: impl Into<String>, key_span: Span, node: Node) -> Option<Entry> {
        let (key, entry) = (key.into(), Entry { key_span, node });
        match &mut self.entries {
            Entries::Few(entries) => {
                if let Some((_, known)) = entries.iter_mut().find(|(name, _)| same(name, &key)) {
                    return Some(std::mem::replace(known, entry));
                }
                if entries.len() < FEW {
                    entries.push((key, entry));
                } else {
                    let mut many: IndexMap<_, _> = std::mem::take(entries).into_iter().collect();
                    many.insert(key, entry);
                    self.entries = Entries::Many(Box::new(many));
                }
                None
            }
            Entries::Many(entries) => entries.insert(key, entry),
        }
    }

    /// Takes a key out; the order of the others stays.
    pub fn remove(&mut self, key: &str) -> Option<Entry> {
        match &mut self.entries {
            Entries::Few(entries) => {
                let place = entries.iter().position(|(name, _)| name == key)?;
                Some(entries.remove(place).1)
            }
            Entries::Many(entries) => entries.shift_remove(key),
        }
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Entry) -> bool) {
        match &mut self.entries {
            Entries::Few(entries) => entries.retain_mut(|(key, entry)| keep(key, entry)),
            Entries::Many(entries) => entries.retain(|key, entry| keep(key, entry)),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        let (few, many) = match &self.entries {
            Entries::Few(entries) => (Some(entries), None),
            Entries::Many(entries) => (None, Some(entries)),
        };
        let few = few.into_iter().flatten().map(|(key, entry)| (key.as_str(), entry));
        let many = many.into_iter().flat_map(|entries| entries.iter());
        few.chain(many.map(|(key, entry)| (key.as_str(), entry)))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Entry)> {
        let (few, many) = match &mut self.entries {
            Entries::Few(entries) => (Some(entries), None),
            Entries::Many(entries) => (None, Some(entries)),
        };
        let few = few.into_iter().flatten().map(|(key, entry)| (key.as_str(), entry));
        let many = many.into_iter().flat_map(|entries| entries.iter_mut());
        few.chain(many.map(|(key, entry)| (key.as_str(), entry)))
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(key, _)| key)
    }
}

/// Compares keys. Most that are as long differ in how they begin, and to see that is cheaper than a call.
fn same(left: &str, right: &str) -> bool {
    left.len() == right.len() && left.as_bytes().first() == right.as_bytes().first() && left == right
}

impl Default for Mapping {
    fn default() -> Self {
        Self {
            entries: Entries::Few(Vec::new()),
        }
    }
}

/// As everywhere, the order of entries does not tell mappings apart.
impl PartialEq for Mapping {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(key, entry)| other.entry(key) == Some(entry))
    }
}

impl IntoIterator for Mapping {
    type Item = (String, Entry);
    type IntoIter = Box<dyn Iterator<Item = (String, Entry)>>;

    fn into_iter(self) -> Self::IntoIter {
        match self.entries {
            Entries::Few(entries) => Box::new(entries.into_iter()),
            Entries::Many(entries) => Box::new(entries.into_iter()),
        }
    }
}

impl FromIterator<(String, Entry)> for Mapping {
    fn from_iter<I: IntoIterator<Item = (String, Entry)>>(entries: I) -> Self {
        let mut mapping = Self::new();
        for (key, entry) in entries {
            mapping.insert(key, entry.key_span, entry.node);
        }
        mapping
    }
}
