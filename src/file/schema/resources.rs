//! The table, continued: networks, volumes, secrets, configs, models, include.

use super::shape::{Keys, NamePattern, Schema, Type, key};
use super::table::{
    BOOLEAN_OR_STRING, DRIVER_OPTIONS, INTEGER, LIST_OR_DICT, NUMBER, NUMBER_OR_STRING, STRING, STRING_OR_LIST,
    STRING_SET, STRINGS, SWARM,
};

pub(super) static INCLUDE: Schema = Schema::one_of(&[&STRING, &INCLUDE_OBJECT]);
static INCLUDE_OBJECT: Schema = Schema::closed(&[
    key(
        "path",
        &STRING_OR_LIST,
        "The file, or the file and those that override it.",
    ),
    key(
        "env_file",
        &STRING_OR_LIST,
        "Files with the variables that the included files use.",
    ),
    key(
        "project_directory",
        &STRING,
        "What relative paths in the included files start from.",
    ),
]);

static EXTERNAL_CLOSED: Schema = Schema {
    properties: &[key(
        "name",
        &STRING,
        "The name of the existing one; write `name` beside `external: true` instead.",
    )],
    keys: Keys::Extensions,
    ..Schema::of(&[Type::Boolean, Type::Mapping, Type::String])
};
static EXTERNAL_OPEN: Schema = Schema {
    properties: &[key(
        "name",
        &STRING,
        "The name of the existing one; write `name` beside `external: true` instead.",
    )],
    ..Schema::of(&[Type::Boolean, Type::Mapping, Type::String])
};

pub(super) static NETWORK: Schema = Schema::object(&[
    key(
        "name",
        &STRING,
        "The name of the network; made of the project's and the key unless given.",
    ),
    key("driver", &STRING, "The driver: `bridge` unless given."),
    key("driver_opts", &DRIVER_OPTIONS, "Options of the driver."),
    key("ipam", &IPAM, "Which addresses the network has."),
    key(
        "external",
        &EXTERNAL_CLOSED,
        "Whether the network exists already and is left alone.",
    ),
    key(
        "internal",
        &BOOLEAN_OR_STRING,
        "Whether nothing outside can be reached.",
    ),
    key(
        "enable_ipv4",
        &BOOLEAN_OR_STRING,
        "Whether containers get IPv4 addresses.",
    ),
    key(
        "enable_ipv6",
        &BOOLEAN_OR_STRING,
        "Whether containers get IPv6 addresses.",
    ),
    key(
        "attachable",
        &BOOLEAN_OR_STRING,
        "Whether containers outside the project may join.",
    ),
    key("labels", &LIST_OR_DICT, "Labels of the network."),
])
.or_null();
static IPAM: Schema = Schema::object(&[
    key("driver", &STRING, "The driver that hands out addresses."),
    key("config", &IPAM_POOLS, "Ranges of addresses."),
    key("options", &TEXTS, "Options of the driver.")
        .no_effect("the built-in driver has none; docker compose drops them too before version 5"),
]);
static IPAM_POOLS: Schema = Schema::list(&IPAM_POOL);
static IPAM_POOL: Schema = Schema::object(&[
    key("subnet", &STRING, "The whole range, as `172.28.0.0/16`."),
    key(
        "ip_range",
        &STRING,
        "The part of it that containers get addresses from.",
    ),
    key("gateway", &STRING, "The address of the host in it."),
    key(
        "aux_addresses",
        &TEXTS,
        "Addresses that are taken, by the name of their owner.",
    ),
]);
static TEXTS: Schema = Schema::map(NamePattern::Any, &STRING, true);

pub(super) static VOLUME: Schema = Schema::object(&[
    key(
        "name",
        &STRING,
        "The name of the volume; made of the project's and the key unless given.",
    ),
    key("driver", &STRING, "The driver: `local` unless given."),
    key(
        "driver_opts",
        &DRIVER_OPTIONS,
        "Options of the driver, such as `type`, `o` and `device`.",
    ),
    key(
        "external",
        &EXTERNAL_CLOSED,
        "Whether the volume exists already and is left alone.",
    ),
    key("labels", &LIST_OR_DICT, "Labels of the volume."),
])
.or_null();

pub(super) static SECRET: Schema = Schema::object(&[
    key("name", &STRING, "The name of the secret."),
    key("environment", &STRING, "The variable that holds it."),
    key("file", &STRING, "The file that holds it."),
    key("external", &EXTERNAL_OPEN, "Whether an orchestrator keeps it.").no_effect(SWARM),
    key("labels", &LIST_OR_DICT, "Labels of the secret.").no_effect(SWARM),
    key("driver", &STRING, "The driver that keeps it.").no_effect(SWARM),
    key("driver_opts", &DRIVER_OPTIONS, "Options of the driver.").no_effect(SWARM),
    key("template_driver", &STRING, "The driver that fills it in.").no_effect(SWARM),
]);

pub(super) static CONFIG: Schema = Schema::object(&[
    key("name", &STRING, "The name of the config."),
    key("content", &STRING, "Its text."),
    key("environment", &STRING, "The variable that holds it."),
    key("file", &STRING, "The file that holds it."),
    key("external", &EXTERNAL_OPEN, "Whether an orchestrator keeps it.").no_effect(SWARM),
    key("labels", &LIST_OR_DICT, "Labels of the config.").no_effect(SWARM),
    key("template_driver", &STRING, "The driver that fills it in.").no_effect(SWARM),
]);

pub(super) static MODEL: Schema = Schema::object(&[
    key("name", &STRING, "The name of the model."),
    key("model", &STRING, "The model to run."),
    key("context_size", &INTEGER, "How many tokens its context holds."),
    key("runtime_flags", &STRINGS, "Flags for the program that runs it."),
])
.requires(&["model"]);

pub(super) static SERVICE_NETWORK: Schema = Schema::object(&[
    key("aliases", &STRING_SET, "Further names of the service in the network."),
    key("interface_name", &STRING, "The name of the interface in the container."),
    key("ipv4_address", &STRING, "A fixed IPv4 address."),
    key("ipv6_address", &STRING, "A fixed IPv6 address."),
    key("link_local_ips", &STRING_SET, "Link-local addresses."),
    key("mac_address", &STRING, "A fixed MAC address."),
    key("driver_opts", &DRIVER_OPTIONS, "Options of the network's driver."),
    key(
        "priority",
        &NUMBER,
        "The order in which networks are joined, the highest first.",
    ),
    key(
        "gw_priority",
        &NUMBER,
        "Which network gives the default route: the one with the highest.",
    ),
]);

pub(super) static CONFIG_REFERENCES: Schema = Schema::list(&CONFIG_REFERENCE_FORMS);
static CONFIG_REFERENCE_FORMS: Schema = Schema::one_of(&[&STRING, &CONFIG_REFERENCE]);
static CONFIG_REFERENCE: Schema = Schema::object(&[
    key("source", &STRING, "Its name among the project's."),
    key("target", &STRING, "Where the container sees it."),
    key("uid", &STRING, "The user that owns the file."),
    key("gid", &STRING, "The group that owns the file."),
    key("mode", &NUMBER_OR_STRING, "Permissions of the file, in octal."),
]);
