//! Large files are read in parts at the same time: nearly all of a large Compose file is its services, and a line that
//! begins one ends whatever came before it.
//!
//! A part is read as if it were a file. That is only the same as reading the whole if no part has anything wrong with
//! it and nothing leads from one part into another; whatever else is found, the file is read once more in one piece,
//! which then also says what is wrong.

use std::ops::Range;

use super::compose::{MAX_NODES, Read, read_range};
use super::{Mapping, Node, SourceId, Sources, Value};
use crate::parallel::{PARTS, each, threads};

/// A part smaller than this is read faster than it is handed over.
const LEAST_BYTES: usize = 4 << 10;

/// The section whose entries are read in parts.
const SECTION: &str = "services";

/// Where a text can be cut.
#[derive(Debug, PartialEq, Eq)]
struct Cuts {
    /// How far the section's keys are indented.
    indent: usize,
    /// From the beginning, the section's own key and its first entries.
    head: Range<usize>,
    /// Further entries.
    middle: Vec<Range<usize>>,
    /// What follows the section, if anything does.
    tail: Option<Range<usize>>,
}

/// Reads a source of one document in parts; nothing if it has to be read in one piece. `left` says how many values it
/// may have.
pub(super) fn read(sources: &Sources, id: SourceId, left: usize) -> Option<(Node, usize)> {
    let text = sources.text(id);
    let count = (threads() * PARTS).min(text.len() / LEAST_BYTES);
    if count < 2 || threads() < 2 {
        return None;
    }
    join(sources, id, &cut(text, count)?, left)
}

fn join(sources: &Sources, id: SourceId, cuts: &Cuts, left: usize) -> Option<(Node, usize)> {
    let text = sources.text(id);
    let mut ranges = vec![(cuts.head.clone(), 0)];
    ranges.extend(cuts.middle.iter().map(|range| (range.clone(), cuts.indent)));
    ranges.extend(cuts.tail.clone().map(|range| (range, 0)));
    let parts = each(ranges, |(range, indent)| {
        // The entries of the section are one level deeper than they look.
        let read = read_range(sources, id, range.clone(), left, usize::from(indent > 0))?;
        is_block(text, &read.root, indent).then_some(read)
    });
    let mut parts: Vec<Read> = parts.into_iter().collect::<Option<_>>()?;
    let tail = cuts.tail.is_some().then(|| parts.pop()).flatten();
    let mut parts = parts.into_iter();
    let Read {
        mut root,
        mut built,
        mut raw,
    } = parts.next()?;
    let top = root.as_mapping_mut()?;
    // Had something else come after the section, this would not be the end of it.
    if top.keys().last() != Some(SECTION) {
        return None;
    }
    let section = top.get_mut(SECTION)?;
    if !is_block(text, section, cuts.indent) {
        return None;
    }
    for part in parts {
        // The mapping itself was counted with the first part.
        built += part.built - 1;
        raw += part.raw - 1;
        let end = part.root.span.end;
        adopt(section.as_mapping_mut()?, part.root)?;
        section.span.end = end;
    }
    root.span.end = root.as_mapping()?.get(SECTION)?.span.end;
    if let Some(tail) = tail {
        built += tail.built - 1;
        raw += tail.raw - 1;
        let end = tail.root.span.end;
        adopt(root.as_mapping_mut()?, tail.root)?;
        root.span.end = end;
    }
    (built <= left && raw <= MAX_NODES).then_some((root, built))
}

/// Adds the entries of a mapping to another; nothing if one is there already.
fn adopt(mapping: &mut Mapping, part: Node) -> Option<()> {
    let Value::Mapping(entries) = part.value else {
        return None;
    };
    for (key, entry) in entries {
        if mapping.insert(key, entry.key_span, entry.node).is_some() {
            return None;
        }
    }
    Some(())
}

/// Says whether a node is a mapping in block style whose first key is indented by so much.
fn is_block(text: &str, node: &Node, indent: usize) -> bool {
    let first = node.as_mapping().and_then(|mapping| mapping.iter().next());
    let Some((_, first)) = first else {
        return false;
    };
    let start = first.key_span.start as usize;
    let line = text[..start].rfind('\n').map_or(0, |end| end + 1);
    let before = &text[line..start];
    // A mapping in braces begins with the brace, not with its key.
    node.tag.is_none()
        && node.span.start == first.key_span.start
        && before.len() == indent
        && before.bytes().all(|byte| byte == b' ')
}

