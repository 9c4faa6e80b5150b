//! A container's processes where it has no cgroup to count them by: those of its pid namespace.

use std::fs;
use std::io;
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};

/// How often a container is looked through for processes made while it was being stopped.
const ROUNDS: usize = 16;

/// Returns the processes that share a pid namespace with a container's first process. One that shares the host's has that
/// process alone: the others are not known to be its.
pub fn members(first: u32) -> Vec<u32> {
    let Some(namespace) = namespace(&first.to_string()) else {
        return Vec::new();
    };
    if Some(&namespace) == self::namespace("self").as_ref() {
        return vec![first];
    }
    let mut members: Vec<u32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|process: &u32| self::namespace(&process.to_string()).as_ref() == Some(&namespace))
        .collect();
    members.sort_unstable();
    members
}

fn namespace(process: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/pid")).ok()
}

/// Stops every process where it is, or lets them go on. Unlike with a cgroup they can tell.
pub fn stop(first: u32, stopped: bool) -> io::Result<()> {
    let signal = if stopped { Signal::STOP } else { Signal::CONT };
    let mut done: Vec<u32> = Vec::new();
    for _ in 0..ROUNDS {
        let new: Vec<u32> = members(first)
            .into_iter()
            .filter(|process| !done.contains(process))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        for &process in &new {
            // One that has ended meanwhile needs no stopping.
            if let Some(process) = i32::try_from(process).ok().and_then(Pid::from_raw) {
                let _ = kill_process(process, signal);
            }
        }
        done.extend(new);
    }
    Err(io::Error::other("processes are made faster than they can be stopped"))
}
