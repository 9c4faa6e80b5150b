//! `compose cp`: copy files/folders between a service container and the local filesystem.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::containers::{self, OneOff, id};
use super::{CommandError, Context};
use crate::build::context::{Owner, append, sorted_names};
use crate::client::stream::{Upload, UploadError};
use crate::client::{ClientError, Engine};
use crate::percent;
use crate::ui::{Status, stream};

/// Copy files/folders between a service container and the local filesystem
#[derive(Debug, clap::Args)]
#[command(override_usage = "cp [OPTIONS] SERVICE:SRC_PATH DEST_PATH|-\ncp [OPTIONS] SRC_PATH|- SERVICE:DEST_PATH")]
pub struct Args {
    /// Include containers created by the run command
    #[arg(long)]
    pub all: bool,
    /// Archive mode (copy all uid/gid information)
    #[arg(short = 'a', long)]
    pub archive: bool,
    /// Always follow symbol link in SRC_PATH
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// Index of the container if service has multiple replicas
    #[arg(long, value_name = "int", default_value_t = 0)]
    pub index: i64,
    #[arg(value_name = "SRC_PATH")]
    pub source: String,
    #[arg(value_name = "DEST_PATH")]
    pub destination: String,
}

/// Copies files between this machine and the containers of a service.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let (source, destination) = (split(&args.source), split(&args.destination));
    let project = context.project_name()?;
    let (service, from_container) = match (source.0, destination.0) {
        (Some(_), Some(_)) => {
            return Err(CommandError::message("copying between services is not supported"));
        }
        (None, None) => return Err(CommandError::message("unknown copy direction")),
        (Some(service), None) => (service.to_owned(), true),
        (None, Some(service)) => (service.to_owned(), false),
    };
    let (source, destination) = (source.1, destination.1);
    let engine = context.engine().await?;
    let containers = if args.index > 0 {
        vec![containers::one(&engine, &project, &service, args.index, OneOff::Exclude, true).await?]
    } else {
        let one_off = if args.all { OneOff::Include } else { OneOff::Exclude };
        let mut containers = containers::list(&engine, &project, std::slice::from_ref(&service), one_off, true).await?;
        if containers.is_empty() {
            return Err(CommandError::message(format!(
                "no container found for service {}",
                stream::quoted(&service)
            )));
        }
        if from_container {
            containers.truncate(1);
        }
        containers
    };
    // Standard input can be read once, and may be for several containers.
    let spooled = match source {
        "-" if !context.globals.dry_run => {
            let mut file = tempfile::tempfile()?;
            io::copy(&mut io::stdin().lock(), &mut file)?;
            Some(file)
        }
        _ => None,
    };
    context.progress.begin("Copying");
    let copies = containers.iter().map(|container| async {
        let name = containers::name(container);
        let text = match from_container {
            true => format!("copy {name}:{source} to {destination}"),
            false => format!("copy {source} to {name}:{destination}"),
        };
        context.progress.event(name, Status::Working, &text, "Copying");
        if !context.globals.dry_run {
            let copy = Copy {
                engine: &engine,
                container: id(container),
                context,
                follow_link: args.follow_link,
                stdin: spooled.as_ref(),
                archive: args.archive,
            };
            if from_container {
                copy.download(source, destination).await?;
            } else {
                copy.upload(source, destination).await?;
            }
        }
        context.progress.event(name, Status::Done, text, "Copied");
        Ok::<(), CommandError>(())
    });
    let results = join_all(copies).await;
    context.progress.end();
    results.into_iter().collect::<Result<Vec<()>, _>>()?;
    Ok(ExitCode::SUCCESS)
}

/// Takes `SERVICE:PATH` apart; what begins with a dot or a slash is a path here.
fn split(argument: &str) -> (Option<&str>, &str) {
    match argument.split_once(':') {
        Some((service, path)) if !argument.starts_with(['/', '.']) => (Some(service), path),
        _ => (None, argument),
    }
}

