//! From a profile to the instructions of a filter program.

use std::collections::BTreeMap;

use super::numbers::find;
use super::{Action, Argument, Comparison, Profile, Rule, SeccompError};
use crate::os::seccomp::Instruction;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Where the kernel shows a call to a filter: `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// The bit that marks an x32 call.
const X32: u32 = 0x4000_0000;
/// The longest conditional jump.
const REACH: usize = 255;
/// The longest program.
const LONGEST: usize = 4096;

const X86_64: u32 = 0xC000_003E;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xC000_00B7;

/// One architecture's part of a filter.
struct Table {
    /// `AUDIT_ARCH_*`.
    architecture: u32,
    /// The columns of the numbers' table, and what is added to a number of each.
    columns: &'static [(usize, u32)],
}

fn tables(foreign: bool) -> &'static [Table] {
    const NATIVE_X86_64: Table = Table {
        architecture: X86_64,
        columns: &[(0, 0)],
    };
    const BOTH_X86_64: Table = Table {
        architecture: X86_64,
        columns: &[(0, 0), (2, X32)],
    };
    const ONLY_I386: Table = Table {
        architecture: I386,
        columns: &[(1, 0)],
    };
    const ONLY_AARCH64: Table = Table {
        architecture: AARCH64,
        columns: &[(3, 0)],
    };
    match (cfg!(target_arch = "aarch64"), foreign) {
        (true, _) => &[ONLY_AARCH64],
        (false, false) => &[NATIVE_X86_64],
        (false, true) => &[BOTH_X86_64, ONLY_I386],
    }
}

/// Compiles a profile for this machine.
pub fn compile(profile: &Profile<'_>) -> Result<Vec<Instruction>, SeccompError> {
    let mut program = vec![statement(LOAD, ARCHITECTURE)];
    for table in tables(profile.foreign) {
        let body = tree(&segments(profile, table)?)?;
        program.push(test(JUMP_EQUAL, table.architecture, 1, 0));
        program.push(statement(JUMP, length(&body) + 1));
        program.push(statement(LOAD, NUMBER));
        program.extend(body);
    }
    // libseccomp's answer to an architecture that the filter does not speak of.
    program.push(statement(RETURN, Action::KillProcess.value()));
    if program.len() > LONGEST {
        return Err(SeccompError::TooLong(program.len()));
    }
    Ok(program)
}

/// The code for one call, or for a stretch of calls that are treated alike.
type Leaf = Vec<Instruction>;

/// Returns the stretches of numbers that are treated alike: where each begins and its code.
fn segments(profile: &Profile<'_>, table: &Table) -> Result<Vec<(u32, Leaf)>, SeccompError> {
    let mut by_name: BTreeMap<&str, Vec<&Rule<'_>>> = BTreeMap::new();
    for rule in &profile.rules {
        by_name.entry(rule.name).or_default().push(rule);
    }
    let default = vec![statement(RETURN, profile.default.value())];
    let mut result: Vec<(u32, Leaf)> = Vec::new();
    let mut append = |start: u32, leaf: Leaf| match result.last_mut() {
        Some((_, last)) if *last == leaf => {}
        Some((begin, last)) if *begin == start => *last = leaf,
        _ => result.push((start, leaf)),
    };
    for &(column, offset) in table.columns {
        let mut leaves: BTreeMap<u32, Leaf> = BTreeMap::new();
        for (name, rules) in &by_name {
            if let Some(number) = find(name).and_then(|call| call.number(column)) {
                leaves.insert(number + offset, leaf(name, rules, profile.default)?);
            }
        }
        let mut next = offset;
        for (number, leaf) in leaves {
            if number > next {
                append(next, default.clone());
            }
            append(number, leaf);
            next = number + 1;
        }
        // runc libcontainer/seccomp/patchbpf: a call newer than the profile "does not exist" rather than being
        // forbidden, or C libraries would not fall back to what it replaces.
        let beyond = match profile.default {
            Action::Errno(_) | Action::KillThread | Action::KillProcess | Action::Trap => {
                vec![statement(RETURN, Action::Errno(38).value())]
            }
            Action::Allow | Action::Log | Action::Trace(_) => default.clone(),
        };
        append(next, beyond);
    }
    if result.is_empty() || result[0].0 != 0 {
        result.insert(0, (0, default));
    }
    Ok(result)
}

/// Returns the code that decides about one call.
fn leaf(name: &str, rules: &[&Rule<'_>], default: Action) -> Result<Leaf, SeccompError> {
    // libseccomp: a rule without tests makes those with tests superfluous.
    if let Some(rule) = rules.iter().find(|rule| rule.arguments.is_empty()) {
        return Ok(vec![statement(RETURN, rule.action.value())]);
    }
    let mut code = Vec::new();
    for rule in rules {
        let mut body: Vec<Step> = rule.arguments.iter().flat_map(tests).collect();
        body.push(Step {
            code: RETURN,
            operand: rule.action.value(),
            on_true: To::Next,
            on_false: To::Next,
        });
        code.extend(assemble(name, &body)?);
    }
    code.push(statement(RETURN, default.value()));
    Ok(code)
}

/// Where a test goes on.
#[derive(Clone, Copy)]
enum To {
    /// With the next step.
    Next,
    /// So many steps further on.
    Skip(u8),
    /// After the rule: it does not fit.
    Fail,
}

#[derive(Clone, Copy)]
struct Step {
    code: u16,
    operand: u32,
    on_true: To,
    on_false: To,
}

/// Returns the steps that go on with what follows if the argument passes.
fn tests(argument: &Argument) -> Vec<Step> {
    let step = |code, operand, on_true, on_false| Step {
        code,
        operand,
        on_true,
        on_false,
    };
    let place = ARGUMENTS + 8 * u32::from(argument.index);
    let low = step(LOAD, place, To::Next, To::Next);
    let high = step(LOAD, place + 4, To::Next, To::Next);
    let [value_low, value_high] = halves(argument.value);
    let [second_low, second_high] = halves(argument.second);
    // The filter sees 32 bits at a time: the high half decides, unless it is equal.
    let ordered = |first: Step, equal: Step, code, on_true, on_false| {
        vec![high, first, equal, low, step(code, value_low, on_true, on_false)]
    };
    let high_equal = step(JUMP_EQUAL, value_high, To::Next, To::Fail);
    match argument.comparison {
        Comparison::Equal => vec![
            high,
            step(JUMP_EQUAL, value_high, To::Next, To::Fail),
            low,
            step(JUMP_EQUAL, value_low, To::Next, To::Fail),
        ],
        Comparison::NotEqual => vec![
            high,
            step(JUMP_EQUAL, value_high, To::Next, To::Skip(2)),
            low,
            step(JUMP_EQUAL, value_low, To::Fail, To::Next),
        ],
        Comparison::MaskedEqual => vec![
            high,
            step(AND, value_high, To::Next, To::Next),
            step(JUMP_EQUAL, second_high, To::Next, To::Fail),
            low,
            step(AND, value_low, To::Next, To::Next),
            step(JUMP_EQUAL, second_low, To::Next, To::Fail),
        ],
        Comparison::Greater | Comparison::GreaterOrEqual => ordered(
            step(JUMP_GREATER, value_high, To::Skip(3), To::Next),
            high_equal,
            if argument.comparison == Comparison::Greater {
                JUMP_GREATER
            } else {
                JUMP_GREATER_OR_EQUAL
            },
            To::Next,
            To::Fail,
        ),
        Comparison::Less | Comparison::LessOrEqual => ordered(
            step(JUMP_GREATER_OR_EQUAL, value_high, To::Next, To::Skip(3)),
            high_equal,
            if argument.comparison == Comparison::Less {
                JUMP_GREATER_OR_EQUAL
            } else {
                JUMP_GREATER
            },
            To::Fail,
            To::Next,
        ),
    }
}

fn halves(value: u64) -> [u32; 2] {
    [(value & 0xFFFF_FFFF) as u32, (value >> 32) as u32]
}

/// Turns steps into instructions; failing means jumping past the last of them.
fn assemble(name: &str, steps: &[Step]) -> Result<Vec<Instruction>, SeccompError> {
    let distance = |at: usize, to: To| match to {
        To::Next => Ok(0),
        To::Skip(count) => Ok(count),
        To::Fail => u8::try_from(steps.len() - at - 1).map_err(|_| SeccompError::TooManyRules(name.to_owned())),
    };
    steps
        .iter()
        .enumerate()
        .map(|(at, step)| {
            Ok(Instruction {
                code: step.code,
                jump_true: distance(at, step.on_true)?,
                jump_false: distance(at, step.on_false)?,
                operand: step.operand,
            })
        })
        .collect()
}

/// Returns code that finds the stretch a number lies in by halving.
fn tree(segments: &[(u32, Leaf)]) -> Result<Vec<Instruction>, SeccompError> {
    let [(_, only)] = segments else {
        let (lower, upper) = segments.split_at(segments.len() / 2);
        let first = upper[0].0;
        let lower = tree(lower)?;
        let mut code = Vec::new();
        if lower.len() <= REACH {
            code.push(test(JUMP_GREATER_OR_EQUAL, first, lower.len() as u8, 0));
        } else {
            code.push(test(JUMP_GREATER_OR_EQUAL, first, 0, 1));
            code.push(statement(JUMP, length(&lower)));
        }
        code.extend(lower);
        code.extend(tree(upper)?);
        return Ok(code);
    };
    Ok(only.clone())
}

fn length(code: &[Instruction]) -> u32 {
    u32::try_from(code.len()).unwrap_or(u32::MAX)
}

fn statement(code: u16, operand: u32) -> Instruction {
    test(code, operand, 0, 0)
}

fn test(code: u16, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction {
        code,
        jump_true,
        jump_false,
        operand,
    }
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runtime::seccomp::default_profile;

    /// Runs a program as the kernel does.
    fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut at = 0;
        let mut accumulator = 0;
        loop {
            let instruction = program[at];
            at += 1;
            let jump = |holds: bool| {
                usize::from(if holds {
                    instruction.jump_true
                } else {
                    instruction.jump_false
                })
            };
            match instruction.code {
                LOAD => {
                    accumulator = match instruction.operand {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        place => {
                            let place = place - ARGUMENTS;
                            halves(arguments[place as usize / 8])[place as usize / 4 % 2]
                        }
                    };
                }
                AND => accumulator &= instruction.operand,
                JUMP => at += instruction.operand as usize,
                JUMP_EQUAL => at += jump(accumulator == instruction.operand),
                JUMP_GREATER => at += jump(accumulator > instruction.operand),
                JUMP_GREATER_OR_EQUAL => at += jump(accumulator >= instruction.operand),
                RETURN => return instruction.operand,
                other => panic!("no such instruction: {other:#x}"),
            }
        }
    }

    fn ask(program: &[Instruction], name: &str, first: u64) -> u32 {
        let number = find(name).unwrap().number(0).unwrap();
        run(program, X86_64, number, [first, 0, 0, 0, 0, 0])
    }

    const ALLOWED: u32 = 0x7FFF_0000;
    const FORBIDDEN: u32 = 0x0005_0001;
    const MISSING: u32 = 0x0005_0026;

    #[test]
    fn the_default_profile_decides_as_docker_does() {
        let program = compile(&default_profile(|_| false)).unwrap();
        for (name, first, answer) in [
            ("read", 0, ALLOWED),
            ("writev", 0, ALLOWED),
            ("mount", 0, FORBIDDEN),
            ("io_uring_setup", 0, FORBIDDEN),
            ("clone", libc::CLONE_VM as u64, ALLOWED),
            ("clone", libc::CLONE_NEWUSER as u64, FORBIDDEN),
            ("clone3", 0, MISSING),
            ("socket", libc::AF_INET as u64, ALLOWED),
            ("socket", libc::AF_VSOCK as u64, FORBIDDEN),
            ("personality", 0xFFFF_FFFF, ALLOWED),
            ("personality", 0x4_0000, FORBIDDEN),
        ] {
            assert_eq!(ask(&program, name, first), answer, "{name}({first:#x})");
        }
        // mount has number 21 on i386, where 21 of x86-64 (access) is allowed.
        assert_eq!(run(&program, I386, 21, [0; 6]), FORBIDDEN);
        assert_eq!(run(&program, X86_64, 21, [0; 6]), ALLOWED);
        assert_eq!(run(&program, X86_64, X32, [0; 6]), ALLOWED);
        assert_eq!(run(&program, X86_64, 5000, [0; 6]), MISSING);
        assert_eq!(run(&program, AARCH64, 0, [0; 6]), 0x8000_0000);
    }

    #[test]
    fn capabilities_widen_the_default_profile() {
        let program = compile(&default_profile(|_| true)).unwrap();
        for name in ["mount", "clone3", "chroot", "bpf", "reboot"] {
            assert_eq!(ask(&program, name, 0), ALLOWED, "{name}");
        }
        assert_eq!(ask(&program, "clone", libc::CLONE_NEWUSER as u64), ALLOWED);
    }

    #[test]
    fn a_filter_stays_small() {
        let program = compile(&default_profile(|_| false)).unwrap();
        assert!(program.len() < 800, "{} instructions", program.len());
    }

    fn comparison() -> impl Strategy<Value = Comparison> {
        prop_oneof![
            Just(Comparison::Equal),
            Just(Comparison::NotEqual),
            Just(Comparison::MaskedEqual),
            Just(Comparison::Greater),
            Just(Comparison::GreaterOrEqual),
            Just(Comparison::Less),
            Just(Comparison::LessOrEqual),
        ]
    }

    fn word() -> impl Strategy<Value = u64> {
        prop_oneof![
            any::<u64>(),
            0_u64..3,
            (0_u64..3).prop_map(|high| high << 32),
            Just(u64::MAX)
        ]
    }

    proptest! {
        #[test]
        fn a_comparison_means_what_it_says(comparison in comparison(), value in word(), second in word(), given in word()) {
            let profile = Profile {
                default: Action::Errno(1),
                rules: vec![Rule {
                    name: "read",
                    action: Action::Allow,
                    arguments: vec![Argument { index: 2, comparison, value, second }],
                }],
                foreign: false,
            };
            let program = compile(&profile).unwrap();
            let holds = match comparison {
                Comparison::Equal => given == value,
                Comparison::NotEqual => given != value,
                Comparison::MaskedEqual => given & value == second,
                Comparison::Greater => given > value,
                Comparison::GreaterOrEqual => given >= value,
                Comparison::Less => given < value,
                Comparison::LessOrEqual => given <= value,
            };
            let answer = run(&program, X86_64, 0, [7, 7, given, 7, 7, 7]);
            prop_assert_eq!(answer, if holds { ALLOWED } else { FORBIDDEN });
        }

        #[test]
        fn every_number_gets_an_answer(number in any::<u32>(), foreign in any::<bool>()) {
            let mut profile = default_profile(|_| false);
            profile.foreign = foreign;
            let program = compile(&profile).unwrap();
            let answer = run(&program, X86_64, number, [0; 6]);
            prop_assert!([ALLOWED, FORBIDDEN, MISSING].contains(&answer));
        }
    }
}
