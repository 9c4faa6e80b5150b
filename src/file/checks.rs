//! What the form of single values cannot tell: attributes that exclude each other, references that lead nowhere.
// compose-go validation/ and loader/validate.go

use std::collections::BTreeMap;

use crate::model::{Project, Service};
use crate::yaml::{Diagnostic, Diagnostics, Node, closest};

use super::load::{MOST_ERRORS, deepest_key};
use super::tree::{as_list, each_entry, each_service};

const INVALID: &str = "invalid compose project";

/// Checks a canonical tree before paths are resolved.
pub fn check_tree(root: &mut Node) -> Result<(), Diagnostics> {
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

/// Something wrong with a project, and where in the file it is.
#[derive(Debug)]
pub struct Complaint {
    pub message: String,
    /// The keys that lead to it.
    path: Vec<String>,
    /// The item of the list there that it is about.
    item: Option<String>,
    help: Option<String>,
}

impl Complaint {
    /// Places it in a tree: at the item, or at the deepest key of its path that the tree has.
    pub fn located(self, root: &Node) -> Diagnostic {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let mut span = deepest_key(root, &path);
        let node = path.iter().try_fold(root, |node, key| node.get(key));
        if let Some(wanted) = &self.item {
            let source = |item: &&Node| item.get("source").unwrap_or(item).as_str() == Some(wanted);
            let item = node.map(as_list).unwrap_or_default().iter().find(source);
            span = item.map(|item| item.span).or(span);
        }
        let mut diagnostic = Diagnostic::error(self.message);
        diagnostic.span = span;
        diagnostic.help = self.help;
        diagnostic
    }
}

/// Checks a project as a whole; what docker compose would complain about comes first.
pub fn check_project(project: &mut Project) -> Vec<Complaint> {
    let mut found = Vec::new();
    let mut services = std::mem::take(&mut project.services);
    let known: BTreeMap<String, bool> = services
        .iter()
        .map(|(name, service)| (name.clone(), service.build.is_some()))
        .collect();
    for (name, service) in &mut services {
        let mut check = ServiceCheck {
            name,
            project,
            known: &known,
            found: &mut found,
        };
        check.run(service);
    }
    project.services = services;
    for (name, secret) in &project.secrets {
        if !secret.external && secret.file.is_empty() && secret.environment.is_empty() {
            found.push(Complaint {
                message: format!("secret \"{name}\" must declare either `file` or `environment`: {INVALID}"),
                path: vec!["secrets".into(), name.clone()],
                item: None,
                help: None,
            });
        }
    }
    found
}

/// Checks one service; `known` are the services that are on, each with whether it is built.
struct ServiceCheck<'c> {
    name: &'c str,
    project: &'c Project,
    known: &'c BTreeMap<String, bool>,
    found: &'c mut Vec<Complaint>,
}

