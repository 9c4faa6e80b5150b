//! A plain tree of values: what extensions hold, and what the model turns into before it is printed.

use std::cmp::Ordering;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::yaml::writer::{self, Tree, View};

/// A value as Go's encoders see it. Mappings keep the order in which they are to be printed.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    /// Printed with the digits a 32-bit float needs, as Go prints `float32`.
    Float32(f32),
    Float(f64),
    String(String),
    /// A point in time; YAML has a form for it, JSON writes text.
    Timestamp(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Value {
    /// Returns the entry of a mapping.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Returns the text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the value with null for empty lists, which is what docker compose makes of them where they are not
    /// part of a typed object.
    pub fn with_null_lists(self) -> Value {
        self.with_null_lists_but(&mut Vec::new(), &|_| false)
    }

    /// The same, but for the lists at some paths.
    pub fn with_null_lists_but(self, path: &mut Vec<String>, is_typed: &dyn Fn(&[&str]) -> bool) -> Value {
        match self {
            Value::List(items) if items.is_empty() => {
                let keys: Vec<&str> = path.iter().map(String::as_str).collect();
                match is_typed(&keys) {
                    true => Value::List(items),
                    false => Value::Null,
                }
            }
            Value::List(items) => Value::List(items.into_iter().map(Value::with_null_lists).collect()),
            Value::Map(entries) => {
                let entries = entries.into_iter().map(|(key, value)| {
                    path.push(key.clone());
                    let value = value.with_null_lists_but(path, is_typed);
                    path.pop();
                    (key, value)
                });
                Value::Map(entries.collect())
            }
            other => other,
        }
    }

    /// Returns the first number that JSON has no text for.
    pub fn unprintable_number(&self) -> Option<f64> {
        match self {
            Value::Float(number) => (!number.is_finite()).then_some(*number),
            Value::Float32(number) => (!number.is_finite()).then_some(f64::from(*number)),
            Value::List(items) => items.iter().find_map(Value::unprintable_number),
            Value::Map(entries) => entries.iter().find_map(|(_, value)| value.unprintable_number()),
            _ => None,
        }
    }

    /// Prints the value as Go's `json.Marshal` does: no spaces, `<`, `>`, `&`, U+2028 and U+2029 escaped.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out, None, 0);
        out
    }

    /// Prints the value as Go's `json.MarshalIndent(v, "", "  ")` does.
    pub fn to_json_pretty(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out, Some("  "), 0);
        out
    }

    /// Prints the value as go-yaml does with an indentation of two.
    pub fn to_yaml(&self) -> String {
        writer::write(self)
    }

    fn write_json(&self, out: &mut String, indent: Option<&str>, depth: usize) {
        let newline = |out: &mut String, depth: usize| {
            if let Some(indent) = indent {
                out.push('\n');
                for _ in 0..depth {
                    out.push_str(indent);
                }
            }
        };
        match self {
            Value::Null => out.push_str("null"),
            Value::Bool(true) => out.push_str("true"),
            Value::Bool(false) => out.push_str("false"),
            Value::Int(number) => out.push_str(&number.to_string()),
            Value::Uint(number) => out.push_str(&number.to_string()),
            Value::Float32(number) => {
                let magnitude = number.abs();
                let exponential = magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude);
                json_float(out, exponential, format!("{number:e}"), format!("{number}"));
            }
            Value::Float(number) => {
                let magnitude = number.abs();
                let exponential = magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude);
                json_float(out, exponential, format!("{number:e}"), format!("{number}"));
            }
            Value::String(text) | Value::Timestamp(text) => write_json_string(out, text),
            Value::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    newline(out, depth + 1);
                    item.write_json(out, indent, depth + 1);
                }
                if !items.is_empty() {
                    newline(out, depth);
                }
                out.push(']');
            }
            Value::Map(entries) => {
                out.push('{');
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    newline(out, depth + 1);
                    write_json_string(out, key);
                    out.push(':');
                    if indent.is_some() {
                        out.push(' ');
                    }
                    value.write_json(out, indent, depth + 1);
                }
                if !entries.is_empty() {
                    newline(out, depth);
                }
                out.push('}');
            }
        }
    }
}

/// Go writes small and huge numbers with an exponent of at least one digit and always a sign.
fn json_float(out: &mut String, exponential: bool, scientific: String, plain: String) {
    if !exponential {
        out.push_str(&plain);
        return;
    }
    match scientific.split_once('e') {
        Some((mantissa, exponent)) => {
            out.push_str(mantissa);
            out.push('e');
            if !exponent.starts_with('-') {
                out.push('+');
            }
            out.push_str(exponent);
        }
        None => out.push_str(&scientific),
    }
}

