//! Where attributes are written that others than the loader may refuse: an engine, a builder, the kernel.

use std::collections::BTreeMap;
use std::path::Path;

/// The places of attributes: file, line and column.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Places(BTreeMap<String, BTreeMap<String, String>>);

impl Places {
    /// The attribute that stands for the limit on a service's memory, in whichever form it is written.
    pub const MEMORY: &'static str = "memory";

    /// Notes where an attribute is written. `owner` is `services.NAME` or `volumes.NAME`.
    pub fn insert(&mut self, owner: &str, attribute: impl Into<String>, place: String) {
        let attributes = self.0.entry(owner.to_owned()).or_default();
        attributes.insert(attribute.into(), place);
    }

    /// Returns where an attribute of a service is written.
    pub fn of_service(&self, service: &str, attribute: &str) -> Option<&str> {
        self.of(&format!("services.{service}"), attribute)
    }

    /// Returns where an attribute of a volume is written.
    pub fn of_volume(&self, volume: &str, attribute: &str) -> Option<&str> {
        self.of(&format!("volumes.{volume}"), attribute)
    }

    fn of(&self, owner: &str, attribute: &str) -> Option<&str> {
        Some(self.0.get(owner)?.get(attribute)?.as_str())
    }

    /// Names files below a directory as they are seen from it.
    pub fn relative_to(&mut self, directory: &Path) {
        let Some(directory) = directory.to_str() else { return };
        for place in self.0.values_mut().flat_map(BTreeMap::values_mut) {
            if let Some(rest) = place.strip_prefix(directory).and_then(|rest| rest.strip_prefix('/')) {
                *place = rest.to_owned();
            }
        }
    }

    /// Forgets all but where limits on memory are, of which only the program's own words speak.
    pub fn keep_own(&mut self) {
        for attributes in self.0.values_mut() {
            attributes.retain(|attribute, _| attribute == Self::MEMORY);
        }
    }
}

/// Puts a place below what is said of it.
pub fn placed(message: &str, place: Option<&str>) -> String {
    match place {
        Some(place) => format!("{message}\n --> {place}"),
        None => message.to_owned(),
    }
}
