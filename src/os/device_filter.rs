//! The unified hierarchy's device rules: a small eBPF program attached to a cgroup.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// A rule: what it speaks of, and whether that is allowed. A later rule wins over an earlier one.
#[derive(Clone, Copy, Debug)]
pub struct DeviceRule {
    /// Whether it allows.
    pub allow: bool,
    /// 1 for block, 2 for character devices, any where absent.
    pub kind: Option<u32>,
    /// The major number, any where absent.
    pub major: Option<u32>,
    /// The minor number, any where absent.
    pub minor: Option<u32>,
    /// 1 for mknod, 2 for read, 4 for write, or several of them.
    pub access: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xB7;
const MOVE_REGISTER: u8 = 0xBF;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_IF_NOT: u8 = 0x55;
const EXIT: u8 = 0x95;

/// Builds the program: kind in register 2, access in 3, major in 4, minor in 5; the last rule is asked first.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let step = |code, destination: u8, source: u8, offset, immediate| Instruction {
        code,
        registers: destination | source << 4,
        offset,
        immediate,
    };
    let mut code = vec![
        step(LOAD_WORD, 2, 1, 0, 0),
        step(MOVE_REGISTER, 3, 2, 0, 0),
        step(SHIFT_RIGHT, 3, 0, 0, 16),
        step(AND, 2, 0, 0, 0xFFFF),
        step(LOAD_WORD, 4, 1, 4, 0),
        step(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let mut tests = Vec::new();
        for (register, value) in [(2, rule.kind), (4, rule.major), (5, rule.minor)] {
            if let Some(value) = value {
                tests.push(step(JUMP_IF_NOT, register, 0, 0, value.cast_signed()));
            }
        }
        if rule.access & 7 != 7 {
            // An allowing rule must cover all of what is asked; a forbidding one any of it. Both are exact for
            // rules of all three, which is what every profile begins with.
            let outside = (!rule.access & 7).cast_signed();
            tests.push(step(MOVE_REGISTER, 1, 3, 0, 0));
            tests.push(step(AND, 1, 0, 0, outside));
            tests.push(step(JUMP_IF_NOT, 1, 0, 0, 0));
        }
        let length = tests.len();
        for (at, test) in tests.iter_mut().enumerate() {
            if test.code == JUMP_IF_NOT {
                // Past the remaining tests and the two instructions of the answer.
                test.offset = i16::try_from(length - at - 1 + 2).unwrap_or(i16::MAX);
            }
        }
        let decides_all = tests.is_empty();
        code.extend(tests);
        code.push(step(MOVE, 0, 0, 0, i32::from(rule.allow)));
        code.push(step(EXIT, 0, 0, 0, 0));
        // Nothing after it could be reached, and the kernel refuses programs with such parts.
        if decides_all {
            return code;
        }
    }
    code.push(step(MOVE, 0, 0, 0, 0));
    code.push(step(EXIT, 0, 0, 0, 0));
    code
}

#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Puts a cgroup under the rules.
pub fn attach(cgroup: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    const PROGRAM_LOAD: i32 = 5;
    const PROGRAM_ATTACH: i32 = 8;
    const CGROUP_DEVICE_PROGRAM: u32 = 15;
    const CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTIPLE: u32 = 2;
    let code = program(rules);
    let load = Load {
        kind: CGROUP_DEVICE_PROGRAM,
        count: u32::try_from(code.len()).unwrap_or(u32::MAX),
        instructions: code.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: `load` is the beginning of a bpf_attr of the size given; its pointers outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROGRAM_LOAD, &raw const load, size_of::<Load>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a non-negative result is a new descriptor that nobody else owns.
    let program = unsafe { OwnedFd::from_raw_fd(result as i32) };
    let directory = File::open(cgroup)?;
    let attach = Attach {
        target: directory.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind: CGROUP_DEVICE,
        flags: ALLOW_MULTIPLE,
    };
    // SAFETY: as above; both descriptors are open.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROGRAM_ATTACH, &raw const attach, size_of::<Attach>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
