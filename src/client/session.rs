//! A BuildKit session: what an engine's builder asks its client for while it builds.
//!
//! The client opens a connection and then is the server on it, of gRPC over HTTP/2. It has what a build was given: secrets, ssh
//! agents and logins. See <https://github.com/moby/buildkit/tree/master/session>.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Either, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::AbortHandle;

use super::filesync::{Answer as Sent, Sending, Tree};
use super::grpc::{INTERNAL, Messages, NOT_FOUND, OK, UNIMPLEMENTED, framed};
use super::protobuf;
use super::{ClientError, Engine};
use crate::percent;

/// What a build is given.
#[derive(Default)]
pub struct Given {
    /// By id.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Sockets of ssh agents, by id.
    pub agents: BTreeMap<String, PathBuf>,
    /// User and password, by registry.
    pub logins: BTreeMap<String, (String, String)>,
    /// Files, by the name of the place that they are in.
    pub trees: BTreeMap<String, Tree>,
    /// OCI layouts that hold caches of builds.
    pub layouts: Vec<PathBuf>,
}

/// An open session. It ends when this is dropped.
pub struct Session {
    /// What a build request calls it by.
    pub id: String,
    serving: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A body that says at once that it is none: such an answer's headers are its trailers, too.
type Answer = Either<Empty<Bytes>, StreamBody<Frames>>;

type Frames = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
const LOGIN: &str = "/moby.filesync.v1.Auth/Credentials";
const CHECK_AGENT: &str = "/moby.sshforward.v1.SSH/CheckAgent";
const FORWARD_AGENT: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const FILES: &str = "/moby.filesync.v1.FileSync/DiffCopy";
const BLOB_INFO: &str = "/containerd.services.content.v1.Content/Info";
const BLOB: &str = "/containerd.services.content.v1.Content/Read";

impl Engine {
    /// Opens a session for a build.
    pub async fn open_session(&self, given: Given) -> Result<Session, ClientError> {
        let id = fresh_id();
        let headers = [
            ("connection", "Upgrade"),
            ("upgrade", "h2c"),
            ("x-docker-expose-session-uuid", id.as_str()),
            ("x-docker-expose-session-name", "compose"),
            ("x-docker-expose-session-sharedkey", ""),
            ("x-docker-expose-session-grpc-method", SECRET),
            ("x-docker-expose-session-grpc-method", LOGIN),
            ("x-docker-expose-session-grpc-method", CHECK_AGENT),
            ("x-docker-expose-session-grpc-method", FORWARD_AGENT),
            ("x-docker-expose-session-grpc-method", HEALTH),
            ("x-docker-expose-session-grpc-method", FILES),
            ("x-docker-expose-session-grpc-method", BLOB_INFO),
            ("x-docker-expose-session-grpc-method", BLOB),
        ];
        let answer = self
            .transport
            .json_request(Method::POST, "/session", None, &headers)
            .await?;
        let given = Arc::new(given);
        let serving = tokio::spawn(async move {
            let Ok(stream) = hyper::upgrade::on(answer).await else {
                return;
            };
            let service = service_fn(move |request| answer_call(Arc::clone(&given), request));
            let served =
                hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service);
            // The engine hangs up when the build has ended; what went wrong before, the build tells.
            let _ = served.await;
        });
        Ok(Session {
            id,
            serving: serving.abort_handle(),
        })
    }
}

