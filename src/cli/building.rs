//! Having the engine build the images of services, with progress and what the steps print.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;

use super::asked::Asked;
use super::build_logins::{logins, registry_config};
use super::buildkit::{self, Trace};
use super::commit::split_tag;
use super::lifecycle::separator;
use super::{CommandError, Context};
use crate::build::context::{Context as BuildContext, ContextError};
use crate::client::stream::{JsonLines, UploadError};
use crate::client::{ClientError, Engine, EngineKind, labels};
use crate::image::sha256;
use crate::model::{Build, Dependencies, Project, Service};
use crate::percent;
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
    let builder = Builder {
        context,
        engine,
        project,
        wishes,
        has_buildkit: engine.kind() != EngineKind::Embedded
            && !context.globals.dry_run
            && buildkit::is_there(context, engine).await,
        said: Mutex::default(),
    };
    context.progress.begin("Building");
    let built = builder.build_all(&order).await;
    context.progress.end();
    // A person sees what led to a failure, unless it was shown as it came.
    let said = builder.said.into_inner().unwrap_or_else(PoisonError::into_inner);
    if built.is_err() && !said.is_empty() {
        stream::err(said.trim_end());
    }
    built
}

/// How many images are built at the same time, unless the user says how many.
const AT_ONCE: usize = 4;

/// Builds under way.
struct Builder<'b> {
    context: &'b Context,
    engine: &'b Engine,
    project: &'b Project,
    wishes: &'b BuildWishes,
    /// Whether the engine is a foreign one that builds by BuildKit.
    has_buildkit: bool,
    /// What the build that failed had printed before.
    said: Mutex<String>,
}

