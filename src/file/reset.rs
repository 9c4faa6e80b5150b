//! `!reset` and `!override`: what a later document takes back from earlier ones.
// compose-go loader/reset.go

use crate::yaml::{Node, Tag, Value};

/// Paths at which earlier values are forgotten.
#[derive(Debug, Clone, Default)]
pub struct Resets(Vec<Vec<String>>);

impl Resets {
    /// Takes the tags out of a document: `!reset` values disappear, `!override` values stay.
    pub fn take(document: &mut Node) -> Self {
        let mut resets = Self::default();
        if document.tag == Some(Tag::Reset) {
            document.value = Value::Null;
            return resets;
        }
        // Few documents have any.
        if has_tags(document) {
            resets.collect(document, &mut Vec::new());
        }
        resets
    }

    fn collect(&mut self, node: &mut Node, path: &mut Vec<String>) {
        if node.tag == Some(Tag::Override) {
            self.0.push(path.clone());
            node.tag = None;
            return;
        }
        match &mut node.value {
            Value::Mapping(mapping) => {
                mapping.retain(|key, entry| {
                    path.push(key.to_owned());
                    let keep = entry.node.tag != Some(Tag::Reset);
                    if keep {
                        self.collect(&mut entry.node, path);
                    } else {
                        self.0.push(path.clone());
                    }
                    path.pop();
                    keep
                });
            }
            Value::Sequence(items) => {
                items.retain(|item| item.tag != Some(Tag::Reset));
                for (index, item) in items.iter_mut().enumerate() {
                    path.push(index.to_string());
                    self.collect(item, path);
                    path.pop();
                }
            }
            _ => {}
        }
    }

    /// Removes from a tree what is forgotten.
    pub fn apply(&self, root: &mut Node) {
        for path in &self.0 {
            let parts: Vec<&str> = path.iter().map(String::as_str).collect();
            remove(root, &parts);
        }
    }

    /// Removes from one service what is forgotten about a service of that name.
    pub fn apply_to_service(&self, name: &str, service: &mut Node) {
        for path in &self.0 {
            if let [section, of, rest @ ..] = path.as_slice()
                && section == "services"
                && of == name
                && !rest.is_empty()
            {
                let parts: Vec<&str> = rest.iter().map(String::as_str).collect();
                remove(service, &parts);
            }
        }
    }
}

fn has_tags(node: &Node) -> bool {
    node.tag.is_some()
        || match &node.value {
            Value::Mapping(mapping) => mapping.iter().any(|(_, entry)| has_tags(&entry.node)),
            Value::Sequence(items) => items.iter().any(has_tags),
            _ => false,
        }
}

fn remove(node: &mut Node, path: &[&str]) {
    match path {
        [] => {}
        [last] => {
            if let Some(mapping) = node.as_mapping_mut() {
                mapping.remove(last);
            }
        }
        [first, rest @ ..] => {
            if let Some(next) = node.get_mut(first) {
                remove(next, rest);
            }
        }
    }
}
