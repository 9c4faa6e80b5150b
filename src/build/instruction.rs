//! What an instruction says: its flags and arguments, read as buildkit's `frontend/dockerfile/instructions` reads them.

use super::dockerfile::Stage;
use super::expand;
use super::mount::Mount;
use super::syntax::{self, Document, Node};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    Copy(Copy),
    Arg(Vec<(String, Option<String>)>),
    Env(Vec<Pair>),
    Label(Vec<Pair>),
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

/// A name and its value, in `ENV` and `LABEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub name: String,
    pub value: String,
    /// Written with a space between.
    pub is_old: bool,
}

/// `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
    /// The layer does not depend on those below.
    pub link: bool,
    pub checksum: Option<String>,
    pub keep_git_dir: Option<bool>,
    /// Whether archives are unpacked, where it is said.
    pub unpack: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub command: Command,
    pub documents: Vec<Document>,
    /// As written: what they say may have variables in it.
    pub mounts: Vec<String>,
    pub network: Option<String>,
    pub security: Option<String>,
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
        /// Nanoseconds.
        interval: i64,
        timeout: i64,
        start_period: i64,
        start_interval: i64,
        retries: i64,
    },
}

/// What is wrong with an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mistake {
    /// Its words cannot be told apart; BuildKit says so without the line.
    Words(String),
    Meaning(String),
}

impl From<String> for Mistake {
    fn from(message: String) -> Self {
        Self::Meaning(message)
    }
}

impl Mistake {
    /// Returns the message with the line it is about.
    pub fn on(self, line: usize) -> String {
        match self {
            Self::Words(message) => message,
            Self::Meaning(message) => format!("dockerfile parse error on line {line}: {message}"),
        }
    }
}

/// Every instruction's name.
const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Reads `FROM`.
pub(super) fn stage(node: &Node) -> Result<Stage, String> {
    let words = words(&node.rest);
    let name = match &words[..] {
        [_] => None,
        [_, keyword, name] if keyword.eq_ignore_ascii_case("as") => Some(name),
        _ => return Err("FROM requires either one or three arguments".to_owned()),
    };
    let lower = name.map(|name| name.to_ascii_lowercase());
    if let (Some(lower), Some(name)) = (&lower, name) {
        let rest_is_right = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        if !lower.starts_with(|c: char| c.is_ascii_lowercase()) || !lower.chars().all(rest_is_right) {
            return Err(format!(
                "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
            ));
        }
    }
    let mut platform = None;
    Flags::of(node).read(|name, value| match name {
        "platform" => value.text(&mut platform),
        _ => Err(Unknown(&["platform"]).of(name)),
    })?;
    Ok(Stage {
        name: lower,
        base: words[0].clone(),
        platform,
        span: node.span.clone(),
        steps: Vec::new(),
    })
}

