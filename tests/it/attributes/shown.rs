//! Which test shows that an attribute does its work.
//!
//! `shown.txt` has a line per object and test: `object: attributes = test`, where `-` and a reason stand for a test that
//! the machines at hand cannot have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use compose::file::schema::{Object, objects};

struct Line {
    object: &'static str,
    attributes: Vec<&'static str>,
    test: &'static str,
}

fn lines() -> Vec<Line> {
    include_str!("shown.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (object, rest) = line.split_once(": ").expect("an object");
            let (attributes, test) = rest.split_once(" = ").expect("a test");
            Line {
                object,
                attributes: attributes.split(' ').collect(),
                test: test.trim(),
            }
        })
        .collect()
}

/// Returns the tests that show what an object's attributes do.
pub fn tests_of(object: &Object) -> Vec<String> {
    let mut tests: Vec<String> = Vec::new();
    for line in lines() {
        let test = line.test.to_owned();
        if line.object == object.path && !test.starts_with('-') && !tests.contains(&test) {
            tests.push(test);
        }
    }
    tests
}

/// What a container has nothing to do with: how files are read, images are built and directories are watched.
const ELSEWHERE: [&str; 4] = [
    "include[]",
    "services.NAME.build",
    "services.NAME.develop",
    "services.NAME.extends",
];

#[test]
fn every_attribute_that_is_honoured_has_a_test() {
    let mut shown: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for line in lines() {
        for attribute in line.attributes {
            *shown.entry((line.object, attribute)).or_default() += 1;
        }
    }
    let mut missing = Vec::new();
    let mut known: BTreeSet<(String, &str)> = BTreeSet::new();
    for object in objects() {
        for attribute in object.honoured() {
            known.insert((object.path.clone(), attribute));
            let is_elsewhere = ELSEWHERE.iter().any(|path| object.path.starts_with(path));
            if !is_elsewhere && !shown.contains_key(&(object.path.as_str(), attribute)) {
                missing.push(format!("{}: {attribute}", object.path));
            }
        }
    }
    assert!(missing.is_empty(), "no test shows these:\n{}", missing.join("\n"));
    let gone: Vec<_> = shown
        .keys()
        .filter(|(object, attribute)| !known.contains(&((*object).to_owned(), *attribute)))
        .collect();
    assert!(gone.is_empty(), "these are not honoured: {gone:?}");
}

#[test]
fn the_tests_that_show_attributes_are_there() {
    let mut sources = String::new();
    for directory in ["tests/it", "src"] {
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory), &mut sources);
    }
    for line in lines().iter().filter(|line| !line.test.starts_with('-')) {
        let start = sources.find(&format!("fn {}(", line.test));
        let start = start.unwrap_or_else(|| panic!("there is no test {}", line.test));
        let before = &sources[start.saturating_sub(60)..start];
        assert!(before.contains("test"), "{} is no test", line.test);
    }
}

fn read(directory: &Path, into: &mut String) {
    for entry in std::fs::read_dir(directory).expect("the sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            read(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(path).expect("a source"));
        }
    }
}
