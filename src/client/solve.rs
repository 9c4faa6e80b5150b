//! Builds by BuildKit's own interface, for what the Engine API's build request has no words for.
//!
//! Docker's engine lets clients through to it: <https://github.com/moby/buildkit/blob/master/api/services/control/control.proto>.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioExecutor;
use tokio::task::AbortHandle;

use super::grpc::{Messages, failure, framed};
use super::protobuf::{self, put_bytes, put_map};
use super::session::Session;
use super::{ClientError, Engine};

/// What is asked of BuildKit.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Solve {
    /// What the Dockerfile's builder is told.
    pub attributes: BTreeMap<String, String>,
    /// The image's names.
    pub names: Vec<String>,
    pub cache_from: Vec<Cache>,
    pub cache_to: Vec<Cache>,
    pub entitlements: Vec<String>,
}

/// A build cache: its type, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    pub kind: String,
    pub attributes: BTreeMap<String, String>,
}

const SOLVE: &str = "/moby.buildkit.v1.Control/Solve";
const STATUS: &str = "/moby.buildkit.v1.Control/Status";
const WORKERS: &str = "/moby.buildkit.v1.Control/ListWorkers";

/// How long the last of what a build tells may come after its end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A connection to BuildKit. It ends when this is dropped.
pub struct Builder {
    sender: SendRequest<Full<Bytes>>,
    connection: AbortHandle,
}

impl Drop for Builder {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Engine {
    /// Connects to the engine's BuildKit.
    pub async fn open_builder(&self) -> Result<Builder, ClientError> {
        let headers = [("connection", "Upgrade"), ("upgrade", "h2c")];
        let answer = self
            .transport
            .json_request(Method::POST, "/grpc", None, &headers)
            .await?;
        let stream = hyper::upgrade::on(answer).await.map_err(ClientError::Connection)?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .handshake(stream)
            .await
            .map_err(ClientError::Connection)?;
        // What went wrong with it, whoever asks over it learns.
        let connection = tokio::spawn(connection).abort_handle();
        Ok(Builder { sender, connection })
    }
}

impl Builder {
    /// Has an image built and returns its id. `told` hears of the steps, in traces as the engine writes them.
    pub async fn solve(
        &self,
        solve: &Solve,
        session: &Session,
        mut told: impl FnMut(&[u8]),
    ) -> Result<String, ClientError> {
        let asked = message(solve, &session.id);
        let solving = self.ask(SOLVE, &asked);
        let mut reference = Vec::new();
        put_bytes(&mut reference, 1, session.id.as_bytes());
        let telling = async {
            // What is not told is missed by nobody but who reads along.
            let Ok(mut traces) = self.call(STATUS, &reference).await else {
                return;
            };
            while let Ok(Some(trace)) = traces.next().await {
                told(&trace);
            }
        };
        tokio::pin!(solving, telling);
        let solved = tokio::select! {
            solved = &mut solving => {
                let _ = tokio::time::timeout(LAST_WORDS, telling).await;
                solved?
            }
            () = &mut telling => solving.await?,
        };
        let answers = protobuf::fields(&solved).filter(|(field, _)| *field == 1);
        let mut answers = answers.map(|(_, value)| protobuf::entry(value));
        let id = answers.find(|(key, _)| key == "containerimage.digest");
        Ok(id.map(|(_, id)| id).unwrap_or_default())
    }

    /// Returns the address by which builds reach the machine itself.
    pub async fn host_gateway(&self) -> Result<Option<String>, ClientError> {
        let answer = self.ask(WORKERS, &[]).await?;
        let workers = protobuf::fields(&answer).filter(|(field, _)| *field == 1);
        let labels = workers.flat_map(|(_, worker)| protobuf::fields(worker.bytes()));
        let mut labels = labels
            .filter(|(field, _)| *field == 2)
            .map(|(_, label)| protobuf::entry(label));
        let found = labels.find(|(key, _)| key == "org.mobyproject.buildkit.worker.moby.host-gateway-ip");
        Ok(found.map(|(_, address)| address))
    }

    /// Asks something that has one answer.
    async fn ask(&self, path: &str, message: &[u8]) -> Result<Bytes, ClientError> {
        let mut answers = self.call(path, message).await?;
        let answer = answers.next().await.map_err(ClientError::Connection)?;
        // The end says whether the answer counts.
        while answers.next().await.map_err(ClientError::Connection)?.is_some() {}
        match answers.trailers().and_then(failure) {
            Some(words) => Err(ClientError::Stream(words)),
            None => Ok(answer.unwrap_or_default()),
        }
    }

