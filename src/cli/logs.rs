//! `compose logs`: view output from containers.

use std::process::ExitCode;

use std::collections::{HashMap, HashSet};

use bollard::models::ContainerSummary;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::containers::{self, OneOff, id};
use super::{CommandError, Context, engine_time};
use crate::client::events::Event;
use crate::client::stream::Channel;
use crate::client::{ClientError, Engine, labels};
use crate::percent;
use crate::ui::logs::{Lines, LogSettings, Logs, Source, Target};
use crate::ui::stream;

/// View output from containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "logs [OPTIONS] [SERVICE...]")]
pub struct Args {
    /// Follow log output
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// index of the container if service has multiple replicas
    #[arg(long, value_name = "int", default_value_t = 0)]
    pub index: i64,
    /// Produce monochrome output
    #[arg(long)]
    pub no_color: bool,
    /// Don't print prefix in logs
    #[arg(long)]
    pub no_log_prefix: bool,
    /// Show logs since timestamp (e.g. 2013-01-02T13:23:37Z) or relative (e.g. 42m for 42 minutes)
    #[arg(long, value_name = "string")]
    pub since: Option<String>,
    /// Number of lines to show from the end of the logs for each container
    #[arg(short = 'n', long, value_name = "string", default_value = "all")]
    pub tail: String,
    /// Show timestamps
    #[arg(short = 't', long)]
    pub timestamps: bool,
    /// Show logs before a timestamp (e.g. 2013-01-02T13:23:37Z) or relative (e.g. 42m for 42 minutes)
    #[arg(long, value_name = "string")]
    pub until: Option<String>,
    #[arg(value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Shows what the project's containers wrote.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let scope = context.scope()?;
    if args.index > 0 && args.services.len() != 1 {
        return Err(CommandError::message("--index requires one service to be selected"));
    }
    scope.check_services(&args.services)?;
    // Not those that the file does not have, and those whose profile is off only by name.
    let services = match &scope.project {
        Some(project) if args.services.is_empty() => project.services.keys().cloned().collect(),
        _ => args.services,
    };
    let wanted = Wanted {
        project: scope.name,
        tail: args.tail.clone(),
        timestamps: args.timestamps,
        since: engine_time::parse("since", args.since.as_deref())?,
        until: engine_time::parse("until", args.until.as_deref())?,
        services,
        index: args.index,
    };
    let logs = Logs::new(LogSettings {
        colours: !args.no_color && context.ansi.allows(stream::out_is_terminal()),
        prefix: !args.no_log_prefix,
        // As docker compose's `logs`, other than its `up`.
        merged: true,
    });
    let engine = context.engine().await?;
    let result = tokio::select! {
        result = show(&engine, &wanted, &logs, args.follow) => result,
        _ = tokio::signal::ctrl_c() => Err(CommandError::interrupted()),
    };
    logs.end()?;
    result.map(|()| ExitCode::SUCCESS)
}

/// Which lines of which containers are wanted.
struct Wanted {
    project: String,
    services: Vec<String>,
    index: i64,
    tail: String,
    timestamps: bool,
    since: String,
    until: String,
}

impl Wanted {
    /// Returns the request for a container's log; `since` in place of what the user gave.
    fn request(&self, id: &str, follow: bool, since: Option<&str>) -> String {
        let (since, tail) = match since {
            Some(since) => (since, "all"),
            None => (self.since.as_str(), self.tail.as_str()),
        };
        let mut request = format!(
            "/containers/{id}/logs?stdout=1&stderr=1&follow={}&timestamps={}&tail={}",
            u8::from(follow),
            u8::from(self.timestamps),
            percent::encoded(tail),
        );
        // Podman takes no empty time.
        for (name, time) in [("since", since), ("until", &self.until)] {
            if !time.is_empty() {
                request.push_str(&format!("&{name}={}", percent::encoded(time)));
            }
        }
        request
    }

    async fn containers(&self, engine: &Engine) -> Result<Vec<ContainerSummary>, CommandError> {
        if let ([service], true) = (self.services.as_slice(), self.index > 0) {
            let one = containers::one(engine, &self.project, service, self.index, OneOff::Exclude, true);
            return Ok(vec![one.await?]);
        }
        containers::list(engine, &self.project, &self.services, OneOff::Exclude, true).await
    }

