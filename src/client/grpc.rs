//! gRPC over HTTP/2, as far as an engine's builder speaks it: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};

use crate::percent;

/// gRPC's numbers for how a call ended.
pub const OK: &str = "0";
pub const NOT_FOUND: &str = "5";
pub const UNIMPLEMENTED: &str = "12";
pub const INTERNAL: &str = "13";

/// Puts a message into a frame: a flag and its length come before it.
pub fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + message.len());
    bytes.extend_from_slice(&[0]);
    bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
    bytes.extend_from_slice(message);
    bytes.freeze()
}

/// The messages of a body.
pub struct Messages {
    body: Incoming,
    buffer: BytesMut,
    /// How the call ended, once its end has come.
    trailers: Option<HeaderMap>,
}

impl Messages {
    pub fn new(body: Incoming) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            trailers: None,
        }
    }

    /// Returns the next message; none when all have come.
    pub async fn next(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        loop {
            if let Some(message) = self.whole() {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => match frame?.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => self.trailers = Frame::into_trailers(frame).ok(),
                },
            }
        }
    }

    fn whole(&mut self) -> Option<Bytes> {
        let length = self.buffer.get(1..5)?;
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        if self.buffer.len() < 5 + length {
            return None;
        }
        Some(self.buffer.split_to(5 + length).split_off(5).freeze())
    }

    /// Returns what the call was ended with, once its end has come.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }
}

/// Returns the words of a call that failed, if headers or trailers say that it did.
pub fn failure(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let status = text("grpc-status").filter(|status| *status != OK)?;
    let message = text("grpc-message").unwrap_or_default();
    Some(match percent::decoded(message).as_str() {
        "" => format!("the builder ended the call with status {status}"),
        message => message.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_in_the_builder_s_words() {
        let headers = |status: &str, message: &str| {
            let pairs = [("grpc-status", status), ("grpc-message", message)];
            let pairs = pairs.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            HeaderMap::from_iter(pairs)
        };
        assert_eq!(failure(&headers("0", "")), None);
        assert_eq!(failure(&HeaderMap::new()), None);
        assert_eq!(failure(&headers("2", "50%25 %E2%86%92 %zz %")).unwrap(), "50% → %zz %");
        assert_eq!(
            failure(&headers("13", "")).unwrap(),
            "the builder ended the call with status 13"
        );
    }
}
