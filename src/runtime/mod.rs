//! The container runtime: from an OCI runtime spec to running processes, through one shim per container.
//!
//! It answers how a container is made, watched and ended; it knows nothing of images, networks or names.
//!
//! ```text
//!   engine ── Runtime ──▶ zygote ──fork──▶ shim ──clone──▶ init ──exec──▶ the user's process
//!      ▲                                    │
//!      └────────── Container ◀── socket ────┘   the shim stays: streams, log, exit record, exec, descriptors
//! ```
//!
//! The contract is [`oci_spec::runtime::Spec`]; what Docker fills it with is [`spec`].

pub mod capability;
pub mod cgroup;
mod composed;
mod connection;
mod container;
mod engine_side;
mod error;
mod family;
mod hooks;
mod ids;
pub mod in_root;
mod init;
mod launch;
pub mod mountinfo;
mod mounting;
pub mod oci;
mod outside;
mod overlay;
mod protocol;
mod record;
mod root;
pub mod seccomp;
mod shim;
pub mod spec;
mod time;
mod tiny_init;
mod zygote;

pub use cgroup::{BlockStats, Stats};
pub use container::{Adoption, Container, Exec, ExecHandle};
pub use engine_side::{Runtime, Unborn};
pub use error::RuntimeError;
pub use launch::{
    AttachOptions, ExecSpec, ExitRecord, Forward, Launch, Log, Respawn, Root, RuntimeConfig, Seccomp, SyslogAddress,
    SyslogFormat,
};
pub use mounting::BELOW;
pub use protocol::LOCK as SHIM_LOCK;
pub use root::{Found, RootHandle, user_in};
pub use time::Timestamp;
pub use tiny_init::{NAME as INIT_NAME, main as init_main};
pub use zygote::main as zygote_main;
