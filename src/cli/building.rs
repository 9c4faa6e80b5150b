//! Having the engine build the images of services, with progress and what the steps print.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use serde::Deserialize;

use super::build_logins::{logins, registry_config};
use super::buildkit::{self, Trace};
use super::commit::split_tag;
use super::{CommandError, Context};
use crate::build::context::{Context as BuildContext, ContextError};
use crate::client::events::percent_encode;
use crate::client::stream::{JsonLines, UploadError};
use crate::client::{ClientError, Engine, EngineKind, labels};
use crate::model::{Build, Dependencies, Project, Service};
use crate::ui::progress::Mode;
use crate::ui::{Status, stream};

/// What the command line says about building.
#[derive(Debug, Clone, Default)]
pub struct BuildWishes {
    pub no_cache: bool,
    /// Bases are asked of their registry even where they are there.
    pub pull: bool,
    pub quiet: bool,
    /// `NAME=VALUE`, or a name whose value the environment has.
    pub arguments: Vec<String>,
    pub memory: i64,
    /// Keys and agents beside those of the file: `default`, `ID` or `ID=PATH`.
    pub ssh: Vec<String>,
}

/// Builds the images of the named services, and returns their ids by service.
///
/// A service whose image another one is built on top of (`additional_contexts: service:x`) comes first; so do
/// dependencies.
pub async fn build_images(
    context: &Context,
    engine: &Engine,
    project: &Project,
    services: &[String],
    wishes: &BuildWishes,
) -> Result<BTreeMap<String, String>, CommandError> {
    let order = order(project, services)?;
    let mut ids = BTreeMap::new();
    context.progress.begin("Building");
    for name in &order {
        let service = project.service(name)?;
        let Some(build) = &service.build else { continue };
        context.progress.event(name, Status::Working, "", "Building");
        if context.globals.dry_run {
            context.progress.event(name, Status::Done, "", "Built");
            continue;
        }
        match build_image(context, engine, project, service, build, wishes).await {
            Ok(id) => {
                context.progress.event(name, Status::Done, "", "Built");
                ids.insert(name.clone(), id);
            }
            Err(error) => {
                context.progress.event(name, Status::Error, "", "Error");
                context.progress.end();
                return Err(error);
            }
        }
    }
    context.progress.end();
    Ok(ids)
}

/// Returns the services to build, each after those whose images it is built on; those are built even if nobody named them.
fn order(project: &Project, services: &[String]) -> Result<Vec<String>, CommandError> {
    let closure = project.closure(services, Dependencies::Include)?;
    let mut order = Vec::new();
    for name in closure.iter().filter(|name| services.contains(name)) {
        add(project, name, &mut Vec::new(), &mut order)?;
    }
    Ok(order)
}

fn add(project: &Project, name: &str, above: &mut Vec<String>, order: &mut Vec<String>) -> Result<(), CommandError> {
    if order.iter().any(|known| known == name) {
        return Ok(());
    }
    if above.iter().any(|known| known == name) {
        return Err(CommandError::message(format!(
            "dependency cycle detected: {} -> {name}",
            above.join(" -> ")
        )));
    }
    above.push(name.to_owned());
    let service = project.service(name)?;
    for (_, place) in service.build.iter().flat_map(|build| build.additional_contexts.iter()) {
        if let Some(below) = place.strip_prefix("service:")
            && project.service(below)?.build.is_some()
        {
            add(project, below, above, order)?;
        }
    }
    above.pop();
    order.push(name.to_owned());
    Ok(())
}

