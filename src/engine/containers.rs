//! The containers an engine knows, by id and name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::container::Container;
use super::{EngineError, Result};

/// All containers.
#[derive(Debug, Default)]
pub struct Containers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<String, Arc<Container>>,
    /// Every name in use, also those of containers that are still being made.
    names: HashMap<String, String>,
}

impl Containers {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a name for a container, in Docker's words if another has it.
    pub fn reserve(&self, name: &str, id: &str) -> Result<()> {
        let mut known = self.known();
        if let Some(holder) = known.names.get(name) {
            return Err(EngineError::Conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to \
                 remove (or rename) that container to be able to reuse that name."
            )));
        }
        known.names.insert(name.to_owned(), id.to_owned());
        Ok(())
    }

    /// Returns whether a name is taken.
    pub fn is_taken(&self, name: &str) -> bool {
        self.known().names.contains_key(name)
    }

    /// Gives a name back.
    pub fn release(&self, name: &str) {
        self.known().names.remove(name);
    }

    /// Adds a container whose name is reserved.
    pub fn insert(&self, container: Arc<Container>) {
        self.known().by_id.insert(container.id.clone(), container);
    }

    /// Forgets a container and its name.
    pub fn remove(&self, container: &Container) {
        let name = container.name();
        let mut known = self.known();
        known.by_id.remove(&container.id);
        if known.names.get(&name) == Some(&container.id) {
            known.names.remove(&name);
        }
    }

    /// Returns all containers, the newest first.
    pub fn all(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> = self.known().by_id.values().cloned().collect();
        all.sort_by_cached_key(|container| std::cmp::Reverse(container.record().created));
        all
    }

    /// Returns how many containers there are.
    pub fn count(&self) -> usize {
        self.known().by_id.len()
    }

    /// Returns a container by its whole id.
    pub fn by_id(&self, id: &str) -> Option<Arc<Container>> {
        self.known().by_id.get(id).cloned()
    }

    /// Finds a container by id, name or the beginning of an id that only one has.
    pub fn find(&self, wanted: &str) -> Result<Arc<Container>> {
        let known = self.known();
        if let Some(container) = known.by_id.get(wanted) {
            return Ok(Arc::clone(container));
        }
        let name = wanted.strip_prefix('/').unwrap_or(wanted);
        if let Some(container) = known.names.get(name).and_then(|id| known.by_id.get(id)) {
            return Ok(Arc::clone(container));
        }
        let mut found = known
            .by_id
            .values()
            .filter(|container| !wanted.is_empty() && container.id.starts_with(wanted));
        match (found.next(), found.next()) {
            (Some(container), None) => Ok(Arc::clone(container)),
            (Some(_), Some(_)) => Err(EngineError::InvalidParameter(format!(
                "Multiple IDs found with provided prefix: {wanted}"
            ))),
            (None, _) => Err(EngineError::no_such_container(wanted)),
        }
    }
}

/// Refuses names that Docker refuses.
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
    Err(invalid_name(name))
}

/// Returns the refusal of a name.
pub fn invalid_name(name: &str) -> EngineError {
    EngineError::InvalidParameter(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    ))
}

/// Makes up a name for a container that was given none.
pub fn invented_name(id: &str, attempt: usize) -> String {
    const HOW: [&str; 16] = [
        "amber", "brisk", "calm", "deft", "eager", "fair", "gentle", "hardy", "keen", "lively", "mellow", "nimble",
        "plain", "quiet", "steady", "warm",
    ];
    const WHAT: [&str; 16] = [
        "alder", "badger", "cedar", "dune", "ember", "falcon", "grove", "heron", "islet", "juniper", "kestrel",
        "lagoon", "marten", "otter", "poplar", "quarry",
    ];
    let digit = |position: usize| {
        id.as_bytes()
            .get(position)
            .and_then(|byte| char::from(*byte).to_digit(16))
            .unwrap_or_default() as usize
    };
    let name = format!("{}_{}", HOW[digit(attempt * 2)], WHAT[digit(attempt * 2 + 1)]);
    if attempt < 4 {
        name
    } else {
        format!("{name}_{}", &id[..6])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_belongs_to_one_container() {
        let containers = Containers::default();
        containers.reserve("web", "abc").unwrap();
        assert_eq!(
            containers.reserve("web", "def").unwrap_err().to_string(),
            "Conflict. The container name \"/web\" is already in use by container \"abc\". You have to remove (or \
             rename) that container to be able to reuse that name."
        );
        containers.release("web");
        assert!(containers.reserve("web", "def").is_ok());
    }

    #[test]
    fn names_are_checked() {
        for (name, good) in [
            ("web", true),
            ("w", false),
            ("a.b-c_1", true),
            ("-a", false),
            ("a b", false),
            ("", false),
        ] {
            assert_eq!(check_name(name).is_ok(), good, "{name}");
        }
        assert!(check_name(&invented_name(&"0f".repeat(32), 0)).is_ok());
    }
}
