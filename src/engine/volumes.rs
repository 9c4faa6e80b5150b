//! Volumes: directories with a name that outlive the containers that use them.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::config::StringMap;
use super::files::{self, Durability};
use super::{EngineError, Result};
use crate::image::remove_tree;

/// The label by which Docker knows volumes that nobody named.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// A volume.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    pub name: String,
    pub labels: Option<StringMap>,
    pub options: Option<StringMap>,
    pub created: Timestamp,
    /// Whether it got its first content, so that an emptied volume stays empty.
    pub populated: bool,
}

impl Volume {
    /// Returns whether the volume was made for one container and has no name of its own.
    pub fn is_anonymous(&self) -> bool {
        self.labels
            .as_ref()
            .is_some_and(|labels| labels.contains_key(ANONYMOUS))
    }

    /// Returns an option of the local driver.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.as_ref()?.get(name).map(String::as_str)
    }
}

/// All volumes.
#[derive(Debug)]
pub struct Volumes {
    dir: PathBuf,
    known: Mutex<BTreeMap<String, Volume>>,
}

/// Refuses names that are no file names, in Docker's words.
pub fn check_name(name: &str) -> Result<()> {
    let bytes = name.as_bytes();
    let good = bytes.len() > 1
        && bytes[0].is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte));
    if good {
        return Ok(());
    }
    if bytes.len() == 1 {
        return Err(EngineError::InvalidParameter(
            "volume name is too short, names should be at least two alphanumeric characters".to_owned(),
        ));
    }
    Err(EngineError::InvalidParameter(format!(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
}

impl Volumes {
    /// Reads the records of all volumes.
    pub fn open(dir: PathBuf) -> Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&dir)
            .map_err(EngineError::file("cannot create", &dir))?;
        let mut known = BTreeMap::new();
        for entry in std::fs::read_dir(&dir)
            .map_err(EngineError::file("cannot list", &dir))?
            .flatten()
        {
            let path = entry.path().join("volume.json");
            match files::read_json::<Volume>(&path) {
                Ok(volume) => {
                    known.insert(volume.name.clone(), volume);
                }
                Err(cause) => {
                    tracing::warn!(path = %entry.path().display(), cause = cause.chain(), "a volume without a record");
                }
            }
        }
        Ok(Self {
            dir,
            known: Mutex::new(known),
        })
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Volume>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the directory of a volume's record and content.
    pub fn home(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Returns where a volume's content lies.
    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.dir.join(name).join("_data")
    }

    /// Returns a volume.
    pub fn get(&self, name: &str) -> Option<Volume> {
        self.known().get(name).cloned()
    }

    /// Returns a volume or Docker's words for its absence.
    pub fn find(&self, name: &str) -> Result<Volume> {
        self.get(name)
            .ok_or_else(|| EngineError::NotFound(format!("get {name}: no such volume")))
    }

    /// Returns all volumes by name.
    pub fn list(&self) -> Vec<Volume> {
        self.known().values().cloned().collect()
    }

    /// Makes a volume unless there is one of that name; says whether it was made.
    pub fn create(&self, name: &str, labels: Option<StringMap>, options: Option<StringMap>) -> Result<(Volume, bool)> {
        let mut labels = labels;
        let name = if name.is_empty() {
            labels
                .get_or_insert_default()
                .insert(ANONYMOUS.to_owned(), String::new());
            super::container::new_id()
        } else {
            check_name(name)?;
            name.to_owned()
        };
        let options = options.filter(|options| !options.is_empty());
        check_options(&name, options.as_ref())?;
        let mut known = self.known();
        if let Some(volume) = known.get(&name) {
            return Ok((volume.clone(), false));
        }
        let volume = Volume {
            name: name.clone(),
            labels,
            options,
            created: Timestamp::now(),
            populated: false,
        };
        let directory = self.dir.join(&name);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&directory)
            .map_err(EngineError::file("cannot create", &directory))?;
        let data = directory.join("_data");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&data)
            .map_err(EngineError::file("cannot create", &data))?;
        // Without its record a volume is nobody's, with all that is in it.
        files::write_json(&directory.join("volume.json"), &volume, Durability::Synced)?;
        files::sync_directory(&self.dir).map_err(EngineError::file("cannot write", &self.dir))?;
        known.insert(name, volume.clone());
        Ok((volume, true))
    }

    /// Notes that a volume got its first content.
    pub fn set_populated(&self, name: &str) -> Result<()> {
        let mut known = self.known();
        if let Some(volume) = known.get_mut(name)
            && !volume.populated
        {
            volume.populated = true;
            files::write_json(&self.dir.join(name).join("volume.json"), volume, Durability::Renamed)?;
        }
        Ok(())
    }

    /// Removes a volume and everything in it. Whether it is in use, the caller knows.
    pub fn remove(&self, name: &str) -> Result<()> {
        if self.known().remove(name).is_none() {
            return Err(EngineError::NotFound(format!("get {name}: no such volume")));
        }
        let directory = self.dir.join(name);
        // The record goes first: what is left of a removal that was cut short is no volume any more.
        let _ = std::fs::remove_file(directory.join("volume.json"));
        remove_tree(&directory).map_err(EngineError::file("cannot remove", &directory))
    }

    /// Returns the volume as the API writes it.
    pub fn to_json(&self, volume: &Volume) -> Value {
        let created = Timestamp::from_second(volume.created.as_second()).unwrap_or(volume.created);
        json!({
            "CreatedAt": super::time::rfc3339(created),
            "Driver": "local",
            "Labels": volume.labels,
            "Mountpoint": self.data_dir(&volume.name),
            "Name": volume.name,
            "Options": volume.options,
            "Scope": "local",
        })
    }
}

