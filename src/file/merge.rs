//! How a later file changes what an earlier one says: one table of rules, and the merge that follows it.
// compose-go override/merge.go

use crate::yaml::{Diagnostic, Mapping, Node, Span, Value};

use super::tree::{as_list, go_format};

/// What happens where two files say something about the same attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Mappings merge by key, lists append, anything else is replaced.
    Default,
    /// The later value replaces the earlier one, whatever they are.
    Replace,
    /// Both are taken as lists of `KEY=VALUE` and appended; the later value of a key wins afterwards.
    KeyValues,
    /// The same, but what is there already is not added again: a host may have several addresses.
    Hosts,
    /// A list of names is taken as a mapping of names to nothing.
    Names,
    /// The same, to the defaults of a dependency.
    Dependencies,
    /// A string is taken as the context.
    Build,
    /// Options merge only if both have the same driver.
    Logging,
    /// Pools of the same subnet merge.
    IpamPools,
}

/// The table: which rule holds at which path.
pub fn rule(path: &[&str]) -> Rule {
    match path {
        ["networks", _, "ipam", "config"] => Rule::IpamPools,
        ["networks" | "volumes", _, "labels"] => Rule::KeyValues,
        ["services", _, attribute] => match *attribute {
            "annotations" | "dns" | "dns_opt" | "dns_search" | "env_file" | "label_file" | "environment" | "labels"
            | "sysctls" | "tmpfs" => Rule::KeyValues,
            "command" | "entrypoint" => Rule::Replace,
            "extra_hosts" => Rule::Hosts,
            "build" => Rule::Build,
            "depends_on" => Rule::Dependencies,
            "networks" | "models" => Rule::Names,
            "logging" => Rule::Logging,
            _ => Rule::Default,
        },
        ["services", _, "build", "args" | "additional_contexts" | "labels"]
        | ["services", _, "deploy", "labels"]
        | ["services", _, "volumes", _, "volume", "labels"] => Rule::KeyValues,
        ["services", _, "build", "extra_hosts"] => Rule::Hosts,
        ["services", _, "healthcheck", "test"] | ["services", _, "ulimits", _] => Rule::Replace,
        _ => Rule::Default,
    }
}

/// Merges what a later file says into what earlier ones said.
pub fn merge(earlier: Node, later: Node) -> Result<Node, Diagnostic> {
    merge_at(earlier, later, &mut Vec::new())
}

/// Merges a service into the one it extends.
pub fn merge_service(name: &str, earlier: Node, later: Node) -> Result<Node, Diagnostic> {
    merge_at(earlier, later, &mut vec!["services".into(), name.into()])
}

fn merge_at(earlier: Node, later: Node, path: &mut Vec<String>) -> Result<Node, Diagnostic> {
    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
    match rule(&parts) {
        Rule::Replace => return Ok(later),
        Rule::KeyValues => return Ok(append(into_list(earlier), into_list(later))),
        Rule::Hosts => {
            let known = into_list(earlier);
            let mut added = into_list(later);
            if let (Some(known), Some(added)) = (known.as_sequence(), added.as_sequence_mut()) {
                added.retain(|host| !known.contains(host));
            }
            return Ok(append(known, added));
        }
        Rule::Names => {
            let (earlier, later) = (into_mapping(earlier, &[]), into_mapping(later, &[]));
            return merge_mappings(earlier, later, path);
        }
        Rule::Dependencies => {
            let defaults = [
                ("condition", Value::String("service_started".into())),
                ("required", Value::Bool(true)),
            ];
            let earlier = into_mapping(earlier, &defaults);
            let later = into_mapping(later, &defaults);
            return merge_mappings(earlier, later, path);
        }
        Rule::Build => {
            return merge_mappings(build_object(earlier), build_object(later), path);
        }
        Rule::Logging if earlier.as_mapping().is_some() && later.as_mapping().is_some() => {
            let drivers = (earlier.get("driver"), later.get("driver"));
            if let (Some(old), Some(new)) = drivers
                && old.value != new.value
            {
                return Ok(later);
            }
            return merge_mappings(earlier, later, path);
        }
        Rule::IpamPools if earlier.as_sequence().is_some() && later.as_sequence().is_some() => {
            return merge_pools(earlier, later, path);
        }
        Rule::Logging | Rule::IpamPools | Rule::Default => {}
    }
    if later.is_null() {
        return Ok(earlier);
    }
    match (&earlier.value, &later.value) {
        (Value::Mapping(_), Value::Mapping(_)) => merge_mappings(earlier, later, path),
        (Value::Sequence(_), Value::Sequence(_)) => Ok(append(earlier, later)),
        (Value::Mapping(_) | Value::Sequence(_), _) => {
            Err(Diagnostic::error(format!("cannot override {}", parts_of(path)))
                .at(later.span)
                .related(earlier.span, "this is of another kind"))
        }
        _ => Ok(later),
    }
}

