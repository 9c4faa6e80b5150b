//! Making a container from a bundle, and giving it the word to start.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDeviceCgroup, Spec};
use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::record::{self, GATE};
use super::{Containers, OciError, Record, Started, Status, call, file_error, filter, send_terminal, write_pid};
use crate::os::memfd;
use crate::os::process::SingleThreaded;
use crate::runtime::cgroup::{self, Cgroup, Layout};
use crate::runtime::hooks::{About, Calls};
use crate::runtime::launch::Root;
use crate::runtime::protocol::{self, InitPlan, ShimPlan};
use crate::runtime::shim::birth::{self, Course, First};
use crate::runtime::spec;
use crate::runtime::time::Timestamp;

/// The parent of the cgroups of containers whose specs name none.
const PARENT: &str = "compose-oci";

/// What a container is made from.
#[derive(Clone, Debug, Default)]
pub struct Creation {
    /// Its id.
    pub id: String,
    /// The directory with `config.json`.
    pub bundle: PathBuf,
    /// Where to write the first process's number.
    pub pid_file: Option<PathBuf>,
    /// Where to send the terminal's other side.
    pub console_socket: Option<PathBuf>,
    /// How many descriptors after the standard ones the process gets.
    pub preserved: u32,
    /// Whether the caller stays and carries the terminal itself.
    pub keeps_terminal: bool,
}

impl Containers {
    /// Makes a container; its first process waits for the word to start.
    pub fn create(&self, single: &SingleThreaded, what: &Creation) -> Result<Started, OciError> {
        let directory = self.directory(&what.id)?;
        let bundle = fs::canonicalize(&what.bundle).map_err(file_error(&what.bundle))?;
        let spec = read_spec(&bundle)?;
        let root = root_of(&spec, &bundle)?;
        let terminal = spec.process().as_ref().and_then(|process| process.terminal()) == Some(true);
        match (terminal, &what.console_socket) {
            (true, None) if !what.keeps_terminal => {
                return Err(OciError::Spec(
                    "cannot allocate tty if the container will be detached without setting --console-socket".to_owned(),
                ));
            }
            (false, Some(_)) => {
                return Err(OciError::Spec(
                    "cannot use --console-socket if the process has no terminal".to_owned(),
                ));
            }
            _ => {}
        }
        let filter = filter(&spec)?;
        self.make_directory(&directory, &what.id)?;
        let made = self.populate(single, what, &bundle, &directory, spec, root, filter.as_ref());
        if made.is_err() {
            let _ = fs::remove_dir_all(&directory);
        }
        made
    }

    fn make_directory(&self, directory: &Path, id: &str) -> Result<(), OciError> {
        fs::DirBuilder::new()
            .recursive(true)
            // Whoever is root in a user namespace is nobody here, and has to get to the root of its container.
            .mode(0o711)
            .create(&self.root)
            .map_err(file_error(&self.root))?;
        match fs::DirBuilder::new().mode(0o711).create(directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(OciError::Exists(id.to_owned())),
            other => other.map_err(file_error(directory)),
        }?;
        let place = directory.join(protocol::ROOT);
        fs::create_dir(&place).map_err(file_error(&place))
    }

    #[allow(clippy::too_many_arguments, reason = "what `create` found out, handed on once")]
    fn populate(
        &self,
        single: &SingleThreaded,
        what: &Creation,
        bundle: &Path,
        directory: &Path,
        spec: Spec,
        root: Root,
        filter: Option<&OwnedFd>,
    ) -> Result<Started, OciError> {
        let gate = make_gate(directory)?;
        let layout = Layout::read();
        let (path, owns_parent) = cgroup_of(&spec, &what.id)?;
        let mut cgroup = if owns_parent {
            Cgroup::new(&layout, PARENT, &what.id)
        } else {
            Cgroup::at(&layout, &path)
        };
        let mut warnings = Vec::new();
        cgroup.create(|warning| warnings.push(warning));
        let abandon = || {
            cgroup.kill();
            cgroup.remove();
        };
        let plan = ShimPlan::of(&spec, what.id.clone(), directory.to_owned(), String::new(), false);
        if let Some(resources) = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()) {
            let mut resources = resources.clone();
            allow_default_devices(resources.devices_mut().as_mut());
            cgroup::apply(&cgroup, &resources, |warning| warnings.push(warning));
        }
        let init = InitPlan {
            spec,
            root,
            groups: Vec::new(),
            init: false,
        };
        let file = serde_json::to_vec(&init).map_err(io::Error::from);
        let file = file
            .and_then(|plan| memfd::with_bytes("init", &plan))
            .map_err(call("hand the plan over"))?;
        let born = birth::first(
            single,
            First {
                plan: &plan,
                init: file,
                filter,
                netns: None,
                word: None,
                userns: None,
                cgroup: &cgroup,
                layout: &layout,
                course: Course::Alone {
                    gate: Some(gate.as_fd()),
                    bundle,
                    preserved: what.preserved,
                },
            },
        );
        let born = born.inspect_err(|_| abandon())?;
        warnings.extend(born.warnings);
        let started = Started {
            child: born.child,
            terminal: born.pump.terminal,
            warnings,
        };
        let pid = started.child.pid.as_raw_nonzero().get();
        let record = Record {
            id: what.id.clone(),
            bundle: bundle.to_owned(),
            pid,
            began: record::began(pid).unwrap_or_default(),
            created: Timestamp::now(),
            cgroup: path,
            owns_parent,
            spec: init.spec,
        };
        record
            .write(directory)
            .and_then(|()| {
                what.pid_file
                    .as_deref()
                    .map_or(Ok(()), |path| write_pid(path, &started.child))
            })
            .and_then(|()| match (&what.console_socket, &started.terminal) {
                (Some(socket), Some(terminal)) => send_terminal(socket, terminal),
                _ => Ok(()),
            })
            .inspect_err(|_| abandon())?;
        Ok(started)
    }

    /// Gives a container the word to start.
    pub fn start(&self, id: &str) -> Result<(), OciError> {
        let (record, status) = self.get(id)?;
        match status {
            Status::Created => {}
            Status::Stopped => return Err(OciError::State("cannot start a container that has stopped".to_owned())),
            _ => return Err(OciError::State("cannot start an already running container".to_owned())),
        }
        let path = self.directory(id)?.join(GATE);
        // Without a reader this fails rather than waits: the process is gone.
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let gate =
            rustix::fs::open(&path, flags, Mode::empty()).map_err(call("reach the container's first process"))?;
        fs::remove_file(&path).map_err(file_error(&path))?;
        rustix::io::write(&gate, b"0").map_err(call("tell the container's first process to start"))?;
        let hooks = record.spec.hooks().as_ref().and_then(|hooks| hooks.poststart().clone());
        let about = About {
            id,
            bundle: &record.bundle,
        };
        Calls::of(&record.spec, "poststart", hooks.into_iter().flatten())
            .run(&about, "running", record.pid.cast_unsigned())
            .map_err(OciError::Hook)
    }
}

