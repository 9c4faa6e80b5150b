//! Compose files in Git repositories. Links are checked out as plain files.
// docker/compose pkg/remote/git.go

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::cache::Cache;
use super::{Refusal, check_turned_on};
use crate::file::LoadOptions;
use crate::file::discover::FILE_NAMES;
use crate::file::paths::clean;

/// A place in a repository: `ADDRESS[#REFERENCE[:DIRECTORY]]`.
#[derive(Debug, PartialEq, Eq)]
struct GitReference {
    address: String,
    reference: String,
    directory: String,
}

impl GitReference {
    fn parse(text: &str) -> Self {
        let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let address = match address.strip_prefix("github.com/") {
            Some(rest) => format!("https://github.com/{rest}"),
            None => address.to_owned(),
        };
        Self {
            address,
            reference: if reference.is_empty() { "HEAD" } else { reference }.to_owned(),
            directory: directory.to_owned(),
        }
    }

    /// Returns what the commit of the reference is noted under.
    fn name(&self) -> String {
        format!("{}#{}", self.address, self.reference)
    }

    /// Returns the directory below the repository's top, or why there can be none.
    fn below(&self) -> Result<String, String> {
        let directory = &self.directory;
        if directory.starts_with('/') {
            return Err(format!("git subdirectory must be relative, got: {directory}"));
        }
        let cleaned = clean(directory);
        if cleaned == ".." || cleaned.starts_with("../") {
            return Err(format!("git subdirectory path traversal detected: {directory}"));
        }
        if cleaned.split('/').any(|part| part.eq_ignore_ascii_case(".git")) {
            return Err(format!("git subdirectory is Git's own, got: {directory}"));
        }
        Ok(cleaned)
    }
}

/// Returns the path at which a repository's file lies on this machine, fetching it if need and consent be.
pub(super) fn local_path(path: &str, options: &LoadOptions) -> Result<String, Refusal> {
    check_turned_on("git", "COMPOSE_EXPERIMENTAL_GIT_REMOTE", &options.environment)?;
    let wanted = GitReference::parse(path);
    let below = wanted.below()?;
    if wanted.address.starts_with('-') || wanted.reference.starts_with('-') {
        return Err("neither an address nor a reference begins with a dash"
            .to_owned()
            .into());
    }
    let cache = Cache::of("git", &options.environment)?;
    // A branch moves, so whoever may ask where it is does.
    let commit = match (is_commit(&wanted.reference), options.fetch) {
        (true, _) => Some(wanted.reference.clone()),
        (false, true) => Some(resolve(&wanted, &options.environment)?),
        (false, false) => cache.known(&wanted.name()).filter(|commit| is_commit(commit)),
    };
    let commit = match commit {
        Some(commit) if options.fetch || cache.tree(&commit).is_dir() => commit,
        _ => return Err(Refusal::not_fetched()),
    };
    let tree = cache.tree(&commit);
    if !tree.is_dir() {
        cache.fill(&commit, |directory| {
            fetch_into(directory, &wanted, &commit, &options.environment)
        })?;
    }
    if !is_commit(&wanted.reference) && options.fetch {
        let _ = cache.remember(&wanted.name(), &commit);
    }
    let place = tree.join(&below);
    let found = match place.symlink_metadata() {
        Ok(found) if found.is_dir() => FILE_NAMES
            .iter()
            .map(|name| place.join(name))
            .find(|file| file.is_file()),
        Ok(found) if found.is_file() => Some(place),
        _ => None,
    };
    match found {
        Some(file) => Ok(file.to_string_lossy().into_owned()),
        None => {
            let inside = if below == "." { "the repository" } else { below.as_str() };
            Err(format!("there is no Compose file in {inside} at commit {commit}").into())
        }
    }
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn fetch_into(
    directory: &Path,
    wanted: &GitReference,
    commit: &str,
    environment: &BTreeMap<String, String>,
) -> Result<(), String> {
    let run = |arguments: &[&str]| git(directory, arguments, environment).map(|_| ());
    run(&["init", "--quiet", "--template="])?;
    run(&[
        "fetch",
        "--quiet",
        "--depth=1",
        "--no-tags",
        "--",
        &wanted.address,
        commit,
    ])?;
    run(&["checkout", "--quiet", "--detach", commit])
}

/// Asks a repository which commit a reference is now.
fn resolve(wanted: &GitReference, environment: &BTreeMap<String, String>) -> Result<String, String> {
    let arguments = ["ls-remote", "--", &wanted.address, &wanted.reference];
    let answer = git(Path::new("/"), &arguments, environment)?;
    let found: BTreeMap<&str, &str> = answer
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(commit, name)| (name, commit))
        .collect();
    // The pattern also matches the ends of longer names; Git looks names up in this order.
    let name = &wanted.reference;
    [
        name.clone(),
        format!("refs/{name}"),
        format!("refs/tags/{name}"),
        format!("refs/heads/{name}"),
    ]
    .iter()
    .find_map(|name| found.get(name.as_str()))
    .filter(|commit| is_commit(commit))
    .map(|commit| (*commit).to_owned())
    .ok_or_else(|| format!("repository does not contain ref {name}"))
}

/// Runs the git program with nothing of the repository's choosing executed or followed.
fn git(directory: &Path, arguments: &[&str], environment: &BTreeMap<String, String>) -> Result<String, String> {
    let mut command = Command::new("git");
    for setting in [
        "core.symlinks=false",
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        "protocol.allow=never",
        "protocol.https.allow=always",
        "protocol.http.allow=always",
        "protocol.ssh.allow=always",
        "protocol.git.allow=always",
    ] {
        command.args(["-c", setting]);
    }
    command
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .env("GIT_LFS_SKIP_SMUDGE", "1");
    // Nobody is there to answer questions.
    let unset = |name: &str| environment.get(name).is_none_or(String::is_empty);
    if unset("GIT_TERMINAL_PROMPT") {
        command.env("GIT_TERMINAL_PROMPT", "0");
    }
    if unset("GIT_SSH") && unset("GIT_SSH_COMMAND") {
        command.env("GIT_SSH_COMMAND", "ssh -o ControlMaster=no -o BatchMode=yes");
    }
    let output = command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "the program `git` is needed to fetch it, and is not installed".to_owned(),
        _ => format!("git: {error}"),
    })?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(format!("failed to access repository: {}", reason.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_reference_and_directory() {
        let parsed = GitReference::parse("git@h.org:a/b.git#v1:sub/dir");
        assert_eq!(
            (
                parsed.address.as_str(),
                parsed.reference.as_str(),
                parsed.directory.as_str()
            ),
            ("git@h.org:a/b.git", "v1", "sub/dir")
        );
        let parsed = GitReference::parse("github.com/a/b");
        assert_eq!(
            (parsed.address.as_str(), parsed.reference.as_str()),
            ("https://github.com/a/b", "HEAD")
        );
        assert_eq!(parsed.below(), Ok(".".to_owned()));
    }

    #[test]
    fn no_directory_leads_out() {
        for path in ["..", "a/../../b", "/etc", ".git", "a/.GIT/hooks"] {
            let parsed = GitReference::parse(&format!("https://h/x.git#main:{path}"));
            assert!(parsed.below().is_err(), "{path}");
        }
        assert_eq!(
            GitReference::parse("https://h/x.git#:a/../b").below(),
            Ok("b".to_owned())
        );
    }
}
