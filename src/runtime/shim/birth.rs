//! How a shim makes processes: the container's first, and those run in it later.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces};

use super::pump::{Pump, pipe, unblock};
use crate::os::process::{Child, Fork, SingleThreaded, clone_into, clone_into_pid_namespace};
use crate::os::{memfd, socket};
use crate::runtime::cgroup::{Cgroup, Layout};
use crate::runtime::hooks::{About, Calls};
use crate::runtime::ids;
use crate::runtime::init::{self, Channel, ExecContext, InitContext, Streams};
use crate::runtime::outside;
use crate::runtime::protocol::{InitReport, ShimPlan};

/// What a shim cannot do.
#[derive(Debug, thiserror::Error)]
pub enum BirthError {
    /// The process said why it could not go on.
    #[error("{0}")]
    Refused(String),
    /// It ended without saying why: killed, most likely for want of memory.
    #[error(
        "OCI runtime create failed: runc create failed: unable to start container process: container init was \
         OOM-killed (memory limit too low?)"
    )]
    Vanished,
    /// A call of the shim's own failed.
    #[error("failed to {attempt}")]
    Call {
        /// What was attempted.
        attempt: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl BirthError {
    /// Returns the whole story in a line.
    pub fn text(&self) -> String {
        match self {
            Self::Call { attempt, source } => format!("failed to {attempt}: {source}"),
            other => other.to_string(),
        }
    }
}

fn call<E: Into<io::Error>>(attempt: &'static str) -> impl FnOnce(E) -> BirthError {
    move |source| BirthError::Call {
        attempt,
        source: source.into(),
    }
}

/// A new process and the shim's side of its streams.
pub struct Born {
    /// The process.
    pub child: Child,
    /// Its streams.
    pub pump: Pump,
    /// What it could not do as asked.
    pub warnings: Vec<String>,
}

/// What the container's first process is made from.
pub struct First<'f> {
    /// The shim's own instructions.
    pub plan: &'f ShimPlan,
    /// Init's instructions.
    pub init: OwnedFd,
    /// The filter.
    pub filter: Option<&'f OwnedFd>,
    /// The network namespace to join.
    pub netns: Option<OwnedFd>,
    /// What that comes by, where it is still being made: the process goes on without it as far as it can.
    pub word: Option<&'f OwnedFd>,
    /// The user namespace to join.
    pub userns: Option<OwnedFd>,
    /// The cgroups.
    pub cgroup: &'f Cgroup,
    /// The host's hierarchies.
    pub layout: &'f Layout,
    /// How it goes on once it is there.
    pub course: Course<'f>,
}

/// How a process goes on once it is there.
#[derive(Clone, Copy, Debug)]
pub enum Course<'f> {
    /// The shim carries its streams, and it dies with the shim.
    Supervised,
    /// It has the streams of this process and outlives it.
    Alone {
        /// Where a container's first process waits for the word to start.
        gate: Option<BorrowedFd<'f>>,
        /// The container's bundle.
        bundle: &'f Path,
        /// How many descriptors after the standard ones it keeps.
        preserved: u32,
    },
}

impl Course<'_> {
    fn preserved(self) -> u32 {
        match self {
            Self::Supervised => 0,
            Self::Alone { preserved, .. } => preserved,
        }
    }

    fn is_supervised(self) -> bool {
        matches!(self, Self::Supervised)
    }
}

/// What there is to say where the network namespace that was to come never came.
pub const NO_NETWORK: &str = "the container has got no network namespace";

/// Waits for a network namespace that is still being made.
pub fn awaited(word: &OwnedFd) -> Option<OwnedFd> {
    let message = socket::receive(word).ok().flatten();
    message.and_then(|mut message| message.descriptors.pop())
}

