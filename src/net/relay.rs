//! Carries a connection's bytes both ways between two sockets, as cheaply as the kernel lets a process do it.
//!
//! A connection is carried by the task that took it, which costs nothing while nothing is said. One on which much is
//! said in little time gets two threads for as long as that lasts: a thread that sleeps in the system call that reads
//! is woken by the packet itself, with no detour over the readiness of a thousand other sockets. What turns out to be a
//! bulk transfer is spliced: its pages move from socket to socket through a pipe and are never copied into this process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, SpliceFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

mod talk;

/// Bytes on their way in one direction of a connection that is not spliced.
const BUFFER: usize = 16 * 1024;
/// How many times in a row a whole buffer must have been there before a pipe is worth having, and how many times less
/// than that before it is so no more.
const BULKY: u32 = 8;
/// How much a pipe holds, where this user may have one so large.
const PIPE: usize = 512 * 1024;
/// How many messages in one direction, in how much time, make a connection lively.
const LIVELY: (u32, Duration) = (64, Duration::from_millis(100));

/// Carries everything between two connections until both directions have ended, or one of the two fails.
///
/// An end that only stops sending is passed on as that: the other direction goes on.
pub async fn relay(mut one: TcpStream, mut other: TcpStream) -> io::Result<()> {
    let (mut there, mut back) = (Direction::new(), Direction::new());
    // Who connects has something to say.
    let mut lively = true;
    while !(there.ended && back.ended) {
        // Two threads are for two directions.
        if lively
            && there.may_talk()
            && back.may_talk()
            && let Some(seat) = talk::seat()
        {
            (one, other, there, back) = talk::talk(seat, one, other, there, back).await?;
        }
        lively = tokio::select! {
            lively = there.carry(&one, &other), if !there.ended => lively?,
            lively = back.carry(&other, &one), if !back.ended => lively?,
            else => false,
        };
    }
    Ok(())
}

/// One direction of a connection, and what it has taken from its sender but not yet given to its receiver.
///
/// All of it is here and nothing in the futures that work with it, so that those can be dropped at any time.
#[derive(Debug)]
struct Direction {
    buffer: Box<[u8]>,
    waiting: std::ops::Range<usize>,
    pipe: Option<Pipe>,
    ended: bool,
    /// How often in a row there was much to carry, or little.
    much: u32,
    little: u32,
    /// How many messages there were since when.
    messages: u32,
    since: Instant,
}

