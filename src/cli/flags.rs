//! Reads a command line by the rules of Go's pflag and cobra, which scripts written for docker rely on.
//!
//! The commands are declared once, with clap. What clap would read differently (`--flag=false`, `-f=value`, values
//! that begin with a dash, the last of a repeated flag wins) or word differently is settled here: [`canonical`]
//! checks the arguments against clap's declaration and writes them in the one form that leaves no question.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, Command};

use crate::model::Bytes;
use crate::ui::stream::quoted as quote;

/// Why a command line cannot be read. The texts are pflag's and cobra's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    #[error("unknown flag: --{0}")]
    UnknownFlag(String),
    #[error("unknown shorthand flag: '{0}' in -{1}")]
    UnknownShorthand(char, String),
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    #[error("flag needs an argument: --{0}")]
    NeedsArgument(String),
    #[error("flag needs an argument: '{0}' in -{1}")]
    ShorthandNeedsArgument(char, String),
    #[error("invalid argument {value} for {flag} flag: {reason}")]
    InvalidArgument {
        value: String,
        flag: String,
        reason: String,
    },
    #[error("unknown docker command: {0}")]
    UnknownCommand(String),
    #[error("unknown command {argument} for {command}")]
    NoArguments { argument: String, command: String },
    #[error("requires at least {0} arg(s), only received {1}")]
    TooFew(usize, usize),
    #[error("accepts at most {0} arg(s), received {1}")]
    AtMost(usize, usize),
    #[error("accepts {0} arg(s), received {1}")]
    Exactly(usize, usize),
    #[error("accepts between {0} and {1} arg(s), received {2}")]
    Between(usize, usize, usize),
    #[error("{program}: '{path}' requires {count}\n\nUsage:  {usage}\n\nRun '{path} --help' for more information")]
    Requires {
        program: String,
        path: String,
        count: String,
        usage: String,
    },
}

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// To run a command: the arguments in canonical form.
    Run(Vec<String>),
    /// To explain the command that these words name.
    Help(Vec<String>),
}

/// The commands whose docker originals name themselves when the number of arguments is wrong.
const SAYS_USAGE: [&str; 3] = ["cp", "publish", "wait"];

/// Reads `arguments` (without the program's name) against the declaration `root`.
///
/// `program` is what the user calls this program: `compose`, or `docker compose`.
pub fn canonical(root: &Command, program: &str, arguments: &[String]) -> Result<Request, FlagError> {
    let mut level = Level::new(root, program.to_owned());
    let mut outer: Vec<Level> = Vec::new();
    let mut rest = arguments;
    loop {
        if let Outcome::Help = level.read_flags(&mut rest, &mut outer)? {
            return Ok(Request::Help(words(&outer, &level)));
        }
        if !level.command.has_subcommands() {
            break;
        }
        let Some((name, after)) = rest.split_first() else {
            return Ok(match outer.is_empty() {
                // `compose --version` is a request by itself.
                true if level.values.contains_key("version") => Request::Run(level.arguments().split_off(1)),
                _ => Request::Help(words(&outer, &level)),
            });
        };
        // docker compose has this name for `config` only where docker runs it.
        let is_known = name != "convert" || !outer.is_empty() || program == "docker compose";
        let Some(command) = level.command.find_subcommand(name).filter(|_| is_known) else {
            if name == "help" && outer.is_empty() {
                return help_for(root, after);
            }
            if !outer.is_empty() {
                return Ok(Request::Help(words(&outer, &level)));
            }
            return Err(FlagError::UnknownCommand(quote(&format!(
                "{}{name}",
                std::iter::once("compose")
                    .chain(words(&outer, &level).iter().map(String::as_str))
                    .map(|word| format!("{word} "))
                    .collect::<String>()
            ))));
        };
        rest = after;
        let next = Level::new(command, format!("{} {}", level.path, command.get_name()));
        outer.push(std::mem::replace(&mut level, next));
    }
    level.check_count(program)?;
    let mut canonical = Vec::new();
    for outer in &outer {
        canonical.extend(outer.arguments());
    }
    canonical.extend(level.arguments());
    if !level.positionals.is_empty() {
        canonical.push("--".to_owned());
        canonical.append(&mut level.positionals);
    }
    // The root's own name is the program, which clap gets separately.
    canonical.remove(0);
    Ok(Request::Run(canonical))
}

/// Answers `help [COMMAND]...`.
fn help_for(root: &Command, names: &[String]) -> Result<Request, FlagError> {
    let mut command = root;
    let mut path = Vec::new();
    for name in names {
        command = command
            .find_subcommand(name)
            .ok_or_else(|| FlagError::UnknownCommand(quote(&format!("compose {}", names.join(" ")))))?;
        path.push(command.get_name().to_owned());
    }
    Ok(Request::Help(path))
}

