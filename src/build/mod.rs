//! Builds images from Dockerfiles: stages, steps and their cache.

pub mod context;
pub mod ignore;
