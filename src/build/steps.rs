//! What each instruction does to a stage.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::copy::Target;
use super::dockerfile::{Command, Copy, Healthcheck, Instruction, Run, Step};
use super::error::{BuildError, Problem};
use super::expand::Expander;
use super::ignore::Ignore;
use super::progress::BuildSink;
use super::run::{self, Network};
use super::source::{self, Source};
use super::stage::{Build, State, record};
use crate::image::{self, CacheRecord, Empty, FileKind, Hasher, LayerInfo, Limits, PackOptions, Scratch, Store, View};

/// Variables that a build may be given without declaring them, and that do not make a step another one.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The date of directories that no source has: the first that every archive format can write.
const MADE: i64 = 315_532_800;

impl Build {
    /// Carries out an instruction that changes the image's config only.
    pub(super) fn configure(&self, state: &mut State, step: &Step) -> Result<(), Problem> {
        let word = |text: &str| self.word(state, text);
        let mut shown = step.text.clone();
        match &step.instruction {
            Instruction::Arg(list) => {
                for (name, default) in list {
                    let value = match (self.request.arguments.get(name), default) {
                        (Some(given), _) => Some(given.clone()),
                        (None, Some(default)) => Some(self.word(state, default)?),
                        (None, None) => self.global_arguments.get(name).cloned(),
                    };
                    if let Some(value) = value {
                        state.arguments.insert(name.clone(), value);
                    }
                }
            }
            Instruction::Env(pairs) => {
                let pairs = self.pairs(state, pairs)?;
                for (name, value) in &pairs {
                    set_environment(&mut state.config.config.env, name, value);
                }
                let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
                shown = format!("ENV {}", pairs.join(" "));
            }
            Instruction::Label(pairs) => {
                let pairs = self.pairs(state, pairs)?;
                state.config.config.labels.extend(pairs);
            }
            Instruction::Cmd(command) => {
                state.config.config.cmd = Some(in_shell(state, command));
                state.has_command = true;
                shown = format!("CMD {}", json(state.config.config.cmd.as_deref().unwrap_or_default()));
            }
            Instruction::Entrypoint(command) => {
                state.config.config.entrypoint = Some(in_shell(state, command));
                if !state.has_command {
                    state.config.config.cmd = None;
                }
                let entrypoint = state.config.config.entrypoint.as_deref().unwrap_or_default();
                shown = format!("ENTRYPOINT {}", json(entrypoint));
            }
            Instruction::Expose(ports) => {
                for port in ports {
                    for port in self.words(state, port)? {
                        for port in expose(&port)? {
                            state.config.config.exposed_ports.insert(port, Empty {});
                        }
                    }
                }
                state.config.config.exposed_ports.sort_keys();
            }
            Instruction::Healthcheck(Healthcheck::None) => {
                state.config.config.healthcheck = Some(image::Healthcheck {
                    test: vec!["NONE".to_owned()],
                    ..Default::default()
                });
            }
            Instruction::Healthcheck(Healthcheck::Check { command, flags }) => {
                state.config.config.healthcheck = Some(healthcheck(command, flags)?);
            }
            Instruction::Maintainer(name) => state.config.author = Some(name.clone()),
            Instruction::Onbuild(text) => state.config.config.on_build.push(text.clone()),
            Instruction::Shell(words) => state.config.config.shell = Some(words.clone()),
            Instruction::StopSignal(signal) => {
                let signal = word(signal)?;
                let known = signal.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number))
                    || signal
                        .to_ascii_uppercase()
                        .trim_start_matches("SIG")
                        .starts_with(|c: char| c.is_ascii_uppercase());
                if !known {
                    return Err(Problem::Signal(signal));
                }
                state.config.config.stop_signal = Some(signal);
            }
            Instruction::User(user) => {
                state.config.config.user = word(user)?;
                shown = format!("USER {}", state.config.config.user);
            }
            Instruction::Volume(list) => {
                let list: Vec<String> = list.iter().map(|path| word(path)).collect::<Result<_, _>>()?;
                shown = format!("VOLUME [{}]", list.join(" "));
                for path in list {
                    state.config.config.volumes.insert(path, Empty {});
                }
            }
            // These make files; see `files`.
            Instruction::Run(_) | Instruction::Copy(_) | Instruction::Workdir(_) => return Ok(()),
        }
        record(state, shown, true);
        Ok(())
    }

    /// Carries out an instruction that may make a layer; returns whether it was in the cache.
    pub(super) async fn files(
        &mut self,
        state: &mut State,
        step: &Step,
        stage: usize,
        shown: usize,
    ) -> Result<bool, BuildError> {
        match &step.instruction {
            Instruction::Workdir(path) => self
                .workdir(state, path)
                .map_err(|problem| self.at(problem, &step.span)),
            Instruction::Copy(copy) => {
                let done = self.copy(state, copy, stage, &step.text).await;
                done.map_err(|problem| self.at(problem, &step.span))
            }
            Instruction::Run(run) => self.run(state, run, step, shown).await,
            _ => Ok(true),
        }
    }

    fn workdir(&self, state: &mut State, path: &str) -> Result<bool, Problem> {
        let path = self.word(state, path)?;
        let path = absolute(&state.config.config.working_dir, &path);
        state.config.config.working_dir = path.display().to_string();
        let view = self.view(state)?;
        let found = view.find(&path).map_err(|source| Problem::ReadSource {
            path: path.display().to_string(),
            source,
        })?;
        let text = format!("WORKDIR {}", path.display());
        if found.is_some_and(|found| found.is_directory()) {
            record(state, text, true);
            return Ok(true);
        }
        let mut hasher = self.key(state, "WORKDIR");
        hasher.field(path.as_os_str().as_encoded_bytes());
        hasher.field(state.config.config.user.as_bytes());
        let owner = match state.config.config.user.as_str() {
            "" => None,
            user => Some(source::owner(&view, user)?),
        };
        let cached = self.layer(state, hasher, || {
            let scratch = self.request.store.scratch()?;
            let mut target = Target::new(&scratch.upper(), &view).map_err(writing(&scratch))?;
            target.owner = owner;
            target.made = MADE;
            target.make_directories(&path)?;
            self.seal(scratch)
        })?;
        record(state, text, false);
        Ok(cached)
    }

    async fn copy(&self, state: &mut State, copy: &Copy, stage: usize, text: &str) -> Result<bool, Problem> {
        let word = |text: &String| self.word(state, text);
        let mut sources: Vec<String> = copy.sources.iter().map(word).collect::<Result<_, _>>()?;
        let destination = self.word(state, &copy.destination)?;
        for path in &sources {
            let remote = ["http://", "https://", "git@", "git://", "ssh://"];
            if copy.is_add && remote.iter().any(|scheme| path.starts_with(scheme)) {
                return Err(Problem::RemoteAdd(path.clone()));
            }
        }
        let many = sources.len() + copy.documents.len() > 1;
        let into_directory = destination.ends_with('/') || destination == "." || destination.ends_with("/.");
        if many && !into_directory {
            return Err(Problem::SeveralSources);
        }
        let from = self.copy_source(state, copy, stage).await?;
        let view = self.view(state)?;
        let chown = copy.chown.as_ref().map(word).transpose()?;
        let owner = chown.map(|text| source::owner(&view, &text)).transpose()?;
        let mode = match copy.chmod.as_ref().map(word).transpose()? {
            None => None,
            Some(text) => match u32::from_str_radix(&text, 8) {
                Ok(mode) if mode <= 0o7777 => Some(mode),
                _ => return Err(Problem::Mode(text)),
            },
        };
        let mut documents = Vec::new();
        for document in &copy.documents {
            let data = if document.expand {
                self.expand(state, &document.text, |expander, text| expander.text(text))?
            } else {
                document.text.clone()
            };
            documents.push((document.name.clone(), data));
        }
        let slash = if into_directory { "/" } else { "" };
        let path = absolute(&state.config.config.working_dir, &destination);
        let job = CopyJob {
            store: self.request.store.clone(),
            sources: std::mem::take(&mut sources),
            documents,
            destination: path,
            into_directory: into_directory || many,
            owner,
            mode,
            parents: copy.parents,
            unpacks: copy.is_add,
            from,
            below: view,
            latest: self.source_date(),
        };
        let mut hasher = self.key(state, if copy.is_add { "ADD" } else { "COPY" });
        hasher.field(slash.as_bytes());
        let (store, no_cache) = (self.request.store.clone(), self.request.no_cache);
        let done = tokio::task::spawn_blocking(move || job.run(hasher, &store, no_cache)).await;
        let (layer, cached) = match done {
            Ok(done) => done?,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        state.layers.push(layer);
        record(state, format!("{text} # buildkit"), false);
        Ok(cached)
    }

    /// Returns the tree that a COPY takes its files from.
    async fn copy_source(&self, state: &State, copy: &Copy, stage: usize) -> Result<Source, Problem> {
        let opening = |source| Problem::ReadSource {
            path: "/".to_owned(),
            source,
        };
        let exclude = copy.exclude.join("\n");
        let exclude = Ignore::parse(&exclude).map_err(|error| Problem::Pattern(error.0))?;
        let Some(from) = &copy.from else {
            return Ok(Source {
                view: View::open(std::slice::from_ref(&self.request.context)).map_err(opening)?,
                ignore: self.ignore.clone(),
                exclude,
                is_context: true,
            });
        };
        let from = self.word(state, from)?;
        let view = match self.file.stage(&from) {
            Some(number) if number < stage => {
                let built = self.stages[number].as_ref();
                self.view(built.ok_or_else(|| Problem::CopyFromLater(from.clone()))?)?
            }
            Some(_) => return Err(Problem::CopyFromLater(from)),
            None => {
                let image = self.image(&from, None).await?;
                View::open(&self.request.store.layer_dirs(&image)).map_err(opening)?
            }
        };
        Ok(Source {
            view,
            ignore: Ignore::default(),
            exclude,
            is_context: false,
        })
    }

    async fn run(&mut self, state: &mut State, run: &Run, step: &Step, shown: usize) -> Result<bool, BuildError> {
        let command = self.command(state, run);
        let mut hasher = self.key(state, "RUN");
        for argument in &command.arguments {
            hasher.field(argument.as_bytes());
        }
        hasher.field(command.script.as_deref().unwrap_or_default().as_bytes());
        for variable in &command.environment {
            let name = variable.split('=').next().unwrap_or_default();
            if !PROXIES.contains(&name) {
                hasher.field(variable.as_bytes());
            }
        }
        for (name, address) in &command.extra_hosts {
            hasher.field(name.as_bytes());
            hasher.field(address.as_bytes());
        }
        hasher.field(command.directory.as_bytes());
        hasher.field(command.user.as_bytes());
        hasher.field(format!("{:?} {}", command.network, command.privileged).as_bytes());
        let (key, _) = hasher.finish();
        let text = format!("RUN {} # buildkit", command.arguments.join(" "));
        if !self.request.no_cache
            && let Some(CacheRecord { layer: Some(layer), .. }) = self.request.store.cached(&key)?
        {
            state.layers.push(layer);
            record(state, text, false);
            return Ok(true);
        }
        let Some(runtime) = &self.request.runtime else {
            return Err(self.at(Problem::NoRuntime, &step.span));
        };
        let scratch = self.request.store.scratch()?;
        let arguments = command.arguments.join(" ");
        let sink: BuildSink = self.sink.clone();
        let layers = self.directories(state);
        let outcome = run::run(runtime, &layers, &scratch, command, shown, &sink)
            .await
            .map_err(|problem| self.at(problem, &step.span))?;
        if outcome.code != 0 {
            let mut error = self.at(
                Problem::Exit {
                    command: arguments,
                    code: outcome.code,
                },
                &step.span,
            );
            error.output = outcome.last_lines;
            return Err(error);
        }
        let (store, options) = (self.request.store.clone(), self.pack_options());
        let sealed = tokio::task::spawn_blocking(move || store.seal(scratch, options)).await;
        let layer = match sealed {
            Ok(sealed) => sealed?.diff_id,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        self.request.store.remember([made(key, layer.clone())])?;
        state.layers.push(layer);
        record(state, text, false);
        Ok(false)
    }

    fn command(&self, state: &State, run: &Run) -> run::Command {
        let mut script = None;
        let arguments = match &run.command {
            Command::Shell(text) if run.is_script && text.starts_with("#!") => {
                script = Some(text.clone());
                vec![run::SCRIPT.to_owned()]
            }
            command => in_shell(state, command),
        };
        let mut environment = state.config.config.env.clone();
        let has = |environment: &[String], name: &str| {
            environment
                .iter()
                .any(|variable| variable.split('=').next() == Some(name))
        };
        let given = self
            .request
            .arguments
            .iter()
            .filter(|(name, _)| PROXIES.contains(&name.as_str()));
        for (name, value) in state.arguments.iter().chain(given) {
            if !has(&environment, name) {
                environment.push(format!("{name}={value}"));
            }
        }
        if !has(&environment, "PATH") {
            environment.insert(0, crate::runtime::spec::PATH.to_owned());
        }
        let directory = match state.config.config.working_dir.as_str() {
            "" => "/",
            directory => directory,
        };
        run::Command {
            arguments,
            environment,
            directory: directory.to_owned(),
            user: state.config.config.user.clone(),
            script,
            network: match run.network.as_deref() {
                Some("none") => Network::None,
                Some("host") => Network::Host,
                _ => self.request.network,
            },
            extra_hosts: self.request.extra_hosts.clone(),
            shm_size: self.request.shm_size,
            privileged: self.request.privileged,
        }
    }

    /// Begins the key of a step: what it is, and the files it starts from.
    fn key(&self, state: &State, instruction: &str) -> Hasher {
        let mut hasher = Hasher::default();
        hasher.field(b"step 1");
        hasher.field(instruction.as_bytes());
        for layer in &state.layers {
            hasher.field(layer.as_bytes());
        }
        let directory = state.directory.as_deref().unwrap_or(Path::new(""));
        hasher.field(directory.as_os_str().as_encoded_bytes());
        hasher.field(state.directory_state.as_bytes());
        hasher.field(
            self.source_date()
                .map(|date| date.to_string())
                .unwrap_or_default()
                .as_bytes(),
        );
        hasher
    }

    /// Adds the layer with this key, made if it is not in the cache; returns whether it was.
    fn layer(
        &self,
        state: &mut State,
        hasher: Hasher,
        make: impl FnOnce() -> Result<LayerInfo, Problem>,
    ) -> Result<bool, Problem> {
        let (key, _) = hasher.finish();
        let (layer, cached) = cached_or(&self.request.store, self.request.no_cache, key, make)?;
        state.layers.push(layer);
        Ok(cached)
    }

    fn seal(&self, scratch: Scratch) -> Result<LayerInfo, Problem> {
        Ok(self.request.store.seal(scratch, self.pack_options())?)
    }

    fn pack_options(&self) -> PackOptions {
        PackOptions {
            latest: self.source_date(),
        }
    }

    fn pairs(&self, state: &State, pairs: &[(String, String)]) -> Result<Vec<(String, String)>, Problem> {
        pairs
            .iter()
            .map(|(name, value)| Ok((self.word(state, name)?, self.word(state, value)?)))
            .collect()
    }

    fn word(&self, state: &State, text: &str) -> Result<String, Problem> {
        self.expand(state, text, |expander, text| expander.word(text))
    }

    fn words(&self, state: &State, text: &str) -> Result<Vec<String>, Problem> {
        self.expand(state, text, |expander, text| expander.words(text))
    }

    fn expand<T>(
        &self,
        state: &State,
        text: &str,
        how: impl FnOnce(&Expander<'_>, &str) -> Result<T, super::expand::ExpandError>,
    ) -> Result<T, Problem> {
        let environment: BTreeMap<&str, &str> = state
            .config
            .config
            .env
            .iter()
            .filter_map(|variable| variable.split_once('='))
            .collect();
        let expander = Expander {
            escape: self.file.escape,
            // What the image sets comes before what the build was told.
            lookup: &|name| match environment.get(name) {
                Some(value) => Some((*value).to_owned()),
                None => state.arguments.get(name).cloned(),
            },
        };
        how(&expander, text).map_err(|source| Problem::Expand {
            word: text.to_owned(),
            source,
        })
    }
}

/// One COPY or ADD with everything looked up, to be done where it may block.
struct CopyJob {
    store: Store,
    sources: Vec<String>,
    documents: Vec<(String, String)>,
    destination: PathBuf,
    into_directory: bool,
    owner: Option<(u32, u32)>,
    mode: Option<u32>,
    parents: bool,
    unpacks: bool,
    from: Source,
    below: View,
    latest: Option<i64>,
}

impl CopyJob {
    fn run(self, mut hasher: Hasher, store: &Store, no_cache: bool) -> Result<(String, bool), Problem> {
        let mut selected = Vec::new();
        for word in &self.sources {
            selected.extend(self.from.select(word)?);
        }
        hasher.field(self.destination.as_os_str().as_encoded_bytes());
        hasher.field(
            format!(
                "{} {:?} {:?} {}",
                self.into_directory, self.owner, self.mode, self.parents
            )
            .as_bytes(),
        );
        for (name, data) in &self.documents {
            hasher.field(name.as_bytes());
            hasher.field(data.as_bytes());
        }
        for item in &selected {
            // A file goes under its own name, a directory under the destination's.
            let name = match (item.found.is_directory(), self.parents) {
                (_, true) => item.path.to_string_lossy().into_owned(),
                (true, false) => String::new(),
                (false, false) => item.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            };
            let reading = |source| Problem::ReadSource {
                path: item.found.path.display().to_string(),
                source,
            };
            self.from.digest(&mut hasher, &item.found, &name).map_err(reading)?;
        }
        let (key, _) = hasher.finish();
        cached_or(store, no_cache, key, || self.make(&selected))
    }

    fn make(&self, selected: &[source::Selected]) -> Result<LayerInfo, Problem> {
        let scratch = self.store.scratch()?;
        let mut target = Target::new(&scratch.upper(), &self.below).map_err(writing(&scratch))?;
        target.owner = self.owner;
        target.mode = self.mode;
        target.made = MADE;
        let into_directory = self.into_directory || selected.len() > 1;
        for item in selected {
            let found = &item.found;
            if self.unpacks && found.kind() == FileKind::RegularFile && self.unpack(found, &mut target)? {
                continue;
            }
            let mut destination = self.destination.clone();
            if self.parents {
                let inside = item.path.strip_prefix("/").unwrap_or(&item.path);
                destination.push(inside);
            } else if !found.is_directory() && (into_directory || target.is_directory(&destination)?) {
                destination.push(item.path.file_name().unwrap_or_default());
            }
            target.copy(&self.from, found, &destination)?;
        }
        for (name, data) in &self.documents {
            let mut destination = self.destination.clone();
            if into_directory || target.is_directory(&destination)? {
                destination.push(name);
            }
            target.write(&destination, data.as_bytes())?;
        }
        Ok(self.store.seal(scratch, PackOptions { latest: self.latest })?)
    }

    /// Unpacks a file if it is an archive; returns whether it was.
    fn unpack(&self, found: &image::Found, target: &mut Target<'_>) -> Result<bool, Problem> {
        use std::io::Read as _;
        let path = found.path.display().to_string();
        let reading = |source| Problem::ReadSource {
            path: path.clone(),
            source,
        };
        let mut first = Vec::new();
        found
            .open()
            .map_err(reading)?
            .take(6)
            .read_to_end(&mut first)
            .map_err(reading)?;
        if first.starts_with(b"\xfd7zXZ") || first.starts_with(b"BZh") {
            return Err(Problem::ArchiveKind(path));
        }
        // What is compressed but no tar, or not even that, is copied as it is.
        let Ok(mut tar) = image::decompress(found.open().map_err(reading)?) else {
            return Ok(false);
        };
        let mut header = tar::Header::new_old();
        if tar.read_exact(header.as_mut_bytes()).is_err() || !is_tar_header(&header) {
            return Ok(false);
        }
        let scratch = self.store.scratch()?;
        let limits = Limits::of(&scratch.upper()).map_err(writing(&scratch))?;
        let tar = std::io::Cursor::new(header.as_bytes().to_vec()).chain(tar);
        image::unpack_layer(tar, &scratch.upper(), limits).map_err(|source| Problem::Unpack {
            path: path.clone(),
            source,
        })?;
        let unpacked = Source {
            view: View::open(&[scratch.upper()]).map_err(reading)?,
            ignore: Ignore::default(),
            exclude: Ignore::default(),
            is_context: false,
        };
        if let Some(root) = unpacked.view.find(Path::new("/")).map_err(reading)? {
            target.copy(&unpacked, &root, &self.destination)?;
        }
        Ok(true)
    }
}

/// Returns the layer with this key, made if it is not in the cache, and whether it was.
fn cached_or(
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

fn made(key: String, layer: String) -> (String, CacheRecord) {
    let now = jiff::Timestamp::now().as_second();
    let record = CacheRecord {
        layer: Some(layer),
        made: now,
        used: now,
    };
    (key, record)
}

fn is_tar_header(header: &tar::Header) -> bool {
    let bytes = header.as_bytes();
    // The checksum field itself counts as spaces.
    let sum: u32 = bytes
        .iter()
        .enumerate()
        .map(|(at, byte)| u32::from(if (148..156).contains(&at) { b' ' } else { *byte }))
        .sum();
    bytes[0] != 0 && header.cksum().is_ok_and(|stated| stated == sum)
}

fn in_shell(state: &State, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(text) => {
            let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
            let mut words = state.config.config.shell.clone().unwrap_or_else(default);
            words.push(text.clone());
            words
        }
    }
}

fn json(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}

fn set_environment(environment: &mut Vec<String>, name: &str, value: &str) {
    let variable = format!("{name}={value}");
    let known = environment
        .iter_mut()
        .find(|known| known.split('=').next() == Some(name));
    match known {
        Some(known) => *known = variable,
        None => environment.push(variable),
    }
}

/// Returns a path taken from the working directory, without `.` and `..`.
fn absolute(working_directory: &str, path: &str) -> PathBuf {
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

/// Returns the ports of one word of EXPOSE as the config has them (`80/tcp`).
fn expose(text: &str) -> Result<Vec<String>, Problem> {
    let wrong = || Problem::Port(text.to_owned());
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(wrong());
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(wrong());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn healthcheck(command: &Command, flags: &[(String, String)]) -> Result<image::Healthcheck, Problem> {
    let test = match command {
        Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
        Command::Exec(words) => ["CMD".to_owned()].into_iter().chain(words.iter().cloned()).collect(),
    };
    let mut check = image::Healthcheck {
        test,
        ..image::Healthcheck::default()
    };
    for (name, value) in flags {
        match name.as_str() {
            "interval" => check.interval = duration(value)?,
            "timeout" => check.timeout = duration(value)?,
            "start-period" => check.start_period = duration(value)?,
            "start-interval" => check.start_interval = duration(value)?,
            "retries" => {
                check.retries = value
                    .parse()
                    .ok()
                    .filter(|count| *count >= 0)
                    .ok_or_else(|| Problem::Flag(format!("--retries: {value:?}")))?;
            }
            other => return Err(Problem::Syntax(format!("unknown flag: --{other}"))),
        }
    }
    Ok(check)
}

/// Reads a duration as Go writes it (`1m30s`, `1.5h`), in nanoseconds.
fn duration(text: &str) -> Result<i64, Problem> {
    let wrong = || Problem::Duration(text.to_owned());
    let mut rest = text;
    let mut total = 0.0_f64;
    if rest == "0" {
        return Ok(0);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let letters = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(wrong()),
        };
        total += number * scale;
        rest = after;
    }
    if text.is_empty() || total > 9e18 {
        return Err(wrong());
    }
    Ok(total as i64)
}

fn writing(scratch: &Scratch) -> impl FnOnce(std::io::Error) -> Problem {
    let path = scratch.path().to_owned();
    move |source| Problem::Write { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_durations_and_paths_are_read_as_docker_reads_them() {
        assert_eq!(expose("80").unwrap(), ["80/tcp"]);
        assert_eq!(expose("80-81/UDP").unwrap(), ["80/udp", "81/udp"]);
        for wrong in ["", "0", "80/x", "81-80", "65536", "a"] {
            assert!(expose(wrong).is_err(), "{wrong}");
        }
        assert_eq!(duration("1m30s").unwrap(), 90_000_000_000);
        assert_eq!(duration("1.5s").unwrap(), 1_500_000_000);
        for wrong in ["", "5", "s", "5x", "-1s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(absolute("/a/b", "c/../d/./e"), Path::new("/a/b/d/e"));
        assert_eq!(absolute("", "x"), Path::new("/x"));
        assert_eq!(absolute("/a", "/x/"), Path::new("/x"));
    }
}
