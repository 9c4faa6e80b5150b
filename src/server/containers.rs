//! `/containers`: everything about containers but their streams and files.

use std::sync::Arc;

use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::request::Call;
use super::response::{self, Answer};
use crate::engine::EngineError;
use crate::engine::config::{CreateBody, RestartPolicy, without_nulls};
use crate::engine::container::Container;
use crate::engine::filters::Filters;
use crate::engine::inspect::ListOptions;
use crate::engine::lifecycle::WaitFor;
use crate::engine::logging;

fn find(call: &Call, name: &str) -> Result<Arc<Container>, ApiError> {
    Ok(call.engine.containers.find(name)?)
}

/// `GET /containers/json`
pub fn list(call: &Call) -> Answer {
    let options = ListOptions {
        all: call.query.flag("all"),
        limit: call
            .query
            .number::<i64>("limit")?
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| *limit > 0),
        size: call.query.flag("size"),
        filters: Filters::parse(call.query.get("filters"))?,
    };
    Ok(response::json(&call.engine.list(&options)?))
}

/// `POST /containers/create`
pub async fn create(call: Call) -> Answer {
    let engine = Arc::clone(&call.engine);
    let name = call.query.get("name").map(str::to_owned);
    let platform = call.query.get("platform").map(str::to_owned);
    let body = without_nulls(call.json::<Value>().await?);
    let body: CreateBody =
        serde_json::from_value(body).map_err(|cause| ApiError::bad_request(format!("invalid JSON: {cause}")))?;
    if let Some(platform) = platform.filter(|platform| !platform.is_empty()) {
        engine.check_platform(&body.config.image, &platform)?;
    }
    let container = engine.create(name.as_deref(), body).await?;
    Ok(response::json_with(
        StatusCode::CREATED,
        &json!({ "Id": container.id, "Warnings": engine.warnings(&container) }),
    ))
}

/// `GET /containers/{id}/json`
pub fn inspect(call: &Call, name: &str) -> Answer {
    let container = find(call, name)?;
    Ok(response::json(
        &call.engine.inspect(&container, call.query.flag("size")),
    ))
}

/// `POST /containers/{id}/start`
pub async fn start(call: Call, name: &str) -> Answer {
    let container = find(&call, name)?;
    // Clients of old send a body; it has meant nothing since 1.24.
    call.engine.start(&container).await?;
    Ok(response::done())
}

/// `POST /containers/{id}/stop`
pub async fn stop(call: Call, name: &str) -> Answer {
    let container = find(&call, name)?;
    let patience = call.query.number("t")?;
    let stopped = call.engine.stop(&container, call.query.get("signal"), patience).await;
    stopped.map_err(|cause| wrapped("cannot stop container", name, cause))?;
    Ok(response::done())
}

/// `POST /containers/{id}/restart`
pub async fn restart(call: Call, name: &str) -> Answer {
    let container = find(&call, name)?;
    let patience = call.query.number("t")?;
    let restarted = call
        .engine
        .restart(&container, call.query.get("signal"), patience)
        .await;
    restarted.map_err(|cause| wrapped("Cannot restart container", name, cause))?;
    Ok(response::done())
}

/// `POST /containers/{id}/kill`
pub async fn kill(call: Call, name: &str) -> Answer {
    let container = find(&call, name)?;
    let killed = call.engine.kill(&container, call.query.get("signal")).await;
    killed.map_err(|cause| wrapped("cannot kill container", name, cause))?;
    Ok(response::done())
}

/// Puts moby's words before an error, its status kept.
fn wrapped(attempt: &str, name: &str, cause: EngineError) -> ApiError {
    let mut error = ApiError::from(cause);
    error.message = format!("{attempt}: {name}: {}", error.message);
    error
}

/// `POST /containers/{id}/pause`
pub async fn pause(call: Call, name: &str) -> Answer {
    let container = find(&call, name)?;
    call.engine.pause(&container).await?;
    Ok(response::done())
}

/// `POST /containers/{id}/unpause`
pub async fn unpause(call: Call, name: &str) -> Answer {
    let container = find(&call, name)?;
    call.engine.unpause(&container).await?;
    Ok(response::done())
}

