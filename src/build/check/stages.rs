//! Stages in their order: what each begins with, which variables its instructions know, and what they do with them.

use std::collections::{BTreeMap, BTreeSet};

use super::variables::{Expanded, Variables, suggestion};
use super::{Check, Failure, Lines, Placed, rules};
use crate::build::expand::ExpandError;
use crate::build::instruction::{Command, Copy, Instruction, Pair};
use crate::image::Reference;

/// Those that any Dockerfile may ask for, by what follows `BUILD` and `TARGET`.
const PLATFORM_PARTS: [&str; 5] = ["PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT"];

/// Variables of scans, which are asked for and never set here.
const SCANS: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a stage is at some point; a stage that begins with another one goes on from its end.
#[derive(Debug, Clone, Default)]
struct State {
    environment: Variables,
    /// `ARG` without a value.
    declared: BTreeSet<String>,
    has_workdir: bool,
    has_shell: bool,
}

/// Where an instruction stood that counts only once in a stage.
#[derive(Default)]
struct Once(BTreeMap<&'static str, Lines>);

impl Check<'_> {
    /// Returns the images that stages begin with.
    pub(super) fn base_images(&self) -> Vec<String> {
        let global = self.global(true);
        let mut images = Vec::new();
        for (index, stage) in self.stages.iter().enumerate() {
            let Ok(expanded) = global.expand(&stage.base, self.escape) else {
                continue;
            };
            let name = expanded.value;
            let is_image = is_name(&name) && name != "scratch" && self.stage_named(&name, index).is_none();
            if is_image && !images.contains(&name) {
                images.push(name);
            }
        }
        images
    }

    /// Walks through the stages that are to be built.
    pub(super) fn stages(&mut self) -> Result<(), Failure> {
        self.defaults();
        let global = self.global(true);
        let mut bases = Vec::new();
        for index in 0..self.stages.len() {
            bases.push(self.begin(index, &global)?);
        }
        let reached = self.reached(&bases)?;
        let mut states: Vec<State> = Vec::new();
        for (index, base) in bases.iter().enumerate() {
            let mut state = match self.stage_named(base, index) {
                Some(before) => states.get(before).cloned().unwrap_or_default(),
                None => self.state_of(base),
            };
            if reached.contains(&index) {
                let steps = std::mem::take(&mut self.stages[index].steps);
                let mut once = Once::default();
                let mut result = Ok(());
                for step in &steps {
                    result = self.step(step, &mut state, &mut once);
                    if result.is_err() {
                        break;
                    }
                }
                self.stages[index].steps = steps;
                result?;
            }
            states.push(state);
        }
        Ok(())
    }

    fn stage_named(&self, name: &str, before: usize) -> Option<usize> {
        self.stages[..before].iter().rposition(|stage| stage.is_named(name))
    }

    /// Returns what `FROM` can ask for: the platforms, and `ARG` before the first stage.
    fn global(&self, with_given: bool) -> Variables {
        let mut global = Variables::default();
        let mut platform = self.question.platform.split('/');
        let (system, architecture) = (platform.next().unwrap_or("linux"), platform.next().unwrap_or("amd64"));
        let variant = platform.next().unwrap_or_default();
        for side in ["BUILD", "TARGET"] {
            for part in PLATFORM_PARTS {
                let value = match part {
                    "PLATFORM" => self.question.platform,
                    "OS" => system,
                    "ARCH" => architecture,
                    "VARIANT" => variant,
                    _ => "",
                };
                global.set(&format!("{side}{part}"), value);
            }
        }
        global.set("TARGETSTAGE", self.question.target.unwrap_or("default"));
        for (name, default) in self.arguments.iter().flat_map(arguments) {
            let given = self.question.arguments.get(name).filter(|_| with_given).cloned();
            let default = default.as_ref().map(|text| global.expand(text, self.escape));
            let default = default.and_then(Result::ok).map(|expanded| expanded.value);
            global.set(name, given.or(default).unwrap_or_default());
        }
        global
    }

    /// A base has to have a name even if nobody gives any argument.
    fn defaults(&mut self) {
        let global = self.global(false);
        let mut found = Vec::new();
        for stage in &self.stages {
            let Ok(expanded) = global.expand(&stage.base, self.escape) else {
                continue;
            };
            if !is_name(&expanded.value) {
                let base = &stage.base;
                let detail = format!("Default value for ARG {base} results in empty or invalid base image name");
                found.push((stage.from.lines, detail));
            }
        }
        for (lines, detail) in found {
            self.warn(&rules::INVALID_DEFAULT, lines, detail);
        }
    }

    /// Looks at a `FROM`, and returns the name of what the stage begins with.
    fn begin(&mut self, index: usize, global: &Variables) -> Result<String, Failure> {
        let stage = &self.stages[index];
        let (lines, base, platform) = (stage.from.lines, stage.base.clone(), stage.platform.clone());
        let name = stage.name.clone().unwrap_or_default().to_ascii_lowercase();
        let expand = |text: &str, escape| {
            global
                .expand(text, escape)
                .map_err(|error| failure(text, &error, lines))
        };
        let expanded = expand(&base, self.escape)?;
        self.unknown_in_from(&expanded, global, lines);
        if expanded.value.is_empty() {
            return Err(Failure {
                message: format!("base name ({base}) should not be blank"),
                lines: Some(lines),
            });
        }
        if !is_name(&expanded.value) {
            return Err(Failure {
                message: format!(
                    "failed to parse stage name {:?}: invalid reference format",
                    expanded.value
                ),
                lines: Some(lines),
            });
        }
        if let Some(platform) = platform {
            let wanted = expand(&platform, self.escape)?;
            self.unknown_in_from(&wanted, global, lines);
            let is_target = wanted.matched == ["TARGETPLATFORM"] && wanted.unmatched.is_empty();
            if is_target && global.get("TARGETPLATFORM") == Some(&wanted.value) {
                let detail = format!(
                    "Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
                );
                self.warn(&rules::REDUNDANT_PLATFORM, lines, detail);
            }
            if wanted.matched.is_empty() && wanted.unmatched.is_empty() {
                let names_it = wanted.value.split('/').take(2).any(|part| name.contains(part));
                if !names_it {
                    let detail = format!(
                        "FROM --platform flag should not use constant value \"{}\"",
                        wanted.value
                    );
                    self.warn(&rules::CONSTANT_PLATFORM, lines, detail);
                }
            }
            if wanted.value.is_empty() {
                let unknown = wanted.unmatched.first();
                let meant = unknown.map_or_else(String::new, |name| suggestion(name, global.names(), ""));
                return Err(Failure {
                    message: format!("empty platform value from expression {platform}{meant}"),
                    lines: Some(lines),
                });
            }
        }
        Ok(expanded.value)
    }

    fn unknown_in_from(&mut self, expanded: &Expanded, global: &Variables, lines: Lines) {
        for name in &expanded.unmatched {
            let meant = suggestion(name, global.names(), "");
            let detail = format!("FROM argument '{name}' is not declared{meant}");
            self.warn(&rules::UNDEFINED_IN_FROM, lines, detail);
        }
    }

    /// Returns the stages that the wanted one is made of: those it begins with and copies from.
    fn reached(&self, bases: &[String]) -> Result<BTreeSet<usize>, Failure> {
        let Some(target) = self.question.target.filter(|target| !target.is_empty()) else {
            return Ok((0..bases.len()).collect());
        };
        let number = || target.parse().ok().filter(|number| *number < bases.len());
        let Some(target) = self.stage_named(target, bases.len()).or_else(number) else {
            return Err(Failure {
                message: format!("target stage {target:?} could not be found"),
                lines: None,
            });
        };
        let mut reached = BTreeSet::new();
        let mut waiting = vec![target];
        while let Some(index) = waiting.pop() {
            if !reached.insert(index) {
                continue;
            }
            waiting.extend(self.stage_named(&bases[index], index));
            for step in &self.stages[index].steps {
                let from: Vec<&str> = match &step.instruction {
                    Some(Instruction::Copy(copy)) => copy.from.iter().map(String::as_str).collect(),
                    Some(Instruction::Run(run)) => {
                        let options = run.mounts.iter().flat_map(|mount| mount.split(','));
                        options.filter_map(|option| option.strip_prefix("from=")).collect()
                    }
                    _ => Vec::new(),
                };
                for name in from {
                    let number = name.parse().ok().filter(|number| *number < index);
                    waiting.extend(self.stage_named(name, index).or(number));
                }
            }
        }
        Ok(reached)
    }

    fn state_of(&self, image: &str) -> State {
        let mut state = State::default();
        state.environment.set("PATH", SEARCH_PATH);
        if let Some(base) = self.question.bases.get(image) {
            for variable in &base.environment {
                let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
                state.environment.set(name, value);
            }
            state.has_shell = base.has_shell;
        }
        state
    }

    fn step(&mut self, step: &Placed, state: &mut State, once: &mut Once) -> Result<(), Failure> {
        let keyword = step.node.keyword.as_str();
        let lines = step.lines;
        let Some(instruction) = &step.instruction else {
            return Ok(());
        };
        match instruction {
            Instruction::Arg(list) => self.argument(list, lines, state)?,
            Instruction::Env(pairs) => {
                let mut values = Vec::new();
                for pair in pairs {
                    self.words([pair.name.as_str()], lines, state)?;
                    values.push(self.word(&pair.value, lines, state)?);
                }
                self.legacy(keyword, pairs, lines);
                for (pair, value) in pairs.iter().zip(values) {
                    self.secret("ENV", &pair.name, lines);
                    state.environment.set(&pair.name, value);
                }
            }
            Instruction::Label(pairs) => {
                for pair in pairs {
                    self.words([pair.name.as_str(), pair.value.as_str()], lines, state)?;
                }
                self.legacy(keyword, pairs, lines);
            }
            Instruction::Copy(copy) => self.copy(copy, lines, state)?,
            Instruction::Run(run) => self.words(run.mounts.iter().map(String::as_str), lines, state)?,
            Instruction::User(word) | Instruction::StopSignal(word) => self.words([word.as_str()], lines, state)?,
            Instruction::Volume(paths) => self.words(paths.iter().map(String::as_str), lines, state)?,
            Instruction::Workdir(path) => {
                let path = self.word(path, lines, state)?;
                if !state.has_workdir && !path.starts_with('/') {
                    let detail =
                        format!("Relative workdir \"{path}\" can have unexpected results if the base image changes");
                    self.warn(&rules::RELATIVE_WORKDIR, lines, detail);
                }
                state.has_workdir = true;
            }
            Instruction::Expose(ports) => {
                for port in ports {
                    let ports = self.word(port, lines, state)?;
                    for port in ports.split_whitespace() {
                        self.port(port, lines);
                    }
                }
            }
            Instruction::Shell(_) => state.has_shell = true,
            Instruction::Cmd(command) | Instruction::Entrypoint(command) => {
                if matches!(command, Command::Shell(_)) && !state.has_shell {
                    let detail = format!(
                        "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
                    );
                    self.warn(&rules::JSON_ARGUMENTS, lines, detail);
                }
            }
            Instruction::Healthcheck(_) | Instruction::Maintainer(_) | Instruction::Onbuild(_) => {}
        }
        let counts_once = match instruction {
            Instruction::Cmd(_) => "CMD",
            Instruction::Entrypoint(_) => "ENTRYPOINT",
            Instruction::Healthcheck(_) => "HEALTHCHECK",
            _ => return Ok(()),
        };
        if let Some(earlier) = once.0.insert(counts_once, lines) {
            let detail = format!(
                "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
            );
            self.warn(&rules::MULTIPLE, earlier, detail);
        }
        Ok(())
    }

    fn argument(&mut self, list: &[(String, Option<String>)], lines: Lines, state: &mut State) -> Result<(), Failure> {
        for (name, default) in list {
            self.secret("ARG", name, lines);
            let default = match default {
                Some(text) => Some(self.word(text, lines, state)?),
                None => self.before_stages(name),
            };
            match self.question.arguments.get(name).cloned().or(default) {
                Some(value) => state.environment.set(name, value),
                None => {
                    state.declared.insert(name.clone());
                }
            }
        }
        Ok(())
    }

    /// Returns the value of an argument that a stage takes over.
    fn before_stages(&self, name: &str) -> Option<String> {
        let mut before = self.arguments.iter().flat_map(arguments);
        let is_set = before.any(|(known, default)| known == name && default.is_some());
        let platform = name.strip_prefix("TARGET").or_else(|| name.strip_prefix("BUILD"));
        let is_platform = platform.is_some_and(|part| part == "STAGE" || PLATFORM_PARTS.contains(&part));
        (is_set || is_platform).then(|| self.global(true).get(name).unwrap_or_default().to_owned())
    }

    fn copy(&mut self, copy: &Copy, lines: Lines, state: &State) -> Result<(), Failure> {
        let flags = [&copy.chown, &copy.chmod, &copy.checksum];
        self.words(flags.into_iter().flatten().map(String::as_str), lines, state)?;
        let mut sources = Vec::new();
        for source in &copy.sources {
            sources.push(self.word(source, lines, state)?);
        }
        self.words([copy.destination.as_str()], lines, state)?;
        for document in copy.documents.iter().filter(|document| document.expand) {
            let expanded = state.environment.expand_document(&document.content(), self.escape);
            let expanded = expanded.map_err(|error| failure(&document.name, &error, lines))?;
            self.undefined(&expanded, lines, state);
        }
        if let Some(from) = &copy.from {
            if !from.contains('$') {
                return Ok(());
            }
            return Err(Failure {
                message: "variable expansion is not supported for --from, define a new stage with FROM using ARG from \
                          global scope as a workaround"
                    .to_owned(),
                lines: Some(lines),
            });
        }
        let verb = if copy.is_add { "Add" } else { "Copy" };
        for source in sources.iter().filter(|source| !source.contains("://")) {
            if self.question.ignore.excludes(source) {
                let detail = format!("Attempting to {verb} file \"{source}\" that is excluded by .dockerignore");
                self.warn(&rules::IGNORED_FILE, lines, detail);
            }
        }
        Ok(())
    }

    fn port(&mut self, port: &str, lines: Lines) {
        if port.contains(':') {
            let detail =
                format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'");
            self.warn(&rules::EXPOSE_FORMAT, lines, detail);
        }
        if port
            .split_once('/')
            .is_some_and(|(_, protocol)| protocol.to_lowercase() != protocol)
        {
            let detail = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
            self.warn(&rules::EXPOSE_CASING, lines, detail);
        }
    }

    fn legacy(&mut self, keyword: &str, pairs: &[Pair], lines: Lines) {
        for _ in pairs.iter().filter(|pair| pair.is_old) {
            let detail =
                format!("\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format");
            self.warn(&rules::LEGACY_PAIRS, lines, detail);
        }
    }

    fn secret(&mut self, instruction: &str, name: &str, lines: Lines) {
        if is_secret(name) {
            let detail = format!("Do not use ARG or ENV instructions for sensitive data ({instruction} \"{name}\")");
            self.warn(&rules::SECRETS, lines, detail);
        }
    }

    fn words<'w>(
        &mut self,
        words: impl IntoIterator<Item = &'w str>,
        lines: Lines,
        state: &State,
    ) -> Result<(), Failure> {
        for word in words {
            self.word(word, lines, state)?;
        }
        Ok(())
    }

    /// Fills a word in, and tells of the variables that are not there.
    fn word(&mut self, word: &str, lines: Lines, state: &State) -> Result<String, Failure> {
        let expanded = state.environment.expand(word, self.escape);
        let expanded = expanded.map_err(|error| failure(word, &error, lines))?;
        self.undefined(&expanded, lines, state);
        Ok(expanded.value)
    }

    fn undefined(&mut self, expanded: &Expanded, lines: Lines, state: &State) {
        for name in &expanded.unmatched {
            if !state.declared.contains(name) && !SCANS.contains(&name.as_str()) {
                let meant = suggestion(name, state.environment.names(), "$");
                let detail = format!("Usage of undefined variable '${name}'{meant}");
                self.warn(&rules::UNDEFINED, lines, detail);
            }
        }
    }
}

