//! `compose publish`: publish compose application.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use serde_json::{Value, json};

use super::{CommandError, Context, pushing};
use crate::client::labels;
use crate::file::{LoadOptions, clean};
use crate::image::{Artifact, PushOptions, Reference, Settings, copy_image, push_artifact, push_index, sha256};
use crate::model::Project;
use crate::ui::{Status, prompt, stream};
use crate::yaml::{Node, Sources, parse};

/// Publish compose application
#[derive(Debug, clap::Args)]
#[command(override_usage = "publish [OPTIONS] REPOSITORY[:TAG]")]
pub struct Args {
    /// Published compose application (includes referenced images)
    #[arg(long)]
    pub app: bool,
    /// Use insecure registry
    #[arg(long, hide = true)]
    pub insecure_registry: bool,
    /// OCI image/artifact specification version (automatically determined by default)
    #[arg(long, value_name = "string")]
    pub oci_version: Option<String>,
    /// Pin image tags to digests
    #[arg(long)]
    pub resolve_image_digests: bool,
    /// Include environment variables in the published OCI artifact
    #[arg(long)]
    pub with_env: bool,
    /// Assume "yes" as answer to all prompts
    #[arg(short = 'y', long)]
    pub yes: bool,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub reference: String,
}

/// Publishes the project's files, and pushes the images that it builds.
// docker/compose pkg/compose/publish.go
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let version = match args.oci_version.as_deref() {
        None | Some("") => None,
        Some("1.0") => Some(Version::First),
        Some("1.1") => Some(Version::Second),
        Some(other) => {
            return Err(CommandError::message(format!(
                "invalid OCI version {}: expected 1.0 or 1.1",
                stream::quoted(other)
            )));
        }
    };
    let reference = Reference::parse(&args.reference)?.tagged();
    let project = context
        .load_with(&LoadOptions {
            profiles: vec!["*".to_owned()],
            resolve_environment: false,
            ..context.load_options()
        })?
        .project;
    refuse_what_only_builds(&project)?;
    if !args.yes && !accepts_bind_mounts(&project)? {
        return Ok(ExitCode::SUCCESS);
    }
    if !args.with_env {
        refuse_environment(&project)?;
    }
    let files = Files::collect(&project)?;
    let pinned = match args.resolve_image_digests {
        true => Some(super::config::pinned_images(&project).await?),
        false => None,
    };
    let names: Vec<String> = project.services.keys().cloned().collect();
    let engine = context.engine().await?;
    pushing::push_images(context, &engine, &project, &names, true, false).await?;
    let artifact = files.artifact(args.with_env, pinned, version)?;
    context
        .progress
        .event(&args.reference, Status::Working, "publishing", "");
    if !context.globals.dry_run {
        let mut settings = Settings::load()?;
        if args.insecure_registry {
            settings.insecure.push(reference.domain().to_owned());
        }
        let options = PushOptions {
            login: None,
            settings: Some(settings),
        };
        let published = async {
            let digest = push_artifact(&reference, &artifact, &options).await?;
            match args.app {
                true => publish_images(&project, &reference, &artifact, &digest, &options).await,
                false => Ok(()),
            }
        };
        if let Err(error) = published.await {
            context.progress.event(&args.reference, Status::Error, "publishing", "");
            return Err(error);
        }
    }
    context.progress.event(&args.reference, Status::Done, "published", "");
    Ok(ExitCode::SUCCESS)
}

/// Copies the images of services to where the application is, and adds an index that ties them to it.
async fn publish_images(
    project: &Project,
    reference: &Reference,
    artifact: &Artifact,
    digest: &str,
    options: &PushOptions,
) -> Result<(), CommandError> {
    let images: BTreeSet<&str> = project
        .services
        .values()
        .map(|service| service.image.as_str())
        .collect();
    let mut manifests = Vec::new();
    for image in images.into_iter().filter(|image| !image.is_empty()) {
        manifests.push(copy_image(&Reference::parse(image)?, reference, options).await?);
    }
    let taken = [Some(&artifact.manifest), artifact.fallback.as_ref()];
    let taken = taken.into_iter().flatten().find(|manifest| sha256(manifest) == digest);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "artifactType": PROJECT,
        "manifests": manifests,
        "subject": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": taken.map_or(0, Vec::len),
        },
        "annotations": {"com.docker.compose.version": labels::COMPATIBLE_VERSION},
    });
    push_index(reference, &index, options).await?;
    Ok(())
}

