//! Which attributes of a project are accepted and have no effect, so that whoever runs it can be told.

use super::schema::{Keys, PROJECT, Schema, Verdict};
use crate::model::Project;
use crate::yaml::{Entry, Mapping, Node, Span, Value};

/// An attribute without effect, and where it stands first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithoutEffect {
    /// The path in the file, joined with dots.
    pub path: String,
    pub reason: &'static str,
    pub span: Span,
    /// In how many more places it stands.
    pub others: usize,
    /// The path with `*` for names: what makes it the same attribute elsewhere.
    attribute: String,
}

/// Returns the attributes without effect of what the project uses, each once, in the order of the files.
pub fn find(root: &Node, project: &Project) -> Vec<WithoutEffect> {
    let mut finder = Finder {
        project,
        path: Vec::new(),
        found: Vec::new(),
    };
    finder.object(&PROJECT, root);
    let mut found = finder.found;
    found.sort_by_key(|attribute| (attribute.span.source, attribute.span.start));
    found
}

struct Finder<'n> {
    project: &'n Project,
    /// The keys that lead to the value at hand, each with what stands for it where names do not matter.
    path: Vec<(&'n str, &'n str)>,
    found: Vec<WithoutEffect>,
}

impl<'n> Finder<'n> {
    fn object(&mut self, schema: &'static Schema, node: &'n Node) {
        for form in schema.one_of {
            self.object(form, node);
        }
        match &node.value {
            Value::Mapping(mapping) => self.mapping(schema, mapping),
            Value::Sequence(items) => {
                let Some(schema) = schema.items else {
                    return;
                };
                for item in items {
                    self.path.push(("[]", "[]"));
                    self.object(schema, item);
                    self.path.pop();
                }
            }
            _ => {}
        }
    }

    fn mapping(&mut self, schema: &'static Schema, mapping: &'n Mapping) {
        for (name, entry) in mapping.iter() {
            let (shown, below, verdict) = match (schema.property(name), schema.keys) {
                (Some(property), _) => (name, property.schema, property.verdict),
                (None, Keys::Named { pattern, schema, .. }) if pattern.matches(name) => {
                    ("*", schema, Verdict::Honoured)
                }
                _ => continue,
            };
            self.path.push((name, shown));
            match verdict {
                _ if !self.is_used() || says_nothing(name, entry) => {}
                Verdict::NoEffect(reason) => self.add(reason, entry.key_span),
                Verdict::Moot(_) => {}
                Verdict::Honoured => self.object(below, &entry.node),
            }
            self.path.pop();
        }
    }

    /// Says whether the project uses the service or resource that the path leads into.
    fn is_used(&self) -> bool {
        let [(section, _), (name, _)] = self.path[..] else {
            return true;
        };
        match section {
            "services" => self.project.services.contains_key(name),
            "networks" => self.project.networks.contains_key(name),
            "volumes" => self.project.volumes.contains_key(name),
            "secrets" => self.project.secrets.contains_key(name),
            "configs" => self.project.configs.contains_key(name),
            "models" => self.project.models.contains_key(name),
            _ => true,
        }
    }

    fn add(&mut self, reason: &'static str, span: Span) {
        let joined = |parts: Vec<&str>| parts.join(".").replace(".[]", "[]");
        let attribute = joined(self.path.iter().map(|(_, shown)| *shown).collect());
        // A form of several may have been followed more than once, and an anchor stands in one place.
        match self.found.iter_mut().find(|known| known.attribute == attribute) {
            Some(known) if known.span == span => {}
            Some(known) => known.others += 1,
            None => self.found.push(WithoutEffect {
                path: joined(self.path.iter().map(|(name, _)| *name).collect()),
                reason,
                span,
                others: 0,
                attribute,
            }),
        }
    }
}

/// Says whether an attribute was filled in, not written, or asks for nothing.
fn says_nothing(name: &str, entry: &Entry) -> bool {
    // What earlier phases put in is placed at the value it was made of, key and all.
    let filled_in = entry.key_span == entry.node.span;
    match &entry.node.value {
        Value::Null | Value::Bool(false) => true,
        // What is so anyway may be asked for.
        Value::String(value) => filled_in || matches!((name, value.as_str()), ("userns_mode", "host")),
        Value::Sequence(items) => items.is_empty(),
        Value::Mapping(mapping) => mapping.is_empty(),
        _ => filled_in,
    }
}

#[cfg(test)]
mod tests {
    use crate::file::{LoadOptions, load};

    /// Returns what has no effect in a project of one file, each as `line:column path`, with the number of more places.
    fn found(text: &str) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("compose.yaml"), text).unwrap();
        let options = LoadOptions {
            find_without_effect: true,
            ..LoadOptions::new(directory.path().to_owned(), std::collections::BTreeMap::new())
        };
        let loaded = load(&options).unwrap();
        let shown = loaded.without_effect.iter().map(|attribute| {
            let (line, column) = loaded.sources.position(attribute.span);
            format!("{line}:{column} {} +{}", attribute.path, attribute.others)
        });
        shown.collect()
    }

    #[test]
    fn each_attribute_is_found_once_where_it_stands_first() {
        let text = "services:\n  a:\n    image: x\n    deploy: {placement: {constraints: [b==c]}}\n  b:\n    image: x\n    \
                    deploy: {placement: {constraints: [b==c]}, endpoint_mode: vip}\n";
        assert_eq!(
            found(text),
            [
                "4:14 services.a.deploy.placement +1",
                "7:48 services.b.deploy.endpoint_mode +0"
            ]
        );
    }

    #[test]
    fn what_is_filled_in_or_off_or_so_anyway_is_not_told() {
        let text = "services:\n  a:\n    image: x\n    ports: ['80', {target: 81, mode: ingress}]\n    userns_mode: host\n  \
                    off:\n    image: x\n    profiles: [p]\n    isolation: hyperv\n";
        assert_eq!(found(text), [""; 0]);
    }
}
