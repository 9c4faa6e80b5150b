//! Container networks, with packets: who reaches whom by which name and address, and who must not.

mod wires;
mod world;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use compose::net::spec::{EndpointSpec, Mode, NetworkSpec, PoolSpec, PortSpec};
use compose::net::{NetError, Networks, Sandbox};
use compose::os::netlink::{self, CREATE, EXCLUSIVE, Message, Socket};
use hickory_proto::op::{Message as Question, ResponseCode};
use hickory_proto::rr::RecordType;
use world::*;

#[test]
fn containers_of_a_network_find_and_reach_each_other_and_nobody_else() {
    World::run(async |world| {
        let (one, two) = (world.network("one").await, world.network("two").await);
        let web = world.container("web1", &[&one], &[]).await;
        let db = world.container("db1", &[&one], &[]).await;
        let other = world.container("other1", &[&two], &[]).await;
        greet(ns(&db), "db", 5432).await;
        greet(ns(&other), "other", 80).await;

        let (db_address, other_address) = (address(&db), address(&other));
        let found = inside(ns(&web), || resolve("DB.", RecordType::A)).await;
        assert_eq!(first(&found), Some(db_address));
        assert_eq!(
            first(&inside(ns(&web), || resolve_by_tcp("db1.one.")).await),
            Some(db_address)
        );
        let none = inside(ns(&web), || resolve("db.", RecordType::AAAA)).await;
        assert_eq!(
            (none.metadata.response_code, none.answers.len()),
            (ResponseCode::NoError, 0)
        );
        let IpAddr::V4(ipv4) = db_address else {
            panic!("an IPv4 address")
        };
        let [a, b, c, d] = ipv4.octets();
        let name = inside(ns(&web), move || {
            resolve(&format!("{d}.{c}.{b}.{a}.in-addr.arpa."), RecordType::PTR)
        })
        .await;
        assert_eq!(name.answers[0].data.to_string(), "db1.one.");

        let said = inside(ns(&web), move || ask((db_address, 5432))).await;
        assert_eq!(said, Ok(format!("db to {}", address(&web))));

        assert_eq!(
            inside(ns(&web), || resolve("other.", RecordType::A))
                .await
                .metadata
                .response_code,
            ResponseCode::ServFail,
            "nobody outside answers either"
        );
        let started = Instant::now();
        inside(ns(&web), || resolve("example.com.", RecordType::A)).await;
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "the second question knows it: {:?}",
            started.elapsed()
        );
        let said = inside(ns(&web), move || ask_in_vain((other_address, 80))).await;
        assert!(said.is_err(), "{said:?}");
        // The host itself reaches both.
        assert!(at_host(move || ask((other_address, 80))).await.is_ok());
    });
}

#[test]
fn whoever_joins_a_network_that_is_being_made_waits_for_it() {
    World::run(async |world| {
        let spec_of = NetworkSpec {
            id: id("one"),
            name: "one".into(),
            ..NetworkSpec::default()
        };
        let making = tokio::spawn({
            let (networks, spec) = (world.networks.clone(), spec_of.clone());
            async move { networks.create(spec).await }
        });
        let known = loop {
            match world.networks.get(&spec_of.id) {
                Some(known) => break known,
                None => tokio::task::yield_now().await,
            }
        };
        assert!(!making.is_finished(), "it is known before it is made");
        // One more of its name is refused, and may be joined from then on.
        let again = tokio::spawn({
            let (networks, spec) = (world.networks.clone(), spec_of.clone());
            async move {
                let refused = networks.create(spec).await;
                assert!(matches!(refused, Err(NetError::NetworkExists(_))), "{refused:?}");
                links()
            }
        });
        let db = world.container("db1", &[&known], &[]).await;
        let web = world.container("web1", &[&known], &[]).await;
        making.await.unwrap().expect("it is made");
        greet(ns(&db), "db", 5432).await;
        let address = address(&db);
        let said = inside(ns(&web), move || ask((address, 5432))).await;
        assert!(said.is_ok(), "{said:?}");
        let bridge = known.bridge.expect("a bridge");
        let links = again.await.unwrap();
        assert!(links.contains(&bridge), "{links:?}");
    });
}

