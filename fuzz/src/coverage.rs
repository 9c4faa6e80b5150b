//! Which code a text reached, counted by the compiler's own instrumentation (`-sanitizer-coverage-inline-8bit-counters`).
//!
//! Without it, as in a plain `cargo build`, nothing is ever new and texts are changed blindly.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Where the counters of the program begin and end. With static linking there is one range per crate part, all in one
/// section.
static START: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);

/// Called before `main` by the instrumented code.
#[unsafe(no_mangle)]
pub extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, end: *mut u8) {
    START.store(start as usize, Ordering::Relaxed);
    END.store(end as usize, Ordering::Relaxed);
}

/// Seen so far: for each counter, a bit for every magnitude of its value.
#[derive(Default)]
pub struct Coverage {
    seen: Vec<u8>,
}

impl Coverage {
    fn counters() -> &'static mut [u8] {
        let (start, end) = (START.load(Ordering::Relaxed), END.load(Ordering::Relaxed));
        if start == 0 {
            return &mut [];
        }
        // SAFETY: the linker made the section between both, it lives as long as the program, and only this thread runs
        // instrumented code; no other reference to it exists while this one is used.
        unsafe { std::slice::from_raw_parts_mut(start as *mut u8, end - start) }
    }

    pub fn clear(&mut self) {
        Self::counters().fill(0);
    }

    /// Says whether the text that just ran reached something new, and remembers it.
    pub fn is_new(&mut self) -> bool {
        let counters = Self::counters();
        self.seen.resize(counters.len(), 0);
        let mut new = false;
        for (counter, seen) in counters
            .iter()
            .zip(&mut self.seen)
            .filter(|(counter, _)| **counter != 0)
        {
            let magnitude = 1u8 << counter.ilog2();
            new |= *seen & magnitude == 0;
            *seen |= magnitude;
        }
        new
    }

    pub fn reached(&self) -> usize {
        self.seen.iter().filter(|seen| **seen != 0).count()
    }
}
