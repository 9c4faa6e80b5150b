//! The build as a whole: which stages are needed, what they start from, and the image at the end.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio::sync::OnceCell;

use super::dockerfile::{Dockerfile, Step};
use super::error::{BuildError, Place, Problem};
use super::expand::Expander;
use super::ignore::Ignore;
use super::instruction::Instruction;
use super::mount::Mount;
use super::progress::{BuildEvent, BuildSink};
use super::turn::turn;
use super::{BuildRequest, CachePlace, DockerfileSource, Named, fingerprint};
use crate::image::{CacheRecord, CachedStep, Hasher, History, Image, ImageConfig, ImageError, Platform, Source, View};

/// What a stage has become so far.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub config: ImageConfig,
    /// Bottom first.
    pub layers: Vec<String>,
    /// The directory of this machine under the layers.
    pub directory: Option<PathBuf>,
    /// What tells one state of that directory from another.
    pub directory_state: String,
    /// What steps have as their environment: the image's, and `ARG`s that have a value.
    pub environment: Vec<(String, String)>,
    /// Every `ARG` so far, and its value.
    pub arguments: Vec<(String, Option<String>)>,
    /// Whether this stage set CMD itself: an ENTRYPOINT drops one that was inherited.
    pub has_command: bool,
    pub parent: Option<String>,
}

impl State {
    /// Returns an image's files and config as a stage begins with them.
    pub fn of(image: Image) -> Self {
        let mut config = (*image.config).clone();
        config.rootfs = Default::default();
        let directory_state = image
            .directory
            .as_deref()
            .map(fingerprint::directory)
            .unwrap_or_default();
        Self {
            config,
            layers: image.layers.iter().map(|layer| layer.diff_id.clone()).collect(),
            directory_state,
            directory: image.directory,
            environment: Vec::new(),
            arguments: Vec::new(),
            has_command: false,
            parent: Some(image.id),
        }
    }

    /// Returns the beginning of a stage from nothing.
    pub fn scratch(platform: Option<&Platform>) -> Self {
        let mut config = ImageConfig::scratch();
        if let Some(platform) = platform {
            config.os.clone_from(&platform.os);
            config.architecture.clone_from(&platform.architecture);
            config.variant.clone_from(&platform.variant);
        }
        config.config.working_dir = "/".to_owned();
        Self {
            config,
            layers: Vec::new(),
            directory: None,
            directory_state: String::new(),
            environment: Vec::new(),
            arguments: Vec::new(),
            has_command: false,
            parent: None,
        }
    }

    /// Sets a variable that steps see; the one set last is the last.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Makes sure of a PATH, and lets steps see what the image sets.
    fn begin(&mut self) {
        let environment = &mut self.config.config.env;
        let path = crate::runtime::spec::PATH;
        if !environment.iter().any(|variable| variable.starts_with("PATH=")) {
            environment.push(path.to_owned());
        }
        for variable in self.config.config.env.clone() {
            let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
            self.set_variable(name, value);
        }
    }
}

/// Where a stage, or a step, takes files from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum From {
    Scratch,
    Stage(usize),
    Context(Named),
    Image(String),
}

/// A build at work.
pub(super) struct Build {
    pub request: BuildRequest,
    pub file: Dockerfile,
    /// What to call the Dockerfile in messages.
    pub file_name: String,
    pub ignore: Ignore,
    pub sink: BuildSink,
    pub global_arguments: BTreeMap<String, String>,
    stages: Vec<OnceCell<State>>,
    steps: Cell<usize>,
}

/// Builds an image and returns it; `sink` hears of every step.
pub async fn build(request: BuildRequest, sink: BuildSink) -> Result<Image, BuildError> {
    let working = request.store.working()?;
    let mut build = Build::prepare(request, sink)?;
    build.global_arguments()?;
    build.import().await?;
    let target = match &build.request.target {
        None => build.file.stages.len() - 1,
        Some(name) => build
            .file
            .target(name)
            .ok_or_else(|| BuildError::from(Problem::Target(name.clone())))?,
    };
    // Stages that do not need each other are built at the same time.
    let needed = build.needed(target)?;
    futures_util::future::try_join_all(needed.iter().map(|stage| build.stage(*stage))).await?;
    let state = build.stage(target).await?.clone();
    let (image, dated) = build.finish(state)?;
    build.export(&image, dated).await?;
    super::cache::keep_bounded(&build.request.store);
    drop(working);
    Ok(image)
}

