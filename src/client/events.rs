//! The engine's events, as a stream that is known to be open before anything is started.

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use std::collections::HashMap;

use super::{ClientError, Engine};
use crate::percent;

/// What happened to whom.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    /// `container`, `network`, `volume`, `image`.
    #[serde(rename = "Type", default)]
    pub kind: String,
    /// `start`, `die`, `health_status: healthy`, …
    #[serde(rename = "Action", default)]
    pub action: String,
    /// Whom it happened to.
    #[serde(rename = "Actor", default)]
    pub actor: Actor,
    /// When, in nanoseconds since 1970.
    #[serde(rename = "timeNano", default)]
    pub time_nano: i64,
}

/// The container (or other object) of an event, with its labels among the attributes.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Actor {
    #[serde(rename = "ID", default)]
    pub id: String,
    #[serde(rename = "Attributes", default)]
    pub attributes: HashMap<String, String>,
}

impl Event {
    /// Returns the attribute or label `name`.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.actor.attributes.get(name).map(String::as_str)
    }

    /// Returns the exit code a `die` event tells.
    pub fn exit_code(&self) -> Option<i64> {
        self.attribute("exitCode")?.parse().ok()
    }
}

/// An open subscription.
pub struct Events {
    body: Incoming,
    buffer: BytesMut,
}

impl Engine {
    /// Subscribes to the container events of `project`. When this returns, the engine has the subscription.
    pub async fn container_events(&self, project: &str) -> Result<Events, ClientError> {
        self.container_events_between(project, "", "").await
    }

    /// Subscribes to the container events of `project` from `since` until `until`, given in seconds since 1970;
    /// empty: from now, without end.
    pub async fn container_events_between(
        &self,
        project: &str,
        since: &str,
        until: &str,
    ) -> Result<Events, ClientError> {
        let filters = serde_json::json!({
            "type": ["container"],
            "label": [format!("{}={project}", super::labels::PROJECT)],
        });
        let mut path = format!("/events?filters={}", percent::encoded(&filters.to_string()));
        for (name, time) in [("since", since), ("until", until)] {
            if !time.is_empty() {
                path.push_str(&format!("&{name}={}", percent::encoded(time)));
            }
        }
        let response = self.request(http::Method::GET, &path, None).await?;
        Ok(Events {
            body: response.into_body(),
            buffer: BytesMut::new(),
        })
    }
}

impl Events {
    /// Waits for the next event; `None` when the engine ended the stream.
    pub async fn next(&mut self) -> Option<Result<Event, ClientError>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Some(serde_json::from_slice(&line).map_err(ClientError::Answer));
            }
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Err(error) => return Some(Err(ClientError::Connection(error))),
            }
        }
    }
}