impl Direction {
    fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER].into(),
            waiting: 0..0,
            pipe: None,
            ended: false,
            much: 0,
            little: 0,
            messages: 0,
            since: Instant::now(),
        }
    }

    /// Returns whether a thread may carry it: what has ended needs none, and what is bulky is better off with a pipe.
    fn may_talk(&self) -> bool {
        !self.ended && self.much < BULKY && self.pipe.is_none()
    }

    /// Carries bytes until there are no more, or the connection is lively, which it returns.
    async fn carry(&mut self, from: &TcpStream, to: &TcpStream) -> io::Result<bool> {
        while !self.ended {
            while !self.waiting.is_empty() {
                to.writable().await?;
                match to.try_write(&self.buffer[self.waiting.clone()]) {
                    Ok(length) => self.waiting.start += length,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            if let Some(pipe) = &mut self.pipe {
                pipe.give(to).await?;
            }
            self.settle_pipe()?;
            if let Some(pipe) = &mut self.pipe {
                let length = from.async_io(Interest::READABLE, || pipe.fill(from)).await?;
                self.took(length, to)?;
                continue;
            }
            from.readable().await?;
            let length = match from.try_read(&mut self.buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            self.waiting = 0..length;
            self.took(length, to)?;
            if self.is_lively() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Notes that so many bytes were taken from the sender, and passes on its end, which is none at all.
    fn took(&mut self, length: usize, to: impl AsFd) -> io::Result<()> {
        if length == 0 {
            self.ended = true;
            return end(to);
        }
        (self.much, self.little) = if length >= BUFFER {
            (self.much + 1, 0)
        } else {
            (0, self.little + 1)
        };
        self.messages += 1;
        Ok(())
    }

    /// Takes a pipe if there was much to carry, and does without if there was little; nothing may be on its way.
    fn settle_pipe(&mut self) -> io::Result<()> {
        if self.much >= BULKY && self.pipe.is_none() {
            self.pipe = Some(Pipe::new()?);
        } else if self.little >= BULKY {
            self.pipe = None;
        }
        Ok(())
    }

    /// Returns whether the last messages came quickly one after the other.
    fn is_lively(&mut self) -> bool {
        let (most, time) = LIVELY;
        if self.messages < most {
            return false;
        }
        self.messages = 0;
        let now = Instant::now();
        let took = now.duration_since(std::mem::replace(&mut self.since, now));
        took < time
    }
}

/// Tells the receiver that no more comes.
fn end(to: impl AsFd) -> io::Result<()> {
    match rustix::net::shutdown(to, rustix::net::Shutdown::Write) {
        // It has gone already, which is an end as well.
        Ok(()) | Err(rustix::io::Errno::NOTCONN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Pages on their way from one socket to the other.
#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
    inside: usize,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user who has many pipes gets no larger ones; the usual size does as well.
        let size =
            rustix::pipe::fcntl_setpipe_size(&write, PIPE).or_else(|_| rustix::pipe::fcntl_getpipe_size(&write))?;
        Ok(Self {
            read,
            write,
            size,
            inside: 0,
        })
    }

    /// Takes from a socket; the pipe must be empty, so that only the socket can have nothing to give.
    fn fill(&mut self, from: &TcpStream) -> io::Result<usize> {
        self.inside = splice(from, &self.write, self.size)?;
        Ok(self.inside)
    }

    /// Gives all there is to a socket.
    async fn give(&mut self, to: &TcpStream) -> io::Result<()> {
        while self.inside > 0 {
            let give = || splice(&self.read, to, self.inside);
            self.inside -= to.async_io(Interest::WRITABLE, give).await?;
        }
        Ok(())
    }
}

fn splice(from: impl AsFd, to: impl AsFd, length: usize) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    Ok(rustix::pipe::splice(from, None, to, None, length, flags)?)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const BULK: usize = BUFFER * BULKY as usize;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    /// What `length` bytes look like, so that none can be lost, doubled or moved unseen.
    fn pattern(length: usize, seed: u32) -> Vec<u8> {
        (0..length as u32)
            .map(|at| (at.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect()
    }

    #[tokio::test]
    async fn every_byte_arrives_both_ways_whatever_the_amount() {
        for (there, back) in [
            (0, 0),
            (1, 0),
            (0, 1),
            (BUFFER, BUFFER + 1),
            (BULK - 1, BULK),
            (BULK + 1, 3_000_017),
            (9_000_001, 1),
        ] {
            let ((mut client, near), (far, mut server)) = (pair().await, pair().await);
            let relayed = tokio::spawn(async move { relay(near, far).await });
            let (up, down) = (pattern(there, 1), pattern(back, 2));
            let (mut got_up, mut got_down) = (Vec::new(), Vec::new());
            let (mut client_reads, mut client_writes) = client.split();
            let (mut server_reads, mut server_writes) = server.split();
            tokio::join!(
                async {
                    client_writes.write_all(&up).await.unwrap();
                    client_writes.shutdown().await.unwrap();
                },
                async {
                    server_writes.write_all(&down).await.unwrap();
                    server_writes.shutdown().await.unwrap();
                },
                async {
                    let _ = server_reads.read_to_end(&mut got_up).await.unwrap();
                },
                async {
                    let _ = client_reads.read_to_end(&mut got_down).await.unwrap();
                },
            );
            assert!(got_up == up && got_down == down, "{there} bytes there, {back} back");
            relayed.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn one_direction_ends_without_the_other() {
        let ((mut client, near), (far, mut server)) = (pair().await, pair().await);
        tokio::spawn(async move { relay(near, far).await });
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        server.write_all(b"still here").await.unwrap();
        drop(server);
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "still here");
    }

    #[tokio::test]
    async fn a_side_that_breaks_off_ends_both() {
        let ((client, near), (far, mut server)) = (pair().await, pair().await);
        let relayed = tokio::spawn(async move { relay(near, far).await });
        rustix::net::sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO)).unwrap();
        drop(client);
        relayed.await.unwrap().expect_err("reset");
        // The sockets are closed with it.
        assert_eq!(server.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn a_connection_is_lively_quiet_bulky_and_ends_without_a_byte_lost() {
        async fn exchange(one: &mut TcpStream, other: &mut TcpStream, message: &[u8]) {
            let (mut there, mut back) = (vec![0; message.len()], vec![0; message.len()]);
            one.write_all(message).await.unwrap();
            other.read_exact(&mut there).await.unwrap();
            other.write_all(&there).await.unwrap();
            one.read_exact(&mut back).await.unwrap();
            assert!(back == message);
        }

        let ((mut client, near), (far, mut server)) = (pair().await, pair().await);
        let relayed = tokio::spawn(async move { relay(near, far).await });
        for round in 0..3 {
            // Until it has threads: how quickly messages come is up to the machine.
            let free = talk::seats_left();
            let deadline = Instant::now() + Duration::from_secs(30);
            while talk::seats_left() >= free {
                exchange(&mut client, &mut server, b"lively").await;
                assert!(Instant::now() < deadline, "no threads");
            }
            for number in 0..500u32 {
                exchange(&mut client, &mut server, &number.to_le_bytes()).await;
            }
            let (up, down) = (pattern(3_000_017, round), pattern(2_000_003, round + 9));
            let (mut got_up, mut got_down) = (vec![0; up.len()], vec![0; down.len()]);
            let ((mut client_reads, mut client_writes), (mut server_reads, mut server_writes)) =
                (client.split(), server.split());
            let (sent, received, answered, heard) = tokio::join!(
                client_writes.write_all(&up),
                server_reads.read_exact(&mut got_up),
                server_writes.write_all(&down),
                client_reads.read_exact(&mut got_down),
            );
            sent.and(answered).unwrap();
            received.and(heard).unwrap();
            assert!(got_up == up && got_down == down, "round {round}");
            while talk::seats_left() < free {
                tokio::time::sleep(Duration::from_millis(20)).await;
                assert!(
                    Instant::now() < deadline + Duration::from_secs(30),
                    "it keeps its threads"
                );
            }
        }
        for _ in 0..200 {
            exchange(&mut client, &mut server, b"again").await;
        }
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
        server.write_all(b"last words").await.unwrap();
        drop(server);
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "last words");
        relayed.await.unwrap().unwrap();
    }
}
