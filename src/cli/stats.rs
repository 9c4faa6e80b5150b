//! `compose stats`: display a live stream of container(s) resource usage statistics.

use std::process::ExitCode;

use bollard::models::{ContainerCpuStats, ContainerStatsResponse, ContainerSummary};
use bollard::query_parameters::StatsOptionsBuilder;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::select_all;
use serde_json::{Value, json};

use super::containers::{self, OneOff, id, short_id};
use super::{CommandError, Context};
use crate::client::Engine;
use crate::ui::list::{self, Layout};
use crate::ui::{human, stream};

/// Display a live stream of container(s) resource usage statistics
#[derive(Debug, clap::Args)]
#[command(override_usage = "stats [OPTIONS] [SERVICE]")]
pub struct Args {
    /// Show all containers (default shows just running)
    #[arg(short = 'a', long)]
    pub all: bool,
    #[arg(
        long,
        value_name = "string",
        help = "Format output using a custom template:\n'table':            Print output in table format with column headers (default)\n'table TEMPLATE':   Print output in table format using the given Go template\n'json':             Print in JSON format\n'TEMPLATE':         Print output using the given Go template.\nRefer to https://docs.docker.com/engine/cli/formatting/ for more information about formatting output with templates"
    )]
    pub format: Option<String>,
    /// Disable streaming stats and only pull the first result
    #[arg(long)]
    pub no_stream: bool,
    /// Do not truncate output
    #[arg(long)]
    pub no_trunc: bool,
    #[arg(value_name = "SERVICE")]
    pub service: Option<String>,
}

const LAYOUT: Layout<'_> = Layout {
    headings: &[
        ("BlockIO", "BLOCK I/O"),
        ("CPUPerc", "CPU %"),
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("MemPerc", "MEM %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("Name", "NAME"),
        ("NetIO", "NET I/O"),
    ],
    table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    raw: "",
    kind: "*container.statsContext",
};

/// How often the table is drawn anew.
const INTERVAL: std::time::Duration = std::time::Duration::from_millis(500);

