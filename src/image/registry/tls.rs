//! Certificates for a registry: whose signature to believe, and who we are to it.
//!
//! Read from where Docker and Podman look, `certs.d/HOST:PORT/` in several places: every `*.crt` is an authority, and a `*.cert` with
//! the `*.key` of the same name is what we show. See <https://docs.docker.com/engine/security/certificates/>.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use reqwest::{Certificate, ClientBuilder, Identity};

use super::settings;

/// Why a registry's certificates are of no use.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds no certificate that can be read", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: reqwest::Error,
    },
    // moby registry/registry.go: loadTLSConfig
    #[error("missing key {key} for client certificate {certificate}. CA certificates must use the extension .crt")]
    MissingKey { key: String, certificate: String },
    #[error("missing client certificate {certificate} for key {key}")]
    MissingCertificate { certificate: String, key: String },
}

/// The files that apply to one registry.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    authorities: Vec<Certificate>,
    identity: Option<Identity>,
}

impl Certificates {
    /// Reads those of a registry (`host` or `host:port`).
    pub(super) fn of(host: &str) -> Result<Self, CertificateError> {
        let mut found = Self::default();
        for directory in directories() {
            found.add(&directory.join(host))?;
        }
        Ok(found)
    }

    fn add(&mut self, directory: &Path) -> Result<(), CertificateError> {
        let reading = |path: &Path| {
            let path = path.to_owned();
            move |source| CertificateError::Read { path, source }
        };
        let parsing = |path: &Path| {
            let path = path.to_owned();
            move |source| CertificateError::Parse { path, source }
        };
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(error) => return Err(reading(directory)(error)),
        };
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .map_err(reading(directory))?;
        paths.sort();
        let file_name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for path in &paths {
            match path.extension().and_then(OsStr::to_str) {
                Some("crt") => {
                    let pem = fs::read(path).map_err(reading(path))?;
                    let all = Certificate::from_pem_bundle(&pem).map_err(parsing(path))?;
                    self.authorities.extend(all);
                }
                Some("cert") => {
                    let key = path.with_extension("key");
                    if !key.is_file() {
                        return Err(CertificateError::MissingKey {
                            key: file_name(&key),
                            certificate: file_name(path),
                        });
                    }
                    let mut pem = fs::read(path).map_err(reading(path))?;
                    pem.push(b'\n');
                    pem.extend(fs::read(&key).map_err(reading(&key))?);
                    // The first one found is the one to show: a connection has one identity.
                    let identity = Identity::from_pem(&pem).map_err(parsing(path))?;
                    self.identity.get_or_insert(identity);
                }
                Some("key") if !path.with_extension("cert").is_file() => {
                    return Err(CertificateError::MissingCertificate {
                        certificate: file_name(&path.with_extension("cert")),
                        key: file_name(path),
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Returns whether somebody said whose signature to believe; then nothing less will do.
    pub(super) fn has_authorities(&self) -> bool {
        !self.authorities.is_empty()
    }

    pub(super) fn apply(&self, builder: ClientBuilder) -> ClientBuilder {
        let builder = builder.tls_certs_merge(self.authorities.iter().cloned());
        match &self.identity {
            Some(identity) => builder.identity(identity.clone()),
            None => builder,
        }
    }
}

/// Returns where such directories are, ours first.
fn directories() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let users = home.map(|home| Path::new(&home).join(".config/containers"));
    settings::config_directories(settings::variable)
        .into_iter()
        .chain(users)
        .chain(["/etc/docker", "/etc/containers"].map(PathBuf::from))
        .map(|directory| directory.join("certs.d"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_an_identity_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let there = |name: &str| fs::write(directory.path().join(name), "").unwrap();
        let problem = || Certificates::default().add(directory.path()).unwrap_err().to_string();
        there("client.cert");
        assert_eq!(
            problem(),
            "missing key client.key for client certificate client.cert. CA certificates must use the extension .crt"
        );
        fs::remove_file(directory.path().join("client.cert")).unwrap();
        there("client.key");
        assert_eq!(problem(), "missing client certificate client.cert for key client.key");
        let nowhere = directory.path().join("no-such-registry:5000");
        assert!(Certificates::default().add(&nowhere).is_ok());
    }
}
