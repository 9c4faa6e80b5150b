//! A few threads that share small pieces of work with the one that has it.
//!
//! To start a thread, or to wake one that sleeps, takes longer than most of what a command does with a few hundred
//! things. These stay awake for a moment after each piece, and whoever waits for a piece does others meanwhile: where no
//! thread comes in time, nothing has been lost.

use std::any::Any;
use std::collections::VecDeque;
use std::os::unix::thread::JoinHandleExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// More threads than this only get into each other's way in the allocator.
const MOST_THREADS: usize = 4;

/// How long a thread that has nothing to do stays awake.
const AWAKE: Duration = Duration::from_millis(1);

type Piece = Box<dyn FnOnce() + Send>;

/// The threads, as many as this machine has processors less the one that has the work.
struct Crew {
    pieces: Mutex<VecDeque<Piece>>,
    /// How many pieces there are, to be asked without taking the lock.
    waiting: AtomicUsize,
    asleep: AtomicUsize,
    more: Condvar,
}

/// Returns how many threads take part in work, the asking one among them. The answer costs a few system calls, and
/// does not change.
pub fn threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| std::thread::available_parallelism().map_or(1, |count| count.get().min(MOST_THREADS)))
}

/// Does the work on each item, on several at the same time. The results are in the order of the items.
pub fn each<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    if items.len() < 2 || threads() < 2 {
        return items.into_iter().map(work).collect();
    }
    let crew = crew();
    let mut results: Vec<Option<Result<R, Box<dyn Any + Send>>>> = Vec::new();
    results.resize_with(items.len(), || None);
    let left = AtomicUsize::new(items.len());
    {
        let (work, left) = (&work, &left);
        let mut pieces = items.into_iter().zip(&mut results).map(|(item, result)| {
            let piece: Box<dyn FnOnce() + Send + '_> = Box::new(move || {
                *result = Some(catch_unwind(AssertUnwindSafe(|| work(item))));
                left.fetch_sub(1, Ordering::Release);
            });
            // SAFETY: what a piece refers to outlives it, as this function does not return before `left` says that all
            // of them have been done, and nothing in between panics: the work's own panics are caught.
            unsafe { std::mem::transmute::<Box<dyn FnOnce() + Send + '_>, Piece>(piece) }
        });
        let first = pieces.next();
        crew.add(pieces);
        if let Some(first) = first {
            first();
        }
        let mut looks = 0;
        while left.load(Ordering::Acquire) > 0 {
            // Whatever is there is work that somebody waits for.
            match crew.take() {
                Some(piece) => piece(),
                None => look_again(&mut looks),
            }
        }
    }
    let done = results.into_iter().flatten();
    done.map(|result| result.unwrap_or_else(|panic| resume_unwind(panic)))
        .collect()
}

/// Passes a moment before the next look. Whoever else wants the processor has it now and then: it may be the one that is
/// waited for.
fn look_again(looks: &mut u32) {
    *looks = looks.wrapping_add(1);
    match looks.is_multiple_of(64) {
        true => std::thread::yield_now(),
        false => std::hint::spin_loop(),
    }
}

/// Returns the threads, started when they are first wanted.
fn crew() -> &'static Crew {
    static CREW: OnceLock<&Crew> = OnceLock::new();
    CREW.get_or_init(|| {
        let crew: &'static Crew = Box::leak(Box::new(Crew {
            pieces: Mutex::default(),
            waiting: AtomicUsize::new(0),
            asleep: AtomicUsize::new(0),
            more: Condvar::new(),
        }));
        let elsewhere = elsewhere();
        for _ in 1..threads() {
            // Where no thread can be had, whoever has the work does all of it.
            if let (Ok(thread), Some(elsewhere)) = (std::thread::Builder::new().spawn(|| crew.serve()), &elsewhere) {
                // SAFETY: the thread is not over, as it never ends, and the set is of the size that is told.
                unsafe { libc::pthread_setaffinity_np(thread.as_pthread_t(), size_of_val(elsewhere), elsewhere) };
            }
        }
        crew
    })
}

/// Returns the processors that the calling thread may use less the one that it uses. A thread begins where the one is
/// that started it, and there it would wait for that one's pauses until the kernel next looks for idle processors,
/// which may be later than the end of the command.
fn elsewhere() -> Option<libc::cpu_set_t> {
    // SAFETY: a set of processors is an array of bits, of the size that is told; no bit beyond it is touched.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let here = usize::try_from(libc::sched_getcpu()).ok()?;
        if libc::sched_getaffinity(0, size_of_val(&set), &mut set) != 0 || here >= 8 * size_of_val(&set) {
            return None;
        }
        libc::CPU_CLR(here, &mut set);
        (libc::CPU_COUNT(&set) > 0).then_some(set)
    }
}

impl Crew {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Piece>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, pieces: impl Iterator<Item = Piece>) {
        let mut queue = self.lock();
        queue.extend(pieces);
        self.waiting.store(queue.len(), Ordering::Release);
        drop(queue);
        if self.asleep.load(Ordering::Acquire) > 0 {
            self.more.notify_all();
        }
    }

    fn take(&self) -> Option<Piece> {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut queue = self.lock();
        let piece = queue.pop_front();
        self.waiting.store(queue.len(), Ordering::Release);
        piece
    }

    fn serve(&self) {
        loop {
            let idle_since = Instant::now();
            let mut looks = 0;
            let piece = loop {
                if let Some(piece) = self.take() {
                    break piece;
                }
                if idle_since.elapsed() > AWAKE {
                    break self.sleep();
                }
                look_again(&mut looks);
            };
            piece();
        }
    }

    /// Sleeps until there is something to do.
    fn sleep(&self) -> Piece {
        let mut queue = self.lock();
        self.asleep.fetch_add(1, Ordering::Release);
        let piece = loop {
            match queue.pop_front() {
                Some(piece) => break piece,
                None => queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        };
        self.waiting.store(queue.len(), Ordering::Release);
        self.asleep.fetch_sub(1, Ordering::Release);
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_met_once_and_in_order() {
        for count in [0, 1, 2, 3, 50, 1000] {
            for pause in [0, 2] {
                let doubled = each((0..count).collect(), |item: usize| item * 2);
                assert_eq!(doubled, (0..count).map(|item| item * 2).collect::<Vec<_>>());
                std::thread::sleep(Duration::from_millis(pause));
            }
        }
    }

    #[test]
    fn several_may_have_work_and_work_may_have_work() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..50 {
                        let sums = each((0..20).collect(), |outer: usize| {
                            each((0..10).collect(), |inner: usize| inner + outer + round)
                                .iter()
                                .sum::<usize>()
                        });
                        let expected: Vec<usize> = (0..20).map(|outer| 45 + 10 * (outer + round)).collect();
                        assert_eq!(sums, expected);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_comes_out_where_the_work_is_wanted() {
        let met = AtomicUsize::new(0);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            each((0..10).collect(), |item: usize| {
                met.fetch_add(1, Ordering::Relaxed);
                assert_ne!(item, 3, "three");
                item
            })
        }));
        assert_eq!(
            outcome
                .unwrap_err()
                .downcast_ref::<String>()
                .map(|text| text.contains("three")),
            Some(true)
        );
        assert_eq!(met.load(Ordering::Relaxed), 10);
    }
}
