//! The table as a list of what is honoured and what is not, for the README.

use super::shape::{Keys, Schema, Verdict};
use super::table::PROJECT;

/// An object of a Compose file: where it is, and what it may have.
pub struct Object {
    pub path: String,
    schema: &'static Schema,
}

impl Object {
    /// Returns the keys that do what the specification says.
    pub fn honoured(&self) -> impl Iterator<Item = &'static str> {
        let properties = self.schema.properties.iter();
        properties
            .filter(|property| property.verdict == Verdict::Honoured)
            .map(|property| property.name)
    }
}

/// Returns every object of a Compose file.
pub fn objects() -> Vec<Object> {
    let mut objects = Vec::new();
    collect(&PROJECT, "top level", &mut objects);
    objects
}

/// Returns a Markdown table with a row for every object of a Compose file. `shown_by` names the tests that show what an
/// object's keys do.
pub fn support_table(shown_by: impl Fn(&Object) -> Vec<String>) -> String {
    let mut text = String::from("| where | honoured | accepted without effect | shown by |\n|---|---|---|---|\n");
    for object in objects() {
        let tests: Vec<String> = shown_by(&object).iter().map(|test| format!("`{test}`")).collect();
        text.push_str(&row(object.schema, &object.path));
        text.push_str(&format!(" {} |\n", tests.join(", ")));
    }
    text
}

fn collect(schema: &'static Schema, path: &str, objects: &mut Vec<Object>) {
    if !schema.properties.is_empty() {
        objects.push(Object {
            path: path.to_owned(),
            schema,
        });
    }
    let below = |name: &str| match path {
        "top level" => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    for property in schema.properties {
        collect(property.schema, &below(property.name), objects);
    }
    if let Keys::Named { schema, .. } = schema.keys {
        collect(schema, &below("NAME"), objects);
    }
    if let Some(items) = schema.items {
        collect(items, &format!("{path}[]"), objects);
    }
    for form in schema.one_of {
        collect(form, path, objects);
    }
}

fn row(schema: &Schema, path: &str) -> String {
    let mut honoured = Vec::new();
    let mut without_effect: Vec<(&str, Vec<String>)> = Vec::new();
    for property in schema.properties {
        let name = format!("`{}`", property.name);
        match property.verdict {
            Verdict::Honoured => honoured.push(name),
            Verdict::NoEffect(reason) | Verdict::Moot(reason) => {
                match without_effect.iter_mut().find(|(known, _)| *known == reason) {
                    Some((_, names)) => names.push(name),
                    None => without_effect.push((reason, vec![name])),
                }
            }
        }
    }
    let without_effect: Vec<String> = without_effect
        .into_iter()
        .map(|(reason, names)| format!("{} ({reason})", names.join(", ")))
        .collect();
    format!("| `{path}` | {} | {} |", honoured.join(", "), without_effect.join("; "))
}
