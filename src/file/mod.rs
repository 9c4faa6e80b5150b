//! Loading a project: discovery, interpolation, merge, extends, include, canonical forms, validation.