/// Returns the names of the commands entered so far, without the program's.
fn words(outer: &[Level], level: &Level) -> Vec<String> {
    outer
        .iter()
        .chain(std::iter::once(level))
        .skip(1)
        .map(|level| level.command.get_name().to_owned())
        .collect()
}

/// How reading a level's flags ended.
enum Outcome {
    Continue,
    Help,
}

/// One command on the line, with what was read for it.
struct Level<'a> {
    command: &'a Command,
    /// The words that lead here, the program's name first.
    path: String,
    /// By flag name: the values in order. Only flags that collect keep more than one.
    values: BTreeMap<String, Vec<String>>,
    positionals: Vec<String>,
}

impl<'a> Level<'a> {
    fn new(command: &'a Command, path: String) -> Self {
        Self {
            command,
            path,
            values: BTreeMap::new(),
            positionals: Vec::new(),
        }
    }

    /// Reads flags and, where the command has no commands of its own, positional arguments.
    fn read_flags(&mut self, rest: &mut &[String], outer: &mut [Level]) -> Result<Outcome, FlagError> {
        // What follows belongs to the command named, or to the process to run, dashes and all.
        let interspersed =
            !self.command.has_subcommands() && !self.command.get_positionals().any(clap::Arg::is_trailing_var_arg_set);
        while let Some((argument, after)) = rest.split_first() {
            if argument.len() < 2 || !argument.starts_with('-') {
                if self.command.has_subcommands() {
                    return Ok(Outcome::Continue);
                }
                *rest = after;
                self.positionals.push(argument.clone());
                if !interspersed {
                    self.positionals.extend_from_slice(rest);
                    *rest = &[];
                }
                continue;
            }
            *rest = after;
            if argument == "--" {
                if !self.command.has_subcommands() {
                    self.positionals.extend_from_slice(rest);
                    *rest = &[];
                }
                return Ok(Outcome::Continue);
            }
            let outcome = match argument.strip_prefix("--") {
                Some(name) => self.read_long(argument, name, rest, outer)?,
                None => self.read_shorthands(&argument[1..], rest, outer)?,
            };
            if let Outcome::Help = outcome {
                return Ok(Outcome::Help);
            }
        }
        Ok(Outcome::Continue)
    }

    fn read_long(
        &mut self,
        argument: &str,
        text: &str,
        rest: &mut &[String],
        outer: &mut [Level],
    ) -> Result<Outcome, FlagError> {
        if text.starts_with('-') || text.starts_with('=') {
            return Err(FlagError::Syntax(argument.to_owned()));
        }
        let (name, given) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let Some((flag, is_outer)) = self.find(outer, |flag| has_name(flag, name)) else {
            return match name {
                "help" => Ok(Outcome::Help),
                _ => Err(FlagError::UnknownFlag(name.to_owned())),
            };
        };
        let value = match given {
            Some(value) => value,
            None if is_bool(flag) => "true".to_owned(),
            None => take(rest).ok_or_else(|| FlagError::NeedsArgument(name.to_owned()))?,
        };
        self.set(flag, value, is_outer, outer)?;
        Ok(Outcome::Continue)
    }

    fn read_shorthands(&mut self, text: &str, rest: &mut &[String], outer: &mut [Level]) -> Result<Outcome, FlagError> {
        let mut letters = text;
        while let Some(letter) = letters.chars().next() {
            let after = &letters[letter.len_utf8()..];
            let Some((flag, is_outer)) = self.find(outer, |flag| flag.get_short() == Some(letter)) else {
                return match letter {
                    'h' => Ok(Outcome::Help),
                    _ => Err(FlagError::UnknownShorthand(letter, letters.to_owned())),
                };
            };
            let mut remaining = "";
            let value = match after.strip_prefix('=') {
                Some(value) if !value.is_empty() => value.to_owned(),
                _ if is_bool(flag) => {
                    remaining = after;
                    "true".to_owned()
                }
                _ if !after.is_empty() => after.to_owned(),
                _ => take(rest).ok_or_else(|| FlagError::ShorthandNeedsArgument(letter, letters.to_owned()))?,
            };
            self.set(flag, value, is_outer, outer)?;
            letters = remaining;
        }
        Ok(Outcome::Continue)
    }