impl Builder<'_> {
    /// Builds images at the same time, each after those that it is built on. The first failure ends all.
    async fn build_all(&self, order: &[String]) -> Result<BTreeMap<String, String>, CommandError> {
        let progress = &self.context.progress;
        let mut ids = BTreeMap::new();
        let mut waiting = Vec::new();
        for name in order {
            let service = self.project.service(name)?;
            if let Some(build) = &service.build {
                waiting.push((service, build));
            }
        }
        let mut left: BTreeSet<&str> = waiting.iter().map(|(service, _)| service.name.as_str()).collect();
        let mut running = FuturesUnordered::new();
        let mut under_way: BTreeSet<&str> = BTreeSet::new();
        loop {
            while running.len() < self.at_once()
                && let Some(next) = waiting
                    .iter()
                    .position(|(_, build)| !built_on(build).any(|below| left.contains(below)))
            {
                let (service, build) = waiting.remove(next);
                if !self.context.globals.dry_run {
                    progress.event(&service.name, Status::Working, "", "Building");
                }
                under_way.insert(&service.name);
                running.push(async move { (service, self.build(service, build).await) });
            }
            let Some((service, built)) = running.next().await else {
                return Ok(ids);
            };
            under_way.remove(service.name.as_str());
            left.remove(service.name.as_str());
            match built {
                Ok(id) => {
                    progress.event(&service.name, Status::Done, "", "Built");
                    ids.extend(id.map(|id| (service.name.clone(), id)));
                }
                Err(error) => {
                    progress.event(&service.name, Status::Error, "", "Error");
                    for other in under_way {
                        progress.event(other, Status::Warning, "", "Canceled");
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Tells what a dry run would make, as docker compose words it.
    fn pretend(&self, service: &Service) {
        let image = self.project.image_name(service, separator(self.context));
        let digest = sha256(image.as_bytes());
        let id = digest.trim_start_matches("sha256:").get(..40).unwrap_or_default();
        let progress = &self.context.progress;
        let mark = format!("{} ==>", service.name);
        let text = format!("==> writing image dryRun-{id}");
        progress.event(&mark, Status::Done, text, "");
        progress.event(format!("{mark} ==>"), Status::Done, format!("naming to {image}"), "");
    }

    /// The builder before BuildKit does one after the other, as docker compose has it do.
    fn at_once(&self) -> usize {
        match usize::try_from(self.context.globals.parallel) {
            _ if self.engine.kind() != EngineKind::Embedded && !self.has_buildkit => 1,
            Ok(given @ 1..) => given,
            _ => AT_ONCE,
        }
    }

    /// Builds one image, and returns its id unless nothing is to be done.
    async fn build(&self, service: &Service, build: &Build) -> Result<Option<String>, CommandError> {
        if self.context.globals.dry_run {
            self.pretend(service);
            return Ok(None);
        }
        let id = match self.engine.kind() {
            EngineKind::Embedded => self.build_here(service, build).await?,
            EngineKind::Foreign => self.build_there(service, build).await?,
        };
        tag(self.engine, build, &id).await?;
        Ok(Some(id))
    }
}

/// Returns the services that a build takes files or a base from.
fn built_on(build: &Build) -> impl Iterator<Item = &str> {
    let places = build.additional_contexts.values();
    places.filter_map(|place| place.strip_prefix("service:"))
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
    for below in service.build.iter().flat_map(|build| built_on(build)) {
        if project.service(below)?.build.is_some() {
            add(project, below, above, order)?;
        }
    }
    above.pop();
    order.push(name.to_owned());
    Ok(())
}

impl Builder<'_> {
    /// Has a foreign engine build a service's image.
    async fn build_there(&self, service: &Service, build: &Build) -> Result<String, CommandError> {
        let (context, engine, project, wishes) = (self.context, self.engine, self.project, self.wishes);
        let asked = Asked {
            context,
            engine,
            project,
            service,
            build,
            wishes,
            has_buildkit: self.has_buildkit,
        };
        let beyond = asked.beyond().await?;
        let is_remote = crate::build::is_remote(&build.context);
        let files = files(project, build);
        if !is_remote {
            files.check()?;
        }
        let separator = if context.globals.compatibility { "_" } else { "-" };
        let image = project.image_name(service, separator);
        let logins = logins(build, &if is_remote { String::new() } else { files.text() });
        let mut shown = self.shown(service);
        let mut session = None;
        if self.has_buildkit {
            let secrets = secrets(context, project, service, build)?;
            let agents = agents(context, service, build, wishes)?;
            let mut given = buildkit::given(secrets, agents, &logins);
            if let Some(beyond) = beyond {
                let builder = engine.open_builder().await?;
                let solve = asked.solve(beyond, &builder, &files, &image, &mut given).await?;
                let session = engine.open_session(given).await?;
                let mut trace = Trace::default();
                let built = builder.solve(&solve, &session, |message| {
                    shown.text(&trace.lines_of(message));
                });
                let id = built.await.inspect_err(|_| shown.failed())?;
                return shown.built(id);
            }
            session = Some(engine.open_session(given).await?);
        }
        let mut path = request(context, project, service, build, wishes, &files, &image);
        match &session {
            Some(session) => path.push_str(&format!("&version=2&session={0}&buildid={0}", session.id)),
            None => path.push_str("&version=1"),
        }
        let config = registry_config(&logins);
        let mut headers = vec![("content-type", "application/x-tar")];
        headers.extend(config.as_deref().map(|config| ("x-registry-config", config)));
        let answer = if is_remote {
            path.push_str(&format!("&remote={}", percent::encoded(&build.context)));
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
        let id = shown.follow(JsonLines::new(answer)).await?;
        // The builder asks for what it was given until it has ended.
        drop(session);
        Ok(id)
    }

    /// Has the built-in engine build a service's image: it reads the files where they are.
    async fn build_here(&self, service: &Service, build: &Build) -> Result<String, CommandError> {
        let (context, project, wishes) = (self.context, self.project, self.wishes);
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
        if build.platforms.len() > 1 {
            let message = format!(
                "service {:?}: build.platforms: the built-in engine builds for one platform at a time, now for {}",
                service.name,
                platform_of(service, build)
            );
            match project.places.of_service(&service.name, "build.platforms") {
                Some(place) => stream::warn_at(&message, place),
                None => stream::warn(message),
            }
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
            // What nobody is shown need not be told.
            "quiet": wishes.quiet || self.context.progress.mode() == Mode::Quiet,
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
        let answer = self.engine.post_json("/compose/build", headers.as_slice(), body);
        self.shown(service).follow(JsonLines::new(answer.await?)).await
    }

    fn shown<'s>(&'s self, service: &'s Service) -> Shown<'s> {
        let mode = self.context.progress.mode();
        Shown {
            context: self.context,
            service: &service.name,
            is_plain: mode == Mode::Plain && !self.wishes.quiet,
            is_live: mode == Mode::Terminal && !self.wishes.quiet,
            said: String::new(),
            led_to_failure: &self.said,
        }
    }
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

pub fn labels_of<'b>(project: &'b Project, service: &'b Service, build: &'b Build) -> BTreeMap<&'b str, &'b str> {
    let mut labels: BTreeMap<&str, &str> = build.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
    labels.extend([
        (labels::PROJECT, project.name.as_str()),
        (labels::SERVICE, service.name.as_str()),
        (labels::VERSION, labels::COMPATIBLE_VERSION),
    ]);
    labels
}

/// Returns the platform that a service's image is built for, if one is given: of several the service's own or the machine's.
pub fn platform_of<'b>(service: &'b Service, build: &'b Build) -> &'b str {
    let host = crate::image::Platform::host().to_string();
    let given = build
        .platforms
        .iter()
        .map(String::as_str)
        .find(|platform| !platform.is_empty());
    match build.platforms.as_slice() {
        [] | [_] => given.unwrap_or(&service.platform),
        _ if !service.platform.is_empty() => &service.platform,
        several => several
            .iter()
            .find(|platform| **platform == host)
            .map_or(given.unwrap_or_default(), String::as_str),
    }
}

/// Gives an image its other names.
async fn tag(engine: &Engine, build: &Build, id: &str) -> Result<(), CommandError> {
    for tag in &build.tags {
        let (repository, tag) = split_tag(tag);
        let tag = if tag.is_empty() { "latest" } else { tag };
        let path = format!(
            "/images/{}/tag?repo={}&tag={}",
            percent::encoded(id),
            percent::encoded(repository),
            percent::encoded(tag)
        );
        engine.request(http::Method::POST, &path, None).await?;
    }
    Ok(())
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
        .map(|(name, value)| format!("{name}={}", percent::encoded(value)))
        .collect();
    format!("/build?{}", query.join("&"))
}

/// Returns the limits of a build's processes, as the engine's API writes them.
pub fn ulimits(build: &Build) -> Vec<serde_json::Value> {
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

/// What a build tells, as it is shown.
struct Shown<'s> {
    context: &'s Context,
    service: &'s str,
    is_plain: bool,
    is_live: bool,
    /// What was printed since the step began.
    said: String,
    led_to_failure: &'s Mutex<String>,
}

impl Shown<'_> {
    /// Shows what the engine tells, and returns the image's id.
    async fn follow(mut self, mut news: JsonLines) -> Result<String, CommandError> {
        let mut id = String::new();
        let mut trace = Trace::default();
        while let Some(line) = news.next::<News>().await {
            let line = line?;
            if let Some(error) = line.error {
                self.failed();
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
            self.text(&text);
        }
        self.built(id)
    }

    fn text(&mut self, text: &str) {
        if self.is_plain {
            for text in text.lines().filter(|text| !text.trim().is_empty()) {
                stream::err(format_args!("#{} {text}", self.service));
            }
        }
        if self.is_live {
            if text.starts_with("Step ") {
                let step = format!("Building {}", text.trim_end());
                self.context.progress.event(self.service, Status::Working, "", step);
                self.said.clear();
            }
            self.said.push_str(text);
        }
    }

    /// Keeps what led to a failure until the picture is complete.
    fn failed(&mut self) {
        let mut led = self.led_to_failure.lock().unwrap_or_else(PoisonError::into_inner);
        *led = std::mem::take(&mut self.said);
    }

    fn built(&self, id: String) -> Result<String, CommandError> {
        if id.is_empty() {
            let service = self.service;
            return Err(CommandError::message(format!(
                "the engine built service \"{service}\" and did not say which image it is"
            )));
        }
        Ok(id)
    }
}
