//! The language in which the table of keys is written: a small part of JSON Schema, as constants.

/// The types of JSON, in the order in which messages list them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    Array,
    Boolean,
    Integer,
    Mapping,
    Null,
    Number,
    String,
}

impl Type {
    /// Returns the word for the type in messages.
    pub fn word(self) -> &'static str {
        match self {
            Type::Array => "array",
            Type::Boolean => "boolean",
            Type::Integer => "integer",
            Type::Mapping => "mapping",
            Type::Null => "null",
            Type::Number => "number",
            Type::String => "string",
        }
    }

    /// Returns the name of the type in JSON Schema.
    pub fn json_name(self) -> &'static str {
        match self {
            Type::Mapping => "object",
            other => other.word(),
        }
    }
}

/// What becomes of a key that a file uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It does what the specification says.
    Honoured,
    /// It is checked and kept, and has no effect here; the text says why.
    NoEffect(&'static str),
    /// The same, but whoever writes it gets what it asks for anyway; the text says why.
    Moot(&'static str),
}

/// A key of an object.
#[derive(Debug)]
pub struct Property {
    pub name: &'static str,
    pub schema: &'static Schema,
    pub description: &'static str,
    pub verdict: Verdict,
}

impl Property {
    /// Says that the key has no effect, and why.
    pub const fn no_effect(mut self, reason: &'static str) -> Self {
        self.verdict = Verdict::NoEffect(reason);
        self
    }

    /// Says that the key changes nothing about what is so anyway, and why.
    pub const fn moot(mut self, reason: &'static str) -> Self {
        self.verdict = Verdict::Moot(reason);
        self
    }
}

/// A key that is honoured.
pub const fn key(name: &'static str, schema: &'static Schema, description: &'static str) -> Property {
    Property {
        name,
        schema,
        description,
        verdict: Verdict::Honoured,
    }
}

/// Which names entries of a free mapping have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamePattern {
    /// Letters, digits, `.`, `_` and `-`.
    Resource,
    /// Anything but nothing.
    Any,
    /// Small letters.
    Lower,
}

impl NamePattern {
    /// Tells whether the name fits.
    pub fn matches(self, name: &str) -> bool {
        match self {
            NamePattern::Resource => {
                !name.is_empty()
                    && name
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            }
            NamePattern::Any => name.chars().any(|character| character != '\n'),
            NamePattern::Lower => !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase()),
        }
    }

    /// Returns the regular expression for JSON Schema.
    pub fn regex(self) -> &'static str {
        match self {
            NamePattern::Resource => "^[a-zA-Z0-9._-]+$",
            NamePattern::Any => ".+",
            NamePattern::Lower => "^[a-z]+$",
        }
    }
}

/// What an object may hold beside its properties.
#[derive(Debug, Clone, Copy)]
pub enum Keys {
    /// Anything.
    Any,
    /// Nothing.
    Closed,
    /// `x-` keys.
    Extensions,
    /// Entries with a name and a form; other names are refused if `closed`, else not looked at.
    Named {
        pattern: NamePattern,
        schema: &'static Schema,
        closed: bool,
    },
}

/// A regular expression a text must match somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextPattern {
    ContainerName,
    PullPolicy,
}

impl TextPattern {
    /// Returns the expression, as messages show it.
    pub fn regex(self) -> &'static str {
        match self {
            TextPattern::ContainerName => "[a-zA-Z0-9][a-zA-Z0-9_.-]+",
            TextPattern::PullPolicy => {
                "always|never|build|if_not_present|missing|refresh|daily|weekly|every_([0-9]+[wdhms])+"
            }
        }
    }

    /// Tells whether the text matches somewhere.
    pub fn matches(self, text: &str) -> bool {
        match self {
            TextPattern::ContainerName => text.as_bytes().windows(2).any(|pair| {
                pair[0].is_ascii_alphanumeric() && (pair[1].is_ascii_alphanumeric() || b"_.-".contains(&pair[1]))
            }),
            TextPattern::PullPolicy => {
                const WORDS: [&str; 8] = [
                    "always",
                    "never",
                    "build",
                    "if_not_present",
                    "missing",
                    "refresh",
                    "daily",
                    "weekly",
                ];
                WORDS.iter().any(|word| text.contains(word))
                    || text.match_indices("every_").any(|(start, prefix)| {
                        let rest = &text[start + prefix.len()..];
                        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
                        digits > 0 && rest.as_bytes().get(digits).is_some_and(|unit| b"wdhms".contains(unit))
                    })
            }
        }
    }
}

