//! The body of the request that creates a container.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bollard::models::{ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, PortBinding, PortMap};

use super::{CreateError, mapping, mounts, network, number, resources, some, text};
use crate::client::labels;
use crate::model::hash::service_hash;
use crate::model::{HealthCheck, Port, Project, Service};
use crate::plan::observed::{Container, Image};

/// One container to be, in the eyes of its project.
pub struct ContainerRequest<'r> {
    pub project: &'r Project,
    /// With references to other services' containers resolved.
    pub service: &'r Service,
    /// Which replica; `None` for one-off containers.
    pub number: Option<u32>,
    /// The name it is going to have, which may not be the one it is created with.
    pub name: &'r str,
    pub image: Option<&'r Image>,
    /// The image's name.
    pub image_name: &'r str,
    /// The container whose anonymous volumes it takes over.
    pub inherit: Option<&'r Container>,
    /// Names for other containers: `container:alias`.
    pub links: &'r [String],
    /// Labels of this container alone, weightier than the service's.
    pub labels: BTreeMap<String, String>,
    pub auto_remove: bool,
    pub attach_stdin: bool,
    /// Whether it answers to the service's name in its networks.
    pub use_aliases: bool,
    pub host: &'r Host,
}

/// The annotation by which our engine hears which binds are to show their files as the container's user's; its own
/// constant has the same name.
const MAPPED_MOUNTS: &str = "compose.idmap";

/// What is the same for all containers of a command.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// The files given with `--env-file`.
    pub environment_files: Vec<String>,
    /// The engine's socket, for services that want to use it.
    pub socket: Option<String>,
    /// The engine takes several networks at once.
    pub many_networks: bool,
}

/// Returns the body, and what the user should be warned of.
pub fn container(request: &ContainerRequest<'_>) -> Result<(ContainerCreateBody, Vec<String>), CreateError> {
    let service = request.service;
    let mut warnings = Vec::new();
    let mounts = mounts::mounts(request, &mut warnings)?;
    let (network_mode, networking) = network::networking(request)?;
    let (security_opt, unconfined) = security_options(&request.project.working_dir, &service.security_opt)?;
    let mut annotations = service.annotations.clone();
    if !mounts.mapped.is_empty() {
        annotations.insert(MAPPED_MOUNTS.to_owned(), mounts.mapped.join("\n"));
    }
    resources::set_pace(service, &mut annotations);
    let mut host = HostConfig {
        auto_remove: Some(request.auto_remove),
        annotations: mapping(&annotations),
        binds: some(mounts.binds),
        mounts: some(mounts.mounts),
        cap_add: some(service.cap_add.iter().map(|name| capability(name))),
        cap_drop: some(service.cap_drop.iter().map(|name| capability(name))),
        network_mode: Some(network_mode),
        init: service.init,
        ipc_mode: text(&service.ipc),
        cgroupns_mode: service.cgroup.parse().ok(),
        readonly_rootfs: Some(service.read_only),
        restart_policy: resources::restart_policy(service)?,
        shm_size: number(service.shm_size.0),
        sysctls: mapping(&service.sysctls),
        port_bindings: Some(port_bindings(&service.ports)),
        volumes_from: some(service.volumes_from.clone()),
        dns: some(service.dns.clone()),
        dns_search: some(service.dns_search.clone()),
        dns_options: some(service.dns_opt.clone()),
        extra_hosts: Some(service.extra_hosts.to_list(":")),
        security_opt: some(security_opt),
        storage_opt: mapping(&service.storage_opt),
        userns_mode: text(&service.userns_mode),
        uts_mode: text(&service.uts),
        privileged: Some(service.privileged),
        pid_mode: text(&service.pid),
        tmpfs: some(service.tmpfs.iter().map(|mount| match mount.split_once(':') {
            Some((path, options)) => (path.to_owned(), options.to_owned()),
            None => (mount.clone(), String::new()),
        })),
        isolation: service.isolation.parse().ok(),
        runtime: text(&service.runtime),
        log_config: service.logging.as_ref().map(|logging| HostConfigLogConfig {
            typ: text(&logging.driver),
            config: mapping(&logging.options),
        }),
        group_add: some(service.group_add.clone()),
        links: some(request.links.to_vec()),
        oom_score_adj: number(service.oom_score_adj),
        ..HostConfig::default()
    };
    if unconfined {
        host.masked_paths = Some(Vec::new());
        host.readonly_paths = Some(Vec::new());
    }
    resources::set(service, &mut host);
    let environment = mounts.environment.iter().map(|(name, value)| (name, Some(value)));
    let environment = service
        .environment
        .iter()
        .map(|(name, value)| (name, value.as_ref()))
        .chain(environment)
        .map(|(name, value)| match value {
            Some(value) => format!("{name}={value}"),
            // Without `=` the variable is taken away, should the image have it.
            None => name.clone(),
        });
    let body = ContainerCreateBody {
        hostname: text(&service.hostname),
        domainname: text(&service.domainname),
        user: text(&service.user),
        exposed_ports: exposed_ports(service),
        tty: Some(service.tty),
        open_stdin: Some(service.stdin_open),
        stdin_once: Some(request.attach_stdin && service.stdin_open),
        attach_stdin: Some(request.attach_stdin),
        attach_stderr: Some(true),
        attach_stdout: Some(true),
        cmd: service.command.0.clone(),
        image: Some(request.image_name.to_owned()),
        working_dir: text(&service.working_dir),
        entrypoint: service.entrypoint.0.clone(),
        network_disabled: (service.network_mode == "disabled").then_some(true),
        labels: Some(container_labels(request)),
        stop_signal: text(&service.stop_signal),
        env: some(environment),
        healthcheck: service.healthcheck.as_deref().map(health_check).transpose()?,
        stop_timeout: service.stop_grace_period.map(|period| period.0 / 1_000_000_000),
        host_config: Some(host),
        networking_config: networking,
        ..ContainerCreateBody::default()
    };
    Ok((body, warnings))
}