/// Reads the spec of a bundle.
fn read_spec(bundle: &Path) -> Result<Spec, OciError> {
    let path = bundle.join("config.json");
    let bytes = fs::read(&path).map_err(file_error(&path))?;
    let wrong = |why: String| OciError::Content {
        path: path.clone(),
        why,
    };
    let spec: Spec = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    if !spec.version().starts_with("1.") {
        return Err(wrong(format!("ociVersion {:?} is not one of 1.x", spec.version())));
    }
    let Some(process) = spec.process() else {
        return Err(wrong("there is no process to run".to_owned()));
    };
    if process.args().as_deref().unwrap_or_default().is_empty() {
        return Err(wrong("process.args must not be empty".to_owned()));
    }
    if !process.cwd().is_absolute() {
        return Err(wrong(format!("process.cwd {:?} is not absolute", process.cwd())));
    }
    let linux = spec.linux().as_ref();
    if linux.is_some_and(|linux| linux.intel_rdt().is_some()) {
        return Err(wrong("linux.intelRdt is not supported".to_owned()));
    }
    let labelled = process
        .selinux_label()
        .as_deref()
        .is_some_and(|label| !label.is_empty());
    if labelled && !Path::new("/sys/fs/selinux/enforce").exists() {
        return Err(wrong(
            "selinux label is specified in config, but selinux is disabled or not supported".to_owned(),
        ));
    }
    Ok(spec)
}

fn root_of(spec: &Spec, bundle: &Path) -> Result<Root, OciError> {
    let path = spec
        .root()
        .as_ref()
        .map(|root| bundle.join(root.path()))
        .ok_or_else(|| OciError::Spec("the spec has no root".to_owned()))?;
    let path = fs::canonicalize(&path).map_err(file_error(&path))?;
    if !path.is_dir() {
        return Err(OciError::File {
            path,
            source: io::ErrorKind::NotADirectory.into(),
        });
    }
    Ok(Root::Directory(path))
}

/// Returns the cgroups' path, and whether its parent is this runtime's own.
fn cgroup_of(spec: &Spec, id: &str) -> Result<(PathBuf, bool), OciError> {
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref());
    let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else {
        return Ok((Path::new(PARENT).join(id), true));
    };
    let clean = crate::runtime::in_root::relative(path);
    // `slice:prefix:name` is systemd's.
    if clean == Path::new(".") || path.to_string_lossy().matches(':').count() == 2 {
        return Err(OciError::Spec(format!(
            "cgroupsPath {path:?} is not a path of a cgroup"
        )));
    }
    Ok((clean, false))
}

/// Allows the devices that every container has, as runc does, whatever the spec's rules.
fn allow_default_devices(rules: Option<&mut Vec<LinuxDeviceCgroup>>) {
    if let Some(rules) = rules.filter(|rules| !rules.is_empty()) {
        rules.extend(spec::default_device_rules().into_iter().filter(|rule| rule.allow()));
    }
}

/// Makes what the first process waits at, and opens it so that neither side ever waits for the other to open it.
fn make_gate(directory: &Path) -> Result<OwnedFd, OciError> {
    let path = directory.join(GATE);
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .map_err(|error| file_error(&path)(error.into()))?;
    rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| file_error(&path)(error.into()))
}
