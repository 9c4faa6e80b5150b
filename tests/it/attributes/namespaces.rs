//! What a container shares with others, and with the host.

use super::{Stage, on_every_engine};

fn namespace(stage: &Stage, service: &str, kind: &str) -> String {
    stage
        .inside(service, &format!("readlink /proc/1/ns/{kind}"))
        .trim()
        .to_owned()
}

fn of_host(kind: &str) -> String {
    std::fs::read_link(format!("/proc/self/ns/{kind}"))
        .expect("procfs")
        .to_string_lossy()
        .into_owned()
}

#[test]
fn namespaces_are_one_s_own_another_s_or_the_host_s() {
    let file = "services:
  own: {<<: *base}
  owner: {<<: *base, ipc: shareable, hostname: shared-name}
  guest: {<<: *base, ipc: 'service:owner', pid: 'service:owner', network_mode: 'service:owner'}
  user: {<<: *base, pid: 'container:${COMPOSE_PROJECT_NAME}-owner-1', depends_on: [owner]}
  host: {<<: *base, pid: host, ipc: host, uts: host, network_mode: host, userns_mode: host}
  grouped: {<<: *base, cgroup: private}
  ungrouped: {<<: *base, cgroup: host}
  sysctl: {<<: *base, sysctls: {net.ipv4.ip_unprivileged_port_start: 1024, kernel.msgmax: 9000, net.core.somaxconn: '777'}}
";
    on_every_engine(file, &[], |stage| {
        for kind in ["pid", "ipc", "uts", "net", "mnt"] {
            assert_ne!(
                namespace(stage, "own", kind),
                of_host(kind),
                "{kind} on {}",
                stage.engine
            );
        }
        for kind in ["ipc", "pid", "net"] {
            assert_eq!(
                namespace(stage, "guest", kind),
                namespace(stage, "owner", kind),
                "{kind}"
            );
        }
        assert_eq!(namespace(stage, "user", "pid"), namespace(stage, "owner", "pid"));
        stage.prints(
            "guest",
            "hostname; test $(grep -l '^sleep' /proc/[0-9]*/comm | wc -l) -ge 2 && echo both",
            "shared-name\nboth",
        );
        stage.inside("owner", "echo kept > /dev/shm/note");
        stage.prints("guest", "cat /dev/shm/note", "kept");
        for kind in ["pid", "ipc", "uts", "net", "user"] {
            assert_eq!(
                stage.inside("host", &format!("readlink /proc/self/ns/{kind}")).trim(),
                of_host(kind),
                "{kind}"
            );
        }
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        stage.prints("host", "hostname", &name);
        assert_ne!(namespace(stage, "grouped", "cgroup"), of_host("cgroup"));
        stage.prints("grouped", "cut -d: -f3 /proc/1/cgroup | sort -u", "/");
        assert_eq!(namespace(stage, "ungrouped", "cgroup"), of_host("cgroup"));
        stage.prints(
            "sysctl",
            "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax /proc/sys/net/core/somaxconn",
            "1024\n9000\n777",
        );
    });
}
