//! How files change in the hands of editors and tools, and what is changed where.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::dev::{Dev, until};
use super::{IDLE, SYNC, compose};
use crate::support;

/// What an editor does to save a file.
type Save = fn(&Path, &str);

/// The file's neighbour of another name.
fn beside(file: &Path, name: &str) -> std::path::PathBuf {
    file.with_file_name(name.replace("NAME", file.file_name().unwrap().to_str().unwrap()))
}

const EDITORS: &[(&str, Save)] = &[
    ("vim", |file, text| {
        // It tries whether it may write here, keeps the old one as a backup, and writes a new one.
        fs::write(beside(file, "4913"), "").unwrap();
        fs::remove_file(beside(file, "4913")).unwrap();
        fs::write(beside(file, ".NAME.swp"), "swap").unwrap();
        fs::rename(file, beside(file, "NAME~")).unwrap();
        fs::write(file, text).unwrap();
        fs::remove_file(beside(file, "NAME~")).unwrap();
        fs::remove_file(beside(file, ".NAME.swp")).unwrap();
    }),
    ("emacs", |file, text| {
        symlink("user@host.1234:1", beside(file, ".#NAME")).unwrap();
        fs::write(beside(file, "#NAME#"), "auto-save").unwrap();
        fs::rename(file, beside(file, "NAME~")).unwrap();
        fs::write(file, text).unwrap();
        fs::remove_file(beside(file, "#NAME#")).unwrap();
        fs::remove_file(beside(file, ".#NAME")).unwrap();
    }),
    ("VS Code", |file, text| fs::write(file, text).unwrap()),
    ("VS Code, atomically", |file, text| {
        fs::write(beside(file, "NAME.vsctmp"), text).unwrap();
        fs::rename(beside(file, "NAME.vsctmp"), file).unwrap();
    }),
    ("JetBrains", |file, text| {
        fs::write(beside(file, "NAME___jb_tmp___"), text).unwrap();
        fs::rename(file, beside(file, "NAME___jb_old___")).unwrap();
        fs::rename(beside(file, "NAME___jb_tmp___"), file).unwrap();
        fs::remove_file(beside(file, "NAME___jb_old___")).unwrap();
    }),
    ("sed -i", |file, text| {
        let script = format!("s/.*/{text}/");
        let status = Command::new("sed").args(["-i", &script]).arg(file).status().unwrap();
        assert!(status.success());
    }),
    ("in pieces", |file, text| {
        use std::io::Write;
        let mut file = fs::File::create(file).unwrap();
        for letter in text.bytes() {
            file.write_all(&[letter]).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }),
];

#[test]
fn what_editors_save_arrives_and_is_never_missed_in_between() {
    // The container looks all the time, and notes when the file is not there.
    let look = "while :; do if [ -e /srv/app/file ]; then seen=1; elif [ -n \"$$seen\" ]; then echo gone >> /srv/gone; fi; done";
    let Some(mut dev) = Dev::new(&[
        (
            "compose.yaml",
            &compose(&[("web", look, SYNC)]).replace("command:", "stop_signal: KILL\n    command:"),
        ),
        ("src/file", "old"),
    ]) else {
        return;
    };
    dev.watch(&["watch"]);
    let file = dev.path("src/file");
    fs::write(&file, "first").unwrap();
    dev.sees("web", "cat /srv/app/file", "first");
    for (number, (editor, save)) in EDITORS.iter().enumerate() {
        let text = format!("{number} {editor}").replace(',', "");
        save(&file, &text);
        dev.sees("web", "cat /srv/app/file", &text);
    }
    assert_eq!(dev.inside("web", "ls -A /srv/app").trim_end(), "file");
    // Docker and Podman unpack an archive by removing what is there first; only ours puts a file in its place.
    if dev.is_embedded() {
        assert_eq!(dev.inside("web", "cat /srv/gone 2>/dev/null"), "");
    }
}

#[test]
fn a_git_checkout_of_thousands_of_files_arrives_whole() {
    let Some(mut dev) = Dev::new(&[("compose.yaml", &compose(&[("web", IDLE, SYNC)])), ("src/0/f0", "")]) else {
        return;
    };
    if !support::available("git", Command::new("git").arg("--version").output().is_ok()) {
        return;
    }
    let source = dev.path("src");
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "gc.auto=0"])
            .args(arguments)
            .current_dir(&source)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{arguments:?} {}",
            support::text(&output.stderr)
        );
    };
    git(&["init", "-q", "-b", "one"]);
    for number in 0..5000 {
        dev.write(&format!("src/{}/f{number}", number % 50), &format!("one {number}\n"));
    }
    git(&["add", "."]);
    git(&["commit", "-qm", "one"]);
    git(&["checkout", "-qb", "two"]);
    fs::remove_dir_all(dev.path("src/7")).unwrap();
    for number in (0..5000).filter(|number| number % 50 != 7) {
        dev.write(&format!("src/{}/f{number}", number % 50), &format!("two {number}\n"));
    }
    dev.write("src/new/deep/file", "two\n");
    git(&["add", "."]);
    git(&["commit", "-qm", "two"]);
    dev.watch(&["watch"]);
    let sum =
        "cd /srv/app && find . -type f | wc -l; cat $(find . -name \"*1\" -type f | sort) | sha256sum | cut -c1-64";
    let top = dev.project.path().to_owned();
    let here = || {
        let script = sum
            .replace("/srv/app", "src")
            .replace("find . ", "find . -path ./.git -prune -o ")
            .replace("-type f", "-type f -print");
        let output = Command::new("sh")
            .args(["-c", &script])
            .current_dir(&top)
            .output()
            .unwrap();
        support::text(&output.stdout).trim_end().to_owned()
    };
    git(&["checkout", "-q", "one"]);
    dev.sees("web", "ls /srv/app/7 | wc -l", "100");
    // What is the same in both branches has not changed, and was never copied.
    git(&["checkout", "-q", "two"]);
    dev.sees("web", sum, &here());
    assert!(here().starts_with("4901\n"), "{}", here());
    dev.sees("web", "ls -d /srv/app/7 /srv/app/.git 2>/dev/null", "");
}