    /// Returns whether an event is about a container whose lines are wanted.
    fn includes(&self, event: &Event) -> bool {
        let is = |name: &str, value: &str| event.attribute(name) == Some(value);
        !is(labels::ONE_OFF, "True")
            && (self.services.is_empty() || self.services.iter().any(|service| is(labels::SERVICE, service)))
            && (self.index == 0 || is(labels::CONTAINER_NUMBER, &self.index.to_string()))
    }
}

async fn show(engine: &Engine, wanted: &Wanted, logs: &Logs, follow: bool) -> Result<(), CommandError> {
    if follow {
        return Follower::run(engine, wanted, logs).await;
    }
    let containers = wanted.containers(engine).await?;
    let named: Vec<(&ContainerSummary, Source)> = containers
        .iter()
        .map(|container| (container, logs.source(containers::short_name(container))))
        .collect();
    for (container, source) in named {
        copy(
            engine,
            id(container),
            &wanted.request(id(container), false, None),
            logs,
            source,
        )
        .await?;
    }
    Ok(())
}

/// Copies one container's log to its end.
async fn copy(engine: &Engine, id: &str, request: &str, logs: &Logs, source: Source) -> Result<(), CommandError> {
    let has_no_terminal = async || {
        let inspected = engine
            .docker
            .inspect_container(id, None)
            .await
            .map_err(ClientError::from)?;
        Ok(inspected.config.and_then(|config| config.tty) != Some(true))
    };
    let mut output = engine.log(request, has_no_terminal).await?;
    let mut lines = Lines::new(source);
    while output.receive().await? {
        while let Some((channel, piece)) = output.next_piece() {
            lines.push(logs, target(channel), &piece)?;
        }
        logs.flush()?;
    }
    lines.finish(logs)?;
    Ok(logs.flush()?)
}

fn target(channel: Channel) -> Target {
    match channel {
        Channel::Out => Target::Out,
        Channel::Err => Target::Err,
    }
}

/// Follows containers that come and go, until none runs any more.
struct Follower<'a> {
    engine: &'a Engine,
    wanted: &'a Wanted,
    logs: &'a Logs,
    /// Containers whose log is being read.
    streaming: HashSet<String>,
    /// Exit codes of containers whose log has not been read to its end yet.
    exited: HashMap<String, i64>,
    /// Containers whose log has ended and whose exit has not been told yet.
    ended: HashMap<String, Source>,
    /// Containers that the engine starts again.
    restarting: HashSet<String>,
    /// Containers that have been started again while the log of their last run is still being read, with the name that
    /// is shown for them.
    again: HashMap<String, String>,
    /// From when on the next log of a container is new: what it wrote before has been shown, or was not asked for.
    shown_until: HashMap<String, i64>,
}

