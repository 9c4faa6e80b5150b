//! Dockerfiles of our own, each with what Docker makes of it: the image's config, its history, and every file.
//!
//! `dockerfiles/cases.txt` has the Dockerfiles, `dockerfiles/docker.txt` what `docker build` (BuildKit) made of them. With
//! `COMPOSE_TEST_DOCKER` set to a docker program, Docker builds them as well, and must say what it said then; with
//! `COMPOSE_TEST_RECORD=1` besides, what it says is written down.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use compose::build::{BuildRequest, DockerfileSource, Named, build};
use compose::image::{FileKind, Image, Store, View, silent};

use crate::build::runtime;

/// One Dockerfile, and what is said besides it.
struct Case {
    name: String,
    /// `key: value` lines before the Dockerfile.
    options: Vec<(String, String)>,
    text: String,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/dockerfiles")
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(directory().join("cases.txt")).unwrap();
    let sections = text.split("\n=== ").skip(1);
    let cases = sections.map(|section| {
        let (name, mut rest) = section.split_once('\n').unwrap();
        let mut options = Vec::new();
        while let Some(line) = rest.strip_prefix("--- ") {
            let (option, after) = line.split_once('\n').unwrap();
            let (key, value) = option.split_once(": ").unwrap();
            options.push((key.to_owned(), value.to_owned()));
            rest = after;
        }
        Case {
            name: name.to_owned(),
            options,
            text: format!("{rest}\n"),
        }
    });
    cases.collect()
}

