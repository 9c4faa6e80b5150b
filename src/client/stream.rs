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
