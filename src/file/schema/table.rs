//! The table: a project, its services and how their images are built.

use super::deploy::{DEPLOY, DEVELOP, GPUS, HOOK, STEP};
use super::resources::{CONFIG, CONFIG_REFERENCES, INCLUDE, MODEL, NETWORK, SECRET, SERVICE_NETWORK, VOLUME};
use super::shape::{NamePattern, Schema, TextPattern, Type, key};

pub(super) const WINDOWS: &str = "only Windows engines know it";
pub(super) const SWARM: &str = "only an orchestrator heeds it";

pub(super) static STRING: Schema = Schema::of(&[Type::String]);
pub(super) static BOOLEAN: Schema = Schema::of(&[Type::Boolean]);
pub(super) static NUMBER: Schema = Schema::of(&[Type::Number]);
pub(super) static INTEGER: Schema = Schema::of(&[Type::Integer]);
pub(super) static NULL: Schema = Schema::of(&[Type::Null]);
pub(super) static BOOLEAN_OR_STRING: Schema = Schema::of(&[Type::Boolean, Type::String]);
pub(super) static NUMBER_OR_STRING: Schema = Schema::of(&[Type::Number, Type::String]);
pub(super) static INTEGER_OR_STRING: Schema = Schema::of(&[Type::Integer, Type::String]);
static STRING_OR_NULL: Schema = Schema::of(&[Type::Null, Type::String]);
static SCALAR: Schema = Schema::of(&[Type::Boolean, Type::Null, Type::Number, Type::String]);
static LOG_OPTION: Schema = Schema::of(&[Type::Null, Type::Number, Type::String]);
static OPTION: Schema = Schema::of(&[Type::Boolean, Type::Number, Type::String]);

pub(super) static STRINGS: Schema = Schema::list(&STRING);
pub(super) static STRING_SET: Schema = Schema::set(&STRING);
static NUMBER_OR_STRING_SET: Schema = Schema::set(&NUMBER_OR_STRING);
pub(super) static STRING_OR_LIST: Schema = Schema::one_of(&[&STRING, &STRING_SET]);
static STRING_OR_STRINGS: Schema = Schema::one_of(&[&STRING, &STRINGS]);
static COMMAND_FORMS: Schema = Schema::one_of(&[&NULL, &STRING, &STRINGS]);
pub(super) static COMMAND: &Schema = &COMMAND_FORMS;
static DICTIONARY: Schema = Schema::map(NamePattern::Any, &SCALAR, true);
pub(super) static LIST_OR_DICT: Schema = Schema::one_of(&[&DICTIONARY, &STRING_SET]);
pub(super) static DRIVER_OPTIONS: Schema = Schema::map(NamePattern::Any, &NUMBER_OR_STRING, false);
static ADDRESSES: Schema = Schema::one_of(&[&STRING, &STRINGS]);
static HOST_MAP: Schema = Schema::map(NamePattern::Any, &ADDRESSES, true);
static EXTRA_HOSTS: Schema = Schema::one_of(&[&HOST_MAP, &STRING_SET]);

/// A whole Compose file.
pub static PROJECT: Schema = Schema::object(&[
    key(
        "version",
        &STRING,
        "Version of the file format; means nothing any more and is best removed.",
    )
    .no_effect("obsolete: every file is read by the current specification"),
    key(
        "name",
        &STRING,
        "Name of the project, unless the command line or the environment gives one.",
    ),
    key(
        "include",
        &INCLUDES,
        "Other Compose projects whose services and resources become part of this one.",
    ),
    key("services", &SERVICES, "The services, by name."),
    key("models", &MODELS, "Language models that services use, by name."),
    key("networks", &NETWORKS, "Networks that services join, by name."),
    key("volumes", &VOLUMES, "Volumes that outlive containers, by name."),
    key(
        "secrets",
        &SECRETS,
        "Files with something secret that services mount, by name.",
    ),
    key("configs", &CONFIGS, "Files with settings that services mount, by name."),
]);

static INCLUDES: Schema = Schema::list(&INCLUDE);
static SERVICES: Schema = Schema::map(NamePattern::Resource, &SERVICE, true);
static MODELS: Schema = Schema::map(NamePattern::Resource, &MODEL, false);
static NETWORKS: Schema = Schema::map(NamePattern::Resource, &NETWORK, false);
static VOLUMES: Schema = Schema::map(NamePattern::Resource, &VOLUME, true);
static SECRETS: Schema = Schema::map(NamePattern::Resource, &SECRET, true);
static CONFIGS: Schema = Schema::map(NamePattern::Resource, &CONFIG, true);

