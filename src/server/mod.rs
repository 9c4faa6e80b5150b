//! The Docker Engine API over the embedded engine.
