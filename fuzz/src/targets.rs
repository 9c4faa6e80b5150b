//! What is fed, and with what it begins.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use compose_fuzz::file::{LoadOptions, dotenv, load, template};
use compose_fuzz::model::{Bytes, Dialect, Duration, Emit, FileMode, parse_mount, parse_ports};
use compose_fuzz::yaml::{Sources, parse};

pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: &'static [&'static str],
    /// What is put into texts as a whole.
    pub words: &'static [&'static str],
}

pub const ALL: &[Target] = &[
    Target {
        name: "yaml",
        run: yaml,
        seeds: &[
            include_str!("../seeds/yaml.yaml"),
            "a: &x [1, {b: 'c'}]\n<<: *x\n",
            "? |\n  a\n: - b\n  - !!str 1\n---\n%YAML 1.2\n...\n",
        ],
        words: YAML_WORDS,
    },
    Target {
        name: "interpolation",
        run: interpolation,
        seeds: &["${A:-${B?c}}$$ $D ${E+${F}}", "a $A b", "${A:?no}"],
        words: &[
            "${", "}", "$", "$$", ":-", "-", ":?", "?", ":+", "+", "A", "_", "\n", "{", "é",
        ],
    },
    Target {
        name: "dotenv",
        run: dotenv,
        seeds: &[
            "A=1\nexport B='x y' # c\nC=\"${A}\\n$B\"\nD: e\n\n# f\n",
            "A=\"\n\"\r\nB=`x`\n",
        ],
        words: &[
            "=", ": ", "'", "\"", "\\", "${A}", "$B", "#", " #", "\n", "\r\n", "export ", "\u{feff}", "A", "\\n",
        ],
    },
    Target {
        name: "duration",
        run: |text| with(text, |text| drop(text.parse::<Duration>())),
        seeds: &["1h2m3.5s", "1w2d", "10ms", "1.5us"],
        words: &["h", "m", "s", "ms", "us", "µs", "ns", "d", "w", ".", "-", "+"],
    },
    Target {
        name: "size",
        run: |text| {
            with(text, |text| {
                drop(text.parse::<Bytes>());
                drop(text.parse::<FileMode>());
            })
        },
        seeds: &["1.5GB", "10m", "0o440", "1 KiB"],
        words: &["k", "m", "g", "t", "p", "i", "b", "B", ".", " ", "-", "e"],
    },
    Target {
        name: "port",
        run: |text| with(text, |text| drop(parse_ports(text))),
        seeds: &["127.0.0.1:80-82:90-92/udp", "[::1]:80:80", "80"],
        words: &[
            ":",
            "-",
            "/",
            "tcp",
            "udp",
            "[",
            "]",
            "::",
            "127.0.0.1",
            "0.0.0.0",
            "65535",
        ],
    },
    Target {
        name: "volume",
        run: |text| with(text, |text| drop(parse_mount(text))),
        seeds: &["./a:/b:ro,z", "C:\\a:/b", "name:/x:nocopy", "/a"],
        words: &[
            ":", "/", "\\", ".", "..", "~", "ro", "rw", ",", "z", "Z", "rshared", "nocopy", "C:", "cached",
        ],
    },
    Target {
        name: "loader",
        run: loader,
        seeds: &[
            include_str!("../seeds/project.yaml"),
            include_str!("../seeds/resources.yaml"),
            include_str!("../seeds/parts.yaml"),
        ],
        words: LOADER_WORDS,
    },
];

const YAML_WORDS: &[&str] = &[
    ": ",
    "- ",
    "? ",
    "\n",
    "\n  ",
    "  ",
    "\t",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "&a ",
    "*a",
    "<<: ",
    "!!str ",
    "!!int ",
    "!!binary ",
    "!reset ",
    "!override ",
    "|\n",
    ">-\n",
    "|2+\n",
    "'",
    "\"",
    "\\u0041",
    "\\x",
    "#",
    " #",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "%TAG ! x\n",
    "~",
    "null",
    "0x1f",
    "0o7",
    "1_0",
    ".inf",
    ".nan",
    "2001-01-01",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "é",
    "\r\n",
];