/// Makes the container's first process, and returns once it is the user's program.
pub fn first(single: &SingleThreaded, what: First<'_>) -> Result<Born, BirthError> {
    let plan = what.plan;
    let (mut pump, streams) = streams(plan.terminal || !what.course.is_supervised(), plan.stdin_open)?;
    pump.stdin_once = plan.stdin_once;
    let (gate, bundle) = match what.course {
        Course::Supervised => (None, plan.dir.as_path()),
        Course::Alone { gate, bundle, .. } => (gate.map(|gate| gate.try_clone_to_owned()), bundle),
    };
    let gate = gate.transpose().map_err(call("keep what the word to start comes by"))?;
    let about = About { id: &plan.id, bundle };
    let groups = what.cgroup.open();
    let (ours, theirs) = socket::message_pair().map_err(call("make a socket pair"))?;
    let program = rustix::fs::open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok();
    let unified = groups.unified().map(|descriptor| descriptor.try_clone_to_owned());
    let unified = unified.transpose().map_err(call("keep the cgroup"))?;
    let open = |path: &Path| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let there = plan.pid_namespace.as_deref().map(open).transpose();
    let there = there.map_err(call("open the pid namespace to join"))?;
    let userns = user_namespace(single, plan, what.userns)?;
    let prepared = if userns.is_some() || plan.maps_ids {
        let own = userns.as_ref().map(AsFd::as_fd);
        Some(outside::prepare(single, &what.init, &plan.dir, own).map_err(BirthError::Refused)?)
    } else {
        None
    };
    let mut netns = what.netns;
    let namespaces = plan.namespaces & !(libc::CLONE_NEWUSER as u64);
    let forked = if there.is_some() || userns.is_some() {
        let mut enter = Vec::new();
        enter.extend(
            there
                .as_ref()
                .map(|there| (there.as_fd(), LinkNameSpaceType::ProcessID)),
        );
        // Who has ids of their own may not enter what belongs to nobody they know.
        let early = netns.take_if(|_| userns.is_some());
        enter.extend(early.as_ref().map(|netns| (netns.as_fd(), LinkNameSpaceType::Network)));
        enter.extend(userns.as_ref().map(|userns| (userns.as_fd(), LinkNameSpaceType::User)));
        // Nor may they be born in a cgroup, which they join by what is open already.
        let unified = unified.as_ref().map(AsFd::as_fd).filter(|_| userns.is_none());
        let enter = || {
            enter
                .iter()
                .try_for_each(|(namespace, kind)| Ok(move_into_link_name_space(*namespace, Some(*kind))?))
        };
        clone_into_pid_namespace(single, enter, namespaces, unified)
    } else {
        clone_into(single, namespaces, unified.as_ref().map(AsFd::as_fd))
    };
    let child = match forked.map_err(call("clone the container's first process"))? {
        Fork::Child => init::run(
            single,
            InitContext {
                channel: Channel::new(theirs),
                plan: what.init,
                filter: what.filter,
                netns,
                word: what.word,
                has_user_namespace: userns.is_some(),
                prepared,
                streams,
                groups,
                cgroup: what.cgroup,
                layout: what.layout,
                dir: &plan.dir,
                namespaces,
                program,
                size: plan.size,
                about,
                gate,
                preserved: what.course.preserved(),
            },
        ),
        Fork::Parent(child) => child,
    };
    drop((theirs, streams, prepared));
    listen(&ours, child, pump, &about)
}

/// Returns the user namespace of the container, if it is to have one.
fn user_namespace(
    single: &SingleThreaded,
    plan: &ShimPlan,
    given: Option<OwnedFd>,
) -> Result<Option<OwnedFd>, BirthError> {
    if given.is_some() {
        return Ok(given);
    }
    if let Some(path) = &plan.user_namespace {
        let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        return opened.map(Some).map_err(call("open the user namespace to join"));
    }
    if plan.namespaces & libc::CLONE_NEWUSER as u64 == 0 {
        return Ok(None);
    }
    ids::make(single, &plan.uid_mappings, &plan.gid_mappings, false)
        .map(|made| Some(made.user))
        .map_err(call("map the users of the user namespace"))
}

/// What a further process is made from.
pub struct Further<'f> {
    /// Its instructions.
    pub plan: OwnedFd,
    /// The filter.
    pub filter: Option<&'f OwnedFd>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether it has a standard input.
    pub stdin: bool,
    /// The cgroups.
    pub cgroup: &'f Cgroup,
    /// The container's first process.
    pub init: &'f Child,
    /// Whether the container has a user namespace of its own.
    pub has_user_namespace: bool,
    /// The terminal's size.
    pub size: Option<(u16, u16)>,
    /// How it goes on once it is there.
    pub course: Course<'f>,
}

/// Makes a process in the container, and returns once it is the user's program.
pub fn further(single: &SingleThreaded, what: Further<'_>) -> Result<Born, BirthError> {
    let (mut pump, streams) = streams(what.terminal || !what.course.is_supervised(), what.stdin)?;
    pump.stdin_once = true;
    let groups = what.cgroup.open();
    let (ours, theirs) = socket::message_pair().map_err(call("make a socket pair"))?;
    let unified = groups.unified().map(|descriptor| descriptor.try_clone_to_owned());
    let unified = unified.transpose().map_err(call("keep the cgroup"))?;
    let mut namespaces = namespaces_of_its_own(&what.init.pid.as_raw_nonzero().to_string());
    let unified = unified.as_ref().map(AsFd::as_fd);
    let forked = if namespaces.contains(ThreadNameSpaceType::PROCESS_ID) {
        namespaces.remove(ThreadNameSpaceType::PROCESS_ID);
        // Only children get into a pid namespace; this one is our own all the same, and we its parent.
        let enter = || {
            Ok(move_into_thread_name_spaces(
                what.init.pidfd.as_fd(),
                ThreadNameSpaceType::PROCESS_ID,
            )?)
        };
        clone_into_pid_namespace(single, enter, 0, unified)
    } else {
        clone_into(single, 0, unified)
    };
    if let Ok(Fork::Child) = forked {
        init::run_exec(ExecContext {
            channel: Channel::new(theirs),
            plan: what.plan,
            filter: what.filter,
            streams,
            groups,
            init: what.init.pidfd.as_fd(),
            namespaces,
            has_user_namespace: what.has_user_namespace,
            size: what.size,
            supervised: what.course.is_supervised(),
            preserved: what.course.preserved(),
        });
    }
    drop((theirs, streams));
    match forked.map_err(call("clone a process into the container's pid namespace"))? {
        Fork::Parent(child) => {
            let about = About {
                id: "",
                bundle: Path::new(""),
            };
            listen(&ours, child, pump, &about)
        }
        Fork::Child => Err(BirthError::Vanished),
    }
}

