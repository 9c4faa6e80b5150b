//! `/images`.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::error::ApiError;
use super::request::Call;
use super::response::{self, Answer};
use crate::engine::Engine;
use crate::engine::commit::CommitOptions;
use crate::engine::filters::Filters;
use crate::engine::images::{image_failure, removed_json};
use crate::image::{
    History, ImageConfig, ImageError, Login, Platform, Progress, ProgressSink, PullOptions, PushOptions, Reference,
    Source,
};

/// `GET /images/json`
pub fn list(call: &Call) -> Answer {
    let filters = Filters::parse(call.query.get("filters"))?;
    Ok(response::json(
        &call.engine.list_images(&filters, call.query.flag("digests"))?,
    ))
}

/// `GET /images/{name}/json`
pub fn inspect(call: &Call, name: &str) -> Answer {
    Ok(response::json(&call.engine.inspect_image(name)?))
}

/// `GET /images/{name}/history`
pub fn history(call: &Call, name: &str) -> Answer {
    Ok(response::json(&call.engine.image_history(name)?))
}

/// `DELETE /images/{name}`
pub fn remove(call: &Call, name: &str) -> Answer {
    let prune = !call.query.flag("noprune");
    let (removed, _) = call.engine.remove_image(name, call.query.flag("force"), prune)?;
    Ok(response::json(&removed.iter().map(removed_json).collect::<Vec<_>>()))
}

/// `POST /images/{name}/tag`
pub fn tag(call: &Call, name: &str) -> Answer {
    let repository = call.query.required("repo")?;
    let reference = reference(repository, call.query.get("tag"))?;
    let image = call.engine.store.tag(name, &reference).map_err(image_failure)?;
    call.engine.image_event(&image.id, &reference.familiar(), "tag");
    Ok(response::status(StatusCode::CREATED))
}

/// Joins a repository and a tag, which may be a digest.
pub fn reference(repository: &str, tag: Option<&str>) -> Result<Reference, ApiError> {
    let text = match tag {
        Some(tag) if tag.contains(':') => format!("{repository}@{tag}"),
        Some(tag) => format!("{repository}:{tag}"),
        None => repository.to_owned(),
    };
    Reference::parse(&text)
        .map(Reference::tagged)
        .map_err(|cause| image_failure(ImageError::from(cause)).into())
}

/// `POST /images/prune`
pub async fn prune(call: Call) -> Answer {
    let filters = Filters::parse(call.query.get("filters"))?;
    let engine = Arc::clone(&call.engine);
    let (deleted, space) = call.engine.blocking(move || engine.prune_images(&filters)).await??;
    Ok(response::json(&json!({
        "ImagesDeleted": if deleted.is_empty() { Value::Null } else { json!(deleted) },
        "SpaceReclaimed": space,
    })))
}

/// Lines of progress on their way to a client.
#[derive(Clone)]
pub struct Lines(mpsc::UnboundedSender<Bytes>);

impl Lines {
    /// Sends one line. Whoever does not read any more misses it.
    pub fn send(&self, value: &Value) {
        let _ = self.0.send(Bytes::from(format!("{value}\r\n")));
    }

    /// Returns a sink that writes progress as Docker does.
    pub fn sink(&self) -> ProgressSink {
        let lines = self.clone();
        Arc::new(move |progress: Progress| lines.send(&progress_json(&progress)))
    }

    /// Waits until nobody reads any more. Only a write tells, so something that means nothing is written now and then.
    pub async fn abandoned(&self) {
        let mut moments = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                () = self.0.closed() => return,
                _ = moments.tick() => drop(self.0.send(Bytes::from_static(b"\r\n"))),
            }
        }
    }

    /// Sends the error that ended the work: the status went out long ago.
    pub fn fail(&self, text: &str) {
        self.send(&json!({ "errorDetail": { "message": text }, "error": text }));
    }
}