/// Reads any other instruction.
pub(super) fn read(node: &Node, escape: char) -> Result<Instruction, Mistake> {
    let name = node.name();
    let rest = node.rest.as_str();
    let some = |rest: &str| match rest {
        "" => Err(format!("{name} requires exactly one argument")),
        rest => Ok(rest.to_owned()),
    };
    let at_least_one = || format!("{name} requires at least one argument");
    Ok(match name.as_str() {
        "COPY" | "ADD" => Instruction::Copy(copy(node)?),
        "RUN" => Instruction::Run(run(node)?),
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck(node)?),
        "ARG" => {
            let words = expand::split(rest, escape);
            if words.is_empty() {
                return Err(at_least_one().into());
            }
            let list = words.into_iter().map(|word| match word.split_once('=') {
                Some(("", _)) => Err("ARG names can not be blank".to_owned()),
                Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
                None => Ok((word, None)),
            });
            Instruction::Arg(list.collect::<Result<_, _>>()?)
        }
        "ENV" => {
            no_flags(node)?;
            Instruction::Env(pairs(&name, rest, escape)?)
        }
        "LABEL" => {
            no_flags(node)?;
            Instruction::Label(pairs(&name, rest, escape)?)
        }
        "CMD" => {
            no_flags(node)?;
            Instruction::Cmd(command(rest)?)
        }
        "ENTRYPOINT" => {
            no_flags(node)?;
            Instruction::Entrypoint(command(rest)?)
        }
        "EXPOSE" => {
            no_flags(node)?;
            let mut ports = words(rest);
            if ports.is_empty() {
                return Err(at_least_one().into());
            }
            ports.sort();
            Instruction::Expose(ports)
        }
        "MAINTAINER" => Instruction::Maintainer(some(rest)?),
        "ONBUILD" => {
            let inner = node.inner().ok_or_else(at_least_one)?;
            no_flags(node)?;
            match inner.name().as_str() {
                "ONBUILD" => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned().into()),
                refused @ ("FROM" | "MAINTAINER") => {
                    return Err(format!("{refused} isn't allowed as an ONBUILD trigger").into());
                }
                _ => {}
            }
            let mut text = rest.to_owned();
            for document in &node.documents {
                text.push('\n');
                text.push_str(&document.text);
                text.push_str(&document.name);
            }
            Instruction::Onbuild(text)
        }
        "SHELL" => {
            no_flags(node)?;
            match syntax::json_words(rest)? {
                Some(list) if list.is_empty() => return Err(at_least_one().into()),
                Some(list) => Instruction::Shell(list),
                None if rest.is_empty() => return Err(at_least_one().into()),
                None => return Err(not_json(&name, &node.original).into()),
            }
        }
        "STOPSIGNAL" => Instruction::StopSignal(some(rest)?),
        "USER" => {
            no_flags(node)?;
            Instruction::User(some(rest)?)
        }
        "WORKDIR" => {
            no_flags(node)?;
            Instruction::Workdir(some(rest)?)
        }
        "VOLUME" => {
            no_flags(node)?;
            let list = match syntax::json_words(rest)? {
                Some(list) => list,
                None => words(rest),
            };
            if list.is_empty() {
                return Err(at_least_one().into());
            }
            let list: Vec<String> = list.iter().map(|path| path.trim().to_owned()).collect();
            if list.iter().any(String::is_empty) {
                return Err("VOLUME specified can not be an empty string".to_owned().into());
            }
            Instruction::Volume(list)
        }
        _ => {
            let unknown = format!("unknown instruction: {}", node.keyword);
            return Err(match nearest(&name, &NAMES) {
                Some(meant) => format!("{unknown} (did you mean {meant}?)"),
                None => unknown,
            }
            .into());
        }
    })
}

/// Returns an instruction on one line, as progress shows it.
pub(super) fn shown(node: &Node) -> String {
    let mut text = match node.original.split_once(char::is_whitespace) {
        Some((_, rest)) => format!("{} {}", node.name(), rest.trim_start()),
        None => node.name(),
    };
    if node.name() == "RUN"
        && let [document] = &node.documents[..]
        && syntax::marker(&node.rest).is_some()
    {
        let body = document.text.trim();
        let first = body.lines().next().unwrap_or_default();
        let dots = if body.contains('\n') { "..." } else { "" };
        text.push_str(&format!(" ({first}{dots})"));
    }
    text
}

fn copy(node: &Node) -> Result<Copy, String> {
    let name = node.name();
    let is_add = name == "ADD";
    let mut words = match syntax::json_words(&node.rest)? {
        Some(words) => words,
        None => words(&node.rest),
    };
    if words.len() < 2 {
        return Err(format!(
            "{name} requires at least two arguments, but only one was provided. Destination could not be determined"
        ));
    }
    let mut copy = Copy {
        is_add,
        ..Copy::default()
    };
    let mut exclude = Vec::new();
    let known: &[&str] = match is_add {
        true => &[
            "chown",
            "chmod",
            "link",
            "keep-git-dir",
            "checksum",
            "exclude",
            "unpack",
        ],
        false => &["chown", "from", "chmod", "link", "parents", "exclude"],
    };
    Flags::of(node).read(|name, value| match name {
        name if !known.contains(&name) => Err(Unknown(known).of(name)),
        "chown" => value.text(&mut copy.chown),
        "chmod" => value.text(&mut copy.chmod),
        "from" => value.text(&mut copy.from),
        "checksum" => value.text(&mut copy.checksum),
        "exclude" => value.list(&mut exclude),
        "link" => value.truth().map(|truth| copy.link = truth),
        "parents" => value.truth().map(|truth| copy.parents = truth),
        "keep-git-dir" => value.truth().map(|truth| copy.keep_git_dir = Some(truth)),
        _ => value.truth().map(|truth| copy.unpack = Some(truth)),
    })?;
    copy.exclude = exclude;
    copy.destination = words.pop().unwrap_or_default();
    if syntax::marker(&copy.destination).is_some() {
        return Err(format!("{name} cannot accept a heredoc as a destination"));
    }
    for word in words {
        let document = syntax::marker(&word)
            .and_then(|marker| node.documents.iter().rfind(|document| document.name == marker.name));
        match document {
            Some(document) => copy.documents.push(document.clone()),
            None => copy.sources.push(word),
        }
    }
    Ok(copy)
}

