//! Being called by the docker CLI, as `docker compose …`.
//!
//! The CLI finds plugins by asking each program in its plugin directories for its metadata, and runs them with its
//! own command line, the flags before `compose` included.

use crate::ui::stream;

/// The word by which the docker CLI asks a plugin who it is.
const METADATA: &str = "docker-cli-plugin-metadata";

/// Set by the docker CLI when it runs a plugin.
pub const CALLED: &str = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND";

/// What a plugin's arguments ask for.
#[derive(Debug, PartialEq, Eq)]
pub enum Call {
    /// To say who it is.
    Metadata,
    /// To run a command.
    Run(Vec<String>),
}

/// Returns whether the docker CLI has called this program.
pub fn is_called() -> bool {
    std::env::var_os(CALLED).is_some()
}

/// Takes away what the docker CLI put in front of the command: `compose`, after flags of its own.
pub fn read(arguments: &[String], is_called: bool) -> Call {
    if arguments.first().is_some_and(|first| first == METADATA) {
        return Call::Metadata;
    }
    if !is_called {
        return Call::Run(arguments.to_vec());
    }
    let mut own = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "compose" => break,
            // The engine that the user named for docker is the one meant.
            "-H" | "--host" => own.extend(rest.next().map(|host| format!("--engine={host}"))),
            "-c" | "--context" | "--config" | "-l" | "--log-level" | "--tlscacert" | "--tlscert" | "--tlskey" => {
                rest.next();
            }
            flag if flag.starts_with('-') => {
                own.extend(flag.strip_prefix("--host=").map(|host| format!("--engine={host}")));
            }
            // Not how the docker CLI calls; the command stands alone.
            _ => return Call::Run(arguments.to_vec()),
        }
    }
    own.extend(rest.cloned());
    Call::Run(own)
}

/// Says who this plugin is.
pub fn print_metadata() -> std::io::Result<()> {
    let metadata = serde_json::json!({
        "SchemaVersion": "0.1.0",
        "Vendor": "compose",
        "Version": env!("CARGO_PKG_VERSION"),
        "ShortDescription": "Define and run multi-container applications",
    });
    stream::out(format!("{metadata}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str, is_called: bool) -> Call {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        read(&arguments, is_called)
    }

    #[test]
    fn the_docker_cli_puts_its_own_words_first() {
        let words = |line: &str| Call::Run(line.split_whitespace().map(str::to_owned).collect());
        assert_eq!(run("docker-cli-plugin-metadata", false), Call::Metadata);
        assert_eq!(run("ps -a", false), words("ps -a"));
        assert_eq!(run("compose ps -a", true), words("ps -a"));
        assert_eq!(run("compose", true), words(""));
        assert_eq!(
            run("-H unix:///x --context c --debug compose -p y ps", true),
            words("--engine=unix:///x -p y ps")
        );
        assert_eq!(run("ps", true), words("ps"));
    }
}
