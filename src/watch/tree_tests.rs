use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

struct World {
    directory: tempfile::TempDir,
    tree: Tree,
}

impl World {
    /// Watches `root` below a directory that has `files`.
    fn new(root: &str, files: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            write(&directory.path().join(file), "old");
        }
        let roots = vec![directory.path().join(root)];
        let tree = Tree::open(roots, Box::new(|path| path.ends_with("ignored")));
        Self { directory, tree }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns what was told, the last of each path.
    fn told(&mut self) -> BTreeMap<String, Kind> {
        let changes = self.tree.read();
        named(self.directory.path(), changes)
    }
}

fn named(above: &Path, changes: Vec<Change>) -> BTreeMap<String, Kind> {
    let name = |path: &Path| path.strip_prefix(above).unwrap().to_str().unwrap().to_owned();
    changes.iter().map(|change| (name(&change.path), change.kind)).collect()
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn told(pairs: &[(&str, Kind)]) -> BTreeMap<String, Kind> {
    pairs.iter().map(|(path, kind)| ((*path).to_owned(), *kind)).collect()
}

use Kind::{Begun, Gone, Whole};

#[test]
fn writing_and_deleting_is_told() {
    let mut world = World::new("src", &["src/a", "src/b"]);
    write(&world.path("src/a"), "new");
    fs::remove_file(world.path("src/b")).unwrap();
    write(&world.path("beside"), "");
    assert_eq!(world.told(), told(&[("src/a", Whole), ("src/b", Gone)]));
    let file = fs::File::create(world.path("src/c")).unwrap();
    assert_eq!(world.told(), told(&[("src/c", Begun)]));
    drop(file);
    assert_eq!(world.told(), told(&[("src/c", Whole)]));
    assert_eq!(world.told(), told(&[]));
}

#[test]
fn a_file_that_is_renamed_over_is_whole() {
    let mut world = World::new("src", &["src/a"]);
    write(&world.path("src/a.tmp"), "new");
    fs::rename(world.path("src/a.tmp"), world.path("src/a")).unwrap();
    // What had gone before it was looked at never was.
    assert_eq!(world.told(), told(&[("src/a", Whole)]));
    write(&world.path("src/a.tmp"), "newer");
    assert_eq!(world.told(), told(&[("src/a.tmp", Whole)]));
    fs::rename(world.path("src/a.tmp"), world.path("src/a")).unwrap();
    assert_eq!(world.told(), told(&[("src/a", Whole), ("src/a.tmp", Gone)]));
}

#[test]
fn a_directory_comes_with_what_was_put_into_it_before_it_was_noticed() {
    let mut world = World::new("src", &["src/a"]);
    write(&world.path("src/new/deep/x"), "x");
    write(&world.path("src/ignored/y"), "y");
    let seen = world.told();
    assert_eq!(
        seen,
        told(&[("src/new", Whole), ("src/new/deep", Whole), ("src/new/deep/x", Whole)])
    );
    write(&world.path("src/new/deep/z"), "z");
    assert_eq!(world.told(), told(&[("src/new/deep/z", Whole)]));
}

#[test]
fn a_moved_directory_goes_and_comes_with_all_that_is_in_it() {
    let mut world = World::new("src", &["src/d/e/x", "src/a"]);
    let before = world.tree.watch_count();
    fs::rename(world.path("src/d"), world.path("src/f")).unwrap();
    let expected = told(&[
        ("src/d", Gone),
        ("src/d/e", Gone),
        ("src/d/e/x", Gone),
        ("src/f", Whole),
        ("src/f/e", Whole),
        ("src/f/e/x", Whole),
    ]);
    assert_eq!(world.told(), expected);
    write(&world.path("src/f/e/x"), "new");
    assert_eq!(world.told(), told(&[("src/f/e/x", Whole)]));
    fs::rename(world.path("src/f"), world.path("away")).unwrap();
    world.told();
    write(&world.path("away/e/x"), "newer");
    assert_eq!(world.told(), told(&[]));
    assert_eq!(world.tree.watch_count(), before - 2);
}

#[test]
fn links_are_themselves_and_modes_are_told() {
    let mut world = World::new("src", &["src/a", "other/x"]);
    symlink("../other", world.path("src/link")).unwrap();
    fs::set_permissions(world.path("src/a"), PermissionsExt::from_mode(0o755)).unwrap();
    fs::hard_link(world.path("other/x"), world.path("src/hard")).unwrap();
    assert_eq!(
        world.told(),
        told(&[("src/a", Whole), ("src/link", Whole), ("src/hard", Whole)])
    );
    write(&world.path("other/y"), "");
    assert_eq!(world.told(), told(&[]));
}

#[test]
fn a_watched_path_may_be_a_link_to_a_directory_and_be_led_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    write(&path("one/a"), "1");
    write(&path("two/a"), "22");
    symlink("one", path("current")).unwrap();
    let mut tree = Tree::open(vec![path("current"), path("one")], Box::new(|_| false));
    write(&path("one/a"), "11");
    // One directory, two paths.
    assert_eq!(
        named(directory.path(), tree.read()),
        told(&[("current/a", Whole), ("one/a", Whole)])
    );
    symlink("two", path("next")).unwrap();
    fs::rename(path("next"), path("current")).unwrap();
    assert_eq!(named(directory.path(), tree.read()).get("current/a"), Some(&Whole));
    write(&path("two/a"), "222");
    assert_eq!(named(directory.path(), tree.read()), told(&[("current/a", Whole)]));
}

