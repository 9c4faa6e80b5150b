//! Parser events become a raw tree: one document's nodes in an arena, aliases still pointing at their anchors.

use std::borrow::Cow;
use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle as ParsedStyle, StructureStyle};

use super::scalar::CoreTag;
use super::syntax::{self, Open};
use super::{Diagnostic, Diagnostics, ScalarStyle, SourceId, Span, Tag};

/// Index into [`Document::nodes`].
pub(super) type RawId = usize;

#[derive(Debug)]
pub(super) struct RawNode<'t> {
    pub kind: RawKind<'t>,
    pub span: Span,
    pub tag: Option<Tag>,
    pub core_tag: Option<CoreTag>,
}

#[derive(Debug)]
pub(super) enum RawKind<'t> {
    Scalar { text: Cow<'t, str>, style: ScalarStyle },
    Sequence(Vec<RawId>),
    Mapping(Vec<(RawId, RawId)>),
    Alias(RawId),
}

/// One document of a stream, as it was written.
#[derive(Debug)]
pub(super) struct Document<'t> {
    pub nodes: Vec<RawNode<'t>>,
    pub root: RawId,
}

/// How deep block and flow collections may nest: far beyond any Compose file, and safe for recursive walks.
const NESTING_LIMIT: usize = 250;

/// A collection whose end has not come yet.
struct Frame {
    id: RawId,
    open: Open,
    /// A mapping's key that waits for its value.
    key: Option<RawId>,
}

/// A text that is read on its own, and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Extract<'t> {
    pub source: SourceId,
    pub text: &'t str,
    /// Where it begins in its source.
    pub start: usize,
    /// How many collections are around it.
    pub depth: usize,
}

/// Reads all documents of a text, up to the first that cannot be read.
pub(super) fn read(extract: Extract<'_>, node_limit: usize) -> (Vec<Document<'_>>, Option<Diagnostics>) {
    let Extract { source, text, .. } = extract;
    let options = granit_parser::options! {
        flow_nesting_limit: NESTING_LIMIT,
        block_nesting_limit: NESTING_LIMIT - extract.depth,
        emit_comments: false,
        block_scalar_eof_without_line_feed: true,
    };
    let mut builder = Builder {
        source,
        text,
        start: extract.start,
        documents: Vec::new(),
        nodes: Vec::new(),
        root: None,
        frames: Vec::new(),
        anchors: HashMap::new(),
    };
    let mut failure = None;
    for event in Parser::new_from_str_with_options(text, options) {
        let read = event
            .map_err(|error| syntax::translate(source, text, &error, &builder.open_collections()).into())
            .and_then(|(event, span)| {
                builder.event(event, &span)?;
                if builder.nodes.len() > node_limit {
                    let message = format!("yaml: document has more than {node_limit} values");
                    return Err(Diagnostic::error(message).at(builder.span(&span)).into());
                }
                Ok(())
            });
        if let Err(diagnostics) = read {
            failure = Some(diagnostics);
            break;
        }
    }
    (builder.documents, failure)
}

struct Builder<'t> {
    source: SourceId,
    text: &'t str,
    start: usize,
    documents: Vec<Document<'t>>,
    nodes: Vec<RawNode<'t>>,
    root: Option<RawId>,
    frames: Vec<Frame>,
    anchors: HashMap<usize, RawId>,
}

impl<'t> Builder<'t> {
    fn open_collections(&self) -> Vec<Open> {
        self.frames.iter().map(|frame| frame.open).collect()
    }

    fn span(&self, span: &granit_parser::Span) -> Span {
        let range = span.byte_range().unwrap_or_default();
        Span::new(self.source, self.start + range.start, self.start + range.end)
    }

