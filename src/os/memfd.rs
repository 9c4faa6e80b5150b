//! Files in memory: a sealed copy of this program, and messages too long for a socket.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};

const SEALS: SealFlags = SealFlags::SEAL
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// Copies a program into memory and seals it, so that whoever gets hold of the running program's file cannot
/// change it (CVE-2019-5736). A program that is such a copy already is used as it is, and its pages are shared.
pub fn sealed_program(path: &Path) -> io::Result<OwnedFd> {
    let mut source = File::open(path)?;
    if is_sealed(&source) {
        return Ok(source.into());
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels that may forbid executable memory files want to be asked for one; older ones do not know the flag.
    let copy = memfd_create("compose", flags | MemfdFlags::EXEC).or_else(|_| memfd_create("compose", flags))?;
    let mut copy = File::from(copy);
    io::copy(&mut source, &mut copy)?;
    fcntl_add_seals(&copy, SEALS)?;
    Ok(copy.into())
}

/// Returns whether a file is in memory and can never change again.
pub fn is_sealed(file: impl AsFd) -> bool {
    fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SEALS))
}

/// Goes on as a sealed copy of this program, with these arguments. Returns only if that fails.
pub fn become_copy(path: &Path, arguments: impl IntoIterator<Item = OsString>) -> io::Error {
    match sealed_program(path) {
        // The descriptor closes on exec, after the kernel has found the program by it.
        Ok(program) => Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
            .arg0("compose")
            .args(arguments)
            .exec(),
        Err(error) => error,
    }
}

/// Puts bytes into a file in memory.
pub fn with_bytes(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL).or_else(|_| memfd_create(name, flags))?;
    let mut file = File::from(file);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

/// Reads a file in memory from its beginning. Its position is left alone: forked processes share it.
pub fn read_all(file: &OwnedFd) -> io::Result<Vec<u8>> {
    let size = rustix::fs::fstat(file)?.st_size;
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::io::pread(file, &mut bytes[filled..], filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
