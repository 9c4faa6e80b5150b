//! The engine's byte streams: what containers and processes write, in Docker's frames or raw, and what they read.

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use super::{ClientError, Engine};

/// Which of a process's streams some bytes belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Out,
    Err,
}

/// Takes a stream apart into what was written to standard output and to standard error.
#[derive(Debug)]
pub struct Frames {
    /// Without frames, as processes with a terminal have it, all is standard output.
    is_framed: bool,
    buffer: BytesMut,
    /// The frame that is being read, and how much of it is to come.
    current: Option<(Channel, usize)>,
}

impl Frames {
    /// Returns a reader of a stream with or without frames.
    pub fn new(is_framed: bool) -> Self {
        Self {
            is_framed,
            buffer: BytesMut::new(),
            current: None,
        }
    }

    /// Adds what was received.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns what is there of the next frame; a large frame may come in pieces.
    pub fn next_piece(&mut self) -> Option<(Channel, Bytes)> {
        if !self.is_framed {
            return (!self.buffer.is_empty()).then(|| (Channel::Out, self.buffer.split().freeze()));
        }
        loop {
            match self.current {
                Some((_, 0)) => self.current = None,
                Some((channel, left)) => {
                    let length = left.min(self.buffer.len());
                    if length == 0 {
                        return None;
                    }
                    self.current = Some((channel, left - length));
                    return Some((channel, self.buffer.split_to(length).freeze()));
                }
                None => {
                    // Eight bytes: the stream's number, three zeros, the length in network order.
                    let header = self.buffer.get(..8)?;
                    let channel = if header[0] == 2 { Channel::Err } else { Channel::Out };
                    let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                    self.buffer.advance(8);
                    self.current = Some((channel, length as usize));
                }
            }
        }
    }

    /// Returns the next frame, or line where there are no frames, once all of it is there.
    fn next_whole(&mut self) -> Option<(Channel, Bytes)> {
        while self.is_framed {
            let header = self.buffer.get(..8)?;
            match u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize {
                0 => self.buffer.advance(8),
                length if self.buffer.len() - 8 < length => return None,
                _ => return self.next_piece(),
            }
        }
        let end = self.buffer.iter().position(|&byte| byte == b'\n')?;
        Some((Channel::Out, self.buffer.split_to(end + 1).freeze()))
    }

    /// Returns the next frame or line without the time it begins with, and that time in nanoseconds since 1970.
    fn next_timed(&mut self) -> Option<(Channel, Bytes, Option<i64>)> {
        let (channel, mut whole) = self.next_whole()?;
        let time = whole.iter().position(|&byte| byte == b' ').and_then(|end| {
            let time: jiff::Timestamp = std::str::from_utf8(&whole[..end]).ok()?.parse().ok()?;
            whole.advance(end + 1);
            i64::try_from(time.as_nanosecond()).ok()
        });
        Some((channel, whole, time))
    }
}

/// What a container wrote, as the engine sends it.
pub struct Output {
    body: Incoming,
    frames: Frames,
}

impl Output {
    /// Waits for more, and takes along what else has already arrived. Returns false at the end.
    pub async fn receive(&mut self) -> Result<bool, ClientError> {
        let mut next = self.body.frame().await;
        let mut received = 0;
        loop {
            match next {
                None => return Ok(received > 0),
                Some(Err(error)) => return Err(ClientError::Connection(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        received += data.len();
                        self.frames.push(&data);
                    }
                }
            }
            if received >= 256 * 1024 {
                return Ok(true);
            }
            next = match self.body.frame().now_or_never() {
                Some(frame) => frame,
                None => return Ok(true),
            };
        }
    }

    /// Returns the next piece of what was received.
    pub fn next_piece(&mut self) -> Option<(Channel, Bytes)> {
        self.frames.next_piece()
    }

    /// Returns the next piece of an output that was asked for with times, and when it was written in nanoseconds
    /// since 1970.
    pub fn next_timed(&mut self) -> Option<(Channel, Bytes, Option<i64>)> {
        self.frames.next_timed()
    }
}

