//! `/build`: images from Dockerfiles, their context as a tar or as a directory of this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::images::{Lines, body_reader, logins, reference, streaming};
use super::request::Call;
use super::response::{self, Answer};
use crate::build::{self, BuildError, BuildRequest, BuildSink, DockerfileSource, Named, Plain, RemoteContext};
use crate::engine::config::without_nulls;
use crate::engine::{Engine, EngineError, archive};
use crate::image::{Image, Platform, PullOptions, Reference};

/// What a build is asked for, whichever way it came.
#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wishes {
    /// A directory of this machine, or an address; only where no tar comes along.
    context: String,
    dockerfile: String,
    /// The Dockerfile's text, which then is in no file.
    dockerfile_inline: Option<String>,
    target: String,
    tags: Vec<String>,
    arguments: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    no_cache: bool,
    pull: bool,
    platform: String,
    network: String,
    extra_hosts: Vec<String>,
    shm_size: u64,
    quiet: bool,
    no_cache_filter: Vec<String>,
    /// Other places to take files from, by name: directories, addresses, `docker-image://…`, `oci-layout://…`.
    contexts: BTreeMap<String, String>,
    /// Values in base64, by id.
    secrets: BTreeMap<String, String>,
    /// Sockets of agents, by id.
    agents: BTreeMap<String, PathBuf>,
    ulimits: Vec<Ulimit>,
    entitlements: Vec<String>,
    cache_from: Vec<String>,
    cache_to: Vec<String>,
    privileged: bool,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ulimit {
    name: String,
    soft: i64,
    hard: i64,
}

/// `POST /build`
pub async fn from_tar(call: Call) -> Answer {
    let query = &call.query;
    if query.get("remote").is_some() {
        return Err(ApiError::not_implemented(
            "a context at an address is not supported; send it as a tar",
        ));
    }
    if query.get("version") == Some("2") || query.get("session").is_some() {
        return Err(ApiError::not_implemented(
            "BuildKit sessions are not supported; set DOCKER_BUILDKIT=0",
        ));
    }
    let map = |name: &str| -> Result<BTreeMap<String, String>, ApiError> {
        let Some(text) = query.get(name) else {
            return Ok(BTreeMap::new());
        };
        let value: Value = serde_json::from_str(text)
            .map_err(|cause| ApiError::bad_request(format!("error reading {name}: {cause}")))?;
        serde_json::from_value(without_nulls(value))
            .map_err(|cause| ApiError::bad_request(format!("error reading {name}: {cause}")))
    };
    let text = |name: &str| query.get(name).unwrap_or_default().to_owned();
    let wishes = Wishes {
        dockerfile: text("dockerfile"),
        target: text("target"),
        tags: query
            .all("t")
            .filter(|tag| !tag.is_empty())
            .map(str::to_owned)
            .collect(),
        arguments: map("buildargs")?,
        labels: map("labels")?,
        no_cache: query.flag("nocache"),
        pull: query.flag("pull"),
        platform: text("platform"),
        network: text("networkmode"),
        extra_hosts: query.all("extrahosts").map(str::to_owned).collect(),
        shm_size: query.number("shmsize")?.unwrap_or_default(),
        quiet: query.flag("q"),
        cache_from: match query.get("cachefrom") {
            Some(text) => serde_json::from_str(text)
                .map_err(|cause| ApiError::bad_request(format!("error reading cachefrom: {cause}")))?,
            None => Vec::new(),
        },
        ulimits: match query.get("ulimits") {
            Some(text) => serde_json::from_str(text)
                .map_err(|cause| ApiError::bad_request(format!("error reading ulimits: {cause}")))?,
            None => Vec::new(),
        },
        ..Wishes::default()
    };
    let logins = logins(&call);
    let directory = tempfile::Builder::new()
        .prefix("build-")
        .tempdir_in(call.engine.paths.state_dir())
        .map_err(EngineError::file(
            "cannot create a directory in",
            call.engine.paths.state_dir(),
        ))?;
    let mut request = request(&call.engine, directory.path().to_path_buf(), &wishes)?;
    request.pull_options.logins = logins;
    let engine = Arc::clone(&call.engine);
    let tar = body_reader(call.body);
    Ok(streaming(&engine.clone(), move |lines| async move {
        let target = directory.path().to_path_buf();
        let unpacked = engine.blocking(move || archive::unpack_context(&target, tar)).await;
        match unpacked {
            Ok(Ok(())) => run(&engine, request, &wishes, &lines).await,
            Ok(Err(cause)) => lines.fail(&format!("Error processing tar file: {cause}")),
            Err(cause) => lines.fail(&cause.chain()),
        }
        // Large contexts take a while to go.
        let _ = engine.blocking(move || drop(directory)).await;
    }))
}

