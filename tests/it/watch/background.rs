//! The watch that goes on when the terminal is gone.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::dev::{Dev, until};
use super::{IDLE, SYNC, compose};

/// Returns how the watch stands.
fn standing(dev: &Dev) -> Value {
    let output = dev.project.run(&["watch", "--status", "--format", "json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn pid(dev: &Dev) -> Option<i32> {
    i32::try_from(standing(dev)["pid"].as_i64()?).ok()
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a process"), signal).expect("it runs");
}

fn is_gone(pid: i32) -> bool {
    // One that nobody has waited for is gone too.
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

/// Waits until another process watches.
fn watched_anew(dev: &Dev, before: i32) -> i32 {
    let mut now = 0;
    until("another watch", || {
        let standing = standing(dev);
        now = pid(dev).unwrap_or(before);
        let is_watching = standing["report"]["isWatching"] == true;
        if now != before && is_watching {
            Ok(())
        } else {
            Err(standing.to_string())
        }
    });
    now
}

#[test]
fn it_goes_on_without_the_client_and_says_what_it_did() {
    let rules = format!("{SYNC}\n{{action: sync, path: ./conf, target: /etc}}");
    let text = compose(&[
        ("web", IDLE, &rules),
        ("api", IDLE, "{action: restart, path: ./go.mod}"),
    ]);
    let Some(dev) = Dev::new(&[("compose.yaml", &text), ("src/a", "1")]) else {
        return;
    };
    let refused = dev.project.fail(&["watch", "--stop"]);
    assert!(refused.contains("is not watched in the background"), "{refused}");
    assert!(dev.project.run(&["watch", "--status"]).status.code() == Some(1));
    let said = dev.project.succeed(&["watch", "-d"]);
    let pid = pid(&dev).expect("a watch");
    assert!(
        said.contains(&format!("is watched in the background (PID {pid})")),
        "{said}"
    );
    dev.write("src/a", "two");
    dev.sees("web", "cat /srv/app/a", "two");
    until("the sync is told", || {
        let said = dev.project.succeed(&["watch", "--status"]);
        let all = [
            "watched since ",
            &format!("(PID {pid})"),
            "web       sync      src       /srv/app",
            "api       restart   go.mod",
            "web: sync src/a (",
            "log: ",
        ];
        if all.iter().all(|words| said.contains(*words)) {
            Ok(())
        } else {
            Err(said)
        }
    });
    // What fails is told as well.
    dev.write("conf", "1");
    until("the failure is told", || {
        let said = dev.project.succeed(&["watch", "--status"]);
        let words = if dev.is_embedded() {
            "cannot sync /etc: a directory is there"
        } else {
            "cannot sync: "
        };
        if said.contains("\nerror: 2") && said.contains(words) {
            Ok(())
        } else {
            Err(said)
        }
    });
    let refused = dev.project.fail(&["watch", "--no-up"]);
    assert!(
        refused.contains(&format!("process with PID {pid} is still running")),
        "{refused}"
    );
    assert!(refused.contains("watch --stop"), "{refused}");
    // Begun again it is another, with what the files say now.
    dev.write("compose.yaml", &text.replace("/srv/app", "/srv/other"));
    dev.project.succeed(&["alpha", "watch", "--detach"]);
    let next = watched_anew(&dev, pid);
    let line = fs::read_to_string(format!("/proc/{next}/cmdline")).expect("it runs");
    assert!(line.split('\0').any(|word| word == "--kept"), "{line}");
    let status = dev.project.succeed(&["alpha", "watch", "--status", "--format", "json"]);
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["pid"], next);
    assert!(is_gone(pid));
    dev.write("src/a", "three");
    dev.sees("web", "cat /srv/other/a", "three");
    dev.project.succeed(&["alpha", "watch", "--stop"]);
    assert!(is_gone(next));
    assert_eq!(
        fs::read_dir(dev.project.state_dir().join("watches")).unwrap().count(),
        0
    );
    dev.write("src/a", "four");
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(dev.inside("web", "cat /srv/other/a"), "three");
}

#[test]
fn it_catches_up_by_content_with_what_changed_while_it_was_down() {
    let Some(dev) = Dev::new(&[
        ("compose.yaml", &compose(&[("web", IDLE, SYNC)])),
        ("src/same", "1"),
        ("src/touched", "1"),
        ("src/changed", "1"),
        ("src/gone", "1"),
    ]) else {
        return;
    };
    if !dev.is_embedded() {
        return;
    }
    dev.project.succeed(&["watch", "-d"]);
    dev.write("src/gone", "2");
    dev.sees("web", "cat /srv/app/gone", "2");
    let first = pid(&dev).expect("a watch");
    let snapshot = || {
        let project = standing(&dev)["log"]
            .as_str()
            .unwrap_or_default()
            .replace("/log", "/snapshot");
        fs::read_to_string(project).unwrap_or_default()
    };
    // What was done last is on disk.
    until("the snapshot", || match snapshot().matches("src/gone").count() {
        2 => Ok(()),
        _ => Err(snapshot()),
    });
    // Killed and kept from coming back, while files change.
    let engine = dev.project.engine_pid().expect("an engine");
    let freeze = |signal| kill_process(engine, signal).expect("the engine runs");
    freeze(Signal::STOP);
    kill(first, Signal::KILL);
    until(
        "it is gone",
        || if is_gone(first) { Ok(()) } else { Err(String::new()) },
    );
    dev.write("src/touched", "1");
    let old = std::time::UNIX_EPOCH;
    dev.write("src/changed", "2");
    let changed = fs::File::options().write(true).open(dev.path("src/changed")).unwrap();
    changed.set_modified(old).unwrap();
    fs::remove_file(dev.path("src/gone")).unwrap();
    dev.write("src/new", "1");
    freeze(Signal::CONT);
    watched_anew(&dev, first);
    dev.sees("web", "cd /srv/app; echo *; cat changed", "changed new\n2");
    let said = dev.project.succeed(&["watch", "--status"]);
    assert!(said.contains("it was ended by signal 9; begun again 1 times"), "{said}");
    dev.project.succeed(&["watch", "--stop"]);
}

#[test]
fn it_outlives_its_engine_and_an_end_of_the_engine() {
    let Some(dev) = Dev::new(&[("compose.yaml", &compose(&[("web", IDLE, SYNC)])), ("src/a", "1")]) else {
        return;
    };
    if !dev.is_embedded() {
        return;
    }
    dev.project.succeed(&["watch", "-d"]);
    let first = pid(&dev).expect("a watch");
    let engine = dev.project.engine_pid().expect("an engine");
    kill_process(engine, Signal::KILL).unwrap();
    // Saved while no engine is there to take it.
    dev.write("src/a", "two");
    dev.sees("web", "cat /srv/app/a", "two");
    assert_eq!(pid(&dev), Some(first), "the new engine has taken it over");
    // An engine that is told to end takes its watches along; the next one has them again.
    let engine = dev.project.engine_pid().expect("an engine");
    kill_process(engine, Signal::TERM).unwrap();
    until("the watch ended", || {
        if is_gone(first) { Ok(()) } else { Err(String::new()) }
    });
    dev.write("src/a", "three");
    let second = watched_anew(&dev, first);
    dev.sees("web", "cat /srv/app/a", "three");
    // With the project goes its watch.
    dev.project.succeed(&["down"]);
    assert!(is_gone(second));
    assert_eq!(dev.project.run(&["watch", "--status"]).status.code(), Some(1));
}

#[test]
fn one_that_cannot_begin_leaves_nothing() {
    let Some(dev) = Dev::new(&[("compose.yaml", &compose(&[("web", IDLE, SYNC)])), ("src/a", "1")]) else {
        return;
    };
    let refused = dev.project.fail(&["watch", "-d", "--stop"]);
    assert!(refused.contains("exclude each other"), "{refused}");
    let mut command = dev.project.compose(&["-f", "-", "watch", "-d"]);
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("standard input cannot be watched in the background"),
        "{said}"
    );
    // A terminal's watch is not replaced.
    let mut dev = dev;
    dev.watch(&["watch"]);
    let holder = dev.pid();
    let refused = dev.project.fail(&["watch", "-d"]);
    assert!(
        refused.contains(&format!("process with PID {holder} is still running")),
        "{refused}"
    );
    let said = dev.project.succeed(&["watch", "--status"]);
    assert!(
        said.contains(&format!("watched in a terminal (PID {holder})")),
        "{said}"
    );
    dev.stop();
    assert_eq!(dev.project.run(&["watch", "--status"]).status.code(), Some(1));
}