    async fn call(&self, path: &str, message: &[u8]) -> Result<Messages, ClientError> {
        let request = Request::post(format!("http://engine{path}"))
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .header(http::header::TE, "trailers")
            .body(Full::new(framed(message)))
            .map_err(bollard::errors::Error::from)?;
        let answer = self.sender.clone().send_request(request).await;
        let answer = answer.map_err(ClientError::Connection)?;
        match failure(answer.headers()) {
            Some(words) => Err(ClientError::Stream(words)),
            None => Ok(Messages::new(answer.into_body())),
        }
    }
}

/// control.proto: `SolveRequest`.
fn message(solve: &Solve, session: &str) -> Vec<u8> {
    let mut message = Vec::new();
    put_bytes(&mut message, 1, session.as_bytes());
    put_bytes(&mut message, 5, session.as_bytes());
    put_bytes(&mut message, 6, b"dockerfile.v0");
    let mut attributes = solve.attributes.clone();
    if !solve.cache_from.is_empty() {
        // It is the Dockerfile's builder that asks for them, and it hears of them so.
        let entry = |cache: &Cache| serde_json::json!({"Type": cache.kind, "Attrs": cache.attributes});
        let entries: Vec<serde_json::Value> = solve.cache_from.iter().map(entry).collect();
        attributes.insert("cache-imports".to_owned(), serde_json::Value::from(entries).to_string());
    }
    put_map(&mut message, 7, &attributes);
    let mut caches = Vec::new();
    for (field, list) in [(4, &solve.cache_to), (5, &solve.cache_from)] {
        for cache in list {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, cache.kind.as_bytes());
            put_map(&mut entry, 2, &cache.attributes);
            put_bytes(&mut caches, field, &entry);
        }
    }
    put_bytes(&mut message, 8, &caches);
    for entitlement in &solve.entitlements {
        put_bytes(&mut message, 9, entitlement.as_bytes());
    }
    // Docker's name for its own images.
    let mut exporter = Vec::new();
    put_bytes(&mut exporter, 1, b"moby");
    let names = BTreeMap::from([("name".to_owned(), solve.names.join(","))]);
    put_map(&mut exporter, 2, &names);
    put_bytes(&mut message, 13, &exporter);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_written_as_the_builder_reads_it() {
        let cache = |kind: &str, key: &str, value: &str| Cache {
            kind: kind.to_owned(),
            attributes: [(key.to_owned(), value.to_owned())].into(),
        };
        let solve = Solve {
            attributes: [("target".to_owned(), "last".to_owned())].into(),
            names: vec!["a:1".to_owned(), "b:2".to_owned()],
            cache_from: vec![cache("local", "src", "/c")],
            cache_to: vec![cache("registry", "ref", "r/x")],
            entitlements: vec!["network.host".to_owned()],
        };
        let message = message(&solve, "id");
        let fields: Vec<(u64, String)> = protobuf::fields(&message)
            .map(|(field, value)| (field, value.text()))
            .collect();
        let of = |wanted: u64| {
            let found = fields.iter().find(|(field, _)| *field == wanted);
            found.map(|(_, text)| text.as_str()).unwrap_or_default()
        };
        assert_eq!(
            (of(1), of(5), of(6), of(9)),
            ("id", "id", "dockerfile.v0", "network.host")
        );
        let attributes: BTreeMap<String, String> = protobuf::fields(&message)
            .filter(|(field, _)| *field == 7)
            .map(|(_, value)| protobuf::entry(value))
            .collect();
        assert_eq!(attributes["target"], "last");
        assert_eq!(
            attributes["cache-imports"],
            r#"[{"Type":"local","Attrs":{"src":"/c"}}]"#
        );
        assert_eq!(
            of(8),
            "\"\u{16}\n\u{8}registry\u{12}\n\n\u{3}ref\u{12}\u{3}r/x*\u{12}\n\u{5}local\u{12}\t\n\u{3}src\u{12}\u{2}/c"
        );
        assert_eq!(of(13), "\n\u{4}moby\u{12}\u{f}\n\u{4}name\u{12}\u{7}a:1,b:2");
    }
}