#[test]
fn a_container_on_two_networks_reaches_both_and_joins_neither() {
    World::run(async |world| {
        let (front, back) = (world.network("front").await, world.network("back").await);
        let proxy = world.container("proxy1", &[&front, &back], &[]).await;
        let app = world.container("app1", &[&back], &[]).await;
        let user = world.container("user1", &[&front], &[]).await;
        greet(ns(&app), "app", 80).await;
        greet(ns(&proxy), "proxy", 80).await;
        let app_address = address(&app);
        let found = inside(ns(&proxy), || resolve("app.", RecordType::A)).await;
        assert_eq!(first(&found), Some(app_address));
        assert!(inside(ns(&proxy), move || ask((app_address, 80))).await.is_ok());
        assert!(inside(ns(&user), move || ask_in_vain((app_address, 80))).await.is_err());
        let names: Vec<_> = proxy
            .record
            .endpoints
            .iter()
            .map(|endpoint| endpoint.interface.as_str())
            .collect();
        assert_eq!(names, ["eth0", "eth1"]);
        assert_eq!(inside(ns(&proxy), links).await, ["eth0", "eth1", "lo"]);
    });
}

#[test]
fn a_published_port_answers_wherever_it_is_asked() {
    World::run(async |world| {
        let network = world.network("net").await;
        let other_network = world.network("other").await;
        let ports = [port("", (8080, 8080), 80), port("/udp", (5300, 5300), 53)];
        let web = world.container("web1", &[&network], &ports).await;
        assert!(web.warnings.is_empty(), "{:?}", web.warnings);
        let neighbour = world.container("neighbour1", &[&network], &[]).await;
        let stranger = world.container("stranger1", &[&other_network], &[]).await;
        greet(ns(&web), "web", 80).await;
        echo(ns(&web), 53).await;

        // From outside, the container sees who really came.
        let said = inside(&world.outside, || ask((HOST, 8080))).await;
        assert_eq!(said, Ok(format!("web to {OUTSIDE}")));
        let hosts: [IpAddr; 3] = [
            HOST.into(),
            Ipv4Addr::LOCALHOST.into(),
            "::1".parse().expect("an address"),
        ];
        for host in hosts {
            let said = at_host(move || ask((host, 8080))).await;
            assert!(
                said.as_ref().is_ok_and(|said| said.starts_with("web to ")),
                "{host}: {said:?}"
            );
            assert!(
                at_host(move || ask_datagram((host, 5300).into())).await,
                "udp to {host}"
            );
        }
        assert!(inside(&world.outside, || ask_datagram((HOST, 5300).into())).await);
        let gateway: IpAddr = web.record.endpoints[0].gateway.expect("a gateway").into();
        for sandbox in [&web, &neighbour, &stranger] {
            for host in [HOST.into(), gateway] {
                let said = inside(ns(sandbox), move || ask((host, 8080))).await;
                assert!(said.is_ok(), "{} by {host}: {said:?}", sandbox.record.name);
                assert!(inside(ns(sandbox), move || ask_datagram((host, 5300).into())).await);
            }
        }
        // What is not published is closed.
        greet(ns(&web), "secret", 81).await;
        let direct = address(&web);
        let said = inside(&world.outside, move || {
            let mut socket = Socket::open(netlink::Protocol::Route).expect("a socket");
            default_route(&mut socket, HOST);
            ask_in_vain((direct, 81))
        })
        .await;
        assert!(said.is_err(), "{said:?}");
    });
}

#[test]
fn a_port_on_one_address_answers_there_alone() {
    World::run(async |world| {
        let network = world.network("net").await;
        let web = world
            .container("web1", &[&network], &[port("127.0.0.1", (8080, 8080), 80)])
            .await;
        greet(ns(&web), "web", 80).await;
        assert!(at_host(|| ask((Ipv4Addr::LOCALHOST, 8080))).await.is_ok());
        assert!(at_host(|| ask_in_vain((HOST, 8080))).await.is_err());
        assert!(inside(&world.outside, || ask_in_vain((HOST, 8080))).await.is_err());
    });
}

