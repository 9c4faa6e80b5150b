//! What may have been meant by a key that nobody knows.

use super::check::Violation;
use super::shape::{Keys, Schema};
use super::table::PROJECT;
use crate::yaml::closest;

/// Keys that later versions of docker compose know, and what does the same without them.
const NEWER: [(&str, &str); 1] = [("no_cache_filter", "write `no_cache: true` to build all stages anew")];

/// Returns what may have been meant: a key spelled nearly so, or the place where the key belongs; `service` is the name
/// of one that the file has.
pub fn advice(key: &str, violation: &Violation, service: Option<&str>) -> Option<String> {
    if let Some((_, instead)) = NEWER.iter().find(|(newer, _)| *newer == key) {
        return Some(format!(
            "`{key}` came with docker compose 5, files are read as 2.40 reads them: {instead}"
        ));
    }
    if let Some(known) = closest(key, violation.known_keys.iter().copied()) {
        return Some(format!("did you mean `{known}`?"));
    }
    let mut places = Vec::new();
    find(&PROJECT, &mut String::new(), key, &mut places, 0);
    let own = violation
        .path
        .strip_prefix("services.")
        .and_then(|rest| rest.split('.').next());
    let place = places.into_iter().min_by_key(|place| {
        let is_elsewhere = own.is_some() && !place.starts_with("services.");
        (is_elsewhere, place.matches('.').count())
    })?;
    let place = match own.or(service) {
        Some(name) if place.starts_with("services.NAME") => place.replacen("NAME", name, 1),
        _ => place,
    };
    Some(match place.as_str() {
        "" => format!("`{key}` belongs at the top level of the file"),
        place => format!("`{key}` belongs under {place}"),
    })
}

fn find(schema: &'static Schema, path: &mut String, key: &str, places: &mut Vec<String>, depth: usize) {
    if depth > 5 {
        return;
    }
    if schema.property(key).is_some() {
        places.push(path.clone());
    }
    let mut descend = |name: &str, schema: &'static Schema| {
        let length = path.len();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        find(schema, path, key, places, depth + 1);
        path.truncate(length);
    };
    for property in schema.properties {
        descend(property.name, property.schema);
    }
    if let Keys::Named { schema, .. } = schema.keys {
        descend("NAME", schema);
    }
    for form in schema.one_of {
        find(form, path, key, places, depth);
    }
}