/// Finds where to cut a text into so many parts of like size.
fn cut(text: &str, count: usize) -> Option<Cuts> {
    // Other line breaks would need looking for, and a byte order mark would be indentation.
    if text.contains('\r') || text.starts_with(['%', '\u{feff}']) {
        return None;
    }
    let section = section_line(text)?;
    let mut indent = None;
    let mut begins = Vec::new();
    let mut end = text.len();
    let mut is_deeper = false;
    let mut position = section;
    for line in text[section..].split_inclusive('\n') {
        let start = position;
        position += line.len();
        let content = line.trim_start_matches(' ');
        let first = content.bytes().next().unwrap_or(b'\n');
        // Empty lines and comments may stand anywhere.
        if matches!(first, b'\n' | b'#') {
            continue;
        }
        let depth = line.len() - content.len();
        let indent = *indent.get_or_insert(depth);
        if indent == 0 {
            return None;
        }
        if depth < indent {
            if depth > 0 {
                return None;
            }
            end = start;
            break;
        }
        if depth == indent {
            // Keys that are more than a name, and what `<<` brings in, which comes after all other entries.
            if matches!(first, b'?' | b'<' | b':') {
                return None;
            }
            if is_deeper && (first.is_ascii_alphanumeric() || matches!(first, b'_' | b'"' | b'\'')) {
                begins.push(start);
            }
        }
        is_deeper = depth > indent;
    }
    // Markers of documents, directives and the like.
    let is_special = |line: &str| line.starts_with(['%', '-', '.', '?', '<']);
    if text[end..].lines().any(is_special) {
        return None;
    }
    let mut bounds = Vec::new();
    for part in 1..count {
        let wanted = end / count * part;
        let place = begins.partition_point(|begin| *begin < wanted);
        let Some(&begin) = begins.get(place) else {
            break;
        };
        if bounds.last().is_none_or(|last| *last < begin) {
            bounds.push(begin);
        }
    }
    let indent = indent?;
    let head = 0..bounds.first()? + indent;
    // A block of text ends where the next thing begins, behind its indentation.
    let ends = bounds.iter().skip(1).map(|begin| begin + indent).chain([end]);
    Some(Cuts {
        indent,
        head,
        middle: bounds.iter().zip(ends).map(|(begin, end)| *begin..end).collect(),
        tail: (end < text.len()).then_some(end..text.len()),
    })
}