/// Returns an answer that is written while `work` goes on.
pub fn streaming<W, F>(engine: &Arc<Engine>, work: W) -> Response<Body>
where
    W: FnOnce(Lines) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let user = engine.activity.begin();
    let future = work(Lines(sender));
    engine.tasks.spawn(async move {
        let _user = user;
        future.await;
    });
    let body = async_stream::stream! {
        while let Some(line) = receiver.recv().await {
            yield Ok::<_, std::convert::Infallible>(line);
        }
    };
    response::stream("application/json", body)
}

fn progress_json(progress: &Progress) -> Value {
    let mut value = json!({ "status": progress.status });
    if let Some((done, total)) = progress.detail {
        value["progressDetail"] = json!({ "current": done, "total": total });
    } else if progress.id.is_some() {
        value["progressDetail"] = json!({});
    }
    if let Some(id) = &progress.id {
        value["id"] = json!(id);
    }
    value
}

/// `POST /images/load`
pub fn load(call: Call) -> Answer {
    let engine = Arc::clone(&call.engine);
    let quiet = call.query.flag("quiet");
    let reader = body_reader(call.body);
    Ok(streaming(&call.engine, move |lines| async move {
        let sink = if quiet { crate::image::silent() } else { lines.sink() };
        let store = engine.store.clone();
        let loaded = engine.blocking(move || store.load(reader, &sink)).await;
        match loaded {
            Ok(Ok(loaded)) => {
                for one in loaded {
                    let names = if one.names.is_empty() {
                        vec![one.image.id.clone()]
                    } else {
                        one.names.clone()
                    };
                    for name in names {
                        lines.send(&json!({ "stream": loaded_line(&name) }));
                        engine.image_event(&one.image.id, &name, "load");
                    }
                }
            }
            Ok(Err(cause)) => lines.fail(&image_failure(cause).chain()),
            Err(cause) => lines.fail(&cause.chain()),
        }
    }))
}

fn loaded_line(name: &str) -> String {
    if name.starts_with("sha256:") {
        format!("Loaded image ID: {name}\n")
    } else {
        format!("Loaded image: {name}\n")
    }
}

/// `GET /images/get` and `GET /images/{name}/get`
pub fn save(call: &Call, names: Vec<String>) -> Answer {
    if names.is_empty() {
        return Err(ApiError::bad_request("no images given"));
    }
    for name in &names {
        call.engine.image(name)?;
    }
    let store = call.engine.store.clone();
    Ok(response::stream(
        "application/x-tar",
        written_by(&call.engine, move |out| {
            store
                .save(&names, out)
                .map_err(|cause| std::io::Error::other(cause.to_string()))
        }),
    ))
}

/// Returns a stream of what blocking code writes.
pub fn written_by<W>(
    engine: &Arc<Engine>,
    work: W,
) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send + 'static
where
    W: FnOnce(&mut ChannelWriter) -> std::io::Result<()> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel(4);
    let failure = sender.clone();
    engine.tasks.spawn_blocking(move || {
        let mut writer = ChannelWriter {
            sender,
            buffer: Vec::with_capacity(CHUNK),
        };
        let done = work(&mut writer).and_then(|()| std::io::Write::flush(&mut writer));
        if let Err(cause) = done {
            let _ = failure.blocking_send(Err(cause));
        }
    });
    async_stream::stream! {
        while let Some(chunk) = receiver.recv().await {
            yield chunk;
        }
    }
}

const CHUNK: usize = 64 * 1024;

/// Hands what is written to a stream.
pub struct ChannelWriter {
    sender: mpsc::Sender<std::io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl std::io::Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.sender
            .blocking_send(Ok(Bytes::from(full)))
            .map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }
}

/// Returns a reader of a request's body for blocking code.
pub fn body_reader(body: Body) -> impl Read + Send + 'static {
    let stream = body
        .into_data_stream()
        .map(|chunk| chunk.map_err(std::io::Error::other));
    let reader = tokio_util::io::StreamReader::new(stream);
    tokio_util::io::SyncIoBridge::new(Box::pin(reader))
}

