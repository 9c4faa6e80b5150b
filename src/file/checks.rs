//! What the form of single values cannot tell: attributes that exclude each other, references that lead nowhere.
// compose-go validation/ and loader/validate.go

use std::collections::BTreeMap;

use crate::model::{Project, Service};
use crate::yaml::{Diagnostic, Node};

use super::tree::{as_list, each_entry, each_service};

const INVALID: &str = "invalid compose project";

/// Checks a canonical tree before paths are resolved.
pub fn check_tree(root: &mut Node) -> Result<(), Diagnostic> {
    each_entry(root, "volumes", check_volume)?;
    each_entry(root, "configs", |name, config| {
        check_file_object(&format!("configs.{name}"), config, &["file", "environment", "content"])
    })?;
    each_entry(root, "secrets", |name, secret| {
        check_file_object(&format!("secrets.{name}"), secret, &["file", "environment"])
    })?;
    each_service(root, |name, service| {
        for port in service.get("ports").map(as_list).unwrap_or_default() {
            if let Some(address) = port.get("host_ip")
                && let Some(text) = address.as_str()
                && text.parse::<std::net::IpAddr>().is_err()
            {
                let message = format!("services.{name}.ports.[]: invalid ip address: {text}");
                return Err(Diagnostic::error(message).at(address.span));
            }
        }
        let watches = service.get("develop").and_then(|node| node.get("watch"));
        for watch in watches.map(as_list).unwrap_or_default() {
            if let Some(path) = watch.get("path")
                && path.as_str() == Some("")
            {
                let message = format!("services.{name}.develop.watch.[].path: value can't be blank");
                return Err(Diagnostic::error(message).at(path.span));
            }
        }
        let devices = ["deploy", "resources", "reservations", "devices"]
            .iter()
            .try_fold(&*service, |node, key| node.get(key));
        let requests = [
            (devices, "deploy.resources.reservations.devices"),
            (service.get("gpus"), "gpus"),
        ];
        for (list, path) in requests {
            for request in list.map(as_list).unwrap_or_default() {
                if request.get("count").is_some() && request.get("device_ids").is_some() {
                    let message =
                        format!("services.{name}.{path}.[]: \"count\" and \"device_ids\" attributes are exclusive");
                    return Err(Diagnostic::error(message).at(request.span));
                }
            }
        }
        Ok(())
    })
}

fn check_volume(name: &str, volume: &mut Node) -> Result<(), Diagnostic> {
    let Some(mapping) = volume.as_mapping() else {
        return Ok(());
    };
    let Some(external) = mapping.get("external") else {
        return Ok(());
    };
    if external.as_bool() == Some(false) {
        return Ok(());
    }
    for (key, entry) in mapping.iter() {
        if matches!(key, "name" | "external") || key.starts_with("x-") {
            continue;
        }
        let message = format!("volumes.{name}: conflicting parameters \"external\" and \"{key}\" specified");
        return Err(Diagnostic::error(message)
            .at(entry.key_span)
            .related(external.span, "the volume is declared external here"));
    }
    Ok(())
}

fn check_file_object(path: &str, node: &mut Node, kinds: &[&str]) -> Result<(), Diagnostic> {
    let Some(mapping) = node.as_mapping() else {
        return Ok(());
    };
    let given: Vec<_> = kinds.iter().filter_map(|kind| mapping.entry(kind)).collect();
    match given.as_slice() {
        [first, second, ..] => {
            let message = format!("{path}: {} attributes are mutually exclusive", kinds.join("|"));
            Err(Diagnostic::error(message)
                .at(second.key_span)
                .related(first.key_span, "the other one"))
        }
        [] if !mapping.contains_key("driver") && !mapping.contains_key("external") => {
            let message = format!("{path}: one of {} must be set", kinds.join("|"));
            Err(Diagnostic::error(message).at(node.span))
        }
        _ => Ok(()),
    }
}

/// Checks a project as a whole; every complaint comes with the path of keys it is about.
pub fn check_project(project: &mut Project) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut services = std::mem::take(&mut project.services);
    let known: BTreeMap<String, bool> = services
        .iter()
        .map(|(name, service)| (name.clone(), service.build.is_some()))
        .collect();
    for (name, service) in &mut services {
        found.extend(check_service(name, service, project, &known).err());
    }
    project.services = services;
    for (name, secret) in &project.secrets {
        if !secret.external && secret.file.is_empty() && secret.environment.is_empty() {
            let message = format!("secret \"{name}\" must declare either `file` or `environment`: {INVALID}");
            found.push((message, at(&["secrets", name])));
        }
    }
    found
}

fn at(path: &[&str]) -> Vec<String> {
    path.iter().map(|key| (*key).to_owned()).collect()
}

type Complaint = (String, Vec<String>);

