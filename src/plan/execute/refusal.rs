//! Where in the files that is written which an engine refuses.
//!
//! An engine knows no files; what it names (a mount's source or target, a volume, an option) says which attribute it means.

use crate::client::ClientError;
use crate::model::{Project, Service};
use crate::plan::operation::Action;

use super::ExecutionError;

/// Returns an error with the place that it is about, if that is known.
pub(super) fn placed(error: ExecutionError, project: &Project, action: &Action) -> ExecutionError {
    let ExecutionError::Client(source) = error else {
        return error;
    };
    let place = match action {
        Action::CreateVolume { key } if is_refusal(&source) => project.places.of_volume(key, "driver_opts"),
        Action::Create { replica, .. } => of_service(project, &replica.service, &source),
        Action::Start { target } => of_service(project, target.service(), &source),
        _ => None,
    };
    match place.map(str::to_owned) {
        Some(place) => ExecutionError::Placed { source, place },
        None => ExecutionError::Client(source),
    }
}

/// Returns the refusal of a service's container with the place that it is about, if that is known.
pub fn of_container(source: ClientError, project: &Project, service: &str) -> ExecutionError {
    match of_service(project, service, &source).map(str::to_owned) {
        Some(place) => ExecutionError::Placed { source, place },
        None => ExecutionError::Client(source),
    }
}

fn is_refusal(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { .. })
}

fn of_service<'p>(project: &'p Project, service: &str, error: &ClientError) -> Option<&'p str> {
    let ClientError::Refused { message, .. } = error else {
        return None;
    };
    attribute(project, project.services.get(service)?, message)
}

/// Returns the place of the attribute that a message speaks of.
fn attribute<'p>(project: &'p Project, service: &Service, message: &str) -> Option<&'p str> {
    let places = &project.places;
    let place = |attribute: &str| places.of_service(&service.name, attribute);
    if message.starts_with("invalid restart policy") {
        return place("deploy").or_else(|| place("restart"));
    }
    if message.contains("storage-opt") {
        return place("storage_opt");
    }
    // Of several that are named the longest is meant: the others are directories that it is in.
    let mut meant: Option<(usize, &str)> = None;
    let mut consider = |words: &str, place: Option<&'p str>| {
        let is_longer = meant.is_none_or(|(length, _)| words.len() > length);
        if let Some(place) = place.filter(|_| is_longer && names(message, words)) {
            meant = Some((words.len(), place));
        }
    };
    for mount in &service.volumes {
        let written = place(&format!("volumes {}", mount.target));
        consider(&mount.target, written);
        let volume = project.volumes.get(&mount.source).filter(|_| mount.r#type == "volume");
        match volume {
            Some(volume) => {
                let options = places.of_volume(&mount.source, "driver_opts").or(written);
                consider(&volume.name, options);
                if let Some(device) = volume.driver_opts.get("device") {
                    consider(device, options);
                }
            }
            None => consider(&mount.source, written),
        }
    }
    for tmpfs in &service.tmpfs {
        let target = tmpfs.split(':').next().unwrap_or_default();
        consider(target, place(&format!("tmpfs {tmpfs}")));
    }
    meant.map(|(_, place)| place)
}

/// Returns whether a text names something, and not only something that begins or ends alike.
fn names(text: &str, name: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || "/_-.".contains(character);
    !name.is_empty()
        && text.match_indices(name).any(|(start, _)| {
            let before = text[..start].chars().next_back();
            let mut after = text[start + name.len()..].chars();
            let ends = match after.next() {
                // A full stop ends a sentence, unless a name goes on after it.
                Some('.') => after.next().is_none_or(char::is_whitespace),
                other => !other.is_some_and(is_part),
            };
            ends && !before.is_some_and(is_part)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Mount, Volume};

    #[test]
    fn what_a_message_names_is_found_where_it_is_written() {
        let mount = |kind: &str, source: &str, target: &str| Mount {
            r#type: kind.into(),
            source: source.into(),
            target: target.into(),
            ..Mount::default()
        };
        let service = Service {
            name: "web".into(),
            volumes: vec![
                mount("bind", "/srv", "/a"),
                mount("bind", "/srv/data", "/a/b"),
                mount("volume", "disk", "/disk"),
            ],
            tmpfs: vec!["/run:size=x".into()],
            ..Service::default()
        };
        let mut project = Project::default();
        let disk = Volume {
            name: "p_disk".into(),
            ..Volume::default()
        };
        project.volumes.insert("disk".into(), disk);
        for attribute in [
            "volumes /a",
            "volumes /a/b",
            "volumes /disk",
            "tmpfs /run:size=x",
            "storage_opt",
            "restart",
        ] {
            project.places.insert("services.web", attribute, attribute.to_owned());
        }
        project
            .places
            .insert("volumes.disk", "driver_opts", "options".to_owned());
        for (message, place) in [
            ("Duplicate mount point: /a", Some("volumes /a")),
            ("Duplicate mount point: /a/b", Some("volumes /a/b")),
            ("bind source path does not exist: /srv/data", Some("volumes /a/b")),
            ("bind source path does not exist: /srv/data/c", None),
            ("create p_disk: missing device in volume options", Some("options")),
            ("create p_disk2: missing device in volume options", None),
            (
                "error mounting \"tmpfs\" to rootfs at \"/run\": invalid argument",
                Some("tmpfs /run:size=x"),
            ),
            (
                "--storage-opt is supported only for overlay over xfs",
                Some("storage_opt"),
            ),
            ("invalid restart policy: unknown policy 'x'", Some("restart")),
            ("No such image: x", None),
        ] {
            assert_eq!(attribute(&project, &service, message), place, "{message}");
        }
    }

    #[test]
    fn a_name_is_a_whole_word() {
        assert!(names("at \"/a\": no", "/a") && names("in /a.", "/a") && names("/a", "/a"));
        assert!(!names("/ab", "/a") && !names("/x/a", "/a") && !names("/a.txt", "/a") && !names("x", ""));
    }
}
