//! From the command line to a project: what commands need to know before they do anything.

use std::path::PathBuf;

use super::{CommandError, Context};
use crate::file::{LoadError, LoadOptions, Loaded, load};
use crate::ui::report::Report;
use crate::ui::stream;
use crate::yaml::{Diagnostic, Sources};

impl Context {
    /// Returns how the project is loaded by what stands before the command.
    pub fn load_options(&self) -> LoadOptions {
        let globals = &self.globals;
        let env_files = if globals.env_file.is_empty() {
            self.variable("COMPOSE_ENV_FILES")
                .into_iter()
                .flat_map(|list| list.split(','))
                .filter(|file| !file.is_empty())
                .map(str::to_owned)
                .collect()
        } else {
            globals.env_file.clone()
        };
        LoadOptions {
            files: globals.file.clone(),
            project_name: globals.project_name.clone(),
            project_directory: globals.project_directory.clone().filter(|path| !path.is_empty()),
            env_files,
            profiles: globals.profile.clone(),
            all_resources: globals.all_resources,
            fetch: self.may_fetch,
            ..LoadOptions::new(self.working_directory.clone(), self.environment.clone())
        }
    }

    /// Loads the project with the services that are wanted (none: all), and says what is doubtful in its files.
    pub fn load_project(&self, services: &[String]) -> Result<Loaded, CommandError> {
        let options = LoadOptions {
            services: services.to_vec(),
            ..self.load_options()
        };
        self.load_with(&options)
    }

    /// Loads the project in a way of the command's own.
    pub fn load_with(&self, options: &LoadOptions) -> Result<Loaded, CommandError> {
        let loaded = load(options).map_err(|error| self.load_failure(error))?;
        self.warn(&loaded.warnings, &loaded.sources);
        Ok(loaded)
    }

    /// Says what is doubtful in the files of a project, and where.
    pub fn warn(&self, warnings: &[Diagnostic], sources: &Sources) {
        for warning in warnings {
            match warning.span {
                // Programs read the plain line; a person is shown where it is.
                Some(span) if stream::err_is_terminal() => {
                    let (line, column) = sources.position(span);
                    let name = self.display_name(sources.name(span.source));
                    stream::warn(format_args!("{name}:{line}:{column}: {}", warning.message));
                }
                _ => stream::warn(&warning.message),
            }
        }
    }

    /// Turns a project that cannot be loaded into the command's failure.
    pub fn load_failure(&self, error: LoadError) -> CommandError {
        self.warn(&error.warnings, &error.sources);
        if let Some(first) = error.diagnostics.0.first().filter(|_| self.terse) {
            return CommandError::message(first.message.clone());
        }
        let report = Report::new(&error.sources)
            .relative_to(self.working_directory.clone())
            .colours(self.ansi.allows(stream::err_is_terminal()))
            .all(&error.diagnostics.0);
        CommandError::message(report.trim_end().to_owned())
    }

    /// Returns a path as it looks from the working directory, if it lies below it.
    fn display_name(&self, path: &str) -> String {
        PathBuf::from(path)
            .strip_prefix(&self.working_directory)
            .map_or_else(|_| path.to_owned(), |path| path.to_string_lossy().into_owned())
    }
}
