//! Making a container: settle what was asked, take a name, prepare its directory and volumes.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use jiff::Timestamp;

use super::config::{CreateBody, Endpoint, Set};
use super::container::{Container, Record, State, new_id};
use super::images::image_failure;
use super::mounts::{self, MountPoint};
use super::{Engine, EngineError, Result, containers, merge, populate, volumes};
use crate::image::{self, remove_tree};

impl Engine {
    /// Makes a container and returns it.
    pub async fn create(self: &Arc<Self>, name: Option<&str>, body: CreateBody) -> Result<Arc<Container>> {
        let CreateBody {
            mut config,
            mut host,
            networking,
        } = body;
        if config.image.is_empty() {
            return Err(EngineError::InvalidParameter("no image specified".to_owned()));
        }
        let image = self.image(&config.image)?;
        image.check().map_err(image_failure)?;
        let id = new_id();
        merge::with_image(&mut config, &image.config.config);
        merge::settle(&mut config, &mut host, &id)?;
        if config.user.contains('\0') {
            return Err(EngineError::InvalidParameter("invalid user".to_owned()));
        }
        super::spec::capabilities(&host)?;
        super::spec::security(&host)?;
        self.resolve_modes(&mut host)?;
        let networks = self.initial_endpoints(&mut host, networking.endpoints_config, &config.mac_address);
        let inherited = self.inherited_mounts(host.volumes_from.as_deref().unwrap_or_default())?;
        // The image's own volumes came into the config by the merge.
        let mounts = mounts::resolve(&config, &host, &Set::new(), inherited)?;

        super::ids::check(&host, &mounts)?;

        let name = self.take_name(name, &id)?;
        let mut words = config
            .entrypoint
            .iter()
            .flatten()
            .chain(config.cmd.iter().flatten())
            .cloned();
        let record = Record {
            id: id.clone(),
            name: name.clone(),
            created: Timestamp::now(),
            image: image.id.clone(),
            path: words.next().unwrap_or_default(),
            args: words.collect(),
            networks,
            mounts: Vec::new(),
            state: State::default(),
            restart_count: 0,
            manually_stopped: false,
            ports: IndexMap::new(),
            boot_id: String::new(),
            sandbox_id: String::new(),
            sandbox: None,
            ids: None,
            config,
            host,
        };
        let made = match self.check_endpoints(&record) {
            Ok(()) => self.make(record, mounts, &image).await,
            Err(cause) => Err(cause),
        };
        match made {
            Ok(container) => {
                self.containers.insert(Arc::clone(&container));
                self.container_event(&container, "create", &[]);
                Ok(container)
            }
            Err(cause) => {
                self.containers.release(&name);
                let _ = remove_tree(&self.paths.container(&id));
                Err(cause)
            }
        }
    }

    /// Refuses an image that is not for the platform asked for: its programs would not run.
    pub fn check_platform(&self, image: &str, wanted: &str) -> Result<()> {
        let Some(platform) = image::Platform::parse(wanted) else {
            return Err(EngineError::InvalidParameter(format!(
                "\"{wanted}\": unknown operating system or architecture: invalid argument"
            )));
        };
        let found = self.image(image)?.config;
        let given = |one: &str, other: &str| one.is_empty() || one == other;
        if given(&found.os, &platform.os) && given(&found.architecture, &platform.architecture) {
            return Ok(());
        }
        Err(EngineError::NotFound(format!(
            "image with reference {image} was found but its platform ({}/{}) does not match the specified platform \
             ({wanted})",
            found.os, found.architecture
        )))
    }

    fn take_name(&self, name: Option<&str>, id: &str) -> Result<String> {
        if let Some(name) = name {
            let name = name.strip_prefix('/').unwrap_or(name);
            containers::check_name(name)?;
            self.containers.reserve(name, id)?;
            return Ok(name.to_owned());
        }
        let mut attempt = 0;
        loop {
            let name = containers::invented_name(id, attempt);
            match self.containers.reserve(&name, id) {
                Ok(()) => return Ok(name),
                Err(cause) if attempt > 5 => return Err(cause),
                Err(_) => attempt += 1,
            }
        }
    }

    async fn make(
        self: &Arc<Self>,
        mut record: Record,
        mounts: Vec<MountPoint>,
        image: &image::Image,
    ) -> Result<Arc<Container>> {
        let directory = self.paths.container(&record.id);
        for part in ["", "upper", "work"] {
            let path = directory.join(part);
            // The writable layer's root is the container's root: everyone inside may pass.
            let mode = if part == "upper" { 0o755 } else { 0o711 };
            std::fs::DirBuilder::new()
                .mode(mode)
                .create(&path)
                .map_err(EngineError::file("cannot create", &path))?;
        }
        let mut prepared = Vec::with_capacity(mounts.len());
        let mut unfinished = Vec::new();
        for mount in mounts {
            let result = self.prepare_volume(mount, image, &mut unfinished).await;
            match result {
                Ok(mount) => prepared.push(mount),
                Err(cause) => {
                    for name in unfinished {
                        let _ = self.volumes.remove(&name);
                    }
                    return Err(cause);
                }
            }
        }
        record.mounts = prepared;
        let container = Container::new(directory, record, &self.settling);
        container.update(|_| ())?;
        Ok(container)
    }

