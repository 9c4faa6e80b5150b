//! The phases of loading, in order.
// compose-go loader/loader.go

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::atomic::AtomicUsize;

use super::advice::{advise, once_per_place};
use super::canonical::{MOST_PORTS, canonical, omit_empty, set_defaults};
use super::checks::{check_project, check_tree};
use super::discover::{Setup, discover, normalize_project_name};
use super::environment::{EnvironmentReader, read_error};
use super::interpolate::Interpolator;
use super::merge::merge;
use super::normalize::{normalize, resolve_variables};
use super::options::{LoadError, LoadOptions, Loaded, LoadedModel};
use super::paths::PathBase;
use super::places::places;
use super::reset::Resets;
use super::schema::{self, Violation};
use super::tree::each_entry;
use super::unique::enforce_unicity;
use super::without_effect::{self, WithoutEffect};
use crate::model::decode::Decoder;
use crate::model::{Dependencies, FROM_ENVIRONMENT, Project};
use crate::parallel::in_parts;
use crate::yaml::{
    Diagnostic, Diagnostics, MAX_SOURCE_BYTES, Mapping, Node, SourceId, Sources, Span, Stream, Value, parse_stream,
};

pub(super) type Variables = BTreeMap<String, String>;

/// Nobody reads more errors at once; files with many are made by programs.
pub(super) const MOST_ERRORS: usize = 100;

/// How many files a project may be made of; includes that include each other twice are soon more.
const MOST_FILES: usize = 10_000;

/// Where a group of files lies.
#[derive(Clone)]
pub(super) struct Place {
    /// The directory that other files are looked for in.
    pub absolute: String,
    /// What relative paths become relative to; absolute for the project itself, relative to it for parts of it.
    pub relative: String,
}

/// What becomes of one file on its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It is part of the project.
    Project,
    /// A service of it is extended; it is checked where it ends up.
    Base,
}

/// One Compose file.
pub(super) struct ComposeFile {
    pub name: String,
    pub id: SourceId,
    /// What it says, if somebody had to look already.
    stream: Option<Stream>,
}

pub(super) struct Loader<'o> {
    pub options: &'o LoadOptions,
    pub sources: Sources,
    pub warnings: Vec<Diagnostic>,
    /// Every Compose file that was read, in order.
    pub compose_sources: Vec<SourceId>,
    home: Option<String>,
    warned_of_version: BTreeSet<String>,
    ports_left: AtomicUsize,
}

/// Loads a project.
pub fn load(options: &LoadOptions) -> Result<Loaded, LoadError> {
    let mut loader = Loader::new(options);
    match loader.project() {
        Ok((project, without_effect, env_files)) => Ok(Loaded {
            project,
            without_effect,
            warnings: loader.warnings,
            sources: loader.sources,
            env_files,
        }),
        Err(diagnostics) => Err(loader.failure(diagnostics)),
    }
}

/// Loads a project as a tree, without typing it: what `config --no-interpolate` prints.
pub fn load_model(options: &LoadOptions) -> Result<LoadedModel, LoadError> {
    let mut loader = Loader::new(options);
    match loader.model() {
        Ok((root, name, setup)) => Ok(LoadedModel {
            root,
            name,
            environment: setup.environment,
            warnings: loader.warnings,
            sources: loader.sources,
        }),
        Err(diagnostics) => Err(loader.failure(diagnostics)),
    }
}

/// Returns the variables that Compose files can use, without loading any.
pub fn load_environment(options: &LoadOptions) -> Result<BTreeMap<String, String>, LoadError> {
    let mut loader = Loader::new(options);
    match loader.discover() {
        Ok(setup) => Ok(setup.environment),
        Err(diagnostics) => Err(loader.failure(diagnostics)),
    }
}

impl<'o> Loader<'o> {
    pub(super) fn new(options: &'o LoadOptions) -> Self {
        Self {
            options,
            sources: Sources::new(),
            warnings: Vec::new(),
            compose_sources: Vec::new(),
            home: options.environment.get("HOME").cloned(),
            warned_of_version: BTreeSet::new(),
            ports_left: AtomicUsize::new(MOST_PORTS),
        }
    }

    pub(super) fn failure(self, mut diagnostics: Diagnostics) -> LoadError {
        let more = diagnostics.0.len().saturating_sub(MOST_ERRORS + 1);
        diagnostics.0.truncate(MOST_ERRORS + 1);
        once_per_place(&mut diagnostics.0);
        for diagnostic in &mut diagnostics.0 {
            advise(diagnostic, &self.sources);
        }
        diagnostics.0.extend(more_errors(more));
        LoadError {
            diagnostics,
            warnings: self.warnings,
            sources: self.sources,
        }
    }

