//! Files from elsewhere: `ADD` of addresses and git repositories, and contexts that are one.
//!
//! Repositories are fetched by the `git` program, as BuildKit does it; nothing else here needs a program.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::Problem;
use super::progress::{BuildEvent, BuildSink};
use crate::image::{self, Hasher, Limits, Scratch, Store, chain};

/// An address that files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remote {
    Http(String),
    Git(Repository),
}

/// A git repository, and what of it is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Repository {
    pub address: String,
    /// A branch, tag or commit; the repository's own choice if not given.
    pub revision: Option<String>,
    pub directory: Option<String>,
    pub checksum: Option<String>,
    pub keep_git_dir: Option<bool>,
}

/// What an instruction says about fetching.
pub(super) struct Options {
    pub checksum: Option<String>,
    pub keep_git_dir: Option<bool>,
}

/// Something that was fetched; gone with the value.
pub(super) struct Fetched {
    scratch: Scratch,
    /// What to copy of it.
    pub word: String,
    /// What tells it from everything else that could have been there.
    pub identity: String,
}

impl Fetched {
    /// Returns the directory that has it.
    pub fn directory(&self) -> PathBuf {
        self.scratch.upper()
    }
}

impl Remote {
    /// Reads a source of ADD; `None` if it is a path.
    pub fn parse(text: &str) -> Option<Self> {
        let is_web = text.starts_with("http://") || text.starts_with("https://");
        let (whole, fragment) = match text.split_once('#') {
            Some((whole, fragment)) => (whole, Some(fragment)),
            None => (text, None),
        };
        let (address, query) = match whole.split_once('?') {
            Some((address, query)) => (address, Some(query)),
            None => (whole, None),
        };
        let is_git = ["git://", "ssh://", "git@"].iter().any(|start| text.starts_with(start))
            || is_web && address.trim_end_matches('/').ends_with(".git");
        if !is_git {
            return is_web.then(|| Self::Http(text.to_owned()));
        }
        let mut repository = Repository {
            address: address.to_owned(),
            ..Repository::default()
        };
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        if let Some(fragment) = fragment {
            let (revision, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
            repository.revision = some(revision);
            repository.directory = some(directory);
        }
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "ref" => repository.revision = some(value),
                "branch" => repository.revision = Some(format!("refs/heads/{value}")),
                "tag" => repository.revision = Some(format!("refs/tags/{value}")),
                "subdir" => repository.directory = some(value),
                "checksum" | "commit" => repository.checksum = some(value),
                "keep-git-dir" => repository.keep_git_dir = Some(!matches!(value, "0" | "false")),
                _ => {}
            }
        }
        Some(Self::Git(repository))
    }

    /// Reads a build's context; `None` if it is a directory.
    fn parse_context(text: &str) -> Option<Self> {
        if text.starts_with("github.com/") {
            let text = format!("https://{text}");
            let (address, rest) = text.split_once('#').unwrap_or((&text, ""));
            let address = format!("{}.git#{rest}", address.trim_end_matches('/').trim_end_matches(".git"));
            return Self::parse(&address);
        }
        Self::parse(text)
    }
}

/// Returns whether a context is fetched from elsewhere.
pub fn is_remote(context: &str) -> bool {
    Remote::parse_context(context).is_some()
}

/// A context that was fetched; gone with the value.
pub struct RemoteContext {
    fetched: Fetched,
    directory: PathBuf,
    /// The address had a Dockerfile and nothing else.
    pub dockerfile: Option<String>,
}

impl RemoteContext {
    /// Returns the directory that has it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl std::fmt::Debug for RemoteContext {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.fetched.identity)
    }
}

/// Fetches a build's context: a repository, an archive, or a Dockerfile alone.
pub async fn open_context(text: &str, store: &Store, sink: &BuildSink) -> Result<RemoteContext, Problem> {
    let remote = Remote::parse_context(text).ok_or_else(|| Problem::Context(PathBuf::from(text)))?;
    let failed = |why: String| Problem::Fetch {
        url: text.to_owned(),
        why,
    };
    let options = Options {
        checksum: None,
        keep_git_dir: None,
    };
    let fetched = fetch_remote(&remote, &options, store, sink, 0).await?;
    if let Remote::Git(_) = remote {
        return Ok(RemoteContext {
            directory: fetched.directory(),
            fetched,
            dockerfile: None,
        });
    }
    let file = fetched.directory().join(fetched.word.trim_start_matches('/'));
    let unpacked = store.scratch()?;
    let directory = unpacked.upper();
    let is_archive = super::add::archive(&fs::File::open(&file).map_err(|error| failed(error.to_string()))?)
        .map_err(|error| failed(error.to_string()))?;
    match is_archive {
        Some(tar) => {
            let limits = Limits::of(&directory).map_err(|error| failed(error.to_string()))?;
            image::unpack_layer(tar, &directory, limits).map_err(|error| failed(error.to_string()))?;
            let fetched = Fetched {
                scratch: unpacked,
                word: "/".to_owned(),
                identity: fetched.identity,
            };
            Ok(RemoteContext {
                fetched,
                directory,
                dockerfile: None,
            })
        }
        None => {
            let text = fs::read_to_string(&file).map_err(|error| failed(error.to_string()))?;
            fs::remove_file(&file).map_err(|error| failed(error.to_string()))?;
            Ok(RemoteContext {
                directory: fetched.directory(),
                fetched,
                dockerfile: Some(text),
            })
        }
    }
}

