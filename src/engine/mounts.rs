//! What is mounted into a container: binds, volumes, tmpfs and images, in all the ways the API can say it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::config::{Config, HostConfig, Mount, Set, VolumeOptions};
use super::{EngineError, Result, volumes};

/// One mount of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountPoint {
    /// `bind`, `volume`, `tmpfs` or `image`.
    pub kind: String,
    /// The volume's name.
    pub name: String,
    /// The path on the host, or the image.
    pub source: String,
    pub destination: String,
    /// The options as they were written.
    pub mode: String,
    pub writable: bool,
    pub propagation: String,
    /// Whether a missing source of a bind is made.
    pub create_source: bool,
    /// Whether a volume that is still empty gets the image's content.
    pub copy: bool,
    /// Whether the volume was made for this container alone.
    pub anonymous: bool,
    /// Mounted at the destination is this part of the volume or image.
    pub subpath: String,
    pub recursive: bool,
    /// Whether mounts below a read-only bind stay writable.
    pub read_only_top: bool,
    /// A tmpfs's options.
    pub options: Vec<String>,
    /// What a volume that does not exist yet is made with.
    pub volume: VolumeOptions,
}

impl MountPoint {
    /// Returns the mount as `inspect` prints it.
    pub fn inspect(&self, volumes: &volumes::Volumes) -> Value {
        let mut value = json!({ "Type": self.kind });
        if self.kind == "volume" {
            value["Name"] = json!(self.name);
            value["Source"] = json!(volumes.data_dir(&self.name));
        } else {
            value["Source"] = json!(self.source);
        }
        value["Destination"] = json!(self.destination);
        if self.kind == "volume" {
            value["Driver"] = json!("local");
        }
        value["Mode"] = json!(self.mode);
        value["RW"] = json!(self.writable);
        value["Propagation"] = json!(self.propagation);
        value
    }
}

fn invalid(text: String) -> EngineError {
    EngineError::InvalidParameter(text)
}

/// Returns all mounts of a container to be, each destination once.
///
/// What a user mounts covers what the image declares; `inherited` are the mounts of `volumes_from`.
pub fn resolve(
    config: &Config,
    host: &HostConfig,
    image_volumes: &Set,
    inherited: Vec<MountPoint>,
) -> Result<Vec<MountPoint>> {
    let mut points: BTreeMap<String, MountPoint> = BTreeMap::new();
    let mut order = Vec::new();
    let mut put = |point: MountPoint, replace: bool| -> Result<()> {
        if points.contains_key(&point.destination) {
            if !replace {
                return Err(invalid(format!("Duplicate mount point: {}", point.destination)));
            }
        } else {
            order.push(point.destination.clone());
        }
        points.insert(point.destination.clone(), point);
        Ok(())
    };
    for point in inherited {
        put(point, true)?;
    }
    let mut own = Vec::new();
    for bind in host.binds.iter().flatten() {
        own.push(parse_bind(bind)?);
    }
    for mount in &host.mounts {
        own.push(parse_mount(mount)?);
    }
    let mut seen: Vec<&str> = host.tmpfs.keys().map(String::as_str).collect();
    for point in &own {
        if seen.contains(&point.destination.as_str()) {
            return Err(invalid(format!("Duplicate mount point: {}", point.destination)));
        }
        seen.push(&point.destination);
    }
    let declared: Vec<String> = image_volumes
        .keys()
        .chain(config.volumes.iter().flat_map(BTreeMap::keys))
        .map(|path| clean(path))
        .filter(|path| !host.tmpfs.keys().any(|tmpfs| clean(tmpfs) == *path))
        .collect();
    for point in own {
        put(point, true)?;
    }
    for destination in declared {
        if !points.contains_key(&destination) {
            order.push(destination.clone());
            points.insert(destination.clone(), anonymous(destination));
        }
    }
    // Outer mounts before those inside them.
    let mut result: Vec<MountPoint> = order.into_iter().filter_map(|path| points.remove(&path)).collect();
    result.sort_by_key(|point| Path::new(&point.destination).components().count());
    Ok(result)
}

fn anonymous(destination: String) -> MountPoint {
    MountPoint {
        kind: "volume".to_owned(),
        destination,
        mode: String::new(),
        writable: true,
        copy: true,
        anonymous: true,
        ..MountPoint::default()
    }
}

