//! A Dockerfile as stages of instructions, with the place of each in the text.
//!
//! Variables are not expanded here: what they are is known only while building.

use std::ops::Range;

use super::instruction::{self, Instruction, Mistake};
use super::syntax::{Syntax, SyntaxError};

/// A whole file.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    pub text: String,
    pub escape: char,
    /// `ARG` before the first `FROM`.
    pub arguments: Vec<GlobalArgument>,
    pub stages: Vec<Stage>,
    /// What is accepted and has no effect here, to be said once.
    pub notes: Vec<String>,
}

/// An `ARG` before the first `FROM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalArgument {
    pub name: String,
    pub default: Option<String>,
    pub span: Range<usize>,
}

#[derive(Debug, Clone)]
pub struct Stage {
    /// `AS name`.
    pub name: Option<String>,
    /// What follows `FROM`, unexpanded.
    pub base: String,
    pub platform: Option<String>,
    pub span: Range<usize>,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone)]
pub struct Step {
    /// Its place in the file, without what follows its last line.
    pub span: Range<usize>,
    /// The instruction on one line, as progress shows it.
    pub text: String,
    pub instruction: Instruction,
    /// It came with the base image.
    pub is_trigger: bool,
}

impl Dockerfile {
    /// Reads a file.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let syntax = Syntax::parse(text)?;
        let mut file = Self {
            text: text.to_owned(),
            escape: syntax.escape,
            arguments: Vec::new(),
            stages: Vec::new(),
            notes: Vec::new(),
        };
        if let Some(frontend) = &syntax.frontend
            && !frontend
                .trim_start_matches("docker.io/")
                .starts_with("docker/dockerfile")
        {
            file.notes.push(format!(
                "# syntax={frontend} is not used: the Dockerfile is read by this program itself"
            ));
        }
        for node in &syntax.nodes {
            let placed = |mistake: Mistake| SyntaxError {
                message: mistake.on(node.line),
                span: node.span.clone(),
            };
            if node.name() == "FROM" {
                let stage = instruction::stage(node);
                file.stages.push(stage.map_err(|message| placed(message.into()))?);
                continue;
            }
            let read = instruction::read(node, syntax.escape).map_err(placed)?;
            match (file.stages.last_mut(), read) {
                (None, Instruction::Arg(list)) => {
                    file.arguments
                        .extend(list.into_iter().map(|(name, default)| GlobalArgument {
                            name,
                            default,
                            span: node.span.clone(),
                        }));
                }
                (None, _) => {
                    return Err(SyntaxError {
                        message: "no build stage in current context".to_owned(),
                        span: node.span.clone(),
                    });
                }
                (Some(stage), read) => stage.steps.push(Step {
                    text: instruction::shown(node),
                    span: node.span.clone(),
                    instruction: read,
                    is_trigger: false,
                }),
            }
        }
        if file.stages.is_empty() {
            return Err(SyntaxError {
                message: "dockerfile contains no stages to build".to_owned(),
                span: 0..0,
            });
        }
        Ok(file)
    }

    /// Reads an instruction that an image left for those built on it.
    pub fn trigger(text: &str, span: &Range<usize>) -> Result<Step, String> {
        let syntax = Syntax::parse(text).map_err(|error| error.message)?;
        let [node] = &syntax.nodes[..] else {
            return Err("onbuild trigger should be a single expression".to_owned());
        };
        Ok(Step {
            span: span.clone(),
            text: instruction::shown(node),
            instruction: instruction::read(node, syntax.escape).map_err(|mistake| mistake.on(node.line))?,
            is_trigger: true,
        })
    }

    /// Finds a stage by its name; of several with it, the last before `before`.
    pub fn named(&self, name: &str, before: usize) -> Option<usize> {
        self.stages[..before].iter().rposition(|stage| {
            stage
                .name
                .as_deref()
                .is_some_and(|known| known.eq_ignore_ascii_case(name))
        })
    }

    /// Finds the stage to build, by name or number.
    pub fn target(&self, name: &str) -> Option<usize> {
        self.named(name, self.stages.len())
            .or_else(|| name.parse().ok().filter(|number| *number < self.stages.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_found_by_name_and_number() {
        let text = "ARG V=1\nFROM a:$V AS Build\nRUN x\n\n# about the next\nFROM scratch\nCOPY --from=build /x /\n";
        let file = Dockerfile::parse(text).unwrap();
        assert_eq!(file.arguments[0].name, "V");
        assert_eq!(file.arguments[0].default.as_deref(), Some("1"));
        assert_eq!(
            (file.target("BUILD"), file.target("1"), file.target("2")),
            (Some(0), Some(1), None)
        );
        assert_eq!(file.stages[0].base, "a:$V");
        assert_eq!(&text[file.stages[0].steps[0].span.clone()], "RUN x");
        assert!(text[file.stages[1].span.start..].starts_with("FROM scratch"));
        assert_eq!(file.stages[1].steps[0].text, "COPY --from=build /x /");
    }

    #[test]
    fn a_mistake_has_its_place() {
        for (text, message, place) in [
            ("", "file with no instructions", ""),
            (
                "FROM a\nFOO bar\n",
                "dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)",
                "FOO bar",
            ),
            (
                "FROM a\nCOPY x\n",
                "dockerfile parse error on line 2: COPY requires at least two arguments, but only one was provided. Destination could not be determined",
                "COPY x",
            ),
            (
                "FROM a\nCOPY --what=1 x y\n",
                "dockerfile parse error on line 2: unknown flag: --what",
                "COPY --what=1 x y",
            ),
            ("FROM a\nENV a\n", "ENV must have two arguments", "ENV a"),
            (
                "FROM a\nENV a=b c\n",
                "Syntax error - can't find = in \"c\". Must be of the form: name=value",
                "ENV a=b c",
            ),
            (
                "FROM a\nONBUILD FROM b\n",
                "dockerfile parse error on line 2: FROM isn't allowed as an ONBUILD trigger",
                "ONBUILD FROM b",
            ),
            ("RUN x\n", "no build stage in current context", "RUN x"),
            ("ARG x\n", "dockerfile contains no stages to build", ""),
        ] {
            let error = Dockerfile::parse(text).unwrap_err();
            assert_eq!(
                (error.message.as_str(), &text[error.span]),
                (message, place),
                "{text:?}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(FROM |RUN |COPY |ENV |ONBUILD |<<E|E\n|\\\\\n|#|\n|\"|\\[|a|=| |--x=|--mount=|é){0,20}") {
            let _ = Dockerfile::parse(&text);
            let _ = Dockerfile::parse(&format!("FROM a\n{text}"));
        }
    }
}
