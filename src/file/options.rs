//! What a project is loaded from, and what comes of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::WithoutEffect;
use super::remote::artifact::Registry;
use crate::model::Project;
use crate::yaml::{Diagnostic, Diagnostics, Node, Sources};

/// Which files to load, and how.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The Compose files; `-` is standard input. None lets them be found.
    pub files: Vec<String>,
    /// The name given on the command line.
    pub project_name: Option<String>,
    /// What relative paths start from, if not the directory of the first file.
    pub project_directory: Option<String>,
    /// Files with variables, instead of `.env`.
    pub env_files: Vec<String>,
    /// Profiles to turn on; none leaves it to COMPOSE_PROFILES.
    pub profiles: Vec<String>,
    /// Services that are wanted; their profiles are turned on, and what they do not need is turned off.
    pub services: Vec<String>,
    /// Where the command was started.
    pub working_directory: PathBuf,
    /// The variables of the process.
    pub environment: BTreeMap<String, String>,
    /// Whether resources stay that no service uses.
    pub all_resources: bool,
    pub interpolate: bool,
    pub normalize: bool,
    pub resolve_paths: bool,
    pub check_consistency: bool,
    /// Whether variables of env files and of the project are put into the services' `environment`.
    pub resolve_environment: bool,
    /// Whether attributes are looked for that have no effect in the built-in engine.
    pub find_without_effect: bool,
    /// Whether it is found out where those attributes are written that an engine may refuse.
    pub find_places: bool,
    /// Whether files on other machines may be fetched; otherwise only those are read that were fetched before.
    pub fetch: bool,
    /// Who fetches them from registries.
    pub registry: Option<Arc<dyn Registry>>,
}

impl LoadOptions {
    /// Returns the usual way to load, from a directory with an environment.
    pub fn new(working_directory: PathBuf, environment: BTreeMap<String, String>) -> Self {
        Self {
            files: Vec::new(),
            project_name: None,
            project_directory: None,
            env_files: Vec::new(),
            profiles: Vec::new(),
            services: Vec::new(),
            working_directory,
            environment,
            all_resources: false,
            interpolate: true,
            normalize: true,
            resolve_paths: true,
            check_consistency: true,
            resolve_environment: true,
            find_without_effect: false,
            find_places: false,
            fetch: false,
            registry: None,
        }
    }
}

/// A project and how it came about.
#[derive(Debug)]
pub struct Loaded {
    pub project: Project,
    pub warnings: Vec<Diagnostic>,
    /// The texts of all files that were read.
    pub sources: Sources,
    /// Attributes that have no effect, if they were looked for.
    pub without_effect: Vec<WithoutEffect>,
    /// The files with variables that were read, absolute.
    pub env_files: Vec<String>,
}

/// A project as a tree, before it is typed.
#[derive(Debug)]
pub struct LoadedModel {
    pub root: Node,
    pub name: String,
    pub environment: BTreeMap<String, String>,
    pub warnings: Vec<Diagnostic>,
    pub sources: Sources,
}

/// Why a project cannot be loaded; never without a reason.
#[derive(Debug)]
pub struct LoadError {
    /// The first is what docker compose would say.
    pub diagnostics: Diagnostics,
    pub warnings: Vec<Diagnostic>,
    /// The texts that the places are in.
    pub sources: Sources,
}

impl LoadError {
    /// Returns docker compose's message.
    pub fn message(&self) -> &str {
        self.diagnostics
            .0
            .first()
            .map_or("", |diagnostic| diagnostic.message.as_str())
    }
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.message())
    }
}

impl std::error::Error for LoadError {}
