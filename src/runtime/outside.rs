//! What a container with ids of its own gets of the host.
//!
//! Its root is nobody outside: it may neither enter the host's directories nor have a file system show other ids. A
//! process that may does both, in a mount namespace of its own, and hands over mounts that are attached nowhere.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxIdMapping, Mount, Spec};
use serde::{Deserialize, Serialize};

use super::ids;
use super::in_root;
use super::init::{attempt_of, options_of};
use super::launch::Root;
use super::mounting;
use super::overlay;
use super::protocol::{InitPlan, ROOT};
use crate::os::process::{SingleThreaded, exit_now, fork, unshare};
use crate::os::{memfd, socket, user_namespace};

/// What was made ready for a container.
#[derive(Debug, Default)]
pub struct Prepared {
    /// The root file system, where it is one of layers and the container has ids of its own.
    pub root: Option<OwnedFd>,
    /// For each mount of the spec its source, where that is a path of the host.
    pub sources: Vec<Option<OwnedFd>>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Word {
    Root,
    Source(usize),
    Failed(String),
    Done,
}

/// Returns whether a mount of a spec shows other ids than its files have.
pub fn maps_ids(spec: &Spec) -> bool {
    spec.mounts().iter().flatten().any(has_own_ids)
}

fn has_own_ids(mount: &Mount) -> bool {
    mount
        .uid_mappings()
        .as_ref()
        .is_some_and(|mappings| !mappings.is_empty())
}

/// Makes everything ready; `own` is the container's user namespace, where it has one.
pub fn prepare(
    single: &SingleThreaded,
    plan: &OwnedFd,
    dir: &Path,
    own: Option<BorrowedFd<'_>>,
) -> Result<Prepared, String> {
    let failed = |error: io::Error| format!("failed to make the container's mounts ready: {error}");
    let (ours, theirs) = socket::message_pair().map_err(failed)?;
    let Some(helper) = fork(single).map_err(failed)? else {
        drop(ours);
        let say = |word: &Word, mount: Option<BorrowedFd<'_>>| -> io::Result<()> {
            socket::send(&theirs, &serde_json::to_vec(word)?, mount.as_slice())
        };
        let word = match hand_over(single, plan, dir, own, &say) {
            Ok(()) => Word::Done,
            Err(text) => Word::Failed(text),
        };
        exit_now(i32::from(say(&word, None).is_err()));
    };
    drop(theirs);
    let mut prepared = Prepared::default();
    let mut result = Err("the process that makes the container's mounts ready vanished".to_owned());
    while let Ok(Some(mut message)) = socket::receive(&ours) {
        match serde_json::from_slice(&message.bytes) {
            Ok(Word::Root) => prepared.root = message.descriptors.pop(),
            Ok(Word::Source(index)) => {
                if prepared.sources.len() <= index {
                    prepared.sources.resize_with(index + 1, || None);
                }
                prepared.sources[index] = message.descriptors.pop();
            }
            Ok(Word::Failed(text)) => result = Err(text),
            Ok(Word::Done) => result = Ok(()),
            Err(_) => {}
        }
    }
    let wait = || rustix::process::waitpid(Some(helper), rustix::process::WaitOptions::empty());
    let _ = rustix::io::retry_on_intr(wait);
    result.map(|()| prepared)
}