impl Engine {
    /// Asks for a container's log. `is_framed` answers for engines that do not say.
    pub async fn log(
        &self,
        path_and_query: &str,
        is_framed: impl AsyncFnOnce() -> Result<bool, ClientError>,
    ) -> Result<Output, ClientError> {
        let response = self.request(http::Method::GET, path_and_query, None).await?;
        let is_framed = match content_type(&response) {
            "application/vnd.docker.multiplexed-stream" => true,
            "application/vnd.docker.raw-stream" => false,
            _ => is_framed().await?,
        };
        Ok(Output {
            body: response.into_body(),
            frames: Frames::new(is_framed),
        })
    }

    /// Turns a connection into a process's streams: what is written to it is the process's input.
    pub async fn hijack(
        &self,
        path_and_query: &str,
        body: Option<serde_json::Value>,
    ) -> Result<TokioIo<Upgraded>, ClientError> {
        let response = self
            .transport
            .json_request(
                http::Method::POST,
                path_and_query,
                body,
                &[("connection", "Upgrade"), ("upgrade", "tcp")],
            )
            .await?;
        let upgraded = hyper::upgrade::on(response).await.map_err(ClientError::Connection)?;
        Ok(TokioIo::new(upgraded))
    }
}

/// An archive that is sent while it is made: what is written to it goes to the engine.
pub struct Upload {
    sender: tokio::sync::mpsc::Sender<Bytes>,
    buffer: BytesMut,
}

/// Pieces of an upload have this size.
const PIECE: usize = 64 * 1024;

impl std::io::Write for Upload {
    /// Blocks while the engine does not keep up; to be called on a thread that may.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = self.buffer.split().freeze();
        // The engine has hung up; its answer says why.
        let gone = |_| std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        self.sender.blocking_send(piece).map_err(gone)
    }
}

impl Engine {
    /// Sends what `make` writes as the body of a request, and returns the answer.
    ///
    /// An engine that refuses says more than the writing that it broke off; a failure to make the body does too.
    pub async fn upload<E: Send + 'static>(
        &self,
        method: http::Method,
        path_and_query: &str,
        headers: &[(&str, &str)],
        make: impl FnOnce(&mut Upload) -> Result<(), E> + Send + 'static,
    ) -> Result<http::Response<Incoming>, UploadError<E>> {
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(4);
        let (pieces, mut made) = tokio::sync::mpsc::channel::<Bytes>(4);
        let maker = tokio::task::spawn_blocking(move || {
            let mut upload = Upload {
                sender: pieces,
                buffer: BytesMut::with_capacity(2 * PIECE),
            };
            let result = make(&mut upload);
            // What cannot be sent any more, nobody waits for.
            let _ = std::io::Write::flush(&mut upload);
            result
        });
        let forward = async {
            while let Some(piece) = made.recv().await {
                if sender.send(Ok(piece)).await.is_err() {
                    return None;
                }
            }
            let result = maker.await;
            if !matches!(result, Ok(Ok(()))) {
                // Half an archive must not look like a whole one.
                let _ = sender.send(Err(std::io::ErrorKind::BrokenPipe.into())).await;
            }
            drop(sender);
            result.ok()
        };
        let body = async_stream::stream! {
            while let Some(piece) = receiver.recv().await {
                yield piece.map(hyper::body::Frame::data);
            }
        };
        let boxed: std::pin::Pin<Box<dyn futures_util::Stream<Item = _> + Send>> = Box::pin(body);
        let body = http_body_util::Either::Right(http_body_util::StreamBody::new(boxed));
        let request = self.transport.body_request(method, path_and_query, headers, body);
        match tokio::join!(request, forward) {
            (_, Some(Err(error))) => Err(UploadError::Make(error)),
            (answer, _) => answer.map_err(UploadError::Engine),
        }
    }
}

/// Why something could not be sent.
#[derive(Debug)]
pub enum UploadError<E> {
    /// It could not be made.
    Make(E),
    /// The engine refused it, or went away.
    Engine(ClientError),
}

/// An answer that comes as JSON, line by line.
pub struct JsonLines {
    body: Incoming,
    buffer: BytesMut,
    ended: bool,
}

impl JsonLines {
    /// Reads the answer's body.
    pub fn new(response: http::Response<Incoming>) -> Self {
        Self {
            body: response.into_body(),
            buffer: BytesMut::new(),
            ended: false,
        }
    }

