//! What every command starts from: the global flags, the environment, the working directory and what they lead to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::flags::go_bool;
use super::{CommandError, Globals, error};
use crate::client::{self, Engine, EngineChoice};
use crate::engine::paths::Paths;
use crate::engine::running::Running;
use crate::file::{LoadOptions, load_environment};
use crate::model::Project;
use crate::ui::progress::{Mode, Settings};
use crate::ui::{Progress, stream};

/// What every command starts from.
#[derive(Clone)]
pub struct Context {
    pub globals: Globals,
    /// What the user calls this program: `compose`, or `docker compose`.
    pub program: String,
    /// The process's variables, and the `COMPOSE_*` ones of the project's env files where the process has none.
    pub environment: BTreeMap<String, String>,
    pub working_directory: PathBuf,
    pub progress: Progress,
    /// Whether errors are said in docker compose's own lines alone: plain text was asked for by name, so a program
    /// reads them.
    pub terse: bool,
    /// Whether output that programs may read too can have colours.
    pub ansi: Ansi,
    /// Whether the command may fetch Compose files from other machines.
    pub may_fetch: bool,
}

/// When control sequences are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ansi {
    Never,
    Always,
    Auto,
}

impl Ansi {
    /// Returns whether control sequences go to a stream that is or is not a terminal.
    pub fn allows(self, is_terminal: bool) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Auto => is_terminal,
        }
    }
}

/// A project as far as a command needs it.
pub struct Scope {
    pub name: String,
    /// What its files say, if they were read.
    pub project: Option<Project>,
}

impl Scope {
    /// Refuses names that are no services of the project, as far as its files were read.
    pub fn check_services(&self, names: &[String]) -> Result<(), CommandError> {
        let Some(project) = &self.project else {
            return Ok(());
        };
        match names.iter().find(|name| {
            // Naming a service that is off turns it on.
            !project.services.contains_key(name.as_str()) && !project.disabled_services.contains_key(name.as_str())
        }) {
            Some(name) => Err(CommandError::message(format!("no such service: {name}"))),
            None => Ok(()),
        }
    }
}

impl Context {
    /// Settles what flags and environment say together.
    pub fn new(globals: Globals, program: String) -> Result<Self, CommandError> {
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let working_directory = std::env::current_dir()
            .map_err(|error| CommandError::message(format!("cannot find the working directory: {error}")))?;
        let mut context = Self {
            globals,
            program,
            environment,
            working_directory,
            progress: Progress::quiet(),
            terse: false,
            ansi: Ansi::Auto,
            may_fetch: false,
        };
        context.take_variables_of_the_project();
        context.settle()?;
        Ok(context)
    }

    /// Adds the `COMPOSE_*` variables of the project's env files, which count where the environment has none.
    ///
    /// A file that cannot be read is not told of here: whoever loads the project does, and a command that needs no
    /// project can do without.
    // docker/compose cmd/compose/compose.go: setEnvWithDotEnv
    fn take_variables_of_the_project(&mut self) {
        let Ok(variables) = load_environment(&self.load_options()) else {
            return;
        };
        for (name, value) in variables {
            if name.starts_with("COMPOSE_") {
                self.environment.entry(name).or_insert(value);
            }
        }
    }

    fn settle(&mut self) -> Result<(), CommandError> {
        if self.globals.no_ansi {
            stream::err("option '--no-ansi' is DEPRECATED ! Please use '--ansi' instead.");
            self.globals.ansi = "never".to_owned();
        }
        if let Some(directory) = self.globals.workdir.take() {
            if self.globals.project_directory.is_some() {
                return Err(CommandError::message(
                    "cannot specify DEPRECATED '--workdir' and '--project-directory'. Please use only \
                     '--project-directory' instead",
                ));
            }
            stream::err("option '--workdir' is DEPRECATED at root level! Please use '--project-directory' instead.");
            self.globals.project_directory = Some(directory);
        }
        if let Some(limit) = self.variable("COMPOSE_PARALLEL_LIMIT")
            && self.globals.parallel == -1
        {
            self.globals.parallel = limit.parse().map_err(|_| {
                CommandError::message(format!(
                    "COMPOSE_PARALLEL_LIMIT must be an integer (found: {})",
                    stream::quoted(limit)
                ))
            })?;
        }
        let ansi = match (self.globals.ansi.as_str(), self.variable("COMPOSE_ANSI")) {
            ("auto" | "", Some(ansi)) => ansi.to_owned(),
            (ansi, _) => ansi.to_owned(),
        };
        self.ansi = match ansi.as_str() {
            "never" => Ansi::Never,
            "always" => Ansi::Always,
            _ if self.variable("NO_COLOR").is_some() => Ansi::Never,
            _ => Ansi::Auto,
        };
        stream::set_colours(self.ansi.allows(stream::err_is_terminal()));
        let to_stdout = self.flag_variable("COMPOSE_STATUS_STDOUT");
        let is_terminal = if to_stdout {
            stream::out_is_terminal()
        } else {
            stream::err_is_terminal()
        };
        let progress = self
            .globals
            .progress
            .as_deref()
            .or(self.variable("COMPOSE_PROGRESS"))
            .unwrap_or("auto");
        let mode = match progress {
            "" | "auto" if self.ansi.allows(is_terminal) => Mode::Terminal,
            "" | "auto" => Mode::Plain,
            "tty" if self.ansi == Ansi::Never && ansi == "never" => {
                return Err(CommandError::message(
                    "can't use --progress tty while ANSI support is disabled",
                ));
            }
            "tty" => Mode::Terminal,
            "plain" if self.ansi == Ansi::Always => {
                return Err(CommandError::message(
                    "can't use --progress plain while ANSI support is forced",
                ));
            }
            "plain" => Mode::Plain,
            "json" => Mode::Json,
            "quiet" | "none" => Mode::Quiet,
            other => {
                return Err(CommandError::message(format!(
                    "unsupported --progress value {}",
                    stream::quoted(other)
                )));
            }
        };
        self.terse = progress == "plain" && ansi == "never" && !stream::err_is_terminal();
        self.progress = Progress::new(Settings {
            mode,
            dry_run: self.globals.dry_run,
            colours: self.ansi.allows(is_terminal),
            to_stdout,
        });
        Ok(())
    }