static SERVICE: Schema = Schema::object(&[
    key("develop", &DEVELOP, "What `watch` does when files change."),
    key(
        "deploy",
        &DEPLOY,
        "How many containers there are, what they may use, and wishes for an orchestrator.",
    ),
    key(
        "annotations",
        &LIST_OR_DICT,
        "Annotations of the containers, for their runtime.",
    ),
    key(
        "attach",
        &BOOLEAN_OR_STRING,
        "Whether `up` shows the service's log; it does unless this is false.",
    ),
    key(
        "build",
        &BUILD_FORMS,
        "How the image is built: a context directory, or an object with all settings.",
    ),
    key("blkio_config", &BLKIO, "Shares and limits for block devices."),
    key(
        "cap_add",
        &STRING_SET,
        "Linux capabilities given to the container beyond the default ones.",
    ),
    key("cap_drop", &STRING_SET, "Linux capabilities taken from the container."),
    key(
        "cgroup",
        &CGROUP,
        "Whether the container has a cgroup namespace of its own (`private`) or the host's (`host`).",
    ),
    key(
        "cgroup_parent",
        &STRING,
        "The cgroup under which the container's own is made.",
    ),
    key(
        "command",
        &COMMAND_FORMS,
        "What the container runs instead of the image's command; in words, or as one line that is split into words.",
    ),
    key("configs", &CONFIG_REFERENCES, "The configs the service mounts."),
    key(
        "container_name",
        &CONTAINER_NAME,
        "A name for the container; there can then be only one.",
    ),
    key("cpu_count", &CPU_COUNT, "Number of processors.").no_effect(WINDOWS),
    key("cpu_percent", &CPU_PERCENT, "Share of all processors, in percent.").no_effect(WINDOWS),
    key(
        "cpu_shares",
        &NUMBER_OR_STRING,
        "Weight against other containers when processors are scarce; 1024 is usual.",
    ),
    key(
        "cpu_quota",
        &NUMBER_OR_STRING,
        "Microseconds of processor time in each period.",
    ),
    key(
        "cpu_period",
        &NUMBER_OR_STRING,
        "Length of the period of `cpu_quota` in microseconds.",
    ),
    key(
        "cpu_rt_period",
        &NUMBER_OR_STRING,
        "Length of the period for real-time scheduling in microseconds.",
    ),
    key(
        "cpu_rt_runtime",
        &NUMBER_OR_STRING,
        "Microseconds of real-time scheduling in each period.",
    ),
    key(
        "cpus",
        &NUMBER_OR_STRING,
        "How many processors the container may use; fractions are allowed.",
    ),
    key(
        "cpuset",
        &STRING,
        "The processors the container may run on, such as `0-3` or `0,1`.",
    ),
    key("credential_spec", &CREDENTIAL_SPEC, "A Windows service account.").no_effect(WINDOWS),
    key(
        "depends_on",
        &DEPENDS_ON,
        "Services that are started first, and what is waited for in each.",
    ),
    key(
        "device_cgroup_rules",
        &STRING_SET,
        "Rules for the devices that the container may use, as in `c 1:3 mr`.",
    ),
    key("devices", &DEVICES, "Devices of the host that the container sees."),
    key("dns", &STRING_OR_LIST, "DNS servers for the container."),
    key("dns_opt", &STRING_SET, "Options for the resolver of the container."),
    key(
        "dns_search",
        &STRING_OR_LIST,
        "Domains in which the container looks up short names.",
    ),
    key("domainname", &STRING, "Domain name of the container."),
    key(
        "entrypoint",
        &COMMAND_FORMS,
        "What the container runs instead of the image's entrypoint.",
    ),
    key("env_file", &ENV_FILE, "Files with variables for the container."),
    key("label_file", &STRING_OR_STRINGS, "Files with labels for the container."),
    key(
        "environment",
        &LIST_OR_DICT,
        "Variables for the container; one without a value is taken from the project's environment.",
    ),
    key(
        "expose",
        &NUMBER_OR_STRING_SET,
        "Ports that other services use; nothing is published.",
    ),
    key(
        "extends",
        &EXTENDS,
        "Another service, here or in another file, whose settings are taken over.",
    ),
    key(
        "provider",
        &PROVIDER,
        "A program that provides the service instead of a container.",
    ),
    key(
        "external_links",
        &STRING_SET,
        "Containers of other projects that are to be found by name.",
    ),
    key(
        "extra_hosts",
        &EXTRA_HOSTS,
        "Lines for /etc/hosts: names and their addresses.",
    ),
    key("gpus", &GPUS, "GPUs the container may use; `all` gives it every one."),
    key(
        "group_add",
        &NUMBER_OR_STRING_SET,
        "Further groups of the container's user.",
    ),
    key(
        "healthcheck",
        &HEALTHCHECK,
        "How to find out whether the container is healthy.",
    ),
    key("hostname", &STRING, "Host name of the container."),
    key(
        "image",
        &STRING,
        "The image to run: a reference with tag or digest, an id, or a path such as `rootfs:/srv/root`.",
    ),
    key(
        "init",
        &BOOLEAN_OR_STRING,
        "Whether an init process forwards signals and reaps orphans in the container.",
    ),
    key(
        "ipc",
        &STRING,
        "IPC namespace: `host`, `private`, `shareable`, or another's (`service:NAME`, `container:NAME`).",
    ),
    key("isolation", &STRING, "How containers are isolated.").no_effect(WINDOWS),
    key("labels", &LIST_OR_DICT, "Labels of the container."),
    key(
        "links",
        &STRING_SET,
        "Services that are to be found under a further name, as `SERVICE:ALIAS`.",
    ),
    key("logging", &LOGGING, "Where the output of the container goes."),
    key("mac_address", &STRING, "MAC address of the container."),
    key(
        "mem_limit",
        &NUMBER_OR_STRING,
        "Most memory the container may use, such as `512m`.",
    ),
    key(
        "mem_reservation",
        &INTEGER_OR_STRING,
        "Memory that is left to the container when it is scarce.",
    ),
    key(
        "mem_swappiness",
        &INTEGER_OR_STRING,
        "How readily the container's memory is swapped out, 0 to 100.",
    ),
    key(
        "memswap_limit",
        &NUMBER_OR_STRING,
        "Most memory and swap together; -1 for no limit.",
    ),
    key(
        "network_mode",
        &STRING,
        "`bridge`, `host`, `none`, or the network of another (`service:NAME`, `container:NAME`).",
    ),
    key("models", &SERVICE_MODELS, "Language models the service uses."),
    key("networks", &SERVICE_NETWORKS, "Networks the service joins, and how."),
    key(
        "oom_kill_disable",
        &BOOLEAN_OR_STRING,
        "Whether the kernel spares the container when memory runs out.",
    ),
    key(
        "oom_score_adj",
        &OOM_SCORE,
        "How likely the container is ended when memory runs out, -1000 to 1000.",
    ),
    key(
        "pid",
        &STRING_OR_NULL,
        "PID namespace: `host`, or another's (`service:NAME`, `container:NAME`).",
    ),
    key(
        "pids_limit",
        &NUMBER_OR_STRING,
        "Most processes in the container; -1 for no limit.",
    ),
    key("platform", &STRING, "Platform of the image, such as `linux/arm64`."),
    key("ports", &PORTS, "Ports that are published on the host."),
    key(
        "post_start",
        &HOOKS,
        "Commands run in the container after it has started.",
    ),
    key(
        "pre_start",
        &STEPS,
        "Commands run to their end, each in a container of its own, before the service's containers start.",
    ),
    key(
        "pre_stop",
        &HOOKS,
        "Commands run in the container before it is stopped.",
    ),
    key(
        "privileged",
        &BOOLEAN_OR_STRING,
        "Whether the container may do on the host nearly what root may.",
    ),
    key(
        "profiles",
        &STRING_SET,
        "Profiles the service belongs to; it is off unless one of them is on.",
    ),
    key(
        "pull_policy",
        &PULL_POLICY,
        "When the image is pulled: `always`, `never`, `missing`, `build`, `daily`, `weekly` or `every_DURATION`.",
    ),
    key(
        "pull_refresh_after",
        &STRING,
        "How old an image may be before it is pulled again.",
    )
    .no_effect("the specification does not say what it does; use `pull_policy: every_DURATION`"),
    key(
        "read_only",
        &BOOLEAN_OR_STRING,
        "Whether the container's root file system is read-only.",
    ),
    key(
        "restart",
        &STRING,
        "When an ended container is started again: `no`, `always`, `on-failure[:TIMES]` or `unless-stopped`.",
    ),
    key("runtime", &STRING, "The OCI runtime that runs the container.")
        .no_effect("containers run in the built-in runtime; another engine heeds it"),
    key("scale", &INTEGER_OR_STRING, "How many containers there are."),
    key(
        "security_opt",
        &STRING_SET,
        "Security settings such as `no-new-privileges` or `seccomp=PROFILE`.",
    ),
    key("shm_size", &NUMBER_OR_STRING, "Size of /dev/shm, such as `64m`."),
    key("secrets", &CONFIG_REFERENCES, "The secrets the service mounts."),
    key(
        "sysctls",
        &LIST_OR_DICT,
        "Kernel settings in the container's namespaces.",
    ),
    key(
        "stdin_open",
        &BOOLEAN_OR_STRING,
        "Whether the container's standard input is kept open.",
    ),
    key(
        "stop_grace_period",
        &STRING,
        "How long the container may take to stop before it is killed, such as `1m30s`.",
    ),
    key(
        "stop_signal",
        &STRING,
        "The signal that stops the container; SIGTERM unless the image says otherwise.",
    ),
    key(
        "storage_opt",
        &STORAGE_OPT,
        "Options for the storage of the container's files; refused where the file system has no quotas of projects.",
    ),
    key(
        "tmpfs",
        &STRING_OR_LIST,
        "File systems in memory, as `PATH` or `PATH:OPTIONS`.",
    ),
    key("tty", &BOOLEAN_OR_STRING, "Whether the container has a terminal."),
    key("ulimits", &ULIMITS, "Limits of the container's processes, by name."),
    key(
        "use_api_socket",
        &BOOLEAN,
        "Whether the container gets the engine's socket and the registry credentials.",
    ),
    key(
        "user",
        &STRING,
        "The user the command runs as: `USER` or `USER:GROUP`, by name or number.",
    ),
    key("uts", &STRING, "UTS namespace; `host` shares the host's name."),
    key(
        "userns_mode",
        &STRING,
        "User namespace: `auto` gives the container ids of its own, from `/etc/subuid`; `host` uses the engine's.",
    ),
    key(
        "volumes",
        &MOUNTS,
        "What is mounted into the container: volumes, paths of the host, memory, images.",
    ),
    key(
        "volumes_from",
        &STRING_SET,
        "Services or containers whose mounts are taken over, with `:ro` for reading only.",
    ),
    key("working_dir", &STRING, "The directory the command runs in."),
]);

