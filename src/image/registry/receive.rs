//! A layer on its way from the network to its directory: digested, kept as it came, decompressed and unpacked, each beside the
//! others, so that it takes no longer than the slowest of them.

use std::io::{self, Read, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::RegistryError;
use crate::image::ImageError;
use crate::image::archive::{self, Descriptor};
use crate::image::digest::HashingReader;
use crate::image::layers;
use crate::image::store::{Blob, LayerInfo, Store};

/// How much is handed on at once, and how many of those may wait.
const PIECE: usize = 256 * 1024;
const PIECES: usize = 4;

impl Store {
    /// Unpacks a layer while it arrives, and keeps what arrived.
    pub(super) fn receive_layer(
        &self,
        layer: &Descriptor,
        diff_id: &str,
        receive: mpsc::Receiver<Bytes>,
    ) -> Result<LayerInfo, ImageError> {
        let mut spool = self.blob_file()?;
        let path = spool.path().to_owned();
        let reading = || ImageError::file("read the download of", &path);
        let mut arriving = HashingReader::new(archive::Tee {
            from: Arriving {
                receive,
                chunk: Bytes::new(),
                left: layer.size,
            },
            to: &mut spool,
        });
        let (compression, tar) = layers::decompress(&mut arriving).map_err(reading())?;
        let (send, pieces) = sync_channel(PIECES);
        let unpacked = std::thread::scope(|scope| {
            let unpacking = scope.spawn(move || self.unpack(Pieces::new(pieces), Some(diff_id)));
            hand_on(tar, &send);
            drop(send);
            unpacking
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let (actual, size) = arriving.finish().map_err(reading())?;
        // Wrong bytes also fail to unpack; that they are wrong is the better thing to say.
        if actual != layer.digest && size >= layer.size {
            return Err(RegistryError::LayerVerification(layer.digest.clone()).into());
        }
        let unfinished = unpacked?;
        spool.flush().map_err(ImageError::file("write", &path))?;
        self.keep_blob(spool, &actual)?;
        let blob = Blob {
            digest: actual,
            size,
            media_type: compression.media_type().to_owned(),
        };
        self.finish(unfinished, Some(blob))
    }
}

type Piece = io::Result<Vec<u8>>;

/// Hands on what is read until its end, an error, or until nobody takes it any more.
fn hand_on(mut from: impl Read, send: &SyncSender<Piece>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let result = from.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let is_end = piece.is_empty();
        if !is_end && send.send(Ok(piece)).is_err() {
            return;
        }
        match result {
            Ok(_) if is_end => return,
            Ok(_) => {}
            Err(error) => {
                // Whoever unpacks has failed already, if it does not listen.
                let _ = send.send(Err(error));
                return;
            }
        }
    }
}

/// What another thread hands on, as something to read.
struct Pieces {
    receive: Receiver<Piece>,
    piece: io::Cursor<Vec<u8>>,
}

impl Pieces {
    fn new(receive: Receiver<Piece>) -> Self {
        Self {
            receive,
            piece: io::Cursor::default(),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.piece.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.receive.recv() {
                Ok(piece) => self.piece = io::Cursor::new(piece?),
                Err(_) => return Ok(0),
            }
        }
    }
}

/// A download as something to read from another thread.
struct Arriving {
    receive: mpsc::Receiver<Bytes>,
    chunk: Bytes,
    /// How many bytes the manifest says are still to come: more than that is not what was asked for.
    left: u64,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receive.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.chunk.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other("more bytes than the manifest says"))?;
        Ok(count)
    }
}
