//! Compose files: what is made of right ones, what is said about wrong ones, and what is generated from the table of
//! keys. With `COMPOSE_UPDATE` set the expectations are written anew instead of compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use compose::file::schema::{json_schema, support_table};
use compose::file::{LoadError, LoadOptions, load, load_model};
use compose::model::decode::plain;
use compose::model::{Dialect, Emit, Value};
use compose::ui::report::Report;
use compose::yaml::{Sources, parse};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn is_update() -> bool {
    std::env::var_os("COMPOSE_UPDATE").is_some()
}

/// Compares a generated file with what is generated now.
fn assert_fresh(path: &str, expected: &str) {
    let file = repository().join(path);
    if is_update() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, expected).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == expected,
        "{path} is not what the table of keys says; run the tests with COMPOSE_UPDATE=1"
    );
}

#[test]
fn the_schema_for_editors_is_fresh() {
    assert_fresh("schemas/compose.schema.json", &json_schema());
}

#[test]
fn the_support_table_of_the_readme_is_fresh() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let (before, rest) = readme.split_once("<!-- support table").unwrap();
    let (marker, rest) = rest.split_once("-->\n").unwrap();
    let (_, after) = rest.split_once("<!-- end of support table").unwrap();
    let expected = format!(
        "{before}<!-- support table{marker}-->\n{}<!-- end of support table{after}",
        support_table(crate::attributes::shown::tests_of)
    );
    assert_fresh("README.md", &expected);
}

/// A project directory with the files of one case.
struct Directory(tempfile::TempDir);

impl Directory {
    fn new(files: &[(String, String)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("project")).unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join("project").join(name), text).unwrap();
        }
        Self(directory)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("project")
    }

    fn options(&self) -> LoadOptions {
        let environment = BTreeMap::from([("HOME".to_owned(), "/home/me".to_owned())]);
        LoadOptions::new(self.path(), environment)
    }

    fn shown(&self, error: &LoadError) -> String {
        let text = Report::new(&error.sources)
            .relative_to(self.path())
            .all(&error.diagnostics.0);
        let directory = self.path().to_string_lossy().into_owned();
        text.replace(&directory, "DIR").trim_end().to_owned()
    }
}

/// One case of a file of cases: `#### name`, the texts of its files, `>>>>`, what is expected.
struct Case {
    name: String,
    files: Vec<(String, String)>,
    expected: String,
}

fn read_cases(path: &Path) -> Vec<Case> {
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text.split("#### ").skip(1);
    blocks
        .map(|block| {
            let (name, rest) = block.split_once('\n').unwrap();
            let (files, expected) = rest.split_once(">>>>\n").unwrap();
            let mut parts = files.split("<<<< ");
            let main = parts.next().unwrap();
            let mut all = vec![("compose.yaml".to_owned(), main.to_owned())];
            for part in parts {
                let (name, text) = part.split_once('\n').unwrap();
                all.push((name.to_owned(), text.to_owned()));
            }
            Case {
                name: name.to_owned(),
                files: all,
                expected: expected.trim_end().to_owned(),
            }
        })
        .collect()
}

fn write_cases(path: &Path, cases: &[Case]) {
    let mut text = String::new();
    for case in cases {
        text.push_str(&format!("#### {}\n", case.name));
        for (index, (name, content)) in case.files.iter().enumerate() {
            if index > 0 {
                text.push_str(&format!("<<<< {name}\n"));
            }
            text.push_str(content);
        }
        text.push_str(&format!(">>>>\n{}\n\n", case.expected));
    }
    std::fs::write(path, text).unwrap();
}

/// Runs every case of every file in a directory, and compares.
fn run_cases(directory: &str, run: impl Fn(&Directory) -> String) -> usize {
    let mut files: Vec<PathBuf> = std::fs::read_dir(repository().join(directory))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut count = 0;
    let mut failures = Vec::new();
    for path in files {
        let mut cases = read_cases(&path);
        for case in &mut cases {
            count += 1;
            let found = run(&Directory::new(&case.files));
            if found != case.expected {
                failures.push(format!(
                    "{}: {}\nexpected:\n{}\nfound:\n{found}\n",
                    path.display(),
                    case.name,
                    case.expected
                ));
                case.expected = found;
            }
        }
        if is_update() {
            write_cases(&path, &cases);
        }
    }
    assert!(is_update() || failures.is_empty(), "{}", failures.join("\n"));
    count
}

