//! Where a value comes from: every place that could set it, in order, and which won.

use std::collections::{BTreeMap, BTreeSet};

use super::dotenv;
use super::load::Loader;
use super::options::{LoadError, LoadOptions};
use super::template::{Lookup, Part, Reference, parse_template};
use crate::yaml::{Diagnostics, Node, SourceId, Sources, Span, Value, parse};

/// A place that could set a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// What kind of place it is, or its file with line and column.
    pub place: String,
    /// What it says; nothing if it does not set the value.
    pub value: Option<String>,
    pub wins: bool,
}

/// Returns the places of a variable (`TAG`) or of an attribute (`services.web.image`), the strongest first.
pub fn explain(options: &LoadOptions, what: &str) -> Result<Vec<Origin>, LoadError> {
    let mut loader = Loader::new(options);
    let explained = if what.contains('.') {
        attribute(&mut loader, what)
    } else {
        variable(&mut loader, what)
    };
    explained.map_err(|diagnostics| loader.failure(diagnostics))
}

fn variable(loader: &mut Loader<'_>, name: &str) -> Result<Vec<Origin>, Diagnostics> {
    let options = loader.options;
    let setup = loader.discover()?;
    let mut origins = vec![Origin {
        place: "environment of the process".into(),
        value: options.environment.get(name).cloned(),
        wins: false,
    }];
    for file in setup.env_files.iter().rev() {
        let lookup = |name: &str| options.environment.get(name).cloned();
        origins.push(in_env_file(&mut loader.sources, file, name, &lookup));
    }
    // What is included and extended mentions variables too; should it not load, the files themselves are still there.
    let _ = loader.model();
    if loader.compose_sources.is_empty() {
        loader.read_files(&setup.files)?;
    }
    let ids: BTreeSet<SourceId> = loader.compose_sources.iter().copied().collect();
    for id in ids {
        for document in parse(&mut loader.sources, id)? {
            mentions(&document, name, &loader.sources, &mut origins);
        }
    }
    let mut seen = BTreeSet::new();
    origins.retain(|origin| seen.insert(origin.place.clone()));
    if let Some(winner) = origins.iter_mut().find(|origin| origin.value.is_some()) {
        winner.wins = true;
    }
    Ok(origins)
}

/// Returns what a file with variables says about one.
fn in_env_file(sources: &mut Sources, file: &str, name: &str, lookup: &Lookup<'_>) -> Origin {
    let unset = Origin {
        place: file.to_owned(),
        value: None,
        wins: false,
    };
    let Ok(text) = std::fs::read_to_string(file) else {
        return unset;
    };
    let id = sources.add(file, text);
    let variables = match dotenv::parse(sources, id, lookup, &BTreeMap::new()) {
        Ok(parsed) => parsed.variables,
        Err(_) => return unset,
    };
    // The last line that sets a name is the one that counts.
    let lines: Vec<&str> = sources.text(id).lines().collect();
    let line = lines.iter().rposition(|line| {
        let line = line.trim_start().trim_start_matches("export ").trim_start();
        let rest = line.strip_prefix(name).map(str::trim_start);
        rest.is_some_and(|rest| rest.starts_with(['=', ':']))
    });
    match (variables.get(name), line) {
        (Some(value), Some(line)) => Origin {
            place: format!("{file}:{}", line + 1),
            value: Some(value.clone()),
            wins: false,
        },
        _ => unset,
    }
}

