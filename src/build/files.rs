//! `WORKDIR` and `COPY`: what is looked up before files are made.

use std::path::{Path, PathBuf};

use super::Named;
use super::add::{Copying, Part};
use super::copy::Target;
use super::dockerfile::Step;
use super::error::{BuildError, Problem};
use super::fetch;
use super::ignore::Ignore;
use super::instruction::{Copy, Instruction};
use super::mode::Change;
use super::progress::BuildEvent;
use super::source::{self, Source};
use super::stage::{Build, From, State, read_ignore, record};
use crate::image::{CacheRecord, Hasher, LayerInfo, PackOptions, Scratch, Store, View};

/// The date of directories that no source has: the first that every archive format can write.
pub(super) const MADE: i64 = 315_532_800;

impl Build {
    /// Carries out an instruction that may make a layer; returns whether it was in the cache.
    pub(super) async fn files(
        &self,
        state: &mut State,
        step: &Step,
        stage: usize,
        shown: usize,
    ) -> Result<bool, BuildError> {
        let done = match &step.instruction {
            Instruction::Workdir(path) => self.workdir(state, path, stage),
            Instruction::Copy(copy) => self.copy(state, copy, stage, shown).await,
            Instruction::Run(run) => return self.run(state, run, step, stage, shown).await,
            _ => Ok(true),
        };
        done.map_err(|problem| self.at(problem, &step.span))
    }

    fn workdir(&self, state: &mut State, path: &str, stage: usize) -> Result<bool, Problem> {
        let path = self.word(state, path)?;
        let written = working_directory(&state.config.config.working_dir, &path);
        state.config.config.working_dir.clone_from(&written);
        let path = absolute("/", &written);
        let text = format!("WORKDIR {written}");
        if path == Path::new("/") {
            record(state, text, true);
            return Ok(true);
        }
        let view = self.view(state)?;
        let mut hasher = self.key(state, "WORKDIR");
        hasher.field(path.as_os_str().as_encoded_bytes());
        hasher.field(state.config.config.user.as_bytes());
        let owner = match state.config.config.user.as_str() {
            "" => None,
            user => source::owner(&view, user),
        };
        let (key, _) = hasher.finish();
        let (layer, cached) = cached_or(&self.request.store, self.ignores_cache(stage), key, || {
            let scratch = self.request.store.scratch()?;
            let mut target = Target::new(&scratch.upper(), &view).map_err(writing(&scratch))?;
            target.owner = owner;
            target.made = MADE;
            if !target.is_directory(&path)? {
                target.make_directories(&path)?;
            }
            Ok(self.request.store.seal(scratch, self.pack_options())?)
        })?;
        state.layers.push(layer);
        record(state, text, false);
        Ok(cached)
    }

