//! Every command and every flag, each with the test that proves it.
//!
//! `proofs.txt` names them; `table` holds it against the declaration of the command line and against the tests
//! themselves, and writes the table people read: `COMPOSE_UPDATE=1 cargo test --test it -- commands::table`.

mod acting;
mod attached;
mod drop_in;
mod images;
mod listing;
mod one_off;
mod reading;
mod table;

use crate::support::{Project, available, is_root};

/// Two services, one of which needs the other.
const PAIR: &str = "\
services:
  db:
    image: rootfs:/
    command: sleep 300
    init: true
    stop_grace_period: 0s
    environment: {V: \"${V:-1}\"}
  web:
    image: rootfs:/
    command: sleep 300
    init: true
    stop_grace_period: 0s
    depends_on: [db]
";

/// Returns a project named `p` on an engine of its own, where this process may make containers.
fn containers(file: &str) -> Option<Project> {
    if !available("root, for the embedded engine", is_root()) {
        return None;
    }
    let mut project = Project::new(&[("compose.yaml", file)]);
    project.set("COMPOSE_PROJECT_NAME", "p");
    project.set("COMPOSE_PROGRESS", "plain");
    Some(project)
}

/// Returns the ids of a service's containers, running or not.
fn ids(project: &Project, service: &str) -> Vec<String> {
    let output = project.succeed(&["ps", "-a", "-q", "--no-trunc", service]);
    let mut ids: Vec<String> = output.lines().map(str::to_owned).collect();
    ids.sort();
    ids
}

/// Returns `name state` of every container.
fn states(project: &Project) -> Vec<String> {
    let output = project.succeed(&["ps", "-a", "--format", "{{.Name}} {{.State}}"]);
    output.lines().map(str::to_owned).collect()
}
