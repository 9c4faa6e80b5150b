//! Requests: path, query and body in the shapes Docker's clients send them.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http_body_util::{BodyExt, Limited};
use hyper::upgrade::OnUpgrade;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use super::version::ApiVersion;
use crate::engine::Engine;
use crate::percent;

/// How much JSON a request may carry.
const BODY_LIMIT: usize = 8 << 20;

/// One request, taken apart.
pub struct Call {
    pub engine: Arc<Engine>,
    pub version: ApiVersion,
    pub query: Query,
    pub parts: Parts,
    pub body: Body,
    /// The connection itself, for requests that turn it into a stream.
    pub upgrade: Option<OnUpgrade>,
}

impl Call {
    /// Reads the whole body.
    pub async fn bytes(self) -> Result<Bytes, ApiError> {
        Limited::new(self.body, BODY_LIMIT)
            .collect()
            .await
            .map(|body| body.to_bytes())
            .map_err(|cause| ApiError::bad_request(format!("cannot read the request: {cause}")))
    }

    /// Reads the body as JSON.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        let bytes = self.bytes().await?;
        if bytes.is_empty() {
            return Err(ApiError::bad_request("got EOF while reading request body"));
        }
        parse(&bytes)
    }

    /// Reads the body as JSON; an empty one is the default.
    pub async fn json_or_default<T: DeserializeOwned + Default>(self) -> Result<T, ApiError> {
        let bytes = self.bytes().await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(T::default());
        }
        parse(&bytes)
    }

    /// Returns a header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|cause| ApiError::bad_request(format!("invalid JSON: {cause}")))
}

/// The parameters after the question mark.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query of a request's address.
    pub fn of(uri: &http::Uri) -> Self {
        axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map(|query| Self(query.0))
            .unwrap_or_default()
    }

    /// Returns a parameter unless it is missing or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// Returns every value of a parameter that may be repeated.
    pub fn all<'q>(&'q self, name: &str) -> impl Iterator<Item = &'q str> {
        let name = name.to_owned();
        self.0
            .iter()
            .filter(move |(key, _)| *key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Returns whether a parameter says yes. Docker takes anything for yes that is not one of five words for no.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| !matches!(value.trim().to_lowercase().as_str(), "" | "0" | "no" | "false" | "none"))
    }

    /// Returns whether a parameter says yes, where silence means `default`.
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        if self.get(name).is_some() {
            self.flag(name)
        } else {
            default
        }
    }

    /// Returns a whole number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.get(name)
            .map(|text| {
                text.parse()
                    .map_err(|_| ApiError::bad_request(format!("invalid value {text:?} for parameter {name:?}")))
            })
            .transpose()
    }

    /// Returns a parameter that the request cannot do without.
    pub fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name)
            .ok_or_else(|| ApiError::bad_request(format!("missing parameter {name:?}")))
    }
}

/// Splits a path into its decoded segments.
pub fn segments(path: &str) -> Vec<String> {
    path.split('/')
        .filter(|segment| !segment.is_empty())
        .map(percent::decoded)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_and_decoded() {
        assert_eq!(segments("/containers//a%2Fb/json"), ["containers", "a/b", "json"]);
        assert_eq!(segments("/x/%zz%4"), ["x", "%zz%4"]);
    }

    #[test]
    fn a_flag_is_anything_but_a_word_for_no() {
        let query = Query::of(&"/x?a=1&b=true&c=0&d=False&e=&f=yes".parse().unwrap());
        let yes: Vec<_> = ["a", "b", "c", "d", "e", "f", "g"]
            .into_iter()
            .filter(|name| query.flag(name))
            .collect();
        assert_eq!(yes, ["a", "b", "f"]);
    }
}
