//! What the parser cannot read, in go-yaml's words.
//!
//! go-yaml names a line in a way of its own: that of the construct around the error if it does not begin on the
//! first line, else that of the error; counted from zero when its parser complains and from one when its scanner
//! does. Scripts and people know these texts, so the first line repeats them; the snippet shows the true place.

use granit_parser::{ErrorKind, Marker, ScanError};

use super::{Diagnostic, SourceId, Span};

/// A collection that was open when the error came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub mapping: bool,
    pub flow: bool,
    pub start: Marker,
}

/// Which part of go-yaml complains.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Voice {
    Scanner,
    Parser,
    /// Neither: no line is named.
    Silent,
}

pub(super) fn translate(source: SourceId, text: &str, error: &ScanError, open: &[Open]) -> Diagnostic {
    let problem = *error.marker();
    let start = problem.byte_offset().unwrap_or(0).min(text.len());
    let innermost = |wanted: fn(&Open) -> bool| open.iter().rev().find(|open| wanted(open)).copied();
    // The parser may have looked ahead from a bracket that it has not told us about yet.
    let flow = innermost(|open| open.flow).or_else(|| open_bracket(&text[..start]));
    let block_mapping = innermost(|open| open.mapping && !open.flow);
    let block_sequence = innermost(|open| !open.mapping && !open.flow);
    let flow_separator = |open: Open| {
        if open.mapping {
            "did not find expected ',' or '}'"
        } else {
            "did not find expected ',' or ']'"
        }
    };

    use ErrorKind as Kind;
    use Voice::{Parser, Scanner, Silent};
    let cannot_start = "found character that cannot start any token";
    let (message, voice, context, help): (String, Voice, Option<Marker>, Option<&str>) = match error.kind() {
        Kind::UnknownAnchor => {
            let name: String = text[start..]
                .trim_start_matches('*')
                .chars()
                .take_while(|character| character.is_alphanumeric() || "_-".contains(*character))
                .collect();
            let message = format!("unknown anchor '{name}' referenced");
            (message, Silent, None, Some("define it with `&` above this line"))
        }
        Kind::MisplacedFlowCollectionEnd if expects_value(&text[..start]) => (
            "did not find expected node content".into(),
            Parser,
            Some(problem),
            Some("put the value in quotes"),
        ),
        Kind::UnexpectedEofFlowSequence
        | Kind::UnexpectedEofFlowMapping
        | Kind::UnexpectedEofImplicitFlowMapping
        | Kind::ExpectedFlowMappingSeparator
        | Kind::ExpectedFlowSequenceSeparator
        | Kind::UnclosedFlowCollection { .. }
        | Kind::MismatchedFlowCollectionEnd { .. }
        | Kind::MisplacedFlowCollectionEnd
        | Kind::InvalidColonPlacement
        | Kind::FlowMappingValueAdjacentCollection
        | Kind::InvalidTrailingSingleQuotedScalar
        | Kind::InvalidTrailingDoubleQuotedScalar
        | Kind::CommentInterceptedScalar
            if flow.is_some() =>
        {
            let open = flow.expect("checked by the guard");
            (flow_separator(open).into(), Parser, Some(open.start), None)
        }
        Kind::MappingValueNotAllowed | Kind::SimpleKeyExpected if flow.is_some() => {
            let open = flow.expect("checked by the guard");
            (flow_separator(open).into(), Parser, Some(open.start), None)
        }
        Kind::UnclosedFlowCollection { open } => {
            let message = match open {
                '{' => "did not find expected ',' or '}'",
                _ => "did not find expected ',' or ']'",
            };
            (message.into(), Parser, Some(problem), Some("close the bracket"))
        }
        Kind::BlockEntryInFlowCollection | Kind::PlainScalarStartsWithDashFlowIndicator | Kind::ExpectedNodeContent => {
            ("did not find expected node content".into(), Parser, Some(problem), None)
        }
        Kind::UnexpectedEofBlockSequence | Kind::ExpectedBlockSequenceEntry => (
            "did not find expected '-' indicator".into(),
            Parser,
            block_sequence.map(|open| open.start),
            None,
        ),
        Kind::ExpectedBlockMappingKey
        | Kind::UnexpectedEofBlockMapping
        | Kind::InvalidIndentation
        | Kind::InvalidTrailingSingleQuotedScalar
        | Kind::InvalidTrailingDoubleQuotedScalar
        | Kind::CommentInterceptedScalar
        | Kind::MisplacedFlowCollectionEnd => (
            "did not find expected key".into(),
            Parser,
            block_mapping.map(|open| open.start),
            Some("check the indentation: attributes of one mapping start in the same column"),
        ),
        Kind::ExpectedDocumentStart | Kind::InvalidDocumentEnd => {
            ("did not find expected <document start>".into(), Parser, None, None)
        }
        Kind::UndeclaredTagHandle => ("found undefined tag handle".into(), Parser, Some(problem), None),
        Kind::UnsupportedYamlMajorVersion => ("found incompatible YAML document".into(), Parser, None, None),
        Kind::TabInPlainScalar => (
            "found a tab character that violates indentation".into(),
            Scanner,
            Some(problem),
            Some("indent with spaces: YAML does not allow tabs there"),
        ),
        Kind::TabNotAllowed | Kind::TabInBlockIndentation | Kind::TabInIndentation => (
            cannot_start.into(),
            Scanner,
            Some(problem),
            Some("indent with spaces: YAML does not allow tabs there"),
        ),
        Kind::UnexpectedCharacter { character } => (
            cannot_start.into(),
            Scanner,
            Some(problem),
            matches!(character, '@' | '`' | '%').then_some("put the value in quotes"),
        ),
        Kind::SimpleKeyExpected | Kind::InvalidSimpleKey => {
            ("could not find expected ':'".into(), Scanner, Some(problem), None)
        }
        Kind::MappingValueNotAllowed => (
            "mapping values are not allowed in this context".into(),
            Scanner,
            Some(problem),
            Some("a value that contains `: ` must be quoted; otherwise check the indentation"),
        ),
        Kind::MappingKeyNotAllowed => (
            "mapping keys are not allowed in this context".into(),
            Scanner,
            Some(problem),
            None,
        ),
        Kind::BlockSequenceEntryNotAllowed => (
            "block sequence entries are not allowed in this context".into(),
            Scanner,
            Some(problem),
            None,
        ),
        Kind::UnclosedQuotedScalar => (
            "found unexpected end of stream".into(),
            Scanner,
            Some(problem),
            Some("close the quote"),
        ),
        Kind::DocumentIndicatorInQuotedScalar => (
            "found unexpected document indicator".into(),
            Scanner,
            Some(problem),
            None,
        ),
        Kind::UnknownQuotedScalarEscape => (
            "found unknown escape character".into(),
            Scanner,
            Some(problem),
            Some("use single quotes to keep backslashes as they are"),
        ),
        Kind::InvalidQuotedScalarHexEscape => (
            "did not find expected hexdecimal number".into(),
            Scanner,
            Some(problem),
            None,
        ),
        Kind::InvalidUnicodeEscape
        | Kind::UnpairedLowSurrogate
        | Kind::MissingLowSurrogate
        | Kind::InvalidLowSurrogate
        | Kind::InvalidLowSurrogateHexEscape => (
            "found invalid Unicode character escape code".into(),
            Scanner,
            Some(problem),
            None,
        ),
        Kind::ZeroBlockScalarIndent => (
            "found an indentation indicator equal to 0".into(),
            Scanner,
            Some(problem),
            None,
        ),
        Kind::InvalidBlockScalarHeader => (
            "did not find expected comment or line break".into(),
            Scanner,
            Some(problem),
            None,
        ),
        Kind::TabAtBlockScalarStart => (
            "found a tab character where an indentation space is expected".into(),
            Scanner,
            Some(problem),
            None,
        ),
        Kind::MissingAnchorOrAliasName => (
            "did not find expected alphabetic or numeric character".into(),
            Scanner,
            Some(problem),
            None,
        ),
        Kind::MissingTagUri => ("did not find expected tag URI".into(), Scanner, Some(problem), None),
        Kind::InvalidTagTerminator => (
            "did not find expected whitespace or line break".into(),
            Scanner,
            Some(problem),
            None,
        ),
        Kind::RecursionLimitExceeded => ("exceeded max depth of 250".into(), Silent, None, None),
        _ => (error.info(), Scanner, Some(problem), None),
    };

    let line = named_line(voice, context, problem);
    let line = line.map_or(String::new(), |line| format!("line {line}: "));
    let end = text[start..]
        .chars()
        .next()
        .filter(|&character| character != '\n')
        .map_or(start, |character| start + character.len_utf8());
    let diagnostic = Diagnostic::error(format!("yaml: {line}{message}")).at(Span::new(source, start, end));
    match help {
        Some(help) => diagnostic.help(help),
        None => diagnostic,
    }
}

