//! Who a process runs as: Docker's `user[:group]`, looked up in the container's own files.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags};

use super::failure::Failure;

/// The longest `/etc/passwd` that is read.
const LONGEST: u64 = 10 * 1024 * 1024;

/// An identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// The user's home.
    pub home: Option<String>,
}

/// Looks up a user as Docker writes one, and groups to add, in the files of this root.
pub fn look_up(user: &str, added: &[String]) -> Result<Identity, Failure> {
    look_up_in(user, added, read)
}

/// Looks up a user in files that `read` reads; one that it cannot read is an empty text.
pub fn look_up_in(user: &str, added: &[String], read: impl Fn(&str) -> String) -> Result<Identity, Failure> {
    resolve(user, added, &read("/etc/passwd"), &read("/etc/group"))
}

/// Returns the home of a user given by number.
pub fn home_of(uid: u32) -> Option<String> {
    entries(&read("/etc/passwd"))
        .find(|fields| fields.get(2).and_then(|field| number(field)) == Some(uid))
        .and_then(|fields| fields.get(5).map(|home| (*home).to_owned()))
}

/// Reads a file of the container's; one that is not a plain file of sane length (a pipe would hold us up for ever)
/// counts as empty.
fn read(path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_or_else(|_| String::new(), text)
}

/// Returns the text of an open file, if it is a plain one.
pub fn text(file: OwnedFd) -> String {
    let is_plain =
        rustix::fs::fstat(&file).is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::RegularFile);
    let mut bytes = Vec::new();
    if is_plain {
        let _ = File::from(file).take(LONGEST).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(':').collect())
}

/// Reads a number as an id: digits only, and no more than an id holds (`-1` as an id means "leave it").
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .filter(|id| *id <= i32::MAX as u32)
}

// moby/sys/user GetExecUser: a name first, a number second; a number need not be in the file.
fn resolve(user: &str, added: &[String], passwd: &str, group: &str) -> Result<Identity, Failure> {
    let (user, wanted_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let mut identity = Identity::default();
    let mut name = None;
    let wanted = if user.is_empty() { "0" } else { user };
    let found = entries(passwd).find(|fields| {
        fields.len() >= 4 && (fields[0] == wanted || number(wanted).is_some() && number(fields[2]) == number(wanted))
    });
    match (found, number(wanted)) {
        (Some(fields), _) => {
            identity.uid = number(fields[2]).unwrap_or(0);
            identity.gid = number(fields[3]).unwrap_or(0);
            identity.home = fields.get(5).map(|home| (*home).to_owned());
            name = Some(fields[0].to_owned());
        }
        (None, Some(uid)) => identity.uid = uid,
        (None, None) => {
            return Err(Failure::Engine(format!(
                "unable to find user {user}: no matching entries in passwd file"
            )));
        }
    }
    if let Some(wanted) = wanted_group {
        identity.gid = find_group(wanted, group)?;
    } else if let Some(name) = name {
        let member = |fields: &Vec<&str>| {
            fields
                .get(3)
                .is_some_and(|members| members.split(',').any(|m| m == name))
        };
        identity.groups = entries(group)
            .filter(member)
            .filter_map(|fields| fields.get(2).and_then(|field| number(field)))
            .collect();
    }
    for wanted in added {
        let gid = find_group(wanted, group)?;
        if !identity.groups.contains(&gid) {
            identity.groups.push(gid);
        }
    }
    Ok(identity)
}

fn find_group(wanted: &str, group: &str) -> Result<u32, Failure> {
    let found = entries(group).find_map(|fields| {
        let gid = fields.get(2).and_then(|field| number(field))?;
        (fields[0] == wanted || number(wanted) == Some(gid)).then_some(gid)
    });
    found.or_else(|| number(wanted)).ok_or_else(|| {
        Failure::Engine(format!(
            "unable to find group {wanted}: no matching entries in group file"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/false\n1234:x:7:8::/odd:\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlogs:x:50:web,root\nshared:x:51:web\n";

    fn identity(user: &str) -> Result<(u32, u32, Vec<u32>), Failure> {
        resolve(user, &[], PASSWD, GROUP).map(|identity| (identity.uid, identity.gid, identity.groups))
    }

    #[test]
    fn users_are_found_by_name_and_by_number() {
        for (user, expected) in [
            ("", (0, 0, vec![50])),
            ("root", (0, 0, vec![50])),
            ("web", (33, 34, vec![50, 51])),
            ("33", (33, 34, vec![50, 51])),
            ("web:logs", (33, 50, vec![])),
            ("web:77", (33, 77, vec![])),
            ("1000", (1000, 0, vec![])),
            ("1000:1001", (1000, 1001, vec![])),
            ("1234", (7, 8, vec![])),
        ] {
            assert_eq!(identity(user).unwrap(), expected, "{user:?}");
        }
    }

    #[test]
    fn what_is_no_user_is_refused() {
        for user in ["0x0", "+0", " 0", "4294967296", "-1", "root\n", "4294967295", "nobody"] {
            assert!(identity(user).is_err(), "{user:?}");
        }
        assert_eq!(
            identity("root:2:3"),
            Err(Failure::Engine(
                "unable to find group 2:3: no matching entries in group file".to_owned()
            ))
        );
    }

    #[test]
    fn groups_are_added() {
        let identity = resolve("web", &["logs".to_owned(), "99".to_owned()], PASSWD, GROUP).unwrap();
        assert_eq!(identity.groups, [50, 51, 99]);
    }
}
