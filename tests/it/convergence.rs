//! Random projects meet random events; after `up` the world is what the file says, and a second `up` does nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::support::{self, text};

/// A small generator of numbers, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }
}

/// What the file says of a service.
#[derive(Debug, Clone, Default)]
struct Service {
    replicas: usize,
    label: u64,
    after: Option<(String, &'static str)>,
    network: Option<&'static str>,
    volume: Option<&'static str>,
    /// Whether its health is looked after.
    has_health: bool,
}

/// What the file says, and what the world has that the file does not say.
#[derive(Debug, Default)]
struct Model {
    services: BTreeMap<String, Service>,
    /// By network: a label, whose change replaces the network.
    networks: BTreeMap<&'static str, u64>,
    /// Services whose health check fails, and will until they are replaced.
    sick: Vec<String>,
}

impl Model {
    fn file(&self) -> String {
        let mut file = "services:\n".to_owned();
        for (name, service) in &self.services {
            let _ = write!(
                file,
                "  {name}:\n    image: rootfs:/\n    init: true\n    command: sleep 3000\n    stop_grace_period: 0s\n    \
                 scale: {}\n    labels: {{v: \"{}\"}}\n",
                service.replicas, service.label
            );
            match service.network {
                Some(network) => {
                    let _ = writeln!(file, "    networks: [{network}]");
                }
                None => file.push_str("    network_mode: none\n"),
            }
            if let Some(volume) = service.volume {
                let _ = writeln!(file, "    volumes: [\"{volume}:/convergence\"]");
            }
            if service.has_health {
                file.push_str(
                    "    healthcheck: {test: [CMD, test, \"!\", -e, /var/tmp/sick], interval: 1s, retries: 1}\n",
                );
            }
            if let Some((after, condition)) = &service.after {
                let _ = writeln!(file, "    depends_on: {{{after}: {{condition: {condition}}}}}");
            }
        }
        file.push_str("networks:\n");
        for (name, label) in &self.networks {
            let _ = writeln!(file, "  {name}: {{internal: true, labels: {{v: \"{label}\"}}}}");
        }
        file.push_str("volumes: {data: , cache: }\n");
        file
    }

    /// Every container that there must be, with its label.
    fn containers(&self) -> Vec<String> {
        let lines = self.services.iter().flat_map(|(name, service)| {
            (0..service.replicas).map(move |_| format!("{name} running {}", service.label))
        });
        lines.collect()
    }

    /// Returns whether a service waits for the health of one that is sick.
    fn must_fail(&self) -> bool {
        self.services.values().any(|service| {
            service.replicas > 0
                && service
                    .after
                    .as_ref()
                    .is_some_and(|(after, condition)| *condition == "service_healthy" && self.sick.contains(after))
        })
    }

    /// Changes the file as somebody at an editor does.
    fn edit(&mut self, dice: &mut Dice) -> String {
        let name = (*dice.pick(&["a", "b", "c", "d"])).to_owned();
        if !self.services.contains_key(&name) {
            let has_health = dice.roll(2) == 0;
            let after = self
                .services
                .iter()
                .find(|(other, _)| **other < name)
                .map(|(other, service)| {
                    let condition = match service.has_health && service.replicas > 0 {
                        true => "service_healthy",
                        false => "service_started",
                    };
                    (other.clone(), condition)
                });
            let service = Service {
                replicas: 1 + dice.roll(2),
                after,
                has_health,
                network: *dice.pick(&[None, Some("n"), Some("m")]),
                ..Service::default()
            };
            self.services.insert(name.clone(), service);
            return format!("add {name}");
        }
        let is_waited_for = |services: &BTreeMap<String, Service>| {
            services
                .values()
                .any(|service| service.after.as_ref().is_some_and(|(after, _)| *after == name))
        };
        let count = self.services.len();
        let service = self.services.get_mut(&name).expect("it is there");
        match dice.roll(6) {
            // Whoever waits for it waits no longer.
            0 if count > 2 => {
                self.services.remove(&name);
                for service in self.services.values_mut() {
                    service.after.take_if(|(after, _)| *after == name);
                }
                self.sick.retain(|sick| *sick != name);
                format!("remove {name}")
            }
            1 => {
                service.replicas = dice.roll(4);
                if service.replicas == 0 && is_waited_for(&self.services) {
                    self.services.get_mut(&name).expect("it is there").replicas = 1;
                }
                if self.services[&name].replicas == 0 {
                    self.sick.retain(|sick| *sick != name);
                }
                format!("scale {name}")
            }
            2 => {
                service.network = *dice.pick(&[None, Some("n"), Some("m")]);
                // The same network again changes nothing; the label makes it a change in any case.
                service.label += 1;
                self.sick.retain(|sick| *sick != name);
                format!("network of {name}")
            }
            3 => {
                service.volume = *dice.pick(&[None, Some("data"), Some("cache")]);
                service.label += 1;
                self.sick.retain(|sick| *sick != name);
                format!("volume of {name}")
            }
            4 => {
                let network = *dice.pick(&["n", "m"]);
                *self.networks.get_mut(network).expect("both are there") += 1;
                format!("label of network {network}")
            }
            _ => {
                service.label += 1;
                self.sick.retain(|sick| *sick != name);
                format!("label of {name}")
            }
        }
    }

