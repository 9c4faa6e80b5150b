//! Runs Compose projects without Docker: a Compose client and an embedded container engine in one binary.
//!
//! ```text
//!    compose up · ps · logs · watch …                    docker CLI · docker compose · Traefik · testcontainers …
//!               │                                                          │
//!   cli ── file ── model ── graph ── plan ── client (bollard) ──▶  Docker Engine API (HTTP over a unix socket)
//!   ui                                                                     │
//!                                              ┌───────────────────────────┼──────────────────────┐
//!                                      embedded engine               Docker Engine           Podman socket
//!                                              │
//!                           server ── engine: containers networks volumes images builds
//!                                              │
//!                                runtime     net     image     build        pieces, each usable and testable alone
//!                                              │
//!                                             os        safe wrappers on system calls; the only `unsafe`
//! ```
//!
//! Everything flows down: a module uses only what is below it. Nothing but [`ui`] prints; [`plan`] decides and
//! does no I/O of its own while deciding.

pub mod build;
pub mod cli;
pub mod client;
pub mod engine;
pub mod file;
pub mod graph;
pub mod image;
pub mod model;
pub mod net;
pub mod os;
pub mod parallel;
mod percent;
pub mod plan;
pub mod rootless;
pub mod runtime;
pub mod server;
pub mod ui;
pub mod watch;
pub mod yaml;