/// Returns the innermost bracket that a text leaves open, as far as can be told without parsing it.
fn open_bracket(text: &str) -> Option<Open> {
    let mut brackets = Vec::new();
    let mut quote = None;
    let mut comment = false;
    let mut previous = ' ';
    let (mut line, mut column) = (1, 0);
    for (index, (byte, character)) in text.char_indices().enumerate() {
        match (character, quote) {
            ('\n', _) => comment = false,
            _ if comment => {}
            ('"' | '\'', Some(open)) if open == character && (open == '\'' || previous != '\\') => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'', None) if !previous.is_alphanumeric() => quote = Some(character),
            ('#', None) => comment = previous.is_whitespace(),
            ('[' | '{', None) => brackets.push(Open {
                mapping: character == '{',
                flow: true,
                start: Marker::new(index, line, column).with_byte_offset(Some(byte)),
            }),
            (']' | '}', None) => drop(brackets.pop()),
            _ => {}
        }
        previous = character;
        if character == '\n' {
            (line, column) = (line + 1, 0);
        } else {
            column += 1;
        }
    }
    brackets.pop()
}

/// Says whether a value must follow a text.
fn expects_value(before: &str) -> bool {
    before.trim_end().ends_with([':', '-', ',', '[', '{', '?']) || before.trim().is_empty()
}

