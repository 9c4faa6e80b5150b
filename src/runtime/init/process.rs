//! The last steps of a process before it becomes the user's program: limits, identity, capabilities, filter.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{PosixRlimit, PosixRlimitType, Process};
use rustix::fs::{Access, AtFlags, CWD, FileType, Gid, Mode, Uid};
use rustix::process::{Resource, Rlimit};
use rustix::thread::CapabilitySet;

use super::Channel;
use super::failure::{Attempt, Failure, words};
use super::users::{self, Identity};
use crate::os::process::{
    SingleThreaded, StringTable, close_all_but, close_on_exec_from, execute, execute_file, exit_now,
};
use crate::os::seccomp::{Instruction, load};
use crate::os::{memfd, signal, user_namespace};
use crate::runtime::capability;
use crate::runtime::hooks::{About, Calls};
use crate::runtime::protocol::InitReport;

/// The name our own process 1 runs under.
const INIT_NAME: &str = crate::runtime::tiny_init::NAME;

/// How the process ends up.
pub struct Final<'f> {
    /// What to become.
    pub process: &'f Process,
    /// Who to become.
    pub identity: Identity,
    /// The filter.
    pub filter: Option<&'f OwnedFd>,
    /// This program, where it goes on as process 1.
    pub init: Option<&'f OwnedFd>,
    /// The shim.
    pub channel: &'f Channel,
    /// Where the word to start comes from, where it is waited for.
    pub gate: Option<(&'f SingleThreaded, &'f OwnedFd)>,
    /// What to run once it has come.
    pub hooks: Calls,
    /// What those are told.
    pub about: About<'f>,
    /// How many descriptors after the standard ones the program gets.
    pub preserved: u32,
    /// Whether it dies with its parent.
    pub supervised: bool,
}

/// Finds out who the process runs as.
///
/// `docker_s` tells whether groups are looked up as Docker does, or none but the listed ones count.
pub fn identity(process: &Process, groups: &[String], docker_s: bool) -> Result<Identity, Failure> {
    let user = process.user();
    if !docker_s {
        return Ok(Identity {
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            home: users::home_of(user.uid()),
        });
    }
    if let Some(name) = user.username().as_deref().filter(|name| !name.is_empty()) {
        return users::look_up(name, groups).map(with_own_group);
    }
    let mut identity = users::look_up(&format!("{}:{}", user.uid(), user.gid()), groups)?;
    identity.groups.extend(user.additional_gids().iter().flatten());
    identity.home = users::home_of(user.uid());
    Ok(with_own_group(identity))
}

/// Lists the user's own group among the further ones, as Docker does since CVE-2022-36109: a process that may change
/// its group must not lose a restriction by it.
fn with_own_group(mut identity: Identity) -> Identity {
    identity.groups.retain(|group| *group != identity.gid);
    identity.groups.insert(0, identity.gid);
    identity
}