#[test]
fn wrong_files_are_refused_with_the_place_of_the_mistake() {
    let count = run_cases("tests/it/wrong", |directory| match load(&directory.options()) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => directory.shown(&error),
    });
    assert!(count >= 200, "only {count} wrong files");
}

#[test]
fn later_files_change_earlier_ones_by_the_rules_of_merging() {
    run_cases("tests/it/merges", |directory| {
        let options = LoadOptions {
            files: vec!["compose.yaml".into(), "later.yaml".into()],
            normalize: false,
            check_consistency: false,
            resolve_paths: false,
            ..directory.options()
        };
        match load_model(&options) {
            Ok(model) => plain(&model.root).emit(Dialect::Yaml).to_yaml().trim_end().to_owned(),
            Err(error) => directory.shown(&error),
        }
    });
}

#[test]
fn what_config_prints_means_the_same_when_it_is_read_again() {
    let file = "services:\n  web:\n    image: nginx\n    ports: [\"80:80\", 443]\n    environment: {A: \"1\", B: }\n    \
                command: echo \"$$HOME\"\n    volumes: [\"data:/data\", \"./src:/src:ro\"]\n    healthcheck: {test: \
                curl localhost, interval: 90s}\n    deploy: {resources: {limits: {cpus: \"0.5\", memory: 64m}}}\n    \
                extra_hosts: [\"a:1.1.1.1\"]\n    ulimits: {nofile: 5}\n    x-note: [1, {a: b}]\nvolumes: {data: }\n";
    let first = Directory::new(&[("compose.yaml".into(), file.into())]);
    let project = load(&first.options()).unwrap().project;
    let printed = project.emit(Dialect::Yaml).to_yaml().replace('$', "$$");
    let second = Directory::new(&[("compose.yaml".into(), printed.clone())]);
    let again = load(&second.options()).unwrap().project;
    assert_eq!(again.emit(Dialect::Yaml).to_yaml().replace('$', "$$"), printed);
}

#[test]
fn a_thousand_services_load_at_once() {
    let mut text = String::from("services:\n");
    for index in 0..1000 {
        text.push_str(&format!(
            "  s{index}: {{image: \"nginx:${{TAG:-1}}\", ports: [\"80\"], environment: {{A: b}}}}\n"
        ));
    }
    let directory = Directory::new(&[("compose.yaml".into(), text)]);
    assert_eq!(load(&directory.options()).unwrap().project.services.len(), 1000);
}

/// Every key of the table, as the schema for editors shows it, is one that a service can be decoded with.
#[test]
fn every_attribute_of_a_service_in_the_table_is_in_the_model() {
    let schema: serde_json::Value = serde_json::from_str(&json_schema()).unwrap();
    let service = &schema["properties"]["services"]["patternProperties"]["^[a-zA-Z0-9._-]+$"];
    let keys = service["properties"].as_object().unwrap().keys();
    let source = include_str!("../../src/model/service.rs");
    for key in keys.filter(|key| key.as_str() != "pull_refresh_after") {
        assert!(
            source.contains(&format!("Key::new(\"{key}\")")),
            "{key} is not in the model"
        );
    }
}

#[test]
fn an_extension_keeps_its_value() {
    let mut sources = Sources::new();
    let id = sources.add("a.yaml", "x: [1, 2.5, yes, 2001-12-14 21:59:43]\n");
    let root = parse(&mut sources, id).unwrap().remove(0);
    assert_eq!(
        plain(&root).get("x"),
        Some(&Value::List(vec![
            Value::Int(1),
            Value::Float(2.5),
            Value::String("yes".into()),
            Value::Timestamp("2001-12-14T21:59:43Z".into()),
        ]))
    );
}

fn two_files() -> Directory {
    Directory::new(&[
        (
            "compose.yaml".into(),
            "services:\n  web:\n    image: nginx:${TAG:-1}\n    environment: [A=1]\n    env_file: web.env\n    \
             labels: {com.example.x: y}\n"
                .into(),
        ),
        (
            "compose.override.yaml".into(),
            "services:\n  web:\n    image: apache:${TAG}\n".into(),
        ),
        (".env".into(), "OTHER=a\nTAG=2\n".into()),
        ("web.env".into(), "A=2\nB='from here'\n".into()),
    ])
}

fn explained(directory: &Directory, options: &LoadOptions, what: &str) -> Vec<String> {
    let path = directory.path().to_string_lossy().into_owned();
    let origins = compose::file::explain::explain(options, what).unwrap();
    let lines = origins.into_iter().map(|origin| {
        let mark = if origin.wins { "->" } else { "  " };
        let value = origin.value.unwrap_or_else(|| "-".into());
        format!("{mark} {} {value}", origin.place).replace(&path, "DIR")
    });
    lines.collect()
}