fn run(node: &Node) -> Result<Run, String> {
    let known = ["mount", "network", "security", "device"];
    let mut mounts = Vec::new();
    let mut network = None;
    let mut security = None;
    Flags::of(node).read(|name, value| match name {
        "mount" => value.list(&mut mounts),
        "network" => value.text(&mut network),
        "security" => value.text(&mut security),
        "device" => {
            Err("RUN --device is not supported: containers of a build have no devices of this machine".to_owned())
        }
        _ => Err(Unknown(&known).of(name)),
    })?;
    for mount in &mounts {
        Mount::parse(mount, None)?;
    }
    if let Some(network) = &network
        && !["default", "none", "host"].contains(&network.as_str())
    {
        return Err(format!("invalid network mode {network:?}"));
    }
    if let Some(security) = &security
        && !["sandbox", "insecure"].contains(&security.as_str())
    {
        return Err(format!("security {security:?} is not valid"));
    }
    Ok(Run {
        command: command(&node.rest)?,
        documents: node.documents.clone(),
        mounts,
        network,
        security,
    })
}

fn healthcheck(node: &Node) -> Result<Healthcheck, String> {
    let end = node.rest.find(char::is_whitespace).unwrap_or(node.rest.len());
    let (kind, rest) = node.rest.split_at(end);
    let rest = rest.trim_start();
    match kind.to_ascii_uppercase().as_str() {
        "" => return Err("HEALTHCHECK requires at least one argument".to_owned()),
        "NONE" if rest.is_empty() => return Ok(Healthcheck::None),
        "NONE" => return Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        _ => {}
    }
    let known = ["interval", "timeout", "start-period", "start-interval", "retries"];
    let mut durations = [0_i64; 4];
    let mut retries = 0;
    Flags::of(node).read(|name, value| {
        let mut text = None;
        match known.iter().position(|known| *known == name) {
            None => return Err(Unknown(&known).of(name)),
            Some(_) => value.text(&mut text)?,
        }
        let text = text.unwrap_or_default();
        match known.iter().position(|known| *known == name) {
            Some(place) if place < durations.len() => {
                let length = if text.is_empty() { 0 } else { duration(&text)? };
                if length != 0 && length < 1_000_000 {
                    return Err(format!("Interval {name:?} cannot be less than 1ms"));
                }
                durations[place] = length;
            }
            _ if text.is_empty() => {}
            _ => {
                retries = text
                    .parse::<i32>()
                    .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))?
                    .into();
                if retries < 0 {
                    return Err(format!("--retries cannot be negative ({retries})"));
                }
            }
        }
        Ok(())
    })?;
    let kind = kind.to_ascii_uppercase();
    if kind != "CMD" {
        return Err(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)"));
    }
    let command = command(rest)?;
    if command == Command::Shell(String::new()) || command == Command::Exec(Vec::new()) {
        return Err("Missing command after HEALTHCHECK CMD".to_owned());
    }
    let [interval, timeout, start_period, start_interval] = durations;
    Ok(Healthcheck::Check {
        command,
        interval,
        timeout,
        start_period,
        start_interval,
        retries,
    })
}

fn command(text: &str) -> Result<Command, String> {
    Ok(match syntax::json_words(text)? {
        Some(words) => Command::Exec(words),
        None => Command::Shell(text.to_owned()),
    })
}

