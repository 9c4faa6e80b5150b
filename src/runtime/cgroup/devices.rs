//! Which devices a container may open.

use std::io;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::{Cgroup, Controller, write};

/// Sets the rules, in order: a later one wins.
pub fn apply(cgroup: &Cgroup, rules: &[LinuxDeviceCgroup]) -> io::Result<()> {
    match cgroup.controller("devices") {
        Some(Controller::Legacy(path)) => {
            for rule in rules {
                let file = if rule.allow() { "devices.allow" } else { "devices.deny" };
                write(&path.join(file), &line(rule))?;
            }
            Ok(())
        }
        _ => match cgroup.unified() {
            Some(path) => crate::os::device_filter::attach(path, &filters(rules)),
            None => Err(io::Error::new(io::ErrorKind::Unsupported, "no devices cgroup")),
        },
    }
}

fn line(rule: &LinuxDeviceCgroup) -> String {
    let kind = rule.typ().unwrap_or(LinuxDeviceType::A);
    let number = |number: Option<i64>| {
        number
            .filter(|number| *number >= 0)
            .map_or("*".to_owned(), |n| n.to_string())
    };
    let (major, minor) = (number(rule.major()), number(rule.minor()));
    let access = rule
        .access()
        .as_deref()
        .filter(|access| !access.is_empty())
        .unwrap_or("rwm");
    if kind == LinuxDeviceType::A && major == "*" && minor == "*" {
        // "a" alone resets the list to nothing, or everything.
        return "a".to_owned();
    }
    format!("{} {major}:{minor} {access}", kind.as_str())
}

/// Returns the rules as the unified hierarchy's filter program takes them.
fn filters(rules: &[LinuxDeviceCgroup]) -> Vec<crate::os::device_filter::DeviceRule> {
    use crate::os::device_filter::DeviceRule;
    rules
        .iter()
        .map(|rule| DeviceRule {
            allow: rule.allow(),
            kind: match rule.typ() {
                Some(LinuxDeviceType::B) => Some(1),
                Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(2),
                _ => None,
            },
            major: rule.major().and_then(|major| u32::try_from(major).ok()),
            minor: rule.minor().and_then(|minor| u32::try_from(minor).ok()),
            access: rule
                .access()
                .as_deref()
                .filter(|access| !access.is_empty())
                .unwrap_or("rwm")
                .chars()
                .fold(0, |bits, access| {
                    bits | match access {
                        'm' => 1,
                        'r' => 2,
                        'w' => 4,
                        _ => 0,
                    }
                }),
        })
        .collect()
}
