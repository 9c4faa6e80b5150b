//! Loading a project: discovery, interpolation, merge, extends, include, canonical forms, validation.
//!
//! [`load`] answers one question: which project do these files and options describe? The phases are docker compose's,
//! in its order, since a file may depend on it. Every value keeps the place it was written at through all of them, so
//! that whatever is wrong can be shown where it stands.
// compose-go loader/loader.go

// A refusal ends the load; how large it is costs nothing.
#![allow(clippy::result_large_err)]

mod advice;
mod canonical;
mod checks;
mod cycles;
mod discover;
pub mod dotenv;
mod environment;
pub mod explain;
mod extends;
mod include;
pub mod interpolate;
mod load;
mod merge;
mod normalize;
mod options;
pub(crate) mod paths;
mod places;
pub mod remote;
mod reset;
pub mod schema;
pub mod template;
mod tree;
mod unique;
mod without_effect;
pub mod words;

pub use discover::{is_project_name, normalize_project_name};
pub use load::{load, load_environment, load_model};
pub use options::{LoadError, LoadOptions, Loaded, LoadedModel};
pub use paths::clean;
pub use tree::{go_format, go_type};
pub use unique::is_unique;
pub use without_effect::WithoutEffect;
