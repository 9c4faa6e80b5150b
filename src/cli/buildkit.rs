//! Builds by the BuildKit of a foreign engine: its request, and what it tells of its steps.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use base64::Engine as _;

use super::Context;
use crate::build::{BuildEvent, Plain};
use crate::client::Engine;
use crate::client::protobuf::{self, Value};
use crate::client::session::Given;

/// Returns whether an engine builds by BuildKit, and may: `DOCKER_BUILDKIT=0` asks for the builder before it.
pub async fn is_there(context: &Context, engine: &Engine) -> bool {
    if context
        .environment
        .get("DOCKER_BUILDKIT")
        .is_some_and(|wish| wish == "0" || wish == "false")
    {
        return false;
    }
    match engine.request(http::Method::GET, "/_ping", None).await {
        Ok(answer) => answer
            .headers()
            .get("builder-version")
            .is_some_and(|version| version == "2"),
        // Whoever cannot be asked cannot build; the build's own request says why.
        Err(_) => false,
    }
}

/// Returns what a session has for a build.
pub fn given(
    secrets: BTreeMap<String, Vec<u8>>,
    agents: BTreeMap<String, PathBuf>,
    logins: &BTreeMap<String, serde_json::Value>,
) -> Given {
    let login = |(host, value): (&String, &serde_json::Value)| {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        // docker CLI: a token that stands for the user comes in the password's place, without a name.
        let pair = match text("identitytoken") {
            token if token.is_empty() => (text("username"), text("password")),
            token => (String::new(), token),
        };
        (host.clone(), pair)
    };
    Given {
        secrets,
        agents,
        logins: logins.iter().map(login).collect(),
        ..Given::default()
    }
}

/// Returns whether an entry of `cache_to` asks for the cache in the image.
pub fn is_inline(cache: &str) -> bool {
    cache.split(',').any(|field| field.trim() == "type=inline")
}

/// Returns the image that an entry of `cache_from` names; the engine's own API knows no other place.
pub fn image_of(cache: &str) -> Option<String> {
    if !cache.contains('=') {
        return Some(cache.to_owned());
    }
    let is_registry = cache.split(',').any(|field| field.trim() == "type=registry");
    let reference = cache.split(',').find_map(|field| field.trim().strip_prefix("ref="));
    reference.filter(|_| is_registry).map(str::to_owned)
}

/// Turns the traces of a build into the lines that people know.
#[derive(Default)]
pub struct Trace {
    plain: Plain,
    numbers: HashMap<String, usize>,
    begun: HashSet<usize>,
    ended: HashSet<usize>,
}

impl Trace {
    /// Returns what a trace adds: lines, each with its newline.
    pub fn lines(&mut self, encoded: &str) -> String {
        let decoded = base64::engine::general_purpose::STANDARD.decode(encoded);
        self.lines_of(&decoded.unwrap_or_default())
    }

    /// The same of a trace that is as BuildKit writes it.
    pub fn lines_of(&mut self, message: &[u8]) -> String {
        let mut text = String::new();
        for (field, value) in protobuf::fields(message) {
            match field {
                1 => self.vertex(value, &mut text),
                3 => self.log(value, &mut text),
                _ => {}
            }
        }
        text
    }

    fn number(&mut self, digest: &str) -> usize {
        let next = self.numbers.len() + 1;
        *self.numbers.entry(digest.to_owned()).or_insert(next)
    }

    /// control.proto: `Vertex`.
    fn vertex(&mut self, value: Value<'_>, text: &mut String) {
        let fields: BTreeMap<u64, Value<'_>> = protobuf::fields(value.bytes()).collect();
        let of = |field: u64| fields.get(&field).map(|value| value.text()).unwrap_or_default();
        // One that has not begun may never.
        let Some(started) = fields.get(&5).map(|value| seconds(*value)) else {
            return;
        };
        let step = self.number(&of(1));
        if self.ended.contains(&step) {
            return;
        }
        if self.begun.insert(step) {
            text.push_str(&self.plain.lines(&BuildEvent::Started { step, name: of(3) }));
        }
        let event = match (fields.get(&4).map(|cached| cached.number()), fields.get(&6), of(7)) {
            (_, Some(_), message) if !message.is_empty() => BuildEvent::Failed { step, message },
            (Some(1), Some(_), _) => BuildEvent::Cached { step },
            (_, Some(completed), _) => BuildEvent::Done {
                step,
                seconds: (seconds(*completed) - started).max(0.0),
            },
            (_, None, _) => return,
        };
        self.ended.insert(step);
        text.push_str(&self.plain.lines(&event));
    }

    /// control.proto: `VertexLog`.
    fn log(&mut self, value: Value<'_>, text: &mut String) {
        let fields: BTreeMap<u64, Value<'_>> = protobuf::fields(value.bytes()).collect();
        let of = |field: u64| fields.get(&field).map(|value| value.text()).unwrap_or_default();
        let step = self.number(&of(1));
        text.push_str(&self.plain.lines(&BuildEvent::Output {
            step,
            stderr: fields.get(&3).is_some_and(|stream| stream.number() == 2),
            text: of(4),
        }));
    }
}

/// timestamp.proto
fn seconds(value: Value<'_>) -> f64 {
    protobuf::fields(value.bytes())
        .map(|(field, value)| match field {
            1 => value.number() as f64,
            _ => value.number() as f64 / 1e9,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_told_as_steps() {
        let mut vertex = Vec::new();
        protobuf::put_bytes(&mut vertex, 1, b"sha256:a");
        protobuf::put_bytes(&mut vertex, 3, b"[1/1] RUN echo hello");
        let mut begun = vertex.clone();
        protobuf::put_bytes(&mut begun, 5, &[0x08, 10]);
        let mut ended = begun.clone();
        protobuf::put_bytes(&mut ended, 6, &[0x08, 12]);
        let mut log = Vec::new();
        protobuf::put_bytes(&mut log, 1, b"sha256:a");
        protobuf::put_bytes(&mut log, 4, b"hello\n");
        let trace = |field: u8, message: &[u8]| {
            let mut trace = Vec::new();
            protobuf::put_bytes(&mut trace, field, message);
            base64::engine::general_purpose::STANDARD.encode(trace)
        };
        let mut told = Trace::default();
        let mut text = told.lines(&trace(1, &vertex));
        for trace in [trace(1, &begun), trace(3, &log), trace(1, &ended), trace(1, &ended)] {
            text.push_str(&told.lines(&trace));
        }
        assert_eq!(text, "#1 [1/1] RUN echo hello\n#1 hello\n#1 DONE 2.0s\n");
    }
}
