//! Holds a tree against the table of keys.
//!
//! docker compose reports one violation, the deepest; so does the first of ours, in the same words. The others follow.
// compose-go schema/schema.go over santhosh-tekuri/jsonschema: the order of checks, the words, and "most specific"

use super::shape::{Keys, Schema, Type};
use crate::parallel::{MANY, in_parts};
use crate::yaml::{Node, Span, Value};

/// Something the table does not allow.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    /// The path in the file, joined with dots; empty at the top.
    pub path: String,
    /// What is wrong, in docker compose's words, without the path.
    pub message: String,
    pub span: Span,
    /// The keys nobody knows, if that is what is wrong.
    pub unknown_keys: Vec<(String, Span)>,
    /// The keys that would be known there.
    pub known_keys: Vec<&'static str>,
    depth: usize,
}

/// Returns everything that is wrong with a tree; what docker compose would report comes first.
pub fn check(schema: &'static Schema, node: &Node) -> Vec<Violation> {
    let mut checker = Checker {
        path: Vec::new(),
        found: Vec::new(),
    };
    checker.check(schema, node);
    let mut found = checker.found;
    if let Some(first) = deepest(&found) {
        let first = found.remove(first);
        found.insert(0, first);
    }
    found
}

/// The first of the most deeply nested.
fn deepest(violations: &[Violation]) -> Option<usize> {
    let depth = violations.iter().map(|violation| violation.depth).max()?;
    violations.iter().position(|violation| violation.depth == depth)
}

#[derive(Clone, Copy)]
enum Step<'n> {
    Key(&'n str),
    Index(usize),
}

struct Checker<'n> {
    path: Vec<Step<'n>>,
    found: Vec<Violation>,
}

impl<'n> Checker<'n> {
    fn report(&mut self, span: Span, message: String) -> &mut Violation {
        let parts: Vec<String> = self
            .path
            .iter()
            .map(|step| match step {
                Step::Key(key) => (*key).to_owned(),
                Step::Index(index) => index.to_string(),
            })
            .collect();
        let index = self.found.len();
        self.found.push(Violation {
            path: parts.join("."),
            message,
            span,
            unknown_keys: Vec::new(),
            known_keys: Vec::new(),
            depth: self.path.len(),
        });
        &mut self.found[index]
    }

    fn check(&mut self, schema: &'static Schema, node: &'n Node) {
        if std::ptr::eq(schema, &ANYTHING) {
            return;
        }
        if let Value::Timestamp(_) = node.value {
            self.report(node.span, "invalid jsonType time.Time".into());
            return;
        }
        if !schema.allows_type_of(node) {
            self.report(node.span, format!("must be a {}", any_of(schema.types)));
            return;
        }
        let before = self.found.len();
        if !schema.choices.is_empty() {
            let fits = node.as_str().is_some_and(|text| schema.choices.contains(&text));
            if !fits {
                let choices: Vec<String> = schema.choices.iter().map(|choice| quote(choice)).collect();
                let words = if choices.len() == 1 { "" } else { "one of " };
                let message = format!("value must be {words}{}", choices.join(", "));
                self.report(node.span, message);
            }
        }
        match &node.value {
            Value::Mapping(_) => self.check_mapping(schema, node),
            Value::Sequence(items) => self.check_sequence(schema, node, items),
            Value::String(text) => {
                if let Some(pattern) = schema.pattern
                    && !pattern.matches(text)
                {
                    let message = format!("{} does not match pattern {}", quote(text), quote(pattern.regex()));
                    self.report(node.span, message);
                }
            }
            Value::Int(number) => self.check_bounds(schema, node, *number as f64),
            Value::Float(number) => self.check_bounds(schema, node, *number),
            _ => {}
        }
        if !schema.one_of.is_empty() && self.found.len() == before {
            self.check_forms(schema, node);
        }
    }

    fn check_forms(&mut self, schema: &'static Schema, node: &'n Node) {
        let before = self.found.len();
        // Mostly one form fits; what is wrong with the others takes time to put into words, and nobody asks for it.
        let mut likely = schema.one_of.iter().filter(|form| form.allows_type_of(node));
        let one_fits = likely.any(|form| {
            self.check(form, node);
            let fits = self.found.len() == before;
            self.found.truncate(before);
            fits
        });
        if one_fits {
            return;
        }
        let mut failures: Vec<Violation> = Vec::new();
        for form in schema.one_of {
            self.check(form, node);
            let found = self.found.split_off(before);
            // Among the forms that do not fit, the one that was followed deepest is what was meant.
            let depth = |violations: &[Violation]| violations.iter().map(|v| v.depth).max();
            if depth(&found) > depth(&failures) {
                failures = found;
            }
        }
        self.found.append(&mut failures);
    }