/// Refuses what the local driver does not know.
fn check_options(name: &str, options: Option<&StringMap>) -> Result<()> {
    let Some(options) = options else { return Ok(()) };
    if let Some(unknown) = options
        .keys()
        .find(|key| !matches!(key.as_str(), "type" | "o" | "device" | "size"))
    {
        return Err(EngineError::InvalidParameter(format!(
            "create {name}: invalid option: \"{unknown}\""
        )));
    }
    let given = |key: &str| options.get(key).is_some_and(|value| !value.is_empty());
    if (given("o") || given("type")) && !given("device") {
        return Err(EngineError::InvalidParameter(format!(
            "create {name}: missing device in volume options"
        )));
    }
    if given("device") && !given("type") {
        return Err(EngineError::InvalidParameter(format!(
            "create {name}: missing type in volume options"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(directory.path().join("volumes")).unwrap();
        let labels: StringMap = [("a".to_owned(), "b".to_owned())].into();
        let (volume, made) = volumes.create("data", Some(labels.clone()), None).unwrap();
        assert!(made);
        assert!(!volumes.create("data", None, None).unwrap().1);
        let again = Volumes::open(directory.path().join("volumes")).unwrap();
        assert_eq!(again.get("data"), Some(volume));
        again.remove("data").unwrap();
        assert!(again.list().is_empty());
        assert_eq!(again.find("data").unwrap_err().to_string(), "get data: no such volume");
    }

    #[test]
    fn a_volume_without_a_name_gets_one_and_the_label() {
        let directory = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(directory.path().to_path_buf()).unwrap();
        let (volume, _) = volumes.create("", None, None).unwrap();
        assert_eq!(volume.name.len(), 64);
        assert!(volume.is_anonymous());
    }

    #[test]
    fn names_and_options_are_checked() {
        assert!(check_name("ab.c-d_e").is_ok());
        for name in ["a", ".ab", "a/b", "ab c", ""] {
            assert!(check_name(name).is_err(), "{name}");
        }
        let options: StringMap = [("type".to_owned(), "tmpfs".to_owned())].into();
        assert!(check_options("x", Some(&options)).is_err());
    }
}
