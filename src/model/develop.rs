//! What `watch` does, and the commands run around a container's life.

use super::{Command, Environment, Extensions};

object! {
    /// The `develop` attribute.
    pub struct Develop {
        watch: Vec<Watch> = Key::new("watch"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// A path that is watched, and what follows a change.
    pub struct Watch {
        path: String = Key::new("path").kept(),
        action: String = Key::new("action").kept(),
        target: String = Key::new("target"),
        exec: Hook = Key::new("exec").kept_in_json(),
        include: Vec<String> = Key::new("include"),
        ignore: Vec<String> = Key::new("ignore"),
        initial_sync: bool = Key::new("initial_sync"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// A command that is run in a container when something happens to it.
    pub struct Hook {
        command: Command = Key::new("command").kept_in_json(),
        /// Only for `pre_start`: the image of the step's own container.
        image: String = Key::new("image"),
        user: String = Key::new("user"),
        privileged: bool = Key::new("privileged"),
        working_dir: String = Key::new("working_dir"),
        environment: Environment = Key::new("environment"),
        /// Only for `pre_start`.
        per_replica: bool = Key::new("per_replica"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}