#[test]
fn a_taken_port_is_told_with_its_holder() {
    World::run(async |world| {
        let network = world.network("net").await;
        let _first = world
            .container("first", &[&network], &[port("", (8080, 8080), 80)])
            .await;
        let refused = |ports: Vec<PortSpec>| {
            let spec = spec("second", &[&network], &ports);
            let networks = world.networks.clone();
            async move {
                let error = networks.sandbox(spec).await.expect_err("the port is taken");
                let source = std::error::Error::source(&error)
                    .map(ToString::to_string)
                    .unwrap_or_default();
                format!("{error}: {source}")
            }
        };
        let text = refused(vec![port("", (8080, 8080), 80)]).await;
        assert!(
            text.starts_with("driver failed programming external connectivity on endpoint second ("),
            "{text}"
        );
        assert!(
            text.ends_with("): Bind for 0.0.0.0:8080 failed: port is already allocated (held by container first)"),
            "{text}"
        );
        let _holder = TcpListener::bind("127.0.0.1:8081").expect("a listener");
        let text = refused(vec![port("", (8081, 8081), 80)]).await;
        let holder = format!(
            "failed to bind host port 0.0.0.0:8081/tcp: address already in use (held by process {} (",
            std::process::id()
        );
        assert!(text.contains(&holder), "{text}");
        // A refused container keeps nothing.
        let sandbox = world
            .container("second", &[&network], &[port("", (8080, 8090), 80)])
            .await;
        assert_eq!(sandbox.record.ports[0].host_port, 8082);
        assert_eq!(address(&sandbox).to_string(), "172.17.0.3");
    });
}

#[test]
fn containers_reach_the_outside_and_internal_ones_do_not() {
    World::run(async |world| {
        let open = world.network("open").await;
        let closed = world
            .network_of(NetworkSpec {
                name: "closed".to_owned(),
                internal: true,
                ..NetworkSpec::default()
            })
            .await;
        greet(&world.outside, "outside", 80).await;
        let web = world.container("web1", &[&open], &[]).await;
        let db = world.container("db1", &[&closed], &[]).await;
        let cache = world
            .container("cache1", &[&closed], &[port("", (8080, 8080), 80)])
            .await;
        let said = inside(ns(&web), || ask((OUTSIDE, 80))).await;
        assert_eq!(said, Ok(format!("outside to {HOST}")), "under the host's address");
        assert!(inside(ns(&db), || ask_in_vain((OUTSIDE, 80))).await.is_err());
        // Not even with a route of its own.
        let gateway = match closed.pools[0].gateway {
            IpAddr::V4(gateway) => gateway,
            IpAddr::V6(_) => panic!("an IPv4 pool"),
        };
        let said = inside(ns(&db), move || {
            let mut socket = Socket::open(netlink::Protocol::Route).expect("a socket");
            default_route(&mut socket, gateway);
            ask_in_vain((OUTSIDE, 80))
        })
        .await;
        assert!(said.is_err(), "{said:?}");
        greet(ns(&cache), "cache", 80).await;
        let cache_address = address(&cache);
        assert!(inside(ns(&db), move || ask((cache_address, 80))).await.is_ok());
        assert!(
            cache.record.ports.is_empty(),
            "nothing is published from a closed network"
        );
        let asked = inside(ns(&db), || resolve("example.com.", RecordType::A)).await;
        assert_eq!(asked.metadata.response_code, ResponseCode::ServFail);
    });
}

