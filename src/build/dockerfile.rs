//! A Dockerfile as stages of instructions, with the place of each in the text.
//!
//! The `parse-dockerfile` crate knows the syntax; this module knows what the parts mean, following
//! <https://docs.docker.com/reference/dockerfile/>. Variables are not expanded here: what they are is known only while building.

use std::ops::Range;

use parse_dockerfile as syntax;

use super::{expand, heredoc};

/// A whole file.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    pub text: String,
    pub escape: char,
    /// `ARG` before the first `FROM`.
    pub arguments: Vec<(String, Option<String>)>,
    pub stages: Vec<Stage>,
    /// What is accepted and has no effect here, to be said once.
    pub notes: Vec<String>,
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
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    Copy(Copy),
    Arg(Vec<(String, Option<String>)>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Cmd(Command),
    Entrypoint(Command),
    Expose(Vec<String>),
    Healthcheck(Healthcheck),
    Maintainer(String),
    /// The instruction's text.
    Onbuild(String),
    Run(Run),
    Shell(Vec<String>),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

/// `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// `ADD` unpacks archives.
    pub is_add: bool,
    pub sources: Vec<String>,
    pub documents: Vec<Document>,
    pub destination: String,
    pub from: Option<String>,
    pub chown: Option<String>,
    pub chmod: Option<String>,
    pub exclude: Vec<String>,
    pub parents: bool,
}

/// A here-document that is copied as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub name: String,
    pub text: String,
    pub expand: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub command: Command,
    /// The whole command was one here-document; its first line may choose the program.
    pub is_script: bool,
    pub network: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// For the stage's shell.
    Shell(String),
    /// As it is.
    Exec(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    None,
    Check {
        command: Command,
        /// Name and value of each flag.
        flags: Vec<(String, String)>,
    },
}

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    pub message: String,
    pub span: Range<usize>,
}

impl Dockerfile {
    /// Reads a file.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            return Err(SyntaxError {
                message: "the Dockerfile cannot be empty".to_owned(),
                span: 0..0,
            });
        }
        let escape = escape_of(text);
        let (masked, documents) = heredoc::mask(text, escape).map_err(|span| SyntaxError {
            message: "unterminated heredoc".to_owned(),
            span,
        })?;
        let parsed = syntax::parse(&masked).map_err(|error| {
            let at = offset(text, error.line(), error.column());
            let message = error.to_string();
            // The place is shown beside the message.
            let message = message.split(" at line ").next().unwrap_or_default().to_owned();
            SyntaxError {
                message,
                span: at..line_end(text, at),
            }
        })?;
        let reader = Reader {
            text,
            escape,
            documents,
        };
        let mut notes = Vec::new();
        if let Some(syntax) = &parsed.parser_directives.syntax
            && !syntax.value.value.starts_with("docker/dockerfile")
        {
            notes.push(format!(
                "# syntax={} is not used: the Dockerfile is read by this program itself",
                syntax.value.value
            ));
        }
        let starts: Vec<usize> = parsed
            .instructions
            .iter()
            .map(|instruction| keyword(instruction).start)
            .chain([text.len()])
            .collect();
        let mut arguments = Vec::new();
        let mut stages: Vec<Stage> = Vec::new();
        for (instruction, place) in parsed.instructions.iter().zip(starts.windows(2)) {
            let span = place[0]..reader.end(place[0], place[1]);
            if let syntax::Instruction::From(from) = instruction {
                stages.push(reader.stage(from, span)?);
                continue;
            }
            let read = reader.instruction(instruction, &span)?;
            match stages.last_mut() {
                None => {
                    if let Instruction::Arg(list) = read {
                        arguments.extend(list);
                    }
                }
                Some(stage) => stage.steps.push(Step {
                    text: reader.one_line(&span),
                    span,
                    instruction: read,
                }),
            }
        }
        Ok(Self {
            text: text.to_owned(),
            escape: reader.escape,
            arguments,
            stages,
            notes,
        })
    }

    /// Finds a stage by name or number.
    pub fn stage(&self, name: &str) -> Option<usize> {
        self.stages
            .iter()
            .position(|stage| {
                stage
                    .name
                    .as_deref()
                    .is_some_and(|known| known.eq_ignore_ascii_case(name))
            })
            .or_else(|| name.parse().ok().filter(|number| *number < self.stages.len()))
    }
}

struct Reader<'t> {
    text: &'t str,
    escape: char,
    documents: Vec<heredoc::Found>,
}

