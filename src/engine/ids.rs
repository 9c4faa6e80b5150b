//! Containers with ids of their own, and mounts whose files are yours.
//!
//! With `userns_mode: auto` a container's root is nobody on the host: it gets a range of ids from `/etc/subuid` and
//! `/etc/subgid` that no other container has. What it and its volumes hold is in the store as if it had none, so that
//! everything can be used with and without.
//!
//! A bind mount with `idmap` shows the files of whoever owns the directory as the container's user's, and what that
//! user makes there is the owner's.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use oci_spec::runtime::LinuxIdMapping;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::config::HostConfig;
use super::container::{Container, Record};
use super::mounts::MountPoint;
use super::{Engine, EngineError, Result};
use crate::image::View;
use crate::os::user_namespace;
use crate::runtime;

/// The mode of a container that gets a range.
const AUTO: &str = "auto";
/// How many ids a container gets where there are so many: as many as have names anywhere.
const SIZE: u32 = 65536;
/// Whose entries in `/etc/subuid` and `/etc/subgid` are shared out: ours, or those Podman takes.
const OWNERS: [&str; 2] = ["compose", "containers"];
/// The variable that names somebody else.
const OWNER_VARIABLE: &str = "COMPOSE_USERNS_OWNER";
/// The longest `/etc/passwd` that is read.
const LONGEST: u64 = 10 * 1024 * 1024;
/// The annotation that names the mounts whose ids are mapped, one destination a line.
pub const MAPPED_MOUNTS: &str = "compose.idmap";

/// A container's range: where its root and root's group are on the host, and how many ids follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    pub uid: u32,
    pub gid: u32,
    pub size: u32,
}

impl Ids {
    fn mapping(start: u32, size: u32) -> Value {
        json!([{ "containerID": 0, "hostID": start, "size": size }])
    }

    /// Puts the maps into a spec's `linux` section, or into a mount that shows everything as the container's.
    pub fn put_into(self, object: &mut Value) {
        object["uidMappings"] = Self::mapping(self.uid, self.size);
        object["gidMappings"] = Self::mapping(self.gid, self.size);
    }

    fn maps(self) -> (Vec<LinuxIdMapping>, Vec<LinuxIdMapping>) {
        let read = |start| serde_json::from_value(Self::mapping(start, self.size)).unwrap_or_default();
        (read(self.uid), read(self.gid))
    }

    /// Returns how files of a container's are reached from outside.
    pub fn shift(self) -> user_namespace::Shift {
        user_namespace::Shift {
            uid: self.uid,
            gid: self.gid,
            size: self.size,
        }
    }
}

fn refused(text: &str) -> EngineError {
    EngineError::InvalidParameter(text.to_owned())
}

/// Refuses modes that mean nothing, and what a container with ids of its own cannot have.
pub fn check(host: &HostConfig, mounts: &[MountPoint]) -> Result<()> {
    match host.userns_mode.as_str() {
        "" | "host" => return Ok(()),
        AUTO if is_everybody_s() => return Ok(()),
        AUTO => {}
        other => {
            return Err(EngineError::InvalidParameter(format!(
                "invalid user namespace mode {other:?}: a container's ids are its own with \"auto\", and the engine's with \
                 \"host\""
            )));
        }
    }
    // moby verifyPlatformContainerSettings
    if host.privileged {
        return Err(refused(
            "privileged mode is incompatible with user namespaces. You must run the container in the host namespace when \
             running privileged mode",
        ));
    }
    if host.network_mode == "host" {
        return Err(refused(
            "cannot share the host's network namespace when user namespaces are enabled",
        ));
    }
    for (kind, mode) in [("PID", &host.pid_mode), ("IPC", &host.ipc_mode)] {
        if mode == "host" || mode.starts_with("container:") {
            return Err(EngineError::InvalidParameter(format!(
                "cannot share the {kind} namespace of the host or of another container when user namespaces are enabled"
            )));
        }
    }
    if let Some(mount) = mounts.iter().find(|mount| mount.kind == "image") {
        return Err(EngineError::InvalidParameter(format!(
            "cannot mount an image at {} when user namespaces are enabled",
            mount.destination
        )));
    }
    Ok(())
}

/// A plain user's containers are in that user's namespace: their root is nobody on the host whatever their mode.
fn is_everybody_s() -> bool {
    user_namespace::is_nested()
}