    fn event(&mut self, event: Event<'t>, span: &granit_parser::Span) -> Result<(), Diagnostics> {
        let in_flow = self.frames.last().is_some_and(|frame| frame.open.flow);
        if !in_flow
            && event.is_node()
            && let Some(start) = span.start.byte_offset()
            && let Some(diagnostic) = syntax::tab_in_indentation(self.source, self.text, start)
        {
            return Err(diagnostic.into());
        }
        match event {
            Event::DocumentStart(_, Some(version)) if (version.major, version.minor) != (1, 1) => {
                return Err(syntax::incompatible_version(self.source, self.text).into());
            }
            Event::DocumentEnd => {
                if let Some(root) = self.root.take() {
                    self.documents.push(Document {
                        nodes: std::mem::take(&mut self.nodes),
                        root,
                    });
                }
                self.anchors.clear();
            }
            Event::Scalar(text, style, anchor, tag) => {
                let (tag, core_tag) = tags(tag.as_deref());
                // A missing value arrives as a `~` that covers nothing.
                let text = if span.is_empty() && style == ParsedStyle::Plain {
                    Cow::Borrowed("")
                } else {
                    text
                };
                let kind = RawKind::Scalar {
                    text,
                    style: match style {
                        ParsedStyle::SingleQuoted => ScalarStyle::SingleQuoted,
                        ParsedStyle::DoubleQuoted => ScalarStyle::DoubleQuoted,
                        ParsedStyle::Literal => ScalarStyle::Literal,
                        ParsedStyle::Folded => ScalarStyle::Folded,
                        _ => ScalarStyle::Plain,
                    },
                };
                self.node(kind, self.span(span), tag, core_tag, anchor);
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.open(RawKind::Sequence(Vec::new()), style, span, anchor, tag.as_deref());
            }
            Event::MappingStart(style, anchor, tag) => {
                self.open(RawKind::Mapping(Vec::new()), style, span, anchor, tag.as_deref());
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(anchor) => {
                if let Some(&target) = self.anchors.get(&anchor) {
                    self.node(RawKind::Alias(target), self.span(span), None, None, 0);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn node(
        &mut self,
        kind: RawKind<'t>,
        span: Span,
        tag: Option<Tag>,
        core_tag: Option<CoreTag>,
        anchor: usize,
    ) -> RawId {
        let id = self.nodes.len();
        self.nodes.push(RawNode {
            kind,
            span,
            tag,
            core_tag,
        });
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
        match self.frames.last_mut() {
            None => self.root = Some(id),
            Some(frame) => match &mut self.nodes[frame.id].kind {
                RawKind::Sequence(items) => items.push(id),
                RawKind::Mapping(entries) => match frame.key.take() {
                    None => frame.key = Some(id),
                    Some(key) => entries.push((key, id)),
                },
                RawKind::Scalar { .. } | RawKind::Alias(_) => {}
            },
        }
        id
    }

    fn open(
        &mut self,
        kind: RawKind<'t>,
        style: StructureStyle,
        span: &granit_parser::Span,
        anchor: usize,
        tag: Option<&granit_parser::Tag>,
    ) {
        let open = Open {
            mapping: matches!(kind, RawKind::Mapping(_)),
            flow: style == StructureStyle::Flow,
            start: span.start,
        };
        let (tag, core_tag) = tags(tag);
        let id = self.node(kind, self.span(span), tag, core_tag, anchor);
        self.frames.push(Frame { id, open, key: None });
    }

    /// Ends the innermost collection; a block collection's span ends with its last child, not with what follows it.
    fn close(&mut self, span: &granit_parser::Span) {
        let Some(frame) = self.frames.pop() else {
            return;
        };
        let last = match &self.nodes[frame.id].kind {
            RawKind::Sequence(items) => items.last().copied(),
            RawKind::Mapping(entries) => entries.last().map(|&(_, value)| value),
            RawKind::Scalar { .. } | RawKind::Alias(_) => None,
        };
        let end = match last {
            Some(last) if !frame.open.flow => self.nodes[last].span.end,
            _ => self.span(span).end,
        };
        let node = &mut self.nodes[frame.id];
        node.span.end = end.max(node.span.start);
    }
}

fn tags(tag: Option<&granit_parser::Tag>) -> (Option<Tag>, Option<CoreTag>) {
    let Some(tag) = tag else {
        return (None, None);
    };
    if let Some(suffix) = tag.suffix_in_namespace("tag:yaml.org,2002:") {
        return (None, Some(CoreTag::from_core_suffix(&suffix)));
    }
    match (tag.handle(), tag.suffix()) {
        ("!", "reset") => (Some(Tag::Reset), None),
        // A scalar with a tag of its own is text to go-yaml; a list or mapping is what it is.
        ("!", "override") => (Some(Tag::Override), Some(CoreTag::Other)),
        // `! text`: the non-specific tag leaves the scalar to its own looks.
        ("!", "") | ("", "!") => (None, None),
        _ => (None, Some(CoreTag::Other)),
    }
}
