//! The table, continued: `deploy`, `develop`, devices asked for by capability, hooks.

use super::shape::{Schema, Type, key};
use super::table::{
    BOOLEAN, BOOLEAN_OR_STRING, COMMAND, INTEGER_OR_STRING, LIST_OR_DICT, NUMBER_OR_STRING, STRING, STRING_OR_LIST,
    STRING_SET, STRINGS, SWARM,
};

pub(super) static DEVELOP: Schema =
    Schema::object(&[key("watch", &WATCHES, "Paths to watch, and what follows a change.")]).or_null();
static WATCHES: Schema = Schema::list(&WATCH);
static WATCH: Schema = Schema::object(&[
    key("ignore", &STRING_OR_LIST, "Patterns of files that do not matter."),
    key("include", &STRING_OR_LIST, "Patterns of the only files that matter."),
    key("path", &STRING, "The path to watch."),
    key(
        "action",
        &ACTION,
        "What follows: build again, copy files, restart, or copy and then restart or run a command.",
    ),
    key("target", &STRING, "Where files are copied to in the container."),
    key("exec", &HOOK, "The command of `sync+exec`."),
    key(
        "initial_sync",
        &BOOLEAN,
        "Whether files are copied once at the beginning.",
    ),
])
.requires(&["path", "action"]);
static ACTION: Schema = Schema::choice(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"]);

pub(super) static HOOK: Schema = Schema::object(&[
    key("command", COMMAND, "The command."),
    key("user", &STRING, "The user it runs as."),
    key("privileged", &BOOLEAN_OR_STRING, "Whether it runs privileged."),
    key("working_dir", &STRING, "The directory it runs in."),
    key("environment", &LIST_OR_DICT, "Variables for it."),
])
.requires(&["command"]);

pub(super) static STEP: Schema = Schema::object(&[
    key("command", COMMAND, "The command; without one, the image's own is run."),
    key("image", &STRING, "The image; the service's unless given."),
    key("user", &STRING, "The user it runs as."),
    key("privileged", &BOOLEAN_OR_STRING, "Whether it runs privileged."),
    key("working_dir", &STRING, "The directory it runs in."),
    key("environment", &LIST_OR_DICT, "Variables besides the service's."),
    key(
        "per_replica",
        &BOOLEAN_OR_STRING,
        "Whether it runs once for each container rather than once for the service.",
    ),
]);

pub(super) static DEPLOY: Schema = Schema::object(&[
    key(
        "mode",
        &STRING,
        "`replicated`, `global`, `replicated-job` or `global-job`.",
    ),
    key("endpoint_mode", &STRING, "`vip` or `dnsrr`.").no_effect(SWARM),
    key("replicas", &INTEGER_OR_STRING, "How many containers there are."),
    key("labels", &LIST_OR_DICT, "Labels of the service, not of its containers.").no_effect(SWARM),
    key("rollback_config", &UPDATE, "How a failed update is undone.").no_effect(SWARM),
    key("update_config", &UPDATE, "How the service is updated.").no_effect(SWARM),
    key("resources", &RESOURCES, "Limits and reservations."),
    key(
        "restart_policy",
        &RESTART_POLICY,
        "When an ended container is started again; outweighs `restart`.",
    ),
    key("placement", &PLACEMENT, "Where containers may run.").no_effect(SWARM),
])
.or_null();

static UPDATE: Schema = Schema::object(&[
    key("parallelism", &INTEGER_OR_STRING, "How many containers at a time.").no_effect(SWARM),
    key("delay", &STRING, "Time between two groups.").no_effect(SWARM),
    key("failure_action", &STRING, "What follows a failure.").no_effect(SWARM),
    key("monitor", &STRING, "How long a new container is observed.").no_effect(SWARM),
    key(
        "max_failure_ratio",
        &NUMBER_OR_STRING,
        "The share of failures that is tolerated.",
    )
    .no_effect(SWARM),
    key("order", &ORDER, "Whether new ones start before old ones stop.").no_effect(SWARM),
]);
static ORDER: Schema = Schema::choice(&["start-first", "stop-first"]);

static RESOURCES: Schema = Schema::object(&[
    key("limits", &LIMITS, "What a container may use at most."),
    key("reservations", &RESERVATIONS, "What is kept for a container."),
]);
static LIMITS: Schema = Schema::object(&[
    key("cpus", &NUMBER_OR_STRING, "Processors, as a number with fraction."),
    key("memory", &STRING, "Memory, such as `512m`."),
    key("pids", &INTEGER_OR_STRING, "Processes."),
]);
static RESERVATIONS: Schema = Schema::object(&[
    key("cpus", &NUMBER_OR_STRING, "Processors, as a number with fraction.").no_effect(SWARM),
    key("memory", &STRING, "Memory, such as `512m`."),
    key(
        "generic_resources",
        &GENERIC_RESOURCES,
        "Resources of the user's own making.",
    )
    .no_effect(SWARM),
    key("devices", &DEVICE_REQUESTS, "Devices by what they can do."),
]);
static GENERIC_RESOURCES: Schema = Schema::list(&GENERIC_RESOURCE);
static GENERIC_RESOURCE: Schema =
    Schema::object(&[key("discrete_resource_spec", &DISCRETE_RESOURCE, "A countable resource.").no_effect(SWARM)]);
static DISCRETE_RESOURCE: Schema = Schema::object(&[
    key("kind", &STRING, "What it is.").no_effect(SWARM),
    key("value", &NUMBER_OR_STRING, "How many.").no_effect(SWARM),
]);

static RESTART_POLICY: Schema = Schema::object(&[
    key("condition", &STRING, "`none`, `on-failure` or `any`."),
    key("delay", &STRING, "Time before the next try."),
    key("max_attempts", &INTEGER_OR_STRING, "How many tries there are."),
    key("window", &STRING, "How long a container must run to count as started."),
]);

static PLACEMENT: Schema = Schema::object(&[
    key("constraints", &STRINGS, "What a node must be.").no_effect(SWARM),
    key("preferences", &PREFERENCES, "Over what containers are spread.").no_effect(SWARM),
    key(
        "max_replicas_per_node",
        &INTEGER_OR_STRING,
        "Most containers on one node.",
    )
    .no_effect(SWARM),
]);
static PREFERENCES: Schema = Schema::list(&PREFERENCE);
static PREFERENCE: Schema =
    Schema::object(&[key("spread", &STRING, "The node label to spread over.").no_effect(SWARM)]);

static DEVICE_REQUESTS: Schema = Schema::list(&DEVICE_REQUEST);
static DEVICE_REQUEST: Schema = Schema::object(&[
    key("capabilities", &STRING_SET, "What the device can do."),
    key("count", &INTEGER_OR_STRING, "How many; `all` or -1 for all."),
    key("device_ids", &STRING_SET, "Which ones, by id."),
    key("driver", &STRING, "The driver."),
    key("options", &LIST_OR_DICT, "Options for the driver."),
])
.requires(&["capabilities"]);

pub(super) static GPUS: Schema = Schema::one_of(&[&ALL_GPUS, &GPU_LIST]);
static ALL_GPUS: Schema = Schema::choice(&["all"]);
static GPU_LIST: Schema = Schema::list(&GPU);
static GPU: Schema = Schema::open(&[
    key("capabilities", &STRING_SET, "What the GPU can do."),
    key("count", &INTEGER_OR_STRING, "How many; `all` or -1 for all."),
    key("device_ids", &STRING_SET, "Which ones, by id."),
    key("driver", &STRING, "The driver."),
    key("options", &LIST_OR_DICT, "Options for the driver."),
])
.typed(&[Type::Mapping]);