/// Reads `name=value …`, or the old `name value`.
fn pairs(instruction: &str, text: &str, escape: char) -> Result<Vec<Pair>, Mistake> {
    let words = expand::split(text, escape);
    let Some(first) = words.first() else {
        return Err(format!("{instruction} requires at least one argument").into());
    };
    if !first.contains('=') {
        let (name, value) = text
            .split_once([' ', '\t', '\u{b}', '\u{c}', '\r'])
            .ok_or_else(|| Mistake::Words(format!("{instruction} must have two arguments")))?;
        return Ok(vec![Pair {
            name: name.to_owned(),
            value: value.trim_start().to_owned(),
            is_old: true,
        }]);
    }
    let pairs = words.into_iter().map(|word| match word.split_once('=') {
        Some(("", _)) => Err(Mistake::Meaning(format!("{instruction} names can not be blank"))),
        Some((name, value)) => Ok(Pair {
            name: name.to_owned(),
            value: value.to_owned(),
            is_old: false,
        }),
        None => Err(Mistake::Words(format!(
            "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
        ))),
    });
    pairs.collect()
}

fn words(text: &str) -> Vec<String> {
    let parts = text.split([' ', '\t', '\u{b}', '\u{c}', '\r']);
    parts.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn not_json(name: &str, original: &str) -> String {
    let hint = if original.contains('\\') {
        let fixed = original
            .split_once(' ')
            .map_or("", |(_, rest)| rest)
            .replace('\\', "\\\\");
        format!(". It looks like '{fixed}' should be escaped")
    } else {
        String::new()
    };
    format!("{name} requires the arguments to be in JSON form{hint}")
}

fn no_flags(node: &Node) -> Result<(), String> {
    Flags::of(node).read(|name, _| Err(Unknown(&[]).of(name)))
}

/// The flags of an instruction.
struct Flags<'n>(&'n [String]);

/// The value of a flag.
struct Value<'n> {
    name: &'n str,
    given: Option<&'n str>,
    again: bool,
}

impl<'n> Flags<'n> {
    fn of(node: &'n Node) -> Self {
        Self(&node.flags)
    }

    fn read(self, mut take: impl FnMut(&str, Value<'_>) -> Result<(), String>) -> Result<(), String> {
        let mut seen: Vec<&str> = Vec::new();
        for flag in self.0 {
            let flag = flag.trim_start_matches("--");
            let (name, given) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag, None),
            };
            let again = seen.contains(&name);
            seen.push(name);
            take(name, Value { name, given, again })?;
        }
        Ok(())
    }
}

impl Value<'_> {
    fn once(&self) -> Result<(), String> {
        match self.again {
            true => Err(format!("duplicate flag specified: --{}", self.name)),
            false => Ok(()),
        }
    }

    fn some(&self) -> Result<String, String> {
        let missing = || format!("missing a value on flag: --{}", self.name);
        self.given.map(str::to_owned).ok_or_else(missing)
    }

    fn text(&self, into: &mut Option<String>) -> Result<(), String> {
        self.once()?;
        *into = Some(self.some()?).filter(|text| !text.is_empty());
        Ok(())
    }

    fn list(&self, into: &mut Vec<String>) -> Result<(), String> {
        into.push(self.some()?);
        Ok(())
    }

    fn truth(&self) -> Result<bool, String> {
        self.once()?;
        match self.given.map(str::to_ascii_lowercase).as_deref() {
            None | Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some("") => Err(format!("missing a value on flag: --{}", self.name)),
            Some(other) => Err(format!(
                "expecting boolean value for flag --{}, not: {other}",
                self.name
            )),
        }
    }
}

/// A flag that is none of these.
struct Unknown<'k>(&'k [&'k str]);

impl Unknown<'_> {
    fn of(&self, name: &str) -> String {
        match nearest(name, self.0) {
            Some(meant) => format!("unknown flag: --{name} (did you mean {meant}?)"),
            None => format!("unknown flag: --{name}"),
        }
    }
}

/// Returns the word that was probably meant: one that is at most two letters away, and less than half of it.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let word = word.to_ascii_lowercase();
    let distances = known
        .iter()
        .map(|known| (distance(&word, &known.to_ascii_lowercase()), *known));
    let (distance, known) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance > 0 && distance <= 2 && distance < word.len()).then_some(known)
}

fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

/// Reads a duration as Go writes it (`1m30s`, `1.5h`), in nanoseconds.
fn duration(text: &str) -> Result<i64, String> {
    // Compose files may count in days and weeks, Go does not.
    if let Some(unit) = ["d", "w"].into_iter().find(|unit| text.contains(unit)) {
        return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
    }
    let duration: crate::model::Duration = text
        .parse()
        .map_err(|error: crate::model::UnitError| error.to_string())?;
    Ok(duration.0)
}

