//! What is mounted in a container: volumes, directories and files of the host, secrets and configs that are files, and
//! the anonymous volumes of the container it replaces.

use std::collections::BTreeMap;
use std::path::Path;

use bollard::models::{
    Mount as EngineMount, MountBindOptions, MountImageOptions, MountTmpfsOptions, MountType, MountVolumeOptions,
};

use super::container::ContainerRequest;
use super::files::{self, Kind};
use super::{CreateError, mapping, number, text};
use crate::model::{BindOptions, IDMAP, Mount, Project, Service, Value, VolumeOptions};

/// The mounts of a container, in the two forms the engine takes, and variables that go with them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Mounts {
    /// `source:target:options`: the only form in which a missing directory of the host is made.
    pub binds: Vec<String>,
    pub mounts: Vec<EngineMount>,
    pub environment: BTreeMap<String, String>,
    /// The targets of binds whose ids are mapped.
    pub mapped: Vec<String>,
}

/// Returns what is mounted.
pub(super) fn mounts(request: &ContainerRequest<'_>, warnings: &mut Vec<String>) -> Result<Mounts, CreateError> {
    let (project, service) = (request.project, request.service);
    let mut declared: Vec<Mount> = service.volumes.clone();
    // By target, so that what is declared replaces what is inherited, and a secret never hides a volume.
    let mut by_target: BTreeMap<String, EngineMount> = inherited(request, &mut declared);
    if service.use_api_socket {
        let socket = request.host.socket.clone().ok_or(CreateError::ApiSocket)?;
        declared.push(Mount {
            r#type: "bind".to_owned(),
            source: socket,
            target: "/var/run/docker.sock".to_owned(),
            ..Mount::default()
        });
    }
    for mount in &declared {
        let mount = engine_mount(project, mount, warnings);
        by_target.insert(mount.target.clone().unwrap_or_default(), mount);
    }
    for file in files::mounted(project, service, Kind::Secret, warnings)?
        .into_iter()
        .chain(files::mounted(project, service, Kind::Config, warnings)?)
    {
        let mount = engine_mount(project, &file, warnings);
        by_target.entry(file.target.clone()).or_insert(mount);
    }
    let is_mapped = |mount: &&Mount| {
        let option = mount.bind.as_ref().and_then(|bind| bind.extensions.get(IDMAP));
        mount.r#type == "bind" && matches!(option, Some(Value::Bool(true)))
    };
    let mut result = Mounts {
        mapped: declared
            .iter()
            .filter(is_mapped)
            .map(|mount| clean(&mount.target))
            .collect(),
        ..Mounts::default()
    };
    for (target, mount) in by_target {
        match as_bind(project, service, &declared, &target, &mount) {
            Some(bind) => result.binds.push(bind),
            None => result.mounts.push(mount),
        }
    }
    Ok(result)
}

/// Returns the anonymous volumes of the container that is replaced, and takes them out of what is to be made anew.
fn inherited(request: &ContainerRequest<'_>, declared: &mut Vec<Mount>) -> BTreeMap<String, EngineMount> {
    let mut inherited = BTreeMap::new();
    let Some(replaced) = request.inherit else {
        return inherited;
    };
    for mounted in replaced.mounts.iter().filter(|mounted| mounted.kind != "tmpfs") {
        let is_images = request
            .image
            .is_some_and(|image| image.volumes.contains(&mounted.destination));
        let anonymous = declared
            .iter()
            .position(|mount| mount.target == mounted.destination && mount.source.is_empty());
        if !is_images && anonymous.is_none() {
            continue;
        }
        if let Some(index) = anonymous {
            declared.remove(index);
        }
        let source = if mounted.kind == "volume" {
            &mounted.name
        } else {
            &mounted.source
        };
        inherited.insert(
            mounted.destination.clone(),
            EngineMount {
                typ: mounted.kind.parse().ok(),
                source: Some(source.clone()),
                target: Some(mounted.destination.clone()),
                read_only: Some(!mounted.writable),
                ..EngineMount::default()
            },
        );
    }
    inherited
}

