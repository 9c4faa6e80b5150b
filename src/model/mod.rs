//! What a project is, once its files are read: typed, canonical, complete.
//!
//! Field names are Compose's own, and fields stand in the order in which docker compose prints them, because the
//! configuration hash that docker compose stores on containers is taken over that text ([`hash`]). Nothing here reads
//! files or knows YAML's syntax beyond [`crate::yaml::Node`]; [`crate::file`] makes a [`Project`].
//!
//! The attributes are those of the [Compose Specification](https://github.com/compose-spec/compose-spec).

#[macro_use]
mod object;
mod build;
pub mod decode;
mod deploy;
mod develop;
mod emit;
pub mod hash;
mod mount;
mod places;
mod port;
mod project;
mod resource;
mod scalar;
mod service;
mod units;
mod value;

pub use build::{Build, SshKey, SshKeys};
pub use deploy::{
    Deploy, DeviceCount, DeviceRequest, DiscreteResource, GenericResource, Placement, PlacementPreference, Resource,
    Resources, RestartPolicy, UpdateConfig,
};
pub use develop::{Develop, Hook, Watch};
pub use emit::{Dialect, Emit, Key, Omit};
pub use mount::{IDMAP, MountError, is_path, parse_mount};
pub use places::{Places, placed};
pub use port::{PortError, parse_ports};
pub use project::{Dependencies, Project, ProjectError};
pub use resource::{Config, FROM_ENVIRONMENT, Ipam, IpamPool, Model, Network, Secret, Volume};
pub use scalar::{Bytes, Command, Duration, Environment, FileMode, Hosts, Labels, Mapping};
pub use service::{
    BindOptions, Blkio, BlkioLimit, BlkioWeight, CredentialSpec, Dependency, Device, EnvFile, Extends, FileReference,
    HealthCheck, HealthTest, ImageOptions, Logging, Mount, Port, Provider, Required, Service, ServiceModel,
    ServiceNetwork, TmpfsOptions, Ulimit, VolumeOptions,
};
pub use units::UnitError;
pub use value::Value;

/// The `x-` keys of an object, kept as they were written.
pub type Extensions = std::collections::BTreeMap<String, Value>;
