//! Relative paths in a file become absolute ones.
// compose-go paths/

use std::path::Path;

use crate::yaml::{Diagnostic, Diagnostics, Node, Value};

use super::tree::{at_mut, each_entry, each_service};

/// From where paths are taken.
pub struct PathBase<'a> {
    /// The directory that relative paths start from.
    pub directory: &'a str,
    /// The user's home, for `~`.
    pub home: Option<&'a str>,
}

impl PathBase<'_> {
    /// Makes every path in a canonical tree absolute (or relative to where `directory` is relative to).
    pub fn resolve(&self, root: &mut Node) -> Result<(), Diagnostics> {
        each_service(root, |_, service| self.resolve_service(service))?;
        for section in ["configs", "secrets"] {
            each_entry(root, section, |_, resource| {
                if let Some(file) = resource.get_mut("file") {
                    self.host_path(file);
                }
                Ok(())
            })?;
        }
        each_entry(root, "volumes", |_, volume| {
            self.bound_volume(volume);
            Ok(())
        })?;
        Ok(())
    }

    fn resolve_service(&self, service: &mut Node) -> Result<(), Diagnostic> {
        if let Some(build) = service.get_mut("build") {
            if let Some(context) = build.get_mut("context") {
                self.context(context);
            }
            if let Some(contexts) = build.get_mut("additional_contexts").and_then(Node::as_mapping_mut) {
                for (_, context) in contexts.iter_mut() {
                    self.context(&mut context.node);
                }
            }
            if let Some(keys) = build.get_mut("ssh").and_then(Node::as_mapping_mut) {
                for (_, key) in keys.iter_mut() {
                    self.host_path(&mut key.node);
                }
            }
        }
        for file in list(service.get_mut("env_file")) {
            if let Some(path) = file.get_mut("path") {
                self.file(path);
            }
        }
        for file in list(service.get_mut("label_file")) {
            self.file(file);
        }
        if let Some(file) = at_mut(service, &["extends", "file"])
            && !file.as_str().is_some_and(is_remote)
        {
            self.file(file);
        }
        for watch in list(at_mut(service, &["develop", "watch"])) {
            if let Some(path) = watch.get_mut("path") {
                self.watched(path);
            }
        }
        for mount in list(service.get_mut("volumes")) {
            if mount.get("type").and_then(Node::as_str) != Some("bind") {
                continue;
            }
            match mount.get_mut("source") {
                Some(source) => self.host_path(source),
                None => {
                    return Err(Diagnostic::error(
                        "invalid mount config for type \"bind\": field Source must not be empty",
                    )
                    .at(mount.span));
                }
            }
        }
        Ok(())
    }

    /// Returns the path as seen from the base directory.
    pub fn absolute(&self, path: &str) -> String {
        let path = self.expand_home(path);
        if path.is_empty() || path.starts_with('/') {
            return path;
        }
        join(self.directory, &path)
    }

    fn expand_home(&self, path: &str) -> String {
        match (path.strip_prefix('~'), self.home) {
            (Some(rest), Some(home)) => join(home, rest),
            _ => path.to_owned(),
        }
    }

    fn file(&self, node: &mut Node) {
        if let Value::String(path) = &mut node.value {
            *path = self.absolute(path);
        }
    }

    /// A path that may be one of Windows, which is left alone.
    fn host_path(&self, node: &mut Node) {
        if let Value::String(path) = &mut node.value {
            let expanded = self.expand_home(path);
            *path = if expanded.starts_with('/') || is_windows_absolute(&expanded) {
                expanded
            } else {
                join(self.directory, &expanded)
            };
        }
    }

    /// A build context: a path, unless it is an address or another kind of context.
    fn context(&self, node: &mut Node) {
        if let Value::String(text) = &mut node.value {
            if text.is_empty() || text.contains("://") || is_remote(text) || is_other_context(text) {
                return;
            }
            let expanded = self.expand_home(text);
            *text = if expanded.starts_with('/') || is_windows_absolute(&expanded) {
                expanded
            } else {
                join(self.directory, &expanded)
            };
        }
    }

    /// A watched path; links are followed, since it is what they lead to that changes.
    fn watched(&self, node: &mut Node) {
        if let Value::String(path) = &mut node.value {
            let absolute = self.absolute(path);
            *path = match std::fs::canonicalize(&absolute) {
                Ok(real) if absolute.starts_with('/') => real.to_string_lossy().into_owned(),
                _ => absolute,
            };
        }
    }

    fn bound_volume(&self, volume: &mut Node) {
        let is = |node: Option<&Node>, text: &str| node.and_then(Node::as_str) == Some(text);
        if is(volume.get("driver"), "local")
            && let Some(options) = volume.get_mut("driver_opts")
            && is(options.get("o"), "bind")
            && let Some(device) = options.get_mut("device")
        {
            self.host_path(device);
        }
    }
}

