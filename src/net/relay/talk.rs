//! The threads that a lively connection gets: one for each direction, until it is quiet again.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;

use super::{BULKY, Direction};

/// How many connections have threads at a time; all others are carried as those are that say little.
const SEATS: usize = 32;
/// How long a thread sleeps before it looks whether it is still wanted.
const NAP: Duration = Duration::from_millis(10);
/// How many naps without a message from either side make a connection quiet.
const QUIET: u32 = 25;

static FREE: Semaphore = Semaphore::const_new(SEATS);

/// Returns the right to have two threads, if there is one left.
pub(super) fn seat() -> Option<SemaphorePermit<'static>> {
    FREE.try_acquire().ok()
}

/// Returns how many more connections could have threads.
#[cfg(test)]
pub(super) fn seats_left() -> usize {
    FREE.available_permits()
}

/// What the two threads of a connection know of each other.
#[derive(Debug, Default)]
struct Conversation {
    messages: AtomicU32,
    over: AtomicBool,
}

/// Two connections in the hands of threads. They break off with the value, so that the threads end with it.
#[derive(Debug)]
struct Held(Option<[Arc<TcpStream>; 2]>);

impl Drop for Held {
    fn drop(&mut self) {
        for socket in self.0.iter().flatten() {
            // It may have gone by itself.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

type Carried = (tokio::net::TcpStream, tokio::net::TcpStream, Direction, Direction);

/// Carries both directions by threads until they are quiet, or have ended.
pub(super) async fn talk(
    _seat: SemaphorePermit<'static>,
    one: tokio::net::TcpStream,
    other: tokio::net::TcpStream,
    there: Direction,
    back: Direction,
) -> io::Result<Carried> {
    let [one, other] = [blocking(one)?, blocking(other)?].map(Arc::new);
    let mut held = Held(Some([Arc::clone(&one), Arc::clone(&other)]));
    let conversation = Arc::new(Conversation::default());
    let there = spawn(&conversation, &one, &other, there);
    let back = spawn(&conversation, &other, &one, back);
    drop((one, other));
    let (there, back) = (there.await, back.await);
    let (there, back) = (there??, back??);
    let [one, other] = held.0.take().ok_or_else(lost)?.map(Arc::into_inner);
    Ok((nonblocking(one)?, nonblocking(other)?, there, back))
}

fn lost() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

fn blocking(socket: tokio::net::TcpStream) -> io::Result<TcpStream> {
    let socket = socket.into_std()?;
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(NAP))?;
    socket.set_write_timeout(Some(NAP))?;
    Ok(socket)
}

fn nonblocking(socket: Option<TcpStream>) -> io::Result<tokio::net::TcpStream> {
    let socket = socket.ok_or_else(lost)?;
    socket.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(socket)
}

/// Starts the thread of one direction, which gives the direction back at its end.
fn spawn(
    conversation: &Arc<Conversation>,
    from: &Arc<TcpStream>,
    to: &Arc<TcpStream>,
    mut direction: Direction,
) -> JoinHandle<io::Result<Direction>> {
    let (conversation, from, to) = (Arc::clone(conversation), Arc::clone(from), Arc::clone(to));
    tokio::task::spawn_blocking(move || {
        let result = direction.converse(&conversation, &from, &to);
        if result.is_err() {
            // The other direction is worth nothing without this one.
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        }
        result.map(|()| direction)
    })
}

impl Direction {
    fn converse(&mut self, conversation: &Conversation, from: &TcpStream, to: &TcpStream) -> io::Result<()> {
        let mut heard = conversation.messages.load(Ordering::Relaxed);
        let mut naps = 0;
        while !self.ended && !conversation.over.load(Ordering::Relaxed) {
            match self.step(from, to) {
                Ok(()) => {
                    conversation.messages.fetch_add(1, Ordering::Relaxed);
                    naps = 0;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let now = conversation.messages.load(Ordering::Relaxed);
                    naps = if now == heard { naps + 1 } else { 0 };
                    heard = now;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            // What is bulky goes by a pipe.
            if naps >= QUIET || self.much >= BULKY {
                conversation.over.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Gives what was taken, or else takes what is there.
    fn step(&mut self, from: &TcpStream, to: &TcpStream) -> io::Result<()> {
        if !self.waiting.is_empty() {
            self.waiting.start += rustix::io::write(to, &self.buffer[self.waiting.clone()])?;
            return Ok(());
        }
        let length = rustix::io::read(from, &mut self.buffer[..])?;
        self.waiting = 0..length;
        self.took(length, to)
    }
}
