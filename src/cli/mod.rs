//! The command line: one file per command, each reads its arguments and calls one function.
//!
//! Arguments are declared with clap and read by the rules of docker's own command line (see [`flags`]).

mod alpha;
mod artifacts;
mod asked;
mod attach;
mod attached;
mod background;
mod bake;
mod bridge;
mod build;
mod build_logins;
mod building;
mod buildkit;
mod checking;
mod commit;
mod completion;
mod config;
mod containers;
mod context;
mod converge;
mod cp;
mod create;
mod df;
mod down;
mod engine_time;
mod error;
mod events;
mod exec;
mod export;
pub mod flags;
mod generate;
mod globals;
mod help;
mod hijacked;
mod images;
mod kill;
mod lifecycle;
mod logs;
mod ls;
mod manual;
mod menu;
mod models;
mod pause;
mod plugin;
mod port;
mod project;
mod providers;
mod prune;
mod ps;
mod ps_row;
mod publish;
mod pull;
mod pulling;
mod push;
mod pushing;
mod restart;
mod rm;
mod run;
mod scale;
mod start;
mod stats;
mod stop;
mod top;
mod unpause;
mod up;
mod version;
mod viz;
mod volumes;
mod wait;
mod watch;
mod watching;

pub mod oci;
mod out_of_memory;

use std::process::ExitCode;

pub use context::{Ansi, Context, Scope};
pub use error::{CommandError, Kind};
pub use globals::{Command, CommandLine, Globals};

use crate::ui::progress::Mode;
use crate::ui::stream;

/// Runs the command line and returns the exit status.
pub fn run() -> ExitCode {
    let mut arguments = Vec::new();
    for argument in std::env::args_os() {
        match argument.into_string() {
            Ok(argument) => arguments.push(argument),
            Err(argument) => {
                stream::err(format_args!(
                    "argument is not valid UTF-8: {}",
                    argument.to_string_lossy()
                ));
                return ExitCode::FAILURE;
            }
        }
    }
    let name = arguments
        .first()
        .and_then(|path| path.rsplit('/').next())
        .unwrap_or("compose")
        .to_owned();
    let is_plugin = plugin::is_called();
    let program = match is_plugin || name.starts_with("docker-") {
        true => "docker compose".to_owned(),
        false => name,
    };
    let result = match completion::answer(std::env::args_os().collect()) {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => match plugin::read(arguments.get(1..).unwrap_or_default(), is_plugin) {
            plugin::Call::Metadata => plugin::print_metadata()
                .map_err(CommandError::from)
                .map(|()| ExitCode::SUCCESS),
            plugin::Call::Run(arguments) => dispatch(&program, &arguments),
        },
        Err(error) => Err(error),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            report(&error, false);
            error.exit_code()
        }
    }
}

/// Says why a command failed, to people or to programs.
fn report(error: &CommandError, as_json: bool) {
    if let Some(text) = error.text().filter(|_| error.kind != Kind::BrokenPipe) {
        if as_json {
            stream::err(serde_json::json!({"error": true, "message": text}));
            return;
        }
        stream::err(text);
        for hint in &error.hints {
            stream::err(format_args!("hint: {hint}"));
        }
    }
}

/// Reads the arguments and runs the command that they name.
fn dispatch(program: &str, arguments: &[String]) -> Result<ExitCode, CommandError> {
    let one = CommandLine::declaration_of(arguments);
    let (declaration, canonical) = match one.map(|one| (flags::canonical(&one, program, arguments), one)) {
        Some((Ok(flags::Request::Run(arguments)), one)) => (one, arguments),
        // Help, a mistake, or another command than it seemed.
        _ => {
            let all = CommandLine::declaration();
            match flags::canonical(&all, program, arguments)? {
                flags::Request::Help(path) => {
                    let width = stream::width().unwrap_or(80);
                    stream::out(help::text(&all, &path, program, width))?;
                    return Ok(ExitCode::SUCCESS);
                }
                flags::Request::Run(arguments) => (all, arguments),
            }
        }
    };
    let matches = declaration
        .try_get_matches_from(std::iter::once(program.to_owned()).chain(canonical))
        .map_err(|error| CommandError::message(error.render().to_string().trim_end().to_owned()))?;
    let line = CommandLine::of(&matches)?;
    let mut context = Context::new(line.globals, program.to_owned())?;
    let Some(command) = line.command else {
        // Without a command only `--version` gets here; everything else asked for help.
        stream::out(version::own())?;
        return Ok(ExitCode::SUCCESS);
    };
    context.may_fetch = command.may_fetch();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    if command.needs_drivers() {
        builder.enable_all();
    }
    let runtime = builder.build()?;
    let result = runtime.block_on(command.run(&context));
    context.progress.end();
    // A thread that still waits for standard input must not keep the program.
    runtime.shutdown_background();
    match result {
        Err(error) if context.progress.mode() == Mode::Json => {
            report(&error, true);
            Ok(error.exit_code())
        }
        Err(error) if context.terse => Err(error.terse()),
        result => result,
    }
}
