//! This process's user namespace: which of its ids are anybody's outside.
//!
//! In the initial namespace every id is. In one that a plain user made, the kernel refuses to give a file or a process
//! an id that the map does not have.

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{PoisonError, RwLock};

use rustix::fs::{Gid, Uid};
use rustix::thread::LinkNameSpaceType;

/// An id map as the kernel prints it: inside, outside, how many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap(Vec<(u32, u32, u32)>);

impl IdMap {
    /// Reads the text of `/proc/…/uid_map` or `gid_map`.
    pub fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let mut words = line.split_whitespace().map(str::parse);
            match (words.next(), words.next(), words.next()) {
                (Some(Ok(inside)), Some(Ok(outside)), Some(Ok(count))) => Some((inside, outside, count)),
                _ => None,
            }
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// Returns whether this is the map of the initial namespace. One that cannot be read is: there are no namespaces.
    pub fn is_initial(&self) -> bool {
        self.0.is_empty() || self.0 == [(0, 0, u32::MAX)]
    }

    /// Returns whether an id of the namespace is somebody's.
    pub fn has(&self, id: u32) -> bool {
        self.0.is_empty()
            || self
                .0
                .iter()
                .any(|&(inside, _, count)| id >= inside && id - inside < count)
    }

    /// Returns the highest id that is somebody's.
    pub fn last(&self) -> u32 {
        let last = self
            .0
            .iter()
            .map(|&(inside, _, count)| inside.saturating_add(count.saturating_sub(1)));
        last.max().unwrap_or(u32::MAX)
    }

    /// Returns how many ids there are.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|&(_, _, count)| u64::from(count)).sum()
    }

    /// Returns whether there is no id at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn read(name: &str) -> IdMap {
    IdMap::parse(&fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default())
}

/// The maps of users and groups, once they were asked for.
static MAPS: RwLock<Option<(&IdMap, &IdMap)>> = RwLock::new(None);

fn maps() -> (&'static IdMap, &'static IdMap) {
    if let Some(maps) = *MAPS.read().unwrap_or_else(PoisonError::into_inner) {
        return maps;
    }
    // Kept for good: a process asks once, or twice where it enters another namespace.
    let read: (&IdMap, &IdMap) = (
        Box::leak(Box::new(read("uid_map"))),
        Box::leak(Box::new(read("gid_map"))),
    );
    *MAPS.write().unwrap_or_else(PoisonError::into_inner) = Some(read);
    read
}

/// Returns the map of this process's users, read once: an engine and its shims stay where they are.
pub fn users() -> &'static IdMap {
    maps().0
}

/// Returns the map of this process's groups, read once.
pub fn groups() -> &'static IdMap {
    maps().1
}

/// Says that this process is in another namespace from now on.
pub fn entered_another() {
    *MAPS.write().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Has this process, which must be root, make files as somebody else, who may do all that it may.
pub fn act_as(uid: u32, gid: u32) -> io::Result<()> {
    let capabilities = rustix::thread::capabilities(None)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(Gid::ROOT, gid, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, uid, Uid::ROOT)?;
    // The kernel takes them from whoever is not root any more; they may be taken back.
    Ok(rustix::thread::set_capabilities(None, capabilities)?)
}

/// Returns whether this process is root of less than the machine.
pub fn is_nested() -> bool {
    !users().is_initial()
}

/// How the ids of a user namespace below this one are numbered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    /// Its root.
    pub uid: u32,
    /// Its root's group.
    pub gid: u32,
    /// How many users and groups it has.
    pub size: u32,
}

thread_local! {
    static SHIFT: Cell<Option<Shift>> = const { Cell::new(None) };
}

/// Does something on this thread for files of a user namespace below this one: ids are its ids, and files that are made
/// are its root's.
pub fn within<T>(shift: Option<Shift>, act: impl FnOnce() -> T) -> T {
    /// Goes back however the work ends.
    struct Back(Option<Shift>);
    impl Drop for Back {
        fn drop(&mut self) {
            SHIFT.set(self.0);
            if self.0.is_none() {
                make_files_as(0, 0);
            }
        }
    }
    let Some(new) = shift else { return act() };
    let _back = Back(SHIFT.replace(Some(new)));
    let capabilities = rustix::thread::capabilities(None);
    make_files_as(new.uid, new.gid);
    // The kernel takes some from whoever is not root any more; they may be taken back.
    let _ = capabilities.and_then(|capabilities| rustix::thread::set_capabilities(None, capabilities));
    act()
}

fn make_files_as(uid: u32, gid: u32) {
    // SAFETY: both change the calling thread alone, and nothing but whose the files are that it makes.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}

/// Returns the id inside of one here, for showing it.
pub fn shown_user(uid: u32) -> u32 {
    SHIFT.get().map_or(uid, |shift| shown(uid, shift.uid, shift.size))
}

/// Returns the id inside of a group's here.
pub fn shown_group(gid: u32) -> u32 {
    SHIFT.get().map_or(gid, |shift| shown(gid, shift.gid, shift.size))
}

fn shown(id: u32, start: u32, size: u32) -> u32 {
    const NOBODY: u32 = 65534;
    let inside = id.checked_sub(start).filter(|inside| *inside < size);
    inside.unwrap_or(NOBODY)
}

fn shifted(id: u32, start: u32, size: u32) -> u32 {
    if id < size { start + id } else { start }
}

/// Returns the user a file gets here that shall be `uid`'s: that one, or root where there is no such id.
pub fn user_for(uid: u32) -> Uid {
    if let Some(shift) = SHIFT.get() {
        return Uid::from_raw(shifted(uid, shift.uid, shift.size));
    }
    if users().has(uid) {
        Uid::from_raw(uid)
    } else {
        Uid::ROOT
    }
}

/// Returns the group a file gets here that shall be `gid`'s.
pub fn group_for(gid: u32) -> Gid {
    if let Some(shift) = SHIFT.get() {
        return Gid::from_raw(shifted(gid, shift.gid, shift.size));
    }
    if groups().has(gid) {
        Gid::from_raw(gid)
    } else {
        Gid::ROOT
    }
}

/// Moves this process, which must have one thread, into a user namespace of its own in which it is `uid` and `gid`, and
/// nobody else is anybody.
pub fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    let (own_uid, own_gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // SAFETY: no CLONE_FILES; the process has one thread, as the kernel demands for a user namespace.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWUSER) }?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("{gid} {own_gid} 1\n"))?;
    fs::write("/proc/self/uid_map", format!("{uid} {own_uid} 1\n"))
}

/// Moves this process, which must have one thread, into the user namespace and then into the mount namespace.
pub fn enter(user: BorrowedFd<'_>, mount: BorrowedFd<'_>) -> io::Result<()> {
    rustix::thread::move_into_link_name_space(user, Some(LinkNameSpaceType::User))?;
    rustix::thread::move_into_link_name_space(mount, Some(LinkNameSpaceType::Mount))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_says_which_ids_there_are() {
        let one = IdMap::parse("         0       1000          1\n");
        assert!(!one.is_initial() && one.has(0) && !one.has(1));
        let ranges = IdMap::parse("0 1000 1\n1 100000 65536\n");
        assert!(ranges.has(999) && ranges.has(65536) && !ranges.has(65537));
        assert_eq!((ranges.len(), ranges.last()), (65537, 65536));
        let initial = IdMap::parse("         0          0 4294967295\n");
        assert!(initial.is_initial() && initial.has(4_000_000_000));
    }
}
