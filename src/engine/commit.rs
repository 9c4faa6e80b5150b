//! An image from what a container has become.

use std::sync::Arc;

use indexmap::IndexMap;

use super::container::Container;
use super::images::image_failure;
use super::{Engine, EngineError, Result, lifecycle, time};
use crate::image::{ContainerConfig, Empty, Healthcheck, History, Image, Reference};

/// What a commit is to say of itself.
#[derive(Debug, Default)]
pub struct CommitOptions {
    pub name: Option<Reference>,
    pub comment: Option<String>,
    pub author: Option<String>,
    /// Whether nothing may write while the files are copied.
    pub pause: bool,
    /// Instructions of a Dockerfile that change the new image's configuration.
    pub changes: Vec<String>,
}

impl Engine {
    /// Makes an image of a container's files and configuration.
    pub async fn commit(&self, container: &Arc<Container>, options: CommitOptions) -> Result<Image> {
        let record = container.record().clone();
        let base = self.image_of(&record)?;
        let mut config = of_container(&record.config);
        for change in &options.changes {
            apply(&mut config, change)?;
        }
        let live = container
            .live()
            .filter(|_| options.pause && record.state.status == super::container::Status::Running);
        if let Some(live) = &live {
            live.pause()
                .await
                .map_err(lifecycle::runtime_failure("cannot pause container"))?;
        }
        let store = self.store.clone();
        let upper = container.dir.join("upper");
        let layer = self.blocking(move || store.copy_layer(&upper)).await;
        if let Some(live) = &live {
            live.unpause()
                .await
                .map_err(lifecycle::runtime_failure("cannot unpause container"))?;
        }
        let layer = layer?.map_err(image_failure)?;
        let now = time::rfc3339(time::now());
        let mut image = (*base.config).clone();
        image.config = config;
        image.created = Some(now.clone());
        image.author.clone_from(&options.author);
        image.rootfs.diff_ids.push(layer.diff_id);
        image.history.push(History {
            created: Some(now),
            author: options.author,
            created_by: Some(record.config.cmd.clone().unwrap_or_default().join(" ")),
            comment: options.comment,
            empty_layer: false,
        });
        let names: Vec<Reference> = options.name.into_iter().collect();
        let made = self.store.add(&image, &names, Some(&base.id)).map_err(image_failure)?;
        let mut attributes = vec![("imageID", made.id.as_str())];
        let shown = names.first().map(Reference::familiar);
        if let Some(name) = &shown {
            attributes.push(("imageRef", name));
        }
        self.container_event(container, "commit", &attributes);
        Ok(made)
    }
}

fn of_container(config: &super::config::Config) -> ContainerConfig {
    ContainerConfig {
        user: config.user.clone(),
        exposed_ports: set(config.exposed_ports.keys()),
        env: config.env.clone().unwrap_or_default(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        healthcheck: config.healthcheck.as_ref().map(|check| Healthcheck {
            test: check.test.clone().unwrap_or_default(),
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }),
        args_escaped: false,
        volumes: set(config.volumes.iter().flat_map(|volumes| volumes.keys())),
        working_dir: config.working_dir.clone(),
        on_build: config.on_build.clone().unwrap_or_default(),
        labels: config.labels.clone(),
        stop_signal: Some(config.stop_signal.clone()).filter(|signal| !signal.is_empty()),
        stop_timeout: config.stop_timeout,
        shell: config.shell.clone(),
    }
}

fn set<'k>(keys: impl Iterator<Item = &'k String>) -> IndexMap<String, Empty> {
    keys.map(|key| (key.clone(), Empty {})).collect()
}

/// Carries out one instruction of a Dockerfile on a configuration.
pub fn apply(config: &mut ContainerConfig, change: &str) -> Result<()> {
    let wrong = || EngineError::InvalidParameter(format!("invalid change: {change}"));
    let (instruction, rest) = change.trim().split_once(char::is_whitespace).ok_or_else(wrong)?;
    let rest = rest.trim();
    let command = || -> Vec<String> {
        serde_json::from_str(rest).unwrap_or_else(|_| vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.to_owned()])
    };
    let pairs = || -> Result<Vec<(String, String)>> {
        if let Some((key, value)) = rest.split_once(char::is_whitespace)
            && !key.contains('=')
        {
            return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
        }
        let words = crate::file::words::split_words(rest).map_err(|_| wrong())?;
        words
            .iter()
            .map(|word| {
                word.split_once('=')
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .ok_or_else(wrong)
            })
            .collect()
    };
    match instruction.to_uppercase().as_str() {
        "CMD" => config.cmd = Some(command()),
        "ENTRYPOINT" => config.entrypoint = Some(command()),
        "USER" => rest.clone_into(&mut config.user),
        "WORKDIR" => rest.clone_into(&mut config.working_dir),
        "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        "ENV" => {
            for (key, value) in pairs()? {
                let prefix = format!("{key}=");
                config.env.retain(|variable| !variable.starts_with(&prefix));
                config.env.push(format!("{key}={value}"));
            }
        }
        "LABEL" => config.labels.extend(pairs()?),
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let port = if port.contains('/') {
                    port.to_owned()
                } else {
                    format!("{port}/tcp")
                };
                config.exposed_ports.insert(port, Empty {});
            }
        }
        "VOLUME" => {
            let paths: Vec<String> =
                serde_json::from_str(rest).unwrap_or_else(|_| rest.split_whitespace().map(str::to_owned).collect());
            config.volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
        }
        _ => {
            return Err(EngineError::InvalidParameter(format!(
                "{instruction} is not a valid change command"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_configuration() {
        let mut config = ContainerConfig::default();
        for change in [
            "CMD [\"a\",\"b\"]",
            "ENTRYPOINT run it",
            "ENV A=1 B=\"2 3\"",
            "ENV C 4 5",
            "EXPOSE 80 53/udp",
            "VOLUME /x /y",
            "label k=v",
        ] {
            apply(&mut config, change).unwrap();
        }
        assert_eq!(config.cmd.unwrap(), ["a", "b"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "run it"]);
        assert_eq!(config.env, ["A=1", "B=2 3", "C=4 5"]);
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["80/tcp", "53/udp"]);
        assert_eq!(config.volumes.len(), 2);
        assert_eq!(config.labels["k"], "v");
        assert!(apply(&mut ContainerConfig::default(), "FROM x").is_err());
    }
}