    /// Does something to the world behind the back of `up`.
    fn happen(&mut self, stage: &Stage, dice: &mut Dice) -> String {
        let names: Vec<String> = self.services.keys().cloned().collect();
        let name = dice.pick(&names).clone();
        let has_one = self.services[&name].replicas > 0;
        match dice.roll(9) {
            0 => {
                stage.project.run(&["kill", &name]);
                format!("kill {name}")
            }
            1 => {
                stage.project.run(&["stop", "-t", "0", &name]);
                format!("stop {name}")
            }
            2 => {
                stage.project.run(&["rm", "-fs", &name]);
                self.sick.retain(|sick| *sick != name);
                format!("rm {name}")
            }
            3 => {
                stage.project.run(&["pause", &name]);
                stage.project.run(&["unpause", &name]);
                format!("pause and unpause {name}")
            }
            4 if has_one => {
                // The command ends by itself.
                let has_exited = stage.project.run(&["exec", "-T", &name, "pkill", "-x", "sleep"]);
                if has_exited.status.success() {
                    stage.until(&format!("the end of {name}"), |stage| {
                        stage
                            .world()
                            .contains(&format!("{name} exited {}", self.services[&name].label))
                    });
                }
                format!("exit of {name}")
            }
            5 if has_one && self.services[&name].has_health => {
                let is_sick = stage
                    .project
                    .run(&["exec", "-T", &name, "touch", "/var/tmp/sick"])
                    .status
                    .success();
                if is_sick {
                    stage.until(&format!("{name} to be unhealthy"), |stage| {
                        stage
                            .project
                            .succeed(&["ps", &name, "--format", "{{.Health}}"])
                            .contains("unhealthy")
                    });
                    if !self.sick.contains(&name) {
                        self.sick.push(name.clone());
                    }
                }
                format!("sickness of {name}")
            }
            6 => {
                if let Some(engine) = stage.project.engine_pid() {
                    let _ = rustix::process::kill_process(engine, rustix::process::Signal::KILL);
                }
                "end of the engine".to_owned()
            }
            7 => {
                stage.project.run(&["down", "-t", "0"]);
                self.sick.clear();
                "down".to_owned()
            }
            _ => "nothing".to_owned(),
        }
    }
}

struct Stage {
    project: support::Project,
}

impl Stage {
    fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_so(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns service, state and label of every container there is.
    fn world(&self) -> Vec<String> {
        let format = "{{.Service}} {{.State}} {{.Label \"v\"}}";
        let output = self.project.succeed(&["ps", "-a", "--format", format]);
        let mut lines: Vec<String> = output.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

/// Plays one story of `length` events.
fn play(seed: u64, length: usize) {
    let mut dice = Dice(seed);
    let mut model = Model {
        networks: BTreeMap::from([("n", 0), ("m", 0)]),
        ..Model::default()
    };
    for name in ["a", "b"] {
        let service = Service {
            replicas: 1,
            after: (name == "b").then(|| ("a".to_owned(), "service_started")),
            has_health: name == "a",
            network: Some("n"),
            ..Service::default()
        };
        model.services.insert(name.to_owned(), service);
    }
    let stage = Stage {
        project: support::Project::new(&[("compose.yaml", &model.file())]),
    };
    let up = ["--progress", "plain", "up", "-d", "-t", "0", "-y", "--remove-orphans"];
    let mut story = Vec::new();
    for _ in 0..length {
        story.push(model.happen(&stage, &mut dice));
        for _ in 0..=dice.roll(2) {
            story.push(model.edit(&mut dice));
        }
        stage.project.write("compose.yaml", &model.file());
        let mut first = stage.project.run(&up);
        let mut told = format!("seed {seed}, {story:#?}\n{}", model.file());
        if !first.status.success() && model.must_fail() {
            let err = text(&first.stderr);
            assert!(err.contains("is unhealthy"), "{told}\n{err}");
            // Somebody looks into it, and puts new ones in the place of the sick.
            let replace = ["up", "-d", "-t", "0", "-y", "--force-recreate", "--remove-orphans"];
            first = stage.project.run(&replace);
            model.sick.clear();
            told.push_str("then replaced\n");
        }
        assert!(first.status.success(), "{told}\n{}", text(&first.stderr));
        assert_eq!(stage.world(), model.containers(), "{told}\n{}", text(&first.stderr));
        let second = stage.project.run(&up);
        let second = text(&second.stderr);
        for word in ["Creat", "Recreat", "Start", "Stop", "Remov"] {
            assert!(!second.contains(word), "{told}\nthe second up: {second}");
        }
    }
    stage
        .project
        .succeed(&["--all-resources", "down", "-v", "-t", "0", "--remove-orphans"]);
    assert_eq!(stage.world(), Vec::<String>::new());
    assert_eq!(stage.project.succeed(&["volumes", "-q"]), "");
}

#[test]
fn up_makes_the_world_what_the_file_says_whatever_happened() {
    if !support::available("root, for the embedded engine", support::is_root()) {
        return;
    }
    if !support::extent(false, true) {
        for seed in [1, 20] {
            play(seed, 8);
        }
        return;
    }
    let number = |name: &str, default| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(default)
    };
    let first = number("COMPOSE_TEST_SEED", 100);
    for seed in first..first + number("COMPOSE_TEST_SEEDS", 20) {
        play(seed, 15);
    }
}
