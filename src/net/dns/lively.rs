//! The thread that a lively asker gets: it answers the next question without having slept.
//!
//! To be woken takes many times as long as to answer. A program that looks up one name after the other asks again within
//! microseconds, and for as long as it does, somebody is awake. Whoever asks now and then costs nothing.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How many askers have somebody awake at a time: a processor for each is much, and others have work to do as well.
const SEATS: usize = 1;
/// How many questions, in how much time, make an asker lively.
const LIVELY: (u32, Duration) = (32, Duration::from_micros(32 * 100));
/// How long somebody stays awake for the next question.
const AWAKE: Duration = Duration::from_micros(50);
/// How long the thread sleeps for a question before the asker counts as quiet, and how many times in a row it may have to.
const NAP: Duration = Duration::from_millis(1);
const NAPS: u32 = 8;

static FREE: Semaphore = Semaphore::const_new(SEATS);

/// Returns the right to a thread that stays awake, if there is one left, and a processor for it.
pub(super) fn seat() -> Option<SemaphorePermit<'static>> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    FREE.try_acquire().ok().filter(|_| processors > SEATS)
}

/// How quickly questions come.
#[derive(Debug)]
pub(super) struct Pace {
    questions: u32,
    since: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            questions: 0,
            since: Instant::now(),
        }
    }

    /// Counts a question, and returns whether the last ones came quickly one after the other.
    pub(super) fn is_lively(&mut self) -> bool {
        let (most, time) = LIVELY;
        self.questions += 1;
        if self.questions < most {
            return false;
        }
        self.questions = 0;
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.since, now)) < time
    }
}

/// Ends the thread with whoever waits for it.
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Has a thread hand each question to `answer` until the asker is quiet, or `answer` returns what is left to be done.
pub(super) async fn converse<T: Send + 'static>(
    seat: SemaphorePermit<'static>,
    socket: Arc<UdpSocket>,
    answer: impl Fn(&[u8], SocketAddr) -> Option<T> + Send + 'static,
) -> Option<T> {
    let over = Over(Arc::default());
    let is_over = Arc::clone(&over.0);
    let conversation = tokio::task::spawn_blocking(move || {
        let _seat = seat;
        let mut buffer = vec![0; super::serve::QUESTION];
        let mut naps = 0;
        while !is_over.load(Ordering::Relaxed) && naps <= NAPS {
            let (length, from) = match receive(&socket, &mut buffer) {
                Ok(Some(received)) => {
                    naps = 0;
                    received
                }
                Ok(None) if sleep(&socket) => {
                    naps += 1;
                    continue;
                }
                Ok(None) | Err(_) => break,
            };
            let left = answer(&buffer[..length], from);
            if left.is_some() {
                return left;
            }
        }
        None
    });
    conversation.await.ok().flatten()
}

/// Takes a question that comes while somebody is awake.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
    let begun = Instant::now();
    loop {
        match socket.recv_from(buffer) {
            Ok(received) => return Ok(Some(received)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if begun.elapsed() >= AWAKE {
            return Ok(None);
        }
        std::hint::spin_loop();
    }
}

/// Sleeps until there is a question, and returns whether there is one.
fn sleep(socket: &UdpSocket) -> bool {
    let nap = Timespec {
        tv_sec: 0,
        tv_nsec: NAP.subsec_nanos().into(),
    };
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&nap)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that is asked, and one that asks it.
    fn pair() -> (Arc<UdpSocket>, UdpSocket) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let asker = UdpSocket::bind("127.0.0.1:0").unwrap();
        asker.connect(socket.local_addr().unwrap()).unwrap();
        asker.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        (Arc::new(socket), asker)
    }

    /// Gives back what it is asked, until it is asked `"open"`.
    fn answer(socket: &Arc<UdpSocket>) -> impl Fn(&[u8], SocketAddr) -> Option<Vec<u8>> + Send + 'static {
        let socket = Arc::clone(socket);
        move |question, from| {
            if question == b"open" {
                return Some(question.to_vec());
            }
            socket.send_to(question, from).unwrap();
            None
        }
    }

    async fn free_seat() -> SemaphorePermit<'static> {
        for _ in 0..1000 {
            if let Some(seat) = seat() {
                return seat;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the seat is kept");
    }

    // One test, because there is one seat.
    #[tokio::test]
    async fn a_lively_asker_is_answered_until_it_is_quiet_or_asks_what_is_not_known_or_is_gone() {
        if std::thread::available_parallelism().map_or(1, usize::from) <= SEATS {
            assert!(seat().is_none(), "there is no processor to stay awake on");
            return;
        }
        let (socket, asker) = pair();
        let asking = std::thread::spawn(move || {
            for number in 0..2000u32 {
                asker.send(&number.to_le_bytes()).unwrap();
                let mut answer = [0; 16];
                assert_eq!(asker.recv(&mut answer).unwrap(), 4);
                assert_eq!(answer[..4], number.to_le_bytes());
            }
            asker
        });
        let seat = free_seat().await;
        assert!(super::seat().is_none());
        let mut left = converse(seat, Arc::clone(&socket), answer(&socket)).await;
        // How quickly it asks is up to the machine: it may have counted as quiet before its end.
        while !asking.is_finished() {
            assert_eq!(left, None);
            left = converse(free_seat().await, Arc::clone(&socket), answer(&socket)).await;
        }
        let asker = asking.join().unwrap();

        asker.send(b"one").unwrap();
        asker.send(b"open").unwrap();
        let left = converse(free_seat().await, Arc::clone(&socket), answer(&socket)).await;
        assert_eq!(left.as_deref(), Some(b"open".as_slice()));
        assert_eq!(asker.recv(&mut [0; 16]).unwrap(), 3, "what came before is answered");

        // Who waits is gone, and the asker does not stop.
        let stop = Arc::new(AtomicBool::default());
        let stopped = Arc::clone(&stop);
        let asking = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let _ = asker.send(b"again");
                std::thread::sleep(Duration::from_micros(20));
            }
        });
        let conversation = tokio::spawn(converse(free_seat().await, Arc::clone(&socket), answer(&socket)));
        tokio::time::sleep(Duration::from_millis(20)).await;
        conversation.abort();
        drop(free_seat().await);
        stop.store(true, Ordering::Relaxed);
        asking.join().unwrap();
    }

    #[test]
    fn only_who_asks_quickly_is_lively() {
        let mut pace = Pace::new();
        let (most, time) = LIVELY;
        assert!((1..most).all(|_| !pace.is_lively()), "too few");
        pace.since = Instant::now();
        assert!(pace.is_lively());
        assert!((1..most).all(|_| !pace.is_lively()), "it is counted anew");
        pace.since = Instant::now() - time;
        assert!(!pace.is_lively(), "too slow");
    }
}