/// `POST /containers/{id}/rename`
pub async fn rename(call: Call, name: &str) -> Answer {
    let container = find(&call, name)?;
    call.engine
        .rename(&container, call.query.get("name").unwrap_or_default())
        .await?;
    Ok(response::done())
}

/// `DELETE /containers/{id}`
pub async fn remove(call: Call, name: &str) -> Answer {
    let container = find(&call, name)?;
    if call.query.flag("link") {
        return Err(ApiError::bad_request("links between containers cannot be removed"));
    }
    call.engine
        .remove(&container, call.query.flag("force"), call.query.flag("v"))
        .await?;
    Ok(response::done())
}

/// `POST /containers/{id}/wait`
pub async fn wait(call: Call, name: &str) -> Answer {
    let container = find(&call, name)?;
    let wanted = match call.query.get("condition") {
        None | Some("not-running") => WaitFor::NotRunning,
        Some("next-exit") => WaitFor::NextExit,
        Some("removed") => WaitFor::Removed,
        Some(other) => return Err(ApiError::bad_request(format!("invalid condition: \"{other}\""))),
    };
    // The headers go out at once: `docker run` starts the container only when it knows that somebody waits.
    let engine = Arc::clone(&call.engine);
    let body = async_stream::stream! {
        yield Ok::<_, std::convert::Infallible>(bytes::Bytes::new());
        let code = engine.wait(&container, wanted).await;
        yield Ok(bytes::Bytes::from(format!("{{\"StatusCode\":{code}}}\n")));
    };
    Ok(response::stream("application/json", body))
}

