//! The watch that goes on when the terminal is gone: begun, asked, ended, and being it.
//!
//! The embedded engine keeps it and begins it again; on other engines, which know nothing of it, it is a process that
//! nobody keeps.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Child, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use rustix::process::{Signal, kill_process, test_kill_process};
use tokio::signal::unix::{SignalKind, signal};

use super::lifecycle::interruptible;
use super::watch::{Args, until_interrupted, up};
use super::watching::{Journal, Voice, Watching};
use super::{CommandError, Context, plugin};
use crate::client::{ClientError, Engine, EngineChoice, EngineKind};
use crate::engine::watches::{Home, Record, Report, Standing, Watched};
use crate::percent;
use crate::ui::{stream, table};
use crate::watch::Rules;

/// How often is looked whether a watch has begun, or has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How long a watch may take to finish what is under way when it is told to end.
const FAREWELL: Duration = Duration::from_secs(20);

/// Takes the right to be the only watch of a project, unless another has it.
pub fn lock(home: &Home) -> Result<File, CommandError> {
    let project = home.project();
    match home.take_lock() {
        Ok(Ok(lock)) => Ok(lock),
        Ok(Err(holder)) => {
            let pid = holder.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
            let error = CommandError::message(format!(
                "cannot take exclusive lock for project \"{project}\": process with PID {pid} is still running"
            ));
            Err(match home.background() {
                Some(_) => {
                    error.hint("it watches in the background: see \"watch --status\", end it with \"watch --stop\"")
                }
                None => error,
            })
        }
        Err(error) => Err(CommandError::message(format!(
            "cannot take exclusive lock for project \"{project}\": {error}"
        ))),
    }
}

