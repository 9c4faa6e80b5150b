//! How much a container may use, which devices it gets, and when it is started again.

use bollard::models::{
    DeviceMapping, DeviceRequest, HostConfig, ResourcesBlkioWeightDevice, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum, ThrottleDevice,
};

use super::{CreateError, mapping, number, some, text};
use crate::model::{self, BlkioLimit, Mapping, Resource, Service};

/// Puts the service's limits and devices into the host configuration.
pub(super) fn set(service: &Service, host: &mut HostConfig) {
    host.cgroup_parent = text(&service.cgroup_parent);
    host.memory = number(service.mem_limit.0);
    host.memory_swap = number(service.memswap_limit.0);
    host.memory_swappiness = number(service.mem_swappiness.0);
    host.memory_reservation = number(service.mem_reservation.0);
    host.oom_kill_disable = Some(service.oom_kill_disable);
    host.cpu_count = number(service.cpu_count);
    host.cpu_period = number(service.cpu_period);
    host.cpu_quota = number(service.cpu_quota);
    host.cpu_realtime_period = number(service.cpu_rt_period);
    host.cpu_realtime_runtime = number(service.cpu_rt_runtime);
    host.cpu_shares = number(service.cpu_shares);
    host.nano_cpus = number(nano_cpus(service.cpus));
    host.cpu_percent = number((service.cpu_percent * 100.0) as i64);
    host.cpuset_cpus = text(&service.cpuset);
    host.device_cgroup_rules = some(service.device_cgroup_rules.clone());
    host.pids_limit = number(service.pids_limit);
    host.ulimits = some(service.ulimits.iter().map(|(name, limit)| {
        let (soft, hard) = limit.limits();
        ResourcesUlimits {
            name: Some(name.clone()),
            soft: Some(soft),
            hard: Some(hard),
        }
    }));
    block_io(service, host);
    if let Some(deploy) = &service.deploy {
        limits(deploy.resources.limits.as_ref(), host);
        if let Some(reservations) = &deploy.resources.reservations
            && reservations.memory.0 != 0
        {
            host.memory_reservation = Some(reservations.memory.0);
        }
    }
    devices(service, host);
}

// A 32-bit factor would turn 0.1 into 100000001.
fn nano_cpus(cpus: f32) -> i64 {
    let text = cpus.to_string();
    (text.parse::<f64>().unwrap_or_default() * 1e9).round() as i64
}

fn limits(limits: Option<&Resource>, host: &mut HostConfig) {
    let Some(limits) = limits else {
        return;
    };
    if limits.memory.0 != 0 {
        host.memory = Some(limits.memory.0);
    }
    if limits.cpus != 0.0 {
        host.nano_cpus = Some(nano_cpus(limits.cpus));
    }
    if limits.pids > 0 {
        host.pids_limit = Some(limits.pids);
    }
}

fn block_io(service: &Service, host: &mut HostConfig) {
    let Some(block_io) = &service.blkio_config else {
        return;
    };
    let throttle = |limits: &[BlkioLimit]| {
        some(limits.iter().map(|limit| ThrottleDevice {
            path: Some(limit.path.clone()),
            rate: Some(limit.rate.0),
        }))
    };
    host.blkio_weight = (block_io.weight != 0).then_some(block_io.weight);
    host.blkio_weight_device = some(block_io.weight_device.iter().map(|device| ResourcesBlkioWeightDevice {
        path: Some(device.path.clone()),
        weight: Some(usize::from(device.weight)),
    }));
    host.blkio_device_read_bps = throttle(&block_io.device_read_bps);
    host.blkio_device_read_iops = throttle(&block_io.device_read_iops);
    host.blkio_device_write_bps = throttle(&block_io.device_write_bps);
    host.blkio_device_write_iops = throttle(&block_io.device_write_iops);
}

fn devices(service: &Service, host: &mut HostConfig) {
    let (named, mapped): (Vec<_>, Vec<_>) = service
        .devices
        .iter()
        .partition(|device| device.source == device.target && is_qualified_name(&device.source));
    host.devices = some(mapped.into_iter().map(|device| DeviceMapping {
        path_on_host: Some(device.source.clone()),
        path_in_container: Some(device.target.clone()),
        cgroup_permissions: Some(device.permissions.clone()),
    }));
    let mut requests = Vec::new();
    if let Some(reservations) = service
        .deploy
        .as_ref()
        .and_then(|deploy| deploy.resources.reservations.as_ref())
    {
        requests.extend(
            reservations
                .devices
                .iter()
                .map(|device| request(device, device.capabilities.clone())),
        );
    }
    if !named.is_empty() {
        requests.push(DeviceRequest {
            driver: Some("cdi".to_owned()),
            device_ids: Some(named.into_iter().map(|device| device.source.clone()).collect()),
            ..DeviceRequest::default()
        });
    }
    for gpu in &service.gpus {
        let mut capabilities = gpu.capabilities.clone();
        capabilities.push("gpu".to_owned());
        requests.push(request(gpu, capabilities));
    }
    host.device_requests = some(requests);
}

fn request(device: &model::DeviceRequest, capabilities: Vec<String>) -> DeviceRequest {
    DeviceRequest {
        driver: text(&device.driver),
        count: number(device.count.0),
        device_ids: some(device.device_ids.clone()),
        capabilities: Some(vec![capabilities]),
        options: mapping(&device.options),
    }
}

