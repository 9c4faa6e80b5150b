//! A service and everything that stands in it.

use std::collections::BTreeMap;

use super::{
    Build, Bytes, Command, Deploy, Develop, DeviceRequest, Dialect, Duration, Emit, Environment, Extensions, FileMode,
    Hook, Hosts, Labels, Mapping, Value,
};

object! {
    /// A service: the containers made from one image with one configuration.
    pub struct Service {
        name: String = Key::new("name").hidden(),
        profiles: Vec<String> = Key::new("profiles"),
        annotations: Mapping = Key::new("annotations"),
        attach: Option<bool> = Key::new("attach"),
        build: Option<Box<Build>> = Key::new("build"),
        develop: Option<Box<Develop>> = Key::new("develop"),
        blkio_config: Option<Box<Blkio>> = Key::new("blkio_config"),
        cap_add: Vec<String> = Key::new("cap_add"),
        cap_drop: Vec<String> = Key::new("cap_drop"),
        cgroup_parent: String = Key::new("cgroup_parent"),
        cgroup: String = Key::new("cgroup"),
        cpu_count: i64 = Key::new("cpu_count"),
        cpu_percent: f32 = Key::new("cpu_percent"),
        cpu_period: i64 = Key::new("cpu_period"),
        cpu_quota: i64 = Key::new("cpu_quota"),
        cpu_rt_period: i64 = Key::new("cpu_rt_period"),
        cpu_rt_runtime: i64 = Key::new("cpu_rt_runtime"),
        cpus: f32 = Key::new("cpus"),
        cpuset: String = Key::new("cpuset"),
        cpu_shares: i64 = Key::new("cpu_shares"),
        command: Command = Key::new("command").kept_in_json(),
        configs: Vec<FileReference> = Key::new("configs"),
        container_name: String = Key::new("container_name"),
        credential_spec: Option<Box<CredentialSpec>> = Key::new("credential_spec"),
        depends_on: BTreeMap<String, Dependency> = Key::new("depends_on"),
        deploy: Option<Box<Deploy>> = Key::new("deploy"),
        device_cgroup_rules: Vec<String> = Key::new("device_cgroup_rules"),
        devices: Vec<Device> = Key::new("devices"),
        dns: Vec<String> = Key::new("dns"),
        dns_opt: Vec<String> = Key::new("dns_opt"),
        dns_search: Vec<String> = Key::new("dns_search"),
        domainname: String = Key::new("domainname"),
        entrypoint: Command = Key::new("entrypoint").kept_in_json(),
        provider: Option<Box<Provider>> = Key::new("provider"),
        environment: Environment = Key::new("environment"),
        env_file: Vec<EnvFile> = Key::new("env_file"),
        expose: Vec<String> = Key::new("expose"),
        /// Only what could not be followed: the service extended is empty.
        extends: Option<Extends> = Key::new("extends"),
        external_links: Vec<String> = Key::new("external_links"),
        extra_hosts: Hosts = Key::new("extra_hosts"),
        group_add: Vec<String> = Key::new("group_add"),
        gpus: Vec<DeviceRequest> = Key::new("gpus"),
        hostname: String = Key::new("hostname"),
        healthcheck: Option<Box<HealthCheck>> = Key::new("healthcheck"),
        image: String = Key::new("image"),
        init: Option<bool> = Key::new("init"),
        ipc: String = Key::new("ipc"),
        isolation: String = Key::new("isolation"),
        labels: Labels = Key::new("labels"),
        label_file: Vec<String> = Key::new("label_file"),
        links: Vec<String> = Key::new("links"),
        logging: Option<Logging> = Key::new("logging"),
        mem_limit: Bytes = Key::new("mem_limit"),
        mem_reservation: Bytes = Key::new("mem_reservation"),
        memswap_limit: Bytes = Key::new("memswap_limit"),
        mem_swappiness: Bytes = Key::new("mem_swappiness"),
        mac_address: String = Key::new("mac_address"),
        models: BTreeMap<String, Option<ServiceModel>> = Key::new("models"),
        network_mode: String = Key::new("network_mode"),
        networks: BTreeMap<String, Option<ServiceNetwork>> = Key::new("networks"),
        oom_kill_disable: bool = Key::new("oom_kill_disable"),
        oom_score_adj: i64 = Key::new("oom_score_adj"),
        pid: String = Key::new("pid"),
        pids_limit: i64 = Key::new("pids_limit"),
        platform: String = Key::new("platform"),
        ports: Vec<Port> = Key::new("ports"),
        privileged: bool = Key::new("privileged"),
        pull_policy: String = Key::new("pull_policy"),
        read_only: bool = Key::new("read_only"),
        restart: String = Key::new("restart"),
        runtime: String = Key::new("runtime"),
        scale: Option<i64> = Key::new("scale"),
        secrets: Vec<FileReference> = Key::new("secrets"),
        security_opt: Vec<String> = Key::new("security_opt"),
        shm_size: Bytes = Key::new("shm_size"),
        stdin_open: bool = Key::new("stdin_open"),
        stop_grace_period: Option<Duration> = Key::new("stop_grace_period"),
        stop_signal: String = Key::new("stop_signal"),
        storage_opt: Mapping = Key::new("storage_opt").strict(),
        sysctls: Mapping = Key::new("sysctls"),
        tmpfs: Vec<String> = Key::new("tmpfs"),
        tty: bool = Key::new("tty"),
        ulimits: BTreeMap<String, Ulimit> = Key::new("ulimits"),
        use_api_socket: bool = Key::new("use_api_socket"),
        user: String = Key::new("user"),
        userns_mode: String = Key::new("userns_mode"),
        uts: String = Key::new("uts"),
        volumes: Vec<Mount> = Key::new("volumes"),
        volumes_from: Vec<String> = Key::new("volumes_from"),
        working_dir: String = Key::new("working_dir"),
        pre_start: Vec<Hook> = Key::new("pre_start"),
        post_start: Vec<Hook> = Key::new("post_start"),
        pre_stop: Vec<Hook> = Key::new("pre_stop"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

impl Service {
    /// Returns how many containers the file asks for.
    pub fn replicas(&self) -> i64 {
        self.scale
            .or_else(|| self.deploy.as_ref().and_then(|deploy| deploy.replicas))
            .unwrap_or(1)
    }

    /// Sets how many containers are wanted, wherever the file says it.
    pub fn set_replicas(&mut self, replicas: i64) {
        self.scale = Some(replicas);
        if let Some(deploy) = &mut self.deploy {
            deploy.replicas = Some(replicas);
        }
    }

    /// Returns the service's networks, the most important first: by priority, then by name.
    pub fn networks_by_priority(&self) -> Vec<&str> {
        let priority = |name: &str| match self.networks.get(name) {
            Some(Some(network)) => network.priority,
            _ => 0,
        };
        let mut names: Vec<&str> = self.networks.keys().map(String::as_str).collect();
        names.sort_by_key(|name| std::cmp::Reverse(priority(name)));
        names
    }

    /// Tells whether the service is on when these profiles are.
    pub fn has_profile(&self, profiles: &[String]) -> bool {
        self.profiles.is_empty() || self.profiles.iter().any(|profile| profiles.contains(profile))
    }
}

object! {
    /// What runs a service instead of a container.
    pub struct Provider {
        r#type: String = Key::new("type"),
        options: BTreeMap<String, Vec<String>> = Key::new("options"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// Limits on block devices.
    pub struct Blkio {
        weight: u16 = Key::new("weight"),
        weight_device: Vec<BlkioWeight> = Key::new("weight_device"),
        device_read_bps: Vec<BlkioLimit> = Key::new("device_read_bps"),
        device_read_iops: Vec<BlkioLimit> = Key::new("device_read_iops"),
        device_write_bps: Vec<BlkioLimit> = Key::new("device_write_bps"),
        device_write_iops: Vec<BlkioLimit> = Key::new("device_write_iops"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// The share a container has of one device.
    pub struct BlkioWeight {
        path: String = Key::new("path").in_json("Path").kept(),
        weight: u16 = Key::new("weight").in_json("Weight").spoken_as("Weight").kept(),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// The rate a container has at most on one device.
    pub struct BlkioLimit {
        path: String = Key::new("path").in_json("Path").kept(),
        rate: Bytes = Key::new("rate").in_json("Rate").spoken_as("Rate").kept(),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// A config or secret as a service uses it.
    pub struct FileReference {
        source: String = Key::new("source"),
        target: String = Key::new("target"),
        uid: String = Key::new("uid"),
        gid: String = Key::new("gid"),
        mode: Option<FileMode> = Key::new("mode"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// A Windows service account.
    pub struct CredentialSpec {
        config: String = Key::new("config"),
        file: String = Key::new("file"),
        registry: String = Key::new("registry"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// What a service waits for in another.
    pub struct Dependency {
        condition: String = Key::new("condition"),
        restart: bool = Key::new("restart"),
        required: bool = Key::new("required").kept(),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// A device of the host as the container sees it.
    pub struct Device {
        source: String = Key::new("source"),
        target: String = Key::new("target"),
        permissions: String = Key::new("permissions"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// Another service whose settings are taken over.
    pub struct Extends {
        file: String = Key::new("file"),
        service: String = Key::new("service"),
    }
}

/// A file with variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvFile {
    pub path: String,
    pub required: Required,
    pub format: String,
}

impl Emit for EnvFile {
    fn is_empty(&self) -> bool {
        false
    }

    // compose-go types/envfile.go: what is required is only its path, whatever its format.
    fn emit(&self, _: Dialect) -> Value {
        if self.required.0 {
            return Value::String(self.path.clone());
        }
        let mut entries = vec![
            ("path".to_owned(), Value::String(self.path.clone())),
            ("required".to_owned(), Value::Bool(false)),
        ];
        if !self.format.is_empty() {
            entries.push(("format".to_owned(), Value::String(self.format.clone())));
        }
        Value::Map(entries)
    }
}

/// True unless the file says otherwise; printed only when false.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Required(pub bool);

impl Default for Required {
    fn default() -> Self {
        Self(true)
    }
}

impl Emit for Required {
    fn is_empty(&self) -> bool {
        self.0
    }
    fn emit(&self, _: Dialect) -> Value {
        Value::Bool(self.0)
    }
}

/// The words of a health check; the first says how the others are run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthTest(pub Vec<String>);

impl std::ops::Deref for HealthTest {
    type Target = Vec<String>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Emit for HealthTest {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    fn emit(&self, dialect: Dialect) -> Value {
        self.0.emit(dialect)
    }
}

object! {
    /// How to find out whether a container is healthy.
    pub struct HealthCheck {
        test: HealthTest = Key::new("test"),
        timeout: Option<Duration> = Key::new("timeout"),
        interval: Option<Duration> = Key::new("interval"),
        retries: Option<u64> = Key::new("retries"),
        start_period: Option<Duration> = Key::new("start_period"),
        start_interval: Option<Duration> = Key::new("start_interval"),
        disable: bool = Key::new("disable"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// Where a container's output goes.
    pub struct Logging {
        driver: String = Key::new("driver"),
        options: Mapping = Key::new("options"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// How a service learns about a model.
    pub struct ServiceModel {
        endpoint_var: String = Key::new("endpoint_var"),
        model_var: String = Key::new("model_var"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// A service in one of its networks.
    pub struct ServiceNetwork {
        aliases: Vec<String> = Key::new("aliases"),
        driver_opts: Mapping = Key::new("driver_opts"),
        gw_priority: i64 = Key::new("gw_priority"),
        interface_name: String = Key::new("interface_name"),
        ipv4_address: String = Key::new("ipv4_address"),
        ipv6_address: String = Key::new("ipv6_address"),
        link_local_ips: Vec<String> = Key::new("link_local_ips"),
        mac_address: String = Key::new("mac_address"),
        priority: i64 = Key::new("priority"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// A port that is reachable from outside.
    pub struct Port {
        name: String = Key::new("name"),
        mode: String = Key::new("mode"),
        host_ip: String = Key::new("host_ip"),
        target: u32 = Key::new("target"),
        /// A number, a range of which one is taken, or nothing for any.
        published: String = Key::new("published"),
        protocol: String = Key::new("protocol"),
        app_protocol: String = Key::new("app_protocol"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

/// How much a process may have of something.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ulimit {
    pub single: i64,
    pub soft: i64,
    pub hard: i64,
}

impl Ulimit {
    /// Returns the soft and the hard limit.
    pub fn limits(&self) -> (i64, i64) {
        match self.single {
            0 => (self.soft, self.hard),
            single => (single, single),
        }
    }
}

impl Emit for Ulimit {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn emit(&self, dialect: Dialect) -> Value {
        if self.single != 0 {
            return Value::Int(self.single);
        }
        let all = [("soft", self.soft), ("hard", self.hard)];
        // Go's JSON leaves a zero out, its YAML does not.
        let printed = all
            .into_iter()
            .filter(|(_, limit)| dialect == Dialect::Yaml || *limit != 0);
        Value::Map(
            printed
                .map(|(name, limit)| (name.to_owned(), Value::Int(limit)))
                .collect(),
        )
    }
}

object! {
    /// A volume, directory or file as it appears in the container.
    pub struct Mount {
        r#type: String = Key::new("type"),
        source: String = Key::new("source"),
        target: String = Key::new("target"),
        read_only: bool = Key::new("read_only"),
        consistency: String = Key::new("consistency"),
        bind: Option<BindOptions> = Key::new("bind"),
        volume: Option<VolumeOptions> = Key::new("volume"),
        tmpfs: Option<TmpfsOptions> = Key::new("tmpfs"),
        image: Option<ImageOptions> = Key::new("image"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// What applies to a directory or file of the host.
    pub struct BindOptions {
        selinux: String = Key::new("selinux"),
        propagation: String = Key::new("propagation"),
        create_host_path: bool = Key::new("create_host_path"),
        recursive: String = Key::new("recursive"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// What applies to a named volume.
    pub struct VolumeOptions {
        labels: Mapping = Key::new("labels"),
        nocopy: bool = Key::new("nocopy"),
        subpath: String = Key::new("subpath"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// What applies to a file system in memory.
    pub struct TmpfsOptions {
        size: Bytes = Key::new("size"),
        mode: u32 = Key::new("mode"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// What applies to a mounted image.
    pub struct ImageOptions {
        subpath: String = Key::new("subpath"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}
