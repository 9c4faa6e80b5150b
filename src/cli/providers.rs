//! Services that a program provides instead of a container: running it, and handing on what it says.
//!
//! The program is a plugin of the docker CLI (`docker-TYPE`) or just one on the `PATH` (`TYPE`). It is run as
//! `TYPE compose --project-name=P up --OPTION=VALUE … SERVICE` and prints JSON objects: news for the user, and
//! variables, which the services that depend on it get under its name.
// docker/compose pkg/compose/plugins.go

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;

use super::Context;
use crate::model::{Project, Provider};
use crate::plan::reconcile::start_graph;
use crate::ui::{Progress, Status};

/// Why a provider's program has not done what it was run for.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error("'compose' is not a valid provider type")]
    Itself,
    #[error("exec: {0:?}: executable file not found in $PATH")]
    NotFound(String),
    #[error("cannot run {path}")]
    Run {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("required parameter {parameter:?} is missing from provider {provider:?} definition")]
    MissingOption { parameter: String, provider: String },
    /// What the program itself says.
    #[error("{0}")]
    Said(String),
    #[error("invalid response from plugin: {0}")]
    Odd(String),
    #[error("failed to {action} service provider: {ending}")]
    Failed { action: &'static str, ending: String },
}

/// What a program is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Up,
    Down,
}

impl Request {
    fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::Up => "create",
            Self::Down => "remove",
        }
    }
}

/// One line of a program's output.
#[derive(Debug, Deserialize)]
struct Line {
    r#type: String,
    #[serde(default)]
    message: String,
}

/// Which options a program takes; one that does not say takes all.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    description: String,
    up: Parameters,
    down: Parameters,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameters {
    parameters: Vec<Parameter>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameter {
    name: String,
    required: bool,
}

impl Metadata {
    fn is_empty(&self) -> bool {
        self.description.is_empty() && self.up.parameters.is_empty() && self.down.parameters.is_empty()
    }

    /// Returns a request's options on the command line, and refuses one without what the program needs.
    fn options(&self, provider: &Provider, request: Request) -> Result<Vec<String>, ProviderError> {
        let known = match request {
            Request::Up => &self.up.parameters,
            Request::Down => &self.down.parameters,
        };
        let is_missing = |parameter: &&Parameter| parameter.required && !provider.options.contains_key(&parameter.name);
        if let Some(parameter) = known.iter().find(is_missing) {
            return Err(ProviderError::MissingOption {
                parameter: parameter.name.clone(),
                provider: provider.r#type.clone(),
            });
        }
        let takes = |name: &String| self.is_empty() || known.iter().any(|parameter| parameter.name == *name);
        let options = provider.options.iter().filter(|(name, _)| takes(name));
        Ok(options
            .flat_map(|(name, values)| values.iter().map(move |value| format!("--{name}={value}")))
            .collect())
    }
}

/// Runs the programs of all services that have one, those that others depend on first, and gives what they say to the
/// services that depend on them.
pub async fn run(
    context: &Context,
    project: &mut Project,
    request: Request,
    progress: &Progress,
) -> Result<(), ProviderError> {
    if project.services.values().all(|service| service.provider.is_none()) {
        return Ok(());
    }
    let mut order: Vec<String> = match start_graph(project) {
        Ok(graph) => graph.start_order().map(str::to_owned).collect(),
        // Told of when the plan is made.
        Err(_) => return Ok(()),
    };
    if request == Request::Down {
        order.reverse();
    }
    for name in order {
        let Some(provider) = project.services.get(&name).and_then(|service| service.provider.clone()) else {
            continue;
        };
        let [begins, ends] = match request {
            Request::Up => ["Creating", "Created"],
            Request::Down => ["Removing", "Removed"],
        };
        progress.event(&name, Status::Working, "", begins);
        let variables = if context.globals.dry_run {
            BTreeMap::new()
        } else {
            ask(context, project, &name, &provider, request, progress)
                .await
                .inspect_err(|error| progress.event(&name, Status::Error, "", error.to_string()))?
        };
        progress.event(&name, Status::Done, "", ends);
        let prefix = format!("{}_", name.to_uppercase());
        for service in project.services.values_mut() {
            if !service.depends_on.contains_key(&name) {
                continue;
            }
            for (variable, value) in &variables {
                let variable = format!("{prefix}{variable}");
                service.environment.insert(variable, Some(value.clone()));
            }
        }
    }
    Ok(())
}

/// Runs a program and returns the variables that it sets.
async fn ask(
    context: &Context,
    project: &Project,
    service: &str,
    provider: &Provider,
    request: Request,
    progress: &Progress,
) -> Result<BTreeMap<String, String>, ProviderError> {
    if provider.r#type == "compose" {
        return Err(ProviderError::Itself);
    }
    let path = find(context, &provider.r#type).ok_or_else(|| ProviderError::NotFound(provider.r#type.clone()))?;
    let wrong = |source| ProviderError::Run {
        path: path.display().to_string(),
        source,
    };
    let metadata = command(&path, project)
        .args(["compose", "metadata"])
        .stderr(Stdio::null())
        .output()
        .await
        .map_err(wrong)?;
    let metadata: Metadata = serde_json::from_slice(&metadata.stdout).unwrap_or_default();
    let mut child = command(&path, project)
        .arg("compose")
        .arg(format!("--project-name={}", project.name))
        .arg(request.word())
        .args(metadata.options(provider, request)?)
        .arg(service)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(wrong)?;
    let mut variables = BTreeMap::new();
    let mut said = Vec::new();
    if let Some(mut output) = child.stdout.take() {
        let mut chunk = [0; 4096];
        loop {
            let count = tokio::io::AsyncReadExt::read(&mut output, &mut chunk)
                .await
                .map_err(wrong)?;
            if count == 0 {
                break;
            }
            said.extend_from_slice(&chunk[..count]);
            let used = hear(&said, &mut |line| listen(line, service, &mut variables, progress))?;
            said.drain(..used);
        }
    }
    if !said.trim_ascii().is_empty() {
        return Err(ProviderError::Odd(String::from_utf8_lossy(&said).trim().to_owned()));
    }
    let status = child.wait().await.map_err(wrong)?;
    if !status.success() {
        return Err(ProviderError::Failed {
            action: request.action(),
            ending: status.to_string().replace("exit status: ", "exit status "),
        });
    }
    Ok(variables)
}

/// Reads the objects that are whole, and returns how many bytes they are.
fn hear(said: &[u8], listener: &mut dyn FnMut(Line) -> Result<(), ProviderError>) -> Result<usize, ProviderError> {
    let mut lines = serde_json::Deserializer::from_slice(said).into_iter::<Line>();
    let mut used = 0;
    while let Some(line) = lines.next() {
        match line {
            Ok(line) => listener(line)?,
            // The rest is still to come.
            Err(error) if error.is_eof() => break,
            Err(_) => {
                let text = String::from_utf8_lossy(&said[used..]).trim().to_owned();
                return Err(ProviderError::Odd(text));
            }
        }
        used = lines.byte_offset();
    }
    Ok(used)
}

fn listen(
    line: Line,
    service: &str,
    variables: &mut BTreeMap<String, String>,
    progress: &Progress,
) -> Result<(), ProviderError> {
    match line.r#type.as_str() {
        "info" => progress.event(service, Status::Working, "", line.message),
        "debug" => tracing::debug!(service, message = line.message, "a provider says"),
        "error" => return Err(ProviderError::Said(line.message)),
        "setenv" => match line.message.split_once('=') {
            Some((name, value)) => {
                variables.insert(name.to_owned(), value.to_owned());
            }
            None => return Err(ProviderError::Odd(line.message)),
        },
        other => return Err(ProviderError::Odd(other.to_owned())),
    }
    Ok(())
}