fn engine_mount(project: &Project, mount: &Mount, warnings: &mut Vec<String>) -> EngineMount {
    let volume = project.volumes.get(&mount.source).filter(|_| mount.r#type == "volume");
    let source = match mount.r#type.as_str() {
        "volume" => volume.map_or_else(|| mount.source.clone(), |volume| volume.name.clone()),
        "bind" if !mount.source.starts_with('/') => project.working_dir.join(&mount.source).display().to_string(),
        _ => mount.source.clone(),
    };
    for (kind, is_set) in [
        ("bind", mount.bind.is_some()),
        ("volume", mount.volume.is_some()),
        ("tmpfs", mount.tmpfs.is_some()),
        ("image", mount.image.is_some()),
    ] {
        if is_set && kind != mount.r#type {
            warnings.push(format!(
                "mount of type `{}` should not define `{kind}` option",
                mount.r#type
            ));
        }
    }
    let mut engine = EngineMount {
        typ: mount.r#type.parse().ok(),
        source: text(&source),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        consistency: text(&mount.consistency),
        ..EngineMount::default()
    };
    match mount.r#type.as_str() {
        "bind" => engine.bind_options = mount.bind.as_ref().map(bind_options),
        // A volume that is a directory of the host by its driver's options is mounted as one.
        "volume" if volume.is_some_and(|volume| volume.driver_opts.get("o").is_some_and(|how| how == "bind")) => {
            engine.typ = Some(MountType::BIND);
            engine.bind_options = Some(MountBindOptions {
                create_mountpoint: Some(true),
                ..MountBindOptions::default()
            });
        }
        "volume" => engine.volume_options = mount.volume.as_ref().map(volume_options),
        "tmpfs" => {
            engine.tmpfs_options = mount.tmpfs.as_ref().map(|tmpfs| MountTmpfsOptions {
                size_bytes: number(tmpfs.size.0),
                mode: number(i64::from(tmpfs.mode)),
                options: None,
            });
        }
        "image" => {
            engine.image_options = mount.image.as_ref().map(|image| MountImageOptions {
                subpath: text(&image.subpath),
            });
        }
        _ => {}
    }
    engine
}

fn bind_options(bind: &BindOptions) -> MountBindOptions {
    MountBindOptions {
        propagation: bind.propagation.parse().ok().filter(|_| !bind.propagation.is_empty()),
        create_mountpoint: Some(bind.create_host_path),
        non_recursive: (bind.recursive == "disabled").then_some(true),
        read_only_non_recursive: (bind.recursive == "writable").then_some(true),
        read_only_force_recursive: (bind.recursive == "readonly").then_some(true),
    }
}

fn volume_options(volume: &VolumeOptions) -> MountVolumeOptions {
    MountVolumeOptions {
        no_copy: volume.nocopy.then_some(true),
        labels: mapping(&volume.labels),
        subpath: text(&volume.subpath),
        driver_config: None,
    }
}

/// Returns the mount in the short form, where that can say all of it.
fn as_bind(
    project: &Project,
    service: &Service,
    declared: &[Mount],
    target: &str,
    mount: &EngineMount,
) -> Option<String> {
    let own = declared.iter().find(|own| own.target == target)?;
    // Only what the file declares, not what is inherited or a secret.
    if !service.volumes.iter().any(|volume| volume.target == target) && !service.use_api_socket {
        return None;
    }
    let source = mount.source.as_deref()?;
    match mount.typ? {
        MountType::BIND => {
            let needs_mount = own.bind.as_ref().is_some_and(|bind| {
                !bind.create_host_path || !bind.propagation.is_empty() || !bind.recursive.is_empty()
            });
            (!needs_mount).then(|| short_form(source, own))
        }
        MountType::VOLUME => {
            let is_named = project.volumes.values().any(|volume| volume.name == source);
            let needs_mount = own
                .volume
                .as_ref()
                .is_some_and(|volume| volume.nocopy || !volume.labels.is_empty() || !volume.subpath.is_empty());
            (is_named && !needs_mount).then(|| short_form(source, own))
        }
        _ => None,
    }
}

fn short_form(source: &str, mount: &Mount) -> String {
    let access = if mount.read_only { "ro" } else { "rw" };
    let mut options = vec![access];
    if let Some(bind) = &mount.bind {
        options.extend(
            [bind.selinux.as_str(), bind.propagation.as_str()]
                .into_iter()
                .filter(|option| !option.is_empty()),
        );
    }
    if mount.volume.as_ref().is_some_and(|volume| volume.nocopy) {
        options.push("nocopy");
    }
    format!("{source}:{}:{}", clean(&mount.target), options.join(","))
}