fn list(node: Option<&mut Node>) -> impl Iterator<Item = &mut Node> {
    node.and_then(Node::as_sequence_mut).into_iter().flatten()
}

/// Tells whether a file name means something that is not on this machine.
pub fn is_remote(path: &str) -> bool {
    is_git(path) || path.starts_with("oci://")
}

/// Tells whether a name means a Git repository.
pub fn is_git(path: &str) -> bool {
    // docker/compose pkg/remote/git.go and moby's gitutil: what `docker build` takes for a repository.
    let (address, _) = path.split_once('#').unwrap_or((path, ""));
    if ["git://", "ssh://", "git@"]
        .iter()
        .any(|scheme| address.starts_with(scheme))
    {
        return true;
    }
    let is_web = address.starts_with("https://") || address.starts_with("http://");
    is_web && address.ends_with(".git") || address.starts_with("github.com/")
}

fn is_other_context(text: &str) -> bool {
    text.starts_with("service:") || text.starts_with("docker-image:") || text.starts_with("target:")
}

fn is_windows_absolute(path: &str) -> bool {
    let bytes = path.as_bytes();
    path.starts_with("\\\\")
        || bytes.len() >= 3 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':' && matches!(bytes[2], b'\\' | b'/')
}

/// Joins two paths and cleans the result, as Go's `filepath.Join` does.
pub fn join(directory: &str, path: &str) -> String {
    match (directory, path) {
        ("", path) => clean(path),
        (directory, "") => clean(directory),
        (directory, path) => clean(&format!("{directory}/{path}")),
    }
}

/// Returns the shortest path that means the same without looking at the file system, as Go's `path.Clean` does.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.as_str()) {
        (true, _) => format!("/{joined}"),
        (false, "") => ".".into(),
        (false, _) => joined,
    }
}

/// Returns the directory part of a path, as Go's `filepath.Dir` does.
pub fn directory_of(path: &str) -> String {
    match path.rfind('/') {
        Some(slash) => clean(&path[..=slash]),
        None => ".".into(),
    }
}

/// Returns the way from one absolute directory to another, as Go's `filepath.Rel` does.
pub fn relative(from: &str, to: &str) -> String {
    let parts = |path: &str| -> Vec<String> {
        let path = clean(path);
        path.split('/')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let (from, to) = (parts(from), parts(to));
    let shared = from.iter().zip(&to).take_while(|(left, right)| left == right).count();
    let mut steps = vec!["..".to_owned(); from.len() - shared];
    steps.extend(to[shared..].iter().cloned());
    if steps.is_empty() { ".".into() } else { steps.join("/") }
}

/// Returns the path as text; bytes that are no text are replaced.
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning_follows_go() {
        for (path, expected) in [
            ("", "."),
            ("a/../..", ".."),
            ("/..", "/"),
            ("/a//b/./c/", "/a/b/c"),
            ("./a", "a"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
        assert_eq!(directory_of("a/b"), "a");
        assert_eq!(directory_of("b"), ".");
        assert_eq!(directory_of("/b"), "/");
    }
}
