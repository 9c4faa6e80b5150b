//! How many containers a service has, what they may use, and what only an orchestrator heeds.

use super::{Bytes, Dialect, Duration, Emit, Extensions, Labels, Mapping, Value};

object! {
    /// The `deploy` attribute.
    pub struct Deploy {
        mode: String = Key::new("mode"),
        replicas: Option<i64> = Key::new("replicas"),
        labels: Labels = Key::new("labels"),
        update_config: Option<UpdateConfig> = Key::new("update_config"),
        rollback_config: Option<UpdateConfig> = Key::new("rollback_config"),
        resources: Resources = Key::new("resources").kept_in_json(),
        restart_policy: Option<RestartPolicy> = Key::new("restart_policy"),
        placement: Placement = Key::new("placement").kept_in_json(),
        endpoint_mode: String = Key::new("endpoint_mode"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// How a service is updated or rolled back by an orchestrator.
    pub struct UpdateConfig {
        parallelism: Option<u64> = Key::new("parallelism"),
        delay: Duration = Key::new("delay"),
        failure_action: String = Key::new("failure_action"),
        monitor: Duration = Key::new("monitor"),
        max_failure_ratio: f32 = Key::new("max_failure_ratio"),
        order: String = Key::new("order"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// What a container may use at most, and what is kept for it.
    pub struct Resources {
        limits: Option<Resource> = Key::new("limits"),
        reservations: Option<Resource> = Key::new("reservations"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// Amounts of resources.
    pub struct Resource {
        cpus: f32 = Key::new("cpus"),
        memory: Bytes = Key::new("memory"),
        pids: i64 = Key::new("pids"),
        devices: Vec<DeviceRequest> = Key::new("devices"),
        generic_resources: Vec<GenericResource> = Key::new("generic_resources"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// Devices asked for by what they can do, such as GPUs.
    pub struct DeviceRequest {
        capabilities: Vec<String> = Key::new("capabilities"),
        driver: String = Key::new("driver"),
        count: DeviceCount = Key::new("count"),
        device_ids: Vec<String> = Key::new("device_ids"),
        options: Mapping = Key::new("options"),
    }
}

/// How many devices; -1 asks for all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceCount(pub i64);

impl Emit for DeviceCount {
    fn is_empty(&self) -> bool {
        self.0 == 0
    }
    fn emit(&self, _: Dialect) -> Value {
        Value::Int(self.0)
    }
}

object! {
    /// A resource that the user defined.
    pub struct GenericResource {
        discrete_resource_spec: Option<DiscreteResource> = Key::new("discrete_resource_spec"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// A countable resource.
    pub struct DiscreteResource {
        kind: String = Key::new("kind").kept().spoken_as("Kind"),
        value: i64 = Key::new("value").kept().spoken_as("Value"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// When an ended container is started again; weighs more than `restart`.
    pub struct RestartPolicy {
        condition: String = Key::new("condition"),
        delay: Option<Duration> = Key::new("delay"),
        max_attempts: Option<u64> = Key::new("max_attempts"),
        window: Option<Duration> = Key::new("window"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// Where an orchestrator may put containers.
    pub struct Placement {
        constraints: Vec<String> = Key::new("constraints"),
        preferences: Vec<PlacementPreference> = Key::new("preferences"),
        max_replicas_per_node: u64 = Key::new("max_replicas_per_node"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// What containers are spread over.
    pub struct PlacementPreference {
        spread: String = Key::new("spread"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}
