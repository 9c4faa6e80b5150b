//! Where a value comes from: every place that could set it, in order, and which won.

use super::load::Loader;
use super::options::{LoadError, LoadOptions};
use super::template::{Part, Reference, parse_template};
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
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines = text.lines().enumerate().collect::<Vec<_>>();
        // The last line that sets a name is the one that counts.
        let found = lines.iter().rev().find_map(|(index, line)| {
            let line = line.trim_start().trim_start_matches("export ").trim_start();
            let rest = line.strip_prefix(name)?.trim_start();
            let value = rest.strip_prefix(['=', ':'])?;
            Some((index + 1, value.trim().to_owned()))
        });
        origins.push(match found {
            Some((line, value)) => Origin {
                place: format!("{file}:{line}"),
                value: Some(value),
                wins: false,
            },
            None => Origin {
                place: file.clone(),
                value: None,
                wins: false,
            },
        });
    }
    for file in loader.read_files(&setup.files)? {
        for document in parse(&mut loader.sources, file.id)? {
            mentions(&document, name, &loader.sources, &mut origins);
        }
    }
    if let Some(winner) = origins.iter_mut().find(|origin| origin.value.is_some()) {
        winner.wins = true;
    }
    Ok(origins)
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
    let (root, ..) = loader.model()?;
    let wanted: Vec<&str> = path.split('.').collect();
    let winner = find(&root, &wanted);
    let mut origins = Vec::new();
    let ids: Vec<SourceId> = loader.compose_sources.clone();
    for id in ids {
        for document in parse(&mut loader.sources, id)? {
            if let Some(node) = find(&document, &wanted) {
                origins.push(Origin {
                    place: position(&loader.sources, node.span),
                    value: Some(shown(node)),
                    wins: false,
                });
            }
        }
    }
    origins.reverse();
    match winner {
        Some(winner) => {
            let place = position(&loader.sources, winner.span);
            origins.retain(|origin| origin.place != place);
            origins.insert(
                0,
                Origin {
                    place,
                    value: Some(shown(winner)),
                    wins: true,
                },
            );
        }
        None if origins.is_empty() => origins.push(Origin {
            place: "no file".into(),
            value: None,
            wins: false,
        }),
        None => {}
    }
    Ok(origins)
}

/// Returns the node at a path of keys and positions; a list of `KEY=VALUE` is taken for a mapping.
fn find<'n>(node: &'n Node, path: &[&str]) -> Option<&'n Node> {
    let Some((first, rest)) = path.split_first() else {
        return Some(node);
    };
    let next = match &node.value {
        Value::Mapping(mapping) => mapping.get(first),
        Value::Sequence(items) => match first.parse::<usize>() {
            Ok(index) => items.get(index),
            Err(_) => items.iter().find(|item| {
                let text = item.as_str().unwrap_or_default();
                text.split('=').next() == Some(first)
            }),
        },
        _ => None,
    };
    find(next?, rest)
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