impl Build {
    /// Reads the files that say what to build.
    pub(super) fn prepare(request: BuildRequest, sink: BuildSink) -> Result<Self, BuildError> {
        let (text, file_name, dockerfile_path) = read_dockerfile(&request)?;
        let file = Dockerfile::parse(&text).map_err(|error| {
            let place = place_in(&text, &file_name, &error.span);
            BuildError {
                problem: Box::new(Problem::Syntax(error.message)),
                place: Some(Box::new(place)),
                output: Vec::new(),
            }
        })?;
        for note in request.notes.iter().chain(&file.notes) {
            sink(BuildEvent::Note(note.clone()));
        }
        let ignore = read_ignore(&request.context, dockerfile_path.as_deref())?;
        Ok(Self {
            stages: file.stages.iter().map(|_| OnceCell::new()).collect(),
            request,
            file,
            file_name,
            ignore,
            sink,
            global_arguments: BTreeMap::new(),
            steps: Cell::new(0),
        })
    }

    /// Begins a step of the progress and returns its number.
    pub fn begin(&self, name: String) -> usize {
        let step = self.steps.get() + 1;
        self.steps.set(step);
        (self.sink)(BuildEvent::Started { step, name });
        step
    }

    /// Returns an error with the lines of the Dockerfile it is about.
    pub fn at(&self, problem: Problem, span: &Range<usize>) -> BuildError {
        BuildError {
            problem: Box::new(problem),
            place: Some(Box::new(place_in(&self.file.text, &self.file_name, span))),
            output: Vec::new(),
        }
    }

