//! What a container gets from its image and what from Docker's defaults, where the request says nothing.

use std::collections::BTreeMap;

use super::config::{Config, Empty, Healthcheck, HostConfig};
use super::{EngineError, Result, logging};
use crate::image::ContainerConfig as ImageDefaults;

/// Fills what the request leaves open with what the image says: moby's `merge`.
pub fn with_image(config: &mut Config, image: &ImageDefaults) {
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    for port in image.exposed_ports.keys() {
        config.exposed_ports.entry(port.clone()).or_default();
    }
    let own = config.env.get_or_insert_default();
    for variable in &image.env {
        let name = variable.split('=').next().unwrap_or(variable);
        if !own.iter().any(|set| set.split('=').next() == Some(name)) {
            own.push(variable.clone());
        }
    }
    for (key, value) in &image.labels {
        config.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if config.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd.clone_from(&image.cmd);
        }
        if config.entrypoint.is_none() {
            config.entrypoint.clone_from(&image.entrypoint);
        }
    }
    if let Some(inherited) = &image.healthcheck {
        let own = config.healthcheck.get_or_insert_default();
        if own.test.as_ref().is_none_or(Vec::is_empty) {
            own.test = Some(inherited.test.clone());
        }
        let fill = |own: &mut i64, inherited: i64| {
            if *own == 0 {
                *own = inherited;
            }
        };
        fill(&mut own.interval, inherited.interval);
        fill(&mut own.timeout, inherited.timeout);
        fill(&mut own.start_period, inherited.start_period);
        fill(&mut own.start_interval, inherited.start_interval);
        fill(&mut own.retries, inherited.retries);
    }
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&image.working_dir);
    }
    if !image.volumes.is_empty() {
        let own = config.volumes.get_or_insert_default();
        for path in image.volumes.keys() {
            own.entry(path.clone()).or_insert(Empty {});
        }
    }
    if config.stop_signal.is_empty() {
        config.stop_signal = image.stop_signal.clone().unwrap_or_default();
    }
    if config.shell.is_none() {
        config.shell.clone_from(&image.shell);
    }
}

/// Checks the request and gives it the defaults that `inspect` then shows.
pub fn settle(config: &mut Config, host: &mut HostConfig, id: &str) -> Result<()> {
    // docker CLI: an entrypoint of one empty word means none at all.
    if config.entrypoint.as_deref() == Some(&[String::new()]) {
        config.entrypoint = None;
    }
    let is_empty = |words: &Option<Vec<String>>| words.as_ref().is_none_or(Vec::is_empty);
    if is_empty(&config.entrypoint) && is_empty(&config.cmd) {
        return Err(invalid("no command specified"));
    }
    for variable in config.env.iter().flatten() {
        if variable.is_empty() || variable.starts_with('=') {
            return Err(invalid(&format!("invalid environment variable: {variable}")));
        }
    }
    if let Some(check) = &config.healthcheck {
        check_health(check)?;
    }
    if !config.stop_signal.is_empty() {
        super::signals::parse(&config.stop_signal)?;
    }
    if !config.working_dir.is_empty() {
        if !config.working_dir.starts_with('/') {
            return Err(invalid(&format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                config.working_dir
            )));
        }
        config.working_dir = super::mounts::clean(&config.working_dir);
    }
    settle_host(host)?;
    if config.hostname.is_empty() {
        config.hostname = if host.network_mode == "host" || host.uts_mode == "host" {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        } else {
            id[..12].to_owned()
        };
    }
    // A published port is exposed too.
    for port in host.port_bindings.keys() {
        config.exposed_ports.entry(port.clone()).or_default();
    }
    Ok(())
}

