//! The zygote: one process of one thread per engine, which shims are forked from.
//!
//! It is the program itself, run from a sealed copy in memory. A fork of it costs a tenth of a millisecond, shares
//! every page it does not write to with all the others, and can safely do anything, which a fork of the engine with
//! its threads cannot.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use crate::os::process::{SingleThreaded, close_inherited, exit_now, fork, take_stdin};
use crate::os::{memory, signal, socket};
use crate::runtime::cgroup::Layout;
use crate::runtime::ids;
use crate::runtime::protocol::ZygoteRequest;
use crate::runtime::root;
use crate::runtime::shim::{self, Inheritance};

/// Entry point of the process that forks shims; runs before any thread exists.
pub fn main() -> ExitCode {
    // Whoever runs this by hand gets no further than here: there is no socket to be asked by.
    let Ok(Some(single)) = SingleThreaded::check() else {
        return ExitCode::FAILURE;
    };
    memory::keep_small();
    // Shims live long, and whoever waits for the end of a pipe of the engine's parents would wait for them.
    if close_inherited(&single).is_err() {
        return ExitCode::FAILURE;
    }
    match take_stdin() {
        Ok(requests) => serve(single, requests),
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(single: SingleThreaded, requests: OwnedFd) -> ExitCode {
    // Shims are nobody's to wait for.
    signal::ignore(libc::SIGCHLD);
    for ignored in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE] {
        signal::ignore(ignored);
    }
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"compose-zygote");
    let layout = Layout::read();
    memory::release_code();
    while let Ok(Some(message)) = socket::receive(&requests) {
        let mut descriptors = message.descriptors.into_iter();
        match serde_json::from_slice(&message.bytes) {
            Ok(ZygoteRequest::Shim) => {
                let (Some(engine), Some(plan), Some(init)) =
                    (descriptors.next(), descriptors.next(), descriptors.next())
                else {
                    continue;
                };
                if let Ok(None) = fork(&single) {
                    // Or the engine would never see a zygote's death.
                    drop(requests);
                    let inheritance = Inheritance {
                        engine,
                        plan,
                        init,
                        rest: descriptors.collect(),
                    };
                    shim::run(single, &layout, inheritance);
                }
            }
            Ok(ZygoteRequest::Root) => {
                let (Some(engine), Some(plan)) = (descriptors.next(), descriptors.next()) else {
                    continue;
                };
                if let Ok(None) = fork(&single) {
                    // Or the engine would never see a zygote's death.
                    drop(requests);
                    root::hold(&single, &engine, &plan);
                    exit_now(0);
                }
            }
            Ok(ZygoteRequest::UserNamespace(plan)) => {
                let Some(engine) = descriptors.next() else { continue };
                if let Ok(None) = fork(&single) {
                    drop(requests);
                    let sent = ids::make(&single, &plan.users, &plan.groups, true).and_then(|made| {
                        let all: Vec<_> = [Some(&made.user), made.network.as_ref()]
                            .into_iter()
                            .flatten()
                            .map(AsFd::as_fd)
                            .collect();
                        socket::send(&engine, b"made", &all)
                    });
                    if let Err(error) = sent {
                        let _ = socket::send(&engine, error.to_string().as_bytes(), &[]);
                    }
                    exit_now(0);
                }
            }
            Err(_) => {}
        }
    }
    ExitCode::SUCCESS
}
