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

/// Closes every descriptor from this one on.
///
/// # Errors
///
/// The kernel's, below Linux 5.9.
pub(super) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: called first in `main` of a helper, when nothing but the standard streams was opened; nobody holds one of
    // the descriptors that go away.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0_u32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Descriptor 0, owned. Once.
pub(super) fn take_stdin() -> OwnedFd {
    // SAFETY: a helper's stdin is a socket that the host opened for it; Rust's `Stdin` never closes it, and no helper
    // calls this twice.
    unsafe { OwnedFd::from_raw_fd(0) }
}

/// Leaves this process, and all it starts, without a network.
///
/// # Errors
///
/// The kernel's, without `CAP_SYS_ADMIN`.
pub(super) fn leave_network() -> io::Result<()> {
    // SAFETY: only a new table of descriptors would be unsafe, which is not asked for.
    Ok(unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?)
}
