//! The labels that tie containers, networks, volumes and images to their project: docker compose's own, so that
//! either tool finds what the other made.

/// The project's name.
pub const PROJECT: &str = "com.docker.compose.project";
/// The service's name.
pub const SERVICE: &str = "com.docker.compose.service";
/// The number of a replica, from 1; one-off containers have none.
pub const CONTAINER_NUMBER: &str = "com.docker.compose.container-number";
/// `True` for containers made by `run`.
pub const ONE_OFF: &str = "com.docker.compose.oneoff";
/// What a container that runs a step around another one's life runs: `pre_start`.
pub const HOOK: &str = "com.docker.compose.hook";
/// What tells one-off containers apart.
pub const SLUG: &str = "com.docker.compose.slug";
/// The digest of the configuration a resource was made with.
pub const CONFIG_HASH: &str = "com.docker.compose.config-hash";
/// The image the container was made from, by digest.
pub const IMAGE_DIGEST: &str = "com.docker.compose.image";
/// Which builder made the image.
pub const IMAGE_BUILDER: &str = "com.docker.compose.image.builder";
/// What the service depends on: `db:service_healthy:false,…`.
pub const DEPENDS_ON: &str = "com.docker.compose.depends_on";
/// The version of the tool that made it.
pub const VERSION: &str = "com.docker.compose.version";
/// The project directory.
pub const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
/// The Compose files, comma-separated.
pub const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
/// The files given with `--env-file`.
pub const ENVIRONMENT_FILE: &str = "com.docker.compose.project.environment_file";
/// The container this one replaces, while it does.
pub const REPLACE: &str = "com.docker.compose.replace";
/// The network's key in the Compose file.
pub const NETWORK: &str = "com.docker.compose.network";
/// The volume's key in the Compose file.
pub const VOLUME: &str = "com.docker.compose.volume";

/// The version of docker compose whose behaviour, output and labels these are. Scripts and tools that ask
/// `compose version` compare it with what they need; our own version is the package's.
pub const COMPATIBLE_VERSION: &str = "2.40.3";