/// Shows what the project's containers use.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let scope = context.scope()?;
    let services: Vec<String> = args.service.iter().cloned().collect();
    scope.check_services(&services)?;
    let engine = context.engine().await?;
    let containers = containers::list(&engine, &scope.name, &services, OneOff::Include, args.all).await?;
    let format = args.format.as_deref().unwrap_or_default();
    let render = |samples: &[Option<ContainerStatsResponse>]| {
        let rows: Vec<Value> = containers
            .iter()
            .zip(samples)
            .map(|(container, sample)| fields(container, sample.as_ref(), !args.no_trunc))
            .collect();
        list::render(&LAYOUT, format, &rows, &|_, _, _| None)
    };
    if args.no_stream {
        let samples = join_all(containers.iter().map(|container| once(&engine, container))).await;
        stream::out(render(&samples)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut samples: Vec<Option<ContainerStatsResponse>> = vec![None; containers.len()];
    let streams = containers.iter().enumerate().map(|(at, container)| {
        let options = StatsOptionsBuilder::new().stream(true).build();
        engine
            .docker
            .stats(id(container), Some(options))
            .map(move |sample| (at, sample))
            .boxed()
    });
    let mut news = select_all(streams);
    let mut ticks = tokio::time::interval(INTERVAL);
    let mut is_first = true;
    loop {
        tokio::select! {
            Some((at, sample)) = news.next() => samples[at] = sample.ok(),
            _ = ticks.tick() => {
                let clear = match (stream::out_is_terminal(), std::mem::take(&mut is_first)) {
                    (true, true) => "\u{1b}[2J\u{1b}[H",
                    (true, false) => "\u{1b}[H",
                    (false, _) => "",
                };
                let picture = render(&samples)?;
                let picture = match stream::out_is_terminal() {
                    true => format!("{clear}{}\u{1b}[J", picture.replace('\n', "\u{1b}[K\n")),
                    false => picture,
                };
                stream::out(picture)?;
            }
            _ = tokio::signal::ctrl_c() => return Err(CommandError::interrupted()),
        }
    }
}

/// Takes one sample of a container, which may end meanwhile.
async fn once(engine: &Engine, container: &ContainerSummary) -> Option<ContainerStatsResponse> {
    let options = StatsOptionsBuilder::new().stream(false).build();
    engine.docker.stats(id(container), Some(options)).next().await?.ok()
}

fn fields(container: &ContainerSummary, sample: Option<&ContainerStatsResponse>, is_short: bool) -> Value {
    let id = id(container);
    let Some(sample) = sample else {
        return json!({
            "BlockIO": "-- / --", "CPUPerc": "--", "Container": id, "ID": if is_short { short_id(id) } else { id },
            "MemPerc": "--", "MemUsage": "-- / --", "Name": containers::name(container), "NetIO": "-- / --",
            "PIDs": "--",
        });
    };
    let (used, limit) = memory(sample);
    let percent = if limit > 0 {
        used as f64 / limit as f64 * 100.0
    } else {
        0.0
    };
    let (read, written) = block(sample);
    let (received, sent) = network(sample);
    let pair = |left: u64, right: u64| {
        format!(
            "{} / {}",
            human::short_size(left as f64),
            human::short_size(right as f64)
        )
    };
    let pids = sample.pids_stats.as_ref().and_then(|stats| stats.current).unwrap_or(0);
    json!({
        "BlockIO": pair(read, written),
        "CPUPerc": format!("{:.2}%", cpu_percent(sample)),
        "Container": id,
        "ID": if is_short { short_id(id) } else { id },
        "MemPerc": format!("{percent:.2}%"),
        "MemUsage": format!("{} / {}", human::binary_size(used as f64), human::binary_size(limit as f64)),
        "Name": containers::name(container),
        "NetIO": pair(received, sent),
        "PIDs": pids.to_string(),
    })
}

/// Returns the share of one processor that was used since the sample before, times 100.
fn cpu_percent(sample: &ContainerStatsResponse) -> f64 {
    let total = |stats: &ContainerCpuStats| {
        stats
            .cpu_usage
            .as_ref()
            .and_then(|usage| usage.total_usage)
            .unwrap_or(0)
    };
    let (Some(now), Some(before)) = (&sample.cpu_stats, &sample.precpu_stats) else {
        return 0.0;
    };
    let used = total(now) as f64 - total(before) as f64;
    let system = now.system_cpu_usage.unwrap_or(0) as f64 - before.system_cpu_usage.unwrap_or(0) as f64;
    let processors = f64::from(now.online_cpus.unwrap_or(1).max(1));
    if used > 0.0 && system > 0.0 {
        used / system * processors * 100.0
    } else {
        0.0
    }
}

/// Returns memory used and its limit. Pages of files that are not in use do not count, as for docker.
fn memory(sample: &ContainerStatsResponse) -> (u64, u64) {
    let Some(stats) = &sample.memory_stats else {
        return (0, 0);
    };
    let used = stats.usage.unwrap_or(0);
    let inactive = stats.stats.as_ref().and_then(|stats| {
        // The first name is that of cgroup v1.
        stats.get("total_inactive_file").or_else(|| stats.get("inactive_file"))
    });
    let inactive = inactive.copied().filter(|&inactive| inactive < used).unwrap_or(0);
    (used - inactive, stats.limit.unwrap_or(0))
}

fn block(sample: &ContainerStatsResponse) -> (u64, u64) {
    let entries = sample
        .blkio_stats
        .as_ref()
        .and_then(|stats| stats.io_service_bytes_recursive.as_deref())
        .unwrap_or_default();
    let sum = |letter: char| {
        entries
            .iter()
            .filter(|entry| {
                entry
                    .op
                    .as_deref()
                    .is_some_and(|operation| operation.to_lowercase().starts_with(letter))
            })
            .filter_map(|entry| entry.value)
            .sum()
    };
    (sum('r'), sum('w'))
}

fn network(sample: &ContainerStatsResponse) -> (u64, u64) {
    let interfaces = sample.networks.iter().flat_map(|networks| networks.values());
    interfaces.fold((0, 0), |(received, sent), interface| {
        (
            received + interface.rx_bytes.unwrap_or(0),
            sent + interface.tx_bytes.unwrap_or(0),
        )
    })
}