#[test]
fn questions_go_on_to_the_servers_that_the_file_names() {
    World::run(async |world| {
        let network = world.network("net").await;
        inside(&world.outside, || {
            let socket = UdpSocket::bind((OUTSIDE, 53)).expect("a socket");
            std::thread::spawn(move || {
                let mut buffer = [0; 2048];
                while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let mut answer = Question::from_vec(&buffer[..length])
                        .expect("a question")
                        .into_response();
                    answer.metadata.response_code = ResponseCode::NXDomain;
                    let _ = socket.send_to(&answer.to_vec().expect("an answer"), from);
                }
            });
        })
        .await;
        let mut spec = spec("web1", &[&network], &[]);
        // The first refuses at once; the second answers.
        spec.dns.servers = vec![HOST.to_string(), OUTSIDE.to_string()];
        let web = world.networks.sandbox(spec).await.expect("a sandbox");
        assert!(
            web.files
                .resolv_conf
                .contains("# ExtServers: [198.51.100.1 198.51.100.2]")
        );
        let started = Instant::now();
        let answer = inside(ns(&web), || resolve("example.com.", RecordType::A)).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert!(
            started.elapsed() < Duration::from_millis(500),
            "{:?}",
            started.elapsed()
        );

        let mut spec = self::spec("own1", &[&network], &[]);
        spec.dns.servers = vec!["127.0.0.1".to_owned()];
        let own = world.networks.sandbox(spec).await.expect("a sandbox");
        inside(ns(&own), || {
            // Our resolver leaves the container's own port 53 free.
            let socket = UdpSocket::bind("0.0.0.0:53").expect("a free port");
            let _tcp = TcpListener::bind("0.0.0.0:53").expect("a free port");
            std::thread::spawn(move || {
                let mut buffer = [0; 2048];
                while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let mut answer = Question::from_vec(&buffer[..length])
                        .expect("a question")
                        .into_response();
                    answer.metadata.response_code = ResponseCode::NXDomain;
                    let _ = socket.send_to(&answer.to_vec().expect("an answer"), from);
                }
            });
        })
        .await;
        let answer = inside(ns(&own), || resolve("example.com.", RecordType::A)).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert!(first(&inside(ns(&own), || resolve("web.", RecordType::A)).await).is_some());
    });
}

#[test]
fn replicas_take_turns() {
    World::run(async |world| {
        let network = world.network("net").await;
        let client = world.container("client1", &[&network], &[]).await;
        let mut replicas = Vec::new();
        for name in ["web1", "web2", "web3"] {
            replicas.push(world.container(name, &[&network], &[]).await);
        }
        let mut seen = BTreeMap::new();
        for _ in 0..6 {
            let answer = inside(ns(&client), || resolve("web.", RecordType::A)).await;
            assert_eq!(answer.answers.len(), 3);
            *seen.entry(first(&answer)).or_insert(0) += 1;
        }
        assert_eq!(seen.values().copied().collect::<Vec<_>>(), [2, 2, 2]);
        world.networks.release(&id("web2")).await;
        let answer = inside(ns(&client), || resolve("web.", RecordType::A)).await;
        assert_eq!(answer.answers.len(), 2);
    });
}

#[test]
fn a_network_with_ipv6_reaches_by_ipv6() {
    World::run(async |world| {
        let network = world
            .network_of(NetworkSpec {
                name: "six".to_owned(),
                enable_ipv6: true,
                ..NetworkSpec::default()
            })
            .await;
        let web = world
            .container("web1", &[&network], &[port("", (8080, 8080), 80)])
            .await;
        let client = world.container("client1", &[&network], &[]).await;
        inside(ns(&web), || {
            let listener = TcpListener::bind("[::]:80").expect("a listener");
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let _ = stream.write_all(b"six");
                }
            });
        })
        .await;
        let answer = inside(ns(&client), || resolve("web.", RecordType::AAAA)).await;
        let address = first(&answer).expect("an IPv6 address");
        assert_eq!(Some(address), web.record.endpoints[0].ipv6.map(IpAddr::V6));
        assert_eq!(
            inside(ns(&client), move || ask((address, 80))).await.as_deref(),
            Ok("six")
        );
        let loopback: IpAddr = "::1".parse().expect("an address");
        assert_eq!(at_host(move || ask((loopback, 8080))).await.as_deref(), Ok("six"));
    });
}

