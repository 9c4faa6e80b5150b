//! What is planned for which change: the plan's text is the assertion.

use std::collections::BTreeSet;

use super::lifecycle::{self, DownOptions};
use super::observed::{Container, Image, Mounted, Network, Observed, State, Volume};
use super::reconcile::{Options, Orphans, PlanError, Recreate, reconcile};
use crate::client::labels;
use crate::model::hash::{network_hash, service_hash, volume_hash};
use crate::model::{self, Dependency, Mount, Project, Service};

/// A project `p` of services with the image `i` in the network `default`.
fn project(names: &[&str]) -> Project {
    let mut project = Project {
        name: "p".into(),
        ..Project::default()
    };
    for name in names {
        project.services.insert(
            (*name).into(),
            Service {
                name: (*name).into(),
                image: "i".into(),
                networks: [("default".to_owned(), None)].into(),
                ..Service::default()
            },
        );
    }
    project.networks.insert(
        "default".into(),
        model::Network {
            name: "p_default".into(),
            ..model::Network::default()
        },
    );
    project
}

fn depend(project: &mut Project, service: &str, on: &str, condition: &str) {
    project.services.get_mut(service).unwrap().depends_on.insert(
        on.into(),
        Dependency {
            condition: condition.into(),
            required: true,
            ..Dependency::default()
        },
    );
}

/// The engine after a successful `up` of the project.
fn observed(project: &Project) -> Observed {
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut observed = Observed::default();
    observed.images.insert(
        "i".into(),
        Image {
            id: "sha256:1".into(),
            ..Image::default()
        },
    );
    for (key, network) in &project.networks {
        observed.networks.push(Network {
            id: format!("id-{key}"),
            name: network.name.clone(),
            labels: [
                label(labels::PROJECT, "p"),
                label(labels::NETWORK, key),
                label(labels::CONFIG_HASH, &network_hash(network)),
            ]
            .into(),
        });
    }
    for (key, volume) in &project.volumes {
        observed.volumes.push(Volume {
            name: volume.name.clone(),
            labels: [
                label(labels::PROJECT, "p"),
                label(labels::VOLUME, key),
                label(labels::CONFIG_HASH, &volume_hash(volume)),
            ]
            .into(),
        });
    }
    for service in project.services.values() {
        for number in 1..=u32::try_from(service.replicas()).unwrap() {
            observed.containers.push(container(project, service, number));
        }
    }
    observed
}

fn container(project: &Project, service: &Service, number: u32) -> Container {
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Container {
        id: format!("{}{number}-0123456789abcdef", service.name),
        name: format!("p-{}-{number}", service.name),
        service: service.name.clone(),
        number: Some(number),
        state: State::Running,
        labels: [
            label(labels::CONFIG_HASH, &service_hash(service)),
            label(labels::IMAGE_DIGEST, "sha256:1"),
            label(labels::CONTAINER_NUMBER, &number.to_string()),
        ]
        .into(),
        networks: service
            .networks
            .keys()
            .map(|key| (project.networks[key].name.clone(), format!("id-{key}")))
            .collect(),
        mounts: service
            .volumes
            .iter()
            .filter_map(|mount| project.volumes.get(&mount.source))
            .map(|volume| Mounted {
                kind: "volume".into(),
                name: volume.name.clone(),
                ..Mounted::default()
            })
            .collect(),
        ..Container::default()
    }
}

fn plan(project: &Project, observed: &Observed, options: &Options) -> String {
    reconcile(project, observed, options, &mut |question| {
        panic!("nothing is to be asked: {question}")
    })
    .map_or_else(|error| format!("{error}"), |plan| plan.to_string())
}