impl<'a> Follower<'a> {
    async fn run(engine: &'a Engine, wanted: &'a Wanted, logs: &'a Logs) -> Result<(), CommandError> {
        // Before the list is asked for, so that nothing happens in between.
        let mut events = engine.container_events(&wanted.project).await?;
        let mut follower = Self {
            engine,
            wanted,
            logs,
            streaming: HashSet::new(),
            exited: HashMap::new(),
            ended: HashMap::new(),
            restarting: HashSet::new(),
            again: HashMap::new(),
            shown_until: HashMap::new(),
        };
        let began = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0);
        let mut copies = FuturesUnordered::new();
        let containers = wanted.containers(engine).await?;
        for container in &containers {
            logs.source(containers::short_name(container));
        }
        for container in &containers {
            let runs = matches!(
                super::ps_row::state(container).as_str(),
                "running" | "paused" | "restarting"
            );
            if runs {
                follower.streaming.insert(id(container).to_owned());
            }
            follower.shown_until.insert(id(container).to_owned(), began);
            let name = containers::short_name(container).to_owned();
            copies.push(follower.copy(id(container).to_owned(), name, None));
        }
        loop {
            if copies.is_empty() && follower.ended.is_empty() && follower.restarting.is_empty() {
                return Ok(());
            }
            tokio::select! {
                Some(copied) = copies.next() => {
                    let (id, source, result) = copied;
                    // A container that is removed takes its log along.
                    match result {
                        Err(error) if !follower.exited.contains_key(&id) => return Err(error),
                        _ => follower.log_ended(id.clone(), source).await?,
                    }
                    if let Some(name) = follower.again.remove(&id) {
                        let since = follower.started(&id);
                        copies.push(follower.copy(id, name, Some(since)));
                    }
                }
                event = events.next() => match event {
                    None => return Ok(()),
                    Some(event) => {
                        if let Some((id, name)) = follower.take(event?).await? {
                            let since = follower.started(&id);
                            copies.push(follower.copy(id, name, Some(since)));
                        }
                    }
                }
            }
        }
    }

    /// Reads the log of a container from `since`, or as the user asked.
    fn copy(
        &self,
        id: String,
        name: String,
        since: Option<String>,
    ) -> impl Future<Output = (String, Source, Result<(), CommandError>)> + use<'a> {
        let (engine, logs) = (self.engine, self.logs);
        let source = logs.source(&name);
        let request = self.wanted.request(&id, true, since.as_deref());
        async move {
            let result = copy(engine, &id, &request, logs, source).await;
            (id, source, result)
        }
    }

    /// Notes that a container's log is read from now on, and returns from when it is new.
    fn started(&mut self, id: &str) -> String {
        self.restarting.remove(id);
        self.streaming.insert(id.to_owned());
        // Not the time of the start: a quick container has written its first lines by then.
        let since = self.shown_until.get(id).copied().unwrap_or(0);
        format!("{}.{:09}", since / 1_000_000_000, since % 1_000_000_000)
    }

    /// Notes what happened; returns the container whose log is to be read from now on, if one has started.
    async fn take(&mut self, event: Event) -> Result<Option<(String, String)>, CommandError> {
        if !self.wanted.includes(&event) {
            return Ok(None);
        }
        let container = event.actor.id.clone();
        match event.action.as_str() {
            "start" => {
                self.restarting.remove(&container);
                let name = short_name(&event);
                if !self.streaming.contains(&container) {
                    return Ok(Some((container, name)));
                }
                if self.exited.contains_key(&container) {
                    self.again.insert(container, name);
                }
            }
            "die" => {
                self.exited.insert(container.clone(), event.exit_code().unwrap_or(0));
                self.shown_until.insert(container.clone(), event.time_nano);
                if let Some(source) = self.ended.remove(&container) {
                    self.tell_exit(container, source).await?;
                }
            }
            "stop" | "kill" | "destroy" => {
                self.restarting.remove(&container);
            }
            _ => {}
        }
        Ok(None)
    }

    /// Tells a container's exit once its last line has been shown.
    async fn log_ended(&mut self, id: String, source: Source) -> Result<(), CommandError> {
        if !self.streaming.contains(&id) {
            // It had ended before we began.
            return Ok(());
        }
        if self.exited.contains_key(&id) {
            return self.tell_exit(id, source).await;
        }
        self.ended.insert(id, source);
        Ok(())
    }

    async fn tell_exit(&mut self, id: String, source: Source) -> Result<(), CommandError> {
        self.streaming.remove(&id);
        let code = self.exited.remove(&id).unwrap_or(0);
        let inspected = self.engine.docker.inspect_container(&id, None).await.ok();
        let state = inspected.and_then(|inspected| inspected.state).unwrap_or_default();
        let restarts = state.restarting == Some(true) || state.running == Some(true);
        let again = if restarts { " (restarting)" } else { "" };
        self.logs.status(source, &format!("exited with code {code}{again}"))?;
        if restarts {
            self.restarting.insert(id);
        }
        Ok(())
    }
}

/// Returns the name that logs show for the container of an event.
fn short_name(event: &Event) -> String {
    let container = ContainerSummary {
        names: event.attribute("name").map(|name| vec![format!("/{name}")]),
        labels: Some(event.actor.attributes.clone()),
        ..ContainerSummary::default()
    };
    containers::short_name(&container).to_owned()
}
