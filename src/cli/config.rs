//! `compose config`: parse, resolve and render compose file in canonical format.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use futures_util::future::join_all;

use super::converge::local_source;
use super::{CommandError, Context};
use crate::file::explain::explain;
use crate::file::interpolate::{self, Variable};
use crate::file::{LoadOptions, Loaded, is_unique, load, load_model};
use crate::image::{PullOptions, Reference, inspect_remote};
use crate::model::decode::plain;
use crate::model::hash::service_hash;
use crate::model::{Dependencies, Dialect, Emit, Project, Service, Value};
use crate::os::memory;
use crate::ui::{machine, stream};

/// Parse, resolve and render compose file in canonical format
#[derive(Debug, clap::Args)]
#[command(override_usage = "config [OPTIONS] [SERVICE...]")]
pub struct Args {
    #[arg(long, help = "Print environment used for interpolation.")]
    pub environment: bool,
    /// Say which places could set a variable or an attribute, and which did
    #[arg(long, value_name = "VAR|PATH", hide = true)]
    pub explain: Option<String>,
    /// Fetch Compose files that lie on other machines
    #[arg(long, hide = true)]
    pub fetch: bool,
    /// Say what is wrong with the files in a form for programs, on standard output
    #[arg(long, value_name = "json|sarif", hide = true)]
    pub format_errors: Option<machine::Form>,
    /// Format the output. Values: [yaml | json]
    #[arg(long, value_name = "string")]
    pub format: Option<String>,
    #[arg(long, value_name = "string", help = "Print the service config hash, one per line.")]
    pub hash: Option<String>,
    #[arg(long, help = "Print the image names, one per line.")]
    pub images: bool,
    /// Produces an override file with image digests
    #[arg(long)]
    pub lock_image_digests: bool,
    #[arg(long, help = "Print the model names, one per line.")]
    pub models: bool,
    #[arg(long, help = "Print the network names, one per line.")]
    pub networks: bool,
    /// Don't check model consistency - warning: may produce invalid Compose output
    #[arg(long)]
    pub no_consistency: bool,
    /// Don't resolve service env files
    #[arg(long)]
    pub no_env_resolution: bool,
    /// Don't interpolate environment variables
    #[arg(long)]
    pub no_interpolate: bool,
    /// Don't normalize compose model
    #[arg(long)]
    pub no_normalize: bool,
    /// Don't resolve file paths
    #[arg(long)]
    pub no_path_resolution: bool,
    /// Save to file (default to stdout)
    #[arg(short = 'o', long, value_name = "string")]
    pub output: Option<String>,
    #[arg(long, help = "Print the profile names, one per line.")]
    pub profiles: bool,
    /// Only validate the configuration, don't print anything
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Pin image tags to digests
    #[arg(long)]
    pub resolve_image_digests: bool,
    #[arg(long = "services", help = "Print the service names, one per line.")]
    pub list_services: bool,
    #[arg(long, help = "Print model variables and default values.")]
    pub variables: bool,
    #[arg(long, help = "Print the volume names, one per line.")]
    pub volumes: bool,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    // What a large project takes is wanted until the end, and the end is near.
    memory::grow_in_large_steps();
    if let Some(form) = args.format_errors {
        return checked(form, &args, context);
    }
    let text = if let Some(what) = &args.explain {
        explained(what, &args, context)?
    } else if args.list_services {
        services(&args, context)?
    } else if args.volumes {
        lines(listed(context)?.project.volumes.keys())
    } else if args.networks {
        lines(listed(context)?.project.networks.keys())
    } else if args.models {
        lines(listed(context)?.project.models.keys())
    } else if let Some(hash) = args.hash.as_deref().filter(|hash| !hash.is_empty()) {
        hashes(hash, context)?
    } else if args.profiles {
        profiles(&args, context)?
    } else if args.images {
        images(&args, context)?
    } else if args.variables {
        variables(&args, context)?
    } else if args.environment {
        environment(context)?
    } else {
        return rendered(&args, context).await;
    };
    stream::out(text)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what is wrong with the files, and nothing else.
fn checked(form: machine::Form, args: &Args, context: &Context) -> Result<ExitCode, CommandError> {
    let (found, sources, code) = match load(&load_options(args, context)) {
        Ok(loaded) => (loaded.warnings, loaded.sources, ExitCode::SUCCESS),
        Err(mut error) => {
            error.diagnostics.0.append(&mut error.warnings);
            (error.diagnostics.0, error.sources, ExitCode::FAILURE)
        }
    };
    stream::out(machine::diagnostics(form, &found, &sources))?;
    Ok(code)
}

/// Prints the places a value could come from, the strongest first.
fn explained(what: &str, args: &Args, context: &Context) -> Result<String, CommandError> {
    let origins = explain(&load_options(args, context), what).map_err(|error| context.load_failure(error))?;
    let mut text = format!("{what}\n");
    for origin in origins {
        let mark = if origin.wins { "->" } else { "  " };
        let value = match origin.value {
            Some(value) => format!("= {value}"),
            None => "(does not set it)".to_owned(),
        };
        text.push_str(&format!("{mark} {} {value}\n", origin.place));
    }
    Ok(text)
}

async fn rendered(args: &Args, context: &Context) -> Result<ExitCode, CommandError> {
    let format = match args.format.as_deref() {
        None | Some("" | "yaml") => Format::Yaml,
        Some("json") => Format::Json,
        Some(other) => {
            let other = stream::quoted(other);
            return Err(CommandError::message(format!("unsupported format {other}")));
        }
    };
    let text = if args.no_interpolate {
        if !args.services.is_empty() {
            stream::warn(
                "service filtering is not applied when --no-interpolate is set, the full model will be rendered",
            );
        }
        let model = load_model(&load_options(args, context)).map_err(|error| context.load_failure(error))?;
        context.warn(&model.warnings, &model.sources);
        let root = sorted(&plain(&model.root), format);
        if args.quiet && format == Format::Yaml {
            return Ok(ExitCode::SUCCESS);
        }
        match format {
            Format::Json => {
                let normalized = !args.no_normalize;
                json(&root.with_null_lists_but(&mut Vec::new(), &|path| match path {
                    // Resolved, they are made once more.
                    ["services", _, "environment"] | ["services", _, "build", "args"] if normalized => false,
                    path => is_unique(path),
                }))?
            }
            Format::Yaml => root.to_yaml(),
        }
    } else {
        let project = project(args, context).await?;
        // The process ends soon; taking a large project apart would only keep its user waiting.
        let project = std::mem::ManuallyDrop::new(project);
        // Nobody reads it, and any project can be written as YAML.
        if args.quiet && format == Format::Yaml {
            return Ok(ExitCode::SUCCESS);
        }
        let text = match format {
            Format::Json => {
                ssh_keys_in_json(&project)?;
                json(&project.emit(Dialect::Json))?
            }
            Format::Yaml => {
                let value = std::mem::ManuallyDrop::new(project.emit(Dialect::Yaml));
                value.to_yaml()
            }
        };
        // A file made of this output must mean the same when it is read again.
        match text.contains('$') {
            true => text.replace('$', "$$"),
            false => text,
        }
    };
    if args.quiet {
        return Ok(ExitCode::SUCCESS);
    }
    match args.output.as_deref().filter(|path| !path.is_empty()) {
        Some(path) => fs_err::write(context.absolute(path), text)?,
        None => stream::out(text)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Yaml,
    Json,
}

/// How the flags want the project loaded.
fn load_options(args: &Args, context: &Context) -> LoadOptions {
    LoadOptions {
        services: args.services.clone(),
        interpolate: !args.no_interpolate,
        normalize: !args.no_normalize && !context.globals.compatibility,
        resolve_paths: !args.no_path_resolution,
        check_consistency: !args.no_consistency,
        ..context.load_options()
    }
}

async fn project(args: &Args, context: &Context) -> Result<Project, CommandError> {
    let mut project = context.load_with(&load_options(args, context))?.project;
    if args.resolve_image_digests || args.lock_image_digests {
        resolve_images(&mut project).await?;
    }
    if !args.no_consistency {
        unique_container_names(&project)?;
    }
    if args.lock_image_digests {
        project = images_alone(project);
    }
    Ok(project)
}

/// Returns a project whose services say nothing but their image.
fn images_alone(project: Project) -> Project {
    let images = project.services.into_iter().map(|(name, service)| {
        let locked = Service {
            image: service.image,
            ..Service::default()
        };
        (name, locked)
    });
    Project {
        services: images.collect(),
        ..Project::default()
    }
}

/// Returns a file that pins the images of a project to what their registries have now.
pub async fn pinned_images(project: &Project) -> Result<String, CommandError> {
    let mut project = project.clone();
    resolve_images(&mut project).await?;
    Ok(images_alone(project).emit(Dialect::Yaml).to_yaml())
}

/// Pins every image to the digest that its registry names now.
// compose-go types/project.go: WithImagesResolved
async fn resolve_images(project: &mut Project) -> Result<(), CommandError> {
    let pins = project.services.values_mut().map(|service| async {
        // What comes from this machine's files has no registry.
        if service.image.is_empty() || local_source(&service.image).is_some() {
            return Ok(());
        }
        let reference = Reference::parse(&service.image)?.tagged();
        if reference.digest().is_none() {
            let found = inspect_remote(&reference, &PullOptions::default()).await?;
            // The tag stays, for people to read.
            service.image = format!("{reference}@{}", found.digest);
        }
        Ok(())
    });
    join_all(pins).await.into_iter().collect()
}

/// Prints JSON as docker compose indents it; some numbers cannot be written.
fn json(value: &Value) -> Result<String, CommandError> {
    match value.unprintable_number() {
        None => Ok(value.to_json_pretty()),
        Some(number) => {
            let number = crate::yaml::format_float(number);
            Err(CommandError::message(format!("json: unsupported value: {number}")))
        }
    }
}

/// docker compose writes keys that come from a file as broken JSON and then refuses its own text; whoever relies on
/// the output would get something else from us than from it.
fn ssh_keys_in_json(project: &Project) -> Result<(), CommandError> {
    let mut keys = project
        .services
        .values()
        .filter_map(|service| service.build.as_ref())
        .flat_map(|build| &build.ssh.0);
    match keys.any(|key| !key.path.is_empty()) {
        false => Ok(()),
        true => Err(CommandError::message(
            "json: error calling MarshalJSON for type types.SSHKey: invalid character ':' after top-level value",
        )
        .hint("`config` without `--format json` prints the keys")),
    }
}

// compose-go types/project.go: CheckContainerNameUnicity
fn unique_container_names(project: &Project) -> Result<(), CommandError> {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, service) in &project.services {
        if service.container_name.is_empty() {
            continue;
        }
        if let Some(owner) = owners.insert(&service.container_name, name) {
            return Err(CommandError::message(format!(
                "services.{name}: container name {} is already in use by service {owner}",
                stream::quoted(&service.container_name)
            )));
        }
    }
    Ok(())
}

/// Loads what the lists of names are made of.
fn listed(context: &Context) -> Result<Loaded, CommandError> {
    context.load_with(&LoadOptions {
        resolve_environment: false,
        ..context.load_options()
    })
}

fn services(args: &Args, context: &Context) -> Result<String, CommandError> {
    if args.no_interpolate {
        let model = load_model(&load_options(args, context)).map_err(|error| context.load_failure(error))?;
        context.warn(&model.warnings, &model.sources);
        let names = model.root.get("services").and_then(|services| services.as_mapping());
        return Ok(lines(names.into_iter().flat_map(|services| services.keys())));
    }
    let project = listed(context)?.project;
    let names: Vec<String> = project.services.keys().cloned().collect();
    Ok(lines(project.closure(&names, Dependencies::Include)?))
}

fn hashes(hash: &str, context: &Context) -> Result<String, CommandError> {
    let chosen: Vec<String> = if hash == "*" {
        Vec::new()
    } else {
        let mut names: Vec<String> = hash.split(',').map(str::to_owned).collect();
        names.sort();
        names
    };
    let options = LoadOptions {
        resolve_environment: false,
        ..context.load_options()
    };
    let project = context.load_with(&options)?.project;
    let names: Vec<&String> = if chosen.is_empty() {
        project.services.keys().collect()
    } else {
        chosen.iter().collect()
    };
    let mut text = String::new();
    for name in names {
        let hash = service_hash(project.service(name)?);
        text.push_str(&format!("{name} {hash}\n"));
    }
    Ok(text)
}

fn profiles(args: &Args, context: &Context) -> Result<String, CommandError> {
    let options = LoadOptions {
        resolve_environment: false,
        services: args.services.clone(),
        ..context.load_options()
    };
    let project = context.load_with(&options)?.project;
    let found: BTreeSet<&String> = project.all_services().flat_map(|service| &service.profiles).collect();
    Ok(lines(found))
}

fn images(args: &Args, context: &Context) -> Result<String, CommandError> {
    let options = LoadOptions {
        resolve_environment: false,
        services: args.services.clone(),
        ..load_options(args, context)
    };
    let project = context.load_with(&options)?.project;
    let separator = if context.globals.compatibility { "_" } else { "-" };
    let images = project
        .services
        .values()
        .map(|service| project.image_name(service, separator));
    Ok(lines(images))
}

fn variables(args: &Args, context: &Context) -> Result<String, CommandError> {
    let options = LoadOptions {
        interpolate: false,
        ..load_options(args, context)
    };
    let model = load_model(&options).map_err(|error| context.load_failure(error))?;
    context.warn(&model.warnings, &model.sources);
    let mut found: BTreeMap<String, Variable> = BTreeMap::new();
    for variable in interpolate::variables(&model.root) {
        found.insert(variable.name.clone(), variable);
    }
    if args.format.as_deref() == Some("yaml") {
        // docker compose writes these through Go's encoder as they are, names of fields and all.
        let options = serde_yaml::ser_options! { indent_step: 4, prefer_block_scalars: false };
        return serde_yaml::to_string_with_options(&found, options)
            .map_err(|error| CommandError::message(error.to_string()));
    }
    if args.format.as_deref() == Some("json") {
        let entries = found
            .into_values()
            .map(|variable| {
                let text = Value::String;
                let object = Value::Map(vec![
                    ("Name".into(), text(variable.name.clone())),
                    ("DefaultValue".into(), text(variable.default_value)),
                    ("PresenceValue".into(), text(variable.presence_value)),
                    ("Required".into(), Value::Bool(variable.required)),
                ]);
                (variable.name, object)
            })
            .collect();
        return Ok(format!("{}\n", Value::Map(entries).to_json_pretty()));
    }
    let rows = found.into_values().map(|variable| {
        vec![
            variable.name.clone(),
            variable.required.to_string(),
            variable.default_value,
            variable.presence_value,
        ]
    });
    let header = ["NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"];
    let mut table = vec![header.map(str::to_owned).to_vec()];
    table.extend(rows);
    Ok(aligned(&table))
}

/// Lines up columns, three spaces apart and twenty wide at least.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        (cells.map(|cell| cell.chars().count()).max().unwrap_or(0) + 3).max(20)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if index + 1 < row.len() {
                let padding = widths[index] - cell.chars().count();
                text.extend(std::iter::repeat_n(' ', padding));
            }
        }
        text.push('\n');
    }
    text
}

fn environment(context: &Context) -> Result<String, CommandError> {
    let loaded = listed(context)?;
    let entries = loaded.project.environment.iter();
    Ok(lines(entries.map(|(name, value)| format!("{name}={value}"))))
}

fn lines<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for item in items {
        text.push_str(item.as_ref());
        text.push('\n');
    }
    text
}

/// Puts the keys of every mapping into the order in which a map of Go's is printed.
fn sorted(value: &Value, format: Format) -> Value {
    let dialect = match format {
        Format::Json => Dialect::Json,
        Format::Yaml => Dialect::Yaml,
    };
    value.emit(dialect)
}
