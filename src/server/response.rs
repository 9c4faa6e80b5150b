//! Answers: JSON, empty ones, streams, and the headers that all of them carry.

use axum::body::Body;
use bytes::Bytes;
use futures_util::Stream;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, SERVER};
use http::{Response, StatusCode};
use serde::Serialize;

use super::error::ApiError;
use super::version::NEWEST;

/// What a handler returns.
pub type Answer = Result<Response<Body>, ApiError>;

/// Returns a value as JSON.
pub fn json<T: Serialize + ?Sized>(value: &T) -> Response<Body> {
    json_with(StatusCode::OK, value)
}

/// Returns a value as JSON under a status of its own.
pub fn json_with<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response<Body> {
    let mut text = serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec());
    text.push(b'\n');
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Returns an answer without a body.
pub fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Returns `204 No Content`, the answer to most orders.
pub fn done() -> Response<Body> {
    status(StatusCode::NO_CONTENT)
}

/// Returns bytes as they come.
pub fn stream<S, E>(content_type: &'static str, body: S) -> Response<Body>
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    let mut response = Response::new(Body::from_stream(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Adds the headers by which clients recognise an engine and what it speaks.
pub fn with_engine_headers(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    let version = HeaderValue::from_str(&NEWEST.to_string()).expect("a version is a header value");
    headers.insert(HeaderName::from_static("api-version"), version);
    headers.insert(
        HeaderName::from_static("docker-experimental"),
        HeaderValue::from_static("false"),
    );
    headers.insert(HeaderName::from_static("ostype"), HeaderValue::from_static("linux"));
    headers.insert(
        SERVER,
        HeaderValue::from_static(concat!("Compose/", env!("CARGO_PKG_VERSION"), " (linux)")),
    );
    response
}