    /// Returns a variable of the environment that has a value.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Returns whether a variable says yes, as docker compose reads such: a truth value of Go, `y` or `yes`.
    pub fn flag_variable(&self, name: &str) -> bool {
        self.variable(name)
            .is_some_and(|value| go_bool(value).unwrap_or(matches!(value.to_lowercase().as_str(), "y" | "yes")))
    }

    /// Connects to the engine that flags and environment choose; the embedded one is started where it does not run.
    pub async fn engine(&self) -> Result<Engine, CommandError> {
        self.engine_of(&self.engine_choice()?).await
    }

    /// Returns which engine flags and environment choose.
    pub fn engine_choice(&self) -> Result<EngineChoice, CommandError> {
        let engine = self.globals.engine.as_deref().or(self.variable("COMPOSE_ENGINE"));
        Ok(engine.unwrap_or("embedded").parse()?)
    }

    /// Connects to a certain engine, whatever flags and environment say.
    pub async fn engine_of(&self, choice: &EngineChoice) -> Result<Engine, CommandError> {
        let engine = client::connect(choice, self.state_directory().as_deref()).await?;
        // Who reads docker compose's lines expects no others.
        if let Some(other) = engine.other_build().filter(|_| !self.terse) {
            stream::warn(of_another_build(other));
        }
        Ok(engine)
    }

    /// Returns the state directory that flags and environment choose, if they do.
    pub fn state_directory(&self) -> Option<PathBuf> {
        let chosen = self.globals.state_dir.as_deref();
        chosen.or(self.variable("COMPOSE_STATE_DIR")).map(|directory| {
            // No shell has looked at what stands in a .env file.
            let expanded = shellexpand::tilde_with_context(directory, || self.variable("HOME"));
            self.absolute(expanded.as_ref())
        })
    }

    /// Returns where the embedded engine keeps its things.
    pub fn engine_paths(&self) -> Paths {
        Paths::discover(self.state_directory().as_deref())
    }

    /// Returns the project that a command works on when containers are all it needs: with `-p` and no `-f` by name
    /// alone, without reading a file.
    // docker/compose cmd/compose/compose.go: projectOrName
    pub fn scope(&self) -> Result<Scope, CommandError> {
        let named = self.globals.project_name.clone().filter(|name| !name.is_empty());
        if let Some(name) = named.filter(|_| self.globals.file.is_empty()) {
            return Ok(Scope { name, project: None });
        }
        let options = LoadOptions {
            resolve_environment: false,
            ..self.load_options()
        };
        match self.load_with(&options) {
            Ok(loaded) => Ok(Scope {
                name: loaded.project.name.clone(),
                project: Some(loaded.project),
            }),
            Err(error) => match self.variable("COMPOSE_PROJECT_NAME") {
                Some(name) => Ok(Scope {
                    name: name.to_owned(),
                    project: None,
                }),
                None => Err(error),
            },
        }
    }

    /// Returns the name of the project that a command works on.
    pub fn project_name(&self) -> Result<String, CommandError> {
        Ok(self.scope()?.name)
    }

    /// Returns the path as seen from the working directory.
    pub fn absolute(&self, path: impl AsRef<Path>) -> PathBuf {
        self.working_directory.join(path)
    }

    /// Returns the failure of a command that this version does not have.
    pub fn not_available(&self, command: &str) -> CommandError {
        CommandError::of_kind(
            error::Kind::NotSupported,
            format!("\"{} {command}\" is not available in this version", self.program),
        )
    }
}

/// Says that the engine is of another build than this program, and what to do.
fn of_another_build(engine: &Running) -> String {
    let program = match engine.program.as_os_str().is_empty() {
        true => "an older build".to_owned(),
        false => format!("another build, {} from {}", engine.version, engine.program.display()),
    };
    format!(
        "the engine that runs is of {program}, and may not know all that this one does: \"kill {}\" ends it, containers run on, \
         and the next command starts one of this build",
        engine.pid
    )
}