#[test]
fn a_variable_is_explained_by_every_place_that_could_set_it() {
    let directory = two_files();
    let mut options = directory.options();
    let expected = [
        "   environment of the process -",
        "-> DIR/.env:2 2",
        "   ${TAG:-1} in DIR/compose.yaml:3:12 1",
        "   ${TAG} in DIR/compose.override.yaml:3:12 -",
    ];
    assert_eq!(explained(&directory, &options, "TAG"), expected);
    options.environment.insert("TAG".into(), "3".into());
    assert_eq!(
        explained(&directory, &options, "TAG")[0],
        "-> environment of the process 3"
    );
}

#[test]
fn an_attribute_is_explained_by_every_file_that_sets_it() {
    let directory = two_files();
    let options = directory.options();
    assert_eq!(
        explained(&directory, &options, "services.web.image"),
        [
            "-> DIR/compose.override.yaml:3:12 apache:2",
            "   DIR/compose.yaml:3:12 nginx:${TAG:-1}",
        ]
    );
    assert_eq!(
        explained(&directory, &options, "services.web.labels.com.example.x"),
        ["-> DIR/compose.yaml:6:29 y"]
    );
    assert_eq!(
        explained(&directory, &options, "services.web.environment.B"),
        ["-> DIR/web.env:2 from here"]
    );
    assert_eq!(
        explained(&directory, &options, "services.web.environment.A"),
        ["-> DIR/compose.yaml:4:19 1", "   DIR/web.env:1 2"]
    );
}

#[test]
fn programs_are_told_what_is_wrong_in_json_and_sarif() {
    use compose::ui::machine::{Form, diagnostics};
    let text = "services:\n  web:\n    image: nginx\n    imagee: a\n";
    let directory = Directory::new(&[("compose.yaml".into(), text.into())]);
    let error = load(&directory.options()).unwrap_err();
    let shown = |form| -> serde_json::Value {
        serde_json::from_str(&diagnostics(form, &error.diagnostics.0, &error.sources)).unwrap()
    };
    let json = shown(Form::Json);
    assert_eq!(json[0]["place"]["line"], 4);
    assert_eq!(json[0]["place"]["endColumn"], 11);
    assert_eq!(json[0]["help"], "did you mean `image`?");
    let sarif = shown(Form::Sarif);
    let region = &sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"];
    assert_eq!(region["startLine"], 4);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    /// Whatever stands in a file, it is loaded or refused, never more.
    #[test]
    fn any_text_is_loaded_or_refused(
        keys in proptest::collection::vec(
            "(image|build|ports|volumes|environment|extends|deploy|healthcheck|depends_on|networks|x-a|configs|gpus)",
            0..5,
        ),
        values in proptest::collection::vec(
            "(nginx|\\[a, b\\]|\\{a: b\\}|\\[\"80:80\"\\]|5|true|null|!reset null|\\$\\{A:-b\\}|\\$\\{|\\*a|&a b|\\[\\{\\}\\]|-1|1g)",
            5,
        ),
    ) {
        let mut text = String::from("services:\n  web:\n    hostname: a\n");
        for (key, value) in keys.iter().zip(values) {
            text.push_str(&format!("    {key}: {value}\n"));
        }
        let directory = Directory::new(&[("compose.yaml".into(), text)]);
        match load(&directory.options()) {
            Ok(loaded) => proptest::prop_assert_eq!(loaded.project.services.len(), 1),
            Err(error) => proptest::prop_assert!(!error.message().is_empty()),
        }
    }
}

#[test]
fn options_of_a_provider_merge_as_they_are_written() {
    let file = |options: &str| format!("services:\n  web:\n    provider: {{type: p, options: {options}}}\n");
    let directory = Directory::new(&[
        ("compose.yaml".into(), file("{a: b, c: [d]}")),
        ("compose.override.yaml".into(), file("{a: e, c: [f], n: true}")),
    ]);
    let project = load(&directory.options()).unwrap().project;
    let provider = project.services["web"].provider.as_ref().unwrap();
    let options: Vec<String> = provider
        .options
        .iter()
        .map(|(key, values)| format!("{key}={}", values.join("+")))
        .collect();
    assert_eq!(options, ["a=e", "c=d+f", "n=true"]);
}