#[cfg(test)]
mod tests {
    use super::super::dockerfile::Dockerfile;
    use super::*;

    fn steps(text: &str) -> Vec<Instruction> {
        let file = Dockerfile::parse(&format!("FROM x\n{text}")).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        file.stages[0]
            .steps
            .iter()
            .map(|step| step.instruction.clone())
            .collect()
    }

    fn refused(text: &str) -> String {
        let error = Dockerfile::parse(&format!("FROM x\n{text}")).unwrap_err();
        error.message.replace("dockerfile parse error on line 2: ", "")
    }

    fn shell(text: &str) -> Command {
        Command::Shell(text.to_owned())
    }

    fn pair(name: &str, value: &str) -> Pair {
        Pair {
            name: name.to_owned(),
            value: value.to_owned(),
            is_old: false,
        }
    }

    #[test]
    fn names_and_values_are_split_as_docker_splits_them() {
        let old = Pair {
            is_old: true,
            ..pair("old", "style value")
        };
        assert_eq!(
            steps("ENV a=\"x y\" b=c\\ d \\\n e='f'\nENV old  style value\nARG X=1 Y\nLABEL \"a b\"=c"),
            [
                Instruction::Env(vec![pair("a", "\"x y\""), pair("b", "c\\ d"), pair("e", "'f'")]),
                Instruction::Env(vec![old]),
                Instruction::Arg(vec![("X".to_owned(), Some("1".to_owned())), ("Y".to_owned(), None)]),
                Instruction::Label(vec![pair("\"a b\"", "c")]),
            ]
        );
    }

    #[test]
    fn commands_are_for_a_shell_or_as_they_are() {
        assert_eq!(
            steps("CMD echo \"a\"\nENTRYPOINT [\"a\", \"b\"]\nHEALTHCHECK --interval=5s CMD true\nHEALTHCHECK none"),
            [
                Instruction::Cmd(shell("echo \"a\"")),
                Instruction::Entrypoint(Command::Exec(vec!["a".to_owned(), "b".to_owned()])),
                Instruction::Healthcheck(Healthcheck::Check {
                    command: shell("true"),
                    interval: 5_000_000_000,
                    timeout: 0,
                    start_period: 0,
                    start_interval: 0,
                    retries: 0,
                }),
                Instruction::Healthcheck(Healthcheck::None),
            ]
        );
    }

    #[test]
    fn flags_are_read_and_mistakes_in_them_told() {
        let Instruction::Copy(copy) =
            &steps("COPY --link=false --parents --exclude=*.md --exclude=a <<E b /d/\n1\nE\n")[0]
        else {
            panic!("a copy")
        };
        assert!(!copy.link && copy.parents);
        assert_eq!(copy.exclude, ["*.md", "a"]);
        assert_eq!((copy.sources[0].as_str(), copy.documents[0].name.as_str()), ("b", "E"));
        for (text, message) in [
            ("COPY --from a b", "missing a value on flag: --from"),
            ("COPY --from=a --from=b c d", "duplicate flag specified: --from"),
            ("COPY --link=x a b", "expecting boolean value for flag --link, not: x"),
            ("COPY --chwon=x a b", "unknown flag: --chwon (did you mean chown?)"),
            ("ADD --from=x a b", "unknown flag: --from"),
            ("RUN --security=x a", "security \"x\" is not valid"),
            ("RUN --network=x a", "invalid network mode \"x\""),
            (
                "RUN [\"a\", 1]",
                "when using JSON array syntax, arrays must be comprised of strings only",
            ),
            ("SHELL sh", "SHELL requires the arguments to be in JSON form"),
            ("COYP x", "unknown instruction: COYP (did you mean COPY?)"),
            (
                "HEALTHCHECK --interval=1us CMD x",
                "Interval \"interval\" cannot be less than 1ms",
            ),
            ("HEALTHCHECK --interval=5 CMD x", "time: missing unit in duration \"5\""),
            ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
            ("COPY a <<b\nb\n", "COPY cannot accept a heredoc as a destination"),
            ("USER", "USER requires exactly one argument"),
        ] {
            assert_eq!(refused(text), message, "{text}");
        }
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        assert_eq!(duration("1m30s"), Ok(90_000_000_000));
        assert_eq!(duration("1.5s"), Ok(1_500_000_000));
        for wrong in ["", "5", "s", "5x"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
