//! The processes of a container, in the columns of `ps`.

use std::collections::HashMap;
use std::sync::Arc;

use super::container::{Container, Status};
use super::{Engine, EngineError, Result};

/// What `/proc` says of one process.
#[derive(Debug, Default)]
struct Process {
    pid: u32,
    ppid: u32,
    user: String,
    uid: u32,
    tty: String,
    state: String,
    name: String,
    command: String,
    /// Seconds of processor time.
    cpu: u64,
    /// Seconds since it began.
    elapsed: u64,
    /// Seconds of the epoch.
    started: i64,
    virtual_kib: u64,
    resident_kib: u64,
    nice: i64,
    threads: u64,
}

const FULL: [&str; 8] = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
const BSD: [&str; 11] = [
    "USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND",
];

impl Engine {
    /// Returns the titles and rows of `ps` with these arguments.
    pub async fn top(&self, container: &Arc<Container>, arguments: &str) -> Result<(Vec<String>, Vec<Vec<String>>)> {
        match container.status() {
            Status::Running | Status::Paused => {}
            Status::Restarting => {
                return Err(EngineError::Conflict(format!(
                    "Container {} is restarting, wait until the container is running",
                    container.id
                )));
            }
            _ => {
                return Err(EngineError::Conflict(format!(
                    "container {} is not running",
                    container.id
                )));
            }
        }
        let titles = titles(arguments)?;
        let live = container
            .live()
            .ok_or_else(|| EngineError::Conflict(format!("container {} is not running", container.id)))?;
        let columns = titles.clone();
        let rows = self
            .blocking(move || {
                let machine = Machine::read();
                let mut pids = live.processes();
                pids.sort_unstable();
                pids.into_iter()
                    .filter_map(|pid| read(pid, &machine))
                    .map(|process| columns.iter().map(|title| cell(&process, title, &machine)).collect())
                    .collect()
            })
            .await?;
        // What tells columns of the same title apart stays here.
        let titles = titles.iter().map(|title| title.trim_end_matches('#').to_owned());
        Ok((titles.collect(), rows))
    }
}

/// Returns the columns that arguments of `ps` ask for.
fn titles(arguments: &str) -> Result<Vec<String>> {
    let owned = |titles: &[&str]| titles.iter().map(|title| (*title).to_owned()).collect();
    let arguments = arguments.trim();
    let mut words = arguments.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let list = if let Some(rest) = word.strip_prefix('-')
            && let Some(position) = rest.find('o')
        {
            let rest = &rest[position + 1..];
            if rest.is_empty() {
                words.next().unwrap_or_default()
            } else {
                rest
            }
        } else if word == "o" {
            words.next().unwrap_or_default()
        } else {
            continue;
        };
        let titles: Result<Vec<String>> = list
            .split(',')
            .map(|column| {
                title_of(column.split('=').next().unwrap_or(column))
                    .map(str::to_owned)
                    .ok_or_else(|| {
                        EngineError::InvalidParameter(format!("ps: unknown user-defined format specifier \"{column}\""))
                    })
            })
            .collect();
        let titles = titles?;
        // moby: it cannot tell which rows are the container's otherwise.
        if !titles.iter().any(|title| title == "PID") {
            return Err(EngineError::InvalidParameter(
                "Couldn't find PID field in ps output".to_owned(),
            ));
        }
        return Ok(titles);
    }
    if arguments.contains('u') && !arguments.starts_with('-') {
        return Ok(owned(&BSD));
    }
    if arguments.starts_with('-') && !arguments.contains('f') {
        return Ok(owned(&["PID", "TTY", "TIME", "CMD"]));
    }
    Ok(owned(&FULL))
}

fn title_of(column: &str) -> Option<&'static str> {
    Some(match column {
        "pid" => "PID",
        "ppid" => "PPID",
        "uid" | "euid" => "UID#",
        "user" | "euser" | "uname" => "USER",
        "c" => "C",
        "pcpu" | "%cpu" => "%CPU",
        "pmem" | "%mem" => "%MEM",
        "vsz" | "vsize" => "VSZ",
        "rss" | "rssize" => "RSS",
        "tty" | "tt" | "tname" => "TTY",
        "stat" => "STAT",
        "s" | "state" => "S",
        "stime" | "start_time" => "STIME",
        "start" => "START",
        "etime" => "ELAPSED",
        "time" | "cputime" => "TIME",
        "comm" | "ucmd" | "ucomm" => "COMMAND#",
        "cmd" => "CMD",
        "args" | "command" => "COMMAND",
        "ni" | "nice" => "NI",
        "nlwp" | "thcount" => "NLWP",
        _ => return None,
    })
}

