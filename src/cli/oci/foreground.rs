//! Staying with a process until it ends: its terminal is carried, signals go to it, and its exit code is ours.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitId, WaitIdOptions};

use super::{Failure, warn};
use crate::os::process::{Child, SingleThreaded};
use crate::os::signal;
use crate::runtime::oci::{Containers, Creation};
use crate::ui::terminal::{self, RawTerminal};

/// What is passed on to the process.
const PASSED: [i32; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGCONT,
    libc::SIGWINCH,
];

/// Creates and starts a container, and stays with it unless it is `detached`.
pub fn run(
    single: &SingleThreaded,
    containers: &Containers,
    what: &Creation,
    detached: bool,
    keep: bool,
) -> Result<ExitCode, Failure> {
    let started = containers.create(single, what)?;
    warn(&started);
    if let Err(error) = containers.start(&what.id) {
        let _ = containers.delete(&what.id, true);
        return Err(error.into());
    }
    if detached {
        return Ok(ExitCode::SUCCESS);
    }
    let carried = started.terminal.as_ref().filter(|_| what.console_socket.is_none());
    let code = attend(&started.child, carried);
    if !keep {
        containers.delete(&what.id, true)?;
    }
    Ok(ExitCode::from(code?))
}

/// Stays with a process until its end, and returns its exit code.
pub fn attend(child: &Child, carried: Option<&OwnedFd>) -> Result<u8, Failure> {
    let signals = signal::descriptor(&PASSED)?;
    let raw = match carried {
        Some(_) => RawTerminal::enter()?,
        None => None,
    };
    let result = carry(child, carried, &signals);
    drop(raw);
    result?;
    let status =
        rustix::process::waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).map_err(io::Error::from)?;
    let code = status.and_then(|status| {
        let code = status.exit_status();
        code.or(status.terminating_signal().map(|signal| 128 + signal))
    });
    Ok(u8::try_from(code.unwrap_or(255)).unwrap_or(255))
}

fn carry(child: &Child, terminal: Option<&OwnedFd>, signals: &OwnedFd) -> Result<(), Failure> {
    let stdin = io::stdin();
    let mut reads = terminal.is_some();
    if let Some(terminal) = terminal {
        resize(terminal);
    }
    loop {
        let mut descriptors = vec![
            PollFd::new(&child.pidfd, PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
        ];
        if let Some(terminal) = terminal {
            descriptors.push(PollFd::new(terminal, PollFlags::IN));
            if reads {
                descriptors.push(PollFd::new(&stdin, PollFlags::IN));
            }
        }
        match poll(&mut descriptors, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let ready: Vec<bool> = descriptors
            .iter()
            .map(|descriptor| !descriptor.revents().is_empty())
            .collect();
        drop(descriptors);
        if let (Some(terminal), Some(true)) = (terminal, ready.get(2)) {
            pass(terminal, rustix::stdio::stdout());
        }
        if let (Some(terminal), Some(true)) = (terminal, ready.get(3)) {
            reads = pass(&stdin, terminal);
        }
        if ready[1] {
            pass_signals(child, terminal, signals);
        }
        if ready[0] {
            if let Some(terminal) = terminal {
                // What it said last.
                while pass(terminal, rustix::stdio::stdout()) {}
            }
            return Ok(());
        }
    }
}

/// Passes on what there is to read, and returns whether there may be more.
fn pass(from: impl AsFd, to: impl AsFd) -> bool {
    let mut buffer = [0; 16 * 1024];
    let Ok(count) = rustix::io::read(from, &mut buffer) else {
        return false;
    };
    let mut rest = &buffer[..count];
    while !rest.is_empty() {
        match rustix::io::write(&to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(rustix::io::Errno::AGAIN) => {
                let mut descriptors = [PollFd::new(&to, PollFlags::OUT)];
                let _ = poll(&mut descriptors, None);
            }
            Err(_) => return false,
        }
    }
    count > 0
}

fn pass_signals(child: &Child, terminal: Option<&OwnedFd>, signals: &OwnedFd) {
    for number in signal::read(signals) {
        match terminal {
            Some(terminal) if number == libc::SIGWINCH => resize(terminal),
            _ => drop(signal::send(child.pidfd.as_fd(), number)),
        }
    }
}

fn resize(terminal: &OwnedFd) {
    if let Some((rows, columns)) = terminal::size() {
        let size = rustix::termios::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let _ = rustix::termios::tcsetwinsize(terminal, size);
    }
}