static CGROUP: Schema = Schema::choice(&["host", "private"]);
static CONTAINER_NAME: Schema = Schema::text(TextPattern::ContainerName);
static PULL_POLICY: Schema = Schema::text(TextPattern::PullPolicy);
static CPU_COUNT: Schema = Schema::one_of(&[&STRING, &CPU_COUNT_NUMBER]);
static CPU_COUNT_NUMBER: Schema = Schema::integer(0, None);
static CPU_PERCENT: Schema = Schema::one_of(&[&STRING, &CPU_PERCENT_NUMBER]);
static CPU_PERCENT_NUMBER: Schema = Schema::integer(0, Some(100));
static OOM_SCORE: Schema = Schema::one_of(&[&STRING, &OOM_SCORE_NUMBER]);
static OOM_SCORE_NUMBER: Schema = Schema::integer(-1000, Some(1000));
static STORAGE_OPT: Schema = Schema::of(&[Type::Mapping]);
static HOOKS: Schema = Schema::list(&HOOK);
static STEPS: Schema = Schema::list(&STEP);

static BUILD_FORMS: Schema = Schema::one_of(&[&STRING, &BUILD]);
static BUILD: Schema = Schema::object(&[
    key(
        "context",
        &STRING,
        "The directory, archive or repository that the build reads.",
    ),
    key("dockerfile", &STRING, "The Dockerfile, relative to the context."),
    key("dockerfile_inline", &STRING, "The text of the Dockerfile itself."),
    key("entitlements", &STRINGS, "Privileges the build may ask for."),
    key("args", &LIST_OR_DICT, "Values for the ARGs of the Dockerfile."),
    key("ssh", &LIST_OR_DICT, "SSH agents or keys the build may use."),
    key("labels", &LIST_OR_DICT, "Labels of the image."),
    key("cache_from", &STRINGS, "Where layers built before may be found."),
    key("cache_to", &STRINGS, "Where built layers are stored for later."),
    key(
        "no_cache",
        &BOOLEAN_OR_STRING,
        "Whether every step runs even if its result is known.",
    ),
    key(
        "additional_contexts",
        &LIST_OR_DICT,
        "Further contexts, by the name the Dockerfile uses.",
    ),
    key(
        "network",
        &STRING,
        "Network of the steps: `default`, `none`, `host` or a network's name.",
    ),
    key(
        "provenance",
        &BOOLEAN_OR_STRING,
        "Whether a record of the build's origin is attached.",
    )
    .no_effect("attestations are not written"),
    key(
        "sbom",
        &BOOLEAN_OR_STRING,
        "Whether a list of what the image contains is attached.",
    )
    .no_effect("attestations are not written"),
    key(
        "pull",
        &BOOLEAN_OR_STRING,
        "Whether base images are pulled even if they are there.",
    ),
    key("target", &STRING, "The stage to build; the last one unless given."),
    key("shm_size", &INTEGER_OR_STRING, "Size of /dev/shm for the steps."),
    key("extra_hosts", &EXTRA_HOSTS, "Lines for /etc/hosts of the steps."),
    key("isolation", &STRING, "How the steps are isolated.").no_effect(WINDOWS),
    key("privileged", &BOOLEAN_OR_STRING, "Whether the steps run privileged."),
    key("secrets", &CONFIG_REFERENCES, "Secrets that steps may mount."),
    key("tags", &STRINGS, "Further names of the image."),
    key("ulimits", &ULIMITS, "Limits of the steps' processes."),
    key("platforms", &STRINGS, "Platforms to build for."),
]);