/// Reads the login that the docker CLI sends along.
pub fn login(call: &Call) -> Option<Login> {
    login_of(&encoded(call.header("x-registry-auth")?)?)
}

/// Reads the logins that the docker CLI sends along with a build, by the hosts of their registries.
pub fn logins(call: &Call) -> BTreeMap<String, Login> {
    let value = call.header("x-registry-config").and_then(encoded);
    let all = value.as_ref().and_then(Value::as_object).into_iter().flatten();
    all.filter_map(|(server, value)| {
        let bare = server
            .strip_prefix("https://")
            .or_else(|| server.strip_prefix("http://"));
        let host = bare.unwrap_or(server).split('/').next().unwrap_or_default();
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        Some((host.to_owned(), login_of(value)?))
    })
    .collect()
}

fn encoded(text: &str) -> Option<Value> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE
        .decode(text)
        .or_else(|_| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text))
        .ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn login_of(value: &Value) -> Option<Login> {
    let field = |name: &str| value[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    if let Some(token) = field("registrytoken") {
        return Some(Login::Token(token));
    }
    if let Some(token) = field("identitytoken") {
        return Some(Login::Identity(token));
    }
    Some(Login::Password {
        username: field("username")?,
        password: field("password")?,
    })
}

/// `POST /images/create`
pub async fn create(call: Call) -> Answer {
    if let Some(source) = call.query.get("fromSrc").map(str::to_owned) {
        return import(call, &source).await;
    }
    let name = call.query.required("fromImage")?.to_owned();
    let tag = call.query.get("tag").map(str::to_owned);
    let platform = call
        .query
        .get("platform")
        .map(|text| {
            Platform::parse(text).ok_or_else(|| {
                ApiError::bad_request(format!(
                    "\"{text}\": unknown operating system or architecture: invalid argument"
                ))
            })
        })
        .transpose()?;
    let options = PullOptions {
        platform,
        login: login(&call),
        ..PullOptions::default()
    };
    let engine = Arc::clone(&call.engine);
    // A file or directory of this machine is read; that is what pulling it means.
    if let Ok(source) = Source::parse(&name)
        && source.local_path().is_some()
    {
        return Ok(streaming(&call.engine, move |lines| async move {
            match engine.store.resolve(&name, &lines.sink()).await {
                Ok(image) => {
                    engine.image_event(&image.id, &name, "pull");
                    lines.send(&json!({ "status": format!("Status: Image is up to date for {name}") }));
                }
                Err(cause) => lines.fail(&image_failure(cause).chain()),
            }
        }));
    }
    let reference = reference(&name, tag.as_deref())?;
    // Docker answers with a status as long as it has not begun to stream; what a registry says at once is such an error.
    let (ready, begun) = tokio::sync::oneshot::channel::<Result<(), ApiError>>();
    let response = streaming(&call.engine, move |lines| async move {
        let ready = Arc::new(std::sync::Mutex::new(Some(ready)));
        let begin = {
            let ready = Arc::clone(&ready);
            move |outcome: Result<(), ApiError>| {
                let sender = ready.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
                sender.map(|sender| sender.send(outcome))
            }
        };
        let sink: ProgressSink = {
            let (lines, begin) = (lines.clone(), begin.clone());
            Arc::new(move |progress: Progress| {
                begin(Ok(()));
                lines.send(&progress_json(&progress));
            })
        };
        let (store, pulled) = (engine.store.clone(), reference.clone());
        let outcome = engine.on_own_thread(move || async move { store.pull(&pulled, &options, &sink).await });
        match outcome.await.and_then(|outcome| outcome.map_err(image_failure)) {
            Ok(image) => {
                begin(Ok(()));
                engine.image_event(&image.id, &reference.familiar(), "pull");
            }
            Err(failure) => {
                let text = failure.chain();
                if begin(Err(failure.into())).is_none() {
                    lines.fail(&text);
                }
            }
        }
    });
    match begun.await {
        Ok(Err(error)) => Err(error),
        _ => Ok(response),
    }
}

async fn import(call: Call, source: &str) -> Answer {
    if source != "-" {
        return Err(ApiError::not_implemented(
            "importing from an address is not supported; send the file itself",
        ));
    }
    let name = call
        .query
        .get("repo")
        .map(|repository| reference(repository, call.query.get("tag")))
        .transpose()?;
    let mut config = ImageConfig::scratch();
    config.history.push(History {
        created: Some(jiff::Timestamp::now().to_string()),
        comment: call.query.get("message").map(str::to_owned),
        ..History::default()
    });
    config.created = Some(jiff::Timestamp::now().to_string());
    for change in changes(&call) {
        crate::engine::commit::apply(&mut config.config, &change)?;
    }
    let engine = Arc::clone(&call.engine);
    let reader = body_reader(call.body);
    Ok(streaming(&engine.clone(), move |lines| async move {
        let store = engine.store.clone();
        match engine
            .blocking(move || store.import(reader, config, name.as_ref()))
            .await
        {
            Ok(Ok(image)) => {
                engine.image_event(&image.id, &image.id, "import");
                lines.send(&json!({ "status": image.id }));
            }
            Ok(Err(cause)) => lines.fail(&image_failure(cause).chain()),
            Err(cause) => lines.fail(&cause.chain()),
        }
    }))
}

/// Returns the instructions of a Dockerfile that are to change an image's configuration.
fn changes(call: &Call) -> Vec<String> {
    let lines = call.query.all("changes").flat_map(str::lines);
    lines
        .filter(|line| !line.trim().is_empty())
        .map(str::to_owned)
        .collect()
}

/// `POST /images/{name}/push`
pub fn push(call: &Call, name: &str) -> Answer {
    let reference = reference(name, call.query.get("tag"))?;
    call.engine.image(&reference.familiar()).map_err(|_| ApiError {
        status: StatusCode::NOT_FOUND,
        message: format!(
            "An image does not exist locally with the tag: {}",
            reference.familiar_name()
        ),
    })?;
    let options = PushOptions {
        login: login(call),
        ..PushOptions::default()
    };
    let engine = Arc::clone(&call.engine);
    Ok(streaming(&call.engine, move |lines| async move {
        let (store, sink, pushed) = (engine.store.clone(), lines.sink(), reference.clone());
        let outcome = engine.on_own_thread(move || async move { store.push(&pushed, &options, &sink).await });
        match outcome.await.and_then(|outcome| outcome.map_err(image_failure)) {
            Ok(digest) => {
                let tag = reference.tag().unwrap_or("latest");
                lines.send(&json!({ "progressDetail": {}, "aux": { "Tag": tag, "Digest": digest, "Size": 0 } }));
                if let Ok(image) = engine.image(&reference.familiar()) {
                    engine.image_event(&image.id, &reference.familiar(), "push");
                }
            }
            Err(cause) => lines.fail(&cause.chain()),
        }
    }))
}

/// `POST /commit`
pub async fn commit(call: Call) -> Answer {
    let engine = Arc::clone(&call.engine);
    let container = engine.containers.find(call.query.required("container")?)?;
    let name = call
        .query
        .get("repo")
        .map(|repository| reference(repository, call.query.get("tag")))
        .transpose()?;
    let options = CommitOptions {
        name,
        comment: call.query.get("comment").map(str::to_owned),
        author: call.query.get("author").map(str::to_owned),
        pause: call.query.flag_or("pause", true),
        changes: changes(&call),
    };
    let image = engine.commit(&container, options).await?;
    Ok(response::json_with(StatusCode::CREATED, &json!({ "Id": image.id })))
}