/// A version of the specification that says how artifacts look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    First,
    Second,
}

/// Whoever fetches the application has no directory to build from.
fn refuse_what_only_builds(project: &Project) -> Result<(), CommandError> {
    let services: String = project
        .services
        .values()
        .filter(|service| service.image.is_empty() && service.build.is_some())
        .map(|service| format!("- {}\n", stream::quoted(&service.name)))
        .collect();
    match services.is_empty() {
        true => Ok(()),
        false => Err(CommandError::message(format!(
            "your Compose stack cannot be published as it only contains a build section for service(s):\n{services}"
        ))),
    }
}

/// What stands in the environment is often secret, and what is published cannot be taken back.
fn refuse_environment(project: &Project) -> Result<(), CommandError> {
    let mut found = String::new();
    for service in project.services.values() {
        let name = stream::quoted(&service.name);
        if !service.env_file.is_empty() {
            found.push_str(&format!("service {name} has env_file declared.\n"));
        }
        if !service.environment.is_empty() {
            found.push_str(&format!("service {name} has environment variable(s) declared.\n"));
        }
    }
    for (name, config) in &project.configs {
        if !config.environment.is_empty() {
            let name = stream::quoted(name);
            found.push_str(&format!("config {name} is declare as an environment variable.\n"));
        }
    }
    match found.is_empty() {
        true => Ok(()),
        false => Err(CommandError::message(format!(
            "{found}To avoid leaking sensitive data, you must either explicitly allow the sending of environment \
             variables by using the --with-env flag,\nor remove sensitive data from your Compose configuration"
        ))),
    }
}

fn accepts_bind_mounts(project: &Project) -> Result<bool, CommandError> {
    let mut list = String::new();
    for service in project.services.values() {
        let binds: Vec<String> = service
            .volumes
            .iter()
            .filter(|mount| mount.r#type == "bind")
            .map(|mount| {
                let mode = if mount.read_only { "ro" } else { "rw" };
                format!("{}:{}:{mode}\n", mount.source, mount.target)
            })
            .collect();
        if !binds.is_empty() {
            list.push_str(&service.name);
            list.extend(binds);
        }
    }
    if list.is_empty() {
        return Ok(true);
    }
    let question = format!(
        "you are about to publish bind mounts declaration within your OCI artifact.\nonly the bind mount declarations \
         will be added to the OCI artifact (not content)\nplease double check that you are not mounting potential \
         user's sensitive directories or data\n{list}Are you ok to publish these bind mount declarations?"
    );
    Ok(prompt::confirm(&question, false)?)
}

/// The files of a project, as they are published: those that they name go with them, under names that say nothing of
/// the directories here.
#[derive(Debug, Default)]
struct Files {
    /// Name and text of the project's own files.
    own: Vec<(String, String)>,
    /// The same of those that they extend.
    extended: Vec<(String, String)>,
    /// By name: where the env file is.
    environment: BTreeMap<String, PathBuf>,
}

impl Files {
    fn collect(project: &Project) -> Result<Self, CommandError> {
        let mut files = Self::default();
        let mut waiting = Vec::new();
        for path in project.compose_files.iter().map(PathBuf::from) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = files.rewritten(&path, &project.working_dir, &mut waiting)?;
            files.own.push((name, text));
        }
        let mut seen = BTreeSet::new();
        while let Some(path) = waiting.pop() {
            if seen.insert(path.clone()) {
                let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
                let text = files.rewritten(&path, &directory, &mut waiting)?;
                files.extended.push((published_name(&path, "yaml"), text));
            }
        }
        Ok(files)
    }

    /// Reads a file and writes other names in the place of the files it names; everything else stays as it is.
    fn rewritten(
        &mut self,
        path: &Path,
        directory: &Path,
        extended: &mut Vec<PathBuf>,
    ) -> Result<String, CommandError> {
        let mut text = fs_err::read_to_string(path)?;
        let mut sources = Sources::new();
        let id = sources.add(path.to_string_lossy(), text.as_str());
        let Ok(documents) = parse(&mut sources, id) else {
            // It has been loaded before: somebody changes it at this moment.
            return Err(CommandError::message(format!("failed to parse {}", path.display())));
        };
        let mut names = Vec::new();
        for document in &documents {
            if document.get("include").is_some() {
                return Err(CommandError::message("cannot publish compose file with local includes"));
            }
            let services = document.get("services").and_then(Node::as_mapping);
            for (_, service) in services.into_iter().flat_map(|services| services.iter()) {
                if let Some(node) = service.node.get("extends").and_then(|extends| extends.get("file"))
                    && let Some(file) = node.as_str()
                {
                    let file = PathBuf::from(clean(&directory.join(file).to_string_lossy()));
                    names.push((node.span, published_name(&file, "yaml")));
                    extended.push(file);
                }
                for node in service.node.get("env_file").into_iter().flat_map(env_files) {
                    if let Some(file) = node.as_str() {
                        let file = PathBuf::from(clean(&directory.join(file).to_string_lossy()));
                        let name = published_name(&file, "env");
                        names.push((node.span, name.clone()));
                        self.environment.insert(name, file);
                    }
                }
            }
        }
        // From the end, so that what comes before stays where it is.
        names.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
        for (span, name) in names {
            text.replace_range(span.start as usize..span.end as usize, &name);
        }
        Ok(text)
    }

    fn artifact(
        &self,
        with_environment: bool,
        pinned: Option<String>,
        version: Option<Version>,
    ) -> Result<Artifact, CommandError> {
        let mut layers = Vec::new();
        let mut blobs = vec![b"{}".to_vec()];
        let mut add = |media_type: &str, annotations: Value, bytes: Vec<u8>| {
            layers.push(descriptor(media_type, &bytes, Some(annotations)));
            blobs.push(bytes);
        };
        for (name, text) in &self.own {
            add(COMPOSE_FILE, file_annotations(name, false), text.clone().into_bytes());
        }
        for (name, text) in &self.extended {
            add(COMPOSE_FILE, file_annotations(name, true), text.clone().into_bytes());
        }
        if with_environment {
            for (name, path) in &self.environment {
                let annotations = json!({
                    "com.docker.compose.envfile": name,
                    "com.docker.compose.version": labels::COMPATIBLE_VERSION,
                });
                add(ENV_FILE, annotations, fs_err::read(path)?);
            }
        }
        if let Some(pinned) = pinned {
            add(
                COMPOSE_FILE,
                file_annotations("image-digests.yaml", false),
                pinned.into_bytes(),
            );
        }
        let created = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let manifest = |version| {
            let mut manifest = json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "layers": layers,
                "annotations": {"org.opencontainers.image.created": created},
            });
            match version {
                Version::First => manifest["config"] = descriptor(EMPTY_CONFIG, b"{}", None),
                Version::Second => {
                    manifest["artifactType"] = json!(PROJECT);
                    manifest["config"] = descriptor("application/vnd.oci.empty.v1+json", b"{}", None);
                }
            }
            manifest.to_string().into_bytes()
        };
        Ok(Artifact {
            manifest: manifest(version.unwrap_or(Version::Second)),
            fallback: version.is_none().then(|| manifest(Version::First)),
            blobs,
        })
    }
}

