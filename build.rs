//! Tells the linker what the program's file looks like.
#![allow(clippy::print_stdout, reason = "this is how a build script talks to cargo")]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if knows_packed_relocations() {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Says whether the C library the program is linked with can read the addresses to adjust at its start as bits in a
/// map. There are tens of thousands, and written out one by one they are megabytes that every start has to read.
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
fn knows_packed_relocations() -> bool {
    use std::ffi::{CStr, c_char};
    unsafe extern "C" {
        safe fn gnu_get_libc_version() -> *const c_char;
    }
    // SAFETY: glibc returns a constant text of its own, ended by a zero.
    let version = unsafe { CStr::from_ptr(gnu_get_libc_version()) };
    let version = version.to_str().unwrap_or_default();
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    let mut numbers = version.split('.');
    let version = (number(numbers.next()), number(numbers.next()));
    // This machine's library is the program's, unless it is made for another machine.
    std::env::var("TARGET") == std::env::var("HOST") && version >= (2, 36)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64")))]
fn knows_packed_relocations() -> bool {
    false
}
