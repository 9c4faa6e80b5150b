//! `compose oci`: the runtime under the command line of runc, for whatever drives or checks runtimes.
//!
//! Not a command like the others: it makes processes, so it is entered before any thread exists, and it reads its
//! arguments as runtimes do. A link to the program by the name `compose-oci` is this command.

mod arguments;
mod foreground;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use oci_spec::runtime::{Capability, LinuxResources, Process};
use serde_json::{Value, json};

use crate::engine::signals;
use crate::os::process::SingleThreaded;
use crate::runtime::oci::{Containers, Creation, Execution, OciError, Started};
use crate::runtime::{capability, spec};
use crate::ui::{stream, table};
use arguments::{Arguments, Command, Exec, Format, Make, Update};

/// The name under which the program is this command alone.
pub const NAME: &str = "compose-oci";

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Runtime(#[from] OciError),
    #[error("{0}")]
    Said(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Runs the command.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let line = std::iter::once(OsString::from(NAME)).chain(arguments);
    let arguments = match Arguments::try_parse_from(line) {
        Ok(arguments) => arguments,
        Err(error) => {
            let text = error.render().to_string();
            return if error.use_stderr() {
                stream::err(text.trim_end());
                ExitCode::FAILURE
            } else {
                let _ = stream::out(text);
                ExitCode::SUCCESS
            };
        }
    };
    let log = arguments.log.clone().map(|path| (path, arguments.log_format));
    match run(arguments) {
        Ok(code) => code,
        Err(failure) => {
            let text = failure.to_string();
            if let Some((path, format)) = log {
                note(&path, format, &text);
            }
            stream::err(format_args!("compose oci: {text}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes why a command failed where the caller looks for it.
fn note(path: &Path, format: Format, text: &str) {
    let time = crate::runtime::Timestamp::now().to_string();
    let line = match format {
        Format::Json => json!({"level": "error", "msg": text, "time": time}).to_string(),
        _ => format!("time={time:?} level=error msg={text:?}"),
    };
    let file = fs::OpenOptions::new().create(true).append(true).open(path);
    // Where the log cannot be written the standard error still tells.
    let _ = file.and_then(|mut file| writeln!(file, "{line}"));
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    if arguments.systemd_cgroup {
        return Err(Failure::Said(
            "--systemd-cgroup is not supported: cgroups are made in the cgroup file system".to_owned(),
        ));
    }
    let containers = Containers::in_directory(arguments.root.unwrap_or_else(default_root));
    let single =
        || SingleThreaded::check()?.ok_or_else(|| Failure::Said("the process has more than one thread".to_owned()));
    match arguments.command {
        Command::Create(make) => {
            let started = containers.create(&single()?, &creation(&make, false))?;
            warn(&started);
        }
        Command::Start { id } => containers.start(&id)?,
        Command::Run { make, detach, keep, .. } => {
            let single = single()?;
            return foreground::run(&single, &containers, &creation(&make, !detach), detach, keep);
        }
        Command::Exec(exec) => {
            let single = single()?;
            let what = execution(&containers, &exec)?;
            let started = containers.exec(&single, &exec.id, what)?;
            warn(&started);
            if !exec.detach {
                let carried = if exec.console_socket.is_some() {
                    None
                } else {
                    started.terminal.as_ref()
                };
                return Ok(ExitCode::from(foreground::attend(&started.child, carried)?));
            }
        }
        Command::State { id } => {
            let (record, status) = containers.get(&id)?;
            print(&record.state(status))?;
        }
        Command::Kill { id, signal, all } => {
            let number = signals::parse(&signal).map_err(|error| Failure::Said(error.to_string()))?;
            containers.kill(&id, number, all)?;
        }
        Command::Delete { ids, force } => {
            for id in ids {
                containers.delete(&id, force)?;
            }
        }
        Command::List { format, quiet } => list(&containers, format, quiet)?,
        Command::Ps { id, format, options } => processes(&containers, &id, format, &options)?,
        Command::Pause { id } => containers.freeze(&id, true)?,
        Command::Resume { id } => containers.freeze(&id, false)?,
        Command::Update(update) => {
            for warning in containers.update(&update.id, &resources(&update)?)? {
                stream::err(format_args!("warning: {warning}"));
            }
        }
        Command::Spec { bundle } => {
            let path = bundle.unwrap_or_default().join("config.json");
            let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
            file.write_all(&serde_json::to_vec_pretty(&spec::default_spec()).map_err(io::Error::from)?)?;
        }
        Command::Features => print(&crate::runtime::oci::features())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn default_root() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !rustix::process::geteuid().is_root());
    runtime.map_or_else(|| PathBuf::from("/run"), PathBuf::from).join(NAME)
}

fn creation(make: &Make, keeps_terminal: bool) -> Creation {
    Creation {
        id: make.id.clone(),
        bundle: make.bundle.clone().unwrap_or_else(|| PathBuf::from(".")),
        pid_file: make.pid_file.clone(),
        console_socket: make.console_socket.clone(),
        preserved: make.preserve_fds,
        keeps_terminal,
    }
}

fn warn(started: &Started) {
    for warning in &started.warnings {
        stream::err(format_args!("warning: {warning}"));
    }
}

fn print(value: &Value) -> Result<(), Failure> {
    Ok(stream::out(format!("{value:#}\n"))?)
}

/// Returns the process to run: one that a file tells whole, or the container's own with other words.
fn execution(containers: &Containers, exec: &Exec) -> Result<Execution, Failure> {
    let process = match &exec.process {
        Some(path) => {
            let bytes = fs::read(path).map_err(|error| Failure::Said(format!("{}: {error}", path.display())))?;
            serde_json::from_slice(&bytes).map_err(|error| Failure::Said(format!("{}: {error}", path.display())))?
        }
        None => changed(containers, exec)?,
    };
    if process.args().as_deref().unwrap_or_default().is_empty() {
        return Err(Failure::Said("process args cannot be empty".to_owned()));
    }
    if process.terminal() == Some(true) && exec.detach && exec.console_socket.is_none() {
        return Err(Failure::Said(
            "cannot allocate tty if the process will be detached without setting --console-socket".to_owned(),
        ));
    }
    Ok(Execution {
        process,
        pid_file: exec.pid_file.clone(),
        console_socket: exec.console_socket.clone(),
        preserved: exec.preserve_fds,
        ignores_pause: exec.ignore_paused,
    })
}

fn changed(containers: &Containers, exec: &Exec) -> Result<Process, Failure> {
    let (record, _) = containers.get(&exec.id)?;
    let mut process = record.spec.process().clone().unwrap_or_default();
    process.set_args(Some(exec.command.clone()));
    process.set_terminal(Some(exec.tty));
    if let Some(cwd) = &exec.cwd {
        process.set_cwd(cwd.clone());
    }
    process
        .env_mut()
        .get_or_insert_default()
        .extend(exec.env.iter().cloned());
    if exec.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    let number = |text: &str| {
        text.parse::<u32>()
            .ok()
            .filter(|number| *number != u32::MAX && text.bytes().all(|byte| byte.is_ascii_digit()))
            .ok_or_else(|| Failure::Said(format!("{text:?} is not a user's or group's number")))
    };
    if let Some(user) = &exec.user {
        let (uid, gid) = user
            .split_once(':')
            .map_or((user.as_str(), None), |(uid, gid)| (uid, Some(gid)));
        let target = process.user_mut();
        target.set_uid(number(uid)?);
        if let Some(gid) = gid {
            target.set_gid(number(gid)?);
        }
    }
    if !exec.additional_gids.is_empty() {
        let groups = process.user_mut().additional_gids_mut().get_or_insert_default();
        groups.extend(exec.additional_gids.iter());
    }
    if !exec.cap.is_empty() {
        let held = process
            .capabilities()
            .as_ref()
            .and_then(|sets| sets.bounding().as_ref());
        let mut set: Vec<Capability> = held.into_iter().flatten().copied().collect();
        for name in &exec.cap {
            let found = capability::by_name(name);
            set.push(found.ok_or_else(|| Failure::Said(format!("{name:?} is no capability")))?);
        }
        spec::set_capabilities(&mut process, &set);
    }
    Ok(process)
}

fn list(containers: &Containers, format: Format, quiet: bool) -> Result<(), Failure> {
    let all = containers.list()?;
    if quiet {
        let ids: String = all.iter().map(|(record, _)| format!("{}\n", record.id)).collect();
        return Ok(stream::out(ids)?);
    }
    if format == Format::Json {
        let states: Vec<Value> = all.iter().map(|(record, status)| record.state(*status)).collect();
        return Ok(stream::out(format!("{}\n", json!(states)))?);
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|(record, status)| {
            vec![
                record.id.clone(),
                record.state(*status)["pid"].to_string(),
                status.word().to_owned(),
                record.bundle.display().to_string(),
                record.created.to_string(),
            ]
        })
        .collect();
    let headings = ["ID", "PID", "STATUS", "BUNDLE", "CREATED"];
    Ok(stream::out(table::docker(&headings, &rows))?)
}

/// Tells a container's processes: by number, or as this host's `ps` does.
fn processes(containers: &Containers, id: &str, format: Format, options: &[String]) -> Result<(), Failure> {
    let numbers = containers.processes(id)?;
    if format == Format::Json {
        return Ok(stream::out(format!("{}\n", json!(numbers)))?);
    }
    let defaults = ["-ef".to_owned()];
    let options = if options.is_empty() { &defaults } else { options };
    let output = std::process::Command::new("ps").args(options).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let heading = lines.next().unwrap_or_default();
    let column = heading.split_whitespace().position(|word| word == "PID");
    let Some(column) = column else {
        return Err(Failure::Said("ps was not asked for a PID column".to_owned()));
    };
    let own = lines.filter(|line| {
        let number = line
            .split_whitespace()
            .nth(column)
            .and_then(|word| word.parse::<u32>().ok());
        number.is_some_and(|number| numbers.contains(&number))
    });
    let shown: String = std::iter::once(heading)
        .chain(own)
        .map(|line| format!("{line}\n"))
        .collect();
    Ok(stream::out(shown)?)
}

/// Returns the limits that an update asks for: a file's, or what the flags say.
fn resources(update: &Update) -> Result<LinuxResources, Failure> {
    let wrong = |error: serde_json::Error| Failure::Said(format!("the resources cannot be read: {error}"));
    if let Some(path) = &update.resources {
        let text = if path == Path::new("-") {
            io::read_to_string(io::stdin())?
        } else {
            fs::read_to_string(path)?
        };
        return serde_json::from_str(&text).map_err(wrong);
    }
    let without_nulls = |fields: Value| match fields {
        Value::Object(fields) => Value::Object(fields.into_iter().filter(|(_, value)| !value.is_null()).collect()),
        other => other,
    };
    let mut value = json!({
        "memory": without_nulls(json!({
            "limit": update.memory,
            "reservation": update.memory_reservation,
            "swap": update.memory_swap,
        })),
        "cpu": without_nulls(json!({
            "shares": update.cpu_share,
            "quota": update.cpu_quota,
            "period": update.cpu_period,
            "cpus": update.cpuset_cpus,
            "mems": update.cpuset_mems,
        })),
    });
    if let Some(limit) = update.pids_limit {
        value["pids"] = json!({"limit": limit});
    }
    if let Some(weight) = update.blkio_weight {
        value["blockIO"] = json!({"weight": weight});
    }
    serde_json::from_value(value).map_err(wrong)
}