/// One copy to or from one container.
struct Copy<'a> {
    engine: &'a Engine,
    container: &'a str,
    context: &'a Context,
    follow_link: bool,
    archive: bool,
    /// What standard input held, where it is the source.
    stdin: Option<&'a File>,
}

/// What is known of a path in a container.
#[derive(Debug, Clone, Deserialize)]
struct Stat {
    #[serde(default)]
    mode: u32,
    #[serde(default, rename = "linkTarget")]
    link_target: String,
}

impl Stat {
    /// Go's bits, which the engine speaks in.
    fn is_directory(&self) -> bool {
        self.mode & (1 << 31) != 0
    }

    fn is_link(&self) -> bool {
        self.mode & (1 << 27) != 0
    }
}

impl Copy<'_> {
    /// Looks at a path in the container; `None` if it is not there.
    async fn stat(&self, path: &str) -> Option<Stat> {
        let path = format!("/containers/{}/archive?path={}", self.container, percent::encoded(path));
        let response = self.engine.request(http::Method::HEAD, &path, None).await.ok()?;
        stat_of(&response)
    }

    async fn upload(&self, source: &str, destination: &str) -> Result<(), CommandError> {
        let mut path = destination.to_owned();
        let mut stat = self.stat(&path).await;
        if let Some(link) = stat.as_ref().filter(|stat| stat.is_link()) {
            path = beside(&path, &link.link_target);
            stat = self.stat(&path).await;
        }
        let place = Place {
            path: path.clone(),
            exists: stat.is_some(),
            is_directory: stat.is_some_and(|stat| stat.is_directory()),
        };
        let archive_path = |directory: &str| {
            format!(
                "/containers/{}/archive?path={}&noOverwriteDirNonDir=true&copyUIDGID={}",
                self.container,
                percent::encoded(directory),
                self.archive
            )
        };
        let headers = [("content-type", "application/x-tar")];
        if let Some(stdin) = self.stdin {
            if !place.is_directory {
                return Err(CommandError::message(format!(
                    "destination \"{}:{destination}\" must be a directory",
                    self.container
                )));
            }
            let stdin = stdin.try_clone()?;
            self.engine
                .upload(http::Method::PUT, &archive_path(&path), &headers, move |upload| {
                    whole(&stdin, upload)
                })
                .await
                .map_err(failed)?;
            return Ok(());
        }
        let here = self.context.absolute(source);
        let metadata = local_metadata(&here, self.follow_link)?;
        if !metadata.is_dir() && asserts_directory(source) {
            return Err(CommandError::message("not a directory"));
        }
        let (directory, name) = place.target(&trailing_kept(&here, source), metadata.is_dir())?;
        let follow = self.follow_link;
        let pack = move |upload: &mut Upload| pack(upload, &here, &name, follow);
        self.engine
            .upload(http::Method::PUT, &archive_path(&directory), &headers, pack)
            .await
            .map_err(failed)?;
        Ok(())
    }

    async fn download(&self, source: &str, destination: &str) -> Result<(), CommandError> {
        let mut path = source.to_owned();
        let mut shown_base = base(source);
        if self.follow_link
            && let Some(link) = self.stat(&path).await.filter(Stat::is_link)
        {
            path = beside(&path, &link.link_target);
            if asserts_directory(source) {
                path.push_str("/.");
                shown_base = ".".to_owned();
            }
        }
        let request = format!(
            "/containers/{}/archive?path={}",
            self.container,
            percent::encoded(&path)
        );
        let response = self.engine.request(http::Method::GET, &request, None).await?;
        let is_directory = stat_of(&response).is_some_and(|stat| stat.is_directory());
        let mut body = response.into_body();
        if destination == "-" {
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame.map_err(ClientError::Connection)?.into_data() {
                    stream::out(data)?;
                }
            }
            return Ok(());
        }
        let here = self.context.absolute(destination);
        let parent = here.parent().unwrap_or(Path::new("/"));
        if !parent.exists() {
            return Err(CommandError::message(format!(
                "invalid output path: directory {} does not exist",
                stream::quoted(&parent.to_string_lossy())
            )));
        }
        let metadata = std::fs::metadata(&here).ok();
        let place = Place {
            path: trailing_kept(&here, destination),
            exists: metadata.is_some(),
            is_directory: metadata.is_some_and(|metadata| metadata.is_dir()),
        };
        let (directory, name) = place.target(&shown_base, is_directory)?;
        let (sender, receiver) = mpsc::channel::<Bytes>(16);
        let old = base(&path);
        let unpacking =
            tokio::task::spawn_blocking(move || unpack(Received::new(receiver), &old, Path::new(&directory), &name));
        let mut broken = None;
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data()
                        && sender.send(data).await.is_err()
                    {
                        // Unpacking has failed and says why.
                        break;
                    }
                }
                Err(error) => {
                    broken = Some(ClientError::Connection(error));
                    break;
                }
            }
        }
        drop(sender);
        let unpacked = unpacking.await;
        if let Some(error) = broken {
            return Err(error.into());
        }
        Ok(unpacked??)
    }
}

