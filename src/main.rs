//! Entry points. The runtime's helpers are entered before any thread exists; everything else is the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os()
        .nth(1)
        .as_deref()
        .and_then(|argument| argument.to_str())
    {
        Some("__zygote") => compose::runtime::zygote_main(),
        Some("__engine") => compose::engine::main(),
        _ => compose::cli::run(),
    }
}