/// A device by the Container Device Interface's name: `vendor.example/class=name`.
fn is_qualified_name(text: &str) -> bool {
    let Some((kind, name)) = text.split_once('=') else {
        return false;
    };
    let is_word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_alphabetic())
            && word.ends_with(|last: char| last.is_ascii_alphanumeric())
            && word
                .chars()
                .all(|character| character.is_ascii_alphanumeric() || "-_.".contains(character))
    };
    kind.split_once('/')
        .is_some_and(|(vendor, class)| is_word(vendor) && is_word(class))
        && !name.is_empty()
        && name
            .chars()
            .all(|character| character.is_ascii_alphanumeric() || "-_.:".contains(character))
}

/// Returns when the engine starts the container again; `deploy.restart_policy` weighs more than `restart`.
pub(super) fn restart_policy(service: &Service) -> Result<Option<RestartPolicy>, CreateError> {
    let (condition, attempts) = match service
        .deploy
        .as_ref()
        .and_then(|deploy| deploy.restart_policy.as_ref())
    {
        Some(policy) => (
            policy.condition.as_str(),
            policy.max_attempts.and_then(|attempts| i64::try_from(attempts).ok()),
        ),
        None if service.restart.is_empty() => return Ok(None),
        None => match service.restart.split_once(':') {
            Some((condition, attempts)) => (condition, attempts.parse().ok()),
            None => (service.restart.as_str(), None),
        },
    };
    let name = match condition {
        "none" | "no" => RestartPolicyNameEnum::NO,
        "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
        "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
        "any" | "always" => RestartPolicyNameEnum::ALWAYS,
        // A count alone is sent as docker compose does: the engine says that it asks for nothing.
        "" if attempts.is_some_and(|attempts| attempts != 0) => RestartPolicyNameEnum::EMPTY,
        "" => return Ok(None),
        other => return Err(CreateError::RestartPolicy(other.to_owned())),
    };
    Ok(Some(RestartPolicy {
        name: Some(name),
        maximum_retry_count: attempts,
    }))
}

/// Tells our engine how `deploy.restart_policy` paces restarts; the engine's own constants have the same names.
pub(super) fn set_pace(service: &Service, annotations: &mut Mapping) {
    let policy = service
        .deploy
        .as_ref()
        .and_then(|deploy| deploy.restart_policy.as_ref());
    let Some(policy) = policy else { return };
    for (name, duration) in [
        ("compose.restart.delay", policy.delay),
        ("compose.restart.window", policy.window),
    ] {
        if let Some(duration) = duration {
            annotations.insert(name.to_owned(), duration.0.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Bytes, Deploy, Device, Resources};

    #[test]
    fn deploy_limits_weigh_more() {
        let service = Service {
            cpus: 0.5,
            mem_limit: Bytes(1),
            deploy: Some(Box::new(Deploy {
                resources: Resources {
                    limits: Some(Resource {
                        cpus: 0.1,
                        memory: Bytes(64 << 20),
                        pids: 7,
                        ..Resource::default()
                    }),
                    ..Resources::default()
                },
                restart_policy: Some(model::RestartPolicy {
                    condition: "on-failure".into(),
                    max_attempts: Some(3),
                    ..model::RestartPolicy::default()
                }),
                ..Deploy::default()
            })),
            restart: "always".into(),
            ..Service::default()
        };
        let mut host = HostConfig::default();
        set(&service, &mut host);
        assert_eq!(host.nano_cpus, Some(100_000_000));
        assert_eq!(host.memory, Some(64 << 20));
        assert_eq!(host.pids_limit, Some(7));
        let policy = restart_policy(&service).unwrap().unwrap();
        assert_eq!(policy.name, Some(RestartPolicyNameEnum::ON_FAILURE));
        assert_eq!(policy.maximum_retry_count, Some(3));
    }

    #[test]
    fn attempts_without_a_condition_are_sent_for_the_engine_to_refuse() {
        let of = |attempts| {
            let service = Service {
                deploy: Some(Box::new(Deploy {
                    restart_policy: Some(model::RestartPolicy {
                        max_attempts: attempts,
                        ..model::RestartPolicy::default()
                    }),
                    ..Deploy::default()
                })),
                restart: "always".into(),
                ..Service::default()
            };
            restart_policy(&service).unwrap()
        };
        let sent = of(Some(3)).unwrap();
        assert_eq!(
            (sent.name, sent.maximum_retry_count),
            (Some(RestartPolicyNameEnum::EMPTY), Some(3))
        );
        assert_eq!((of(Some(0)), of(None)), (None, None));
    }

    #[test]
    fn devices_are_paths_or_names() {
        let device = |path: &str| Device {
            source: path.into(),
            target: path.into(),
            permissions: "rwm".into(),
            ..Device::default()
        };
        let service = Service {
            devices: vec![device("/dev/fuse"), device("vendor.example/gpu=0")],
            ..Service::default()
        };
        let mut host = HostConfig::default();
        set(&service, &mut host);
        assert_eq!(host.devices.unwrap().len(), 1);
        assert_eq!(
            host.device_requests.unwrap()[0].device_ids.as_deref(),
            Some(&["vendor.example/gpu=0".to_owned()] as &[_])
        );
    }
}