/// Checks one service; `known` are the services that are on, each with whether it is built.
fn check_service(
    name: &str,
    service: &mut Service,
    project: &Project,
    known: &BTreeMap<String, bool>,
) -> Result<(), Complaint> {
    let here = |keys: &[&str]| {
        let mut path = at(&["services", name]);
        path.extend(keys.iter().map(|key| (*key).to_owned()));
        path
    };
    if service.build.is_none() && service.image.is_empty() && service.provider.is_none() {
        return Err((
            format!("service \"{name}\" has neither an image nor a build context specified: {INVALID}"),
            here(&[]),
        ));
    }
    if let Some(build) = &service.build {
        if !build.dockerfile_inline.is_empty() && !build.dockerfile.is_empty() {
            return Err((
                format!("service \"{name}\" declares mutualy exclusive dockerfile and dockerfile_inline: {INVALID}"),
                here(&["build", "dockerfile_inline"]),
            ));
        }
        for (context, source) in &build.additional_contexts {
            if let Some(other) = source.strip_prefix("service:") {
                let fault = match known.get(other) {
                    Some(true) => continue,
                    Some(false) => "non-buildable",
                    None => "unknown",
                };
                return Err((
                    format!("service \"{name}\" declares {fault} service \"{other}\" as additional contexts {context}"),
                    here(&["build", "additional_contexts", context]),
                ));
            }
        }
        if !build.platforms.is_empty() && !service.platform.is_empty() && !build.platforms.contains(&service.platform) {
            return Err((
                format!(
                    "service.build.platforms MUST include service.platform \"{}\": {INVALID}",
                    service.platform
                ),
                here(&["build", "platforms"]),
            ));
        }
    }
    if !service.network_mode.is_empty() && !service.networks.is_empty() {
        return Err((
            format!("service {name} declares mutually exclusive `network_mode` and `networks`: {INVALID}"),
            here(&["networks"]),
        ));
    }
    let undefined = |kind: &str, reference: &str, keys: &[&str]| {
        (
            format!("service \"{name}\" refers to undefined {kind} {reference}: {INVALID}"),
            here(keys),
        )
    };
    for network in service.networks.keys() {
        if !project.networks.contains_key(network) {
            return Err(undefined("network", network, &["networks", network]));
        }
    }
    if let Some(check) = &service.healthcheck
        && let Some(first) = check.test.first()
        && !matches!(first.as_str(), "CMD" | "CMD-SHELL" | "NONE")
    {
        return Err((
            "healthcheck.test must start either by \"CMD\", \"CMD-SHELL\" or \"NONE\"".into(),
            here(&["healthcheck", "test"]),
        ));
    }
    for (dependency, how) in &service.depends_on {
        let disabled = project.disabled_services.contains_key(dependency);
        if !known.contains_key(dependency) && (!disabled || how.required) {
            return Err((
                format!("service \"{name}\" depends on undefined service \"{dependency}\": {INVALID}"),
                here(&["depends_on", dependency]),
            ));
        }
    }
    for mount in &service.volumes {
        if mount.r#type == "volume" && !mount.source.is_empty() && !project.volumes.contains_key(&mount.source) {
            return Err(undefined("volume", &mount.source, &["volumes"]));
        }
    }
    for secret in service.build.iter().flat_map(|build| &build.secrets) {
        if !project.secrets.contains_key(&secret.source) {
            return Err(undefined("build secret", &secret.source, &["build", "secrets"]));
        }
    }
    for config in &service.configs {
        if !project.configs.contains_key(&config.source) {
            return Err(undefined("config", &config.source, &["configs"]));
        }
    }
    for model in service.models.keys() {
        if !project.models.contains_key(model) {
            return Err(undefined("model", model, &["models", model]));
        }
    }
    for secret in &service.secrets {
        if !project.secrets.contains_key(&secret.source) {
            return Err(undefined("secret", &secret.source, &["secrets"]));
        }
    }
    check_limits(service).map_err(|(old, new)| {
        (
            format!("services.{name}: can't set distinct values on '{old}' and '{new}': {INVALID}"),
            here(&[old]),
        )
    })?;
    for watch in service.develop.iter().flat_map(|develop| &develop.watch) {
        if !matches!(watch.action.as_str(), "rebuild" | "restart") && watch.target.is_empty() {
            return Err((
                format!("services.{name}.develop.watch: target is required for non-rebuild actions: {INVALID}"),
                here(&["develop", "watch"]),
            ));
        }
    }
    let attribute = match service.scale {
        Some(_) => "scale",
        None => "deploy.replicas",
    };
    if service.replicas() < 0 {
        return Err((
            format!("services.{name}.{attribute}: must be greater than or equal to 0"),
            here(&["scale"]),
        ));
    }
    if !service.container_name.is_empty() && service.replicas() > 1 {
        return Err((
            format!(
                "services.{attribute}: can't set container_name and {name} as container name must be unique: {INVALID}"
            ),
            here(&["container_name"]),
        ));
    }
    Ok(())
}

/// The old attributes and those of `deploy` must agree.
fn check_limits(service: &mut Service) -> Result<(), (&'static str, &'static str)> {
    let Some(deploy) = &mut service.deploy else {
        return Ok(());
    };
    if let Some(scale) = service.scale {
        if deploy.replicas.is_some_and(|replicas| replicas != scale) {
            return Err(("scale", "deploy.replicas"));
        }
        deploy.replicas = Some(scale);
    }
    if let Some(limits) = &deploy.resources.limits {
        if service.cpus != 0.0 && limits.cpus != service.cpus {
            return Err(("cpus", "deploy.resources.limits.cpus"));
        }
        if service.mem_limit.0 != 0 && limits.memory != service.mem_limit {
            return Err(("mem_limit", "deploy.resources.limits.memory"));
        }
        if service.pids_limit != 0 && limits.pids != service.pids_limit {
            return Err(("pids_limit", "deploy.resources.limits.pids"));
        }
    }
    if let Some(reservations) = &deploy.resources.reservations
        && service.mem_reservation.0 != 0
        && reservations.memory != service.mem_reservation
    {
        return Err(("mem_reservation", "deploy.resources.reservations.memory"));
    }
    Ok(())
}
