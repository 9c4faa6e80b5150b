//! Watching real projects: what an edit leads to in real containers, and what once broke elsewhere.

mod background;
mod dev;
mod develop;
mod edits;
mod soak;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use crate::support;
use dev::{Dev, until};

/// Ends at once when it is told to.
const IDLE: &str = "trap exit TERM; while :; do sleep 0.1; done";

/// Returns a file with services of this machine's own programs, each with rules.
fn compose(services: &[(&str, &str, &str)]) -> String {
    let mut text = "services:\n".to_owned();
    for (name, command, rules) in services {
        let rules: String = rules
            .lines()
            .map(|rule| format!("        - {}\n", rule.trim()))
            .collect();
        text.push_str(&format!(
            "  {name}:\n    image: rootfs:/\n    network_mode: none\n    command: [sh, -c, '{command}']\n    develop:\n      watch:\n{rules}"
        ));
    }
    text
}

const SYNC: &str = "{action: sync, path: ./src, target: /srv/app}";

#[test]
fn edits_of_all_kinds_arrive_and_what_is_ignored_does_not() {
    let rule = "{action: sync, path: ./src, target: /srv/app, ignore: [cache/, '**/*.log']}";
    let Some(mut dev) = Dev::new(&[("compose.yaml", &compose(&[("web", IDLE, rule)])), ("src/a", "1")]) else {
        return;
    };
    dev.watch(&["watch"]);
    dev.write("src/a", "two");
    dev.sees("web", "cat /srv/app/a", "two");
    dev.hears("Syncing service \"web\" after 1 changes were detected\n");
    dev.hears("web: sync src/a (");
    // As editors do it: beside, and then over it; the leavings stay here.
    dev.write("src/a~", "two");
    dev.write("src/.a.swp", "junk");
    dev.write("src/cache/x", "junk");
    dev.write("src/deep/x.log", "junk");
    dev.write("src/a.tmp", "three");
    fs::rename(dev.path("src/a.tmp"), dev.path("src/a")).unwrap();
    dev.sees("web", "cat /srv/app/a", "three");
    fs::set_permissions(dev.path("src/a"), PermissionsExt::from_mode(0o750)).unwrap();
    dev.sees("web", "stat -c %a /srv/app/a", "750");
    dev.write("src/one/two/b", "b");
    fs::rename(dev.path("src/one"), dev.path("src/three")).unwrap();
    symlink("three/two/b", dev.path("src/link")).unwrap();
    dev.sees("web", "cd /srv/app; cat link; ls", "ba\ndeep\nlink\nthree");
    fs::remove_dir_all(dev.path("src/three")).unwrap();
    fs::remove_file(dev.path("src/a")).unwrap();
    dev.sees("web", "cd /srv/app; find | sort", ".\n./deep\n./link");
    assert_eq!(dev.stop(), Some(0));
    dev.hears("Watch disabled");
}