async fn build_image(
    context: &Context,
    engine: &Engine,
    project: &Project,
    service: &Service,
    build: &Build,
    wishes: &BuildWishes,
) -> Result<String, CommandError> {
    if engine.kind() == EngineKind::Embedded {
        return build_here(context, engine, project, service, build, wishes).await;
    }
    let has_buildkit = buildkit::is_there(context, engine).await;
    refuse_what_the_engine_cannot(context, service, build, has_buildkit)?;
    let is_remote = crate::build::is_remote(&build.context);
    let files = files(project, build);
    if !is_remote {
        files.check()?;
    }
    let separator = if context.globals.compatibility { "_" } else { "-" };
    let image = project.image_name(service, separator);
    let mut path = request(context, project, service, build, wishes, &files, &image);
    let logins = logins(build, &if is_remote { String::new() } else { files.text() });
    let session = match has_buildkit {
        true => {
            let secrets = secrets(context, project, service, build)?;
            let agents = agents(context, service, build, wishes)?;
            let session = engine.open_session(buildkit::given(secrets, agents, &logins)).await?;
            path.push_str(&format!("&version=2&session={0}&buildid={0}", session.id));
            Some(session)
        }
        false => {
            path.push_str("&version=1");
            None
        }
    };
    let config = registry_config(&logins);
    let mut headers = vec![("content-type", "application/x-tar")];
    headers.extend(config.as_deref().map(|config| ("x-registry-config", config)));
    let answer = if is_remote {
        path.push_str(&format!("&remote={}", percent_encode(&build.context)));
        engine.post_with_headers(&path, &headers[1..]).await?
    } else {
        engine
            .upload(http::Method::POST, &path, &headers, move |upload| files.pack(upload))
            .await
            .map_err(|error| match error {
                UploadError::Make(ContextError::Write(source)) => CommandError::from(ContextError::Write(source)),
                UploadError::Make(error) => error.into(),
                UploadError::Engine(error) => error.into(),
            })?
    };
    let id = follow(context, &service.name, JsonLines::new(answer), wishes.quiet).await?;
    // The builder asks for what it was given until it has ended.
    drop(session);
    tag(engine, build, &id).await?;
    Ok(id)
}

/// Has the built-in engine build a service's image: it reads the files where they are.
async fn build_here(
    context: &Context,
    engine: &Engine,
    project: &Project,
    service: &Service,
    build: &Build,
    wishes: &BuildWishes,
) -> Result<String, CommandError> {
    let separator = if context.globals.compatibility { "_" } else { "-" };
    let mut place = build.context.clone();
    let mut dockerfile = build.dockerfile_inline.clone();
    if !crate::build::is_remote(&place) {
        let files = files(project, build);
        files.check()?;
        dockerfile = files.text();
        let directory = std::path::absolute(&files.directory).unwrap_or(files.directory);
        place = directory.display().to_string();
    }
    let mut contexts = BTreeMap::new();
    for (name, place) in &build.additional_contexts {
        let place = match place.strip_prefix("service:") {
            Some(below) => {
                let image = project.image_name(project.service(below)?, separator);
                format!("docker-image://{image}")
            }
            None => place.clone(),
        };
        contexts.insert(name.clone(), place);
    }
    let mut arguments = arguments(context, project, build, wishes);
    arguments.retain(|_, value| value.is_some());
    let ulimits = ulimits(build);
    let body = serde_json::json!({
        "context": place,
        "dockerfile": build.dockerfile,
        "dockerfileInline": Some(&build.dockerfile_inline).filter(|text| !text.is_empty()),
        "target": build.target,
        "tags": [project.image_name(service, separator)],
        "arguments": arguments,
        "labels": labels_of(project, service, build),
        "noCache": wishes.no_cache || build.no_cache,
        "noCacheFilter": build.no_cache_filter,
        "pull": wishes.pull || build.pull,
        "platform": platform_of(service, build),
        "network": build.network,
        "extraHosts": build.extra_hosts.to_list("="),
        "shmSize": build.shm_size.0.max(0),
        "contexts": contexts,
        "secrets": encoded(secrets(context, project, service, build)?),
        "agents": agents(context, service, build, wishes)?,
        "ulimits": ulimits,
        "entitlements": build.entitlements,
        "cacheFrom": caches(project, &build.cache_from, "src="),
        "cacheTo": caches(project, &build.cache_to, "dest="),
        "privileged": build.privileged,
    });
    let config = registry_config(&logins(build, &dockerfile));
    let headers = config.as_deref().map(|config| ("x-registry-config", config));
    let answer = engine.post_json("/compose/build", headers.as_slice(), body).await?;
    let id = follow(context, &service.name, JsonLines::new(answer), wishes.quiet).await?;
    tag(engine, build, &id).await?;
    Ok(id)
}

