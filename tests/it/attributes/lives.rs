//! How a container lives: probes, restarts, replicas, what becomes of its output.

use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::{Duration, Instant};

use super::{Stage, on_every_engine, on_ours};

/// Waits until a service's containers have a state, as `ps` prints it in a format.
#[track_caller]
fn becomes(stage: &Stage, service: &str, format: &str, wanted: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = stage.succeeds(&["ps", "-a", "--format", format, service]);
        if found.trim() == wanted {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{service} on {}: {found:?}, not {wanted:?}",
            stage.engine
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn probes_of_every_form_say_how_a_container_is() {
    let file = "services:
  starting:
    <<: *base
    healthcheck: {test: [CMD, test, -e, /tmp/well], interval: 600s, timeout: 5s, start_period: 600s, start_interval: 200ms}
  shell: {<<: *base, healthcheck: {test: 'test \"$$0\" = /bin/sh && echo probed >> /tmp/probed', interval: 100ms}}
  listed: {<<: *base, healthcheck: {test: [CMD-SHELL, 'exit 0'], interval: 100ms}}
  ill: {<<: *base, healthcheck: {test: 'echo x >> /tmp/tries; exit 3', interval: 100ms, retries: 2}}
  slow: {<<: *base, healthcheck: {test: 'sleep 60', interval: 100ms, timeout: 200ms, retries: 1}}
  disabled: {<<: *base, healthcheck: {disable: true}}
  content: {<<: *base, depends_on: {ill: {condition: service_healthy, required: false}}}
  none: {<<: *base, healthcheck: {test: [NONE]}}
";
    on_every_engine(file, &[], |stage| {
        let health = |service: &str, wanted: &str| becomes(stage, service, "{{.Health}}", wanted);
        health("shell", "healthy");
        stage.prints("shell", "head -n 1 /tmp/probed", "probed");
        health("listed", "healthy");
        health("ill", "unhealthy");
        assert!(stage.inside("ill", "wc -l < /tmp/tries").trim().parse::<u32>().unwrap() >= 2);
        health("slow", "unhealthy");
        health("disabled", "");
        // It goes without whom it can go without.
        stage.prints("content", "echo up", "up");
        health("none", "");
        // The interval is ten minutes: only the probes of the start can find it well.
        health("starting", "starting");
        stage.inside("starting", "touch /tmp/well");
        health("starting", "healthy");
    });
}

#[test]
fn containers_that_end_come_back_as_their_policies_say() {
    let file = "services:
  twice: {image: '${IMAGE}', restart: 'on-failure:2', command: [sh, -c, 'echo run; exit 3']}
  deployed: {image: '${IMAGE}', command: [sh, -c, 'echo run; exit 4'], deploy: {restart_policy: {condition: on-failure, max_attempts: 1}}}
  never: {image: '${IMAGE}', restart: 'no', command: [sh, -c, 'echo run; exit 5']}
  content: {image: '${IMAGE}', restart: on-failure, command: [sh, -c, 'echo run']}
  always: {image: '${IMAGE}', restart: always, stop_grace_period: 0s, command: [sh, -c, 'echo run; sleep 0.1']}
  any: {image: '${IMAGE}', stop_grace_period: 0s, command: [sh, -c, 'echo run; sleep 0.1'], deploy: {restart_policy: {condition: any}}}
  stopped: {image: '${IMAGE}', restart: unless-stopped, stop_grace_period: 0s, command: [sh, -c, 'echo run; sleep 0.1']}
";
    on_every_engine(file, &[], |stage| {
        let runs = |service: &str| stage.succeeds(&["logs", "--no-log-prefix", service]).lines().count();
        for (service, state, count) in [
            ("twice", "exited 3", 3),
            ("deployed", "exited 4", 2),
            ("never", "exited 5", 1),
            ("content", "exited 0", 1),
        ] {
            // Between two runs it is `restarting` and not `exited`.
            becomes(stage, service, "{{.State}} {{.ExitCode}}", state);
            assert_eq!(runs(service), count, "{service} on {}", stage.engine);
        }
        for service in ["always", "any", "stopped"] {
            let deadline = Instant::now() + Duration::from_secs(30);
            while runs(service) < 3 {
                assert!(Instant::now() < deadline, "{service} on {}", stage.engine);
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        stage.succeeds(&["stop", "stopped"]);
        let before = runs("stopped");
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(runs("stopped"), before);
    });
}

#[test]
fn as_many_containers_run_as_the_file_says_under_its_names() {
    let file = "services:
  scaled: {<<: *base, scale: 2}
  deployed: {<<: *base, deploy: {mode: replicated, replicas: 3}}
  global: {<<: *base, deploy: {mode: global}}
  none: {<<: *base, scale: 0}
  named: {<<: *base, container_name: 'named-${COMPOSE_PROJECT_NAME}', expose: ['81', '82/udp'], annotations: {noted: x}, labels: {shown: 'yes'}}
";
    on_every_engine(file, &[], |stage| {
        for (service, count) in [("scaled", 2), ("deployed", 3), ("global", 1), ("none", 0)] {
            let ids = stage.succeeds(&["ps", "-q", service]);
            assert_eq!(ids.lines().count(), count, "{service} on {}", stage.engine);
        }
        let shown = stage.succeeds(&["ps", "--format", "{{.Name}} {{.Ports}} {{.Label \"shown\"}}", "named"]);
        assert_eq!(shown.trim(), format!("named-{} 81/tcp, 82/udp yes", stage.name));
        // A name is a name to the others too.
        stage.prints(
            "scaled",
            &format!(
                "busybox ping -c 1 -W 2 named-{} > /dev/null && echo reached",
                stage.name
            ),
            "reached",
        );
    });
}

#[test]
fn output_is_kept_as_the_logging_driver_says() {
    let file = "x-loud: &loud {image: '${IMAGE}', command: [sh, -c, 'for i in 1 2 3 4 5 6 7 8 9 10; do head -c 9000 /dev/zero | tr \"\\\\0\" x; echo; done; echo end']}
services:
  whole: {<<: *loud}
  turned: {<<: *loud, logging: {driver: json-file, options: {max-size: 20k, max-file: '2'}}}
  local: {<<: *loud, logging: {driver: local, options: {max-size: 20k, max-file: '2', compress: 'false'}}}
  unlogged: {<<: *loud, logging: {driver: none}}
";
    on_every_engine(file, &[], |stage| {
        for service in ["whole", "turned", "local", "unlogged"] {
            becomes(stage, service, "{{.State}}", "exited");
        }
        let kept = |service: &str| {
            String::from_utf8_lossy(&stage.run(&["logs", "--no-log-prefix", service]).stdout).into_owned()
        };
        let whole = kept("whole");
        assert!(whole.len() > 90_000 && whole.ends_with("end\n"), "{}", whole.len());
        for service in ["turned", "local"] {
            let kept = kept(service);
            assert!(
                kept.ends_with("end\n") && kept.len() < 60_000,
                "{service} on {}: {}",
                stage.engine,
                kept.len()
            );
        }
        assert_eq!(kept("unlogged"), "");
    });
    on_ours(
        "services: {web: {<<: *base, logging: {driver: json-file, options: {max-size: huge}}}}\n",
        &[],
        |stage| {
            let error = stage.fails(&["up", "-d"]);
            assert!(error.contains("invalid size: 'huge'"), "{error}");
        },
    );
}

#[test]
fn output_is_shown_of_those_that_are_attached() {
    let file = "services:
  shown: {image: '${IMAGE}', command: echo shown}
  quiet: {image: '${IMAGE}', attach: false, command: echo hidden}
";
    on_every_engine(file, &[], |stage| {
        let shown = stage.succeeds(&["up"]);
        assert!(shown.contains("shown") && !shown.contains("hidden"), "{shown}");
    });
}

/// Returns the lines of a file that services write, once there are as many.
fn lines_of(stage: &Stage, file: &str, count: usize) -> Vec<String> {
    let path = stage.project.path().join(file);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if text.lines().count() >= count {
            return text.lines().map(str::to_owned).collect();
        }
        assert!(Instant::now() < deadline, "{file} on {}: {text}", stage.engine);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn restarts_are_paced_as_the_deploy_policy_says() {
    let file = "services:
  counted:
    <<: *base
    command: [sh, -c, 'date +%s%N >> /out/counted; exit 1']
    volumes: ['./out:/out']
    deploy: {restart_policy: {condition: on-failure, delay: 1200ms, max_attempts: 2, window: 60s}}
  lasting:
    <<: *base
    command: [sh, -c, 'echo again >> /out/lasting; sleep 0.5; exit 1']
    volumes: ['./out:/out']
    deploy: {restart_policy: {condition: on-failure, delay: 10ms, max_attempts: 1, window: 200ms}}
";
    on_ours(file, &[("out/.keep", "")], |stage| {
        stage.succeeds(&["up", "-d"]);
        becomes(stage, "counted", "{{.State}}", "exited");
        let starts: Vec<u64> = lines_of(stage, "out/counted", 3)
            .iter()
            .map(|line| line.parse().expect("a time"))
            .collect();
        assert_eq!(starts.len(), 3, "the first start and two attempts");
        for pair in starts.windows(2) {
            assert!(pair[1] - pair[0] >= 1_200_000_000, "{starts:?}");
        }
        // Attempts that last longer than the window did not fail.
        lines_of(stage, "out/lasting", 5);
    });
}

#[test]
fn steps_run_before_a_service_starts_and_hold_it_back_when_they_fail() {
    let file = "services:
  web:
    <<: *base
    environment: {A: service, B: kept}
    volumes: ['./out:/out', 'data:/data']
    scale: 2
    pre_start:
      - {command: [sh, -c, 'echo first $$(id -un) $$(pwd) $$A $$B >> /out/log; echo made > /data/file'], user: root, working_dir: /tmp, environment: {A: step}}
      - {command: [sh, -c, 'echo second $$(cat /data/file) $$A >> /out/log; grep CapEff /proc/self/status > /out/rights'], image: '${IMAGE}', privileged: true}
      - {command: [sh, -c, 'echo each >> /out/log'], per_replica: true}
volumes: {data: {}}
";
    on_every_engine(file, &[("out/.keep", "")], |stage| {
        let expected = ["first root /tmp step kept", "second made service", "each", "each"];
        assert_eq!(lines_of(stage, "out/log", 4), expected, "on {}", stage.engine);
        let rights = lines_of(stage, "out/rights", 1);
        let own = std::fs::read_to_string("/proc/self/status").expect("procfs");
        let bounding = own
            .lines()
            .find_map(|line| line.strip_prefix("CapBnd:"))
            .expect("a set");
        assert_eq!(rights, [format!("CapEff:{bounding}")], "on {}", stage.engine);
        // Those of the service as a whole do not run again for one container more.
        stage.succeeds(&["up", "-d", "--scale", "web=3"]);
        assert_eq!(lines_of(stage, "out/log", 5)[4..], ["each"], "on {}", stage.engine);
        let all = stage.succeeds(&["ps", "-a", "--format", "{{.Name}}"]);
        assert_eq!(all.lines().count(), 3, "{all}");

        let failing = "services:
  bad: {<<: *base, pre_start: [{command: [sh, -c, 'echo why >&2; exit 3']}]}
  after: {<<: *base, depends_on: [bad]}
";
        stage.project.write("second.yaml", &format!("{}{failing}", super::BASE));
        let error = stage.fails(&["-f", "second.yaml", "up", "-d"]);
        let text = "service \"bad\" pre_start[0] exited with code 3: why (hook container ";
        assert!(error.contains(text), "{error}");
        for service in ["bad", "after"] {
            let state = stage.succeeds(&["-f", "second.yaml", "ps", "-a", "--format", "{{.State}}", service]);
            assert_eq!(state.lines().next(), Some("created"), "{service} on {}", stage.engine);
        }
        // It is kept to be looked at, until all goes down.
        let down = stage.run(&["-f", "second.yaml", "down", "-t", "0"]);
        let told = crate::support::text(&down.stderr);
        assert!(
            down.status.success() && told.contains("bad-pre_start-0  Removed"),
            "{told}"
        );
        let attached = "services: {web: {<<: *base, command: 'true', pre_start: [{command: echo prepared}]}}\n";
        stage.project.write("third.yaml", &format!("{}{attached}", super::BASE));
        let shown = stage.succeeds(&["-f", "third.yaml", "up", "--force-recreate", "--remove-orphans"]);
        assert!(
            shown.contains("web pre_start[0] ->") && shown.contains("prepared"),
            "{shown}"
        );
    });
}

#[test]
fn output_goes_to_a_syslog_daemon_in_the_form_it_wants_and_can_still_be_read() {
    let directory = tempfile::tempdir_in("/tmp").expect("a directory");
    let place = |name: &str| directory.path().join(name);
    let gram = UnixDatagram::bind(place("gram")).expect("a socket");
    let stream = UnixListener::bind(place("stream")).expect("a socket");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = |result: std::io::Result<std::net::SocketAddr>| result.expect("an address");
    let services = [
        (
            "gram",
            format!("unixgram://{}", place("gram").display()),
            "tag: '{{.ImageName}}/{{.Name}}'".to_owned(),
        ),
        (
            "stream",
            format!("unix://{}", place("stream").display()),
            "tag: t, syslog-facility: mail".to_owned(),
        ),
        (
            "udp",
            format!("udp://{}", address(udp.local_addr())),
            "tag: t, syslog-format: rfc5424, syslog-facility: local3".to_owned(),
        ),
        (
            "tcp",
            format!("tcp://{}", address(tcp.local_addr())),
            "tag: t, syslog-format: rfc3164, syslog-facility: '1'".to_owned(),
        ),
    ];
    let mut file =
        "x-said: &said {image: '${IMAGE}', command: [sh, -c, 'echo out; sleep 0.2; echo err >&2']}\nservices:\n"
            .to_owned();
    for (name, address, options) in &services {
        file.push_str(&format!(
            "  {name}: {{<<: *said, logging: {{driver: syslog, options: {{syslog-address: '{address}', {options}}}}}}}\n"
        ));
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let patience = Some(Duration::from_secs(60));
    gram.set_read_timeout(patience).expect("an option");
    udp.set_read_timeout(patience).expect("an option");
    on_every_engine(&file, &[], |stage| {
        let two = |receive: &dyn Fn(&mut [u8]) -> usize| -> String {
            let mut buffer = [0; 4096];
            (0..2)
                .map(|_| {
                    let length = receive(&mut buffer);
                    crate::support::text(&buffer[..length])
                })
                .collect()
        };
        let all = |mut from: Box<dyn Read>| -> String {
            let mut text = String::new();
            from.read_to_string(&mut text).expect("what was said");
            text
        };
        // The time and the process are what they are.
        let wildcards = |text: &str, pattern: &str| {
            let mut rest = text;
            for (at, part) in pattern.split('*').enumerate() {
                let Some(found) = rest.find(part) else { return false };
                if at == 0 && found > 0 {
                    return false;
                }
                rest = &rest[found + part.len()..];
            }
            rest.is_empty()
        };
        let tag = format!("{}/{}-gram-1", stage.image, stage.name);
        for (service, heard, expected) in [
            (
                "gram",
                two(&|buffer| gram.recv(buffer).expect("a message")),
                format!("<30>* {tag}[*]: out\n<27>* {tag}[*]: err\n"),
            ),
            (
                "stream",
                all(Box::new(stream.accept().expect("a connection").0)),
                "<22>* t[*]: out\n<19>* t[*]: err\n".to_owned(),
            ),
            (
                "udp",
                two(&|buffer| udp.recv(buffer).expect("a message")),
                format!("<158>1 * {host} t * t - out\n<155>1 * {host} t * t - err\n"),
            ),
            (
                "tcp",
                all(Box::new(tcp.accept().expect("a connection").0)),
                format!("<14>* {host} t[*]: out\n<11>* {host} t[*]: err\n"),
            ),
        ] {
            assert!(
                wildcards(&heard, &expected),
                "{service} on {}: {heard:?}, not {expected:?}",
                stage.engine
            );
            becomes(stage, service, "{{.State}}", "exited");
            let kept = stage.succeeds(&["logs", "--no-log-prefix", service]);
            assert_eq!(kept, "out\nerr\n", "{service} on {}", stage.engine);
        }
    });
}

#[test]
fn output_goes_to_the_journal_where_there_is_one() {
    const JOURNAL: &str = "/run/systemd/journal/socket";
    let file = "services:
  said:
    image: '${IMAGE}'
    command: [sh, -c, 'echo out; sleep 0.2; printf err >&2']
    labels: {a.b: c}
    environment: {D: e}
    logging: {driver: journald, options: {tag: mine, labels: a.b, env: D}}
";
    on_ours(file, &[], |stage| {
        if !std::path::Path::new(JOURNAL).exists() {
            let error = stage.fails(&["up", "-d"]);
            assert!(error.contains("journald is not enabled on this host"), "{error}");
            std::fs::create_dir_all("/run/systemd/journal").expect("root may");
            let journal = UnixDatagram::bind(JOURNAL).expect("a socket");
            journal
                .set_read_timeout(Some(Duration::from_secs(60)))
                .expect("an option");
            let started = stage.run(&["up", "-d"]);
            let mut entries = Vec::new();
            let mut buffer = [0; 4096];
            while started.status.success() && entries.len() < 2 {
                let length = journal.recv(&mut buffer).expect("an entry");
                entries.push(crate::support::text(&buffer[..length]));
            }
            // Nobody else is to take it for a journal.
            std::fs::remove_file(JOURNAL).expect("it is ours");
            let _ = std::fs::remove_dir("/run/systemd/journal");
            assert!(started.status.success(), "{}", crate::support::text(&started.stderr));
            for (entry, fields) in entries.iter().zip([
                ["MESSAGE=out", "PRIORITY=6"],
                ["MESSAGE=err", "CONTAINER_PARTIAL_MESSAGE=true"],
            ]) {
                let name = format!("CONTAINER_NAME={}-said-1", stage.name);
                for field in fields
                    .into_iter()
                    .chain([&*name, "SYSLOG_IDENTIFIER=mine", "A_B=c", "D=e"])
                {
                    assert!(entry.lines().any(|line| line == field), "{field} in {entry}");
                }
            }
        } else {
            stage.succeeds(&["up", "-d"]);
            becomes(stage, "said", "{{.State}}", "exited");
            let name = format!("CONTAINER_NAME={}-said-1", stage.name);
            let journal = std::process::Command::new("journalctl")
                .args(["--sync", "--output=cat", &name])
                .output()
                .expect("journalctl runs");
            let said = crate::support::text(&journal.stdout);
            assert!(said.contains("out") && said.contains("err"), "{said}");
        }
        assert_eq!(stage.succeeds(&["logs", "--no-log-prefix", "said"]).trim(), "out\nerr");
    });
}
