//! Connections to an engine, kept open between requests.
//!
//! bollard opens a connection for every request; a command sends some dozens. A connection goes back to the idle ones
//! when its response has been read, and every response says which API version answered, so nothing is negotiated.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bollard::errors::Error;
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use super::launch::Embedded;
use super::{Address, ClientError};

pub(super) type Body =
    Either<Full<Bytes>, StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, io::Error>> + Send>>>>;

/// One open connection.
pub(super) type Connection = SendRequest<Body>;

/// The connections to one engine.
pub(super) struct Transport {
    address: Address,
    idle: Arc<Mutex<Vec<Connection>>>,
    /// The minor number of the API version that answered, 0 while none has.
    api_minor: AtomicU32,
    /// Whether an answer has said that Podman gave it.
    is_podman: AtomicBool,
    /// How to start the engine anew when it has died, if it is the embedded one.
    embedded: Option<Embedded>,
}

/// Opens a connection.
pub(super) async fn open(address: &Address) -> io::Result<Connection> {
    match address {
        Address::Unix(path) => handshake(UnixStream::connect(path).await?).await,
        Address::Tcp(host) => {
            let stream = TcpStream::connect(host).await?;
            stream.set_nodelay(true)?;
            handshake(stream).await
        }
    }
}

async fn handshake<S>(stream: S) -> io::Result<Connection>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Ends by itself when the sender is dropped or the engine hangs up; what went wrong, the request's sender learns.
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

impl Transport {
    pub(super) fn new(address: Address, first: Connection, embedded: Option<Embedded>) -> Self {
        Self {
            address,
            embedded,
            idle: Arc::new(Mutex::new(vec![first])),
            api_minor: AtomicU32::new(0),
            is_podman: AtomicBool::new(false),
        }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn api_minor(&self) -> Option<u32> {
        match self.api_minor.load(Ordering::Relaxed) {
            0 => None,
            minor => Some(minor),
        }
    }

    pub(super) fn is_podman(&self) -> bool {
        self.is_podman.load(Ordering::Relaxed)
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            if connection.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    /// Sends a request over an idle connection or a new one.
    pub(super) async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Error> {
        prepare(&mut request)?;
        // Asking again does no harm where the first was only a question.
        let question = (request.method() == Method::GET).then(|| question(&request));
        let Some(question) = question.filter(|_| self.embedded.is_some()) else {
            return self.send_once(request).await;
        };
        match self.send_once(request).await {
            Err(Error::HyperResponseError { .. }) => self.send_once(question).await,
            answer => answer,
        }
    }

    async fn send_once(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Error> {
        while let Some(mut connection) = self.take_idle() {
            match connection.try_send_request(request).await {
                Ok(response) => return Ok(self.received(connection, response)),
                // The engine hung up while the connection was idle, and has seen nothing of the request.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut connection = self.open().await?;
        let response = connection.send_request(request).await?;
        Ok(self.received(connection, response))
    }

    /// Opens a connection; a dead embedded engine is started first.
    async fn open(&self) -> io::Result<Connection> {
        match (open(&self.address).await, &self.embedded) {
            (Err(error), Some(embedded)) => match embedded.connect_or_start().await {
                Ok((_, connection)) => Ok(connection),
                Err(_) => Err(error),
            },
            (result, _) => result,
        }
    }

    /// Notes what the response tells of the engine, and keeps the connection for when the response has been read.
    fn received(&self, mut connection: Connection, response: Response<Incoming>) -> Response<Incoming> {
        if let Some(minor) = response
            .headers()
            .get("api-version")
            .and_then(|version| version.to_str().ok()?.strip_prefix("1.")?.parse().ok())
        {
            self.api_minor.store(minor, Ordering::Relaxed);
        }
        if response.headers().contains_key("libpod-api-version") {
            self.is_podman.store(true, Ordering::Relaxed);
        }
        let idle = Arc::clone(&self.idle);
        tokio::spawn(async move {
            if connection.ready().await.is_ok() {
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            }
        });
        response
    }

    /// Sends a request with a JSON body or none; a refusal becomes the error it states.
    ///
    /// With `upgrade` the connection is asked to become a plain stream of bytes once the response has come.
    pub(super) async fn json_request(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<serde_json::Value>,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, ClientError> {
        let body = match body {
            Some(value) => Bytes::from(serde_json::to_vec(&value).map_err(ClientError::Answer)?),
            None => Bytes::new(),
        };
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        self.body_request(method, path_and_query, &all, Either::Left(Full::new(body)))
            .await
    }

    /// Sends a request with any body; a refusal becomes the error it states.
    pub(super) async fn body_request(
        &self,
        method: Method,
        path_and_query: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder().method(method).uri(path_and_query);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).map_err(Error::from)?;
        let response = self.send(request).await?;
        let status = response.status();
        if status.is_success() || status == http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let text = response
            .into_body()
            .collect()
            .await
            .map_err(ClientError::Connection)?
            .to_bytes();
        let message = serde_json::from_slice::<serde_json::Value>(&text)
            .ok()
            .and_then(|answer| Some(answer.get("message")?.as_str()?.to_owned()))
            .unwrap_or_else(|| String::from_utf8_lossy(&text).into_owned());
        Err(ClientError::Refused {
            status: status.as_u16(),
            message,
        })
    }
}

/// Returns a request like this one, without the body, which a question does not have.
fn question(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(Either::Left(Full::new(Bytes::new())));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// A connection carries paths, not whole addresses, and HTTP/1.1 wants a host.
fn prepare(request: &mut Request<Body>) -> Result<(), Error> {
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    *request.uri_mut() = path.parse::<Uri>()?;
    request
        .headers_mut()
        .insert(http::header::HOST, HeaderValue::from_static("engine"));
    Ok(())
}
