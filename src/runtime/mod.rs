//! The container runtime: from an OCI runtime spec to running processes, through one shim per container.

use std::process::ExitCode;

/// Entry point of the process that forks shims; runs before any thread exists.
pub fn zygote_main() -> ExitCode {
    ExitCode::SUCCESS
}