const LOADER_WORDS: &[&str] = &[
    "\n",
    "\n  ",
    "\n    ",
    "\n      ",
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "null",
    "true",
    "${A:-b}",
    "$B",
    "!reset ",
    "!override ",
    "<<: *x",
    "&x ",
    "\n---\n",
    "\n=====\n",
    "services:",
    "image: x",
    "build: .",
    "extends: a",
    "extends: {file: b.yaml, service: a}",
    "include: [b.yaml]",
    "depends_on: [a]",
    "networks: [n]",
    "volumes: ['v:/v']",
    "ports: ['80:80']",
    "environment: {A: b}",
    "env_file: .env",
    "configs: [c]",
    "secrets: [c]",
    "deploy:",
    "resources: {limits: {cpus: 1}}",
    "healthcheck: {test: x, interval: 1s}",
    "profiles: [p]",
    "network_mode: service:a",
    "external: true",
    "external: {name: x}",
    "name: x",
    "driver: x",
    "ipam: {config: [{subnet: 1.2.3.0/24}]}",
    "x-a: 1",
    "version: '3'",
    "ulimits: {a: 1}",
    "gpus: all",
    "develop: {watch: [{path: ., action: rebuild}]}",
    "models: [m]",
    "command: a 'b c'",
    "entrypoint: []",
    "labels: [a=b]",
    "extra_hosts: ['a:1.1.1.1']",
    "tmpfs: /x",
    "devices: [/a:/b]",
    "links: ['a:b']",
    "volumes_from: [a]",
    "ssh: default",
    "restart: always",
    "scale: 2",
    "blkio_config: {weight: 1}",
];

fn with(text: &[u8], run: impl FnOnce(&str)) {
    if let Ok(text) = std::str::from_utf8(text) {
        run(text);
    }
}

/// What is read must be readable after it is written, and mean the same.
fn yaml(text: &[u8]) {
    let mut sources = Sources::new();
    let Ok(id) = sources.add_bytes("a", text.to_vec()) else {
        return;
    };
    let Ok(roots) = parse(&mut sources, id) else {
        return;
    };
    for root in &roots {
        let written = compose_fuzz::yaml::writer::write(root);
        let mut sources = Sources::new();
        let id = sources.add("b", written.clone());
        // go-yaml, whose writer this is, does not read all that it writes either: texts with odd characters.
        if let Ok(again) = parse(&mut sources, id) {
            again
                .iter()
                .for_each(|root| drop(compose_fuzz::yaml::writer::write(root)));
        }
    }
}

fn lookup(name: &str) -> Option<String> {
    matches!(name, "A" | "E").then(|| format!("value of {name}"))
}

fn interpolation(text: &[u8]) {
    with(text, |text| {
        let _ = template::parse_template(text);
        let _ = template::substitute(text, &lookup, &mut |_| {});
    });
}

fn dotenv(text: &[u8]) {
    let mut sources = Sources::new();
    if let Ok(id) = sources.add_bytes(".env", text.to_vec()) {
        let _ = dotenv::parse(&sources, id, &lookup, &BTreeMap::new());
        let _ = dotenv::parse_raw(&sources, id, &lookup);
    }
}

/// A directory of this process, in memory where there is one.
static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
    let top = if std::path::Path::new("/dev/shm").is_dir() {
        "/dev/shm"
    } else {
        "/tmp"
    };
    let directory = PathBuf::from(top).join(format!("compose-fuzz-{}", std::process::id()));
    let _ = std::fs::create_dir_all(&directory);
    directory
});

/// One text is several files: a line of `=====` ends one.
fn loader(text: &[u8]) {
    const SEPARATOR: &[u8] = b"\n=====\n";
    let mut rest = text;
    let mut files: Vec<&[u8]> = Vec::new();
    while let Some(at) = rest.windows(SEPARATOR.len()).position(|window| window == SEPARATOR) {
        files.push(&rest[..at + 1]);
        rest = &rest[at + SEPARATOR.len()..];
    }
    files.push(rest);
    for (index, name) in ["compose.yaml", "b.yaml", ".env", "compose.override.yaml"]
        .into_iter()
        .enumerate()
    {
        let path = DIRECTORY.join(name);
        let _ = match files.get(index) {
            Some(file) => std::fs::write(path, file),
            None => std::fs::remove_file(path),
        };
    }
    let environment = BTreeMap::from([
        ("HOME".to_owned(), "/root".to_owned()),
        ("A".to_owned(), "b".to_owned()),
    ]);
    let options = LoadOptions::new(DIRECTORY.clone(), environment);
    match load(&options) {
        Ok(loaded) => {
            let _ = loaded.project.emit(Dialect::Yaml).to_yaml();
            let _ = loaded.project.emit(Dialect::Json).to_json_pretty();
        }
        Err(error) => {
            for diagnostic in &error.diagnostics.0 {
                if let Some(span) = diagnostic.span {
                    let _ = error.sources.position(span);
                }
            }
        }
    }
}