/// Returns a path without `.`, `..`, doubled and final slashes.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn parse_bind(text: &str) -> Result<MountPoint> {
    let wrong = || invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, mode) = match parts.as_slice() {
        [destination] => ("", *destination, ""),
        [source, destination] => (*source, *destination, ""),
        [source, destination, mode] => (*source, *destination, *mode),
        _ => return Err(wrong()),
    };
    if destination.is_empty() || (parts.len() > 1 && source.is_empty()) {
        return Err(wrong());
    }
    if !destination.starts_with('/') {
        return Err(invalid(format!(
            "invalid volume specification: '{text}': invalid mount config for type \"{}\": invalid mount path: \
             '{destination}' mount path must be absolute",
            if source.starts_with('/') { "bind" } else { "volume" },
        )));
    }
    let destination = clean(destination);
    if destination == "/" {
        return Err(invalid(format!(
            "invalid volume specification: '{text}': invalid mount config for type \"bind\": invalid specification: \
             destination can't be '/'"
        )));
    }
    let mut point = MountPoint {
        destination,
        mode: mode.to_owned(),
        writable: true,
        copy: true,
        recursive: true,
        ..MountPoint::default()
    };
    if source.starts_with('/') {
        point.kind = "bind".to_owned();
        point.source = clean(source);
        point.create_source = true;
        point.propagation = "rprivate".to_owned();
    } else {
        point.kind = "volume".to_owned();
        point.anonymous = source.is_empty();
        source.clone_into(&mut point.name);
        if mode.is_empty() {
            "z".clone_into(&mut point.mode);
        }
        volumes::check_name(&point.name)?;
    }
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        match option {
            "rw" | "z" | "Z" | "consistent" | "cached" | "delegated" | "default" => {}
            "ro" | "readonly" => point.writable = false,
            "nocopy" if point.kind == "volume" => point.copy = false,
            "copy" if point.kind == "volume" => {}
            "shared" | "slave" | "private" | "rshared" | "rslave" | "rprivate" if point.kind == "bind" => {
                option.clone_into(&mut point.propagation);
            }
            _ => return Err(invalid(format!("invalid mode: {mode}"))),
        }
    }
    Ok(point)
}

fn parse_mount(mount: &Mount) -> Result<MountPoint> {
    let wrong = |why: &str| invalid(format!("invalid mount config for type \"{}\": {why}", mount.r#type));
    if mount.target.is_empty() {
        return Err(wrong("field Target must not be empty"));
    }
    if !mount.target.starts_with('/') {
        return Err(wrong(&format!(
            "invalid mount path: '{}' mount path must be absolute",
            mount.target
        )));
    }
    let destination = clean(&mount.target);
    if destination == "/" {
        return Err(wrong("invalid specification: destination can't be '/'"));
    }
    let mut point = MountPoint {
        kind: mount.r#type.clone(),
        destination,
        writable: !mount.read_only,
        copy: true,
        recursive: true,
        ..MountPoint::default()
    };
    match mount.r#type.as_str() {
        "bind" => {
            if mount.source.is_empty() {
                return Err(wrong("field Source must not be empty"));
            }
            if !mount.source.starts_with('/') {
                return Err(wrong(&format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    mount.source
                )));
            }
            let options = mount.bind_options.clone().unwrap_or_default();
            point.source = clean(&mount.source);
            point.create_source = options.create_mountpoint;
            point.recursive = !options.non_recursive;
            point.read_only_top = options.read_only_non_recursive;
            point.propagation = if options.propagation.is_empty() {
                "rprivate".to_owned()
            } else {
                options.propagation
            };
            // moby checks when the container is made, and says so then.
            if !point.create_source && !Path::new(&point.source).exists() && !is_engine_socket(&point.source) {
                return Err(wrong(&format!("bind source path does not exist: {}", point.source)));
            }
        }
        "volume" => {
            let options = mount.volume_options.clone().unwrap_or_default();
            mount.source.clone_into(&mut point.name);
            point.anonymous = mount.source.is_empty();
            point.copy = !options.no_copy;
            point.subpath.clone_from(&options.subpath);
            "z".clone_into(&mut point.mode);
            if !point.anonymous {
                volumes::check_name(&point.name)?;
            }
            point.volume = options;
        }
        "tmpfs" => {
            if !mount.source.is_empty() {
                return Err(wrong("field Source must not be specified"));
            }
            let options = mount.tmpfs_options.clone().unwrap_or_default();
            if options.size_bytes != 0 {
                point.options.push(format!("size={}", options.size_bytes));
            }
            if options.mode != 0 {
                point.options.push(format!("mode={:o}", options.mode));
            }
            for option in options.options {
                point.options.push(option.join("="));
            }
        }
        "image" => {
            if mount.source.is_empty() {
                return Err(wrong("field Source must not be empty"));
            }
            point.source.clone_from(&mount.source);
            point.subpath = mount.image_options.clone().unwrap_or_default().subpath;
            // An image is shared; what is written to it would be seen by all.
            point.writable = false;
        }
        "" => return Err(invalid("mount type unknown: \"\"".to_owned())),
        other => return Err(invalid(format!("mount type unknown: \"{other}\""))),
    }
    Ok(point)
}

