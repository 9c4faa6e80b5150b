//! The command line: one file per command, each reads its arguments and calls one function.

use std::process::ExitCode;

/// Runs the command line and returns the exit status.
pub fn run() -> ExitCode {
    ExitCode::SUCCESS
}
