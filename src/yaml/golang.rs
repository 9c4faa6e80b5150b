//! Values as Go prints them, for texts that must be the same.

use super::{Node, Value};

/// Returns a value as Go's `%v` prints it.
pub fn go_format(node: &Node) -> String {
    match &node.value {
        Value::Null => "<nil>".into(),
        Value::Sequence(items) => {
            let items: Vec<String> = items.iter().map(go_format).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Mapping(mapping) => {
            let mut entries: Vec<String> = mapping
                .iter()
                .map(|(key, entry)| format!("{key}:{}", go_format(&entry.node)))
                .collect();
            entries.sort();
            format!("map[{}]", entries.join(" "))
        }
        value => value.to_text().unwrap_or_default(),
    }
}

/// Returns the name of a value's type as Go's `%T` prints it.
pub fn go_type(node: &Node) -> &'static str {
    match &node.value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Float(_) => "float64",
        Value::String(_) => "string",
        Value::Timestamp(_) => "time.Time",
        Value::Sequence(_) => "[]interface {}",
        Value::Mapping(_) => "map[string]interface {}",
    }
}
