//! Which removals of images are refused, decided as Docker decides them.

use super::reference::Reference;

/// A container that was made from an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUser {
    pub container_id: String,
    /// The image's id.
    pub image_id: String,
    pub running: bool,
}

/// Why an image stays. The texts are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    #[error(
        "conflict: unable to remove repository reference {name:?} (must force) - container {container} is using its referenced image {image}"
    )]
    Reference {
        name: String,
        container: String,
        image: String,
    },
    #[error("conflict: unable to delete {image} ({}) - {reason}", if *.hard { "cannot be forced" } else { "must be forced" })]
    Delete {
        image: String,
        hard: bool,
        reason: ConflictReason,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConflictReason {
    #[error("image is being used by running container {0}")]
    Running(String),
    #[error("image is being used by stopped container {0}")]
    Stopped(String),
    #[error("image is referenced in multiple repositories")]
    SeveralRepositories,
    #[error("image has dependent child images")]
    Children,
}

/// What a removal did, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    Untagged(String),
    Deleted(String),
}

/// What [`decide`] needs to know.
pub(crate) struct Case<'c> {
    pub id: &'c str,
    /// The reference that was given, or `None` for an id.
    pub reference: Option<&'c Reference>,
    /// Every tag and digest of the image.
    pub names: &'c [Reference],
    pub users: &'c [ImageUser],
    pub has_children: bool,
    pub force: bool,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub untag: Vec<Reference>,
    pub delete: bool,
}

// moby daemon/images/image_delete.go: ImageDelete and imageDeleteHelper.
pub(crate) fn decide(case: &Case<'_>) -> Result<Decision, Conflict> {
    let image = super::digest::short(case.id).to_owned();
    let mut users = case.users.iter().filter(|user| user.image_id == case.id);
    let mut untag = Vec::new();
    let Some(reference) = case.reference else {
        check(case, &image, case.force || is_single_reference(case.names))?;
        untag.extend_from_slice(case.names);
        return Ok(Decision { untag, delete: true });
    };
    if !case.force
        && is_single_reference(case.names)
        && let Some(user) = users.next()
    {
        return Err(Conflict::Reference {
            name: reference.familiar(),
            container: short(&user.container_id),
            image,
        });
    }
    untag.push(reference.clone());
    let same_repository = |name: &&Reference| name.name() == reference.name() && *name != reference;
    let others_tagged = case
        .names
        .iter()
        .filter(same_repository)
        .any(|name| name.digest().is_none());
    if reference.digest().is_none() && !others_tagged {
        untag.extend(case.names.iter().filter(same_repository).cloned());
    }
    if untag.len() < case.names.len() {
        return Ok(Decision { untag, delete: false });
    }
    // The name is gone either way; an image that is still in use stays without one.
    let delete = check(case, &image, true).is_ok();
    Ok(Decision { untag, delete })
}

fn check(case: &Case<'_>, image: &str, names_are_one: bool) -> Result<(), Conflict> {
    let refuse = |hard, reason| {
        Err(Conflict::Delete {
            image: image.to_owned(),
            hard,
            reason,
        })
    };
    if case.has_children {
        return refuse(true, ConflictReason::Children);
    }
    let mut users = case.users.iter().filter(|user| user.image_id == case.id);
    if let Some(user) = users.clone().find(|user| user.running) {
        return refuse(true, ConflictReason::Running(short(&user.container_id)));
    }
    if case.force {
        return Ok(());
    }
    if !names_are_one {
        return refuse(false, ConflictReason::SeveralRepositories);
    }
    match users.next() {
        Some(user) => refuse(false, ConflictReason::Stopped(short(&user.container_id))),
        None => Ok(()),
    }
}

/// Returns whether at most one tag names the image, and digests only in that tag's repository.
fn is_single_reference(names: &[Reference]) -> bool {
    let mut repository: Option<String> = None;
    let mut tags = 0;
    for name in names {
        if name.digest().is_none() {
            tags += 1;
        }
        if *repository.get_or_insert_with(|| name.name()) != name.name() {
            return false;
        }
    }
    tags <= 1
}

fn short(container_id: &str) -> String {
    container_id.get(..12).unwrap_or(container_id).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn names(texts: &[&str]) -> Vec<Reference> {
        texts.iter().map(|text| Reference::parse(text).unwrap()).collect()
    }

    fn run(given: Option<&str>, all: &[&str], user: Option<bool>, force: bool) -> Result<(Vec<String>, bool), String> {
        let all = names(all);
        let reference = given.map(|given| Reference::parse(given).unwrap());
        let users: Vec<ImageUser> = user
            .into_iter()
            .map(|running| ImageUser {
                container_id: "c0ffee0123456789".to_owned(),
                image_id: ID.to_owned(),
                running,
            })
            .collect();
        decide(&Case {
            id: ID,
            reference: reference.as_ref(),
            names: &all,
            users: &users,
            has_children: false,
            force,
        })
        .map(|decision| {
            let untagged = decision.untag.iter().map(Reference::familiar).collect();
            (untagged, decision.delete)
        })
        .map_err(|conflict| conflict.to_string())
    }

    #[test]
    fn an_image_goes_with_its_last_name() {
        let digest = format!("a@{ID}");
        assert_eq!(
            run(Some("a:1"), &["a:1", &digest], None, false),
            Ok((vec!["a:1".to_owned(), digest.clone()], true))
        );
        assert_eq!(
            run(Some("a:1"), &["a:1", "a:2", &digest], None, false),
            Ok((vec!["a:1".to_owned()], false))
        );
        assert_eq!(run(None, &["a:1"], None, false), Ok((vec!["a:1".to_owned()], true)));
    }

    #[test]
    fn an_image_in_use_stays_as_docker_says() {
        assert_eq!(
            run(Some("a:1"), &["a:1"], Some(false), false).unwrap_err(),
            "conflict: unable to remove repository reference \"a:1\" (must force) - container c0ffee012345 is using its referenced image 0123456789ab"
        );
        // By force the name goes; a running container keeps the image itself.
        assert_eq!(
            run(Some("a:1"), &["a:1"], Some(true), true),
            Ok((vec!["a:1".to_owned()], false))
        );
        assert_eq!(
            run(None, &["a:1"], Some(true), true).unwrap_err(),
            "conflict: unable to delete 0123456789ab (cannot be forced) - image is being used by running container c0ffee012345"
        );
        assert_eq!(
            run(None, &["a:1"], Some(false), false).unwrap_err(),
            "conflict: unable to delete 0123456789ab (must be forced) - image is being used by stopped container c0ffee012345"
        );
        assert_eq!(
            run(None, &["a:1", "b:1"], None, false).unwrap_err(),
            "conflict: unable to delete 0123456789ab (must be forced) - image is referenced in multiple repositories"
        );
    }
}