/// Returns which of a process's namespaces are not this one's too: a plain user's process may not even enter those of the
/// host that it is in already.
fn namespaces_of_its_own(process: &str) -> ThreadNameSpaceType {
    [
        ("mnt", ThreadNameSpaceType::MOUNT),
        ("uts", ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME),
        ("ipc", ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
        ("net", ThreadNameSpaceType::NETWORK),
        ("cgroup", ThreadNameSpaceType::CONTROL_GROUP),
        ("pid", ThreadNameSpaceType::PROCESS_ID),
    ]
    .into_iter()
    .filter(|(name, _)| {
        let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/{name}")).ok();
        of(process) != of("self")
    })
    .fold(ThreadNameSpaceType::empty(), |all, (_, kind)| all | kind)
}

/// Makes the pipes: the shim's ends and the process's.
fn streams(terminal: bool, stdin: bool) -> Result<(Pump, Option<Streams>), BirthError> {
    let mut pump = Pump::default();
    if terminal {
        return Ok((pump, None));
    }
    let make = || pipe().map_err(call("make a pipe"));
    let theirs_in = if stdin {
        let (read, write) = make()?;
        unblock(&write).map_err(call("make a pipe"))?;
        pump.stdin = Some(write);
        read
    } else {
        rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(call("open /dev/null"))?
    };
    let (out_read, out_write) = make()?;
    let (error_read, error_write) = make()?;
    for end in [&out_read, &error_read] {
        unblock(end).map_err(call("make a pipe"))?;
    }
    pump.stdout = Some(out_read);
    pump.stderr = Some(error_read);
    let streams = Streams {
        stdin: theirs_in,
        stdout: out_write,
        stderr: error_write,
    };
    Ok((pump, Some(streams)))
}

/// Hears what the process says until its exec closes its side.
fn listen(channel: &OwnedFd, child: Child, mut pump: Pump, about: &About<'_>) -> Result<Born, BirthError> {
    let mut warnings = Vec::new();
    let mut ready = false;
    while let Ok(Some(mut message)) = socket::receive(channel) {
        match serde_json::from_slice(&message.bytes) {
            Ok(InitReport::Warning(text)) => warnings.push(text),
            Ok(InitReport::Terminal) => {
                if let Some(master) = message.descriptors.pop() {
                    unblock(&master).map_err(call("set up the terminal"))?;
                    pump.terminal = Some(master);
                }
            }
            Ok(InitReport::Hooks) => {
                let result = run_hooks(message.descriptors.pop(), about, &child);
                if let Err(text) =
                    result.and_then(|()| socket::send(channel, b"go", &[]).map_err(|error| error.to_string()))
                {
                    end(&child);
                    return Err(BirthError::Refused(text));
                }
            }
            Ok(InitReport::Ready) => ready = true,
            Ok(InitReport::Failed(text)) => {
                end(&child);
                return Err(BirthError::Refused(text));
            }
            Err(_) => {}
        }
    }
    if ready {
        return Ok(Born { child, pump, warnings });
    }
    end(&child);
    Err(BirthError::Vanished)
}

fn run_hooks(calls: Option<OwnedFd>, about: &About<'_>, child: &Child) -> Result<(), String> {
    let calls = calls.ok_or("there are no hooks")?;
    let calls = memfd::read_all(&calls).map_err(|error| error.to_string())?;
    let calls: Calls = serde_json::from_slice(&calls).map_err(|error| error.to_string())?;
    calls.run(about, "creating", child.pid.as_raw_nonzero().get().cast_unsigned())
}

/// Ends a process that did not become what it should, and waits for it.
fn end(child: &Child) {
    let _ = rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL);
    let _ = rustix::process::waitid(
        rustix::process::WaitId::PidFd(child.pidfd.as_fd()),
        rustix::process::WaitIdOptions::EXITED,
    );
}
