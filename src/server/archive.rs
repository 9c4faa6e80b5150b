//! Files in and out of containers: `/containers/{id}/archive` and `/containers/{id}/export`.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use base64::Engine as _;
use http::header::HeaderValue;
use http::{Response, StatusCode};

use super::images::{body_reader, written_by};
use super::request::Call;
use super::response::{self, Answer};
use crate::engine::archive::{self, PathStat};

const STAT: &str = "x-docker-container-path-stat";

fn with_stat(mut response: Response<Body>, stat: &PathStat) -> Response<Body> {
    let text = serde_json::to_vec(stat).unwrap_or_default();
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    if let Ok(value) = HeaderValue::from_str(&encoded) {
        response.headers_mut().insert(STAT, value);
    }
    response
}

/// `HEAD /containers/{id}/archive`
pub async fn stat(call: Call, name: &str) -> Answer {
    let container = call.engine.containers.find(name)?;
    let stat = call
        .engine
        .stat_path(&container, name, call.query.required("path")?)
        .await?;
    Ok(with_stat(response::status(StatusCode::OK), &stat))
}

/// `GET /containers/{id}/archive`
pub async fn get(call: Call, name: &str) -> Answer {
    let container = call.engine.containers.find(name)?;
    let path = call.query.required("path")?.to_owned();
    let stat = call.engine.stat_path(&container, name, &path).await?;
    let root = call.engine.open_files(&container).await?;
    let path = PathBuf::from(path);
    let body = written_by(&call.engine, move |out| {
        root.as_its_root(|| archive::pack(root.directory(), &path, out))
    });
    call.engine.container_event(&container, "archive-path", &[]);
    Ok(with_stat(response::stream("application/x-tar", body), &stat))
}

/// `PUT /containers/{id}/archive`
pub async fn put(call: Call, name: &str) -> Answer {
    let engine = Arc::clone(&call.engine);
    let container = engine.containers.find(name)?;
    let path = call.query.required("path")?.to_owned();
    let keep_kinds = call.query.flag("noOverwriteDirNonDir");
    engine
        .extract(&container, name, &path, body_reader(call.body), keep_kinds)
        .await?;
    Ok(response::status(StatusCode::OK))
}

/// `GET /containers/{id}/export`
pub async fn export(call: Call, name: &str) -> Answer {
    let container = call.engine.containers.find(name)?;
    let root = call.engine.open_files(&container).await?;
    let body = written_by(&call.engine, move |out| {
        root.as_its_root(|| archive::export(root.directory(), out))
    });
    call.engine.container_event(&container, "export", &[]);
    Ok(response::stream("application/octet-stream", body))
}
