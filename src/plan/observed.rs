//! What the engine has of a project: one snapshot, taken with few round trips, judged by nobody yet.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum, MountPoint};
use bollard::query_parameters::{ListNetworksOptions, ListVolumesOptions};
use futures_util::future::{try_join, try_join_all};

use crate::client::{ClientError, Engine, labels};
use crate::percent;

/// The state of a project on an engine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// All containers of the project: stopped ones and one-off ones too.
    pub containers: Vec<Container>,
    /// The networks that were asked for.
    pub networks: Vec<Network>,
    /// The volumes that were asked for.
    pub volumes: Vec<Volume>,
    /// The images that were asked for and are there, by the name they were asked for by.
    pub images: BTreeMap<String, Image>,
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    #[default]
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

/// A container of the project.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Container {
    pub id: String,
    /// Its name, without the slash that the Engine API puts before it.
    pub name: String,
    pub service: String,
    /// Which replica it is; one-off containers are none.
    pub number: Option<u32>,
    pub one_off: bool,
    pub state: State,
    /// Its health check succeeds.
    pub healthy: bool,
    pub created: i64,
    /// Its place among the project's containers as the engine lists them: the newest is first.
    pub place: usize,
    pub image: String,
    pub labels: HashMap<String, String>,
    /// The networks it is connected to: name and id.
    pub networks: BTreeMap<String, String>,
    pub mounts: Vec<Mounted>,
}

/// Something mounted in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounted {
    /// `volume`, `bind`, `tmpfs`, …
    pub kind: String,
    /// The volume's name.
    pub name: String,
    pub source: String,
    pub destination: String,
    pub writable: bool,
}

/// A network, of this project or another's that has the name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    pub id: String,
    pub name: String,
    pub labels: HashMap<String, String>,
}

/// A volume, of this project or another's that has the name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    pub labels: HashMap<String, String>,
}

/// An image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    pub id: String,
    /// Where its containers get anonymous volumes.
    pub volumes: Vec<String>,
    pub os: String,
    pub architecture: String,
    pub variant: String,
    /// When it was last pulled or tagged, in seconds of the epoch.
    pub tagged: Option<i64>,
}

impl Container {
    /// Returns the label, or nothing.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// Returns the name under which progress is shown.
    pub fn progress_id(&self) -> String {
        format!("Container {}", self.name)
    }

    /// Returns the name under which logs are shown: without the project, unless the file gave a name of its own.
    pub fn log_name(&self, project: &str) -> String {
        let default = format!("{project}-{}-{}", self.service, self.label(labels::CONTAINER_NUMBER));
        if self.name == default {
            self.name[project.len() + 1..].to_owned()
        } else {
            self.name.clone()
        }
    }
}

impl From<ContainerSummary> for Container {
    fn from(summary: ContainerSummary) -> Self {
        let labels = summary.labels.unwrap_or_default();
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        // Links add names of the form `/other/alias`; the container's own has one slash.
        let name = summary
            .names
            .unwrap_or_default()
            .into_iter()
            .find(|name| !name.trim_start_matches('/').contains('/'))
            .unwrap_or_default();
        Self {
            id: summary.id.unwrap_or_default(),
            name: name.trim_start_matches('/').to_owned(),
            service: label(labels::SERVICE),
            number: label(labels::CONTAINER_NUMBER).parse().ok(),
            one_off: label(labels::ONE_OFF) == "True",
            state: summary.state.map_or(State::Created, State::from),
            // Only the text tells, as `Up 2 minutes (healthy)`, before API 1.52.
            healthy: summary.status.is_some_and(|status| status.ends_with("(healthy)")),
            created: summary.created.unwrap_or_default(),
            place: 0,
            image: summary.image.unwrap_or_default(),
            networks: summary
                .network_settings
                .and_then(|settings| settings.networks)
                .unwrap_or_default()
                .into_iter()
                .map(|(name, endpoint)| (name, endpoint.network_id.unwrap_or_default()))
                .collect(),
            mounts: summary
                .mounts
                .unwrap_or_default()
                .into_iter()
                .map(Mounted::from)
                .collect(),
            labels,
        }
    }
}

impl From<ContainerSummaryStateEnum> for State {
    fn from(state: ContainerSummaryStateEnum) -> Self {
        match state {
            ContainerSummaryStateEnum::RUNNING => Self::Running,
            ContainerSummaryStateEnum::PAUSED => Self::Paused,
            ContainerSummaryStateEnum::RESTARTING => Self::Restarting,
            ContainerSummaryStateEnum::REMOVING => Self::Removing,
            ContainerSummaryStateEnum::EXITED | ContainerSummaryStateEnum::STOPPING => Self::Exited,
            ContainerSummaryStateEnum::DEAD => Self::Dead,
            ContainerSummaryStateEnum::CREATED | ContainerSummaryStateEnum::EMPTY => Self::Created,
        }
    }
}

impl From<MountPoint> for Mounted {
    fn from(mount: MountPoint) -> Self {
        Self {
            kind: mount.typ.map(|kind| kind.to_string()).unwrap_or_default(),
            name: mount.name.unwrap_or_default(),
            source: mount.source.unwrap_or_default(),
            destination: mount.destination.unwrap_or_default(),
            writable: mount.rw.unwrap_or(true),
        }
    }
}

