//! Names of images: how `busybox` becomes `docker.io/library/busybox:latest`, and which names are not registry names at all.
//!
//! The grammar and the normalisation are those of <https://github.com/distribution/reference>, error texts included.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a text is no image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Identifier(String),
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    #[error("unsupported digest algorithm")]
    DigestAlgorithm,
    #[error("invalid checksum digest length")]
    DigestLength,
    #[error("{scheme}: names no path")]
    NoPath { scheme: &'static str },
}

/// A normalised registry name: always has a domain and a path; tag and digest as given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";

impl Reference {
    /// Parses a name as a person writes it (`busybox`, `ghcr.io/a/b:1@sha256:…`).
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if is_identifier(text) {
            return Err(ReferenceError::Identifier(text.to_owned()));
        }
        let (domain, remainder) = split_domain(text);
        let remote = remainder.split(':').next().unwrap_or_default();
        if remote.chars().any(char::is_uppercase) {
            return Err(ReferenceError::Uppercase(remote.to_owned()));
        }
        let (named, digest) = match remainder.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (remainder.as_str(), None),
        };
        let (path, tag) = match named.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (named, None),
        };
        if !is_domain(&domain) || !is_path(path) || !tag.is_none_or(is_tag) {
            return Err(ReferenceError::Format);
        }
        if let Some(digest) = digest {
            check_digest(digest)?;
        }
        if path.len() > 255 {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self {
            domain,
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// Returns the registry's host and port, `docker.io` where the name has none.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Returns the repository inside its registry (`library/busybox`).
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Returns the name without tag and digest (`docker.io/library/busybox`).
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Returns the name as people write it (`busybox`), without tag and digest.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// Returns the whole reference as people write it (`busybox:latest`).
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// Returns the tag that an engine looks for: the one given, or `latest` where there is neither tag nor digest.
    pub fn tag_or_latest(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag),
            (None, None) => Some("latest"),
            (None, Some(_)) => None,
        }
    }

    /// Returns the reference with `latest` where it has neither tag nor digest.
    pub fn tagged(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// Returns the same repository under another tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Format);
        }
        Ok(Self {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        })
    }

    /// Returns the same repository by digest alone.
    pub fn with_digest(&self, digest: &str) -> Result<Self, ReferenceError> {
        check_digest(digest)?;
        Ok(Self {
            tag: None,
            digest: Some(digest.to_owned()),
            ..self.clone()
        })
    }

    fn with_suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(digest);
        }
        name
    }
}

/// The full form: `docker.io/library/busybox:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.with_suffix(self.name()))
    }
}

/// Where an image comes from: what `image:` in a Compose file may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Registry(Reference),
    /// `docker-archive:PATH[:reference]`, what `docker save` writes.
    DockerArchive {
        path: PathBuf,
        reference: Option<Reference>,
    },
    /// `oci:PATH[:tag]`, a directory in the OCI image layout.
    Oci {
        path: PathBuf,
        tag: Option<String>,
    },
    /// `oci-archive:PATH[:tag]`, that layout in a tar.
    OciArchive {
        path: PathBuf,
        tag: Option<String>,
    },
    /// `rootfs:PATH`, a plain directory used copy-on-write.
    Rootfs(PathBuf),
}