    pub(super) fn discover(&mut self) -> Result<Setup, Diagnostics> {
        discover(self.options, &mut self.sources, &mut self.warnings)
    }

    pub(super) fn model(&mut self) -> Result<(Node, String, Setup), Diagnostics> {
        let mut setup = self.discover()?;
        let mut files = self.read_files(&setup.files)?;
        let name = self.project_name(&mut files, &setup)?;
        setup.environment.insert("COMPOSE_PROJECT_NAME".into(), name.clone());
        let place = Place {
            absolute: setup.working_directory.clone(),
            relative: setup.working_directory.clone(),
        };
        let paths = self.options.resolve_paths;
        // As written, a file says the same wherever it is read; only what comes with it, as an included file's own
        // environment, is filled in.
        let variables = match self.options.interpolate {
            true => setup.environment.clone(),
            false => Variables::from([("COMPOSE_PROJECT_NAME".to_owned(), name.clone())]),
        };
        let mut root = self.group(&mut files, &place, &variables, paths, &[])?;
        if root.as_mapping().is_none_or(Mapping::is_empty) {
            return Err(Diagnostic::error("empty compose file").into());
        }
        if name.is_empty() {
            return Err(Diagnostic::error("project name must not be empty")
                .help("give one with -p, or as `name:` in the file")
                .into());
        }
        if self.options.normalize {
            let span = root.span;
            if let Some(top) = root.as_mapping_mut() {
                top.insert("name", span, Node::string(name.clone(), span));
            }
            normalize(&mut root, &name, &variables)?;
        }
        Ok((root, name, setup))
    }

    fn project(&mut self) -> Result<(Project, Vec<WithoutEffect>, Vec<String>), Diagnostics> {
        let (root, name, setup) = self.model()?;
        let mut project = typed(&root)?;
        project.name = name;
        project.working_dir = setup.working_directory.clone().into();
        project.environment = setup.environment.clone();
        project.compose_files = setup.files.clone();
        project.enable_profiles(&setup.profiles);
        if self.options.check_consistency {
            let complaints = check_project(&mut project);
            if !complaints.is_empty() {
                let found = complaints.into_iter().map(|complaint| complaint.located(&root));
                return Err(Diagnostics(found.collect()));
            }
            check_cycles(&project, &root)?;
        }
        let mut reader = EnvironmentReader::new(&mut self.sources);
        if self.options.resolve_environment {
            reader
                .resolve_services(&mut project, &mut self.warnings)
                .map_err(|error| of_service(error, "env_file", &root))?;
        }
        reader
            .resolve_labels(&mut project, &mut self.warnings)
            .map_err(|error| of_service(error, "label_file", &root))?;
        self.select(&mut project)?;
        project.places = places(&root, &self.sources, self.options.find_places);
        let without_effect = match self.options.find_without_effect {
            true => without_effect::find(&root, &project),
            false => Vec::new(),
        };
        Ok((project, without_effect, setup.env_files))
    }

    /// Turns on and off what the command line asks for.
    fn select(&mut self, project: &mut Project) -> Result<(), Diagnostics> {
        let services = &self.options.services;
        if !services.is_empty() {
            project.enable_services(services);
            if self.options.resolve_environment {
                let mut reader = EnvironmentReader::new(&mut self.sources);
                reader
                    .resolve_services(project, &mut self.warnings)
                    .map_err(|(_, diagnostics)| diagnostics)?;
            }
            *project = std::mem::take(project)
                .with_selected_services(services, Dependencies::Include)
                .map_err(|error| Diagnostic::error(error.to_string()))?;
        }
        if !self.options.all_resources {
            project.drop_unused_resources();
        }
        Ok(())
    }

    pub(super) fn read_files(&mut self, files: &[String]) -> Result<Vec<ComposeFile>, Diagnostics> {
        files.iter().map(|file| self.read_file(file)).collect()
    }

