//! The files in which Docker and Podman keep logins, and the helpers that such a file may name instead.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::credentials::Login;

/// Why there may be a login that could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum AuthFileError {
    #[error("{path:?} cannot be read: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path:?} is no auth file: {source}")]
    Document { path: PathBuf, source: serde_json::Error },
    #[error("the auth of {server} in {path:?} is not \"user:password\" in base64")]
    Auth { path: PathBuf, server: String },
    #[error("the credential helper {program}, which {path:?} names, cannot be run: {source}")]
    Run {
        path: PathBuf,
        program: String,
        source: io::Error,
    },
    #[error("the credential helper {program} failed: {said}")]
    Helper { program: String, said: String },
}

/// What one file says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AuthFile {
    #[serde(skip)]
    path: PathBuf,
    auths: BTreeMap<String, Entry>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Returns where this user's files may lie, the first to be asked first.
pub(super) fn places(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let variable = |name: &str| variable(name).filter(|path| !path.as_os_str().is_empty());
    let mut places = Vec::new();
    match variable("REGISTRY_AUTH_FILE") {
        Some(file) => places.push(file),
        None => {
            places.extend(variable("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json")));
            let config = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
            places.extend(config.map(|directory| directory.join("containers/auth.json")));
        }
    }
    let docker = variable("DOCKER_CONFIG").or_else(|| variable("HOME").map(|home| home.join(".docker")));
    places.extend(docker.map(|directory| directory.join("config.json")));
    places
}

impl AuthFile {
    /// Reads a file; one that is not there says nothing.
    pub(super) fn read(path: &Path) -> Result<Self, AuthFileError> {
        let bytes = match std::fs::read(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            other => other.map_err(|source| AuthFileError::Read {
                path: path.to_owned(),
                source,
            })?,
        };
        let file: Self = serde_json::from_slice(&bytes).map_err(|source| AuthFileError::Document {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            ..file
        })
    }

    /// Returns the registries that are named.
    pub(super) fn registries(&self) -> Vec<String> {
        let keys = self.auths.keys().chain(self.cred_helpers.keys());
        keys.map(|key| match registry(key) {
            "index.docker.io" => "docker.io".to_owned(),
            host => host.to_owned(),
        })
        .collect()
    }

    /// Finds the login for the first of these names that has one; the last is the registry's own. May run a helper.
    pub(super) fn login(&self, servers: &[String]) -> Result<Option<Login>, AuthFileError> {
        for server in servers {
            if let Some(helper) = self.cred_helpers.get(server).filter(|helper| !helper.is_empty())
                && let Some(login) = self.ask(helper, server)?
            {
                return Ok(Some(login));
            }
            if let Some(login) = self.entry(server)? {
                return Ok(Some(login));
            }
        }
        match servers.last() {
            Some(server) if !self.creds_store.is_empty() => self.ask(&self.creds_store, server),
            _ => Ok(None),
        }
    }

    fn entry(&self, server: &str) -> Result<Option<Login>, AuthFileError> {
        let same = |(key, _): &(&String, &Entry)| registry(key) == registry(server);
        let exact = self.auths.get_key_value(server);
        let Some((server, entry)) = exact.or_else(|| self.auths.iter().find(same)) else {
            return Ok(None);
        };
        if !entry.registrytoken.is_empty() {
            return Ok(Some(Login::Token(entry.registrytoken.clone())));
        }
        if !entry.identitytoken.is_empty() {
            return Ok(Some(Login::Identity(entry.identitytoken.clone())));
        }
        let (username, password) = match entry.auth.as_str() {
            "" => (entry.username.clone(), entry.password.clone()),
            auth => decode(auth).ok_or_else(|| AuthFileError::Auth {
                path: self.path.clone(),
                server: server.clone(),
            })?,
        };
        // Where a helper has the login, the file says only that there is one.
        Ok((!username.is_empty()).then_some(Login::Password { username, password }))
    }

