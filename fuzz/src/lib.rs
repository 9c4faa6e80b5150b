//! The modules of the program that read what people write, and nothing else of it.
#![allow(
    dead_code,
    unused_imports,
    reason = "the rest of the program uses what is not used here"
)]

#[path = "../../src/file/mod.rs"]
pub mod file;
#[path = "../../src/model/mod.rs"]
pub mod model;
#[path = "../../src/parallel.rs"]
pub mod parallel;
#[path = "../../src/yaml/mod.rs"]
pub mod yaml;
