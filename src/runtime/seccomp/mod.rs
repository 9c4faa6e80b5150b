//! Which system calls a container may make: Docker's default profile, profiles in Docker's JSON, and the compiler
//! that turns either into a filter program.
//!
//! A program is a balanced tree over the call's number: it loads in a fraction of the time that a list of comparisons
//! takes, and answers in a dozen steps.

mod compile;
mod json;
mod numbers;
mod profile;

use oci_spec::runtime::{Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompOperator};

pub use compile::compile;
pub use json::parse_docker_profile;
pub use profile::default_profile;

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The profile is not JSON of the expected form.
    #[error("decoding seccomp profile failed")]
    Parse(#[from] serde_json::Error),
    /// A profile names something that does not exist.
    #[error("seccomp profile: unknown {what} {value:?}")]
    Unknown {
        /// What kind of thing.
        what: &'static str,
        /// What the profile says.
        value: String,
    },
    /// The profile hands calls to a program, which this runtime does not.
    #[error("seccomp profile: SCMP_ACT_NOTIFY is not supported")]
    Notify,
    /// The profile has one call's rules run past what a jump can span.
    #[error("seccomp profile: too many rules for {0:?}")]
    TooManyRules(String),
    /// An argument's index is not 0 to 5.
    #[error("seccomp profile: a system call has no argument {0}")]
    NoSuchArgument(usize),
    /// The kernel takes programs of at most 4096 instructions.
    #[error("seccomp profile: the filter has {0} instructions, and the kernel takes 4096")]
    TooLong(usize),
}

/// Compiles a profile into the bytes of its program.
pub fn assemble(profile: &Profile<'_>) -> Result<Vec<u8>, SeccompError> {
    let program = compile(profile)?;
    Ok(program.iter().flat_map(|instruction| instruction.to_bytes()).collect())
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes through.
    Allow,
    /// It fails with this error number.
    Errno(u16),
    /// It goes through and is logged.
    Log,
    /// The thread gets SIGSYS.
    Trap,
    /// A tracer is asked; without one it fails.
    Trace(u16),
    /// The thread ends.
    KillThread,
    /// The process ends.
    KillProcess,
}

impl Action {
    /// Returns the value a filter returns for it.
    fn value(self) -> u32 {
        match self {
            Self::Allow => 0x7FFF_0000,
            Self::Errno(error) => 0x0005_0000 | u32::from(error),
            Self::Log => 0x7FFC_0000,
            Self::Trap => 0x0003_0000,
            Self::Trace(message) => 0x7FF0_0000 | u32::from(message),
            Self::KillThread => 0,
            Self::KillProcess => 0x8000_0000,
        }
    }

    fn from_oci(action: LinuxSeccompAction, errno: Option<u32>) -> Result<Self, SeccompError> {
        let errno = errno.map_or(1, |errno| u16::try_from(errno).unwrap_or(1));
        Ok(match action {
            LinuxSeccompAction::ScmpActAllow => Self::Allow,
            LinuxSeccompAction::ScmpActErrno => Self::Errno(errno),
            LinuxSeccompAction::ScmpActLog => Self::Log,
            LinuxSeccompAction::ScmpActTrap => Self::Trap,
            LinuxSeccompAction::ScmpActTrace => Self::Trace(errno),
            LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => Self::KillThread,
            LinuxSeccompAction::ScmpActKillProcess => Self::KillProcess,
            LinuxSeccompAction::ScmpActNotify => return Err(SeccompError::Notify),
        })
    }
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `argument == value`
    Equal,
    /// `argument != value`
    NotEqual,
    /// `argument & value == second`
    MaskedEqual,
    /// `argument > value`
    Greater,
    /// `argument >= value`
    GreaterOrEqual,
    /// `argument < value`
    Less,
    /// `argument <= value`
    LessOrEqual,
}

/// A test of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Which argument, from 0.
    pub index: u8,
    /// How it is compared.
    pub comparison: Comparison,
    /// With what.
    pub value: u64,
    /// The second operand, of `MaskedEqual`.
    pub second: u64,
}

/// What happens to a call whose arguments pass every test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule<'p> {
    /// The call's name.
    pub name: &'p str,
    /// What happens.
    pub action: Action,
    /// The tests.
    pub arguments: Vec<Argument>,
}

/// A filter in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile<'p> {
    /// What happens to a call that no rule speaks of.
    pub default: Action,
    /// The rules, the first that fits decides.
    pub rules: Vec<Rule<'p>>,
    /// Whether programs of the machine's other architectures (i386 and x32 on x86-64) run too.
    pub foreign: bool,
}

impl<'p> Profile<'p> {
    /// Reads the OCI form.
    pub fn from_oci(oci: &'p LinuxSeccomp) -> Result<Self, SeccompError> {
        let mut rules = Vec::new();
        for syscall in oci.syscalls().as_deref().unwrap_or_default() {
            let action = Action::from_oci(syscall.action(), syscall.errno_ret())?;
            let mut arguments = Vec::new();
            for argument in syscall.args().as_deref().unwrap_or_default() {
                arguments.push(Argument {
                    index: u8::try_from(argument.index())
                        .ok()
                        .filter(|index| *index < 6)
                        .ok_or(SeccompError::NoSuchArgument(argument.index()))?,
                    comparison: match argument.op() {
                        LinuxSeccompOperator::ScmpCmpEq => Comparison::Equal,
                        LinuxSeccompOperator::ScmpCmpNe => Comparison::NotEqual,
                        LinuxSeccompOperator::ScmpCmpMaskedEq => Comparison::MaskedEqual,
                        LinuxSeccompOperator::ScmpCmpGt => Comparison::Greater,
                        LinuxSeccompOperator::ScmpCmpGe => Comparison::GreaterOrEqual,
                        LinuxSeccompOperator::ScmpCmpLt => Comparison::Less,
                        LinuxSeccompOperator::ScmpCmpLe => Comparison::LessOrEqual,
                    },
                    value: argument.value(),
                    second: argument.value_two().unwrap_or_default(),
                });
            }
            // runc libcontainer/seccomp: tests of one argument twice are alternatives, not a conjunction.
            let repeated = (1..arguments.len()).any(|at| {
                arguments[..at]
                    .iter()
                    .any(|earlier| earlier.index == arguments[at].index)
            });
            for name in syscall.names() {
                if repeated {
                    rules.extend(arguments.iter().map(|argument| Rule {
                        name,
                        action,
                        arguments: vec![*argument],
                    }));
                } else {
                    rules.push(Rule {
                        name,
                        action,
                        arguments: arguments.clone(),
                    });
                }
            }
        }
        let architectures = oci.architectures().as_deref().unwrap_or_default();
        Ok(Self {
            default: Action::from_oci(oci.default_action(), oci.default_errno_ret())?,
            rules,
            foreign: architectures
                .iter()
                .any(|architecture| matches!(architecture, Arch::ScmpArchX86 | Arch::ScmpArchX32 | Arch::ScmpArchArm)),
        })
    }
}

/// Returns the name of a capability as profiles and the OCI write it.
pub fn capability_name(capability: Capability) -> String {
    format!("CAP_{capability}")
}
