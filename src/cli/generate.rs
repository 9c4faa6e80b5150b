//! `compose generate`: generate a Compose file from existing containers.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use bollard::models::{ContainerInspectResponse, HealthConfig, MountPoint};
use bollard::query_parameters::InspectContainerOptions;

use super::{CommandError, Context};
use crate::client::ClientError;
use crate::client::labels;
use crate::model::Value;
use crate::percent;
use crate::ui::stream;

/// Generate a Compose file from existing containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "alpha generate [OPTIONS] [CONTAINERS...]")]
pub struct Args {
    /// Format the output. Values: [yaml | json]
    #[arg(long, value_name = "string", default_value = "yaml")]
    pub format: String,
    /// Project name to set in the Compose file
    #[arg(long, value_name = "string")]
    pub name: Option<String>,
    /// Directory to use for the project
    #[arg(long, value_name = "string")]
    pub project_dir: Option<String>,
    #[arg(value_name = "CONTAINERS")]
    pub containers: Vec<String>,
}

/// Prints, or writes to the directory named, a file that says what the containers are like.
// docker/compose pkg/compose/generate.go; unlike it, the command is written too where it is not the image's.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    stream::err("generate command is EXPERIMENTAL");
    if !matches!(args.format.as_str(), "yaml" | "json") {
        return Err(CommandError::message(format!(
            "unsupported format {}",
            stream::quoted(&args.format)
        )));
    }
    if args.containers.is_empty() {
        return Err(CommandError::message("at least one container must be specified"));
    }
    let docker = &context.engine().await?.docker;
    let mut file = File::default();
    for name in &args.containers {
        let container = match docker
            .inspect_container(name, None::<InspectContainerOptions>)
            .await
            .map_err(ClientError::from)
        {
            Ok(container) => container,
            Err(error) if error.status() == Some(404) => continue,
            Err(error) => return Err(error.into()),
        };
        let image = container.image.as_deref().map(percent::encoded).unwrap_or_default();
        let image = docker.inspect_image(&image).await.ok().and_then(|image| image.config);
        let command = image.unwrap_or_default().cmd.unwrap_or_default();
        file.add(&container, &command);
    }
    if file.services.is_empty() {
        return Err(CommandError::message(format!(
            "no container(s) found with the following name(s): {}",
            args.containers.join(",")
        )));
    }
    let file = file.value(args.name.as_deref().unwrap_or_default());
    let (text, name) = match args.format.as_str() {
        "json" => (file.to_json_pretty() + "\n", "compose.json"),
        _ => (file.to_yaml(), "compose.yaml"),
    };
    match args.project_dir.as_deref() {
        None | Some("") => stream::out(text)?,
        Some(directory) if context.globals.dry_run => {
            stream::err(format_args!(
                "{} would be written",
                context.absolute(directory).join(name).display()
            ));
        }
        Some(directory) => {
            let directory = context.absolute(directory);
            fs_err::create_dir_all(&directory)?;
            fs_err::write(directory.join(name), text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is known of the file so far.
#[derive(Debug, Default)]
struct File {
    /// By service: what it is like, and how many containers it has.
    services: BTreeMap<String, (BTreeMap<&'static str, Value>, i64)>,
    networks: BTreeSet<String>,
    volumes: BTreeSet<String>,
}

fn text(text: impl Into<String>) -> Value {
    Value::String(text.into())
}

fn list<'a>(items: impl IntoIterator<Item = &'a String>) -> Value {
    Value::List(items.into_iter().map(text).collect())
}

fn map<'a>(entries: impl IntoIterator<Item = (&'a String, Value)>) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (key.clone(), value)).collect())
}