static BLKIO: Schema = Schema::closed(&[
    key(
        "device_read_bps",
        &BLKIO_LIMITS,
        "Most bytes a second read from a device.",
    ),
    key("device_read_iops", &BLKIO_LIMITS, "Most reads a second from a device."),
    key(
        "device_write_bps",
        &BLKIO_LIMITS,
        "Most bytes a second written to a device.",
    ),
    key("device_write_iops", &BLKIO_LIMITS, "Most writes a second to a device."),
    key(
        "weight",
        &INTEGER_OR_STRING,
        "Weight against other containers, 10 to 1000.",
    ),
    key("weight_device", &BLKIO_WEIGHTS, "The same for single devices."),
]);
static BLKIO_LIMITS: Schema = Schema::list(&BLKIO_LIMIT);
static BLKIO_LIMIT: Schema = Schema::closed(&[
    key("path", &STRING, "The device."),
    key("rate", &INTEGER_OR_STRING, "Bytes or operations a second."),
]);
static BLKIO_WEIGHTS: Schema = Schema::list(&BLKIO_WEIGHT);
static BLKIO_WEIGHT: Schema = Schema::closed(&[
    key("path", &STRING, "The device."),
    key(
        "weight",
        &INTEGER_OR_STRING,
        "Weight against other containers, 10 to 1000.",
    ),
]);

