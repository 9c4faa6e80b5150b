//! The flags that stand before the command, and the table of commands.

use clap::{CommandFactory, FromArgMatches, Subcommand};

use super::*;

/// The whole command line.
#[derive(Debug)]
pub struct CommandLine {
    pub globals: Globals,
    pub command: Option<Command>,
}

/// What the program is for.
const ABOUT: &str = "Define and run multi-container applications";

/// The command line before the command.
#[derive(Debug, clap::Parser)]
#[command(
    name = "compose",
    about = ABOUT,
    override_usage = "[OPTIONS] COMMAND",
    disable_help_flag = true,
    disable_help_subcommand = true,
    disable_version_flag = true
)]
struct Program {
    #[command(flatten)]
    globals: Globals,
}

impl CommandLine {
    /// Returns the declaration of all commands.
    pub fn declaration() -> clap::Command {
        Command::augment_subcommands(Program::command()).about(ABOUT)
    }

    /// Returns the declaration as far as a command line needs it that names one command: to declare all of them takes
    /// longer than most commands take.
    pub fn declaration_of(arguments: &[String]) -> Option<clap::Command> {
        let declare = arguments.iter().find_map(|argument| Command::declares(argument))?;
        Some(declare(Program::command()))
    }

    /// Takes the values that clap has read.
    pub fn of(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let command = matches.subcommand_name().map(|_| Command::from_arg_matches(matches));
        Ok(Self {
            globals: Globals::from_arg_matches(matches)?,
            command: command.transpose()?,
        })
    }
}

/// The flags that stand before the command.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct Globals {
    /// Include all resources, even those not used by services
    #[arg(long)]
    pub all_resources: bool,
    /// Control when to print ANSI control characters ("never"|"always"|"auto")
    #[arg(long, value_name = "string", default_value = "auto")]
    pub ansi: String,
    /// Run compose in backward compatibility mode
    #[arg(long)]
    pub compatibility: bool,
    /// Execute command in dry run mode
    #[arg(long)]
    pub dry_run: bool,
    /// Engine to use: embedded, docker, podman, or the address of its socket
    #[arg(long, value_name = "string")]
    pub engine: Option<String>,
    /// Specify an alternate environment file
    #[arg(long, value_name = "stringArray")]
    pub env_file: Vec<String>,
    /// Compose configuration files
    #[arg(short, long, value_name = "stringArray")]
    pub file: Vec<String>,
    /// Use insecure registry to pull Compose OCI artifacts. Doesn't apply to images
    #[arg(long, value_name = "stringArray", hide = true)]
    pub insecure_registry: Vec<String>,
    /// Do not print ANSI control characters (DEPRECATED)
    #[arg(long, hide = true)]
    pub no_ansi: bool,
    /// Control max parallelism, -1 for unlimited
    #[arg(long, value_name = "int", default_value_t = -1)]
    pub parallel: i64,
    /// Specify a profile to enable
    #[arg(long, value_name = "stringArray")]
    pub profile: Vec<String>,
    /// Set type of progress output (auto, tty, plain, json, quiet)
    #[arg(long, value_name = "string")]
    pub progress: Option<String>,
    /// Specify an alternate working directory (default: the path of the, first specified, Compose file)
    #[arg(long, value_name = "string")]
    pub project_directory: Option<String>,
    /// Project name
    #[arg(short, long, value_name = "string")]
    pub project_name: Option<String>,
    /// Directory of the embedded engine's state
    #[arg(long, value_name = "string")]
    pub state_dir: Option<String>,
    /// Show more output
    #[arg(long, hide = true)]
    pub verbose: bool,
    /// Show the Compose version information
    #[arg(short, long, hide = true)]
    pub version: bool,
    /// DEPRECATED! USE --project-directory INSTEAD.
    #[arg(long, value_name = "string", hide = true)]
    pub workdir: Option<String>,
}

