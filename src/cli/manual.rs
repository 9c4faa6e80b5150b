//! The manual: a page for every command, made of the same declaration as its help.

use std::path::Path;
use std::process::ExitCode;

use clap::ArgAction;

use super::{CommandError, CommandLine, Context};

/// Write the manual's pages into a directory
#[derive(Debug, clap::Args)]
#[command(override_usage = "manual DIRECTORY")]
pub struct Args {
    /// Where the pages go
    #[arg(value_name = "DIRECTORY")]
    pub directory: String,
}

/// Writes the pages.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let directory = context.absolute(&args.directory);
    fs_err::create_dir_all(&directory)?;
    write(&CommandLine::declaration(), "compose", &directory)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the page of a command and those of its commands, `compose-ps.1` for `compose ps`.
fn write(command: &clap::Command, name: &str, directory: &Path) -> Result<(), CommandError> {
    let usage = super::help::usage(command, "compose");
    let mut page = command.clone().name(name.to_owned()).override_usage(usage);
    // A page says `--help` by being there.
    page = page.mut_args(|argument| match argument.get_action() {
        ArgAction::Help | ArgAction::Version => argument.hide(true),
        _ => argument,
    });
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    fs_err::write(directory.join(format!("{name}.1")), text)?;
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        write(command, &format!("{name}-{}", command.get_name()), directory)?;
    }
    Ok(())
}
