//! `build --check`: what in a Dockerfile is allowed and likely to be a mistake, by BuildKit's rules.
//!
//! The rules: <https://docs.docker.com/reference/build-checks/>. Nothing is built; of the images that stages begin with
//! only their configuration is looked at, which whoever asks has to give.

mod names;
mod report;
mod rules;
mod stages;
mod variables;

use std::collections::BTreeMap;
use std::ops::Range;

use super::dockerfile::Dockerfile;
use super::ignore::Ignore;
use super::instruction::{self, Instruction};
use super::syntax::{Node, Syntax};

pub use report::Report;
use rules::{Options, Rule};

/// What is checked.
pub struct Question<'q> {
    pub text: &'q str,
    /// The stage that would be built; all of them are looked at if it is not given.
    pub target: Option<&'q str>,
    pub arguments: &'q BTreeMap<String, String>,
    /// What of the context is left out.
    pub ignore: &'q Ignore,
    /// The platform that is built for: `linux/amd64`.
    pub platform: &'q str,
    /// By name as it stands in the Dockerfile, variables expanded.
    pub bases: &'q BTreeMap<String, Base>,
}

/// What counts of an image that a stage begins with.
#[derive(Debug, Clone, Default)]
pub struct Base {
    /// `NAME=VALUE`.
    pub environment: Vec<String>,
    /// It says which shell commands are for.
    pub has_shell: bool,
}

/// One thing that a rule is against.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Warning {
    rule: &'static Rule,
    detail: String,
    /// The lines it is about, from 1, the last included.
    lines: (usize, usize),
}

/// Something that a Dockerfile cannot be built with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    message: String,
    lines: Option<(usize, usize)>,
}

/// An instruction with its place.
struct Placed {
    node: Node,
    lines: (usize, usize),
    /// `None` for `FROM`.
    instruction: Option<Instruction>,
}

/// A stage as it is written.
struct Stage {
    from: Placed,
    /// What follows `FROM`, unexpanded.
    base: String,
    /// As written.
    name: Option<String>,
    platform: Option<String>,
    steps: Vec<Placed>,
}

impl Stage {
    fn is_named(&self, name: &str) -> bool {
        self.name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name))
    }
}

/// A Dockerfile as instructions, and what has been found in it so far.
struct Check<'q> {
    question: &'q Question<'q>,
    escape: char,
    /// Those before the first stage.
    arguments: Vec<Placed>,
    stages: Vec<Stage>,
    options: Options,
    warnings: Vec<Warning>,
}

impl Check<'_> {
    fn warn(&mut self, rule: &'static Rule, lines: (usize, usize), detail: String) {
        if self.options.applies(rule) {
            self.warnings.push(Warning { rule, detail, lines });
        }
    }
}

/// Returns the images that stages begin with, in order; those that cannot be told are left out.
pub fn bases(text: &str, arguments: &BTreeMap<String, String>, platform: &str) -> Vec<String> {
    let ignore = Ignore::default();
    let none = BTreeMap::new();
    let question = Question {
        text,
        target: None,
        arguments,
        ignore: &ignore,
        platform,
        bases: &none,
    };
    let Ok((check, _)) = read(&question) else {
        return Vec::new();
    };
    check.base_images()
}

/// Looks for all that a rule is against.
pub fn check(question: &Question<'_>) -> Report {
    let (mut check, empty_continuations) = match read(question) {
        Ok(read) => read,
        Err(failure) => return Report::new(question.text, Vec::new(), Some(failure), false),
    };
    for lines in empty_continuations {
        check.warn(
            &rules::NO_EMPTY_CONTINUATION,
            lines,
            "Empty continuation line".to_owned(),
        );
    }
    check.names();
    let failure = check.stages().err();
    // Those of one line stay in the order they were found in.
    check.warnings.sort_by_key(|warning| warning.lines.0);
    let refuses = check.options.is_error;
    Report::new(question.text, check.warnings, failure, refuses)
}

type Lines = (usize, usize);

fn read<'q>(question: &'q Question<'q>) -> Result<(Check<'q>, Vec<Lines>), Failure> {
    let text = question.text;
    let lines = |span: &Range<usize>| {
        let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
        (line(span.start), line(span.end))
    };
    let failed = |error: super::syntax::SyntaxError| Failure {
        lines: Some(&error.span).filter(|span| !span.is_empty()).map(lines),
        message: error.message,
    };
    // Whatever is no Dockerfile is refused here, so that the rest can be read without more ado.
    Dockerfile::parse(text).map_err(failed)?;
    let syntax = Syntax::parse(text).map_err(failed)?;
    let directive = question
        .arguments
        .get("BUILDKIT_DOCKERFILE_CHECK")
        .or(syntax.check.as_ref());
    let options = Options::parse(directive.map_or("", String::as_str)).map_err(|message| Failure {
        message: format!("failed to parse check options: {message}"),
        lines: None,
    })?;
    let mut check = Check {
        question,
        escape: syntax.escape,
        arguments: Vec::new(),
        stages: Vec::new(),
        options,
        warnings: Vec::new(),
    };
    let mut empty = Vec::new();
    for node in syntax.nodes {
        let lines = lines(&node.span);
        if syntax.warnings.iter().any(|(line, _)| *line == node.line) {
            empty.push((lines.1, lines.1));
        }
        if node.name() == "FROM" {
            let words: Vec<&str> = node.rest.split_whitespace().collect();
            check.stages.push(Stage {
                base: (*words.first().unwrap_or(&"")).to_owned(),
                name: words.get(2).map(|name| (*name).to_owned()),
                platform: instruction::stage(&node).ok().and_then(|stage| stage.platform),
                from: Placed {
                    node,
                    lines,
                    instruction: None,
                },
                steps: Vec::new(),
            });
            continue;
        }
        let placed = Placed {
            instruction: instruction::read(&node, syntax.escape).ok(),
            node,
            lines,
        };
        match check.stages.last_mut() {
            Some(stage) => stage.steps.push(placed),
            None => check.arguments.push(placed),
        }
    }
    Ok((check, empty))
}

#[cfg(test)]
mod tests;