fn cell(process: &Process, title: &str, machine: &Machine) -> String {
    let percent = |part: u64, whole: u64| {
        let tenths = (part * 1000).checked_div(whole).unwrap_or(0);
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    match title {
        "UID" | "USER" => process.user.clone(),
        "UID#" => process.uid.to_string(),
        "PID" => process.pid.to_string(),
        "PPID" => process.ppid.to_string(),
        "C" => (process.cpu * 100)
            .checked_div(process.elapsed)
            .unwrap_or(0)
            .min(99)
            .to_string(),
        "%CPU" => percent(process.cpu, process.elapsed),
        "%MEM" => percent(process.resident_kib, machine.memory_kib),
        "VSZ" => process.virtual_kib.to_string(),
        "RSS" => process.resident_kib.to_string(),
        "TTY" => process.tty.clone(),
        "STAT" | "S" => process.state.clone(),
        "STIME" | "START" => started(process.started, machine.now),
        "ELAPSED" => clock(process.elapsed, false),
        "TIME" => clock(process.cpu, true),
        "COMMAND#" => process.name.clone(),
        "NI" => process.nice.to_string(),
        "NLWP" => process.threads.to_string(),
        _ => process.command.clone(),
    }
}

/// Writes seconds as `00:01:05`, or `01:05` where hours may be left out.
fn clock(seconds: u64, hours: bool) -> String {
    let (days, hour, minute, second) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    if days > 0 {
        format!("{days}-{hour:02}:{minute:02}:{second:02}")
    } else if hours || hour > 0 {
        format!("{hour:02}:{minute:02}:{second:02}")
    } else {
        format!("{minute:02}:{second:02}")
    }
}

/// Writes a moment of today as `22:34`, an older one as `Nov23`. The engine's clock is UTC, as Docker's mostly is.
fn started(moment: i64, now: i64) -> String {
    let Ok(moment_) = jiff::Timestamp::from_second(moment) else {
        return "?".to_owned();
    };
    let text = moment_.to_string();
    if now - moment < 86_400 {
        return text.get(11..16).unwrap_or("?").to_owned();
    }
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = text
        .get(5..7)
        .and_then(|month| month.parse::<usize>().ok())
        .unwrap_or(1);
    format!("{}{}", MONTHS[(month - 1).min(11)], text.get(8..10).unwrap_or("?"))
}

/// What is the same for all processes.
struct Machine {
    now: i64,
    boot: i64,
    ticks: u64,
    memory_kib: u64,
    users: HashMap<u32, String>,
}

impl Machine {
    fn read() -> Self {
        let now = jiff::Timestamp::now().as_second();
        let boot = std::fs::read_to_string("/proc/stat")
            .unwrap_or_default()
            .lines()
            .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
            .unwrap_or(now);
        let users = std::fs::read_to_string("/etc/passwd")
            .unwrap_or_default()
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?;
                let uid = fields.nth(1)?.parse().ok()?;
                Some((uid, name.to_owned()))
            })
            .collect();
        Self {
            now,
            boot,
            ticks: rustix::param::clock_ticks_per_second().max(1),
            memory_kib: rustix::system::sysinfo().totalram as u64 / 1024,
            users,
        }
    }
}

fn read(pid: u32, machine: &Machine) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let number = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let uid: u32 = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0);
    let mut command: String = std::fs::read(format!("/proc/{pid}/cmdline"))
        .ok()
        .map(|bytes| {
            let text: Vec<u8> = bytes.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
            String::from_utf8_lossy(&text).trim_end().to_owned()
        })
        .unwrap_or_default();
    if command.is_empty() {
        command = format!("[{name}]");
    }
    let start = number(19) / machine.ticks;
    let started = machine.boot + i64::try_from(start).unwrap_or(0);
    Some(Process {
        pid,
        ppid: u32::try_from(number(1)).unwrap_or(0),
        user: machine.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string()),
        uid,
        tty: terminal(number(4)),
        state: fields.first().copied().unwrap_or("?").to_owned(),
        name,
        command,
        cpu: (number(11) + number(12)) / machine.ticks,
        elapsed: u64::try_from(machine.now - started).unwrap_or(0),
        started,
        virtual_kib: number(20) / 1024,
        resident_kib: number(21) * (rustix::param::page_size() as u64) / 1024,
        nice: fields.get(16).and_then(|field| field.parse().ok()).unwrap_or(0),
        threads: number(17),
    })
}

fn terminal(device: u64) -> String {
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    match major {
        0 => "?".to_owned(),
        136..=143 => format!("pts/{}", minor + (major - 136) * 256),
        4 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_follow_the_arguments() {
        assert_eq!(titles("-ef").unwrap(), FULL);
        assert_eq!(titles("aux").unwrap(), BSD);
        assert_eq!(titles("-eo pid,comm").unwrap(), ["PID", "COMMAND#"]);
        assert_eq!(titles("o pid,args").unwrap(), ["PID", "COMMAND"]);
        assert!(titles("-o comm").is_err());
        assert!(titles("-o pid,odd").is_err());
    }

    #[test]
    fn times_are_written_as_ps_writes_them() {
        assert_eq!(clock(65, true), "00:01:05");
        assert_eq!(clock(65, false), "01:05");
        assert_eq!(clock(90_061, true), "1-01:01:01");
        assert_eq!(started(1_795_473_260, 1_795_473_300), "22:34");
        assert_eq!(started(1_795_473_260, 1_795_573_300), "Nov23");
    }

    #[test]
    fn this_very_process_is_found() {
        let machine = Machine::read();
        let process = read(std::process::id(), &machine).unwrap();
        assert!(process.command.contains("compose"));
        assert!(process.elapsed < 86_400);
    }
}
