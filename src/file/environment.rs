//! Files with variables and labels: the project's own, and those of services.
// compose-go dotenv/env.go and types/project.go: WithServicesEnvironmentResolved, WithServicesLabelsResolved

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::dotenv;
use crate::model::{EnvFile, Project, Service};
use crate::yaml::{Diagnostic, Diagnostics, SourceId, Sources, go_quote};

type Variables = BTreeMap<String, String>;

/// Reads files with variables, each from disk only once.
pub struct EnvironmentReader<'s> {
    sources: &'s mut Sources,
    known: HashMap<String, SourceId>,
}

impl<'s> EnvironmentReader<'s> {
    pub fn new(sources: &'s mut Sources) -> Self {
        Self {
            sources,
            known: HashMap::new(),
        }
    }

    /// Reads the files a project takes its variables from; later ones win.
    pub fn project_files(
        &mut self,
        files: &[String],
        current: &Variables,
        warnings: &mut Vec<Diagnostic>,
    ) -> Result<Variables, Diagnostics> {
        let mut variables = Variables::new();
        for file in files {
            let metadata = match Path::new(file).metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(Diagnostic::error(format!("couldn't find env file: {file}")).into());
                }
                Err(error) => return Err(Diagnostic::error(format!("stat {file}: {}", reason(&error))).into()),
            };
            if metadata.is_dir() {
                return Err(Diagnostic::error(format!("{file} is a directory")).into());
            }
            let id = self.read(file)?;
            let lookup = |name: &str| current.get(name).cloned();
            let parsed = dotenv::parse(self.sources, id, &lookup, &variables)?;
            warnings.extend(parsed.warnings);
            variables.extend(parsed.variables);
        }
        Ok(variables)
    }

    fn read(&mut self, path: &str) -> Result<SourceId, Diagnostic> {
        if let Some(&id) = self.known.get(path) {
            return Ok(id);
        }
        let bytes = std::fs::read(path)
            .map_err(|error| Diagnostic::error(format!("{} {path}: {}", operation(&error), reason(&error))))?;
        let text = String::from_utf8(bytes).unwrap_or_else(|error| {
            // Go's reader takes any bytes; what is no text can at least be shown.
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        });
        let id = self.sources.add(path, text);
        self.known.insert(path.to_owned(), id);
        Ok(id)
    }

    /// Puts the variables of env files and of the project into the services; names the one that this failed for.
    pub fn resolve_services(
        &mut self,
        project: &mut Project,
        warnings: &mut Vec<Diagnostic>,
    ) -> Result<(), (String, Diagnostics)> {
        let mut services = std::mem::take(&mut project.services);
        let result = services.iter_mut().try_for_each(|(name, service)| {
            self.resolve_service(service, &project.environment, warnings)
                .map_err(|error| (name.clone(), error))
        });
        project.services = services;
        result
    }

    fn resolve_service(
        &mut self,
        service: &mut Service,
        project: &Variables,
        warnings: &mut Vec<Diagnostic>,
    ) -> Result<(), Diagnostics> {
        for (name, value) in &mut service.environment {
            if value.is_none() {
                *value = project.get(name).cloned();
            }
        }
        let mut found = Variables::new();
        for file in &service.env_file {
            let own = &service.environment;
            let lookup = |name: &str| project.get(name).cloned().or_else(|| own.get(name).cloned().flatten());
            let parsed = self.service_file(file, &lookup, &found)?;
            if let Some(parsed) = parsed {
                warnings.extend(parsed.warnings);
                found.extend(parsed.variables);
            }
        }
        for (name, value) in found {
            service.environment.entry(name).or_insert(Some(value));
        }
        service.env_file.clear();
        Ok(())
    }

    fn service_file(
        &mut self,
        file: &EnvFile,
        lookup: &super::template::Lookup<'_>,
        earlier: &Variables,
    ) -> Result<Option<dotenv::EnvironmentFile>, Diagnostics> {
        let path = file.path.as_str();
        if let Err(error) = Path::new(path).metadata()
            && error.kind() == std::io::ErrorKind::NotFound
        {
            if !file.required.0 {
                return Ok(None);
            }
            let message = format!("env file {path} not found: stat {path}: {}", reason(&error));
            return Err(Diagnostic::error(message).into());
        }
        let id = self.read(path)?;
        let parsed = match file.format.as_str() {
            "" => dotenv::parse(self.sources, id, lookup, earlier)?,
            "raw" => dotenv::parse_raw(self.sources, id, lookup)?,
            other => {
                let message = format!("unsupported env_file format {}", go_quote(other));
                return Err(Diagnostic::error(message).into());
            }
        };
        Ok(Some(parsed))
    }

    /// Puts the labels of label files into the services; names the one that this failed for.
    pub fn resolve_labels(
        &mut self,
        project: &mut Project,
        warnings: &mut Vec<Diagnostic>,
    ) -> Result<(), (String, Diagnostics)> {
        for (name, service) in &mut project.services {
            self.resolve_service_labels(service, warnings)
                .map_err(|error| (name.clone(), error))?;
        }
        Ok(())
    }

    fn resolve_service_labels(
        &mut self,
        service: &mut Service,
        warnings: &mut Vec<Diagnostic>,
    ) -> Result<(), Diagnostics> {
        let mut labels = Variables::new();
        for path in &service.label_file {
            if let Err(error) = Path::new(path).metadata()
                && error.kind() == std::io::ErrorKind::NotFound
            {
                let message = format!("label file {path} not found: stat {path}: {}", reason(&error));
                return Err(Diagnostic::error(message).into());
            }
            let id = self.read(path)?;
            let nothing = |_: &str| None;
            let parsed = dotenv::parse(self.sources, id, &nothing, &labels)?;
            warnings.extend(parsed.warnings);
            labels.extend(parsed.variables);
        }
        for (name, value) in labels {
            service.labels.entry(name).or_insert(value);
        }
        service.label_file.clear();
        Ok(())
    }
}

/// The system call that Go names in such an error.
fn operation(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::IsADirectory => "read",
        _ => "open",
    }
}

/// Returns an error of the system in Go's words: small letters, no number.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => String::new(),
    }
}

/// Returns the error of reading a file as Go words it.
pub fn read_error(path: &str, error: &std::io::Error) -> Diagnostic {
    Diagnostic::error(format!("{} {path}: {}", operation(error), reason(error)))
}