/// Returns an id that nobody else has, as BuildKit's clients make them.
fn fresh_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel has random numbers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn answer_call(given: Arc<Given>, request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    let path = request.uri().path().to_owned();
    if path == FORWARD_AGENT {
        let id = request.headers().get("buildkit.ssh.id").and_then(|id| id.to_str().ok());
        let socket = given.agents.get(id.filter(|id| !id.is_empty()).unwrap_or("default"));
        return Ok(match socket {
            Some(socket) => match UnixStream::connect(socket).await {
                Ok(agent) => response(forward(request.into_body(), agent)),
                Err(error) => ended(NOT_FOUND, &format!("ssh agent {}: {error}", socket.display())),
            },
            None => ended(NOT_FOUND, "no such ssh agent"),
        });
    }
    if path == FILES {
        return Ok(match sending(&given, request.headers()).await {
            Ok(sending) => response(send(sending, request.into_body())),
            Err(message) => ended(NOT_FOUND, &message),
        });
    }
    let body = request.into_body().collect().await.map(|body| body.to_bytes());
    let message = body.unwrap_or_default();
    // A message comes with a flag and its length before it.
    let message = message.get(5..).unwrap_or_default();
    let asked = protobuf::fields(message).find(|(field, _)| *field == 1);
    let asked = asked.map(|(_, value)| value.text()).unwrap_or_default();
    Ok(match path.as_str() {
        HEALTH => unary(&[0x08, 1]),
        SECRET => match given.secrets.get(&asked) {
            Some(secret) => {
                let mut answer = Vec::new();
                protobuf::put_bytes(&mut answer, 1, secret);
                unary(&answer)
            }
            None => ended(NOT_FOUND, &format!("secret {asked}: not found")),
        },
        LOGIN => {
            let host = if asked == "registry-1.docker.io" {
                "docker.io"
            } else {
                &asked
            };
            let mut answer = Vec::new();
            if let Some((user, password)) = given.logins.get(host) {
                protobuf::put_bytes(&mut answer, 1, user.as_bytes());
                protobuf::put_bytes(&mut answer, 2, password.as_bytes());
            }
            unary(&answer)
        }
        CHECK_AGENT => {
            let id = if asked.is_empty() { "default" } else { &asked };
            match given.agents.contains_key(id) {
                true => unary(&[]),
                false => ended(NOT_FOUND, &format!("unset ssh forward key {id}")),
            }
        }
        BLOB_INFO | BLOB => match blob(&given, &asked) {
            Ok((mut file, size)) if path == BLOB => {
                let number = |wanted: u64| {
                    let mut fields = protobuf::fields(message);
                    fields
                        .find(|(field, _)| *field == wanted)
                        .map_or(0, |(_, value)| value.number())
                };
                let (offset, wanted) = (number(2), number(3));
                let length = if wanted == 0 { size } else { wanted };
                match std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(offset)) {
                    Ok(_) => response(pieces(file, offset, length)),
                    Err(error) => ended(INTERNAL, &format!("{asked}: {error}")),
                }
            }
            Ok((_, size)) => {
                let mut info = Vec::new();
                protobuf::put_bytes(&mut info, 1, asked.as_bytes());
                protobuf::put_number(&mut info, 2, size);
                let mut answer = Vec::new();
                protobuf::put_bytes(&mut answer, 1, &info);
                unary(&answer)
            }
            Err(error) => ended(NOT_FOUND, &format!("{asked}: {error}")),
        },
        _ => ended(UNIMPLEMENTED, "not known here"),
    })
}

