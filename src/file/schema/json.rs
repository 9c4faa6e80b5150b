//! The table as a JSON Schema, for editors.

use serde_json::{Map, Value, json};

use super::shape::{Keys, Property, Schema, Verdict};
use super::table::PROJECT;

/// Returns the schema of Compose files as JSON Schema, draft 2020-12.
pub fn json_schema() -> String {
    let mut root = Map::new();
    root.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    root.insert("title".into(), "Compose file".into());
    root.insert(
        "description".into(),
        "A Compose file as this program reads it; generated from its table of keys.".into(),
    );
    root.append(&mut object(&PROJECT));
    let mut text = serde_json::to_string_pretty(&Value::Object(root)).unwrap_or_default();
    text.push('\n');
    text
}

fn object(schema: &Schema) -> Map<String, Value> {
    let mut out = Map::new();
    match schema.types {
        [] => {}
        [one] => {
            out.insert("type".into(), one.json_name().into());
        }
        several => {
            let names: Vec<&str> = several.iter().map(|of| of.json_name()).collect();
            out.insert("type".into(), json!(names));
        }
    }
    if !schema.choices.is_empty() {
        out.insert("enum".into(), json!(schema.choices));
    }
    if let Some(pattern) = schema.pattern {
        out.insert("pattern".into(), pattern.regex().into());
    }
    if let Some(minimum) = schema.minimum {
        out.insert("minimum".into(), minimum.into());
    }
    if let Some(maximum) = schema.maximum {
        out.insert("maximum".into(), maximum.into());
    }
    if !schema.properties.is_empty() {
        let properties = schema
            .properties
            .iter()
            .map(|property| (property.name.to_owned(), described(property)));
        out.insert("properties".into(), Value::Object(properties.collect()));
    }
    match schema.keys {
        Keys::Any => {}
        Keys::Closed => {
            out.insert("additionalProperties".into(), false.into());
        }
        Keys::Extensions => {
            out.insert("patternProperties".into(), json!({"^x-": {}}));
            out.insert("additionalProperties".into(), false.into());
        }
        Keys::Named {
            pattern,
            schema,
            closed,
        } => {
            let mut entries = Map::new();
            entries.insert(pattern.regex().into(), Value::Object(object(schema)));
            out.insert("patternProperties".into(), Value::Object(entries));
            if closed {
                out.insert("additionalProperties".into(), false.into());
            }
        }
    }
    if !schema.required.is_empty() {
        out.insert("required".into(), json!(schema.required));
    }
    if let Some(items) = schema.items {
        out.insert("items".into(), Value::Object(object(items)));
    }
    if schema.unique_items {
        out.insert("uniqueItems".into(), true.into());
    }
    if !schema.one_of.is_empty() {
        let forms: Vec<Value> = schema.one_of.iter().map(|form| Value::Object(object(form))).collect();
        out.insert("oneOf".into(), Value::Array(forms));
    }
    out
}

fn described(property: &Property) -> Value {
    let mut out = Map::new();
    let description = match property.verdict {
        Verdict::Honoured => property.description.to_owned(),
        Verdict::NoEffect(reason) | Verdict::Moot(reason) => {
            format!("{} Has no effect here: {reason}.", property.description)
        }
    };
    out.insert("description".into(), description.into());
    if property.name == "version" {
        out.insert("deprecated".into(), true.into());
    }
    out.append(&mut object(property.schema));
    Value::Object(out)
}
