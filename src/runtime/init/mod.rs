//! A process on its way into a container: everything between the clone and the exec.
//!
//! It runs in a child of the shim that has one thread and shares nothing with it but a socket, over which it says
//! what it could not do; the exec that makes it the user's program closes that socket.

mod failure;
mod process;
mod surroundings;
pub(super) mod users;

pub(super) use surroundings::{attempt_of, options_of};

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};

use crate::os::process::{SingleThreaded, duplicate_onto, exit_now, set_controlling_terminal, unshare};
use crate::os::{memfd, socket, user_namespace};
use crate::runtime::cgroup::{Cgroup, Joinable, Layout};
use crate::runtime::hooks::{self, About, Calls};
use crate::runtime::in_root;
use crate::runtime::outside::Prepared;
use crate::runtime::protocol::{self, ExecPlan, InitPlan, InitReport};
use crate::runtime::shim::birth;
use failure::{Attempt, Failure};
use process::Final;
use surroundings::{CgroupView, Surroundings};

/// The way back to the shim.
pub struct Channel(OwnedFd);

impl Channel {
    /// Wraps a message socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Sends a report, and returns whether anybody was there to get it.
    fn send(&self, report: &InitReport) -> bool {
        self.send_with(report, &[])
    }

    fn send_with(&self, report: &InitReport, descriptors: &[BorrowedFd<'_>]) -> bool {
        serde_json::to_vec(report).is_ok_and(|report| socket::send(&self.0, &report, descriptors).is_ok())
    }

    /// Ends the conversation.
    fn close(&self) {
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }

    fn warn(&self, text: String) {
        self.send(&InitReport::Warning(text));
    }

    /// Waits for the shim's word.
    fn wait(&self) -> io::Result<()> {
        match socket::receive(&self.0)? {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// The ends of the standard streams that the process gets; a terminal takes their place.
#[derive(Debug)]
pub struct Streams {
    /// The standard input.
    pub stdin: OwnedFd,
    /// The standard output.
    pub stdout: OwnedFd,
    /// The standard error.
    pub stderr: OwnedFd,
}

/// What a container's first process has of the shim.
pub struct InitContext<'c> {
    /// The way back.
    pub channel: Channel,
    /// What to do.
    pub plan: OwnedFd,
    /// The filter.
    pub filter: Option<&'c OwnedFd>,
    /// The network namespace to join.
    pub netns: Option<OwnedFd>,
    /// What that comes by, where it is still being made.
    pub word: Option<&'c OwnedFd>,
    /// The standard streams.
    pub streams: Option<Streams>,
    /// What it joins its cgroups by.
    pub groups: Joinable,
    /// Its cgroups.
    pub cgroup: &'c Cgroup,
    /// The host's hierarchies.
    pub layout: &'c Layout,
    /// The container's directory.
    pub dir: &'c Path,
    /// Whether the container has ids of its own.
    pub has_user_namespace: bool,
    /// What was made ready outside.
    pub prepared: Option<Prepared>,
    /// Which namespaces are new.
    pub namespaces: u64,
    /// The shim's own program.
    pub program: Option<OwnedFd>,
    /// The terminal's size.
    pub size: Option<(u16, u16)>,
    /// What hooks are told of the container.
    pub about: About<'c>,
    /// Where to wait for the word to start, for a process that outlives its parent.
    pub gate: Option<OwnedFd>,
    /// How many descriptors after the standard ones the process keeps.
    pub preserved: u32,
}

/// Becomes a container's first process.
pub fn run(single: &SingleThreaded, mut context: InitContext<'_>) -> ! {
    let prepared = context.prepared.take();
    let failure = match prepare(single, &context, prepared) {
        Ok((plan, identity)) => {
            let process = plan.spec.process().as_ref().expect("prepared with a process");
            let hooks = plan.spec.hooks().as_ref();
            let last = Final {
                process,
                identity,
                filter: context.filter,
                init: context.program.as_ref().filter(|_| plan.init),
                channel: &context.channel,
                gate: context.gate.as_ref().map(|gate| (single, gate)),
                hooks: Calls::of(
                    &plan.spec,
                    "startContainer",
                    hooks
                        .and_then(|hooks| hooks.start_container().clone())
                        .into_iter()
                        .flatten(),
                ),
                about: context.about.clone(),
                preserved: context.preserved,
                supervised: context.gate.is_none(),
            };
            last.become_program()
        }
        Err(failure) => failure,
    };
    if !context.channel.send(&InitReport::Failed(failure.starting())) {
        // Nobody waits any more: the container counts as started, and its own standard error tells.
        let _ = writeln!(io::stderr(), "{}", failure.starting());
    }
    exit_now(1)
}

fn prepare(
    single: &SingleThreaded,
    context: &InitContext<'_>,
    prepared: Option<Prepared>,
) -> Result<(InitPlan, users::Identity), Failure> {
    if context.gate.is_none() {
        die_with_parent();
    }
    context.groups.join().attempt(|| "join cgroup")?;
    if context.has_user_namespace {
        user_namespace::entered_another();
        rustix::thread::set_thread_res_gid(rustix::fs::Gid::ROOT, rustix::fs::Gid::ROOT, rustix::fs::Gid::ROOT)
            .attempt(|| "setgid in the user namespace")?;
        rustix::thread::set_thread_res_uid(rustix::fs::Uid::ROOT, rustix::fs::Uid::ROOT, rustix::fs::Uid::ROOT)
            .attempt(|| "setuid in the user namespace")?;
    }
    let plan = memfd::read_all(&context.plan).attempt(|| "read the plan")?;
    let plan: InitPlan =
        serde_json::from_slice(&plan).map_err(|error| Failure::Runtime(format!("read the plan: {error}")))?;
    let spec = &plan.spec;
    let Some(process) = spec.process() else {
        return Err(Failure::Runtime("the spec has no process".to_owned()));
    };
    rustix::process::setsid().attempt(|| "setsid")?;
    let _ = crate::os::process::join_session_keyring();
    join_namespaces(single, context, spec)?;
    let procfs = surroundings::host_procfs().attempt(|| "open the host's procfs")?;
    set_oom_score(procfs.as_fd(), process.oom_score_adj(), &context.channel);
    let new = |namespace: i32| context.namespaces & namespace as u64 != 0;
    if new(libc::CLONE_NEWNET) {
        crate::os::process::bring_loopback_up().attempt(|| "bring the loopback interface up")?;
    }
    if new(libc::CLONE_NEWUTS) {
        if let Some(name) = spec.hostname() {
            rustix::system::sethostname(name.as_bytes()).attempt(|| "sethostname")?;
        }
        if let Some(name) = spec.domainname() {
            rustix::system::setdomainname(name.as_bytes()).attempt(|| "setdomainname")?;
        }
    }
    let place = context.dir.join(protocol::ROOT);
    rustix::process::umask(Mode::empty());
    let (mut surroundings, sources) = Surroundings::attach(&plan.root, spec, &place, prepared)?;
    if let Some(word) = context.word {
        // A sysfs shows the network of whoever mounts it, and what is mounted next may be written with the network.
        let netns = birth::awaited(word).ok_or_else(|| Failure::Runtime(birth::NO_NETWORK.to_owned()))?;
        join_network(netns.as_fd())?;
    }
    let view = CgroupView {
        layout: context.layout,
        cgroup: context.cgroup,
    };
    surroundings.mount(spec, sources, &view)?;
    surroundings.make_devices(spec)?;
    surroundings.make_directory(process.cwd())?;
    let terminal = if process.terminal() == Some(true) {
        Some(surroundings.open_console()?)
    } else {
        None
    };
    surroundings::set_sysctls(procfs.as_fd(), spec)?;
    run_hooks(context, spec)?;
    surroundings.enter(spec)?;
    let identity = process::identity(process, &plan.groups, context.gate.is_none())?;
    connect(context.streams.as_ref(), terminal, context.size, &context.channel)?;
    Ok((plan, identity))
}

/// Has the hooks run that belong before the change of the root: those outside by the parent, those inside here.
fn run_hooks(context: &InitContext<'_>, spec: &Spec) -> Result<(), Failure> {
    let outside = hooks::outside(spec);
    if !outside.hooks.is_empty() {
        let calls = serde_json::to_vec(&outside).map_err(|error| Failure::Runtime(error.to_string()))?;
        let calls = memfd::with_bytes("hooks", &calls).attempt(|| "hand the hooks over")?;
        context.channel.send_with(&InitReport::Hooks, &[calls.as_fd()]);
        context.channel.wait().attempt(|| "wait for the hooks")?;
    }
    let inside = spec.hooks().as_ref().and_then(|hooks| hooks.create_container().clone());
    Calls::of(spec, "createContainer", inside.into_iter().flatten())
        .run(&context.about, "creating", std::process::id())
        .map_err(Failure::Runtime)
}

/// What a process run in a container has of the shim.
pub struct ExecContext<'c> {
    /// The way back.
    pub channel: Channel,
    /// What to do.
    pub plan: OwnedFd,
    /// The filter.
    pub filter: Option<&'c OwnedFd>,
    /// The standard streams.
    pub streams: Option<Streams>,
    /// What it joins the cgroups by.
    pub groups: Joinable,
    /// The container's first process.
    pub init: BorrowedFd<'c>,
    /// Which of its namespaces to enter.
    pub namespaces: ThreadNameSpaceType,
    /// Whether the container has a user namespace of its own.
    pub has_user_namespace: bool,
    /// The terminal's size.
    pub size: Option<(u16, u16)>,
    /// Whether it dies with its parent.
    pub supervised: bool,
    /// How many descriptors after the standard ones the process keeps.
    pub preserved: u32,
}

/// Becomes a process in a running container.
pub fn run_exec(context: ExecContext<'_>) -> ! {
    let failure = match prepare_exec(&context) {
        Ok((plan, identity)) => {
            let last = Final {
                process: &plan.process,
                identity,
                filter: context.filter,
                init: None,
                channel: &context.channel,
                gate: None,
                hooks: Calls::default(),
                about: About {
                    id: "",
                    bundle: Path::new(""),
                },
                preserved: context.preserved,
                supervised: context.supervised,
            };
            last.become_program()
        }
        Err(failure) => failure,
    };
    context.channel.send(&InitReport::Failed(failure.executing()));
    exit_now(1)
}

fn prepare_exec(context: &ExecContext<'_>) -> Result<(ExecPlan, users::Identity), Failure> {
    if context.supervised {
        die_with_parent();
    }
    // Until the exec this process holds things of the host: nobody inside may look into it.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    context.groups.join().attempt(|| "join cgroup")?;
    let plan = memfd::read_all(&context.plan).attempt(|| "read the plan")?;
    let plan: ExecPlan =
        serde_json::from_slice(&plan).map_err(|error| Failure::Runtime(format!("read the plan: {error}")))?;
    rustix::process::setsid().attempt(|| "setsid")?;
    let procfs = surroundings::host_procfs().attempt(|| "open the host's procfs")?;
    set_oom_score(procfs.as_fd(), plan.process.oom_score_adj(), &context.channel);
    let mut namespaces = context.namespaces;
    if context.has_user_namespace {
        namespaces |= ThreadNameSpaceType::USER;
    }
    rustix::thread::move_into_thread_name_spaces(context.init, namespaces).attempt(|| "setns")?;
    if context.has_user_namespace {
        let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
        rustix::thread::set_thread_res_gid(gid, gid, gid).attempt(|| "setgid in the user namespace")?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).attempt(|| "setuid in the user namespace")?;
    }
    let _ = crate::os::process::join_session_keyring();
    let terminal = if plan.process.terminal() == Some(true) {
        let root = in_root::own_root().attempt(|| "open the root")?;
        Some(surroundings::open_terminal(root.as_fd())?)
    } else {
        None
    };
    let identity = process::identity(&plan.process, &plan.groups, context.supervised)?;
    connect(context.streams.as_ref(), terminal, context.size, &context.channel)?;
    Ok((plan, identity))
}

fn die_with_parent() {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}

/// Joins the namespaces given by descriptor or path, and makes the cgroup namespace now that the process is where
/// that shall begin.
fn join_namespaces(single: &SingleThreaded, context: &InitContext<'_>, spec: &Spec) -> Result<(), Failure> {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    for namespace in namespaces.into_iter().flatten() {
        let kind = namespace.typ();
        match namespace.path() {
            // Joined on the way here.
            Some(_) if matches!(kind, LinuxNamespaceType::Pid | LinuxNamespaceType::User) => {}
            Some(_) if kind == LinuxNamespaceType::Network && context.netns.is_some() => {}
            Some(path) => {
                let join = || -> io::Result<()> {
                    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
                    Ok(rustix::thread::move_into_link_name_space(
                        file.as_fd(),
                        link_type(kind),
                    )?)
                };
                join().attempt(|| format!("join the {kind} namespace {}", path.display()))?;
            }
            None if kind == LinuxNamespaceType::Cgroup => {
                unshare(single, libc::CLONE_NEWCGROUP as u64).attempt(|| "unshare cgroup namespace")?;
            }
            None => {}
        }
    }
    context
        .netns
        .as_ref()
        .map_or(Ok(()), |netns| join_network(netns.as_fd()))
}

