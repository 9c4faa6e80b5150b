//! Capabilities: their numbers, their names, and sets of them.

use oci_spec::runtime::{Capabilities, Capability};

/// Every capability, each at its number in the kernel.
pub const ALL: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// Docker's default set.
pub const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// Returns a capability's bit.
pub fn bit(capability: Capability) -> u64 {
    let number = ALL.iter().position(|known| *known == capability).unwrap_or(63);
    1 << number
}

/// Returns the bits of a set.
pub fn bits(set: Option<&Capabilities>) -> u64 {
    set.into_iter()
        .flatten()
        .fold(0, |bits, capability| bits | self::bit(*capability))
}

/// Returns a capability by the name a user gives it: any case, with or without `CAP_`.
pub fn by_name(name: &str) -> Option<Capability> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    ALL.iter().copied().find(|capability| capability.to_string() == bare)
}

/// Returns the capabilities that this process may hand on at all.
pub fn available() -> Vec<Capability> {
    let bounding = std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(u64::MAX);
    ALL.iter()
        .copied()
        .filter(|capability| bounding & bit(*capability) != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel() {
        for (capability, number) in [
            (Capability::Chown, 0),
            (Capability::SysAdmin, 21),
            (Capability::Setfcap, 31),
            (Capability::CheckpointRestore, 40),
        ] {
            assert_eq!(bit(capability), 1 << number, "{capability}");
        }
    }

    #[test]
    fn the_default_set_is_docker_s() {
        let set = DEFAULT.iter().fold(0, |bits, capability| bits | bit(*capability));
        assert_eq!(set, 0xA804_25FB);
    }

    #[test]
    fn names_are_taken_in_any_form() {
        for name in ["NET_ADMIN", "CAP_NET_ADMIN", "cap_net_admin", "net_admin"] {
            assert_eq!(by_name(name), Some(Capability::NetAdmin), "{name}");
        }
        assert_eq!(by_name("ALL"), None);
    }
}