/// `POST /containers/prune`
pub async fn prune(call: Call) -> Answer {
    let filters = Filters::parse(call.query.get("filters"))?;
    let (deleted, space) = call.engine.prune_containers(&filters).await?;
    Ok(response::json(&json!({
        "ContainersDeleted": if deleted.is_empty() { Value::Null } else { json!(deleted) },
        "SpaceReclaimed": space,
    })))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct UpdateBody {
    cpu_shares: i64,
    memory: i64,
    nano_cpus: i64,
    blkio_weight: u16,
    cpu_period: i64,
    cpu_quota: i64,
    cpu_realtime_period: i64,
    cpu_realtime_runtime: i64,
    cpuset_cpus: String,
    cpuset_mems: String,
    memory_reservation: i64,
    memory_swap: i64,
    pids_limit: Option<i64>,
    restart_policy: Option<RestartPolicy>,
}

/// Takes a new value unless it is the empty one, which means that nothing was said.
fn take<T: Default + PartialEq>(field: &mut T, value: T) {
    if value != T::default() {
        *field = value;
    }
}

/// `POST /containers/{id}/update`
pub async fn update(call: Call, name: &str) -> Answer {
    let container = find(&call, name)?;
    let engine = Arc::clone(&call.engine);
    let body = without_nulls(call.json::<Value>().await?);
    let body: UpdateBody =
        serde_json::from_value(body).map_err(|cause| ApiError::bad_request(format!("invalid JSON: {cause}")))?;
    engine
        .update(&container, |host| {
            take(&mut host.cpu_shares, body.cpu_shares);
            take(&mut host.memory, body.memory);
            take(&mut host.nano_cpus, body.nano_cpus);
            take(&mut host.blkio_weight, body.blkio_weight);
            take(&mut host.cpu_period, body.cpu_period);
            take(&mut host.cpu_quota, body.cpu_quota);
            take(&mut host.cpu_realtime_period, body.cpu_realtime_period);
            take(&mut host.cpu_realtime_runtime, body.cpu_realtime_runtime);
            take(&mut host.cpuset_cpus, body.cpuset_cpus);
            take(&mut host.cpuset_mems, body.cpuset_mems);
            take(&mut host.memory_reservation, body.memory_reservation);
            take(&mut host.memory_swap, body.memory_swap);
            if let Some(limit) = body.pids_limit {
                host.pids_limit = Some(limit).filter(|limit| *limit > 0);
            }
            if let Some(policy) = body.restart_policy.filter(|policy| !policy.name.is_empty()) {
                if host.auto_remove && policy.name != "no" {
                    return Err(EngineError::Conflict(
                        "Restart policy cannot be updated because AutoRemove is enabled for the container".to_owned(),
                    ));
                }
                host.restart_policy = policy;
            }
            Ok(())
        })
        .await?;
    Ok(response::json(&json!({ "Warnings": null })))
}

/// `POST /containers/{id}/resize`
pub async fn resize(call: Call, name: &str) -> Answer {
    let container = find(&call, name)?;
    let (rows, columns) = size(&call)?;
    let live = container
        .live()
        .ok_or_else(|| EngineError::Conflict(format!("container {} is not running", container.id)))?;
    if !container.record().config.tty {
        // There is nothing to resize, and nothing wrong with having asked.
        return Ok(response::status(StatusCode::OK));
    }
    live.resize(rows, columns)
        .await
        .map_err(crate::engine::lifecycle::runtime_failure("cannot resize"))?;
    call.engine.container_event(
        &container,
        "resize",
        &[("height", &rows.to_string()), ("width", &columns.to_string())],
    );
    Ok(response::status(StatusCode::OK))
}

/// Returns the height and width of a terminal.
pub fn size(call: &Call) -> Result<(u16, u16), ApiError> {
    let height = call.query.number::<u16>("h")?.unwrap_or_default();
    let width = call.query.number::<u16>("w")?.unwrap_or_default();
    Ok((height, width))
}

/// `GET /containers/{id}/top`
pub async fn top(call: Call, name: &str) -> Answer {
    let container = find(&call, name)?;
    let arguments = call.query.get("ps_args").unwrap_or("-ef");
    let (titles, processes) = call.engine.top(&container, arguments).await?;
    Ok(response::json(&json!({ "Processes": processes, "Titles": titles })))
}

/// `GET /containers/{id}/changes`
pub async fn changes(call: Call, name: &str) -> Answer {
    let container = find(&call, name)?;
    let changes = call.engine.changes(&container).await?;
    Ok(response::json(&changes))
}

/// `GET /containers/{id}/stats`
pub async fn stats(call: Call, name: &str) -> Answer {
    let container = find(&call, name)?;
    let engine = Arc::clone(&call.engine);
    let streaming = call.query.flag_or("stream", true);
    let one_shot = call.query.flag("one-shot");
    if !streaming {
        let value = engine.stats_once(&container, one_shot).await?;
        return Ok(response::json(&value));
    }
    let body = async_stream::stream! {
        let mut before = Value::Null;
        loop {
            let Ok(mut value) = engine.stats(&container).await else { return };
            crate::engine::stats::remember(&mut value, &before);
            before = value.clone();
            yield Ok::<_, std::convert::Infallible>(bytes::Bytes::from(format!("{value}\n")));
            if container.watch().borrow().removed {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    };
    Ok(response::stream("application/json", body))
}

/// `GET /containers/{id}/logs`
pub fn logs(call: &Call, name: &str) -> Answer {
    let container = find(call, name)?;
    let query = &call.query;
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::bad_request(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    let record = container.record();
    if !logging::can_be_read(&record.host.log_config) {
        return Err(ApiError::not_implemented(
            "configured logging driver does not support reading",
        ));
    }
    let tty = record.config.tty;
    drop(record);
    let moment = |name: &str| -> Result<Option<jiff::Timestamp>, ApiError> {
        match query.get(name) {
            None | Some("0") => Ok(None),
            Some(text) => crate::engine::time::parse(text)
                .map(Some)
                .ok_or_else(|| ApiError::bad_request(format!("invalid value for \"{name}\": {text}"))),
        }
    };
    let options = crate::engine::logs::LogOptions {
        stdout,
        stderr,
        follow: query.flag("follow"),
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
        since: moment("since")?,
        until: moment("until")?,
        tail: query
            .get("tail")
            .filter(|tail| *tail != "all")
            .and_then(|tail| tail.parse().ok()),
        tty,
    };
    let body = crate::engine::logs::stream(container.log_path(), options, container.watch());
    let mut response = response::stream("application/vnd.docker.raw-stream", body);
    set_stream_type(call, &mut response, tty);
    Ok(response)
}

/// Says whether a stream has frames, to those new enough to ask.
pub fn set_stream_type(call: &Call, response: &mut Response<Body>, tty: bool) {
    let multiplexed = call.version >= super::version::ApiVersion { major: 1, minor: 42 } && !tty;
    if multiplexed {
        response.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/vnd.docker.multiplexed-stream"),
        );
    }
}
