//! Packets between containers, networks, projects and the host, by what the file says.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{on_every_engine, on_ours};

/// Serves its own name on port 80, by both families.
const SERVED: &str = "x-served: &served
  image: '${IMAGE}'
  init: true
  stop_grace_period: 0s
  command: [sh, -c, 'mkdir /tmp/www; hostname > /tmp/www/name; exec busybox httpd -f -p 80 -h /tmp/www']
";

/// Ports that nothing listens on.
fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let held: Vec<TcpListener> = (0..COUNT)
        .map(|_| TcpListener::bind("0.0.0.0:0").expect("a free port"))
        .collect();
    std::array::from_fn(|at| held[at].local_addr().expect("an address").port())
}

fn name_at(address: &str) -> Option<String> {
    for _ in 0..50 {
        if let Ok(name) = crate::support::http::get(address, "/name") {
            return Some(name.trim().to_owned());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

#[test]
fn published_ports_of_every_form_lead_to_their_container() {
    let [all, loopback, other, long, six] = free_ports();
    let file = format!(
        "{SERVED}services:
  web:
    <<: *served
    hostname: web
    ports:
      - '{all}:80'
      - '127.0.0.1:{loopback}:80'
      - '127.0.0.9:{other}:80/tcp'
      - {{target: 80, published: '{long}', host_ip: 127.0.0.1, protocol: tcp, name: http, app_protocol: http, mode: host}}
      - '[::1]:{six}:80'
      - '80'
  asker: {{<<: *base, extra_hosts: ['host:host-gateway']}}
networks: {{default: {{enable_ipv6: true, ipam: {{config: [{{subnet: 10.213.75.0/24, gateway: 10.213.75.1}}, {{subnet: 'fd00:75::/64'}}]}}}}}}
"
    );
    on_every_engine(&file, &[], |stage| {
        let web = Some("web".to_owned());
        for address in [
            format!("127.0.0.1:{all}"),
            format!("127.0.0.5:{all}"),
            format!("[::1]:{all}"),
            format!("127.0.0.1:{loopback}"),
            format!("127.0.0.9:{other}"),
            format!("127.0.0.1:{long}"),
            format!("[::1]:{six}"),
            format!("10.213.75.1:{all}"),
        ] {
            assert_eq!(name_at(&address), web, "{address} on {}", stage.engine);
        }
        let chosen = stage.succeeds(&["port", "web", "80"]);
        assert!(chosen.contains(':'), "{chosen}");
        for address in [
            format!("127.0.0.2:{loopback}"),
            format!("127.0.0.1:{other}"),
            format!("127.0.0.1:{six}"),
        ] {
            assert!(TcpStream::connect(&address).is_err(), "{address} on {}", stage.engine);
        }
        // To one's own published port, to another's, and to the host's own service, from inside.
        let asked = |service: &str, address: &str| {
            stage
                .inside(
                    service,
                    &format!("timeout 5 busybox wget -q -O - http://{address}/name"),
                )
                .trim()
                .to_owned()
        };
        for service in ["web", "asker"] {
            assert_eq!(
                asked(service, &format!("10.213.75.1:{all}")),
                "web",
                "{service} on {}",
                stage.engine
            );
        }
        assert_eq!(asked("asker", "web"), "web");
        assert_eq!(asked("asker", "[fd00:75::2]"), "web");
        let listener = TcpListener::bind("0.0.0.0:0").expect("a port of the host's");
        let port = listener.local_addr().expect("an address").port();
        let served = std::thread::spawn(move || {
            let (mut stream, from) = listener.accept().expect("a caller");
            let mut request = [0; 512];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nthe host");
            from.ip().to_string()
        });
        assert_eq!(asked("asker", &format!("10.213.75.1:{port}")), "the host");
        assert!(served.join().expect("served").starts_with("10.213.75."));
    });
}

/// Sends a datagram and returns what comes back from where it was sent to.
fn echoed(own: &str, to: &str) -> Option<String> {
    let socket = UdpSocket::bind(own).expect("a socket");
    let patience = Some(Duration::from_millis(500));
    socket.set_read_timeout(patience).expect("an option");
    let mut buffer = [0; 512];
    // The first ones may come before anybody listens; a port that nobody listens on says so with the next call.
    for _ in 0..60 {
        if socket.send_to(b"there and back", to).is_ok()
            && let Ok((length, from)) = socket.recv_from(&mut buffer)
        {
            let right = from.to_string() == to;
            return right.then(|| String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

/// Does work in the network of the container whose process sleeps so long.
fn in_network_of<T: Send + 'static>(
    sleeps: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let wanted = format!("sleep\0{sleeps}\0");
    let found = || {
        let processes = std::fs::read_dir("/proc").expect("procfs").flatten();
        processes
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .find(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted.as_bytes()))
    };
    // The container's init starts it.
    let deadline = Instant::now() + Duration::from_secs(30);
    let pid = loop {
        match found() {
            Some(pid) => break pid,
            None => assert!(Instant::now() < deadline, "{wanted:?} never ran"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("its namespace");
    std::thread::spawn(move || {
        compose::os::netns::enter(&namespace).expect("the namespace can be entered");
        work()
    })
}

#[test]
fn datagrams_reach_published_ports_and_are_answered_from_where_they_were_sent_to() {
    let [all, loopback, six, first] = free_ports();
    let second = first + 1;
    let file = format!(
        "services:
  echo:
    <<: *base
    command: sleep 600.{all}
    ports:
      - '{all}:53/udp'
      - '127.0.0.9:{loopback}:53/udp'
      - '[::1]:{six}:53/udp'
      - '{first}-{second}:53-54/udp'
  asker: {{<<: *base, command: sleep 601.{all}}}
networks: {{default: {{enable_ipv6: true, ipam: {{config: [{{subnet: 10.213.76.0/24, gateway: 10.213.76.1}}, {{subnet: 'fd00:76::/64'}}]}}}}}}
"
    );
    on_every_engine(&file, &[], |stage| {
        let ended = Arc::new(AtomicBool::new(false));
        let still = Arc::clone(&ended);
        let server = in_network_of(format!("600.{all}"), move || {
            let sockets = [53, 54].map(|port| UdpSocket::bind(("::", port)).expect("a socket"));
            for socket in &sockets {
                let nap = Some(Duration::from_millis(5));
                socket.set_read_timeout(nap).expect("an option");
            }
            let mut buffer = [0; 512];
            while !still.load(Ordering::Relaxed) {
                for socket in &sockets {
                    if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                        let _ = socket.send_to(&buffer[..length], from);
                    }
                }
            }
        });
        let mut found = Vec::new();
        for (own, to) in [
            ("127.0.0.1:0", format!("127.0.0.1:{all}")),
            ("0.0.0.0:0", format!("10.213.76.1:{all}")),
            ("[::1]:0", format!("[::1]:{all}")),
            ("127.0.0.1:0", format!("127.0.0.9:{loopback}")),
            ("[::1]:0", format!("[::1]:{six}")),
            ("127.0.0.1:0", format!("127.0.0.1:{first}")),
            ("127.0.0.1:0", format!("127.0.0.1:{second}")),
        ] {
            found.push((echoed(own, &to), to));
        }
        // From another container, and from itself, by the published port.
        for sleeps in ["600", "601"] {
            let to = format!("10.213.76.1:{all}");
            let asked = in_network_of(format!("{sleeps}.{all}"), move || (echoed("0.0.0.0:0", &to), to));
            found.push(asked.join().expect("asked"));
        }
        ended.store(true, Ordering::Relaxed);
        server.join().expect("it served");
        for (back, to) in found {
            assert_eq!(back.as_deref(), Some("there and back"), "{to} on {}", stage.engine);
        }
    });
}

#[test]
fn a_name_without_an_ipv6_address_is_no_unknown_name() {
    let file = "services:
  web: {<<: *base}
  asker: {<<: *base}
";
    on_every_engine(file, &[], |stage| {
        let asked = |kind: &str, name: &str| {
            stage.inside("asker", &format!("busybox nslookup -type={kind} {name}. 127.0.0.11"))
        };
        assert!(asked("a", "web").contains("Address"), "on {}", stage.engine);
        let six = asked("aaaa", "web");
        assert!(
            !six.contains("NXDOMAIN") && !six.contains("SERVFAIL"),
            "{six} on {}",
            stage.engine
        );
    });
}

#[test]
fn containers_reach_whom_they_share_a_network_with_and_nobody_else() {
    let file = format!(
        "{SERVED}services:
  front: {{<<: *served, hostname: front, networks: [outer]}}
  both: {{<<: *served, hostname: both, networks: {{outer: {{aliases: [same]}}, inner: {{aliases: [same]}}}}}}
  back: {{<<: *served, hostname: back, networks: [inner], depends_on: [both]}}
  linked: {{<<: *served, hostname: linked, networks: [outer], links: ['front:short', both], external_links: ['${{COMPOSE_PROJECT_NAME}}-front-1:outside']}}
  guest: {{<<: *base, network_mode: 'service:back'}}
networks:
  outer: {{}}
  inner: {{internal: true}}
"
    );
    on_every_engine(&file, &[], |stage| {
        let asked = |service: &str, address: &str| {
            let script = format!("timeout 2 busybox wget -q -O - http://{address}/name 2> /dev/null || echo nobody");
            stage.inside(service, &script).trim().to_owned()
        };
        for (from, to, who) in [
            ("front", "both", "both"),
            ("front", "same", "both"),
            ("back", "same", "both"),
            ("both", "front", "front"),
            ("both", "back", "back"),
            ("front", "back", "nobody"),
            ("back", "front", "nobody"),
            ("linked", "short", "front"),
            ("linked", "outside", "front"),
            ("front", "short", "nobody"),
            ("guest", "both", "both"),
            ("guest", "127.0.0.1", "back"),
        ] {
            assert_eq!(asked(from, to), who, "{from} to {to} on {}", stage.engine);
        }
        // By address neither, and not out of an internal network.
        let address = stage.inside("front", "hostname -i");
        assert_eq!(asked("back", address.trim()), "nobody");
        let host = TcpListener::bind("0.0.0.0:0").expect("a port of the host's");
        let port = host.local_addr().expect("an address").port();
        let gateway = stage.inside("front", "ip route | grep default | cut -d' ' -f3");
        let refused = stage.inside(
            "back",
            &format!(
                "busybox nc -w 1 {} {port} < /dev/null && echo out || echo kept",
                gateway.trim()
            ),
        );
        assert!(refused.trim().ends_with("kept"), "{refused} on {}", stage.engine);
        // An owner that restarts takes its guest along.
        stage.succeeds(&["restart", "-t", "0", "back"]);
        // (Not every release of Docker's runtime can run something in a container that was restarted.)
        if stage.engine == "embedded" {
            let namespace = |service: &str| stage.inside(service, "readlink /proc/1/ns/net");
            assert_eq!(namespace("guest"), namespace("back"));
            assert_eq!(asked("guest", "both"), "both");
        }
    });
}

#[test]
fn a_name_is_never_that_of_another_while_its_container_restarts() {
    let file = format!(
        "{SERVED}services:
  web: {{<<: *served, hostname: web}}
  asker: {{<<: *base}}
"
    );
    on_every_engine(&file, &[], |stage| {
        let own = stage.inside("web", "hostname -i").trim().to_owned();
        // Answers, or none; at the end there is one.
        let script = "i=0; while test $i -lt 150; do i=$((i+1)); busybox nslookup web 127.0.0.11 2> /dev/null | grep '^Address' | grep -v 0.11; done | sort -u";
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| stage.inside("asker", script));
            for _ in 0..3 {
                stage.succeeds(&["restart", "-t", "0", "web"]);
            }
            let answers = asked.join().expect("asked");
            for line in answers.lines() {
                let address = line.split_whitespace().last().unwrap_or_default();
                assert_eq!(address, own, "{answers} on {}", stage.engine);
            }
        });
        stage.prints("asker", "timeout 5 busybox wget -q -O - http://web/name", "web");
    });
}

#[test]
fn projects_do_not_reach_each_other_but_by_published_ports() {
    let [port] = free_ports();
    let file = format!(
        "{SERVED}services:
  web: {{<<: *served, hostname: web, ports: ['{port}:80']}}
"
    );
    on_every_engine(&file, &[], |stage| {
        let address = stage.inside("web", "hostname -i").trim().to_owned();
        stage.project.write(
            "second.yaml",
            &format!("{}services: {{other: {{<<: *base}}}}\n", super::BASE),
        );
        let name = format!("{}b", stage.name);
        let second = |arguments: &[&str]| {
            let all: Vec<&str> = ["-p", &name, "-f", "second.yaml"]
                .iter()
                .chain(arguments)
                .copied()
                .collect();
            stage.run(&all)
        };
        let inside = |script: &str| {
            let output = second(&["exec", "-T", "other", "sh", "-c", script]);
            crate::support::text(&output.stdout).trim().to_owned()
        };
        let asked = |address: &str| {
            inside(&format!(
                "timeout 2 busybox wget -q -O - http://{address}/name 2> /dev/null || echo nobody"
            ))
        };
        second(&["up", "-d"]);
        let gateway = inside("ip route | grep default | cut -d' ' -f3");
        let found = [&address, "web", &format!("{gateway}:{port}")].map(asked);
        second(&["down", "-t", "0"]);
        assert_eq!(found, ["nobody", "nobody", "web"], "on {}", stage.engine);
    });
}

#[test]
fn a_renamed_container_is_found_by_its_new_name() {
    let file = format!("{SERVED}services:\n  web: {{<<: *served, hostname: web}}\n  asker: {{<<: *base}}\n");
    on_ours(&file, &[], |stage| {
        stage.succeeds(&["up", "-d"]);
        let old = format!("{}-web-1", stage.name);
        stage.project.docker(&["rename", &old, "renamed"]);
        stage.prints("asker", "timeout 5 busybox wget -q -O - http://renamed/name", "web");
        stage.prints("asker", "timeout 5 busybox wget -q -O - http://web/name", "web");
        stage.prints(
            "asker",
            &format!("timeout 2 busybox wget -q -O - http://{old}/name 2> /dev/null || echo nobody"),
            "nobody",
        );
    });
}

#[test]
fn starts_stops_connects_and_disconnects_at_random_leave_nothing_behind() {
    let changes: usize = crate::support::extent(96, 1000);
    let file = "services:
  web: {<<: *base, scale: 8, networks: [one]}
networks: {one: {}, two: {}, three: {internal: true}}
";
    on_ours(file, &[], |stage| {
        // Networks that no service uses are not made.
        let file = format!("{}{}", super::BASE, file.replace("[one]", "[one, two, three]"));
        stage.project.write("compose.yaml", &file);
        let open = |pid: rustix::process::Pid| {
            let entries = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).expect("the engine");
            entries.count()
        };
        stage.succeeds(&["up", "-d"]);
        let engine = stage.project.engine_pid().expect("an engine");
        stage.succeeds(&["stop", "-t", "0"]);
        let before = open(engine);
        let bridges: Vec<String> = stage
            .project
            .docker(&[
                "network",
                "ls",
                "-q",
                "--no-trunc",
                "--filter",
                &format!("name={}", stage.name),
            ])
            .lines()
            .map(|id| format!("br-{}", &id[..12]))
            .collect();
        assert_eq!(bridges.len(), 3);
        let socket = format!("unix://{}", stage.project.state_dir().join("engine.sock").display());
        std::thread::scope(|scope| {
            for worker in 1..=8_u64 {
                let (socket, name) = (&socket, &stage.name);
                scope.spawn(move || {
                    let mut random = worker.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
                    let mut below = move |limit: u64| {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        random % limit
                    };
                    let container = format!("{name}-web-{worker}");
                    for _ in 0..changes / 8 {
                        let network = format!("{name}_{}", ["one", "two", "three"][below(3) as usize]);
                        let words: &[&str] = match below(4) {
                            0 => &["start", &container],
                            1 => &["stop", "-t", "0", &container],
                            2 => &["network", "connect", &network, &container],
                            _ => &["network", "disconnect", &network, &container],
                        };
                        let output = std::process::Command::new("docker")
                            .args(["-H", socket])
                            .args(words)
                            .output()
                            .expect("the docker client is installed");
                        let said = crate::support::text(&output.stderr);
                        // What is so already is refused; nothing else is.
                        let is_fine = output.status.success()
                            || said.contains("already exists in network")
                            || said.contains("is not connected to");
                        assert!(is_fine, "{words:?}: {said}");
                    }
                });
            }
        });
        stage.succeeds(&["start"]);
        let script = "ip -o link | grep -c '^[0-9]*: eth' ; ip route | wc -l";
        stage.inside("web", script);
        stage.succeeds(&["stop", "-t", "0"]);
        let settled = || open(engine) <= before + 2;
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !settled() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(settled(), "{} descriptors, {before} before", open(engine));
        stage.succeeds(&["down", "-t", "0"]);
        let links = std::process::Command::new("ip")
            .args(["-o", "link"])
            .output()
            .expect("iproute2");
        let links = crate::support::text(&links.stdout);
        for bridge in &bridges {
            assert!(!links.contains(bridge.as_str()), "{bridge} is left");
        }
    });
}
