//! Files into a container: straight through the embedded engine, as an archive through others.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures_util::StreamExt;

use super::{Mapping, archive};
use crate::client::stream::UploadError;
use crate::client::{ClientError, Engine, EngineKind};
use crate::engine::sync::{Copy, Outcome, Request};
use crate::plan::observed::{Container, State};

/// So many files go into one request.
const REQUEST_FILES: usize = 5000;

/// What became of a copy.
#[derive(Debug, Default)]
pub struct Report {
    /// How many files are new in the container, or gone from it.
    pub changed: usize,
    /// What could not be done: the path and why.
    pub failed: Vec<(String, String)>,
    /// What cannot be deleted before the container runs.
    pub postponed: Vec<Mapping>,
}

/// Why nothing could be copied.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot pack the files")]
    Pack(#[source] io::Error),
}

/// Makes the files in a container as they are here: copied where they are, deleted where they are not. With
/// `compare`, those that are the same there are left alone, as far as the engine can tell.
pub async fn sync(
    engine: &Engine,
    container: &Container,
    files: &[Mapping],
    compare: bool,
) -> Result<Report, SyncError> {
    let (present, gone): (Vec<Mapping>, Vec<Mapping>) = files
        .iter()
        .cloned()
        .partition(|file| std::fs::symlink_metadata(&file.from).is_ok());
    let gone = outermost(gone);
    let is_text = |file: &Mapping| file.from.to_str().is_some();
    if engine.kind() == EngineKind::Embedded && present.iter().all(is_text) {
        direct(engine, container, &present, &gone, compare).await
    } else {
        by_archive(engine, container, present, gone).await
    }
}

/// Leaves out what lies below something else that is gone.
fn outermost(mut gone: Vec<Mapping>) -> Vec<Mapping> {
    gone.sort_by(|one, other| one.to.cmp(&other.to));
    let mut kept: Vec<Mapping> = Vec::new();
    let mut tops = std::collections::BTreeSet::new();
    for file in gone {
        let path = PathBuf::from(&file.to);
        if !path.ancestors().skip(1).any(|above| tops.contains(above)) {
            tops.insert(path);
            kept.push(file);
        }
    }
    kept
}

async fn direct(
    engine: &Engine,
    container: &Container,
    present: &[Mapping],
    gone: &[Mapping],
    compare: bool,
) -> Result<Report, SyncError> {
    let path = format!("/compose/containers/{}/sync", container.id);
    let mut removed: Vec<String> = gone.iter().map(|file| file.to.clone()).collect();
    let mut report = Report::default();
    let mut chunks = present.chunks(REQUEST_FILES);
    loop {
        let chunk = chunks.next();
        if chunk.is_none() && removed.is_empty() {
            return Ok(report);
        }
        let request = Request {
            files: chunk
                .unwrap_or_default()
                .iter()
                .map(|file| Copy {
                    from: file.from.to_string_lossy().into_owned(),
                    to: file.to.clone(),
                    replace: file.is_below,
                })
                .collect(),
            removed: std::mem::take(&mut removed),
            compare,
        };
        let body = serde_json::to_value(&request).map_err(ClientError::Answer)?;
        let outcome: Outcome = engine.ask(http::Method::POST, &path, Some(body)).await?;
        report.changed += outcome.written + outcome.removed;
        let failed = outcome.failed.into_iter().map(|failed| (failed.path, failed.cause));
        report.failed.extend(failed);
    }
}

async fn by_archive(
    engine: &Engine,
    container: &Container,
    present: Vec<Mapping>,
    gone: Vec<Mapping>,
) -> Result<Report, SyncError> {
    let mut report = Report::default();
    if !gone.is_empty() {
        if container.state == State::Running {
            remove(engine, container, &gone, &mut report).await?;
        } else {
            report.postponed = gone;
        }
    }
    if present.is_empty() {
        return Ok(report);
    }
    report.changed += present.len();
    let path = format!(
        "/containers/{}/archive?path=%2F&noOverwriteDirNonDir=true&copyUIDGID=true",
        container.id
    );
    let headers = [("content-type", "application/x-tar")];
    let present = Arc::new(present);
    let put = || async {
        let (sender, receiver) = std::sync::mpsc::channel();
        let files = Arc::clone(&present);
        let sent = engine.upload(http::Method::PUT, &path, &headers, move |upload| {
            archive::pack(&files, upload, |path, error| {
                let _ = sender.send((path.display().to_string(), error.to_string()));
            })
        });
        match sent.await {
            Ok(_) => Ok(Ok(receiver)),
            Err(UploadError::Make(error)) => Ok(Err(SyncError::Pack(error))),
            Err(UploadError::Engine(error)) => Err(error),
        }
    };
    let unreadable = engine.settled(put).await??;
    for failed in unreadable.try_iter() {
        report.changed -= 1;
        report.failed.push(failed);
    }
    Ok(report)
}

/// Deletes by `rm` in the container, the only way that the Engine API has. As root, whoever the container's user is:
/// what was copied may lie in directories that are not the user's.
async fn remove(
    engine: &Engine,
    container: &Container,
    gone: &[Mapping],
    report: &mut Report,
) -> Result<(), SyncError> {
    let mut command = vec!["rm".to_owned(), "-rf".to_owned(), "--".to_owned()];
    command.extend(gone.iter().map(|file| file.to.clone()));
    let config = ExecConfig {
        user: Some("0".to_owned()),
        cmd: Some(command),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..ExecConfig::default()
    };
    let docker = &engine.docker;
    let exec = docker
        .create_exec(&container.id, config)
        .await
        .map_err(ClientError::from)?;
    let started = docker.start_exec(&exec.id, None::<StartExecOptions>).await;
    let mut said = String::new();
    if let StartExecResults::Attached { output: mut chunks, .. } = started.map_err(ClientError::from)? {
        while let Some(chunk) = chunks.next().await {
            said.push_str(&String::from_utf8_lossy(
                &chunk.map_err(ClientError::from)?.into_bytes(),
            ));
        }
    }
    let ended = docker.inspect_exec(&exec.id).await.map_err(ClientError::from)?;
    match ended.exit_code {
        Some(0) | None => report.changed += gone.len(),
        Some(code) => {
            let paths: Vec<&str> = gone.iter().map(|file| file.to.as_str()).collect();
            let why = match said.trim() {
                "" => format!("rm ended with status {code}"),
                said => said.to_owned(),
            };
            report.failed.push((paths.join(", "), why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_deleted_directory_is_deleted_with_it() {
        let gone = |to: &str| Mapping {
            from: "/x".into(),
            to: to.to_owned(),
            is_below: true,
        };
        let all = ["/a/b/c", "/a/b", "/a/bc", "/a/b/d/e", "/z"].map(gone);
        let kept: Vec<String> = outermost(all.into()).into_iter().map(|file| file.to).collect();
        assert_eq!(kept, ["/a/b", "/a/bc", "/z"]);
    }
}
