//! Keeping background watches alive: started when asked for, started again when they end by themselves, taken up by
//! the next engine when this one is gone.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use super::super::{Engine, EngineError, Result};
use super::home::{Home, Record, Report};
use crate::{os, rootless};

/// How long to wait before a watch that ended is begun again, the first time and at the most.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A watch that ran for so long ended for a new reason.
const GOOD_RUN: Duration = Duration::from_secs(60);
/// How long a watch may take to finish what is under way.
const FAREWELL: Duration = Duration::from_secs(10);

/// The background watches that this engine keeps.
#[derive(Debug, Default)]
pub struct Watches {
    kept: Mutex<BTreeMap<String, Kept>>,
}

#[derive(Debug)]
struct Kept {
    end: CancellationToken,
    ended: CancellationToken,
    news: Arc<Mutex<News>>,
}

/// How it went so far.
#[derive(Debug, Clone, Default)]
struct News {
    restarts: u32,
    last_end: Option<String>,
    next_start: Option<Instant>,
    /// The process that was started, whether or not it says so itself already.
    process: Option<Pid>,
}

/// How a project's watch stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Standing {
    /// Whether there is to be one.
    pub is_wanted: bool,
    /// The process that watches in the background.
    pub pid: Option<i32>,
    /// The process of somebody who watches in a terminal.
    pub foreground: Option<i32>,
    /// How often it had to be begun again.
    pub restarts: u32,
    /// How it ended last.
    pub last_end: Option<String>,
    /// In how many seconds it is begun again.
    pub next_start: Option<u64>,
    pub report: Option<Report>,
    pub log: PathBuf,
}

impl Standing {
    /// Reads how a watch stands, as far as its files tell.
    pub fn of(home: &Home) -> Self {
        let report = home.report();
        let (background, holder) = (home.background(), home.holder());
        let number = |pid: Pid| pid.as_raw_nonzero().get();
        Self {
            is_wanted: home.record().is_some(),
            pid: background.map(number),
            foreground: holder.filter(|_| background.is_none()).map(number),
            report,
            log: home.log(),
            ..Self::default()
        }
    }
}

impl Engine {
    /// Watches a project in the background from now on, in place of what watched it so before.
    pub async fn keep_watch(self: &Arc<Self>, project: &str, record: Record) -> Result<Standing> {
        let home = Home::of(&self.paths, project)?;
        if !record.directory.is_absolute() || record.arguments.is_empty() {
            return Err(EngineError::InvalidParameter(
                "a watch needs arguments and an absolute directory".to_owned(),
            ));
        }
        self.let_go(project).await;
        home.set_record(&record)?;
        // What it says of itself from now on is new.
        let _ = std::fs::remove_file(home.log());
        self.keep(home);
        self.watch_standing(project)
    }

    /// Ends a project's background watch and forgets it. Returns whether there was one.
    pub async fn end_watch(self: &Arc<Self>, project: &str) -> Result<bool> {
        let home = Home::of(&self.paths, project)?;
        let was_kept = self.let_go(project).await;
        home.forget()?;
        Ok(was_kept)
    }

    /// Returns how a project's watch stands.
    pub fn watch_standing(&self, project: &str) -> Result<Standing> {
        let mut standing = Standing::of(&Home::of(&self.paths, project)?);
        let kept = self.watches.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept.get(project) {
            let news = kept.news.lock().unwrap_or_else(PoisonError::into_inner);
            standing.restarts = news.restarts;
            standing.last_end.clone_from(&news.last_end);
            standing.next_start = news
                .next_start
                .map(|at| at.saturating_duration_since(Instant::now()).as_secs() + 1);
        }
        Ok(standing)
    }

    /// Goes on with the watches that an earlier engine kept.
    pub(in super::super) fn take_up_watches(self: &Arc<Self>) {
        for home in Home::all(&self.paths) {
            self.keep(home);
        }
    }

    fn keep(self: &Arc<Self>, home: Home) {
        let kept = Kept {
            end: CancellationToken::new(),
            ended: CancellationToken::new(),
            news: Arc::default(),
        };
        let (end, ended, news) = (kept.end.clone(), kept.ended.clone(), Arc::clone(&kept.news));
        let project = home.project().to_owned();
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            let _ended = ended.drop_guard();
            tokio::select! {
                () = end.cancelled() => {}
                () = closing.cancelled() => {}
                () = keep_going(&home, &news) => {}
            }
            let started = news.lock().unwrap_or_else(PoisonError::into_inner).process.take();
            if let Some(process) = started.or_else(|| home.background()) {
                farewell(process).await;
            }
        });
        self.watches
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(project, kept);
    }

    async fn let_go(&self, project: &str) -> bool {
        let kept = self
            .watches
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(project);
        let Some(kept) = kept else { return false };
        kept.end.cancel();
        kept.ended.cancelled().await;
        true
    }
}

/// Runs the watch again and again. Ends when it is not wanted any more.
async fn keep_going(home: &Home, news: &Mutex<News>) {
    let mut pause = PAUSE;
    while let Some(record) = home.record() {
        let begun = Instant::now();
        let how = match home.holder() {
            // An earlier engine's, or somebody's in a terminal: then our turn comes after.
            Some(process) => {
                gone(process).await;
                "ended".to_owned()
            }
            None => run(home, &record, news).await,
        };
        if home.record().is_none() {
            return;
        }
        pause = match begun.elapsed() > GOOD_RUN {
            true => PAUSE,
            false => pause.min(LONGEST_PAUSE),
        };
        tracing::warn!(project = home.project(), how, ?pause, "a background watch ended");
        {
            let mut news = news.lock().unwrap_or_else(PoisonError::into_inner);
            news.last_end = Some(how);
            news.next_start = Some(Instant::now() + pause);
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
        let mut news = news.lock().unwrap_or_else(PoisonError::into_inner);
        news.restarts += 1;
        news.next_start = None;
    }
}

/// Runs the watch once, and says how it ended.
async fn run(home: &Home, record: &Record, news: &Mutex<News>) -> String {
    let mut command = match home.command(record) {
        Ok(command) => tokio::process::Command::from(command),
        Err(cause) => return cause.chain(),
    };
    if let Some(owner) = rootless::owner() {
        command.env(rootless::VARIABLE, format!("{}:{}", owner.uid, owner.gid));
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(cause) => return format!("it could not be started: {cause}"),
    };
    let note = |process| news.lock().unwrap_or_else(PoisonError::into_inner).process = process;
    note(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let ended = child.wait().await;
    note(None);
    match ended {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("it ended with status {code}"),
            (None, signal) => format!("it was ended by signal {}", signal.unwrap_or_default()),
        },
        Err(cause) => cause.to_string(),
    }
}

/// Asks a watch to end, and does not wait for ever.
async fn farewell(process: Pid) {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::KILL] {
        let Some(descriptor) = descriptor(process) else { return };
        // Between the two looks it may have ended.
        let _ = rustix::process::pidfd_send_signal(&descriptor, signal);
        if tokio::time::timeout(FAREWELL, exited(descriptor)).await.is_ok() {
            return;
        }
    }
}

async fn gone(process: Pid) {
    if let Some(descriptor) = descriptor(process) {
        exited(descriptor).await;
    }
}

fn descriptor(process: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(process, PidfdFlags::NONBLOCK).ok()
}

/// Waits until a process has ended.
async fn exited(process: OwnedFd) {
    let watched: std::io::Result<AsyncFd<OwnedFd>> = os::socket::watch(process);
    if let Ok(watched) = watched {
        let _ = watched.readable().await;
    }
}