/// `POST /compose/build`: the context is a directory of this machine and is not copied.
pub async fn from_directory(call: Call) -> Answer {
    let engine = Arc::clone(&call.engine);
    let logins = logins(&call);
    let body = without_nulls(call.json::<Value>().await?);
    let wishes: Wishes =
        serde_json::from_value(body).map_err(|cause| ApiError::bad_request(format!("invalid JSON: {cause}")))?;
    let is_remote = build::is_remote(&wishes.context);
    if !is_remote && !Path::new(&wishes.context).is_absolute() {
        return Err(ApiError::bad_request("the context must be an absolute path"));
    }
    let mut request = request(&engine, PathBuf::from(&wishes.context), &wishes)?;
    request.pull_options.logins = logins;
    Ok(streaming(&engine.clone(), move |lines| async move {
        // What is fetched lasts as long as it is built from.
        let mut fetched = Vec::new();
        match fetch(&engine, &mut request, &wishes, &mut fetched).await {
            Ok(()) => run(&engine, request, &wishes, &lines).await,
            Err(cause) => lines.fail(&BuildError::from(cause).message()),
        }
        let _ = engine.blocking(move || drop(fetched)).await;
    }))
}

/// Gets what the build takes from elsewhere, and finds the contexts that have names.
async fn fetch(
    engine: &Engine,
    request: &mut BuildRequest,
    wishes: &Wishes,
    fetched: &mut Vec<RemoteContext>,
) -> Result<(), build::Problem> {
    let silent: BuildSink = Arc::new(|_| {});
    if build::is_remote(&wishes.context) {
        let context = build::open_context(&wishes.context, &engine.store, &silent).await?;
        request.context = context.directory().to_owned();
        if let Some(text) = &context.dockerfile {
            request.dockerfile = DockerfileSource::Inline(text.clone());
        }
        fetched.push(context);
    }
    for (name, place) in &wishes.contexts {
        let named = if let Some(image) = place.strip_prefix("docker-image://") {
            Named::Image(image.to_owned())
        } else if let Some(layout) = place.strip_prefix("oci-layout://") {
            Named::Image(format!("oci:{layout}"))
        } else if build::is_remote(place) {
            let context = build::open_context(place, &engine.store, &silent).await?;
            let directory = context.directory().to_owned();
            fetched.push(context);
            Named::Directory(directory)
        } else if Path::new(place).is_dir() {
            Named::Directory(PathBuf::from(place))
        } else {
            return Err(build::Problem::Context(PathBuf::from(place)));
        };
        request.contexts.insert(name.to_ascii_lowercase(), named);
    }
    Ok(())
}

fn request(engine: &Arc<Engine>, context: PathBuf, wishes: &Wishes) -> Result<BuildRequest, ApiError> {
    let mut request = BuildRequest::new(context, engine.store.clone(), Some(engine.runtime.clone()));
    if let Some(text) = &wishes.dockerfile_inline {
        request.dockerfile = DockerfileSource::Inline(text.clone());
    } else if !wishes.dockerfile.is_empty() {
        request.dockerfile = DockerfileSource::Path(PathBuf::from(&wishes.dockerfile));
    }
    request.target = Some(wishes.target.clone()).filter(|target| !target.is_empty());
    request.arguments.clone_from(&wishes.arguments);
    request.labels.clone_from(&wishes.labels);
    request.tags = wishes
        .tags
        .iter()
        .map(|tag| reference(tag, None))
        .collect::<Result<Vec<Reference>, ApiError>>()?;
    let wrong = |problem: build::Problem| ApiError::bad_request(problem.to_string());
    for text in &wishes.cache_from {
        match build::cache_source(text).map_err(wrong)? {
            Ok(place) => request.cache_from.push(place),
            Err(note) => request.notes.push(note),
        }
    }
    for text in &wishes.cache_to {
        match build::cache_target(text).map_err(wrong)? {
            Ok(target) => request.cache_to.push(target),
            Err(note) => request.notes.push(note),
        }
    }
    request.no_cache = wishes.no_cache;
    request.pull = wishes.pull;
    if !wishes.platform.is_empty() {
        let platform = Platform::parse(&wishes.platform).ok_or_else(|| {
            ApiError::bad_request(format!(
                "\"{}\": unknown operating system or architecture",
                wishes.platform
            ))
        })?;
        request.platform = Some(platform);
    }
    let network = match wishes.network.as_str() {
        "" | "default" => "bridge",
        network => network,
    };
    request.network = match network {
        "none" => build::Network::None,
        "host" => build::Network::Host,
        network => {
            engine.networks.find(network)?;
            build::Network::Own
        }
    };
    if request.network == build::Network::Own {
        request.plugs = Some(engine.step_networks(network));
    }
    request.extra_hosts = wishes
        .extra_hosts
        .iter()
        .filter_map(|host| host.split_once([':', '=']))
        .map(|(name, address)| (name.to_owned(), address.to_owned()))
        .collect();
    request.shm_size = Some(wishes.shm_size).filter(|size| *size > 0);
    request.pull_options = PullOptions::default();
    request.no_cache_filter.clone_from(&wishes.no_cache_filter);
    request.entitlements.clone_from(&wishes.entitlements);
    request.privileged = wishes.privileged;
    request.ulimits = wishes
        .ulimits
        .iter()
        .map(|limit| (limit.name.clone(), limit.soft, limit.hard))
        .collect();
    for (id, value) in &wishes.secrets {
        let value = base64::engine::general_purpose::STANDARD
            .decode(value)
            .map_err(|_| ApiError::bad_request(format!("the secret {id:?} is no base64")))?;
        request.secrets.values.insert(id.clone(), value);
    }
    request.secrets.agents.clone_from(&wishes.agents);
    Ok(request)
}

