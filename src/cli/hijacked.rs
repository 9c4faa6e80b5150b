//! A process in a container on the user's terminal or pipes: bytes both ways, window size, detaching.

use std::io::{self, Write};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use super::CommandError;
use crate::client::stream::{Channel, Frames};
use crate::ui::stream;
use crate::ui::terminal::{self, DetachKeys, RawTerminal};

/// How a process is connected.
pub struct Connection {
    /// The process has a terminal of its own.
    pub tty: bool,
    /// Standard input goes to the process.
    pub stdin: bool,
    /// The keys that end the connection and leave the process running.
    pub detach_keys: Option<DetachKeys>,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The process closed its streams.
    Closed,
    /// The user typed the detach keys.
    Detached,
    /// This program was told to end.
    Signalled(i32),
}

/// Carries bytes between the user and the process until one of them ends it.
///
/// `resize` is told the size of the window at first and whenever it changes.
pub async fn run<S>(
    hijacked: S,
    mut connection: Connection,
    resize: impl AsyncFn(u16, u16),
) -> Result<Ending, CommandError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite,
{
    let raw = match connection.tty && connection.stdin {
        true => RawTerminal::enter()?,
        false => None,
    };
    let (mut reader, mut writer) = tokio::io::split(hijacked);
    let mut frames = Frames::new(!connection.tty);
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    let mut stdin = tokio::io::stdin();
    let mut typed = vec![0; 32 * 1024];
    let mut stdin_open = connection.stdin;
    let mut window = signal(SignalKind::window_change())?;
    // A raw terminal sends no interrupts; these come from elsewhere, and the terminal must be given back.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    if !connection.stdin {
        writer.shutdown().await.ok();
    }
    if let Some((rows, columns)) = terminal::size().filter(|_| connection.tty) {
        resize(rows, columns).await;
    }
    let ending = loop {
        tokio::select! {
            read = reader.read_buf(&mut buffer) => {
                // An engine that goes away ends the connection like a process that ends.
                if !matches!(read, Ok(count) if count > 0) {
                    break Ending::Closed;
                }
                frames.push(&buffer);
                buffer.clear();
                while let Some((channel, piece)) = frames.next_piece() {
                    write(channel, &piece)?;
                }
            }
            read = stdin.read(&mut typed), if stdin_open => {
                let count = read.unwrap_or(0);
                if count == 0 {
                    stdin_open = false;
                    writer.shutdown().await.ok();
                    continue;
                }
                let (bytes, detached) = match &mut connection.detach_keys {
                    Some(keys) => keys.filter(&typed[..count]),
                    None => (typed[..count].to_vec(), false),
                };
                if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                    // The process reads no more; it may still write.
                    stdin_open = false;
                }
                if detached {
                    break Ending::Detached;
                }
            }
            _ = window.recv(), if connection.tty => {
                if let Some((rows, columns)) = terminal::size() {
                    resize(rows, columns).await;
                }
            }
            _ = terminate.recv() => break Ending::Signalled(libc::SIGTERM),
            _ = hangup.recv() => break Ending::Signalled(libc::SIGHUP),
        }
    };
    drop(raw);
    Ok(ending)
}

fn write(channel: Channel, bytes: &[u8]) -> io::Result<()> {
    match channel {
        Channel::Out => stream::out(bytes),
        Channel::Err => {
            let mut stderr = io::stderr().lock();
            // Nobody who listens to standard error is no reason to end.
            let _ = stderr.write_all(bytes).and_then(|()| stderr.flush());
            Ok(())
        }
    }
}
