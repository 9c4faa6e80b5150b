//! Keeps a long-lived process small, and a short one fast.

/// Tells the allocator to use one arena and to give memory back early.
///
/// By default glibc makes up to eight arenas per core, each of which keeps what it once had; a daemon that mostly
/// waits is better served by one.
pub fn keep_small() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and touches only the allocator's own settings.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 * 1024);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
    }
}

/// Tells the allocator to ask the kernel for much memory at once, and to keep it.
///
/// By default glibc extends the arena of a thread page by page: for a program that only ever grows, each page is a system
/// call, during which no other thread can get a page. What is asked for and never touched costs nothing.
pub fn grow_in_large_steps() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and touches only the allocator's own settings.
    unsafe {
        libc::mallopt(libc::M_TOP_PAD, 16 << 20);
    }
}

/// Gives memory that is free in the allocator back to the kernel.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes an integer and is safe to call from any thread.
    unsafe {
        libc::malloc_trim(64 * 1024);
    }
}

/// Lets go of the program's own code and constants; what runs on is read in again, page by page.
///
/// The kernel maps the neighbours of every page that is touched, and starting touches pages all over the program that
/// nobody needs again: a process that waits for weeks would hold most of the program that way.
pub fn release_code() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return;
    };
    for (start, length) in code(&maps) {
        // SAFETY: the range is one whole private mapping of a file that is not writable and was never written to:
        // code, or the segment of constants at the file's beginning. What the kernel drops it reads from the file
        // again. Relocated constants lie in another mapping, further on in the file.
        unsafe {
            libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED);
        }
    }
}

/// Finds the mappings of code, and of the constants before it, in the text of `/proc/self/maps`.
fn code(maps: &str) -> Vec<(usize, usize)> {
    let mapping = |line: &str| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let (rights, offset, inode) = (words.next()?, words.next()?, words.nth(1)?);
        let constant = rights == "r--p" && offset.bytes().all(|digit| digit == b'0');
        if inode == "0" || !(constant || rights == "r-xp") {
            return None;
        }
        let start = usize::from_str_radix(start, 16).ok()?;
        Some((start, usize::from_str_radix(end, 16).ok()?.checked_sub(start)?))
    };
    maps.lines().filter_map(mapping).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_and_the_constants_before_it_are_released() {
        let maps = "\
7f0000000000-7f0000003000 r--p 00000000 00:01 77  /memfd:compose (deleted)
7f0000003000-7f0000009000 r-xp 00003000 00:01 77  /memfd:compose (deleted)
7f0000009000-7f000000a000 r--p 00009000 00:01 77  /memfd:compose (deleted)
7f000000a000-7f000000b000 rw-p 0000a000 00:01 77  /memfd:compose (deleted)
7f000000b000-7f000000c000 rw-p 00000000 00:00 0  [heap]
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0  [vdso]
";
        assert_eq!(code(maps), [(0x7f00_0000_0000, 0x3000), (0x7f00_0000_3000, 0x6000)]);
    }

    #[test]
    fn a_program_goes_on_without_its_pages() {
        release_code();
        assert_eq!("a constant".len(), 10);
    }
}