/// The engine wants targets without `.` and doubled slashes.
fn clean(target: &str) -> String {
    Path::new(target)
        .components()
        .collect::<std::path::PathBuf>()
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TmpfsOptions, Volume};
    use crate::plan::create::Host;
    use crate::plan::observed::{Container, Image, Mounted};

    fn of(volumes: Vec<Mount>, inherit: Option<&Container>) -> Mounts {
        let project = Project {
            name: "p".into(),
            working_dir: "/work".into(),
            volumes: [(
                "data".to_owned(),
                Volume {
                    name: "p_data".into(),
                    ..Volume::default()
                },
            )]
            .into(),
            ..Project::default()
        };
        let service = Service {
            name: "web".into(),
            volumes,
            ..Service::default()
        };
        let image = Image {
            volumes: vec!["/from-image".into()],
            ..Image::default()
        };
        let request = ContainerRequest {
            project: &project,
            service: &service,
            number: Some(1),
            name: "p-web-1",
            image: Some(&image),
            image_name: "i",
            inherit,
            links: &[],
            labels: BTreeMap::new(),
            auto_remove: false,
            attach_stdin: false,
            use_aliases: true,
            host: &Host::default(),
        };
        mounts(&request, &mut Vec::new()).unwrap()
    }

    fn mount(kind: &str, source: &str, target: &str) -> Mount {
        Mount {
            r#type: kind.into(),
            source: source.into(),
            target: target.into(),
            ..Mount::default()
        }
    }

    #[test]
    fn the_short_form_is_used_where_it_can_say_all() {
        let read_only = Mount {
            read_only: true,
            ..mount("bind", "/src", "/b/./c")
        };
        let strict = Mount {
            bind: Some(BindOptions::default()),
            ..mount("bind", "/src", "/strict")
        };
        let unfilled = Mount {
            volume: Some(VolumeOptions {
                nocopy: true,
                ..VolumeOptions::default()
            }),
            ..mount("volume", "data", "/unfilled")
        };
        let found = of(
            vec![
                mount("volume", "data", "/data"),
                read_only,
                strict,
                unfilled,
                mount("volume", "", "/anonymous"),
            ],
            None,
        );
        assert_eq!(found.binds, ["/src:/b/c:ro", "p_data:/data:rw"]);
        let long: Vec<_> = found
            .mounts
            .iter()
            .map(|mount| (mount.target.as_deref().unwrap(), mount.source.as_deref()))
            .collect();
        assert_eq!(
            long,
            [
                ("/anonymous", None),
                ("/strict", Some("/src")),
                ("/unfilled", Some("p_data"))
            ]
        );
    }

    #[test]
    fn anonymous_volumes_are_inherited_and_others_are_not() {
        let mounted = |kind: &str, name: &str, destination: &str| Mounted {
            kind: kind.into(),
            name: name.into(),
            destination: destination.into(),
            writable: true,
            ..Mounted::default()
        };
        let replaced = Container {
            mounts: vec![
                mounted("volume", "a1", "/anonymous"),
                mounted("volume", "a2", "/from-image"),
                mounted("volume", "a3", "/no-more"),
                mounted("tmpfs", "", "/anonymous-memory"),
            ],
            ..Container::default()
        };
        let found = of(vec![mount("volume", "", "/anonymous")], Some(&replaced));
        let sources: Vec<_> = found
            .mounts
            .iter()
            .map(|mount| (mount.target.as_deref().unwrap(), mount.source.as_deref().unwrap()))
            .collect();
        assert_eq!(sources, [("/anonymous", "a1"), ("/from-image", "a2")]);
    }

    #[test]
    fn memory_has_a_size() {
        let memory = Mount {
            tmpfs: Some(TmpfsOptions {
                size: crate::model::Bytes(1 << 20),
                ..TmpfsOptions::default()
            }),
            ..mount("tmpfs", "", "/memory")
        };
        let found = of(vec![memory], None);
        assert_eq!(
            found.mounts[0].tmpfs_options.as_ref().unwrap().size_bytes,
            Some(1 << 20)
        );
    }
}
