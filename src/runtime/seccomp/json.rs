//! Profiles in Docker's JSON, whose rules may depend on capabilities, the architecture and the kernel's version.

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};
use serde::Deserialize;
use serde::de::IntoDeserializer;

use super::{SeccompError, capability_name};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchitectureMap>>,
    #[serde(default)]
    syscalls: Option<Vec<Group>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchitectureMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Test>>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Test {
    index: usize,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: Option<String>,
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: (&str, &str) = ("amd64", "SCMP_ARCH_X86_64");
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: (&str, &str) = ("arm64", "SCMP_ARCH_AARCH64");
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: (&str, &str) = ("", "");

/// Reads a profile as `--security-opt seccomp=FILE` takes it, for a container with the given capabilities.
pub fn parse_docker_profile(text: &str, has: impl Fn(Capability) -> bool) -> Result<LinuxSeccomp, SeccompError> {
    let file: File = serde_json::from_str(text)?;
    let has_named = |name: &String| {
        use std::str::FromStr;
        name.strip_prefix("CAP_")
            .and_then(|bare| Capability::from_str(bare).ok())
            .is_some_and(|capability| capability_name(capability) == *name && has(capability))
    };
    let is_architecture = |name: &String| name == ARCHITECTURE.0;
    let mut syscalls: Vec<LinuxSyscall> = Vec::new();
    for group in file.syscalls.unwrap_or_default() {
        // moby profiles/seccomp/seccomp_linux.go: any excluding condition drops the group; every including one must hold.
        let excluded = group.excludes.arches.iter().any(is_architecture)
            || group.excludes.caps.iter().any(has_named)
            || group.excludes.min_kernel.as_deref().is_some_and(kernel_is_at_least);
        let included = (group.includes.arches.is_empty() || group.includes.arches.iter().any(is_architecture))
            && group.includes.caps.iter().all(has_named)
            && group.includes.min_kernel.as_deref().is_none_or(kernel_is_at_least);
        if excluded || !included {
            continue;
        }
        let arguments = group
            .args
            .unwrap_or_default()
            .into_iter()
            .map(argument)
            .collect::<Result<Vec<_>, _>>()?;
        let mut names = group.names;
        names.extend(group.name);
        let mut syscall = LinuxSyscallBuilder::default()
            .names(names)
            .action(action(&group.action)?)
            .args(arguments);
        if let Some(errno) = group.errno_ret {
            syscall = syscall.errno_ret(errno);
        }
        syscalls.push(syscall.build().expect("every field has a default"));
    }
    let architectures = match (file.architectures, file.arch_map) {
        (Some(architectures), _) => architectures,
        (None, Some(map)) => map
            .into_iter()
            .filter(|entry| entry.architecture == ARCHITECTURE.1)
            .flat_map(|entry| std::iter::once(entry.architecture).chain(entry.sub_architectures.unwrap_or_default()))
            .collect(),
        (None, None) => Vec::new(),
    };
    let mut profile = LinuxSeccompBuilder::default()
        .default_action(action(&file.default_action)?)
        .architectures(
            architectures
                .iter()
                .map(|name| named::<Arch>("architecture", name))
                .collect::<Result<Vec<_>, _>>()?,
        )
        .syscalls(syscalls);
    if let Some(errno) = file.default_errno_ret {
        profile = profile.default_errno_ret(errno);
    }
    Ok(profile.build().expect("every field has a default"))
}

fn argument(test: Test) -> Result<LinuxSeccompArg, SeccompError> {
    Ok(LinuxSeccompArgBuilder::default()
        .index(test.index)
        .value(test.value)
        .value_two(test.value_two)
        .op(named::<LinuxSeccompOperator>("operator", &test.op)?)
        .build()
        .expect("every field is given"))
}

fn action(name: &str) -> Result<LinuxSeccompAction, SeccompError> {
    named("action", name)
}

/// Reads one of the OCI's names.
fn named<'t, T: Deserialize<'t>>(what: &'static str, name: &'t str) -> Result<T, SeccompError> {
    let deserializer: serde::de::value::BorrowedStrDeserializer<'t, serde::de::value::Error> =
        serde::de::value::BorrowedStrDeserializer::new(name);
    T::deserialize(deserializer.into_deserializer()).map_err(|_| SeccompError::Unknown {
        what,
        value: name.to_owned(),
    })
}

/// Returns whether the running kernel is of the given version (`4.8`) or a later one.
fn kernel_is_at_least(version: &str) -> bool {
    let numbers = |text: &str| -> (u32, u32) {
        let mut parts = text
            .split(|c: char| !c.is_ascii_digit())
            .map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    };
    let running = rustix::system::uname();
    numbers(&running.release().to_string_lossy()) >= numbers(version)
}
