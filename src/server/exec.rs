//! `/exec` and attach: processes and their streams.

use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::containers;
use super::error::ApiError;
use super::hijack::hijack;
use super::request::Call;
use super::response::{self, Answer};
use crate::engine::config::without_nulls;
use crate::engine::exec::ExecConfig;
use crate::engine::logs::{self, LogOptions};
use crate::engine::{EngineError, lifecycle, logging};
use crate::runtime::AttachOptions;

type Log = std::pin::Pin<Box<dyn futures_util::Stream<Item = std::io::Result<bytes::Bytes>> + Send>>;

/// `POST /containers/{id}/exec`
pub async fn create(call: Call, name: &str) -> Answer {
    let engine = Arc::clone(&call.engine);
    let container = engine.containers.find(name)?;
    let body = without_nulls(call.json::<Value>().await?);
    let config: ExecConfig =
        serde_json::from_value(body).map_err(|cause| ApiError::bad_request(format!("invalid JSON: {cause}")))?;
    engine.check_exec_user(&container, &config.user).await?;
    let exec = engine.create_exec(&container, config)?;
    Ok(response::json_with(StatusCode::CREATED, &json!({ "Id": exec.id })))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct StartBody {
    detach: bool,
    tty: bool,
    console_size: Option<[u16; 2]>,
}

/// `POST /exec/{id}/start`
pub async fn start(mut call: Call, id: &str) -> Answer {
    let engine = Arc::clone(&call.engine);
    let exec = engine.find_exec(id)?;
    let body = std::mem::take(&mut call.body);
    let bytes = axum::body::to_bytes(body, 1 << 20)
        .await
        .map_err(|cause| ApiError::bad_request(cause.to_string()))?;
    let body: StartBody = if bytes.is_empty() {
        StartBody::default()
    } else {
        let value: Value =
            serde_json::from_slice(&bytes).map_err(|cause| ApiError::bad_request(format!("invalid JSON: {cause}")))?;
        serde_json::from_value(without_nulls(value))
            .map_err(|cause| ApiError::bad_request(format!("invalid JSON: {cause}")))?
    };
    if body.detach {
        let stream = engine.start_exec(&exec, body.console_size).await?;
        // Somebody has to take the output, or the process would wait for room.
        engine.tasks.spawn(drain(stream));
        return Ok(response::status(StatusCode::OK));
    }
    let tty = exec.config.tty || body.tty;
    let mut started = true;
    let stream = match engine.start_exec(&exec, body.console_size).await {
        Ok(stream) => stream,
        // moby has taken the connection over by now, and says on the stream what went wrong.
        Err(EngineError::Start(text)) if text.starts_with("OCI runtime") => {
            started = false;
            said(&text, tty).await?
        }
        Err(cause) => return Err(cause.into()),
    };
    let settled = async move {
        if started {
            exec.ended().await;
        }
    };
    Ok(hijack(&mut call, tty, stream, None::<Log>, settled))
}

async fn drain(mut stream: UnixStream) {
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

/// Returns a stream that says one thing and ends.
async fn said(text: &str, tty: bool) -> Result<UnixStream, ApiError> {
    let (mut ours, theirs) =
        UnixStream::pair().map_err(|cause| EngineError::file("cannot open", std::path::Path::new("socket"))(cause))?;
    let line = format!("{text}\r\n");
    let mut bytes = Vec::with_capacity(line.len() + 8);
    if !tty {
        bytes.extend_from_slice(&[1, 0, 0, 0]);
        bytes.extend_from_slice(&u32::try_from(line.len()).unwrap_or_default().to_be_bytes());
    }
    bytes.extend_from_slice(line.as_bytes());
    let _ = ours.write_all(&bytes).await;
    let _ = ours.shutdown().await;
    Ok(theirs)
}

/// `GET /exec/{id}/json`
pub fn inspect(call: &Call, id: &str) -> Answer {
    Ok(response::json(&call.engine.find_exec(id)?.inspect()))
}

/// `POST /exec/{id}/resize`
pub async fn resize(call: Call, id: &str) -> Answer {
    let (rows, columns) = containers::size(&call)?;
    let exec = call.engine.find_exec(id)?;
    call.engine.resize_exec(&exec, rows, columns).await?;
    Ok(response::status(StatusCode::OK))
}

/// `POST /containers/{id}/attach`
pub async fn attach(mut call: Call, name: &str) -> Answer {
    let engine = Arc::clone(&call.engine);
    let container = engine.containers.find(name)?;
    let query = call.query.clone();
    let wants = AttachOptions {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
    };
    let (tty, logs, has_log) = {
        let record = container.record();
        (
            record.config.tty,
            query.flag("logs"),
            logging::can_be_read(&record.host.log_config),
        )
    };
    let before: Option<Log> = (logs && has_log).then(|| {
        let options = LogOptions {
            stdout: wants.stdout,
            stderr: wants.stderr,
            tty,
            ..LogOptions::default()
        };
        Box::pin(logs::stream(container.log_path(), options, container.watch())) as Log
    });
    let stream = if query.flag("stream") {
        match container.live() {
            Some(live) => live
                .attach(wants)
                .await
                .map_err(lifecycle::runtime_failure("cannot attach"))?,
            // `docker run` attaches before it starts: the stream is joined to the container when there is one.
            None => engine.attach_later(&container, wants)?,
        }
    } else {
        nothing()?
    };
    engine.container_event(&container, "attach", &[]);
    Ok(hijack(&mut call, tty, stream, before, async {}))
}

fn nothing() -> Result<UnixStream, ApiError> {
    let (_, theirs) =
        UnixStream::pair().map_err(|cause| EngineError::file("cannot open", std::path::Path::new("socket"))(cause))?;
    Ok(theirs)
}
