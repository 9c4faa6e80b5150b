//! What a plan consists of: operations, each about one request to the engine, with what must be done before and why.

use std::fmt;

use super::observed::Container;
use super::reconcile::PlanError;

/// Operations in an order in which they could be done one after the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub operations: Vec<Operation>,
    /// What the user should know before anything is done.
    pub warnings: Vec<String>,
    /// Why the plan goes no further than its operations: what docker compose does before it finds this out is done.
    pub refusal: Option<PlanError>,
}

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    pub action: Action,
    /// Whom it is about: `service:web:1`, `network default`.
    pub subject: String,
    /// Why it is necessary.
    pub cause: String,
    /// The operations that must have succeeded before.
    pub after: Vec<usize>,
    pub stage: Stage,
}

/// A stage begins when the one before has succeeded as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Everything there must be.
    Create,
    /// Everything that must run.
    Start,
    /// What the user wants to see before the command returns.
    Wait,
}

/// A container that does not exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    pub service: String,
    pub number: u32,
    pub name: String,
}

/// A container that exists, or will.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    Existing(Container),
    /// The one that this operation of the plan creates.
    Created(usize, Replica),
}

impl Target {
    /// Returns the container's name, which it has at the latest when it starts.
    pub fn name(&self) -> &str {
        match self {
            Self::Existing(container) => &container.name,
            Self::Created(_, replica) => &replica.name,
        }
    }

    /// Returns the container's service.
    pub fn service(&self) -> &str {
        match self {
            Self::Existing(container) => &container.service,
            Self::Created(_, replica) => &replica.service,
        }
    }
}

/// What has to be true of a service's containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Every container's health check succeeds.
    Healthy,
    /// The same, where there is a health check; elsewhere the container runs.
    RunningOrHealthy,
    /// A container has ended with status 0.
    CompletedSuccessfully,
}

/// What is done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    CreateNetwork {
        key: String,
    },
    RemoveNetwork {
        id: String,
        name: String,
        /// Only its end is shown, as when a network is made anew.
        replaced: bool,
    },
    /// Lets a stopped container go of a network that is about to be made anew.
    Disconnect {
        network: String,
        container: Container,
    },
    /// Connects a stopped container to the network made anew.
    Connect {
        key: String,
        container: Container,
    },
    CreateVolume {
        key: String,
    },
    RemoveVolume {
        name: String,
        /// Not shown, as when a volume is made anew.
        replaced: bool,
    },
    RemoveImage {
        reference: String,
    },
    /// A container that is as it should be.
    Keep {
        container: Container,
    },
    Create {
        replica: Replica,
        /// The container whose place it takes, under a name of its own until that is gone.
        replaces: Option<Container>,
        /// Whether it takes over that container's anonymous volumes.
        inherit: bool,
    },
    /// Gives a new container the name of the one it replaced.
    Rename {
        created: usize,
        replica: Replica,
        replaced: String,
    },
    /// Runs a service's `pre_start` steps for the containers that are about to start.
    PreStart {
        service: String,
        targets: Vec<Target>,
        /// No container of the service runs: what runs once for all of them does so now.
        first: bool,
    },
    Start {
        target: Target,
    },
    /// Starts a container that is neither running nor stopped, such as one that is paused, while others are created:
    /// what the engine says of it ends the command.
    Revive {
        container: Container,
    },
    Stop {
        container: Container,
        timeout: Option<i64>,
        /// Not shown: it is part of a replacement.
        replaced: bool,
    },
    Remove {
        container: Container,
        force: bool,
        /// Its anonymous volumes too.
        volumes: bool,
        /// Not shown: it is part of a replacement.
        replaced: bool,
    },
    Restart {
        container: Container,
        timeout: Option<i64>,
    },
    Kill {
        container: Container,
        signal: String,
    },
    Pause {
        container: Container,
    },
    Unpause {
        container: Container,
    },
    /// Waits for a service; who waits is named where a missing container is reported.
    Wait {
        service: String,
        condition: Condition,
        /// Whether a failure is one of the command.
        required: bool,
        dependent: String,
    },
}

impl Action {
    fn name(&self) -> &'static str {
        match self {
            Self::CreateNetwork { .. } => "CreateNetwork",
            Self::RemoveNetwork { .. } => "RemoveNetwork",
            Self::Disconnect { .. } => "DisconnectNetwork",
            Self::Connect { .. } => "ConnectNetwork",
            Self::CreateVolume { .. } => "CreateVolume",
            Self::RemoveVolume { .. } => "RemoveVolume",
            Self::RemoveImage { .. } => "RemoveImage",
            Self::Keep { .. } => "Keep",
            Self::Create { .. } => "CreateContainer",
            Self::Rename { .. } => "RenameContainer",
            Self::PreStart { .. } => "RunPreStart",
            Self::Start { .. } => "StartContainer",
            Self::Revive { .. } => "ReviveContainer",
            Self::Stop { .. } => "StopContainer",
            Self::Remove { .. } => "RemoveContainer",
            Self::Restart { .. } => "RestartContainer",
            Self::Kill { .. } => "KillContainer",
            Self::Pause { .. } => "PauseContainer",
            Self::Unpause { .. } => "UnpauseContainer",
            Self::Wait { condition, .. } => match condition {
                Condition::Healthy => "WaitHealthy",
                Condition::RunningOrHealthy => "WaitRunning",
                Condition::CompletedSuccessfully => "WaitCompleted",
            },
        }
    }
}

impl Plan {
    /// Adds an operation and returns its index.
    pub fn add(
        &mut self,
        stage: Stage,
        action: Action,
        subject: impl Into<String>,
        cause: impl Into<String>,
        after: impl IntoIterator<Item = usize>,
    ) -> usize {
        let mut after: Vec<usize> = after.into_iter().collect();
        after.sort_unstable();
        after.dedup();
        self.operations.push(Operation {
            action,
            subject: subject.into(),
            cause: cause.into(),
            after,
            stage,
        });
        self.operations.len() - 1
    }

    /// Returns whether there is nothing to do. Keeping what is there is nothing.
    pub fn is_empty(&self) -> bool {
        self.operations
            .iter()
            .all(|operation| matches!(operation.action, Action::Keep { .. }))
    }
}

impl Plan {
    /// Returns the operations as text, one a line: what each waits for, whom it is about, what it does and why.
    pub fn operations_text(&self) -> String {
        let mut text = String::new();
        let mut stage = Stage::Create;
        for (index, operation) in self.operations.iter().enumerate() {
            if operation.stage != stage {
                stage = operation.stage;
                let name = if stage == Stage::Start { "start" } else { "wait" };
                text.push_str(&format!("-- {name}\n"));
            }
            let after: Vec<String> = operation.after.iter().map(|before| (before + 1).to_string()).collect();
            text.push_str(&format!(
                "[{}] -> #{} {}, {}, {}\n",
                after.join(","),
                index + 1,
                operation.subject,
                operation.action.name(),
                operation.cause
            ));
        }
        text
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for warning in &self.warnings {
            writeln!(formatter, "warning: {warning}")?;
        }
        formatter.write_str(&self.operations_text())?;
        match &self.refusal {
            Some(refusal) => writeln!(formatter, "refused: {refusal}"),
            None => Ok(()),
        }
    }
}
