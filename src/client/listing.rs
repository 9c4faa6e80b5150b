//! The list of containers, as every engine tells it.

use bollard::models::ContainerSummary;
use serde_json::Value;

use super::{ClientError, Engine};
use crate::percent;

/// How often a list is asked for that cannot be made: each time it is another container that goes meanwhile.
const LISTINGS: usize = 10;

impl Engine {
    /// Returns the containers that have all the labels, given as `name` or `name=value`; with `all` those that do not
    /// run as well.
    pub async fn containers(&self, labels: &[String], all: bool) -> Result<Vec<ContainerSummary>, ClientError> {
        let filters = serde_json::json!({"label": labels}).to_string();
        let path = format!("/containers/json?all={all}&filters={}", percent::encoded(&filters));
        let mut tries = 1;
        loop {
            match self.ask::<Vec<Value>>(http::Method::GET, &path, None).await {
                Ok(list) => return read(list).map_err(ClientError::Answer),
                // A container, be it another project's, goes while Podman makes its list.
                Err(error) if error.is_not_found() && tries < LISTINGS => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

fn read(list: Vec<Value>) -> Result<Vec<ContainerSummary>, serde_json::Error> {
    let containers = list.into_iter().map(|mut container| {
        // Podman's own word for a container that has ended and is not tidied up yet.
        if let Some(state) = container.get_mut("State").filter(|state| *state == "stopped") {
            *state = "exited".into();
        }
        serde_json::from_value(container)
    });
    containers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_podman_calls_stopped_has_ended() {
        let list = serde_json::json!([{"Id": "a", "State": "stopped"}, {"Id": "b", "State": "running"}]);
        let containers = read(list.as_array().unwrap().clone()).unwrap();
        let states: Vec<String> = containers.iter().map(|one| one.state.unwrap().to_string()).collect();
        assert_eq!(states, ["exited", "running"]);
    }
}