    async fn copy(&self, state: &mut State, copy: &Copy, stage: usize, shown: usize) -> Result<bool, Problem> {
        let word = |text: &String| self.word(state, text);
        let sources: Vec<String> = copy.sources.iter().map(word).collect::<Result<_, _>>()?;
        let destination = self.word(state, &copy.destination)?;
        let chown = copy.chown.as_ref().map(word).transpose()?;
        let chmod = copy.chmod.as_ref().map(word).transpose()?;
        let exclude: Vec<String> = copy.exclude.iter().map(word).collect::<Result<_, _>>()?;
        let exclude =
            Ignore::from_patterns(exclude.iter().map(String::as_str)).map_err(|error| Problem::Pattern(error.0))?;
        let mode = match &chmod {
            None => None,
            Some(text) => Some(Change::parse(text).ok_or_else(|| Problem::Mode(text.clone()))?),
        };
        let view = self.view(state)?;
        let owner = chown.as_ref().map(|text| {
            source::owner(&view, text).unwrap_or_else(|| {
                // buildkit solver/llbsolver/file: who is unknown is root.
                (self.sink)(BuildEvent::Note(format!(
                    "--chown={text}: the image has no such user or group; the files belong to root"
                )));
                (0, 0)
            })
        });
        let mut documents = Vec::new();
        for document in &copy.documents {
            let text = document.content();
            let data = if document.expand {
                self.expand(state, &text, |expander, text| expander.text(text))?
            } else {
                text
            };
            documents.push((document.name.clone(), data));
        }
        let checksum = copy.checksum.as_ref().map(word).transpose()?;
        let (local, remote): (Vec<String>, Vec<String>) = sources
            .iter()
            .cloned()
            .partition(|source| fetch::Remote::parse(source).is_none());
        if let Some(remote) = remote.first().filter(|_| !copy.is_add) {
            let is_git = matches!(fetch::Remote::parse(remote), Some(fetch::Remote::Git(_)));
            return Err(Problem::RemoteCopy(if is_git { "git ref" } else { "URL" }));
        }
        if checksum.is_some() {
            if sources.len() != 1 {
                return Err(Problem::Checksum("checksum can't be specified for multiple sources"));
            }
            if remote.is_empty() {
                return Err(Problem::Checksum("checksum requires HTTP(S) or Git sources"));
            }
        }
        let mut hasher = self.key(state, if copy.is_add { "ADD" } else { "COPY" });
        let mut parts = Vec::new();
        for source in &remote {
            let options = fetch::Options {
                checksum: checksum.clone(),
                keep_git_dir: copy.keep_git_dir,
            };
            let fetched = fetch::fetch(source, &options, &self.request.store, &self.sink, shown).await?;
            hasher.field(fetched.identity.as_bytes());
            parts.push(Part::fetched(fetched, copy.unpack.unwrap_or(false), exclude.clone())?);
        }
        if !local.is_empty() {
            let from = self.copy_source(copy, stage, exclude).await?;
            parts.push(Part::local(
                from,
                local,
                copy.parents,
                copy.unpack.unwrap_or(copy.is_add),
            ));
        }
        let into_directory =
            destination.is_empty() || destination.ends_with('/') || destination == "." || destination.ends_with("/.");
        hasher.field(if into_directory { b"/" } else { b"" });
        let copying = Copying {
            store: self.request.store.clone(),
            parts,
            documents,
            destination: absolute(&state.config.config.working_dir, &destination),
            into_directory,
            owner,
            mode,
            below: view,
            latest: self.source_date(),
        };
        let (store, no_cache) = (self.request.store.clone(), self.ignores_cache(stage));
        let (layer, cached) = blocking(move || copying.run(hasher, &store, no_cache)).await?;
        state.layers.push(layer);
        let mut text = String::from(if copy.is_add { "ADD" } else { "COPY" });
        if copy.parents {
            text.push_str(" --parents");
        }
        for (flag, value) in [("chown", &chown), ("chmod", &chmod)] {
            if let Some(value) = value {
                text.push_str(&format!(" --{flag}={value}"));
            }
        }
        for source in &sources {
            text.push_str(&format!(" {source}"));
        }
        for document in &copy.documents {
            text.push_str(&format!(" <<{}", document.name));
        }
        record(state, format!("{text} {destination} # buildkit"), false);
        Ok(cached)
    }

    /// Returns the tree that a COPY takes its files from.
    async fn copy_source(&self, copy: &Copy, stage: usize, exclude: Ignore) -> Result<Source, Problem> {
        let mut source = match &copy.from {
            None => self.context()?,
            Some(from) => self.tree(&self.from(from, stage)?).await?,
        };
        source.exclude = exclude;
        Ok(source)
    }

    /// Returns the build's context as a tree.
    pub(super) fn context(&self) -> Result<Source, Problem> {
        let mut source = Source::of(std::slice::from_ref(&self.request.context))?;
        source.ignore = self.ignore.clone();
        source.is_context = true;
        Ok(source)
    }

    /// Returns the files that something has, as a tree.
    pub(super) async fn tree(&self, from: &From) -> Result<Source, Problem> {
        if let From::Context(Named::Directory(directory)) = from {
            return tree_of_directory(directory);
        }
        let state = self.state_of(from, self.request.platform.clone()).await?;
        Source::of(&self.directories(&state))
    }

    /// Makes a layer of a directory that a stage is built on.
    pub(super) async fn layer_of_directory(&self, directory: &Path) -> Result<String, Problem> {
        self.layer_of(tree_of_directory(directory)?, "/").await
    }

