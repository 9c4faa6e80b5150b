//! Two names that change places without end, for tests of what walks through them meanwhile.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Does something while two names change places.
pub fn meanwhile<T>(one: &Path, other: &Path, act: impl FnOnce() -> T) -> T {
    let goes_on = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let exchanging = scope.spawn(|| {
            while goes_on.load(Ordering::Relaxed) {
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let done = act();
        goes_on.store(false, Ordering::Relaxed);
        exchanging.join().unwrap();
        done
    })
}