impl Engine {
    /// Gives a container its range for this start, which no other that runs has.
    pub(super) fn give_ids(&self, container: &Container) -> Result<Option<Ids>> {
        // Two that start at once must not find the same one.
        static SHARING: Mutex<()> = Mutex::new(());
        let _sharing = SHARING.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = if container.record().host.userns_mode == AUTO && !is_everybody_s() {
            let others = || {
                self.containers
                    .all()
                    .into_iter()
                    .filter(|other| other.id != container.id)
            };
            let taken: Vec<Ids> = others().filter_map(|other| other.record().ids).collect();
            let running = || -> Vec<Ids> {
                let of = |other: std::sync::Arc<Container>| other.record().ids.filter(|_| other.live().is_some());
                others().filter_map(of).collect()
            };
            let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
            let wanted = std::env::var(OWNER_VARIABLE).ok();
            let owners = wanted.as_deref().map_or(OWNERS.to_vec(), |wanted| vec![wanted]);
            let (users, groups) = (read("/etc/subuid"), read("/etc/subgid"));
            // One that does not run may get another range when it starts again.
            let found = share_out(&owners, &users, &groups, &taken)
                .or_else(|_| share_out(&owners, &users, &groups, &running()));
            Some(found.map_err(EngineError::Start)?)
        } else {
            None
        };
        if container.record().ids != ids {
            container.update(|record| record.ids = ids)?;
        }
        Ok(ids)
    }

    /// Makes the namespaces of a container with ids of its own.
    pub(super) async fn namespaces_of(&self, ids: Ids) -> Result<(std::os::fd::OwnedFd, std::os::fd::OwnedFd)> {
        let (users, groups) = ids.maps();
        self.runtime
            .user_namespace(users, groups)
            .await
            .map_err(super::lifecycle::runtime_failure(
                "cannot give the container ids of its own",
            ))
    }

    /// Has a mount show the ids that the container's user can use.
    pub(super) fn map_mount(
        &self,
        record: &Record,
        mount: &MountPoint,
        layers: &[PathBuf],
        value: &mut Value,
    ) -> Result<()> {
        let own = mount.kind == "volume"
            && value["source"]
                .as_str()
                .is_some_and(|source| Path::new(source).starts_with(self.volumes.data_dir(&mount.name)));
        if own {
            if let Some(ids) = record.ids {
                ids.put_into(value);
                add_option(value);
            }
            return Ok(());
        }
        let is_wanted = record
            .host
            .annotations
            .get(MAPPED_MOUNTS)
            .is_some_and(|list| list.lines().any(|line| line == mount.destination));
        let (true, Some(source)) = (is_wanted && value["type"] == "bind", value["source"].as_str()) else {
            return Ok(());
        };
        let metadata = fs::metadata(source).map_err(EngineError::file("cannot look at", Path::new(source)))?;
        let (uid, gid) = user_of(record, layers)?;
        if is_everybody_s() {
            // Whoever started the engine is root in there already, and may not have the kernel show more.
            if (uid, gid) == (0, 0) {
                return Ok(());
            }
            return Err(EngineError::Start(format!(
                "cannot mount {source} with `idmap`: a plain user's files belong to the container's root, and this \
                 container runs as {uid}:{gid}"
            )));
        }
        let (users, groups) = match record.ids {
            // Nobody but the owner is let through: root in there is nobody's root.
            Some(ids) => (
                one(metadata.uid(), ids.uid.saturating_add(uid)),
                one(metadata.gid(), ids.gid.saturating_add(gid)),
            ),
            None => (exchanged(metadata.uid(), uid), exchanged(metadata.gid(), gid)),
        };
        value["uidMappings"] = users;
        value["gidMappings"] = groups;
        add_option(value);
        Ok(())
    }
}

/// Returns the numbers of a container's user, which may be a name in its layers, the top one first.
fn user_of(record: &Record, layers: &[PathBuf]) -> Result<(u32, u32)> {
    let read = |path: &str| -> String {
        let find = || -> Option<String> {
            let view = View::open(layers).ok()?;
            let found = view.find(Path::new(path)).ok()??;
            std::io::read_to_string(found.open().ok()?.take(LONGEST)).ok()
        };
        find().unwrap_or_default()
    };
    runtime::user_in(&record.config.user, read)
        .map_err(super::lifecycle::runtime_failure("cannot find the container's user"))
}

fn add_option(mount: &mut Value) {
    if let Some(options) = mount["options"].as_array_mut() {
        options.push(json!("idmap"));
    }
}

fn one(file: u32, shown: u32) -> Value {
    json!([{ "containerID": file, "hostID": shown, "size": 1 }])
}