static CREDENTIAL_SPEC: Schema = Schema::object(&[
    key("config", &STRING, "The config that holds the account.").no_effect(WINDOWS),
    key("file", &STRING, "The file that holds the account.").no_effect(WINDOWS),
    key("registry", &STRING, "The registry key that holds the account.").no_effect(WINDOWS),
]);

static DEPENDS_ON: Schema = Schema::one_of(&[&STRING_SET, &DEPENDENCIES]);
static DEPENDENCIES: Schema = Schema::map(NamePattern::Resource, &DEPENDENCY, true);
static DEPENDENCY: Schema = Schema::object(&[
    key(
        "restart",
        &BOOLEAN_OR_STRING,
        "Whether this service restarts when the other is restarted or replaced.",
    ),
    key(
        "required",
        &BOOLEAN,
        "Whether this service cannot do without the other; true unless given.",
    ),
    key(
        "condition",
        &CONDITION,
        "What is waited for: that the other has started, is healthy, or has ended well.",
    ),
])
.requires(&["condition"]);
static CONDITION: Schema = Schema::choice(&["service_started", "service_healthy", "service_completed_successfully"]);

static DEVICES: Schema = Schema::list(&DEVICE_FORMS);
static DEVICE_FORMS: Schema = Schema::one_of(&[&STRING, &DEVICE]);
static DEVICE: Schema = Schema::object(&[
    key("source", &STRING, "The device on the host, or a CDI name."),
    key("target", &STRING, "Where the container sees it."),
    key("permissions", &STRING, "What it may do: letters of `rwm`."),
])
.requires(&["source"]);

