//! Small steps on a tree of nodes that several phases share.

use crate::yaml::{Diagnostic, Entry, Mapping, Node, Span, Value};

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

/// Calls a function for every service that is a mapping.
pub fn each_service(
    root: &mut Node,
    mut visit: impl FnMut(&str, &mut Node) -> Result<(), Diagnostic>,
) -> Result<(), Diagnostic> {
    each_entry(root, "services", |name, node| {
        if node.as_mapping().is_some() {
            visit(name, node)?;
        }
        Ok(())
    })
}

/// Returns the node at a path of keys.
pub fn at_mut<'n>(node: &'n mut Node, path: &[&str]) -> Option<&'n mut Node> {
    path.iter().try_fold(node, |node, key| node.get_mut(key))
}