impl Globals {
    /// Returns the flags that say the same to another process in the same directory, with progress for a log.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--ansi=never".to_owned(), "--progress=plain".to_owned()];
        for (name, is_set) in [
            ("--all-resources", self.all_resources),
            ("--compatibility", self.compatibility),
        ] {
            arguments.extend(is_set.then(|| name.to_owned()));
        }
        if self.parallel != -1 {
            arguments.push(format!("--parallel={}", self.parallel));
        }
        let one = [
            ("--engine", &self.engine),
            ("--project-directory", &self.project_directory),
            ("--project-name", &self.project_name),
            ("--state-dir", &self.state_dir),
        ];
        arguments.extend(
            one.into_iter()
                .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?))),
        );
        let many = [
            ("--env-file", &self.env_file),
            ("--file", &self.file),
            ("--insecure-registry", &self.insecure_registry),
            ("--profile", &self.profile),
        ];
        for (name, values) in many {
            arguments.extend(values.iter().map(|value| format!("{name}={value}")));
        }
        arguments
    }
}

/// Declares the commands: their variants and who runs each.
macro_rules! commands {
    ($($(#[$attribute:meta])* $variant:ident => $module:ident,)*) => {
        /// A command with its arguments.
        #[derive(Debug, clap::Subcommand)]
        pub enum Command {
            $($(#[$attribute])* $variant($module::Args),)*
        }

        impl Command {
            /// Returns what adds the declaration of one command to the program's.
            fn declares(name: &str) -> Option<fn(clap::Command) -> clap::Command> {
                $({
                    #[derive(clap::Subcommand)]
                    enum One {
                        $(#[$attribute])* $variant($module::Args),
                    }
                    if One::has_subcommand(name) {
                        return Some(One::augment_subcommands);
                    }
                })*
                None
            }

            /// Runs the command.
            pub async fn run(self, context: &Context) -> Result<ExitCode, CommandError> {
                match self {
                    $(Self::$variant(args) => $module::run(args, context).await,)*
                }
            }
        }
    };
}

commands! {
    #[command(hide = true)]
    Alpha => alpha,
    Attach => attach,
    Bridge => bridge,
    Build => build,
    Commit => commit,
    #[command(hide = true)]
    Completion => completion,
    #[command(alias = "convert")]
    Config => config,
    Cp => cp,
    Create => create,
    Df => df,
    Down => down,
    Events => events,
    Exec => exec,
    Export => export,
    #[command(hide = true, override_usage = "generate [OPTIONS] [CONTAINERS...]")]
    Generate => generate,
    Images => images,
    Kill => kill,
    Logs => logs,
    Ls => ls,
    #[command(hide = true)]
    Manual => manual,
    Pause => pause,
    Port => port,
    Prune => prune,
    Ps => ps,
    Publish => publish,
    Pull => pull,
    Push => push,
    Restart => restart,
    Rm => rm,
    Run => run,
    Scale => scale,
    Start => start,
    Stats => stats,
    Stop => stop,
    Top => top,
    Unpause => unpause,
    Up => up,
    Version => version,
    #[command(hide = true, override_usage = "viz [OPTIONS]")]
    Viz => viz,
    Volumes => volumes,
    Wait => wait,
    Watch => watch,
}

impl Command {
    /// Returns whether the command talks to an engine or waits for anything: it then needs the runtime's drivers.
    pub fn needs_drivers(&self) -> bool {
        !matches!(
            self,
            Self::Version(_) | Self::Bridge(_) | Self::Completion(_) | Self::Manual(_)
        )
    }

    /// Returns whether the command may fetch Compose files from other machines: those do that start something new, and
    /// `config` where it is asked to.
    pub fn may_fetch(&self) -> bool {
        match self {
            Self::Up(_) | Self::Create(_) | Self::Run(_) | Self::Build(_) | Self::Pull(_) => true,
            Self::Config(args) => args.fetch,
            _ => false,
        }
    }
}
