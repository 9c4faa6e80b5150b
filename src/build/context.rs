//! A build's context as a tar archive: what the engine gets of the directory that an image is built from.

use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::ignore::{Ignore, PatternError};

/// Why a context cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    #[error("unable to prepare context: path {} not found", .0.display())]
    NotFound(PathBuf),
    #[error("unable to prepare context: {} is no directory", .0.display())]
    NotDirectory(PathBuf),
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}: {source}", path.display())]
    Pattern {
        path: PathBuf,
        #[source]
        source: PatternError,
    },
    #[error("cannot send the build context")]
    Write(#[source] io::Error),
}

/// Who owns a file in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Root,
    AsHere,
}

/// What to pack.
#[derive(Debug, Clone)]
pub struct Context {
    pub directory: PathBuf,
    /// The Dockerfile, relative to the directory or absolute.
    pub dockerfile: PathBuf,
    /// The Dockerfile's text, in place of a file.
    pub inline: Option<String>,
}

/// The name under which a Dockerfile travels that is not in the context.
const FOREIGN_DOCKERFILE: &str = ".dockerfile.from-outside";

impl Context {
    /// Returns the Dockerfile's name in the archive.
    pub fn dockerfile_name(&self) -> String {
        match self.inside() {
            Some(path) => path,
            None => FOREIGN_DOCKERFILE.to_owned(),
        }
    }

    /// Returns the Dockerfile's text; one that cannot be read is told of by who builds.
    pub fn text(&self) -> String {
        let read = || std::fs::read_to_string(self.directory.join(&self.dockerfile)).unwrap_or_default();
        self.inline.clone().unwrap_or_else(read)
    }

    /// Returns the Dockerfile's path relative to the context, if it lies in it.
    fn inside(&self) -> Option<String> {
        if self.inline.is_some() {
            return None;
        }
        let path = self.directory.join(&self.dockerfile);
        let path = path.canonicalize().unwrap_or(path);
        let directory = self.directory.canonicalize().ok()?;
        Some(path.strip_prefix(directory).ok()?.to_str()?.to_owned())
    }

    /// Reads what the engine is not sent.
    fn ignore(&self) -> Result<Ignore, ContextError> {
        let mut ignore = self.ignore_file()?;
        // The engine reads both, whatever they say about themselves.
        ignore.always_include(".dockerignore");
        ignore.always_include(&self.dockerfile_name());
        Ok(ignore)
    }

    /// Returns where an ignore file may be; the first that there is counts.
    pub fn ignore_files(&self) -> [PathBuf; 2] {
        let mut own = self.directory.join(&self.dockerfile).into_os_string();
        own.push(".dockerignore");
        [PathBuf::from(own), self.directory.join(".dockerignore")]
    }

    /// Reads the ignore file: the Dockerfile's own, else the directory's.
    pub fn ignore_file(&self) -> Result<Ignore, ContextError> {
        for path in self.ignore_files() {
            match std::fs::read_to_string(&path) {
                Ok(text) => {
                    return Ignore::parse(&text).map_err(|source| ContextError::Pattern { path, source });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(ContextError::Read { path, source }),
            }
        }
        Ok(Ignore::default())
    }

    /// Checks what can be checked before anything is sent.
    pub fn check(&self) -> Result<(), ContextError> {
        match std::fs::metadata(&self.directory) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(ContextError::NotDirectory(self.directory.clone())),
            Err(_) => return Err(ContextError::NotFound(self.directory.clone())),
        }
        if self.inline.is_none() {
            let path = self.directory.join(&self.dockerfile);
            std::fs::metadata(&path).map_err(|source| ContextError::Read { path, source })?;
        }
        self.ignore().map(|_| ())
    }

    /// Writes the archive.
    pub fn pack(&self, output: impl Write) -> Result<(), ContextError> {
        let ignore = self.ignore()?;
        let mut archive = tar::Builder::new(output);
        archive.follow_symlinks(false);
        let mut pending = vec![String::new()];
        while let Some(directory) = pending.pop() {
            let path = self.directory.join(&directory);
            for name in sorted_names(&path)? {
                let relative = match directory.as_str() {
                    "" => name,
                    directory => format!("{directory}/{name}"),
                };
                let path = self.directory.join(&relative);
                let metadata = match std::fs::symlink_metadata(&path) {
                    Ok(metadata) => metadata,
                    // It went while the directory was read.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(source) => return Err(ContextError::Read { path, source }),
                };
                if metadata.is_dir() && !ignore.excludes_all_below(&relative) {
                    pending.push(relative.clone());
                }
                if !ignore.excludes(&relative) {
                    append(&mut archive, &path, &relative, &metadata, Owner::Root)?;
                }
            }
        }
        if self.inside().is_none() {
            self.append_dockerfile(&mut archive)?;
        }
        archive
            .into_inner()
            .and_then(|mut output| output.flush())
            .map_err(ContextError::Write)
    }