fn parts_of(path: &[String]) -> String {
    path.join(".")
}

fn merge_mappings(mut earlier: Node, later: Node, path: &mut Vec<String>) -> Result<Node, Diagnostic> {
    let Value::Mapping(additions) = later.value else {
        return Ok(earlier);
    };
    let Some(mapping) = earlier.as_mapping_mut() else {
        return Ok(Node::new(Value::Mapping(additions), later.span));
    };
    for (key, entry) in additions {
        let merged = match mapping.get_mut(&key) {
            None => entry.node,
            Some(known) => {
                let known = std::mem::replace(known, Node::new(Value::Null, entry.node.span));
                path.push(key.clone());
                let merged = merge_at(known, entry.node, path)?;
                path.pop();
                merged
            }
        };
        mapping.insert(key, entry.key_span, merged);
    }
    Ok(earlier)
}

fn append(mut earlier: Node, later: Node) -> Node {
    if let (Some(items), Value::Sequence(added)) = (earlier.as_sequence_mut(), later.value) {
        items.extend(added);
    }
    earlier
}

/// Takes a mapping as a sorted list of `KEY=VALUE`, a string as a list of itself, anything else as nothing.
pub fn into_list(node: Node) -> Node {
    let span = node.span;
    let items = match node.value {
        Value::Sequence(items) => items,
        Value::String(_) => vec![node],
        Value::Mapping(mapping) => {
            let mut items: Vec<(String, Span)> = Vec::new();
            for (key, entry) in mapping {
                let span = entry.key_span.to(entry.node.span);
                match &entry.node.value {
                    Value::Null => items.push((key, span)),
                    Value::Sequence(values) => {
                        for value in values {
                            items.push((format!("{key}={}", go_format(value)), value.span));
                        }
                    }
                    _ => items.push((format!("{key}={}", go_format(&entry.node)), span)),
                }
            }
            items.sort_by(|left, right| left.0.cmp(&right.0));
            items.into_iter().map(|(text, span)| Node::string(text, span)).collect()
        }
        _ => Vec::new(),
    };
    Node::new(Value::Sequence(items), span)
}

/// Takes a list of names as a mapping of each to an object with defaults, or to nothing if there are none.
fn into_mapping(node: Node, defaults: &[(&str, Value)]) -> Node {
    let span = node.span;
    match node.value {
        Value::Mapping(_) => node,
        Value::Sequence(items) => {
            let mut mapping = Mapping::new();
            for item in items {
                let value = if defaults.is_empty() {
                    Value::Null
                } else {
                    Value::Mapping(
                        defaults
                            .iter()
                            .map(|(name, value)| super::tree::entry(name, value.clone(), item.span))
                            .collect(),
                    )
                };
                if let Some(name) = item.as_str() {
                    mapping.insert(name, item.span, Node::new(value, item.span));
                }
            }
            Node::new(Value::Mapping(mapping), span)
        }
        _ => Node::new(Value::Mapping(Mapping::new()), span),
    }
}

