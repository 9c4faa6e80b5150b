//! Who we are to a registry: Docker's and Podman's auth files, credential helpers included.

use std::path::PathBuf;

use super::auth_file::{self, AuthFile};
use crate::image::Reference;

/// Who we are to one registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    Password {
        username: String,
        password: String,
    },
    /// What `docker login` was given instead of a password: it buys tokens.
    Identity(String),
    /// A token as requests carry it.
    Token(String),
}

// Never the secret itself, in no log.
impl std::fmt::Debug for Login {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Login(…)")
    }
}

/// What the auth files have for a registry.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub login: Option<Login>,
    /// Why there might be one that could not be read: worth telling when the registry then refuses.
    pub problem: Option<String>,
}

/// Finds the login for a registry in the auth files, or goes without. Reads files and may run a helper: not for async code.
pub(super) fn find(host: &str, reference: &Reference) -> Found {
    let servers = servers(host, reference);
    let mut problem = None;
    for place in auth_file::places(|name| std::env::var_os(name).map(PathBuf::from)) {
        match AuthFile::read(&place).and_then(|file| file.login(&servers)) {
            Ok(None) => {}
            Ok(login) => return Found { login, problem: None },
            Err(error) => {
                tracing::debug!(registry = host, %error, "no login from the auth file");
                problem.get_or_insert_with(|| error.to_string());
            }
        }
    }
    Found { login: None, problem }
}

/// Finds the login that pulling and pushing an image takes, for an engine that does not look for itself.
pub fn login_for(reference: &Reference) -> Option<Login> {
    find(reference.domain(), reference).login
}

/// Returns the registries that the auth files have something for. Whether it is a login is not looked at.
pub fn known_registries() -> Vec<String> {
    let places = auth_file::places(|name| std::env::var_os(name).map(PathBuf::from));
    let files = places.iter().filter_map(|place| AuthFile::read(place).ok());
    files.flat_map(|file| file.registries()).collect()
}

/// Returns the names under which a login may be kept, the narrowest first and what helpers know it by last.
fn servers(host: &str, reference: &Reference) -> Vec<String> {
    let is_hub = matches!(host, "registry-1.docker.io" | "docker.io" | "index.docker.io");
    let host = if is_hub { "docker.io" } else { host };
    // Podman lets a login be for a part of a registry.
    let path = reference.path();
    let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
    let mut servers: Vec<String> = ends.map(|end| format!("{host}/{}", &path[..end])).collect();
    servers.reverse();
    servers.push(host.to_owned());
    if is_hub {
        servers.push("https://index.docker.io/v1/".to_owned());
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_login_is_looked_for_first() {
        let reference = |text| Reference::parse(text).unwrap();
        let of = |host, text| servers(host, &reference(text));
        assert_eq!(
            of("r.example:5000", "r.example:5000/a/b:1"),
            ["r.example:5000/a/b", "r.example:5000/a", "r.example:5000"]
        );
        assert_eq!(
            of("registry-1.docker.io", "busybox"),
            [
                "docker.io/library/busybox",
                "docker.io/library",
                "docker.io",
                "https://index.docker.io/v1/"
            ]
        );
    }
}