/// Returns where the line after the section's key begins.
fn section_line(text: &str) -> Option<usize> {
    let mut position = 0;
    for line in text.split_inclusive('\n') {
        position += line.len();
        let Some(rest) = line.strip_prefix(SECTION).and_then(|rest| rest.strip_prefix(':')) else {
            continue;
        };
        return rest.trim_matches([' ', '\n']).is_empty().then_some(position);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everything that is known of a node, places and all.
    fn show(node: &Node) -> String {
        format!("{node:?}")
    }

    fn whole(sources: &Sources, id: SourceId) -> Option<(Node, usize)> {
        let read = read_range(sources, id, 0..sources.text(id).len(), MAX_NODES, 0)?;
        Some((read.root, read.built))
    }

    /// Reads a text both ways; says whether it could be read in parts.
    fn agrees(text: &str, count: usize) -> bool {
        let mut sources = Sources::new();
        let id = sources.add("c.yaml", text);
        let Some(cuts) = cut(text, count) else {
            return false;
        };
        let Some((node, built)) = join(&sources, id, &cuts, MAX_NODES) else {
            return false;
        };
        let Some((expected, values)) = whole(&sources, id) else {
            panic!("{text:?} cannot be read");
        };
        assert_eq!(show(&node), show(&expected), "{text:?}");
        assert_eq!(built, values, "{text:?}");
        true
    }

    #[test]
    fn services_are_read_in_parts_as_in_one_piece() {
        for text in [
            "services:\n  a:\n    image: x\n  b:\n    image: y\n",
            "name: p\nservices:\n  a:\n    image: x\n\n  # b\n  b: {image: y}\nvolumes:\n  d:\n",
            "services:\n  a:\n    image:\n  b:\n    image:\n",
            "services:\n  a:\n    command: |+\n      x\n\n\n  b:\n    command: >-\n      y\n  c:\n    x: [1,\n     2]\n",
            "services:\n    a:\n        image: x\n    \"b\":\n        image: y",
            "---\nservices:\n  a:\n    image: x\n    x: &y {a: 1}\n    z: *y\n  b:\n    image: y\n",
        ] {
            for count in 2..4 {
                assert!(agrees(text, count), "{text:?}");
            }
        }
    }

    #[test]
    fn what_leads_from_one_part_into_another_is_read_in_one_piece() {
        for text in [
            // An anchor of another part.
            "services:\n  a: &a\n    image: x\n  b: *a\n",
            "services:\n  a: &a\n    image: x\n  b:\n    <<: *a\n",
            // A key that is there twice.
            "services:\n  a:\n    image: x\n  a:\n    image: y\n",
            "volumes:\n  d:\nservices:\n  a:\n    image: x\n  b:\n    image: y\nvolumes:\n",
            // A text, a list and a mapping that go on.
            "services:\n  a:\n    image: \"x\n  b:\n    image: y\"\n",
            "services:\n  a:\n    image: [x,\n  b, y]\n",
            "services:\n  {a:\n    x,\n  b: y}\n",
            "services:\n  {a: x}\n  b: y\n",
            // Merges come after all other entries.
            "services:\n  <<: {c: {image: z}}\n  a:\n    image: x\n  b:\n    image: y\n",
            // More than one document.
            "services:\n  a:\n    image: x\n  b:\n    image: y\n---\nservices:\n",
            // Nothing to cut.
            "services:\n  a: x\n  b: y\n",
            "services: # s\n  a:\n    image: x\n  b:\n    image: y\n",
            "services:\n- a\n- b\n",
            "a: |\n  services:\n    b:\n      c\n",
            "",
        ] {
            assert!(!agrees(text, 2), "{text:?}");
        }
    }

    #[test]
    fn values_are_counted_and_nesting_limited_over_all_parts() {
        let deep = |levels| {
            let (open, close) = ("[".repeat(levels), "]".repeat(levels));
            format!("services:\n  a:\n    image: {open}{close}\n  b:\n    image: {open}{close}\n")
        };
        for levels in 240..260 {
            let text = deep(levels);
            let mut sources = Sources::new();
            let id = sources.add("c.yaml", text.as_str());
            let is_right = whole(&sources, id).is_some();
            assert_eq!(agrees(&text, 2), is_right, "{levels}");
        }
        let text = "services:\n  a:\n    image: x\n  b:\n    image: y\nvolumes:\n  d:\n";
        let mut sources = Sources::new();
        let id = sources.add("c.yaml", text);
        let cuts = cut(text, 2).unwrap();
        let (_, built) = whole(&sources, id).unwrap();
        assert!(join(&sources, id, &cuts, built).is_some());
        assert!(join(&sources, id, &cuts, built - 1).is_none());
    }

    fn line() -> impl Strategy<Value = String> {
        let content = prop_oneof![
            "[a-c]:",
            "[a-c]: [a-c1~]?",
            "- [a-c]",
            "- [a-c]: x",
            "# c",
            "[a-c]: \\|[-+1]?",
            "[a-c]: [>'\"\\[{&*!][a-c]?['\"\\]}]?",
            "['\"\\]}<?&*!%.-][a-c:]{0,3}",
            "[a-c]",
            "(---|\\.\\.\\.|<<: \\*a|<<: \\{a: 1\\}|\\? a|: a)",
        ];
        (
            prop_oneof![4 => Just(2_usize), 8 => Just(4), 2 => Just(0), 1 => 0_usize..8],
            content,
        )
            .prop_map(|(depth, content)| format!("{}{content}\n", " ".repeat(depth)))
    }

    proptest! {
        #[test]
        fn parts_never_say_anything_else(
            before in proptest::collection::vec(line(), 0..2),
            lines in proptest::collection::vec(line(), 0..12),
            count in 2_usize..5,
        ) {
            agrees(&format!("{}services:\n{}", before.concat(), lines.concat()), count);
        }
    }
}