fn arguments(placed: &Placed) -> impl Iterator<Item = (&String, &Option<String>)> {
    let list = match &placed.instruction {
        Some(Instruction::Arg(list)) => list.as_slice(),
        _ => &[],
    };
    list.iter().map(|(name, default)| (name, default))
}

fn failure(text: &str, error: &ExpandError, lines: Lines) -> Failure {
    Failure {
        message: format!("failed to process {text:?}: {error}"),
        lines: Some(lines),
    }
}

/// Returns whether a stage can begin with what has that name: an image, a stage, or a directory or file here.
fn is_name(name: &str) -> bool {
    name.contains(":/") || Reference::parse(name).is_ok()
}

/// Returns whether a name speaks of a secret.
// buildkit frontend/dockerfile/dockerfile2llb/convert.go: secretsRegexp, secretsAllowRegexp
fn is_secret(name: &str) -> bool {
    let parts: Vec<String> = name.split('_').map(str::to_lowercase).collect();
    let secret = |part: &String| {
        matches!(
            part.as_str(),
            "apikey"
                | "auth"
                | "credential"
                | "credentials"
                | "key"
                | "password"
                | "pword"
                | "passwd"
                | "secret"
                | "token"
        )
    };
    parts.iter().any(secret) && !parts.iter().any(|part| part == "public")
}