#[test]
fn a_running_container_joins_and_leaves_networks() {
    World::run(async |world| {
        let (one, two) = (world.network("one").await, world.network("two").await);
        let web = world.container("web1", &[&one], &[port("", (8080, 8080), 80)]).await;
        let db = world.container("db1", &[&two], &[]).await;
        greet(ns(&db), "db", 80).await;
        greet(ns(&web), "web", 80).await;
        let db_address = address(&db);
        assert!(inside(ns(&web), move || ask_in_vain((db_address, 80))).await.is_err());
        let wish = EndpointSpec {
            network: two.spec.id.clone(),
            names: vec!["web1".to_owned()],
            ..EndpointSpec::default()
        };
        let endpoint = world.networks.connect(&id("web1"), &wish).await.expect("it joins");
        assert_eq!(endpoint.interface, "eth1");
        assert!(inside(ns(&web), move || ask((db_address, 80))).await.is_ok());
        assert!(first(&inside(ns(&db), || resolve("web1.", RecordType::A)).await).is_some());
        // It leaves the network that its port was published through; the port follows.
        world
            .networks
            .disconnect(&id("web1"), &one.spec.id)
            .await
            .expect("it leaves");
        assert_eq!(inside(ns(&web), links).await, ["eth1", "lo"]);
        let hosts: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), "::1".parse().expect("an address")];
        for host in hosts {
            let said = at_host(move || ask((host, 8080))).await;
            assert!(said.is_ok(), "{host}: {said:?}");
        }
        greet(&world.outside, "outside", 80).await;
        assert!(
            inside(ns(&web), || ask((OUTSIDE, 80))).await.is_ok(),
            "the way out followed too"
        );
    });
}

#[test]
fn another_engine_finds_everything_again() {
    World::run(async |world| {
        let network = world.network("net").await;
        let web = world
            .container("web1", &[&network], &[port("", (8080, 8080), 80)])
            .await;
        greet(ns(&web), "web", 80).await;
        let World {
            networks,
            outside: _outside,
            state,
        } = world;
        // Killed: nothing is given back. The sockets live on in the container's shim.
        drop(networks);
        let loopback: IpAddr = "::1".parse().expect("an address");
        let waiting = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect((loopback, 8080)).expect("the port waits");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let mut said = String::new();
            stream.read_to_string(&mut said).map(|_| said)
        });
        assert!(
            at_host(|| ask((Ipv4Addr::LOCALHOST, 8080))).await.is_ok(),
            "the firewall needs no engine"
        );

        let networks = Networks::open(config(&state)).await.expect("networks");
        let found = networks.list();
        assert_eq!(found, [network]);
        let Sandbox { record, netns, fds, .. } = web;
        let namespace = netns.expect("a namespace");
        let copy = namespace.try_clone().expect("a descriptor");
        networks.adopt(record, Some(copy), fds).await.expect("it is adopted");
        networks.settle().await.expect("it settles");
        assert!(
            waiting
                .await
                .expect("a thread")
                .expect("an answer")
                .starts_with("web to ")
        );
        assert!(at_host(|| ask((Ipv4Addr::LOCALHOST, 8080))).await.is_ok());
        assert!(first(&inside(&namespace, || resolve("web1.", RecordType::A)).await).is_some());
        let next = networks
            .sandbox(spec("next", &[&found[0]], &[]))
            .await
            .expect("a sandbox");
        assert_eq!(
            address(&next).to_string(),
            "172.17.0.3",
            "the adopted one keeps its address"
        );
        networks.release(&id("web1")).await;
        networks.release(&id("next")).await;
        networks.remove(&found[0].spec.id).await.expect("it is removed");
        assert!(networks.is_idle());
    });
}

