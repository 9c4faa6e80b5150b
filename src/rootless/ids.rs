//! Which ids a user's namespace has: the ranges that `/etc/subuid` and `/etc/subgid` give, or one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A range of ids of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub first: u32,
    pub count: u32,
}

/// What a user has: their own ids, and those lent to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    uid: u32,
    gid: u32,
    users: Vec<Range>,
    groups: Vec<Range>,
}

/// The programs that may map what is lent; they are set-user-id, because the kernel lets only root do so.
const PROGRAMS: [&str; 2] = ["newuidmap", "newgidmap"];

impl Ids {
    /// Finds out what this process's user has.
    pub fn of_this_user() -> Self {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let name = user_name(uid);
        let lent = |file: &str| ranges(&fs::read_to_string(file).unwrap_or_default(), uid, name.as_deref());
        Self {
            uid,
            gid,
            users: lent("/etc/subuid"),
            groups: lent("/etc/subgid"),
        }
    }

    /// Maps the ids of a new user namespace whose first process is `process`; returns whether it has more than one.
    pub fn map(&self, process: i32) -> io::Result<bool> {
        if !self.users.is_empty() && !self.groups.is_empty() {
            let mapped = self
                .lend(PROGRAMS[0], process, self.uid, &self.users)
                .and_then(|()| self.lend(PROGRAMS[1], process, self.gid, &self.groups));
            match mapped {
                Ok(()) => return Ok(true),
                Err(error) => tracing::warn!(%error, "only one user id is available"),
            }
        }
        // The first program may have done its half; then there is no other half to be had from the kernel.
        let process = Path::new("/proc").join(process.to_string());
        let write = |name: &str, text: String| {
            let is_mapped = fs::read_to_string(process.join(name)).is_ok_and(|map| !map.trim().is_empty());
            if is_mapped {
                Ok(())
            } else {
                fs::write(process.join(name), text)
            }
        };
        fs::write(process.join("setgroups"), "deny")?;
        write("gid_map", format!("0 {} 1\n", self.gid))?;
        write("uid_map", format!("0 {} 1\n", self.uid))?;
        Ok(false)
    }

    fn lend(&self, program: &str, process: i32, own: u32, lent: &[Range]) -> io::Result<()> {
        let path = find(program).ok_or_else(|| io::Error::other(format!("{program} is not installed")))?;
        let output = Command::new(path)
            .arg(process.to_string())
            .args(arguments(own, lent))
            .stdin(Stdio::null())
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("{program}: {}", words.trim())))
    }
}

/// Returns the map for newuidmap: the user is root, and what is lent follows.
fn arguments(own: u32, lent: &[Range]) -> Vec<String> {
    let mut next: u32 = 1;
    let mut arguments = vec![0, own, 1];
    // The kernel takes 340 lines; one of fewer than it could be is enough for anybody.
    for range in lent.iter().take(100) {
        let count = range.count.min(u32::MAX - 1 - next);
        if count == 0 {
            break;
        }
        arguments.extend([next, range.first, count]);
        next += count;
    }
    arguments.iter().map(u32::to_string).collect()
}

/// Returns the ranges of `/etc/subuid` that are the user's, by name or by number.
fn ranges(text: &str, uid: u32, name: Option<&str>) -> Vec<Range> {
    let number = uid.to_string();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let who = fields.next()?;
            if who != number && Some(who) != name {
                return None;
            }
            let first = fields.next()?.parse().ok()?;
            let count = fields.next()?.parse().ok().filter(|count| *count > 0)?;
            Some(Range { first, count })
        })
        .collect()
}

/// Returns the user's name: `/etc/passwd`'s, or what their session calls them where that does not list them.
fn user_name(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let number = uid.to_string();
    let listed = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    listed.or_else(|| std::env::var("USER").ok())
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        // A plain user's path may lack what it needs.
        .chain(["/usr/bin", "/usr/sbin", "/bin", "/usr/local/bin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// Says why this user has one id only, and what to do about it.
pub fn why_one(uid: u32) -> String {
    let name = user_name(uid).unwrap_or_else(|| uid.to_string());
    let has = |file: &str| !ranges(&fs::read_to_string(file).unwrap_or_default(), uid, Some(&name)).is_empty();
    let mut remedies = Vec::new();
    if PROGRAMS.iter().any(|program| find(program).is_none()) {
        remedies.push("install the package \"uidmap\" (newuidmap, newgidmap)".to_owned());
    }
    if !has("/etc/subuid") || !has("/etc/subgid") {
        remedies.push(format!(
            "as root, \"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}\""
        ));
    }
    if remedies.is_empty() {
        return "newuidmap refused the ranges of /etc/subuid: the engine's log says why".to_owned();
    }
    remedies.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_ranges_are_found_by_name_and_by_number() {
        let text = "# lent\nann:100000:65536\n1001:200000:10\nben:300000:5\nann:400000:x\nann:500000:0\n";
        assert_eq!(
            ranges(text, 1001, Some("ann")),
            [
                Range {
                    first: 100_000,
                    count: 65536
                },
                Range {
                    first: 200_000,
                    count: 10
                }
            ]
        );
        assert!(ranges(text, 7, None).is_empty());
    }

    #[test]
    fn the_user_is_root_and_what_is_lent_follows() {
        let lent = [
            Range {
                first: 100_000,
                count: 65536,
            },
            Range {
                first: 300_000,
                count: 5,
            },
        ];
        assert_eq!(
            arguments(1000, &lent).join(" "),
            "0 1000 1 1 100000 65536 65537 300000 5"
        );
    }
}
