//! What everything takes on the disk, and what comes back when it is removed: `df`, `prune`, and the docker client's own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{self, Project, available, text};

const FILE: &str = r#"
services:
  web:
    image: busybox:latest
    command: ["sh", "-c", "echo kept > /data/file; dd if=/dev/zero of=/tmp/file bs=1k count=300 2>/dev/null; exec sleep 3600"]
    volumes: ["named:/data", "/anonymous"]
volumes:
  named:
"#;

fn du(path: &Path) -> u64 {
    let output = Command::new("du")
        .args(["-sx", "--block-size=1"])
        .arg(path)
        .output()
        .expect("du runs");
    text(&output.stdout)
        .split_whitespace()
        .next()
        .and_then(|size| size.parse().ok())
        .expect("a size")
}

fn df(project: &Project) -> Value {
    serde_json::from_str(&project.succeed(&["df", "--format", "json"])).expect("JSON")
}

fn parts(usage: &Value) -> u64 {
    let kinds = ["Images", "Containers", "Volumes", "BuildCache"].iter();
    let sizes = kinds.map(|kind| usage[*kind]["Size"].as_u64().expect("a size"));
    sizes.sum::<u64>() + usage["Other"].as_u64().expect("a size")
}

/// Waits until a condition holds; the engine removes large things beside its answers.
#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(why) = is_so() {
        assert!(Instant::now() < deadline, "{what}: {why}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Reads `12.3MB`, as docker writes sizes.
fn bytes(size: &str) -> f64 {
    let digits = size.trim_end_matches(char::is_alphabetic);
    let factor = match &size[digits.len()..] {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        unit => panic!("a unit: {unit}"),
    };
    digits.parse::<f64>().expect("a number") * factor
}

#[track_caller]
fn reclaimed(output: &str) -> f64 {
    let line = output
        .lines()
        .find_map(|line| line.strip_prefix("Total reclaimed space: "));
    bytes(line.unwrap_or_else(|| panic!("no total in {output}")))
}

#[test]
fn df_is_what_du_says_and_prune_frees_what_it_says() {
    if !available("root", support::is_root()) {
        return;
    }
    let project = Project::new(&[("compose.yaml", FILE)]);
    support::busybox(&project);
    project.succeed(&["up", "-d"]);
    eventually("df is du", || {
        let (usage, measured) = (df(&project), du(project.state_dir()));
        assert_eq!(parts(&usage), usage["Total"], "{usage}");
        // The engine writes its log and its records meanwhile.
        if usage["Total"] == measured {
            Ok(())
        } else {
            Err(format!("{measured} != {usage}"))
        }
    });
    let table = project.succeed(&["df"]);
    let heads: Vec<&str> = table
        .lines()
        .map(|line| line.split("  ").next().unwrap_or_default())
        .collect();
    assert_eq!(
        heads,
        [
            "TYPE",
            "Images",
            "Containers",
            "Local Volumes",
            "Build Cache",
            "Logs, records",
            "Total"
        ]
    );

    // Everything in use stays, whatever is asked for.
    let said = project.succeed(&["prune", "--all", "--force", "--volumes"]);
    assert!(
        !said.contains("Deleted Containers") && !said.contains("Deleted Volumes"),
        "{said}"
    );
    assert!(!said.contains("busybox"), "{said}");
    assert_eq!(project.succeed(&["exec", "-T", "web", "cat", "/data/file"]), "kept\n");
    assert_eq!(df(&project)["Images"]["Active"], 1);

    // A build that nobody needs any more.
    project.write(
        "other/compose.yaml",
        "services:\n  big:\n    build: {dockerfile_inline: \"FROM busybox:latest\\nRUN dd if=/dev/urandom of=/big bs=1k count=5000\\nRUN rm /big\\n\"}\n    image: big:1\n",
    );
    project.succeed(&["-f", "other/compose.yaml", "build"]);
    project.docker(&["image", "rm", "big:1"]);
    let cached = df(&project)["BuildCache"]["Size"].as_u64().expect("a size");
    assert!(cached > 5_000_000, "{cached}");
    let before = du(project.state_dir());
    let said = project.succeed(&["prune", "-f"]);
    let freed = before as f64 - du(project.state_dir()) as f64;
    assert!((freed - reclaimed(&said)).abs() < 70_000.0, "{freed} of {said}");
    assert!(freed > 5_000_000.0, "{freed}");

    // Containers: the anonymous volume goes when asked for, the named one never.
    project.succeed(&["stop", "-t", "0"]);
    let before = du(project.state_dir());
    let said = project.succeed(&["prune", "-a", "-f", "--volumes"]);
    assert!(
        said.contains("Deleted Containers:") && said.contains("Deleted Volumes:"),
        "{said}"
    );
    assert!(said.contains("untagged: busybox:latest"), "{said}");
    let told = reclaimed(&said);
    eventually("what was pruned is gone", || {
        let freed = before as f64 - du(project.state_dir()) as f64;
        if (freed - told).abs() < 70_000.0 {
            Ok(())
        } else {
            Err(format!("{freed} != {told}"))
        }
    });
    let volumes = project.docker(&["volume", "ls", "-q"]);
    assert_eq!(volumes.lines().count(), 1, "{volumes}");
    assert!(volumes.contains("named"), "{volumes}");
    assert_eq!(df(&project)["Images"]["Count"], 0);
}

#[test]
fn prune_asks_first() {
    if !available("root", support::is_root()) {
        return;
    }
    let project = Project::new(&[("compose.yaml", FILE)]);
    let output = project.run(&["prune"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(
        said.starts_with("WARNING! This will remove:\n  - all stopped containers\n"),
        "{said}"
    );
    assert!(said.contains("Are you sure you want to continue?"), "{said}");
    assert!(text(&output.stderr).contains("cancelled"));
}

#[test]
fn a_damaged_image_is_named_and_not_run() {
    if !available("root", support::is_root()) {
        return;
    }
    let file = "services:\n  web:\n    image: busybox:latest\n    command: sleep 3600\n    pull_policy: never\n";
    let project = Project::new(&[("compose.yaml", file)]);
    support::busybox(&project);
    project.succeed(&["df", "--verify"]);
    let layers = project.docker(&["image", "inspect", "-f", "{{index .RootFS.Layers 0}}", "busybox:latest"]);
    let hex = layers.trim().trim_start_matches("sha256:");
    let program = project
        .state_dir()
        .join("images/layers")
        .join(hex)
        .join("fs/bin/busybox");
    let mut bytes = std::fs::read(&program).expect("the layer's file");
    bytes[1000] ^= 1;
    std::fs::write(&program, bytes).expect("the layer's file");
    let said = project.fail(&["df", "--verify"]);
    assert!(
        said.contains(&format!("layer {} of busybox:latest is damaged", &hex[..12])),
        "{said}"
    );
    let said = project.fail(&["up", "-d"]);
    assert!(said.contains("busybox:latest"), "{said}");
    // Building it again mends it.
    support::busybox(&project);
    project.succeed(&["up", "-d"]);
    // What the first build made has no name any more, and is still damaged.
    project.docker(&["image", "prune", "-f"]);
    project.succeed(&["df", "--verify"]);
}

#[test]
fn a_layer_that_changed_while_the_machine_was_off_is_found_when_it_is_used() {
    if !available("root", support::is_root()) {
        return;
    }
    let file = "services:\n  web:\n    image: busybox:latest\n    command: sleep 3600\n    pull_policy: never\n";
    let project = Project::new(&[("compose.yaml", file)]);
    support::busybox(&project);
    let layers = project.docker(&["image", "inspect", "-f", "{{index .RootFS.Layers 0}}", "busybox:latest"]);
    let home = project
        .state_dir()
        .join("images/layers")
        .join(layers.trim().trim_start_matches("sha256:"));
    // As a machine that was started anew finds it: made in another life, and a byte of what nobody reads has changed.
    std::fs::remove_file(home.join("checked.json")).expect("the layer was made in this one");
    let program = home.join("fs/bin/busybox");
    let mut bytes = std::fs::read(&program).expect("the layer's file");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&program, bytes).expect("the layer's file");
    project.succeed(&["up", "-d"]);
    let damage = || match project.run(&["up", "-d", "--force-recreate"]) {
        output if output.status.success() => Err("it is not found".to_owned()),
        output => Ok(text(&output.stderr)),
    };
    let mut said = String::new();
    eventually("the damage is found", || damage().map(|text| said = text));
    assert!(said.contains("image busybox:latest is damaged: layer "), "{said}");
    assert!(said.contains("pull or build it again to mend it"), "{said}");
    project.succeed(&["rm", "-f", "-s"]);
    support::busybox(&project);
    project.succeed(&["up", "-d"]);
    assert_eq!(project.succeed(&["exec", "-T", "web", "echo", "mended"]), "mended\n");
}

#[test]
fn the_docker_client_measures_and_removes_as_well() {
    if !available("root", support::is_root()) {
        return;
    }
    let project = Project::new(&[("compose.yaml", FILE)]);
    support::busybox(&project);
    let table = project.docker(&["system", "df"]);
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows[1].starts_with("Images          1         0 "), "{table}");
    assert!(rows[4].starts_with("Build Cache "), "{table}");
    let verbose = project.docker(&["system", "df", "-v"]);
    assert!(verbose.contains("busybox"), "{verbose}");

    // Out, in, and round again.
    project.docker(&[
        "run",
        "--name",
        "made",
        "busybox:latest",
        "sh",
        "-c",
        "echo made > /made",
    ]);
    project.docker(&[
        "commit", "-m", "by hand", "-a", "somebody", "-c", "ENV X=1", "made", "made:1",
    ]);
    assert_eq!(
        project.docker(&["run", "--rm", "made:1", "sh", "-c", "cat /made; echo $X"]),
        "made\n1\n"
    );
    let history = project.docker(&["history", "--no-trunc", "--format", "{{.Comment}}", "made:1"]);
    assert!(history.contains("by hand"), "{history}");
    let tar = project.path().join("made.tar").display().to_string();
    project.docker(&["export", "-o", &tar, "made"]);
    project.docker(&["import", "-c", "CMD [\"cat\", \"/made\"]", &tar, "imported:1"]);
    assert_eq!(project.docker(&["run", "--rm", "imported:1"]), "made\n");
    let saved = project.path().join("saved.tar").display().to_string();
    project.docker(&["save", "-o", &saved, "made:1", "imported:1"]);
    let ids = |project: &Project| project.docker(&["image", "ls", "-q", "--no-trunc", "made"]);
    let id = ids(&project);
    project.docker(&["rm", "made"]);
    project.docker(&["image", "rm", "made:1", "imported:1"]);
    let loaded = project.docker(&["load", "-i", &saved]);
    assert_eq!(loaded, "Loaded image: made:1\nLoaded image: imported:1\n");
    assert_eq!(ids(&project), id);
    project.docker(&["tag", "made:1", "other/name:2"]);
    let removed = project.docker(&["image", "rm", "made:1"]);
    assert_eq!(removed, "Untagged: made:1\n");
    project.docker(&["image", "prune", "-a", "-f"]);
    assert_eq!(project.docker(&["image", "ls", "-q"]), "");
}