/// Returns the build caches that a file names, with directories from the root, as the engine is in another one.
fn caches(project: &Project, caches: &[String], key: &str) -> Vec<String> {
    let absolute = |field: &str| match field.strip_prefix(key) {
        Some(path) => format!("{key}{}", project.working_dir.join(path).display()),
        None => field.to_owned(),
    };
    let whole = |cache: &String| cache.split(',').map(absolute).collect::<Vec<_>>().join(",");
    caches.iter().map(whole).collect()
}

fn encoded(secrets: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, String> {
    let encode = |value| base64::engine::general_purpose::STANDARD.encode(value);
    secrets.into_iter().map(|(id, value)| (id, encode(value))).collect()
}

/// Returns the secrets of a build by the name that its steps know.
fn secrets(
    context: &Context,
    project: &Project,
    service: &Service,
    build: &Build,
) -> Result<BTreeMap<String, Vec<u8>>, CommandError> {
    let mut secrets = BTreeMap::new();
    for reference in &build.secrets {
        let Some(secret) = project.secrets.get(&reference.source) else {
            return Err(CommandError::message(format!(
                "service \"{}\": build secret \"{}\" is not defined",
                service.name, reference.source
            )));
        };
        if !reference.uid.is_empty() || !reference.gid.is_empty() || reference.mode.is_some() {
            stream::warn("secrets `uid`, `gid` and `mode` are not supported by BuildKit, they will be ignored");
        }
        let value = if !secret.file.is_empty() {
            let path = project.working_dir.join(&secret.file);
            std::fs::read(&path).map_err(|error| {
                CommandError::message(format!(
                    "service \"{}\": cannot read build secret \"{}\": {}: {error}",
                    service.name,
                    reference.source,
                    path.display()
                ))
            })?
        } else if !secret.environment.is_empty() {
            let name = &secret.environment;
            let value = project.environment.get(name).or_else(|| context.environment.get(name));
            value.cloned().unwrap_or_default().into_bytes()
        } else {
            return Err(CommandError::message(format!(
                "build.secrets only supports environment or file-based secrets: \"{}\"",
                reference.source
            )));
        };
        let id = if reference.target.is_empty() {
            &reference.source
        } else {
            &reference.target
        };
        secrets.insert(id.clone(), value);
    }
    Ok(secrets)
}

/// Returns the sockets of the agents that a build may ask, by the name that its steps know.
fn agents(
    context: &Context,
    service: &Service,
    build: &Build,
    wishes: &BuildWishes,
) -> Result<BTreeMap<String, PathBuf>, CommandError> {
    let given = wishes.ssh.iter().flat_map(|list| list.split(',')).map(|text| {
        let (id, path) = text.split_once('=').unwrap_or((text, ""));
        (id.to_owned(), path.to_owned())
    });
    let all = build
        .ssh
        .0
        .iter()
        .map(|key| (key.id.clone(), key.path.clone()))
        .chain(given);
    let mut agents = BTreeMap::new();
    for (id, path) in all {
        let path = match path.as_str() {
            "" => context.environment.get("SSH_AUTH_SOCK").cloned().unwrap_or_default(),
            path => path.to_owned(),
        };
        if path.is_empty() {
            return Err(CommandError::message(format!(
                "service \"{}\": invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set",
                service.name
            )));
        }
        let found = std::fs::metadata(&path).map_err(|error| {
            CommandError::message(format!("service \"{}\": ssh {id}: {path}: {error}", service.name))
        })?;
        if !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) {
            return Err(CommandError::message(format!(
                "service \"{}\": ssh {id}: {path} is a key, and builds are given agents only: add it to one \
                 (ssh-add {path}) and use `ssh: [{id}]`",
                service.name
            )));
        }
        agents.insert(id, PathBuf::from(path));
    }
    Ok(agents)
}

/// Returns where the files of a build are.
pub fn files(project: &Project, build: &Build) -> BuildContext {
    BuildContext {
        directory: directory(&project.working_dir, &build.context),
        dockerfile: match build.dockerfile.as_str() {
            "" => "Dockerfile".into(),
            dockerfile => dockerfile.into(),
        },
        inline: Some(build.dockerfile_inline.clone()).filter(|text| !text.is_empty()),
    }
}