fn join_network(netns: BorrowedFd<'_>) -> Result<(), Failure> {
    rustix::thread::move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
        .attempt(|| "join the network namespace")
}

fn link_type(kind: LinuxNamespaceType) -> Option<LinkNameSpaceType> {
    Some(match kind {
        LinuxNamespaceType::Mount => LinkNameSpaceType::Mount,
        LinuxNamespaceType::Cgroup => LinkNameSpaceType::ControlGroup,
        LinuxNamespaceType::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
        LinuxNamespaceType::Ipc => LinkNameSpaceType::InterProcessCommunication,
        LinuxNamespaceType::User => LinkNameSpaceType::User,
        LinuxNamespaceType::Pid => LinkNameSpaceType::ProcessID,
        LinuxNamespaceType::Network => LinkNameSpaceType::Network,
        LinuxNamespaceType::Time => return None,
    })
}

/// Sets how eagerly the kernel kills this process for want of memory; where it may not be lowered, it is not.
fn set_oom_score(procfs: BorrowedFd<'_>, score: Option<i32>, channel: &Channel) {
    let set = |score: i32| -> io::Result<()> {
        let file = in_root::open(procfs, Path::new("self/oom_score_adj"), OFlags::WRONLY)?;
        rustix::io::write(&file, score.to_string().as_bytes())?;
        Ok(())
    };
    if let Some(score) = score
        && let Err(error) = set(score)
        && score != 0
    {
        channel.warn(format!(
            "cannot set oom_score_adj to {score}: {}",
            failure::words(&error)
        ));
    }
}

