//! The project as a typed model: what every later stage works on. No I/O.
