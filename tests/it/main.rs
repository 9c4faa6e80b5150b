//! The real binary, from outside: unprivileged tests of loading and printing, privileged ones with real containers.
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a skipped test says so")]

mod artifact;
mod attributes;
mod build;
mod cli;
mod coder;
mod commands;
mod config;
mod convergence;
mod crash;
mod dockerfiles;
mod engine;
mod errors;
mod example;
mod grammars;
mod image;
mod image_auth;
mod image_disk;
mod image_faults;
mod image_registry;
mod image_replay;
mod jail;
mod licences;
mod lifecycle;
mod limits;
mod net;
mod oci;
mod refusals;
mod remote;
mod rootless;
mod runtime;
mod support;
mod terminal;
mod warnings;
mod watch;
