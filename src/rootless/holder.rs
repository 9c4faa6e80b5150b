//! The holder: a process outside, of one thread, that keeps a user's namespaces and starts the engine in them.

use std::ffi::{CString, OsString};
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::{WaitOptions, waitpid};

use super::ids::Ids;
use super::survivors::{NETWORK as NETWORK_FILE, Survivors, keep_network};
use super::{Owner, VARIABLE, owner, refusal};
use crate::os::process::{
    Fork, SingleThreaded, StringTable, bring_loopback_up, clone_into, close_on_exec_from, duplicate_onto, execute,
    exit_now, fork, unshare,
};
use crate::os::{program, signal, socket, user_namespace};
use crate::runtime::cgroup::Layout;

/// The socket that the holder is asked by, in the engine's run directory.
const SOCKET: &str = "rootless.sock";
/// The file whose lock the holder has.
const LOCK: &str = "rootless.lock";
/// How long a holder that is about to end is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The descriptor on which an engine finds its network namespace.
pub const NETWORK: i32 = 3;

/// Where the engine and its holder have their things.
struct Places<'p> {
    state_dir: &'p Path,
    run_dir: &'p Path,
    /// What the engine is started with.
    arguments: Vec<OsString>,
}

/// Sees to it that an engine is started in the user's namespaces: by the holder there is, or by becoming it. Returns
/// when the engine was asked for, or, as holder, when everything has ended.
pub fn start(state_dir: &Path, run_dir: &Path, arguments: Vec<OsString>) -> io::Result<()> {
    let places = Places {
        state_dir,
        run_dir,
        arguments,
    };
    let Some(single) = SingleThreaded::check()? else {
        return Err(io::Error::other(
            "the engine must be started by a process of one thread",
        ));
    };
    let _ = rustix::process::setsid();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    for directory in [places.state_dir, places.run_dir] {
        make_private(directory)?;
    }
    let directory = open_directory(places.run_dir)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if ask(directory.as_fd()).is_ok() {
            return Ok(());
        }
        // A shim that brings its engine back is inside already, where no other holder can help it.
        if owner().is_none()
            && let Some(lock) = lock(places.run_dir)?
        {
            return hold(&single, &places, directory, lock);
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(
                "the process that holds the user's namespaces (compose __engine) does not answer",
            ));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Makes a directory that others cannot look into, and refuses one that is somebody else's.
fn make_private(directory: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot make {}: {error}", directory.display())))?;
    let status = rustix::fs::stat(directory)?;
    if status.st_uid != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other(format!(
            "{} belongs to user {}: set HOME, XDG_DATA_HOME and XDG_RUNTIME_DIR to your own directories (su and sudo \
             may keep another user's), or COMPOSE_STATE_DIR",
            directory.display(),
            status.st_uid
        )));
    }
    if status.st_mode & 0o077 != 0 {
        std::fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(File::open(path)?.into())
}