fn labels_of<'b>(project: &'b Project, service: &'b Service, build: &'b Build) -> BTreeMap<&'b str, &'b str> {
    let mut labels: BTreeMap<&str, &str> = build.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
    labels.extend([
        (labels::PROJECT, project.name.as_str()),
        (labels::SERVICE, service.name.as_str()),
        (labels::VERSION, labels::COMPATIBLE_VERSION),
    ]);
    labels
}

/// Returns the platform that a service's image is built for, if one is given.
pub fn platform_of<'b>(service: &'b Service, build: &'b Build) -> &'b str {
    build
        .platforms
        .first()
        .map(String::as_str)
        .filter(|platform| !platform.is_empty())
        .unwrap_or(&service.platform)
}

/// Gives an image its other names.
async fn tag(engine: &Engine, build: &Build, id: &str) -> Result<(), CommandError> {
    for tag in &build.tags {
        let (repository, tag) = split_tag(tag);
        let tag = if tag.is_empty() { "latest" } else { tag };
        let path = format!(
            "/images/{}/tag?repo={}&tag={}",
            percent_encode(id),
            percent_encode(repository),
            percent_encode(tag)
        );
        engine.request(http::Method::POST, &path, None).await?;
    }
    Ok(())
}

/// Names what a build request has no words for, rather than leaving it out in silence.
fn refuse_what_the_engine_cannot(
    context: &Context,
    service: &Service,
    build: &Build,
    has_buildkit: bool,
) -> Result<(), CommandError> {
    for cache in &build.cache_to {
        if !has_buildkit || !buildkit::is_inline(cache) {
            stream::warn(format_args!(
                "service \"{}\": this engine does not export build caches: cache_to {cache:?} has no effect",
                service.name
            ));
        }
    }
    let asked = [
        (!has_buildkit && !build.secrets.is_empty(), "secrets"),
        (!has_buildkit && !build.ssh.0.is_empty(), "ssh"),
        (!build.additional_contexts.is_empty(), "additional_contexts"),
        (build.platforms.len() > 1, "platforms (more than one)"),
        (
            !has_buildkit && crate::build::is_remote(&build.context),
            "a context that is not a local directory",
        ),
    ];
    match asked.iter().find(|(is_so, _)| *is_so) {
        Some((_, what)) => {
            Err(context.not_available(&format!("build\" of service \"{}\" with \"{what}", service.name)))
        }
        None => Ok(()),
    }
}

fn directory(project: &std::path::Path, context: &str) -> PathBuf {
    project.join(if context.is_empty() { "." } else { context })
}

/// Returns the path and query of the build request.
fn request(
    context: &Context,
    project: &Project,
    service: &Service,
    build: &Build,
    wishes: &BuildWishes,
    files: &BuildContext,
    image: &str,
) -> String {
    let labels = labels_of(project, service, build);
    let platform = platform_of(service, build);
    let json = |value: serde_json::Value| value.to_string();
    let mut pairs = vec![
        ("t", image.to_owned()),
        ("dockerfile", files.dockerfile_name()),
        (
            "buildargs",
            json(serde_json::json!(with_inline_cache(
                build,
                arguments(context, project, build, wishes)
            ))),
        ),
        ("labels", json(serde_json::json!(labels))),
        ("rm", "1".to_owned()),
        ("forcerm", "1".to_owned()),
    ];
    let mut add = |name, value: &str| {
        if !value.is_empty() {
            pairs.push((name, value.to_owned()));
        }
    };
    add("target", &build.target);
    add("networkmode", &build.network);
    add("platform", platform);
    add("isolation", &build.isolation);
    if wishes.no_cache || build.no_cache {
        add("nocache", "1");
    }
    if wishes.pull || build.pull {
        add("pull", "1");
    }
    if build.shm_size.0 > 0 {
        add("shmsize", &build.shm_size.0.to_string());
    }
    if wishes.memory > 0 {
        add("memory", &wishes.memory.to_string());
    }
    if !build.cache_from.is_empty() {
        let images: Vec<String> = build
            .cache_from
            .iter()
            .filter_map(|cache| buildkit::image_of(cache))
            .collect();
        add("cachefrom", &json(serde_json::json!(images)));
    }
    for host in build.extra_hosts.to_list(":") {
        add("extrahosts", &host);
    }
    if !build.ulimits.is_empty() {
        add("ulimits", &json(serde_json::json!(ulimits(build))));
    }
    let query: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={}", percent_encode(value)))
        .collect();
    format!("/build?{}", query.join("&"))
}

