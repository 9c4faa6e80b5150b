//! The build as a whole: which stages are needed, what they start from, and the image at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::dockerfile::{Dockerfile, Instruction, Step};
use super::error::{BuildError, Place, Problem};
use super::expand::Expander;
use super::ignore::Ignore;
use super::progress::{BuildEvent, BuildSink};
use super::{BuildRequest, DockerfileSource};
use crate::image::{CacheRecord, Hasher, History, Image, ImageConfig, ImageError, Platform, Source, View};

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
    /// `ARG`s that have a value.
    pub arguments: BTreeMap<String, String>,
    /// Whether this stage set CMD itself: an ENTRYPOINT drops one that was inherited.
    pub has_command: bool,
    pub parent: Option<String>,
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
    pub stages: Vec<Option<State>>,
    steps: usize,
}

/// Builds an image and returns it; `sink` hears of every step.
pub async fn build(request: BuildRequest, sink: BuildSink) -> Result<Image, BuildError> {
    let working = request.store.working()?;
    let (text, file_name, dockerfile_path) = read_dockerfile(&request)?;
    let file = Dockerfile::parse(&text).map_err(|error| {
        let place = place_in(&text, &file_name, &error.span);
        BuildError {
            problem: Box::new(Problem::Syntax(error.message)),
            place: Some(Box::new(place)),
            output: Vec::new(),
        }
    })?;
    for note in &file.notes {
        sink(BuildEvent::Note(note.clone()));
    }
    let ignore = read_ignore(&request, dockerfile_path.as_deref())?;
    let mut build = Build {
        stages: file.stages.iter().map(|_| None).collect(),
        request,
        file,
        file_name,
        ignore,
        sink,
        global_arguments: BTreeMap::new(),
        steps: 0,
    };
    build.global_arguments()?;
    let target = match &build.request.target {
        None => build.file.stages.len() - 1,
        Some(name) => build
            .file
            .stage(name)
            .ok_or_else(|| BuildError::from(Problem::Target(name.clone())))?,
    };
    for stage in build.needed(target)? {
        build.stage(stage).await?;
    }
    let image = build.finish(target)?;
    drop(working);
    Ok(image)
}

impl Build {
    /// Begins a step of the progress and returns its number.
    pub fn begin(&mut self, name: String) -> usize {
        self.steps += 1;
        (self.sink)(BuildEvent::Started { step: self.steps, name });
        self.steps
    }

