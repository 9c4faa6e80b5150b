//! The order in which services start, and what is waited for on the way.

use std::collections::BTreeMap;

use super::{PlanError, Reconciler, condition};
use crate::model::Service;
use crate::plan::observed::State;
use crate::plan::operation::{Action, Condition, Stage, Target};

/// The operations that start each service, and those that wait for one.
#[derive(Default)]
pub(super) struct Starts {
    of: BTreeMap<String, Vec<usize>>,
    waits: BTreeMap<(String, Condition, bool), usize>,
}

impl Reconciler<'_> {
    pub(super) fn start(&mut self, service: &Service, starts: &mut Starts) -> Result<(), PlanError> {
        if service.replicas() == 0 {
            return Ok(());
        }
        let mut after = Vec::new();
        for (dependency, how) in &service.depends_on {
            let Some(target) = self.project.services.get(dependency) else {
                if how.required && !self.project.disabled_services.contains_key(dependency) {
                    return Err(PlanError::UnknownDependency(dependency.clone()));
                }
                continue;
            };
            // What a provider provides is there by now.
            if target.provider.is_some() {
                continue;
            }
            let started = starts.of.get(dependency).cloned().unwrap_or_default();
            let Some(condition) = condition(&how.condition).filter(|_| target.replicas() > 0) else {
                after.extend(started);
                continue;
            };
            let wait = *starts
                .waits
                .entry((dependency.clone(), condition, how.required))
                .or_insert_with(|| {
                    let wait = Action::Wait {
                        service: dependency.clone(),
                        condition,
                        required: how.required,
                        dependent: service.name.clone(),
                    };
                    let cause = format!("{} waits for it", service.name);
                    self.plan
                        .add(Stage::Start, wait, format!("service:{dependency}"), cause, started)
                });
            after.push(wait);
        }
        if self.containers.values().all(Vec::is_empty) {
            return Err(PlanError::NothingToStart(service.name.clone()));
        }
        // Of a range of ports each replica takes the first that is free, so they come one after the other.
        let one_by_one = service.ports.iter().any(|port| port.published.contains('-'));
        if let Some(steps) = self.pre_start(service, &after) {
            after.push(steps);
        }
        // Who waits for this service waits for what it waits for too.
        let mut operations = after.clone();
        for target in self.containers.get(&service.name).into_iter().flatten() {
            let (number, cause) = match target {
                Target::Existing(container) if container.state == State::Running => continue,
                Target::Existing(container) => (container.number.unwrap_or(1), "not running"),
                Target::Created(_, replica) => (replica.number, "created"),
            };
            let subject = format!("service:{}:{number}", service.name);
            let start = Action::Start { target: target.clone() };
            let start = self.plan.add(Stage::Start, start, subject, cause, after.clone());
            operations.push(start);
            if one_by_one {
                after.push(start);
            }
        }
        starts.of.insert(service.name.clone(), operations);
        Ok(())
    }

    /// Adds the operation that runs the service's `pre_start` steps, if any have to run now.
    fn pre_start(&mut self, service: &Service, after: &[usize]) -> Option<usize> {
        let is_running =
            |target: &Target| matches!(target, Target::Existing(container) if container.state == State::Running);
        let all = self.containers.get(&service.name)?;
        let targets: Vec<Target> = all.iter().filter(|target| !is_running(target)).cloned().collect();
        let first = targets.len() == all.len();
        if targets.is_empty() || !service.pre_start.iter().any(|hook| first || hook.per_replica) {
            return None;
        }
        let steps = Action::PreStart {
            service: service.name.clone(),
            targets,
            first,
        };
        let subject = format!("service:{}", service.name);
        let after = after.iter().copied();
        Some(self.plan.add(Stage::Start, steps, subject, "before it starts", after))
    }

    /// `up --wait`: a service that others wait to complete is waited for until it completes.
    pub(super) fn await_service(&mut self, service: &Service) {
        if service.replicas() == 0 {
            return;
        }
        let completes = self.project.services.values().any(|dependent| {
            dependent
                .depends_on
                .get(&service.name)
                .is_some_and(|how| condition(&how.condition) == Some(Condition::CompletedSuccessfully))
        });
        let wait = Action::Wait {
            service: service.name.clone(),
            condition: if completes {
                Condition::CompletedSuccessfully
            } else {
                Condition::RunningOrHealthy
            },
            required: true,
            dependent: self.project.name.clone(),
        };
        self.plan.add(
            Stage::Wait,
            wait,
            format!("service:{}", service.name),
            "the user waits for it",
            [],
        );
    }
}