static ENV_FILE: Schema = Schema::one_of(&[&STRING, &ENV_FILES]);
static ENV_FILES: Schema = Schema::list(&ENV_FILE_FORMS);
static ENV_FILE_FORMS: Schema = Schema::one_of(&[&STRING, &ENV_FILE_OBJECT]);
static ENV_FILE_OBJECT: Schema = Schema::closed(&[
    key("path", &STRING, "The file."),
    key(
        "format",
        &STRING,
        "`raw` for lines taken as they are, without quotes or variables.",
    ),
    key(
        "required",
        &BOOLEAN_OR_STRING,
        "Whether the file must be there; true unless given.",
    ),
])
.requires(&["path"]);

static EXTENDS: Schema = Schema::one_of(&[&STRING, &EXTENDS_OBJECT]);
static EXTENDS_OBJECT: Schema = Schema::closed(&[
    key("service", &STRING, "The service to take over."),
    key("file", &STRING, "The file it stands in; this one unless given."),
])
.requires(&["service"]);

static PROVIDER: Schema = Schema::object(&[
    key("type", &STRING, "The program: `docker-TYPE` or `TYPE` on the PATH."),
    key("options", &PROVIDER_OPTIONS, "Options for the program."),
])
.requires(&["type"]);
static PROVIDER_OPTIONS: Schema = Schema::map(NamePattern::Any, &PROVIDER_OPTION, false);
static PROVIDER_OPTION: Schema = Schema::one_of(&[&OPTION, &PROVIDER_OPTION_LIST]);
static PROVIDER_OPTION_LIST: Schema = Schema::list(&OPTION);

static HEALTHCHECK: Schema = Schema::object(&[
    key(
        "disable",
        &BOOLEAN_OR_STRING,
        "Whether the image's check is switched off.",
    ),
    key("interval", &STRING, "Time between two checks; 30s unless given."),
    key(
        "retries",
        &NUMBER_OR_STRING,
        "How many failures in a row make it unhealthy; 3 unless given.",
    ),
    key(
        "test",
        &STRING_OR_STRINGS,
        "The check: a shell command, or a list that starts with NONE, CMD or CMD-SHELL.",
    ),
    key("timeout", &STRING, "How long one check may take; 30s unless given."),
    key(
        "start_period",
        &STRING,
        "Time after the start in which failures do not count.",
    ),
    key(
        "start_interval",
        &STRING,
        "Time between two checks in the start period.",
    ),
]);

static LOGGING: Schema = Schema::object(&[
    key(
        "driver",
        &STRING,
        "The driver: `json-file`, `local`, `syslog`, `journald` or `none`; another engine may know more.",
    ),
    key("options", &LOG_OPTIONS, "Options of the driver, such as `max-size`."),
]);
static LOG_OPTIONS: Schema = Schema::map(NamePattern::Any, &LOG_OPTION, false);

static SERVICE_MODELS: Schema = Schema::one_of(&[&STRING_SET, &SERVICE_MODEL_MAP]);
static SERVICE_MODEL_MAP: Schema = Schema::map(NamePattern::Resource, &SERVICE_MODEL_FORMS, false);
static SERVICE_MODEL_FORMS: Schema = Schema::one_of(&[&SERVICE_MODEL, &NULL]);
static SERVICE_MODEL: Schema = Schema::object(&[
    key(
        "endpoint_var",
        &STRING,
        "The variable that tells where the model answers.",
    ),
    key("model_var", &STRING, "The variable that tells the model's name."),
]);