/// The form of a value.
#[derive(Debug)]
pub struct Schema {
    /// The types it may have; none allows all.
    pub types: &'static [Type],
    pub properties: &'static [Property],
    pub keys: Keys,
    pub required: &'static [&'static str],
    pub items: Option<&'static Schema>,
    pub unique_items: bool,
    /// Of these forms it has exactly one.
    pub one_of: &'static [&'static Schema],
    /// The texts it may be.
    pub choices: &'static [&'static str],
    pub pattern: Option<TextPattern>,
    pub minimum: Option<i64>,
    pub maximum: Option<i64>,
}

impl Schema {
    /// A value of one of these types.
    pub const fn of(types: &'static [Type]) -> Self {
        Self {
            types,
            properties: &[],
            keys: Keys::Any,
            required: &[],
            items: None,
            unique_items: false,
            one_of: &[],
            choices: &[],
            pattern: None,
            minimum: None,
            maximum: None,
        }
    }

    /// An object with these keys and `x-` keys.
    pub const fn object(properties: &'static [Property]) -> Self {
        Self::of(&[Type::Mapping]).with(properties, Keys::Extensions)
    }

    /// An object with these keys and no others.
    pub const fn closed(properties: &'static [Property]) -> Self {
        Self::of(&[Type::Mapping]).with(properties, Keys::Closed)
    }

    /// An object with these keys and any others.
    pub const fn open(properties: &'static [Property]) -> Self {
        Self::of(&[Type::Mapping]).with(properties, Keys::Any)
    }

    /// A mapping of names to values of one form.
    pub const fn map(pattern: NamePattern, schema: &'static Schema, closed: bool) -> Self {
        Self::of(&[Type::Mapping]).with(
            &[],
            Keys::Named {
                pattern,
                schema,
                closed,
            },
        )
    }

    /// A list.
    pub const fn list(items: &'static Schema) -> Self {
        let mut schema = Self::of(&[Type::Array]);
        schema.items = Some(items);
        schema
    }

    /// A list in which nothing stands twice.
    pub const fn set(items: &'static Schema) -> Self {
        let mut schema = Self::list(items);
        schema.unique_items = true;
        schema
    }

    /// A value of exactly one of these forms.
    pub const fn one_of(forms: &'static [&'static Schema]) -> Self {
        let mut schema = Self::of(&[]);
        schema.one_of = forms;
        schema
    }

    /// One of these texts.
    pub const fn choice(choices: &'static [&'static str]) -> Self {
        let mut schema = Self::of(&[Type::String]);
        schema.choices = choices;
        schema
    }

    /// A text that matches.
    pub const fn text(pattern: TextPattern) -> Self {
        let mut schema = Self::of(&[Type::String]);
        schema.pattern = Some(pattern);
        schema
    }

    /// A whole number between two bounds.
    pub const fn integer(minimum: i64, maximum: Option<i64>) -> Self {
        let mut schema = Self::of(&[Type::Integer]);
        schema.minimum = Some(minimum);
        schema.maximum = maximum;
        schema
    }

    /// The same, with keys that must be there.
    pub const fn requires(mut self, required: &'static [&'static str]) -> Self {
        self.required = required;
        self
    }

    /// The same, or null.
    pub const fn or_null(mut self) -> Self {
        self.types = &[Type::Mapping, Type::Null];
        self
    }

    /// The same with other types.
    pub const fn typed(mut self, types: &'static [Type]) -> Self {
        self.types = types;
        self
    }

    const fn with(mut self, properties: &'static [Property], keys: Keys) -> Self {
        self.properties = properties;
        self.keys = keys;
        self
    }

    /// Returns the property of that name.
    pub fn property(&self, name: &str) -> Option<&'static Property> {
        self.properties.iter().find(|property| property.name == name)
    }
}
