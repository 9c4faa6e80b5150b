//! Wrong files and what is said about them: docker compose's words, then the place and some help.
//!
//! Each file in `errors/` is a list of cases:
//!
//! ```text
//! === what is wrong
//! @@ compose.yaml
//! services: …
//! @@ expect
//! what `compose config` prints to standard error, `$DIR` being the project's directory
//! ```
//!
//! Besides files, `@@ arguments` gives other arguments than `config --quiet` and `@@ environment` variables, one a
//! line. `COMPOSE_UPDATE_EXPECTATIONS=1` rewrites what is expected, for a person to read.

use std::path::Path;
use std::process::Command;

struct Case {
    name: String,
    /// Name and text, as they stand in the list.
    sections: Vec<(String, String)>,
}

fn read_cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.split_inclusive('\n') {
        if let Some(name) = line.strip_prefix("=== ") {
            cases.push(Case {
                name: name.trim_end().to_owned(),
                sections: Vec::new(),
            });
        } else if let Some(case) = cases.last_mut() {
            if let Some(name) = line.strip_prefix("@@ ") {
                case.sections.push((name.trim_end().to_owned(), String::new()));
            } else if let Some((_, text)) = case.sections.last_mut() {
                text.push_str(line);
            }
        }
    }
    cases
}

fn write_cases(cases: &[Case]) -> String {
    let mut text = String::new();
    for case in cases {
        text.push_str(&format!("=== {}\n", case.name));
        for (name, section) in &case.sections {
            text.push_str(&format!("@@ {name}\n{section}"));
        }
    }
    text
}

impl Case {
    fn section(&self, name: &str) -> Option<&str> {
        let found = self.sections.iter().find(|(section, _)| section == name);
        found.map(|(_, text)| text.as_str())
    }

    /// Returns what the binary prints to standard error, with a blank line behind it.
    fn run(&self) -> String {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        // The project is named after its directory.
        let directory = scratch.path().join("project");
        std::fs::create_dir(&directory).expect("a writable temporary directory");
        for (name, text) in &self.sections {
            if matches!(name.as_str(), "expect" | "arguments" | "environment") {
                continue;
            }
            let path = directory.join(name);
            let parent = path.parent().expect("a file stands in a directory");
            std::fs::create_dir_all(parent).expect("a writable temporary directory");
            // Control characters and bytes that are no text are written as `\xNN`.
            std::fs::write(&path, unescape(text)).expect("a writable temporary directory");
        }
        let arguments = self.section("arguments").unwrap_or("config\n--quiet");
        let environment = self.section("environment").unwrap_or("");
        let output = Command::new(env!("CARGO_BIN_EXE_compose"))
            .args(arguments.lines())
            .current_dir(&directory)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", "/home/corpus")
            .envs(environment.lines().filter_map(|line| line.split_once('=')))
            .output()
            .expect("the binary runs");
        let status = output.status.code();
        let found = String::from_utf8_lossy(&output.stderr);
        let found = found.replace(&*directory.to_string_lossy(), "$DIR");
        let found: Vec<String> = found.lines().map(without_time).collect();
        let found = found.join("\n");
        match status {
            Some(1) => format!("{}\n\n", found.trim_end()),
            status => format!("{}\nended with {status:?}\n\n", found.trim_end()),
        }
    }
}

/// Returns a line without the time that a warning begins with.
fn without_time(line: &str) -> String {
    match line.strip_prefix("time=\"").and_then(|rest| rest.split_once('"')) {
        Some((_, rest)) => format!("time=\"$TIME\"{rest}"),
        None => line.to_owned(),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        match rest
            .get(at + 2..at + 4)
            .and_then(|code| u8::from_str_radix(code, 16).ok())
        {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(&rest.as_bytes()[at..(at + 4).min(rest.len())]),
        }
        rest = rest.get(at + 4..).unwrap_or("");
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

#[test]
fn a_wrong_file_is_explained() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/errors");
    let update = std::env::var_os("COMPOSE_UPDATE_EXPECTATIONS").is_some();
    let mut differences = Vec::new();
    let mut lists: Vec<_> = std::fs::read_dir(&directory)
        .expect("the cases are part of the repository")
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    lists.sort();
    for list in lists {
        let text = std::fs::read_to_string(&list).expect("a readable list");
        let mut cases = read_cases(&text);
        for case in &mut cases {
            let found = case.run();
            let expected = case.section("expect").unwrap_or("").trim_end();
            if found.trim_end() != expected {
                let list = list.file_name().unwrap_or_default().display();
                differences.push(format!(
                    "{list}: {}\n--- expected\n{expected}\n--- found\n{found}",
                    case.name
                ));
            }
            if update {
                case.sections.retain(|(name, _)| name != "expect");
                case.sections.push(("expect".to_owned(), found));
            }
        }
        if update {
            std::fs::write(&list, write_cases(&cases)).expect("a writable list");
        }
    }
    assert!(update || differences.is_empty(), "{}", differences.join("\n"));
}