#[test]
fn chosen_subnets_avoid_the_hosts_routes_and_wished_ones_are_kept() {
    World::run(async |world| {
        at_host(|| {
            let mut socket = Socket::open(netlink::Protocol::Route).expect("a socket");
            add_address(&mut socket, "out0", Ipv4Addr::new(172, 17, 3, 4));
        })
        .await;
        let chosen = world.network("chosen").await;
        assert_eq!(chosen.pools[0].subnet.to_string(), "172.18.0.0/16");
        let wished = world
            .network_of(NetworkSpec {
                name: "wished".to_owned(),
                pools: vec![PoolSpec {
                    subnet: Some("10.44.0.0/24".to_owned()),
                    gateway: Some("10.44.0.254".to_owned()),
                    ..PoolSpec::default()
                }],
                ..NetworkSpec::default()
            })
            .await;
        let mut spec = spec("web1", &[&wished], &[]);
        spec.endpoints[0].ipv4 = Some("10.44.0.77".to_owned());
        spec.endpoints[0].mac = Some("02:00:00:00:00:77".to_owned());
        spec.endpoints[0].interface = Some("lan".to_owned());
        let web = world.networks.sandbox(spec.clone()).await.expect("a sandbox");
        assert_eq!(address(&web).to_string(), "10.44.0.77");
        assert_eq!(inside(ns(&web), links).await, ["lan", "lo"]);
        spec.container = id("web2");
        let error = world.networks.sandbox(spec).await.expect_err("the address is taken");
        assert_eq!(error.to_string(), "Address already in use");
    });
}

#[test]
fn containers_get_past_a_firewall_that_forwards_nothing() {
    World::run(async |world| {
        // What Docker leaves on a host: a filter table whose FORWARD chain drops.
        at_host(|| {
            let mut socket = Socket::open(netlink::Protocol::Netfilter).expect("a socket");
            let mut begin = Message::new(0x10, 0, "begin");
            begin.fixed(&[0, 0, 0, 10]);
            let mut table = Message::new(10 << 8, CREATE, "table");
            table.fixed(&[2, 0, 0, 0]).string(1, "filter");
            let mut chain = Message::new(10 << 8 | 3, CREATE, "chain");
            chain
                .fixed(&[2, 0, 0, 0])
                .string(1, "filter")
                .string(3, "FORWARD")
                .nested(0x8004, |hook| {
                    hook.network_number(1, 2).network_number(2, 0);
                })
                .string(7, "filter")
                .network_number(5, 0);
            let mut end = Message::new(0x11, 0, "end");
            end.fixed(&[0, 0, 0, 10]);
            socket.exchange(&mut [begin, table, chain, end], 2).expect("a table");
        })
        .await;
        let network = world.network("net").await;
        let web = world
            .container("web1", &[&network], &[port("", (8080, 8080), 80)])
            .await;
        let db = world.container("db1", &[&network], &[]).await;
        greet(ns(&web), "web", 80).await;
        greet(&world.outside, "outside", 80).await;
        let web_address = address(&web);
        assert!(inside(ns(&web), || ask((OUTSIDE, 80))).await.is_ok());
        assert!(inside(&world.outside, || ask((HOST, 8080))).await.is_ok());
        assert!(inside(ns(&db), move || ask((web_address, 80))).await.is_ok());
        for name in ["web1", "db1"] {
            world.networks.release(&id(name)).await;
        }
        world.networks.remove(&network.spec.id).await.expect("it is removed");
        assert!(has_table(2, "filter"), "the other's table stays");
    });
}

