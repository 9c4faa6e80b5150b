//! Instructions that change an image's config and nothing else.

use std::collections::BTreeMap;

use super::dockerfile::Step;
use super::error::Problem;
use super::expand::{ExpandError, Expander};
use super::instruction::{Command, Healthcheck, Instruction, Pair};
use super::stage::{Build, State, record};
use crate::image::{self, Empty};
use crate::model::Duration;
use crate::yaml::go_quote;

impl Build {
    /// Carries out an instruction that changes the image's config only.
    pub(super) fn configure(&self, state: &mut State, step: &Step) -> Result<(), Problem> {
        let word = |text: &str| self.word(state, text);
        let shown = match &step.instruction {
            Instruction::Arg(list) => {
                let mut shown = Vec::new();
                for (name, default) in list {
                    let value = match (self.request.arguments.get(name), default) {
                        (Some(given), _) => Some(given.clone()),
                        (None, Some(default)) => Some(self.word(state, default)?),
                        (None, None) => self.global_arguments.get(name).cloned(),
                    };
                    if let Some(value) = &value {
                        state.set_variable(name, value);
                    }
                    shown.push(match &value {
                        Some(value) => format!("{name}={value}"),
                        None => name.clone(),
                    });
                    state.arguments.push((name.clone(), value));
                }
                format!("ARG {}", shown.join(" "))
            }
            Instruction::Env(pairs) => {
                let pairs = self.pairs(state, pairs)?;
                for (name, value) in &pairs {
                    set_environment(&mut state.config.config.env, name, value);
                    state.set_variable(name, value);
                }
                format!("ENV {}", joined(&pairs))
            }
            Instruction::Label(pairs) => {
                let pairs = self.pairs(state, pairs)?;
                let shown = format!("LABEL {}", joined(&pairs));
                state.config.config.labels.extend(pairs);
                shown
            }
            Instruction::Cmd(command) => {
                let words = in_shell(state, command);
                state.has_command = true;
                // buildkit: says nothing to anybody but Windows, and is there.
                state.config.config.args_escaped = true;
                let shown = format!("CMD {}", quoted(&words));
                state.config.config.cmd = Some(words).filter(|words| !words.is_empty());
                shown
            }
            Instruction::Entrypoint(command) => {
                let words = in_shell(state, command);
                if !state.has_command {
                    state.config.config.cmd = None;
                }
                let shown = format!("ENTRYPOINT {}", quoted(&words));
                state.config.config.entrypoint = Some(words).filter(|words| !words.is_empty());
                shown
            }
            Instruction::Expose(ports) => {
                let mut all = Vec::new();
                for port in ports {
                    for port in self.words(state, port)? {
                        all.extend(expose(&port)?);
                    }
                }
                let ports = &mut state.config.config.exposed_ports;
                ports.extend(all.iter().map(|port| (port.clone(), Empty {})));
                ports.sort_keys();
                let mut seen = std::collections::BTreeSet::new();
                all.retain(|port| seen.insert(port.clone()));
                format!("EXPOSE [{}]", all.join(" "))
            }
            Instruction::Healthcheck(check) => {
                let check = healthcheck(check);
                let shown = shown_healthcheck(&check);
                state.config.config.healthcheck = Some(check);
                shown
            }
            Instruction::Maintainer(name) => {
                state.config.author = Some(name.clone());
                format!("MAINTAINER {name}")
            }
            Instruction::Onbuild(text) => {
                state.config.config.on_build.push(text.clone());
                return Ok(());
            }
            Instruction::Shell(words) => {
                state.config.config.shell = Some(words.clone());
                format!("SHELL [{}]", words.join(" "))
            }
            Instruction::StopSignal(signal) => {
                let signal = word(signal)?;
                if !is_signal(&signal) {
                    return Err(Problem::Signal(signal));
                }
                let shown = format!("STOPSIGNAL {signal}");
                state.config.config.stop_signal = Some(signal);
                shown
            }
            Instruction::User(user) => {
                state.config.config.user = word(user)?;
                format!("USER {}", state.config.config.user)
            }
            Instruction::Volume(list) => {
                let list: Vec<String> = list.iter().map(|path| word(path)).collect::<Result<_, _>>()?;
                let shown = format!("VOLUME [{}]", list.join(" "));
                for path in list {
                    if path.is_empty() {
                        return Err(Problem::EmptyVolume);
                    }
                    state.config.config.volumes.insert(path, Empty {});
                }
                state.config.config.volumes.sort_keys();
                shown
            }
            // These make files; see `files`.
            Instruction::Run(_) | Instruction::Copy(_) | Instruction::Workdir(_) => return Ok(()),
        };
        record(state, shown, true);
        Ok(())
    }

