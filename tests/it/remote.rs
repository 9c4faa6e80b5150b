//! Compose files in Git repositories: fetched with consent only, into the cache, links and all harmless.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::support::{Project, available, text};

#[test]
fn a_file_in_a_repository_is_fetched_with_consent_and_kept() {
    if !available("git", Command::new("git").arg("--version").output().is_ok()) {
        return;
    }
    let mut project = Project::new(&[
        (
            "repo/sub/compose.yaml",
            "services:\n  web:\n    image: one\n    env_file: [link.env]\n",
        ),
        ("repo/sub/real.env", "A=b\n"),
        // What ssh would do on the other side.
        ("ssh", "#!/bin/sh\nfor last; do :; done\nexec sh -c \"$last\"\n"),
    ]);
    let repository = project.path().join("repo");
    std::os::unix::fs::symlink("TARGET=/etc/hostname", repository.join("sub/link.env")).unwrap();
    let ssh = project.path().join("ssh");
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    for arguments in [
        &["init", "--quiet", "--initial-branch=main"][..],
        &["add", "."],
        &[
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@b",
            "commit",
            "--quiet",
            "-m",
            "x",
        ],
    ] {
        let done = Command::new("git")
            .args(arguments)
            .current_dir(&repository)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    project.set("GIT_SSH_COMMAND", ssh.to_str().unwrap());
    let cache = project.path().join("cache");
    project.set("XDG_CACHE_HOME", cache.to_str().unwrap());
    let address = format!("ssh://h{}#main:sub", repository.display());

    let refused = project.fail(&["-f", &address, "config", "--no-env-resolution"]);
    assert!(refused.contains("this command fetches nothing by itself"), "{refused}");
    assert!(!cache.exists(), "nothing is written without consent");

    let shown = project.succeed(&["-f", &address, "config", "--fetch", "--no-env-resolution"]);
    assert!(shown.contains("image: one"), "{shown}");
    let trees = std::fs::read_dir(cache.join("compose/git")).unwrap();
    let tree = trees
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().len() == 40)
        .unwrap();
    let link = tree.join("sub/link.env").symlink_metadata().unwrap();
    assert!(link.is_file(), "a link is checked out as a file");

    // Once it is there, nobody is asked.
    std::fs::remove_dir_all(&repository).unwrap();
    let again = project.succeed(&["-f", &address, "config", "--no-env-resolution"]);
    assert!(again.contains("image: one"), "{again}");

    let outside = format!("ssh://h{}#main:../..", repository.display());
    let refused = project.fail(&["-f", &outside, "config", "--fetch"]);
    assert!(
        refused.contains("git subdirectory path traversal detected"),
        "{refused}"
    );
}
