//! Here-documents of `RUN`, wherever in the command they stand.
//!
//! The syntax crate knows them at the beginning of a command only. So their lines are turned into comments of the same length
//! before it reads the file: every place stays where it is, and what the lines were is taken from the file itself.

use std::ops::Range;

use super::expand;

/// The here-documents of one `RUN`, by where its instruction begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Where the instruction begins.
    pub start: usize,
    /// Where its own line (with those that continue it) ends.
    pub line_end: usize,
    /// The bodies, without the lines that end them.
    pub bodies: Vec<Body>,
    /// The end of the last line that ends one.
    pub end: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    pub span: Range<usize>,
    pub strips_tabs: bool,
}

/// Returns the text with the bodies masked, and what they were. `Err` is the place of one without an end.
pub(super) fn mask(text: &str, escape: char) -> Result<(String, Vec<Found>), Range<usize>> {
    let mut masked = text.as_bytes().to_vec();
    let mut all = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let start = at + text[at..].len() - text[at..].trim_start_matches([' ', '\t']).len();
        let line_end = logical_line_end(text, at, escape);
        let line = &text[start.min(line_end)..line_end];
        at = (line_end + 1).min(text.len());
        let mut rest = line;
        let mut keyword = take_word(&mut rest);
        if keyword.eq_ignore_ascii_case("ONBUILD") {
            keyword = take_word(&mut rest);
        }
        let is_run = keyword.eq_ignore_ascii_case("RUN");
        let has_documents = is_run || keyword.eq_ignore_ascii_case("COPY") || keyword.eq_ignore_ascii_case("ADD");
        if !has_documents || !line.contains("<<") {
            continue;
        }
        let mut found = Found {
            start,
            line_end,
            bodies: Vec::new(),
            end: line_end,
        };
        for (name, strips_tabs) in markers(rest, escape) {
            let begin = at;
            let end = loop {
                if at >= text.len() {
                    return Err(start..line_end);
                }
                let here = at;
                let line_end = text[at..].find('\n').map_or(text.len(), |length| at + length);
                let line = text[here..line_end].trim_end_matches('\r');
                at = (line_end + 1).min(text.len());
                let line = if strips_tabs {
                    line.trim_start_matches('\t')
                } else {
                    line
                };
                if line == name {
                    found.end = line_end;
                    break here;
                }
                if line_end == text.len() {
                    return Err(start..found.line_end);
                }
            };
            found.bodies.push(Body {
                span: begin..end,
                strips_tabs,
            });
        }
        if is_run && !found.bodies.is_empty() {
            // Nor may the crate look for the ends itself.
            for at in found.start..found.line_end.saturating_sub(1) {
                if &masked[at..at + 2] == b"<<" {
                    masked[at..at + 2].copy_from_slice(b"::");
                }
            }
            let mut first = true;
            for byte in &mut masked[(found.line_end + 1).min(text.len())..found.end] {
                if *byte == b'\n' {
                    first = true;
                } else {
                    *byte = if first { b'#' } else { b'-' };
                    first = false;
                }
            }
            all.push(found);
        }
    }
    // Only whole lines were replaced, by ASCII; a failure would be a flaw of the loop above.
    let masked = String::from_utf8(masked).unwrap_or_else(|_| text.to_owned());
    Ok((masked, all))
}

/// Returns a body as the command or file that it is.
pub(super) fn body(text: &str, body: &Body) -> String {
    let lines = text[body.span.clone()].split_inclusive('\n');
    if body.strips_tabs {
        lines.map(|line| line.trim_start_matches('\t')).collect()
    } else {
        lines.collect()
    }
}

fn take_word<'t>(rest: &mut &'t str) -> &'t str {
    let trimmed = rest.trim_start();
    let end = trimmed.find(char::is_whitespace).unwrap_or(trimmed.len());
    let (word, left) = trimmed.split_at(end);
    *rest = left;
    word
}

// buildkit parser.go: reHeredoc matches a whole word, digits before and a name after.
fn markers(command: &str, escape: char) -> Vec<(String, bool)> {
    let mut command = command.trim_start();
    while command.starts_with("--") {
        take_word(&mut command);
        command = command.trim_start();
    }
    if command.starts_with('[') {
        return Vec::new();
    }
    let joined = command.replace(&format!("{escape}\n"), " ");
    expand::split(&joined, escape)
        .iter()
        .filter_map(|word| {
            let (before, after) = word.split_once("<<")?;
            if !before.bytes().all(|byte| byte.is_ascii_digit()) || after.contains('<') {
                return None;
            }
            let (strips_tabs, name) = after.strip_prefix('-').map_or((false, after), |name| (true, name));
            let name: String = name
                .chars()
                .filter(|c| !matches!(c, '"' | '\'') && *c != escape)
                .collect();
            (!name.is_empty()).then_some((name, strips_tabs))
        })
        .collect()
}

/// Returns the end of the line at an offset, with the lines that continue it.
fn logical_line_end(text: &str, mut at: usize, escape: char) -> usize {
    let mut first = true;
    loop {
        let end = text[at..].find('\n').map_or(text.len(), |length| at + length);
        let line = text[at..end].trim_end_matches([' ', '\t', '\r']);
        let is_comment = line.trim_start().starts_with('#');
        let between = !first && (is_comment || line.trim().is_empty());
        let continues = (line.ends_with(escape) && !is_comment) || between;
        if !continues || end == text.len() {
            return end;
        }
        first = false;
        at = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_become_comments_of_the_same_length() {
        let text = "FROM a\nRUN cat <<A 3<<-\"B\" && \\\n  b\néx\n\nA\n\ty\n\tB\nUSER c\n";
        let (masked, found) = mask(text, '\\').unwrap();
        assert_eq!(
            masked,
            "FROM a\nRUN cat ::A 3::-\"B\" && \\\n  b\n#--\n\n#\n#-\n#-\nUSER c\n"
        );
        assert_eq!(found.len(), 1);
        assert_eq!(body(text, &found[0].bodies[0]), "éx\n\n");
        assert_eq!(body(text, &found[0].bodies[1]), "y\n");
        assert!(text[found[0].end..].starts_with("\nUSER"));
    }

    #[test]
    fn what_looks_like_one_and_is_none_stays() {
        for text in [
            "FROM a\nRUN [\"a\", \"<<b\"]\n",
            "FROM a\nRUN a <<<b\n",
            "FROM a\nRUN echo \"x <<b\"\n",
            "FROM a\nENV x=<<b\n",
            "FROM a\nCOPY <<b /\nx\nb\n",
            "FROM a\n# RUN <<b\n",
        ] {
            let (masked, found) = mask(text, '\\').unwrap();
            assert_eq!((masked.as_str(), found.len()), (text, 0));
        }
        assert_eq!(mask("FROM a\nRUN <<b\nx\n", '\\'), Err(7..14));
    }
}
