//! Work on many like things at once: the services of a large project do not depend on each other while they are read
//! and written.

pub use crate::os::crew::{each, threads};

/// From how many things on it pays to share them.
pub const MANY: usize = 32;

/// So many parts are made for each thread, as one may come late.
pub const PARTS: usize = 2;

/// Does the work in a few parts for each of this machine's processors, or in one if there is little to do. The results
/// are in the order of the items.
pub fn in_parts<T: Send, R: Send>(mut items: Vec<T>, work: impl Fn(Vec<T>) -> R + Sync) -> Vec<R> {
    let parts = match (items.len(), threads()) {
        (0..MANY, _) | (_, 1) => 1,
        (_, threads) => threads * PARTS,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_met_once_and_in_order() {
        for count in [0, 1, 2, 31, 32, 33, 1000, 1001] {
            let parts = in_parts((0..count).collect(), |part: Vec<usize>| part);
            assert_eq!(parts.concat(), (0..count).collect::<Vec<_>>(), "{count}");
        }
    }
}
