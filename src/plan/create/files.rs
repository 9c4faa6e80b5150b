//! Secrets and configs: files of the host are mounted, texts and variables are copied into the container before it
//! starts.

use super::CreateError;
use crate::model::{BindOptions, FileReference, Mount, Project, Service};

/// Which of the two it is; they differ in where they appear by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Secret,
    Config,
}

/// A text that becomes a file in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    pub target: String,
    pub content: String,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
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
                content: &secret.content,
                external: secret.external,
                driver: &secret.driver,
                template_driver: &secret.template_driver,
            }),
            Self::Config => project.configs.get(key).map(|config| Source {
                name: &config.name,
                file: &config.file,
                environment: &config.environment,
                content: &config.content,
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
        if !reference.uid.is_empty() || !reference.gid.is_empty() || reference.mode.is_some() {
            let plural = match kind {
                Kind::Secret => "secrets",
                Kind::Config => "config",
            };
            warnings.push(format!(
                "{plural} `uid`, `gid` and `mode` are not supported, they will be ignored"
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

/// Returns the files that are copied into the service's containers.
pub fn copied(project: &Project, service: &Service, kind: Kind) -> Result<Vec<Copied>, CreateError> {
    let mut files = Vec::new();
    for reference in kind.references(service) {
        let Some(source) = kind.source(project, &reference.source) else {
            continue;
        };
        let content = if !source.content.is_empty() {
            source.content
        } else if !source.environment.is_empty() {
            project
                .environment
                .get(source.environment)
                .ok_or_else(|| CreateError::Unset {
                    variable: source.environment.to_owned(),
                    kind: kind.name(),
                    name: source.name.to_owned(),
                })?
        } else {
            continue;
        };
        if content.is_empty() {
            continue;
        }
        if service.read_only {
            return Err(CreateError::ReadOnly {
                kind: kind.name(),
                name: source.name.to_owned(),
                service: service.name.clone(),
            });
        }
        files.push(Copied {
            target: kind.target(reference),
            content: content.to_owned(),
            mode: reference
                .mode
                .and_then(|mode| u32::try_from(mode.0).ok())
                .unwrap_or(0o444),
            uid: reference.uid.parse().unwrap_or(0),
            gid: reference.gid.parse().unwrap_or(0),
        });
    }
    Ok(files)
}

/// Packs the files for the engine to unpack at the container's root.
pub fn archive(files: &[Copied]) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs());
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.content.len() as u64);
        header.set_mode(file.mode);
        header.set_uid(file.uid);
        header.set_gid(file.gid);
        header.set_mtime(now);
        builder.append_data(
            &mut header,
            file.target.trim_start_matches('/'),
            file.content.as_bytes(),
        )?;
    }
    builder.into_inner()
}