    /// The arguments before the first FROM, and those that every build has.
    fn global_arguments(&mut self) -> Result<(), BuildError> {
        let host = Platform::host();
        let target = self.request.platform.clone().unwrap_or_else(Platform::host);
        let stage = self.request.target.clone().unwrap_or_else(|| "default".to_owned());
        self.global_arguments.insert("TARGETSTAGE".to_owned(), stage);
        for (kind, platform) in [("BUILD", host), ("TARGET", target)] {
            let mut set = |name: &str, value: String| {
                self.global_arguments.insert(format!("{kind}{name}"), value);
            };
            set("PLATFORM", platform.to_string());
            set("OS", platform.os.clone());
            set("OSVERSION", String::new());
            set("ARCH", platform.architecture.clone());
            set("VARIANT", platform.variant.clone().unwrap_or_default());
        }
        // What is given takes the place of what every build has.
        for (name, value) in &mut self.global_arguments {
            if let Some(given) = self.request.arguments.get(name) {
                value.clone_from(given);
            }
        }
        for argument in self.file.arguments.clone() {
            let value = match (self.request.arguments.get(&argument.name), argument.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand_globally(&default, &argument.span)?),
                (None, None) => None,
            };
            if let Some(value) = value {
                self.global_arguments.insert(argument.name, value);
            }
        }
        Ok(())
    }

    fn expand_globally(&self, word: &str, span: &Range<usize>) -> Result<String, BuildError> {
        let expander = Expander {
            escape: self.file.escape,
            lookup: &|name| self.global_arguments.get(name).cloned(),
        };
        expander.word(word).map_err(|source| {
            let word = word.to_owned();
            self.at(Problem::Expand { word, source }, span)
        })
    }

    /// Returns the stages that a stage needs, itself last, each after what it needs.
    fn needed(&self, target: usize) -> Result<Vec<usize>, BuildError> {
        let mut needed = BTreeSet::new();
        let mut left = vec![target];
        while let Some(number) = left.pop() {
            if !needed.insert(number) {
                continue;
            }
            let stage = &self.file.stages[number];
            let base = self.expand_globally(&stage.base, &stage.span)?;
            if let From::Stage(earlier) = self.base_of(&base, number) {
                left.push(earlier);
            }
            for step in &stage.steps {
                for from in self.sources(&step.instruction) {
                    match self.from(&from, number) {
                        Ok(From::Stage(earlier)) => left.push(earlier),
                        Ok(_) => {}
                        Err(problem) => return Err(self.at(problem, &step.span)),
                    }
                }
            }
        }
        // A stage can only need earlier ones, so the order of the file is an order to build in.
        Ok(needed.into_iter().collect())
    }

    /// Returns what an instruction names as places to take files from.
    fn sources(&self, instruction: &Instruction) -> Vec<String> {
        match instruction {
            Instruction::Copy(copy) => copy.from.iter().cloned().collect(),
            Instruction::Run(run) => {
                let mounts = run.mounts.iter().filter_map(|text| Mount::parse(text, None).ok());
                let from = mounts.map(|mount| mount.from);
                from.filter(|from| !from.is_empty()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns what a name after FROM stands for.
    fn base_of(&self, name: &str, stage: usize) -> From {
        if let Some(named) = self.request.context_named(name) {
            return From::Context(named.clone());
        }
        if let Some(earlier) = self.file.named(name, stage) {
            return From::Stage(earlier);
        }
        match name {
            "scratch" => From::Scratch,
            image => From::Image(image.to_owned()),
        }
    }

    /// Returns what `--from=` stands for in a stage.
    pub fn from(&self, name: &str, stage: usize) -> Result<From, Problem> {
        if let Ok(number) = name.parse::<usize>() {
            return match number {
                number if number >= self.file.stages.len() => Err(Problem::StageIndex(number)),
                number if number >= stage => Err(self.copied_later(name, stage)),
                number => Ok(From::Stage(number)),
            };
        }
        if name.contains('$') {
            return Err(Problem::FromVariable);
        }
        let from = self.base_of(name, stage);
        if matches!(from, From::Image(_)) && self.file.named(name, self.file.stages.len()).is_some() {
            return Err(self.copied_later(name, stage));
        }
        Ok(from)
    }

    fn copied_later(&self, name: &str, stage: usize) -> Problem {
        let this = self.file.stages[stage].name.clone();
        let this = this.unwrap_or_else(|| format!("stage-{stage}"));
        if name.eq_ignore_ascii_case(&this) || name == stage.to_string() {
            return Problem::Circular(this);
        }
        Problem::CopyFromLater(name.to_owned(), this)
    }

    /// Builds a stage, once; whoever else needs it waits.
    pub async fn stage(&self, number: usize) -> Result<&State, BuildError> {
        self.stages[number]
            .get_or_try_init(|| Box::pin(self.make_stage(number)))
            .await
    }

    async fn make_stage(&self, number: usize) -> Result<State, BuildError> {
        let stage = &self.file.stages[number];
        let base = self.expand_globally(&stage.base, &stage.span)?;
        if base.is_empty() {
            return Err(self.at(Problem::BlankBase(stage.base.clone()), &stage.span));
        }
        let platform = match &stage.platform {
            Some(text) => {
                let text = self.expand_globally(text, &stage.span)?;
                let platform = Platform::parse(&text);
                Some(platform.ok_or_else(|| self.at(Problem::Platform(text), &stage.span))?)
            }
            None => self.request.platform.clone(),
        };
        let from = self.base_of(&base, number);
        let mut state = match &from {
            From::Stage(earlier) => {
                let mut state = self.stage(*earlier).await?.clone();
                state.has_command = false;
                state
            }
            from => self
                .state_of(from, platform)
                .await
                .map_err(|problem| self.at(problem, &stage.span))?,
        };
        state.begin();
        let mut steps = self.triggers(&mut state, &stage.span)?;
        steps.extend(stage.steps.iter().cloned());
        let is_stage = matches!(from, From::Stage(_) | From::Scratch);
        let total = usize::from(!is_stage) + steps.iter().filter(|step| makes_files(&step.instruction)).count();
        let label = match (&stage.name, self.file.stages.len()) {
            (Some(name), _) => format!("{name} "),
            (None, 1) => String::new(),
            (None, _) => format!("stage-{number} "),
        };
        let width = total.max(1).to_string().len();
        let mut position = 0;
        if !is_stage {
            position += 1;
            let base = match &from {
                From::Image(name) => crate::image::Reference::parse(name).map(|name| name.tagged().to_string()),
                _ => Ok(base.clone()),
            };
            let base = base.unwrap_or_else(|_| stage.base.clone());
            let step = self.begin(format!("[{label}{position:>width$}/{total}] FROM {base}"));
            (self.sink)(BuildEvent::Cached { step });
        }
        for step in steps {
            if !makes_files(&step.instruction) {
                self.configure(&mut state, &step)
                    .map_err(|problem| self.at(problem, &step.span))?;
                continue;
            }
            position += 1;
            let trigger = if step.is_trigger { "ONBUILD " } else { "" };
            let text = self.shown(&state, &step);
            let shown = self.begin(format!("[{label}{position:>width$}/{total}] {trigger}{text}"));
            let begun = Instant::now();
            let done = self.files(&mut state, &step, number, shown).await;
            (self.sink)(match &done {
                Ok(true) => BuildEvent::Cached { step: shown },
                Ok(false) => BuildEvent::Done {
                    step: shown,
                    seconds: begun.elapsed().as_secs_f64(),
                },
                Err(error) => BuildEvent::Failed {
                    step: shown,
                    message: error.problem.to_string(),
                },
            });
            done?;
        }
        Ok(state)
    }

    /// Takes the base image's ONBUILD instructions, which are this stage's first.
    fn triggers(&self, state: &mut State, span: &Range<usize>) -> Result<Vec<Step>, BuildError> {
        let triggers = std::mem::take(&mut state.config.config.on_build);
        let steps = triggers.iter().map(|trigger| {
            Dockerfile::trigger(trigger, span).map_err(|message| self.at(Problem::Syntax(message), span))
        });
        steps.collect()
    }

    /// Returns the files and the config that something gives: an image, a directory, a stage.
    pub async fn state_of(&self, from: &From, platform: Option<Platform>) -> Result<State, Problem> {
        match from {
            From::Scratch => Ok(State::scratch(platform.as_ref())),
            From::Stage(number) => match self.stage(*number).await {
                Ok(state) => Ok(state.clone()),
                Err(error) => Err(*error.problem),
            },
            From::Image(name) => Ok(State::of(self.image(name, platform).await?)),
            From::Context(Named::Image(name)) => Ok(State::of(self.image(name, platform).await?)),
            From::Context(Named::Directory(directory)) => {
                let mut state = State::scratch(platform.as_ref());
                state.layers.push(self.layer_of_directory(directory).await?);
                Ok(state)
            }
        }
    }

    /// Finds an image here or at its registry.
    async fn image(&self, name: &str, platform: Option<Platform>) -> Result<Image, Problem> {
        let source = Source::parse(name).map_err(|source| Problem::BaseName {
            name: name.to_owned(),
            source,
        })?;
        let source = source.absolute(&self.request.context);
        let failed = |source| Problem::Base {
            name: name.to_owned(),
            source,
        };
        let silent = crate::image::silent();
        let Source::Registry(reference) = &source else {
            return self
                .request
                .store
                .resolve(&source.to_string(), &silent)
                .await
                .map_err(failed);
        };
        // Of several builds on the same image one pulls it.
        let _turn = turn(&self.request.store, &format!("pull {name}")).await;
        if !self.request.pull {
            match self.request.store.get(name) {
                Err(ImageError::NotFound(_) | ImageError::Damaged { .. }) => {}
                Ok(image) if image.check().is_err() => {}
                other => return other.map_err(failed),
            }
        }
        let mut options = self.request.pull_options.clone();
        options.platform = platform.or(options.platform);
        self.request
            .store
            .pull(reference, &options, &silent)
            .await
            .map_err(failed)
    }

    /// Returns a view of a stage's files.
    pub fn view(&self, state: &State) -> Result<View, Problem> {
        View::open(&self.directories(state)).map_err(|source| Problem::ReadSource {
            path: "/".to_owned(),
            source,
        })
    }

    /// Returns the directories of a stage's layers, top first.
    pub fn directories(&self, state: &State) -> Vec<PathBuf> {
        let layers = state.layers.iter().rev().map(String::as_str);
        let mut directories = self.request.store.layer_directories(layers);
        let below = state.directory.iter();
        directories.extend(below.flat_map(|directory| self.request.store.directory_dirs(directory)));
        directories
    }

    /// Returns the layers of all stages that were built.
    pub fn layers(&self) -> impl Iterator<Item = String> {
        let states = self.stages.iter().filter_map(OnceCell::get);
        states.flat_map(|state| state.layers.iter().cloned())
    }

    /// Returns the image, and what the cache has of when it was made.
    fn finish(&self, state: State) -> Result<(Image, Option<CachedStep>), BuildError> {
        let step = self.begin("exporting to image".to_owned());
        let begun = Instant::now();
        let mut config = state.config;
        config.config.labels.extend(self.request.labels.clone());
        config.rootfs.diff_ids = state.layers;
        config.rootfs.directory = state.directory.map(|directory| directory.display().to_string());
        config.created = None;
        // The same image is the same, whenever it is built: it has the time at which it was first.
        let mut hasher = Hasher::default();
        hasher.field(b"image");
        hasher.field(&serde_json::to_vec(&config).map_err(|source| ImageError::Document {
            what: "the image config".to_owned(),
            source,
        })?);
        let (key, _) = hasher.finish();
        let now = jiff::Timestamp::now().as_second();
        let source_date = self.source_date();
        let made = match (source_date, self.request.store.cached(&key)?) {
            (Some(date), _) => date,
            (None, Some(record)) if !self.request.no_cache => record.made,
            (None, _) => {
                let record = CacheRecord {
                    layer: None,
                    made: now,
                    used: now,
                };
                self.request.store.remember([(key.clone(), record)])?;
                now
            }
        };
        let dated = source_date.is_none().then_some(CachedStep { key, layer: None, made });
        if self
            .request
            .cache_to
            .iter()
            .any(|target| target.place == CachePlace::Inline)
        {
            let layers = config.rootfs.diff_ids.iter().cloned().collect();
            config.cache = self.steps_of(&layers)?;
            config.cache.extend(dated.clone());
        }
        let made = jiff::Timestamp::from_second(made)
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            .to_string();
        for history in &mut config.history {
            history.created.get_or_insert_with(|| made.clone());
        }
        config.created = Some(made);
        let image = self
            .request
            .store
            .add(&config, &self.request.tags, state.parent.as_deref())?;
        let output = |text: String| BuildEvent::Output {
            step,
            stderr: false,
            text,
        };
        (self.sink)(output(format!("writing image {}\n", image.id)));
        for tag in &self.request.tags {
            (self.sink)(output(format!("naming to {tag}\n")));
        }
        (self.sink)(BuildEvent::Done {
            step,
            seconds: begun.elapsed().as_secs_f64(),
        });
        Ok((image, dated))
    }

    /// Returns `SOURCE_DATE_EPOCH`, after which nothing of the image is to be dated.
    pub fn source_date(&self) -> Option<i64> {
        self.request.arguments.get("SOURCE_DATE_EPOCH")?.parse().ok()
    }
}

/// Returns whether an instruction can change files, and so is a step of the progress.
fn makes_files(instruction: &Instruction) -> bool {
    matches!(
        instruction,
        Instruction::Run(_) | Instruction::Copy(_) | Instruction::Workdir(_)
    )
}

/// Adds what an instruction did to the image's history.
pub(super) fn record(state: &mut State, text: String, empty_layer: bool) {
    state.config.history.push(History {
        created: None,
        created_by: Some(text),
        comment: Some("buildkit.dockerfile.v0".to_owned()),
        empty_layer,
        ..History::default()
    });
}

fn read_dockerfile(request: &BuildRequest) -> Result<(String, String, Option<PathBuf>), BuildError> {
    if !request.context.is_dir() {
        return Err(Problem::Context(request.context.clone()).into());
    }
    match &request.dockerfile {
        DockerfileSource::Inline(text) => Ok((text.clone(), "Dockerfile".to_owned(), None)),
        DockerfileSource::Path(path) => {
            let path = request.context.join(path);
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).map_err(|source| Problem::ReadDockerfile {
                path: path.display().to_string(),
                source,
            })?;
            Ok((text, name, Some(path)))
        }
    }
}

/// Reads what of a context stays behind: the Dockerfile's own rules, else the directory's.
pub(super) fn read_ignore(context: &Path, dockerfile: Option<&Path>) -> Result<Ignore, Problem> {
    let beside = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in beside.into_iter().chain([context.join(".dockerignore")]) {
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ignore::parse(&text).map_err(|error| Problem::Pattern(error.0)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                let path = path.display().to_string();
                return Err(Problem::ReadContext { path, source });
            }
        }
    }
    Ok(Ignore::default())
}

/// Returns the lines of an instruction, with one before and one after.
fn place_in(text: &str, file: &str, span: &std::ops::Range<usize>) -> Place {
    let begin = span.start.min(text.len());
    let end = span.end.clamp(begin, text.len());
    let line_of = |offset: usize| text[..offset].matches('\n').count() + 1;
    let (first, last) = (line_of(begin), line_of(end));
    let column = text[..begin].rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let lines: Vec<(usize, String)> = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.to_owned()))
        .filter(|(number, _)| (first.saturating_sub(1)..=last + 1).contains(number))
        .collect();
    let length = text[begin..end].lines().next().unwrap_or_default().chars().count();
    Place {
        file: file.to_owned(),
        line: first,
        column,
        lines,
        length,
    }
}
