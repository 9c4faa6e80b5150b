//! What a container sees of other file systems, and its devices.

use super::{on_every_engine, on_ours};

#[test]
fn mounts_of_every_kind_are_as_the_file_says() {
    let file = "services:
  web:
    <<: *base
    read_only: true
    tmpfs: ['/run:size=1m,mode=1770', /scratch]
    volumes:
      - {type: bind, source: ./made, target: /made, bind: {create_host_path: true}}
      - {type: bind, source: ./there, target: /slave, bind: {propagation: rprivate}, read_only: true}
      - {type: bind, source: ./there, target: /shared, bind: {selinux: z}, consistency: delegated}
      - {type: volume, source: data, target: /data}
      - {type: volume, source: data, target: /closed, read_only: true}
      - {type: volume, target: /anonymous}
      - {type: tmpfs, target: /memory, tmpfs: {size: 2m, mode: 0700}}
      - './there/file:/file:ro'
    devices: ['/dev/null:/dev/nothing:rw', /dev/zero]
    device_cgroup_rules: ['c 10:229 rwm']
  giver:
    <<: *base
    volumes:
      - {type: volume, source: data, target: /data}
      - {type: volume, source: data, target: /closed, read_only: true}
      - {type: volume, target: /anonymous}
  second: {<<: *base, volumes_from: ['giver:ro']}
  third: {<<: *base, volumes_from: [giver]}
  filler: {image: '${IMAGE}', command: [sh, -c, 'mkdir -p /data/below/it; echo deep > /data/below/it/file'], volumes: ['data:/data']}
  part:
    <<: *base
    depends_on: {filler: {condition: service_completed_successfully}}
    volumes: [{type: volume, source: data, target: /part, volume: {subpath: below/it}}]
volumes: {data: {labels: {is: mine}}}
";
    on_every_engine(file, &[("there/file", "from the host\n")], |stage| {
        let options = |place: &str| {
            let script = format!("awk '$5 == \"{place}\" {{print $6, $7}}' /proc/self/mountinfo");
            stage.inside("web", &script).trim().replace(" -", "")
        };
        let is = |place: &str, wanted: &str| {
            let found = options(place);
            assert!(
                found.split([',', ' ', ':']).any(|option| option == wanted),
                "{place}: {found}"
            );
        };
        is("/", "ro");
        is("/made", "rw");
        is("/slave", "ro");
        is("/shared", "rw");
        is("/data", "rw");
        is("/closed", "ro");
        is("/file", "ro");
        for flag in ["nosuid", "nodev", "noexec"] {
            is("/scratch", flag);
            is("/memory", flag);
        }
        stage.prints(
            "web",
            "stat -c '%a %n' /run /scratch /memory /anonymous",
            "1770 /run\n1777 /scratch\n700 /memory\n755 /anonymous",
        );
        stage.prints(
            "web",
            "df -k /run /memory | tail -2 | tr -s ' ' | cut -d' ' -f2",
            "1024\n2048",
        );
        stage.prints(
            "web",
            "cat /file; touch /x 2> /dev/null || echo closed",
            "from the host\nclosed",
        );
        stage.inside("web", "echo written > /made/one; echo kept > /data/two");
        let made = std::fs::read_to_string(stage.project.path().join("made/one"));
        assert_eq!(made.expect("the bind reaches the host"), "written\n");
        stage.prints(
            "second",
            "cat /data/two; touch /data/x 2> /dev/null || echo closed",
            "kept\nclosed",
        );
        stage.prints("part", "cat /part/file; ls -A /part", "deep\nfile");
        stage.prints(
            "third",
            "cat /closed/two; touch /data/y && touch /closed/y 2> /dev/null || echo closed",
            "kept\nclosed",
        );

        stage.prints(
            "web",
            "stat -c '%t:%T' /dev/nothing /dev/zero; echo x > /dev/nothing && echo open",
            "1:3\n1:5\nopen",
        );
        stage.prints("web", "mknod /dev/made-fuse c 10 229; mknod /dev/made-tun c 10 200; mknod /dev/made-loop c 10 237; for name in fuse tun loop; do head -c 0 /dev/made-$name > /dev/null 2>&1 && echo allowed || echo refused; done", "allowed\nallowed\nrefused");
    });
}

