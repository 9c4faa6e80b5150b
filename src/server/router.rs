//! Which request goes where.

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tracing::debug;

use super::error::ApiError;
use super::request::{Call, Query, segments};
use super::response::{Answer, with_engine_headers};
use super::version::{ApiVersion, NEWEST};
use super::{archive, build, containers, events, exec, images, networks, sync, system, volumes, watches};
use crate::engine::Engine;

/// Answers one request; failures become answers too.
pub async fn answer(engine: Arc<Engine>, request: Request<Incoming>) -> Response<Body> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let response = match route(engine, request).await {
        Ok(response) => response,
        Err(error) => {
            debug!(%method, path, status = error.status.as_u16(), error.message, "refused");
            error.into_response()
        }
    };
    with_engine_headers(response)
}

async fn route(engine: Arc<Engine>, mut request: Request<Incoming>) -> Answer {
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (parts, body) = request.into_parts();
    let mut path = segments(parts.uri.path());
    let version = match path.first().and_then(|segment| ApiVersion::from_segment(segment)) {
        Some(version) => {
            path.remove(0);
            version.check()?
        }
        None => NEWEST,
    };
    let method = parts.method.clone();
    let call = Call {
        engine,
        version,
        query: Query::of(&parts.uri),
        parts,
        body: Body::new(body),
        upgrade,
    };
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.first() {
        Some(&"containers" | &"exec") => of_containers(&method, &path, call).await,
        Some(&"images") => of_images(&method, &path, call).await,
        Some(&"networks" | &"volumes") => of_networks_and_volumes(&method, &path, call).await,
        _ => of_system(&method, &path, call).await,
    }
}

async fn of_system(method: &Method, path: &[&str], call: Call) -> Answer {
    match (method.as_str(), path) {
        ("GET" | "HEAD", ["_ping"]) => Ok(system::ping(method)),
        ("GET", ["version"]) => Ok(system::version()),
        ("GET", ["info"]) => Ok(system::info(&call)),
        ("GET", ["events"]) => events::stream(&call),
        ("GET", ["system", "df"]) => system::disk_usage(call).await,
        ("POST", ["auth"]) => system::auth(call).await,
        ("POST", ["commit"]) => images::commit(call).await,
        ("POST", ["build"]) => build::from_tar(call).await,
        ("POST", ["build", "prune"]) => build::prune(call).await,
        ("GET", ["compose", "df"]) => system::usage(call).await,
        ("POST", ["compose", "leave"]) => system::leave(&call),
        ("POST", ["compose", "build"]) => build::from_directory(call).await,
        ("POST", ["compose", "containers", id, "sync"]) => sync::sync(call, id).await,
        ("GET", ["compose", "watches", project]) => watches::standing(&call, project),
        ("PUT", ["compose", "watches", project]) => watches::keep(call, project).await,
        ("DELETE", ["compose", "watches", project]) => watches::end(call, project).await,
        ("GET", ["swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs", ..]) => Err(system::no_swarm()),
        ("GET", ["plugins"]) => Ok(super::response::json(&serde_json::json!([]))),
        ("GET", ["distribution", name @ .., "json"]) => system::distribution(call, &name.join("/")).await,
        _ => Err(ApiError::page_not_found()),
    }
}

