//! Files that no person writes end in a clear error or a project, soon and in bounded memory; never in a crash.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::{Project, binary, text};

/// More memory, in KiB of addresses, or seconds of processor time than this ends the command. Both are far above what
/// any of the files takes, so that a slow machine and a debug build pass, and far below what growing without end takes.
const LIMITS: &str = "ulimit -v 1500000; ulimit -t 60";

fn config(directory: &Path) -> Output {
    let script = format!("{LIMITS}; exec \"$0\" config -q");
    Command::new("sh")
        .args(["-c", &script])
        .arg(binary())
        .current_dir(directory)
        .env_clear()
        .env("HOME", directory)
        .output()
        .expect("a shell")
}

/// Asserts that a file is refused with a message, and with the line where it stands, if there is one.
fn refused(file: impl AsRef<[u8]>, message: &str, place: &str) {
    let project = Project::new(&[]);
    std::fs::write(project.path().join("compose.yaml"), file).unwrap();
    let output = config(project.path());
    let said = text(&output.stderr);
    let head: String = said.chars().take(2000).collect();
    assert_eq!(output.status.code(), Some(1), "{head}");
    assert!(said.contains(message), "{message}: {head}");
    assert!(said.contains(place), "{place}: {head}");
    assert!(said.len() < 4_000_000, "{} bytes are said", said.len());
}

/// Asserts that a file is a project.
fn accepted(file: &str) {
    let project = Project::new(&[("compose.yaml", file)]);
    let output = config(project.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for number in 0..count {
        let _ = writeln!(text, "{}", line(number));
    }
    text
}

#[test]
fn aliases_of_aliases_do_not_grow_without_end() {
    let bomb = |first: &str, item: &dyn Fn(usize, usize) -> String, brackets: [&str; 2]| {
        let mut text = format!("x-0: &a0 {first}\n");
        for level in 1..12 {
            let items: Vec<String> = (0..10).map(|index| item(level, index)).collect();
            let _ = writeln!(
                text,
                "x-{level}: &a{level} {}{}{}",
                brackets[0],
                items.join(", "),
                brackets[1]
            );
        }
        text + "services: {a: {image: x}}\n"
    };
    let list = bomb("[a, b]", &|level, _| format!("*a{}", level - 1), ["[", "]"]);
    let map = bomb(
        "{k: v}",
        &|level, index| format!("k{index}: *a{}", level - 1),
        ["{", "}"],
    );
    for text in [&list, &map] {
        refused(text, "yaml: document contains excessive aliasing", "compose.yaml:");
    }
    // One document below the limit, again and again.
    let documents = format!("{}---\n", bomb("[a, b]", &|_, _| "*a0".to_owned(), ["[", "]"])).repeat(2000);
    refused(documents, "yaml: document contains excessive aliasing", "compose.yaml:");
}

#[test]
fn more_services_than_fit_are_refused_and_many_are_read() {
    let services = |count| {
        format!(
            "services:\n{}",
            lines(count, |number| format!("  s{number}: {{image: x}}"))
        )
    };
    refused(
        services(100_000),
        "yaml: document has more than 400000 values",
        "compose.yaml:100001:",
    );
    accepted(&services(5_000));
}

#[test]
fn depth_is_refused_before_it_hurts() {
    let deep = "yaml: exceeded max depth of 250";
    refused(
        format!("a: {}{}\n", "[".repeat(10_000), "]".repeat(10_000)),
        deep,
        "compose.yaml:1:",
    );
    refused(
        format!("a: {}1{}\n", "{a: ".repeat(10_000), "}".repeat(10_000)),
        deep,
        "compose.yaml:1:",
    );
    refused(format!("a:\n {}x\n", "- ".repeat(10_000)), deep, "compose.yaml:2:");
    let block = lines(3_000, |number| format!("{}a:", " ".repeat(number)));
    refused(block, deep, "compose.yaml:2");
    let words = format!(
        "services:\n  a:\n    image: \"{}x{}\"\n",
        "${A:-".repeat(10_000),
        "}".repeat(10_000)
    );
    refused(
        words,
        "invalid interpolation format for services.a.image",
        "compose.yaml:3:",
    );
}

#[test]
fn large_files_are_not_read() {
    let project = Project::new(&[]);
    // The file has a hole; nobody reads that far.
    let file = std::fs::File::create(project.path().join("compose.yaml")).unwrap();
    file.set_len(100 << 20).unwrap();
    let output = config(project.path());
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("yaml: file is larger than 16 MiB"), "{said}");
}

#[test]
fn bytes_that_are_no_text_are_shown_where_they_stand() {
    refused(
        b"services:\n  a:\n    image: \"\xff\"\n",
        "yaml: invalid leading UTF-8 octet",
        "compose.yaml:3:13",
    );
    refused(
        b"a: b\nc: \"\xc3\"\n",
        "yaml: invalid trailing UTF-8 octet",
        "compose.yaml:2:",
    );
    refused(
        b"services:\n  a:\n    image: \"a\0b\"\n",
        "control characters are not allowed",
        "compose.yaml:3:14",
    );
}

#[test]
fn files_and_services_that_lead_back_to_themselves_are_named() {
    refused(
        "include: [compose.yaml]\n",
        "include cycle detected:",
        "compose.yaml:1:",
    );
    let file = "services:\n  a: {extends: {file: compose.yaml, service: a}}\n";
    refused(file, "Circular reference:", "compose.yaml:2:");
    refused(
        "services:\n  a: {extends: b}\n  b: {extends: a}\n",
        "Circular reference:",
        "compose.yaml:",
    );
    let file = "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [a]}\n";
    refused(file, "dependency cycle detected: a -> b -> a", "compose.yaml:2:");
}

#[test]
fn includes_that_double_end() {
    let project = Project::new(&[("compose.yaml", "include: [f0.yaml]\n"), ("f30.yaml", "services: {}\n")]);
    for number in 0..30 {
        let next = number + 1;
        project.write(
            &format!("f{number}.yaml"),
            &format!("include: [f{next}.yaml, f{next}.yaml]\n"),
        );
    }
    let output = config(project.path());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the project is made of more than 10000 files"), "{said}");
}

#[test]
fn thousands_of_errors_are_counted_and_some_shown() {
    let undefined = lines(20_000, |number| {
        format!("  s{number}: {{image: x, networks: [n{number}]}}")
    });
    let undefined = format!(
        "services:\n{undefined}networks:\n{}",
        lines(20_000, |number| format!("  m{number}:"))
    );
    refused(undefined, "more errors like these", "compose.yaml:2:");
    let unknown = lines(50_000, |number| format!("    key{number}: v"));
    refused(
        format!("services:\n  a:\n    image: x\n{unknown}"),
        "not allowed",
        "compose.yaml:4:5",
    );
}

#[test]
fn ports_end_with_those_there_are() {
    let ranges = lines(100, |number| {
        format!("      - \"{}-65000:{}-65000\"", number + 1, number + 1)
    });
    let file = format!("services:\n  a:\n    image: x\n    ports:\n{ranges}");
    refused(file, "the project has more than 131072 ports", "compose.yaml:7:");
}

#[test]
fn one_base_of_many_services_is_read_once() {
    let project = Project::new(&[]);
    let bases = lines(2_000, |number| format!("  b{number}: {{image: x}}"));
    project.write("base.yaml", &format!("services:\n{bases}"));
    let services = lines(2_000, |number| {
        format!("  s{number}: {{extends: {{file: base.yaml, service: b{number}}}}}")
    });
    project.write("compose.yaml", &format!("services:\n{services}"));
    let output = config(project.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
}