#[test]
fn secrets_and_configs_have_their_owner_and_mode() {
    let file = "services:
  web:
    <<: *base
    secrets:
      - plain
      - {source: plain, target: owned, uid: '1000', gid: '1001', mode: 0440}
      - {source: variable, target: /srv/variable, uid: '7', mode: 0400}
    configs:
      - {source: text, target: /etc/text, mode: 0600, gid: '5'}
      - {source: plain_config, target: /etc/plain, mode: 0555}
secrets: {plain: {file: ./plain}, variable: {environment: HOME}}
configs: {text: {content: 'at ${PWD_OF:-nowhere}'}, plain_config: {file: ./plain}}
";
    on_every_engine(file, &[("plain", "secret\n")], |stage| {
        stage.prints(
            "web",
            "stat -c '%a %u:%g %n' /run/secrets/owned /srv/variable /etc/text /etc/plain; cat /run/secrets/plain /run/secrets/owned /etc/plain /etc/text",
            "440 1000:1001 /run/secrets/owned\n400 7:0 /srv/variable\n600 0:5 /etc/text\n555 0:0 /etc/plain\nsecret\nsecret\nsecret\nat nowhere",
        );
        stage.prints("web", "touch /run/secrets/plain 2> /dev/null || echo closed", "closed");
    });
}

#[test]
fn a_volume_takes_the_image_s_files_and_a_part_of_it_can_be_mounted() {
    let file = "services:
  web:
    <<: *base
    volumes:
      - {type: volume, source: filled, target: /etc/init.d}
      - {type: volume, source: empty, target: /etc/default, volume: {nocopy: true}}
  part:
    <<: *base
    depends_on: [web]
    volumes:
      - {type: image, source: busybox, target: /whole}
      - {type: image, source: busybox, target: /part, image: {subpath: bin}}
volumes: {filled: {}, empty: {}}
";
    on_ours(file, &[], |stage| {
        crate::support::busybox(&stage.project);
        stage.succeeds(&["up", "-d"]);
        let files = |path: &str| std::fs::read_dir(path).expect(path).count().to_string();
        stage.prints(
            "web",
            "ls -A /etc/init.d | wc -l; ls -A /etc/default | wc -l",
            &format!("{}\n0", files("/etc/init.d")),
        );
        stage.prints("part", "cmp /part/busybox /bin/busybox && cmp /whole/bin/busybox /bin/busybox && test -L /part/ls && echo same; touch /part/x 2> /dev/null || echo closed", "same\nclosed");
    });
}

#[test]
fn devices_are_found_by_their_descriptions_or_refused() {
    super::on_ours("services:\n  web: {<<: *base, gpus: all}\n", &[], |stage| {
        if std::path::Path::new("/etc/cdi").exists() || std::path::Path::new("/var/run/cdi").exists() {
            // What this machine describes is not ours to say.
            return;
        }
        let error = stage.fails(&["up", "-d"]);
        assert!(
            error.contains("could not select device driver \"\" with capabilities: [[gpu]]"),
            "{error}"
        );
        let file = "services:\n  web: {<<: *base, devices: ['example.com/thing=one']}\n";
        stage.project.write("compose.yaml", &format!("{}{file}", super::BASE));
        let error = stage.fails(&["up", "-d"]);
        assert!(
            error.contains("CDI device injection failed: unresolvable CDI devices example.com/thing=one"),
            "{error}"
        );
    });
}

/// Mounts what is shared with other namespaces at a place, as long as this lives.
struct SharedMount(std::path::PathBuf);