/// What every case is built in.
fn write_context(directory: &Path) {
    let write = |path: &str, text: &str, mode: u32| {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for directory in ["bin", "dev", "proc", "sys"].map(|name| directory.join("rootfs").join(name)) {
        std::fs::create_dir_all(directory).unwrap();
    }
    std::fs::copy("/bin/busybox", directory.join("rootfs/bin/busybox")).unwrap();
    write(
        "rootfs/etc/passwd",
        "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/home/web:/bin/sh\n",
        0o644,
    );
    write("rootfs/etc/group", "root:x:0:\nweb:x:34:\nextra:x:77:web\n", 0o644);
    write("a.txt", "a\n", 0o644);
    write("b.txt", "b\n", 0o600);
    write("run.sh", "#!/bin/sh\necho ran\n", 0o755);
    write("dir/one", "1\n", 0o644);
    write("dir/two.md", "2\n", 0o640);
    write("dir/sub/three.md", "3\n", 0o644);
    write("dir/sub/four.log", "4\n", 0o444);
    write("dir/deep/er/est/five", "5\n", 0o644);
    write("other/one", "another 1\n", 0o644);
    write("ignored/secret", "no\n", 0o644);
    write("ignored/kept", "yes\n", 0o644);
    write("x.tmp", "no\n", 0o644);
    write("sp ace/f ile", "spaces\n", 0o644);
    write("we[i]rd", "brackets\n", 0o644);
    write(
        ".dockerignore",
        "# a comment\nignored\n!ignored/kept\n**/*.tmp\nout\n",
        0o644,
    );
    std::fs::set_permissions(directory.join("dir/sub"), std::fs::Permissions::from_mode(0o750)).unwrap();
    symlink("one", directory.join("dir/link")).unwrap();
    symlink("/etc/passwd", directory.join("dir/absolute")).unwrap();
    symlink("../a.txt", directory.join("dir/up")).unwrap();
    symlink("dir", directory.join("dirlink")).unwrap();
    std::fs::hard_link(directory.join("dir/one"), directory.join("dir/hard")).unwrap();
    let archive = |name: &str, packing: &str| {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o711);
        header.set_mtime(5);
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Directory);
        builder.append_data(&mut header, "t/", &b""[..]).unwrap();
        header.set_entry_type(tar::EntryType::Regular);
        for (path, mode, uid, text) in [("t/plain", 0o600, 7, "packed\n"), ("t/set", 0o4755, 0, "x\n")] {
            header.set_mode(mode);
            header.set_uid(uid);
            header.set_gid(8);
            header.set_mtime(5);
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "t/link", "plain").unwrap();
        let plain = directory.join(name);
        std::fs::write(&plain, builder.into_inner().unwrap()).unwrap();
        if !packing.is_empty() {
            let packed = Command::new(packing)
                .args(if packing == "gzip" { &["-fn"][..] } else { &["-f"] })
                .arg(&plain)
                .status()
                .unwrap();
            assert!(packed.success());
        }
    };
    archive("plain.tar", "");
    let mut builder = tar::Builder::new(Vec::new());
    // cap_net_raw+ep, as the kernel keeps it.
    let capability: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let attributes = [
        ("SCHILY.xattr.user.note", &b"packed"[..]),
        ("SCHILY.xattr.security.capability", &capability),
    ];
    builder.append_pax_extensions(attributes).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_mtime(5);
    header.set_size(2);
    builder.append_data(&mut header, "capable", &b"c\n"[..]).unwrap();
    std::fs::write(directory.join("attributes.tar"), builder.into_inner().unwrap()).unwrap();
    let noted = directory.join("other/one");
    rustix::fs::setxattr(&noted, "user.note", b"of the context", rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(
        &noted,
        "security.capability",
        &capability,
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    archive("z.tar", "gzip");
    archive("bz.tar", "bzip2");
    // What there is of all of them has one time.
    let touched = Command::new("find")
        .args([".", "-exec", "touch", "-h", "-d", "2001-02-03T04:05:06Z", "{}", "+"])
        .current_dir(directory)
        .status();
    assert!(touched.unwrap().success());
}

const BASE: &str = "FROM scratch\nCOPY rootfs/ /\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
                    RUN mkdir -m 1777 /tmp && mkdir -m 700 /root /closed && mkdir -p /home/web && chown 33:34 /home/web \
                    && ln -s /home/web /shortcut\n";

/// Returns everything an image is, but its times, as lines; of its files those that the base does not have so.
fn described(image: &Image, store: &Store, base: Option<&BTreeMap<String, String>>) -> String {
    let config = &image.config;
    let mut lines = vec![serde_json::to_string(&config.config).unwrap()];
    lines.push(format!("{} {} {:?}", config.os, config.architecture, config.author));
    for history in &config.history {
        let empty = if history.empty_layer { "-" } else { "+" };
        lines.push(format!(
            "{empty} {}",
            history.created_by.as_deref().unwrap_or_default().replace('\n', "\\n")
        ));
    }
    let files = files(image, store);
    for (path, line) in &files {
        if base.is_none_or(|base| base.get(path) != Some(line)) {
            lines.push(format!("{path} {line}"));
        }
    }
    for path in base.into_iter().flat_map(BTreeMap::keys) {
        if !files.contains_key(path) {
            lines.push(format!("{path} is gone"));
        }
    }
    lines.join("\n")
}

fn files(image: &Image, store: &Store) -> BTreeMap<String, String> {
    let view = View::open(&store.layer_dirs(image)).unwrap();
    let mut files = BTreeMap::new();
    let mut inodes: BTreeMap<(u64, u64), String> = BTreeMap::new();
    let Some(root) = view.find(Path::new("/")).unwrap() else {
        return files;
    };
    let mut left = vec![root];
    while let Some(found) = left.pop() {
        let stat = &found.stat;
        let path = found.path.display().to_string();
        let mut line = format!("{:o} {}:{}", stat.st_mode, stat.st_uid, stat.st_gid);
        match found.kind() {
            FileKind::Directory => {
                for name in view.names(&found).unwrap().into_iter().rev() {
                    left.extend(view.child(&found, &name).unwrap());
                }
            }
            FileKind::Symlink => line.push_str(&format!(" -> {}", found.read_link().unwrap().display())),
            FileKind::RegularFile => {
                for (name, value) in attributes(&found.open().unwrap()) {
                    line.push_str(&format!(" {name}={value:?}"));
                }
                let mut content = Vec::new();
                std::io::Read::read_to_end(&mut found.open().unwrap(), &mut content).unwrap();
                let text = String::from_utf8_lossy(&content);
                match text.len() {
                    0..=200 => line.push_str(&format!(" {text:?}")),
                    _ => line.push_str(&format!(" {}", compose::image::sha256(&content))),
                }
                if stat.st_nlink > 1 {
                    let first = inodes.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.clone());
                    line.push_str(&format!(" = {first}"));
                }
            }
            _ => line.push_str(&format!(" {}", stat.st_rdev)),
        }
        files.insert(path, line);
    }
    files
}

