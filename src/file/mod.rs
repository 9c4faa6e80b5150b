//! Loading a project: discovery, interpolation, merge, extends, include, canonical forms, validation.

pub mod dotenv;
pub mod interpolate;
pub mod template;
pub mod words;