fn failed(error: UploadError<io::Error>) -> CommandError {
    match error {
        UploadError::Make(error) => CommandError::message(error.to_string()),
        UploadError::Engine(error) => error.into(),
    }
}

fn stat_of<B>(response: &http::Response<B>) -> Option<Stat> {
    let header = response.headers().get("x-docker-container-path-stat")?;
    serde_json::from_slice(&STANDARD.decode(header.as_bytes()).ok()?).ok()
}

/// Returns the target of a link as seen from the link's directory.
fn beside(link: &str, target: &str) -> String {
    if target.starts_with('/') {
        return target.to_owned();
    }
    let parent = link
        .trim_end_matches('/')
        .rsplit_once('/')
        .map_or("", |(parent, _)| parent);
    format!("{parent}/{target}")
}

fn asserts_directory(path: &str) -> bool {
    path.is_empty() || path.ends_with('/') || path.ends_with("/.") || path == "."
}

/// Returns the path with the `/` or `/.` that the user gave, which says that a directory is meant.
fn trailing_kept(path: &Path, given: &str) -> String {
    let path = path.to_string_lossy();
    let path = path.trim_end_matches("/.").trim_end_matches('/');
    match given {
        "." => format!("{path}/."),
        given if given.ends_with("/.") => format!("{path}/."),
        given if given.ends_with('/') => format!("{path}/"),
        _ => path.to_owned(),
    }
}

/// Returns the last part of a path; `.` where a directory's content is meant.
fn base(path: &str) -> String {
    if path == "." || path.ends_with("/.") {
        return ".".to_owned();
    }
    let path = path.trim_end_matches('/');
    path.rsplit_once('/').map_or(path, |(_, base)| base).to_owned()
}

fn local_metadata(path: &Path, follow: bool) -> Result<std::fs::Metadata, CommandError> {
    let metadata = if follow {
        std::fs::metadata(path)
    } else {
        std::fs::symlink_metadata(path)
    };
    metadata.map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        CommandError::message(format!(
            "lstat {}: {reason}",
            crate::file::paths::clean(&path.display().to_string())
        ))
    })
}

/// Where files are to go.
#[derive(Debug)]
struct Place {
    path: String,
    exists: bool,
    is_directory: bool,
}

impl Place {
    /// Returns the directory to unpack in, and the name that the source gets there; `.` stands for its content.
    // moby archive/copy.go: PrepareArchiveCopy
    fn target(&self, source: &str, source_is_directory: bool) -> Result<(String, String), CommandError> {
        if self.exists && self.is_directory {
            return Ok((self.path.clone(), base(source)));
        }
        if self.exists && source_is_directory {
            return Err(CommandError::message("cannot copy directory"));
        }
        if !self.exists && !source_is_directory && asserts_directory(&self.path) {
            return Err(CommandError::message("no such directory"));
        }
        let path = self.path.trim_end_matches("/.").trim_end_matches('/');
        let directory = match path.rsplit_once('/') {
            Some(("", _)) | None => "/",
            Some((directory, _)) => directory,
        };
        Ok((directory.to_owned(), base(path)))
    }
}

