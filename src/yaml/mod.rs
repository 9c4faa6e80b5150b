//! YAML: parser events become nodes that know where they stand in their source.
//!
//! [`parse`] answers one question: what does this text say, and where does it say it? It follows go-yaml v3, which
//! is what Compose files are written for: its scalar rules, `<<` merges, duplicate keys and error texts. It knows
//! nothing of Compose beyond the two tags `!reset` and `!override`.

mod compose;
mod diagnostic;
mod events;
mod golang;
mod node;
mod parts;
mod scalar;
mod source;
mod suggest;
mod syntax;
pub mod writer;

pub(crate) use compose::go_quote;
pub use compose::{MAX_DEPTH, MAX_NODES, MAX_SOURCE_BYTES, Stream, parse, parse_stream};
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use golang::{go_format, go_type};
pub use node::{Entry, Mapping, Node, Tag, Value};
pub use scalar::{ScalarStyle, format_float};
pub use source::{SourceId, Sources, Span};
pub use suggest::closest;