/// The user's labels, those that tie the container to its project, and those of this container alone.
fn container_labels(request: &ContainerRequest<'_>) -> HashMap<String, String> {
    let (project, service) = (request.project, request.service);
    let mut all: HashMap<String, String> = service.labels.clone().into_iter().collect();
    let dependencies: Vec<String> = service
        .depends_on
        .iter()
        .map(|(dependency, how)| format!("{dependency}:{}:{}", how.condition, how.restart))
        .collect();
    let ours = [
        (labels::PROJECT, project.name.clone()),
        (labels::SERVICE, service.name.clone()),
        (labels::VERSION, labels::COMPATIBLE_VERSION.to_owned()),
        (labels::WORKING_DIR, project.working_dir.display().to_string()),
        (labels::CONFIG_FILES, project.compose_files.join(",")),
        (labels::ONE_OFF, "False".to_owned()),
        (labels::CONFIG_HASH, service_hash(service)),
        (labels::DEPENDS_ON, dependencies.join(",")),
    ];
    all.extend(ours.map(|(name, value)| (name.to_owned(), value)));
    if let Some(number) = request.number {
        all.insert(labels::CONTAINER_NUMBER.to_owned(), number.to_string());
    }
    if let Some(image) = request.image {
        all.insert(labels::IMAGE_DIGEST.to_owned(), image.id.clone());
    }
    if !request.host.environment_files.is_empty() {
        all.insert(
            labels::ENVIRONMENT_FILE.to_owned(),
            request.host.environment_files.join(","),
        );
    }
    all.extend(request.labels.clone());
    all
}

fn exposed_ports(service: &Service) -> Option<Vec<String>> {
    let with_protocol = |port: &String| {
        if port.contains('/') {
            port.clone()
        } else {
            format!("{port}/tcp")
        }
    };
    let mut ports: Vec<String> = service
        .expose
        .iter()
        .map(with_protocol)
        .chain(service.ports.iter().map(container_port))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    some(ports)
}

