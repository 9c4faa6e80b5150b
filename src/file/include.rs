//! Other projects whose services and resources become part of this one.
// compose-go loader/include.go

use std::path::Path;

use super::environment::{EnvironmentReader, reason};
use super::extends::at;
use super::interpolate::Interpolator;
use super::load::{Loader, Place, Variables};
use super::paths::{directory_of, is_remote, join, relative};
use super::remote::local_path;
use super::tree::{as_list, go_format, go_type};
use crate::yaml::{Diagnostic, Diagnostics, Mapping, Node, Span, Value};

/// One entry of `include`.
struct Include {
    paths: Vec<String>,
    project_directory: String,
    env_files: Vec<String>,
    span: Span,
}

impl Loader<'_> {
    /// Loads what a document includes into it.
    pub(super) fn apply_include(
        &mut self,
        document: &mut Node,
        place: &Place,
        variables: &Variables,
        included: &[String],
    ) -> Result<(), Diagnostics> {
        let Some(entry) = document.as_mapping_mut().and_then(|top| top.remove("include")) else {
            return Ok(());
        };
        for include in self.includes(entry.node, variables)? {
            let mut imported = self.include(&include, place, variables, included)?;
            for section in ["services", "volumes", "networks", "secrets", "configs", "models"] {
                import(&mut imported, document, section)?;
            }
        }
        Ok(())
    }

    fn includes(&mut self, mut node: Node, variables: &Variables) -> Result<Vec<Include>, Diagnostics> {
        if node.is_null() {
            return Ok(Vec::new());
        }
        let Value::Sequence(_) = &node.value else {
            let shown = match &node.value {
                Value::String(text) => text.clone(),
                Value::Mapping(_) => go_format(&node),
                _ => format!("%!s({}={})", go_type(&node), go_format(&node)),
            };
            let message = format!("`include` must be a list, got {shown}");
            return Err(Diagnostic::error(message).at(node.span).into());
        };
        if self.options.interpolate {
            let lookup = |name: &str| variables.get(name).cloned();
            let mut interpolator = Interpolator::new(&self.sources, &lookup);
            interpolator.at(&mut node, &["include"]);
            if !interpolator.errors.is_empty() {
                return Err(Diagnostics(interpolator.errors));
            }
        }
        as_list(&node).iter().map(read_entry).collect()
    }

    fn include(
        &mut self,
        include: &Include,
        place: &Place,
        variables: &Variables,
        included: &[String],
    ) -> Result<Node, Diagnostics> {
        let paths: Vec<String> = include
            .paths
            .iter()
            .map(|path| {
                if is_remote(path) {
                    local_path(path, self.options).map_err(|error| error.at(include.span))
                } else if path.starts_with('/') {
                    Ok(path.clone())
                } else {
                    Ok(join(&place.absolute, path))
                }
            })
            .collect::<Result<_, Diagnostic>>()?;
        let here = Node::new(Value::Null, include.span);
        let fail = |message: String| Diagnostic::error(message).at(include.span);
        let Some(main) = paths.first() else {
            return Ok(Node::new(Value::Mapping(Mapping::new()), include.span));
        };
        if included.contains(main) {
            let mut trail = included.to_vec();
            trail.push(main.clone());
            let message = format!(
                "include cycle detected:\n{}\n include {}",
                trail[0],
                trail[1..].join("\n include ")
            );
            return Err(fail(message).into());
        }
        let directory = match include.project_directory.as_str() {
            "" => directory_of(main),
            path if path.starts_with('/') => path.to_owned(),
            path => join(&place.absolute, path),
        };
        let inner = Place {
            relative: if include.project_directory.starts_with('/') {
                directory.clone()
            } else {
                relative(&place.absolute, &directory)
            },
            absolute: directory.clone(),
        };
        let mut env_files = Vec::new();
        if include.env_files.is_empty() {
            let default = join(&directory, ".env");
            if Path::new(&default).metadata().is_ok_and(|found| !found.is_dir()) {
                env_files.push(default);
            }
        }
        for file in &include.env_files {
            if file.starts_with('/') {
                env_files.push(file.clone());
                continue;
            }
            let file = join(&place.absolute, file);
            match Path::new(&file).metadata() {
                Ok(found) if found.is_dir() => return Err(fail(format!("{file} is not a file")).into()),
                Ok(_) => env_files.push(file),
                Err(error) => return Err(fail(format!("stat {file}: {}", reason(&error))).into()),
            }
        }
        let mut reader = EnvironmentReader::new(&mut self.sources);
        let found = reader
            .project_files(&env_files, variables, &mut self.warnings)
            .map_err(|error| at(error, &here))?;
        let mut inner_variables = variables.clone();
        for (name, value) in found {
            inner_variables.entry(name).or_insert(value);
        }
        let mut files = Vec::new();
        for path in &paths {
            files.push(self.read_file(path).map_err(|error| at(error, &here))?);
        }
        self.group(&mut files, &inner, &inner_variables, true, included)
    }
}

fn read_entry(entry: &Node) -> Result<Include, Diagnostics> {
    let texts = |key: &str| -> Vec<String> {
        match entry.get(key) {
            Some(node) if node.as_sequence().is_some() => as_list(node).iter().map(go_format).collect(),
            Some(node) if !node.is_null() => vec![go_format(node)],
            _ => Vec::new(),
        }
    };
    match &entry.value {
        Value::String(path) => Ok(Include {
            paths: vec![path.clone()],
            project_directory: String::new(),
            env_files: Vec::new(),
            span: entry.span,
        }),
        Value::Mapping(mapping) => {
            for (key, found) in mapping.iter() {
                let fits = match key {
                    "path" | "env_file" => {
                        found.node.as_str().is_some()
                            || found.node.is_null()
                            || as_list(&found.node).iter().all(|item| item.as_str().is_some())
                                && found.node.as_sequence().is_some()
                    }
                    "project_directory" => found.node.as_str().is_some() || found.node.as_int().is_some(),
                    _ => true,
                };
                if !fits {
                    let message = format!("include.{key} must be a string or a list of strings");
                    return Err(Diagnostic::error(message).at(found.node.span).into());
                }
            }
            Ok(Include {
                paths: texts("path"),
                project_directory: texts("project_directory").pop().unwrap_or_default(),
                env_files: texts("env_file"),
                span: entry.span,
            })
        }
        _ => {
            let message = format!("include must be a string or a mapping, not {}", go_type(entry));
            Err(Diagnostic::error(message).at(entry.span).into())
        }
    }
}

/// Moves a section into the including document; what both have must be the same.
fn import(imported: &mut Node, document: &mut Node, section: &str) -> Result<(), Diagnostic> {
    let Some(source) = imported.get_mut(section) else {
        return Ok(());
    };
    let span = source.span;
    let Some(source) = source.as_mapping_mut().map(std::mem::take) else {
        return Ok(());
    };
    let Some(top) = document.as_mapping_mut() else {
        return Ok(());
    };
    if top.get(section).is_none_or(Node::is_null) {
        top.insert(section, span, Node::new(Value::Mapping(Mapping::new()), span));
    }
    let Some(target) = top.get_mut(section).and_then(Node::as_mapping_mut) else {
        return Ok(());
    };
    for (name, entry) in source {
        match target.entry(&name) {
            Some(known) if known.node == entry.node => {}
            Some(known) => {
                return Err(
                    Diagnostic::error(format!("{section}.{name} conflicts with imported resource"))
                        .at(known.key_span)
                        .related(entry.key_span, "the imported one"),
                );
            }
            None => {
                target.insert(name, entry.key_span, entry.node);
            }
        }
    }
    Ok(())
}
