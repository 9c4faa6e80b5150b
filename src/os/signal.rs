//! Signals: which ones this process ignores, and those it reads from a descriptor.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The highest signal number.
const LAST: i32 = 64;

/// Ignores a signal.
pub fn ignore(signal: i32) {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Gives a signal its default meaning again.
pub fn default(signal: i32) {
    // SAFETY: SIG_DFL runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Blocks `signals` and returns a descriptor that they are read from.
pub fn descriptor(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before anything reads it.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let descriptor = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

/// Puts every signal back as a new program expects it: default meaning, none blocked.
pub fn reset_all() {
    for signal in 1..=LAST {
        // Not through the C library, which keeps its own two signals, so that one ignored by a caller would stay ignored.
        // Nought is SIG_DFL with no flags and an empty mask, and 32 bytes is the kernel's longest form of it.
        let action = [0_u64; 4];
        // SAFETY: the kernel only reads `action`; the default meaning runs no code of ours. A refusal (SIGKILL,
        // SIGSTOP) changes nothing.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                action.as_ptr(),
                std::ptr::null_mut::<u64>(),
                8_usize,
            );
        }
    }
    // SAFETY: as in `descriptor`; an empty mask blocks nothing.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Returns the signals that wait at a descriptor of [`descriptor`].
pub fn read(descriptor: &OwnedFd) -> Vec<i32> {
    const SIZE: usize = std::mem::size_of::<libc::signalfd_siginfo>();
    let mut numbers = Vec::new();
    let mut buffer = [0; SIZE];
    while rustix::io::read(descriptor, &mut buffer).is_ok_and(|count| count == SIZE) {
        // The number is the structure's first field.
        numbers.push(i32::from_ne_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]));
    }
    numbers
}

/// Waits for one of `signals`, which must be blocked, and returns it.
pub fn wait(signals: &[i32]) -> io::Result<i32> {
    // SAFETY: as in `descriptor`.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        let mut received = 0;
        match libc::sigwait(&raw const set, &raw mut received) {
            0 => Ok(received),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Blocks `signals` in this process.
pub fn block(signals: &[i32]) -> io::Result<()> {
    descriptor(signals).map(drop)
}

/// Sends a signal, of whatever number, to the process that `process` is a descriptor of.
pub fn send(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo asks for what kill(2) would send.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sends a signal, of whatever number, to a child that has not been waited for.
pub fn kill(child: rustix::process::Pid, signal: i32) {
    // SAFETY: kill has no preconditions.
    unsafe { libc::kill(child.as_raw_nonzero().get(), signal) };
}
