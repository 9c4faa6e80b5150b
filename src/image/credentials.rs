//! Who we are to a registry: Docker's and Podman's auth files, credential helpers included.

use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::secrets::RegistryAuth;

use super::reference::Reference;

/// What a client sent along as its login for one registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    Password { username: String, password: String },
    Token(String),
}

// Never the secret itself, in no log.
impl std::fmt::Debug for Login {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Login(…)")
    }
}

impl Login {
    pub(super) fn to_auth(&self) -> RegistryAuth {
        match self {
            Self::Password { username, password } => RegistryAuth::Basic(username.clone(), password.clone()),
            Self::Token(token) => RegistryAuth::Bearer(token.clone()),
        }
    }
}

/// Finds the login for a registry in the auth files, or goes without. Reads files and may run a helper: not for async code.
pub(super) fn find(host: &str, reference: &Reference) -> RegistryAuth {
    let hub = matches!(host, "registry-1.docker.io" | "docker.io" | "index.docker.io");
    let mut servers = Vec::new();
    if hub {
        servers.extend(["https://index.docker.io/v1/".to_owned(), "docker.io".to_owned()]);
    }
    // Podman lets a login be for a part of a registry.
    let mut path = reference.path();
    loop {
        servers.push(format!("{}/{path}", if hub { "docker.io" } else { host }));
        match path.rsplit_once('/') {
            Some((above, _)) => path = above,
            None => break,
        }
    }
    servers.push(host.to_owned());
    for server in &servers {
        for look in [
            docker_credential::get_podman_credential,
            docker_credential::get_credential,
        ] {
            match look(server) {
                Ok(DockerCredential::UsernamePassword(username, password)) => {
                    return RegistryAuth::Basic(username, password);
                }
                // The name that registries know an identity token by.
                Ok(DockerCredential::IdentityToken(token)) => {
                    return RegistryAuth::Basic("<token>".to_owned(), token);
                }
                Err(CredentialRetrievalError::ConfigNotFound | CredentialRetrievalError::ConfigReadError) => {}
                Err(CredentialRetrievalError::NoCredentialConfigured) => {}
                Err(error) => tracing::debug!(registry = host, %error, "no login from the auth file"),
            }
        }
    }
    RegistryAuth::Anonymous
}
