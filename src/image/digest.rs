//! Digests: computed while bytes pass by, so that nothing is read twice and nothing passes unchecked.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

/// Returns the digest of the bytes as `sha256:…`.
pub fn sha256(bytes: &[u8]) -> String {
    written(Sha256::new().chain_update(bytes))
}

/// Returns whether the text is `sha256:` and 64 lower-case hexadecimal digits, the only digests that the store keeps.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_hex)
}

/// Returns whether the text is the hexadecimal part of a digest.
pub(crate) fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Returns the hexadecimal part of a digest.
pub(crate) fn hex(digest: &str) -> &str {
    digest.split_once(':').map_or(digest, |(_, hex)| hex)
}

/// Returns the twelve digits that Docker shows for a digest.
pub(crate) fn short(digest: &str) -> &str {
    let hex = hex(digest);
    hex.get(..12).unwrap_or(hex)
}

fn written(hasher: Sha256) -> String {
    let mut text = String::with_capacity(71);
    text.push_str("sha256:");
    for byte in hasher.finalize() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A running digest with the number of bytes in it.
#[derive(Clone, Default)]
pub(crate) struct Hasher {
    hasher: Sha256,
    length: u64,
}

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// Adds a text with its length, so that no two lists of texts give the same bytes.
    pub(crate) fn field(&mut self, bytes: &[u8]) {
        self.update(&(bytes.len() as u64).to_le_bytes());
        self.update(bytes);
    }

    pub(crate) fn finish(self) -> (String, u64) {
        (written(self.hasher), self.length)
    }
}

/// Reads through to another reader and digests what passes.
pub(crate) struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> HashingReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: Hasher::default(),
        }
    }

    /// Reads what is left and returns the digest and the length of everything.
    pub(crate) fn finish(mut self) -> io::Result<(String, u64)> {
        let mut buffer = vec![0; 64 * 1024];
        while self.read(&mut buffer)? != 0 {}
        Ok(self.hasher.finish())
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// Writes through to another writer and digests what passes.
pub(crate) struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> HashingWriter<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Hasher::default(),
        }
    }

    pub(crate) fn finish(self) -> (W, String, u64) {
        let (digest, length) = self.hasher.finish();
        (self.inner, digest, length)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_digests_also_what_nobody_read() {
        let mut reader = HashingReader::new(&b"hello world"[..]);
        let mut first = [0; 5];
        reader.read_exact(&mut first).unwrap();
        assert_eq!(reader.finish().unwrap(), (sha256(b"hello world"), 11));
        assert!(is_digest(&sha256(b"")));
        assert_eq!(short(&sha256(b"")), "e3b0c44298fc");
    }
}
