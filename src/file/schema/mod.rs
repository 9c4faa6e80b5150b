//! What a Compose file may say: one table of every key, from which come the checks of a file, the JSON Schema for
//! editors and the support table of the README.
//!
//! `shape` holds the language of the table, `table` and its neighbours the table itself, [`check`] holds a file
//! against it in docker compose's own words.
// compose-go schema/compose-spec.json, version 2.9.1

mod advice;
mod check;
mod deploy;
mod json;
mod resources;
mod shape;
mod support;
mod table;

pub use advice::advice;
pub use check::{Violation, check};
pub use json::json_schema;
pub use shape::{Keys, NamePattern, Property, Schema, TextPattern, Type, Verdict};
pub use support::{Object, objects, support_table};
pub use table::PROJECT;
