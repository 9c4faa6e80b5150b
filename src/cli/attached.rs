//! `up` that stays: shows what containers write, tells their ends, and stops them when the user has enough.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::converge::Converge;
use super::lifecycle::with_picture;
use super::menu::{Menu, Wish};
use super::watching::Watching;
use super::{CommandError, Context};
use crate::client::events::Event;
use crate::client::stream::{Channel, Frames};
use crate::client::{ClientError, Engine, labels};
use crate::plan::observed::{self, Container, Observed, State};
use crate::plan::{Action, Execution, Stage, lifecycle};
use crate::ui::logs::{Lines, Logs, Source, Target};
use crate::ui::{Progress, stream};

/// How long after a container's end its last lines may take to arrive.
const LAST_LINES: Duration = Duration::from_secs(2);

/// What the user wants to see, and when it is over.
pub struct Wishes {
    /// The services whose output is shown.
    pub attached: BTreeSet<String>,
    /// The services whose containers are waited for.
    pub monitored: BTreeSet<String>,
    /// The services the user named: those that are stopped at the end; none: all.
    pub services: BTreeSet<String>,
    pub timestamps: bool,
    pub timeout: Option<i64>,
    pub cascade: Cascade,
    pub exit_code_from: Option<String>,
    /// Keys are listened to.
    pub menu: bool,
}

/// What happens to the project's files while its output is shown.
pub struct Watch<'w> {
    /// Nothing where the project has no rules.
    pub watching: Option<&'w Watching<'w>>,
    /// Begin with it, rather than when the user asks for it.
    pub is_on: bool,
}

/// Which end of a container ends everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cascade {
    None,
    Exit,
    Failure,
}

/// Why everything is being stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// A container ended.
    Cascade,
    /// The user wants it.
    User,
}

/// An attached `up`.
pub struct Session<'s> {
    context: &'s Context,
    converge: &'s Converge,
    logs: &'s Arc<Logs>,
    wishes: &'s Wishes,
    /// Containers that run or are going to.
    alive: BTreeSet<String>,
    /// Containers that have been started.
    started: BTreeSet<String>,
    followed: BTreeMap<String, Followed>,
    readers: JoinSet<()>,
    /// Told by a reader when a container's output has ended.
    ended: mpsc::UnboundedSender<OutputEnd>,
    /// How many readers there have been.
    reader_count: u64,
    status: i64,
    chosen_status: Option<i64>,
    stopping: Stopping,
}

/// The end of a container's output, as far as one reader saw it.
struct OutputEnd {
    id: String,
    reader: u64,
}

/// What is known of a container whose output is shown.
struct Followed {
    source: Source,
    tty: bool,
    /// Who reads it (last).
    reader: u64,
    is_reading: bool,
    /// The output ended before the container was known to have started.
    is_read: bool,
    /// Its end, to be told after its last line.
    end: Option<String>,
    /// When it ended last, in nanoseconds since 1970: what it writes after that has not been shown.
    shown_until: i64,
    /// When the last line that was shown was written, where the engine says it.
    last_line: Arc<AtomicI64>,
    /// It has been started again since, and what it writes now is read after its end has been told.
    again: Option<Event>,
}

/// A watch that is on, and how it is asked to end.
type On<'w> = (Work<'w>, CancellationToken);

/// Runs the watch that is on.
async fn watched(on: &mut Option<On<'_>>) -> Result<(), CommandError> {
    match on {
        Some((run, _)) => run.await,
        None => std::future::pending().await,
    }
}

type Work<'w> = Pin<Box<dyn Future<Output = Result<(), CommandError>> + 'w>>;

