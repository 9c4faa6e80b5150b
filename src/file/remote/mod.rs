//! Compose files on other machines: fetched into a directory of the cache that is named by what it holds, a commit or a
//! digest, and read there.
//!
//! Nothing is fetched unless the command may; what was fetched once is read again without the network. No path in the
//! cache leads out of it.

pub mod artifact;
mod cache;
mod git;

use std::collections::BTreeMap;

use super::options::LoadOptions;
use super::paths::is_git;
use crate::yaml::Diagnostic;

/// Returns the path at which a remote file lies on this machine, fetching it if need and consent be.
pub fn local_path(path: &str, options: &LoadOptions) -> Result<String, Diagnostic> {
    let found = match is_git(path) {
        true => git::local_path(path, options),
        false => artifact::local_path(path, options),
    };
    found.map_err(|refusal| {
        let mut diagnostic = Diagnostic::error(format!("cannot read {path}: {}", refusal.reason));
        diagnostic.help = refusal.help.map(str::to_owned);
        diagnostic
    })
}

/// Why a remote file cannot be read, and what to do about it.
struct Refusal {
    reason: String,
    help: Option<&'static str>,
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self { reason, help: None }
    }
}

impl Refusal {
    /// The command may not fetch what is not here.
    fn not_fetched() -> Self {
        Self {
            reason: "it is on another machine, and this command fetches nothing by itself".to_owned(),
            help: Some("`compose config --fetch` fetches it, and so do `up`, `create`, `run`, `build` and `pull`"),
        }
    }
}

/// Refuses a kind of remote files that a variable turns off.
fn check_turned_on(kind: &str, variable: &str, environment: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let setting = environment.get(variable).map(String::as_str);
    match setting {
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => {
            Err(format!("{kind} remote resource is disabled by \"{variable}\"").into())
        }
        _ => Ok(()),
    }
}