#[test]
fn more_events_than_the_kernel_queues_lose_nothing() {
    let Some(mut dev) = Dev::new(&[("compose.yaml", &compose(&[("web", IDLE, SYNC)])), ("src/a", "1")]) else {
        return;
    };
    let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let files = queue.trim().parse::<usize>().unwrap() / 3;
    if !support::available("a queue of at most 30,000 events", files < 10_000) {
        return;
    }
    dev.watch(&["watch"]);
    let watch = rustix::process::Pid::from_raw(dev.pid().cast_signed()).unwrap();
    rustix::process::kill_process(watch, rustix::process::Signal::STOP).unwrap();
    fs::remove_file(dev.path("src/a")).unwrap();
    for number in 0..files {
        // A beginning, a writing, an end, and a new name.
        dev.write(&format!("src/f{number}.part"), "x");
        fs::rename(
            dev.path(&format!("src/f{number}.part")),
            dev.path(&format!("src/f{number}")),
        )
        .unwrap();
    }
    rustix::process::kill_process(watch, rustix::process::Signal::CONT).unwrap();
    dev.sees(
        "web",
        "ls /srv/app | grep -v part | wc -l; ls -A /srv/app | grep -c part",
        &format!("{files}\n0"),
    );
    dev.write("src/f0", "later");
    dev.sees("web", "cat /srv/app/f0", "later");
}

#[test]
fn where_the_kernel_has_no_more_watches_it_looks_and_says_what_to_do() {
    let Some(mut dev) = Dev::new(&[
        ("compose.yaml", &compose(&[("web", IDLE, SYNC)])),
        ("src/one/a", "1"),
        ("src/two/a", "1"),
        ("src/three/a", "1"),
    ]) else {
        return;
    };
    let may = Command::new("unshare")
        .args(["--user", "--map-root-user", "true"])
        .status();
    if !support::available("a user namespace", may.is_ok_and(|status| status.success())) {
        return;
    }
    dev.project.succeed(&["up", "-d"]);
    // The limit is each user namespace's own.
    let script = "echo 2 > /proc/sys/user/max_inotify_watches && exec \"$0\" \"$@\"";
    let command = dev.wrapped(
        &["unshare", "--user", "--map-root-user", "sh", "-c", script],
        &["watch", "--no-up"],
    );
    dev.start(command);
    dev.hears("Watch enabled");
    dev.hears("the kernel's limit fs.inotify.max_user_watches");
    dev.hears("raise it with: sysctl fs.inotify.max_user_watches=");
    dev.write("src/three/a", "2");
    dev.write("src/four/b", "2");
    dev.sees("web", "cd /srv/app && cat */*", "22");
    fs::remove_dir_all(dev.path("src/four")).unwrap();
    dev.sees("web", "ls /srv/app", "three");
}