    fn append_dockerfile(&self, archive: &mut tar::Builder<impl Write>) -> Result<(), ContextError> {
        let text = match &self.inline {
            Some(text) => text.clone().into_bytes(),
            None => {
                let path = self.directory.join(&self.dockerfile);
                std::fs::read(&path).map_err(|source| ContextError::Read { path, source })?
            }
        };
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        archive
            .append_data(&mut header, FOREIGN_DOCKERFILE, text.as_slice())
            .map_err(ContextError::Write)
    }
}

/// Returns the names in a directory, sorted so that the same context makes the same archive.
pub fn sorted_names(path: &Path) -> Result<Vec<String>, ContextError> {
    let failed = |source| ContextError::Read {
        path: path.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        // Names that are no text cannot be named by a Dockerfile either.
        if let Ok(name) = name.into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Adds a file, as root's or as its owner's; a directory without what is in it.
pub fn append(
    archive: &mut tar::Builder<impl Write>,
    path: &Path,
    name: &str,
    metadata: &std::fs::Metadata,
    owner: Owner,
) -> Result<(), ContextError> {
    let read = |source| ContextError::Read {
        path: path.to_owned(),
        source,
    };
    let kind = metadata.file_type();
    if kind.is_socket() {
        return Ok(());
    }
    let mut header = tar::Header::new_gnu();
    header.set_metadata(metadata);
    if owner == Owner::Root {
        header.set_uid(0);
        header.set_gid(0);
    }
    let written = if kind.is_symlink() {
        let target = std::fs::read_link(path).map_err(read)?;
        header.set_size(0);
        archive.append_link(&mut header, name, target)
    } else if kind.is_file() {
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(read(error)),
        };
        // The header has said how long the file is, so it must be that long, even if it grows or shrinks meanwhile.
        let padded = file.take(metadata.len()).chain(io::repeat(0)).take(metadata.len());
        archive.append_data(&mut header, name, padded)
    } else if kind.is_dir() {
        header.set_size(0);
        archive.append_data(&mut header, format!("{name}/"), io::empty())
    } else {
        let device = metadata.rdev();
        let numbers = header
            .set_device_major(libc::major(device))
            .and_then(|()| header.set_device_minor(libc::minor(device)));
        header.set_size(0);
        numbers.and_then(|()| archive.append_data(&mut header, name, io::empty()))
    };
    written.map_err(ContextError::Write)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(files: &[(&str, &str)], dockerfile: &str, inline: Option<&str>) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let context = Context {
            directory: directory.path().to_owned(),
            dockerfile: dockerfile.into(),
            inline: inline.map(str::to_owned),
        };
        context.check().unwrap();
        let mut archive = Vec::new();
        context.pack(&mut archive).unwrap();
        let mut names: Vec<String> = tar::Archive::new(archive.as_slice())
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn ignored_files_stay_behind() {
        let files = [
            ("Dockerfile", "FROM scratch"),
            (".dockerignore", "*\n!src\nsrc/*.tmp"),
            ("src/a.rs", ""),
            ("src/b.tmp", ""),
            ("target/x", ""),
        ];
        assert_eq!(
            packed(&files, "Dockerfile", None),
            [".dockerignore", "Dockerfile", "src/", "src/a.rs"]
        );
    }

    #[test]
    fn an_inline_dockerfile_comes_along() {
        assert_eq!(
            packed(&[("a", "")], "Dockerfile", Some("FROM scratch")),
            [FOREIGN_DOCKERFILE, "a"]
        );
    }

    #[test]
    fn a_dockerfile_may_have_an_ignore_file_of_its_own() {
        let files = [
            ("docker/Web", "FROM scratch"),
            ("docker/Web.dockerignore", "b"),
            (".dockerignore", "a"),
            ("a", ""),
            ("b", ""),
        ];
        assert_eq!(
            packed(&files, "docker/Web", None),
            [".dockerignore", "a", "docker/", "docker/Web", "docker/Web.dockerignore"]
        );
    }
}
