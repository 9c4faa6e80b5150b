//! Images made to get out of their containers, or to hold up whoever runs them; and images from files and directories.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{self, Project, available, text};

/// A tar of a file system, written entry by entry.
struct Tree(tar::Builder<Vec<u8>>);

impl Tree {
    /// Begins with busybox and the commands that these tests use.
    fn new() -> Self {
        let mut tree = Self(tar::Builder::new(Vec::new()));
        let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
        tree.entry(tar::EntryType::Regular, "bin/busybox", "", &busybox);
        for command in ["sh", "cat", "id", "pwd", "ls", "sleep", "stat", "touch", "echo", "true"] {
            tree.entry(tar::EntryType::Symlink, &format!("bin/{command}"), "busybox", b"");
        }
        tree
    }

    fn entry(&mut self, kind: tar::EntryType, path: &str, target: &str, data: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(data.len() as u64);
        if matches!(kind, tar::EntryType::Block | tar::EntryType::Char) {
            // The first disk, or the machine's memory.
            let numbers = if kind == tar::EntryType::Block { (8, 0) } else { (1, 1) };
            header.set_device_major(numbers.0).expect("a number");
            header.set_device_minor(numbers.1).expect("a number");
        }
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        let link = &mut header.as_old_mut().linkname;
        link[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.0.append(&header, data).expect("a tar in memory");
    }

    fn link(mut self, path: &str, target: &str) -> Self {
        self.entry(tar::EntryType::Symlink, path, target, b"");
        self
    }

    fn file(mut self, path: &str, data: &str) -> Self {
        self.entry(tar::EntryType::Regular, path, "", data.as_bytes());
        self
    }

    fn special(mut self, kind: tar::EntryType, path: &str) -> Self {
        self.entry(kind, path, "", b"");
        self
    }

    /// Makes it an image of the project's engine.
    fn import(self, project: &Project, name: &str) {
        let path = project.path().join("import.tar");
        std::fs::write(&path, self.0.into_inner().expect("a tar in memory")).expect("a file");
        project.docker(&["import", &path.display().to_string(), name]);
    }
}

/// Runs a command in a container of an image, and returns what it and the client said, whatever became of it.
fn run(project: &Project, arguments: &[&str]) -> (bool, String) {
    let socket = format!("unix://{}", project.state_dir().join("engine.sock").display());
    let begun = Instant::now();
    let output = Command::new("docker")
        .args(["-H", &socket, "run", "--rm", "--network", "none"])
        .args(arguments)
        .output()
        .expect("the docker client is installed");
    // Generous: it is about what would wait for ever.
    assert!(begun.elapsed() < Duration::from_secs(60), "{arguments:?} held us up");
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

fn project() -> Option<Project> {
    if !available("root", support::is_root()) || !available("busybox-static", support::has_busybox()) {
        return None;
    }
    let project = Project::new(&[("compose.yaml", "services: {}\n")]);
    // The engine starts with the first command.
    project.succeed(&["ls"]);
    Some(project)
}

#[test]
fn files_that_name_users_may_be_anything_and_hold_nobody_up() {
    let Some(project) = project() else { return };
    use tar::EntryType;
    Tree::new()
        .special(EntryType::Fifo, "etc/passwd")
        .special(EntryType::Fifo, "etc/group")
        .import(&project, "pipes:1");
    Tree::new()
        .special(EntryType::Directory, "etc/passwd")
        .import(&project, "directory:1");
    Tree::new()
        .link("etc/passwd", "/proc/self/root/../../../../../../etc/passwd")
        .import(&project, "up:1");
    Tree::new().link("etc/passwd", "passwd").import(&project, "loop:1");
    Tree::new()
        .link("etc/passwd", "/dev/zero")
        .import(&project, "endless:1");
    for image in ["pipes:1", "directory:1", "up:1", "loop:1", "endless:1"] {
        // `id` would read the files itself.
        let own =
            "while read -r key value rest; do case $key in Uid:|Gid:) echo $value;; esac; done < /proc/self/status";
        let root = run(&project, &[image, "sh", "-c", own]);
        assert_eq!(root, (true, "0\n0\n".to_owned()), "{image}");
        let numbers = run(&project, &["--user", "7:8", image, "sh", "-c", own]);
        assert_eq!(numbers, (true, "7\n8\n".to_owned()), "{image}");
        // Every machine has a user `daemon`; none of these images has.
        let (has_run, said) = run(&project, &["--user", "daemon", image, "true"]);
        assert!(
            !has_run && said.contains("unable to find user daemon"),
            "{image}: {said}"
        );
    }
}

#[test]
fn what_leads_out_of_an_image_leads_nowhere_else() {
    let Some(project) = project() else { return };
    let outside = tempfile::tempdir().expect("a directory");
    std::fs::write(outside.path().join("secret"), "the host's").expect("a file");
    let outside_path = outside.path().display().to_string();
    let up = format!("../../../../../../../..{outside_path}");
    Tree::new()
        // A directory of the same path is in the image; there its links lead.
        .special(tar::EntryType::Directory, outside_path.trim_start_matches('/'))
        .link("absolute", &outside_path)
        .link("relative", &up)
        .import(&project, "links:1");
    Tree::new().link("etc", &outside_path).import(&project, "etc:1");
    // The working directory, and what is mounted, come to lie where the links lead inside.
    for place in ["/absolute/made", "/relative/made"] {
        let (has_run, said) = run(
            &project,
            &[
                "-w",
                place,
                "links:1",
                "sh",
                "-c",
                "echo here > file; pwd; ls /absolute/secret",
            ],
        );
        assert!(!has_run && said.contains("No such file"), "{place}: {said}");
        let mount = format!("type=tmpfs,dst={place}");
        run(
            &project,
            &["--mount", &mount, "links:1", "touch", &format!("{place}/file")],
        );
    }
    // Where the files that every container has would lie outside, the container need not run; nothing lies there anyhow.
    let (_, said) = run(&project, &["etc:1", "cat", "/etc/secret"]);
    assert!(!said.contains("the host's"), "{said}");
    let left: Vec<_> = std::fs::read_dir(outside.path())
        .expect("ours")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["secret"]);
    // Out of a container, its links are its own as well.
    project.docker(&["create", "--name", "copied", "links:1", "true"]);
    let socket = format!("unix://{}", project.state_dir().join("engine.sock").display());
    let copied = Command::new("docker")
        .args(["-H", &socket, "cp", "copied:/absolute/secret", "-"])
        .output()
        .expect("the docker client is installed");
    assert!(!copied.status.success() && !text(&copied.stdout).contains("the host's"));
}

#[test]
fn device_nodes_of_an_image_open_nothing() {
    let Some(project) = project() else { return };
    use tar::EntryType;
    Tree::new()
        .special(EntryType::Block, "disk")
        .special(EntryType::Char, "memory")
        .special(EntryType::Char, "dev/null")
        .file("dev/zero", "no device")
        .import(&project, "devices:1");
    for device in ["/disk", "/memory"] {
        let (has_run, said) = run(&project, &["devices:1", "sh", "-c", &format!("cat < {device}")]);
        assert!(
            !has_run && (said.contains("Operation not permitted") || said.contains("Permission denied")),
            "{said}"
        );
    }
    // And those that every container has are the real ones.
    let (has_run, said) = run(
        &project,
        &["devices:1", "sh", "-c", "stat -c %t:%T /dev/null /dev/zero"],
    );
    assert_eq!((has_run, said.as_str()), (true, "1:3\n1:5\n"));
}

#[test]
fn a_program_that_nests_directories_without_end_leaves_a_container_that_can_be_removed() {
    let Some(project) = project() else { return };
    Tree::new().link("bin/mkdir", "busybox").import(&project, "deep:1");
    let nest = "cd /deep; i=0; while [ $i -lt 1500 ]; do mkdir d && cd d || exit 1; i=$((i+1)); done";
    project.docker(&["volume", "create", "deep"]);
    project.docker(&[
        "run",
        "--network",
        "none",
        "--name",
        "deep",
        "-v",
        "deep:/deep",
        "deep:1",
        "sh",
        "-c",
        nest,
    ]);
    let inside = nest.replace("cd /deep", "mkdir /made; cd /made");
    project.docker(&[
        "run",
        "--network",
        "none",
        "--name",
        "other",
        "deep:1",
        "sh",
        "-c",
        &inside,
    ]);
    project.docker(&["rm", "deep", "other"]);
    project.docker(&["volume", "rm", "deep"]);
    let left = |directory: &str| {
        let entries = std::fs::read_dir(project.state_dir().join(directory))
            .into_iter()
            .flatten()
            .flatten();
        entries.count()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while left("containers") + left("volumes") > 0 {
        assert!(Instant::now() < deadline, "something of it is left");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_directory_is_an_image_in_either_spelling_and_is_never_written_to() {
    let Some(project) = project() else { return };
    let root = project.path().join("root");
    std::fs::create_dir_all(root.join("bin")).expect("a directory");
    std::fs::copy("/bin/busybox", root.join("bin/sh")).expect("busybox-static is installed");
    for (name, image) in [
        ("image", "image: \"rootfs:./root\""),
        ("podman", "x-podman.rootfs: ./root"),
        ("overlay", "x-podman.rootfs: \"./root:O\""),
    ] {
        let file = format!(
            "services:\n  app:\n    {image}\n    network_mode: none\n    command: [sh, -c, \"echo {name} > /file && read line < /file && echo $$line\"]\n"
        );
        project.write("compose.yaml", &file);
        assert_eq!(project.succeed(&["run", "--rm", "app"]), format!("{name}\n"));
        project.succeed(&["down"]);
    }
    let names = |directory: &Path| -> Vec<_> {
        std::fs::read_dir(directory)
            .expect("ours")
            .flatten()
            .map(|entry| entry.file_name())
            .collect()
    };
    assert_eq!(names(&root), ["bin"]);
    // What changes in the directory is seen by the next container.
    std::fs::write(root.join("new"), "new\n").expect("a file");
    project.write(
        "compose.yaml",
        "services:\n  app:\n    image: \"rootfs:./root\"\n    network_mode: none\n    command: [sh, -c, \"read line < /new && echo $$line\"]\n",
    );
    assert_eq!(project.succeed(&["run", "--rm", "app"]), "new\n");
    project.write("compose.yaml", "services:\n  app:\n    image: \"rootfs:./nowhere\"\n");
    let said = project.fail(&["run", "--rm", "app"]);
    assert!(said.contains("nowhere"), "{said}");
}

#[test]
fn nothing_that_a_build_in_flight_or_another_project_needs_is_pruned() {
    let Some(project) = project() else { return };
    support::busybox(&project);
    // Two images on the same layers, one in use by another project.
    let build = |name: &str| {
        format!(
            "services:\n  app:\n    build: {{dockerfile_inline: \"FROM busybox:latest\\nRUN echo {name} > /name\\n\"}}\n    image: {name}:1\n    network_mode: none\n    command: sleep 3600\n"
        )
    };
    project.write("one/compose.yaml", &build("one"));
    project.write("other/compose.yaml", &build("other"));
    project.succeed(&["-f", "one/compose.yaml", "build"]);
    project.succeed(&["-f", "other/compose.yaml", "up", "-d", "--build"]);
    // A build that takes its time, on a base that nobody else has.
    project.write(
        "slow/compose.yaml",
        "services:\n  app:\n    build: {dockerfile_inline: \"FROM busybox:latest AS base\\nRUN echo base > /base\\nFROM base\\nRUN touch /begun; sleep 3\\nRUN cat /base\\n\"}\n    image: slow:1\n",
    );
    let mut building = project.compose(&["-f", "slow/compose.yaml", "build"]);
    let building = building
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let building = building.expect("the binary runs");
    std::thread::sleep(Duration::from_millis(1200));
    let said = project.succeed(&["prune", "--all", "--force"]);
    assert!(said.contains("untagged: one:1") && !said.contains("other:1"), "{said}");
    let built = building.wait_with_output().expect("it ends");
    assert!(built.status.success(), "{}", text(&built.stderr));
    let exec = ["-f", "other/compose.yaml", "exec", "-T", "app", "cat", "/name"];
    assert_eq!(project.succeed(&exec), "other\n");
    assert_eq!(run(&project, &["slow:1", "cat", "/base"]), (true, "base\n".to_owned()));
    project.succeed(&["-f", "other/compose.yaml", "down", "-t", "0"]);
    project.succeed(&["df", "--verify"]);
}