#[test]
fn a_watched_path_may_come_later_and_go_and_come_again() {
    let mut world = World::new("deep/src", &["beside"]);
    write(&world.path("deep/src/a"), "1");
    // The way there is made step by step, and so it may be noticed.
    let mut seen = world.told();
    seen.extend(world.told());
    assert_eq!(seen, told(&[("deep/src", Whole), ("deep/src/a", Whole)]));
    fs::remove_dir_all(world.path("deep/src")).unwrap();
    assert_eq!(world.told(), told(&[("deep/src", Gone), ("deep/src/a", Gone)]));
    write(&world.path("deep/src/b"), "2");
    let mut seen = world.told();
    seen.extend(world.told());
    assert_eq!(seen, told(&[("deep/src", Whole), ("deep/src/b", Whole)]));
}

#[test]
fn a_single_file_is_watched_through_its_directory() {
    let mut world = World::new("go.mod", &["go.mod", "other"]);
    write(&world.path("other"), "x");
    assert_eq!(world.told(), told(&[]));
    write(&world.path("go.mod"), "x");
    assert_eq!(world.told(), told(&[("go.mod", Whole)]));
    write(&world.path("go.mod.new"), "y");
    fs::rename(world.path("go.mod.new"), world.path("go.mod")).unwrap();
    assert_eq!(world.told(), told(&[("go.mod", Whole)]));
    fs::remove_file(world.path("go.mod")).unwrap();
    assert_eq!(world.told(), told(&[("go.mod", Gone)]));
}

#[test]
fn what_an_overflowing_queue_lost_is_found_by_looking() {
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let mut world = World::new("src", &["src/a", "src/b", "src/d/x"]);
    // Of each file two events at least; equal ones that follow each other count once.
    for number in 0..=limit / 2 {
        write(&world.path(&format!("src/noise-{}", number % 2)), "");
    }
    fs::remove_file(world.path("src/b")).unwrap();
    fs::rename(world.path("src/d"), world.path("src/e")).unwrap();
    write(&world.path("src/new/y"), "y");
    let seen = world.told();
    for (path, kind) in [
        ("src/b", Gone),
        ("src/d/x", Gone),
        ("src/e/x", Whole),
        ("src/new/y", Whole),
        ("src/noise-1", Whole),
    ] {
        assert_eq!(seen.get(path), Some(&kind), "{path}");
    }
    write(&world.path("src/new/y"), "yy");
    write(&world.path("src/e/x"), "xx");
    assert_eq!(world.told(), told(&[("src/new/y", Whole), ("src/e/x", Whole)]));
}

#[test]
fn an_unreadable_directory_is_told_and_the_rest_watched() {
    // On a thread of its own, which gives up the rights that let root read everything.
    std::thread::spawn(|| {
        use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        write(&path("src/open/a"), "");
        write(&path("src/shut/b"), "");
        fs::set_permissions(path("src/shut"), PermissionsExt::from_mode(0o0)).unwrap();
        let mut rights = capabilities(None).unwrap();
        rights.effective &= !(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
        set_capabilities(None, rights).unwrap();
        let mut tree = Tree::open(vec![path("src")], Box::new(|_| false));
        let warnings = tree.take_warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("src/shut: Permission denied"), "{warnings:?}");
        write(&path("src/open/a"), "new");
        assert_eq!(named(directory.path(), tree.read()), told(&[("src/open/a", Whole)]));
        // It can be read from now on.
        fs::set_permissions(path("src/shut"), PermissionsExt::from_mode(0o755)).unwrap();
        tree.read();
        write(&path("src/shut/b"), "new");
        let seen = named(directory.path(), tree.read());
        assert_eq!(seen.get("src/shut/b"), Some(&Whole));
    })
    .join()
    .unwrap();
}

#[test]
fn without_watches_changes_are_found_by_looking() {
    let mut world = World::new("src", &["src/a", "src/b"]);
    world.tree.give_up_watching(Errno::NOSPC);
    let warning = world.tree.take_warnings().remove(0);
    assert!(warning.contains("sysctl fs.inotify.max_user_watches="), "{warning}");
    write(&world.path("src/a"), "longer");
    fs::remove_file(world.path("src/b")).unwrap();
    write(&world.path("src/c/d"), "");
    let seen = named(world.directory.path(), world.tree.compare());
    let expected = told(&[("src/a", Whole), ("src/b", Gone), ("src/c", Whole), ("src/c/d", Whole)]);
    assert_eq!(seen, expected);
    assert!(world.tree.compare().is_empty());
}