    fn pairs(&self, state: &State, pairs: &[Pair]) -> Result<Vec<(String, String)>, Problem> {
        pairs
            .iter()
            .map(|pair| Ok((self.word(state, &pair.name)?, self.word(state, &pair.value)?)))
            .collect()
    }

    /// Expands a text as one word.
    pub(super) fn word(&self, state: &State, text: &str) -> Result<String, Problem> {
        self.expand(state, text, |expander, text| expander.word(text))
    }

    fn words(&self, state: &State, text: &str) -> Result<Vec<String>, Problem> {
        self.expand(state, text, |expander, text| expander.words(text))
    }

    /// Expands a text with what a step sees.
    pub(super) fn expand<T>(
        &self,
        state: &State,
        text: &str,
        how: impl FnOnce(&Expander<'_>, &str) -> Result<T, ExpandError>,
    ) -> Result<T, Problem> {
        let environment: BTreeMap<&str, &str> = state
            .environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let expander = Expander {
            escape: self.file.escape,
            lookup: &|name| environment.get(name).map(|value| (*value).to_owned()),
        };
        how(&expander, text).map_err(|source| Problem::Expand {
            word: text.to_owned(),
            source,
        })
    }

    /// Returns an instruction as progress shows it, with its variables' values where they are known.
    pub(super) fn shown(&self, state: &State, step: &Step) -> String {
        if matches!(step.instruction, Instruction::Run(_)) {
            return step.text.clone();
        }
        self.word(state, &step.text).unwrap_or_else(|_| step.text.clone())
    }
}

/// Returns a command with the stage's shell before it, if it is one for a shell.
pub(super) fn in_shell(state: &State, command: &Command) -> Vec<String> {
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

fn joined(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(" ")
}

fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| go_quote(word)).collect();
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

/// Signals as they may be named, beside by number and the real-time ones.
const SIGNALS: &str = "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS \
                       TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX";

// moby/sys signal.ParseSignal.
fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i32>() {
        return number != 0;
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = name.strip_prefix("RTMIN+").or_else(|| name.strip_prefix("RTMAX-"));
    match offset {
        Some(offset) => offset.parse::<u8>().is_ok_and(|offset| (1..=15).contains(&offset)),
        None => SIGNALS.split_whitespace().any(|known| known == name),
    }
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

fn healthcheck(check: &Healthcheck) -> image::Healthcheck {
    match check {
        Healthcheck::None => image::Healthcheck {
            test: vec!["NONE".to_owned()],
            ..Default::default()
        },
        Healthcheck::Check {
            command,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        } => image::Healthcheck {
            test: match command {
                Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
                Command::Exec(words) => ["CMD".to_owned()].into_iter().chain(words.iter().cloned()).collect(),
            },
            interval: *interval,
            timeout: *timeout,
            start_period: *start_period,
            start_interval: *start_interval,
            retries: *retries,
        },
    }
}

/// Returns a health check as buildkit's `%q` of it in the history.
fn shown_healthcheck(check: &image::Healthcheck) -> String {
    let durations = [check.interval, check.timeout, check.start_period, check.start_interval];
    let durations = durations.map(|duration| go_quote(&Duration(duration).to_string()));
    let retries = u32::try_from(check.retries)
        .ok()
        .and_then(char::from_u32)
        .unwrap_or('\u{fffd}');
    let retries = match retries {
        '\'' => "\\'".to_owned(),
        '"' => "\"".to_owned(),
        other => {
            let text = go_quote(other.encode_utf8(&mut [0; 4]));
            text.trim_matches('"').to_owned()
        }
    };
    format!(
        "HEALTHCHECK &{{{} {} '{retries}'}}",
        quoted(&check.test),
        durations.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_signals_are_read_as_docker_reads_them() {
        assert_eq!(expose("80").unwrap(), ["80/tcp"]);
        assert_eq!(expose("80-81/UDP").unwrap(), ["80/udp", "81/udp"]);
        for wrong in ["", "0", "80/x", "81-80", "65536", "a"] {
            assert!(expose(wrong).is_err(), "{wrong}");
        }
        for right in ["9", "SIGTERM", "term", "RTMIN+3"] {
            assert!(is_signal(right), "{right}");
        }
        for wrong in ["0", "foo", ""] {
            assert!(!is_signal(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_health_check_is_in_the_history_as_buildkit_writes_it() {
        let check = image::Healthcheck {
            test: vec!["CMD-SHELL".to_owned(), "true \"x y\"".to_owned()],
            interval: 90_000_000_000,
            retries: 2,
            ..Default::default()
        };
        assert_eq!(
            shown_healthcheck(&check),
            r#"HEALTHCHECK &{["CMD-SHELL" "true \"x y\""] "1m30s" "0s" "0s" "0s" '\x02'}"#
        );
    }
}
