//! Whether mounts can spread between the host and a container as a bind wishes.
//!
//! A mount follows others only where the mount that its source lies on does: the kernel would take the wish in silence
//! and nothing would ever spread.

use std::path::Path;

use super::mounts::MountPoint;
use super::{EngineError, Result};
use crate::runtime::mountinfo::{self, Mounted};

/// Refuses a bind whose mounts cannot spread as it says. The words are moby's.
pub fn check(mount: &MountPoint) -> Result<()> {
    if mount.propagation.ends_with("private") || mount.propagation.is_empty() {
        return Ok(());
    }
    // What cannot be resolved is told of when it is mounted.
    let Ok(source) = Path::new(&mount.source).canonicalize() else {
        return Ok(());
    };
    let all = mountinfo::read();
    match refusal(&all, &source, &mount.propagation) {
        Some(text) => Err(EngineError::Start(text)),
        None => Ok(()),
    }
}

fn refusal(all: &[Mounted], source: &Path, propagation: &str) -> Option<String> {
    // Of two mounts at one place the later covers the earlier.
    let under = all
        .iter()
        .filter(|mounted| source.starts_with(&mounted.point))
        .max_by_key(|mounted| mounted.point.components().count())?;
    let (wanted, able) = match propagation {
        "shared" | "rshared" => ("shared", under.shared),
        _ => ("shared or slave", under.shared || under.slave),
    };
    (!able).then(|| {
        format!(
            "path {} is mounted on {} but it is not a {wanted} mount",
            source.display(),
            under.point.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_that_a_source_lies_on_decides() {
        let all = mountinfo::parse(
            "1 0 254:0 / / rw - ext4 /dev/vda rw\n\
             2 1 0:5 / /mnt rw shared:1 - tmpfs none rw\n\
             3 2 0:6 / /mnt/slave rw,noatime master:4 - tmpfs none rw\n\
             4 2 0:7 / /mnt/slave rw - tmpfs none rw\n\
             5 2 0:8 / /mnt/with\\040space rw master:4 - tmpfs none rw\n",
        );
        let said = |path: &str, propagation: &str| refusal(&all, Path::new(path), propagation);
        assert_eq!(said("/mnt/x", "rshared"), None);
        assert_eq!(said("/mnt/x", "slave"), None);
        assert_eq!(said("/mnt/with space/x", "rslave"), None);
        for (path, propagation, text) in [
            (
                "/srv",
                "rslave",
                "path /srv is mounted on / but it is not a shared or slave mount",
            ),
            (
                "/srv",
                "shared",
                "path /srv is mounted on / but it is not a shared mount",
            ),
            (
                "/mnt/with space/x",
                "rshared",
                "path /mnt/with space/x is mounted on /mnt/with space but it is not a shared mount",
            ),
            (
                "/mnt/slave",
                "slave",
                "path /mnt/slave is mounted on /mnt/slave but it is not a shared or slave mount",
            ),
        ] {
            assert_eq!(said(path, propagation).as_deref(), Some(text));
        }
    }
}