fn container_port(port: &Port) -> String {
    let protocol = if port.protocol.is_empty() {
        "tcp"
    } else {
        &port.protocol
    };
    format!("{}/{protocol}", port.target)
}

fn port_bindings(ports: &[Port]) -> PortMap {
    let mut bindings = PortMap::new();
    for port in ports {
        bindings
            .entry(container_port(port))
            .or_default()
            .get_or_insert_default()
            .push(PortBinding {
                host_ip: Some(port.host_ip.clone()),
                host_port: Some(port.published.clone()),
            });
    }
    bindings
}

/// Returns the name as the engine lists it: `CAP_NET_ADMIN`.
// moby client/container_create.go: normalizeCapabilities
fn capability(name: &str) -> String {
    let name = name.trim().to_uppercase();
    if name == "ALL" || name.starts_with("CAP_") {
        name
    } else {
        format!("CAP_{name}")
    }
}

fn health_check(check: &HealthCheck) -> Result<HealthConfig, CreateError> {
    if check.start_interval.is_some() && check.start_period.is_none() {
        // The engine would ignore it: moby/moby issue 48874.
        return Err(CreateError::StartInterval);
    }
    let test = if check.disable {
        vec!["NONE".to_owned()]
    } else {
        check.test.to_vec()
    };
    Ok(HealthConfig {
        test: some(test),
        interval: check.interval.map(|interval| interval.0),
        timeout: check.timeout.map(|timeout| timeout.0),
        retries: check.retries.and_then(|retries| i64::try_from(retries).ok()),
        start_period: check.start_period.map(|period| period.0),
        start_interval: check.start_interval.map(|interval| interval.0),
    })
}