impl File {
    fn add(&mut self, container: &ContainerInspectResponse, image_command: &[String]) {
        let config = container.config.clone().unwrap_or_default();
        let all_labels: BTreeMap<String, String> = config.labels.clone().unwrap_or_default().into_iter().collect();
        let name = container.name.as_deref().unwrap_or_default().trim_start_matches('/');
        let service = all_labels.get(labels::SERVICE).map_or(name, String::as_str).to_owned();
        if let Some((_, count)) = self.services.get_mut(&service) {
            *count += 1;
            return;
        }
        let mut about = BTreeMap::from([("image", text(config.image.clone().unwrap_or_default()))]);
        let command = config.cmd.clone().unwrap_or_default();
        if command != image_command && !command.is_empty() {
            about.insert("command", list(&command));
        }
        let environment: BTreeMap<String, Value> = config
            .env
            .iter()
            .flatten()
            .map(|variable| {
                let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
                (name.to_owned(), text(value))
            })
            .collect();
        if !environment.is_empty() {
            about.insert("environment", Value::Map(environment.into_iter().collect()));
        }
        let own: Vec<(&String, Value)> = all_labels
            .iter()
            .filter(|(name, _)| !name.starts_with("com.docker.compose"))
            .map(|(name, value)| (name, text(value)))
            .collect();
        if !own.is_empty() {
            about.insert("labels", map(own));
        }
        if let Some(check) = config.healthcheck.as_ref().filter(|check| check.test.is_some()) {
            about.insert("healthcheck", health(check));
        }
        let mounts: Vec<Value> = container
            .mounts
            .iter()
            .flatten()
            .map(|mount| self.mount(mount))
            .collect();
        if !mounts.is_empty() {
            about.insert("volumes", Value::List(mounts));
        }
        let networks = container
            .network_settings
            .as_ref()
            .and_then(|settings| settings.networks.clone());
        let networks: BTreeSet<String> = networks.unwrap_or_default().into_keys().collect();
        // These are modes, not networks that a file could describe.
        if let Some(mode) = networks
            .iter()
            .find(|network| matches!(network.as_str(), "host" | "none"))
        {
            about.insert("network_mode", text(mode));
        } else if !networks.is_empty() {
            about.insert(
                "networks",
                map(networks.iter().map(|name| (name, Value::Map(Vec::new())))),
            );
            self.networks.extend(networks);
        }
        let bindings = container
            .host_config
            .as_ref()
            .and_then(|host| host.port_bindings.clone());
        let mut ports = Vec::new();
        for (port, bindings) in bindings.unwrap_or_default().into_iter().collect::<BTreeMap<_, _>>() {
            let (target, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
            for binding in bindings.unwrap_or_default() {
                let mut entry = Vec::new();
                if let Some(address) = binding.host_ip.filter(|address| !address.is_empty()) {
                    entry.push(("host_ip".to_owned(), text(address)));
                }
                entry.push(("target".to_owned(), Value::Int(target.parse().unwrap_or_default())));
                if let Some(published) = binding.host_port.filter(|published| !published.is_empty()) {
                    entry.push(("published".to_owned(), text(published)));
                }
                entry.push(("protocol".to_owned(), text(protocol)));
                ports.push(Value::Map(entry));
            }
        }
        if !ports.is_empty() {
            about.insert("ports", Value::List(ports));
        }
        self.services.insert(service, (about, 1));
    }

    fn mount(&mut self, mount: &MountPoint) -> Value {
        let kind = mount.typ.as_ref().map(ToString::to_string).unwrap_or_default();
        let source = match (kind.as_str(), &mount.name) {
            ("volume", Some(name)) => {
                self.volumes.insert(name.clone());
                name.clone()
            }
            _ => mount.source.clone().unwrap_or_default(),
        };
        let mut entry = vec![("type".to_owned(), text(kind))];
        if !source.is_empty() {
            entry.push(("source".to_owned(), text(source)));
        }
        entry.push(("target".to_owned(), text(mount.destination.clone().unwrap_or_default())));
        if mount.rw == Some(false) {
            entry.push(("read_only".to_owned(), Value::Bool(true)));
        }
        Value::Map(entry)
    }

    fn value(self, name: &str) -> Value {
        let mut file = Vec::new();
        if !name.is_empty() {
            file.push(("name".to_owned(), text(name)));
        }
        let services = self.services.into_iter().map(|(name, (mut about, count))| {
            about.insert("scale", Value::Int(count));
            let about = about.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            (name, Value::Map(about))
        });
        file.push(("services".to_owned(), Value::Map(services.collect())));
        // They are there already, under these very names, which are not the project's.
        let external = |name: &String| {
            Value::Map(vec![
                ("name".to_owned(), text(name)),
                ("external".to_owned(), Value::Bool(true)),
            ])
        };
        for (key, names) in [("networks", &self.networks), ("volumes", &self.volumes)] {
            if !names.is_empty() {
                file.push((key.to_owned(), map(names.iter().map(|name| (name, external(name))))));
            }
        }
        Value::Map(file)
    }
}

fn health(check: &HealthConfig) -> Value {
    let mut entries = vec![("test".to_owned(), list(check.test.iter().flatten()))];
    for (key, nanoseconds) in [
        ("timeout", check.timeout),
        ("interval", check.interval),
        ("start_period", check.start_period),
        ("start_interval", check.start_interval),
    ] {
        if let Some(nanoseconds) = nanoseconds.filter(|nanoseconds| *nanoseconds > 0) {
            entries.push((key.to_owned(), text(format!("{}us", nanoseconds / 1000))));
        }
    }
    if let Some(retries) = check.retries.filter(|retries| *retries > 0) {
        entries.push(("retries".to_owned(), Value::Int(retries)));
    }
    Value::Map(entries)
}