async fn of_containers(method: &Method, path: &[&str], call: Call) -> Answer {
    match (method.as_str(), path) {
        ("GET", ["containers", "json"]) => containers::list(&call),
        ("POST", ["containers", "create"]) => containers::create(call).await,
        ("POST", ["containers", "prune"]) => containers::prune(call).await,
        ("GET", ["containers", id, "json"]) => containers::inspect(&call, id),
        ("GET", ["containers", id, "logs"]) => containers::logs(&call, id),
        ("GET", ["containers", id, "top"]) => containers::top(call, id).await,
        ("GET", ["containers", id, "stats"]) => containers::stats(call, id).await,
        ("GET", ["containers", id, "changes"]) => containers::changes(call, id).await,
        ("GET", ["containers", id, "export"]) => archive::export(call, id).await,
        ("HEAD", ["containers", id, "archive"]) => archive::stat(call, id).await,
        ("GET", ["containers", id, "archive"]) => archive::get(call, id).await,
        ("PUT", ["containers", id, "archive"]) => archive::put(call, id).await,
        ("POST", ["containers", id, "start"]) => containers::start(call, id).await,
        ("POST", ["containers", id, "stop"]) => containers::stop(call, id).await,
        ("POST", ["containers", id, "restart"]) => containers::restart(call, id).await,
        ("POST", ["containers", id, "kill"]) => containers::kill(call, id).await,
        ("POST", ["containers", id, "pause"]) => containers::pause(call, id).await,
        ("POST", ["containers", id, "unpause"]) => containers::unpause(call, id).await,
        ("POST", ["containers", id, "rename"]) => containers::rename(call, id).await,
        ("POST", ["containers", id, "update"]) => containers::update(call, id).await,
        ("POST", ["containers", id, "wait"]) => containers::wait(call, id).await,
        ("POST", ["containers", id, "resize"]) => containers::resize(call, id).await,
        ("POST", ["containers", id, "attach"]) => exec::attach(call, id).await,
        ("POST", ["containers", id, "exec"]) => exec::create(call, id).await,
        ("DELETE", ["containers", id]) => containers::remove(call, id).await,
        ("POST", ["exec", id, "start"]) => exec::start(call, id).await,
        ("POST", ["exec", id, "resize"]) => exec::resize(call, id).await,
        ("GET", ["exec", id, "json"]) => exec::inspect(&call, id),
        _ => Err(ApiError::page_not_found()),
    }
}

/// Image names have slashes of their own.
async fn of_images(method: &Method, path: &[&str], call: Call) -> Answer {
    match (method.as_str(), path) {
        ("GET", ["images", "json"]) => images::list(&call),
        ("POST", ["images", "create"]) => images::create(call).await,
        ("POST", ["images", "load"]) => images::load(call),
        ("POST", ["images", "prune"]) => images::prune(call).await,
        ("GET", ["images", "search"]) => Err(ApiError::not_implemented("searching a registry is not supported")),
        ("GET", ["images", "get"]) => {
            let names = call.query.all("names").map(str::to_owned).collect();
            images::save(&call, names)
        }
        ("GET", ["images", name @ .., "get"]) => images::save(&call, vec![name.join("/")]),
        ("GET", ["images", name @ .., "json"]) => images::inspect(&call, &name.join("/")),
        ("GET", ["images", name @ .., "history"]) => images::history(&call, &name.join("/")),
        ("POST", ["images", name @ .., "tag"]) => images::tag(&call, &name.join("/")),
        ("POST", ["images", name @ .., "push"]) => images::push(&call, &name.join("/")),
        ("DELETE", ["images", name @ ..]) if !name.is_empty() => images::remove(&call, &name.join("/")),
        _ => Err(ApiError::page_not_found()),
    }
}

async fn of_networks_and_volumes(method: &Method, path: &[&str], call: Call) -> Answer {
    match (method.as_str(), path) {
        ("GET", ["networks"]) => networks::list(&call),
        ("POST", ["networks", "create"]) => networks::create(call).await,
        ("POST", ["networks", "prune"]) => networks::prune(call).await,
        ("GET", ["networks", id]) => networks::inspect(&call, id),
        ("DELETE", ["networks", id]) => networks::remove(call, id).await,
        ("POST", ["networks", id, "connect"]) => networks::connect(call, id).await,
        ("POST", ["networks", id, "disconnect"]) => networks::disconnect(call, id).await,
        ("GET", ["volumes"]) => volumes::list(&call),
        ("POST", ["volumes", "create"]) => volumes::create(call).await,
        ("POST", ["volumes", "prune"]) => volumes::prune(&call),
        ("GET", ["volumes", name]) => volumes::inspect(&call, name),
        ("DELETE", ["volumes", name]) => volumes::remove(&call, name),
        _ => Err(ApiError::page_not_found()),
    }
}