    /// Reads a Compose file's text.
    pub(super) fn read_file(&mut self, path: &str) -> Result<ComposeFile, Diagnostics> {
        let mut bytes = Vec::new();
        let limit = MAX_SOURCE_BYTES as u64 + 1;
        let read = match path {
            "-" => std::io::stdin().lock().take(limit).read_to_end(&mut bytes),
            path => std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)),
        };
        read.map_err(|error| read_error(path, &error))?;
        let name = path.to_owned();
        let id = self.sources.add_bytes(path, bytes)?;
        self.compose_sources.push(id);
        if self.compose_sources.len() > MOST_FILES {
            let message = format!("the project is made of more than {MOST_FILES} files, the last of them {path}");
            return Err(Diagnostic::error(message)
                .help("does a file include others that include it, or the same ones again and again?")
                .into());
        }
        Ok(ComposeFile { name, id, stream: None })
    }

    /// Settles what the project is called.
    fn project_name(&mut self, files: &mut [ComposeFile], setup: &Setup) -> Result<String, Diagnostics> {
        if let Some(name) = &setup.given_name {
            return Ok(name.clone());
        }
        let mut named: Option<Node> = None;
        for file in files {
            // docker compose looks for the name before it reads the rest, and then does not say which file it is in;
            // once it has one, what is wrong can wait.
            let mut stream = parse_stream(&mut self.sources, file.id);
            let documents = &stream.documents;
            if let Some(failure) = stream
                .failure
                .take_if(|failure| failure.is_syntax && documents.is_empty() && named.is_none())
            {
                return Err(failure.diagnostics);
            }
            if let Some(document) = documents.first()
                && !document.is_null()
                && document.as_mapping().is_none()
                && named.is_none()
            {
                let (line, _) = self.sources.position(document.span);
                let found = match &document.value {
                    Value::Sequence(_) => "!!seq".to_owned(),
                    Value::Int(number) => format!("!!int `{number}`"),
                    Value::Float(number) => format!("!!float `{number}`"),
                    Value::Bool(value) => format!("!!bool `{value}`"),
                    _ => format!("!!str `{}`", super::tree::go_format(document)),
                };
                let message =
                    format!("yaml: unmarshal errors:\n  line {line}: cannot unmarshal {found} into cli.named");
                return Err(Diagnostic::error(message)
                    .at(document.span)
                    .note("the top level of a Compose file is a mapping")
                    .into());
            }
            for document in documents {
                match document.get("name") {
                    Some(node) if node.as_sequence().is_some() || node.as_mapping().is_some() => {
                        if named.is_some() {
                            break;
                        }
                        let (line, _) = self.sources.position(node.span);
                        let tag = if node.as_sequence().is_some() { "!!seq" } else { "!!map" };
                        let message =
                            format!("yaml: unmarshal errors:\n  line {line}: cannot unmarshal {tag} into string");
                        return Err(Diagnostic::error(message).at(node.span).into());
                    }
                    Some(node) if !node.is_null() && node.as_str() != Some("") => named = Some(node.clone()),
                    _ => {}
                }
            }
            file.stream = Some(stream);
        }
        let fallback = || {
            let base = setup.working_directory.rsplit('/').next().unwrap_or_default();
            normalize_project_name(base)
        };
        let Some(mut node) = named else {
            return Ok(fallback());
        };
        if self.options.interpolate {
            let variables = &setup.environment;
            let lookup = |name: &str| variables.get(name).cloned();
            let mut interpolator = Interpolator::new(&self.sources, &lookup);
            interpolator.at(&mut node, &["name"]);
            if !interpolator.errors.is_empty() {
                return Err(Diagnostics(interpolator.errors));
            }
        }
        let name = super::tree::go_format(&node);
        Ok(if self.options.normalize {
            normalize_project_name(&name)
        } else {
            name
        })
    }

    /// Loads files that belong together into one canonical tree.
    pub(super) fn group(
        &mut self,
        files: &mut [ComposeFile],
        place: &Place,
        variables: &Variables,
        resolve_paths: bool,
        included: &[String],
    ) -> Result<Node, Diagnostics> {
        let mut root: Option<Node> = None;
        for file in files.iter_mut() {
            let (tree, _) = self.file(file, place, variables, root, included, Purpose::Project)?;
            root = tree;
        }
        let mut root = root.unwrap_or_else(|| {
            let id = files.first().map(|file| file.id);
            let id = id.unwrap_or_else(|| self.sources.add("", ""));
            Node::new(Value::Mapping(Mapping::new()), Span::new(id, 0, 0))
        });
        set_defaults(&mut root, !self.options.interpolate)?;
        check_tree(&mut root)?;
        if resolve_paths {
            self.resolve_paths(&mut root, &place.relative)?;
        }
        resolve_environment(&mut root, variables)?;
        Ok(root)
    }

    /// Makes the paths in a tree start from a directory.
    pub(super) fn resolve_paths(&self, root: &mut Node, directory: &str) -> Result<(), Diagnostics> {
        let base = PathBase {
            directory,
            home: self.home.as_deref(),
        };
        base.resolve(root)
    }

    /// Loads one file on top of earlier ones.
    pub(super) fn file(
        &mut self,
        file: &mut ComposeFile,
        place: &Place,
        variables: &Variables,
        earlier: Option<Node>,
        included: &[String],
        purpose: Purpose,
    ) -> Result<(Option<Node>, Resets), Diagnostics> {
        let mut root = earlier;
        let mut last = Resets::default();
        let stream = file.stream.take();
        let Stream { documents, failure } = stream.unwrap_or_else(|| parse_stream(&mut self.sources, file.id));
        for mut document in documents {
            let resets = Resets::take(&mut document);
            match &document.value {
                Value::Mapping(_) => {}
                Value::Null if root.is_none() && self.sources.text(file.id).trim().is_empty() => {
                    return Err(Diagnostic::error("empty compose file").at(document.span).into());
                }
                _ => {
                    let message = "top-level object must be a mapping";
                    return Err(Diagnostic::error(message).at(document.span).into());
                }
            }
            if self.options.interpolate {
                self.interpolate(&mut document, variables)?;
            }
            if purpose == Purpose::Project {
                self.apply_extends(&mut document, file, place, variables, &resets)?;
            }
            if let Some(root) = &mut root {
                resets.apply(root);
            }
            if purpose == Purpose::Project {
                let mut included = included.to_vec();
                included.push(file.name.clone());
                self.apply_include(&mut document, place, variables, &included)?;
            }
            let mut tree = match root.take() {
                Some(earlier) => merge(earlier, document)?,
                None => document,
            };
            enforce_unicity(&mut tree)?;
            if purpose == Purpose::Project {
                self.validate(&mut tree, file)?;
            }
            canonical(
                &mut tree,
                !self.options.interpolate,
                &self.ports_left,
                &mut self.warnings,
            )?;
            omit_empty(&mut tree)?;
            enforce_unicity(&mut tree)?;
            root = Some(tree);
            last = resets;
        }
        // What came before it was right.
        if let Some(failure) = failure {
            return Err(failure.named(&self.sources, file.id));
        }
        Ok((root, last))
    }

    fn interpolate(&mut self, document: &mut Node, variables: &Variables) -> Result<(), Diagnostics> {
        let sources = &self.sources;
        let fill_in = |part: Vec<(Vec<&str>, &mut Node)>| {
            let lookup = |name: &str| variables.get(name).cloned();
            let mut interpolator = Interpolator::new(sources, &lookup);
            for (path, node) in part {
                interpolator.at(node, &path);
            }
            (interpolator.errors, interpolator.warnings)
        };
        let mut errors = Vec::new();
        let top = document.as_mapping_mut();
        for (section, entry) in top.into_iter().flat_map(Mapping::iter_mut) {
            let values = match &mut entry.node.value {
                Value::Mapping(services) if section == "services" => {
                    let services = services.iter_mut();
                    services
                        .map(|(name, entry)| (vec![section, name], &mut entry.node))
                        .collect()
                }
                _ => vec![(vec![section], &mut entry.node)],
            };
            for (wrong, doubtful) in in_parts(values, fill_in) {
                errors.extend(wrong);
                self.warnings.extend(doubtful);
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Diagnostics(errors))
        }
    }

    fn validate(&mut self, tree: &mut Node, file: &ComposeFile) -> Result<(), Diagnostics> {
        let violations = schema::check(&schema::PROJECT, tree);
        if !violations.is_empty() {
            let services = tree.get("services").and_then(Node::as_mapping);
            let service = services.and_then(|services| services.keys().next());
            let more = violations.len().saturating_sub(MOST_ERRORS);
            let mut found: Vec<Diagnostic> = violations
                .into_iter()
                .take(MOST_ERRORS)
                .map(|violation| describe(violation, &file.name, service))
                .collect();
            found.extend(more_errors(more));
            return Err(Diagnostics(found));
        }
        let Some(version) = tree.as_mapping_mut().and_then(|top| top.remove("version")) else {
            return Ok(());
        };
        if self.warned_of_version.insert(file.name.clone()) {
            self.warnings.push(
                Diagnostic::warning(format!(
                    "{}: the attribute `version` is obsolete, it will be ignored, please remove it to avoid potential \
                     confusion",
                    file.name
                ))
                .at(version.key_span),
            );
        }
        Ok(())
    }
}

