//! Networks and volumes under the names, labels and drivers of the file, and what is there before the project.

use super::{on_every_engine, on_ours};

#[test]
fn networks_and_volumes_are_those_that_the_file_describes() {
    let file = "services:
  web:
    <<: *base
    networks: {named: {priority: 10}, six: {}, routed: {}}
    volumes: ['named:/named', 'memory:/memory']
networks:
  named: {name: '${COMPOSE_PROJECT_NAME}-own', attachable: true, labels: {is: mine}, driver: bridge, ipam: {driver: default, config: [{subnet: 10.213.77.0/24, ip_range: 10.213.77.64/26, gateway: 10.213.77.9, aux_addresses: {router: 10.213.77.64}}]}}
  six: {enable_ipv4: false, enable_ipv6: true, ipam: {config: [{subnet: 'fd00:77::/64'}]}}
  routed: {driver_opts: {com.docker.network.bridge.enable_icc: 'false'}}
volumes:
  named: {name: '${COMPOSE_PROJECT_NAME}-data', labels: {is: mine}, driver: local}
  memory: {driver_opts: {type: tmpfs, device: tmpfs, o: 'size=3m,uid=1000'}}
";
    on_every_engine(file, &[], |stage| {
        stage.prints(
            "web",
            "ip -o -4 address | grep -o '10.213.77[^ ]*' | head -1",
            "10.213.77.65/24",
        );
        stage.prints(
            "web",
            "interface=$(ip -o -6 address show scope global | awk '{print $2}'); ip -o -4 address show dev $interface | wc -l",
            "0",
        );
        stage.prints(
            "web",
            "df -k /memory | tail -1 | tr -s ' ' | cut -d' ' -f2; stat -c %u /memory",
            "3072\n1000",
        );
        stage.inside("web", "echo kept > /named/file");
        // Another project finds both by their names, and takes neither away.
        let second = "services:
  other: {<<: *base, networks: [there], volumes: ['there:/there'], external_links: []}
networks: {there: {external: true, name: '${OWN}-own'}}
volumes: {there: {external: true, name: '${OWN}-data'}}
";
        stage.project.write(
            "second.yaml",
            &format!("{}{}", super::BASE, second.replace("${OWN}", &stage.name)),
        );
        let name = format!("{}b", stage.name);
        let run = |arguments: &[&str]| {
            let all: Vec<&str> = ["-p", &name, "-f", "second.yaml"]
                .iter()
                .chain(arguments)
                .copied()
                .collect();
            stage.run(&all)
        };
        let up = run(&["up", "-d"]);
        let script = "cat /there/file; busybox ping -c 1 -W 5 web > /dev/null && echo reached";
        let found = run(&["exec", "-T", "other", "sh", "-c", script]);
        let down = run(&["down", "-v", "-t", "0"]);
        assert!(up.status.success(), "{}", crate::support::text(&up.stderr));
        assert_eq!(
            crate::support::text(&found.stdout).trim(),
            "kept\nreached",
            "on {}",
            stage.engine
        );
        assert!(down.status.success());
        stage.prints("web", "cat /named/file", "kept");
        let missing =
            "services: {web: {<<: *base, networks: [there]}}\nnetworks: {there: {external: true, name: no-such-net}}\n";
        stage.project.write("second.yaml", &format!("{}{missing}", super::BASE));
        let refused = crate::support::text(&run(&["up", "-d"]).stderr);
        assert!(
            refused.contains("network no-such-net declared as external, but could not be found"),
            "{refused}"
        );
    });
}

#[test]
fn hooks_run_as_whom_where_and_with_what_the_file_says() {
    let file = "services:
  web:
    <<: *base
    user: daemon
    volumes: ['./out:/out']
    post_start:
      - {command: [sh, -c, 'echo $$(id -un) $$(pwd) $$A > /out/first'], user: root, working_dir: /tmp, environment: [A=b]}
      - {command: [sh, -c, 'grep CapEff /proc/self/status > /out/second'], user: root, privileged: true}
  ending:
    <<: *base
    user: daemon
    volumes: ['./out:/out']
    pre_stop: [{command: [sh, -c, 'echo $$(id -un) $$(pwd) $$A >> /out/third'], user: root, working_dir: /etc, environment: {A: c}}]
";
    on_every_engine(file, &[("out/.keep", "")], |stage| {
        let read = |name: &str| {
            let text = std::fs::read_to_string(stage.project.path().join("out").join(name));
            text.unwrap_or_default()
        };
        assert_eq!(read("first"), "root /tmp b\n", "on {}", stage.engine);
        let own = std::fs::read_to_string("/proc/self/status").expect("procfs");
        let bounding = own
            .lines()
            .find_map(|line| line.strip_prefix("CapBnd:"))
            .expect("a set");
        assert_eq!(
            read("second").trim(),
            format!("CapEff:{bounding}"),
            "on {}",
            stage.engine
        );
        stage.succeeds(&["stop"]);
        assert_eq!(read("third"), "root /etc c\n", "on {}", stage.engine);
    });
}

#[test]
fn a_service_that_asks_for_it_can_speak_to_the_engine() {
    on_ours("services: {web: {<<: *base, use_api_socket: true}}\n", &[], |stage| {
        stage.succeeds(&["up", "-d"]);
        // The image is this machine's own root, which has Docker's client.
        let found = stage.inside("web", "docker ps --format '{{.Names}}'");
        assert_eq!(found.trim(), format!("{}-web-1", stage.name));
    });
}
