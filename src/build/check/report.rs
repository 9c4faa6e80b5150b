//! What a check found, as BuildKit prints it.

use super::{Failure, Warning};

/// What was found in a Dockerfile.
#[derive(Debug)]
pub struct Report {
    lines: Vec<String>,
    warnings: Vec<Warning>,
    failure: Option<Failure>,
    /// The Dockerfile wants a build to fail over what is found.
    refuses: bool,
}

impl Report {
    pub(super) fn new(text: &str, warnings: Vec<Warning>, failure: Option<Failure>, refuses: bool) -> Self {
        Self {
            lines: text
                .split('\n')
                .map(|line| line.trim_end_matches('\r').to_owned())
                .collect(),
            warnings,
            failure,
            refuses,
        }
    }

    /// Returns the report on a Dockerfile of which a stage cannot begin.
    pub fn of_base(text: &str, base: &str, reason: &str) -> Self {
        let from = |line: &str| {
            let mut words = line.split_whitespace();
            words.next().is_some_and(|word| word.eq_ignore_ascii_case("from")) && words.any(|word| word == base)
        };
        let line = text.lines().position(from).map(|at| (at + 1, at + 1));
        let failure = Failure {
            message: format!("{base}: {reason}"),
            lines: line,
        };
        Self::new(text, Vec::new(), Some(failure), false)
    }

    /// Returns whether there is nothing to say.
    pub fn is_clean(&self) -> bool {
        self.warnings.is_empty() && self.failure.is_none()
    }

    /// Returns what makes more than a warning of it.
    pub fn refusal(&self) -> Option<String> {
        if !self.refuses || self.warnings.is_empty() {
            return None;
        }
        let mut names: Vec<&str> = Vec::new();
        for warning in &self.warnings {
            if !names.contains(&warning.rule.name) {
                names.push(warning.rule.name);
            }
        }
        Some(format!("lint violation found for rules: {}", names.join(", ")))
    }

    /// Prints the report on the file of that name.
    // buildkit frontend/subrequests/lint/lint.go: PrintLintViolations
    pub fn text(&self, file: &str) -> String {
        let mut text = match (self.warnings.len(), &self.failure) {
            (0, Some(_)) => String::new(),
            (0, None) => "Check complete, no warnings found.\n".to_owned(),
            (1, _) => "Check complete, 1 warning has been found!\n".to_owned(),
            (count, _) => format!("Check complete, {count} warnings have been found!\n"),
        };
        for warning in &self.warnings {
            text.push_str(&format!(
                "\nWARNING: {} - https://docs.docker.com/go/dockerfile/rule/{}/\n{}\n",
                warning.rule.name, warning.rule.page, warning.detail
            ));
            self.excerpt(&mut text, file, warning.lines);
        }
        if let Some(failure) = &self.failure {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&format!("ERROR: {}\n", failure.message));
            if let Some(lines) = failure.lines {
                self.excerpt(&mut text, file, lines);
            }
        }
        text
    }

    /// Shows lines with two before and after a single one, and one before and after several.
    // buildkit solver/errdefs/source.go: Print
    fn excerpt(&self, text: &mut String, file: &str, (first, last): (usize, usize)) {
        let around = if first == last { 4 } else { 2 };
        let (mut start, mut end) = (first.max(1), last.min(self.lines.len()));
        let mut shown = 0;
        while shown < around {
            if start > 1 {
                start -= 1;
                shown += 1;
            }
            if end < self.lines.len() {
                end += 1;
                shown += 1;
            }
            shown += 1;
        }
        text.push_str(&format!("{file}:{first}\n--------------------\n"));
        for number in start..=end {
            let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
            let line = self.lines.get(number - 1).map_or("", String::as_str);
            text.push_str(&format!(" {number:3} | {mark} {line}\n"));
        }
        text.push_str("--------------------\n");
    }
}
