//! Who the user is to the registries that a build may ask: the engine may be another user's, and was started without them.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::Value;

use super::pulling::credentials;
use crate::image::{Reference, known_registries};
use crate::model::Build;

/// Returns the logins as the Engine API takes them, if there are any.
pub fn registry_config(logins: &BTreeMap<String, Value>) -> Option<String> {
    let mut config = logins.clone();
    // Docker's engine knows its own registry by another name.
    if let Some(hub) = config.remove("docker.io") {
        config.insert("https://index.docker.io/v1/".to_owned(), hub);
    }
    let text = serde_json::to_string(&config).ok().filter(|_| !config.is_empty())?;
    Some(base64::engine::general_purpose::URL_SAFE.encode(text))
}

/// Returns the logins by registry. `dockerfile` is the text of what is built.
pub fn logins(build: &Build, dockerfile: &str) -> BTreeMap<String, Value> {
    let mut names = named_in(dockerfile);
    names.extend(build.additional_contexts.values().filter_map(|place| {
        let image = place.strip_prefix("docker-image://")?;
        Some(image.to_owned())
    }));
    for text in build.cache_from.iter().chain(&build.cache_to) {
        match text.contains('=') {
            true => names.extend(
                text.split(',')
                    .filter_map(|field| field.strip_prefix("ref="))
                    .map(str::to_owned),
            ),
            false => names.push(text.clone()),
        }
    }
    // What a variable stands for is not known here, so it may be any registry that there is a login for.
    if names.iter().any(|name| name.contains('$')) {
        names.extend(known_registries().into_iter().map(|host| format!("{host}/any")));
    }
    let mut config: BTreeMap<String, Value> = BTreeMap::new();
    for reference in names.iter().filter_map(|name| Reference::parse(name).ok()) {
        if !config.contains_key(reference.domain())
            && let Some(value) = credentials(&reference)
        {
            config.insert(reference.domain().to_owned(), value);
        }
    }
    config
}

/// Returns what a Dockerfile takes from elsewhere: words after FROM, and of `--from=` and `from=`. Some are stages, which is no
/// harm.
fn named_in(dockerfile: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in dockerfile.lines() {
        let mut words = line.split_whitespace();
        let is_from = line
            .split_whitespace()
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case("FROM"));
        if is_from {
            names.extend(
                words
                    .clone()
                    .skip(1)
                    .find(|word| !word.starts_with("--"))
                    .map(str::to_owned),
            );
        }
        for word in words.by_ref() {
            let options = word.strip_prefix("--").unwrap_or_default();
            let options = options.strip_prefix("mount=").unwrap_or(options);
            names.extend(
                options
                    .split(',')
                    .filter_map(|option| option.strip_prefix("from="))
                    .map(str::to_owned),
            );
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dockerfile_says_what_it_takes_from_elsewhere() {
        let text = "ARG V=1\nfrom --platform=linux/amd64 r.example/base:1 AS one\nCOPY --from=two.example/x /a /b\n\
                    RUN --mount=type=bind,from=three.example/y,target=/z true\nFROM ${REGISTRY}/z\n";
        assert_eq!(
            named_in(text),
            ["r.example/base:1", "two.example/x", "three.example/y", "${REGISTRY}/z"]
        );
    }
}
