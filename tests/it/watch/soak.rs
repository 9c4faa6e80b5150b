//! Many random edits; afterwards the container has what is here, and the watch holds no more than before.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::dev::{Dev, until};

/// Numbers that are the same in every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap_or_default()
    }
}

#[test]
fn after_many_random_edits_the_container_has_what_is_here() {
    soak(crate::support::extent(600, 10_000));
}

fn soak(edits: usize) {
    let rule = "{action: sync, path: ./src, target: /srv/app, initial_sync: true, ignore: ['**/ignored']}";
    let text = super::compose(&[("web", super::IDLE, rule)]);
    let Some(mut dev) = Dev::new(&[("compose.yaml", &text), ("src/start", "")]) else {
        return;
    };
    dev.watch(&["watch"]);
    let begun = std::time::Instant::now();
    let before = Holdings::of(&dev);
    let source = dev.path("src");
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for number in 0..edits {
        edit(&source, &mut numbers, number);
        if number % 64 == 0 {
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
    }
    let container = dev.project.path().join("copy");
    until("the same tree", || {
        let _ = fs::remove_dir_all(&container);
        dev.project
            .run(&["cp", "-a", "web:/srv/app", &container.to_string_lossy()]);
        let (here, there) = (tree(&source), tree(&container));
        let differ = |(path, content): &(&String, &String)| there.get(*path) != Some(content);
        let missing: Vec<_> = here.iter().filter(differ).take(5).collect();
        let surplus: Vec<_> = there.keys().filter(|path| !here.contains_key(*path)).take(5).collect();
        if missing.is_empty() && surplus.is_empty() {
            Ok(())
        } else {
            Err(format!(
                "missing or different {missing:?}, too much {surplus:?}\n{}",
                last(&dev.said())
            ))
        }
    });
    let after = Holdings::of(&dev);
    eprintln!(
        "{edits} edits in {:?}: before {before:?}, after {after:?}",
        begun.elapsed()
    );
    let directories = tree(&source).values().filter(|content| *content == "directory").count();
    // The watched directory itself, and the one above it.
    assert_eq!(after.watches, directories + 2, "one watch for each directory");
    for (name, before, after) in [
        ("watch", before.watch, after.watch),
        ("engine", before.engine, after.engine),
    ] {
        assert!(
            after.0 <= before.0 + 4,
            "{name}: file descriptors: {before:?} {after:?}"
        );
        assert!(
            after.1 <= before.1 + 32 * 1024,
            "{name}: memory in kB: {before:?} {after:?}"
        );
    }
}

/// What the processes hold: file descriptors and memory in kB of watch and engine, watches of the kernel.
#[derive(Debug)]
struct Holdings {
    watch: (usize, u64),
    engine: (usize, u64),
    watches: usize,
}

impl Holdings {
    fn of(dev: &Dev) -> Self {
        let engine = dev
            .project
            .engine_pid()
            .map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
        let held = |pid: u32| (descriptors(pid), memory(pid));
        Self {
            watch: held(dev.pid()),
            engine: engine.map(held).unwrap_or_default(),
            watches: watches(dev.pid()),
        }
    }
}

/// Does something that a person, an editor or git may do.
fn edit(source: &Path, numbers: &mut Numbers, number: usize) {
    let directory = source.join(format!("d{}/e{}", numbers.below(5), numbers.below(4)));
    let name = if numbers.below(12) == 0 {
        "ignored".to_owned()
    } else {
        format!("f{}", numbers.below(12))
    };
    let file = directory.join(&name);
    // What is in the way, or gone, is part of the game.
    match numbers.below(10) {
        0 => {
            let _ = fs::remove_file(&file);
        }
        1 => {
            let _ = fs::rename(&file, directory.join(format!("f{}", numbers.below(12))));
        }
        2 if numbers.below(4) == 0 => {
            let _ = fs::remove_dir_all(&directory);
        }
        3 if numbers.below(3) == 0 => {
            let to = source.join(format!("d{}", numbers.below(5)));
            let _ = fs::rename(&directory, to.join(format!("m{}", numbers.below(3))));
        }
        4 => {
            let _ = fs::remove_file(&file);
            let _ = std::os::unix::fs::symlink("../start", &file);
        }
        5 => {
            let _ = fs::create_dir_all(&directory);
            let beside = directory.join(format!("{name}.new"));
            let _ = fs::write(&beside, format!("saved {number}"));
            let _ = fs::rename(&beside, &file);
        }
        6 => {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600 + u32::try_from(numbers.below(64)).unwrap());
            if file.is_file() && !file.is_symlink() {
                let _ = fs::set_permissions(&file, mode);
            }
        }
        _ => {
            let _ = fs::create_dir_all(&directory);
            if !file.is_symlink() {
                let _ = fs::write(&file, "x".repeat(numbers.below(5000)) + &number.to_string());
            }
        }
    }
}

/// Returns all files with mode and content.
fn tree(top: &Path) -> BTreeMap<String, String> {
    use std::os::unix::fs::MetadataExt;
    let mut found = BTreeMap::new();
    let mut waiting = vec![top.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(top).unwrap().display().to_string();
            let metadata = path.symlink_metadata().unwrap();
            if path.ends_with("ignored") {
                continue;
            }
            let content = if metadata.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if metadata.is_dir() {
                waiting.push(path);
                "directory".to_owned()
            } else {
                format!("{:o} {}", metadata.mode(), fs::read_to_string(&path).unwrap())
            };
            found.insert(name, content);
        }
    }
    found
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Returns how many directories the kernel watches for a process.
fn watches(pid: u32) -> usize {
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .into_iter()
        .flatten()
        .flatten();
    let texts = infos.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    texts
        .map(|text| text.lines().filter(|line| line.starts_with("inotify ")).count())
        .sum()
}

/// Returns how much memory a process has, in kB.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap_or_default();
    line.split_whitespace()
        .nth(1)
        .and_then(|kilobytes| kilobytes.parse().ok())
        .unwrap_or_default()
}

fn last(text: &str) -> &str {
    let start = text.len().saturating_sub(1500);
    text.get(start..).unwrap_or(text)
}
