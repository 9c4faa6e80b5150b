//! Making processes: fork, clone into namespaces and a cgroup, and becoming another program.
//!
//! A child of fork or clone has only the thread that called it, so any lock another thread held stays locked in it
//! for ever. Every function here that makes a process therefore asks for a [`SingleThreaded`], which only a process
//! of one thread can get.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

/// Proof that this process has one thread, and a promise of its holder to start no other.
#[derive(Debug)]
pub struct SingleThreaded(());

impl SingleThreaded {
    /// Returns the proof, or nothing in a process of several threads.
    pub fn check() -> io::Result<Option<Self>> {
        Ok((std::fs::read_dir("/proc/self/task")?.count() == 1).then_some(Self(())))
    }
}

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old one, told of the new.
    Parent(Child),
}

/// A child process, held so that its number cannot be taken by another.
#[derive(Debug)]
pub struct Child {
    /// Its process id, as the parent sees it.
    pub pid: Pid,
    /// A descriptor of the process itself.
    pub pidfd: OwnedFd,
}

#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Copies this process, the copy in new namespaces (`CLONE_NEW*` in `namespaces`) and, where one is given, in the
/// cgroup whose directory is `cgroup`.
pub fn clone_into(_: &SingleThreaded, namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    clone_with(namespaces, libc::SIGCHLD, cgroup)
}

