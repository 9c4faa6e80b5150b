//! Which files make up the project, where it lies, what it is called and which variables it has.
// compose-go cli/options.go

use std::collections::BTreeMap;
use std::path::Path;

use super::environment::EnvironmentReader;
use super::options::LoadOptions;
use super::paths::{clean, directory_of, is_remote, join, text};
use super::remote::local_path;
use crate::yaml::{Diagnostic, Diagnostics, Sources, go_quote};

pub(super) const FILE_NAMES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
];
const OVERRIDE_NAMES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// What is known before any Compose file is read.
pub struct Setup {
    /// Absolute; `-` is standard input.
    pub files: Vec<String>,
    pub working_directory: String,
    pub environment: BTreeMap<String, String>,
    pub env_files: Vec<String>,
    pub profiles: Vec<String>,
    /// The name that outweighs those in files.
    pub given_name: Option<String>,
}

/// Finds the files and their variables.
pub fn discover(
    options: &LoadOptions,
    sources: &mut Sources,
    warnings: &mut Vec<Diagnostic>,
) -> Result<Setup, Diagnostics> {
    let start = text(&options.working_directory);
    let mut environment = options.environment.clone();
    environment.entry("PWD".into()).or_insert_with(|| start.clone());
    let absolute = |path: &str| absolute(&start, path);
    let mut files: Vec<String> = Vec::with_capacity(options.files.len());
    for file in &options.files {
        files.push(match is_remote(file) {
            true => local_path(file, options)?,
            false => file.clone(),
        });
    }
    let directory = |files: &[String]| match &options.project_directory {
        Some(directory) => absolute(directory),
        None => files
            .iter()
            .find(|file| *file != "-")
            .map_or_else(|| start.clone(), |file| directory_of(&absolute(file))),
    };
    let mut env_files = Vec::new();
    let mut reader = EnvironmentReader::new(sources);
    // Before the file is known its directory is not, so the working directory's `.env` may name it.
    let mut read_env_files = |files: &[String],
                              environment: &mut BTreeMap<String, String>,
                              warnings: &mut Vec<Diagnostic>|
     -> Result<(), Diagnostics> {
        if !options.env_files.is_empty() {
            env_files = options.env_files.iter().map(|file| absolute(file)).collect();
        } else if !is_env_file_disabled(&options.environment)? {
            let default = join(&directory(files), ".env");
            if Path::new(&default).metadata().is_ok_and(|found| !found.is_dir()) {
                env_files = vec![default];
            }
        }
        let found = reader.project_files(&env_files, environment, warnings)?;
        for (name, value) in found {
            environment.entry(name).or_insert(value);
        }
        Ok(())
    };
    read_env_files(&files, &mut environment, warnings)?;
    if files.is_empty() {
        match environment.get("COMPOSE_FILE") {
            Some(list) => {
                let separator = environment
                    .get("COMPOSE_PATH_SEPARATOR")
                    .filter(|separator| !separator.is_empty())
                    .map_or(":", String::as_str);
                files = list
                    .split(separator)
                    .map(|file| match is_remote(file) {
                        true => local_path(file, options),
                        false => Ok(absolute(file)),
                    })
                    .collect::<Result<_, Diagnostic>>()?;
                // compose-go cli/options.go: absolutePaths looks at these before anything is read.
                if let Some(missing) = files.iter().find(|file| *file != "-" && !Path::new(file).exists()) {
                    return Err(Diagnostic::error(format!("stat {missing}: no such file or directory")).into());
                }
            }
            None => files = search(&directory(&files), warnings),
        }
    }
    read_env_files(&files, &mut environment, &mut Vec::new())?;
    if files.is_empty() {
        return Err(Diagnostic::error("no configuration file provided: not found")
            .help("run the command in a directory with a compose.yaml, or name a file with -f")
            .into());
    }
    let working_directory = directory(&files);
    let profiles = if options.profiles.is_empty() {
        // Without any, the profile without a name is on, as it is in docker compose.
        let list = environment.get("COMPOSE_PROFILES").map_or("", String::as_str);
        list.split(',').map(|profile| profile.trim().to_owned()).collect()
    } else {
        options.profiles.clone()
    };
    let given_name = options
        .project_name
        .clone()
        .filter(|name| !name.is_empty())
        .or_else(|| environment.get("COMPOSE_PROJECT_NAME").cloned())
        .filter(|name| !name.is_empty());
    if let Some(name) = &given_name
        && !is_project_name(name)
    {
        return Err(invalid_name(name).into());
    }
    let files = files
        .iter()
        .map(|file| if file == "-" { file.clone() } else { absolute(file) })
        .collect();
    Ok(Setup {
        files,
        working_directory,
        environment,
        env_files,
        profiles,
        given_name,
    })
}

/// Returns the path as seen from a directory, cleaned.
pub fn absolute(directory: &str, path: &str) -> String {
    if path.starts_with('/') {
        clean(path)
    } else {
        join(directory, path)
    }
}

/// Looks for the usual files in a directory and those above it.
fn search(directory: &str, warnings: &mut Vec<Diagnostic>) -> Vec<String> {
    let mut directory = directory.to_owned();
    loop {
        let found = existing(&FILE_NAMES, &directory);
        if let Some(file) = found.first() {
            let mut files = vec![file.clone()];
            warn_of_several("config", &found, warnings);
            let overrides = existing(&OVERRIDE_NAMES, &directory);
            warn_of_several("override", &overrides, warnings);
            files.extend(overrides.into_iter().next());
            return files;
        }
        let parent = directory_of(&directory);
        if parent == directory {
            return Vec::new();
        }
        directory = parent;
    }
}

fn existing(names: &[&str], directory: &str) -> Vec<String> {
    names
        .iter()
        .map(|name| join(directory, name))
        .filter(|path| Path::new(path).exists())
        .collect()
}

fn warn_of_several(kind: &str, found: &[String], warnings: &mut Vec<Diagnostic>) {
    if let [first, _, ..] = found {
        let list = found.join(", ");
        warnings.push(Diagnostic::warning(format!(
            "Found multiple {kind} files with supported names: {list}"
        )));
        warnings.push(Diagnostic::warning(format!("Using {first}")));
    }
}

fn is_env_file_disabled(environment: &BTreeMap<String, String>) -> Result<bool, Diagnostic> {
    match environment.get("COMPOSE_DISABLE_ENV_FILE").map(String::as_str) {
        None => Ok(false),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(Diagnostic::error(format!(
            "strconv.ParseBool: parsing {}: invalid syntax",
            go_quote(other)
        ))),
    }
}

/// Says that a name cannot be a project's.
pub fn invalid_name(name: &str) -> Diagnostic {
    Diagnostic::error(format!(
        "invalid project name {}: must consist only of lowercase alphanumeric characters, hyphens, and underscores as \
         well as start with a letter or number",
        go_quote(name)
    ))
}

/// Tells whether a name can be a project's as it is.
pub fn is_project_name(name: &str) -> bool {
    normalize_project_name(name) == name
}

/// Returns what remains of a text when it is made a project's name.
pub fn normalize_project_name(text: &str) -> String {
    let kept: String = text
        .to_lowercase()
        .chars()
        .filter(|character| matches!(character, 'a'..='z' | '0'..='9' | '_' | '-'))
        .collect();
    kept.trim_start_matches(['_', '-']).to_owned()
}