/// Without the lines for containers that are as they should be.
fn changes(plan: &str) -> String {
    plan.lines()
        .filter(|line| !line.contains(", Keep, "))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn named(services: &[&str]) -> BTreeSet<String> {
    services.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_first_up_makes_the_network_then_containers_then_starts_in_order() {
    let mut project = project(&["db", "web"]);
    depend(&mut project, "web", "db", "service_healthy");
    insta::assert_snapshot!(plan(&project, &Observed::default(), &Options::default()), @r"
    [] -> #1 network default, CreateNetwork, not found
    [1] -> #2 service:db:1, CreateContainer, no existing container
    [1] -> #3 service:web:1, CreateContainer, no existing container
    -- start
    [] -> #4 service:db:1, StartContainer, created
    [4] -> #5 service:db, WaitHealthy, web waits for it
    [5] -> #6 service:web:1, StartContainer, created
    ");
}

#[test]
fn a_second_up_does_nothing() {
    let mut project = project(&["db", "web"]);
    project.services.get_mut("web").unwrap().set_replicas(2);
    let observed = observed(&project);
    let plan = reconcile(&project, &observed, &Options::default(), &mut |_| false).unwrap();
    assert!(plan.is_empty(), "{plan}");
    assert_eq!(plan.operations.len(), 3);
}

#[test]
fn replicas_that_are_too_many_go_highest_number_first_but_outdated_ones_before() {
    let mut project = project(&["web"]);
    project.services.get_mut("web").unwrap().set_replicas(3);
    let mut observed = observed(&project);
    observed.containers[0]
        .labels
        .insert(labels::CONFIG_HASH.into(), "old".into());
    project.services.get_mut("web").unwrap().set_replicas(1);
    insta::assert_snapshot!(plan(&project, &observed, &Options::default()), @r"
    [] -> #1 service:web:2, Keep, up to date
    [] -> #2 service:web:3, StopContainer, scale down
    [2] -> #3 service:web:3, RemoveContainer, scale down
    [] -> #4 service:web:1, StopContainer, scale down
    [4] -> #5 service:web:1, RemoveContainer, scale down
    ");
}

#[test]
fn gaps_between_replicas_are_not_filled() {
    let mut project = project(&["web"]);
    project.services.get_mut("web").unwrap().set_replicas(3);
    let mut observed = observed(&project);
    observed.containers.remove(1);
    insta::assert_snapshot!(changes(&plan(&project, &observed, &Options::default())), @r"
    [] -> #3 service:web:4, CreateContainer, no existing container
    -- start
    [] -> #4 service:web:4, StartContainer, created
    ");
}

#[test]
fn a_changed_service_is_made_beside_the_old_one_and_takes_its_name() {
    let mut project = project(&["web"]);
    let observed = observed(&project);
    project.services.get_mut("web").unwrap().hostname = "other".into();
    insta::assert_snapshot!(plan(&project, &observed, &Options::default()), @r"
    [] -> #1 service:web:1, CreateContainer, configuration changed
    [1] -> #2 service:web:1, StopContainer, replaced by #1
    [2] -> #3 service:web:1, RemoveContainer, replaced by #1
    [3] -> #4 service:web:1, RenameContainer, takes the name
    -- start
    [] -> #5 service:web:1, StartContainer, created
    ");
}

#[test]
fn every_reason_to_replace_a_container_is_told() {
    let mut project = project(&["web"]);
    project.volumes.insert(
        "data".into(),
        model::Volume {
            name: "p_data".into(),
            ..model::Volume::default()
        },
    );
    project.services.get_mut("web").unwrap().volumes.push(Mount {
        r#type: "volume".into(),
        source: "data".into(),
        target: "/data".into(),
        ..Mount::default()
    });
    let up = observed(&project);
    let cause = |change: &dyn Fn(&mut Observed, &mut Options)| {
        let (mut observed, mut options) = (up.clone(), Options::default());
        change(&mut observed, &mut options);
        let plan = plan(&project, &observed, &options);
        plan.lines().next().unwrap().rsplit(", ").next().unwrap().to_owned()
    };
    assert_eq!(cause(&|_, _| {}), "up to date");
    assert_eq!(cause(&|_, options| options.recreate = Recreate::Always), "forced");
    assert_eq!(
        cause(&|observed, _| observed.images.get_mut("i").unwrap().id = "sha256:2".into()),
        "image changed"
    );
    assert_eq!(
        cause(&|observed, _| observed.containers[0].networks.clear()),
        "not connected to network default"
    );
    assert_eq!(
        cause(&|observed, _| observed.containers[0].mounts.clear()),
        "volume data is not mounted"
    );
    assert_eq!(
        cause(&|observed, options| {
            observed.containers[0].labels.clear();
            options.recreate = Recreate::Never;
        }),
        "up to date"
    );
}

#[test]
fn dependencies_that_came_along_have_a_strategy_of_their_own() {
    let mut project = project(&["db", "web"]);
    depend(&mut project, "web", "db", "service_started");
    let observed = observed(&project);
    let options = Options {
        services: named(&["web"]),
        recreate: Recreate::Always,
        ..Options::default()
    };
    let forced = changes(&plan(&project, &observed, &options));
    assert!(forced.contains("service:web:1, CreateContainer, forced"), "{forced}");
    assert!(!forced.contains("service:db"), "{forced}");
}

#[test]
fn who_wants_to_restart_with_a_service_is_stopped_before_it_is_replaced() {
    let mut project = project(&["db", "web"]);
    depend(&mut project, "web", "db", "service_started");
    project
        .services
        .get_mut("web")
        .unwrap()
        .depends_on
        .get_mut("db")
        .unwrap()
        .restart = true;
    let observed = observed(&project);
    project.services.get_mut("db").unwrap().hostname = "other".into();
    insta::assert_snapshot!(plan(&project, &observed, &Options::default()), @r"
    [] -> #1 service:web:1, StopContainer, restarts with db
    [1] -> #2 service:db:1, CreateContainer, configuration changed
    [2] -> #3 service:db:1, StopContainer, replaced by #2
    [3] -> #4 service:db:1, RemoveContainer, replaced by #2
    [4] -> #5 service:db:1, RenameContainer, takes the name
    -- start
    [] -> #6 service:db:1, StartContainer, created
    [6] -> #7 service:web:1, StartContainer, not running
    ");
}

#[test]
fn a_changed_network_is_made_anew_while_its_containers_are_stopped() {
    let mut project = project(&["web"]);
    let observed = observed(&project);
    project
        .networks
        .get_mut("default")
        .unwrap()
        .labels
        .insert("x".into(), "1".into());
    insta::assert_snapshot!(plan(&project, &observed, &Options::default()), @r"
    [] -> #1 service:web:1, StopContainer, network default changed
    [1] -> #2 service:web:1, DisconnectNetwork, network default changed
    [2] -> #3 network default, RemoveNetwork, configuration changed
    [3] -> #4 network default, CreateNetwork, configuration changed
    [4] -> #5 service:web:1, ConnectNetwork, network default changed
    -- start
    [] -> #6 service:web:1, StartContainer, not running
    ");
}

#[test]
fn a_changed_volume_is_made_anew_only_if_the_user_agrees() {
    let mut project = project(&["web"]);
    project.volumes.insert(
        "data".into(),
        model::Volume {
            name: "p_data".into(),
            ..model::Volume::default()
        },
    );
    project.services.get_mut("web").unwrap().volumes.push(Mount {
        r#type: "volume".into(),
        source: "data".into(),
        target: "/data".into(),
        ..Mount::default()
    });
    let observed = observed(&project);
    project
        .volumes
        .get_mut("data")
        .unwrap()
        .labels
        .insert("x".into(), "1".into());
    let mut question = String::new();
    let kept = reconcile(&project, &observed, &Options::default(), &mut |text| {
        question = text.to_owned();
        false
    });
    assert!(kept.unwrap().is_empty());
    assert_eq!(
        question,
        "Volume \"p_data\" exists but doesn't match configuration in compose file. Recreate (data will be lost)?"
    );
    let renewed = reconcile(&project, &observed, &Options::default(), &mut |_| true).unwrap();
    insta::assert_snapshot!(renewed, @r"
    [] -> #1 service:web:1, StopContainer, volume data changed
    [1] -> #2 service:web:1, RemoveContainer, volume data changed
    [2] -> #3 volume data, RemoveVolume, configuration changed
    [3] -> #4 volume data, CreateVolume, configuration changed
    [2,4] -> #5 service:web:1, CreateContainer, no existing container
    -- start
    [] -> #6 service:web:1, StartContainer, created
    ");
}

#[test]
fn orphans_are_warned_of_or_removed() {
    let mut project = project(&["web", "gone"]);
    let observed = observed(&project);
    project.services.remove("gone");
    let warned = plan(&project, &observed, &Options::default());
    assert!(warned.starts_with("warning: Found orphan containers ([p-gone-1]) for this project."));
    let options = Options {
        orphans: Orphans::Remove,
        ..Options::default()
    };
    insta::assert_snapshot!(changes(&plan(&project, &observed, &options)), @r"
    [] -> #1 service:gone:1, StopContainer, orphan
    [1] -> #2 service:gone:1, RemoveContainer, orphan
    ");
    let disabled = Service {
        name: "gone".into(),
        ..Service::default()
    };
    project.disabled_services.insert("gone".into(), disabled);
    assert_eq!(changes(&plan(&project, &observed, &Options::default())), "");
}

#[test]
fn a_container_that_shares_a_namespace_follows_its_provider() {
    let mut project = project(&["app", "vpn"]);
    let app = project.services.get_mut("app").unwrap();
    app.networks.clear();
    app.network_mode = "service:vpn".into();
    let mut observed = observed(&project);
    // The hash on the container is taken with the provider's id in place.
    let mut resolved = project.services["app"].clone();
    resolved.network_mode = "container:vpn1-0123456789abcdef".into();
    observed.containers[0]
        .labels
        .insert(labels::CONFIG_HASH.into(), service_hash(&resolved));
    assert_eq!(changes(&plan(&project, &observed, &Options::default())), "");
    project.services.get_mut("vpn").unwrap().hostname = "other".into();
    let followed = plan(&project, &observed, &Options::default());
    assert!(
        followed.contains("[4] -> #5 service:app:1, CreateContainer, network namespace of vpn, whose container is new"),
        "{followed}"
    );
    project.services.remove("vpn");
    observed.containers.retain(|container| container.service == "app");
    assert_eq!(
        plan(&project, &observed, &Options::default()),
        "cannot share network namespace with service vpn: container missing"
    );
}

#[test]
fn a_container_that_neither_runs_nor_stands_is_started_at_once() {
    let project = project(&["web"]);
    let mut observed = observed(&project);
    observed.containers[0].state = State::Paused;
    assert_eq!(
        plan(&project, &observed, &Options::default()),
        "[] -> #1 service:web:1, ReviveContainer, neither runs nor stands\n-- start\n\
         [] -> #2 service:web:1, StartContainer, not running\n"
    );
}

#[test]
fn a_network_of_nobody_knows_whom_is_warned_of_before_it_is_refused() {
    let project = project(&["web"]);
    let mut observed = observed(&project);
    observed.networks[0].labels.clear();
    assert_eq!(
        plan(&project, &observed, &Options::default()),
        "warning: a network with name p_default exists but was not created by compose.\nSet `external: true` to use an \
         existing network\nrefused: network p_default was found but has incorrect label com.docker.compose.network set to \
         \"\" (expected: \"default\")\n"
    );
}

#[test]
fn what_is_external_must_be_there() {
    let mut with_network = project(&["web"]);
    with_network.networks.get_mut("default").unwrap().external = true;
    assert_eq!(
        plan(&with_network, &Observed::default(), &Options::default()),
        "network p_default declared as external, but could not be found"
    );
    let mut with_volume = project(&["web"]);
    with_volume.volumes.insert(
        "data".into(),
        model::Volume {
            name: "outside".into(),
            external: true,
            ..model::Volume::default()
        },
    );
    assert_eq!(
        plan(&with_volume, &Observed::default(), &Options::default()),
        "[] -> #1 network default, CreateNetwork, not found\nrefused: external volume \"outside\" not found\n"
    );
}

#[test]
fn names_of_containers_are_unique() {
    let mut project = project(&["a", "b"]);
    for service in project.services.values_mut() {
        service.container_name = "same".into();
    }
    assert_eq!(
        plan(&project, &Observed::default(), &Options::default()),
        "services.b: container name \"same\" is already in use by service a"
    );
    project.services.remove("a");
    project.services.get_mut("b").unwrap().set_replicas(2);
    let plan = reconcile(&project, &Observed::default(), &Options::default(), &mut |_| false).unwrap();
    assert!(matches!(plan.refusal, Some(PlanError::ScaledContainerName { .. })));
    assert_eq!(
        plan.operations_text(),
        "[] -> #1 network default, CreateNetwork, not found\n",
        "what is around containers is made, and none of them"
    );
}

#[test]
fn waiting_for_everything_is_the_last_stage() {
    let mut project = project(&["job", "web"]);
    depend(&mut project, "web", "job", "service_completed_successfully");
    let options = Options {
        wait: true,
        ..Options::default()
    };
    insta::assert_snapshot!(plan(&project, &Observed::default(), &options), @r"
    [] -> #1 network default, CreateNetwork, not found
    [1] -> #2 service:job:1, CreateContainer, no existing container
    [1] -> #3 service:web:1, CreateContainer, no existing container
    -- start
    [] -> #4 service:job:1, StartContainer, created
    [4] -> #5 service:job, WaitCompleted, web waits for it
    [5] -> #6 service:web:1, StartContainer, created
    -- wait
    [] -> #7 service:job, WaitCompleted, the user waits for it
    [] -> #8 service:web, WaitRunning, the user waits for it
    ");
}

#[test]
fn down_takes_dependents_first_and_what_is_shared_last() {
    let mut project = project(&["db", "web"]);
    depend(&mut project, "web", "db", "service_started");
    project.volumes.insert(
        "data".into(),
        model::Volume {
            name: "p_data".into(),
            ..model::Volume::default()
        },
    );
    let observed = observed(&project);
    let options = DownOptions {
        volumes: true,
        ..DownOptions::default()
    };
    insta::assert_snapshot!(lifecycle::down(&project, &observed, &options).unwrap(), @r"
    [] -> #1 service:web:1, StopContainer, down
    [1] -> #2 service:web:1, RemoveContainer, down
    [2] -> #3 service:db:1, StopContainer, down
    [3] -> #4 service:db:1, RemoveContainer, down
    [2,4] -> #5 network default, RemoveNetwork, down
    [2,4] -> #6 volume data, RemoveVolume, down
    ");
}

#[test]
fn down_of_a_service_takes_its_dependents_too() {
    let mut project = project(&["db", "other", "web"]);
    depend(&mut project, "web", "db", "service_started");
    let observed = observed(&project);
    let options = DownOptions {
        services: named(&["db"]),
        ..DownOptions::default()
    };
    let plan = lifecycle::down(&project, &observed, &options).unwrap().to_string();
    assert!(plan.contains("service:web:1") && plan.contains("service:db:1") && !plan.contains("other"));
}

#[test]
fn stop_of_a_service_stops_it_alone() {
    let mut project = project(&["db", "web"]);
    depend(&mut project, "web", "db", "service_started");
    let observed = observed(&project);
    insta::assert_snapshot!(
        lifecycle::stop(&project, &observed, &named(&["db"]), None).unwrap(),
        @"[] -> #1 service:db:1, StopContainer, stop"
    );
    insta::assert_snapshot!(lifecycle::stop(&project, &observed, &named(&[]), None).unwrap(), @r"
    [] -> #1 service:web:1, StopContainer, stop
    [1] -> #2 service:db:1, StopContainer, stop
    ");
}

#[test]
fn restart_brings_along_who_wants_to_be() {
    let mut project = project(&["db", "web", "worker"]);
    depend(&mut project, "web", "db", "service_started");
    depend(&mut project, "worker", "db", "service_started");
    project
        .services
        .get_mut("web")
        .unwrap()
        .depends_on
        .get_mut("db")
        .unwrap()
        .restart = true;
    let observed = observed(&project);
    insta::assert_snapshot!(
        lifecycle::restart(&project, &observed, &named(&["db"]), false, None).unwrap(),
        @r"
    -- start
    [] -> #1 service:db:1, RestartContainer, restart
    [1] -> #2 service:web:1, RestartContainer, restart
    "
    );
    insta::assert_snapshot!(
        lifecycle::restart(&project, &observed, &named(&["db"]), true, None).unwrap(),
        @r"
    -- start
    [] -> #1 service:db:1, RestartContainer, restart
    "
    );
}

#[test]
fn replicas_with_a_range_of_ports_start_one_by_one() {
    let mut project = project(&["web"]);
    let web = project.services.get_mut("web").unwrap();
    web.set_replicas(2);
    web.ports.push(model::Port {
        target: 80,
        published: "8080-8081".into(),
        ..model::Port::default()
    });
    insta::assert_snapshot!(plan(&project, &Observed::default(), &Options::default()), @r"
    [] -> #1 network default, CreateNetwork, not found
    [1] -> #2 service:web:1, CreateContainer, no existing container
    [1] -> #3 service:web:2, CreateContainer, no existing container
    -- start
    [] -> #4 service:web:1, StartContainer, created
    [4] -> #5 service:web:2, StartContainer, created
    ");
}