fn clone_with(flags: u64, exit_signal: i32, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    let mut pidfd: RawFd = -1;
    let mut arguments = CloneArguments {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: exit_signal as u64,
        ..CloneArguments::default()
    };
    if let Some(cgroup) = cgroup {
        // CLONE_INTO_CGROUP, which the libc crate types too narrowly.
        arguments.flags |= 0x2_0000_0000;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `arguments` is a clone_args of the size given. Without CLONE_VM and with no stack the child goes on
    // as after fork, on a copy of this stack; both callers have one thread (SingleThreaded), so no lock is left held.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut arguments,
            std::mem::size_of::<CloneArguments>(),
        )
    };
    match result {
        0 => Ok(Fork::Child),
        1.. => Ok(Fork::Parent(Child {
            pid: Pid::from_raw(result as i32).expect("the kernel gives a positive pid"),
            // SAFETY: the kernel stored a new descriptor (CLONE_PIDFD) that nobody else knows of.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        })),
        _ => Err(io::Error::last_os_error()),
    }
}

/// As [`clone_into`], but the copy is born in the pid namespace that `enter` takes this process's children to, in which
/// this process itself must not be: a plain user's process that let its children go there could not have them back.
pub fn clone_into_pid_namespace(
    single: &SingleThreaded,
    enter: impl FnOnce() -> io::Result<()>,
    namespaces: u64,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Fork> {
    let (ours, theirs) = super::socket::message_pair()?;
    let Some(helper) = fork(single)? else {
        drop(ours);
        let result = enter().and_then(|()| clone_with(namespaces | libc::CLONE_PARENT as u64, 0, cgroup));
        let sent = match result {
            Ok(Fork::Child) => return Ok(Fork::Child),
            Ok(Fork::Parent(child)) => {
                let number = child.pid.as_raw_nonzero().get().to_ne_bytes();
                super::socket::send(&theirs, &number, &[std::os::fd::AsFd::as_fd(&child.pidfd)])
            }
            Err(error) => {
                let number = error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes();
                super::socket::send(&theirs, &number, &[])
            }
        };
        exit_now(i32::from(sent.is_err()));
    };
    drop(theirs);
    let answer = super::socket::receive(&ours);
    let _ = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(helper), rustix::process::WaitOptions::empty()));
    let mut answer = answer?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    let number = answer.bytes.as_slice().try_into().map_or(libc::EIO, i32::from_ne_bytes);
    match (answer.descriptors.pop(), Pid::from_raw(number)) {
        (Some(pidfd), Some(pid)) => Ok(Fork::Parent(Child { pid, pidfd })),
        _ => Err(io::Error::from_raw_os_error(number)),
    }
}

/// Copies this process and returns the copy's number, or nothing in the copy. Unlike [`clone_into`] this works under a
/// filter that knows no `clone3`, as containers have.
pub fn fork(_: &SingleThreaded) -> io::Result<Option<Pid>> {
    // SAFETY: the caller has one thread (SingleThreaded), so the copy may do whatever the original may.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        number @ 1.. => Ok(Pid::from_raw(number)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends this process at once: no destructors, no buffers written, as a forked child must.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Moves this process into new namespaces (`CLONE_NEW*`).
pub fn unshare(_: &SingleThreaded, namespaces: u64) -> io::Result<()> {
    // SAFETY: no CLONE_FILES or CLONE_FS among the flags used here, and the process has one thread.
    let result = unsafe { libc::unshare(namespaces as i32) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Arranges that every descriptor from `first` on is closed by the next exec.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: setting close-on-exec invalidates no descriptor of this process.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Strings in the form exec takes them, made while allocating is still allowed.
#[derive(Debug)]
pub struct StringTable {
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl StringTable {
    /// Collects strings; one with a zero byte inside is refused.
    pub fn new<S: AsRef<[u8]>>(strings: impl IntoIterator<Item = S>) -> io::Result<Self> {
        let strings = strings
            .into_iter()
            .map(|string| CString::new(string.as_ref()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL)))
            .collect::<io::Result<Vec<_>>>()?;
        let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Ok(Self {
            _strings: strings,
            pointers,
        })
    }
}

/// Becomes the program at `path`. Returns only to say why not.
pub fn execute(path: &CStr, arguments: &StringTable, environment: &StringTable) -> io::Error {
    // SAFETY: both tables are null-terminated arrays of pointers into strings they own.
    unsafe {
        libc::execve(
            path.as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
        );
    }
    io::Error::last_os_error()
}

/// Becomes the program that `file` holds. Returns only to say why not.
pub fn execute_file(file: BorrowedFd<'_>, arguments: &StringTable, environment: &StringTable) -> io::Error {
    // SAFETY: as in `execute`; the path is an empty C string.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// Makes `target` (a number below 3, or one the caller owns) a copy of `source` that survives exec.
pub fn duplicate_onto(source: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    // SAFETY: dup2 onto a standard stream replaces it; nothing in this crate owns those as `OwnedFd`.
    let result = unsafe { libc::dup2(source.as_raw_fd(), target) };
    if result >= 0 {
        if source.as_raw_fd() == target {
            // SAFETY: plain descriptor flags.
            unsafe { libc::fcntl(target, libc::F_SETFD, 0) };
        }
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes every descriptor but the standard ones: what a careless parent left open.
pub fn close_inherited(_: &SingleThreaded) -> io::Result<()> {
    // SAFETY: called first thing in a process of one thread, before anything in it owns a descriptor.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes every descriptor from `first` on but one.
pub fn close_all_but(_: &SingleThreaded, first: RawFd, kept: BorrowedFd<'_>) -> io::Result<()> {
    let kept = kept.as_raw_fd();
    for (from, to) in [(first, kept - 1), (kept.max(first - 1) + 1, RawFd::MAX)] {
        // SAFETY: called last thing before exec or exit by a process of one thread, which uses none of them again.
        if from <= to && unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Moves what is on the standard input to a number of its own, and puts `/dev/null` in its place.
pub fn take_stdin() -> io::Result<OwnedFd> {
    let moved = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = std::fs::File::open("/dev/null")?;
    duplicate_onto(std::os::fd::AsFd::as_fd(&null), 0)?;
    Ok(moved)
}

/// Takes over a descriptor that the parent left at `number`, and keeps it from the programs started from here.
pub fn take_descriptor(_: &SingleThreaded, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: plain descriptor flags; a number that is not open is refused.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and called first thing in a process of one thread, before anything in it owns a descriptor
    // above the standard ones.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes the terminal the controlling one of this session.
pub fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::ioctl_tiocsctty(terminal).map_err(io::Error::from)
}

/// Leaves the session keyring this process came with for a new one, so that it holds no keys of the host.
pub fn join_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: a null name asks for an unnamed keyring.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<c_char>()) };
    if result >= 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Brings the loopback interface of this network namespace up.
pub fn bring_loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: an ifreq of zeroes is a valid one; its name is shorter than the field; the kernel only reads it.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as c_char;
        request.ifr_name[1] = b'o' as c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
