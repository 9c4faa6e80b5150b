//! Entry points. The runtime's helpers are entered before any thread exists; everything else is the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    // Process 1 of a container has no arguments of ours, only its name.
    if arguments.next().is_some_and(|name| name == compose::runtime::INIT_NAME) {
        return compose::runtime::init_main(arguments);
    }
    match arguments.next().as_deref().and_then(|argument| argument.to_str()) {
        Some("__zygote") => compose::runtime::zygote_main(),
        Some("__engine") => compose::engine::main(),
        _ => compose::cli::run(),
    }
}