/// Collects the words that stand in for a variable where it is used.
fn mentions(node: &Node, name: &str, sources: &Sources, origins: &mut Vec<Origin>) {
    match &node.value {
        Value::String(text) => {
            for part in parse_template(text).unwrap_or_default() {
                if let Part::Reference(reference) = part {
                    mention(&reference, node.span, name, sources, origins);
                }
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| mentions(item, name, sources, origins)),
        Value::Mapping(mapping) => mapping
            .iter()
            .for_each(|(_, entry)| mentions(&entry.node, name, sources, origins)),
        _ => {}
    }
}

fn mention(reference: &Reference<'_>, span: Span, name: &str, sources: &Sources, origins: &mut Vec<Origin>) {
    if reference.name == name {
        origins.push(Origin {
            place: format!("{} in {}", reference.text, position(sources, span)),
            value: reference.word.as_ref().map(|word| word.text.to_owned()),
            wins: false,
        });
    }
    for part in reference.word.iter().flat_map(|word| &word.parts) {
        if let Part::Reference(inner) = part {
            mention(inner, span, name, sources, origins);
        }
    }
}

fn attribute(loader: &mut Loader<'_>, path: &str) -> Result<Vec<Origin>, Diagnostics> {
    let (root, _, setup) = loader.model()?;
    let wanted: Vec<&str> = path.split('.').collect();
    let mut places: Vec<(Span, Origin)> = Vec::new();
    let ids: BTreeSet<SourceId> = loader.compose_sources.iter().copied().collect();
    for id in ids {
        for document in parse(&mut loader.sources, id)? {
            if let Some(node) = find(&document, &wanted) {
                places.push((node.span, origin(&loader.sources, node, &wanted)));
            }
        }
    }
    places.reverse();
    if let Some(winner) = find(&root, &wanted) {
        // A list that became a mapping, or the other way round, has its places from what it was made of.
        let is_part = |span: &Span| {
            span.source == winner.span.source && winner.span.start <= span.start && span.end <= winner.span.end
        };
        let known = places.iter().position(|(span, _)| is_part(span));
        let mut first = origin(&loader.sources, winner, &wanted);
        if let Some(known) = known {
            first.place = places.remove(known).1.place;
        }
        first.wins = true;
        places.insert(0, (winner.span, first));
    }
    let mut origins: Vec<Origin> = places.into_iter().map(|(_, origin)| origin).collect();
    if let ["services", service, "environment", variable] = wanted[..] {
        let files = find(&root, &["services", service, "env_file"]);
        let files = files.and_then(Node::as_sequence).unwrap_or_default().iter().rev();
        let paths = files.filter_map(|file| file.get("path").and_then(Node::as_str));
        for path in paths {
            let lookup = |name: &str| setup.environment.get(name).cloned();
            origins.push(in_env_file(&mut loader.sources, path, variable, &lookup));
        }
        if !origins.iter().any(|origin| origin.wins)
            && let Some(winner) = origins.iter_mut().find(|origin| origin.value.is_some())
        {
            winner.wins = true;
        }
    }
    if origins.is_empty() {
        origins.push(Origin {
            place: "no file".into(),
            value: None,
            wins: false,
        });
    }
    Ok(origins)
}

fn origin(sources: &Sources, node: &Node, path: &[&str]) -> Origin {
    let text = shown(node);
    // An entry of a list that was asked for by its key.
    let entry = path.last().and_then(|key| text.strip_prefix(key)?.strip_prefix('='));
    Origin {
        place: position(sources, node.span),
        value: Some(entry.unwrap_or(&text).to_owned()),
        wins: false,
    }
}

/// Returns the node at a path of keys and positions; a list of `KEY=VALUE` is taken for a mapping, and a key may have
/// dots in it.
fn find<'n>(node: &'n Node, path: &[&str]) -> Option<&'n Node> {
    if path.is_empty() {
        return Some(node);
    }
    (1..=path.len()).find_map(|length| {
        let (first, rest) = path.split_at(length);
        let first = first.join(".");
        let next = match &node.value {
            Value::Mapping(mapping) => mapping.get(&first),
            Value::Sequence(items) => match first.parse::<usize>() {
                Ok(index) => items.get(index),
                Err(_) => items.iter().find(|item| {
                    let text = item.as_str().unwrap_or_default();
                    text.split('=').next() == Some(first.as_str())
                }),
            },
            _ => None,
        };
        find(next?, rest)
    })
}

fn shown(node: &Node) -> String {
    let text = crate::model::decode::plain(node).to_json();
    match node.as_str() {
        Some(text) => text.to_owned(),
        None => text,
    }
}

fn position(sources: &Sources, span: Span) -> String {
    let (line, column) = sources.position(span);
    format!("{}:{line}:{column}", sources.name(span.source))
}
