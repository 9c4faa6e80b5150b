//! The table command × flag: nothing missing, nothing that is not there, and every test named really about its flag.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command};
use compose::cli::CommandLine;

/// Where the proofs stand, and where the table goes.
const PROOFS: &str = "tests/it/commands/proofs.txt";
const TABLE: &str = "docs/commands.md";

/// By command (`""` is the program itself), by flag (`""` is the command itself): the test.
type Proofs = BTreeMap<String, BTreeMap<String, String>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn proofs() -> Proofs {
    let text = std::fs::read_to_string(root().join(PROOFS)).expect("the file of proofs");
    let mut proofs = Proofs::new();
    let mut command = String::new();
    for line in text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (flag, test) = match (line.starts_with(' '), words.as_slice()) {
            (true, [flag, test]) => ((*flag).to_owned(), *test),
            (false, [name @ .., test]) => {
                command = name.join(" ").trim_start_matches("compose").trim().to_owned();
                (String::new(), *test)
            }
            _ => panic!("not a line of proofs: {line:?}"),
        };
        let before = proofs.entry(command.clone()).or_default().insert(flag, test.to_owned());
        assert_eq!(before, None, "twice: {line:?}");
    }
    proofs
}

/// The flags of a command, as they are declared.
fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|argument| !argument.is_positional())
}

/// Returns every command by the words that call it.
fn commands() -> BTreeMap<String, Command> {
    fn collect(command: &Command, name: &str, into: &mut BTreeMap<String, Command>) {
        into.insert(name.to_owned(), command.clone());
        for inner in command.get_subcommands() {
            collect(inner, format!("{name} {}", inner.get_name()).trim(), into);
        }
    }
    let mut all = BTreeMap::new();
    collect(&CommandLine::declaration(), "", &mut all);
    all
}

fn long(flag: &Arg) -> String {
    format!("--{}", flag.get_long().expect("every flag has a long name"))
}

/// Returns the source of a test that is named `module::function`, from the tests or, with `src::`, beside the code.
fn source(test: &str) -> Option<String> {
    let (module, function) = test.rsplit_once("::")?;
    let (directory, module) = match module.strip_prefix("src::") {
        Some(module) => ("src", module),
        None => ("tests/it", module),
    };
    let stem = root().join(directory).join(module.replace("::", "/"));
    let text = [stem.with_extension("rs"), stem.join("mod.rs")]
        .iter()
        .find_map(|path: &PathBuf| std::fs::read_to_string(path).ok())?;
    let start = text.find(&format!("fn {function}()"))?;
    let attribute = text[..start].rfind("#[")?;
    let is_test = text[attribute..start].starts_with("#[test]") || text[attribute..start].starts_with("#[tokio::test");
    let end = text[start..].find("\n}\n").map_or(text.len(), |end| start + end);
    is_test.then(|| text[start..end].to_owned())
}

/// Returns whether the text has the word, with nothing around it that would make it another word.
fn says(text: &str, word: &str) -> bool {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '-';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

#[test]
fn every_command_and_flag_names_a_test_that_uses_it() {
    let (proofs, commands) = (proofs(), commands());
    let mut wrong = Vec::new();
    let known: BTreeSet<&String> = commands.keys().chain(proofs.keys()).collect();
    for name in known {
        let shown = format!("compose {name}").trim_end().to_owned();
        let (Some(command), Some(tests)) = (commands.get(name), proofs.get(name)) else {
            wrong.push(format!("{shown}: in one of the proofs and the declaration only"));
            continue;
        };
        let declared: BTreeSet<String> = flags(command).map(long).collect();
        let proven: BTreeSet<String> = tests.keys().filter(|flag| !flag.is_empty()).cloned().collect();
        for flag in declared.symmetric_difference(&proven) {
            wrong.push(format!("{shown} {flag}: in one of the proofs and the declaration only"));
        }
        for (flag, test) in tests {
            let Some(source) = source(test) else {
                wrong.push(format!("{shown} {flag}: there is no test {test}"));
                continue;
            };
            let short = flags(command)
                .find(|declared| long(declared) == *flag)
                .and_then(Arg::get_short)
                .map(|letter| format!("-{letter}"));
            let is_said = name.split(' ').all(|word| word.is_empty() || says(&source, word))
                && (says(&source, flag) || short.is_some_and(|short| says(&source, &short)));
            if !is_said {
                wrong.push(format!("{shown} {flag}: {test} does not use it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_table_people_read_is_up_to_date() {
    let (proofs, commands) = (proofs(), commands());
    let mut text = "# Commands and flags\n\nGenerated from the declaration of the command line. Every flag names the \
                    test that proves it: `cargo test --test it -- NAME`, or with `--lib` where it begins with \
                    `src::`. The flags of `compose` itself stand before the command.\n"
        .to_owned();
    for (name, command) in &commands {
        let tests = &proofs[name];
        let hidden = if command.is_hide_set() { " (hidden)" } else { "" };
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = write!(
            text,
            "\n## `{}`{hidden}\n\n{about}. Test: `{}`\n",
            format!("compose {name}").trim_end(),
            tests[""]
        );
        let mut all: Vec<&Arg> = flags(command).collect();
        all.sort_by_key(|flag| long(flag));
        if !all.is_empty() {
            text.push_str("\n| flag | meaning | test |\n|---|---|---|\n");
        }
        for flag in all {
            let mut names = format!("`{}`", long(flag));
            if let Some(short) = flag.get_short() {
                let _ = write!(names, ", `-{short}`");
            }
            if flag.is_hide_set() {
                names.push_str(" (hidden)");
            }
            let value = match flag.get_action() {
                ArgAction::SetTrue => String::new(),
                _ => flag
                    .get_value_names()
                    .map(|names| format!(" `{}`", names[0]))
                    .unwrap_or_default(),
            };
            let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(
                text,
                "| {names}{value} | {} | `{}` |",
                help.replace('|', "\\|").replace('\n', " "),
                tests[&long(flag)]
            );
        }
    }
    let path = root().join(TABLE);
    if std::env::var_os("COMPOSE_UPDATE").is_some() {
        std::fs::write(&path, &text).expect("the table is written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "{TABLE} is not up to date: COMPOSE_UPDATE=1 cargo test --test it -- commands::table"
    );
}