    /// Finds a flag of this command, or the one flag of the program that is accepted everywhere.
    fn find(&self, outer: &[Level<'a>], is_it: impl Fn(&Arg) -> bool) -> Option<(&'a Arg, bool)> {
        let flags = |command: &'a Command| command.get_arguments().filter(|flag| !flag.is_positional());
        if let Some(flag) = flags(self.command).find(|flag| is_it(flag)) {
            return Some((flag, false));
        }
        let root = outer.first()?.command;
        flags(root)
            .find(|flag| flag.get_long() == Some("dry-run") && is_it(flag))
            .map(|flag| (flag, true))
    }

    fn set(&mut self, flag: &Arg, value: String, is_outer: bool, outer: &mut [Level]) -> Result<(), FlagError> {
        let value = checked(flag, &value).map_err(|reason| FlagError::InvalidArgument {
            value: quote(&value),
            flag: quote(&match (flag.get_short(), flag.get_long()) {
                (Some(short), Some(long)) => format!("-{short}, --{long}"),
                (_, long) => format!("--{}", long.unwrap_or_default()),
            }),
            reason,
        })?;
        let values = match outer.first_mut() {
            Some(root) if is_outer => &mut root.values,
            _ => &mut self.values,
        };
        let name = flag.get_long().unwrap_or_default().to_owned();
        let of_flag = values.entry(name).or_default();
        if !matches!(flag.get_action(), ArgAction::Append) {
            of_flag.clear();
        }
        of_flag.push(value);
        Ok(())
    }

    /// Returns the command's name and its flags in canonical form.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![self.command.get_name().to_owned()];
        for (name, values) in &self.values {
            let is_switch = self
                .command
                .get_arguments()
                .any(|flag| flag.get_long() == Some(name) && matches!(flag.get_action(), ArgAction::SetTrue));
            for value in values {
                match (is_switch, value.as_str()) {
                    (true, "true") => arguments.push(format!("--{name}")),
                    (true, _) => {}
                    (false, _) => arguments.push(format!("--{name}={value}")),
                }
            }
        }
        arguments
    }

    /// Checks the number of positional arguments, with cobra's words.
    fn check_count(&self, program: &str) -> Result<(), FlagError> {
        let mut least = 0;
        let mut most = Some(0_usize);
        for positional in self.command.get_positionals() {
            least += usize::from(positional.is_required_set());
            let takes_many = matches!(positional.get_action(), ArgAction::Append);
            most = most.and_then(|most| (!takes_many).then_some(most + 1));
        }
        let count = self.positionals.len();
        if count >= least && most.is_none_or(|most| count <= most) {
            return Ok(());
        }
        if SAYS_USAGE.contains(&self.command.get_name()) {
            let plural = if least == 1 { "argument" } else { "arguments" };
            let at_least = if most.is_none() { "at least " } else { "" };
            return Err(FlagError::Requires {
                program: program.split(' ').next().unwrap_or(program).to_owned(),
                path: self.path.clone(),
                count: format!("{at_least}{least} {plural}"),
                usage: super::help::usage(self.command, program),
            });
        }
        Err(match (least, most) {
            (0, Some(0)) => FlagError::NoArguments {
                argument: quote(&self.positionals[0]),
                command: quote(&self.path),
            },
            (0, Some(most)) => FlagError::AtMost(most, count),
            (least, Some(most)) if least < most => FlagError::Between(least, most, count),
            (least, _) if count < least => FlagError::TooFew(least, count),
            (least, _) => FlagError::Exactly(least, count),
        })
    }
}

/// Takes the next argument as a flag's value.
fn take(rest: &mut &[String]) -> Option<String> {
    let (value, after) = rest.split_first()?;
    *rest = after;
    Some(value.clone())
}

/// Returns whether the flag goes by `name`, be it an older one.
fn has_name(flag: &Arg, name: &str) -> bool {
    flag.get_long() == Some(name) || flag.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
}

/// Returns whether the flag stands without a value.
pub fn is_bool(flag: &Arg) -> bool {
    matches!(flag.get_action(), ArgAction::SetTrue) || type_name(flag) == "bool"
}

/// Returns the type that docker's help shows, which decides what the value must look like.
pub fn type_name(flag: &Arg) -> &str {
    match flag.get_value_names() {
        Some([name, ..]) => name.as_str(),
        _ => "",
    }
}

/// Returns the value as clap is to read it, or what Go would say of it.
fn checked(flag: &Arg, value: &str) -> Result<String, String> {
    if is_bool(flag) {
        return go_bool(value)
            .map(|value| value.to_string())
            .ok_or_else(|| format!("strconv.ParseBool: parsing {}: invalid syntax", quote(value)));
    }
    match type_name(flag) {
        "int" => go_int(value).map(|value| value.to_string()),
        "bytes" => match value.parse::<Bytes>() {
            Ok(bytes) => Ok(bytes.0.to_string()),
            Err(error) => Err(error.to_string()),
        },
        "filter" if !value.contains('=') => Err("bad format of filter (expected name=value)".to_owned()),
        _ => Ok(value.to_owned()),
    }
}

