//! The shim: the parent of a container's first process, which outlives the engine.
//!
//! One thread, one loop over `poll`, and as little memory as can be. It owns the container's streams and log, writes
//! the record of its end before it tells anybody, runs further processes in the container, keeps descriptors for the
//! engine, and starts the engine again when that is gone. The kernel kills the container's first process if the shim
//! dies, so that no container is ever without one.

pub(in crate::runtime) mod birth;
mod forward;
mod log;
pub(in crate::runtime) mod pump;
mod respawn;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitOptions, WaitStatus};

use crate::os::process::{Child, SingleThreaded, exit_now};
use crate::os::{memfd, signal, socket};
use crate::runtime::cgroup::{self, Cgroup, Layout};
use crate::runtime::launch::{AttachOptions, ExitRecord};
use crate::runtime::protocol::{self, Answer, Command, Report, Request, ShimPlan, State, VERSION};
use crate::runtime::record;
use crate::runtime::time::Timestamp;
use birth::{BirthError, Born, Course, First, Further};
use log::{LogWriter, Stream};
use pump::{Port, Pump};
use respawn::Watch;

/// How long output is waited for once every process has been killed.
const GRACE: Duration = Duration::from_secs(2);
/// How long a container runs before its shim settles down to wait: one that ends sooner would only be slowed down.
const SETTLED: Duration = Duration::from_secs(1);
/// How long those attached may take to read what is left for them.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a new shim is given besides its plan.
pub struct Inheritance {
    /// The engine that asked for it.
    pub engine: OwnedFd,
    /// The plan.
    pub plan: OwnedFd,
    /// Init's instructions.
    pub init: OwnedFd,
    /// The filter and the network namespace, where the plan names them.
    pub rest: Vec<OwnedFd>,
}

/// Becomes a shim.
pub fn run(single: SingleThreaded, layout: &Layout, inheritance: Inheritance) -> ! {
    for ignored in [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGPIPE,
        libc::SIGUSR1,
    ] {
        signal::ignore(ignored);
    }
    signal::default(libc::SIGCHLD);
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"compose-shim");
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let Inheritance {
        engine,
        plan,
        init,
        mut rest,
    } = inheritance;
    let mut word = None;
    let started = memfd::read_all(&plan)
        .and_then(|plan| Ok(serde_json::from_slice::<ShimPlan>(&plan)?))
        .map_err(|error| error.to_string())
        .and_then(|read| {
            drop(plan);
            let place = usize::from(read.has_seccomp);
            if read.awaits_netns && place < rest.len() {
                word = Some(rest.remove(place));
            }
            Shim::start(single, layout, read, &engine, init, rest, word.as_ref())
        });
    match started {
        Ok(shim) => {
            drop(word);
            shim.live(engine)
        }
        Err(text) => {
            // With the end of this, the engine has said all it is going to say.
            if let Some(word) = word {
                while let Ok(Some(_)) = socket::receive(&word) {}
            }
            // What was queued for a container that never came must be read: the kernel answers a socket closed over
            // unread messages with a reset, and the reason would be lost.
            let _ = rustix::io::ioctl_fionbio(&engine, true);
            while let Ok(Some(_)) = socket::receive(&engine) {}
            tell(&engine, &Report::Failed(text), &[]);
            exit_now(1)
        }
    }
}

