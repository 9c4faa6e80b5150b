//! Completion of the command line by the shell: commands, flags, and the services of the project at hand.
//!
//! The shell asks this program itself (`COMPLETE=bash compose -- …`); `compose completion bash` prints what teaches
//! the shell to.

use std::ffi::OsString;
use std::process::ExitCode;

use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};

use super::{CommandError, CommandLine, Context};
use crate::file::{LoadOptions, load};
use crate::ui::stream;

/// Print the script that completes commands, flags and services in a shell
#[derive(Debug, clap::Args)]
#[command(override_usage = "completion SHELL")]
pub struct Args {
    /// bash, elvish, fish, powershell or zsh
    #[arg(value_name = "SHELL")]
    pub shell: String,
}

/// The variable by which a shell asks.
const VARIABLE: &str = "COMPLETE";

/// Prints a shell's script.
pub async fn run(args: Args, _context: &Context) -> Result<ExitCode, CommandError> {
    let shells = Shells::builtins();
    let Some(shell) = shells.completer(&args.shell) else {
        let known: Vec<&str> = shells.names().collect();
        return Err(CommandError::message(format!(
            "unknown shell {}: expected one of {}",
            stream::quoted(&args.shell),
            known.join(", ")
        )));
    };
    let program = std::env::current_exe()?;
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "compose", "compose", &program.to_string_lossy(), &mut script)?;
    stream::out(script)?;
    Ok(ExitCode::SUCCESS)
}

/// Answers a shell, if one asks. Returns whether one did.
pub fn answer(arguments: Vec<OsString>) -> Result<bool, CommandError> {
    if std::env::var_os(VARIABLE).is_none() {
        return Ok(false);
    }
    let directory = std::env::current_dir().ok();
    let environment = CompleteEnv::with_factory(declaration).var(VARIABLE);
    Ok(environment.try_complete(arguments, directory.as_deref())?)
}

/// Returns the commands, with services where services stand.
fn declaration() -> clap::Command {
    let mut declaration = CommandLine::declaration();
    let names: Vec<String> = declaration
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    for name in names {
        declaration = declaration.mut_subcommand(name, |command| {
            command.mut_args(|argument| {
                let is_service = argument.is_positional()
                    && argument
                        .get_value_names()
                        .is_some_and(|names| names.iter().any(|name| name == "SERVICE"));
                if is_service {
                    argument.add(ArgValueCandidates::new(services))
                } else {
                    argument
                }
            })
        });
    }
    declaration
}

/// Returns the services of the project at hand; none where it does not load.
fn services() -> Vec<CompletionCandidate> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let Ok(directory) = std::env::current_dir() else {
        return Vec::new();
    };
    let options = LoadOptions {
        resolve_environment: false,
        check_consistency: false,
        ..LoadOptions::new(directory, environment)
    };
    match load(&options) {
        Ok(loaded) => loaded.project.services.keys().map(CompletionCandidate::new).collect(),
        Err(_) => Vec::new(),
    }
}
