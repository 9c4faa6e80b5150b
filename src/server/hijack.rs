//! Connections that stop being HTTP: attach and exec.

use std::time::Duration;

use axum::body::Body;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tracing::debug;

use super::request::Call;
use super::response;
use super::version::ApiVersion;

/// How long a client takes at most to read the head of an answer.
const HEAD_READ: Duration = Duration::from_millis(20);

/// Returns whether the client is docker-py, which reads the head of an answer through a buffer that it then forgets: what
/// comes along with the head would be lost.
fn buffers_head(call: &Call) -> bool {
    let agent = call.parts.headers.get(http::header::USER_AGENT);
    agent.is_some_and(|agent| agent.as_bytes().starts_with(b"docker-sdk-python"))
}

/// Returns the answer that turns the connection into a stream, and runs the stream in the background.
///
/// `before` is sent ahead of everything else (the log, for an attach that asks for it). The stream is not ended before
/// `settled` is: a client asks for the exit code as soon as it has ended.
pub fn hijack<B>(
    call: &mut Call,
    tty: bool,
    stream: UnixStream,
    before: Option<B>,
    settled: impl Future<Output = ()> + Send + 'static,
) -> Response<Body>
where
    B: futures_util::Stream<Item = std::io::Result<bytes::Bytes>> + Send + Unpin + 'static,
{
    let content_type = if call.version >= (ApiVersion { major: 1, minor: 42 }) && !tty {
        "application/vnd.docker.multiplexed-stream"
    } else {
        "application/vnd.docker.raw-stream"
    };
    let wants_upgrade = call.parts.headers.contains_key(UPGRADE);
    let Some(upgrade) = call.upgrade.take().filter(|_| wants_upgrade) else {
        // A client that did not ask for the connection gets what comes out, and cannot send anything.
        return response::stream(content_type, output_only(stream, before, settled));
    };
    let buffers_head = buffers_head(call);
    let user = call.engine.activity.begin();
    call.engine.tasks.spawn(async move {
        let _user = user;
        match upgrade.await {
            Ok(client) => {
                if buffers_head {
                    tokio::time::sleep(HEAD_READ).await;
                }
                relay(TokioIo::new(client), stream, before, settled).await;
            }
            Err(cause) => debug!(%cause, "the connection could not be taken over"),
        }
    });
    let mut response = response::status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn output_only<B>(
    mut stream: UnixStream,
    before: Option<B>,
    settled: impl Future<Output = ()> + Send + 'static,
) -> impl futures_util::Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static
where
    B: futures_util::Stream<Item = std::io::Result<bytes::Bytes>> + Send + Unpin + 'static,
{
    async_stream::try_stream! {
        if let Some(mut before) = before {
            while let Some(chunk) = futures_util::StreamExt::next(&mut before).await {
                yield chunk?;
            }
        }
        let mut buffer = vec![0u8; 16 * 1024];
        loop {
            let read = stream.read(&mut buffer).await?;
            if read == 0 {
                break;
            }
            yield bytes::Bytes::copy_from_slice(&buffer[..read]);
        }
        settled.await;
    }
}

/// Carries bytes both ways until the container's side has nothing more to say.
async fn relay<C, B>(client: C, stream: UnixStream, before: Option<B>, settled: impl Future<Output = ()>)
where
    C: AsyncRead + AsyncWrite,
    B: futures_util::Stream<Item = std::io::Result<bytes::Bytes>> + Send + Unpin,
{
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_container, mut to_container) = stream.into_split();
    let output = async {
        if let Some(mut before) = before {
            while let Some(Ok(chunk)) = futures_util::StreamExt::next(&mut before).await {
                to_client.write_all(&chunk).await?;
            }
        }
        copy(&mut from_container, &mut to_client).await?;
        settled.await;
        to_client.shutdown().await
    };
    let input = async {
        let copied = copy(&mut from_client, &mut to_container).await;
        // The client's end of input is the process's end of input; output goes on.
        let _ = to_container.shutdown().await;
        copied
    };
    tokio::pin!(output, input);
    tokio::select! {
        _ = &mut output => {}
        sent = &mut input => {
            // A client that hung up altogether reads nothing any more.
            if sent.is_ok() {
                let _ = output.await;
            }
        }
    }
}

async fn copy<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(from: &mut R, to: &mut W) -> std::io::Result<()> {
    let mut buffer = vec![0u8; 8 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
    }
}