/// Refuses a tab in the indentation of a block, which the parser lets pass behind spaces.
pub(super) fn tab_in_indentation(source: SourceId, text: &str, start: usize) -> Option<Diagnostic> {
    let line = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let indentation = &text[line..start];
    if !indentation.bytes().all(|byte| matches!(byte, b' ' | b'\t')) {
        return None;
    }
    let tab = line + indentation.find('\t')?;
    let number = text[..tab].matches('\n').count() + 1;
    let place = if number > 1 {
        format!("line {number}: ")
    } else {
        String::new()
    };
    Some(
        Diagnostic::error(format!("yaml: {place}found character that cannot start any token"))
            .at(Span::new(source, tab, tab + 1))
            .help("indent with spaces: YAML does not allow tabs there"),
    )
}

/// Returns the line go-yaml names, if it names one.
fn named_line(voice: Voice, context: Option<Marker>, problem: Marker) -> Option<usize> {
    let from_one = match voice {
        Voice::Silent => return None,
        Voice::Scanner => 1,
        Voice::Parser => 0,
    };
    let zero_based = |marker: Marker| marker.line().saturating_sub(1);
    let context = context.map(zero_based).filter(|&line| line != 0);
    let line = context.or_else(|| Some(zero_based(problem)).filter(|&line| line != 0))?;
    Some(line + from_one)
}

/// Refuses a `%YAML` directive other than 1.1, as go-yaml does.
pub(super) fn incompatible_version(source: SourceId, text: &str) -> Diagnostic {
    let start = text.find("%YAML").unwrap_or(0);
    let length = text[start..].find(['\n', '\r']).unwrap_or(text.len() - start);
    Diagnostic::error("yaml: found incompatible YAML document")
        .at(Span::new(source, start, start + length))
        .help("remove the directive, or write `%YAML 1.1`")
}

/// Finds a character that no YAML text may contain.
pub(super) fn forbidden_character(source: SourceId, text: &str) -> Option<Diagnostic> {
    let allowed = |character: char| {
        matches!(
            character,
            '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{A0}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..
        )
    };
    let (start, character) = text.char_indices().find(|&(_, character)| !allowed(character))?;
    Some(
        Diagnostic::error("yaml: control characters are not allowed")
            .at(Span::new(source, start, start + character.len_utf8()))
            .label(format!("character U+{:04X}", u32::from(character)))
            .help("in a double-quoted value it can be written as an escape"),
    )
}
