//! The embedded engine: owns containers, networks, volumes, images, events, health and restarts.

use std::process::ExitCode;

/// Runs the engine process until nothing needs it any more.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
