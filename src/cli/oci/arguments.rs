//! The command line of an OCI runtime, as runc has it.

use std::path::PathBuf;

/// Runs containers as the OCI runtime specification has them, from bundles.
#[derive(Debug, clap::Parser)]
#[command(name = "compose oci", version, disable_help_subcommand = true)]
pub struct Arguments {
    /// Where containers are remembered
    #[arg(long, global = true)]
    pub root: Option<PathBuf>,
    /// Where to write why a command failed, besides the standard error
    #[arg(long, global = true)]
    pub log: Option<PathBuf>,
    /// How to write it
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub log_format: Format,
    /// Accepted for runc's sake: there is nothing more to tell
    #[arg(long, global = true)]
    pub debug: bool,
    /// Refused: cgroups are made in the cgroup file system
    #[arg(long, global = true)]
    pub systemd_cgroup: bool,
    /// Accepted for runc's sake: whether this is root is found out
    #[arg(long, global = true, hide = true)]
    pub rootless: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

/// A form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Json,
    Table,
    Text,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a container
    Create(Make),
    /// Start the process of a created container
    Start { id: String },
    /// Create and start a container
    Run {
        #[command(flatten)]
        make: Make,
        /// Leave the container to itself
        #[arg(short, long)]
        detach: bool,
        /// Do not delete the container once it has ended
        #[arg(long)]
        keep: bool,
        /// Accepted for runc's sake: a container's orphans go to whoever reaps
        #[arg(long, hide = true)]
        no_subreaper: bool,
    },
    /// Run a process in a container
    Exec(Exec),
    /// Print a container's state
    State { id: String },
    /// Send a signal to a container's first process
    Kill {
        id: String,
        #[arg(default_value = "SIGTERM")]
        signal: String,
        /// Send it to all of the container's processes
        #[arg(short, long)]
        all: bool,
    },
    /// Delete what is left of a container
    Delete {
        #[arg(required = true)]
        ids: Vec<String>,
        /// End it first where it runs
        #[arg(short, long)]
        force: bool,
    },
    /// List containers
    List {
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        format: Format,
        /// Print ids alone
        #[arg(short, long)]
        quiet: bool,
    },
    /// Print a container's processes
    Ps {
        id: String,
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        format: Format,
        /// What to ask the host's ps for
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Stop a container's processes where they are
    Pause { id: String },
    /// Let a container's processes go on
    Resume { id: String },
    /// Change a container's limits
    Update(Update),
    /// Write a spec with Docker's defaults to config.json
    Spec {
        #[arg(short, long)]
        bundle: Option<PathBuf>,
    },
    /// Print what this runtime can do
    Features,
}

/// What a container is made from.
#[derive(Debug, clap::Args)]
pub struct Make {
    pub id: String,
    /// The directory with config.json (default: the current one)
    #[arg(short, long)]
    pub bundle: Option<PathBuf>,
    /// Where to write the number of the container's first process
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// The socket that the terminal's other side is sent to
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// How many descriptors after the standard ones the process gets
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// Accepted for runc's sake: the root is always exchanged
    #[arg(long, hide = true)]
    pub no_new_keyring: bool,
}

/// A process to run in a container.
#[derive(Debug, clap::Args)]
pub struct Exec {
    pub id: String,
    /// What to run
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// A file that tells the whole process
    #[arg(short, long)]
    pub process: Option<PathBuf>,
    /// Leave the process to itself
    #[arg(short, long)]
    pub detach: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Its user, and with a colon its group, by number
    #[arg(short, long)]
    pub user: Option<String>,
    /// Further groups, by number
    #[arg(short = 'g', long)]
    pub additional_gids: Vec<u32>,
    /// Its working directory
    #[arg(long)]
    pub cwd: Option<PathBuf>,
    /// A variable more
    #[arg(short, long)]
    pub env: Vec<String>,
    /// A capability more
    #[arg(short, long)]
    pub cap: Vec<String>,
    /// Let it gain no privileges
    #[arg(long)]
    pub no_new_privs: bool,
    /// Where to write its number
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// The socket that the terminal's other side is sent to
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// How many descriptors after the standard ones it gets
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// Run it in a paused container too
    #[arg(long)]
    pub ignore_paused: bool,
}

/// Limits to change.
#[derive(Debug, clap::Args)]
pub struct Update {
    pub id: String,
    /// A file with all of them, - for the standard input
    #[arg(short, long)]
    pub resources: Option<PathBuf>,
    /// Memory, in bytes
    #[arg(long, allow_hyphen_values = true)]
    pub memory: Option<i64>,
    #[arg(long, allow_hyphen_values = true)]
    pub memory_reservation: Option<i64>,
    /// Memory and swap together
    #[arg(long, allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    #[arg(long)]
    pub cpu_share: Option<u64>,
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    #[arg(long)]
    pub cpu_period: Option<u64>,
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    #[arg(long)]
    pub blkio_weight: Option<u16>,
}