    /// Makes the volume of a mount if need be, and gives it the image's content the first time.
    async fn prepare_volume(
        self: &Arc<Self>,
        mut mount: MountPoint,
        image: &image::Image,
        made_here: &mut Vec<String>,
    ) -> Result<MountPoint> {
        match mount.kind.as_str() {
            "image" => {
                // Only to say now that it is not there.
                self.image(&mount.source)?;
                return Ok(mount);
            }
            "volume" => {}
            _ => return Ok(mount),
        }
        let labels = Some(mount.volume.labels.clone()).filter(|labels| !labels.is_empty());
        let driver = mount.volume.driver_config.clone().unwrap_or_default();
        super::check_volume_driver(&driver.name)?;
        let (volume, made) = self.volumes.create(&mount.name, labels, Some(driver.options))?;
        if made {
            made_here.push(volume.name.clone());
            self.volume_event(&volume.name, "create", &[]);
        }
        mount.name.clone_from(&volume.name);
        if mount.copy && mount.subpath.is_empty() && !volume.populated && volume.options.is_none() {
            let layers = self.layers(image);
            let target = self.volumes.data_dir(&volume.name);
            let path = mount.destination.clone();
            self.blocking(move || populate::from_layers(&layers, Path::new(&path), &target))
                .await?
                .map_err(EngineError::file(
                    "cannot copy the image's content to",
                    Path::new(&mount.name),
                ))?;
            self.volumes.set_populated(&volume.name)?;
        }
        Ok(mount)
    }

    /// Replaces the names in modes that refer to other containers by their ids.
    fn resolve_modes(&self, host: &mut super::config::HostConfig) -> Result<()> {
        for mode in [&mut host.network_mode, &mut host.ipc_mode, &mut host.pid_mode] {
            if let Some(other) = mode.strip_prefix("container:") {
                let id = self.containers.find(other)?.id.clone();
                *mode = format!("container:{id}");
            }
        }
        Ok(())
    }

    /// Returns the networks a container is to join: those of the request and the one its mode names.
    fn initial_endpoints(
        &self,
        host: &mut super::config::HostConfig,
        mut endpoints: IndexMap<String, Endpoint>,
        mac: &str,
    ) -> IndexMap<String, Endpoint> {
        let mode = host.network_mode.clone();
        if mode.starts_with("container:") {
            return IndexMap::new();
        }
        // A mode may name the network by its id; everything after this goes by names.
        let by_name = |name: &str| {
            self.networks
                .find(name)
                .map_or_else(|_| name.to_owned(), |network| network.spec.name.clone())
        };
        let mut named: IndexMap<String, Endpoint> = endpoints
            .drain(..)
            .map(|(name, endpoint)| (by_name(&name), endpoint))
            .collect();
        let primary = by_name(&mode);
        if !named.contains_key(&primary) {
            named.shift_insert(0, primary.clone(), Endpoint::default());
        }
        if !mac.is_empty()
            && let Some(endpoint) = named.get_mut(&primary)
            && endpoint.mac_address.is_empty()
        {
            mac.clone_into(&mut endpoint.mac_address);
        }
        for (name, endpoint) in &mut named {
            // What came of an earlier container is not a wish.
            *endpoint = Endpoint {
                ipam_config: endpoint.ipam_config.take(),
                links: endpoint.links.take(),
                aliases: endpoint.aliases.take(),
                mac_address: std::mem::take(&mut endpoint.mac_address),
                driver_opts: endpoint.driver_opts.take(),
                gw_priority: endpoint.gw_priority,
                network_id: self
                    .networks
                    .find(name)
                    .map(|network| network.spec.id.clone())
                    .unwrap_or_default(),
                ..Endpoint::default()
            };
        }
        named
    }

    /// Returns the mounts of the containers named in `volumes_from`.
    fn inherited_mounts(&self, sources: &[String]) -> Result<Vec<MountPoint>> {
        let mut inherited = Vec::new();
        for source in sources {
            let (name, mode) = source.split_once(':').unwrap_or((source, "rw"));
            if !matches!(mode, "rw" | "ro" | "z" | "Z" | "rw,z" | "ro,z") {
                return Err(EngineError::InvalidParameter(format!(
                    "invalid volume specification: '{source}'"
                )));
            }
            let other = self.containers.find(name)?;
            for mount in &other.record().mounts {
                inherited.push(MountPoint {
                    writable: mount.writable && !mode.starts_with("ro"),
                    copy: false,
                    ..mount.clone()
                });
            }
        }
        Ok(inherited)
    }

    /// Returns the containers that use a volume.
    pub fn users_of_volume(&self, name: &str) -> Vec<String> {
        self.containers
            .all()
            .iter()
            .filter(|container| {
                container
                    .record()
                    .mounts
                    .iter()
                    .any(|mount| mount.kind == "volume" && mount.name == name)
            })
            .map(|container| container.id.clone())
            .collect()
    }

    /// Removes a volume that no container uses.
    pub fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        let volume = match self.volumes.find(name) {
            Err(EngineError::NotFound(_)) if force => return Ok(()),
            volume => volume?,
        };
        let users = self.users_of_volume(&volume.name);
        if !users.is_empty() {
            return Err(EngineError::Conflict(format!(
                "remove {name}: volume is in use - [{}]",
                users.join(", ")
            )));
        }
        self.volumes.remove(name)?;
        self.volume_event(name, "destroy", &[]);
        Ok(())
    }

    /// Makes a volume as a request words it.
    pub fn create_volume(
        &self,
        name: &str,
        driver: &str,
        labels: Option<super::config::StringMap>,
        options: Option<super::config::StringMap>,
    ) -> Result<volumes::Volume> {
        super::check_volume_driver(driver)?;
        let (volume, made) = self.volumes.create(name, labels, options)?;
        if made {
            self.volume_event(&volume.name, "create", &[]);
        }
        Ok(volume)
    }
}
