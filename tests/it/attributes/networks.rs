//! A container's places in its networks, and who reaches it there.

use super::on_every_engine;

#[test]
fn addresses_names_and_interfaces_are_those_of_the_file() {
    let file = "services:
  many:
    <<: *base
    networks:
      one: {aliases: [alpha, beta], ipv4_address: 10.213.71.10, interface_name: front0, link_local_ips: [169.254.8.8], gw_priority: 1}
      two: {ipv6_address: 'fd00:71::10', mac_address: '02:42:ac:00:00:99', gw_priority: 5, driver_opts: {com.docker.network.endpoint.sysctls: 'net.ipv4.conf.IFNAME.log_martians=1'}}
      inner: {}
  web:
    <<: *base
    networks: {one: {aliases: [alpha]}, two: }
    links: ['many:linked']
  old: {<<: *base, mac_address: '02:42:aa:bb:cc:dd', network_mode: bridge}
  closed: {<<: *base, networks: [inner]}
  lonely: {<<: *base, network_mode: none}
networks:
  one: {ipam: {config: [{subnet: 10.213.71.0/24, ip_range: 10.213.71.128/25, gateway: 10.213.71.254, aux_addresses: {router: 10.213.71.128}}]}}
  two: {enable_ipv6: true, ipam: {config: [{subnet: 10.213.72.0/24}, {subnet: 'fd00:71::/64'}]}}
  inner: {internal: true, driver_opts: {com.docker.network.driver.mtu: '1400'}}
";
    on_every_engine(file, &[], |stage| {
        stage.prints("many", "ip -o -4 address show dev front0 | awk '{print $4}'; ip -o -6 address show scope global | awk '{print $4}'", "10.213.71.10/24\n169.254.8.8/16\nfd00:71::10/64");
        stage.prints(
            "many",
            "ip route | grep default | cut -d' ' -f3; cat /sys/class/net/*/address | grep ac:00:00:99",
            "10.213.72.1\n02:42:ac:00:00:99",
        );
        stage.prints(
            "web",
            "ip -o -4 address | grep -c 10.213.71.129/24; ip route | grep default | cut -d' ' -f3",
            "1\n10.213.72.1",
        );
        stage.prints("old", "cat /sys/class/net/eth0/address", "02:42:aa:bb:cc:dd");
        stage.prints(
            "many",
            "interface=$(ip -o -6 address show scope global | awk '{print $2}'); cat /proc/sys/net/ipv4/conf/$interface/log_martians /proc/sys/net/ipv4/conf/front0/log_martians",
            "1\n0",
        );
        stage.prints("lonely", "ls /sys/class/net", "lo");
        stage.prints(
            "closed",
            "cat /sys/class/net/eth0/mtu; ip route | grep -c default",
            "1400\n0",
        );
        let resolve = |name: &str| {
            format!(
                "busybox nslookup {name} 127.0.0.11 | grep -E '^Address(es)?( 1)?: ' | grep -v 127.0.0.11 | awk '{{print $NF}}' | sort"
            )
        };
        stage.prints(
            "web",
            &resolve("many"),
            "10.213.72.2\nfd00:71::10"
                .replace(
                    "10.213.72.2",
                    stage
                        .inside("many", "ip -o -4 address | grep -o '10.213.72.[0-9]*' | head -1")
                        .trim(),
                )
                .as_str(),
        );
        stage.prints(
            "web",
            "busybox ping -c 1 -W 2 linked > /dev/null && busybox ping -c 1 -W 2 beta > /dev/null && echo reached",
            "reached",
        );
        stage.prints("many", &resolve("alpha"), "10.213.71.10\n10.213.71.129");
        stage.prints("closed", "busybox ping -c 1 -W 2 many > /dev/null && echo reached; busybox ping -c 1 -W 1 10.213.71.129 > /dev/null 2>&1 || echo never; busybox ping -c 1 -W 1 192.0.2.1 > /dev/null 2>&1 || echo never", "reached\nnever\nnever");
    });
}