/// Connects the standard streams: to a terminal, whose other side goes to the shim, or to what the shim gave.
fn connect(
    streams: Option<&Streams>,
    terminal: Option<(OwnedFd, OwnedFd)>,
    size: Option<(u16, u16)>,
    channel: &Channel,
) -> Result<(), Failure> {
    if let Some((master, slave)) = terminal {
        if let Some((rows, columns)) = size.filter(|size| *size != (0, 0)) {
            let size = rustix::termios::Winsize {
                ws_row: rows,
                ws_col: columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            let _ = rustix::termios::tcsetwinsize(&master, size);
        }
        channel.send_with(&InitReport::Terminal, &[master.as_fd()]);
        set_controlling_terminal(slave.as_fd()).attempt(|| "set the controlling terminal")?;
        for number in 0..3 {
            duplicate_onto(slave.as_fd(), number).attempt(|| "dup2 the terminal")?;
        }
    } else if let Some(streams) = streams {
        for (stream, number) in [(&streams.stdin, 0), (&streams.stdout, 1), (&streams.stderr, 2)] {
            debug_assert!(stream.as_raw_fd() > 2, "the shim keeps its own standard streams");
            duplicate_onto(stream.as_fd(), number).attempt(|| "dup2 the standard streams")?;
        }
    }
    Ok(())
}