/// Everybody stays who they are, but for two who take each other's place.
fn exchanged(one: u32, other: u32) -> Value {
    let (low, high) = (one.min(other), one.max(other));
    // The last number is nobody's.
    let end = u32::MAX;
    let mut lines = Vec::new();
    let mut line = |file: u32, shown: u32, size: u32| {
        if size > 0 {
            lines.push(json!({ "containerID": file, "hostID": shown, "size": size }));
        }
    };
    if low == high {
        line(0, 0, end);
        return Value::Array(lines);
    }
    line(0, 0, low);
    line(low, high, 1);
    line(low + 1, low + 1, high - low - 1);
    line(high, low, 1);
    line(high + 1, high + 1, end - high - 1);
    Value::Array(lines)
}

/// Returns the first range that is not taken.
fn share_out(owners: &[&str], users: &str, groups: &str, taken: &[Ids]) -> std::result::Result<Ids, String> {
    let of = |text: &str, owner: &str| -> Vec<(u32, u32)> {
        let range = |line: &str| {
            let rest = line.trim().strip_prefix(owner)?.strip_prefix(':')?;
            let (start, count) = rest.split_once(':')?;
            Some((start.parse().ok()?, count.parse().ok()?))
        };
        text.lines().filter_map(range).collect()
    };
    let missing = || {
        format!(
            "userns_mode \"auto\" takes ids from the entries of {} in /etc/subuid and /etc/subgid, and there are none; a line \
             such as \"{}:2147483648:16777216\" in both gives some to 256 containers",
            owners.join(" or "),
            owners.first().unwrap_or(&OWNERS[0])
        )
    };
    let owner = owners
        .iter()
        .find(|owner| !of(users, owner).is_empty() && !of(groups, owner).is_empty())
        .ok_or_else(missing)?;
    let overlaps = |start: u32, size: u32, other: u32, count: u32| {
        start < other.saturating_add(count) && other < start.saturating_add(size)
    };
    let free = |ranges: Vec<(u32, u32)>, of: fn(&Ids) -> u32| -> Option<(u32, u32)> {
        ranges.into_iter().find_map(|(start, count)| {
            let size = count.min(SIZE);
            (0..count.checked_div(size)?)
                .map(|number| start.saturating_add(number * size))
                .find(|start| !taken.iter().any(|ids| overlaps(*start, size, of(ids), ids.size)))
                .map(|start| (start, size))
        })
    };
    let exhausted =
        || format!("every range of ids that {owner:?} has in /etc/subuid and /etc/subgid is some container's");
    let (uid, some) = free(of(users, owner), |ids| ids.uid).ok_or_else(exhausted)?;
    let (gid, others) = free(of(groups, owner), |ids| ids.gid).ok_or_else(exhausted)?;
    Ok(Ids {
        uid,
        gid,
        size: some.min(others),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_gets_a_range_of_its_own() {
        let file = "root:1:5\ncontainers:100000:131072\n";
        let first = share_out(&OWNERS, file, file, &[]).unwrap();
        assert_eq!((first.uid, first.gid, first.size), (100_000, 100_000, SIZE));
        let second = share_out(&OWNERS, file, file, &[first]).unwrap();
        assert_eq!(second.uid, 165_536);
        let error = share_out(&OWNERS, file, file, &[first, second]).unwrap_err();
        assert!(error.contains("some container's"), "{error}");
        assert!(share_out(&OWNERS, "", file, &[]).unwrap_err().contains("/etc/subuid"));
        // Ours comes first, whole or not.
        let small = "compose:7000:1000\ncontainers:100000:131072\n";
        let ids = share_out(&OWNERS, small, small, &[]).unwrap();
        assert_eq!((ids.uid, ids.size), (7000, 1000));
    }

    #[test]
    fn two_take_each_other_s_place() {
        let spans = |value: &Value| -> Vec<(u64, u64, u64)> {
            let number = |line: &Value, name: &str| line[name].as_u64().unwrap();
            let lines = value.as_array().unwrap().iter();
            lines
                .map(|line| {
                    (
                        number(line, "containerID"),
                        number(line, "hostID"),
                        number(line, "size"),
                    )
                })
                .collect()
        };
        let end = u64::from(u32::MAX);
        assert_eq!(
            spans(&exchanged(1000, 0)),
            [(0, 1000, 1), (1, 1, 999), (1000, 0, 1), (1001, 1001, end - 1001)]
        );
        assert_eq!(spans(&exchanged(5, 5)), [(0, 0, end)]);
        assert_eq!(
            spans(&exchanged(3, 4)),
            [(0, 0, 3), (3, 4, 1), (4, 3, 1), (5, 5, end - 5)]
        );
    }
}
