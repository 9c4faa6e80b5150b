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
  second: {<<: *base, volumes_from: ['web:ro']}
  third: {<<: *base, volumes_from: [web]}
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
        stage.prints("web", "mknod /dev/made-fuse c 10 229; mknod /dev/made-tun c 10 200; head -c 0 /dev/made-fuse > /dev/null && echo allowed; head -c 0 /dev/made-tun > /dev/null 2>&1 || echo refused", "allowed\nrefused");
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
