//! Who we are to a registry: Docker's and Podman's auth files, credential helpers included.

use docker_credential::{CredentialRetrievalError, DockerCredential};

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
    // Old versions of Docker wrote it so.
    servers.push(format!("https://{host}"));
    let mut problem = None;
    for server in &servers {
        for look in [
            docker_credential::get_podman_credential,
            docker_credential::get_credential,
        ] {
            match look(server) {
                Ok(DockerCredential::UsernamePassword(username, password)) => {
                    return Found {
                        login: Some(Login::Password { username, password }),
                        problem: None,
                    };
                }
                Ok(DockerCredential::IdentityToken(token)) => {
                    return Found {
                        login: Some(Login::Identity(token)),
                        problem: None,
                    };
                }
                Err(CredentialRetrievalError::ConfigNotFound | CredentialRetrievalError::ConfigReadError) => {}
                Err(CredentialRetrievalError::NoCredentialConfigured) => {}
                // Helpers say so when they have nothing for this name.
                Err(CredentialRetrievalError::HelperFailure { stdout, .. })
                    if stdout.contains("credentials not found") => {}
                Err(error) => {
                    tracing::debug!(registry = host, %error, "no login from the auth file");
                    problem.get_or_insert_with(|| describe(&error));
                }
            }
        }
    }
    Found { login: None, problem }
}

fn describe(error: &CredentialRetrievalError) -> String {
    match error {
        CredentialRetrievalError::HelperFailure { helper, stdout, stderr } => {
            let said = [stdout.trim(), stderr.trim()].into_iter().find(|text| !text.is_empty());
            format!(
                "the credential helper {helper} failed: {}",
                said.unwrap_or("it says nothing")
            )
        }
        CredentialRetrievalError::HelperCommunicationError => {
            "the credential helper of the auth file cannot be run".to_owned()
        }
        other => other.to_string(),
    }
}