impl Final<'_> {
    /// Takes the last steps. Returns only to say which of them failed.
    pub fn become_program(&self) -> Failure {
        match self.prepare() {
            Err(failure) => failure,
            Ok((path, arguments, environment)) => {
                if self.gate.is_none() {
                    self.channel.send(&InitReport::Ready);
                }
                let error = match self.init {
                    Some(program) => execute_file(program.as_fd(), &arguments, &environment),
                    None => execute(&path, &arguments, &environment),
                };
                // The container counts as started: like runc, its own standard error tells.
                let _ = writeln!(io::stderr(), "exec {}: {}", path.to_string_lossy(), words(&error));
                exit_now(255)
            }
        }
    }

    fn prepare(&self) -> Result<(CString, StringTable, StringTable), Failure> {
        let process = self.process;
        let environment = self.environment();
        self.limit();
        let filter = self.read_filter()?;
        self.enter_user_namespace()?;
        let restricted = process.no_new_privileges() == Some(true);
        if restricted {
            rustix::thread::set_no_new_privs(true).attempt(|| "set no_new_privs")?;
        }
        // Before the user changes, root may enter what the user may not; after it, the other way round.
        let entered = self.enter_directory();
        // Without no_new_privs the filter takes CAP_SYS_ADMIN, which is about to go.
        if !restricted {
            load_filter(&filter)?;
        }
        self.drop_bounding()?;
        self.change_identity()?;
        if entered.is_err() {
            self.enter_directory()?;
        }
        self.set_capabilities()?;
        if self.supervised {
            // A change of identity takes the wish to die with the parent back.
            let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        }
        verify_directory()?;
        rustix::process::umask(Mode::from_raw_mode(process.user().umask().unwrap_or(0o022)));

        let arguments = process.args().as_deref().unwrap_or_default();
        let name = arguments
            .first()
            .ok_or_else(|| Failure::Runtime("no command specified".to_owned()))?;
        let path = match self.init {
            // Process 1 looks for it itself, and ends as a shell would where it finds nothing.
            Some(_) => CString::new(INIT_NAME)
                .map_err(io::Error::from)
                .attempt(|| format!("exec: {name:?}"))?,
            None => find_program(name, &environment)?,
        };
        let table = |strings: &[String]| StringTable::new(strings).attempt(|| format!("exec: {name:?}"));
        let arguments = if self.init.is_some() {
            let mut all = vec![INIT_NAME.to_owned(), "--".to_owned()];
            all.extend_from_slice(arguments);
            table(&all)?
        } else {
            table(arguments)?
        };
        let environment = table(&environment)?;
        signal::reset_all();
        close_on_exec_from(3 + self.preserved).attempt(|| "close descriptors")?;
        self.wait_at_gate()?;
        if restricted {
            load_filter(&filter)?;
        }
        Ok((path, arguments, environment))
    }

    /// Waits for the word to start, holding nothing of the host's meanwhile but what that comes by.
    fn wait_at_gate(&self) -> Result<(), Failure> {
        let Some((single, gate)) = self.gate else {
            return Ok(());
        };
        self.channel.send(&InitReport::Ready);
        self.channel.close();
        let first = i32::try_from(3 + self.preserved).unwrap_or(i32::MAX);
        close_all_but(single, first, gate.as_fd()).attempt(|| "close descriptors")?;
        let mut word = [0];
        rustix::io::retry_on_intr(|| rustix::io::read(gate, &mut word)).attempt(|| "wait for the word to start")?;
        self.hooks
            .run(&self.about, "created", std::process::id())
            .map_err(Failure::Runtime)
    }

    /// Returns the environment, with a home where none is given, as runc does.
    fn environment(&self) -> Vec<String> {
        let mut environment = self.process.env().clone().unwrap_or_default();
        if environment
            .iter()
            .all(|entry| !entry.starts_with("HOME=") || entry == "HOME=")
        {
            environment.retain(|entry| entry != "HOME=");
            let home = self
                .identity
                .home
                .as_deref()
                .filter(|home| !home.is_empty())
                .unwrap_or("/");
            environment.push(format!("HOME={home}"));
        }
        environment
    }

    /// Sets the resource limits. One that may not be raised is set as high as it may be.
    fn limit(&self) {
        for limit in self.process.rlimits().iter().flatten() {
            let resource = resource(limit.typ());
            let wanted = rlimit(limit);
            if rustix::process::setrlimit(resource, wanted).is_ok() {
                continue;
            }
            let hard = rustix::process::getrlimit(resource).maximum;
            let at_most = |value: Option<u64>| match (value, hard) {
                (Some(value), Some(hard)) => Some(value.min(hard)),
                (value, None) => value,
                (None, hard) => hard,
            };
            let clamped = Rlimit {
                current: at_most(wanted.current),
                maximum: at_most(wanted.maximum),
            };
            let result = rustix::process::setrlimit(resource, clamped);
            self.channel.warn(format!(
                "{} {}:{} is more than this host allows, {}",
                limit.typ(),
                limit.soft(),
                limit.hard(),
                match (result, hard) {
                    (Ok(()), Some(hard)) => format!("set to {hard}"),
                    _ => "left as it was".to_owned(),
                }
            ));
        }
    }

    fn enter_directory(&self) -> Result<(), Failure> {
        let directory = self.process.cwd();
        let directory = if directory.as_os_str().is_empty() {
            Path::new("/")
        } else {
            directory
        };
        rustix::process::chdir(directory).attempt(|| format!("chdir to cwd ({directory:?}) set in config.json failed"))
    }

    fn read_filter(&self) -> Result<Vec<Instruction>, Failure> {
        let Some(filter) = self.filter else {
            return Ok(Vec::new());
        };
        let bytes = memfd::read_all(filter).attempt(|| "read the seccomp filter")?;
        let instructions = bytes.as_chunks::<{ Instruction::SIZE }>().0.iter();
        Ok(instructions.map(|bytes| Instruction::from_bytes(*bytes)).collect())
    }

    /// Where the wanted user is none of this namespace's, becomes that user in a namespace of the process's own, in which
    /// the one user there is goes by the wanted number: what is theirs outside is theirs inside.
    fn enter_user_namespace(&self) -> Result<(), Failure> {
        let Identity { uid, gid, .. } = self.identity;
        if user_namespace::users().has(uid) && user_namespace::groups().has(gid) {
            return Ok(());
        }
        let attempt = || {
            format!(
                "become user {uid}:{gid}, of whom this user's namespace has none (with a range of ids in /etc/subuid and \
                 newuidmap, package \"uidmap\", it would)"
            )
        };
        user_namespace::become_user(uid, gid).attempt(attempt)
    }

    fn drop_bounding(&self) -> Result<(), Failure> {
        let capabilities = self.process.capabilities().as_ref();
        let keep = capability::bits(capabilities.and_then(|capabilities| capabilities.bounding().as_ref()));
        for number in 0..64 {
            let one = CapabilitySet::from_bits_retain(1 << number);
            // Past the last capability that the kernel knows it says EINVAL.
            match rustix::thread::capability_is_in_bounding_set(one) {
                Ok(true) if keep & 1 << number == 0 => {
                    rustix::thread::remove_capability_from_bounding_set(one).attempt(|| "apply bounding set")?;
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn change_identity(&self) -> Result<(), Failure> {
        let identity = &self.identity;
        let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
        for stream in [0, 1, 2] {
            own_stream(stream, uid);
        }
        rustix::thread::set_keep_capabilities(true).attempt(|| "set keep caps")?;
        // To the kernel this number is no group.
        if identity.groups.contains(&u32::MAX) {
            return Err(Failure::of("setgroups", &rustix::io::Errno::INVAL.into()));
        }
        let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
        // In a user namespace whose setgroups is denied there is nothing to set.
        match rustix::thread::set_thread_groups(&groups) {
            Err(rustix::io::Errno::PERM) if rustix::process::geteuid() != Uid::ROOT || denies_setgroups() => {}
            other => other.attempt(|| "setgroups")?,
        }
        rustix::thread::set_thread_res_gid(gid, gid, gid).attempt(|| "setgid")?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).attempt(|| "setuid")?;
        rustix::thread::set_keep_capabilities(false).attempt(|| "clear keep caps")
    }

    fn set_capabilities(&self) -> Result<(), Failure> {
        let sets = self.process.capabilities().as_ref();
        let held = rustix::thread::capabilities(None).attempt(|| "read capabilities")?;
        let pick = |set: Option<&oci_spec::runtime::Capabilities>| {
            // What this process does not have it cannot keep: the host withholds it.
            CapabilitySet::from_bits_retain(capability::bits(set)) & held.permitted
        };
        let new = rustix::thread::CapabilitySets {
            effective: pick(sets.and_then(|sets| sets.effective().as_ref())),
            permitted: pick(sets.and_then(|sets| sets.permitted().as_ref())),
            inheritable: pick(sets.and_then(|sets| sets.inheritable().as_ref())),
        };
        rustix::thread::set_capabilities(None, new).attempt(|| "apply caps")?;
        let _ = rustix::thread::clear_ambient_capability_set();
        let ambient = capability::bits(sets.and_then(|sets| sets.ambient().as_ref()));
        for number in (0..64).filter(|number| ambient & 1 << number != 0) {
            let one = CapabilitySet::from_bits_retain(1 << number);
            let _ = rustix::thread::configure_capability_in_ambient_set(one, true);
        }
        Ok(())
    }
}

fn load_filter(program: &[Instruction]) -> Result<(), Failure> {
    if program.is_empty() {
        return Ok(());
    }
    load(program).attempt(|| "unable to init seccomp: error loading seccomp filter into kernel")
}

/// Gives a standard stream to the user, who may want to open it again by name; a device stays root's.
fn own_stream(number: i32, uid: Uid) {
    let stream: BorrowedFd<'_> = match number {
        0 => rustix::stdio::stdin(),
        1 => rustix::stdio::stdout(),
        _ => rustix::stdio::stderr(),
    };
    let Ok(status) = rustix::fs::fstat(stream) else {
        return;
    };
    let kind = FileType::from_raw_mode(status.st_mode);
    let is_terminal = kind == FileType::CharacterDevice && rustix::termios::isatty(stream);
    if status.st_uid != uid.as_raw() && (kind == FileType::Fifo || kind == FileType::Socket || is_terminal) {
        let _ = rustix::fs::fchown(stream, Some(uid), None);
    }
}

fn denies_setgroups() -> bool {
    std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny")
}

/// Makes sure that the working directory is one of this root (CVE-2024-21626).
fn verify_directory() -> Result<(), Failure> {
    let directory = rustix::process::getcwd(Vec::new())
        .attempt(|| "current working directory is outside of container mount namespace root")?;
    if directory.as_bytes().starts_with(b"/") {
        Ok(())
    } else {
        Err(Failure::Runtime(
            "current working directory is outside of container mount namespace root -- possible container breakout \
             detected"
                .to_owned(),
        ))
    }
}

/// Finds a program as Go's `exec.LookPath` does, with its words for what is wrong.
fn find_program(name: &str, environment: &[String]) -> Result<CString, Failure> {
    let quoted = format!("exec: {name:?}");
    let terminated =
        |path: &str| CString::new(path).map_err(|_| Failure::of(&quoted, &io::Error::from_raw_os_error(libc::EINVAL)));
    if name.contains('/') {
        return match can_execute(Path::new(name)) {
            Ok(()) => terminated(name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Failure::of(format!("{quoted}: stat {name}"), &error))
            }
            Err(error) if error.raw_os_error() == Some(libc::EISDIR) => {
                Err(Failure::Runtime(format!("{quoted}: is a directory: permission denied")))
            }
            Err(error) => Err(Failure::of(&quoted, &error)),
        };
    }
    let path = environment
        .iter()
        .rev()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or_default();
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = format!("{}/{name}", directory.trim_end_matches('/'));
        if can_execute(Path::new(&candidate)).is_ok() {
            return terminated(&candidate);
        }
    }
    Err(Failure::Runtime(format!(
        "{quoted}: executable file not found in $PATH"
    )))
}

fn can_execute(path: &Path) -> io::Result<()> {
    let status = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?;
    if status.st_mode & 0o111 == 0 {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    Ok(())
}

fn rlimit(limit: &PosixRlimit) -> Rlimit {
    let value = |number: u64| (number != u64::MAX).then_some(number);
    Rlimit {
        current: value(limit.soft()),
        maximum: value(limit.hard()),
    }
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}
