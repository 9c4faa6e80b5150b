//! Hooks: programs that a spec has run at points of a container's life, told of it on their standard input.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::{Hook, Spec};
use serde::{Deserialize, Serialize};

/// Which container hooks are told of.
#[derive(Clone, Debug)]
pub struct About<'a> {
    /// Its id.
    pub id: &'a str,
    /// The directory its spec is in.
    pub bundle: &'a Path,
}

/// Hooks to run, and what they are told besides.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Calls {
    /// At which point: what an error says.
    pub point: String,
    /// The hooks, in order.
    pub hooks: Vec<Hook>,
    /// The version of the spec.
    pub version: String,
    /// The container's annotations.
    pub annotations: HashMap<String, String>,
}

impl Calls {
    /// Returns the calls of one point of a container's life.
    pub fn of(spec: &Spec, point: &str, hooks: impl IntoIterator<Item = Hook>) -> Self {
        Self {
            point: point.to_owned(),
            hooks: hooks.into_iter().collect(),
            version: spec.version().clone(),
            annotations: spec.annotations().clone().unwrap_or_default(),
        }
    }

    /// Runs them one after the other, up to the first that fails; `status` and `pid` are part of what they are told.
    pub fn run(&self, about: &About<'_>, status: &str, pid: u32) -> Result<(), String> {
        if self.hooks.is_empty() {
            return Ok(());
        }
        let state = serde_json::json!({
            "ociVersion": self.version,
            "id": about.id,
            "status": status,
            "pid": pid,
            "bundle": about.bundle,
            "annotations": self.annotations,
        });
        for (number, hook) in self.hooks.iter().enumerate() {
            run_one(hook, state.to_string().as_bytes())
                .map_err(|why| format!("error running {} hook #{number}: {why}", self.point))?;
        }
        Ok(())
    }
}

/// Returns the hooks that run outside, once there are namespaces and before anything changes its root.
pub fn outside(spec: &Spec) -> Calls {
    let hooks = spec.hooks().as_ref();
    #[allow(deprecated, reason = "Docker's own GPU support still is a prestart hook")]
    let prestart = hooks.and_then(|hooks| hooks.prestart().clone());
    let create = hooks.and_then(|hooks| hooks.create_runtime().clone());
    Calls::of(spec, "createRuntime", prestart.into_iter().chain(create).flatten())
}

fn run_one(hook: &Hook, state: &[u8]) -> Result<(), String> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(rest);
    }
    let environment = hook.env().iter().flatten().filter_map(|entry| entry.split_once('='));
    let output = memory_file()?;
    let copy = || output.try_clone().map(Stdio::from).map_err(|error| error.to_string());
    let mut child = command
        .env_clear()
        .envs(environment)
        .stdin(Stdio::piped())
        .stdout(copy()?)
        .stderr(copy()?)
        .spawn()
        .map_err(|error| format!("{}: {error}", hook.path().display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that does not read is none the worse for it.
        let _ = stdin.write_all(state);
    }
    let limit = hook
        .timeout()
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(Duration::from_secs);
    let status = wait(&mut child, limit)?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{status}, output: {}", read_back(output).trim_end()))
}

/// What a hook says goes to a file: a pipe would have to be read meanwhile, and a daemon that the hook leaves behind
/// would keep it open.
fn memory_file() -> Result<std::fs::File, String> {
    let file = crate::os::memfd::with_bytes("hook", b"").map_err(|error| error.to_string())?;
    Ok(file.into())
}

fn read_back(mut output: std::fs::File) -> String {
    use std::io::Seek;
    let mut bytes = Vec::new();
    let _ = output.rewind();
    let _ = output.take(64 * 1024).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn wait(child: &mut Child, limit: Option<Duration>) -> Result<ExitStatus, String> {
    let Some(limit) = limit else {
        return child.wait().map_err(|error| error.to_string());
    };
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("hook ran past timeout of {:.1}s", limit.as_secs_f64()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::HookBuilder;

    use super::*;

    fn call(script: &str, timeout: Option<i64>) -> Result<(), String> {
        let arguments = ["sh", "-c", script].map(str::to_owned).to_vec();
        let mut hook = HookBuilder::default().path("/bin/sh").args(arguments);
        if let Some(timeout) = timeout {
            hook = hook.timeout(timeout);
        }
        let calls = Calls {
            point: "poststop".to_owned(),
            hooks: vec![hook.build().unwrap()],
            version: "1.2.1".to_owned(),
            ..Calls::default()
        };
        let about = About {
            id: "web",
            bundle: Path::new("/bundle"),
        };
        calls.run(&about, "stopped", 0)
    }

    #[test]
    fn a_hook_reads_the_state_and_its_failure_is_told() {
        assert_eq!(call("grep -q '\"id\":\"web\".*\"status\":\"stopped\"'", None), Ok(()));
        let why = call("echo because; exit 3", None).unwrap_err();
        assert_eq!(why, "error running poststop hook #0: exit status: 3, output: because");
    }

    #[test]
    fn a_hook_past_its_time_is_killed() {
        let why = call("sleep 1000", Some(0)).unwrap_err();
        assert_eq!(why, "error running poststop hook #0: hook ran past timeout of 0.0s");
    }
}
