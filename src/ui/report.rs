//! Shows what is wrong with a file: docker compose's own words first, then the place in the file.
//!
//! The message stands alone on the first line, so that whoever looks for docker compose's text finds it; everything
//! below it is help for people.

use std::path::{Path, PathBuf};

use annotate_snippets::renderer::DEFAULT_TERM_WIDTH;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::yaml::{Diagnostic, Severity, Sources, Span};

/// How diagnostics are shown.
#[derive(Clone, Debug)]
pub struct Report<'s> {
    sources: &'s Sources,
    /// Files below it are named relative to it.
    directory: Option<PathBuf>,
    colours: bool,
    width: usize,
}

impl<'s> Report<'s> {
    /// Shows places in `sources`, without colours.
    pub fn new(sources: &'s Sources) -> Self {
        Self {
            sources,
            directory: None,
            colours: false,
            width: DEFAULT_TERM_WIDTH,
        }
    }

    #[must_use]
    pub fn relative_to(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    #[must_use]
    pub fn colours(mut self, on: bool) -> Self {
        self.colours = on;
        self
    }

    #[must_use]
    pub fn width(mut self, width: usize) -> Self {
        self.width = width;
        self
    }

    /// Returns all diagnostics, a blank line between them.
    pub fn all(&self, diagnostics: &[Diagnostic]) -> String {
        let shown: Vec<String> = diagnostics.iter().map(|diagnostic| self.one(diagnostic)).collect();
        shown.join("\n")
    }

    /// Returns a diagnostic with its place, each line ended.
    pub fn one(&self, diagnostic: &Diagnostic) -> String {
        let mut shown = format!("{}\n", diagnostic.message);
        let details = self.details(diagnostic);
        shown.push_str(&details);
        if !details.is_empty() {
            shown.push('\n');
        }
        shown
    }

    /// Returns where it is and what could be done, without the message; empty if neither is known.
    pub fn details(&self, diagnostic: &Diagnostic) -> String {
        let mut group = Group::with_level(match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        });
        if let Some(span) = diagnostic.span {
            let mut snippet = self.snippet(span).annotation({
                let annotation = AnnotationKind::Primary.span(self.visible(span));
                annotation.label(diagnostic.label.as_deref())
            });
            let (here, elsewhere): (Vec<_>, Vec<_>) = diagnostic
                .related
                .iter()
                .partition(|(place, _)| place.source == span.source);
            for (place, label) in here {
                let annotation = AnnotationKind::Context.span(self.visible(*place));
                snippet = snippet.annotation(annotation.label(label.as_str()));
            }
            group = group.element(snippet);
            for (place, label) in elsewhere {
                let annotation = AnnotationKind::Context.span(self.visible(*place));
                group = group.element(self.snippet(*place).annotation(annotation.label(label.as_str())));
            }
        }
        for note in &diagnostic.notes {
            group = group.element(Level::NOTE.message(note.as_str()));
        }
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        if group.is_empty() {
            return String::new();
        }
        let renderer = match self.colours {
            true => Renderer::styled(),
            false => Renderer::plain(),
        };
        renderer.term_width(self.width).render(&[group])
    }

    fn snippet<'a>(&'a self, span: Span) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let name = self.sources.name(span.source);
        let relative = self
            .directory
            .as_deref()
            .and_then(|directory| Path::new(name).strip_prefix(directory).ok())
            .and_then(Path::to_str)
            .filter(|relative| !relative.is_empty());
        Snippet::source(self.sources.text(span.source)).path(relative.unwrap_or(name))
    }

    /// Returns what to underline: of a range that spans lines the first one, and always something that exists.
    fn visible(&self, span: Span) -> std::ops::Range<usize> {
        let text = self.sources.text(span.source);
        let floor = |position: u32| {
            let mut position = (position as usize).min(text.len());
            while !text.is_char_boundary(position) {
                position -= 1;
            }
            position
        };
        let (start, end) = (floor(span.start), floor(span.end));
        let end = end.max(start);
        match text[start..end].find('\n') {
            Some(length) => start..start + text[start..start + length].trim_end().len(),
            None => start..end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> (Sources, Span) {
        let mut sources = Sources::new();
        let id = sources.add("/p/compose.yaml", "services:\n  web:\n    image: a\n    imge: b\n");
        let at = sources.text(id).find("imge").unwrap();
        (sources, Span::new(id, at, at + 4))
    }

    #[test]
    fn the_first_line_is_the_message_alone() {
        let (sources, span) = sources();
        let diagnostic = Diagnostic::error("services.web additional properties 'imge' not allowed")
            .at(span)
            .label("unknown attribute")
            .note("attributes that begin with `x-` are always allowed")
            .help("did you mean `image`?");
        let shown = Report::new(&sources).relative_to("/p").one(&diagnostic);
        insta::assert_snapshot!(shown, @r"
        services.web additional properties 'imge' not allowed
         --> compose.yaml:4:5
          |
        4 |     imge: b
          |     ^^^^ unknown attribute
          |
          = note: attributes that begin with `x-` are always allowed
          = help: did you mean `image`?
        ");
    }

    #[test]
    fn places_in_other_files_are_shown_too() {
        let (mut sources, span) = sources();
        let other = sources.add("/p/other.yaml", "a: 1\n");
        let diagnostic = Diagnostic::error("services.web conflicts with imported resource")
            .at(span)
            .related(Span::new(other, 0, 1), "imported from here");
        let shown = Report::new(&sources).relative_to("/p").one(&diagnostic);
        insta::assert_snapshot!(shown, @r"
        services.web conflicts with imported resource
         --> compose.yaml:4:5
          |
        4 |     imge: b
          |     ^^^^
          |
         ::: other.yaml:1:1
          |
        1 | a: 1
          | - imported from here
        ");
    }

    #[test]
    fn a_range_over_several_lines_shows_its_first() {
        let (sources, span) = sources();
        let whole = Span { start: 12, ..span };
        let shown = Report::new(&sources).one(&Diagnostic::error("no").at(whole));
        insta::assert_snapshot!(shown, @r"
        no
         --> /p/compose.yaml:2:3
          |
        2 |   web:
          |   ^^^^
        ");
    }

    #[test]
    fn without_a_place_there_is_only_the_message() {
        let sources = Sources::new();
        let shown = Report::new(&sources).one(&Diagnostic::error("empty compose file"));
        assert_eq!(shown, "empty compose file\n");
    }

    #[test]
    fn a_place_that_does_not_exist_is_no_panic() {
        let (sources, span) = sources();
        for (start, end) in [(0, 0), (9, 9), (900, 901), (43, 44), (30, 2)] {
            let diagnostic = Diagnostic::error("x").at(Span { start, end, ..span });
            assert!(Report::new(&sources).one(&diagnostic).starts_with("x\n"));
        }
    }
}