/// Returns a program, to be run with the variables that the project's files could use.
pub fn command(path: &Path, project: &Project) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(path);
    command
        .envs(&project.environment)
        .env("COMPOSE_PROJECT_NAME", &project.name)
        .current_dir(&project.working_dir)
        .stdin(Stdio::null());
    command
}

/// Finds the program of that name among the docker CLI's plugins and on the `PATH`.
fn find(context: &Context, name: &str) -> Option<PathBuf> {
    plugin(context, name).or_else(|| {
        let path = context.environment.get("PATH")?;
        std::env::split_paths(path)
            .map(|directory| directory.join(name))
            .find(|path| is_program(path))
    })
}

/// Finds a plugin of the docker CLI.
pub fn plugin(context: &Context, name: &str) -> Option<PathBuf> {
    // A name that leads elsewhere is none.
    if name.is_empty() || name.contains('/') {
        return None;
    }
    let of_user = match context.environment.get("DOCKER_CONFIG") {
        Some(directory) => Some(PathBuf::from(directory)),
        None => context
            .environment
            .get("HOME")
            .map(|home| Path::new(home).join(".docker")),
    };
    let of_system = [
        "/usr/local/lib/docker",
        "/usr/local/libexec/docker",
        "/usr/lib/docker",
        "/usr/libexec/docker",
    ];
    of_user
        .into_iter()
        .chain(of_system.map(PathBuf::from))
        .map(|directory| directory.join("cli-plugins").join(format!("docker-{name}")))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(said: &str) -> Result<(usize, Vec<String>), String> {
        let mut all = Vec::new();
        let used = hear(said.as_bytes(), &mut |line| {
            all.push(format!("{} {}", line.r#type, line.message));
            Ok(())
        });
        Ok((used.map_err(|error| error.to_string())?, all))
    }

    #[test]
    fn objects_are_read_as_they_come() {
        let whole = r#"{"type":"info","message":"a"}{"type":"setenv","message":"B=c=d"}"#;
        let (used, lines) = heard(whole).unwrap();
        assert_eq!(
            (used, lines),
            (whole.len(), vec!["info a".into(), "setenv B=c=d".into()])
        );
        let (used, lines) = heard(&whole[..40]).unwrap();
        assert_eq!((used, lines.len()), (29, 1));
        assert_eq!(
            heard("{\"type\":\"info\"}\nhello\n").unwrap_err(),
            "invalid response from plugin: hello"
        );
    }

    #[test]
    fn a_program_that_says_so_gets_the_options_it_knows() {
        let provider = Provider {
            r#type: "cloud".into(),
            options: BTreeMap::from([
                ("size".into(), vec!["1".into()]),
                ("zone".into(), vec!["a".into(), "b".into()]),
            ]),
            ..Provider::default()
        };
        let all = Metadata::default().options(&provider, Request::Up).unwrap();
        assert_eq!(all, ["--size=1", "--zone=a", "--zone=b"]);
        let known: Metadata =
            serde_json::from_str(r#"{"up": {"parameters": [{"name": "zone"}]}, "down": {"parameters": [{"name": "name", "required": true}]}}"#)
                .unwrap();
        assert_eq!(known.options(&provider, Request::Up).unwrap(), ["--zone=a", "--zone=b"]);
        assert_eq!(
            known.options(&provider, Request::Down).unwrap_err().to_string(),
            "required parameter \"name\" is missing from provider \"cloud\" definition"
        );
    }
}
