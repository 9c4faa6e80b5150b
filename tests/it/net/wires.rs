//! Networks on an interface of the host, and packets of a protocol that the kernel need not know.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use compose::net::spec::{Driver, NetworkSpec, PoolSpec, PortSpec, Protocol};
use hickory_proto::rr::RecordType;

use super::world::*;

#[test]
fn containers_on_an_interface_of_the_host_are_neighbours_on_its_wire() {
    World::run(async |world| {
        greet(&world.outside, "outside", 80).await;
        let of = |name: &str, options: &[(&str, &str)]| NetworkSpec {
            name: name.to_owned(),
            driver: Driver::Macvlan,
            options: options
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..NetworkSpec::default()
        };
        let wire = world
            .network_of(NetworkSpec {
                pools: vec![PoolSpec {
                    subnet: Some("198.51.100.0/24".to_owned()),
                    ip_range: Some("198.51.100.128/25".to_owned()),
                    gateway: Some(OUTSIDE.to_string()),
                    ..PoolSpec::default()
                }],
                ..of("wire", &[("parent", "out0")])
            })
            .await;
        let web = world.container("web1", &[&wire], &[]).await;
        let db = world.container("db1", &[&wire], &[]).await;
        greet(ns(&db), "db", 80).await;
        // Under their own addresses, which nobody changes on the way.
        let own = address(&web);
        assert_eq!(own.to_string(), "198.51.100.128");
        let said = inside(ns(&web), || ask((OUTSIDE, 80))).await;
        assert_eq!(said, Ok(format!("outside to {own}")));
        let db_address = address(&db);
        let said = inside(ns(&web), move || ask((db_address, 80))).await;
        assert_eq!(said, Ok(format!("db to {own}")));
        let found = inside(ns(&web), || resolve("db.", RecordType::A)).await;
        assert_eq!(first(&found), Some(db_address));
        // From beyond the wire, but not from the host, which the interface goes past.
        assert!(inside(&world.outside, move || ask((db_address, 80))).await.is_ok());
        assert!(at_host(move || ask_in_vain((db_address, 80))).await.is_err());

        // Without a parent: neighbours on a wire of their own.
        let alone = world.network_of(of("alone", &[])).await;
        let one = world.container("one1", &[&alone], &[]).await;
        let two = world.container("two1", &[&alone], &[]).await;
        greet(ns(&two), "two", 80).await;
        let two_address = address(&two);
        assert!(inside(ns(&one), move || ask((two_address, 80))).await.is_ok());
        assert!(inside(ns(&one), || ask_in_vain((OUTSIDE, 80))).await.is_err());
        let own_link = alone.bridge.clone().expect("a parent of its own");
        assert!(links().contains(&own_link));
        for name in ["one1", "two1", "web1", "db1"] {
            world.networks.release(&id(name)).await;
        }
        world.networks.remove(&alone.spec.id).await.expect("nobody is on it");
        world.networks.remove(&wire.spec.id).await.expect("nobody is on it");
        assert!(!links().contains(&own_link) && links().contains(&"out0".to_owned()));

        let missing = of("missing", &[("parent", "nowhere0")]);
        let missing = NetworkSpec {
            id: id("missing"),
            ..missing
        };
        let error = world.networks.create(missing).await.expect_err("no such parent");
        assert!(
            error
                .to_string()
                .contains("parent interface nowhere0 of network missing was not found"),
            "{error}"
        );
    });
}

/// Returns whether the kernel makes interfaces of this kind, on an interface of the test's host.
fn makes(kind: &'static str) -> bool {
    let made = std::process::Command::new("ip")
        .args(["link", "add", "link", "out0", "name", "probe0", "type", kind])
        .output()
        .expect("ip runs");
    let _ = std::process::Command::new("ip")
        .args(["link", "delete", "probe0"])
        .output();
    made.status.success()
}

#[test]
fn containers_share_the_address_of_an_interface_where_the_kernel_can() {
    World::run(async |world| {
        greet(&world.outside, "outside", 80).await;
        let wire = world
            .network_of(NetworkSpec {
                name: "wire".to_owned(),
                driver: Driver::Ipvlan,
                options: [("parent".to_owned(), "out0".to_owned())].into(),
                pools: vec![PoolSpec {
                    subnet: Some("198.51.100.0/24".to_owned()),
                    ip_range: Some("198.51.100.128/25".to_owned()),
                    gateway: Some(OUTSIDE.to_string()),
                    ..PoolSpec::default()
                }],
                ..NetworkSpec::default()
            })
            .await;
        let made = world.networks.sandbox(spec("web1", &[&wire], &[])).await;
        if at_host(|| makes("ipvlan")).await {
            let web = made.expect("a sandbox");
            let own = address(&web);
            let said = inside(ns(&web), || ask((OUTSIDE, 80))).await;
            assert_eq!(said, Ok(format!("outside to {own}")));
        } else {
            let error = made.expect_err("there is no such interface").to_string();
            assert!(error.contains("`modprobe ipvlan`"), "{error}");
        }
    });
}

/// Returns the checksum of SCTP, CRC-32C.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

/// Opens a socket of SCTP packets, for which the kernel need not know SCTP.
fn sctp_packets() -> OwnedFd {
    let protocol = rustix::net::Protocol::from_raw(std::num::NonZeroU32::new(132).expect("a number"));
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::RAW,
        Some(protocol),
    );
    let socket = socket.expect("root may");
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE))
        .expect("an option");
    socket
}

#[test]
fn sctp_packets_to_a_published_port_go_to_the_container() {
    World::run(async |world| {
        let network = world.network("net").await;
        let published = PortSpec {
            protocol: Protocol::Sctp,
            ..port("", (9000, 9000), 99)
        };
        let web = world.container("web1", &[&network], &[published]).await;
        let arrived = inside(ns(&web), sctp_packets).await;
        inside(&world.outside, || {
            // The first chunk of an association: INIT, from port 1000 to port 9000.
            let mut packet = [1000u16.to_be_bytes(), 9000u16.to_be_bytes()].concat();
            packet.extend([0; 8]);
            packet.extend([1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 9]);
            let sum = crc32c(&packet).to_le_bytes();
            packet[8..12].copy_from_slice(&sum);
            let to = std::net::SocketAddr::from((HOST, 0));
            rustix::net::sendto(sctp_packets(), &packet, rustix::net::SendFlags::empty(), &to).expect("it is sent");
        })
        .await;
        let packet = at_host(move || {
            let mut packet = [0; 256];
            let (length, _) =
                rustix::net::recv(&arrived, &mut packet[..], rustix::net::RecvFlags::empty()).expect("it arrives");
            packet[..length].to_vec()
        })
        .await;
        // After the header of IP, which says how long it is.
        let sctp = &packet[usize::from(packet[0] & 15) * 4..];
        assert_eq!(sctp[..4], [1000u16.to_be_bytes(), 99u16.to_be_bytes()].concat());
        assert_eq!(IpAddr::from([packet[12], packet[13], packet[14], packet[15]]), OUTSIDE);
    });
}