/// Returns a file's extended attributes, in order.
fn attributes(file: &std::fs::File) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::flistxattr(file, &mut names[..]).unwrap();
    let names = names[..length].split(|byte| *byte == 0);
    // What the file system keeps for itself is not the file's.
    let names = names.filter(|name| !name.is_empty() && !name.starts_with(b"trusted."));
    let value = |name: &[u8]| {
        let name = String::from_utf8(name.to_vec()).unwrap();
        let mut value = vec![0; 4096];
        let length = rustix::fs::fgetxattr(file, &name, &mut value[..]).unwrap();
        value.truncate(length);
        (name, value)
    };
    names.map(value).collect()
}

struct Ours {
    store: Store,
    context: PathBuf,
    base: BTreeMap<String, String>,
}

impl Ours {
    async fn build(&self, case: &Case) -> String {
        let mut request = BuildRequest::new(self.context.clone(), self.store.clone(), runtime());
        request.dockerfile = DockerfileSource::Inline(case.text.clone());
        request.network = compose::build::Network::None;
        for (key, value) in &case.options {
            let (name, rest) = value.split_once('=').unwrap_or((value, ""));
            match key.as_str() {
                "target" => request.target = Some(value.clone()),
                "arg" => drop(request.arguments.insert(name.to_owned(), rest.to_owned())),
                "label" => drop(request.labels.insert(name.to_owned(), rest.to_owned())),
                "secret" => drop(request.secrets.values.insert(name.to_owned(), rest.as_bytes().to_vec())),
                "context" => {
                    let directory = Named::Directory(self.context.join(rest));
                    let image = rest
                        .strip_prefix("docker-image://")
                        .map(|image| Named::Image(image.to_owned()));
                    request.contexts.insert(name.to_owned(), image.unwrap_or(directory));
                }
                "host" => request.extra_hosts.push((name.to_owned(), rest.to_owned())),
                "ulimit" => {
                    let (soft, hard) = rest.split_once(':').unwrap();
                    let limits = (soft.parse().unwrap(), hard.parse().unwrap());
                    request.ulimits.push((name.to_owned(), limits.0, limits.1));
                }
                "shm" => request.shm_size = Some(value.parse().unwrap()),
                "slow" => {}
                other => panic!("{other}"),
            }
        }
        let output = Arc::new(std::sync::Mutex::new(String::new()));
        let heard = Arc::clone(&output);
        let sink: compose::build::BuildSink =
            Arc::new(move |event| heard.lock().unwrap().push_str(&format!("{event:?}\n")));
        match build(request, sink).await {
            Ok(image) => described(&image, &self.store, Some(&self.base)),
            // What went before says why; a failure that Docker has as well is told by its first line.
            Err(error) => format!("fails: {}", error.message()),
        }
    }
}

/// Has Docker build a case, and returns what it made of it.
fn docker(program: &str, ours: &Ours, case: &Case) -> String {
    let mut command = Command::new(program);
    let tag = format!("compose-test-{}", case.name);
    command.current_dir(&ours.context);
    command.args(["build", "--progress=plain", "--network=none", "-f", "-", "-t", &tag]);
    for (key, value) in &case.options {
        let (name, rest) = value.split_once('=').unwrap_or((value, ""));
        match key.as_str() {
            "target" => drop(command.arg("--target").arg(value)),
            "arg" => drop(command.arg("--build-arg").arg(value)),
            "label" => drop(command.arg("--label").arg(value)),
            "secret" => {
                let variable = format!("SECRET_{name}").replace('-', "_");
                command.env(&variable, rest);
                command.arg(format!("--secret=id={name},env={variable}"));
            }
            "context" => drop(command.arg("--build-context").arg(value)),
            "host" => drop(command.arg(format!("--add-host={name}:{rest}"))),
            "ulimit" => drop(command.arg("--ulimit").arg(value)),
            "shm" => drop(command.arg("--shm-size").arg(value)),
            _ => {}
        }
    }
    command.arg(".");
    let input = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut &input, case.text.as_bytes()).unwrap();
    std::io::Seek::rewind(&mut &input).unwrap();
    let output = command.stdin(input).output().unwrap();
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = text.lines().rfind(|line| line.contains("failed to solve"));
        let last = last
            .and_then(|line| line.split_once("failed to solve"))
            .map_or("?", |(_, rest)| rest);
        return format!("fails: failed to solve{last}");
    }
    let saved = ours.context.parent().unwrap().join("saved.tar");
    let save = Command::new(program)
        .args(["save", "-o"])
        .arg(&saved)
        .arg(&tag)
        .status();
    assert!(save.unwrap().success());
    let loaded = ours
        .store
        .load(std::fs::File::open(&saved).unwrap(), &silent())
        .unwrap();
    assert_eq!(loaded.len(), 1);
    let image = ours.store.get(&tag).unwrap();
    described(&image, &ours.store, Some(&ours.base))
}

