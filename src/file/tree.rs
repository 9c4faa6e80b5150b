//! Small steps on a tree of nodes that several phases share.

use crate::parallel::in_parts;
use crate::yaml::{Diagnostic, Diagnostics, Entry, Mapping, Node, Span, Value};

pub use crate::yaml::{go_format, go_type};

/// Makes an entry for a mapping, placed where `span` says.
pub fn entry(key: &str, value: Value, span: Span) -> (String, Entry) {
    (
        key.to_owned(),
        Entry {
            key_span: span,
            node: Node::new(value, span),
        },
    )
}

/// Makes a mapping of one entry.
pub fn object(key: &str, node: Node) -> Node {
    let span = node.span;
    let mut mapping = Mapping::new();
    mapping.insert(key, span, node);
    Node::new(Value::Mapping(mapping), span)
}

/// Returns the items of a list; none for anything else.
pub fn as_list(node: &Node) -> &[Node] {
    node.as_sequence().unwrap_or_default()
}

/// Calls a function for every entry of a top-level section that is a mapping.
pub fn each_entry(
    root: &mut Node,
    section: &str,
    mut visit: impl FnMut(&str, &mut Node) -> Result<(), Diagnostic>,
) -> Result<(), Diagnostic> {
    if let Some(mapping) = root.get_mut(section).and_then(Node::as_mapping_mut) {
        for (name, entry) in mapping.iter_mut() {
            visit(name, &mut entry.node)?;
        }
    }
    Ok(())
}

/// Calls a function for every service that is a mapping, those of a large project at the same time; what is wrong with
/// each comes back in their order.
pub fn each_service<E: Into<Diagnostics>>(
    root: &mut Node,
    visit: impl Fn(&str, &mut Node) -> Result<(), E> + Sync,
) -> Result<(), Diagnostics> {
    let services = root.get_mut("services").and_then(Node::as_mapping_mut);
    let services: Vec<(&str, &mut Entry)> = services.into_iter().flat_map(Mapping::iter_mut).collect();
    let wrong = in_parts(services, |part| -> Vec<Diagnostic> {
        let mappings = part.into_iter().filter(|(_, entry)| entry.node.as_mapping().is_some());
        let wrong = mappings.filter_map(|(name, entry)| visit(name, &mut entry.node).err());
        wrong.flat_map(|error| error.into().0).collect()
    });
    let wrong = wrong.concat();
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Diagnostics(wrong)),
    }
}

/// Returns the node at a path of keys.
pub fn at_mut<'n>(node: &'n mut Node, path: &[&str]) -> Option<&'n mut Node> {
    path.iter().try_fold(node, |node, key| node.get_mut(key))
}
