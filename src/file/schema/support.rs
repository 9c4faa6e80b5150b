//! The table as a list of what is honoured and what is not, for the README.

use super::shape::{Keys, Schema, Verdict};
use super::table::PROJECT;

/// Returns a Markdown table with a row for every object of a Compose file.
pub fn support_table() -> String {
    let mut rows = Vec::new();
    collect(&PROJECT, "top level", &mut rows);
    let mut text = String::from("| where | honoured | accepted without effect |\n|---|---|---|\n");
    for row in rows {
        text.push_str(&row);
        text.push('\n');
    }
    text
}

fn collect(schema: &'static Schema, path: &str, rows: &mut Vec<String>) {
    if !schema.properties.is_empty() {
        rows.push(row(schema, path));
    }
    let below = |name: &str| match path {
        "top level" => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    for property in schema.properties {
        collect(property.schema, &below(property.name), rows);
    }
    if let Keys::Named { schema, .. } = schema.keys {
        collect(schema, &below("NAME"), rows);
    }
    if let Some(items) = schema.items {
        collect(items, &format!("{path}[]"), rows);
    }
    for form in schema.one_of {
        collect(form, path, rows);
    }
}

fn row(schema: &Schema, path: &str) -> String {
    let mut honoured = Vec::new();
    let mut without_effect: Vec<(&str, Vec<String>)> = Vec::new();
    for property in schema.properties {
        let name = format!("`{}`", property.name);
        match property.verdict {
            Verdict::Honoured => honoured.push(name),
            Verdict::NoEffect(reason) => match without_effect.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, names)) => names.push(name),
                None => without_effect.push((reason, vec![name])),
            },
        }
    }
    let without_effect: Vec<String> = without_effect
        .into_iter()
        .map(|(reason, names)| format!("{} ({reason})", names.join(", ")))
        .collect();
    format!("| `{path}` | {} | {} |", honoured.join(", "), without_effect.join("; "))
}
