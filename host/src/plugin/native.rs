//! The one module with `unsafe`: loading native code, and what the start of a confined process needs of the kernel
//! that no safe wrapper offers.
#![expect(unsafe_code, reason = "each function says what makes it sound")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use wasmtime::Engine;
use wasmtime::component::Component;

/// Loads native code that this program's own compiler process made.
///
/// # Errors
///
/// Code for another engine, other settings or a CPU with other features is refused.
pub(super) fn load(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes come from the host, over the socket it gave us, or from this binary. The host makes them with
    // `compiler`, from a component that the engine validated; nothing precompiled is taken from anybody else. Even a
    // deceived compiler gains nothing here: this process has its walls up before it loads anything.
    unsafe { Component::deserialize(engine, code) }
}

/// Closes every descriptor but 0, and hands out 0.
///
/// # Errors
///
/// The kernel's, below Linux 5.9.
pub(super) fn keep_only_stdin() -> io::Result<OwnedFd> {
    // SAFETY: called first in `main`, when nothing but the standard streams was opened; nobody holds one of the
    // descriptors that go away. Descriptor 0 is owned by nobody else: Rust's `Stdin` never closes it.
    unsafe {
        if libc::syscall(libc::SYS_close_range, 1_u32, u32::MAX, 0_u32) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(0))
    }
}