/// Brings the project up and has it watched from now on, in place of a background watch that there is.
pub async fn begin(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    if context.globals.file.iter().any(|file| file == "-") {
        return Err(CommandError::message(
            "a project that is read from standard input cannot be watched in the background: it could not be read again",
        ));
    }
    let mut project = context.load_project(&args.services)?.project;
    Rules::of(&project)?;
    let home = Home::of(&context.engine_paths(), &project.name)?;
    if home.holder().is_some() && home.background().is_none() {
        lock(&home)?;
    }
    let engine = match args.no_up {
        true => interruptible(async { context.engine().await }).await?,
        false => interruptible(up(&args, context, &mut project)).await?,
    };
    let record = record(&args, context, &project.name, engine.kind());
    let mut child = None;
    match engine.kind() {
        EngineKind::Embedded => {
            let body = serde_json::to_value(&record).map_err(ClientError::Answer)?;
            standing(&engine, &project.name, Method::PUT, Some(body)).await?;
        }
        EngineKind::Foreign => {
            end_detached(&home).await?;
            home.set_record(&record)?;
            child = Some(home.command(&record)?.spawn()?);
        }
    }
    let pid = interruptible(begun(&engine, &home, child.as_mut())).await?;
    stream::out(format!(
        "Project \"{}\" is watched in the background (PID {pid}): see \"{program} watch --status\", end it with \
         \"{program} watch --stop\"\n",
        project.name,
        program = context.program
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns how the watch is run: with the flags and variables of this command.
fn record(args: &Args, context: &Context, project: &str, kind: EngineKind) -> Record {
    let mut globals = context.globals.clone();
    globals.project_name = Some(project.to_owned());
    let mut arguments = globals.arguments();
    arguments.extend([
        "watch".to_owned(),
        "--kept".to_owned(),
        format!("--prune={}", args.prune),
    ]);
    arguments.extend(args.quiet.then(|| "--quiet".to_owned()));
    arguments.push("--".to_owned());
    arguments.extend(args.services.iter().cloned());
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name != plugin::CALLED)
        .collect();
    Record {
        arguments,
        environment,
        directory: context.working_directory.clone(),
        is_detached: kind == EngineKind::Foreign,
    }
}

/// Waits until the watch misses nothing any more. One that ends instead is not begun again.
async fn begun(engine: &Engine, home: &Home, mut child: Option<&mut Child>) -> Result<i32, CommandError> {
    loop {
        let (standing, why) = match &mut child {
            None => {
                let standing = standing(engine, home.project(), Method::GET, None).await?;
                let why = standing.last_end.clone();
                (standing, why)
            }
            Some(child) => {
                let ended = child.try_wait()?.map(|status| format!("it ended with {status}"));
                (Standing::of(home), ended)
            }
        };
        if let Some(why) = why {
            let words = std::fs::read_to_string(home.log()).unwrap_or_default();
            end(engine, home).await?;
            let last = words.trim_end().lines().next_back().unwrap_or_default();
            return Err(CommandError::message(format!(
                "the watch in the background could not begin: {why}: {last}"
            )));
        }
        if let Some(pid) = standing.pid
            && standing.report.is_some_and(|report| report.is_watching)
        {
            return Ok(pid);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Shows how the watch stands.
pub async fn status(args: &Args, context: &Context) -> Result<ExitCode, CommandError> {
    let name = context.scope()?.name;
    let home = Home::of(&context.engine_paths(), &name)?;
    let is_kept = home.record().is_some_and(|record| !record.is_detached);
    let standing = match is_kept {
        true => {
            let engine = context.engine_of(&EngineChoice::Embedded).await?;
            standing(&engine, &name, Method::GET, None).await?
        }
        false => Standing::of(&home),
    };
    match args.format.as_str() {
        "text" => stream::out(shown(&name, &standing, &context.working_directory))?,
        "json" => {
            let json = serde_json::to_string(&standing).map_err(ClientError::Answer)?;
            stream::out(format!("{json}\n"))?;
        }
        other => {
            return Err(CommandError::message(format!(
                "unsupported --format value {}: expected \"text\" or \"json\"",
                stream::quoted(other)
            )));
        }
    }
    let is_watched = standing.pid.or(standing.foreground).is_some();
    Ok(if is_watched {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn shown(name: &str, standing: &Standing, working_directory: &Path) -> String {
    let report = standing.report.clone().unwrap_or_default();
    let mut text = match (standing.pid, standing.foreground) {
        (Some(pid), _) if report.is_watching => format!("{name}: watched since {} (PID {pid})\n", report.since),
        (Some(pid), _) => format!("{name}: about to be watched (PID {pid})\n"),
        (None, Some(pid)) => format!("{name}: watched in a terminal (PID {pid})\n"),
        (None, None) if standing.is_wanted => format!("{name}: not watched at the moment\n"),
        (None, None) => return format!("{name}: not watched in the background\n"),
    };
    if let Some(end) = &standing.last_end {
        let again = standing
            .next_start
            .map(|seconds| format!("; it begins again in {seconds} s"))
            .unwrap_or_default();
        text.push_str(&format!("  {end}; begun again {} times{again}\n", standing.restarts));
    }
    if standing.pid.is_none() && !standing.is_wanted {
        return text;
    }
    let rows: Vec<Vec<String>> = report
        .watched
        .iter()
        .map(|watched| row(watched, working_directory))
        .collect();
    if !rows.is_empty() {
        text.push_str(&table::docker(&["SERVICE", "ACTION", "PATH", "TARGET"], &rows));
    }
    text.push_str(&last(&report));
    text.push_str(&format!("log: {}\n", standing.log.display()));
    text
}

fn row(watched: &Watched, working_directory: &Path) -> Vec<String> {
    let path = Path::new(&watched.path);
    let path = match path.strip_prefix(working_directory) {
        Ok(inside) if inside.as_os_str().is_empty() => ".".to_owned(),
        Ok(inside) => inside.display().to_string(),
        Err(_) => watched.path.clone(),
    };
    [&watched.service, &watched.action, &path, &watched.target]
        .map(String::clone)
        .into()
}

fn last(report: &Report) -> String {
    let mut text = match &report.last {
        Some(entry) => format!("last: {} {}\n", entry.at, entry.text),
        None => String::new(),
    };
    for error in &report.errors {
        text.push_str(&format!("error: {} {}\n", error.at, error.text));
    }
    text
}

/// Ends the watch.
pub async fn stop(context: &Context) -> Result<ExitCode, CommandError> {
    let name = context.scope()?.name;
    let home = Home::of(&context.engine_paths(), &name)?;
    let Some(record) = home.record() else {
        let error = CommandError::message(format!("project \"{name}\" is not watched in the background"));
        return Err(match home.holder() {
            Some(pid) => error.hint(format!("it is watched in a terminal, by the process with PID {pid}")),
            None => error,
        });
    };
    if record.is_detached {
        end_detached(&home).await?;
        home.forget()?;
    } else {
        let engine = context.engine_of(&EngineChoice::Embedded).await?;
        end(&engine, &home).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends the watch of a project that is taken down, if there is one.
pub async fn end_with(context: &Context, engine: &Engine, project: &str) -> Result<(), CommandError> {
    let home = Home::of(&context.engine_paths(), project)?;
    match home.record() {
        Some(record) if record.is_detached == (engine.kind() == EngineKind::Foreign) => end(engine, &home).await,
        _ => Ok(()),
    }
}

async fn end(engine: &Engine, home: &Home) -> Result<(), CommandError> {
    match engine.kind() {
        EngineKind::Embedded => {
            let path = format!("/compose/watches/{}", percent::encoded(home.project()));
            engine.request(Method::DELETE, &path, None).await?;
        }
        EngineKind::Foreign => {
            end_detached(home).await?;
            home.forget()?;
        }
    }
    Ok(())
}

/// Ends a watch that nobody keeps, and does not wait for ever.
async fn end_detached(home: &Home) -> Result<(), CommandError> {
    let Some(process) = home.background() else {
        return Ok(());
    };
    let deadline = tokio::time::Instant::now() + FAREWELL;
    // It may end by itself at this moment.
    let _ = kill_process(process, Signal::TERM);
    while home.background() == Some(process) && test_kill_process(process).is_ok() {
        if tokio::time::Instant::now() > deadline {
            let _ = kill_process(process, Signal::KILL);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

async fn standing(
    engine: &Engine,
    project: &str,
    method: Method,
    body: Option<serde_json::Value>,
) -> Result<Standing, ClientError> {
    let path = format!("/compose/watches/{}", percent::encoded(project));
    engine.ask(method, &path, body).await
}

/// Is the watch in the background, until it is told to end.
pub async fn keep(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    // A session of its own, so that no terminal ends it.
    let _ = rustix::process::setsid();
    let _hangup = signal(SignalKind::hangup())?;
    let name = context.globals.project_name.clone().unwrap_or_default();
    let home = Home::of(&context.engine_paths(), &name)?;
    let _lock = lock(&home)?;
    if home.record().is_none() {
        return Err(CommandError::message("nobody wants this watch any more"));
    }
    let journal = Arc::new(Journal::begin(home.clone()));
    let watched = async {
        let project = context.load_project(&args.services)?.project;
        let engine = context.engine().await?;
        let voice = Voice::Journal(Arc::clone(&journal));
        let mut watching = Watching::new(context, &engine, &project, voice)?;
        watching.prune = args.prune;
        watching.quiet = args.quiet;
        watching.snapshot = Some(home.snapshot());
        until_interrupted(&watching).await
    };
    match watched.await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            journal.warn(&error.text().unwrap_or_else(|| "interrupted".to_owned()));
            Ok(ExitCode::FAILURE)
        }
    }
}