fn settle_host(host: &mut HostConfig) -> Result<()> {
    if host.network_mode.is_empty() || host.network_mode == "default" {
        "bridge".clone_into(&mut host.network_mode);
    }
    if host.shm_size == 0 {
        host.shm_size = 64 << 20;
    }
    check_restart(host)?;
    if !host.storage_opt.is_empty() {
        return Err(invalid(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        ));
    }
    let default = |field: &mut String, value: &str| {
        if field.is_empty() {
            value.clone_into(field);
        }
    };
    default(&mut host.ipc_mode, "private");
    default(&mut host.log_config.r#type, "json-file");
    default(&mut host.runtime, "runc");
    if !matches!(host.runtime.as_str(), "runc" | "compose" | "io.containerd.runc.v2") {
        return Err(invalid(&format!("unknown or invalid runtime name: {}", host.runtime)));
    }
    let private_cgroups = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() && !host.privileged;
    default(
        &mut host.cgroupns_mode,
        if private_cgroups { "private" } else { "host" },
    );
    if host.memory > 0 && host.memory < 6 << 20 {
        return Err(invalid("Minimum memory limit allowed is 6MB"));
    }
    if host.memory > 0 && host.memory_swap == 0 {
        host.memory_swap = host.memory * 2;
    }
    if host.memory_swap > 0 && host.memory == 0 {
        return Err(invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if host.memory_swap > 0 && host.memory_swap < host.memory {
        return Err(invalid(
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ));
    }
    if host.memory > 0 && host.memory_reservation > host.memory {
        return Err(invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    if host.nano_cpus != 0 && (host.cpu_quota > 0 || host.cpu_period > 0) {
        return Err(invalid(
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
        ));
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if host.nano_cpus < 0 || host.nano_cpus > i64::try_from(cpus).unwrap_or(1) * 1_000_000_000 {
        return Err(invalid(&format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(invalid(&format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if host.oom_kill_disable.is_none() {
        host.oom_kill_disable = Some(false);
    }
    if host.pids_limit == Some(0) || host.pids_limit.is_some_and(|limit| limit < 0) {
        host.pids_limit = None;
    }
    logging::check(host)
}

fn check_restart(host: &mut HostConfig) -> Result<()> {
    let policy = &mut host.restart_policy;
    if policy.name.is_empty() {
        "no".clone_into(&mut policy.name);
    }
    match policy.name.as_str() {
        "no" | "always" | "unless-stopped" if policy.maximum_retry_count > 0 => {
            return Err(invalid(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'",
            ));
        }
        "no" | "always" | "unless-stopped" | "on-failure" => {}
        other => {
            return Err(invalid(&format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or \
                 'unless-stopped'"
            )));
        }
    }
    if policy.maximum_retry_count < 0 {
        return Err(invalid(
            "invalid restart policy: maximum retry count cannot be negative",
        ));
    }
    if host.auto_remove && policy.name != "no" {
        return Err(EngineError::InvalidParameter(
            "can't create 'AutoRemove' container with restart policy".to_owned(),
        ));
    }
    Ok(())
}

fn check_health(check: &Healthcheck) -> Result<()> {
    const MILLISECOND: i64 = 1_000_000;
    for (name, value) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    ] {
        if value != 0 && value < MILLISECOND {
            return Err(invalid(&format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if check.retries < 0 {
        return Err(invalid("Retries in Healthcheck cannot be negative"));
    }
    Ok(())
}

pub(super) fn invalid(text: &str) -> EngineError {
    EngineError::InvalidParameter(text.to_owned())
}

/// Returns the environment of the container's process: what every container has, then what it was given.
pub fn environment(config: &Config) -> Vec<String> {
    let mut variables = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("HOSTNAME={}", config.hostname),
    ];
    if config.tty {
        variables.push("TERM=xterm".to_owned());
    }
    overlay(&mut variables, config.env.as_deref().unwrap_or_default());
    variables
}

/// Sets variables over others: replaced in place, added at the end, and taken away where there is no `=`.
pub fn overlay(variables: &mut Vec<String>, own: &[String]) {
    let mut position: BTreeMap<String, usize> = variables
        .iter()
        .enumerate()
        .map(|(index, variable)| (name_of(variable).to_owned(), index))
        .collect();
    let mut removed = Vec::new();
    for variable in own {
        let name = name_of(variable);
        if !variable.contains('=') {
            removed.push(name.to_owned());
            continue;
        }
        match position.get(name) {
            Some(index) => variables[*index].clone_from(variable),
            None => {
                position.insert(name.to_owned(), variables.len());
                variables.push(variable.clone());
            }
        }
    }
    variables.retain(|variable| !removed.iter().any(|name| name == name_of(variable)));
}

fn name_of(variable: &str) -> &str {
    variable.split('=').next().unwrap_or(variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn entrypoint_and_command_of_the_image_give_way_as_docker_lets_them() {
        let image = ImageDefaults {
            entrypoint: words(&["entry"]),
            cmd: words(&["cmd"]),
            ..ImageDefaults::default()
        };
        for (entrypoint, cmd, merged_entrypoint, merged_cmd) in [
            (None, None, words(&["entry"]), words(&["cmd"])),
            (None, words(&["own"]), words(&["entry"]), words(&["own"])),
            (words(&["own"]), None, words(&["own"]), None),
            (words(&[]), None, words(&[]), words(&["cmd"])),
        ] {
            let mut config = Config {
                entrypoint,
                cmd,
                ..Config::default()
            };
            with_image(&mut config, &image);
            assert_eq!((config.entrypoint, config.cmd), (merged_entrypoint, merged_cmd));
        }
    }

    #[test]
    fn the_environment_is_the_image_s_under_the_request_s() {
        let image = ImageDefaults {
            env: vec!["A=image".to_owned(), "B=image".to_owned()],
            ..ImageDefaults::default()
        };
        let mut config = Config {
            env: words(&["B=own", "PATH=/bin", "HOSTNAME"]),
            hostname: "host".to_owned(),
            ..Config::default()
        };
        with_image(&mut config, &image);
        assert_eq!(environment(&config), ["PATH=/bin", "B=own", "A=image"]);
    }

    #[test]
    fn defaults_are_those_that_inspect_shows() {
        let mut config = Config {
            cmd: words(&["x"]),
            ..Config::default()
        };
        let mut host = HostConfig {
            memory: 8 << 20,
            ..HostConfig::default()
        };
        settle(&mut config, &mut host, &"ab".repeat(32)).unwrap();
        assert_eq!(config.hostname, "abababababab");
        assert_eq!((host.network_mode.as_str(), host.shm_size), ("bridge", 67_108_864));
        assert_eq!(host.memory_swap, 16 << 20);
        assert_eq!(host.restart_policy.name, "no");
    }
}
