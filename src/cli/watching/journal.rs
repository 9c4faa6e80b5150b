//! What a watch in the background says: lines with the time in its log, and a report for whoever asks how it stands.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Mutex, PoisonError};

use crate::engine::watches::{Entry, Home, Report, Watched};
use crate::ui::stream;
use crate::watch::Rules;

/// How long the log may become before its older part goes.
const LONGEST_LOG: u64 = 4 << 20;
/// How much of it is kept then.
const KEPT_LOG: u64 = 1 << 20;
/// How many errors are remembered.
const ERRORS: usize = 5;

/// The log and the report of a watch in the background. Standard output is the log.
pub struct Journal {
    home: Home,
    report: Mutex<Report>,
}

impl Journal {
    /// Begins a new report.
    pub fn begin(home: Home) -> Self {
        let journal = Self {
            home,
            report: Mutex::new(Report {
                pid: std::process::id(),
                since: now(),
                ..Report::default()
            }),
        };
        journal.change(|_| {});
        journal
    }

    /// Notes what is watched.
    pub fn watches(&self, rules: &Rules) {
        let watched = rules.rules.iter().map(|rule| Watched {
            service: rule.service.clone(),
            action: rule.action.to_string(),
            path: rule.path.display().to_string(),
            target: if rule.action.syncs() {
                rule.target().to_owned()
            } else {
                String::new()
            },
        });
        let watched = watched.collect();
        self.change(|report| report.watched = watched);
    }

    /// Notes that no change is missed from now on.
    pub fn is_watching(&self) {
        self.change(|report| report.is_watching = true);
    }

    /// Notes what was done.
    pub fn say(&self, text: &str) {
        let entry = self.line(text);
        self.change(|report| report.last = Some(entry));
    }

    /// Notes what went wrong.
    pub fn warn(&self, text: &str) {
        let entry = self.line(&format!("warning: {text}"));
        let entry = Entry {
            text: text.trim_end().to_owned(),
            ..entry
        };
        self.change(|report| {
            report.errors.push(entry);
            let surplus = report.errors.len().saturating_sub(ERRORS);
            report.errors.drain(..surplus);
        });
    }

    fn line(&self, text: &str) -> Entry {
        let at = now();
        // A full disk is no reason to stop watching.
        let _ = stream::out(format!("{at} {}\n", text.trim_end()));
        let _ = self.shorten();
        Entry {
            at,
            text: text.to_owned(),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Report)) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut report);
        // Where its place is gone, nobody will ask.
        let _ = self.home.set_report(&report);
    }

    /// Lets go of the older part of a log that has become long. Every writer of it appends, so that what comes
    /// meanwhile goes after what is kept.
    fn shorten(&self) -> io::Result<()> {
        let mut log = File::options().read(true).append(true).open(self.home.log())?;
        let length = log.metadata()?.len();
        if length <= LONGEST_LOG {
            return Ok(());
        }
        log.seek(SeekFrom::Start(length - KEPT_LOG))?;
        let mut kept = Vec::new();
        log.read_to_end(&mut kept)?;
        let whole = kept.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        log.set_len(0)?;
        io::Write::write_all(&mut log, &kept[whole..])
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