#[test]
fn the_owner_is_the_containers_user_and_links_lead_nowhere_outside() {
    let text = compose(&[("web", IDLE, SYNC)]).replace("image:", "user: '33:34'\n    image:");
    let Some(mut dev) = Dev::new(&[("compose.yaml", &text), ("src/a", "1")]) else {
        return;
    };
    dev.watch(&["watch"]);
    // The target becomes a link out of the container, had it its way.
    let outside = tempfile::tempdir().unwrap();
    let trap = format!(
        "rm -rf /srv/app; mkdir -p /srv; ln -s {} /srv/app",
        outside.path().display()
    );
    dev.project
        .succeed(&["exec", "-T", "-u", "0", "web", "sh", "-c", &trap]);
    dev.write("src/b", "b");
    let seen = format!("stat -c %u:%g {}/b", outside.path().display());
    until("the file is inside, or refused", || {
        // Podman does not follow a link to what is not there.
        if dev.inside("web", &seen).trim_end() == "33:34"
            || !dev.is_embedded() && dev.said().contains("/srv/app/b: no such file or directory")
        {
            Ok(())
        } else {
            Err(dev.said())
        }
    });
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

// docker/compose#11773, #12317
#[test]
fn logs_go_on_after_sync_and_restart_and_after_the_end() {
    let rule = "{action: sync+restart, path: ./app.sh, target: /srv/app.sh, initial_sync: true}";
    let script = |word: &str| format!("echo {word}; {IDLE}\n");
    let text = compose(&[(
        "web",
        "while [ ! -e /srv/app.sh ]; do sleep 0.1; done; exec sh /srv/app.sh",
        rule,
    )]);
    let Some(mut dev) = Dev::new(&[("compose.yaml", &text), ("app.sh", &script("first"))]) else {
        return;
    };
    dev.watch(&["up", "--watch"]);
    dev.hears("web-1  | first");
    dev.write("app.sh", &script("second"));
    dev.hears("web-1  | second");
    dev.hears("\u{29bf} web: sync+restart because app.sh changed");
    dev.hears("\u{29bf} service(s) [\"web\"] restarted");
    // A mistake ends the container; the next edit brings it back.
    dev.write("app.sh", "echo broken; exit 3\n");
    dev.hears("web-1 exited with code 3");
    dev.write("app.sh", &script("third"));
    dev.hears("web-1  | third");
    dev.stop();
}

// docker/compose#13057
#[test]
fn edits_and_deletions_reach_a_container_that_has_exited() {
    let Some(mut dev) = Dev::new(&[("compose.yaml", &compose(&[("job", "true", SYNC)])), ("src/a", "1")]) else {
        return;
    };
    dev.project.succeed(&["up", "-d"]);
    dev.watch(&["watch", "--no-up"]);
    let files = |dev: &Dev| {
        let copied = dev.path("copied");
        let _ = fs::remove_dir_all(&copied);
        dev.project.run(&["cp", "job:/srv/app", &copied.to_string_lossy()]);
        let mut names: Vec<_> = fs::read_dir(copied)
            .map(|entries| entries.map(|entry| entry.unwrap().file_name()).collect())
            .unwrap_or_default();
        names.sort();
        format!("{names:?}")
    };
    let shows = |dev: &Dev, expected: &str| {
        dev::until(expected, || match files(dev) {
            seen if seen == expected => Ok(()),
            seen => Err(format!("{seen}\n{}", dev.said())),
        });
    };
    dev.write("src/a", "2");
    dev.write("src/b", "2");
    shows(&dev, "[\"a\", \"b\"]");
    fs::remove_file(dev.path("src/a")).unwrap();
    if dev.is_embedded() {
        shows(&dev, "[\"b\"]");
    } else {
        // Others cannot delete in a container that does not run; it is done when it does.
        dev.hears("Syncing service \"job\" after 1 changes");
    }
    assert!(!dev.said().contains("cannot sync"), "{}", dev.said());
}

// docker/compose#13161
#[test]
fn two_services_may_watch_the_same_path() {
    let restart = "{action: sync+restart, path: ./src, target: /data}";
    let both = format!("{SYNC}\n{{action: sync, path: ./src, target: /srv/second}}");
    let text = compose(&[("web", IDLE, &both), ("worker", IDLE, restart)]);
    let Some(mut dev) = Dev::new(&[("compose.yaml", &text), ("src/a", "1")]) else {
        return;
    };
    dev.watch(&["watch"]);
    for round in ["one", "two", "three"] {
        dev.write("src/a", round);
        dev.sees("web", "cat /srv/app/a", round);
        dev.sees("web", "cat /srv/second/a", round);
        dev.sees("worker", "cat /data/a", round);
    }
    dev.hears("service(s) [\"worker\"] restarted");
}

// docker/compose#11066
#[test]
fn deleting_what_is_watched_ends_nothing_and_a_killed_watch_leaves_no_lock() {
    let Some(mut dev) = Dev::new(&[("compose.yaml", &compose(&[("web", IDLE, SYNC)])), ("src/a", "1")]) else {
        return;
    };
    dev.watch(&["watch"]);
    fs::remove_dir_all(dev.path("src")).unwrap();
    dev.hears("web: sync src");
    dev.write("src/b", "2");
    dev.sees("web", "ls /srv/app", "b");
    let pid = dev.pid();
    let refused = dev.project.fail(&["watch", "--no-up"]);
    let expected = format!("process with PID {pid} is still running");
    assert!(refused.contains(&expected), "{refused}");
    dev.kill();
    dev.watch(&["watch", "--no-up"]);
    dev.write("src/c", "3");
    dev.sees("web", "ls /srv/app", "b\nc");
}

#[test]
fn an_unreadable_directory_does_not_end_the_watch() {
    let Some(mut dev) = Dev::new(&[
        ("compose.yaml", &compose(&[("web", IDLE, SYNC)])),
        ("src/a", "1"),
        ("src/shut/b", "1"),
    ]) else {
        return;
    };
    if !support::available("setpriv", Command::new("setpriv").arg("--version").output().is_ok()) {
        return;
    }
    dev.project.succeed(&["up", "-d"]);
    fs::set_permissions(dev.path("src/shut"), PermissionsExt::from_mode(0o0)).unwrap();
    let shut_out = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"];
    let command = dev.wrapped(&shut_out, &["watch", "--no-up"]);
    dev.start(command);
    dev.hears("Watch enabled");
    dev.hears("src/shut: Permission denied; the rest is watched");
    dev.write("src/a", "2");
    dev.sees("web", "cat /srv/app/a", "2");
}

#[test]
fn a_watched_path_may_be_a_link_to_a_directory() {
    let Some(mut dev) = Dev::new(&[
        ("compose.yaml", &compose(&[("web", IDLE, SYNC)])),
        ("real/a", "1"),
        ("elsewhere/x", "1"),
    ]) else {
        return;
    };
    symlink("real", dev.path("src")).unwrap();
    dev.watch(&["watch"]);
    dev.write("real/a", "2");
    dev.sees("web", "cat /srv/app/a", "2");
    // Inside, a link is copied as the link that it is.
    symlink("../elsewhere", dev.path("real/dir")).unwrap();
    dev.sees("web", "readlink /srv/app/dir", "../elsewhere");
    dev.write("src/a", "3");
    dev.sees("web", "cat /srv/app/a", "3");
}

#[test]
fn the_initial_sync_goes_by_content_and_not_by_time() {
    let rule = "{action: sync, path: ./src, target: /srv/app, initial_sync: true, ignore: [skip]}";
    let Some(mut dev) = Dev::new(&[
        ("compose.yaml", &compose(&[("web", IDLE, rule)])),
        ("src/old", "content"),
        ("src/skip", "content"),
    ]) else {
        return;
    };
    let file = fs::File::options().write(true).open(dev.path("src/old")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    dev.watch(&["watch"]);
    assert_eq!(dev.inside("web", "cat /srv/app/old; ls /srv/app"), "contentold\n");
}

#[test]
fn dependents_that_want_it_are_restarted_and_hooks_run_once_for_a_burst() {
    let exec = "{action: sync+exec, path: ./src, target: /srv/app, exec: {command: [sh, -c, 'echo ran as $$(id -u) for $$WHO >> /srv/hooks'], user: '7', environment: {WHO: me}}}
                {action: restart, path: ./settings}";
    let mut text = compose(&[("db", IDLE, exec), ("web", IDLE, SYNC)]);
    text.push_str("    depends_on: {db: {condition: service_started, restart: true}}\n");
    let Some(mut dev) = Dev::new(&[("compose.yaml", &text), ("src/a", "1")]) else {
        return;
    };
    dev.watch(&["watch"]);
    let open = [
        "exec",
        "-T",
        "db",
        "sh",
        "-c",
        "mkdir -p /srv; touch /srv/hooks; chmod 666 /srv/hooks",
    ];
    dev.project.succeed(&open);
    for number in 0..50 {
        dev.write(&format!("src/{number}"), "x");
    }
    dev.sees("db", "cat /srv/hooks", "ran as 7 for me");
    dev.hears("db: exec sh -c");
    let started = |dev: &Dev| dev.project.succeed(&["ps", "--format", "{{.CreatedAt}} {{.Status}}"]);
    started(&dev);
    let id = |dev: &Dev, service: &str| dev.inside(service, "stat -c %Z /proc/1");
    let (db, web) = (id(&dev, "db"), id(&dev, "web"));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    dev.write("settings", "x");
    dev.hears("db: restart because settings changed");
    dev.hears("service(s) [\"db\"] restarted");
    assert_ne!(id(&dev, "db"), db);
    assert_ne!(id(&dev, "web"), web, "it follows");
}

#[test]
fn a_rebuild_replaces_the_container_and_a_failing_one_leaves_it() {
    if !support::available("a static busybox", support::has_busybox()) {
        return;
    }
    let dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nCOPY version /version\n";
    let text = format!(
        "services:\n  api:\n    build: .\n    network_mode: none\n    command: [sh, -c, 'cat /version; {IDLE}']\n    develop:\n      watch:\n        - {{action: rebuild, path: ./version}}\n        - {{action: rebuild, path: ./Dockerfile}}\n        - {{action: sync, path: ./src, target: /app}}\n"
    );
    let Some(mut dev) = Dev::new(&[
        ("compose.yaml", &text),
        ("Dockerfile", dockerfile),
        ("version", "one\n"),
        ("src/a", "1"),
    ]) else {
        return;
    };
    fs::copy("/bin/busybox", dev.path("busybox")).unwrap();
    dev.watch(&["up", "--watch"]);
    dev.write("src/a", "edited");
    dev.sees("api", "cat /app/a", "edited");
    dev.hears("api-1  | one");
    dev.write("version", "two\n");
    dev.hears("api: rebuild because version changed");
    dev.hears("Rebuilding service(s) [\"api\"] after changes were detected...");
    dev.hears("service(s) [\"api\"] successfully built");
    dev.hears("api-1  | two");
    // What the image does not have is copied again.
    dev.sees("api", "cat /app/a", "edited");
    dev.write("Dockerfile", &format!("{dockerfile}RUN [\"/bin/false\"]\n"));
    dev.hears("Build failed. Error: ");
    dev.hears("api: the container stays as it was");
    assert_eq!(dev.inside("api", "cat /version"), "two\n");
    dev.write("Dockerfile", dockerfile);
    dev.write("version", "three\n");
    dev.hears("api-1  | three");
}

#[test]
fn quiet_hides_what_builds_print_and_prune_removes_what_they_leave() {
    if !support::available("a static busybox", support::has_busybox()) {
        return;
    }
    let text = "services:\n  api:\n    build: .\n    network_mode: none\n    command: [/busybox, sleep, '1000']\n    stop_signal: KILL\n    develop:\n      watch:\n        - {action: rebuild, path: ./version}\n";
    let Some(mut dev) = Dev::new(&[
        ("compose.yaml", text),
        (
            "Dockerfile",
            "FROM scratch\nCOPY busybox /busybox\nCOPY version /version\n",
        ),
        ("version", "one"),
    ]) else {
        return;
    };
    if !dev.is_embedded() {
        return;
    }
    fs::copy("/bin/busybox", dev.path("busybox")).unwrap();
    let left = |dev: &Dev| {
        let label = format!("label=com.docker.compose.project={}", dev.name());
        dev.docker(&["images", "-q", "-f", "dangling=true", "-f", &label])
            .lines()
            .count()
    };
    dev.watch(&["watch", "--quiet", "--prune=false"]);
    dev.write("version", "two");
    dev.hears("api: rebuilt (");
    assert!(!dev.said().contains("COPY version"), "{}", dev.said());
    assert_eq!(left(&dev), 1);
    dev.stop();
    dev.watch(&["watch", "--no-up"]);
    dev.write("version", "three");
    dev.hears("api: rebuilt (");
    assert!(dev.said().contains("COPY version"), "{}", dev.said());
    dev::until("nothing is left", || match left(&dev) {
        0 => Ok(()),
        count => Err(format!("{count} {}", dev.said())),
    });
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_starts() {
    let project = support::Project::new(&[("compose.yaml", "services:\n  web:\n    image: rootfs:/\n")]);
    let refused = project.fail(&["watch"]);
    assert!(
        refused.contains("none of the selected services is configured for watch, consider setting a 'develop' section"),
        "{refused}"
    );
    assert_eq!(fs::read_dir(project.state_dir()).unwrap().count(), 0);
}

#[test]
fn old_images_go_unless_they_are_to_stay() {
    if !support::available("a static busybox", support::has_busybox()) {
        return;
    }
    let text = format!(
        "services:\n  api:\n    build:\n      context: .\n      dockerfile_inline: |\n        FROM scratch\n        COPY busybox /bin/sh\n        COPY version /version\n    network_mode: none\n    command: [sh, -c, '{}']\n    develop:\n      watch:\n        - {{action: rebuild, path: ./version}}\n",
        "while :; do :; done"
    );
    let Some(mut dev) = Dev::new(&[("compose.yaml", &text), ("version", "one\n")]) else {
        return;
    };
    fs::copy("/bin/busybox", dev.path("busybox")).unwrap();
    let dangling = |dev: &Dev| {
        let label = format!("label=com.docker.compose.project={}", dev.name());
        dev.docker(&["images", "-q", "-f", "dangling=true", "-f", &label])
            .lines()
            .count()
    };
    dev.watch(&["watch", "--quiet", "--prune=false"]);
    assert!(
        !dev.said().contains("COPY busybox"),
        "the build was not to be heard: {}",
        dev.said()
    );
    dev.write("version", "two\n");
    dev.hears("service(s) [\"api\"] successfully built");
    dev::until("the old image to stay", || match dangling(&dev) {
        1 => Ok(()),
        count => Err(count.to_string()),
    });
    dev.watch(&["alpha", "watch", "--no-up", "--quiet", "--prune"]);
    dev.write("version", "three\n");
    dev.hears("service(s) [\"api\"] successfully built");
    dev::until("old images to go", || match dangling(&dev) {
        0 => Ok(()),
        count => Err(count.to_string()),
    });
}