async fn run(engine: &Arc<Engine>, request: BuildRequest, wishes: &Wishes, lines: &Lines) {
    let sink: BuildSink = {
        let (lines, quiet) = (lines.clone(), wishes.quiet);
        let plain = Mutex::new(Plain::default());
        Arc::new(move |event| {
            let text = plain.lock().unwrap_or_else(PoisonError::into_inner).lines(&event);
            if !quiet && !text.is_empty() {
                lines.send(&json!({ "stream": text }));
            }
        })
    };
    let (reader, closing) = (lines.clone(), engine.closing.clone());
    let built = engine
        .on_own_thread(move || async move {
            tokio::select! {
                built = build::build(request, sink) => Some(built),
                () = reader.abandoned() => None,
                () = closing.cancelled() => None,
            }
        })
        .await;
    match built {
        Ok(None) => lines.fail("the build was cancelled"),
        Ok(Some(Ok(image))) => finished(engine, &image, wishes, lines),
        Ok(Some(Err(cause))) => lines.fail(&crate::engine::error::chain(&cause)),
        Err(cause) => lines.fail(&cause.chain()),
    }
    trim_cache(engine).await;
}

/// Keeps the build cache below its limit. What cannot be removed now is removed after the next build.
async fn trim_cache(engine: &Arc<Engine>) {
    let store = engine.store.clone();
    let trimmed = engine.blocking(move || {
        let limit = std::env::var("COMPOSE_BUILD_CACHE_LIMIT").ok();
        let limit = match limit.as_deref().map(str::parse::<crate::model::Bytes>) {
            Some(Ok(limit)) => u64::try_from(limit.0).unwrap_or(0),
            Some(Err(error)) => {
                tracing::warn!(%error, "COMPOSE_BUILD_CACHE_LIMIT is not heeded");
                return Ok(0);
            }
            None => store.default_cache_limit().unwrap_or(u64::MAX),
        };
        store.trim_cache(limit)
    });
    match trimmed.await {
        Ok(Ok(0)) => {}
        Ok(Ok(bytes)) => tracing::info!(bytes, "old steps were removed from the build cache"),
        Ok(Err(error)) => tracing::warn!(%error, "the build cache cannot be trimmed"),
        Err(error) => tracing::warn!(%error, "the build cache cannot be trimmed"),
    }
}

fn finished(engine: &Engine, image: &Image, wishes: &Wishes, lines: &Lines) {
    lines.send(&json!({ "aux": { "ID": image.id } }));
    if wishes.quiet {
        lines.send(&json!({ "stream": format!("{}\n", image.id) }));
    } else {
        let digits = image.id.trim_start_matches("sha256:");
        lines.send(&json!({ "stream": format!("Successfully built {}\n", digits.get(..12).unwrap_or(digits)) }));
        for tag in &wishes.tags {
            lines.send(&json!({ "stream": format!("Successfully tagged {tag}\n") }));
        }
    }
    for tag in &wishes.tags {
        engine.image_event(&image.id, tag, "tag");
    }
}

/// `POST /build/prune`
pub async fn prune(call: Call) -> Answer {
    let store = call.engine.store.clone();
    let space = call
        .engine
        .blocking(move || {
            // Caches in use stay; that one cannot be read is no reason to keep the steps.
            let caches = build::shrink_caches(&store, 0).unwrap_or(0);
            store.prune_cache(|_, _| false).map(|space| space + caches)
        })
        .await?
        .map_err(crate::engine::images::image_failure)?;
    Ok(response::json(
        &json!({ "CachesDeleted": null, "SpaceReclaimed": space }),
    ))
}
