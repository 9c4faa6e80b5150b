//! Why the kernel gives a plain user no namespaces, and what to do about it.

use std::fs;
use std::io;
use std::path::Path;

/// Returns what is said to the user whose namespaces the kernel refused.
pub fn explain(attempt: &str, cause: &io::Error) -> String {
    let setting = |name: &str| {
        let text = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
        Some(text.trim().to_owned())
    };
    let reason = reason(setting, Path::new("/proc/self/ns/user").exists());
    format!(
        "cannot {attempt} as a plain user: {cause}{}",
        reason.map_or_else(String::new, |reason| format!(": {reason}"))
    )
}

/// Returns which setting of the machine is in the way.
fn reason(setting: impl Fn(&str) -> Option<String>, has_namespaces: bool) -> Option<String> {
    let is = |name: &str, value: &str| setting(name).is_some_and(|found| found == value);
    let remedy = |what: &str, name: &str, value: &str| {
        let dotted = name.replace('/', ".");
        Some(format!(
            "{what}; as root: \"sysctl -w {dotted}={value}\" (and the same line in /etc/sysctl.d to keep it), or run compose as root"
        ))
    };
    if !has_namespaces {
        return Some("this kernel was built without user namespaces (CONFIG_USER_NS); run compose as root".to_owned());
    }
    if is("user/max_user_namespaces", "0") {
        return remedy("user namespaces are turned off", "user/max_user_namespaces", "15000");
    }
    if is("kernel/unprivileged_userns_clone", "0") {
        return remedy(
            "plain users may not make user namespaces",
            "kernel/unprivileged_userns_clone",
            "1",
        );
    }
    if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        return remedy(
            "AppArmor keeps plain users from using user namespaces (Ubuntu does since 23.10)",
            "kernel/apparmor_restrict_unprivileged_userns",
            "0",
        );
    }
    if is("user/max_net_namespaces", "0") {
        return remedy("network namespaces are turned off", "user/max_net_namespaces", "15000");
    }
    if is("user/max_mnt_namespaces", "0") {
        return remedy("mount namespaces are turned off", "user/max_mnt_namespaces", "15000");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_in_the_way_is_named_with_its_remedy() {
        for (name, value, words) in [
            (
                "user/max_user_namespaces",
                "0",
                "sysctl -w user.max_user_namespaces=15000",
            ),
            (
                "kernel/unprivileged_userns_clone",
                "0",
                "sysctl -w kernel.unprivileged_userns_clone=1",
            ),
            (
                "kernel/apparmor_restrict_unprivileged_userns",
                "1",
                "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            ),
        ] {
            let found = reason(|asked| (asked == name).then(|| value.to_owned()), true).unwrap();
            assert!(found.contains(words), "{found}");
        }
        assert_eq!(reason(|_| Some("15000".to_owned()), true), None);
        assert!(reason(|_| None, false).unwrap().contains("CONFIG_USER_NS"));
    }
}