    /// Returns an error with the lines of the Dockerfile it is about.
    pub fn at(&self, problem: Problem, span: &std::ops::Range<usize>) -> BuildError {
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
        for (kind, platform) in [("BUILD", host), ("TARGET", target)] {
            let mut set = |name: &str, value: String| {
                self.global_arguments.insert(format!("{kind}{name}"), value);
            };
            set("PLATFORM", platform.to_string());
            set("OS", platform.os.clone());
            set("ARCH", platform.architecture.clone());
            set("VARIANT", platform.variant.clone().unwrap_or_default());
        }
        for (name, default) in self.file.arguments.clone() {
            let value = match (self.request.arguments.get(&name), default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand_globally(&default)?),
                (None, None) => None,
            };
            if let Some(value) = value {
                self.global_arguments.insert(name, value);
            }
        }
        Ok(())
    }

    fn expand_globally(&self, word: &str) -> Result<String, BuildError> {
        let expander = Expander {
            escape: self.file.escape,
            lookup: &|name| self.global_arguments.get(name).cloned(),
        };
        expander.word(word).map_err(|source| {
            let word = word.to_owned();
            Problem::Expand { word, source }.into()
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
            let base = self.expand_globally(&stage.base)?;
            left.extend(self.earlier_by_name(&base, number));
            for step in &stage.steps {
                let Instruction::Copy(copy) = &step.instruction else {
                    continue;
                };
                let Some(from) = &copy.from else { continue };
                // One with a variable in it is known only when its turn comes; then every stage may be needed.
                let named = if from.contains('$') {
                    (0..number).collect()
                } else {
                    self.file.stage(from).into_iter().collect::<Vec<_>>()
                };
                if named.iter().any(|named| *named >= number) {
                    return Err(self.at(Problem::CopyFromLater(from.clone()), &step.span));
                }
                left.extend(named);
            }
        }
        // A stage can only need earlier ones, so the order of the file is an order to build in.
        Ok(needed.into_iter().collect())
    }

    fn earlier_by_name(&self, name: &str, before: usize) -> Option<usize> {
        self.file.stages[..before].iter().rposition(|stage| {
            stage
                .name
                .as_deref()
                .is_some_and(|known| known.eq_ignore_ascii_case(name))
        })
    }

    async fn stage(&mut self, number: usize) -> Result<(), BuildError> {
        let stage = self.file.stages[number].clone();
        let base = self.expand_globally(&stage.base)?;
        if base.is_empty() {
            return Err(self.at(Problem::BlankBase(stage.base.clone()), &stage.span));
        }
        let platform = match &stage.platform {
            Some(text) => Platform::parse(&self.expand_globally(text)?),
            None => self.request.platform.clone(),
        };
        let mut state = match self.earlier_by_name(&base, number) {
            Some(earlier) => {
                let known = self.stages[earlier].clone();
                let mut state = known.expect("needed stages are built in the order of the file");
                state.arguments.clear();
                state.has_command = false;
                state
            }
            None => self
                .base(&base, platform)
                .await
                .map_err(|problem| self.at(problem, &stage.span))?,
        };
        let mut steps = self.triggers(&mut state, &stage.span)?;
        steps.extend(stage.steps);
        let total = 1 + steps.iter().filter(|step| makes_files(&step.instruction)).count();
        let label = match (&stage.name, self.file.stages.len()) {
            (Some(name), _) => format!("{name} "),
            (None, 1) => String::new(),
            (None, _) => format!("stage-{number} "),
        };
        let from = self.begin(format!("[{label}1/{total}] FROM {base}"));
        (self.sink)(BuildEvent::Done {
            step: from,
            seconds: 0.0,
        });
        let mut position = 1;
        for step in steps {
            if !makes_files(&step.instruction) {
                self.configure(&mut state, &step)
                    .map_err(|problem| self.at(problem, &step.span))?;
                continue;
            }
            position += 1;
            let shown = self.begin(format!("[{label}{position}/{total}] {}", step.text));
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
        self.stages[number] = Some(state);
        Ok(())
    }

    /// Takes the base image's ONBUILD instructions, which are this stage's first.
    fn triggers(&self, state: &mut State, span: &std::ops::Range<usize>) -> Result<Vec<Step>, BuildError> {
        let mut steps = Vec::new();
        for trigger in std::mem::take(&mut state.config.config.on_build) {
            let parsed = Dockerfile::parse(&format!("FROM scratch\n{trigger}\n"))
                .map_err(|error| self.at(Problem::Syntax(error.message), span))?;
            for mut step in parsed.stages.into_iter().flat_map(|stage| stage.steps) {
                step.span = span.clone();
                steps.push(step);
            }
        }
        Ok(steps)
    }

    /// Returns what an image gives a stage to start from.
    async fn base(&self, name: &str, platform: Option<Platform>) -> Result<State, Problem> {
        if name == "scratch" {
            return Ok(State {
                config: ImageConfig::scratch(),
                layers: Vec::new(),
                directory: None,
                directory_state: String::new(),
                arguments: BTreeMap::new(),
                has_command: false,
                parent: None,
            });
        }
        let image = self.image(name, platform).await?;
        let mut config = (*image.config).clone();
        config.rootfs = Default::default();
        Ok(State {
            config,
            layers: image.layers.iter().map(|layer| layer.diff_id.clone()).collect(),
            directory_state: image.directory.as_deref().map(directory_state).unwrap_or_default(),
            directory: image.directory,
            arguments: BTreeMap::new(),
            has_command: false,
            parent: Some(image.id),
        })
    }

    /// Finds an image here or at its registry.
    pub async fn image(&self, name: &str, platform: Option<Platform>) -> Result<Image, Problem> {
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
        if !self.request.pull {
            match self.request.store.get(name) {
                Err(ImageError::NotFound(_)) => {}
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
        let layers = state.layers.iter().rev();
        let mut directories: Vec<PathBuf> = layers.map(|layer| self.request.store.layer_directory(layer)).collect();
        directories.extend(state.directory.clone());
        directories
    }

    fn finish(&mut self, target: usize) -> Result<Image, BuildError> {
        let state = self.stages[target].take().expect("the target was built last");
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
        let made = match (self.source_date(), self.request.store.cached(&key)?) {
            (Some(date), _) => date,
            (None, Some(record)) if !self.request.no_cache => record.made,
            (None, _) => {
                let record = CacheRecord {
                    layer: None,
                    made: now,
                    used: now,
                };
                self.request.store.remember([(key, record)])?;
                now
            }
        };
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
        Ok(image)
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

/// A directory of this machine cannot be digested at every build. What installing or removing software changes is looked at.
fn directory_state(directory: &Path) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let mut hasher = Hasher::default();
    for path in [
        "",
        "bin",
        "etc",
        "lib",
        "usr",
        "usr/bin",
        "usr/lib",
        "usr/local/bin",
        "var/lib/dpkg/status",
    ] {
        if let Ok(found) = directory.join(path).metadata() {
            hasher.field(path.as_bytes());
            hasher.field(&found.ino().to_le_bytes());
            // The top itself changes with every file that anybody makes there.
            if !path.is_empty() && path != "etc" {
                hasher.field(&found.mtime().to_le_bytes());
            }
        }
    }
    hasher.finish().0
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

fn read_ignore(request: &BuildRequest, dockerfile: Option<&Path>) -> Result<Ignore, BuildError> {
    let beside = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in beside.into_iter().chain([request.context.join(".dockerignore")]) {
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok(Ignore::parse(&text).map_err(|error| Problem::Pattern(error.0))?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                let path = path.display().to_string();
                return Err(Problem::ReadContext { path, source }.into());
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