    /// Makes a layer of what a tree has at a path; one that is there already is found by its content.
    pub(super) async fn layer_of(&self, from: Source, path: &str) -> Result<String, Problem> {
        let copying = Copying {
            store: self.request.store.clone(),
            parts: vec![Part::local(from, vec![path.to_owned()], false, false)],
            documents: Vec::new(),
            destination: PathBuf::from("/"),
            into_directory: true,
            owner: None,
            mode: None,
            below: View::open(&[]).map_err(reading("/"))?,
            latest: None,
        };
        let mut hasher = Hasher::default();
        hasher.field(b"layer of 1");
        let store = self.request.store.clone();
        let (layer, _) = blocking(move || copying.run(hasher, &store, false)).await?;
        Ok(layer)
    }

    /// Begins the key of a step: what it is, and the files it starts from.
    pub(super) fn key(&self, state: &State, instruction: &str) -> Hasher {
        let mut hasher = Hasher::default();
        hasher.field(b"step 2");
        hasher.field(instruction.as_bytes());
        for layer in &state.layers {
            hasher.field(layer.as_bytes());
        }
        let directory = state.directory.as_deref().unwrap_or(Path::new(""));
        hasher.field(directory.as_os_str().as_encoded_bytes());
        hasher.field(state.directory_state.as_bytes());
        let date = self.source_date().map(|date| date.to_string());
        hasher.field(date.unwrap_or_default().as_bytes());
        hasher
    }

    pub(super) fn pack_options(&self) -> PackOptions {
        PackOptions {
            latest: self.source_date(),
        }
    }

    /// Returns whether a stage's steps are done again whatever the cache has.
    pub(super) fn ignores_cache(&self, stage: usize) -> bool {
        let name = self.file.stages[stage].name.as_deref();
        self.request.no_cache
            || name.is_some_and(|name| {
                let mut filters = self.request.no_cache_filter.iter();
                filters.any(|filter| filter.eq_ignore_ascii_case(name))
            })
    }
}

fn tree_of_directory(directory: &Path) -> Result<Source, Problem> {
    let mut source = Source::of(&[directory.to_owned()])?;
    source.ignore = read_ignore(directory, None)?;
    source.is_context = true;
    Ok(source)
}

/// Does what takes a while where it may block, and waits for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Returns the layer with this key, made if it is not in the cache, and whether it was.
pub(super) fn cached_or(
    store: &Store,
    no_cache: bool,
    key: String,
    make: impl FnOnce() -> Result<LayerInfo, Problem>,
) -> Result<(String, bool), Problem> {
    if !no_cache && let Some(CacheRecord { layer: Some(layer), .. }) = store.cached(&key)? {
        return Ok((layer, true));
    }
    let layer = make()?.diff_id;
    store.remember([made(key, layer.clone())])?;
    Ok((layer, false))
}

pub(super) fn made(key: String, layer: String) -> (String, CacheRecord) {
    let now = jiff::Timestamp::now().as_second();
    let record = CacheRecord {
        layer: Some(layer),
        made: now,
        used: now,
    };
    (key, record)
}

/// Returns what WORKDIR makes of a path. One from the root is taken as it is written.
fn working_directory(current: &str, path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    absolute(current, path).display().to_string()
}

/// Returns a path taken from the working directory, without `.` and `..`.
pub(super) fn absolute(working_directory: &str, path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in Path::new("/").join(working_directory).join(path).components() {
        match component {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

pub(super) fn reading(path: impl Into<String>) -> impl FnOnce(std::io::Error) -> Problem {
    let path = path.into();
    move |source| Problem::ReadSource { path, source }
}

pub(super) fn writing(scratch: &Scratch) -> impl FnOnce(std::io::Error) -> Problem {
    let path = scratch.path().to_owned();
    move |source| Problem::Write { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_from_the_working_directory() {
        assert_eq!(absolute("/a/b", "c/../d/./e"), Path::new("/a/b/d/e"));
        assert_eq!(absolute("", "x"), Path::new("/x"));
        assert_eq!(absolute("/a", "/x/"), Path::new("/x"));
        assert_eq!(working_directory("/a", "b/../c"), "/a/c");
        assert_eq!(working_directory("/a", "/b//c"), "/b//c");
    }
}