/// Returns the options as the engine takes them, with seccomp profiles instead of their paths, and whether the usual
/// masks over /proc and /sys are to be left out.
fn security_options(directory: &Path, options: &[String]) -> Result<(Vec<String>, bool), CreateError> {
    let mut unconfined = false;
    let mut parsed = Vec::new();
    for option in options {
        if option == "systempaths=unconfined" {
            unconfined = true;
            continue;
        }
        let (name, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
            Some(pair) => pair,
            None if option == "no-new-privileges" => (option.as_str(), ""),
            None => return Err(CreateError::SecurityOption(option.clone())),
        };
        if name != "seccomp" || matches!(value, "unconfined" | "builtin") {
            parsed.push(option.clone());
            continue;
        }
        let path = directory.join(value);
        let profile = std::fs::read(&path).map_err(|source| CreateError::OpenSeccomp {
            path: value.to_owned(),
            source,
        })?;
        let profile: serde_json::Value =
            serde_json::from_slice(&profile).map_err(|source| CreateError::ReadSeccomp {
                path: value.to_owned(),
                source,
            })?;
        parsed.push(format!("seccomp={profile}"));
    }
    Ok((parsed, unconfined))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Command, Duration, HealthTest};

    fn body(service: Service) -> ContainerCreateBody {
        let project = Project {
            name: "p".into(),
            working_dir: "/work".into(),
            compose_files: vec!["/work/compose.yaml".into()],
            ..Project::default()
        };
        let image = Image {
            id: "sha256:1".into(),
            ..Image::default()
        };
        let host = Host {
            many_networks: true,
            ..Host::default()
        };
        let request = ContainerRequest {
            project: &project,
            service: &service,
            number: Some(2),
            name: "p-web-2",
            image: Some(&image),
            image_name: "busybox",
            inherit: None,
            links: &[],
            labels: BTreeMap::new(),
            auto_remove: false,
            attach_stdin: false,
            use_aliases: true,
            host: &host,
        };
        container(&request).unwrap().0
    }

    fn web() -> Service {
        Service {
            name: "web".into(),
            image: "busybox".into(),
            ..Service::default()
        }
    }

    #[test]
    fn labels_tie_a_container_to_its_project() {
        let service = Service {
            labels: [
                ("mine".to_owned(), "1".to_owned()),
                (labels::PROJECT.to_owned(), "theirs".to_owned()),
            ]
            .into(),
            ..web()
        };
        let labels = body(service).labels.unwrap();
        for (name, value) in [
            ("mine", "1"),
            (labels::PROJECT, "p"),
            (labels::SERVICE, "web"),
            (labels::CONTAINER_NUMBER, "2"),
            (labels::IMAGE_DIGEST, "sha256:1"),
            (labels::ONE_OFF, "False"),
            (labels::CONFIG_FILES, "/work/compose.yaml"),
            (labels::WORKING_DIR, "/work"),
            (labels::DEPENDS_ON, ""),
        ] {
            assert_eq!(labels.get(name).map(String::as_str), Some(value), "{name}");
        }
    }

    #[test]
    fn an_empty_command_is_not_the_images() {
        assert_eq!(body(web()).cmd, None);
        let cleared = Service {
            command: Command(Some(Vec::new())),
            ..web()
        };
        assert_eq!(body(cleared).cmd, Some(Vec::new()));
    }

    #[test]
    fn a_variable_without_value_is_taken_away() {
        let service = Service {
            environment: [("A".to_owned(), Some("1".to_owned())), ("B".to_owned(), None)].into(),
            ..web()
        };
        assert_eq!(body(service).env.unwrap(), ["A=1", "B"]);
    }

    #[test]
    fn ports_are_exposed_and_bound() {
        let port = |target, published: &str, protocol: &str| Port {
            target,
            published: published.into(),
            protocol: protocol.into(),
            ..Port::default()
        };
        let service = Service {
            expose: vec!["9000".into(), "53/udp".into()],
            ports: vec![port(80, "8080", "tcp"), port(80, "8081", "tcp"), port(53, "", "udp")],
            ..web()
        };
        let body = body(service);
        assert_eq!(body.exposed_ports.unwrap(), ["53/udp", "80/tcp", "9000/tcp"]);
        let bindings = body.host_config.unwrap().port_bindings.unwrap();
        let published: Vec<_> = bindings["80/tcp"]
            .iter()
            .flatten()
            .map(|binding| binding.host_port.clone().unwrap())
            .collect();
        assert_eq!(published, ["8080", "8081"]);
    }

    #[test]
    fn capabilities_are_listed_by_their_whole_names() {
        let service = Service {
            cap_add: vec!["net_admin".into(), "CAP_SYS_TIME".into()],
            cap_drop: vec!["ALL".into()],
            ..web()
        };
        let host = body(service).host_config.unwrap();
        assert_eq!(host.cap_add.unwrap(), ["CAP_NET_ADMIN", "CAP_SYS_TIME"]);
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
    }

    #[test]
    fn a_disabled_health_check_is_none_at_all() {
        let service = Service {
            healthcheck: Some(Box::new(HealthCheck {
                test: HealthTest(vec!["CMD".into(), "true".into()]),
                disable: true,
                ..HealthCheck::default()
            })),
            ..web()
        };
        assert_eq!(body(service).healthcheck.unwrap().test.unwrap(), ["NONE"]);
    }

    #[test]
    fn a_start_interval_needs_a_start_period() {
        let check = HealthCheck {
            start_interval: Some(Duration(1)),
            ..HealthCheck::default()
        };
        assert_eq!(
            health_check(&check).unwrap_err().to_string(),
            "healthcheck.start_interval requires healthcheck.start_period to be set"
        );
    }

    #[test]
    fn security_options_are_passed_on() {
        let options = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            security_options(Path::new("/nowhere"), &texts)
        };
        assert_eq!(
            options(&["no-new-privileges", "label:disable", "systempaths=unconfined"]).unwrap(),
            (vec!["no-new-privileges".to_owned(), "label:disable".to_owned()], true)
        );
        assert_eq!(
            options(&["rubbish"]).unwrap_err().to_string(),
            "Invalid security-opt: \"rubbish\""
        );
        assert_eq!(
            options(&["seccomp=profile.json"]).unwrap_err().to_string(),
            "opening seccomp profile (profile.json) failed: No such file or directory (os error 2)"
        );
    }
}
