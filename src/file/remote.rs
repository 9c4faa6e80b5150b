//! Compose files in Git repositories: fetched into a directory of the cache that is named by the commit, and read there.
//!
//! Nothing is fetched unless the command may; what was fetched once is read again without the network. Links are
//! checked out as plain files, so that no path in the cache leads out of it.
// docker/compose pkg/remote/git.go

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::discover::FILE_NAMES;
use super::options::LoadOptions;
use super::paths::{clean, is_git};
use crate::yaml::Diagnostic;

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

/// Returns the path at which a remote file lies on this machine, fetching it if need and consent be.
pub fn local_path(path: &str, options: &LoadOptions) -> Result<String, Diagnostic> {
    if !is_git(path) {
        let message = format!("cannot read {path}: Compose files in registries are not supported");
        return Err(Diagnostic::error(message).help("fetch the file yourself and name the local copy"));
    }
    let fail = |reason: String| Diagnostic::error(format!("cannot read {path}: {reason}"));
    if is_turned_off(&options.environment) {
        let reason = "git remote resource is disabled by \"COMPOSE_EXPERIMENTAL_GIT_REMOTE\"";
        return Err(fail(reason.to_owned()));
    }
    let wanted = GitReference::parse(path);
    let below = wanted.below().map_err(fail)?;
    if wanted.address.starts_with('-') || wanted.reference.starts_with('-') {
        return Err(fail("neither an address nor a reference begins with a dash".to_owned()));
    }
    let Some(cache) = cache_directory(&options.environment) else {
        return Err(fail("there is no directory for a cache".to_owned()).help("set XDG_CACHE_HOME, or HOME"));
    };
    let cache = Cache { directory: cache };
    // A branch moves, so whoever may ask where it is does.
    let commit = match (is_commit(&wanted.reference), options.fetch) {
        (true, _) => Some(wanted.reference.clone()),
        (false, true) => Some(resolve(&wanted, &options.environment).map_err(fail)?),
        (false, false) => cache.known(&wanted),
    };
    let commit = match commit {
        Some(commit) if options.fetch || cache.tree(&commit).is_dir() => commit,
        _ => {
            return Err(
                fail("it is on another machine, and this command fetches nothing by itself".to_owned())
                    .help("`compose config --fetch` fetches it, and so do `up`, `create`, `run`, `build` and `pull`"),
            );
        }
    };
    let tree = cache.tree(&commit);
    if !tree.is_dir() {
        cache.fetch(&wanted, &commit, &options.environment).map_err(fail)?;
    }
    if !is_commit(&wanted.reference) && options.fetch {
        let _ = cache.remember(&wanted, &commit);
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
            Err(fail(format!("there is no Compose file in {inside} at commit {commit}")))
        }
    }
}

fn is_turned_off(environment: &BTreeMap<String, String>) -> bool {
    let setting = environment.get("COMPOSE_EXPERIMENTAL_GIT_REMOTE").map(String::as_str);
    matches!(setting, Some("0" | "f" | "F" | "false" | "FALSE" | "False"))
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn cache_directory(environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    let absolute = |name: &str| {
        environment
            .get(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let top = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(top.join("compose").join("git"))
}

struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// Where a commit's files are, if they are.
    fn tree(&self, commit: &str) -> PathBuf {
        self.directory.join(commit)
    }

    fn note(&self, wanted: &GitReference) -> PathBuf {
        let name = Sha256::digest(format!("{}#{}", wanted.address, wanted.reference));
        let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        self.directory.join("references").join(name)
    }

    /// Returns the commit that a reference meant when it was last fetched.
    fn known(&self, wanted: &GitReference) -> Option<String> {
        let commit = std::fs::read_to_string(self.note(wanted)).ok()?;
        is_commit(&commit).then_some(commit)
    }

    fn remember(&self, wanted: &GitReference, commit: &str) -> io::Result<()> {
        let note = self.note(wanted);
        if let Some(directory) = note.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let unfinished = note.with_extension(std::process::id().to_string());
        std::fs::write(&unfinished, commit)?;
        std::fs::rename(unfinished, note)
    }

    /// Puts a commit's files into their place, all or none.
    fn fetch(&self, wanted: &GitReference, commit: &str, environment: &BTreeMap<String, String>) -> Result<(), String> {
        let unfinished = self.directory.join(format!("{commit}.{}", std::process::id()));
        let fetched = self.fetch_into(&unfinished, wanted, commit, environment);
        let placed = fetched.and_then(|()| match std::fs::rename(&unfinished, self.tree(commit)) {
            // Somebody else was faster, with the same files.
            Err(_) if self.tree(commit).is_dir() => Ok(()),
            renamed => renamed.map_err(|error| error.to_string()),
        });
        let _ = std::fs::remove_dir_all(&unfinished);
        placed
    }

    fn fetch_into(
        &self,
        directory: &Path,
        wanted: &GitReference,
        commit: &str,
        environment: &BTreeMap<String, String>,
    ) -> Result<(), String> {
        std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
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