impl Reader<'_> {
    fn stage(&self, from: &syntax::FromInstruction<'_>, span: Range<usize>) -> Result<Stage, SyntaxError> {
        let mut platform = None;
        for flag in &from.options {
            match (&*flag.name.value, &flag.value) {
                ("platform", Some(value)) => platform = Some(value.value.to_string()),
                _ => return Err(self.unknown_flag(flag)),
            }
        }
        Ok(Stage {
            name: from.as_.as_ref().map(|(_, name)| name.value.to_ascii_lowercase()),
            base: from.image.value.to_string(),
            platform,
            span,
            steps: Vec::new(),
        })
    }

    fn instruction(
        &self,
        instruction: &syntax::Instruction<'_>,
        span: &Range<usize>,
    ) -> Result<Instruction, SyntaxError> {
        use syntax::Instruction as Read;
        let wrong = |message: String| SyntaxError {
            message,
            span: span.clone(),
        };
        Ok(match instruction {
            Read::Add(add) => Instruction::Copy(self.copy(true, &add.options, &add.src, &add.dest, span)?),
            Read::Copy(copy) => Instruction::Copy(self.copy(false, &copy.options, &copy.src, &copy.dest, span)?),
            Read::Arg(argument) => Instruction::Arg(
                expand::split(&argument.arguments.value, self.escape)
                    .into_iter()
                    .map(|word| match word.split_once('=') {
                        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                        None => (word, None),
                    })
                    .collect(),
            ),
            Read::Env(env) => Instruction::Env(self.pairs("ENV", &env.arguments.value).map_err(wrong)?),
            Read::Label(label) => Instruction::Label(self.pairs("LABEL", &label.arguments.value).map_err(wrong)?),
            Read::Cmd(cmd) => Instruction::Cmd(self.command(&cmd.arguments)),
            Read::Entrypoint(entrypoint) => Instruction::Entrypoint(self.command(&entrypoint.arguments)),
            Read::Expose(expose) => {
                Instruction::Expose(expose.arguments.iter().map(|port| port.value.to_string()).collect())
            }
            Read::Healthcheck(check) => Instruction::Healthcheck(match &check.arguments {
                syntax::HealthcheckArguments::Cmd { arguments, .. } => Healthcheck::Check {
                    command: self.command(arguments),
                    flags: check
                        .options
                        .iter()
                        .map(|flag| {
                            let value = flag.value.as_ref().map(|value| value.value.to_string());
                            (flag.name.value.to_string(), value.unwrap_or_default())
                        })
                        .collect(),
                },
                _ => Healthcheck::None,
            }),
            Read::Maintainer(maintainer) => Instruction::Maintainer(maintainer.name.value.to_string()),
            Read::Onbuild(onbuild) => {
                let inner = keyword(&onbuild.instruction);
                let name = &self.text[inner.clone()];
                if ["ONBUILD", "FROM", "MAINTAINER"]
                    .iter()
                    .any(|refused| name.eq_ignore_ascii_case(refused))
                {
                    return Err(wrong(format!(
                        "{} isn't allowed as an ONBUILD trigger",
                        name.to_ascii_uppercase()
                    )));
                }
                self.instruction(&onbuild.instruction, &(inner.start..span.end))?;
                Instruction::Onbuild(self.one_line(&(inner.start..span.end)))
            }
            Read::Run(run) => Instruction::Run(self.run(run, span)?),
            Read::Shell(shell) => {
                if shell.arguments.is_empty() {
                    return Err(wrong("SHELL requires at least one argument".to_owned()));
                }
                Instruction::Shell(shell.arguments.iter().map(|word| word.value.to_string()).collect())
            }
            Read::Stopsignal(signal) => Instruction::StopSignal(signal.arguments.value.to_string()),
            Read::User(user) => Instruction::User(user.arguments.value.to_string()),
            Read::Volume(volume) => {
                let list: Vec<String> = match &volume.arguments {
                    syntax::JsonOrStringArray::Json(list) => {
                        list.value.iter().map(|path| path.value.to_string()).collect()
                    }
                    syntax::JsonOrStringArray::String(list) => list.iter().map(|path| path.value.to_string()).collect(),
                };
                if list.is_empty() || list.iter().any(String::is_empty) {
                    return Err(wrong("VOLUME specified can not be an empty string".to_owned()));
                }
                Instruction::Volume(list)
            }
            Read::Workdir(workdir) => Instruction::Workdir(workdir.arguments.value.to_string()),
            _ => return Err(wrong("this instruction is not known here".to_owned())),
        })
    }

    fn copy(
        &self,
        is_add: bool,
        options: &[syntax::Flag<'_>],
        sources: &[syntax::Source<'_>],
        destination: &syntax::UnescapedString<'_>,
        span: &Range<usize>,
    ) -> Result<Copy, SyntaxError> {
        let mut copy = Copy {
            is_add,
            sources: Vec::new(),
            documents: Vec::new(),
            destination: destination.value.to_string(),
            from: None,
            chown: None,
            chmod: None,
            exclude: Vec::new(),
            parents: false,
        };
        for flag in options {
            let value = flag.value.as_ref().map(|value| value.value.to_string());
            match (&*flag.name.value, value) {
                ("from", Some(value)) if !is_add => copy.from = Some(value),
                ("chown", Some(value)) => copy.chown = Some(value),
                ("chmod", Some(value)) => copy.chmod = Some(value),
                ("exclude", Some(value)) => copy.exclude.push(value),
                // A layer of ours never depends on what is below it more than it has to.
                ("link", None) => {}
                ("link", Some(value)) if matches!(&*value, "true" | "false") => {}
                ("parents", None) if !is_add => copy.parents = true,
                ("parents", Some(value)) if !is_add && matches!(&*value, "true" | "false") => {
                    copy.parents = value == "true";
                }
                _ => return Err(self.unknown_flag(flag)),
            }
        }
        // The crate gives a document without its name; the names stand in the instruction's first line.
        let first_line = self.text[span.clone()].lines().next().unwrap_or_default();
        let mut names = first_line.split("<<").skip(1).map(|rest| {
            let rest = rest.strip_prefix('-').unwrap_or(rest);
            let word = rest.split_whitespace().next().unwrap_or_default();
            word.trim_matches(['"', '\'']).to_owned()
        });
        for source in sources {
            match source {
                syntax::Source::Path(path) => copy.sources.push(path.value.to_string()),
                syntax::Source::HereDoc(document) => copy.documents.push(Document {
                    name: names.next().unwrap_or_default(),
                    text: document.value.to_string(),
                    expand: document.expand,
                }),
                _ => {}
            }
        }
        Ok(copy)
    }

    fn run(&self, run: &syntax::RunInstruction<'_>, span: &Range<usize>) -> Result<Run, SyntaxError> {
        let mut network = None;
        for flag in &run.options {
            match (&*flag.name.value, &flag.value) {
                ("network", Some(value)) if matches!(&*value.value, "default" | "host" | "none") => {
                    network = Some(value.value.to_string());
                }
                ("security", Some(value)) if value.value == "sandbox" => {}
                ("mount" | "network" | "security", value) => {
                    let value = value.as_ref().map(|value| &*value.value).unwrap_or_default();
                    return Err(SyntaxError {
                        message: format!("RUN --{}={value} is not supported", flag.name.value),
                        span: flag.span(),
                    });
                }
                _ => return Err(self.unknown_flag(flag)),
            }
        }
        let mut command = self.command(&run.arguments);
        let mut is_script = false;
        let here = run.run.span.start;
        if let Some(found) = self
            .documents
            .iter()
            .find(|found| (found.start..found.line_end).contains(&here))
        {
            let begin = run.options.last().map_or(run.run.span.end, |flag| flag.span().end);
            let line = self.join_lines(&self.text[begin..found.line_end]);
            let line = line.trim();
            match &found.bodies[..] {
                [only] if line.starts_with("<<") && line.split_whitespace().count() == 1 => {
                    is_script = true;
                    command = Command::Shell(heredoc::body(self.text, only));
                }
                // The shell knows here-documents itself; it is given what stands in the file.
                _ => command = Command::Shell(format!("{line}{}", &self.text[found.line_end..found.end])),
            }
        }
        if matches!(&command, Command::Shell(text) if text.trim().is_empty()) {
            return Err(SyntaxError {
                message: "RUN requires at least one argument".to_owned(),
                span: span.clone(),
            });
        }
        Ok(Run {
            command,
            is_script,
            network,
        })
    }

    fn command(&self, command: &syntax::Command<'_>) -> Command {
        match command {
            syntax::Command::Exec(words) => {
                Command::Exec(words.value.iter().map(|word| word.value.to_string()).collect())
            }
            syntax::Command::Shell(text) => Command::Shell(self.join_lines(text.value)),
            // The crate leaves itself room for a third form, which the language does not have.
            _ => Command::Exec(Vec::new()),
        }
    }

    /// Reads `name=value …`, or the old `name value`.
    fn pairs(&self, instruction: &str, text: &str) -> Result<Vec<(String, String)>, String> {
        let words = expand::split(text, self.escape);
        let Some(first) = words.first() else {
            return Err(format!("{instruction} requires at least one argument"));
        };
        if !first.contains('=') {
            let (name, value) = text
                .split_once(char::is_whitespace)
                .ok_or_else(|| format!("{instruction} must have two arguments"))?;
            return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
        }
        words
            .into_iter()
            .map(|word| match word.split_once('=') {
                Some(("", _)) => Err(format!("{instruction} names can not be blank")),
                Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
                None => Err(format!(
                    "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
                )),
            })
            .collect()
    }

    /// Joins continued lines as Docker does: comment lines between them and empty lines go.
    fn join_lines(&self, text: &str) -> String {
        let mut joined = String::new();
        for (number, line) in text.lines().enumerate() {
            if number > 0 && (line.trim_start().starts_with('#') || line.trim().is_empty()) {
                continue;
            }
            let trimmed = line.trim_end_matches([' ', '\t', '\r']);
            match trimmed.strip_suffix(self.escape) {
                Some(continued) => joined.push_str(continued),
                None => joined.push_str(line.trim_end_matches('\r')),
            }
        }
        joined
    }

    /// Returns an instruction on one line, its here-documents left out.
    fn one_line(&self, span: &Range<usize>) -> String {
        let text = &self.text[span.clone()];
        let first = text.lines().next().unwrap_or_default();
        if first.contains("<<") {
            return first.trim().to_owned();
        }
        self.join_lines(text).trim().to_owned()
    }

    /// Returns where an instruction ends: before the comments and empty lines that follow it.
    fn end(&self, start: usize, next: usize) -> usize {
        let mut end = start;
        let mut at = start;
        for line in self.text[start..next].split_inclusive('\n') {
            let blank = line.trim().is_empty() || line.trim_start().starts_with('#');
            at += line.len();
            if !blank {
                end = at - (line.len() - line.trim_end().len());
            }
        }
        end
    }

    fn unknown_flag(&self, flag: &syntax::Flag<'_>) -> SyntaxError {
        SyntaxError {
            message: format!("unknown flag: --{}", flag.name.value),
            span: flag.span(),
        }
    }
}

fn keyword(instruction: &syntax::Instruction<'_>) -> Range<usize> {
    use syntax::Instruction as Read;
    let keyword = match instruction {
        Read::Add(it) => &it.add,
        Read::Arg(it) => &it.arg,
        Read::Cmd(it) => &it.cmd,
        Read::Copy(it) => &it.copy,
        Read::Entrypoint(it) => &it.entrypoint,
        Read::Env(it) => &it.env,
        Read::Expose(it) => &it.expose,
        Read::From(it) => &it.from,
        Read::Healthcheck(it) => &it.healthcheck,
        Read::Label(it) => &it.label,
        Read::Maintainer(it) => &it.maintainer,
        Read::Onbuild(it) => &it.onbuild,
        Read::Run(it) => &it.run,
        Read::Shell(it) => &it.shell,
        Read::Stopsignal(it) => &it.stopsignal,
        Read::User(it) => &it.user,
        Read::Volume(it) => &it.volume,
        Read::Workdir(it) => &it.workdir,
        // An instruction that the crate learns one day; it is refused where it is read.
        _ => return 0..0,
    };
    keyword.span.clone()
}

fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let end = line_end(text, start);
    let mut at = (start + column.saturating_sub(1)).min(end);
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Returns the escape character that the directives at the top choose.
fn escape_of(text: &str) -> char {
    for line in text.lines() {
        let Some((name, value)) = line.trim().strip_prefix('#').and_then(|rest| rest.split_once('=')) else {
            break;
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "escape" if value.trim() == "`" => return '`',
            "escape" | "syntax" | "check" => {}
            _ => break,
        }
    }
    '\\'
}

fn line_end(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    text[at..].find('\n').map_or(text.len(), |length| at + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str) -> Vec<Instruction> {
        let file = Dockerfile::parse(&format!("FROM x\n{text}")).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        file.stages[0]
            .steps
            .iter()
            .map(|step| step.instruction.clone())
            .collect()
    }

    fn shell(text: &str) -> Command {
        Command::Shell(text.to_owned())
    }

    fn owned(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_continued_run_is_one_line_without_its_comments() {
        let run = steps("RUN echo a \\\n  # a comment\n\n  && echo \"b\\\nc\"\n")[0].clone();
        assert_eq!(
            run,
            Instruction::Run(Run {
                command: shell("echo a   && echo \"bc\""),
                is_script: false,
                network: None
            })
        );
    }

    #[test]
    fn a_here_document_is_a_script_or_part_of_the_command() {
        let script = steps("RUN <<EOF\n#!/bin/x\necho $a\nEOF\n")[0].clone();
        assert_eq!(
            script,
            Instruction::Run(Run {
                command: shell("#!/bin/x\necho $a\n"),
                is_script: true,
                network: None
            })
        );
        let part = steps("RUN --network=none cat <<EOF > /x\na\nEOF\nUSER b")[0].clone();
        assert_eq!(
            part,
            Instruction::Run(Run {
                command: shell("cat <<EOF > /x\na\nEOF"),
                is_script: false,
                network: Some("none".to_owned())
            })
        );
        let Instruction::Copy(copy) = steps("COPY <<one.txt <<-\"two\" /d/\n1\none.txt\n\t2\ntwo\n")[0].clone() else {
            panic!("a copy")
        };
        assert_eq!(copy.documents[0].name, "one.txt");
        assert_eq!(
            copy.documents[1],
            Document {
                name: "two".to_owned(),
                text: "2\n".to_owned(),
                expand: false
            }
        );
    }

    #[test]
    fn names_and_values_are_split_as_docker_splits_them() {
        assert_eq!(
            steps("ENV a=\"x y\" b=c\\ d \\\n e='f'\nENV old  style value\nARG X=1 Y\nLABEL \"a b\"=c"),
            [
                Instruction::Env(vec![
                    ("a".to_owned(), "\"x y\"".to_owned()),
                    ("b".to_owned(), "c\\ d".to_owned()),
                    ("e".to_owned(), "'f'".to_owned())
                ]),
                Instruction::Env(vec![("old".to_owned(), "style value".to_owned())]),
                Instruction::Arg(vec![("X".to_owned(), Some("1".to_owned())), ("Y".to_owned(), None)]),
                Instruction::Label(vec![("\"a b\"".to_owned(), "c".to_owned())]),
            ]
        );
    }

    #[test]
    fn commands_are_for_a_shell_or_as_they_are() {
        assert_eq!(
            steps("CMD echo \"a\"\nENTRYPOINT [\"a\", \"b\"]\nHEALTHCHECK --interval=5s CMD true\nHEALTHCHECK NONE"),
            [
                Instruction::Cmd(shell("echo \"a\"")),
                Instruction::Entrypoint(Command::Exec(owned(&["a", "b"]))),
                Instruction::Healthcheck(Healthcheck::Check {
                    command: shell("true"),
                    flags: vec![("interval".to_owned(), "5s".to_owned())]
                }),
                Instruction::Healthcheck(Healthcheck::None),
            ]
        );
    }

    #[test]
    fn stages_are_found_by_name_and_number() {
        let text = "ARG V=1\nFROM a:$V AS Build\nRUN x\n\n# about the next\nFROM scratch\nCOPY --from=build /x /\n";
        let file = Dockerfile::parse(text).unwrap();
        assert_eq!(file.arguments, [("V".to_owned(), Some("1".to_owned()))]);
        assert_eq!(
            (file.stage("BUILD"), file.stage("1"), file.stage("2")),
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
            ("", "the Dockerfile cannot be empty", ""),
            ("FROM a\nFOO bar\n", "unknown instruction 'FOO'", "FOO bar"),
            (
                "FROM a\nCOPY x\n",
                "COPY instruction requires at least two arguments",
                "COPY x",
            ),
            ("FROM a\nCOPY --what=1 x y\n", "unknown flag: --what", "--what=1"),
            ("FROM a\nENV a\n", "ENV must have two arguments", "ENV a"),
            (
                "FROM a\nENV a=b c\n",
                "Syntax error - can't find = in \"c\". Must be of the form: name=value",
                "ENV a=b c",
            ),
            ("FROM a\nRUN\n", "RUN requires at least one argument", "RUN"),
            (
                "FROM a\nONBUILD FROM b\n",
                "FROM isn't allowed as an ONBUILD trigger",
                "ONBUILD FROM b",
            ),
        ] {
            let error = Dockerfile::parse(text).unwrap_err();
            assert_eq!(
                (error.message.as_str(), &text[error.span]),
                (message, place),
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_escape_character_can_be_chosen() {
        let file = Dockerfile::parse("# escape=`\nFROM a\nRUN a `\n b\\c\n").unwrap();
        assert_eq!(file.escape, '`');
        let Instruction::Run(run) = &file.stages[0].steps[0].instruction else {
            panic!("a run")
        };
        assert_eq!(run.command, shell("a  b\\c"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(FROM |RUN |COPY |ENV |<<E|E\n|\\\\\n|#|\n|\"|\\[|a|=| |--x=|é){0,20}") {
            let _ = Dockerfile::parse(&text);
            let _ = Dockerfile::parse(&format!("FROM a\n{text}"));
        }
    }
}