/// Copies a file from its beginning, whoever else reads it at the same time.
fn whole(file: &File, upload: &mut Upload) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut offset = 0;
    loop {
        let count = file.read_at(&mut buffer, offset)?;
        if count == 0 {
            return Ok(());
        }
        upload.write_all(&buffer[..count])?;
        offset += count as u64;
    }
}

/// Packs a file, or a directory with all that is in it, under another name.
fn pack(upload: &mut Upload, path: &Path, name: &str, follow: bool) -> io::Result<()> {
    let mut archive = tar::Builder::new(upload);
    archive.follow_symlinks(false);
    let mut pending = vec![(path.to_owned(), name.to_owned(), follow)];
    while let Some((path, name, follow)) = pending.pop() {
        let metadata = match follow {
            true => std::fs::metadata(&path)?,
            false => std::fs::symlink_metadata(&path)?,
        };
        append(&mut archive, &path, &name, &metadata, Owner::AsHere).map_err(io::Error::other)?;
        if metadata.is_dir() {
            for entry in sorted_names(&path).map_err(io::Error::other)? {
                pending.push((path.join(&entry), format!("{name}/{entry}"), false));
            }
        }
    }
    archive.into_inner()?.flush()
}

/// What is received of an archive, to be read by a thread that may wait.
struct Received {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Received {
    fn new(receiver: mpsc::Receiver<Bytes>) -> Self {
        Self {
            receiver,
            piece: Bytes::new(),
        }
    }
}

impl Read for Received {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let count = self.piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// Unpacks an archive into `directory`; what is called `old` in it is called `new` there.
///
/// The archive comes from a container, which is not trusted: nothing is written outside of `directory`, not through
/// links in the archive either.
fn unpack(archive: impl Read, old: &str, directory: &Path, new: &str) -> io::Result<()> {
    let directory = directory.canonicalize()?;
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(true);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let Some(relative) = renamed(&entry.path()?, old, new) else {
            continue;
        };
        let target = directory.join(&relative);
        let parent = target.parent().unwrap_or(&directory);
        if !parent.canonicalize()?.starts_with(&directory) {
            return Err(io::Error::other(format!(
                "{} leads out of the directory",
                relative.display()
            )));
        }
        if entry.header().entry_type().is_hard_link() {
            let link = entry.link_name()?.and_then(|link| renamed(&link, old, new));
            let original = directory.join(link.ok_or_else(|| io::Error::other("a hard link without a target"))?);
            if !original.canonicalize()?.starts_with(&directory) {
                return Err(io::Error::other(format!(
                    "{} leads out of the directory",
                    relative.display()
                )));
            }
            std::fs::remove_file(&target).or_else(absent_is_fine)?;
            std::fs::hard_link(original, target)?;
        } else if relative.as_os_str().is_empty() {
            // The directory itself, which is there.
        } else {
            entry.unpack(&target)?;
        }
    }
    Ok(())
}

fn absent_is_fine(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

/// Returns a path in an archive under its new name; `None` for one that is not below the old name or climbs.
fn renamed(path: &Path, old: &str, new: &str) -> Option<PathBuf> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    let rest = match old {
        "." | "" | "/" => parts.as_slice(),
        old => match parts.split_first() {
            Some((first, rest)) if *first == old => rest,
            _ => return None,
        },
    };
    let mut renamed = PathBuf::new();
    if new != "." {
        renamed.push(new);
    }
    renamed.extend(rest);
    Some(renamed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_and_its_path_stand_apart_from_local_paths() {
        for (argument, expected) in [
            ("web:/etc", (Some("web"), "/etc")),
            ("/a:b", (None, "/a:b")),
            ("./a:b", (None, "./a:b")),
            ("a", (None, "a")),
            ("-", (None, "-")),
        ] {
            assert_eq!(split(argument), expected, "{argument}");
        }
    }

    #[test]
    fn where_a_copy_goes_depends_on_what_is_there() {
        let place = |path: &str, exists, is_directory| Place {
            path: path.to_owned(),
            exists,
            is_directory,
        };
        for (place, source, is_directory, expected) in [
            (place("/tmp", true, true), "/a/f", false, Ok(("/tmp", "f"))),
            (place("/tmp", true, true), "/a/d", true, Ok(("/tmp", "d"))),
            (place("/tmp", true, true), "/a/d/.", true, Ok(("/tmp", "."))),
            (place("/tmp/x", true, false), "/a/f", false, Ok(("/tmp", "x"))),
            (place("/tmp/x", true, false), "/a/d", true, Err("cannot copy directory")),
            (place("/tmp/new", false, false), "/a/d", true, Ok(("/tmp", "new"))),
            (place("/tmp/new/", false, false), "/a/d", true, Ok(("/tmp", "new"))),
            (place("/tmp/new", false, false), "/a/f", false, Ok(("/tmp", "new"))),
            (
                place("/tmp/new/", false, false),
                "/a/f",
                false,
                Err("no such directory"),
            ),
            (place("/new", false, false), "/a/f", false, Ok(("/", "new"))),
        ] {
            let target = place
                .target(source, is_directory)
                .map_err(|error| error.text().unwrap_or_default());
            let expected = expected
                .map(|(directory, name): (&str, &str)| (directory.to_owned(), name.to_owned()))
                .map_err(str::to_owned);
            assert_eq!(target, expected, "{place:?} {source}");
        }
    }

    #[test]
    fn paths_of_an_archive_stay_inside() {
        let renamed = |path: &str, old: &str, new: &str| renamed(Path::new(path), old, new);
        assert_eq!(renamed("d/a", "d", "n"), Some("n/a".into()));
        assert_eq!(renamed("d", "d", "n"), Some("n".into()));
        assert_eq!(renamed("./a", ".", "."), Some("a".into()));
        assert_eq!(renamed("./a", ".", "n"), Some("n/a".into()));
        assert_eq!(renamed("d/../../a", "d", "n"), None);
        assert_eq!(renamed("/etc/passwd", "d", "n"), None);
        assert_eq!(renamed("other", "d", "n"), None);
    }

    #[test]
    fn a_link_in_an_archive_leads_nowhere_else() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, "d", outside.path()).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        archive.append_data(&mut header, "d/f", &b"x"[..]).unwrap();
        let archive = archive.into_inner().unwrap();
        assert!(unpack(archive.as_slice(), "d", inside.path(), "d").is_err());
        assert!(!outside.path().join("f").exists());
    }

