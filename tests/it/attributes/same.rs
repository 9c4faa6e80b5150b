//! What a process finds around itself, on our engine and on Docker, where that is set up: equal to the letter.

use super::{Stage, stage};

const FILE: &str = "x-same: &same {image: '${IMAGE}', build: ./image}
services:
  plain: {<<: *same, init: true, hostname: fixed, command: [sleep, '600'], stop_grace_period: 0s}
  terminal: {<<: *same, hostname: fixed, tty: true, command: [sleep, '600'], stop_grace_period: 0s}
  privileged: {<<: *same, init: true, hostname: fixed, privileged: true, command: [sleep, '600'], stop_grace_period: 0s}
  limited:
    <<: *same
    init: true
    hostname: fixed
    user: '1000:1000'
    group_add: ['7']
    cap_drop: [ALL]
    cap_add: [CHOWN]
    read_only: true
    tmpfs: /scratch
    ulimits: {nofile: 1234}
    security_opt: ['no-new-privileges:true']
    environment: {A: b, EMPTY: }
    extra_hosts: ['one.example:192.0.2.1']
    dns_search: [example.org]
    command: [sleep, '600']
    stop_grace_period: 0s
";

/// What is compared, by what it is called when it differs. Addresses differ by who else is on the machine, and the
/// sources of masks by taste.
const LOOKS: [(&str, &str); 12] = [
    ("environment", "tr '\\0' '\\n' < /proc/1/environ | sort"),
    ("hosts", "sed 's/^[0-9]*\\.[0-9]*\\.[0-9]*\\.[0-9]*/IP/' /etc/hosts"),
    ("resolver", "grep -v '^#' /etc/resolv.conf"),
    (
        "mounts",
        "awk '{print $5, $6}' /proc/self/mountinfo | grep -v -E 'cgroup/systemd|docker-init|^/proc/(keys|interrupts|timer_list)' | sort",
    ),
    ("devices", "ls -l /dev | cut -c1-10,28-"),
    ("limits", "cat /proc/1/limits"),
    (
        "rights",
        "grep -E '^(Cap|Seccomp:|NoNewPrivs|Groups|Uid|Gid|Umask)' /proc/1/status",
    ),
    ("maps", "cat /proc/1/uid_map /proc/1/gid_map"),
    ("score", "cat /proc/1/oom_score_adj"),
    (
        "settings",
        "cd /proc/sys; cat net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range kernel/hostname kernel/domainname net/ipv4/ip_forward net/ipv6/conf/default/disable_ipv6",
    ),
    (
        "interfaces",
        "ls /sys/class/net; ip route | sed 's/[0-9][0-9.]*/N/g'; cat /sys/class/net/eth0/mtu",
    ),
    (
        "modes",
        "stat -c '%a %u %g %n' / /dev/shm /etc/hosts /etc/resolv.conf /etc/hostname /proc/acpi /sys/firmware; pwd; id; umask",
    ),
];

#[test]
fn what_a_process_finds_is_the_same_on_every_engine() {
    let Ok(docker) = std::env::var("COMPOSE_TEST_DOCKER") else {
        return;
    };
    // Both make the same image, for what is in an image is found in the container.
    let image: &'static str = format!("same-{}", std::process::id()).leak();
    let dockerfile =
        "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";
    let [ours, theirs] = ["embedded".to_owned(), docker].map(|engine| {
        let stage = stage(FILE, &[("image/Dockerfile", dockerfile)], engine, image);
        let program = stage.project.path().join("image/busybox");
        std::fs::copy("/bin/busybox", program).expect("busybox-static is installed");
        stage
    });
    let mut differences = Vec::new();
    for stage in [&ours, &theirs] {
        stage.succeeds(&["up", "-d"]);
    }
    for service in ["plain", "terminal", "privileged", "limited"] {
        for (what, script) in LOOKS {
            let found = |stage: &Stage| stage.inside(service, script).replace(&stage.name, "PROJECT");
            let (own, other) = (found(&ours), found(&theirs));
            if own != other {
                differences.push(format!("{service}, {what}:\nours:\n{own}\nDocker's:\n{other}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    for (words, code) in [
        (&["run", "--rm", "-T", "plain", "sh", "-c", "exit 7"][..], 7),
        (&["run", "--rm", "-T", "plain", "no-such-command"][..], 127),
        (&["run", "--rm", "-T", "plain", "/etc/hosts"][..], 126),
        (&["run", "--rm", "-T", "plain", "sh", "-c", "kill -9 $$"][..], 137),
        (&["exec", "-T", "plain", "no-such-command"][..], 127),
        (&["exec", "-T", "plain", "sh", "-c", "exit 9"][..], 9),
    ] {
        for stage in [&ours, &theirs] {
            assert_eq!(
                stage.run(words).status.code(),
                Some(code),
                "{words:?} on {}",
                stage.engine
            );
        }
    }
    for stage in [&ours, &theirs] {
        stage.succeeds(&["down", "-t", "0", "--rmi", "all"]);
    }
}
