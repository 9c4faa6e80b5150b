//! How a container lives: probes, restarts, replicas, what becomes of its output.

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