/// Returns whether a path is where Docker's socket would be.
pub fn is_engine_socket(path: &str) -> bool {
    matches!(path, "/var/run/docker.sock" | "/run/docker.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(binds: &[&str], mounts: &str) -> HostConfig {
        HostConfig {
            binds: Some(binds.iter().map(|bind| (*bind).to_owned()).collect()),
            mounts: serde_json::from_str(mounts).unwrap(),
            ..HostConfig::default()
        }
    }

    fn resolved(host: &HostConfig, image: &[&str]) -> Result<Vec<String>> {
        let image: Set = image
            .iter()
            .map(|path| ((*path).to_owned(), super::super::config::Empty {}))
            .collect();
        Ok(resolve(&Config::default(), host, &image, Vec::new())?
            .into_iter()
            .map(|point| {
                format!(
                    "{} {}{} {} {}",
                    point.kind,
                    point.name,
                    point.source,
                    point.destination,
                    if point.writable { "rw" } else { "ro" }
                )
            })
            .collect())
    }

    #[test]
    fn binds_are_told_from_volumes_by_their_slash() {
        let host = host(&["/tmp/:/a:ro", "data:/b/", "data:/c:nocopy,ro"], "[]");
        assert_eq!(
            resolved(&host, &[]).unwrap(),
            ["bind /tmp /a ro", "volume data /b rw", "volume data /c ro"]
        );
    }

    #[test]
    fn what_a_user_mounts_covers_what_the_image_declares() {
        let host = host(&["data:/var/lib/x"], "[]");
        assert_eq!(
            resolved(&host, &["/var/lib/x", "/y"]).unwrap(),
            ["volume  /y rw", "volume data /var/lib/x rw"]
        );
    }

    #[test]
    fn the_long_form_says_the_same() {
        let host = host(
            &[],
            r#"[{"Type":"volume","Source":"vol","Target":"/v","ReadOnly":true},
                {"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1024,"Mode":1023}}]"#,
        );
        let points = resolve(&Config::default(), &host, &Set::new(), Vec::new()).unwrap();
        assert_eq!(points[0].name, "vol");
        assert_eq!(points[1].options, ["size=1024", "mode=1777"]);
    }

    #[test]
    fn nonsense_is_refused_in_docker_s_words() {
        for (bind, text) in [
            ("/a:/b:/c:/d", "invalid volume specification: '/a:/b:/c:/d'"),
            ("/a:/b:odd", "invalid mode: odd"),
            (":/b", "invalid volume specification: ':/b'"),
        ] {
            assert_eq!(resolved(&host(&[bind], "[]"), &[]).unwrap_err().to_string(), text);
        }
        let twice = host(&["/tmp:/a", "data:/a"], "[]");
        assert_eq!(
            resolved(&twice, &[]).unwrap_err().to_string(),
            "Duplicate mount point: /a"
        );
        let missing = host(&[], r#"[{"Type":"bind","Source":"/no/such","Target":"/a"}]"#);
        assert_eq!(
            resolved(&missing, &[]).unwrap_err().to_string(),
            "invalid mount config for type \"bind\": bind source path does not exist: /no/such"
        );
    }
}