impl ServiceCheck<'_> {
    fn complain(&mut self, message: String, keys: &[&str]) -> &mut Complaint {
        let keys = ["services", self.name].into_iter().chain(keys.iter().copied());
        self.found.push(Complaint {
            message,
            path: keys.map(str::to_owned).collect(),
            item: None,
            help: None,
        });
        let last = self.found.len() - 1;
        &mut self.found[last]
    }

    /// Complains about a name under `section` that nobody defined; `keys` lead to where it is used.
    fn undefined<'k>(
        &mut self,
        kind: &str,
        reference: &str,
        keys: &[&str],
        section: &str,
        defined: impl Iterator<Item = &'k String>,
    ) {
        let name = self.name;
        // To compare with every name that there is takes its time, and nobody reads so many errors.
        let meant = match self.found.len() {
            0..MOST_ERRORS => closest(reference, defined.map(String::as_str)),
            _ => None,
        };
        let help = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("define it under `{section}:` at the top level of the file"),
        };
        let message = format!("service \"{name}\" refers to undefined {kind} {reference}: {INVALID}");
        let complaint = self.complain(message, keys);
        complaint.item = Some(reference.to_owned());
        complaint.help = Some(help);
    }

    // compose-go loader/validate.go: the order in which it looks.
    fn run(&mut self, service: &mut Service) {
        let name = self.name;
        let project = self.project;
        if service.build.is_none() && service.image.is_empty() && service.provider.is_none() {
            let message = format!("service \"{name}\" has neither an image nor a build context specified: {INVALID}");
            self.complain(message, &[]).help = Some("add `image:` or `build:` to the service".into());
        }
        self.check_build(service);
        if !service.network_mode.is_empty() && !service.networks.is_empty() {
            let message =
                format!("service {name} declares mutually exclusive `network_mode` and `networks`: {INVALID}");
            self.complain(message, &["networks"]);
        }
        for network in service.networks.keys() {
            if !project.networks.contains_key(network) {
                let keys = ["networks", network];
                self.undefined("network", network, &keys, "networks", project.networks.keys());
            }
        }
        if let Some(check) = &service.healthcheck
            && let Some(first) = check.test.first()
            && !matches!(first.as_str(), "CMD" | "CMD-SHELL" | "NONE")
        {
            let message = "healthcheck.test must start either by \"CMD\", \"CMD-SHELL\" or \"NONE\"".to_owned();
            self.complain(message, &["healthcheck", "test"]).help =
                Some("a text instead of a list is run by a shell".into());
        }
        self.check_dependencies(service);
        for mount in &service.volumes {
            if mount.r#type == "volume" && !mount.source.is_empty() && !project.volumes.contains_key(&mount.source) {
                self.undefined("volume", &mount.source, &["volumes"], "volumes", project.volumes.keys());
            }
        }
        for secret in service.build.iter().flat_map(|build| &build.secrets) {
            if !project.secrets.contains_key(&secret.source) {
                let keys = ["build", "secrets"];
                self.undefined("build secret", &secret.source, &keys, "secrets", project.secrets.keys());
            }
        }
        for config in &service.configs {
            if !project.configs.contains_key(&config.source) {
                self.undefined(
                    "config",
                    &config.source,
                    &["configs"],
                    "configs",
                    project.configs.keys(),
                );
            }
        }
        for model in service.models.keys() {
            if !project.models.contains_key(model) {
                self.undefined("model", model, &["models", model], "models", project.models.keys());
            }
        }
        for secret in &service.secrets {
            if !project.secrets.contains_key(&secret.source) {
                self.undefined(
                    "secret",
                    &secret.source,
                    &["secrets"],
                    "secrets",
                    project.secrets.keys(),
                );
            }
        }
        if let Err((old, new)) = check_limits(service) {
            let message = format!("services.{name}: can't set distinct values on '{old}' and '{new}': {INVALID}");
            self.complain(message, &[old]).help = Some("keep one of the two".into());
        }
        for watch in service.develop.iter().flat_map(|develop| &develop.watch) {
            if !matches!(watch.action.as_str(), "rebuild" | "restart") && watch.target.is_empty() {
                let message =
                    format!("services.{name}.develop.watch: target is required for non-rebuild actions: {INVALID}");
                self.complain(message, &["develop", "watch"]);
            }
        }
        self.check_scale(service);
        self.check_mounts(service);
    }

    /// A place in the container has one thing mounted on it.
    fn check_mounts(&mut self, service: &Service) {
        let name = self.name;
        let mut mounts: BTreeMap<&str, String> = BTreeMap::new();
        let tmpfs = service.tmpfs.iter().enumerate().map(|(index, text)| {
            let target = text.split_once(':').map_or(text.as_str(), |(target, _)| target);
            ("tmpfs", index, target)
        });
        let volumes = service.volumes.iter().enumerate();
        let volumes = volumes.map(|(index, mount)| ("volumes", index, mount.target.as_str()));
        for (attribute, index, target) in tmpfs.chain(volumes) {
            let place = format!("services.{name}.{attribute}[{index}]");
            if let Some(other) = mounts.get(target) {
                let message = format!("{place}: target {target} already mounted as {other}");
                self.complain(message, &[attribute]).help = Some("keep one of the two".into());
            } else {
                mounts.insert(target, place);
            }
        }
    }

    fn check_build(&mut self, service: &Service) {
        let name = self.name;
        let Some(build) = &service.build else {
            return;
        };
        if !build.dockerfile_inline.is_empty() && !build.dockerfile.is_empty() {
            let message =
                format!("service \"{name}\" declares mutualy exclusive dockerfile and dockerfile_inline: {INVALID}");
            self.complain(message, &["build", "dockerfile_inline"]);
        }
        for (context, source) in &build.additional_contexts {
            if let Some(other) = source.strip_prefix("service:") {
                let fault = match self.known.get(other) {
                    Some(true) => continue,
                    Some(false) => "non-buildable",
                    None => "unknown",
                };
                let message =
                    format!("service \"{name}\" declares {fault} service \"{other}\" as additional contexts {context}");
                self.complain(message, &["build", "additional_contexts", context]);
            }
        }
        if !build.platforms.is_empty() && !service.platform.is_empty() && !build.platforms.contains(&service.platform) {
            let platform = &service.platform;
            let message = format!("service.build.platforms MUST include service.platform \"{platform}\": {INVALID}");
            self.complain(message, &["build", "platforms"]);
        }
    }

    fn check_dependencies(&mut self, service: &Service) {
        let name = self.name;
        for (dependency, how) in &service.depends_on {
            let disabled = self.project.disabled_services.contains_key(dependency);
            if self.known.contains_key(dependency) || (disabled && !how.required) {
                continue;
            }
            let known = self.known.keys().map(String::as_str);
            let meant = match self.found.len() {
                0..MOST_ERRORS => closest(dependency, known),
                _ => None,
            };
            let help = match meant {
                _ if disabled => Some(format!(
                    "`{dependency}` is turned off by its profiles: turn one on, or write `required: false`"
                )),
                Some(meant) => Some(format!("did you mean `{meant}`?")),
                None => None,
            };
            let message = format!("service \"{name}\" depends on undefined service \"{dependency}\": {INVALID}");
            self.complain(message, &["depends_on", dependency]).help = help;
        }
    }

    fn check_scale(&mut self, service: &Service) {
        let name = self.name;
        let (attribute, keys): (&str, &[&str]) = match service.scale {
            Some(_) => ("scale", &["scale"]),
            None => ("deploy.replicas", &["deploy", "replicas"]),
        };
        if service.replicas() < 0 {
            let message = format!("services.{name}.{attribute}: must be greater than or equal to 0");
            self.complain(message, keys);
        }
        if !service.container_name.is_empty() && service.replicas() > 1 {
            let message = format!(
                "services.{attribute}: can't set container_name and {name} as container name must be unique: {INVALID}"
            );
            self.complain(message, &["container_name"]);
        }
    }
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
