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
use super::system;
use super::version::{ApiVersion, NEWEST};
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
    dispatch(&method, &path, call).await
}

async fn dispatch(method: &Method, path: &[&str], call: Call) -> Answer {
    match (method.as_str(), path) {
        ("GET" | "HEAD", ["_ping"]) => Ok(system::ping(method)),
        ("GET", ["version"]) => Ok(system::version()),
        ("GET", ["info"]) => Ok(system::info(&call)),
        _ => Err(ApiError::page_not_found()),
    }
}
