//! How a typed object becomes a tree of values: which attribute is left out when, and under which name it appears.

use std::collections::BTreeMap;

use super::Value;
use super::value::natural_order;
use crate::parallel::{MANY, in_parts};

/// Which of docker compose's two outputs a tree is made for; they leave out different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// What is hashed, and what `config --format json` prints: without extensions.
    Json,
    Yaml,
}

/// When an attribute is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Omit {
    Empty,
    /// Left out of YAML when empty, always there in JSON.
    EmptyInYaml,
    Never,
    /// Not printed at all: known only inside the process.
    Always,
}

/// The name of an attribute and the rules of printing it.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub name: &'static str,
    /// Where docker compose writes another name into JSON.
    pub json_name: &'static str,
    /// What messages call it: some attributes are known to docker compose's decoder by another name.
    pub spoken_name: &'static str,
    pub omit: Omit,
    pub is_extensions: bool,
    /// Whether a mapping may hold text only.
    pub is_strict: bool,
}

impl Key {
    /// The `x-` keys, which stand beside the attributes.
    pub const EXTENSIONS: Key = Key {
        name: "",
        json_name: "",
        spoken_name: "",
        omit: Omit::Empty,
        is_extensions: true,
        is_strict: false,
    };

    /// An attribute that is left out when empty.
    pub const fn new(name: &'static str) -> Key {
        Key {
            name,
            json_name: name,
            spoken_name: name,
            omit: Omit::Empty,
            is_extensions: false,
            is_strict: false,
        }
    }

    /// The same, but always there in JSON.
    pub const fn kept_in_json(mut self) -> Key {
        self.omit = Omit::EmptyInYaml;
        self
    }

    /// The same, but always there.
    pub const fn kept(mut self) -> Key {
        self.omit = Omit::Never;
        self
    }

    /// The same, for a mapping to text in which numbers and the like are refused.
    pub const fn strict(mut self) -> Key {
        self.is_strict = true;
        self
    }

    /// The same, but never printed.
    pub const fn hidden(mut self) -> Key {
        self.omit = Omit::Always;
        self
    }

    /// The same, with another name in messages.
    pub const fn spoken_as(mut self, name: &'static str) -> Key {
        self.spoken_name = name;
        self
    }

    /// The same, with another name in JSON.
    pub const fn in_json(mut self, name: &'static str) -> Key {
        self.json_name = name;
        self
    }
}

/// Something that can be printed as a value.
pub trait Emit {
    /// Tells whether `omitempty` would leave it out.
    fn is_empty(&self) -> bool;
    /// Returns the value to print.
    fn emit(&self, dialect: Dialect) -> Value;
}

impl Emit for String {
    fn is_empty(&self) -> bool {
        self.as_str().is_empty()
    }
    fn emit(&self, _: Dialect) -> Value {
        Value::String(self.clone())
    }
}

impl Emit for bool {
    fn is_empty(&self) -> bool {
        !self
    }
    fn emit(&self, _: Dialect) -> Value {
        Value::Bool(*self)
    }
}

macro_rules! emit_integer {
    ($($type:ty => $variant:ident),*) => {$(
        impl Emit for $type {
            fn is_empty(&self) -> bool {
                *self == 0
            }
            fn emit(&self, _: Dialect) -> Value {
                Value::$variant((*self).into())
            }
        }
    )*};
}
emit_integer!(i64 => Int, u16 => Uint, u32 => Uint, u64 => Uint);

impl Emit for f32 {
    fn is_empty(&self) -> bool {
        *self == 0.0
    }
    fn emit(&self, _: Dialect) -> Value {
        Value::Float32(*self)
    }
}

impl Emit for Value {
    fn is_empty(&self) -> bool {
        *self == Value::Null
    }
    fn emit(&self, dialect: Dialect) -> Value {
        match self {
            Value::List(items) => Value::List(items.iter().map(|item| item.emit(dialect)).collect()),
            Value::Map(entries) => sorted(
                dialect,
                entries
                    .iter()
                    .map(|(key, value)| (key.clone(), value.emit(dialect)))
                    .collect(),
            ),
            other => other.clone(),
        }
    }
}

/// Puts the entries of a free map into the order in which Go's encoder for the dialect prints them.
pub fn sorted(dialect: Dialect, mut entries: Vec<(String, Value)>) -> Value {
    match dialect {
        Dialect::Json => entries.sort_by(|left, right| left.0.cmp(&right.0)),
        Dialect::Yaml => entries.sort_by(|left, right| natural_order(&left.0, &right.0)),
    }
    Value::Map(entries)
}

impl<T: Emit> Emit for Option<T> {
    fn is_empty(&self) -> bool {
        self.is_none()
    }
    fn emit(&self, dialect: Dialect) -> Value {
        self.as_ref().map_or(Value::Null, |value| value.emit(dialect))
    }
}

impl<T: Emit> Emit for Box<T> {
    fn is_empty(&self) -> bool {
        T::is_empty(self)
    }
    fn emit(&self, dialect: Dialect) -> Value {
        T::emit(self, dialect)
    }
}

impl<T: Emit> Emit for Vec<T> {
    fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
    fn emit(&self, dialect: Dialect) -> Value {
        Value::List(self.iter().map(|item| item.emit(dialect)).collect())
    }
}

impl<T: Emit + Sync> Emit for BTreeMap<String, T> {
    fn is_empty(&self) -> bool {
        BTreeMap::is_empty(self)
    }
    fn emit(&self, dialect: Dialect) -> Value {
        let emitted = |part: Vec<(&String, &T)>| -> Vec<(String, Value)> {
            let entries = part.into_iter();
            entries.map(|(key, value)| (key.clone(), value.emit(dialect))).collect()
        };
        let entries: Vec<(&String, &T)> = self.iter().collect();
        let entries = match entries.len() {
            0..MANY => emitted(entries),
            _ => in_parts(entries, emitted).into_iter().flatten().collect(),
        };
        sorted(dialect, entries)
    }
}

/// Collects an object's attributes in order, extensions last.
#[derive(Debug)]
pub struct Attributes {
    dialect: Dialect,
    entries: Vec<(String, Value)>,
    extensions: Vec<(String, Value)>,
}

impl Attributes {
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            entries: Vec::new(),
            extensions: Vec::new(),
        }
    }

    pub fn add(&mut self, key: Key, value: &dyn Emit) {
        if key.is_extensions {
            if self.dialect == Dialect::Yaml
                && let Value::Map(entries) = value.emit(self.dialect)
            {
                self.extensions = entries;
            }
            return;
        }
        let omitted = match key.omit {
            Omit::Never => false,
            Omit::Always => true,
            Omit::Empty => value.is_empty(),
            Omit::EmptyInYaml => self.dialect == Dialect::Yaml && value.is_empty(),
        };
        if !omitted {
            let name = match self.dialect {
                Dialect::Json => key.json_name,
                Dialect::Yaml => key.name,
            };
            self.entries.push((name.into(), value.emit(self.dialect)));
        }
    }

    pub fn finish(mut self) -> Value {
        self.entries.append(&mut self.extensions);
        Value::Map(self.entries)
    }
}
