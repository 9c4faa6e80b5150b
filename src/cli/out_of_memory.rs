//! What to say of a container that the kernel killed for want of memory: the exit code alone does not tell.

use bollard::models::ContainerInspectResponse;

use crate::client::labels;
use crate::model::{Places, Project};
use crate::ui::human;

/// Returns what happened to a container, and where its limit is written, if it was killed for want of memory.
pub fn explain(container: &ContainerInspectResponse, project: &Project) -> Option<String> {
    let state = container.state.as_ref()?;
    if state.oom_killed != Some(true) {
        return None;
    }
    let labels = container.config.as_ref().and_then(|config| config.labels.as_ref());
    let service = labels
        .and_then(|labels| labels.get(labels::SERVICE))
        .map(String::as_str);
    let name = container.name.as_deref().unwrap_or_default().trim_start_matches('/');
    let limit = container
        .host_config
        .as_ref()
        .and_then(|config| config.memory)
        .unwrap_or(0);
    let Ok(limit @ 1..) = u64::try_from(limit) else {
        return Some(format!("{name} was killed because the machine ran out of memory"));
    };
    let place = service.and_then(|service| project.places.of_service(service, Places::MEMORY));
    let place = place.map_or_else(String::new, |place| format!(", see {place}"));
    Some(format!(
        "{name} was killed because it used more memory than its limit of {}{place}",
        human::binary_size(limit as f64)
    ))
}