fn hand_over(
    single: &SingleThreaded,
    plan: &OwnedFd,
    dir: &Path,
    own: Option<BorrowedFd<'_>>,
    say: &dyn Fn(&Word, Option<BorrowedFd<'_>>) -> io::Result<()>,
) -> Result<(), String> {
    let attempt = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| format!("failed to {what}: {error}")
    };
    let read = || -> io::Result<InitPlan> { Ok(serde_json::from_slice(&memfd::read_all(plan)?)?) };
    let plan = read().map_err(attempt("read the plan"))?;
    unshare(single, libc::CLONE_NEWNS as u64).map_err(attempt("make a mount namespace"))?;
    let mut namespaces = Namespaces {
        single,
        made: Vec::new(),
    };
    for (index, mount) in plan.spec.mounts().iter().flatten().enumerate() {
        let options = options_of(mount);
        if options.bind.is_none() || own.is_none() && !has_own_ids(mount) {
            continue;
        }
        let told = |error: io::Error| format!("{}: {error}", attempt_of(mount));
        let source = mounting::source_of(mount, &options).map_err(told)?;
        if has_own_ids(mount) {
            let users = mount.uid_mappings().as_deref().unwrap_or_default();
            let groups = mount.gid_mappings().as_deref().unwrap_or(users);
            let namespace = namespaces.of(users, groups).map_err(told)?;
            ids::map_mount(source.as_fd(), options.ids == Some(true), namespace).map_err(told)?;
        }
        say(&Word::Source(index), Some(source.as_fd())).map_err(told)?;
    }
    let (Some(own), Root::Overlay { lower, upper, work }) = (own, &plan.root) else {
        return Ok(());
    };
    let linux = plan.spec.linux().as_ref();
    let root =
        |mappings: Option<&Vec<LinuxIdMapping>>| mappings.and_then(|mappings| ids::outside(mappings, 0)).unwrap_or(0);
    let uid = root(linux.and_then(|linux| linux.uid_mappings().as_ref()));
    let gid = root(linux.and_then(|linux| linux.gid_mappings().as_ref()));
    let mapped = || -> io::Result<OwnedFd> {
        let everything = in_root::own_root()?;
        mounting::propagate(everything.as_fd(), libc::MS_SLAVE, true)?;
        mapped_root(lower, upper, work, &dir.join(ROOT), own, (uid, gid))
    };
    let root = mapped().map_err(attempt("mount the root file system with the container's ids"))?;
    say(&Word::Root, Some(root.as_fd())).map_err(attempt("hand the root file system over"))
}

/// Mounts layers so that their root is the container's, and so are all its others; what it writes is in the store as
/// if it had no ids of its own.
fn mapped_root(
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    place: &Path,
    namespace: BorrowedFd<'_>,
    (uid, gid): (u32, u32),
) -> io::Result<OwnedFd> {
    // Only what is attached can be a layer before Linux 6.15.
    let data = [("mode".to_owned(), Some("755".to_owned()))];
    let scene = mounting::new_file_system("tmpfs", "layers", &data, 0)?;
    mounting::attach(scene.as_fd(), overlay::open_place(place)?.as_fd())?;
    let attach = |directory: &Path, name: &str| -> io::Result<PathBuf> {
        let to = place.join(name);
        fs::create_dir(&to)?;
        let tree = mounting::copy_of_path(directory, false)?;
        ids::map_mount(tree.as_fd(), false, namespace)?;
        mounting::attach(tree.as_fd(), overlay::open_place(&to)?.as_fd())?;
        Ok(to)
    };
    let layers = lower
        .iter()
        .enumerate()
        .map(|(number, layer)| attach(layer, &format!("layer{number}")))
        .collect::<io::Result<Vec<_>>>()?;
    // Overlayfs wants both on one mount.
    let (Some(parent), Some(upper), Some(work)) = (upper.parent(), upper.file_name(), work.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let own = attach(parent, "own")?;
    let root = place.join("root");
    fs::create_dir(&root)?;
    // What overlayfs does on its own, it does as whoever mounted it: who must exist in the layers.
    user_namespace::act_as(uid, gid)?;
    let stack = Root::Overlay {
        lower: layers,
        upper: own.join(upper),
        work: own.join(work),
    };
    let root = overlay::attach_root(&stack, &root)?;
    mounting::copy_of_file(root.as_fd(), false)
}

/// The user namespaces of mounts, one for all that map alike.
struct Namespaces<'s> {
    single: &'s SingleThreaded,
    made: Vec<(Vec<LinuxIdMapping>, Vec<LinuxIdMapping>, OwnedFd)>,
}

impl Namespaces<'_> {
    fn of(&mut self, users: &[LinuxIdMapping], groups: &[LinuxIdMapping]) -> io::Result<BorrowedFd<'_>> {
        let is_it = |(one, other, _): &(Vec<_>, Vec<_>, _)| one == users && other == groups;
        let index = match self.made.iter().position(is_it) {
            Some(index) => index,
            None => {
                let namespace = ids::make(self.single, users, groups, false)?.user;
                self.made.push((users.to_vec(), groups.to_vec(), namespace));
                self.made.len() - 1
            }
        };
        Ok(self.made[index].2.as_fd())
    }
}