/// Says that there are more errors than are shown.
fn more_errors(count: usize) -> Option<Diagnostic> {
    (count > 0).then(|| Diagnostic::error(format!("there are {count} more errors like these")))
}

/// Places what is wrong with a file of a service at the attribute that names it.
fn of_service((service, mut diagnostics): (String, Diagnostics), attribute: &str, root: &Node) -> Diagnostics {
    for diagnostic in &mut diagnostics.0 {
        if diagnostic.span.is_none() {
            diagnostic.span = deepest_key(root, &["services", &service, attribute]);
        }
    }
    diagnostics
}

/// Puts docker compose's words and our advice into one.
fn describe(violation: Violation, file: &str, service: Option<&str>) -> Diagnostic {
    let mut diagnostic =
        Diagnostic::error(format!("validating {file}: {} {}", violation.path, violation.message)).at(violation.span);
    let mut unknown = violation.unknown_keys.iter();
    if let Some((first, _)) = unknown.next() {
        diagnostic.help = schema::advice(first, &violation, service);
    }
    for (key, span) in unknown.take(MOST_ERRORS) {
        let label = schema::advice(key, &violation, service).unwrap_or_default();
        diagnostic.related.push((*span, label));
    }
    diagnostic
}

/// Gives services, secrets and configs the values of the variables they name.
// compose-go loader/environment.go
fn resolve_environment(root: &mut Node, variables: &Variables) -> Result<(), Diagnostics> {
    each_entry(root, "services", |_, service| {
        // Those written as a mapping are filled in later, with the project's variables alone.
        if let Some(environment) = service.get_mut("environment")
            && environment.as_sequence().is_some()
        {
            resolve_variables(environment, variables, true);
        }
        Ok(())
    })?;
    for section in ["secrets", "configs"] {
        each_entry(root, section, |_, resource| {
            let value = resource
                .get("environment")
                .and_then(Node::as_str)
                .and_then(|name| variables.get(name));
            if let Some(value) = value.cloned() {
                let span = resource.span;
                if let Some(mapping) = resource.as_mapping_mut() {
                    mapping.insert(FROM_ENVIRONMENT, span, Node::string(value, span));
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Makes a typed project of a canonical tree.
fn typed(root: &Node) -> Result<Project, Diagnostics> {
    let mut decoder = Decoder::default();
    let mut project = Project {
        services: decoder.services(root),
        networks: decoder.section(root, "networks"),
        volumes: decoder.section(root, "volumes"),
        secrets: decoder.section(root, "secrets"),
        configs: decoder.section(root, "configs"),
        models: decoder.section(root, "models"),
        extensions: crate::model::decode::extensions(root),
        ..Project::default()
    };
    for (name, service) in &mut project.services {
        service.name.clone_from(name);
    }
    let Some(first) = decoder.errors.first() else {
        return Ok(project);
    };
    let lines: Vec<String> = decoder
        .errors
        .iter()
        .map(|error| format!("'{}' {}", error.path, error.message))
        .collect();
    let message = format!("decoding failed due to the following error(s):\n\n{}", lines.join("\n"));
    let mut diagnostic = Diagnostic::error(message).at(first.span);
    for error in decoder.errors.iter().skip(1) {
        diagnostic = diagnostic.related(error.span, error.message.clone());
    }
    Err(diagnostic.into())
}

/// Returns where the deepest key of a path stands that a tree has.
pub(super) fn deepest_key(root: &Node, path: &[&str]) -> Option<Span> {
    let mut span = None;
    let mut node = root;
    for key in path {
        let Some(entry) = node.as_mapping().and_then(|mapping| mapping.entry(key)) else {
            break;
        };
        span = Some(entry.key_span);
        node = &entry.node;
    }
    span
}

fn check_cycles(project: &Project, root: &Node) -> Result<(), Diagnostics> {
    let edges: BTreeMap<String, Vec<String>> = project
        .services
        .iter()
        .map(|(name, service)| {
            let known = service
                .depends_on
                .keys()
                .filter(|dependency| project.services.contains_key(*dependency));
            (name.clone(), known.cloned().collect())
        })
        .collect();
    match super::cycles::find(&edges) {
        None => Ok(()),
        Some(cycle) => {
            let mut diagnostic = Diagnostic::error(format!("dependency cycle detected: {}", cycle.join(" -> ")));
            for edge in cycle.windows(2) {
                let place = deepest_key(root, &["services", &edge[0], "depends_on", &edge[1]]);
                let label = format!("`{}` waits for `{}`", edge[0], edge[1]);
                match place {
                    Some(span) if diagnostic.span.is_none() => diagnostic = diagnostic.at(span).label(label),
                    Some(span) => diagnostic = diagnostic.related(span, label),
                    None => {}
                }
            }
            Err(diagnostic.into())
        }
    }
}