impl<'s> Session<'s> {
    /// Starts the containers and stays until all have ended.
    pub async fn run(
        context: &'s Context,
        converge: &'s Converge,
        execution: &Execution<'_>,
        logs: &'s Arc<Logs>,
        wishes: &'s Wishes,
        watch: Watch<'s>,
    ) -> Result<ExitCode, CommandError> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // Before anything starts, so that no end goes unseen.
        let mut events = converge.engine.container_events(&converge.project.name).await?;
        let (ended, mut ends) = mpsc::unbounded_channel();
        let mut session = Session {
            context,
            converge,
            logs,
            wishes,
            alive: BTreeSet::new(),
            started: BTreeSet::new(),
            followed: BTreeMap::new(),
            readers: JoinSet::new(),
            ended,
            reader_count: 0,
            status: 0,
            chosen_status: None,
            stopping: Stopping::No,
        };
        session.attach_all(execution.containers()).await?;
        let quiet = Progress::quiet();
        let mut starting = pin!(execution.run(Stage::Start, &quiet));
        let mut is_starting = true;
        let mut works: FuturesUnordered<Work<'_>> = FuturesUnordered::new();
        let mut signals = 0;
        let mut on = None;
        let mut menu = match wishes.menu {
            true => Menu::show(logs)?,
            false => None,
        };
        let mut detaches = false;
        // While files are watched, a container that ended may be restarted by the next change.
        while (is_starting || !detaches)
            && (is_starting
                || !session.alive.is_empty()
                || !works.is_empty()
                || on.is_some() && session.stopping == Stopping::No)
        {
            let before = session.stopping;
            let mut is_signalled = false;
            tokio::select! {
                biased;
                _ = interrupt.recv() => is_signalled = true,
                _ = terminate.recv() => is_signalled = true,
                started = &mut starting, if is_starting => {
                    is_starting = false;
                    if let Err(error) = started
                        && session.stopping == Stopping::No
                    {
                        session.last_lines(&mut ends).await?;
                        return Err(error.into());
                    }
                    if watch.is_on && session.stopping == Stopping::No {
                        on = session.toggle(&watch, on)?;
                    }
                }
                Some(end) = ends.recv() => session.output_ended(&end).await?,
                result = watched(&mut on) => {
                    on = None;
                    if let Err(error) = result {
                        stream::warn(format_args!("Watch disabled with errors: {}", error.text().unwrap_or_default()));
                    }
                }
                event = events.next() => match event {
                    Some(event) => session.event(&event?).await?,
                    // The engine is gone, and with it all that could be told.
                    None => break,
                },
                wish = menu_wish(&mut menu) => match wish {
                    // What is being started is started first.
                    Wish::Detach => detaches = session.stopping == Stopping::No,
                    Wish::Watch => on = session.toggle(&watch, on)?,
                },
                Some(stopped) = works.next(), if !works.is_empty() => {
                    stopped?;
                    if session.stopping == Stopping::User {
                        break;
                    }
                    // What was never started never ends.
                    let started = std::mem::take(&mut session.started);
                    session.alive.retain(|id| started.contains(id));
                    session.started = started;
                }
            }
            if is_signalled || session.stopping != before {
                logs.set_footer("")?;
                menu = None;
            }
            if session.stopping != Stopping::No
                && let Some((_, stop)) = &on
            {
                stop.cancel();
            }
            if is_signalled {
                signals += 1;
                session.stopping = Stopping::User;
                is_starting = false;
                if signals == 1 {
                    stream::out("Gracefully Stopping... press Ctrl+C again to force\n")?;
                    works.push(session.stop());
                } else if signals == 2 {
                    works.push(session.kill());
                }
            } else if before == Stopping::No && session.stopping == Stopping::Cascade {
                stream::err("Aborting on container exit...");
                works.push(session.stop());
            }
        }
        logs.set_footer("")?;
        drop(menu);
        if detaches {
            return Ok(ExitCode::SUCCESS);
        }
        session.last_lines(&mut ends).await?;
        match (session.stopping, session.chosen_status.unwrap_or(session.status)) {
            (Stopping::User, 0) => Err(CommandError::interrupted()),
            (_, 0) => Ok(ExitCode::SUCCESS),
            (_, status) => Err(CommandError::status(status)),
        }
    }

    /// Begins to watch files, or asks the watch to end.
    fn toggle(&self, watch: &Watch<'s>, on: Option<On<'s>>) -> Result<Option<On<'s>>, CommandError> {
        if let Some((run, stop)) = on {
            stop.cancel();
            return Ok(Some((run, stop)));
        }
        let Some(watching) = watch.watching else {
            self.logs
                .aside("Watch is not yet configured. Learn more: https://docs.docker.com/compose/file-watch/")?;
            return Ok(None);
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let run: Work<'s> = Box::pin(async move { watching.run(&stopped).await });
        Ok(Some((run, stop)))
    }

    fn engine(&self) -> &'s Engine {
        &self.converge.engine
    }

    /// Attaches to the containers whose output is wanted, before they start.
    async fn attach_all(&mut self, containers: Vec<Container>) -> Result<(), CommandError> {
        let mut names = Vec::new();
        let mut chosen = Vec::new();
        for container in containers {
            // One that has ended since it was looked at did so before events were listened to: its end will not be heard of.
            let was_running = container.state == State::Running;
            let has_ended = was_running && !self.is_running(&container.id).await?;
            if self.wishes.monitored.contains(&container.service) && !has_ended {
                self.alive.insert(container.id.clone());
            }
            if was_running && !has_ended {
                self.started.insert(container.id.clone());
            }
            if self.wishes.attached.contains(&container.service) {
                // All names at first, so that the first line is already indented as the last.
                let name = container.log_name(&self.converge.project.name);
                let source = self.logs.source(&name);
                names.push(name);
                chosen.push((container, source));
            }
        }
        stream::out(format!("Attaching to {}\n", names.join(", ")))?;
        for (container, source) in chosen {
            let tty = self
                .converge
                .project
                .services
                .get(&container.service)
                .is_some_and(|service| service.tty);
            let path = format!("/containers/{}/attach?stream=1&stdout=1&stderr=1", container.id);
            let mut streams = match self.engine().hijack(&path, None).await {
                Ok(streams) => streams,
                // It has ended since it was looked at; its end is told of like any other.
                Err(ClientError::Refused { .. }) if container.state == State::Running => continue,
                Err(error) => return Err(error.into()),
            };
            let mut reader = Reader::new(source, Arc::clone(self.logs), self.wishes.timestamps);
            let (ended, end) = (self.ended.clone(), self.next_reader(&container.id));
            let number = end.reader;
            self.readers.spawn(async move {
                let mut frames = Frames::new(!tty);
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = streams.read(&mut buffer).await {
                    frames.push(&buffer[..count]);
                    while let Some((channel, piece)) = frames.next_piece() {
                        reader.push(channel, &piece);
                    }
                    reader.flush();
                }
                reader.finish();
                let _ = ended.send(end);
            });
            self.followed.insert(
                container.id,
                Followed {
                    source,
                    tty,
                    reader: number,
                    is_reading: true,
                    is_read: false,
                    end: None,
                    shown_until: 0,
                    last_line: Arc::default(),
                    again: None,
                },
            );
        }
        Ok(())
    }

    async fn is_running(&self, id: &str) -> Result<bool, CommandError> {
        match self
            .engine()
            .docker
            .inspect_container(id, None)
            .await
            .map_err(ClientError::from)
        {
            Ok(found) => Ok(found
                .state
                .is_some_and(|state| state.running == Some(true) || state.restarting == Some(true))),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Follows the log of a container that has been started (again) while we watch.
    async fn follow(&mut self, id: &str, event: &Event) -> Result<(), CommandError> {
        let service = event.attribute(labels::SERVICE).unwrap_or_default();
        let tty = match self.followed.get(id) {
            Some(followed) => followed.tty,
            None => self
                .converge
                .project
                .services
                .get(service)
                .is_some_and(|service| service.tty),
        };
        let (source, since) = match self.followed.get(id) {
            Some(followed) => match followed.last_line.load(Ordering::Relaxed) {
                0 => (followed.source, followed.shown_until),
                last_line => (followed.source, last_line + 1),
            },
            None => (self.logs.source(&self.name(event)), 0),
        };
        let since = format!("{}.{:09}", since / 1_000_000_000, since % 1_000_000_000);
        // Podman goes on with a log for a moment after a container has ended, and reads what it writes when it has been
        // started again.
        let is_timed = self.engine().is_podman();
        let timestamps = if is_timed { "&timestamps=1" } else { "" };
        let path = format!("/containers/{id}/logs?follow=1&stdout=1&stderr=1&since={since}{timestamps}");
        let mut output = match self.engine().log(&path, async || Ok(!tty)).await {
            Ok(output) => output,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut reader = Reader::new(source, Arc::clone(self.logs), self.wishes.timestamps);
        let (ended, end) = (self.ended.clone(), self.next_reader(id));
        let number = end.reader;
        let last_line = Arc::new(AtomicI64::new(0));
        let last_read = Arc::clone(&last_line);
        self.readers.spawn(async move {
            while let Ok(true) = output.receive().await {
                if is_timed {
                    while let Some((channel, piece, time)) = output.next_timed() {
                        reader.push(channel, &piece);
                        last_read.fetch_max(time.unwrap_or(0), Ordering::Relaxed);
                    }
                } else {
                    while let Some((channel, piece)) = output.next_piece() {
                        reader.push(channel, &piece);
                    }
                }
                reader.flush();
            }
            while let Some((channel, piece)) = output.next_piece() {
                reader.push(channel, &piece);
            }
            reader.finish();
            let _ = ended.send(end);
        });
        self.followed.insert(
            id.to_owned(),
            Followed {
                source,
                tty,
                reader: number,
                is_reading: true,
                is_read: false,
                end: None,
                shown_until: 0,
                last_line,
                again: None,
            },
        );
        Ok(())
    }

    /// Returns the name that is shown for the container of an event.
    fn name(&self, event: &Event) -> String {
        let container = Container {
            name: event.attribute("name").unwrap_or_default().to_owned(),
            service: event.attribute(labels::SERVICE).unwrap_or_default().to_owned(),
            labels: event.actor.attributes.clone(),
            ..Container::default()
        };
        container.log_name(&self.converge.project.name)
    }

    async fn event(&mut self, event: &Event) -> Result<(), CommandError> {
        let service = event.attribute(labels::SERVICE).unwrap_or_default().to_owned();
        let is_one_off = event.attribute(labels::ONE_OFF) == Some("True");
        let is_monitored = self.wishes.monitored.contains(&service);
        let is_attached = self.wishes.attached.contains(&service);
        if is_one_off || !is_monitored && !is_attached {
            return Ok(());
        }
        let id = event.actor.id.clone();
        match event.action.as_str() {
            "create" if is_monitored => {
                self.alive.insert(id);
            }
            "start" => {
                self.started.insert(id.clone());
                if is_monitored {
                    self.alive.insert(id.clone());
                }
                if is_attached && self.stopping == Stopping::No {
                    match self.followed.get_mut(&id).filter(|followed| followed.is_reading) {
                        Some(followed) if followed.end.is_some() => followed.again = Some(event.clone()),
                        Some(_) => {}
                        None => self.follow(&id, event).await?,
                    }
                }
            }
            "die" => self.died(id, &service, is_monitored, event).await?,
            "destroy" => {
                self.alive.remove(&id);
            }
            _ => {}
        }
        Ok(())
    }

    async fn died(&mut self, id: String, service: &str, is_monitored: bool, event: &Event) -> Result<(), CommandError> {
        let code = event.exit_code().unwrap_or_default();
        let found = self.engine().docker.inspect_container(&id, None).await;
        let found = match found.map_err(ClientError::from) {
            Ok(container) => Some(container),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        let state = found.as_ref().and_then(|container| container.state.as_ref());
        let restarts = state.is_some_and(|state| state.restarting == Some(true) || state.running == Some(true));
        if !restarts {
            self.alive.remove(&id);
        }
        if !is_monitored {
            return Ok(());
        }
        // docker compose tells of no ends that the user asked for.
        if self.stopping != Stopping::User {
            let end = format!("exited with code {code}{}", if restarts { " (restarting)" } else { "" });
            self.tell_end(&id, end, event)?;
            if let Some(text) = found
                .as_ref()
                .and_then(|found| super::out_of_memory::explain(found, &self.converge.project))
            {
                stream::warn(text);
            }
        }
        let is_reason = match self.wishes.cascade {
            Cascade::None => false,
            Cascade::Exit => true,
            Cascade::Failure => code != 0,
        };
        if self.chosen_status.is_none() && self.wishes.exit_code_from.as_deref() == Some(service) {
            self.chosen_status = Some(code);
        }
        if is_reason && self.stopping == Stopping::No {
            self.status = code;
            self.stopping = Stopping::Cascade;
        }
        Ok(())
    }

    /// Tells a container's end, after its last line if that is still to come.
    fn tell_end(&mut self, id: &str, end: String, event: &Event) -> Result<(), CommandError> {
        let Some(followed) = self.followed.get_mut(id) else {
            let source = self.logs.source(&self.name(event));
            return Ok(self.logs.status(source, &end)?);
        };
        followed.shown_until = event.time_nano;
        if followed.is_read {
            followed.is_reading = false;
        }
        if !followed.is_reading {
            return Ok(self.logs.status(followed.source, &end)?);
        }
        followed.end = Some(end);
        // Something else may hold the container's output open.
        let ended = self.ended.clone();
        let end = OutputEnd {
            id: id.to_owned(),
            reader: followed.reader,
        };
        self.readers.spawn(async move {
            tokio::time::sleep(LAST_LINES).await;
            let _ = ended.send(end);
        });
        Ok(())
    }

    /// Returns what the next reader of a container's output tells when that ends.
    fn next_reader(&mut self, id: &str) -> OutputEnd {
        self.reader_count += 1;
        OutputEnd {
            id: id.to_owned(),
            reader: self.reader_count,
        }
    }

    async fn output_ended(&mut self, ended: &OutputEnd) -> Result<(), CommandError> {
        let id = ended.id.as_str();
        if let Some(followed) = self
            .followed
            .get_mut(id)
            .filter(|followed| followed.reader == ended.reader)
        {
            if let Some(end) = followed.end.take() {
                followed.is_reading = false;
                self.logs.status(followed.source, &end)?;
                if let Some(event) = followed.again.take() {
                    self.follow(id, &event).await?;
                }
            } else if !self.alive.contains(id) || self.started.contains(id) {
                followed.is_reading = false;
            } else {
                // Quick ones are over before we hear of their start.
                followed.is_read = true;
            }
        }
        Ok(())
    }

    /// Shows what ended containers wrote last.
    async fn last_lines(&mut self, ends: &mut mpsc::UnboundedReceiver<OutputEnd>) -> Result<(), CommandError> {
        // Longer than each end waits for its container's last lines, so that all ends are told.
        let deadline = tokio::time::sleep(LAST_LINES * 2);
        let mut deadline = pin!(deadline);
        loop {
            let is_pending = self
                .followed
                .iter()
                .any(|(id, followed)| followed.is_reading && !self.alive.contains(id) && self.started.contains(id));
            if !is_pending {
                break;
            }
            tokio::select! {
                Some(end) = ends.recv() => self.output_ended(&end).await?,
                () = &mut deadline => break,
            }
        }
        self.readers.abort_all();
        Ok(self.logs.flush()?)
    }

    /// Returns the work that stops the services.
    fn stop(&self) -> Work<'s> {
        let (context, converge, wishes) = (self.context, self.converge, self.wishes);
        Box::pin(async move {
            let observed = containers(converge).await?;
            let plan = lifecycle::stop(&converge.project, &observed, &wishes.services, wishes.timeout)?;
            let execution = Execution::new(
                &converge.engine,
                &converge.project,
                &observed,
                &plan,
                &converge.settings,
            );
            with_picture(context, "Stopping", |progress| async move {
                execution.run_all(&progress).await
            })
            .await
        })
    }

    /// Returns the work that ends the services at once.
    fn kill(&self) -> Work<'s> {
        let (context, converge, wishes) = (self.context, self.converge, self.wishes);
        Box::pin(async move {
            let observed = containers(converge).await?;
            let running = lifecycle::running(&converge.project, &observed, &wishes.services)
                .filter(|container| !container.one_off);
            let plan = lifecycle::for_each(running, "kill", |container| Action::Kill {
                container,
                signal: "SIGKILL".to_owned(),
            });
            let execution = Execution::new(
                &converge.engine,
                &converge.project,
                &observed,
                &plan,
                &converge.settings,
            );
            let killed = with_picture(context, "Killing", |progress| async move {
                execution.run_all(&progress).await
            })
            .await;
            // What ended in the meantime needs no killing.
            drop(killed);
            Ok(())
        })
    }
}

/// Waits for a wish of the user's; without a menu there is none.
async fn menu_wish(menu: &mut Option<Menu>) -> Wish {
    match menu {
        Some(menu) => menu.wish().await,
        None => std::future::pending().await,
    }
}

async fn containers(converge: &Converge) -> Result<Observed, CommandError> {
    Ok(Observed {
        containers: observed::containers(&converge.engine, &converge.project.name).await?,
        ..Observed::default()
    })
}

/// Shows what one container writes.
struct Reader {
    source: Source,
    logs: Arc<Logs>,
    lines: Lines,
    /// With times: beginnings of lines, of standard output and standard error.
    stamped: Option<[Vec<u8>; 2]>,
}

impl Reader {
    fn new(source: Source, logs: Arc<Logs>, timestamps: bool) -> Self {
        Self {
            source,
            logs,
            lines: Lines::new(source),
            stamped: timestamps.then(Default::default),
        }
    }

    // Where nobody reads our output any more, there is nobody to tell of it; the command goes on.
    fn push(&mut self, channel: Channel, piece: &[u8]) {
        let target = match channel {
            Channel::Out => Target::Out,
            Channel::Err => Target::Err,
        };
        let Some(stamped) = &mut self.stamped else {
            let _ = self.lines.push(&self.logs, target, piece);
            return;
        };
        let pending = &mut stamped[target as usize];
        pending.extend_from_slice(piece);
        while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            let _ = self.logs.line(self.source, target, &with_time(&line[..end]));
        }
    }

    fn flush(&self) {
        let _ = self.logs.flush();
    }

    fn finish(&mut self) {
        let _ = self.lines.finish(&self.logs);
        for (target, pending) in [Target::Out, Target::Err]
            .into_iter()
            .zip(self.stamped.iter_mut().flatten())
        {
            if !pending.is_empty() {
                let _ = self.logs.line(self.source, target, &with_time(pending));
                pending.clear();
            }
        }
        self.flush();
    }
}

fn with_time(line: &[u8]) -> Vec<u8> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%9fZ");
    let mut stamped = format!("{now} ").into_bytes();
    stamped.extend_from_slice(line);
    stamped
}