fn recorded() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(directory().join("docker.txt")).unwrap_or_default();
    let sections = text.split("=== ").skip(1);
    let sections = sections.map(|section| section.split_once('\n').unwrap());
    sections
        .map(|(name, text)| (name.to_owned(), text.trim_end().to_owned()))
        .collect()
}

#[tokio::test]
async fn every_dockerfile_makes_the_image_that_docker_makes_of_it() {
    if runtime().is_none() {
        return;
    }
    let top = tempfile::Builder::new().prefix("cbd").tempdir_in("/tmp").unwrap();
    let context = top.path().join("context");
    std::fs::create_dir(&context).unwrap();
    write_context(&context);
    let store = Store::open(top.path().join("images")).unwrap();
    let mut request = BuildRequest::new(context.clone(), store.clone(), runtime());
    request.dockerfile = DockerfileSource::Inline(BASE.to_owned());
    request.tags = vec![compose::image::Reference::parse("testbase").unwrap().tagged()];
    let image = build(request, Arc::new(|_| {})).await.unwrap();
    let ours = Ours {
        base: files(&image, &store),
        store,
        context,
    };
    let program = std::env::var("COMPOSE_TEST_DOCKER").ok();
    let wanted = std::env::var("COMPOSE_TEST_CASE").unwrap_or_default();
    if let Some(program) = &program {
        let base = Case {
            name: "base".to_owned(),
            options: Vec::new(),
            text: BASE.to_owned(),
        };
        let theirs = docker(program, &ours, &base);
        assert!(!theirs.contains("\n/"), "the base differs: {theirs}");
        let tag = Command::new(program)
            .args(["tag", "compose-test-base", "testbase"])
            .status();
        assert!(tag.unwrap().success());
    }
    let mut recorded = recorded();
    let mut wrong = Vec::new();
    let cases = cases();
    assert!(cases.len() >= 60, "{} cases", cases.len());
    for case in cases.iter().filter(|case| case.name.contains(&wanted)) {
        if let Some(program) = &program {
            let theirs = docker(program, &ours, case);
            if std::env::var_os("COMPOSE_TEST_RECORD").is_some() {
                recorded.insert(case.name.clone(), theirs);
            } else if recorded.get(&case.name) != Some(&theirs) {
                wrong.push(format!("{}: Docker says something else by now:\n{theirs}", case.name));
            }
        }
        let made = ours.build(case).await;
        let Some(expected) = recorded.get(&case.name) else {
            wrong.push(format!("{}: what Docker makes of it is not recorded", case.name));
            continue;
        };
        let differs = if expected.starts_with("fails: ") {
            told(expected) != told(&made)
        } else {
            *expected != made
        };
        if differs {
            wrong.push(format!("{}:\n{}", case.name, difference(expected, &made)));
        }
    }
    if program.is_some() && std::env::var_os("COMPOSE_TEST_RECORD").is_some() {
        let known = |name: &String| cases.iter().any(|case| case.name == *name);
        let sections = recorded.iter().filter(|(name, _)| known(name));
        let text: String = sections.map(|(name, text)| format!("=== {name}\n{text}\n")).collect();
        std::fs::write(directory().join("docker.txt"), text).unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Returns a failure without what differs from one time to the next.
fn told(text: &str) -> String {
    let text = match (text.find("checksum of ref"), text.rfind(": \"")) {
        (Some(start), Some(end)) if start < end => format!("{}{}", &text[..start], &text[end..]),
        _ => text.to_owned(),
    };
    // Docker says where on its machine that is.
    match (text.find("/var/lib/docker"), text.find("/merged/")) {
        (Some(start), Some(end)) => format!("{}{}", &text[..start], &text[end + "/merged".len()..]),
        _ => text,
    }
}

fn difference(expected: &str, made: &str) -> String {
    let (theirs, ours): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), made.lines().collect());
    let missing = theirs
        .iter()
        .filter(|line| !ours.contains(line))
        .map(|line| format!("  docker: {line}"));
    let surplus = ours
        .iter()
        .filter(|line| !theirs.contains(line))
        .map(|line| format!("  ours:   {line}"));
    missing.chain(surplus).collect::<Vec<_>>().join("\n")
}
