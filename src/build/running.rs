//! `RUN`: what makes the step another one, and the layer that it leaves.

use super::configure::in_shell;
use super::dockerfile::Step;
use super::error::{BuildError, Problem};
use super::files::{blocking, made};
use super::instruction::{Command, Run};
use super::network::Network;
use super::run;
use super::stage::{Build, State, record};
use super::syntax;
use super::turn::turn;
use crate::image::CacheRecord;

/// Variables that a build may be given without declaring them, and that do not make a step another one.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

impl Build {
    pub(super) async fn run(
        &self,
        state: &mut State,
        run: &Run,
        step: &Step,
        stage: usize,
        shown: usize,
    ) -> Result<bool, BuildError> {
        let placed = |problem: Problem| self.at(problem, &step.span);
        let mut command = self.command(state, run).map_err(placed)?;
        let wanted = self.mounts(state, run, stage).map_err(placed)?;
        let mut hasher = self.key(state, "RUN");
        for argument in &command.arguments {
            hasher.field(argument.as_bytes());
        }
        if let Some((name, text)) = &command.script {
            hasher.field(name.as_bytes());
            hasher.field(text.as_bytes());
        }
        for (name, value) in &state.environment {
            hasher.field(name.as_bytes());
            hasher.field(value.as_bytes());
        }
        for (name, address) in &command.extra_hosts {
            hasher.field(name.as_bytes());
            hasher.field(address.as_bytes());
        }
        hasher.field(command.directory.as_bytes());
        hasher.field(command.user.as_bytes());
        hasher.field(format!("{:?} {}", command.network, command.privileged).as_bytes());
        for wanted in &wanted {
            self.digest_mount(&mut hasher, wanted).await.map_err(placed)?;
        }
        let (key, _) = hasher.finish();
        let text = format!("RUN {} # buildkit", self.said(state, &command.arguments));
        let ignores_cache = self.ignores_cache(stage);
        let _turn = match ignores_cache {
            true => None,
            false => Some(turn(&self.request.store, &key).await),
        };
        if !ignores_cache && let Some(CacheRecord { layer: Some(layer), .. }) = self.request.store.cached(&key)? {
            state.layers.push(layer);
            record(state, text, false);
            return Ok(true);
        }
        let Some(runtime) = &self.request.runtime else {
            return Err(placed(Problem::NoRuntime));
        };
        let scratch = self.request.store.scratch()?;
        let mut held = self.hold(wanted, scratch.path()).await.map_err(placed)?;
        let variables = std::mem::take(&mut held.variables);
        command
            .environment
            .extend(variables.iter().map(|(name, value)| format!("{name}={value}")));
        let arguments = command.arguments.join(" ");
        command.plug = match (command.network, &self.request.plugs) {
            (Network::Own, Some(plugs)) => {
                let name = scratch.path().file_name().unwrap_or_default().to_string_lossy();
                let plug = plugs(format!("build-{name}")).await;
                Some(plug.map_err(|source| placed(Problem::Network(source)))?)
            }
            _ => None,
        };
        let layers = self.directories(state);
        let outcome = run::run(runtime, &layers, &scratch, command, &mut held, shown, &self.sink)
            .await
            .map_err(placed)?;
        // Nobody else may use its caches before it has ended, and what it was given goes now.
        drop(held);
        if outcome.code != 0 {
            let mut error = placed(Problem::Exit {
                command: arguments,
                code: outcome.code,
            });
            error.output = outcome.last_lines;
            return Err(error);
        }
        let (store, options) = (self.request.store.clone(), self.pack_options());
        let sealed = blocking(move || Ok(store.seal(scratch, options)?));
        let layer = sealed.await.map_err(placed)?.diff_id;
        self.request.store.remember([made(key, layer.clone())])?;
        state.layers.push(layer);
        record(state, text, false);
        Ok(false)
    }

    /// Returns a command as the history has it, with the ARGs that it was run with.
    fn said(&self, state: &State, arguments: &[String]) -> String {
        let mut declared: Vec<(&str, &str)> = Vec::new();
        for (name, value) in &state.arguments {
            let seen = state.environment.iter().find(|(known, _)| known == name);
            let value = seen.map_or(value.as_deref().unwrap_or_default(), |(_, value)| value);
            match declared.iter_mut().find(|(known, _)| known == name) {
                Some(known) => known.1 = value,
                None => declared.push((name, value)),
            }
        }
        let mut words = Vec::new();
        if !declared.is_empty() {
            words.push(format!("|{}", declared.len()));
        }
        words.extend(declared.iter().map(|(name, value)| format!("{name}={value}")));
        words.extend(arguments.iter().cloned());
        words.join(" ")
    }

    fn command(&self, state: &State, run: &Run) -> Result<run::Command, Problem> {
        let mut script = None;
        let mut command = run.command.clone();
        if let (Command::Shell(text), Some(first)) = (&run.command, run.documents.first()) {
            command = Command::Shell(if syntax::marker(text).is_some() {
                let content = first.content();
                // Its first line chooses the program; anything else is for the shell.
                if content.starts_with("#!") {
                    let path = format!("{}/{}", run::SCRIPTS, first.name);
                    script = Some((first.name.clone(), content));
                    path
                } else {
                    content
                }
            } else {
                // The shell knows here-documents itself; it is given what stands in the file.
                let mut whole = text.clone();
                for document in &run.documents {
                    whole.push('\n');
                    whole.push_str(&document.text);
                    whole.push_str(&document.name);
                }
                whole
            });
        }
        let mut environment: Vec<String> = state
            .environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        for (name, value) in &self.request.arguments {
            let upper = name.to_ascii_uppercase();
            if PROXIES.contains(&upper.as_str()) {
                // Programs look for either.
                for name in [&upper, &upper.to_ascii_lowercase()] {
                    if !state.environment.iter().any(|(known, _)| known == name) {
                        environment.push(format!("{name}={value}"));
                    }
                }
            }
        }
        let directory = match state.config.config.working_dir.as_str() {
            "" => "/",
            directory => directory,
        };
        let allowed = |entitlement: &str| self.request.entitlements.iter().any(|known| known == entitlement);
        let is_insecure = run.security.as_deref() == Some("insecure");
        if is_insecure && !self.request.privileged && !allowed("security.insecure") {
            return Err(Problem::Insecure);
        }
        let network = match run.network.as_deref() {
            Some("none") => Network::None,
            Some("host") if self.request.network != Network::Host && !allowed("network.host") => {
                return Err(Problem::HostNetwork);
            }
            Some("host") => Network::Host,
            _ => self.request.network,
        };
        Ok(run::Command {
            arguments: in_shell(state, &command),
            environment,
            directory: directory.to_owned(),
            user: state.config.config.user.clone(),
            script,
            network,
            plug: None,
            extra_hosts: self.request.extra_hosts.clone(),
            shm_size: self.request.shm_size,
            ulimits: self.request.ulimits.clone(),
            privileged: self.request.privileged || is_insecure,
        })
    }
}
