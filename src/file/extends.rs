//! Services that take over the settings of others.
// compose-go loader/extends.go

use std::cell::RefCell;
use std::collections::HashMap;

use super::load::{ComposeFile, Loader, Place, Purpose, Variables};
use super::merge::merge_service;
use super::paths::{directory_of, is_remote};
use super::remote::local_path;
use super::reset::Resets;
use crate::yaml::{Diagnostic, Diagnostics, Mapping, Node, go_quote};

/// What stays the same while one service is resolved.
struct Scope<'a> {
    /// The file that is being loaded, as messages name it.
    file: &'a str,
    place: &'a Place,
    variables: &'a Variables,
    /// The files that are extended, each read once; one is not here while it is in use.
    bases: RefCell<HashMap<String, Base>>,
}

/// Another file whose services are extended.
struct Base {
    services: Mapping,
    resets: Resets,
    /// What is said each time the file is read.
    warnings: Vec<Diagnostic>,
}

impl Loader<'_> {
    /// Replaces every service that extends another by the two merged.
    pub(super) fn apply_extends(
        &mut self,
        document: &mut Node,
        file: &ComposeFile,
        place: &Place,
        variables: &Variables,
        resets: &Resets,
    ) -> Result<(), Diagnostics> {
        let Some(node) = document.get_mut("services") else {
            return Ok(());
        };
        let span = node.span;
        let Some(services) = node.as_mapping_mut() else {
            return Err(Diagnostic::error("services must be a mapping").at(span).into());
        };
        let scope = Scope {
            file: &file.name,
            place,
            variables,
            bases: RefCell::default(),
        };
        let names: Vec<String> = services.keys().map(str::to_owned).collect();
        for name in names {
            let Some(service) = services.get(&name) else {
                continue;
            };
            if service.is_null()
                || service
                    .as_mapping()
                    .is_some_and(|service| !service.contains_key("extends"))
            {
                continue;
            }
            self.extend(&name, services, &scope, &mut Vec::new(), &mut vec![resets.clone()])?;
        }
        Ok(())
    }

    /// Returns a service with everything it extends; stores it, too, so that others need not do it again.
    fn extend(
        &mut self,
        name: &str,
        services: &mut Mapping,
        scope: &Scope<'_>,
        trail: &mut Vec<(String, String)>,
        resets: &mut Vec<Resets>,
    ) -> Result<Option<Node>, Diagnostics> {
        let Some(service) = services.get(name).filter(|service| !service.is_null()) else {
            return Ok(None);
        };
        let service = service.clone();
        let Some(mapping) = service.as_mapping() else {
            let message = format!("services.{name} must be a mapping");
            return Err(Diagnostic::error(message).at(service.span).into());
        };
        let Some(extends) = mapping.get("extends") else {
            return Ok(Some(service));
        };
        let (reference, file) = match extends.as_mapping() {
            Some(fields) => {
                let Some(reference) = fields.get("service").and_then(Node::as_str) else {
                    let message = format!("extends.{name}.service is required");
                    return Err(Diagnostic::error(message).at(extends.span).into());
                };
                (reference, fields.get("file").filter(|file| !file.is_null()))
            }
            None => (extends.as_str().unwrap_or_default(), None),
        };
        let known = resets.len();
        let mut other = None;
        let mut tracked = scope.file.to_owned();
        let services_of_base = match file {
            Some(file) => {
                let Some(path) = file.as_str() else {
                    let message = format!("extends.{name}.file must be a string");
                    return Err(Diagnostic::error(message).at(file.span).into());
                };
                tracked = path.to_owned();
                let read_before = scope.bases.borrow_mut().remove(path);
                let base = match read_before.filter(|base| base.services.contains_key(reference)) {
                    Some(base) => {
                        self.warnings.extend(base.warnings.iter().cloned());
                        base
                    }
                    None => self.base(name, reference, path, extends, scope)?,
                };
                resets.push(base.resets.clone());
                &mut other.insert(base).services
            }
            None => {
                if !services.contains_key(reference) {
                    let message = format!(
                        "cannot extend service {} in {}: service {} not found",
                        go_quote(name),
                        scope.file,
                        go_quote(reference)
                    );
                    return Err(Diagnostic::error(message).at(extends.span).into());
                }
                &mut *services
            }
        };
        let path_of_base = tracked.clone();
        let step = (tracked, name.to_owned());
        if trail.contains(&step) {
            trail.push(step);
            return Err(circular(trail).at(extends.span).into());
        }
        trail.push(step);
        let base = self.extend(reference, services_of_base, scope, trail, resets)?;
        trail.pop();
        if let Some(other) = other {
            scope.bases.borrow_mut().insert(path_of_base, other);
        }
        let Some(mut base) = base else {
            resets.truncate(known);
            return Ok(Some(service));
        };
        for resets in resets.iter() {
            resets.apply_to_service(name, &mut base);
        }
        resets.truncate(known);
        let mut merged = merge_service(name, base, service)?;
        if let Some(mapping) = merged.as_mapping_mut() {
            mapping.remove("extends");
        }
        if let Some(entry) = services.get_mut(name) {
            *entry = merged.clone();
        }
        Ok(Some(merged))
    }

    /// Reads another file.
    fn base(
        &mut self,
        name: &str,
        reference: &str,
        path: &str,
        extends: &Node,
        scope: &Scope<'_>,
    ) -> Result<Base, Diagnostics> {
        let local = if is_remote(path) {
            local_path(path, self.options).map_err(|error| error.at(extends.span))?
        } else if path.starts_with('/') {
            path.to_owned()
        } else {
            super::paths::join(&scope.place.absolute, path)
        };
        let quoted = go_quote(name);
        let warnings = self.warnings.len();
        let mut file = self.read_file(&local).map_err(|error| at(error, extends))?;
        let place = Place {
            absolute: directory_of(&local),
            relative: super::paths::relative(&scope.place.absolute, &directory_of(&local)),
        };
        let (tree, resets) = self.file(&mut file, &place, scope.variables, None, &[], Purpose::Base)?;
        let Some(mut tree) = tree else {
            return Err(Diagnostic::error(format!(
                "cannot extend service {quoted} in {local}: no services section"
            ))
            .at(extends.span)
            .into());
        };
        let fail = |message: String| Diagnostic::error(message).at(extends.span);
        match tree.get("services") {
            None => {
                return Err(fail(format!(
                    "cannot extend service {quoted} in {local}: no services section"
                ))
                .into());
            }
            Some(services) if services.as_mapping().is_none() => {
                return Err(fail(format!(
                    "cannot extend service {quoted} in {local}: services must be a mapping"
                ))
                .into());
            }
            Some(services) if services.get(reference).is_none() => {
                return Err(fail(format!(
                    "cannot extend service {quoted} in {}: service {} not found in {path}",
                    scope.file,
                    go_quote(reference)
                ))
                .into());
            }
            Some(_) => {}
        }
        self.resolve_paths(&mut tree, &place.relative)?;
        let services = tree.get_mut("services").and_then(Node::as_mapping_mut);
        Ok(Base {
            services: services.map(std::mem::take).unwrap_or_default(),
            resets,
            warnings: self.warnings[warnings..].to_vec(),
        })
    }
}

fn circular(trail: &[(String, String)]) -> Diagnostic {
    let mut lines = vec!["Circular reference:".to_owned()];
    for (index, (file, service)) in trail.iter().enumerate() {
        let word = if index == 0 { "" } else { "extends " };
        lines.push(format!("  {word}{service} in {file}"));
    }
    Diagnostic::error(lines.join("\n"))
}

/// Gives errors without a place the one that led there.
pub(super) fn at(mut diagnostics: Diagnostics, node: &Node) -> Diagnostics {
    for diagnostic in &mut diagnostics.0 {
        if diagnostic.span.is_none() {
            diagnostic.span = Some(node.span);
        }
    }
    diagnostics
}