#[test]
fn nothing_is_left_after_fifty_rounds() {
    World::run(async |world| {
        let descriptors = || std::fs::read_dir("/proc/self/fd").expect("descriptors").count();
        let before = at_host(links).await;
        let mut first_round = 0;
        for round in 0..50 {
            let network = world.network("net").await;
            let web = world
                .container("web1", &[&network], &[port("", (8080, 8080), 80)])
                .await;
            let db = world.container("db1", &[&network], &[]).await;
            drop((web, db));
            world.networks.release(&id("web1")).await;
            world.networks.release(&id("db1")).await;
            world.networks.remove(&network.spec.id).await.expect("it is removed");
            if round == 9 {
                first_round = descriptors();
            }
        }
        assert!(world.networks.is_idle());
        assert!(world.networks.list().is_empty());
        assert!(!has_table(1, "compose-0e57ab1e"));
        // Namespaces die a moment after their last descriptor; other tests of this process have theirs open.
        let started = Instant::now();
        while at_host(links).await != before {
            assert!(started.elapsed() < PATIENCE, "{:?}", links());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(TcpListener::bind("0.0.0.0:8080").is_ok(), "the port is free");
        assert_eq!(
            std::fs::read_dir(world.state.path().join("networks"))
                .expect("records")
                .count(),
            0
        );
        if std::env::var_os("NEXTEST").is_some() {
            assert!(
                descriptors() <= first_round + 4,
                "{} descriptors, {first_round} before",
                descriptors()
            );
        }
    });
}

#[test]
fn a_container_can_share_anothers_network_or_have_none() {
    World::run(async |world| {
        let network = world.network("net").await;
        let web = world.container("web1", &[&network], &[]).await;
        let mut shared = spec("side1", &[], &[]);
        shared.mode = Mode::Container(id("web1"));
        let side = world.networks.sandbox(shared).await.expect("a sandbox");
        greet(ns(&web), "web", 80).await;
        assert!(inside(ns(&side), || ask((Ipv4Addr::LOCALHOST, 80))).await.is_ok());
        assert_eq!(side.files.hosts, web.files.hosts);
        let mut alone = spec("alone1", &[], &[]);
        alone.mode = Mode::None;
        let alone = world.networks.sandbox(alone).await.expect("a sandbox");
        assert_eq!(inside(ns(&alone), links).await, ["lo"]);
        let mut host = spec("host1", &[], &[]);
        host.mode = Mode::Host;
        assert!(world.networks.sandbox(host).await.expect("a sandbox").netns.is_none());
    });
}

#[test]
fn what_listens_on_the_hosts_loopback_is_out_of_a_containers_reach() {
    World::run(async |world| {
        let network = world.network("net").await;
        let web = world.container("web1", &[&network], &[]).await;
        let listener = UdpSocket::bind("127.0.0.1:9999").expect("a socket");
        listener
            .set_read_timeout(Some(Duration::from_millis(500)))
            .expect("a timeout");
        let gateway = web.record.endpoints[0].gateway.expect("a gateway");
        // CVE-2020-8558: a neighbour sends to 127.0.0.1 by way of the host, whose bridge may route such packets.
        inside(ns(&web), move || {
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").expect("a setting");
            let mut socket = Socket::open(netlink::Protocol::Route).expect("a socket");
            let mut without = Message::new(21, 0, "take 127.0.0.1 off the container's own loopback");
            without
                .fixed(&[libc::AF_INET as u8, 8, 0, 0, 1, 0, 0, 0])
                .attribute(2, &[127, 0, 0, 1]);
            let mut lead = Message::new(24, CREATE | EXCLUSIVE, "lead 127.0.0.0/8 to the host");
            lead.fixed(&[libc::AF_INET as u8, 8, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0])
                .attribute(1, &[127, 0, 0, 0])
                .attribute(5, &gateway.octets());
            socket.request(vec![without, lead]).expect("a route");
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.send_to(b"let me in", "127.0.0.1:9999").expect("a route");
        })
        .await;
        let heard = at_host(move || listener.recv(&mut [0; 16])).await;
        assert!(heard.is_err(), "{heard:?}");
    });
}

#[test]
fn eight_who_start_stop_join_and_leave_at_random_leave_nothing_behind() {
    World::run(async |world| {
        let before = at_host(links).await;
        let mut all = Vec::new();
        for name in ["one", "two", "three"] {
            all.push(world.network(name).await);
        }
        let eight = (0..8u64).map(|worker| {
            let networks = world.networks.clone();
            let all = all.clone();
            async move {
                let mut random = worker.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
                let mut below = move |limit: u64| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random % limit
                };
                let name = format!("worker{worker}");
                let mut running = None;
                for _ in 0..125 {
                    match (below(5), &running) {
                        (_, None) => {
                            let on: Vec<_> = all.iter().filter(|_| below(2) == 0).collect();
                            let first = 9000 + worker as u16;
                            let made = networks
                                .sandbox(spec(&name, &on, &[port("", (first, first), 80)]))
                                .await;
                            running = Some(made.unwrap_or_else(|error| panic!("{error:?}")));
                        }
                        (0, Some(_)) => {
                            networks.release(&id(&name)).await;
                            running = None;
                        }
                        (1 | 2, Some(_)) => {
                            let wish = EndpointSpec {
                                network: all[below(3) as usize].spec.id.clone(),
                                names: vec![name.clone()],
                                ..EndpointSpec::default()
                            };
                            match networks.connect(&id(&name), &wish).await {
                                Ok(_) | Err(NetError::AlreadyAttached { .. }) => {}
                                Err(error) => panic!("{error:?}"),
                            }
                        }
                        (_, Some(_)) => match networks.disconnect(&id(&name), &all[below(3) as usize].spec.id).await {
                            Ok(()) | Err(NetError::NotAttached { .. }) => {}
                            Err(error) => panic!("{error:?}"),
                        },
                    }
                }
                networks.release(&id(&name)).await;
            }
        });
        futures_util::future::join_all(eight).await;
        assert!(world.networks.is_idle());
        for network in &all {
            world.networks.remove(&network.spec.id).await.expect("it is removed");
        }
        let started = Instant::now();
        while at_host(links).await != before {
            assert!(started.elapsed() < Duration::from_secs(5), "{:?}", links());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!has_table(1, "compose-0e57ab1e"));
    });
}