    #[test]
    fn a_hard_link_in_an_archive_leads_nowhere_else() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "canary").unwrap();
        for (target, through) in [
            ("d/away/secret", true),
            ("d/away", true),
            ("../secret", false),
            ("/etc/passwd", false),
        ] {
            let inside = tempfile::tempdir().unwrap();
            let mut archive = tar::Builder::new(Vec::new());
            let mut add = |kind: tar::EntryType, path: &str, link: &Path| {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(kind);
                header.set_mode(0o755);
                header.set_size(0);
                match kind {
                    tar::EntryType::Directory => archive.append_data(&mut header, path, &b""[..]).unwrap(),
                    _ => archive.append_link(&mut header, path, link).unwrap(),
                }
            };
            add(tar::EntryType::Directory, "d/", Path::new(""));
            if through {
                let to = if target == "d/away" {
                    outside.path().join("secret")
                } else {
                    outside.path().to_owned()
                };
                add(tar::EntryType::Symlink, "d/away", &to);
            }
            add(tar::EntryType::Link, "d/hard", Path::new(target));
            let archive = archive.into_inner().unwrap();
            assert!(unpack(archive.as_slice(), "d", inside.path(), "d").is_err(), "{target}");
            assert!(inside.path().join("d/hard").symlink_metadata().is_err(), "{target}");
        }
    }
}