impl Source {
    /// Parses an image name of any kind.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (path, reference) = path_and_suffix("docker-archive", rest)?;
            let reference = reference.map(Reference::parse).transpose()?.map(Reference::tagged);
            return Ok(Self::DockerArchive { path, reference });
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            let (path, tag) = path_and_suffix("oci-archive", rest)?;
            return Ok(Self::OciArchive {
                path,
                tag: tag.map(str::to_owned),
            });
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            let (path, tag) = path_and_suffix("oci", rest)?;
            return Ok(Self::Oci {
                path,
                tag: tag.map(str::to_owned),
            });
        }
        if let Some(rest) = text.strip_prefix("rootfs:") {
            if rest.is_empty() {
                return Err(ReferenceError::NoPath { scheme: "rootfs" });
            }
            return Ok(Self::Rootfs(PathBuf::from(rest)));
        }
        Reference::parse(text).map(|reference| Self::Registry(reference.tagged()))
    }

    /// Returns the same source with a relative path taken from `base`.
    pub fn absolute(self, base: &Path) -> Self {
        match self {
            Self::DockerArchive { path, reference } => Self::DockerArchive {
                path: base.join(path),
                reference,
            },
            Self::Oci { path, tag } => Self::Oci {
                path: base.join(path),
                tag,
            },
            Self::OciArchive { path, tag } => Self::OciArchive {
                path: base.join(path),
                tag,
            },
            Self::Rootfs(path) => Self::Rootfs(base.join(path)),
            Self::Registry(_) => self,
        }
    }

    /// Returns the file or directory of this machine that the image is read from, if it is one.
    pub fn local_path(&self) -> Option<&Path> {
        match self {
            Self::Registry(_) => None,
            Self::DockerArchive { path, .. }
            | Self::Oci { path, .. }
            | Self::OciArchive { path, .. }
            | Self::Rootfs(path) => Some(path),
        }
    }
}

/// The name to write into a Compose file for this source.
impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffixed = |formatter: &mut fmt::Formatter<'_>, scheme, path: &Path, suffix: Option<&str>| {
            write!(formatter, "{scheme}:{}", path.display())?;
            suffix.map_or(Ok(()), |suffix| write!(formatter, ":{suffix}"))
        };
        match self {
            Self::Registry(reference) => formatter.write_str(&reference.familiar()),
            Self::DockerArchive { path, reference } => {
                let reference = reference.as_ref().map(Reference::familiar);
                suffixed(formatter, "docker-archive", path, reference.as_deref())
            }
            Self::Oci { path, tag } => suffixed(formatter, "oci", path, tag.as_deref()),
            Self::OciArchive { path, tag } => suffixed(formatter, "oci-archive", path, tag.as_deref()),
            Self::Rootfs(path) => write!(formatter, "rootfs:{}", path.display()),
        }
    }
}

fn path_and_suffix<'t>(scheme: &'static str, rest: &'t str) -> Result<(PathBuf, Option<&'t str>), ReferenceError> {
    let (path, suffix) = match rest.split_once(':') {
        Some((path, suffix)) => (path, Some(suffix)),
        None => (rest, None),
    };
    if path.is_empty() {
        return Err(ReferenceError::NoPath { scheme });
    }
    Ok((PathBuf::from(path), suffix))
}

/// Splits off the registry: the part before the first slash, if it looks like a host.
fn split_domain(text: &str) -> (String, String) {
    let (domain, mut remainder) = match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.chars().any(char::is_uppercase) =>
        {
            (first.to_owned(), rest.to_owned())
        }
        _ => (DEFAULT_DOMAIN.to_owned(), text.to_owned()),
    };
    let domain = if domain == LEGACY_DEFAULT_DOMAIN {
        DEFAULT_DOMAIN.to_owned()
    } else {
        domain
    };
    if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
        remainder.insert_str(0, OFFICIAL_PREFIX);
    }
    (domain, remainder)
}

/// Returns whether the text is 64 hexadecimal digits, which is how images are identified, not named.
fn is_identifier(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = if let Some(rest) = domain.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
            return false;
        }
        (None, port.strip_prefix(':').or((!port.is_empty()).then_some("")))
    } else {
        match domain.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(domain), None),
        }
    };
    let is_component = |component: &str| {
        !component.is_empty()
            && component.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !component.starts_with('-')
            && !component.ends_with('-')
    };
    host.is_none_or(|host| host.split('.').all(is_component))
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

fn is_path(path: &str) -> bool {
    path.split('/').all(|component| {
        let bytes = component.as_bytes();
        let alphanumeric = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9');
        if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
            return false;
        }
        // Between two alphanumerics: one dot, one or two underscores, or any number of dashes.
        component
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
    })
}

fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    (1..=128).contains(&tag.len())
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn check_digest(digest: &str) -> Result<(), ReferenceError> {
    let (algorithm, encoded) = digest.split_once(':').ok_or(ReferenceError::Format)?;
    let algorithm_is_word = !algorithm.is_empty()
        && algorithm.split(['-', '_', '+', '.']).all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
        });
    if !algorithm_is_word || encoded.len() < 32 || !encoded.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(ReferenceError::Format);
    }
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(ReferenceError::DigestAlgorithm),
    };
    if encoded.len() != length {
        return Err(ReferenceError::DigestLength);
    }
    if encoded.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(ReferenceError::Format);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_name_is_normalised_and_shown_short() {
        for (text, full, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("me/app", "docker.io/me/app", "me/app"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            (
                "index.docker.io/library/busybox:a",
                "docker.io/library/busybox:a",
                "busybox:a",
            ),
            ("library/a/b", "docker.io/library/a/b", "library/a/b"),
            ("localhost/app", "localhost/app", "localhost/app"),
            ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
            (
                "ghcr.io/coder/coder:latest",
                "ghcr.io/coder/coder:latest",
                "ghcr.io/coder/coder:latest",
            ),
            ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
            ("Host/a", "Host/a", "Host/a"),
            ("a__b-c---d.e", "docker.io/library/a__b-c---d.e", "a__b-c---d.e"),
        ] {
            let reference = Reference::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
        }
        let pinned = Reference::parse(&format!("busybox:1@{DIGEST}")).unwrap();
        assert_eq!(pinned.tag(), Some("1"));
        assert_eq!(pinned.digest(), Some(DIGEST));
        assert_eq!(pinned.to_string(), format!("docker.io/library/busybox:1@{DIGEST}"));
    }

    #[test]
    fn what_is_no_name_is_refused_in_dockers_words() {
        for (text, message) in [
            ("", "invalid reference format"),
            (":tag", "invalid reference format"),
            ("a:", "invalid reference format"),
            ("a b", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("a/b/", "invalid reference format"),
            ("a:b:c", "invalid reference format"),
            ("host:port/a", "invalid reference format"),
            ("a@sha256:abc", "invalid reference format"),
            ("a@md5:d41d8cd98f00b204e9800998ecf8427e", "unsupported digest algorithm"),
            (
                "a@sha256:d41d8cd98f00b204e9800998ecf8427e",
                "invalid checksum digest length",
            ),
            (
                "Busybox",
                "invalid reference format: repository name (library/Busybox) must be lowercase",
            ),
            (
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "invalid repository name (e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855), cannot specify 64-byte hexadecimal strings",
            ),
        ] {
            assert_eq!(
                Reference::parse(text).map_err(|error| error.to_string()),
                Err(message.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn a_source_is_a_registry_name_or_a_path_of_this_machine() {
        assert_eq!(
            Source::parse("docker-archive:a.tar:busybox").unwrap(),
            Source::DockerArchive {
                path: "a.tar".into(),
                reference: Some(Reference::parse("busybox:latest").unwrap())
            }
        );
        assert_eq!(
            Source::parse("oci:layout:v1").unwrap().absolute(Path::new("/p")),
            Source::Oci {
                path: "/p/layout".into(),
                tag: Some("v1".to_owned())
            }
        );
        assert_eq!(Source::parse("rootfs:/").unwrap(), Source::Rootfs("/".into()));
        assert_eq!(Source::parse("busybox").unwrap().to_string(), "busybox:latest");
        for text in [
            "docker-archive:/a.tar:busybox:latest",
            "oci-archive:b.tar",
            "rootfs:/",
            "me/app:1",
        ] {
            assert_eq!(Source::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Source::parse("oci:").unwrap_err().to_string(), "oci: names no path");
    }

    proptest::proptest! {
        #[test]
        fn what_parses_parses_again_from_both_its_forms(text in "[a-zA-Z0-9:/@._\\-\\[\\]]{0,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                proptest::prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
                // A familiar name that looks like an identifier is the one form that cannot be read back.
                if !is_identifier(&reference.familiar()) {
                    proptest::prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
                }
            }
        }
    }
}
