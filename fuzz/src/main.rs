//! Feeds texts that no person would write to everything that reads text: `run.sh [SECONDS] [TARGET…]`.
//!
//! Texts that reach code no earlier one reached are kept and changed further. A panic, a second for one text, or more
//! than 256 MiB of memory is a finding; its text is written to `found/` and the run fails.

mod coverage;
mod mutate;
mod targets;

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use coverage::Coverage;
use mutate::Mutator;
use targets::Target;

const TIME_LIMIT: Duration = Duration::from_secs(1);
const MEMORY_LIMIT_KIB: u64 = 256 << 10;
const MAX_LENGTH: usize = 16 << 10;

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next().unwrap_or_default();
    if first == "--replay" {
        return replay(arguments);
    }
    let seconds: u64 = first.parse().unwrap_or(60);
    let name = arguments.next().unwrap_or_default();
    let Some(target) = targets::ALL.iter().find(|target| target.name == name) else {
        let names: Vec<&str> = targets::ALL.iter().map(|target| target.name).collect();
        eprintln!(
            "usage: compose-fuzz SECONDS TARGET, where TARGET is one of {}",
            names.join(", ")
        );
        return std::process::ExitCode::from(2);
    };
    match fuzz(target, Duration::from_secs(seconds)) {
        Ok(0) => std::process::ExitCode::SUCCESS,
        Ok(_) => std::process::ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::from(2)
        }
    }
}

/// Runs findings of earlier: `--replay TARGET FILE…`.
fn replay(mut arguments: impl Iterator<Item = String>) -> std::process::ExitCode {
    let name = arguments.next().unwrap_or_default();
    for target in targets::ALL.iter().filter(|target| target.name == name) {
        for path in arguments.by_ref() {
            let text = std::fs::read(&path).unwrap_or_default();
            let start = Instant::now();
            (target.run)(&text);
            eprintln!("{path}: {:?}", start.elapsed());
        }
    }
    std::process::ExitCode::SUCCESS
}

fn fuzz(target: &Target, limit: Duration) -> std::io::Result<usize> {
    // A stack overflow cannot be caught; the text that caused it is in this file then.
    let name = format!("compose-fuzz-{}-current", target.name);
    // A disk would be asked for each text.
    let directory = Path::new("/dev/shm");
    let directory = if directory.is_dir() { directory } else { Path::new("/tmp") };
    let current = std::fs::File::create(directory.join(name))?;
    std::panic::set_hook(Box::new(|_| {}));
    let mut mutator = Mutator::new(target);
    let mut coverage = Coverage::default();
    let mut corpus: Vec<Vec<u8>> = target.seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let (start, mut runs, mut findings, mut slowest) = (Instant::now(), 0u64, 0usize, Duration::ZERO);
    let mut pending: Vec<Vec<u8>> = corpus.clone();
    while start.elapsed() < limit && findings < 20 {
        let mut text = pending.pop().unwrap_or_else(|| mutator.next(&corpus));
        text.truncate(MAX_LENGTH);
        current.set_len(0)?;
        current.write_all_at(&text, 0)?;
        coverage.clear();
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(&text)));
        let mut took = began.elapsed();
        // Other processes may have had the processor meanwhile.
        if took > TIME_LIMIT && outcome.is_ok() {
            let began = time_on_processor();
            (target.run)(&text);
            took = time_on_processor().saturating_sub(began);
        }
        runs += 1;
        slowest = slowest.max(took);
        let memory = if took > Duration::from_millis(20) {
            peak_memory()
        } else {
            0
        };
        let finding = match outcome {
            Err(panic) => Some(panic.downcast_ref::<String>().map_or_else(
                || {
                    panic
                        .downcast_ref::<&str>()
                        .map_or("panic".to_owned(), |text| (*text).to_owned())
                },
                Clone::clone,
            )),
            Ok(()) if took > TIME_LIMIT => Some(format!("took {took:?}")),
            Ok(()) if memory > MEMORY_LIMIT_KIB => Some(format!("took {memory} KiB")),
            Ok(()) => None,
        };
        if let Some(finding) = finding {
            findings += 1;
            std::fs::create_dir_all("found")?;
            let path = format!("found/{}-{findings}", target.name);
            std::fs::write(&path, &text)?;
            eprintln!("{}: {finding}: {path}", target.name);
            // What is there already would make every later text a finding too.
            if memory > MEMORY_LIMIT_KIB {
                break;
            }
        } else if coverage.is_new() && took < Duration::from_millis(300) {
            corpus.push(text);
        }
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{}: {runs} texts in {} s, {} kept, {} places reached, slowest {slowest:?}, peak {} MiB, {findings} findings",
        target.name,
        start.elapsed().as_secs(),
        corpus.len(),
        coverage.reached(),
        peak_memory() >> 10,
    )?;
    Ok(findings)
}

/// Returns how long the process has run so far, its waiting left out.
fn time_on_processor() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// Returns the most memory the process ever had, in KiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}