/// What to ask the engine for.
#[derive(Debug, Clone, Default)]
pub struct Question<'q> {
    pub project: &'q str,
    /// Networks by name.
    pub networks: Vec<&'q str>,
    pub volumes: Vec<&'q str>,
    pub images: Vec<&'q str>,
    /// Ask for the project's networks and volumes by label where none are named.
    pub by_label: bool,
}

impl Observed {
    /// Takes a snapshot; the engine is asked everything at once.
    pub async fn collect(engine: &Engine, question: &Question<'_>) -> Result<Self, ClientError> {
        let ((containers, images), (networks, volumes)) = try_join(
            try_join(
                containers(engine, question.project),
                images(engine, question.images.iter().copied()),
            ),
            try_join(networks(engine, question), volumes(engine, question)),
        )
        .await?;
        Ok(Self {
            containers,
            networks,
            volumes,
            images,
        })
    }

    /// Returns the containers of a service, one-off ones left out, lowest number first.
    pub fn of_service(&self, service: &str) -> Vec<&Container> {
        let mut found: Vec<&Container> = self
            .containers
            .iter()
            .filter(|container| !container.one_off && container.service == service)
            .collect();
        found.sort_by(|a, b| (a.number, &a.name).cmp(&(b.number, &b.name)));
        found
    }
}

/// Returns all containers of a project, by name.
pub async fn containers(engine: &Engine, project: &str) -> Result<Vec<Container>, ClientError> {
    // Without a hash it is no container of a service: docker compose leaves such alone.
    let wanted = [format!("{}={project}", labels::PROJECT), labels::CONFIG_HASH.to_owned()];
    let summaries = engine.containers(&wanted, true).await?;
    let mut containers: Vec<Container> = summaries.into_iter().map(Container::from).collect();
    for (place, container) in containers.iter_mut().enumerate() {
        container.place = place;
    }
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(containers)
}

/// Returns those of the images that are there.
pub async fn images<'i>(
    engine: &Engine,
    names: impl IntoIterator<Item = &'i str>,
) -> Result<BTreeMap<String, Image>, ClientError> {
    let inspections = names.into_iter().map(|name| async move {
        // A path in the name must not become part of the request's.
        let encoded = if name.contains(":/") {
            percent::encoded(name)
        } else {
            name.to_owned()
        };
        match engine.docker.inspect_image(&encoded).await.map_err(ClientError::from) {
            Ok(image) => Ok(Some((
                name.to_owned(),
                Image {
                    id: image.id.unwrap_or_default(),
                    tagged: image
                        .metadata
                        .as_ref()
                        .and_then(|metadata| seconds(metadata.last_tag_time.as_ref()?)),
                    volumes: image.config.and_then(|config| config.volumes).unwrap_or_default(),
                    os: image.os.unwrap_or_default(),
                    architecture: image.architecture.unwrap_or_default(),
                    variant: image.variant.unwrap_or_default(),
                },
            ))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    });
    Ok(try_join_all(inspections).await?.into_iter().flatten().collect())
}

/// Returns a moment of the engine's in seconds of the epoch.
fn seconds(time: &impl serde::Serialize) -> Option<i64> {
    let text = serde_json::to_value(time).ok()?;
    let time: jiff::Timestamp = text.as_str()?.parse().ok()?;
    Some(time.as_second())
}

async fn networks(engine: &Engine, question: &Question<'_>) -> Result<Vec<Network>, ClientError> {
    let Some(filters) = filters(question, &question.networks) else {
        return Ok(Vec::new());
    };
    let found = engine
        .docker
        .list_networks(Some(ListNetworksOptions { filters: Some(filters) }))
        .await?;
    Ok(found
        .into_iter()
        .map(|network| Network {
            id: network.id.unwrap_or_default(),
            name: network.name.unwrap_or_default(),
            labels: network.labels.unwrap_or_default(),
        })
        .filter(|network| {
            // The engine matches parts of names too.
            question.networks.is_empty()
                || question.networks.contains(&network.name.as_str())
                || question.networks.contains(&network.id.as_str())
        })
        .collect())
}

async fn volumes(engine: &Engine, question: &Question<'_>) -> Result<Vec<Volume>, ClientError> {
    let Some(filters) = filters(question, &question.volumes) else {
        return Ok(Vec::new());
    };
    let found = engine
        .docker
        .list_volumes(Some(ListVolumesOptions { filters: Some(filters) }))
        .await?;
    Ok(found
        .volumes
        .unwrap_or_default()
        .into_iter()
        .map(|volume| Volume {
            name: volume.name,
            labels: volume.labels,
        })
        .filter(|volume| question.volumes.is_empty() || question.volumes.contains(&volume.name.as_str()))
        .collect())
}

fn filters(question: &Question<'_>, names: &[&str]) -> Option<HashMap<String, Vec<String>>> {
    if !names.is_empty() {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        return Some(HashMap::from([("name".to_owned(), names)]));
    }
    question.by_label.then(|| {
        let label = format!("{}={}", labels::PROJECT, question.project);
        HashMap::from([("label".to_owned(), vec![label])])
    })
}