#[test]
fn the_ignore_file_is_read_again_when_it_changes() {
    let Some(mut dev) = Dev::new(&[
        (
            "compose.yaml",
            &compose(&[("web", IDLE, SYNC)]).replace(
                "image: rootfs:/",
                "image: rootfs:/\n    build: {context: ., dockerfile_inline: 'FROM rootfs:/'}\n    pull_policy: never",
            ),
        ),
        (".dockerignore", "**/*.log\nsrc/cache\n"),
        ("src/cache/x", "1"),
        ("src/a", "1"),
    ]) else {
        return;
    };
    dev.project.succeed(&["up", "-d"]);
    dev.watch(&["watch", "--no-up"]);
    for name in ["src/x.log", "src/cache/x", "src/a"] {
        dev.write(name, "2");
    }
    dev.sees("web", "ls /srv/app", "a");
    dev.write(".dockerignore", "a\n**/*.tmp\n");
    dev.hears(".dockerignore has been read again");
    for name in ["src/x.log", "src/cache/x", "src/b.tmp", "src/new/y"] {
        dev.write(name, "3");
    }
    dev.sees(
        "web",
        "cd /srv/app && ls && cat x.log cache/x",
        "a\ncache\nnew\nx.log\n33",
    );
    // One that makes no sense changes nothing.
    dev.write(".dockerignore", "a[\n");
    dev.hears("the ignore files stay as they were");
    fs::remove_file(dev.path(".dockerignore")).unwrap();
    dev.write("src/b.tmp", "4");
    until("all files", || {
        dev.write("src/b.tmp", "4");
        let seen = dev.inside("web", "cat /srv/app/b.tmp");
        if seen == "4" {
            Ok(())
        } else {
            Err(format!("{seen} {}", dev.said()))
        }
    });
}

#[test]
fn a_container_that_starts_again_and_again_gets_its_files() {
    // It wants a file that is not in its image.
    let text = compose(&[(
        "web",
        "cat /srv/app/wanted || exit 1; trap exit TERM; while :; do sleep 0.1; done",
        SYNC,
    )])
    .replace("command:", "restart: always\n    command:");
    let Some(mut dev) = Dev::new(&[("compose.yaml", &text), ("src/a", "1")]) else {
        return;
    };
    dev.project.succeed(&["up", "-d"]);
    dev.watch(&["watch", "--no-up"]);
    for number in 0..20 {
        dev.write(&format!("src/{number}"), "x");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    dev.write("src/wanted", "here");
    dev.sees("web", "ls /srv/app | wc -l", "21");
    fs::remove_file(dev.path("src/3")).unwrap();
    dev.sees("web", "ls /srv/app | wc -l", "20");
    assert!(!dev.said().contains("cannot sync"), "{}", dev.said());
}

#[test]
fn a_failing_hook_leaves_the_container_and_says_so_and_new_replicas_get_what_was_synced() {
    let rule =
        "{action: sync+exec, path: ./src, target: /srv/app, exec: {command: [sh, -c, 'echo about to fail; exit 3']}}";
    let Some(mut dev) = Dev::new(&[("compose.yaml", &compose(&[("web", IDLE, rule)])), ("src/a", "1")]) else {
        return;
    };
    dev.watch(&["watch"]);
    let before = dev.inside("web", "stat -c %Z /proc/1");
    dev.write("src/a", "2");
    dev.hears("about to fail");
    dev.hears("exit status 3; the container goes on as it was");
    assert_eq!(dev.inside("web", "stat -c %Z /proc/1"), before);
    dev.project.succeed(&["up", "-d", "--scale", "web=2", "--no-recreate"]);
    until("the second has it too", || {
        let output = dev
            .project
            .run(&["exec", "-T", "--index", "2", "web", "cat", "/srv/app/a"]);
        let seen = support::text(&output.stdout);
        if seen == "2" {
            Ok(())
        } else {
            Err(format!("{seen} {}", dev.said()))
        }
    });
}
