//! Entry points. The runtime's helpers are entered before any thread exists; everything else is the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    // Process 1 of a container has no arguments of ours, only its name.
    let name = arguments.next().unwrap_or_default();
    if name == compose::runtime::INIT_NAME {
        return compose::runtime::init_main(arguments);
    }
    if std::path::Path::new(&name)
        .file_name()
        .is_some_and(|name| name == compose::cli::oci::NAME)
    {
        return compose::cli::oci::main(arguments);
    }
    match arguments.next().as_deref().and_then(|argument| argument.to_str()) {
        Some("__zygote") => compose::runtime::zygote_main(),
        Some("__engine") => compose::engine::main(),
        Some("oci") => compose::cli::oci::main(arguments),
        _ => compose::cli::run(),
    }
}
