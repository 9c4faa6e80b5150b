//! Work on many like things at once: the services of a large project do not depend on each other while they are read
//! and written.

use std::sync::OnceLock;

/// From how many things on it pays to start a thread for some of them.
pub const MANY: usize = 200;

/// More threads than this only get into each other's way in the allocator.
const MOST_THREADS: usize = 4;

/// Does the work in as many parts as this machine has processors, or in one if there is little to do. The results are
/// in the order of the items.
pub fn in_parts<T: Send, R: Send>(mut items: Vec<T>, work: impl Fn(Vec<T>) -> R + Sync) -> Vec<R> {
    let parts = match items.len() {
        0..MANY => 1,
        _ => threads(),
    };
    let size = items.len().div_ceil(parts).max(1);
    let mut later = Vec::with_capacity(parts);
    while items.len() > size {
        later.push(items.split_off((items.len() - 1) / size * size));
    }
    later.push(items);
    later.reverse();
    each(later, work)
}

/// Does the work on each item at the same time, on the first by itself. The results are in the order of the items.
pub fn each<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let mut items = items.into_iter();
    let Some(first) = items.next() else {
        return Vec::new();
    };
    if items.len() == 0 {
        return vec![work(first)];
    }
    std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = items.map(|item| scope.spawn(move || work(item))).collect();
        let mut results = vec![work(first)];
        for thread in running {
            match thread.join() {
                Ok(result) => results.push(result),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    })
}

/// Returns how many threads are worth having. The answer costs a few system calls, and does not change.
pub fn threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| std::thread::available_parallelism().map_or(1, |count| count.get().min(MOST_THREADS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_met_once_and_in_order() {
        for count in [0, 1, 2, 199, 200, 201, 1000, 1001] {
            let parts = in_parts((0..count).collect(), |part: Vec<usize>| part);
            assert_eq!(parts.concat(), (0..count).collect::<Vec<_>>(), "{count}");
        }
    }
}