/// Returns the limits of a build's processes, as the engine's API writes them.
fn ulimits(build: &Build) -> Vec<serde_json::Value> {
    let limits = build.ulimits.iter().map(|(name, limit)| {
        let (soft, hard) = limit.limits();
        serde_json::json!({"Name": name, "Soft": soft, "Hard": hard})
    });
    limits.collect()
}

/// Returns the build's arguments: those of the file, over them those of the command line. One without a value has
/// the environment's, if it has one.
pub fn arguments(
    context: &Context,
    project: &Project,
    build: &Build,
    wishes: &BuildWishes,
) -> BTreeMap<String, Option<String>> {
    let resolve = |name: &str| {
        project
            .environment
            .get(name)
            .or_else(|| context.environment.get(name))
            .cloned()
    };
    let mut arguments: BTreeMap<String, Option<String>> = build
        .args
        .iter()
        .map(|(name, value)| (name.clone(), value.clone().or_else(|| resolve(name))))
        .collect();
    for argument in &wishes.arguments {
        match argument.split_once('=') {
            Some((name, value)) => arguments.insert(name.to_owned(), Some(value.to_owned())),
            None => arguments.insert(argument.clone(), resolve(argument)),
        };
    }
    arguments
}

/// Docker's engine is asked for a cache in the image by an argument.
fn with_inline_cache(
    build: &Build,
    mut arguments: BTreeMap<String, Option<String>>,
) -> BTreeMap<String, Option<String>> {
    if build.cache_to.iter().any(|cache| buildkit::is_inline(cache)) {
        arguments.insert("BUILDKIT_INLINE_CACHE".to_owned(), Some("1".to_owned()));
    }
    arguments
}

/// What the engine tells while it builds.
#[derive(Deserialize)]
struct News {
    #[serde(default)]
    stream: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    status: String,
    aux: Option<serde_json::Value>,
    error: Option<String>,
}

/// Shows what the engine tells, and returns the image's id.
async fn follow(context: &Context, service: &str, mut news: JsonLines, quiet: bool) -> Result<String, CommandError> {
    let mut id = String::new();
    let mut said = String::new();
    let mut trace = Trace::default();
    let is_plain = context.progress.mode() == Mode::Plain && !quiet;
    let is_live = context.progress.mode() == Mode::Terminal && !quiet;
    while let Some(line) = news.next::<News>().await {
        let line = line?;
        if let Some(error) = line.error {
            // A person sees what led to it, unless it was shown as it came.
            if is_live && !said.is_empty() {
                context.progress.end();
                stream::err(said.trim_end());
            }
            return Err(ClientError::Stream(error).into());
        }
        if let Some(built) = line
            .aux
            .as_ref()
            .and_then(|aux| aux.get("ID"))
            .and_then(|id| id.as_str())
        {
            built.clone_into(&mut id);
        }
        let mut text = match line.aux {
            Some(serde_json::Value::String(aux)) if line.id == "moby.buildkit.trace" => trace.lines(&aux),
            _ => line.stream,
        };
        if text.is_empty() && !line.status.is_empty() && line.id.is_empty() {
            text = format!("{}\n", line.status);
        }
        if is_plain {
            for text in text.lines().filter(|text| !text.trim().is_empty()) {
                stream::err(format_args!("#{service} {text}"));
            }
        }
        if is_live {
            if text.starts_with("Step ") {
                context
                    .progress
                    .event(service, Status::Working, "", format!("Building {}", text.trim_end()));
                said.clear();
            }
            said.push_str(&text);
        }
    }
    if id.is_empty() {
        return Err(CommandError::message(format!(
            "the engine built service \"{service}\" and did not say which image it is"
        )));
    }
    Ok(id)
}
