//! examples/develop, edited as a person would.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::dev::{Dev, until};
use crate::support;

/// Asks for a page as somebody beside the server would, whatever network the engine has.
fn page(dev: &Dev, path: &str) -> String {
    let script = format!(
        "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8000{path}', timeout=5).read().decode())"
    );
    let output = dev.project.run(&["exec", "-T", "web", "python3", "-c", &script]);
    support::text(&output.stdout)
}

/// Waits until the page shows this.
#[track_caller]
fn shows(dev: &Dev, path: &str, expected: &str) -> String {
    let mut seen = String::new();
    until(&format!("{path} shows {expected:?}"), || {
        seen = page(dev, path);
        if seen.contains(expected) {
            Ok(())
        } else {
            Err(format!("{seen}\n{}", dev.said()))
        }
    });
    seen
}

fn visitors(page: &str) -> usize {
    let (_, rest) = page.split_once("number ").expect("a number");
    rest.chars()
        .take_while(char::is_ascii_digit)
        .collect::<String>()
        .parse()
        .expect("a number")
}

#[test]
fn the_example_is_edited_as_a_person_would() {
    let python = Path::new("/usr/bin/python3").exists();
    if !support::available("Python", python) {
        return;
    }
    let Some(mut dev) = Dev::new(&[]) else { return };
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/develop/.");
    let status = Command::new("cp")
        .arg("-a")
        .arg(example)
        .arg(dev.project.path())
        .status();
    assert!(status.expect("cp runs").success());
    if let Some(base) = dev.python() {
        dev.project.set("BASE", &base);
    }
    dev.project.set("PORT", "0");
    let edit = |dev: &Dev, name: &str, from: &str, to: &str| {
        let text = fs::read_to_string(dev.path(name)).unwrap();
        assert!(text.contains(from), "{name}: {from:?}");
        // As most editors do.
        fs::write(dev.path(&format!("{name}.new~")), text.replace(from, to)).unwrap();
        fs::rename(dev.path(&format!("{name}.new~")), dev.path(name)).unwrap();
    };

    dev.watch(&["up", "--build", "--watch"]);
    let first = visitors(&shows(&dev, "/", "<h1>GUEST BOOK</h1>"));
    // Templates and styles: there at once, nothing is restarted.
    edit(&dev, "web/templates/index.html", "You are visitor", "Welcome, visitor");
    shows(&dev, "/", "Welcome, visitor number");
    edit(&dev, "web/static/style.css", "teal", "crimson");
    shows(&dev, "/static/style.css", "crimson");
    dev.write("web/templates/index.html.bak", "junk");
    // Settings: the server is told to read them again.
    edit(&dev, "web/settings.json", "Guest book", "Visitors");
    shows(&dev, "/", "<h1>VISITORS</h1>");
    dev.hears("settings read: Visitors");
    // The program: restarted. A slip ends it; mending it brings it back.
    edit(
        &dev,
        "web/app.py",
        "the guest book is open",
        "the second edition is open",
    );
    dev.hears("the second edition is open");
    edit(&dev, "web/app.py", "import accents", "import accents, missing");
    dev.hears("No module named 'missing'");
    // Which is a dependency: the image is built anew, and what was synced before is in it.
    dev.write("web/vendor/missing.py", "");
    fs::write(dev.path("web/requirements.txt"), "accents\nmissing\n").unwrap();
    dev.hears("web: rebuild because web/");
    shows(&dev, "/", "Welcome, visitor number");
    shows(&dev, "/", "<h1>VISITORS</h1>");
    // A dependency that is not there: the old container goes on.
    fs::write(dev.path("web/requirements.txt"), "accents\nmissing\nabsent\n").unwrap();
    dev.hears("Build failed");
    dev.hears("web: the container stays as it was");
    shows(&dev, "/", "Welcome, visitor number");
    // What is rebuilt together is not restarted for each other: this one first.
    let rebuilds = || dev.said().matches("web: rebuilt (").count();
    let rebuilt = rebuilds();
    fs::write(dev.path("web/requirements.txt"), "accents\nmissing\n").unwrap();
    until("web was rebuilt", || {
        if rebuilds() > rebuilt { Ok(()) } else { Err(dev.said()) }
    });
    // The store: rebuilt, its data stay, and web is restarted with it.
    let before = dev.inside("web", "cut -d' ' -f22 /proc/1/stat");
    edit(&dev, "store/store.py", "the store is open", "the new store is open");
    dev.hears("the new store is open");
    until("web was restarted", || {
        let now = dev.inside("web", "cut -d' ' -f22 /proc/1/stat");
        if !now.is_empty() && now != before {
            Ok(())
        } else {
            Err(format!("{now} {}", dev.said()))
        }
    });
    let last = visitors(&shows(&dev, "/", "Welcome, visitor number"));
    assert!(last > first, "{first} {last}");
    assert_eq!(dev.inside("web", "ls /app/templates"), "index.html\n");
    dev.stop();
    dev.project.succeed(&["down", "-v", "--rmi", "local"]);
}