/// Returns what a builder asks for of a place.
async fn sending(given: &Arc<Given>, headers: &HeaderMap) -> Result<Sending, String> {
    let all = |name: &str| -> Vec<String> {
        let is_encoded = headers.contains_key(format!("{name}-encoded"));
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values
            .map(|value| match is_encoded {
                // As in queries, where a space is a plus.
                true => percent::decoded(&value.replace('+', " ")),
                false => value.to_owned(),
            })
            .collect()
    };
    let name = all("dir-name").into_iter().next().unwrap_or_default();
    if !given.trees.contains_key(&name) {
        return Err(format!("no access allowed to dir {name:?}"));
    }
    let mut wanted = all("include-patterns");
    wanted.extend(all("followpaths"));
    let given = Arc::clone(given);
    let looked = tokio::task::spawn_blocking(move || Sending::of(&given.trees[&name], &wanted)).await;
    match looked {
        Ok(looked) => looked.map_err(|error| format!("cannot read the files of the build: {error}")),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Sends what there is, then what is asked for.
fn send(sending: Sending, questions: Incoming) -> Frames {
    let mut questions = Messages::new(questions);
    Box::pin(async_stream::stream! {
        for packet in sending.stats() {
            yield Ok(Frame::data(framed(&packet)));
        }
        while let Ok(Some(packet)) = questions.next().await {
            match sending.answer(&packet) {
                Ok(Sent::Nothing) => {}
                Ok(Sent::Content(pieces)) => {
                    for piece in pieces {
                        yield Ok(Frame::data(framed(&piece)));
                    }
                }
                Ok(Sent::Finished(packet)) => {
                    yield Ok(Frame::data(framed(&packet)));
                    yield Ok(trailers(OK));
                    return;
                }
                Err(_) => break,
            }
        }
        // Who asked says by itself what went wrong.
        yield Ok(trailers(INTERNAL));
    })
}

/// Finds what a digest stands for in the layouts that were given.
fn blob(given: &Given, digest: &str) -> std::io::Result<(std::fs::File, u64)> {
    let digits = digest.strip_prefix("sha256:").unwrap_or_default();
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let mut layouts = given.layouts.iter();
    let found = layouts.find_map(|layout| std::fs::File::open(layout.join("blobs/sha256").join(digits)).ok());
    let file = found.ok_or(std::io::ErrorKind::NotFound)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// Returns the part of a file that was asked for, in messages of a bearable size.
fn pieces(file: std::fs::File, mut offset: u64, length: u64) -> Frames {
    let mut left = std::io::Read::take(file, length);
    Box::pin(async_stream::stream! {
        loop {
            let mut piece = vec![0; 64 * 1024];
            match std::io::Read::read(&mut left, &mut piece) {
                Ok(0) => break,
                Ok(count) => {
                    let mut message = Vec::with_capacity(count + 16);
                    protobuf::put_number(&mut message, 1, offset);
                    protobuf::put_bytes(&mut message, 2, &piece[..count]);
                    offset += count as u64;
                    yield Ok(Frame::data(framed(&message)));
                }
                Err(_) => {
                    yield Ok(trailers(INTERNAL));
                    return;
                }
            }
        }
        yield Ok(trailers(OK));
    })
}

fn trailers(code: &'static str) -> Frame<Bytes> {
    let status = (
        "grpc-status".parse().expect("a header's name"),
        HeaderValue::from_static(code),
    );
    Frame::trailers(HeaderMap::from_iter([status]))
}

fn response(frames: Frames) -> Response<Answer> {
    with_type(Either::Right(StreamBody::new(frames)))
}

fn with_type(body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

fn unary(message: &[u8]) -> Response<Answer> {
    let frames = [Frame::data(framed(message)), trailers(OK)].map(Ok);
    response(Box::pin(futures_util::stream::iter(frames)))
}

/// Returns the answer of a call that came to nothing.
fn ended(code: &'static str, message: &str) -> Response<Answer> {
    let mut response = with_type(Either::Left(Empty::new()));
    let headers = response.headers_mut();
    headers.insert("grpc-status", HeaderValue::from_static(code));
    if let Ok(message) = HeaderValue::from_str(message) {
        headers.insert("grpc-message", message);
    }
    response
}

/// Carries what is said to an agent and what it answers.
fn forward(questions: Incoming, agent: UnixStream) -> Frames {
    let (mut from_agent, mut to_agent) = agent.into_split();
    let mut questions = Messages::new(questions);
    tokio::spawn(async move {
        while let Ok(Some(message)) = questions.next().await {
            for (_, value) in protobuf::fields(&message).filter(|(field, _)| *field == 1) {
                if to_agent.write_all(value.bytes()).await.is_err() {
                    return;
                }
            }
        }
    });
    let answers = async_stream::stream! {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count) = from_agent.read(&mut buffer).await {
            if count == 0 {
                break;
            }
            let mut message = Vec::new();
            protobuf::put_bytes(&mut message, 1, &buffer[..count]);
            yield Ok(Frame::data(framed(&message)));
        }
        yield Ok(trailers(OK));
    };
    Box::pin(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    /// Calls a session as a builder does, and returns the message that it answers and how the call ended.
    async fn call(given: Given, path: &str, agent: Option<&str>, message: &[u8]) -> (Vec<u8>, String) {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let given = Arc::new(given);
        let service = service_fn(move |request| answer_call(Arc::clone(&given), request));
        let server = tokio::spawn(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(hyper_util::rt::TokioIo::new(ours), service),
        );
        let (mut client, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .handshake(hyper_util::rt::TokioIo::new(theirs))
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let mut request = Request::post(format!("http://session{path}"));
        if let Some(agent) = agent {
            request = request.header("buildkit.ssh.id", agent);
        }
        let body = framed(message);
        let answer = client
            .send_request(request.body(Full::new(body)).unwrap())
            .await
            .unwrap();
        let refused = answer.headers().get("grpc-status").cloned();
        let body = answer.into_body().collect().await.unwrap();
        let status = body
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status").cloned());
        let status = status.or(refused).unwrap().to_str().unwrap().to_owned();
        let message = body.to_bytes();
        connection.abort();
        server.abort();
        (message.get(5..).unwrap_or_default().to_vec(), status)
    }

    fn named(name: &str) -> Vec<u8> {
        let mut message = Vec::new();
        protobuf::put_bytes(&mut message, 1, name.as_bytes());
        message
    }

    #[tokio::test]
    async fn a_builder_is_given_what_the_build_has_and_nothing_else() {
        let given = || Given {
            secrets: [("token".to_owned(), b"value".to_vec())].into(),
            logins: [("r.example".to_owned(), ("me".to_owned(), "word".to_owned()))].into(),
            ..Given::default()
        };
        assert_eq!(
            call(given(), SECRET, None, &named("token")).await,
            (named("value"), "0".to_owned())
        );
        assert_eq!(call(given(), SECRET, None, &named("other")).await.1, "5");
        let (login, status) = call(given(), LOGIN, None, &named("r.example")).await;
        let fields: Vec<String> = protobuf::fields(&login).map(|(_, value)| value.text()).collect();
        assert_eq!((fields.join(" "), status), ("me word".to_owned(), "0".to_owned()));
        assert_eq!(
            call(given(), LOGIN, None, &named("other.example")).await,
            (Vec::new(), "0".to_owned())
        );
        assert_eq!(call(given(), CHECK_AGENT, None, &named("default")).await.1, "5");
        assert_eq!(call(given(), HEALTH, None, &[]).await, (vec![8, 1], "0".to_owned()));
        assert_eq!(call(given(), FILES, None, &[]).await.1, "5", "no tree was given");
        assert_eq!(call(given(), "/moby.upload.v1.Upload/Pull", None, &[]).await.1, "12");
    }

    #[tokio::test]
    async fn blobs_of_caches_are_read_by_their_digests_alone() {
        let directory = tempfile::tempdir().unwrap();
        let digest = format!("sha256:{}", "ab".repeat(32));
        let blobs = directory.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join("ab".repeat(32)), "0123456789").unwrap();
        std::fs::write(directory.path().join("secret"), "secret").unwrap();
        let given = || Given {
            layouts: vec![directory.path().to_owned()],
            ..Given::default()
        };
        let (info, status) = call(given(), BLOB_INFO, None, &named(&digest)).await;
        let info = protobuf::fields(&info).next().unwrap().1;
        let size = protobuf::fields(info.bytes()).find(|(field, _)| *field == 2).unwrap().1;
        assert_eq!((size.number(), status.as_str()), (10, "0"));
        let mut part = named(&digest);
        protobuf::put_number(&mut part, 2, 3);
        protobuf::put_number(&mut part, 3, 4);
        let (read, _) = call(given(), BLOB, None, &part).await;
        let data = protobuf::fields(&read).find(|(field, _)| *field == 2).unwrap().1;
        assert_eq!(data.text(), "3456");
        for digest in ["sha256:../../secret".to_owned(), format!("sha256:{}", "cd".repeat(32))] {
            assert_eq!(call(given(), BLOB, None, &named(&digest)).await.1, "5", "{digest}");
        }
    }

    #[tokio::test]
    async fn an_agent_is_spoken_to_through_the_session() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; 5];
            stream.read_exact(&mut question).await.unwrap();
            question.reverse();
            stream.write_all(&question).await.unwrap();
        });
        let given = || Given {
            agents: [("key".to_owned(), socket.clone())].into(),
            ..Given::default()
        };
        assert_eq!(call(given(), CHECK_AGENT, None, &named("key")).await.1, "0");
        assert_eq!(
            call(given(), FORWARD_AGENT, Some("key"), &named("hello")).await,
            (named("olleh"), "0".to_owned())
        );
        assert_eq!(
            call(given(), FORWARD_AGENT, Some("other"), &named("hello")).await.1,
            "5"
        );
    }
}