#[test]
fn a_container_with_the_address_of_one_before_is_reached_at_once() {
    World::run(async |world| {
        let network = world.network("net").await;
        let client = world.container("client1", &[&network], &[]).await;
        let before = world.container("web1", &[&network], &[]).await;
        greet(ns(&before), "before", 80).await;
        let web = address(&before);
        assert!(
            inside(ns(&client), move || ask((web, 80)))
                .await
                .is_ok_and(|said| said.starts_with("before"))
        );
        // Its namespace lives on, as it does for a moment after its last process.
        world.networks.release(&id("web1")).await;
        let after = world.container("web1", &[&network], &[]).await;
        assert_eq!(address(&after), web);
        greet(ns(&after), "after", 80).await;
        assert!(
            inside(ns(&client), move || ask((web, 80)))
                .await
                .is_ok_and(|said| said.starts_with("after"))
        );
        drop(before);
    });
}

#[test]
fn a_client_that_never_stops_sending_reaches_the_next_container() {
    World::run(async |world| {
        let network = world.network("net").await;
        let _first = world.container("first1", &[&network], &[]).await;
        let mut before = world
            .container("echo1", &[&network], &[port("/udp", (5300, 5300), 53)])
            .await;
        echo(ns(&before), 53).await;
        let client = inside(&world.outside, || {
            let socket = UdpSocket::bind((OUTSIDE, 0)).expect("a socket");
            socket
                .set_read_timeout(Some(Duration::from_millis(200)))
                .expect("a timeout");
            socket.connect((HOST, 5300)).expect("a route");
            socket
        })
        .await;
        let ping = move |client: UdpSocket| {
            let answered = (0..10).any(|_| {
                let _ = client.send(b"ping");
                client.recv(&mut [0; 16]).is_ok()
            });
            (client, answered)
        };
        let (client, answered) = at_host(move || ping(client)).await;
        assert!(answered);
        before.fds.clear();
        world.networks.release(&id("echo1")).await;
        let _other = world.container("other1", &[&network], &[]).await;
        let after = world
            .container("echo1", &[&network], &[port("/udp", (5300, 5300), 53)])
            .await;
        assert_ne!(address(&before), address(&after));
        echo(ns(&after), 53).await;
        let (_, answered) = at_host(move || ping(client)).await;
        assert!(answered, "the kernel remembers the container that was there before");
    });
}