fn write_json_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                out.push_str(&format!("\\u{:04x}", character as u32));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Int(value) => serializer.serialize_i64(*value),
            Value::Uint(value) => serializer.serialize_u64(*value),
            Value::Float32(value) => serializer.serialize_f32(*value),
            Value::Float(value) => serializer.serialize_f64(*value),
            Value::String(value) | Value::Timestamp(value) => serializer.serialize_str(value),
            Value::List(items) => {
                let mut sequence = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    sequence.serialize_element(item)?;
                }
                sequence.end()
            }
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl Tree for Value {
    fn view(&self) -> View<'_> {
        match self {
            Value::Null => View::Null,
            Value::Bool(value) => View::Bool(*value),
            Value::Int(number) => View::Plain(number.to_string().into()),
            Value::Uint(number) => View::Plain(number.to_string().into()),
            // The shortest digits of the narrow number, not those of its widened value.
            Value::Float32(number) => View::Float(number.to_string().parse().unwrap_or_else(|_| f64::from(*number))),
            Value::Float(number) => View::Float(*number),
            Value::String(text) => View::Text(text),
            Value::Timestamp(text) => View::Plain(text.into()),
            Value::List(items) => View::List(items.len()),
            Value::Map(entries) => View::Map(entries.len()),
        }
    }

    fn items(&self) -> impl Iterator<Item = &Self> {
        let items = match self {
            Value::List(items) => items.as_slice(),
            _ => &[],
        };
        items.iter()
    }

    fn entries(&self) -> impl Iterator<Item = (&str, &Self)> {
        let entries = match self {
            Value::Map(entries) => entries.as_slice(),
            _ => &[],
        };
        entries.iter().map(|(key, value)| (key.as_str(), value))
    }
}

/// Compares two keys as go-yaml sorts the keys of a map: runs of digits compare as numbers, so that `a2` stands
/// before `a10`.
// go-yaml sorter.go: keyList.Less
pub fn natural_order(left: &str, right: &str) -> Ordering {
    if left.is_ascii() && right.is_ascii() {
        return natural(left.as_bytes(), right.as_bytes());
    }
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    natural(&left, &right)
}

fn natural<T: Copy + Into<char>>(left: &[T], right: &[T]) -> Ordering {
    let a = |index: usize| -> char { left[index].into() };
    let b = |index: usize| -> char { right[index].into() };
    let mut digits = false;
    let mut index = 0;
    while index < left.len() && index < right.len() {
        if a(index) == b(index) {
            digits = is_digit(a(index));
            index += 1;
            continue;
        }
        let (al, bl) = (a(index).is_alphabetic(), b(index).is_alphabetic());
        if al && bl {
            return a(index).cmp(&b(index));
        }
        if al || bl {
            let less = if digits { al } else { bl };
            return if less { Ordering::Less } else { Ordering::Greater };
        }
        let (mut an, mut bn): (i64, i64) = (0, 0);
        if a(index) == '0' || b(index) == '0' {
            let mut back = index;
            while back > 0 && is_digit(a(back - 1)) {
                back -= 1;
                if a(back) != '0' {
                    an = 1;
                    bn = 1;
                    break;
                }
            }
        }
        let mut ai = index;
        while ai < left.len() && is_digit(a(ai)) {
            an = an.wrapping_mul(10).wrapping_add(i64::from(a(ai) as u32) - 48);
            ai += 1;
        }
        let mut bi = index;
        while bi < right.len() && is_digit(b(bi)) {
            bn = bn.wrapping_mul(10).wrapping_add(i64::from(b(bi) as u32) - 48);
            bi += 1;
        }
        if an != bn {
            return an.cmp(&bn);
        }
        if ai != bi {
            return ai.cmp(&bi);
        }
        return a(index).cmp(&b(index));
    }
    left.len().cmp(&right.len())
}

// Go asks unicode.IsDigit; only the ASCII digits have a value in its arithmetic.
fn is_digit(character: char) -> bool {
    character.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_escapes_as_go_does() {
        let value = Value::Map(vec![("a".into(), Value::String("<&>\u{2028}\"\\\u{1}\n".into()))]);
        assert_eq!(value.to_json(), r#"{"a":"\u003c\u0026\u003e\u2028\"\\\u0001\n"}"#);
    }

    #[test]
    fn json_floats_print_as_go_prints_them() {
        for (number, text) in [
            (1.5, "1.5"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (1e-7, "1e-7"),
            (0.0, "0"),
        ] {
            assert_eq!(Value::Float(number).to_json(), text);
        }
        assert_eq!(Value::Float32(0.1).to_json(), "0.1");
    }

    #[test]
    fn keys_with_numbers_sort_naturally() {
        let mut keys = vec!["a10", "a2", "B", "a", "1", "_x"];
        keys.sort_by(|left, right| natural_order(left, right));
        assert_eq!(keys, ["_x", "1", "B", "a", "a2", "a10"]);
    }
}
