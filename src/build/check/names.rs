//! How things are written: the case of instructions, the names of stages, comments that describe.

use std::collections::BTreeSet;

use super::{Check, Placed, Stage, rules};
use crate::build::instruction::Instruction;

impl Check<'_> {
    /// Looks at all that can be told without knowing any variable.
    pub(super) fn names(&mut self) {
        let mut found = Vec::new();
        for argument in &self.arguments {
            describe(argument, "ARG", &argument_names(argument), &mut found);
        }
        for stage in &self.stages {
            written(stage, &mut found);
        }
        let mut known = BTreeSet::new();
        for stage in &self.stages {
            let Some(name) = stage.name.as_ref().map(|name| name.to_ascii_lowercase()) else {
                continue;
            };
            if matches!(name.as_str(), "scratch" | "context") {
                let detail = format!("Stage name should not use the same name as reserved stage \"{name}\"");
                found.push((&rules::RESERVED_STAGE, stage.from.lines, detail));
            }
            if !known.insert(name.clone()) {
                let detail = format!("Duplicate stage name \"{name}\", stage names should be unique");
                found.push((&rules::DUPLICATE_STAGE, stage.from.lines, detail));
            }
        }
        self.casing(&mut found);
        for (rule, lines, detail) in found {
            self.warn(rule, lines, detail);
        }
    }

    /// All instructions are to be in the case that most of them are in.
    fn casing(&self, found: &mut Vec<Found>) {
        let all = || {
            let stages = self.stages.iter();
            stages.flat_map(|stage| std::iter::once(&stage.from).chain(&stage.steps))
        };
        let count = |is_so: fn(&str) -> bool| all().filter(|placed| is_so(&placed.node.keyword)).count();
        let is_lower = count(is_lower) > count(is_upper);
        for placed in all() {
            let keyword = &placed.node.keyword;
            let (is_right, case) = match is_lower {
                true => (self::is_lower(keyword), "lowercase"),
                false => (is_upper(keyword), "uppercase"),
            };
            if !is_right {
                let detail = format!("Command '{keyword}' should match the case of the command majority ({case})");
                found.push((&rules::CONSISTENT_CASING, placed.lines, detail));
            }
        }
    }
}

type Found = (&'static rules::Rule, (usize, usize), String);

fn is_lower(word: &str) -> bool {
    word.to_lowercase() == word
}

fn is_upper(word: &str) -> bool {
    word.to_uppercase() == word
}

/// Looks at how a stage's instructions are written, in their order.
fn written(stage: &Stage, found: &mut Vec<Found>) {
    let lines = stage.from.lines;
    if let Some(name) = stage.name.as_ref().filter(|name| !is_lower(name)) {
        let detail = format!("Stage name '{name}' should be lowercase");
        found.push((&rules::STAGE_NAME_CASING, lines, detail));
    }
    let keyword = &stage.from.node.keyword;
    if let Some(word) = stage.from.node.rest.split_whitespace().nth(1) {
        let is_same = match (is_lower(keyword), is_upper(keyword)) {
            (true, _) => is_lower(word),
            (_, true) => is_upper(word),
            // What is neither is told of elsewhere.
            _ => true,
        };
        if !is_same {
            let detail = format!("'{word}' and '{keyword}' keywords' casing do not match");
            found.push((&rules::FROM_AS_CASING, lines, detail));
        }
    }
    let name: Vec<String> = stage.name.iter().map(|name| name.to_ascii_lowercase()).collect();
    describe(&stage.from, "FROM", &name, found);
    for step in &stage.steps {
        match &step.instruction {
            Some(Instruction::Arg(_)) => describe(step, "ARG", &argument_names(step), found),
            Some(Instruction::Maintainer(_)) => {
                let detail = "Maintainer instruction is deprecated in favor of using label".to_owned();
                found.push((&rules::MAINTAINER, step.lines, detail));
            }
            _ => {}
        }
    }
}

fn argument_names(placed: &Placed) -> Vec<String> {
    match &placed.instruction {
        Some(Instruction::Arg(list)) => list.iter().map(|(name, _)| name.clone()).collect(),
        _ => Vec::new(),
    }
}

/// A comment before something that has a name begins with that name.
fn describe(placed: &Placed, what: &str, names: &[String], found: &mut Vec<Found>) {
    let Some(comment) = placed.node.comments.last() else {
        return;
    };
    let first = comment.split(' ').next().unwrap_or_default();
    let shown = match names {
        [] => return,
        [name] => name,
        _ => "<arg_key>",
    };
    if !names.iter().any(|name| name == first) {
        let detail = format!("Comment for {what} should follow the format: `# {shown} <description>`");
        found.push((&rules::DESCRIPTION, placed.lines, detail));
    }
}
