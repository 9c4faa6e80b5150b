//! Builds images from Dockerfiles: stages, steps and their cache.

pub mod context;
mod dockerfile;
mod expand;
mod heredoc;
pub mod ignore;