/// Fetches a source of ADD.
pub(super) async fn fetch(
    text: &str,
    options: &Options,
    store: &Store,
    sink: &BuildSink,
    step: usize,
) -> Result<Fetched, Problem> {
    let remote = Remote::parse(text).ok_or_else(|| Problem::MissingSource(text.to_owned()))?;
    fetch_remote(&remote, options, store, sink, step).await
}

async fn fetch_remote(
    remote: &Remote,
    options: &Options,
    store: &Store,
    sink: &BuildSink,
    step: usize,
) -> Result<Fetched, Problem> {
    let scratch = store.scratch()?;
    match remote {
        Remote::Http(url) => download(url, options, scratch).await,
        Remote::Git(repository) => {
            let say = |text: String| {
                if step > 0 {
                    sink(BuildEvent::Output {
                        step,
                        stderr: false,
                        text,
                    });
                }
            };
            clone(repository, options, scratch, &say).await
        }
    }
}

async fn download(url: &str, options: &Options, scratch: Scratch) -> Result<Fetched, Problem> {
    let failed = |why: String| Problem::Fetch {
        url: url.to_owned(),
        why,
    };
    let expected = options.checksum.as_deref();
    if let Some(checksum) = expected.filter(|checksum| !image::is_digest(checksum)) {
        return Err(Problem::BadChecksum(checksum.to_owned()));
    }
    crate::image::use_tls();
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(30))
        .user_agent("compose")
        .build()
        .map_err(|error| failed(chain(&error)))?;
    let mut response = client.get(url).send().await.map_err(|error| failed(chain(&error)))?;
    if !response.status().is_success() {
        return Err(failed(format!(
            "invalid response status {}",
            response.status().as_u16()
        )));
    }
    let modified = response
        .headers()
        .get(http::header::LAST_MODIFIED)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| jiff::fmt::rfc2822::parse(value).ok())
        .map_or(0, |time| time.timestamp().as_second());
    let name = file_name(url);
    let path = scratch.upper().join(&name);
    let writing = |source| Problem::Write {
        path: path.clone(),
        source,
    };
    let mut file = fs::File::create(&path).map_err(writing)?;
    let mut hasher = Hasher::default();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(chain(&error)))? {
        hasher.update(&chunk);
        file.write_all(&chunk).map_err(writing)?;
    }
    let time = std::time::UNIX_EPOCH + Duration::from_secs(u64::try_from(modified).unwrap_or_default());
    file.set_modified(time).map_err(writing)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))
        .map_err(writing)?;
    let (digest, _) = hasher.finish();
    if let Some(expected) = expected
        && expected != digest
    {
        return Err(Problem::Digest {
            url: url.to_owned(),
            expected: expected.to_owned(),
            actual: digest,
        });
    }
    Ok(Fetched {
        scratch,
        word: format!("/{name}"),
        identity: format!("{digest} {modified}"),
    })
}

/// Returns the name that a file at an address goes under.
fn file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let name = path.split_once('/').map_or("", |(_, path)| path.trim_end_matches('/'));
    match name.rsplit('/').next().unwrap_or_default() {
        "" | "." | ".." => "__unnamed__".to_owned(),
        name => name.to_owned(),
    }
}