const PROJECT: &str = "application/vnd.docker.compose.project";
const COMPOSE_FILE: &str = "application/vnd.docker.compose.file+yaml";
const ENV_FILE: &str = "application/vnd.docker.compose.envfile";
const EMPTY_CONFIG: &str = "application/vnd.docker.compose.config.empty.v1+json";

fn file_annotations(name: &str, is_extended: bool) -> Value {
    let mut annotations = json!({
        "com.docker.compose.file": name,
        "com.docker.compose.version": labels::COMPATIBLE_VERSION,
    });
    if is_extended {
        annotations["com.docker.compose.extends"] = json!("true");
    }
    annotations
}

/// Describes a blob, and holds it: these are small, and so are read with the manifest.
fn descriptor(media_type: &str, bytes: &[u8], annotations: Option<Value>) -> Value {
    let mut descriptor = json!({
        "mediaType": media_type,
        "digest": sha256(bytes),
        "size": bytes.len(),
        "data": base64::engine::general_purpose::STANDARD.encode(bytes),
    });
    if let Some(annotations) = annotations {
        descriptor["annotations"] = annotations;
    }
    descriptor
}

/// The nodes of an `env_file` that are names of files.
fn env_files(node: &Node) -> Vec<&Node> {
    match node.as_sequence() {
        Some(items) => items.iter().map(|item| item.get("path").unwrap_or(item)).collect(),
        None => vec![node.get("path").unwrap_or(node)],
    }
}

fn published_name(path: &Path, extension: &str) -> String {
    let digest = sha256(path.as_os_str().as_encoded_bytes());
    format!("{}.{extension}", digest.trim_start_matches("sha256:"))
}