/// Asks the holder for an engine, and waits until it has heard.
fn ask(directory: BorrowedFd<'_>) -> io::Result<()> {
    let holder = socket::connect(directory, SOCKET)?;
    socket::send(&holder, b"start", &[])?;
    match socket::receive(&holder)? {
        Some(_) => Ok(()),
        // On its way out.
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn lock(run_dir: &Path) -> io::Result<Option<File>> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(run_dir.join(LOCK))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The namespaces of the user.
pub struct Namespaces {
    pub user: OwnedFd,
    pub mount: OwnedFd,
    pub network: OwnedFd,
}

fn hold(single: &SingleThreaded, places: &Places<'_>, directory: OwnedFd, lock: File) -> io::Result<()> {
    std::env::set_current_dir("/")?;
    for ignored in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGPIPE] {
        signal::ignore(ignored);
    }
    let _ = rustix::thread::set_name(c"compose-holder");
    // Whoever loses a parent in there becomes a child of this process, which so knows when nobody is left.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    leave_cgroup();
    let (namespaces, mut strangers) = match Survivors::find(single, places.state_dir, places.run_dir) {
        Ok(Some(survivors)) => (survivors.namespaces, survivors.processes),
        Ok(None) => (make_namespaces(single, places.run_dir)?, Vec::new()),
        Err(error) => {
            return Err(io::Error::other(format!(
                "containers of an engine that was killed still run, and cannot be taken over: {error}; end the processes \
                 called compose-shim, then try again"
            )));
        }
    };
    let signals = signal::descriptor(&[libc::SIGCHLD])?;
    let socket_path = places.run_dir.join(SOCKET);
    match std::fs::remove_file(&socket_path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = socket::listen(directory.as_fd(), SOCKET)?;
    let engine = Engine {
        program: program::path(),
        places,
        namespaces: &namespaces,
    };
    engine.start(single)?;
    loop {
        let mut descriptors = vec![
            PollFd::new(&signals, PollFlags::IN),
            PollFd::new(&listener, PollFlags::IN),
        ];
        descriptors.extend(strangers.iter().map(|process| PollFd::new(process, PollFlags::IN)));
        match poll(&mut descriptors, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let asked = descriptors[1].revents().contains(PollFlags::IN);
        let mut ended = descriptors[2..]
            .iter()
            .map(|process| !process.revents().is_empty())
            .collect::<Vec<_>>()
            .into_iter();
        strangers.retain(|_| !ended.next().unwrap_or_default());
        let mut buffer = [0; 512];
        while rustix::io::read(&signals, &mut buffer).is_ok_and(|count| count == buffer.len()) {}
        if asked && let Ok(Some(asker)) = socket::accept(listener.as_fd()) {
            // It waits for the answer before it hangs up; one that says nothing is not waited for.
            engine.start(single)?;
            let _ = socket::send(&asker, b"started", &[]);
        }
        if nobody_is_left() && strangers.is_empty() {
            break;
        }
    }
    let _ = std::fs::remove_file(&socket_path);
    let _ = std::fs::remove_file(places.run_dir.join(NETWORK_FILE));
    // Only now another holder may come.
    drop(lock);
    Ok(())
}

/// Where this process is in a cgroup that was handed over to the user (`systemd-run --user --scope -p Delegate=yes`), moves
/// it and all it starts into one below: controllers can be handed on only by a cgroup that has no processes of its own.
fn leave_cgroup() {
    let Some(place) = Layout::handed_over().unified else {
        return;
    };
    let engine = place.join("compose-engine");
    let moved = std::fs::create_dir_all(&engine)
        .and_then(|()| std::fs::write(engine.join("cgroup.procs"), std::process::id().to_string()));
    if let Err(error) = moved {
        tracing::warn!(%error, "limits of containers may have no effect");
    }
}

/// Takes note of every process that has ended; returns whether that was the last.
fn nobody_is_left() -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}

fn make_namespaces(single: &SingleThreaded, run_dir: &Path) -> io::Result<Namespaces> {
    let refused = |attempt: &'static str| move |error: io::Error| io::Error::other(refusal::explain(attempt, &error));
    let (ours, theirs) = socket::message_pair()?;
    let namespaces = libc::CLONE_NEWUSER as u64 | libc::CLONE_NEWNS as u64;
    let child = match clone_into(single, namespaces, None).map_err(refused("make a user namespace"))? {
        Fork::Child => {
            drop(ours);
            if let Err(error) = furnish(single, &theirs, run_dir) {
                let _ = socket::send(&theirs, error.to_string().as_bytes(), &[]);
                exit_now(1);
            }
            exit_now(0);
        }
        Fork::Parent(child) => child,
    };
    drop(theirs);
    let has_range = Ids::of_this_user()
        .map(child.pid.as_raw_nonzero().get())
        .map_err(refused("map the ids of a user namespace"))?;
    tracing::debug!(has_range, "user namespace");
    socket::send(&ours, b"go", &[])?;
    let answer = socket::receive(&ours)?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    let _ = waitpid(Some(child.pid), WaitOptions::empty());
    let mut descriptors = answer.descriptors.into_iter();
    match (descriptors.next(), descriptors.next(), descriptors.next()) {
        (Some(user), Some(mount), Some(network)) => Ok(Namespaces { user, mount, network }),
        _ => Err(refused("make a network namespace")(io::Error::other(
            String::from_utf8_lossy(&answer.bytes).into_owned(),
        ))),
    }
}

/// The first process inside: completes the namespaces and hands them out.
fn furnish(single: &SingleThreaded, holder: &OwnedFd, run_dir: &Path) -> io::Result<()> {
    if socket::receive(holder)?.is_none() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    unshare(single, libc::CLONE_NEWNET as u64)?;
    bring_loopback_up()?;
    keep_network(run_dir)?;
    let open = |name: &str| rustix::fs::open(format!("/proc/self/ns/{name}"), OFlags::CLOEXEC, Mode::empty());
    let (user, mount, network) = (open("user")?, open("mnt")?, open("net")?);
    socket::send(holder, b"namespaces", &[user.as_fd(), mount.as_fd(), network.as_fd()])
}

/// How the engine is started.
struct Engine<'e> {
    program: PathBuf,
    places: &'e Places<'e>,
    namespaces: &'e Namespaces,
}

impl Engine<'_> {
    fn start(&self, single: &SingleThreaded) -> io::Result<()> {
        let owner = Owner {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        };
        if fork(single)?.is_none() {
            let error = self.become_engine(owner);
            tracing::error!(%error, "the engine could not start");
            exit_now(127);
        }
        Ok(())
    }

    fn become_engine(&self, owner: Owner) -> io::Error {
        let prepare = || -> io::Result<(CString, StringTable, StringTable)> {
            user_namespace::enter(self.namespaces.user.as_fd(), self.namespaces.mount.as_fd())?;
            let _ = rustix::process::setsid();
            let mut arguments = vec![OsString::from("compose")];
            arguments.extend(program::arguments("__engine"));
            arguments.extend(self.places.arguments.iter().cloned());
            arguments.push("--network".into());
            arguments.push(NETWORK.to_string().into());
            let environment = std::env::vars_os()
                .filter(|(name, _)| name != VARIABLE)
                .map(|(name, value)| {
                    let mut entry = name;
                    entry.push("=");
                    entry.push(value);
                    entry
                })
                .chain([OsString::from(format!("{VARIABLE}={}:{}", owner.uid, owner.gid))]);
            let arguments = StringTable::new(arguments.iter().map(|argument| argument.as_bytes()))?;
            let environment = StringTable::new(environment.map(|entry| entry.as_bytes().to_vec()))?;
            let program = CString::new(self.program.as_os_str().as_bytes())?;
            signal::reset_all();
            close_on_exec_from(3)?;
            // Last: whatever had that number is of no use any more.
            hand_over(self.namespaces.network.as_fd())?;
            Ok((program, arguments, environment))
        };
        match prepare() {
            Ok((program, arguments, environment)) => {
                execute(&program, &arguments, &environment);
                // The program was replaced or removed; this process is still it.
                execute(c"/proc/self/exe", &arguments, &environment)
            }
            Err(error) => error,
        }
    }
}

/// Puts a descriptor where the engine finds it.
fn hand_over(network: BorrowedFd<'_>) -> io::Result<()> {
    if network.as_raw_fd() == NETWORK {
        let flags = rustix::io::FdFlags::empty();
        rustix::io::fcntl_setfd(network, flags)?;
        return Ok(());
    }
    duplicate_onto(network, NETWORK)
}