static SERVICE_NETWORKS: Schema = Schema::one_of(&[&STRING_SET, &SERVICE_NETWORK_MAP]);
static SERVICE_NETWORK_MAP: Schema = Schema::map(NamePattern::Resource, &SERVICE_NETWORK_FORMS, true);
static SERVICE_NETWORK_FORMS: Schema = Schema::one_of(&[&SERVICE_NETWORK, &NULL]);

static PORTS: Schema = Schema::set(&PORT_FORMS);
static PORT_FORMS: Schema = Schema::one_of(&[&NUMBER, &STRING, &PORT]);
static PORT: Schema = Schema::object(&[
    key("name", &STRING, "A name for people."),
    key("mode", &STRING, "`ingress` or `host`.").moot("every port is published on this host"),
    key(
        "host_ip",
        &STRING,
        "The address of the host to publish on; all unless given.",
    ),
    key("target", &INTEGER_OR_STRING, "The port in the container."),
    key(
        "published",
        &INTEGER_OR_STRING,
        "The port on the host, or a range of which one is taken.",
    ),
    key("protocol", &STRING, "`tcp`, `udp` or `sctp`."),
    key("app_protocol", &STRING, "What is spoken on the port.").moot("a hint for people and tools"),
]);

static ULIMITS: Schema = Schema::map(NamePattern::Lower, &ULIMIT_FORMS, false);
static ULIMIT_FORMS: Schema = Schema::one_of(&[&INTEGER_OR_STRING, &ULIMIT]);
static ULIMIT: Schema = Schema::object(&[
    key("hard", &INTEGER_OR_STRING, "The limit that cannot be raised."),
    key("soft", &INTEGER_OR_STRING, "The limit that applies."),
])
.requires(&["soft", "hard"]);

static MOUNTS: Schema = Schema::set(&MOUNT_FORMS);
static MOUNT_FORMS: Schema = Schema::one_of(&[&STRING, &MOUNT]);
static MOUNT: Schema = Schema::object(&[
    key(
        "type",
        &MOUNT_TYPE,
        "What is mounted: `bind`, `volume`, `tmpfs`, `image`, `cluster` or `npipe`.",
    ),
    key("source", &STRING, "The path, volume or image."),
    key("target", &STRING, "Where the container sees it."),
    key("read_only", &BOOLEAN_OR_STRING, "Whether it is read-only."),
    key("consistency", &STRING, "How closely the two sides agree.").moot("on Linux both sides are the same files"),
    key("bind", &BIND, "Settings for paths of the host."),
    key("volume", &VOLUME_OPTIONS, "Settings for volumes."),
    key("tmpfs", &TMPFS, "Settings for memory."),
    key("image", &IMAGE_OPTIONS, "Settings for images."),
])
.requires(&["type"]);
static MOUNT_TYPE: Schema = Schema::choice(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"]);
static BIND: Schema = Schema::object(&[
    key(
        "propagation",
        &STRING,
        "Which later mounts are seen: `private`, `rprivate`, `shared`, `rshared`, `slave` or `rslave`.",
    ),
    key(
        "create_host_path",
        &BOOLEAN_OR_STRING,
        "Whether a missing path is made as a directory.",
    ),
    key("recursive", &RECURSIVE, "What happens to mounts below the path."),
    key(
        "selinux",
        &SELINUX,
        "Relabelling: `z` for shared, `Z` for private content.",
    ),
]);
static RECURSIVE: Schema = Schema::choice(&["enabled", "disabled", "writable", "readonly"]);
static SELINUX: Schema = Schema::choice(&["z", "Z"]);
static VOLUME_OPTIONS: Schema = Schema::object(&[
    key("labels", &LIST_OR_DICT, "Labels of the volume."),
    key(
        "nocopy",
        &BOOLEAN_OR_STRING,
        "Whether a new volume stays empty instead of taking the image's files.",
    ),
    key("subpath", &STRING, "The part of the volume to mount."),
]);
static TMPFS: Schema = Schema::object(&[
    key("size", &TMPFS_SIZE, "Most bytes it may hold."),
    key("mode", &NUMBER_OR_STRING, "Permissions of its root, in octal."),
]);
static TMPFS_SIZE: Schema = Schema::one_of(&[&TMPFS_SIZE_NUMBER, &STRING]);
static TMPFS_SIZE_NUMBER: Schema = Schema::integer(0, None);
static IMAGE_OPTIONS: Schema = Schema::object(&[key("subpath", &STRING, "The part of the image to mount.")]);