    /// Waits for the next line; `None` at the end.
    pub async fn next<T: serde::de::DeserializeOwned>(&mut self) -> Option<Result<T, ClientError>> {
        loop {
            let end = self.buffer.iter().position(|&byte| byte == b'\n');
            if let Some(end) = end.or((self.ended && !self.buffer.is_empty()).then_some(self.buffer.len())) {
                let line = self.buffer.split_to(end);
                if !self.buffer.is_empty() {
                    self.buffer.advance(1);
                }
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Some(serde_json::from_slice(&line).map_err(ClientError::Answer));
            }
            if self.ended {
                return None;
            }
            match self.body.frame().await {
                None => self.ended = true,
                Some(Err(error)) => return Some(Err(ClientError::Connection(error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

fn content_type<B>(response: &http::Response<B>) -> &str {
    response
        .headers()
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(channel: u8, text: &str) -> Vec<u8> {
        let mut bytes = vec![channel, 0, 0, 0];
        bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    #[test]
    fn frames_come_apart_wherever_the_stream_is_cut() {
        let mut whole = frame(1, "one\n");
        whole.extend(frame(2, "two\n"));
        whole.extend(frame(1, ""));
        whole.extend(frame(1, "three"));
        for size in 1..=whole.len() {
            let mut frames = Frames::new(true);
            let (mut out, mut err) = (Vec::new(), Vec::new());
            for piece in whole.chunks(size) {
                frames.push(piece);
                while let Some((channel, bytes)) = frames.next_piece() {
                    match channel {
                        Channel::Out => out.extend_from_slice(&bytes),
                        Channel::Err => err.extend_from_slice(&bytes),
                    }
                }
            }
            assert_eq!(
                (out.as_slice(), err.as_slice()),
                (&b"one\nthree"[..], &b"two\n"[..]),
                "{size}"
            );
        }
    }

    #[test]
    fn times_are_taken_off_each_frame_and_each_line() {
        let mut framed = frame(1, "2026-11-29T17:33:35.133352372Z one\n");
        framed.extend(frame(1, ""));
        framed.extend(frame(2, "2026-11-29T17:33:36Z half a"));
        framed.extend(frame(2, "2026-11-29T17:33:36.5Z  line\n"));
        framed.extend(frame(1, "no time\n"));
        let raw = b"2026-11-29T17:33:35.133352372Z one\n2026-11-29T17:33:36Z \nno time\nrest".to_vec();
        let second = 1_795_973_615_000_000_000;
        let parts = |bytes: &[u8], is_framed, size| {
            let mut frames = Frames::new(is_framed);
            let mut parts = Vec::new();
            for piece in bytes.chunks(size) {
                frames.push(piece);
                while let Some((channel, bytes, time)) = frames.next_timed() {
                    let text = String::from_utf8(bytes.to_vec()).unwrap();
                    parts.push((channel, text, time.map(|time| time - second)));
                }
            }
            if let Some((channel, rest)) = frames.next_piece() {
                parts.push((channel, String::from_utf8(rest.to_vec()).unwrap(), None));
            }
            parts
        };
        let part = |channel, text: &str, time| (channel, text.to_owned(), time);
        for size in 1..=framed.len() {
            let expected = [
                part(Channel::Out, "one\n", Some(133_352_372)),
                part(Channel::Err, "half a", Some(1_000_000_000)),
                part(Channel::Err, " line\n", Some(1_500_000_000)),
                part(Channel::Out, "no time\n", None),
            ];
            assert_eq!(parts(&framed, true, size), expected, "{size}");
        }
        for size in 1..=raw.len() {
            let expected = [
                part(Channel::Out, "one\n", Some(133_352_372)),
                part(Channel::Out, "\n", Some(1_000_000_000)),
                part(Channel::Out, "no time\n", None),
                part(Channel::Out, "rest", None),
            ];
            assert_eq!(parts(&raw, false, size), expected, "{size}");
        }
    }

    #[test]
    fn a_raw_stream_is_standard_output() {
        let mut frames = Frames::new(false);
        frames.push(b"\x01\x02raw");
        assert_eq!(
            frames.next_piece(),
            Some((Channel::Out, Bytes::from_static(b"\x01\x02raw")))
        );
        assert_eq!(frames.next_piece(), None);
    }
}