    fn check_mapping(&mut self, schema: &'static Schema, node: &'n Node) {
        let Some(mapping) = node.as_mapping() else {
            return;
        };
        let missing: Vec<String> = schema
            .required
            .iter()
            .filter(|name| !mapping.contains_key(name))
            .map(|name| quote(name))
            .collect();
        match missing.as_slice() {
            [] => {}
            [one] => {
                self.report(node.span, format!("missing property {one}"));
            }
            several => {
                self.report(node.span, format!("missing properties {}", several.join(", ")));
            }
        }
        let mut unknown: Vec<(&'n str, Span)> = Vec::new();
        let mut values: Vec<(&'n str, &'static Schema, &'n Node)> = Vec::new();
        let at_once = mapping.len() >= MANY;
        for (name, entry) in mapping.iter() {
            let form = if let Some(property) = schema.property(name) {
                property.schema
            } else {
                match schema.keys {
                    Keys::Any => continue,
                    Keys::Closed => {
                        unknown.push((name, entry.key_span));
                        continue;
                    }
                    Keys::Extensions if name.starts_with("x-") => &ANYTHING,
                    Keys::Extensions => {
                        unknown.push((name, entry.key_span));
                        continue;
                    }
                    Keys::Named { pattern, schema, .. } if pattern.matches(name) => schema,
                    Keys::Named { closed: true, .. } => {
                        unknown.push((name, entry.key_span));
                        continue;
                    }
                    Keys::Named { closed: false, .. } => continue,
                }
            };
            match at_once {
                true => values.push((name, form, &entry.node)),
                false => self.value(name, form, &entry.node),
            }
        }
        if at_once {
            let path = &self.path;
            let found = in_parts(values, |part| {
                let mut checker = Checker {
                    path: path.clone(),
                    found: Vec::new(),
                };
                for (name, form, node) in part {
                    checker.value(name, form, node);
                }
                checker.found
            });
            self.found.extend(found.into_iter().flatten());
        }
        if let Some((_, span)) = unknown.first().copied() {
            let names: Vec<String> = unknown.iter().map(|(name, _)| quote(name)).collect();
            let message = format!("additional properties {} not allowed", names.join(", "));
            let depth = self.path.len() + 1;
            let violation = self.report(span, message);
            violation.depth = depth;
            violation.unknown_keys = unknown.iter().map(|(name, span)| ((*name).to_owned(), *span)).collect();
            violation.known_keys = schema.properties.iter().map(|property| property.name).collect();
        }
    }

    fn value(&mut self, name: &'n str, schema: &'static Schema, node: &'n Node) {
        self.path.push(Step::Key(name));
        self.check(schema, node);
        self.path.pop();
    }

    fn check_sequence(&mut self, schema: &'static Schema, node: &'n Node, items: &'n [Node]) {
        if schema.unique_items
            && let Some((first, second)) = equal_items(items)
        {
            self.report(
                items.get(second).map_or(node.span, |item| item.span),
                format!("items at {first} and {second} are equal"),
            );
        }
        if let Some(form) = schema.items {
            for (index, item) in items.iter().enumerate() {
                self.path.push(Step::Index(index));
                self.check(form, item);
                self.path.pop();
            }
        }
    }

    fn check_bounds(&mut self, schema: &Schema, node: &Node, number: f64) {
        if let Some(minimum) = schema.minimum
            && number < minimum as f64
        {
            self.report(node.span, format!("must be greater than or equal to {minimum}"));
        }
        if let Some(maximum) = schema.maximum
            && number > maximum as f64
        {
            self.report(node.span, format!("must be less than or equal to {maximum}"));
        }
    }
}

static ANYTHING: Schema = Schema::of(&[]);

impl Schema {
    fn allows_type_of(&self, node: &Node) -> bool {
        self.types.is_empty() || self.types.iter().any(|&wanted| is_of(wanted, node))
    }
}

fn is_of(wanted: Type, node: &Node) -> bool {
    match (&node.value, wanted) {
        (Value::Null, Type::Null)
        | (Value::Bool(_), Type::Boolean)
        | (Value::Int(_), Type::Integer | Type::Number)
        | (Value::Float(_), Type::Number)
        | (Value::String(_), Type::String)
        | (Value::Sequence(_), Type::Array)
        | (Value::Mapping(_), Type::Mapping) => true,
        (Value::Float(number), Type::Integer) => number.fract() == 0.0,
        _ => false,
    }
}

fn any_of(types: &[Type]) -> String {
    let mut words: Vec<&str> = types.iter().map(|of| of.word()).collect();
    words.sort_unstable();
    match words.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// Quotes as the schema library does: single quotes around what Go would print in double ones.
fn quote(text: &str) -> String {
    let quoted = crate::yaml::go_quote(text);
    let inner = quoted[1..quoted.len() - 1].replace("\\\"", "\"").replace('\'', "\\'");
    format!("'{inner}'")
}

fn equal_items(items: &[Node]) -> Option<(usize, usize)> {
    // Nearly always short lists of strings; comparing all pairs is cheaper than hashing, up to a size.
    if items.len() > 64 && items.iter().all(|item| item.as_str().is_some()) {
        let mut seen = std::collections::HashMap::new();
        for (index, item) in items.iter().enumerate() {
            if let Some(first) = seen.insert(item.as_str(), index) {
                return Some((first, index));
            }
        }
        return None;
    }
    (1..items.len()).find_map(|second| {
        (0..second)
            .find(|&first| same(&items[first], &items[second]))
            .map(|first| (first, second))
    })
}

/// Equality of JSON: 1 and 1.0 are the same, the order of keys does not matter.
fn same(left: &Node, right: &Node) -> bool {
    match (&left.value, &right.value) {
        (Value::Int(int), Value::Float(float)) | (Value::Float(float), Value::Int(int)) => *int as f64 == *float,
        (Value::Sequence(left), Value::Sequence(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Mapping(left), Value::Mapping(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, entry)| right.get(key).is_some_and(|other| same(&entry.node, other)))
        }
        (left, right) => left == right,
    }
}
