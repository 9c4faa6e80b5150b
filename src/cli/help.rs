//! Help in the layout of docker's, from the same declaration that reads the arguments.

use clap::{Arg, ArgAction, Command};

use super::flags::{is_bool, type_name};

/// Returns the help of the command that `path` leads to from `root`.
///
/// `program` is what the user calls this program; `width` is the terminal's.
pub fn text(root: &Command, path: &[String], program: &str, width: usize) -> String {
    let mut command = root;
    for name in path {
        match command.find_subcommand(name) {
            Some(found) => command = found,
            None => break,
        }
    }
    let full_name = std::iter::once(program)
        .chain(path.iter().map(String::as_str))
        .collect::<Vec<_>>()
        .join(" ");
    let mut help = format!("Usage:  {}\n", usage(command, program));
    if let Some(about) = command.get_about() {
        help.push_str(&format!("\n{about}\n"));
    }
    let aliases: Vec<&str> = command.get_visible_aliases().collect();
    if !aliases.is_empty() {
        let parent = full_name.rsplit_once(' ').map_or("", |(parent, _)| parent);
        let names: Vec<String> = std::iter::once(command.get_name())
            .chain(aliases)
            .map(|name| format!("{parent} {name}"))
            .collect();
        help.push_str(&format!("\nAliases:\n  {}\n", names.join(", ")));
    }
    let mut flags: Vec<&Arg> = command.get_arguments().filter(|flag| is_shown(flag)).collect();
    if !path.is_empty() {
        // Accepted everywhere, so every command's help tells of it.
        flags.extend(root.get_arguments().filter(|flag| flag.get_long() == Some("dry-run")));
    }
    flags.sort_by_key(|flag| flag.get_long());
    if !flags.is_empty() {
        help.push_str("\nOptions:\n");
        help.push_str(&options(&flags, width));
    }
    let (groups, commands): (Vec<_>, Vec<_>) = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .partition(|command| command.has_subcommands());
    for (title, commands) in [("Management Commands", groups), ("Commands", commands)] {
        if commands.is_empty() {
            continue;
        }
        let longest = commands.iter().map(|command| command.get_name().len()).max();
        let column = longest.unwrap_or(0).max(11);
        help.push_str(&format!("\n{title}:\n"));
        for command in commands {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            help.push_str(&format!("  {:column$} {about}\n", command.get_name()));
        }
    }
    if command.has_subcommands() {
        help.push_str(&format!(
            "\nRun '{full_name} COMMAND --help' for more information on a command.\n"
        ));
    }
    help
}

/// Returns the command's usage, its lines each with the program's name in front.
pub fn usage(command: &Command, program: &str) -> String {
    let usage = command.clone().render_usage().to_string();
    usage
        .strip_prefix("Usage: ")
        .unwrap_or(&usage)
        .lines()
        .map(|line| format!("{program} {}", line.trim()))
        .collect::<Vec<_>>()
        .join("\n\t")
}

fn is_shown(flag: &Arg) -> bool {
    !flag.is_positional() && !flag.is_hide_set()
}

/// Lays the flags out in two columns, as pflag's `FlagUsagesWrapped`.
fn options(flags: &[&Arg], width: usize) -> String {
    let lines: Vec<(String, String)> = flags.iter().map(|flag| (names(flag), meaning(flag))).collect();
    // Three blanks before the meaning, of which two belong to the column.
    let column = lines.iter().map(|(names, _)| names.len()).max().unwrap_or(0) + 3;
    let mut text = String::new();
    for (names, meaning) in lines {
        let mut meaning_lines = wrap(&meaning, width, column).into_iter();
        text.push_str(&format!(
            "{names:column$}{}\n",
            meaning_lines.next().unwrap_or_default()
        ));
        for line in meaning_lines {
            text.push_str(&format!("{:column$}{line}\n", ""));
        }
    }
    text
}

/// Returns the flag's names and type: `  -t, --timeout int`.
fn names(flag: &Arg) -> String {
    let long = flag.get_long().unwrap_or_default();
    let mut names = match flag.get_short() {
        Some(short) => format!("  -{short}, --{long}"),
        None => format!("      --{long}"),
    };
    if !is_bool(flag) {
        names.push_str(&format!(" {}", type_name(flag)));
    }
    names
}

/// Returns what the flag means, with its default where it has one worth saying.
fn meaning(flag: &Arg) -> String {
    let mut meaning = flag.get_help().map(ToString::to_string).unwrap_or_default();
    let default = match flag.get_default_values() {
        [value] if !matches!(flag.get_action(), ArgAction::SetTrue) => value.to_str().unwrap_or_default(),
        _ => "",
    };
    match (type_name(flag), default) {
        (_, "" | "false") | ("int", "0") => {}
        ("string", default) => meaning.push_str(&format!(" (default \"{default}\")")),
        (_, default) => meaning.push_str(&format!(" (default {default})")),
    }
    meaning
}

/// Breaks a meaning where pflag does: at line ends, and at blanks so that it ends before the terminal does, except
/// that a short rest (up to five characters) may hang over.
fn wrap(text: &str, width: usize, column: usize) -> Vec<&str> {
    // As docker, which leaves the terminal's last column free.
    let Some(room) = (width - 1).checked_sub(column).filter(|&room| room >= 24) else {
        return text.split('\n').collect();
    };
    let room = room - 5;
    let mut lines = Vec::new();
    let mut rest = text;
    while rest.len() >= room + 5 {
        // Multi-byte text does not occur in our help, but must not panic either.
        let Some(head) = rest.get(..room) else { break };
        let Some(blank) = head.rfind([' ', '\t', '\n']).filter(|&at| at > 0) else {
            break;
        };
        let at = head.find('\n').filter(|&at| at > 0).unwrap_or(blank);
        lines.push(&rest[..at]);
        rest = &rest[at + 1..];
    }
    lines.extend(rest.split('\n'));
    lines
}
