//! Commands that are run in a container when it has started or is about to stop.

use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures_util::StreamExt;

use super::execute::HookOutput;
use super::observed::Container;
use crate::client::{ClientError, Engine};
use crate::model::Hook;

/// Runs the hook to its end and returns its status; lines it prints go to `output`.
pub async fn run(
    engine: &Engine,
    container: &Container,
    hook: &Hook,
    output: Option<&HookOutput>,
) -> Result<i64, ClientError> {
    let environment = hook
        .environment
        .iter()
        .map(|(name, value)| match value {
            Some(value) => format!("{name}={value}"),
            None => name.clone(),
        })
        .collect();
    let config = ExecConfig {
        user: Some(hook.user.clone()),
        privileged: Some(hook.privileged),
        env: Some(environment),
        working_dir: Some(hook.working_dir.clone()),
        cmd: Some(hook.command.words().to_vec()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..ExecConfig::default()
    };
    let exec = engine.docker.create_exec(&container.id, config).await?;
    let started = engine.docker.start_exec(&exec.id, None::<StartExecOptions>).await?;
    // Its output ends when it does.
    if let StartExecResults::Attached { output: mut chunks, .. } = started {
        let mut rest = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let (LogOutput::StdOut { message }
            | LogOutput::StdErr { message }
            | LogOutput::Console { message }
            | LogOutput::StdIn { message }) = chunk?;
            let Some(output) = output else {
                continue;
            };
            rest.extend_from_slice(&message);
            while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                output(container, &String::from_utf8_lossy(&line[..end]));
            }
        }
        if let Some(output) = output.filter(|_| !rest.is_empty()) {
            output(container, &String::from_utf8_lossy(&rest));
        }
    }
    Ok(engine
        .docker
        .inspect_exec(&exec.id)
        .await?
        .exit_code
        .unwrap_or_default())
}
