//! Bringing the engine back: a container that runs is somebody's to look after.

use std::ffi::CString;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use crate::os::process::{SingleThreaded, StringTable, close_on_exec_from, duplicate_onto, execute, exit_now, fork};
use crate::os::signal;
use crate::runtime::launch::Respawn;

/// The longest pause between two attempts.
const LONGEST: Duration = Duration::from_secs(30);

/// Watches over the engine's absence.
#[derive(Debug)]
pub struct Watch {
    respawn: Option<Respawn>,
    due: Option<Instant>,
    pause: Duration,
    farewell: bool,
}

impl Watch {
    /// Begins to watch; without instructions there is nothing to do.
    pub fn new(respawn: Option<Respawn>) -> Self {
        Self {
            respawn,
            due: None,
            pause: Duration::from_secs(1),
            farewell: false,
        }
    }

    /// Notes that an engine is here.
    pub fn engine_came(&mut self) {
        self.due = None;
        self.pause = Duration::from_secs(1);
        self.farewell = false;
    }

    /// Notes that the engine means to leave.
    pub fn engine_says_farewell(&mut self) {
        self.farewell = true;
    }

    /// Notes that no engine is here.
    pub fn engine_left(&mut self) {
        if self.respawn.is_some() && !self.farewell && self.due.is_none() {
            // Of several shims one is first, and the others see its engine come.
            let jitter = u64::from(std::process::id() % 16) * 5;
            self.due = Some(Instant::now() + Duration::from_millis(20 + jitter));
        }
    }

    /// Returns how long there is nothing to do.
    pub fn rest(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Starts an engine if it is time to.
    pub fn act(&mut self, single: &SingleThreaded) {
        let Some(respawn) = self
            .respawn
            .as_ref()
            .filter(|_| self.due.is_some_and(|due| due <= Instant::now()))
        else {
            return;
        };
        if let Ok(None) = fork(single) {
            become_engine(respawn);
        }
        // It either connects, or another one does, or it failed: then again, ever more seldom.
        self.due = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST);
    }
}

fn become_engine(respawn: &Respawn) -> ! {
    let _ = rustix::process::setsid();
    if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        for stream in 0..3 {
            let _ = duplicate_onto(std::os::fd::AsFd::as_fd(&null), stream);
        }
    }
    let environment = respawn.env.iter().map(|(name, value)| format!("{name}={value}"));
    if let (Some(program), Ok(arguments), Ok(environment)) = (
        respawn
            .argv
            .first()
            .and_then(|program| CString::new(program.as_str()).ok()),
        StringTable::new(&respawn.argv),
        StringTable::new(environment),
    ) {
        signal::reset_all();
        let _ = rustix::process::set_parent_process_death_signal(None);
        let _ = close_on_exec_from(3);
        execute(&program, &arguments, &environment);
        // The program was replaced or removed; this process is a sealed copy of it.
        execute(c"/proc/self/exe", &arguments, &environment);
    }
    exit_now(127)
}