fn tell(socket: &OwnedFd, report: &Report, descriptors: &[std::os::fd::BorrowedFd<'_>]) -> bool {
    serde_json::to_vec(report).is_ok_and(|report| socket::send(socket, &report, descriptors).is_ok())
}

/// A process run in the container.
struct Guest {
    exec: u64,
    child: Child,
    pump: Pump,
    /// Its exit code, once it has one.
    code: Option<i32>,
}

struct Shim {
    single: SingleThreaded,
    plan: ShimPlan,
    directory: OwnedFd,
    lock: Option<File>,
    listener: Option<OwnedFd>,
    signals: OwnedFd,
    engines: Vec<OwnedFd>,
    /// Which engines hung up in this round of the loop, in order.
    gone: Vec<usize>,
    first: Child,
    pump: Pump,
    log: LogWriter,
    guests: Vec<Guest>,
    store: Vec<(String, OwnedFd)>,
    filter: Option<OwnedFd>,
    cgroup: Cgroup,
    watch: Watch,
    started: Timestamp,
    /// The first process's end, and until when its output is waited for.
    ended: Option<(ExitRecord, Instant)>,
    /// Whether the end has been announced, and until when those attached may read on.
    announced: Option<Instant>,
}

/// What a descriptor in the loop belongs to.
#[derive(Clone, Copy)]
enum Token {
    Signals,
    Listener,
    Engine(usize),
    First(Port),
    Guest(usize, Port),
}

impl Shim {
    /// Makes the container. Whatever was made is gone again when it fails.
    fn start(
        single: SingleThreaded,
        layout: &Layout,
        mut plan: ShimPlan,
        engine: &OwnedFd,
        init: OwnedFd,
        rest: Vec<OwnedFd>,
        word: Option<&OwnedFd>,
    ) -> Result<Self, String> {
        let failed = |attempt: &str| {
            let attempt = attempt.to_owned();
            move |error: io::Error| format!("failed to {attempt}: {error}")
        };
        let lock = take_lock(&plan).map_err(failed("lock the container's directory"))?;
        let directory: OwnedFd = File::open(&plan.dir)
            .map_err(failed("open the container's directory"))?
            .into();
        let listener = socket::listen(directory.as_fd(), protocol::SOCKET).map_err(failed("listen for the engine"))?;
        let log = LogWriter::open(&plan.log, plan.forward.as_ref()).map_err(failed("initialize logging driver"))?;
        let signals = signal::descriptor(&[libc::SIGCHLD]).map_err(failed("watch for signals"))?;
        let mut rest = rest.into_iter();
        let filter = if plan.has_seccomp { rest.next() } else { None };
        let mut netns = if plan.has_netns && word.is_none() {
            rest.next()
        } else {
            None
        };
        let userns = if plan.has_userns { rest.next() } else { None };

        let warn = |text: String| {
            tell(engine, &Report::Warning(text), &[]);
        };
        let mut cgroup = Cgroup::new(layout, &plan.cgroup_parent, &plan.id);
        cgroup.create(warn);
        if let Some(resources) = plan.resources.take() {
            cgroup::apply(&cgroup, &resources, warn);
        }
        let undo = || {
            cgroup.kill();
            cgroup.remove();
            let _ = fs::remove_file(plan.dir.join(protocol::SOCKET));
        };
        // Who has ids of their own may not enter what belongs to nobody they know, and enters it before.
        let early = word.filter(|_| plan.has_own_ids());
        if let Some(word) = early {
            netns = birth::awaited(word);
            if netns.is_none() {
                undo();
                return Err(birth::NO_NETWORK.to_owned());
            }
        }
        let what = First {
            plan: &plan,
            init,
            filter: filter.as_ref(),
            netns,
            word: word.filter(|_| early.is_none()),
            userns,
            cgroup: &cgroup,
            layout,
            course: Course::Supervised,
        };
        let Born { child, pump, warnings } = birth::first(&single, what).map_err(|error| {
            undo();
            error.text()
        })?;
        warnings.into_iter().for_each(warn);
        Ok(Self {
            watch: Watch::new(plan.respawn.take()),
            single,
            plan,
            directory,
            lock: Some(lock),
            listener: Some(listener),
            signals,
            engines: Vec::new(),
            gone: Vec::new(),
            first: child,
            pump,
            log,
            guests: Vec::new(),
            store: Vec::new(),
            filter,
            cgroup,
            started: Timestamp::now(),
            ended: None,
            announced: None,
        })
    }

    /// Looks after the container until it has ended and everybody knows.
    fn live(mut self, engine: OwnedFd) -> ! {
        let _ = rustix::io::ioctl_fionbio(&engine, true);
        self.engines.push(engine);
        // What was asked before the container was born comes before its first word: a stream to attach misses nothing.
        while self.has_request() {
            self.hear(0);
        }
        tell(&self.engines[0], &Report::Started(self.state()), &[]);
        let mut restless = Some(Instant::now() + SETTLED);
        loop {
            let ready = self.wait(restless);
            if restless.is_some_and(|until| Instant::now() >= until) && self.ended.is_none() {
                restless = None;
                crate::os::memory::trim();
                crate::os::memory::release_code();
            }
            for (token, flags) in ready {
                self.handle(token, flags);
            }
            for index in std::mem::take(&mut self.gone).into_iter().rev() {
                self.engines.remove(index);
            }
            self.pump.sweep();
            for guest in &mut self.guests {
                guest.pump.sweep();
            }
            self.reap();
            self.dismiss_guests();
            self.finish();
            if self.engines.is_empty() && self.ended.is_none() {
                self.watch.engine_left();
                self.watch.act(&self.single);
            }
            if let Some(deadline) = self.announced {
                self.pump.hang_up();
                if !self.pump.has_backlog() && !self.guests.iter().any(|guest| guest.pump.has_backlog())
                    || Instant::now() >= deadline
                {
                    exit_now(0);
                }
            }
        }
    }

    /// Returns whether the first engine has asked for something that was not answered yet.
    fn has_request(&self) -> bool {
        let mut descriptors = [PollFd::new(&self.engines[0], PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ready = poll(&mut descriptors, Some(&now));
        ready.is_ok_and(|ready| ready > 0) && descriptors[0].revents() == PollFlags::IN
    }

    /// Waits until there is something to do or a moment has come, and returns what there is.
    fn wait(&self, moment: Option<Instant>) -> Vec<(Token, PollFlags)> {
        let mut tokens = vec![Token::Signals];
        let mut descriptors = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if let Some(listener) = &self.listener {
            tokens.push(Token::Listener);
            descriptors.push(PollFd::new(listener, PollFlags::IN));
        }
        for (index, engine) in self.engines.iter().enumerate() {
            tokens.push(Token::Engine(index));
            descriptors.push(PollFd::new(engine, PollFlags::IN));
        }
        self.pump.watch(|port, descriptor, flags| {
            tokens.push(Token::First(port));
            descriptors.push(PollFd::new(descriptor, flags));
        });
        for (index, guest) in self.guests.iter().enumerate() {
            guest.pump.watch(|port, descriptor, flags| {
                tokens.push(Token::Guest(index, port));
                descriptors.push(PollFd::new(descriptor, flags));
            });
        }
        let deadline = self
            .announced
            .or(self.ended.as_ref().map(|(_, deadline)| *deadline))
            .or(moment)
            .map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let rest = self.watch.rest().filter(|_| self.engines.is_empty());
        let timeout = deadline.into_iter().chain(rest).min().map(|rest| Timespec {
            tv_sec: i64::try_from(rest.as_secs()).unwrap_or(i64::MAX),
            // Rounded up, or the last fraction of a millisecond would be spent spinning.
            tv_nsec: i64::from(rest.subsec_nanos()).min(999_000_000) + 1000,
        });
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) => tokens
                .into_iter()
                .zip(&descriptors)
                .map(|(token, descriptor)| (token, descriptor.revents()))
                .filter(|(_, flags)| !flags.is_empty())
                .collect(),
            Err(_) => Vec::new(),
        }
    }

    fn handle(&mut self, token: Token, flags: PollFlags) {
        match token {
            Token::Signals => {
                let mut buffer = [0; 512];
                while rustix::io::read(&self.signals, &mut buffer).is_ok_and(|count| count == buffer.len()) {}
            }
            Token::Listener => {
                let accepted = self.listener.as_ref().map(|listener| socket::accept(listener.as_fd()));
                if let Some(Ok(Some(engine))) = accepted {
                    self.engines.push(engine);
                }
            }
            Token::Engine(index) => self.hear(index),
            Token::First(port) => {
                let log = &mut self.log;
                // A full disk loses lines, but it must not stop the container.
                self.pump
                    .handle(port, flags, &mut |stream, bytes| drop(log.write(stream, bytes)));
            }
            Token::Guest(index, port) => {
                if let Some(guest) = self.guests.get_mut(index) {
                    guest.pump.handle(port, flags, &mut |_, _| {});
                }
            }
        }
    }

    /// Takes one request of an engine's; one that has hung up is forgotten.
    fn hear(&mut self, index: usize) {
        let Some(engine) = self.engines.get(index) else {
            return;
        };
        match socket::receive(engine) {
            Ok(Some(message)) => {
                if let Ok(request) = serde_json::from_slice::<Request>(&message.bytes) {
                    let sequence = request.sequence;
                    let (result, descriptors) = self.obey(request.command, message.descriptors);
                    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                    if sequence != 0 {
                        let report = Report::Answer { sequence, result };
                        tell(&self.engines[index], &report, &borrowed);
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) => {
                // The others keep their places, which this round's tokens name.
                self.gone.push(index);
            }
        }
    }

    fn obey(&mut self, command: Command, mut descriptors: Vec<OwnedFd>) -> (Result<Answer, String>, Vec<OwnedFd>) {
        let done = |result: Result<(), String>| (result.map(|()| Answer::Done), Vec::new());
        match command {
            Command::Hello => {
                self.watch.engine_came();
                (Ok(Answer::State(self.state())), Vec::new())
            }
            Command::Attach(options) => done(match descriptors.pop() {
                Some(stream) if self.ended.is_none() => {
                    self.pump.attach(stream, options).map_err(|error| error.to_string())
                }
                _ => Err(format!("container {} is not running", self.plan.id)),
            }),
            Command::Exec {
                exec,
                terminal,
                streams,
                unconfined,
                size,
            } => {
                if descriptors.len() != 2 {
                    return done(Err("a process needs a plan and a stream".to_owned()));
                }
                let stream = descriptors.pop().expect("two were counted");
                let plan = descriptors.pop().expect("two were counted");
                let born = self.run_guest(plan, terminal, streams, unconfined, size);
                match born {
                    Ok(mut born) => {
                        let pid = born.child.pid.as_raw_nonzero().get().cast_unsigned();
                        if let Err(error) = born.pump.attach(stream, streams) {
                            return done(Err(error.to_string()));
                        }
                        self.guests.push(Guest {
                            exec,
                            child: born.child,
                            pump: born.pump,
                            code: None,
                        });
                        (Ok(Answer::Exec { pid }), Vec::new())
                    }
                    Err(error) => done(Err(error.text())),
                }
            }
            Command::Resize { exec, rows, columns } => {
                let pump = match exec {
                    None => Some(&self.pump),
                    Some(exec) => self
                        .guests
                        .iter()
                        .find(|guest| guest.exec == exec)
                        .map(|guest| &guest.pump),
                };
                done(match pump {
                    Some(pump) => pump.resize(rows, columns).map_err(|error| error.to_string()),
                    None => Err("no such process".to_owned()),
                })
            }
            Command::Signal { exec, signal } => done(self.signal(exec, signal)),
            Command::Store(names) => {
                for (name, descriptor) in names.into_iter().zip(descriptors) {
                    self.store.retain(|(known, _)| *known != name);
                    self.store.push((name, descriptor));
                }
                done(Ok(()))
            }
            Command::Discard(names) => {
                self.store.retain(|(name, _)| !names.contains(name));
                done(Ok(()))
            }
            Command::Fetch(from) => {
                let kept = self.store.iter().skip(from).take(socket::DESCRIPTORS / 2);
                let (names, copies): (Vec<_>, Vec<_>) = kept
                    .filter_map(|(name, descriptor)| Some((name.clone(), descriptor.try_clone().ok()?)))
                    .unzip();
                let more = self.store.len() > from + names.len() && !names.is_empty();
                (Ok(Answer::Descriptors { names, more }), copies)
            }
            Command::Farewell => {
                self.watch.engine_says_farewell();
                done(Ok(()))
            }
        }
    }

    fn run_guest(
        &self,
        plan: OwnedFd,
        terminal: bool,
        streams: AttachOptions,
        unconfined: bool,
        size: Option<(u16, u16)>,
    ) -> Result<Born, BirthError> {
        if self.ended.is_some() {
            return Err(BirthError::Refused(format!(
                "container {} is not running",
                self.plan.id
            )));
        }
        // A process born into a frozen cgroup would never speak, and this loop would wait for it.
        if self.cgroup.is_frozen() {
            return Err(BirthError::Refused(format!(
                "Container {} is paused, unpause the container before exec",
                self.plan.id
            )));
        }
        birth::further(
            &self.single,
            Further {
                plan,
                filter: self.filter.as_ref().filter(|_| !unconfined),
                terminal,
                stdin: streams.stdin,
                cgroup: &self.cgroup,
                init: &self.first,
                has_user_namespace: self.plan.has_own_ids(),
                size,
                course: Course::Supervised,
            },
        )
    }

    fn signal(&self, exec: Option<u64>, number: i32) -> Result<(), String> {
        let gone = || format!("container {} is not running", self.plan.id);
        let child = match exec {
            None if self.ended.is_none() => &self.first,
            None => return Err(gone()),
            Some(exec) => match self
                .guests
                .iter()
                .find(|guest| guest.exec == exec && guest.code.is_none())
            {
                Some(guest) => &guest.child,
                None => return Err("no such process".to_owned()),
            },
        };
        signal::send(child.pidfd.as_fd(), number).map_err(|error| error.to_string())
    }

    /// Takes note of every child that ended.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let (code, signal) = outcome(status);
            if pid == self.first.pid {
                self.first_ended(code, signal);
            } else if let Some(guest) = self.guests.iter_mut().find(|guest| guest.child.pid == pid) {
                guest.code = Some(code);
            }
        }
    }

    fn first_ended(&mut self, code: i32, signal: Option<i32>) {
        let record = ExitRecord {
            code,
            signal,
            oom: self.cgroup.ran_out_of_memory(),
            started: self.started,
            finished: Timestamp::now(),
            reason: None,
        };
        // What the kernel does for a pid namespace is done here for a container without one of its own.
        if self.plan.namespaces & libc::CLONE_NEWPID as u64 == 0 {
            self.cgroup.kill();
        }
        self.ended = Some((record, Instant::now() + GRACE));
        // What the engine has to clear away, it clears away meanwhile.
        for engine in &self.engines {
            tell(engine, &Report::Ending, &[]);
        }
    }

    /// Tells of guests that ended, once their output is with those who asked for it.
    fn dismiss_guests(&mut self) {
        let engines = &self.engines;
        self.guests.retain_mut(|guest| {
            let Some(code) = guest.code else {
                return true;
            };
            guest.pump.drain(&mut |_, _| {});
            guest.pump.close_streams();
            guest.pump.hang_up();
            if guest.pump.has_backlog() {
                return true;
            }
            let report = Report::ExecExited { exec: guest.exec, code };
            for engine in engines {
                tell(engine, &report, &[]);
            }
            false
        });
        if self.guests.is_empty() && self.guests.capacity() > 0 {
            self.guests = Vec::new();
        }
    }

    /// Once the container has ended and its output is read: clears up, writes the record, tells everybody.
    fn finish(&mut self) {
        if self.announced.is_some() {
            return;
        }
        let Some((_, deadline)) = &self.ended else {
            return;
        };
        let deadline = *deadline;
        let log = &mut self.log;
        let drained = self.pump.drain(&mut |stream, bytes| drop(log.write(stream, bytes)));
        if !drained && Instant::now() < deadline {
            return;
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let _ = self.log.finish(stream);
        }
        self.pump.close_streams();
        self.cgroup.remove();
        let Some((record, _)) = self.ended.clone() else {
            return;
        };
        let written = record::write(&self.plan.dir, &record);
        if let Err(error) = &written {
            let report = Report::Warning(format!("cannot write the exit record: {error}"));
            for engine in &self.engines {
                tell(engine, &report, &[]);
            }
        }
        // From here on the container may be started anew, with a shim of its own: its places are free.
        self.listener = None;
        let _ = rustix::fs::unlinkat(&self.directory, protocol::SOCKET, rustix::fs::AtFlags::empty());
        self.lock = None;
        self.store.clear();
        let report = Report::Exited(record);
        let mut is_known = false;
        for engine in &self.engines {
            is_known |= tell(engine, &report, &[]);
        }
        // An engine that hears of it has its own record of the container reach the disk.
        if let Ok(file) = written
            && !is_known
        {
            let _ = file.sync_data();
        }
        self.announced = Some(Instant::now() + PATIENCE);
    }

    fn state(&self) -> State {
        State {
            version: VERSION,
            id: self.plan.id.clone(),
            pid: self.first.pid.as_raw_nonzero().get().cast_unsigned(),
            shim: std::process::id(),
            started: self.started,
            terminal: self.plan.terminal,
            exit: self.ended.as_ref().map(|(record, _)| record.clone()),
        }
    }
}

/// Takes the lock; somebody who looks whether it is held holds it for a moment himself.
fn take_lock(plan: &ShimPlan) -> io::Result<File> {
    for _ in 0..50 {
        match record::lock(&plan.dir) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(2)),
            other => return other,
        }
    }
    record::lock(&plan.dir)
}

/// Returns the exit code and, where a signal was the end, its number.
fn outcome(status: WaitStatus) -> (i32, Option<i32>) {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code, None),
        (None, Some(signal)) => (128 + signal, Some(signal)),
        (None, None) => (255, None),
    }
}