/// Reads a truth value as Go's `strconv.ParseBool`.
pub fn go_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads a number as Go's `strconv.ParseInt(value, 0, 64)`: with sign, radix prefix and `_` between digits.
fn go_int(value: &str) -> Result<i64, String> {
    let failed = |why: &str| format!("strconv.ParseInt: parsing {}: {why}", quote(value));
    let (negative, digits) = match value.as_bytes().first() {
        Some(b'-') => (true, &value[1..]),
        Some(b'+') => (false, &value[1..]),
        _ => (false, value),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let has_prefix = radix != 10;
    let well_placed =
        !digits.ends_with('_') && !digits.contains("__") && (has_prefix || !digits.contains('_')) && !digits.is_empty();
    let digits = digits.replace('_', "");
    if !well_placed || digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(failed("invalid syntax"));
    }
    let sign = if negative { "-" } else { "" };
    i64::from_str_radix(&format!("{sign}{digits}"), radix).map_err(|_| failed("value out of range"))
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::cli::CommandLine;

    fn read(line: &str) -> Result<String, String> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match canonical(&CommandLine::declaration(), "docker compose", &arguments) {
            Ok(Request::Run(arguments)) => Ok(arguments.join(" ")),
            Ok(Request::Help(path)) => Ok(format!("help {}", path.join(" ")).trim_end().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn every_way_to_write_a_flag_has_one_canonical_form() {
        for (line, expected) in [
            ("ps -aq", "ps --all --quiet"),
            ("ps -a=false --all web", "ps --all -- web"),
            ("ps --all -a=0 web", "ps -- web"),
            (
                "-f a -fb -f=c --file d --file=e ps",
                "--file=a --file=b --file=c --file=d --file=e ps",
            ),
            ("up -d -t 5 -t=0x10", "up --detach --timeout=16"),
            ("up -t -1", "up --timeout=-1"),
            (
                "exec -it web ls -la --color",
                "exec --interactive=true --tty=true -- web ls -la --color",
            ),
            ("exec -T -- web ls", "exec --no-tty=true -- web ls"),
            ("run --no-TTY web", "run --no-tty=true -- web"),
            ("ps --dry-run", "--dry-run ps"),
            ("up --menu=false web --build", "up --build --menu=false -- web"),
            ("build -m 1g", "build --memory=1073741824"),
            ("-- ps", "ps"),
            ("-v", "--version"),
            ("ps -", "ps -- -"),
            ("", "help"),
            ("--help", "help"),
            ("ps --help", "help ps"),
            ("help ps", "help ps"),
            ("alpha viz --help", "help alpha viz"),
            ("alpha", "help alpha"),
        ] {
            assert_eq!(read(line).as_deref(), Ok(expected), "{line}");
        }
    }

    #[test]
    fn a_line_that_cannot_be_read_gets_the_words_of_go() {
        for (line, expected) in [
            ("up --nope", "unknown flag: --nope"),
            ("--nope up", "unknown flag: --nope"),
            ("ps --file x", "unknown flag: --file"),
            ("nosuch", "unknown docker command: \"compose nosuch\""),
            ("ps --format", "flag needs an argument: --format"),
            ("kill -s", "flag needs an argument: 's' in -s"),
            ("ps -az", "unknown shorthand flag: 'z' in -z"),
            ("ps --=x", "bad flag syntax: --=x"),
            ("ps ---x", "bad flag syntax: ---x"),
            ("exec", "requires at least 2 arg(s), only received 0"),
            ("exec web", "requires at least 2 arg(s), only received 1"),
            ("run", "requires at least 1 arg(s), only received 0"),
            ("port", "requires at least 2 arg(s), only received 0"),
            ("commit", "accepts between 1 and 2 arg(s), received 0"),
            ("stats a b", "accepts at most 1 arg(s), received 2"),
            (
                "version extra",
                "unknown command \"extra\" for \"docker compose version\"",
            ),
            (
                "wait",
                "docker: 'docker compose wait' requires at least 1 argument\n\nUsage:  docker compose wait SERVICE \
                 [SERVICE...] [OPTIONS]\n\nRun 'docker compose wait --help' for more information",
            ),
            (
                "up -t x",
                "invalid argument \"x\" for \"-t, --timeout\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                "up -t 99999999999999999999",
                "invalid argument \"99999999999999999999\" for \"-t, --timeout\" flag: strconv.ParseInt: parsing \
                 \"99999999999999999999\": value out of range",
            ),
            (
                "--parallel x ps",
                "invalid argument \"x\" for \"--parallel\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                "up -d=zz",
                "invalid argument \"zz\" for \"-d, --detach\" flag: strconv.ParseBool: parsing \"zz\": invalid syntax",
            ),
            (
                "build -m zz",
                "invalid argument \"zz\" for \"-m, --memory\" flag: invalid size: 'zz'",
            ),
            (
                "ls --filter x",
                "invalid argument \"x\" for \"--filter\" flag: bad format of filter (expected name=value)",
            ),
        ] {
            assert_eq!(read(line), Err(expected.to_owned()), "{line}");
        }
    }
}