    fn ask(&self, helper: &str, server: &str) -> Result<Option<Login>, AuthFileError> {
        let program = format!("docker-credential-{helper}");
        let cannot_run = |source| AuthFileError::Run {
            path: self.path.clone(),
            program: program.clone(),
            source,
        };
        let mut process = Command::new(&program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(cannot_run)?;
        if let Some(mut stdin) = process.stdin.take() {
            // One that does not listen says why not, on its own output.
            let _ = stdin.write_all(server.as_bytes());
        }
        let output = process.wait_with_output().map_err(cannot_run)?;
        let failed = |said: &str| AuthFileError::Helper {
            program: program.clone(),
            said: said.to_owned(),
        };
        let texts = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
        if !output.status.success() {
            // That is how helpers say that they have none for this name.
            if texts[0].contains("credentials not found") {
                return Ok(None);
            }
            let said = texts.iter().find(|text| !text.is_empty());
            return Err(failed(said.map_or("it says nothing", String::as_str)));
        }
        // What it printed is not repeated: it may be a secret all the same.
        let answer: Answer =
            serde_json::from_slice(&output.stdout).map_err(|_| failed("its answer has no Username and Secret"))?;
        Ok(match answer.username.as_str() {
            "" => None,
            "<token>" => Some(Login::Identity(answer.secret)),
            _ => Some(Login::Password {
                username: answer.username,
                password: answer.secret,
            }),
        })
    }
}

fn decode(auth: &str) -> Option<(String, String)> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&STANDARD, config).decode(auth.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// Returns the registry that a key of `auths` is for: keys of old have a scheme and a path.
fn registry(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let name = bare.map_or(key, |bare| bare.split('/').next().unwrap_or(bare));
    match name {
        "docker.io" | "registry-1.docker.io" => "index.docker.io",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> AuthFile {
        serde_json::from_str(text).unwrap()
    }

    fn password(username: &str, password: &str) -> Option<Login> {
        Some(Login::Password {
            username: username.to_owned(),
            password: password.to_owned(),
        })
    }

    #[test]
    fn a_login_is_found_however_its_key_is_written() {
        // "a:b:c", with and without what fills it up.
        for (key, server) in [
            ("registry.example", "registry.example"),
            ("https://registry.example", "registry.example"),
            ("https://registry.example/v1/", "registry.example"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "https://index.docker.io/v1/"),
        ] {
            for auth in ["YTpiOmM=", "YTpiOmM"] {
                let file = file(&format!(r#"{{"auths": {{"{key}": {{"auth": "{auth}"}}}}}}"#));
                assert_eq!(file.login(&[server.to_owned()]).unwrap(), password("a", "b:c"), "{key}");
            }
        }
        let file = file(r#"{"auths": {"registry.example/team": {"username": "a", "password": "b"}}}"#);
        let servers = ["registry.example/team/app", "registry.example/team", "registry.example"].map(str::to_owned);
        assert_eq!(file.login(&servers).unwrap(), password("a", "b"));
        assert_eq!(file.login(&servers[2..]).unwrap(), None);
    }

    #[test]
    fn an_entry_without_a_secret_is_no_login_and_a_damaged_one_is_named() {
        let servers = ["registry.example".to_owned()];
        assert_eq!(
            file(r#"{"auths": {"registry.example": {}}}"#).login(&servers).unwrap(),
            None
        );
        let token = file(r#"{"auths": {"registry.example": {"auth": "YTo=", "identitytoken": "t"}}}"#);
        assert_eq!(token.login(&servers).unwrap(), Some(Login::Identity("t".to_owned())));
        let damaged = file(r#"{"auths": {"registry.example": {"auth": "%"}}}"#).login(&servers);
        assert!(
            damaged
                .unwrap_err()
                .to_string()
                .starts_with("the auth of registry.example")
        );
    }

    #[test]
    fn podmans_files_are_asked_before_dockers() {
        let home = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/me"));
        assert_eq!(
            places(home),
            ["/home/me/.config/containers/auth.json", "/home/me/.docker/config.json"].map(PathBuf::from)
        );
        let all = |name: &str| Some(PathBuf::from(format!("/{name}")));
        assert_eq!(
            places(all),
            ["/REGISTRY_AUTH_FILE", "/DOCKER_CONFIG/config.json"].map(PathBuf::from)
        );
    }
}