impl SharedMount {
    fn new(place: std::path::PathBuf) -> Self {
        use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
        std::fs::create_dir_all(&place).expect("a directory");
        mount("none", &place, "tmpfs", MountFlags::empty(), None).expect("a mount");
        let mounted = Self(place);
        mount_change(&mounted.0, MountPropagationFlags::SHARED).expect("a shared mount");
        mounted
    }
}

impl Drop for SharedMount {
    fn drop(&mut self) {
        // With all that was mounted below it.
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn mounts_spread_between_host_and_container_as_the_bind_says() {
    let file = "services:
  web:
    <<: *base
    privileged: true
    volumes:
      - {type: bind, source: ./tree, target: /private}
      - {type: bind, source: ./tree, target: /slave, bind: {propagation: rslave}}
      - {type: bind, source: ./tree, target: /shared, bind: {propagation: rshared}}
      - {type: bind, source: ./tree, target: /flat, bind: {recursive: disabled}}
";
    on_ours(file, &[], |stage| {
        let tree = stage.project.path().join("tree");
        std::fs::create_dir(&tree).expect("a directory");
        // Nothing can spread from a mount that is private: said, and not made private in silence.
        let error = stage.fails(&["up", "-d"]);
        assert!(
            error.contains("is mounted on /") && error.contains(" but it is not a shared"),
            "{error}"
        );
        let _tree = SharedMount::new(tree.clone());
        for name in ["before", "after", "inside"] {
            std::fs::create_dir(tree.join(name)).expect("a directory");
        }
        let _before = SharedMount::new(tree.join("before"));
        std::fs::write(tree.join("before/file"), "x").expect("a file");
        stage.succeeds(&["up", "-d"]);
        let _after = SharedMount::new(tree.join("after"));
        std::fs::write(tree.join("after/file"), "x").expect("a file");
        let seen = "for place in private slave shared flat; do echo $place $(cd /$place; ls before after | grep -c file); done";
        stage.prints("web", seen, "private 1\nslave 2\nshared 2\nflat 0");
        stage.inside("web", "mount -t tmpfs none /shared/inside && touch /shared/inside/file");
        assert!(
            tree.join("inside/file").exists(),
            "what is mounted in the container spreads"
        );
        stage.succeeds(&["down", "-t", "0"]);
    });
}

#[test]
fn a_size_of_the_root_is_refused_where_it_cannot_be_had() {
    on_every_engine("services: {web: {<<: *base}}\n", &[], |stage| {
        let sized = "services: {web: {<<: *base, storage_opt: {size: 1g}}}\n";
        stage.project.write("sized.yaml", &format!("{}{sized}", super::BASE));
        let error = stage.fails(&["-f", "sized.yaml", "up", "-d"]);
        let text = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option";
        assert!(error.contains(text), "on {}: {error}", stage.engine);
    });
}

/// A file system in memory on a directory, until it is dropped.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn on(path: std::path::PathBuf) -> Self {
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("none", &path, "tmpfs", flags, None).expect("root may");
        Self(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_volume_is_filled_where_another_file_system_is_mounted_in_the_root() {
    let file = "services:
  web: {<<: *base, image: 'rootfs:./root', command: [/bin/busybox, sleep, '600'], volumes: ['data:/data']}
volumes: {data: {}}
";
    on_ours(
        file,
        &[("root/data/mounted/.keep", ""), ("root/data/file", "there\n")],
        |stage| {
            let root = stage.project.path().join("root");
            std::fs::create_dir_all(root.join("bin")).expect("a directory");
            std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
            let _mounted = Mounted::on(root.join("data/mounted"));
            stage.succeeds(&["up", "-d"]);
            let found = stage.succeeds(&["exec", "-T", "web", "/bin/busybox", "ls", "/data", "/data/mounted"]);
            assert_eq!(
                found.split_whitespace().collect::<Vec<_>>(),
                ["/data:", "file", "mounted", "/data/mounted:"]
            );
        },
    );
}
