//! From the command line to a project: what commands need to know before they do anything.

use std::path::PathBuf;
use std::sync::Arc;

use super::artifacts::Registries;
use super::{CommandError, Context};
use crate::client::EngineChoice;
use crate::file::{LoadError, LoadOptions, Loaded, load};
use crate::ui::report::Report;
use crate::ui::stream;
use crate::yaml::{Diagnostic, Sources, Span};

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
            registry: Some(Arc::new(Registries {
                insecure: globals.insecure_registry.clone(),
            })),
            ..LoadOptions::new(self.working_directory.clone(), self.environment.clone())
        }
    }

    /// Loads the project with the services that are wanted (none: all), and says what is doubtful in its files.
    pub fn load_project(&self, services: &[String]) -> Result<Loaded, CommandError> {
        let options = LoadOptions {
            services: services.to_vec(),
            find_places: true,
            ..self.load_options()
        };
        self.load_with(&options)
    }

    /// Loads the project to make containers of it, and says too which attributes have no effect in the engine chosen.
    pub fn load_to_run(&self, services: &[String]) -> Result<Loaded, CommandError> {
        let options = LoadOptions {
            services: services.to_vec(),
            find_places: true,
            // Other engines know more, or say so themselves; who reads docker compose's lines expects no others.
            find_without_effect: self.engine_choice()? == EngineChoice::Embedded && !self.terse,
            ..self.load_options()
        };
        let loaded = self.load_with(&options)?;
        for attribute in &loaded.without_effect {
            let others = match attribute.others {
                0 => String::new(),
                1 => " (and in one more place)".to_owned(),
                others => format!(" (and in {others} more places)"),
            };
            let (path, reason) = (&attribute.path, attribute.reason);
            let message = format!("{path} has no effect: {reason}{others}");
            self.warn_at(&message, Some(attribute.span), &loaded.sources);
        }
        Ok(loaded)
    }

    /// Loads the project in a way of the command's own.
    pub fn load_with(&self, options: &LoadOptions) -> Result<Loaded, CommandError> {
        let mut loaded = load(options).map_err(|error| self.load_failure(error))?;
        if self.terse {
            loaded.project.places.keep_own();
        }
        loaded.project.places.relative_to(&self.working_directory);
        self.warn(&loaded.warnings, &loaded.sources);
        Ok(loaded)
    }

    /// Says what is doubtful in the files of a project, and where.
    pub fn warn(&self, warnings: &[Diagnostic], sources: &Sources) {
        for warning in warnings {
            self.warn_at(&warning.message, warning.span, sources);
        }
    }

    fn warn_at(&self, message: &str, span: Option<Span>, sources: &Sources) {
        match span.filter(|_| !self.terse) {
            Some(span) => {
                let (line, column) = sources.position(span);
                let name = self.display_name(sources.name(span.source));
                stream::warn_at(message, format_args!("{name}:{line}:{column}"));
            }
            None => stream::warn(message),
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