async fn clone(
    repository: &Repository,
    options: &Options,
    scratch: Scratch,
    say: &(dyn Fn(String) + Sync),
) -> Result<Fetched, Problem> {
    let failed = |why: String| Problem::Fetch {
        url: repository.address.clone(),
        why,
    };
    let keeps = match (options.keep_git_dir, repository.keep_git_dir) {
        (Some(one), Some(other)) if one != other => {
            return Err(failed("inconsistent keep-git-dir configuration".to_owned()));
        }
        (one, other) => one.or(other).unwrap_or(false),
    };
    let place = scratch.path().join("git");
    fs::create_dir(&place).map_err(|error| failed(error.to_string()))?;
    let git = |arguments: Vec<String>| {
        let place = place.clone();
        async move { run_git(&place, &arguments).await.map_err(failed) }
    };
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
    git(words(&["init", "-q"])).await?;
    git(words(&["remote", "add", "origin", "--", &repository.address])).await?;
    let revision = repository.revision.clone().unwrap_or_else(|| "HEAD".to_owned());
    if revision.starts_with('-') {
        return Err(failed(format!("invalid revision {revision:?}")));
    }
    let shallow = git(words(&["fetch", "-q", "--depth=1", "--no-tags", "origin", &revision])).await;
    let found = match shallow {
        Ok(_) => "FETCH_HEAD".to_owned(),
        // A server need not give out single commits; then all of them are fetched.
        Err(error) => {
            let all = ["fetch", "-q", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*"];
            git(words(&all)).await.map_err(|_| error)?;
            revision
        }
    };
    git(words(&["checkout", "-q", "--detach", &found, "--"])).await?;
    let commit = git(words(&["rev-parse", "HEAD"])).await?.trim().to_owned();
    say(format!(
        "{commit}\t{}\n",
        repository.revision.as_deref().unwrap_or("HEAD")
    ));
    let expected = options.checksum.as_ref().or(repository.checksum.as_ref());
    if let Some(expected) = expected
        && !commit.starts_with(expected.as_str())
    {
        return Err(Problem::Digest {
            url: repository.address.clone(),
            expected: expected.clone(),
            actual: commit,
        });
    }
    if place.join(".gitmodules").is_file() {
        git(words(&[
            "submodule",
            "update",
            "-q",
            "--init",
            "--recursive",
            "--depth=1",
        ]))
        .await?;
    }
    if !keeps {
        remove_git(&place).map_err(|error| failed(error.to_string()))?;
    }
    // What the repository has as links leads nowhere but inside of it.
    let view = image::View::open(std::slice::from_ref(&place)).map_err(|error| failed(error.to_string()))?;
    let directory = repository.directory.clone().unwrap_or_default();
    let found = view
        .find(&Path::new("/").join(&directory))
        .map_err(|error| failed(error.to_string()))?;
    let found = found
        .filter(image::Found::is_directory)
        .ok_or_else(|| failed(format!("invalid subdir {directory}")))?;
    let inside = place.join(found.path.strip_prefix("/").unwrap_or(&found.path));
    let upper = scratch.upper();
    fs::remove_dir(&upper)
        .and_then(|()| fs::rename(&inside, &upper))
        .map_err(|error| failed(error.to_string()))?;
    Ok(Fetched {
        scratch,
        word: "/".to_owned(),
        identity: format!("git {commit} {directory} {keeps}"),
    })
}

fn remove_git(place: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(place)?.flatten() {
        let kind = entry.file_type()?;
        if entry.file_name() == ".git" {
            match kind.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        } else if kind.is_dir() {
            remove_git(&entry.path())?;
        }
    }
    Ok(())
}

async fn run_git(place: &Path, arguments: &[String]) -> Result<String, String> {
    let mut command = tokio::process::Command::new("git");
    command
        .current_dir(place)
        .args(["-c", "protocol.ext.allow=never", "-c", "core.hooksPath=/dev/null"])
        .args(arguments)
        .env_clear()
        // Nobody is there to be asked, and the settings of whoever started the engine are not the build's.
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env(
            "GIT_SSH_COMMAND",
            "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new",
        )
        .env("HOME", place)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    for name in [
        "PATH",
        "SSH_AUTH_SOCK",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    ] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let output = command.output().await.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "the program git is needed for repositories, and is not installed".to_owned(),
        _ => format!("git cannot be started: {error}"),
    })?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_files_and_repositories_are_told_apart() {
        let git = |text: &str| match Remote::parse(text) {
            Some(Remote::Git(repository)) => repository,
            other => panic!("{text}: {other:?}"),
        };
        for path in ["a/b", "/a.git", "github.com/a/b", "./http://x"] {
            assert_eq!(Remote::parse(path), None, "{path}");
        }
        assert_eq!(
            Remote::parse("https://x/y.tar.gz?z"),
            Some(Remote::Http("https://x/y.tar.gz?z".to_owned()))
        );
        let found = git("https://x/y.git#v1:docs");
        assert_eq!(
            (found.address.as_str(), found.revision.as_deref()),
            ("https://x/y.git", Some("v1"))
        );
        assert_eq!(found.directory.as_deref(), Some("docs"));
        assert_eq!(git("git@x:y.git").revision, None);
        let found = git("https://x/y.git?tag=1&subdir=a&keep-git-dir=true");
        assert_eq!(found.revision.as_deref(), Some("refs/tags/1"));
        assert_eq!(
            (found.directory.as_deref(), found.keep_git_dir),
            (Some("a"), Some(true))
        );
        assert!(is_remote("github.com/a/b#main"));
        assert!(!is_remote("."));
        assert_eq!(file_name("https://x/a/b.txt?c"), "b.txt");
        assert_eq!(file_name("https://x"), "__unnamed__");
    }
}