fn build_object(node: Node) -> Node {
    match node.value {
        Value::String(_) => {
            let span = node.span;
            let mut mapping = Mapping::new();
            mapping.insert("context", span, node);
            Node::new(Value::Mapping(mapping), span)
        }
        _ => node,
    }
}

fn merge_pools(earlier: Node, later: Node, path: &mut Vec<String>) -> Result<Node, Diagnostic> {
    fn subnet(pool: &Node) -> Option<&Value> {
        pool.get("subnet").map(|node| &node.value)
    }
    let span = earlier.span;
    let mut pools: Vec<Node> = Vec::new();
    for original in as_list(&earlier) {
        let mut original = original.clone();
        for change in as_list(&later) {
            if subnet(change) != subnet(&original) && !pools.iter().any(|pool| subnet(pool) == subnet(change)) {
                pools.push(change.clone());
                continue;
            }
            original = merge_mappings(original, change.clone(), path)?;
            match pools.iter_mut().find(|pool| subnet(pool) == subnet(&original)) {
                Some(pool) => *pool = original.clone(),
                None => pools.push(original.clone()),
            }
        }
    }
    Ok(Node::new(Value::Sequence(pools), span))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::yaml::{Sources, parse};

    fn node(text: &str) -> Node {
        let mut sources = Sources::new();
        let id = sources.add("a.yaml", text);
        parse(&mut sources, id).unwrap().remove(0)
    }

    /// A service in flow style, of attributes with different rules.
    fn service() -> impl Strategy<Value = String> {
        let attribute = prop_oneof![
            "hostname: [a-z]{1,3}",
            "command: \\[[a-z]{1,3}\\]",
            "environment: \\[A=[0-9], B=[0-9]\\]",
            "environment: \\{A: [a-z], C: [a-z]\\}",
            "cap_add: \\[[A-C], [D-F]\\]",
            "ports: \\[\"8[0-9]:80\"\\]",
            "networks: \\[[a-c]\\]",
            "networks: \\{[a-c]: \\{priority: [0-9]\\}\\}",
            "depends_on: \\[[a-c]\\]",
            "logging: \\{driver: [ab], options: \\{x: y\\}\\}",
            "ulimits: \\{nofile: [1-9]\\}",
        ];
        proptest::collection::vec(attribute, 0..4).prop_map(|attributes| {
            // A key may stand only once.
            let mut seen = std::collections::BTreeSet::new();
            let kept: Vec<String> = attributes
                .into_iter()
                .filter(|attribute| seen.insert(attribute.split(':').next().unwrap_or_default().to_owned()))
                .collect();
            format!("services: {{web: {{{}}}}}\n", kept.join(", "))
        })
    }

    proptest! {
        #[test]
        fn merging_with_an_empty_file_changes_nothing(text in service()) {
            let (file, empty) = (node(&text), node("{}"));
            prop_assert_eq!(&merge(file.clone(), empty.clone()).unwrap(), &file);
            prop_assert_eq!(&merge(empty, file.clone()).unwrap(), &file);
        }

        #[test]
        fn what_the_later_file_sets_alone_is_kept(first in service(), second in service()) {
            let (first, second) = (node(&first), node(&second));
            let known = first.get("services").unwrap().get("web").unwrap().clone();
            let merged = merge(first, second.clone()).unwrap();
            let merged = merged.get("services").unwrap().get("web").unwrap().clone();
            for (key, entry) in second.get("services").unwrap().get("web").unwrap().as_mapping().unwrap().iter() {
                if known.get(key).is_none() {
                    prop_assert_eq!(merged.get(key), Some(&entry.node));
                }
            }
        }
    }

    #[test]
    fn the_later_of_two_commands_wins_whole() {
        let merged = merge(
            node("services: {a: {command: [x, y]}}"),
            node("services: {a: {command: z}}"),
        );
        let merged = merged.unwrap();
        let command = merged.get("services").unwrap().get("a").unwrap().get("command");
        assert_eq!(command.unwrap().as_str(), Some("z"));
    }
}
