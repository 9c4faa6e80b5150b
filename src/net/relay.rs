//! Carries a connection's bytes both ways between two sockets, as cheaply as the kernel lets a process do it.
//!
//! Short exchanges, which most connections are, go through a small buffer. What turns out to be a bulk transfer is
//! spliced: its pages move from socket to socket through a pipe and are never copied into this process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Bytes on their way in one direction of a connection that is not spliced.
const BUFFER: usize = 16 * 1024;
/// How much goes in one direction before it counts as a bulk transfer, for which a pipe is worth having.
const BULK: u64 = 128 * 1024;
/// How much a pipe holds, where this user may have one so large.
const PIPE: usize = 512 * 1024;

/// Carries everything between two connections until both directions have ended, or one of the two fails.
///
/// An end that only stops sending is passed on as that: the other direction goes on.
pub async fn relay(one: &TcpStream, other: &TcpStream) -> io::Result<()> {
    tokio::try_join!(carry(one, other), carry(other, one)).map(|_| ())
}

async fn carry(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let mut carried = 0;
    let mut buffer = vec![0; BUFFER];
    while carried < BULK {
        let length = from
            .async_io(Interest::READABLE, || Ok(rustix::io::read(from, &mut buffer)?))
            .await?;
        if length == 0 {
            return end(to);
        }
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let written = to
                .async_io(Interest::WRITABLE, || Ok(rustix::io::write(to, rest)?))
                .await?;
            rest = &rest[written..];
        }
        carried += length as u64;
    }
    drop(buffer);
    let pipe = Pipe::new()?;
    loop {
        let mut inside = from.async_io(Interest::READABLE, || pipe.fill(from)).await?;
        if inside == 0 {
            return end(to);
        }
        while inside > 0 {
            inside -= to.async_io(Interest::WRITABLE, || pipe.empty(to, inside)).await?;
        }
    }
}

/// Tells the receiver that no more comes.
fn end(to: &TcpStream) -> io::Result<()> {
    match rustix::net::shutdown(to, rustix::net::Shutdown::Write) {
        // It has gone already, which is an end as well.
        Ok(()) | Err(rustix::io::Errno::NOTCONN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Pages on their way from one socket to the other.
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user who has many pipes gets no larger ones; the usual size does as well.
        let size =
            rustix::pipe::fcntl_setpipe_size(&write, PIPE).or_else(|_| rustix::pipe::fcntl_getpipe_size(&write))?;
        Ok(Self { read, write, size })
    }

    /// Takes from a socket; the pipe must be empty, so that only the socket can have nothing to give.
    fn fill(&self, from: &TcpStream) -> io::Result<usize> {
        splice(from, &self.write, self.size)
    }

    /// Gives to a socket.
    fn empty(&self, to: &TcpStream, length: usize) -> io::Result<usize> {
        splice(&self.read, to, length)
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
            (BULK as usize - 1, BULK as usize),
            (BULK as usize + 1, 3_000_017),
            (9_000_001, 1),
        ] {
            let ((mut client, near), (far, mut server)) = (pair().await, pair().await);
            let relayed = tokio::spawn(async move { relay(&near, &far).await });
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
        tokio::spawn(async move { relay(&near, &far).await });
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
        let relayed = tokio::spawn(async move { relay(&near, &far).await });
        rustix::net::sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO)).unwrap();
        drop(client);
        relayed.await.unwrap().expect_err("reset");
        // The sockets are closed with it.
        assert_eq!(server.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }
}
