//! Secrets and configs: files of the host are mounted, texts and variables are copied into the container before it
//! starts.

use std::path::PathBuf;

use super::CreateError;
use crate::model::{BindOptions, FileReference, Mount, Project, Service};

/// Which of the two it is; they differ in where they appear by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Secret,
    Config,
}

/// What becomes a file in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    pub target: String,
    pub content: Content,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
}

/// Where a file's content comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Text(String),
    /// A file of the host, that is to have another owner or mode inside.
    File(PathBuf),
}

/// What the project says about a secret or config.
struct Source<'p> {
    name: &'p str,
    file: &'p str,
    environment: &'p str,
    content: &'p str,
    external: bool,
    driver: &'p str,
    template_driver: &'p str,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }

    fn references(self, service: &Service) -> &[FileReference] {
        match self {
            Self::Secret => &service.secrets,
            Self::Config => &service.configs,
        }
    }

    fn source<'p>(self, project: &'p Project, key: &str) -> Option<Source<'p>> {
        match self {
            Self::Secret => project.secrets.get(key).map(|secret| Source {
                name: &secret.name,
                file: &secret.file,
                environment: &secret.environment,
                content: &secret.from_environment,
                external: secret.external,
                driver: &secret.driver,
                template_driver: &secret.template_driver,
            }),
            Self::Config => project.configs.get(key).map(|config| Source {
                name: &config.name,
                file: &config.file,
                environment: &config.environment,
                content: match config.environment.as_str() {
                    "" => &config.content,
                    _ => &config.from_environment,
                },
                external: config.external,
                driver: &config.driver,
                template_driver: &config.template_driver,
            }),
        }
    }

    /// Returns where the file appears in the container.
    fn target(self, reference: &FileReference) -> String {
        let directory = match self {
            Self::Secret => "/run/secrets/",
            Self::Config => "/",
        };
        match reference.target.as_str() {
            "" => format!("{directory}{}", reference.source),
            target if target.starts_with('/') => target.to_owned(),
            target => format!("{directory}{target}"),
        }
    }
}

/// Returns the mounts of those that are files of the host.
pub(super) fn mounted(
    project: &Project,
    service: &Service,
    kind: Kind,
    warnings: &mut Vec<String>,
) -> Result<Vec<Mount>, CreateError> {
    let mut mounts = Vec::new();
    for reference in kind.references(service) {
        let Some(source) = kind.source(project, &reference.source) else {
            continue;
        };
        if source.external {
            return Err(CreateError::External {
                kind: kind.name(),
                name: source.name.to_owned(),
            });
        }
        for (attribute, is_set) in [
            ("driver", !source.driver.is_empty()),
            ("template_driver", !source.template_driver.is_empty()),
        ] {
            if is_set {
                return Err(CreateError::Unsupported {
                    kind: kind.name(),
                    attribute,
                });
            }
        }
        if !source.environment.is_empty() || !source.content.is_empty() {
            continue;
        }
        if has_owner(reference) {
            if is_copied(service, source.file) {
                continue;
            }
            let plural = match kind {
                Kind::Secret => "secrets",
                Kind::Config => "config",
            };
            warnings.push(format!(
                "{plural} `uid`, `gid` and `mode` are not supported for directories and in read-only services, they \
                 will be ignored"
            ));
        }
        if kind == Kind::Secret && !std::path::Path::new(source.file).exists() {
            warnings.push(format!("secret file {} does not exist", source.name));
        }
        mounts.push(Mount {
            r#type: "bind".to_owned(),
            source: source.file.to_owned(),
            target: kind.target(reference),
            read_only: true,
            // A directory made in the place of a missing secret would help nobody.
            bind: (kind == Kind::Secret).then(BindOptions::default),
            ..Mount::default()
        });
    }
    Ok(mounts)
}

fn has_owner(reference: &FileReference) -> bool {
    !reference.uid.is_empty() || !reference.gid.is_empty() || reference.mode.is_some()
}

/// Returns whether a file of the host is copied rather than mounted, so that its owner and mode can be others. Nothing
/// can be copied into a container that is read-only.
fn is_copied(service: &Service, file: &str) -> bool {
    !service.read_only && std::path::Path::new(file).is_file()
}

/// Returns the files that are copied into the service's containers.
pub fn copied(project: &Project, service: &Service, kind: Kind) -> Result<Vec<Copied>, CreateError> {
    let mut files = Vec::new();
    for reference in kind.references(service) {
        let Some(source) = kind.source(project, &reference.source) else {
            continue;
        };
        let text = if !source.content.is_empty() {
            Some(source.content)
        } else if !source.environment.is_empty() {
            let value = project
                .environment
                .get(source.environment)
                .ok_or_else(|| CreateError::Unset {
                    variable: source.environment.to_owned(),
                    kind: kind.name(),
                    name: source.name.to_owned(),
                })?;
            Some(value.as_str())
        } else {
            None
        };
        let content = match text {
            Some("") => continue,
            Some(text) => Content::Text(text.to_owned()),
            None if has_owner(reference) && is_copied(service, source.file) => Content::File(source.file.into()),
            None => continue,
        };
        if service.read_only {
            return Err(CreateError::ReadOnly {
                kind: kind.name(),
                name: source.name.to_owned(),
                service: service.name.clone(),
            });
        }
        files.push(Copied {
            target: kind.target(reference),
            content,
            mode: reference
                .mode
                .and_then(|mode| u32::try_from(mode.0).ok())
                .unwrap_or(0o444),
            uid: owner(kind, reference, "uid", &reference.uid)?,
            gid: owner(kind, reference, "gid", &reference.gid)?,
        });
    }
    Ok(files)
}

fn owner(kind: Kind, reference: &FileReference, attribute: &'static str, text: &str) -> Result<u64, CreateError> {
    match text {
        "" => Ok(0),
        text => text.parse().map_err(|_| CreateError::Owner {
            kind: kind.name(),
            name: reference.source.clone(),
            attribute,
            text: text.to_owned(),
        }),
    }
}

/// Packs the files for the engine to unpack at the container's root.
pub fn archive(files: &[Copied]) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs());
    for file in files {
        let content = match &file.content {
            Content::Text(text) => text.clone().into_bytes(),
            Content::File(path) => std::fs::read(path)?,
        };
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(file.mode);
        header.set_uid(file.uid);
        header.set_gid(file.gid);
        header.set_mtime(now);
        builder.append_data(&mut header, file.target.trim_start_matches('/'), content.as_slice())?;
    }
    builder.into_inner()
}
