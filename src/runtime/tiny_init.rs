//! Process 1 of a container with `init: true`: forwards signals to the user's process, reaps what is orphaned, and
//! ends as the user's process does.

use std::ffi::{CString, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::ExitCode;

use rustix::process::{Pid, WaitOptions};

use crate::os::process::{SingleThreaded, StringTable, execute, exit_now, fork};
use crate::os::signal;

/// The name this program runs under as process 1.
pub const NAME: &str = "/sbin/docker-init";

/// Every signal but those that are a fault of this process's own or cannot be caught.
fn forwarded() -> Vec<i32> {
    let own = [
        libc::SIGKILL,
        libc::SIGSTOP,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGABRT,
        libc::SIGTRAP,
        libc::SIGSYS,
        libc::SIGTTIN,
        libc::SIGTTOU,
    ];
    // 32 and 33 are the C library's own.
    (1..=64)
        .filter(|number| !own.contains(number) && ![32, 33].contains(number))
        .collect()
}

/// Runs the command after `--`.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let command: Vec<Vec<u8>> = arguments
        .skip_while(|argument| argument != "--")
        .skip(1)
        .map(OsString::into_vec)
        .collect();
    // Tools tell process 1 by its name; a failure costs nothing but that.
    let _ = rustix::thread::set_name(c"docker-init");
    let Ok(Some(single)) = SingleThreaded::check() else {
        return ExitCode::FAILURE;
    };
    let signals = forwarded();
    if command.is_empty() || signal::block(&signals).is_err() {
        return ExitCode::FAILURE;
    }
    let child = match fork(&single) {
        Ok(None) => become_command(&command),
        Ok(Some(child)) => child,
        Err(_) => return ExitCode::FAILURE,
    };
    ExitCode::from(look_after(child, &signals))
}

fn look_after(child: Pid, signals: &[i32]) -> u8 {
    loop {
        match signal::wait(signals) {
            Ok(libc::SIGCHLD) => {
                let mut ended = None;
                while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
                    if pid == child {
                        let code = status
                            .exit_status()
                            .or(status.terminating_signal().map(|signal| 128 + signal));
                        ended = code.map(|code| u8::try_from(code & 0xFF).unwrap_or(u8::MAX));
                    }
                }
                if let Some(code) = ended {
                    return code;
                }
            }
            Ok(number) => signal::kill(child, number),
            Err(_) => {}
        }
    }
}

fn become_command(command: &[Vec<u8>]) -> ! {
    // The user's process is in the foreground of its terminal, as it would be as process 1.
    let _ = rustix::process::setpgid(None, None);
    signal::ignore(libc::SIGTTOU);
    let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid());
    signal::reset_all();
    let environment: Vec<Vec<u8>> = std::env::vars_os()
        .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat())
        .collect();
    let name = &command[0];
    let mut error = io::Error::from_raw_os_error(libc::ENOENT);
    if let (Ok(arguments), Ok(environment)) = (StringTable::new(command), StringTable::new(&environment)) {
        for candidate in candidates(name) {
            if let Ok(path) = CString::new(candidate) {
                error = execute(&path, &arguments, &environment);
            }
        }
    }
    // In the words of the init that docker runs.
    let text = error.to_string();
    let _ = writeln!(
        io::stderr(),
        "[FATAL tini ({})] exec {} failed: {}",
        rustix::process::getpid(),
        String::from_utf8_lossy(name),
        text.split(" (os error").next().unwrap_or(&text)
    );
    exit_now(if error.kind() == io::ErrorKind::NotFound {
        127
    } else {
        126
    })
}

fn candidates(name: &[u8]) -> Vec<Vec<u8>> {
    if name.contains(&b'/') {
        return vec![name.to_vec()];
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(Path::new(std::ffi::OsStr::from_bytes(name))))
        .filter(|candidate| candidate.exists())
        .map(|candidate| candidate.into_os_string().into_vec())
        .collect()
}
