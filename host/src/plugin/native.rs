//! The one module with `unsafe`: loading native code, and what the start of a confined process needs of the kernel
//! that no safe wrapper offers.
#![expect(unsafe_code, reason = "each function says what makes it sound")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::thread::UnshareFlags;
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
    unshare(UnshareFlags::NEWNET)
}

/// Moves this process into new namespaces.
///
/// # Errors
///
/// The kernel's: without `CAP_SYS_ADMIN`, beyond a limit, or for a kind of namespace it was built without.
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: only a new table of descriptors would be unsafe, and that flag is taken out.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags.difference(UnshareFlags::FILES)) }?)
}

/// Goes on as two processes; both have the same parent. In the new one, the answer is none; in the old one, its number.
///
/// # Errors
///
/// The kernel's, when there are too many processes.
pub(super) fn split() -> io::Result<Option<i32>> {
    let flags = i64::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: a helper does this while it has one thread, so no lock is held and no other thread's state is lost; without
    // CLONE_VM the new process has a copy of everything, the stack included. The remaining arguments are for flags that
    // are not given; zero is right for them on every architecture.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_i64, 0_i64, 0_i64, 0_i64) };
    match pid {
        0 => Ok(None),
        1.. => Ok(Some(i32::try_from(pid).expect("the kernel's process numbers end at 2^22"))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Any system call, as an intruder makes it: its answer, or the error as a negative number.
#[cfg(feature = "faults")]
pub(super) fn system_call(number: i64, arguments: [i64; 6]) -> i64 {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: no caller hands out memory that is in use: arguments are numbers, addresses of constants that the call
    // reads, addresses that no call accepts, or memory that was mapped for it.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if answer == -1 { -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or_default()) } else { answer }
}

/// A constant's address, for [`system_call`].
#[cfg(feature = "faults")]
pub(super) fn address(text: &'static std::ffi::CStr) -> i64 {
    text.as_ptr().expose_provenance().cast_signed() as i64
}
