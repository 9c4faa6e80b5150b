//! Seccomp profiles as Docker writes them: rules that apply to some capabilities and architectures only.

use oci_spec::runtime::LinuxSeccomp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::config::without_nulls;
use super::{EngineError, Result};

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Vec<String>,
    arch_map: Vec<ArchitectureMap>,
    flags: Vec<String>,
    syscalls: Vec<Rule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ArchitectureMap {
    architecture: String,
    sub_architectures: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    name: String,
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Vec<Value>,
    includes: Condition,
    excludes: Condition,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Condition {
    caps: Vec<String>,
    arches: Vec<String>,
}

/// Reads a profile for a container with these capabilities.
pub fn profile(text: &str, capabilities: &[&str]) -> Result<LinuxSeccomp> {
    let wrong =
        |cause: serde_json::Error| EngineError::InvalidParameter(format!("Decoding seccomp profile failed: {cause}"));
    let value: Value = serde_json::from_str(text).map_err(wrong)?;
    let profile: Profile = serde_json::from_value(without_nulls(value)).map_err(wrong)?;
    let (own, native) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", "SCMP_ARCH_X86_64"),
        "aarch64" => ("arm64", "SCMP_ARCH_AARCH64"),
        other => (other, ""),
    };
    let mut architectures = profile.architectures;
    for map in profile.arch_map {
        if map.architecture == native {
            architectures.push(map.architecture);
            architectures.extend(map.sub_architectures);
        }
    }
    let has = |name: &String| capabilities.iter().any(|capability| capability == name);
    let syscalls: Vec<Value> = profile
        .syscalls
        .into_iter()
        .filter(|rule| {
            let included = rule.includes.caps.iter().all(has)
                && (rule.includes.arches.is_empty() || rule.includes.arches.iter().any(|arch| arch == own));
            let excluded = rule.excludes.caps.iter().any(has) || rule.excludes.arches.iter().any(|arch| arch == own);
            included && !excluded
        })
        .map(|mut rule| {
            if !rule.name.is_empty() {
                rule.names.push(rule.name);
            }
            json!({ "names": rule.names, "action": rule.action, "errnoRet": rule.errno_ret, "args": rule.args })
        })
        .collect();
    let value = json!({
        "defaultAction": profile.default_action,
        "defaultErrnoRet": profile.default_errno_ret,
        "architectures": architectures,
        "flags": profile.flags,
        "syscalls": syscalls,
    });
    serde_json::from_value(without_nulls(value)).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::profile;

    #[test]
    fn rules_depend_on_capabilities() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["read"],"action":"SCMP_ACT_ALLOW"},
            {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["chroot"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_KILL"]}}]}"#;
        assert_eq!(
            profile(text, &["CAP_KILL"]).unwrap().syscalls().as_ref().unwrap().len(),
            1
        );
        assert_eq!(
            profile(text, &["CAP_SYS_ADMIN"])
                .unwrap()
                .syscalls()
                .as_ref()
                .unwrap()
                .len(),
            3
        );
        assert!(profile("{", &[]).is_err());
    }
}
